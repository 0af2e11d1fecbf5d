use std::sync::Arc;

use hako_block::testkit::Rng;

use super::{Array, Member, assemble, read};
use crate::volume::{Volume, read_vec};

const LEN: usize = 512 << 10;
const DATA: usize = 64 << 10;
const DATA_LEN: usize = 128 << 10;

/// Which layout of metadata a member has.
#[derive(Clone, Copy)]
enum Version {
    Old,
    AtEnd,
    AtBegin,
    Behind,
}

use Version::{AtBegin, AtEnd, Behind, Old};

/// A member of an array of two; its data are filled with its role's letter.
#[derive(Clone)]
struct Spec {
    version: Version,
    level: i32,
    role: u16,
    events: u64,
    features: u32,
}

const fn spec(version: Version, level: i32, role: u16) -> Spec {
    Spec {
        version,
        level,
        role,
        events: 10,
        features: 0,
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(4).map(|word| {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        u64::from(u32::from_le_bytes(whole))
    });
    let sum: u64 = words.sum();
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

impl Spec {
    fn build(&self) -> Vec<u8> {
        let mut bytes = vec![b'-'; LEN];
        match self.version {
            Old => self.build_old(&mut bytes),
            AtEnd => self.build_new(&mut bytes, LEN - 8192, 0),
            AtBegin => self.build_new(&mut bytes, 0, DATA),
            Behind => self.build_new(&mut bytes, 4096, DATA),
        }
        bytes
    }

    fn build_new(&self, bytes: &mut [u8], at: usize, data: usize) {
        for (stripe, place) in bytes[data..data + DATA_LEN].chunks_mut(4096).enumerate() {
            place.fill(b'a' + (self.role % 2) as u8 * 13 + stripe as u8 % 13);
        }
        let mut sb = vec![0; 256 + 8];
        let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &0xa92b_4efc_u32.to_le_bytes());
        put(4, &1_u32.to_le_bytes());
        put(8, &self.features.to_le_bytes());
        put(16, &[0x5a; 16]);
        put(32, b"host:0");
        put(72, &self.level.to_le_bytes());
        put(80, &(DATA_LEN as u64 / 512).to_le_bytes());
        put(88, &8_u32.to_le_bytes());
        put(92, &2_u32.to_le_bytes());
        put(128, &(data as u64 / 512).to_le_bytes());
        put(136, &(DATA_LEN as u64 / 512).to_le_bytes());
        put(144, &(at as u64 / 512).to_le_bytes());
        put(160, &1_u32.to_le_bytes());
        put(200, &self.events.to_le_bytes());
        put(220, &4_u32.to_le_bytes());
        put(258, &self.role.to_le_bytes());
        let sum = sum(&sb);
        sb[216..220].copy_from_slice(&sum.to_le_bytes());
        bytes[at..at + sb.len()].copy_from_slice(&sb);
    }

    fn build_old(&self, bytes: &mut [u8]) {
        let at = LEN - 65536;
        for (stripe, place) in bytes[..at].chunks_mut(4096).enumerate() {
            place.fill(b'a' + (self.role % 2) as u8 * 13 + stripe as u8 % 13);
        }
        let mut words = vec![0_u32; 1024];
        words[0] = 0xa92b_4efc;
        words[2] = 90;
        words[5] = 0x0102_0304;
        words[7] = self.level as u32;
        words[8] = at as u32 / 1024;
        words[10] = 2;
        words[11] = 3;
        words[39] = self.events as u32;
        words[65] = 4096;
        words[128 + 32 + 3] = u32::from(self.role);
        words[128 + 32 + 4] = if self.role < 2 { 6 } else { 0 };
        words[992] = 1;
        words[992 + 3] = words[128 + 32 + 3];
        words[992 + 4] = words[128 + 32 + 4];
        let mut sb: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sum = sum(&sb);
        sb[152..156].copy_from_slice(&sum.to_le_bytes());
        bytes[at..at + 4096].copy_from_slice(&sb);
    }
}

fn arrays(members: &[Spec]) -> Vec<Array> {
    let members: Vec<Member> = members
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let bytes = spec.build();
            Member {
                superblock: read(&bytes).unwrap().unwrap(),
                volume: Arc::new(bytes),
                place: index,
                name: format!("p{index}"),
            }
        })
        .collect();
    assemble(&members)
}

/// The first letter of each chunk of 4 KiB, and how many chunks there are.
fn letters(array: &Array, n: usize) -> (String, u64) {
    let volume = array.volume.as_ref().unwrap();
    let read = |chunk: usize| read_vec(&**volume, chunk as u64 * 4096, 1).unwrap()[0];
    let text: Vec<u8> = (0..n).map(read).collect();
    (String::from_utf8(text).unwrap(), volume.len_bytes() / 4096)
}

#[test]
fn mirrors_of_every_version_are_read_from_their_first_member() {
    for version in [Old, AtEnd, AtBegin, Behind] {
        let arrays = arrays(&[spec(version, 1, 1), spec(version, 1, 0)]);
        let chunks = if matches!(version, Old) { 112 } else { 32 };
        assert_eq!(letters(&arrays[0], 3), ("abc".to_owned(), chunks));
        assert_eq!((arrays.len(), arrays[0].remarks.len()), (1, 0));
        assert_eq!(arrays[0].level, "raid1");
        let name = if matches!(version, Old) { "md3" } else { "md0" };
        assert_eq!(arrays[0].name, name);
    }
}

#[test]
fn a_member_that_is_stale_spare_or_not_copied_yet_is_not_read() {
    for version in [Old, AtEnd, AtBegin, Behind] {
        let stale = Spec {
            events: 9,
            ..spec(version, 1, 0)
        };
        let spare = spec(version, 1, 0xffff);
        let mut bad = vec![stale, spare];
        if !matches!(version, Old) {
            bad.push(Spec {
                features: 2,
                ..spec(version, 1, 0)
            });
            bad.push(Spec {
                features: 8,
                ..spec(version, 1, 0)
            });
        }
        for bad in bad {
            let arrays = arrays(&[bad, spec(version, 1, 1)]);
            assert_eq!(letters(&arrays[0], 3).0, "nop");
        }
    }
    let alone = [Spec {
        features: 2,
        ..spec(Behind, 1, 0)
    }];
    assert!(arrays(&alone)[0].volume.is_err());
}

#[test]
fn linear_arrays_and_stripes_need_all_members() {
    for version in [AtEnd, AtBegin, Behind] {
        let linear = arrays(&[spec(version, -1, 1), spec(version, -1, 0)]);
        assert_eq!(
            letters(&linear[0], 34).0,
            "abcdefghijklmabcdefghijklmabcdefno"
        );
        assert_eq!(letters(&linear[0], 1).1, 64);
        let striped = arrays(&[spec(version, 0, 1), spec(version, 0, 0)]);
        assert_eq!(letters(&striped[0], 5), ("anboc".to_owned(), 64));
        for level in [-1, 0] {
            let one = &arrays(&[spec(version, level, 1)])[0];
            assert!(one.volume.is_err() && !one.remarks.is_empty());
        }
    }
    let old = arrays(&[spec(Old, -1, 1), spec(Old, -1, 0)]);
    assert_eq!(letters(&old[0], 1), ("a".to_owned(), 224));
    let five = arrays(&[spec(Behind, 5, 0), spec(Behind, 5, 1)]);
    assert!(
        five[0]
            .volume
            .as_ref()
            .err()
            .unwrap()
            .to_string()
            .contains("raid5")
    );
}

#[test]
fn a_superblock_whose_sum_is_wrong_is_none() {
    for version in [Old, AtEnd, AtBegin, Behind] {
        let whole = spec(version, 1, 0).build();
        assert!(read(&whole).unwrap().is_some());
        let magic = whole
            .windows(4)
            .position(|bytes| bytes == [0xfc, 0x4e, 0x2b, 0xa9]);
        let mut damaged = whole.clone();
        damaged[magic.unwrap() + 41] ^= 4;
        assert!(read(&damaged).unwrap().is_none());
        assert!(
            read(&whole[..LEN - 4096].to_vec()).unwrap().is_none()
                || magic == Some(0)
                || magic == Some(4096)
        );
    }
    assert!(read(&vec![0; 100]).unwrap().is_none());
}

#[test]
fn damage_anywhere_ends_in_arrays_that_can_be_asked() {
    let mut rng = Rng::new(1);
    for round in 0..600 {
        let version = [AtEnd, AtBegin, Behind][round % 3];
        let at = [LEN - 8192, 0, 4096][round % 3];
        let level = [1, 0, -1][round / 3 % 3];
        let members: Vec<Member> = [0, 1]
            .into_iter()
            .filter_map(|role| {
                let mut bytes = spec(version, level, role).build();
                for _ in 0..rng.below(1..3) {
                    let field = at + rng.below(64..256) as usize;
                    bytes[field] = [0, 0xff, rng.next_u64() as u8][rng.below(0..3) as usize];
                }
                bytes[at + 216..at + 220].fill(0);
                let sum = sum(&bytes[at..at + 264]);
                bytes[at + 216..at + 220].copy_from_slice(&sum.to_le_bytes());
                let superblock = read(&bytes).unwrap()?;
                Some(Member {
                    superblock,
                    volume: Arc::new(bytes) as Arc<dyn Volume>,
                    place: 0,
                    name: role.to_string(),
                })
            })
            .collect();
        for array in assemble(&members) {
            if let Ok(volume) = array.volume {
                let _ = volume.read_at(volume.len_bytes() / 2, &mut [0; 1]);
            }
        }
    }
}

/// What the tests build is what mdadm(8) takes for members.
#[test]
#[allow(clippy::print_stderr)]
fn mdadm_reads_the_same_in_the_superblocks_of_these_tests() {
    for (version, number) in [
        (Old, "0.90.00"),
        (AtEnd, "1.0"),
        (AtBegin, "1.1"),
        (Behind, "1.2"),
    ] {
        let own = spec(version, 1, 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), own.build()).unwrap();
        let examine = std::process::Command::new("mdadm")
            .arg("--examine")
            .arg(file.path())
            .output();
        let Ok(examine) = examine else {
            assert!(std::env::var_os("CI").is_none(), "mdadm is not installed");
            eprintln!("skipped: mdadm is not installed: tests/run does that");
            return;
        };
        let text = String::from_utf8_lossy(&examine.stdout).into_owned();
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(" : "));
            let line = lines.find(|(known, _)| known.trim() == key);
            line.map(|(_, value)| value.trim()).unwrap_or_default()
        };
        let superblock = read(&own.build()).unwrap().unwrap();
        assert_eq!(
            (value("Version"), value("Raid Level")),
            (number, "raid1"),
            "{text}"
        );
        assert!(value("Checksum").ends_with("- correct"), "{text}");
        let uuid = superblock.array.replace('-', "");
        let shown = [value("Array UUID"), value("UUID")]
            .concat()
            .replace(':', "");
        assert!(shown.starts_with(&uuid), "{text}");
        if matches!(version, Old) {
            assert_eq!(value("Preferred Minor"), "3");
            assert_eq!(value("Raid Devices"), "2");
            assert!(
                text.lines()
                    .any(|line| line.starts_with("this") && line.ends_with("active sync"))
            );
        } else {
            assert_eq!(value("Device Role"), "Active device 1", "{text}");
            assert!(value("Name").starts_with("host:0"), "{text}");
            let sectors = superblock.data_bytes / 512;
            assert!(
                value("Avail Dev Size").starts_with(&sectors.to_string()),
                "{text}"
            );
            let at = superblock.data_at / 512;
            let is_told = value("Data Offset") == format!("{at} sectors");
            assert!(is_told || at == 0, "{text}");
            assert_eq!(value("Events"), "10", "{text}");
        }
    }
}
