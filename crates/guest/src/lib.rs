//! What is on a guest's disk: partitions, logical volumes and arrays, file systems, and what they
//! boot. Everything is read-only, in user space, over any [`BlockImage`](hako_block::BlockImage).
//!
//! A guest's disk is hostile: every number in it is checked before it is used, memory is taken only
//! for what the volume's own length bears out, and a link leads nowhere but inside the image.
//!
//! This crate opens no files of the host, prints nothing and knows no disk format.

#![forbid(unsafe_code)]

pub mod boot;
pub mod bytes;
pub mod check;
pub mod cpio;
mod crc32;
pub mod date;
pub mod direct;
pub mod drivers;
pub mod fs;
mod glob;
pub mod initrd;
pub mod kernel;
pub mod luks;
mod lvm;
mod lzo;
mod mapped;
mod md;
pub mod os;
pub mod partitions;
pub mod root;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod tree;
pub mod used;
pub mod volume;
pub mod volumes;

pub use fs::{Entry, FileSystem, FsInfo, NodeId, NodeKind, Stat, Time};
pub use luks::Keys;
pub use tree::{Found, Tree};
pub use used::{Ranges, UsedMap, VolumeUse};
pub use volume::{Disk, Place, Slice, Volume};
pub use volumes::{Content, FoundVolume, Origin, Role, Volumes};
