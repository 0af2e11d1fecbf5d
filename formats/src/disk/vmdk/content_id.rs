//! The content ID: it changes at the first write after an open, before any data does, so that an
//! overlay, a backup or a change track made from the old content can tell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use hako_block::identity::random_u64;
use hako_block::{Result, SECTOR_BYTES, Storage};

use super::descriptor::{Descriptor, NO_PARENT};
use super::home::Home;

/// What VMware gives a disk that was never written.
const NEVER_WRITTEN: u32 = 0xffff_fffe;

/// Returns a random content ID of up to `n_digits` hexadecimal digits (1 to 8), other than `old`
/// and the values with a meaning of their own.
pub fn fresh_content_id(old: Option<u32>, n_digits: usize) -> u32 {
    content_id_from(random_u64, old, n_digits)
}

/// The same, made from these numbers.
pub fn content_id_from(mut next: impl FnMut() -> u64, old: Option<u32>, n_digits: usize) -> u32 {
    let unused_bits = 32 - 4 * n_digits.clamp(1, 8) as u32;
    loop {
        let id = (next() as u32) >> unused_bits;
        if !matches!(id, 0 | NO_PARENT | NEVER_WRITTEN) && Some(id) != old {
            return id;
        }
    }
}

/// Changes the content ID of an image once.
pub struct ContentMark {
    descriptor: Descriptor,
    home: Home,
    changed: AtomicBool,
    changing: Mutex<()>,
}

impl ContentMark {
    /// Returns a mark for the descriptor of an image just opened.
    pub fn new(descriptor: Descriptor, home: Home) -> Self {
        Self {
            descriptor,
            home,
            changed: AtomicBool::new(false),
            changing: Mutex::new(()),
        }
    }

    /// Changes the content ID on stable storage, unless that is done already.
    pub fn change(&self) -> Result<()> {
        if self.changed.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changed.load(Ordering::Acquire) {
            return Ok(());
        }
        let old = self.descriptor.content_id();
        match &self.home {
            Home::File { name, resolver } => {
                let id = fresh_content_id(old, 8);
                let text = self.descriptor.with_content_id(id);
                if text != self.descriptor.text() {
                    resolver.replace(name, &text)?;
                }
            }
            Home::Embedded { storage, offset } => {
                let n_digits = self.descriptor.content_id_digits().len();
                let id = fresh_content_id(old, if n_digits == 0 { 8 } else { n_digits });
                let text = self.descriptor.with_content_id_in_place(id);
                write_changed_sectors(&**storage, *offset, self.descriptor.text(), &text)?;
            }
        }
        self.changed.store(true, Ordering::Release);
        Ok(())
    }
}

fn write_changed_sectors(storage: &dyn Storage, offset: u64, old: &[u8], new: &[u8]) -> Result<()> {
    let sector = SECTOR_BYTES as usize;
    let mut changed = false;
    for (index, (old, new)) in old.chunks(sector).zip(new.chunks(sector)).enumerate() {
        if old != new {
            storage.write_at(offset + index as u64 * SECTOR_BYTES, new)?;
            changed = true;
        }
    }
    if changed { storage.sync() } else { Ok(()) }
}
