//! Mending what can be mended without guessing: a copy of the footer from the other, checksums of
//! records whose content fits the file, a resize that was cut off; and giving back leaks. BAT
//! entries that lead nowhere stay: there is nothing to put in their place.

use hako_block::Result;

use super::super::check::{check, find_leaks};
use super::super::open::{Dynamic, Found};
use super::{Disk, fixed, is_fixed, used_end};
use crate::disk::{OpenArgs, Repair, Severity};

/// Mends one layer. Returns what was done.
pub fn repair(args: &OpenArgs, what: Repair) -> Result<Vec<String>> {
    let args = OpenArgs {
        salvage: what == Repair::All,
        ..args.clone()
    };
    let found = Found::read(&*args.storage, args.salvage)?;
    if is_fixed(&found) {
        return match what {
            Repair::All => fixed_footer(&args, found),
            Repair::Leaks => Ok(Vec::new()),
        };
    }
    let mut done = Vec::new();
    if what == Repair::All {
        mend_records(&args, &mut done)?;
    }
    give_back(&args, &mut done)?;
    Ok(done)
}

fn fixed_footer(args: &OpenArgs, found: Found) -> Result<Vec<String>> {
    let storage = &*args.storage;
    if let (Some(resizing), Some(tail)) = (found.footer.resizing, found.tail) {
        fixed::finish(storage, tail, found.footer, resizing)?;
        return Ok(vec![format!(
            "finished the resize from {} to {} bytes",
            resizing.from, resizing.to
        )]);
    }
    match found.damaged_tail {
        // All of it fits, so the checksum is what is wrong.
        Some(at) if found.footer.current_size == at && found.footer.resizing.is_none() => {
            fixed::write(storage, at, &found.footer)?;
            Ok(vec!["corrected the footer's checksum".to_owned()])
        }
        _ => Ok(Vec::new()),
    }
}

/// Mends footers and header, unless what they say does not fit the file.
fn mend_records(args: &OpenArgs, done: &mut Vec<String>) -> Result<()> {
    let storage = &*args.storage;
    let findings = check(args)?;
    if findings.worst() == Some(Severity::Corruption) {
        return Ok(());
    }
    let found = Found::read(storage, true)?;
    let (mut disk, changed) = Disk::settle(storage, found, true)?;
    if changed {
        done.push("made both copies of the footer the same".to_owned());
    }
    if !disk.dynamic.header.checksum_ok {
        let (footer, header) = (
            disk.dynamic.found.footer.clone(),
            disk.dynamic.header.clone(),
        );
        disk.switch(footer, header)?;
        done.push("corrected the checksum of the dynamic header".to_owned());
    }
    Ok(())
}

/// Gives leaks back to the host. Where something is corrupt, a leak may be what it should be.
fn give_back(args: &OpenArgs, done: &mut Vec<String>) -> Result<()> {
    let storage = &*args.storage;
    let findings = check(args)?;
    if findings.n_leaks == 0 || findings.worst() == Some(Severity::Corruption) {
        return Ok(());
    }
    let (mut disk, _) = Disk::settle(storage, Found::read(storage, args.salvage)?, args.salvage)?;
    let end = used_end(storage, &disk.dynamic)?;
    if end < disk.tail {
        let cut = disk.tail - end;
        disk.end_at(end)?;
        done.push(format!("cut {cut} unused bytes off the end"));
    }
    let mut punched = 0;
    let found = Found::read(storage, args.salvage)?;
    for gap in find_leaks(storage, &Dynamic::read(found, storage, args.salvage)?)? {
        storage.punch_hole(gap.clone())?;
        punched += gap.end - gap.start;
    }
    if punched > 0 {
        storage.sync()?;
        done.push(format!("gave {punched} unused bytes back to the host"));
    }
    Ok(())
}
