//! Repairing an image, never without a saved copy of what is overwritten.

use std::path::{Path, PathBuf};

use hako_block::saved::{SavedCopy, put_back};
use hako_block::{Access, Error, ErrorKind, Gate, Resolver, Result};
use hako_formats::{DiskFormat, OpenArgs, Repair, open_file};

use crate::change::Subject;
use crate::check::{LayerCheck, check_structure};

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// What was found before.
    pub before: LayerCheck,
    /// What was done, one sentence each.
    pub repaired: Vec<String>,
    /// What is found now.
    pub after: LayerCheck,
    /// Where the copy of what was overwritten is, if anything was.
    pub saved: Option<PathBuf>,
}

/// Mends the image's own file; its parents are left alone. What is overwritten is saved beside
/// the image first; [`undo`] puts it back.
pub fn repair(subject: &Subject, what: Repair) -> Result<RepairReport> {
    let options = subject.writable();
    let (format, opened) = open_file(&subject.path, &options)?;
    let saved = SavedCopy::new(&free_saved_name(&subject.path)?);
    let args = options.args(saved.guard(opened));
    let before = look(format, args.clone())?;
    let repaired = format
        .repair(args, what)
        .map_err(|error| error.in_file(&subject.path))?;
    // Opened anew: the repair may have replaced the file.
    let after = subject.open_top()?;
    let after = look(after.format, after.args)?;
    Ok(RepairReport {
        before,
        repaired,
        after,
        saved: saved.path().map(Path::to_path_buf),
    })
}

fn look(format: &'static dyn DiskFormat, args: OpenArgs) -> Result<LayerCheck> {
    check_structure(
        format,
        OpenArgs {
            access: Access::ReadOnly,
            ..args
        },
    )
}

/// Puts back what a repair overwrote and saved at `saved`. Returns the names of the files that it
/// changed.
pub fn undo(subject: &Subject, saved: &Path) -> Result<Vec<String>> {
    let options = subject.writable();
    let main = Gate::open_user(&subject.path, Access::ReadWrite, &options.rules)?;
    put_back(saved, &subject.path, &|name| {
        if name == main.name {
            return Ok(main.storage.clone());
        }
        let resolver: &dyn Resolver = &*main.resolver;
        Ok(resolver.open(name, Access::ReadWrite)?.storage)
    })
}

/// Returns a name for a copy of what a file had, beside it, that no file has: `NAME.saved`,
/// `NAME.saved-2` …
pub fn free_saved_name(file: &Path) -> Result<PathBuf> {
    const MAX_COPIES: u32 = 1000;
    (1..=MAX_COPIES)
        .map(|number| {
            let mut name = file.as_os_str().to_owned();
            name.push(".saved");
            if number > 1 {
                name.push(format!("-{number}"));
            }
            PathBuf::from(name)
        })
        .find(|path| path.symlink_metadata().is_err())
        .ok_or_else(|| {
            Error::new(ErrorKind::Exists, "too many saved copies beside it").in_file(file)
        })
}
