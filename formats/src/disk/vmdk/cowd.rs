//! COWD extents, ESX's "vmfsSparse" (VMware Virtual Disk Format 5.0, "ESX Server Sparse Extents"):
//! read only. Who the parent is stands in the descriptor.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "COWD" |
//! | 4 | 4 | version: 1 |
//! | 8 | 4 | flags: 3 |
//! | 12 | 4 | capacity, sectors |
//! | 16 | 4 | grain size, sectors |
//! | 20 | 4 | grain directory, sector |
//! | 24 | 4 | entries in the grain directory |
//! | 28 | 4 | next free sector |
//! | 32 | 1028 | a root's geometry, or a child's parent name (1024 bytes) and generation |
//! | 1060 | 4 | generation |
//! | 1064 | 60 | name |
//! | 1124 | 512 | description |
//! | 1636 | 4 | saved generation |
//! | 1648 | 4 | unclean shutdown |
//!
//! The header has 2048 bytes. A directory entry is the sector of a grain table, 0 none; a table is
//! 4096 sectors of grains, 0 hole. There is no second copy of anything.

use std::sync::Arc;

use hako_block::{BlockImage, Error, ErrorKind, ImageInfo, Result, SECTOR_BYTES, Storage};

use super::two_level::{Entries, Grain, TwoLevel, n_tables};
use crate::disk::{Findings, Severity};

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"COWD";

const HEADER_BYTES: usize = 2048;
/// Largest grain the format allows: 1 MiB.
const MAX_GRAIN_SECTORS: u32 = 2048;
/// A parent's name has at least so many bytes: shorter texts may be a root's geometry.
const MIN_PARENT_NAME: usize = 4;

/// Opens an extent for reading; guest offsets are relative to it.
pub fn open(storage: Arc<dyn Storage>) -> Result<Box<dyn BlockImage>> {
    let name = storage.name().to_owned();
    let image = Header::read(&*storage)
        .and_then(|header| header.load(storage))
        .map_err(|error| error.in_file(name))?;
    Ok(Box::new(image))
}

/// Checks an extent file; what is found goes into `findings`. An error means that the check could
/// not be done.
pub fn check(storage: Arc<dyn Storage>, findings: &mut Findings) -> Result<()> {
    let name = storage.name().to_owned();
    match check_all(storage, &name, findings) {
        Err(error) if error.kind() != ErrorKind::Io => {
            findings.add_error(&name, &error);
            Ok(())
        }
        result => result,
    }
}

fn check_all(storage: Arc<dyn Storage>, name: &str, findings: &mut Findings) -> Result<()> {
    let header = Header::read(&*storage)?;
    if header.unclean {
        findings.add(Severity::Oddity, name, UNCLEAN, Some(1648));
    }
    let directory = header.directory_byte();
    let reserved = [
        0..HEADER_BYTES as u64,
        directory..directory + header.n_tables() * 4,
    ];
    let image = header.load(storage)?;
    let in_use = image.check(&reserved, findings)?;
    in_use.check_free_space(u64::from(header.free_sector) * SECTOR_BYTES);
    Ok(())
}

const UNCLEAN: &str = "header: the file was not closed properly";

/// A checked header.
struct Header {
    capacity_sectors: u32,
    grain_sectors: u32,
    directory_sector: u32,
    free_sector: u32,
    unclean: bool,
    parent_name: Option<String>,
}

impl Header {
    fn read(storage: &dyn Storage) -> Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        storage.read_at(0, &mut bytes)?;
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let bad = |byte: u64, what: String| Err(Error::corrupt("header", what).at_byte(byte));
        let header = Self {
            capacity_sectors: u32_at(12),
            grain_sectors: u32_at(16),
            directory_sector: u32_at(20),
            free_sector: u32_at(28),
            unclean: u32_at(1648) != 0,
            parent_name: parent_name(&bytes[32..1056]),
        };
        if bytes[..4] != MAGIC {
            return bad(0, format!("magic is {:02x?}, not \"COWD\"", &bytes[..4]));
        }
        if u32_at(4) != 1 {
            return bad(4, format!("version {} (1 is known)", u32_at(4)));
        }
        let grain = header.grain_sectors;
        if !grain.is_power_of_two() || grain > MAX_GRAIN_SECTORS {
            let what = format!(
                "grain size of {grain} sectors is no power of two up to {MAX_GRAIN_SECTORS}"
            );
            return bad(16, what);
        }
        if header.directory_byte() < HEADER_BYTES as u64 {
            let what = format!("grain directory at sector {}, in the header", u32_at(20));
            return bad(20, what);
        }
        if u64::from(u32_at(24)) < header.n_tables() {
            let what = format!(
                "{} grain directory entries, but a capacity of {} sectors needs {}",
                u32_at(24),
                header.capacity_sectors,
                header.n_tables()
            );
            return bad(24, what);
        }
        Ok(header)
    }

    fn directory_byte(&self) -> u64 {
        u64::from(self.directory_sector) * SECTOR_BYTES
    }

    fn grain_bytes(&self) -> u64 {
        u64::from(self.grain_sectors) * SECTOR_BYTES
    }

    fn virtual_size(&self) -> u64 {
        u64::from(self.capacity_sectors) * SECTOR_BYTES
    }

    /// Returns the number of grain tables: 2^20 at most.
    fn n_tables(&self) -> u64 {
        n_tables(self.virtual_size(), self.grain_bytes())
    }

    fn load(&self, storage: Arc<dyn Storage>) -> Result<TwoLevel<CowdEntries>> {
        let info = self.info(&*storage)?;
        TwoLevel::load(storage, info, self.directory_byte(), CowdEntries)
    }

    fn info(&self, storage: &dyn Storage) -> Result<ImageInfo> {
        let mut details = vec![("grain_size_bytes", self.grain_bytes().into())];
        if let Some(name) = &self.parent_name {
            details.push(("parent_in_header", name.as_str().into()));
        }
        Ok(ImageInfo {
            format: "vmdk",
            subformat: Some("vmfsSparse".to_owned()),
            virtual_size: self.virtual_size(),
            unit_bytes: self.grain_bytes(),
            files: vec![storage.name().to_owned()],
            allocated_size: storage.allocated_bytes()?,
            details,
            oddities: self
                .unclean
                .then(|| UNCLEAN.to_owned())
                .into_iter()
                .collect(),
            ..ImageInfo::default()
        })
    }
}

/// Returns the text that the header's union holds if it is one. A root's geometry is three small
/// numbers: there a zero byte comes within the first four.
fn parent_name(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(field.get(..end)?).ok()?;
    let is_name = text.len() >= MIN_PARENT_NAME && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}

/// Entries are sectors of the file.
struct CowdEntries;

impl Entries for CowdEntries {
    const ENTRY_BYTES: usize = 4;

    fn table(&self, entry: u64) -> Result<Option<u64>> {
        after_header(entry)
    }

    fn grain(&self, entry: u64) -> Result<Grain> {
        Ok(after_header(entry)?.map_or(Grain::Hole, Grain::Data))
    }
}

/// Returns the file offset of a sector, or `None` of sector 0.
fn after_header(sector: u64) -> Result<Option<u64>> {
    let byte = sector * SECTOR_BYTES;
    if sector != 0 && byte < HEADER_BYTES as u64 {
        let what = format!("sector {sector} is in the header");
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    Ok((sector != 0).then_some(byte))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::vmdk::testing::{assert_same_in_qemu, findings_of, read_all};
    use hako_block::{ExtentKind, MemoryStorage};

    const CAPACITY_SECTORS: u32 = 3 * 4096 * 2 + 5;
    const GRAIN_SECTORS: u32 = 2;

    fn put(file: &mut Vec<u8>, byte: usize, field: &[u8]) {
        if file.len() < byte + field.len() {
            file.resize((byte + field.len()).next_multiple_of(512), 0);
        }
        file[byte..byte + field.len()].copy_from_slice(field);
    }

    fn put_u32(file: &mut Vec<u8>, byte: usize, field: u32) {
        put(file, byte, &field.to_le_bytes());
    }

    /// A disk of four tables, the second not there, with its content. Grains 0, 1 and 3 stand in
    /// one row, 2 elsewhere, the last one is partial.
    pub(in crate::disk::vmdk) fn sample() -> (Vec<u8>, Vec<u8>) {
        let mut file = Vec::new();
        put(&mut file, 0, &MAGIC);
        for (byte, value) in [
            (4, 1),
            (8, 3),
            (12, CAPACITY_SECTORS),
            (16, GRAIN_SECTORS),
            (20, 4),
            (24, 128),
        ] {
            put_u32(&mut file, byte, value);
        }
        put(&mut file, 32, b"base.vmdk\0");
        put(&mut file, 2047, &[0]);
        let mut content = vec![0; CAPACITY_SECTORS as usize * 512];
        let mut free = 5;
        for table in [0u32, 2, 3] {
            put_u32(&mut file, 4 * 512 + table as usize * 4, free);
            put(&mut file, free as usize * 512, &[0; 16384]);
            let table_byte = free as usize * 512;
            free += 32;
            let last = (CAPACITY_SECTORS / GRAIN_SECTORS) % 4096;
            let entries = if table == 3 {
                vec![last]
            } else {
                vec![0, 1, 3, 2, 4095]
            };
            for entry in entries {
                let start = (table * 4096 + entry) as usize * 1024;
                let grain: Vec<u8> = (0..1024)
                    .map(|at| (start / 1024 + at / 9) as u8 | 1)
                    .collect();
                put_u32(&mut file, table_byte + entry as usize * 4, free);
                put(&mut file, free as usize * 512, &grain);
                let end = (start + 1024).min(content.len());
                content[start..end].copy_from_slice(&grain[..end - start]);
                free += GRAIN_SECTORS;
            }
        }
        put_u32(&mut file, 28, free);
        (file, content)
    }

    fn open_bytes(bytes: &[u8]) -> Result<Box<dyn BlockImage>> {
        open(Arc::new(MemoryStorage::new("delta.vmdk", bytes.to_vec())))
    }

    #[test]
    fn built_file_reads_as_built_here_and_in_qemu() {
        let (file, content) = sample();
        let image = open_bytes(&file).unwrap();
        assert!(read_all(&*image) == content);
        assert_eq!(image.info().unit_bytes, 1024);
        let run = image.next_extent(512).unwrap();
        assert_eq!((run.kind, run.len), (ExtentKind::Data, 1536));
        let hole = image.next_extent(4096 * 1024).unwrap();
        assert_eq!((hole.kind, hole.len), (ExtentKind::Hole, 4096 * 1024));
        assert_eq!(findings_of(check, &file).list, []);
        assert_same_in_qemu("vmfsSparse", "VMFSSPARSE", &file, &content);
    }

    #[test]
    fn parents_name_is_told_from_a_roots_geometry() {
        let (mut file, _) = sample();
        let detail = |file: &[u8]| open_bytes(file).unwrap().info().details.get(1).cloned();
        assert_eq!(
            detail(&file),
            Some(("parent_in_header", "base.vmdk".into()))
        );
        put(&mut file, 32, &[65, 0, 0, 0, 255, 0, 0, 0, 63, 0, 0, 0]);
        assert_eq!(detail(&file), None);
    }

    #[test]
    fn damage_is_refused_with_its_place() {
        for (byte, value, says) in [
            (0, 0, "header: magic"),
            (4, 2, "header: version 2"),
            (16, 3, "header: grain size of 3 sectors"),
            (16, 4096, "header: grain size of 4096"),
            (12, u32::MAX, "header: 128 grain directory entries"),
            (20, 1, "header: grain directory at sector 1"),
            (20, 0xffff, "grain directory: 4 entries reach past end"),
            (
                2048,
                0xffff,
                "grain directory, entry 0: sector 65535 past end of file",
            ),
            (
                2048,
                2,
                "grain directory, entry 0: sector 2 is in the header",
            ),
            (
                2560,
                0xffff,
                "grain table 0, entry 0: sector 65535 past end of file",
            ),
            (2560, 1, "grain table 0, entry 0: sector 1 is in the header"),
        ] {
            let (mut file, _) = sample();
            put_u32(&mut file, byte, value);
            let read = open_bytes(&file).and_then(|image| image.read_at(0, &mut [0; 10]));
            let error = read.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            let findings = findings_of(check, &file);
            assert!(
                findings.list.iter().any(|one| one.text.contains(says)),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn check_finds_shared_and_lost_grains() {
        let (mut file, _) = sample();
        let first = u32::from_le_bytes(file[2560..2564].try_into().unwrap());
        put_u32(&mut file, 2564, first);
        let findings = findings_of(check, &file);
        assert_eq!((findings.n_corruptions, findings.n_leaks), (1, 1));
        assert_eq!(findings.leaked_bytes, 1024);
        assert!(
            findings.list[0]
                .text
                .starts_with("grain table 0, entry 1: overlaps")
        );
    }
}
