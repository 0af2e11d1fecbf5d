//! Reparse points: links, and what other programs must give the content of.

use super::names::{to_utf8, units};
use super::record::REPARSE_POINT;
use super::stream::File;
use super::table::Table;
use crate::bytes::le;
use crate::fs::NodeKind;

/// The longest value, as Windows has it.
const LONGEST: u64 = 16 << 10;

/// What a reparse point makes of a file.
pub enum Reparse {
    /// A link: a symbolic one or a junction, and where it leads.
    Link(Vec<u8>),
    /// A thing of Linux (WSL).
    Special(NodeKind),
    /// A file whose content is not its data, and what has it.
    Elsewhere(String),
}

/// Reads the reparse point of a file. Tag 0, length of the data 4, data 8.
pub fn read(table: &Table, file: &File) -> hako_block::Result<Option<Reparse>> {
    let Some(stream) = file.stream(table, REPARSE_POINT, "")? else {
        return Ok(None);
    };
    if stream.len > LONGEST {
        return Err(super::bad(format!(
            "a reparse point of {} bytes",
            stream.len
        )));
    }
    let mut value = vec![0; usize::try_from(stream.len).unwrap_or_default()];
    stream.read(table, 0, &mut value)?;
    let data = value.get(8..).unwrap_or_default();
    let data = data.get(..usize::from(le::u16_at(&value, 4)));
    let data = data.ok_or_else(|| super::bad("a reparse point that is cut short"))?;
    decode(le::u32_at(&value, 0), data).map(Some)
}

fn decode(tag: u32, data: &[u8]) -> hako_block::Result<Reparse> {
    let elsewhere = |what: &str| Ok(Reparse::Elsewhere(what.to_owned()));
    match tag {
        // Junction and symbolic link: where the name is 0, its length 2; the latter has flags at 8.
        0xa000_0003 => link(data, 8),
        0xa000_000c => link(data, 12),
        // Link of WSL: version 0, path 4.
        0xa000_001d => Ok(Reparse::Link(data.get(4..).unwrap_or_default().to_vec())),
        0x8000_0023 => Ok(Reparse::Special(NodeKind::Socket)),
        0x8000_0024 => Ok(Reparse::Special(NodeKind::Fifo)),
        0x8000_0025 => Ok(Reparse::Special(NodeKind::CharDevice)),
        0x8000_0026 => Ok(Reparse::Special(NodeKind::BlockDevice)),
        0x8000_0017 => elsewhere(packed_by(data)),
        0x8000_0013 => elsewhere("deduplicated by Windows"),
        0x9000_001a..=0x9000_f01a if tag & 0xfff == 0x01a => elsewhere("kept in a cloud"),
        tag => elsewhere(&format!("reparse point {tag:#010x}")),
    }
}

/// What Windows packs system files with: version of the provider's data 8, algorithm 0x0c.
fn packed_by(data: &[u8]) -> &'static str {
    match (le::u32_at(data, 4), le::u32_at(data, 12)) {
        (2, 0) => "compressed by Windows with XPRESS4K (compact OS)",
        (2, 1) => "compressed by Windows with LZX (compact OS)",
        (2, 2) => "compressed by Windows with XPRESS8K (compact OS)",
        (2, 3) => "compressed by Windows with XPRESS16K (compact OS)",
        _ => "in an image beside it (WIMBoot)",
    }
}

/// Returns where a link leads. A path inside the volume gets slashes; one by a drive's letter or by
/// a volume's name leads nowhere here, and stays as it is.
fn link(data: &[u8], names_at: usize) -> hako_block::Result<Reparse> {
    let start = names_at.saturating_add(usize::from(le::u16_at(data, 0)));
    let len = usize::from(le::u16_at(data, 2));
    let name = data.get(start..).and_then(|rest| rest.get(..len));
    let name = name.ok_or_else(|| super::bad("a link's path lies outside"))?;
    let mut path = to_utf8(units(name));
    if let Some(rest) = path.strip_prefix(br"\??\") {
        path = rest.to_vec();
    }
    let has_drive = path.get(1) == Some(&b':') || path.starts_with(b"Volume{");
    if !has_drive {
        for byte in &mut path {
            if *byte == b'\\' {
                *byte = b'/';
            }
        }
    }
    Ok(Reparse::Link(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(tag: u32, names_at: usize, name: &str) -> String {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut data = vec![0; names_at];
        data[2..4].copy_from_slice(&(name.len() as u16).to_le_bytes());
        data.extend(&name);
        match decode(tag, &data).unwrap() {
            Reparse::Link(path) => String::from_utf8(path).unwrap(),
            _ => panic!("no link"),
        }
    }

    #[test]
    fn links_inside_the_volume_get_slashes_and_others_stay() {
        let symlink = |name| path(0xa000_000c, 12, name);
        assert_eq!(symlink(r"..\Größe\file"), "../Größe/file");
        assert_eq!(symlink(r"\Windows"), "/Windows");
        assert_eq!(symlink(r"\??\C:\Windows"), r"C:\Windows");
        let junction = |name| path(0xa000_0003, 8, name);
        assert_eq!(junction(r"\??\C:\Users"), r"C:\Users");
        assert_eq!(junction(r"\??\Volume{0a1b}\x"), r"Volume{0a1b}\x");
        assert!(decode(0xa000_000c, &[0xff; 12]).is_err());
        assert!(
            decode(0xa000_000c, &[0, 0, 1])
                .is_ok_and(|found| { matches!(found, Reparse::Link(path) if path.is_empty()) })
                || decode(0xa000_000c, &[0, 0, 1]).is_err()
        );
    }
}
