//! What is served: one image under one name.

use std::sync::Arc;

use hako_block::{BlockImage, Error, Result};

use crate::protocol::{MAX_PAYLOAD, MAX_STRING, transmission};

/// An image and how clients see it.
#[derive(Clone)]
pub struct Export {
    image: Arc<dyn BlockImage>,
    name: String,
    writable: bool,
}

impl Export {
    /// Returns an export of `image` named `name`; clients that ask for no name get it too.
    /// Errors: a name that is too long or holds a NUL, `writable` of an image that is not.
    pub fn new(
        image: Arc<dyn BlockImage>,
        name: impl Into<String>,
        writable: bool,
    ) -> Result<Self> {
        let name = name.into();
        if name.len() > MAX_STRING || name.contains('\0') {
            return Err(Error::invalid(format!(
                "an export's name has at most {MAX_STRING} bytes and no NUL"
            )));
        }
        if writable && !image.info().writable {
            return Err(Error::read_only());
        }
        Ok(Self {
            image,
            name,
            writable,
        })
    }

    /// Returns the image.
    pub fn image(&self) -> &dyn BlockImage {
        &*self.image
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether clients may write.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Returns the size of the disk in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.image.info().virtual_size
    }

    /// Returns whether a client that asks for `name` means this export.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        name.is_empty() || name == self.name
    }

    /// Returns the transmission flags. All clients share one image, so what one of them flushes
    /// is flushed for all: they may use several connections.
    pub(crate) fn transmission_flags(&self, structured: bool) -> u16 {
        use transmission as flag;
        let mut flags = flag::HAS_FLAGS
            | flag::SEND_FLUSH
            | flag::SEND_FUA
            | flag::CAN_MULTI_CONN
            | flag::SEND_CACHE;
        if self.writable {
            flags |= flag::SEND_TRIM | flag::SEND_WRITE_ZEROES;
        } else {
            flags |= flag::READ_ONLY;
        }
        if structured {
            flags |= flag::SEND_DF;
        }
        flags
    }

    /// Returns the smallest, the preferred and the largest block in bytes. Any byte may be read
    /// and written alone; below the image's unit a write may have to fill or copy the rest.
    pub(crate) fn block_sizes(&self) -> [u32; 3] {
        const USUAL: u32 = 4096;
        let preferred = u32::try_from(self.image.info().unit_bytes)
            .ok()
            .filter(|unit| unit.is_power_of_two() && *unit <= MAX_PAYLOAD)
            .map_or(USUAL, |unit| unit.max(USUAL));
        [1, preferred, MAX_PAYLOAD]
    }
}
