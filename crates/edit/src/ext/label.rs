//! The label of SELinux, an attribute that is in the inode, or in a block of attributes (kernel
//! documentation, ext4, "Extended Attributes").

use hako_block::Result;
use hako_guest::bytes::le::{u16_at, u32_at};
use hako_guest::volume::read_vec;

use super::inode::Inode;
use super::{Ext, put};

const MAGIC: u32 = 0xea02_0000;
const ENTRY_BYTES: usize = 16;
/// The header of a block of attributes.
const HEADER_BYTES: usize = 32;
/// e_name_index of "security.".
const SECURITY: u8 = 6;
const NAME: &[u8] = b"selinux";

impl Ext {
    /// Returns the label of an inode; none if it has none.
    pub(super) fn label(&self, inode: &Inode) -> Result<Option<Vec<u8>>> {
        let own = inode
            .raw
            .get(128 + inode.extra_bytes()..)
            .unwrap_or_default();
        if u32_at(own, 0) == MAGIC {
            let values = own.get(4..).unwrap_or_default();
            if let Some(label) = find(values, values) {
                return Ok(Some(label));
            }
        }
        let block = inode.attribute_block();
        if block == 0 || block >= self.layout.n_blocks {
            return Ok(None);
        }
        let bytes = self.layout.block_bytes;
        let all = read_vec(&*self.volume, block * bytes, bytes as usize)?;
        Ok(match u32_at(&all, 0) {
            MAGIC => find(all.get(HEADER_BYTES..).unwrap_or_default(), &all),
            _ => None,
        })
    }
}

/// Looks the label up among entries whose values lie in `values`.
fn find(entries: &[u8], values: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    while let Some(entry) = entries.get(at..).filter(|entry| u32_at(entry, 0) != 0) {
        let name_len = usize::from(entry.first().copied()?);
        let name = entry.get(ENTRY_BYTES..ENTRY_BYTES + name_len);
        if entry.get(1) == Some(&SECURITY) && name == Some(NAME) && u32_at(entry, 4) == 0 {
            let from = usize::from(u16_at(entry, 2));
            let end = from.checked_add(u32_at(entry, 8) as usize)?;
            return values.get(from..end).map(<[u8]>::to_vec);
        }
        at += (ENTRY_BYTES + name_len).next_multiple_of(4);
    }
    None
}

impl Inode {
    /// Gives a new inode a label, if there is room for it.
    pub(super) fn set_label(&mut self, label: &[u8]) {
        let start = 128 + self.extra_bytes();
        let Some(room) = self.raw.len().checked_sub(start + 4) else {
            return;
        };
        let entry_bytes = (ENTRY_BYTES + NAME.len()).next_multiple_of(4);
        let Some(offset) = room.checked_sub(label.len().next_multiple_of(4)) else {
            return;
        };
        // The entry, the four zeros that end the list, the value.
        if self.raw.len() <= 128 || offset < entry_bytes + 4 {
            return;
        }
        let mut entry = vec![0; entry_bytes];
        put(&mut entry, 0, &[NAME.len() as u8, SECURITY]);
        put(&mut entry, 2, &(offset as u16).to_le_bytes());
        put(&mut entry, 8, &(label.len() as u32).to_le_bytes());
        put(&mut entry, ENTRY_BYTES, NAME);
        put(&mut self.raw, start, &MAGIC.to_le_bytes());
        put(&mut self.raw, start + 4, &entry);
        put(&mut self.raw, start + 4 + offset, label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_is_set_is_found() {
        let mut inode = Inode {
            number: 12,
            raw: vec![0; 256],
        };
        put(&mut inode.raw, 0x80, &[32, 0]);
        let label = b"system_u:object_r:etc_t:s0\0";
        inode.set_label(label);
        let own = &inode.raw[128 + 32 + 4..];
        assert_eq!(find(own, own).as_deref(), Some(&label[..]));
        let mut short = Inode {
            number: 12,
            raw: vec![0; 128],
        };
        short.set_label(label);
        assert_eq!(short.raw, [0; 128]);
    }
}
