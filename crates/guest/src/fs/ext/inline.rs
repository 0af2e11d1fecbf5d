//! Content in the inode: 60 bytes in place of the block map, the rest in the attribute `system.data`
//! (kernel documentation, ext4, "Inline Data").

use std::ops::ControlFlow;

use hako_block::Result;

use super::Ext;
use super::dir::Each;
use super::inode::Inode;
use crate::bytes::le::{u16_at, u32_at};

const ATTRIBUTES_MAGIC: u32 = 0xea02_0000;
/// e_name_index: "system.".
const SYSTEM: u8 = 7;
const ENTRY_BYTES: usize = 16;
/// A directory begins with the number of its parent.
const PARENT_BYTES: usize = 4;

impl Ext {
    /// Returns the content of an inode that is in it, what the inode says of its length apart.
    pub(super) fn inline_content(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut content = inode.block_field().to_vec();
        content.extend_from_slice(rest(inode)?);
        Ok(content)
    }

    /// Calls `each` for the names in a directory that is in its inode.
    pub(super) fn visit_inline(&self, inode: &Inode, each: Each) -> Result<()> {
        let first = inode.block_field().get(PARENT_BYTES..).unwrap_or(&[]);
        for entries in [first, rest(inode)?] {
            let flow = self.visit_entries(entries, each);
            if flow.map_err(|error| error.place(inode.place()))? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

/// Returns the value of `system.data`, empty if there is none.
fn rest(inode: &Inode) -> Result<&[u8]> {
    let attributes = inode.attributes();
    if u32_at(attributes, 0) != ATTRIBUTES_MAGIC {
        return Ok(&[]);
    }
    // Places of values count from here.
    let entries = attributes.get(4..).unwrap_or(&[]);
    let mut at = 0;
    while let Some(entry) = entries.get(at..).filter(|entry| u32_at(entry, 0) != 0) {
        let name_len = usize::from(entry.first().copied().unwrap_or(0));
        let name = entry.get(ENTRY_BYTES..ENTRY_BYTES + name_len);
        if entry.get(1) == Some(&SYSTEM) && name == Some(b"data") {
            let from = usize::from(u16_at(entry, 2));
            let len = u32_at(entry, 8) as usize;
            let value = from.checked_add(len).and_then(|end| entries.get(from..end));
            let in_place = value.filter(|_| u32_at(entry, 4) == 0);
            return in_place.ok_or_else(|| inode.corrupt("its data lies outside of it"));
        }
        at += (ENTRY_BYTES + name_len).next_multiple_of(4);
    }
    Ok(&[])
}
