use hako_block::Result;

use super::{PartitionKind, Table, TableKind, read};
use crate::crc32;
use crate::volume::{Volume, check_range};

/// A disk in memory with sectors of a size of its own.
struct TestDisk {
    bytes: Vec<u8>,
    sector_bytes: u32,
}

impl Volume for TestDisk {
    fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len_bytes())?;
        self.bytes.read_at(offset, buf)
    }
}

fn disk(sectors: usize, sector_bytes: u32) -> TestDisk {
    TestDisk {
        bytes: vec![0; sectors * sector_bytes as usize],
        sector_bytes,
    }
}

impl TestDisk {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes a boot record with entries of kind, first sector, number of sectors.
    fn boot_record(&mut self, sector: usize, entries: &[(u8, u32, u32)]) {
        let at = sector * self.sector_bytes as usize;
        for (index, (kind, start, sectors)) in entries.iter().enumerate() {
            let entry = at + 446 + 16 * index;
            self.bytes[entry + 4] = *kind;
            self.put(entry + 8, &start.to_le_bytes());
            self.put(entry + 12, &sectors.to_le_bytes());
        }
        self.put(at + 510, &[0x55, 0xaa]);
    }

    /// Writes a GPT of two partitions: sectors 40 to 49 and 50 to 59.
    fn gpt(&mut self) {
        let size = self.sector_bytes as usize;
        let last = self.bytes.len() / size - 1;
        let mut entries = vec![0; 128 * 128];
        for (index, name) in ["boot", "root ü"].iter().enumerate() {
            let entry = &mut entries[index * 128..][..128];
            entry[..16].fill(0x11 + index as u8);
            entry[16..32].fill(0x21 + index as u8);
            let first = 40 + 10 * index as u64;
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&(first + 9).to_le_bytes());
            for (unit, at) in name.encode_utf16().zip((56..).step_by(2)) {
                entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
        }
        let table_sectors = entries.len() / size;
        for (own, other, table) in [(1, last, 2), (last, 1, last - table_sectors)] {
            self.put(table * size, &entries);
            let mut header = [0; 92];
            header[..8].copy_from_slice(b"EFI PART");
            header[12..16].copy_from_slice(&92_u32.to_le_bytes());
            header[24..32].copy_from_slice(&(own as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(other as u64).to_le_bytes());
            header[56..72].fill(0x77);
            header[72..80].copy_from_slice(&(table as u64).to_le_bytes());
            header[80..84].copy_from_slice(&128_u32.to_le_bytes());
            header[84..88].copy_from_slice(&128_u32.to_le_bytes());
            header[88..92].copy_from_slice(&crc32::sum(&entries).to_le_bytes());
            let sum = crc32::sum(&header);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
            self.put(own * size, &header);
        }
    }
}

fn places(table: &Table) -> Vec<(u32, u64, u64)> {
    let sector = u64::from(table.sector_bytes);
    let parts = table.partitions.iter();
    parts
        .map(|part| (part.number, part.start / sector, part.len / sector))
        .collect()
}

fn gpt_disk(sector_bytes: u32) -> TestDisk {
    let mut disk = disk(100, sector_bytes);
    disk.boot_record(0, &[(0xee, 1, 99)]);
    disk.gpt();
    disk
}

#[test]
fn primary_and_logical_partitions_are_listed_by_number() {
    let mut disk = disk(100, 512);
    disk.put(440, &[0x78, 0x56, 0x34, 0x12]);
    disk.boot_record(
        0,
        &[(0x83, 1, 9), (0, 0, 0), (0x0f, 20, 60), (0x82, 80, 10)],
    );
    disk.bytes[446] = 0x80;
    disk.boot_record(20, &[(0x83, 1, 9), (0x05, 10, 30)]);
    disk.boot_record(30, &[(0x8e, 2, 8), (0x05, 30, 10)]);
    disk.boot_record(50, &[(0x83, 1, 4)]);
    let table = read(&disk).unwrap().unwrap();
    assert_eq!(table.kind, TableKind::Mbr);
    assert_eq!(
        places(&table),
        [(1, 1, 9), (4, 80, 10), (5, 21, 9), (6, 32, 8), (7, 51, 4)]
    );
    assert!(table.partitions[0].bootable && !table.partitions[1].bootable);
    assert_eq!(table.partitions[4].uuid, "12345678-07");
    assert_eq!(table.partitions[3].kind, PartitionKind::Mbr(0x8e));
    assert_eq!((table.uuid.as_str(), table.remarks.len()), ("12345678", 0));
}

#[test]
fn a_chain_of_logical_partitions_in_a_circle_ends() {
    let mut disk = disk(100, 512);
    disk.boot_record(0, &[(0x05, 20, 60)]);
    disk.boot_record(20, &[(0x83, 1, 5), (0x05, 10, 10)]);
    disk.boot_record(30, &[(0x83, 1, 5), (0x05, 0, 10)]);
    let table = read(&disk).unwrap().unwrap();
    assert_eq!(places(&table), [(5, 21, 5), (6, 31, 5)]);
    assert!(table.remarks[0].contains("circle"), "{:?}", table.remarks);
}

#[test]
fn a_chain_that_leads_off_the_disk_is_told() {
    let mut disk = disk(100, 512);
    disk.boot_record(0, &[(0x05, 20, u32::MAX)]);
    disk.boot_record(20, &[(0x83, 1, 5), (0x05, u32::MAX, 10)]);
    let table = read(&disk).unwrap().unwrap();
    assert_eq!(places(&table), [(5, 21, 5)]);
    assert_eq!(table.remarks.len(), 1);
}

#[test]
fn what_goes_past_the_end_is_cut_and_what_begins_there_left_out() {
    let mut disk = disk(100, 512);
    disk.boot_record(
        0,
        &[(0x83, 1, u32::MAX), (0x83, 100, 1), (0x83, u32::MAX, 1)],
    );
    let table = read(&disk).unwrap().unwrap();
    assert_eq!(places(&table), [(1, 1, 99)]);
    assert_eq!(table.remarks.len(), 3);
}

#[test]
fn boot_code_without_a_table_is_no_table() {
    let mut disk = disk(100, 512);
    assert!(read(&disk).unwrap().is_none());
    disk.boot_record(0, &[]);
    assert!(read(&disk).unwrap().is_none());
    disk.bytes[440..510].fill(0x90);
    assert!(read(&disk).unwrap().is_none());
    disk.bytes.clear();
    assert!(read(&disk).unwrap().is_none());
}

#[test]
fn a_gpt_is_found_whatever_the_size_of_its_sectors() {
    for size in [512, 4096] {
        for told in [512, 4096] {
            let mut disk = gpt_disk(size);
            disk.sector_bytes = told;
            let table = read(&disk).unwrap().unwrap();
            assert_eq!((table.kind, table.sector_bytes), (TableKind::Gpt, size));
            assert_eq!(places(&table), [(1, 40, 10), (2, 50, 10)]);
            assert_eq!(table.partitions[1].label, "root ü");
            assert_eq!(
                table.partitions[0].uuid,
                "21212121-2121-2121-2121-212121212121"
            );
            assert_eq!(table.remarks, Vec::<String>::new());
        }
    }
}

#[test]
fn a_broken_primary_falls_back_to_the_backup_with_a_remark() {
    for (at, says) in [
        (512, "missing"),
        (512 + 60, "header"),
        (1024 + 130, "entries"),
    ] {
        let mut disk = gpt_disk(512);
        disk.bytes[at] ^= 1;
        let table = read(&disk).unwrap().unwrap();
        assert_eq!(places(&table), [(1, 40, 10), (2, 50, 10)]);
        assert!(table.remarks[0].contains(says), "{:?}", table.remarks);
        // And with the backup broken too there is nothing left to believe.
        let last = disk.bytes.len() - 512;
        disk.bytes[last + 60] ^= 1;
        let table = read(&disk).unwrap().unwrap();
        assert!(table.partitions.is_empty() && table.remarks.len() == 1);
    }
}

#[test]
fn a_broken_backup_is_told() {
    let mut disk = gpt_disk(512);
    let last = disk.bytes.len() - 512;
    disk.bytes[last + 60] ^= 1;
    let table = read(&disk).unwrap().unwrap();
    assert_eq!(places(&table).len(), 2);
    assert!(table.remarks[0].contains("backup"), "{:?}", table.remarks);
}

#[test]
fn a_hybrid_mbr_gives_way_to_its_gpt() {
    let mut disk = gpt_disk(512);
    disk.boot_record(0, &[(0xee, 1, 39), (0x07, 40, 10)]);
    let table = read(&disk).unwrap().unwrap();
    assert_eq!((table.kind, table.remarks.len()), (TableKind::Gpt, 1));
}

#[test]
fn an_mbr_with_partitions_hides_an_old_gpt_and_an_empty_one_does_not() {
    let mut disk = gpt_disk(512);
    disk.boot_record(0, &[(0x83, 60, 10)]);
    assert_eq!(read(&disk).unwrap().unwrap().kind, TableKind::Mbr);
    disk.bytes[..512].fill(0);
    let table = read(&disk).unwrap().unwrap();
    assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 2));
    assert!(table.remarks[0].contains("protective"));
}

#[test]
fn damage_anywhere_ends_in_a_table_that_fits_the_disk() {
    let mut rng = hako_block::testkit::Rng::new(6);
    let mut logical = disk(100, 512);
    logical.boot_record(0, &[(0x83, 1, 9), (0x0f, 20, 60)]);
    logical.boot_record(20, &[(0x83, 1, 9), (0x05, 10, 30)]);
    logical.boot_record(30, &[(0x8e, 2, 8), (0x05, 30, 10)]);
    let subjects = [gpt_disk(512).bytes, gpt_disk(4096).bytes, logical.bytes];
    for round in 0..6000 {
        let mut bytes = subjects[round % 3].clone();
        for _ in 0..rng.below(1..6) {
            let at = [
                446,
                510,
                512,
                1024,
                4096,
                20 * 512 + 446,
                bytes.len() as u64 - 512,
            ][rng.below(0..7) as usize];
            let at = (at + rng.below(0..96)) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = [0, 0xff, 0x80, rng.next_u64() as u8][rng.below(0..4) as usize];
            }
        }
        if rng.one_in(8) {
            bytes.truncate(rng.below(0..bytes.len() as u64) as usize);
        }
        let len = bytes.len() as u64;
        if let Some(table) = read(&bytes).unwrap() {
            for part in table.partitions {
                assert!(part.len > 0 && part.start + part.len <= len);
            }
        }
    }
}
