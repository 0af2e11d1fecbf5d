//! What is done to an image beyond its content, with nobody else using it.

mod compact;
mod relink;
mod repair;
mod resize;
mod shed;

use hako_block::{Access, Error, ErrorKind, Result};

use super::check;
use super::header::Header;
use super::image::Image;
use super::open;
use crate::disk::{Findings, OpenArgs, Severity};

pub use compact::compact;
pub use relink::relink;
pub use repair::repair;
pub use resize::resize;

/// Opens an image for a change that relies on its refcounts. Errors: it is damaged.
fn open_sound(args: &OpenArgs) -> Result<(Header, Image)> {
    let args = OpenArgs {
        access: Access::ReadWrite,
        snapshot: None,
        ..args.clone()
    };
    let image = open::open(&args)?;
    refuse_damage(&args)?;
    Ok((Header::read(&*args.storage)?, image))
}

/// Checks an image. Errors: it is damaged.
fn refuse_damage(args: &OpenArgs) -> Result<Findings> {
    let findings = check::check(args)?;
    if findings.n_corruptions == 0 {
        return Ok(findings);
    }
    let first = findings
        .list
        .iter()
        .find(|finding| finding.severity == Severity::Corruption);
    let text = first.map_or("", |finding| &finding.text);
    Err(
        Error::new(ErrorKind::Corrupt, format!("is damaged: {text}"))
            .hint("have it repaired first: hako disk check --repair all"),
    )
}
