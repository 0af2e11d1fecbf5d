//! What is written in one ascending pass, counted and digested on its way.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hako_block::{Error, Result, Storage, StorageExtent};

use crate::digest::{Algorithm, HashingThread};

/// What went through a [`Recorder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Bytes.
    pub size: u64,
    /// Their digest, if one was asked for.
    pub digest: Option<Vec<u8>>,
}

/// Takes bytes in one ascending pass, passes them on to another storage from a certain offset on
/// (or to none), and counts them; a thread of its own digests them. Gaps are zeros. Nothing can be
/// read back, and it does not sync: who owns the storage behind it does.
pub struct Recorder {
    name: String,
    target: Option<(Arc<dyn Storage>, u64)>,
    state: Mutex<State>,
}

struct State {
    position: u64,
    hashing: Hashing,
}

enum Hashing {
    /// Nobody asked for it.
    No,
    Under(HashingThread),
    /// Ended, with this digest if one was asked for; nothing more is taken.
    Done(Option<Vec<u8>>),
}

impl Recorder {
    /// Returns a recorder that passes bytes on to `storage`, its first one to `offset`.
    pub fn onto(storage: Arc<dyn Storage>, offset: u64, digest: Option<Algorithm>) -> Result<Self> {
        Ok(Self {
            name: storage.name().to_owned(),
            target: Some((storage, offset)),
            state: State::new(digest)?,
        })
    }

    /// Returns a recorder that only counts and digests.
    pub fn nowhere(name: impl Into<String>, digest: Option<Algorithm>) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            target: None,
            state: State::new(digest)?,
        })
    }

    /// Ends the recording and returns what went through.
    pub fn end(&self) -> Result<Recorded> {
        let mut state = self.lock();
        let digest = match std::mem::replace(&mut state.hashing, Hashing::Done(None)) {
            Hashing::No => None,
            Hashing::Under(thread) => Some(thread.finish()?),
            Hashing::Done(digest) => digest,
        };
        state.hashing = Hashing::Done(digest.clone());
        Ok(Recorded {
            size: state.position,
            digest,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, state: &mut State, bytes: &[u8]) -> Result<()> {
        let end = state
            .position
            .checked_add(bytes.len() as u64)
            .ok_or_else(|| Error::invalid("is too large").in_file(&self.name))?;
        match &mut state.hashing {
            Hashing::No => {}
            Hashing::Under(thread) => thread.update(bytes)?,
            Hashing::Done(_) => return Err(self.one_way()),
        }
        if let Some((storage, offset)) = &self.target {
            storage.write_at(offset + state.position, bytes)?;
        }
        state.position = end;
        Ok(())
    }

    fn fill_to(&self, state: &mut State, offset: u64) -> Result<()> {
        static ZEROS: [u8; 65536] = [0; 65536];
        while state.position < offset {
            let len = (offset - state.position).min(ZEROS.len() as u64) as usize;
            self.append(state, &ZEROS[..len])?;
        }
        Ok(())
    }

    fn one_way(&self) -> Error {
        Error::unsupported("is written in one pass and cannot be gone back into")
            .in_file(&self.name)
    }
}

impl State {
    fn new(digest: Option<Algorithm>) -> Result<Mutex<Self>> {
        let hashing = match digest {
            Some(algorithm) => Hashing::Under(HashingThread::start(algorithm)?),
            None => Hashing::No,
        };
        Ok(Mutex::new(Self {
            position: 0,
            hashing,
        }))
    }
}

impl Storage for Recorder {
    fn name(&self) -> &str {
        &self.name
    }

    fn len_bytes(&self) -> Result<u64> {
        Ok(self.lock().position)
    }

    fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> Result<()> {
        Err(self.one_way())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut state = self.lock();
        if offset < state.position {
            return Err(self.one_way());
        }
        self.fill_to(&mut state, offset)?;
        self.append(&mut state, buf)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.lock();
        if len < state.position {
            return Err(self.one_way());
        }
        self.fill_to(&mut state, len)
    }

    fn punch_hole(&self, _range: Range<u64>) -> Result<()> {
        Err(self.one_way())
    }

    fn next_extent(&self, _offset: u64) -> Result<StorageExtent> {
        Err(self.one_way())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn is_blank(&self) -> bool {
        true
    }
}
