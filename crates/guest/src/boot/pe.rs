//! Sections of a PE program ("PE Format" of Microsoft), as unified kernel images (UAPI.5) have them.

use hako_block::{Error, Result};

use super::files::Blob;
use crate::bytes::le;

/// Sections that are looked at: Windows loads no more.
const MOST_SECTIONS: u16 = 96;
const SECTION_BYTES: u64 = 40;

/// Returns the sections of a program by name, those of its first profile. None if it is no program.
/// Errors: [`hako_block::ErrorKind::Corrupt`] if a section does not lie inside of the file.
pub(super) fn sections(program: &Blob) -> Result<Option<Vec<(String, Blob)>>> {
    let bytes = |offset: u64, len: u64| program.part(offset, len)?.read(4096);
    if program.len_bytes() < 0x40 {
        return Ok(None);
    }
    let head = bytes(0, 0x40)?;
    if !head.starts_with(b"MZ") {
        return Ok(None);
    }
    let at = u64::from(le::u32_at(&head, 0x3c));
    if at + 24 > program.len_bytes() {
        return Ok(None);
    }
    let coff = bytes(at, 24)?;
    if !coff.starts_with(b"PE\0\0") {
        return Ok(None);
    }
    let n_sections = le::u16_at(&coff, 6);
    if n_sections > MOST_SECTIONS {
        return Err(Error::corrupt(
            "PE header",
            format!("{n_sections} sections"),
        ));
    }
    let table = at + 24 + u64::from(le::u16_at(&coff, 20));
    let mut sections: Vec<(String, Blob)> = Vec::new();
    for number in 0..u64::from(n_sections) {
        let record = bytes(table + number * SECTION_BYTES, SECTION_BYTES)?;
        let name = record.get(..8).unwrap_or_default();
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        // What follows belongs to another profile.
        if name == ".profile" && sections.iter().any(|(known, _)| *known == name) {
            break;
        }
        let (in_memory, in_file) = (le::u32_at(&record, 8), le::u32_at(&record, 16));
        // The rest of a section in the file is padding.
        let len = if in_memory == 0 {
            in_file
        } else {
            in_memory.min(in_file)
        };
        let part = program.part(le::u32_at(&record, 20).into(), len.into());
        sections.push((name, part?));
    }
    Ok(Some(sections))
}
