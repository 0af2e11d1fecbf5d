//! Mending what is damaged, extent by extent. Nothing is invented: what is mended is there twice.

use std::sync::Arc;

use hako_block::{ErrorKind, Result};

use crate::disk::vmdk::home::Home;
use crate::disk::vmdk::hosted::{self, HostedArgs};
use crate::disk::vmdk::layout::{Layout, Source};
use crate::disk::vmdk::stream::{self, StreamArgs};
use crate::disk::{OpenArgs, Repair};

/// Mends the image as far as it can be without guessing. Returns what was done, one sentence each.
pub fn repair(args: &OpenArgs, what: Repair) -> Result<Vec<String>> {
    let layout = match Layout::take_apart(args) {
        Ok(layout) => layout,
        // The check that follows tells it.
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let alone = matches!(layout.home, Home::Embedded { .. });
    let mut done = Vec::new();
    if what == Repair::All && layout.home.settle(&layout.descriptor)? {
        done.push("the descriptor brought back to its usual place".to_owned());
    }
    for part in &layout.parts {
        let file = part.line.file.as_deref().unwrap_or_default();
        let texts = repair_source(&part.source, what).map_err(|error| error.in_file(file))?;
        done.extend(texts.into_iter().map(|text| match alone {
            true => text,
            false => format!("{file}: {text}"),
        }));
    }
    Ok(done)
}

fn repair_source(source: &Source, what: Repair) -> Result<Vec<String>> {
    match source {
        Source::Hosted(storage, header) => hosted::repair(
            &HostedArgs {
                storage: Arc::clone(storage),
                header: header.clone(),
                access: hako_block::Access::ReadWrite,
                has_parent: false,
            },
            what,
        ),
        Source::Stream(storage, header) if what == Repair::All => stream::repair(&StreamArgs {
            storage: Arc::clone(storage),
            header: header.clone(),
            salvage: false,
        }),
        // Nothing of these is there twice.
        _ => Ok(Vec::new()),
    }
}
