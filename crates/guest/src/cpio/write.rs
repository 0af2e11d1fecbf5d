//! Archives written: the same entries give the same bytes.

use std::io::{Result, Write};

use super::{DIRECTORY, FILE, LINK, NEWC, TRAILER};

/// An archive that is being written. Times are 0, owners root, and inodes are counted.
pub struct Writer<W> {
    output: W,
    at: u64,
    inode: u32,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(output: W) -> Self {
        Self {
            output,
            at: 0,
            inode: 0,
        }
    }

    /// Adds a directory with permissions 0755.
    pub fn directory(&mut self, path: &[u8]) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, b"")
    }

    /// Adds a file with these permissions. Errors: [`std::io::ErrorKind::InvalidInput`] for one of
    /// 4 GiB and more, which the form has no room for.
    pub fn file(&mut self, path: &[u8], permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(path, FILE | (permissions & 0o7777), content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.entry(path, LINK | 0o777, target)
    }

    /// Ends the archive; its length is a multiple of 4 bytes.
    pub fn finish(mut self) -> Result<W> {
        self.inode = 0;
        self.header(TRAILER, 0, 0, 0)?;
        Ok(self.output)
    }

    fn entry(&mut self, path: &[u8], mode: u32, content: &[u8]) -> Result<()> {
        let len = u32::try_from(content.len())
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        self.inode += 1;
        self.header(path, mode, self.inode, len)?;
        self.put(content)?;
        self.pad()
    }

    fn header(&mut self, path: &[u8], mode: u32, inode: u32, len: u32) -> Result<()> {
        let is_directory = mode & super::KIND == DIRECTORY;
        let n_links = if is_directory { 2 } else { 1 };
        let name_len = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let numbers = [inode, mode, 0, 0, n_links, 0, len, 0, 0, 0, 0, name_len, 0];
        self.put(NEWC)?;
        for number in numbers {
            self.put(format!("{number:08X}").as_bytes())?;
        }
        self.put(path)?;
        self.put(&[0])?;
        self.pad()
    }

    fn pad(&mut self) -> Result<()> {
        let len = padding(self.at);
        self.put([0; 4].get(..len).unwrap_or_default())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.output.write_all(bytes)
    }
}

/// Returns how many bytes lead from `at` to the next multiple of 4.
pub fn padding(at: u64) -> usize {
    (at.wrapping_neg() % 4) as usize
}
