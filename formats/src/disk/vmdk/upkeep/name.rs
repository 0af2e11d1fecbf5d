//! Another name for the image: which of its files get one too, and what its text says then.

use std::collections::BTreeSet;

use hako_block::{Error, Result};

use crate::disk::vmdk::create::stem;
use crate::disk::vmdk::descriptor::{Descriptor, check_value};
use crate::disk::vmdk::home::Home;
use crate::disk::vmdk::layout::Text;
use crate::disk::{OpenArgs, Renaming};

/// Returns which files follow when the main file is named `new_name`, and the descriptor then.
pub fn renaming(args: &OpenArgs, new_name: &str) -> Result<Renaming> {
    check_value(new_name)?;
    let text = Text::find(args)?;
    text.refuse_unwritable()?;
    let stems = Stems {
        old: stem(&args.name),
        new: stem(new_name),
    };
    let own_line = text.own_line(&args.name, &mut Vec::new())?;
    // Names inside an embedded text could only be mended after the files have theirs.
    let is_text = matches!(text.home, Home::File { .. });
    let mut renaming = Renaming::default();
    let names = file_names(&text.descriptor, own_line);
    for name in &names {
        match stems.renamed(name).filter(|_| is_text) {
            Some(new) if names.contains(new.as_str()) => {
                return Err(Error::invalid(format!(
                    "{name:?} would get the name of another file of the image, {new:?}"
                )));
            }
            Some(new) => renaming.files.push(((*name).to_owned(), new)),
            None => renaming.kept.push((*name).to_owned()),
        }
    }
    renaming
        .files
        .extend(change_track(args, &text.descriptor, &stems)?);
    if is_text {
        let new = with_new_names(&text.descriptor, &stems)?;
        renaming.main = Some(new.text().to_vec());
    }
    Ok(renaming)
}

/// Mends what an embedded descriptor says of the file it is in, which is called `args.name` now.
pub fn renamed(args: &OpenArgs) -> Result<()> {
    let text = Text::find(args)?;
    let Some(own_line) = text.own_line(&args.name, &mut Vec::new())? else {
        return Ok(());
    };
    let line = text.descriptor.extents().get(own_line);
    let Some(old) = line.and_then(|line| line.file.as_deref()) else {
        return Ok(());
    };
    if old == args.name {
        return Ok(());
    }
    text.refuse_unwritable()?;
    let stems = Stems {
        old: stem(old),
        new: stem(&args.name),
    };
    let mut edits = text.descriptor.edit();
    edits.set_extent_file(own_line, &args.name)?;
    if let Some(new) = change_track_name(&text.descriptor, &stems) {
        edits.set(CHANGE_TRACK, &new)?;
    }
    text.home.replace(&text.descriptor, &edits.finish()?)
}

/// The key that names the change-tracking file.
const CHANGE_TRACK: &str = "changeTrackPath";

/// What names begin with, now and then.
struct Stems<'a> {
    old: &'a str,
    new: &'a str,
}

impl Stems<'_> {
    /// Returns the new name of a file that is called by the image's stem and a part of its own
    /// ("disk-s001.vmdk"), in the image's folder. `None`: it keeps its name.
    fn renamed(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix(self.old)?;
        let is_part = rest.starts_with('-') && !rest.contains(['/', '\\']);
        is_part.then(|| format!("{}{rest}", self.new))
    }
}

/// Returns the names of the extent files beside the main file, each once.
fn file_names(descriptor: &Descriptor, own_line: Option<usize>) -> BTreeSet<&str> {
    let lines = descriptor.extents().iter().enumerate();
    lines
        .filter(|(index, _)| Some(*index) != own_line)
        .filter_map(|(_, line)| line.file.as_deref())
        .collect()
}

fn change_track_name(descriptor: &Descriptor, stems: &Stems<'_>) -> Option<String> {
    stems.renamed(&descriptor.value(CHANGE_TRACK)?)
}

/// Returns the change-tracking file, if it is there, with its new name.
fn change_track(
    args: &OpenArgs,
    descriptor: &Descriptor,
    stems: &Stems<'_>,
) -> Result<Option<(String, String)>> {
    let (Some(old), Some(new)) = (
        descriptor.value(CHANGE_TRACK),
        change_track_name(descriptor, stems),
    ) else {
        return Ok(None);
    };
    let is_there = args.resolver.names()?.contains(&old);
    Ok(is_there.then_some((old, new)))
}

fn with_new_names(descriptor: &Descriptor, stems: &Stems<'_>) -> Result<Descriptor> {
    let mut edits = descriptor.edit();
    for (index, line) in descriptor.extents().iter().enumerate() {
        if let Some(new) = line.file.as_deref().and_then(|file| stems.renamed(file)) {
            edits.set_extent_file(index, &new)?;
        }
    }
    if let Some(new) = change_track_name(descriptor, stems) {
        edits.set(CHANGE_TRACK, &new)?;
    }
    edits.finish()
}
