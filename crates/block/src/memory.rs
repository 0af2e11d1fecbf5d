//! Storage and folders in memory: for tests, and for what is too small to need a file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::{
    Access, Error, ErrorKind, Opened, Outputs, Resolver, Result, Storage, StorageExtent, is_zero,
};

/// Bytes in memory. Holes are 4 KiB blocks of zeros.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    name: String,
    bytes: RwLock<Vec<u8>>,
}

const BLOCK: usize = 4096;

impl MemoryStorage {
    /// Returns storage that holds `bytes`.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            bytes: RwLock::new(bytes),
        }
    }

    /// Returns a copy of the content.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Storage for MemoryStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(self
            .bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let stored = start
            .checked_add(buf.len())
            .and_then(|end| bytes.get(start..end));
        let Some(stored) = stored else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} bytes needed, but the file ends before", buf.len()),
            )
            .in_file(&self.name)
            .at_byte(offset));
        };
        buf.copy_from_slice(stored);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_err(|_| Error::invalid("offset too large"))?;
        let end = start + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| Error::invalid("length too large"))?;
        self.bytes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .resize(len, 0);
        Ok(())
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let end = range.end.min(bytes.len() as u64) as usize;
        if let Some(hole) = bytes.get_mut(range.start as usize..end) {
            hole.fill(0);
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start >= bytes.len() {
            return Err(Error::invalid("extent past the end").in_file(&self.name));
        }
        let block_end = |at: usize| ((at / BLOCK + 1) * BLOCK).min(bytes.len());
        let data = !is_zero(&bytes[start..block_end(start)]);
        let mut end = block_end(start);
        while end < bytes.len() && is_zero(&bytes[end..block_end(end)]) != data {
            end = block_end(end);
        }
        Ok(StorageExtent {
            offset,
            len: (end - start) as u64,
            data,
        })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn is_blank(&self) -> bool {
        self.bytes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

/// A flat folder of named storages in memory; clones share it. Nothing leads out of it.
#[derive(Clone, Default)]
pub struct MemoryFolder {
    files: Arc<Mutex<BTreeMap<String, Arc<dyn Storage>>>>,
}

impl MemoryFolder {
    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<dyn Storage>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a storage under a name, replacing what was there.
    pub fn insert(&self, name: impl Into<String>, storage: Arc<dyn Storage>) {
        self.files().insert(name.into(), storage);
    }

    /// Returns the storage under a name.
    pub fn file(&self, name: &str) -> Option<Arc<dyn Storage>> {
        self.files().get(name).cloned()
    }
}

impl Resolver for MemoryFolder {
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
        self.insert(name, Arc::new(MemoryStorage::new(name, bytes.to_vec())));
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn create_new(&self, name: &str) -> Result<Arc<dyn Storage>> {
        match self.file(name) {
            Some(_) => Err(Error::new(ErrorKind::Exists, "exists already").in_file(name)),
            None => self.create(name),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        let removed = self.files().remove(name);
        let missing = || Error::new(ErrorKind::NotFound, "no such file").in_file(name);
        removed.map(|_| ()).ok_or_else(missing)
    }
}

impl Outputs for MemoryFolder {
    fn create(&self, name: &str) -> Result<Arc<dyn Storage>> {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(name, Vec::new()));
        self.insert(name, Arc::clone(&storage));
        Ok(storage)
    }
}
