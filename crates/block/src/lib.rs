//! The contract of hako's data path: what a disk image is ([`BlockImage`]), what it is stored on
//! ([`Storage`]), where a copy is delivered ([`Sink`]), and the host's side of it: files, block
//! devices, locks, the gate and staged targets.
//!
//! This crate knows no disk format, prints nothing and reads no environment.

#![deny(unsafe_code)]

pub mod chain;
pub mod crc32c;
pub mod error;
pub mod extent;
pub mod file;
pub mod gate;
pub mod identity;
pub mod image;
mod layer_view;
pub mod lock;
pub mod memory;
pub mod parts;
pub mod progress;
pub mod saved;
pub mod sink;
pub mod staging;
pub mod storage;
mod sys;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod tree;
pub mod words;

pub use chain::Chain;
pub use crc32c::Crc32c;
pub use error::{Error, ErrorKind, Result};
pub use extent::{Extent, ExtentKind, HostPosition};
pub use file::{Access, FileStorage, PipeStorage, allow_many_files, free_bytes};
pub use gate::{Gate, GateRules, Opened, Resolver};
pub use identity::{ContentId, Uuid};
pub use image::{BlockImage, ImageInfo, ParentLink, Value, extents};
pub use layer_view::LayerView;
pub use lock::LockMode;
pub use memory::{MemoryFolder, MemoryStorage};
pub use parts::{Joined, Window};
pub use progress::{Cancel, NoProgress, Progress};
pub use saved::SavedCopy;
pub use sink::{Encode, Sink};
pub use staging::{Outputs, StagedFolder};
pub use storage::{FileId, Storage, StorageExtent, is_zero, write_zeros};
pub use tree::StagedTree;

/// Bytes in a sector, unless an image says otherwise.
pub const SECTOR_BYTES: u64 = 512;
