//! The archive of an initrd: cpio in its "newc" form, with or without checksums.
//!
//! After `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux: a header of 110
//! characters (a magic number and 13 numbers of 8 hexadecimal digits), the name with its NUL, the
//! content; name and content are padded to 4 bytes. An entry `TRAILER!!!` ends the archive.

mod read;
mod write;

pub use read::Reader;
pub use write::{Writer, padding};

/// What an entry of an archive is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its path, without `/` or `./` before it; empty for the root.
    pub path: Vec<u8>,
    /// Its kind and permissions, as stat(2) has them.
    pub mode: u32,
    /// The length of its content in bytes; of a link, that of its path.
    pub len_bytes: u32,
}

/// The bits of a mode that say what kind of thing it is.
const KIND: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

impl Header {
    /// Returns whether it is a file.
    pub fn is_file(&self) -> bool {
        self.mode & KIND == FILE
    }

    /// Returns whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & KIND == DIRECTORY
    }

    /// Returns whether it is a symbolic link, whose content is a path.
    pub fn is_link(&self) -> bool {
        self.mode & KIND == LINK
    }
}

/// The magic number of an archive without checksums.
pub const NEWC: &[u8; 6] = b"070701";
/// The magic number of an archive with a checksum for each file.
pub const CRC: &[u8; 6] = b"070702";
const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
/// The longest path that Linux takes, its NUL included.
const LONGEST_PATH: u32 = 4096;

#[cfg(test)]
mod tests;
