//! OVA: an OVF with its files in one tar (DSP0243, section 5.3 "Packaging").
//!
//! [`Ova`] finds the members, which are then read where they lie; [`OvaWriter`] writes one in a
//! single pass. A tar that is compressed as a whole is not read: nothing in it has a place.

mod header;
mod members;
mod read;
mod record;
mod write;

pub use members::{Member, Members, Next};
pub use read::{NothingBeside, Ova, check_beginning, is_wrapped, looks_like_tar};
pub use record::{Recorded, Recorder};
pub use write::{OvaWriter, Place};

#[cfg(test)]
mod tests;
