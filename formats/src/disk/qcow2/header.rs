//! The header and its extensions (qemu docs/interop/qcow2, "Header"). All numbers big-endian;
//! all are checked here, once, but for those that need the length of the file.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "QFI\xfb" |
//! | 4 | 4 | version: 2, 3 |
//! | 8 | 8 | backing file name, offset; 0 none |
//! | 16 | 4 | its length, at most 1023 |
//! | 20 | 4 | cluster size, power of two: 9 to 21 |
//! | 24 | 8 | virtual size |
//! | 32 | 4 | encryption: 0 none, 1 AES, 2 LUKS |
//! | 36 | 4 | entries of the L1 table |
//! | 40 | 8 | L1 table |
//! | 48 | 8 | refcount table |
//! | 56 | 4 | its clusters |
//! | 60 | 4 | snapshots |
//! | 64 | 8 | snapshot table |
//! | 72 | 8 | incompatible features (from here: version 3) |
//! | 80 | 8 | compatible features |
//! | 88 | 8 | autoclear features |
//! | 96 | 4 | refcount width, power of two of bits: 0 to 6 |
//! | 100 | 4 | header length |
//! | 104 | 1 | compression: 0 deflate, 1 zstd |

use hako_block::{Error, Result, Storage};

use super::layout::Layout;

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Incompatible: refcounts may be wrong.
pub const DIRTY: u64 = 1;
/// Incompatible: the image is known to be damaged.
pub const CORRUPT: u64 = 1 << 1;
/// Incompatible: guest data is in an external file.
pub const DATA_FILE: u64 = 1 << 2;
/// Incompatible: the compression type is not deflate.
pub const COMPRESSION_TYPE: u64 = 1 << 3;
/// Incompatible: L2 entries have subclusters.
pub const EXTENDED_L2: u64 = 1 << 4;
/// Compatible: refcounts may be updated lazily.
pub const LAZY_REFCOUNTS: u64 = 1;
/// Autoclear: the bitmaps extension is consistent.
pub const BITMAPS: u64 = 1;
/// Autoclear: the external data file is a raw image by itself.
pub const RAW_EXTERNAL: u64 = 1 << 1;

/// File offset of the L1 table's offset.
pub const L1_OFFSET_FIELD: u64 = 40;
/// File offset of the refcount table's offset, followed by its clusters.
pub const REFCOUNT_TABLE_FIELD: u64 = 48;
/// File offset of the incompatible features.
pub const INCOMPATIBLE_FIELD: u64 = 72;
/// File offset of the autoclear features.
pub const AUTOCLEAR_FIELD: u64 = 88;

/// Largest L1 table, as in qemu: 32 MiB.
pub const MAX_L1_BYTES: u64 = 32 << 20;
/// Largest refcount table, as in qemu: 8 MiB.
pub const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// Longest backing file name, as in the specification.
pub const MAX_NAME_BYTES: usize = 1023;

const KNOWN_INCOMPATIBLE: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
/// Length of the header of version 2.
pub const V2_BYTES: usize = 72;
const V3_BYTES: usize = 104;
/// Header length that hako writes: version 3 with compression type, padded.
const WRITTEN_BYTES: usize = 112;

/// The end of the extensions.
pub const EXT_END: u32 = 0;
/// The format of the backing file.
pub const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Names of features, for messages.
pub const EXT_FEATURE_NAMES: u32 = 0x6803_f857;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// Feature names that hako writes: class (0 incompatible, 1 compatible, 2 autoclear), bit, name.
const FEATURE_NAMES: &[(u8, u8, &str)] = &[
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Raw deflate, window of 4 KiB.
    Deflate,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// Returns the name that qemu uses.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Deflate => "zlib",
            Codec::Zstd => "zstd",
        }
    }
}

/// Where the bitmaps extension says that the bitmap directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitmapDirectory {
    /// How many bitmaps there are.
    pub n_bitmaps: u32,
    /// File offset.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A checked header with its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version, 2 or 3.
    pub version: u32,
    /// Virtual size in bytes.
    pub virtual_size: u64,
    /// Cluster size, a power of two: 9 to 21.
    pub cluster_shift: u32,
    /// Width of a refcount, a power of two of bits: 0 to 6.
    pub refcount_order: u32,
    /// Entries of the active L1 table.
    pub n_l1: u32,
    /// File offset of the active L1 table.
    pub l1_offset: u64,
    /// File offset of the refcount table.
    pub refcount_table_offset: u64,
    /// Clusters of the refcount table.
    pub refcount_table_clusters: u32,
    /// Number of internal snapshots.
    pub n_snapshots: u32,
    /// File offset of the snapshot table.
    pub snapshots_offset: u64,
    /// Incompatible feature bits, all known.
    pub incompatible: u64,
    /// Compatible feature bits.
    pub compatible: u64,
    /// Autoclear feature bits.
    pub autoclear: u64,
    /// How compressed clusters are compressed.
    pub codec: Codec,
    /// Name of the backing file.
    pub backing_name: Option<String>,
    /// Format of the backing file, if recorded.
    pub backing_format: Option<String>,
    /// Name of the external data file, if recorded.
    pub data_file_name: Option<String>,
    /// The bitmaps extension.
    pub bitmaps: Option<BitmapDirectory>,
}

impl Header {
    /// Reads and decodes the header of `storage`.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let len = storage.len_bytes()?;
        let mut head = vec![0; len.min(V3_BYTES as u64) as usize];
        storage.read_at(0, &mut head)?;
        let cluster_bytes = 1_u64 << cluster_shift(&head)?;
        let mut cluster = vec![0; len.min(cluster_bytes) as usize];
        storage.read_at(0, &mut cluster)?;
        Self::decode(&cluster)
    }

    /// Decodes the first cluster of a file (or as much of it as the file has).
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let cluster_shift = cluster_shift(bytes)?;
        let version = u32_at(bytes, 4)?;
        let v3 = version >= 3;
        let or_zero = |at| if v3 { u64_at(bytes, at) } else { Ok(0) };
        let header_len = if v3 {
            u32_at(bytes, 100)? as usize
        } else {
            V2_BYTES
        };
        if v3 && (header_len < V3_BYTES || !header_len.is_multiple_of(8)) {
            return Err(bad(100, format!("header length {header_len}")));
        }
        let mut header = Header {
            version,
            virtual_size: u64_at(bytes, 24)?,
            cluster_shift,
            refcount_order: if v3 { u32_at(bytes, 96)? } else { 4 },
            n_l1: u32_at(bytes, 36)?,
            l1_offset: u64_at(bytes, 40)?,
            refcount_table_offset: u64_at(bytes, 48)?,
            refcount_table_clusters: u32_at(bytes, 56)?,
            n_snapshots: u32_at(bytes, 60)?,
            snapshots_offset: u64_at(bytes, 64)?,
            incompatible: or_zero(72)?,
            compatible: or_zero(80)?,
            autoclear: or_zero(88)?,
            codec: Codec::Deflate,
            backing_name: backing_name(bytes)?,
            backing_format: None,
            data_file_name: None,
            bitmaps: None,
        };
        let extensions = header.decode_extensions(bytes, header_len)?;
        header.refuse_unknown(&extensions)?;
        header.codec = codec(bytes, header_len, header.incompatible)?;
        header.check(u32_at(bytes, 32)?)?;
        Ok(header)
    }

    /// Decodes the extensions; returns the feature names found.
    fn decode_extensions(&mut self, bytes: &[u8], start: usize) -> Result<Vec<(u8, u8, String)>> {
        let mut names = Vec::new();
        let name_offset = u64_at(bytes, 8)?;
        let end = match usize::try_from(name_offset) {
            Ok(offset) if offset > start && self.backing_name.is_some() => offset,
            _ => bytes.len(),
        };
        let mut at = start;
        // A version 2 file may have none, and its end may be the end of the file.
        while at + 8 <= end.min(bytes.len()) {
            let (kind, len) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)? as usize);
            if kind == EXT_END {
                break;
            }
            let data = at
                .checked_add(8)
                .and_then(|start| bytes.get(start..start.checked_add(len)?))
                .ok_or_else(|| {
                    bad(
                        at,
                        format!("extension {kind:#x} of {len} bytes leaves the first cluster"),
                    )
                })?;
            match kind {
                EXT_BACKING_FORMAT => self.backing_format = Some(text(data, at, "backing format")?),
                EXT_DATA_FILE => self.data_file_name = Some(text(data, at, "data file name")?),
                EXT_FEATURE_NAMES => names = feature_names(data),
                EXT_BITMAPS => self.bitmaps = Some(bitmaps(data)?),
                _ => {}
            }
            at += 8 + len.next_multiple_of(8);
        }
        Ok(names)
    }

    fn refuse_unknown(&self, names: &[(u8, u8, String)]) -> Result<()> {
        let unknown = self.incompatible & !KNOWN_INCOMPATIBLE;
        if unknown == 0 {
            return Ok(());
        }
        let listed: Vec<String> = (0..64_u8)
            .filter(|bit| unknown >> bit & 1 == 1)
            .map(|bit| {
                let name = names.iter().find(|name| (name.0, name.1) == (0, bit));
                name.map_or_else(
                    || format!("bit {bit}"),
                    |name| format!("{:?} (bit {bit})", name.2),
                )
            })
            .collect();
        Err(
            Error::unsupported(format!("incompatible feature {}", listed.join(", ")))
                .place("header")
                .at_byte(72),
        )
    }

    fn check(&self, encryption: u32) -> Result<()> {
        match encryption {
            0 => {}
            1 | 2 => {
                let name = if encryption == 1 { "AES" } else { "LUKS" };
                return Err(Error::unsupported(format!("encrypted with {name}"))
                    .hint("decrypt it first: qemu-img convert with --object secret"));
            }
            other => return Err(bad(32, format!("encryption method {other}"))),
        }
        if self.refcount_order > 6 {
            return Err(bad(96, format!("refcount order {}", self.refcount_order)));
        }
        if self.incompatible & EXTENDED_L2 != 0 && self.cluster_shift < 14 {
            return Err(bad(20, "extended L2 entries with clusters below 16 KiB"));
        }
        let layout = self.layout();
        for (name, at, offset) in [
            ("L1 table", 40, self.l1_offset),
            ("refcount table", 48, self.refcount_table_offset),
            ("snapshot table", 64, self.snapshots_offset),
        ] {
            if offset % layout.cluster_bytes() != 0 || offset >> 56 != 0 {
                return Err(bad(at, format!("{name} at {offset:#x}, not at a cluster")));
            }
        }
        if u64::from(self.n_l1) * 8 > MAX_L1_BYTES {
            return Err(bad(36, format!("L1 table of {} entries", self.n_l1)));
        }
        if u64::from(self.n_l1) < layout.n_l1(self.virtual_size) {
            return Err(bad(
                36,
                format!(
                    "L1 table of {} entries is too small for {} bytes",
                    self.n_l1, self.virtual_size
                ),
            ));
        }
        if u64::from(self.refcount_table_clusters) << self.cluster_shift > MAX_REFCOUNT_TABLE_BYTES
        {
            return Err(bad(
                56,
                format!(
                    "refcount table of {} clusters",
                    self.refcount_table_clusters
                ),
            ));
        }
        Ok(())
    }

    /// Returns the sizes that follow from the header.
    pub fn layout(&self) -> Layout {
        Layout {
            version: self.version,
            cluster_shift: self.cluster_shift,
            refcount_order: self.refcount_order,
            extended: self.incompatible & EXTENDED_L2 != 0,
            has_data_file: self.incompatible & DATA_FILE != 0,
        }
    }

    /// Returns the header of version 3 with its extensions and the backing file name, to be
    /// written at the start of the file. Errors: it does not fit into one cluster.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024);
        out.extend(MAGIC);
        out.extend(3_u32.to_be_bytes());
        out.extend([0; 12]);
        out.extend(self.cluster_shift.to_be_bytes());
        out.extend(self.virtual_size.to_be_bytes());
        out.extend(0_u32.to_be_bytes());
        out.extend(self.n_l1.to_be_bytes());
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.refcount_table_offset.to_be_bytes());
        out.extend(self.refcount_table_clusters.to_be_bytes());
        out.extend(self.n_snapshots.to_be_bytes());
        out.extend(self.snapshots_offset.to_be_bytes());
        out.extend(self.incompatible.to_be_bytes());
        out.extend(self.compatible.to_be_bytes());
        out.extend(self.autoclear.to_be_bytes());
        out.extend(self.refcount_order.to_be_bytes());
        out.extend((WRITTEN_BYTES as u32).to_be_bytes());
        out.push(if self.codec == Codec::Zstd { 1 } else { 0 });
        out.resize(WRITTEN_BYTES, 0);
        if let Some(format) = &self.backing_format {
            put_extension(&mut out, EXT_BACKING_FORMAT, format.as_bytes());
        }
        let cluster = 1 << self.cluster_shift;
        let name = self.backing_name.as_deref().unwrap_or("").as_bytes();
        let mut names = Vec::with_capacity(FEATURE_NAMES.len() * 48);
        for (class, bit, name) in FEATURE_NAMES {
            names.extend([*class, *bit]);
            names.extend(name.as_bytes());
            names.resize(names.len().next_multiple_of(48), 0);
        }
        // They only make other programs' messages better: left out of a cluster too small.
        if out.len() + 8 + names.len() + 8 + name.len() <= cluster {
            put_extension(&mut out, EXT_FEATURE_NAMES, &names);
        }
        put_extension(&mut out, EXT_END, &[]);
        if !name.is_empty() {
            let offset = out.len() as u64;
            out[8..16].copy_from_slice(&offset.to_be_bytes());
            out[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            out.extend(name);
        }
        if out.len() > cluster || name.len() > MAX_NAME_BYTES {
            return Err(Error::invalid(format!(
                "the parent's name of {} bytes does not fit into the header",
                name.len()
            )));
        }
        Ok(out)
    }
}

/// Appends an extension.
pub fn put_extension(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    out.extend(kind.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(8), 0);
}

fn cluster_shift(bytes: &[u8]) -> Result<u32> {
    if bytes.get(..4) != Some(&MAGIC) {
        return Err(bad(0, "no qcow2 magic"));
    }
    let version = u32_at(bytes, 4)?;
    if version == 1 {
        return Err(Error::unsupported("qcow version 1")
            .place("header")
            .hint("convert it with qemu-img"));
    }
    if version != 2 && version != 3 {
        return Err(Error::unsupported(format!("qcow version {version}"))
            .place("header")
            .at_byte(4));
    }
    let shift = u32_at(bytes, 20)?;
    if !(9..=21).contains(&shift) {
        return Err(bad(20, format!("cluster size 2^{shift}")));
    }
    Ok(shift)
}

fn codec(bytes: &[u8], header_len: usize, incompatible: u64) -> Result<Codec> {
    let byte = if header_len > V3_BYTES {
        *bytes
            .get(V3_BYTES)
            .ok_or_else(|| bad(V3_BYTES, "the header ends early"))?
    } else {
        0
    };
    let marked = incompatible & COMPRESSION_TYPE != 0;
    match (byte, marked) {
        (0, false) => Ok(Codec::Deflate),
        (1, true) => Ok(Codec::Zstd),
        (0 | 1, _) => Err(bad(
            104,
            format!("compression type {byte} contradicts the feature bit"),
        )),
        _ => Err(Error::unsupported(format!("compression type {byte}"))
            .place("header")
            .at_byte(104)),
    }
}

fn backing_name(bytes: &[u8]) -> Result<Option<String>> {
    let (offset, len) = (u64_at(bytes, 8)?, u32_at(bytes, 16)? as usize);
    if offset == 0 {
        return Ok(None);
    }
    if len > MAX_NAME_BYTES {
        return Err(bad(16, format!("backing file name of {len} bytes")));
    }
    if len == 0 {
        return Ok(None);
    }
    let data = usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(len)?))
        .ok_or_else(|| {
            bad(
                8,
                format!("backing file name at {offset:#x} leaves the first cluster"),
            )
        })?;
    text(data, offset as usize, "backing file name").map(Some)
}

fn text(data: &[u8], at: usize, what: &str) -> Result<String> {
    match std::str::from_utf8(data) {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(bad(
            at,
            format!("{what} {:?} is no text", String::from_utf8_lossy(data)),
        )),
    }
}

fn feature_names(data: &[u8]) -> Vec<(u8, u8, String)> {
    data.chunks_exact(48)
        .map(|entry| {
            let name = entry[2..].split(|byte| *byte == 0).next().unwrap_or(&[]);
            (
                entry[0],
                entry[1],
                String::from_utf8_lossy(name).into_owned(),
            )
        })
        .collect()
}

fn bitmaps(data: &[u8]) -> Result<BitmapDirectory> {
    Ok(BitmapDirectory {
        n_bitmaps: u32_at(data, 0)?,
        len: u64_at(data, 8)?,
        offset: u64_at(data, 16)?,
    })
}

fn bad(at: usize, what: impl Into<String>) -> Error {
    Error::corrupt("header", what).at_byte(at as u64)
}

/// Returns the big-endian number at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    field::<8>(bytes, at).map(u64::from_be_bytes)
}

/// Returns the big-endian number at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    field::<4>(bytes, at).map(u32::from_be_bytes)
}

/// Returns the big-endian number at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    field::<2>(bytes, at).map(u16::from_be_bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end)?.try_into().ok())
        .ok_or_else(|| bad(at, format!("ends after {} bytes", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            version: 3,
            virtual_size: 10 << 30,
            cluster_shift: 16,
            refcount_order: 4,
            n_l1: 20,
            l1_offset: 0x30000,
            refcount_table_offset: 0x10000,
            refcount_table_clusters: 1,
            n_snapshots: 0,
            snapshots_offset: 0,
            incompatible: COMPRESSION_TYPE,
            compatible: 0,
            autoclear: 0,
            codec: Codec::Zstd,
            backing_name: Some("base.qcow2".into()),
            backing_format: Some("qcow2".into()),
            data_file_name: None,
            bitmaps: None,
        }
    }

    #[test]
    fn header_survives_encode_and_decode() {
        let header = sample();
        assert_eq!(Header::decode(&header.encode().unwrap()).unwrap(), header);
        let small = Header {
            cluster_shift: 9,
            n_l1: 1 << 20,
            virtual_size: 1 << 30,
            ..sample()
        };
        assert_eq!(Header::decode(&small.encode().unwrap()).unwrap(), small);
    }

    #[test]
    fn a_header_cut_anywhere_is_an_error_or_lacks_only_its_tail() {
        let bytes = sample().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(Header::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn no_byte_of_the_header_makes_it_panic() {
        let bytes = sample().encode().unwrap();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = Header::decode(&changed);
            }
        }
    }

    #[test]
    fn unknown_feature_is_refused_by_its_name() {
        let mut bytes = sample().encode().unwrap();
        bytes[79] |= 1 << 5;
        let error = Header::decode(&bytes).unwrap_err();
        assert!(error.to_string().contains("bit 5"), "{error}");
        // Rename the entry of "extended L2 entries" to bit 5.
        let at = bytes
            .windows(8)
            .position(|window| window == b"extended")
            .unwrap();
        bytes[at - 1] = 5;
        let error = Header::decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), hako_block::ErrorKind::Unsupported);
        assert!(error.to_string().contains("extended L2 entries"), "{error}");
    }

    #[test]
    fn encryption_is_refused_by_name() {
        for (method, name) in [(1, "AES"), (2, "LUKS")] {
            let mut bytes = sample().encode().unwrap();
            bytes[35] = method;
            let error = Header::decode(&bytes).unwrap_err();
            assert_eq!(error.kind(), hako_block::ErrorKind::Unsupported);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
