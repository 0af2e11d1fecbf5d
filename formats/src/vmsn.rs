//! VMSN and VMSS, in which VMware's products keep the state of a machine: of a snapshot, or of a
//! suspended one. Read are the machine's configuration and whether its memory is in there.
//!
//! VMware has published no specification. The layout is that of VMware's own reader in the `crash`
//! utility (`vmware_vmss.h`), all numbers little-endian:
//!
//! | what | bytes |
//! |---|---|
//! | header | magic 4, version 4, number of groups 4 |
//! | group, behind the header | name 64 (ends with a zero), offset 8, size 8 |
//! | item, from a group's offset on | tag 2, name, 4 for each index, value |
//! | value of a block | size 8, size in memory 8, padding's size 2, padding, bytes |
//!
//! A tag has the value's size in bits 0 to 5 (63 is a block, 62 a compressed one), the number of
//! indices in bits 6 and 7, the name's length in bits 8 to 15. The tag 0 ends a group. The .vmx is
//! the block `cfgFile` of the group `Snapshot`.

use hako_block::{Error, Result, Storage};

use crate::dictionary;
use crate::disk::bytes::array_at;

/// Magics of files whose sizes have 8 bytes: complete, partial (its memory is elsewhere), and
/// restored from.
const MAGICS: [u32; 3] = [0xbed2_bed2, 0xbed3_bed3, 0xbad1_bad1];
const HEADER_BYTES: u64 = 12;
const GROUP_BYTES: u64 = 80;
const NAME_BYTES: usize = 64;
/// Most groups that are read.
const MAX_GROUPS: u32 = 4096;
/// Most items of a group that are read.
const MAX_ITEMS: usize = 1 << 16;
/// Longest item but for a block's bytes: tag, name, indices, value.
const MAX_ITEM_BYTES: usize = 2 + 255 + 12 + 62;
const BLOCK: u16 = 63;
const COMPRESSED: u16 = 62;

/// What is read of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmsn {
    /// The text of the machine's .vmx; none if it is not in there, or compressed.
    pub config: Option<Vec<u8>>,
    /// Whether the state is that of a machine that ran.
    pub has_memory: bool,
}

impl Vmsn {
    /// Reads a state. Errors: [`hako_block::ErrorKind::Unsupported`] for what is none, or of an
    /// older layout; [`hako_block::ErrorKind::Corrupt`] for one that contradicts itself.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let len = storage.len_bytes()?;
        let mut vmsn = Self {
            config: None,
            has_memory: false,
        };
        for group in groups(storage, len)? {
            match group.name.as_slice() {
                b"memory" => vmsn.has_memory = true,
                b"Snapshot" => vmsn.config = config(storage, &group, len)?,
                _ => {}
            }
        }
        Ok(vmsn)
    }
}

struct Group {
    name: Vec<u8>,
    offset: u64,
}

fn groups(storage: &dyn Storage, len: u64) -> Result<Vec<Group>> {
    let unknown = || Error::unsupported("is no state of a machine that is understood");
    if len < HEADER_BYTES {
        return Err(unknown());
    }
    let mut header = [0; HEADER_BYTES as usize];
    storage.read_at(0, &mut header)?;
    if !MAGICS.contains(&u32::from_le_bytes(array_at(&header, 0))) {
        return Err(unknown());
    }
    let count = u32::from_le_bytes(array_at(&header, 8));
    if count > MAX_GROUPS || HEADER_BYTES + u64::from(count) * GROUP_BYTES > len {
        let what = format!("{count} groups are more than there can be");
        return Err(Error::corrupt("header", what).at_byte(8));
    }
    let mut table = vec![0; count as usize * GROUP_BYTES as usize];
    storage.read_at(HEADER_BYTES, &mut table)?;
    let records = table.chunks_exact(GROUP_BYTES as usize);
    Ok(records
        .map(|record| Group {
            name: record
                .iter()
                .take(NAME_BYTES)
                .take_while(|byte| **byte != 0)
                .copied()
                .collect(),
            offset: u64::from_le_bytes(array_at(record, NAME_BYTES)),
        })
        .collect())
}

/// Returns the block `cfgFile` of a group.
fn config(storage: &dyn Storage, group: &Group, len: u64) -> Result<Option<Vec<u8>>> {
    let mut offset = group.offset;
    for _ in 0..MAX_ITEMS {
        let Some(item) = Item::read(storage, offset, len)? else {
            return Ok(None);
        };
        if item.name == b"cfgFile" && item.is_plain_block {
            let size = usize::try_from(item.size).unwrap_or(usize::MAX);
            if size > dictionary::MAX_BYTES {
                let what = format!("a configuration of {size} bytes is too long");
                return Err(Error::corrupt("cfgFile", what).at_byte(offset));
            }
            let mut text = vec![0; size];
            storage.read_at(item.at, &mut text)?;
            return Ok(Some(text));
        }
        offset = item.at.saturating_add(item.size);
    }
    Ok(None)
}

/// An item of a group.
struct Item {
    name: Vec<u8>,
    is_plain_block: bool,
    /// Where its value is.
    at: u64,
    size: u64,
}

impl Item {
    /// Reads the item at `offset`, all of which is in the file; none at the end of the group.
    fn read(storage: &dyn Storage, offset: u64, len: u64) -> Result<Option<Self>> {
        let beyond = || Error::corrupt("group", "reaches beyond the end").at_byte(offset);
        let left = len.checked_sub(offset).ok_or_else(beyond)?;
        let mut bytes = [0; MAX_ITEM_BYTES];
        let n_read = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(MAX_ITEM_BYTES);
        storage.read_at(offset, &mut bytes[..n_read])?;
        let tag = u16::from_le_bytes(array_at(&bytes, 0));
        if tag == 0 {
            return Ok(None);
        }
        let (value_size, n_indices) = (tag & 0x3f, usize::from(tag >> 6 & 3));
        let name_end = 2 + usize::from(tag >> 8);
        let value = name_end + 4 * n_indices;
        let is_block = matches!(value_size, BLOCK | COMPRESSED);
        let (at, size) = if is_block {
            let size = u64::from_le_bytes(array_at(&bytes, value));
            let padding = u16::from_le_bytes(array_at(&bytes, value + 16));
            (value as u64 + 18 + u64::from(padding), size)
        } else {
            (value as u64, u64::from(value_size))
        };
        let at = offset.checked_add(at).ok_or_else(beyond)?;
        if at.checked_add(size).is_none_or(|end| end > len) {
            return Err(beyond());
        }
        Ok(Some(Self {
            name: bytes.get(2..name_end).unwrap_or_default().to_vec(),
            is_plain_block: value_size == BLOCK,
            at,
            size,
        }))
    }
}

#[cfg(test)]
mod tests {
    use hako_block::{ErrorKind, MemoryStorage};

    use super::*;

    /// One item: its indices, and a value or a padded block.
    fn item(name: &str, indices: &[u32], block: Option<(u16, &[u8])>, value: &[u8]) -> Vec<u8> {
        let size = block.map_or(value.len() as u16, |(kind, _)| kind);
        let tag = (name.len() as u16) << 8 | (indices.len() as u16) << 6 | size;
        let mut bytes = tag.to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        indices
            .iter()
            .for_each(|index| bytes.extend(index.to_le_bytes()));
        match block {
            None => bytes.extend(value),
            Some((_, content)) => {
                bytes.extend((content.len() as u64).to_le_bytes());
                bytes.extend((content.len() as u64).to_le_bytes());
                bytes.extend(3_u16.to_le_bytes());
                bytes.extend([0xee; 3]);
                bytes.extend(content);
            }
        }
        bytes
    }

    fn file(groups: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = 0xbed2_bed2_u32.to_le_bytes().to_vec();
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend((groups.len() as u32).to_le_bytes());
        let mut offset = 12 + 80 * groups.len();
        for (name, items) in groups {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(64, 0);
            bytes.extend(padded);
            bytes.extend((offset as u64).to_le_bytes());
            bytes.extend((items.len() as u64 + 2).to_le_bytes());
            offset += items.len() + 2;
        }
        for (_, items) in groups {
            bytes.extend(items);
            bytes.extend([0, 0]);
        }
        bytes
    }

    fn state(config: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let items = [
            item("snapshotVersion", &[], None, &[1, 0, 0, 0]),
            item("nvramFile", &[], Some((63, &[7; 700])), &[]),
            item("cpu", &[1, 2], None, &[9; 8]),
            item("cfgFile", &[], Some((63, config)), &[]),
        ];
        vec![
            ("Checkpoint", item("x", &[], None, &[1])),
            ("Snapshot", items.concat()),
        ]
    }

    fn read(bytes: Vec<u8>) -> Result<Vmsn> {
        Vmsn::read(&MemoryStorage::new("x.vmsn", bytes))
    }

    #[test]
    fn configuration_and_memory_are_found() {
        let text = b"displayName = \"web\"\n";
        let mut groups = state(text);
        let vmsn = read(file(&groups)).unwrap();
        assert_eq!(vmsn.config.as_deref(), Some(&text[..]));
        assert!(!vmsn.has_memory);
        groups.push(("memory", item("regionsCount", &[], None, &[0; 4])));
        assert!(read(file(&groups)).unwrap().has_memory);
        let compressed = item("cfgFile", &[], Some((62, text)), &[]);
        let vmsn = read(file(&[("Snapshot", compressed)])).unwrap();
        assert_eq!(vmsn.config, None);
    }

    #[test]
    fn what_is_no_state_or_damaged_is_refused() {
        for bytes in [
            vec![],
            vec![0; 100],
            0xbed0_bed0_u32.to_le_bytes().repeat(9),
        ] {
            assert_eq!(read(bytes).unwrap_err().kind(), ErrorKind::Unsupported);
        }
        let whole = file(&state(b"displayName = \"web\"\n"));
        for cut in 12..whole.len() {
            // Whatever is cut off: an error or nothing found, and no panic.
            if let Ok(vmsn) = read(whole[..cut].to_vec()) {
                assert_ne!(vmsn.config.map(|text| text.len()), Some(0));
            }
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            let _ = read(bytes);
        }
        let mut many = whole;
        many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(many).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
