//! Changes files in a guest's file systems, in user space: ext2, ext3 and ext4 by a narrow writer of
//! its own, FAT by `fatfs`.
//!
//! It does what fitting a copy to other hardware needs and no more: replace the content of a file,
//! append to one, cut what was appended, make a file, a folder or a link in a folder that is there,
//! remove what was so made. What it does not know it refuses, and it does so before anything is
//! written: [`Ext`] and [`Fat`] work on a [`Staged`] volume, in memory. [`check`] looks at what came out of
//! that with another pair of eyes, the reader's, and [`Intent`] brings it to the disks: written down
//! first, so that a run that is cut off is completed by the next.

#![forbid(unsafe_code)]

mod check;
mod ext;
mod fat;
mod intent;
mod overlay;
mod staged;

pub use check::{check, check_tree};
pub use ext::{Ext, Traces};
pub use fat::Fat;
pub use intent::{Intent, Writes};
pub use overlay::Overlay;
pub use staged::{Piece, Staged};

/// What a new file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Its permissions (`0o7777`); FAT has none.
    pub mode: u16,
    /// When that was, in seconds since 1970.
    pub time: u32,
}
