//! The extent map of one image or of a chain.

use std::sync::Arc;

/// What a layer says of a run of guest bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Stored in this layer.
    Data,
    /// This layer says zeros.
    Zero,
    /// This layer says nothing: ask the parent, else zeros.
    Hole,
}

/// Where in a host file the bytes of an extent begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPosition {
    /// The host file's name, as the user or the image named it.
    pub file: Arc<str>,
    /// File offset in bytes.
    pub offset: u64,
}

/// A run of guest bytes of one kind. Runs need not be maximal: neighbours may be of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Guest offset in bytes.
    pub offset: u64,
    /// Length in bytes, never 0.
    pub len: u64,
    /// What the layer says of it.
    pub kind: ExtentKind,
    /// Where its bytes are, if they are stored plainly and contiguously (or, for a compressed
    /// extent, where the compressed bytes begin).
    pub host: Option<HostPosition>,
    /// Stored compressed.
    pub compressed: bool,
    /// Which layer of the chain said so: 0 the top. Drivers leave it 0.
    pub depth: u32,
}

impl Extent {
    /// Returns an extent without a host position.
    pub fn new(offset: u64, len: u64, kind: ExtentKind) -> Self {
        Self {
            offset,
            len,
            kind,
            host: None,
            compressed: false,
            depth: 0,
        }
    }

    /// Returns a data extent stored plainly at `host_offset` of `file`.
    pub fn data(offset: u64, len: u64, file: &Arc<str>, host_offset: u64) -> Self {
        let host = Some(HostPosition {
            file: Arc::clone(file),
            offset: host_offset,
        });
        Self {
            host,
            ..Self::new(offset, len, ExtentKind::Data)
        }
    }

    /// Returns the guest offset just past the extent.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Cuts the extent so that it ends at or before guest offset `end`.
    #[must_use]
    pub fn clipped(mut self, end: u64) -> Self {
        self.len = self.len.min(end.saturating_sub(self.offset));
        self
    }

    /// Takes `next` into this extent if it continues it in every respect. Returns whether it did.
    pub fn merge(&mut self, next: &Extent) -> bool {
        let continues_host = match (&self.host, &next.host) {
            (None, None) => true,
            (Some(a), Some(b)) => a.file == b.file && a.offset + self.len == b.offset,
            _ => false,
        };
        let same = self.end() == next.offset
            && self.kind == next.kind
            && self.depth == next.depth
            && !self.compressed
            && !next.compressed
            && continues_host;
        if same {
            self.len += next.len;
        }
        same
    }
}
