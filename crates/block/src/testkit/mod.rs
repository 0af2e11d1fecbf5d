//! What the tests of every format share: storage that remembers, fails and forgets
//! ([`FaultFolder`]), and the suite that every format passes ([`conformance`]).
//!
//! Nothing here is part of hako: it is built for tests only, and panics where a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cut;
mod fault;
mod faults;
mod memory_image;
mod model;
mod qemu;
mod rng;
mod sparse;
mod subject;
mod suite;
#[cfg(test)]
mod toy;

pub use cut::{CutImage, cut_images};
pub use fault::{Fault, FaultFolder, FaultStorage, Op};
pub use memory_image::MemoryImage;
pub use qemu::{qemu_checks, qemu_name};
pub use rng::Rng;
pub use sparse::SparseBytes;
pub use subject::{CheckReport, Effort, Subject, Traits};

/// Runs the whole suite on one creatable variant of a format. Panics at the first failure, with
/// the subject's name.
pub fn conformance(subject: &dyn Subject, effort: Effort) {
    suite::run(subject, effort);
    faults(subject, effort);
}

/// Runs the fault half of the suite: failing reads and writes, a full disk, cuts.
pub fn faults(subject: &dyn Subject, effort: Effort) {
    faults::run(subject, effort);
}

/// Runs on an image that exists, made by other software, what of the suite applies. `folder`
/// holds it as `disk.EXTENSION`, `content` is what it holds.
pub fn conformance_of_existing(
    subject: &dyn Subject,
    folder: &FaultFolder,
    content: &[u8],
    effort: Effort,
) {
    let _context = model::Context(subject.name());
    let start = model::Start {
        folder: folder.copy(),
        content: content.to_vec(),
    };
    suite::run_existing(subject, &start, effort);
    faults::run_existing(subject, &start, effort);
}
