//! The sizes that follow from a header, and what an L2 entry says.

use hako_block::{Error, Result};

/// Bits 9 to 55 of a table entry: a file offset.
pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63 of a table entry: what it points to has a refcount of exactly one.
pub const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const READS_ZERO: u64 = 1;
/// Subclusters of a cluster with extended L2 entries.
pub const N_SUBCLUSTERS: u32 = 32;

/// Sizes of an image's tables and units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Cluster size, power of two: 9 to 21.
    pub cluster_shift: u32,
    /// Refcount width, power of two of bits: 0 to 6.
    pub refcount_order: u32,
    /// Whether L2 entries have subclusters.
    pub extended: bool,
    /// Whether guest data is in an external file.
    pub has_data_file: bool,
}

impl Layout {
    /// Returns the cluster size in bytes.
    pub fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_shift
    }

    /// Returns the size in bytes of an L2 entry, as a power of two.
    pub fn entry_shift(&self) -> u32 {
        if self.extended { 4 } else { 3 }
    }

    /// Returns how many guest bytes one L2 table covers, as a power of two.
    pub fn span_shift(&self) -> u32 {
        2 * self.cluster_shift - self.entry_shift()
    }

    /// Returns the size of the unit that is allocated or not, as a power of two.
    pub fn sub_shift(&self) -> u32 {
        if self.extended {
            self.cluster_shift - N_SUBCLUSTERS.ilog2()
        } else {
            self.cluster_shift
        }
    }

    /// Returns how many L1 entries a disk of `virtual_size` needs.
    pub fn n_l1(&self, virtual_size: u64) -> u64 {
        virtual_size.div_ceil(1 << self.span_shift())
    }

    /// Returns how many clusters one refcount block counts, as a power of two.
    pub fn block_shift(&self) -> u32 {
        self.cluster_shift + 3 - self.refcount_order
    }

    /// Returns which L1 entry covers guest `offset`.
    pub fn l1_index(&self, offset: u64) -> u64 {
        offset >> self.span_shift()
    }

    /// Returns where in its L2 table, in bytes, the entry of guest `offset` is.
    pub fn entry_position(&self, offset: u64) -> u64 {
        let index = (offset & ((1 << self.span_shift()) - 1)) >> self.cluster_shift;
        index << self.entry_shift()
    }

    /// Returns the offset within its cluster.
    pub fn in_cluster(&self, offset: u64) -> u64 {
        offset & (self.cluster_bytes() - 1)
    }

    /// Returns the bits of the subclusters that the bytes `start..end` of a cluster touch; without
    /// subclusters all bits, for the whole cluster.
    pub fn touched(&self, start: u64, end: u64) -> u32 {
        if !self.extended || start >= end {
            return if start >= end { 0 } else { u32::MAX };
        }
        let first = start >> self.sub_shift();
        let last = (end - 1) >> self.sub_shift();
        let n = last - first + 1;
        (((1_u64 << n) - 1) << first) as u32
    }
}

/// Compressed bytes of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// File offset, any byte.
    pub offset: u64,
    /// Length in bytes up to the end of the last sector: at least as long as the stream.
    pub len: u64,
}

/// What is stored plainly of one cluster. Without subclusters all 32 bits are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mapped {
    /// File offset of the host cluster, if there is one.
    pub host: Option<u64>,
    /// Whether the host cluster's refcount is one: it may be written in place.
    pub copied: bool,
    /// Subclusters stored in the host cluster.
    pub stored: u32,
    /// Subclusters that read as zeros.
    pub zero: u32,
}

/// A decoded L2 entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Stored plainly, zeros, a hole, or with subclusters a mix of these.
    Mapped(Mapped),
    /// Stored compressed.
    Compressed(Compressed),
}

/// What an entry says of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Hole,
    /// Zeros.
    Zero,
    /// Stored at this file offset.
    Data(u64),
    /// Stored compressed.
    Compressed(Compressed),
}

impl Entry {
    /// Decodes an entry; `bitmap` is the second half of an extended entry, else 0.
    pub fn decode(layout: &Layout, word: u64, bitmap: u64) -> Result<Self> {
        if word & COMPRESSED != 0 {
            return compressed(layout, word).map(Entry::Compressed);
        }
        let offset = word & OFFSET_MASK;
        let copied = word & COPIED != 0;
        if layout.in_cluster(offset) != 0 {
            return Err(bad(format!("offset {offset:#x} is not at a cluster")));
        }
        // Offset 0 is the header, but a real place in an external data file.
        let has_host = offset != 0 || (layout.has_data_file && copied);
        let (stored, zero) = if layout.extended {
            (bitmap as u32, (bitmap >> 32) as u32)
        } else if word & READS_ZERO != 0 {
            (0, u32::MAX)
        } else {
            (if has_host { u32::MAX } else { 0 }, 0)
        };
        if stored & zero != 0 || (stored != 0 && !has_host) {
            return Err(bad(format!(
                "bitmap {bitmap:#x} contradicts offset {offset:#x} or itself"
            )));
        }
        if zero != 0 && layout.version < 3 {
            return Err(bad("a zero cluster in version 2".to_owned()));
        }
        let host = has_host.then_some(offset);
        Ok(Entry::Mapped(Mapped {
            host,
            copied,
            stored,
            zero,
        }))
    }

    /// Returns what the entry says of the cluster's byte `at`, and up to which byte it says so.
    pub fn piece(&self, layout: &Layout, at: u64) -> (Kind, u64) {
        let mapped = match self {
            Entry::Compressed(compressed) => {
                return (Kind::Compressed(*compressed), layout.cluster_bytes());
            }
            Entry::Mapped(mapped) => mapped,
        };
        let sub = if layout.extended {
            at >> layout.sub_shift()
        } else {
            0
        };
        let state = |sub: u64| (mapped.stored >> sub & 1, mapped.zero >> sub & 1);
        let n_subs = layout.cluster_bytes() >> layout.sub_shift();
        let mut end = sub + 1;
        while end < n_subs && state(end) == state(sub) {
            end += 1;
        }
        let kind = match (state(sub), mapped.host) {
            ((1, _), Some(host)) => Kind::Data(host + at),
            ((_, 1), _) => Kind::Zero,
            _ => Kind::Hole,
        };
        (kind, end << layout.sub_shift())
    }
}

impl Mapped {
    /// Encodes the entry: the word and, for extended entries, the bitmap.
    pub fn encode(&self, layout: &Layout) -> (u64, u64) {
        let mut word = self.host.unwrap_or(0);
        if self.host.is_some() && self.copied {
            word |= COPIED;
        }
        if layout.extended {
            return (word, u64::from(self.zero) << 32 | u64::from(self.stored));
        }
        if self.zero != 0 {
            word |= READS_ZERO;
        }
        (word, 0)
    }
}

impl Compressed {
    /// Encodes an entry for `len` compressed bytes at `offset`. `None`: the offset is too large.
    pub fn encode(layout: &Layout, offset: u64, len: u64) -> Option<u64> {
        let shift = compressed_shift(layout);
        if offset >> shift != 0 || len == 0 {
            return None;
        }
        let more_sectors = ((offset + len - 1) >> 9) - (offset >> 9);
        Some(COMPRESSED | more_sectors << shift | offset)
    }
}

fn compressed(layout: &Layout, word: u64) -> Result<Compressed> {
    if layout.has_data_file {
        return Err(bad(
            "a compressed cluster with an external data file".to_owned()
        ));
    }
    let shift = compressed_shift(layout);
    let descriptor = word & (COMPRESSED - 1);
    let offset = descriptor & ((1 << shift) - 1);
    let n_sectors = (descriptor >> shift) + 1;
    if offset == 0 || offset >> 56 != 0 {
        return Err(bad(format!("compressed bytes at {offset:#x}")));
    }
    Ok(Compressed {
        offset,
        len: n_sectors * 512 - (offset & 511),
    })
}

/// Bits of the offset in a compressed entry.
fn compressed_shift(layout: &Layout) -> u32 {
    62 - (layout.cluster_shift - 8)
}

fn bad(what: String) -> Error {
    Error::new(hako_block::ErrorKind::Corrupt, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(cluster_shift: u32, extended: bool) -> Layout {
        Layout {
            version: 3,
            cluster_shift,
            refcount_order: 4,
            extended,
            has_data_file: false,
        }
    }

    #[test]
    fn mapped_entries_survive_encode_and_decode() {
        let plain = layout(16, false);
        let subs = layout(16, true);
        let entry = |host, copied, stored, zero| Mapped {
            host,
            copied,
            stored,
            zero,
        };
        let cases = [
            (plain, entry(None, false, 0, 0)),
            (plain, entry(Some(0x50000), true, u32::MAX, 0)),
            (plain, entry(Some(0x50000), false, 0, u32::MAX)),
            (plain, entry(None, false, 0, u32::MAX)),
            (subs, entry(Some(0x50000), true, 0xf0, 0x0f)),
            (subs, entry(None, false, 0, 0x0f)),
        ];
        for (layout, mapped) in cases {
            let (word, bitmap) = mapped.encode(&layout);
            assert_eq!(
                Entry::decode(&layout, word, bitmap).unwrap(),
                Entry::Mapped(mapped)
            );
        }
    }

    #[test]
    fn compressed_entries_cover_their_bytes_to_the_sector() {
        for shift in 9..=21 {
            let layout = layout(shift, false);
            let word = Compressed::encode(&layout, 0x12345, 300).unwrap();
            let Entry::Compressed(found) = Entry::decode(&layout, word, 0).unwrap() else {
                panic!("not compressed");
            };
            assert_eq!(found.offset, 0x12345);
            assert!(found.len >= 300 && (found.offset + found.len).is_multiple_of(512));
        }
        assert_eq!(Compressed::encode(&layout(21, false), 1 << 49, 10), None);
    }

    #[test]
    fn pieces_follow_the_subclusters() {
        let layout = layout(16, true);
        let mapped = Mapped {
            host: Some(0x50000),
            copied: true,
            stored: 0b0110,
            zero: 0b1000,
        };
        let entry = Entry::Mapped(mapped);
        assert_eq!(entry.piece(&layout, 100), (Kind::Hole, 2048));
        assert_eq!(entry.piece(&layout, 2048), (Kind::Data(0x50800), 6144));
        assert_eq!(entry.piece(&layout, 6145), (Kind::Zero, 8192));
        assert_eq!(entry.piece(&layout, 8192), (Kind::Hole, 65536));
        assert_eq!(layout.touched(0, 65536), u32::MAX);
        assert_eq!(layout.touched(2047, 2049), 0b11);
    }

    #[test]
    fn contradicting_bits_are_refused() {
        assert!(Entry::decode(&layout(16, true), 0x50000, 1 | 1 << 32).is_err());
        assert!(Entry::decode(&layout(16, true), 0, 1).is_err());
        assert!(Entry::decode(&layout(16, false), 0x50200, 0).is_err());
        assert!(
            Entry::decode(
                &Layout {
                    version: 2,
                    ..layout(16, false)
                },
                1,
                0
            )
            .is_err()
        );
    }
}
