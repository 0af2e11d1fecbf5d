//! A folder in memory that remembers every operation, in one order for all its files, and can be
//! told to fail.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SparseBytes;
use crate::{
    Access, Error, ErrorKind, FileId, Opened, Outputs, Resolver, Result, SECTOR_BYTES, Storage,
    StorageExtent,
};

/// One operation that changed, or made durable, a file of a [`FaultFolder`]. `file` is the file's
/// number: a replaced file gets a new one.
#[derive(Debug, Clone)]
pub enum Op {
    /// A file came to be under a name (durable at once).
    Create {
        /// The file.
        file: usize,
        /// Its name.
        name: String,
    },
    /// Bytes were written.
    Write {
        /// The file.
        file: usize,
        /// File offset.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The length was set.
    SetLen {
        /// The file.
        file: usize,
        /// The new length.
        len: u64,
    },
    /// A hole was punched.
    Punch {
        /// The file.
        file: usize,
        /// What reads as zeros now.
        range: Range<u64>,
    },
    /// Everything before on this file is durable.
    Sync {
        /// The file.
        file: usize,
    },
    /// A name got a new file of that content, at once and durably.
    Replace {
        /// The new file.
        file: usize,
        /// Its name.
        name: String,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// A name is gone, at once and durably.
    Remove {
        /// The name.
        name: String,
    },
}

/// What to let fail. Operations are counted from 0, from when the fault was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The nth change (write, set_len, punch, sync, create, replace, remove) fails once with EIO. A write
    /// leaves the sectors of its first half behind.
    WriteEio(u64),
    /// From the nth change on, every write that needs new space fails with ENOSPC.
    DiskFull(u64),
    /// The nth read fails once with EIO.
    ReadEio(u64),
    /// At the nth read, once, the file seems to end in the middle of what was asked for.
    ReadShort(u64),
}

#[derive(Default)]
struct World {
    /// Content of every file there ever was, by number.
    contents: Vec<SparseBytes>,
    names: BTreeMap<String, usize>,
    log: Vec<Op>,
    fault: Option<Fault>,
    n_changes: u64,
    n_reads: u64,
    fired: bool,
}

impl World {
    fn new_file(&mut self, name: &str, content: SparseBytes) -> usize {
        let file = self.contents.len();
        self.contents.push(content);
        self.names.insert(name.to_owned(), file);
        file
    }

    /// Counts a change; fails if its turn has come. `needs_space` tells whether it takes new space.
    fn change(&mut self, name: &str, needs_space: bool) -> Result<()> {
        let n = self.n_changes;
        self.n_changes += 1;
        match self.fault {
            Some(Fault::WriteEio(nth)) if n == nth => self.fail(name, 5),
            Some(Fault::DiskFull(nth)) if n >= nth && needs_space => self.fail(name, 28),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, name: &str, errno: i32) -> Result<()> {
        self.fired = true;
        let error = std::io::Error::from_raw_os_error(errno);
        Err(Error::io("injected fault", error).in_file(name))
    }
}

/// A flat folder in memory; clones share it.
#[derive(Clone, Default)]
pub struct FaultFolder(Arc<Mutex<World>>);

impl FaultFolder {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a folder that holds these files, durably.
    pub fn with_files(files: impl IntoIterator<Item = (String, SparseBytes)>) -> Self {
        let folder = Self::default();
        for (name, content) in files {
            folder.world().new_file(&name, content);
        }
        folder
    }

    /// Puts a file of that content under a name, without logging it.
    pub fn insert(&self, name: &str, content: SparseBytes) {
        self.world().new_file(name, content);
    }

    /// Returns the files as they are now, by name.
    pub fn files(&self) -> BTreeMap<String, SparseBytes> {
        let world = self.world();
        let content = |file: &usize| world.contents[*file].clone();
        world
            .names
            .iter()
            .map(|(name, file)| (name.clone(), content(file)))
            .collect()
    }

    /// Writes the files as they are now into a folder of the host, for a peer to look at.
    ///
    /// Panics if the host fails.
    pub fn save(&self, folder: &Path) {
        for (name, content) in self.files() {
            content.save(&folder.join(name));
        }
    }

    /// Returns a folder with copies of the files and an empty log.
    pub fn copy(&self) -> Self {
        Self::with_files(self.files())
    }

    /// Sets what is to fail, and counts from 0 again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut world = self.world();
        world.fault = fault;
        world.n_changes = 0;
        world.n_reads = 0;
        world.fired = false;
    }

    /// Returns whether the fault has happened.
    pub fn fired(&self) -> bool {
        self.world().fired
    }

    /// Returns how many changes and reads there were since the last [`FaultFolder::set_fault`].
    pub fn counts(&self) -> (u64, u64) {
        let world = self.world();
        (world.n_changes, world.n_reads)
    }

    /// Returns how many operations the log holds.
    pub fn log_len(&self) -> usize {
        self.world().log.len()
    }

    /// Empties the log, returning it.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.world().log)
    }

    /// Returns each name's file number, as the log names it.
    pub fn numbers(&self) -> BTreeMap<String, usize> {
        self.world().names.clone()
    }

    /// Returns the file under a name.
    pub fn file(&self, name: &str) -> Option<Arc<FaultStorage>> {
        let file = *self.world().names.get(name)?;
        Some(Arc::new(FaultStorage {
            folder: self.clone(),
            file,
            name: name.to_owned(),
            blank: false,
        }))
    }
}

impl Resolver for FaultFolder {
    fn open(&self, name: &str, _access: Access) -> Result<Opened> {
        let storage = self
            .file(name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such file").in_file(name))?;
        Ok(Opened {
            storage,
            name: name.to_owned(),
            resolver: Arc::new(self.clone()),
        })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut world = self.world();
        world.change(name, true)?;
        let file = world.new_file(name, SparseBytes::from_bytes(bytes));
        world.log.push(Op::Replace {
            file,
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.files().into_keys().collect())
    }

    fn create_new(&self, name: &str) -> Result<Arc<dyn Storage>> {
        match self.file(name) {
            Some(_) => Err(Error::new(ErrorKind::Exists, "exists already").in_file(name)),
            None => self.create(name),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        let mut world = self.world();
        world.change(name, false)?;
        if world.names.remove(name).is_none() {
            return Err(Error::new(ErrorKind::NotFound, "no such file").in_file(name));
        }
        world.log.push(Op::Remove {
            name: name.to_owned(),
        });
        Ok(())
    }
}

impl Outputs for FaultFolder {
    fn create(&self, name: &str) -> Result<Arc<dyn Storage>> {
        let mut world = self.world();
        world.change(name, false)?;
        let file = world.new_file(name, SparseBytes::default());
        world.log.push(Op::Create {
            file,
            name: name.to_owned(),
        });
        drop(world);
        Ok(Arc::new(FaultStorage {
            folder: self.clone(),
            file,
            name: name.to_owned(),
            blank: true,
        }))
    }
}

/// A file of a [`FaultFolder`], open.
pub struct FaultStorage {
    folder: FaultFolder,
    file: usize,
    name: String,
    blank: bool,
}

impl FaultStorage {
    fn log(&self, world: &mut World, op: Op) {
        apply(&mut world.contents[self.file], &op);
        world.log.push(op);
    }
}

/// Does to a file's content what `op` says.
pub(super) fn apply(content: &mut SparseBytes, op: &Op) {
    match op {
        Op::Write { offset, bytes, .. } => content.write(*offset, bytes),
        Op::SetLen { len, .. } => content.set_len(*len),
        Op::Punch { range, .. } => content.punch(range.clone()),
        Op::Replace { bytes, .. } => *content = SparseBytes::from_bytes(bytes),
        Op::Create { .. } | Op::Sync { .. } | Op::Remove { .. } => {}
    }
}

impl Storage for FaultStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(self.folder.world().contents[self.file].len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut world = self.folder.world();
        let n = world.n_reads;
        world.n_reads += 1;
        let short = world.fault == Some(Fault::ReadShort(n));
        if world.fault == Some(Fault::ReadEio(n)) {
            return world.fail(&self.name, 5);
        }
        world.fired |= short;
        let asked = buf.len();
        let now = if short { asked / 2 } else { asked };
        if world.contents[self.file].read(offset, &mut buf[..now]) && !short {
            return Ok(());
        }
        let what = format!("{asked} bytes needed, but the file ends before");
        Err(Error::new(ErrorKind::Corrupt, what)
            .in_file(&self.name)
            .at_byte(offset))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut world = self.folder.world();
        let write = |bytes: &[u8]| Op::Write {
            file: self.file,
            offset,
            bytes: bytes.to_vec(),
        };
        let needs_space = world.contents[self.file].needs_space(offset, buf.len());
        if let Err(error) = world.change(&self.name, needs_space) {
            // Up to the end of a sector: inside one, all of a write happens or nothing.
            let middle = (offset + buf.len() as u64 / 2) / SECTOR_BYTES * SECTOR_BYTES;
            let half = &buf[..middle.saturating_sub(offset) as usize];
            if !world.contents[self.file].needs_space(offset, half.len()) {
                self.log(&mut world, write(half));
            }
            return Err(error);
        }
        self.log(&mut world, write(buf));
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut world = self.folder.world();
        world.change(&self.name, false)?;
        let file = self.file;
        self.log(&mut world, Op::SetLen { file, len });
        Ok(())
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let mut world = self.folder.world();
        world.change(&self.name, false)?;
        let end = range.end.min(world.contents[self.file].len());
        if range.start < end {
            let range = range.start..end;
            let file = self.file;
            self.log(&mut world, Op::Punch { file, range });
        }
        Ok(())
    }

    fn reserve(&self, _range: Range<u64>) -> Result<()> {
        self.folder.world().change(&self.name, true)
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        let world = self.folder.world();
        let content = &world.contents[self.file];
        if offset >= content.len() {
            return Err(Error::invalid("extent past the end").in_file(&self.name));
        }
        let (len, data) = content.run_at(offset);
        Ok(StorageExtent { offset, len, data })
    }

    fn sync(&self) -> Result<()> {
        let mut world = self.folder.world();
        world.change(&self.name, false)?;
        world.log.push(Op::Sync { file: self.file });
        Ok(())
    }

    fn id(&self) -> Option<FileId> {
        Some(FileId {
            device: u64::MAX,
            inode: self.file as u64,
        })
    }

    fn is_blank(&self) -> bool {
        self.blank
    }

    fn allocated_bytes(&self) -> Result<u64> {
        Ok(self.folder.world().contents[self.file].allocated_bytes())
    }
}
