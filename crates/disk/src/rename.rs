//! Renaming an image with all its files, and what refers to it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hako_block::gate::{folder_of, replace_file, sync_folder_of};
use hako_block::{Error, ErrorKind, ParentLink, Result};
use hako_formats::{OpenOptions, open_chain};

use crate::change::{Subject, Top};
use crate::delete::remove_file;
use crate::overlays::overlays_of;

/// What was renamed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenameReport {
    /// The image's files, old name and new, the main one first.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Further files of the image that keep their names, which do not come from the image's.
    pub kept: Vec<String>,
    /// Overlays whose link to their parent was rewritten.
    pub overlays: Vec<PathBuf>,
}

/// Gives an image another name in its folder: its files, the names inside it, and the links of
/// the overlays in that folder that stand on it. Files get their new names before they lose the
/// old ones: cut off anywhere, the image is there under one name or both, and running it again
/// completes it.
pub fn rename(subject: &Subject, to: &Path) -> Result<RenameReport> {
    rename_and_tell(subject, to, &mut || Ok(()))
}

/// Gives an image another name as [`rename`] does, and lets `tell` tell whoever refers to it: it
/// is called while the image has both names.
pub fn rename_and_tell(
    subject: &Subject,
    to: &Path,
    tell: &mut dyn FnMut() -> Result<()>,
) -> Result<RenameReport> {
    let plan = Plan::make(subject, to)?;
    let is_removal = |step: &&Step| matches!(step, Step::Remove { .. });
    for step in plan.steps.iter().filter(|step| !is_removal(step)) {
        step.run()?;
    }
    tell()?;
    for step in plan.steps.iter().filter(is_removal) {
        step.run()?;
    }
    // The lock on the old files goes before the new image is opened.
    let report = plan.report;
    drop(plan.steps);
    let renamed = Subject {
        path: to.to_path_buf(),
        open: OpenOptions {
            from: Some(plan.format.to_owned()),
            ..subject.open.clone()
        },
    };
    let top = renamed.open_top()?;
    top.format
        .renamed(top.args)
        .map_err(|error| error.in_file(to))?;
    Ok(report)
}

/// Everything that a renaming does, in order, up to mending what the image says of its own name.
struct Plan {
    steps: Vec<Step>,
    report: RenameReport,
    format: &'static str,
}

enum Step {
    /// Gives a file a second name.
    Link { from: PathBuf, to: PathBuf },
    /// Replaces a small file.
    Replace { path: PathBuf, bytes: Vec<u8> },
    /// Rewrites an overlay's link.
    Relink { overlay: Top, link: Box<ParentLink> },
    /// Takes a name away.
    Remove { path: PathBuf, _held: Option<Top> },
}

impl Plan {
    fn make(subject: &Subject, to: &Path) -> Result<Self> {
        let from = &subject.path;
        let same_folder = match (folder_of(from).canonicalize(), folder_of(to).canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        let (Some(old_name), Some(new_name)) = (name_of(from), name_of(to)) else {
            return Err(Error::invalid("is no file name in UTF-8").in_file(to));
        };
        if !same_folder {
            return Err(Error::invalid("is in another folder").in_file(to).hint(
                "rename keeps an image in its folder; convert it, or move all its files by hand",
            ));
        }
        if old_name == new_name {
            return Err(Error::invalid("is its name already").in_file(to));
        }
        if std::fs::symlink_metadata(from).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(Error::invalid("is a symbolic link: name the image itself").in_file(from));
        }
        let overlays = overlays_of(from)?;
        let top = subject.open_top()?;
        let format = top.format.name();
        let renaming = top
            .format
            .renaming(top.args.clone(), &new_name)
            .map_err(|error| error.in_file(from))?;
        let folder = folder_of(from);
        let mut files: Vec<_> = renaming
            .files
            .iter()
            .map(|(old, new)| (folder.join(old), folder.join(new)))
            .collect();
        for (old, new) in files.iter().chain([&(from.clone(), to.to_path_buf())]) {
            refuse_other(old, new, renaming.main.as_deref())?;
        }
        let link = |(from, to): &(PathBuf, PathBuf)| Step::Link {
            from: from.clone(),
            to: to.clone(),
        };
        let mut steps: Vec<Step> = files.iter().map(link).collect();
        files.insert(0, (from.clone(), to.to_path_buf()));
        steps.push(link(&files[0]));
        if let Some(bytes) = renaming.main {
            let path = to.to_path_buf();
            steps.push(Step::Replace { path, bytes });
        }
        for overlay in &overlays {
            steps.push(relink(overlay, subject, &old_name, &new_name)?);
        }
        let mut held = Some(top);
        for (path, _) in &files {
            steps.push(Step::Remove {
                path: path.clone(),
                _held: held.take(),
            });
        }
        Ok(Plan {
            steps,
            report: RenameReport {
                files,
                kept: renaming.kept,
                overlays,
            },
            format,
        })
    }
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

/// Refuses a new name that is taken by anything but this very file, from a run that was cut off.
fn refuse_other(old: &Path, new: &Path, new_text: Option<&[u8]>) -> Result<()> {
    let Ok(taken) = std::fs::symlink_metadata(new) else {
        return Ok(());
    };
    let same = std::fs::metadata(old)
        .is_ok_and(|old| (old.dev(), old.ino()) == (taken.dev(), taken.ino()));
    let is_new_text =
        || new_text.is_some_and(|text| std::fs::read(new).is_ok_and(|now| now == text));
    if same || is_new_text() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Exists, "exists already")
        .in_file(new)
        .hint("choose another name"))
}

/// Opens an overlay, so that it is known before anything is done that it can be changed.
fn relink(overlay: &Path, parent: &Subject, old_name: &str, new_name: &str) -> Result<Step> {
    let subject = Subject {
        path: overlay.to_path_buf(),
        open: OpenOptions {
            top_only: true,
            rules: parent.open.rules.clone(),
            ..OpenOptions::default()
        },
    };
    let opened = open_chain(overlay, &subject.writable())?;
    let layer = &opened.layers[0];
    let link = layer.image.info().parent.clone().unwrap_or_default();
    let renamed = |name: &String| match name.strip_suffix(old_name) {
        Some(folder) if folder.is_empty() || folder.ends_with(['/', '\\']) => {
            format!("{folder}{new_name}")
        }
        _ => name.clone(),
    };
    Ok(Step::Relink {
        overlay: Top {
            format: layer.format,
            args: layer.args.clone(),
        },
        link: Box::new(ParentLink {
            name: renamed(&link.name),
            other_names: link.other_names.iter().map(renamed).collect(),
            ..link
        }),
    })
}

impl Step {
    fn run(&self) -> Result<()> {
        match self {
            Step::Link { from, to } => {
                link_or_rename(from, to)?;
                sync_folder_of(to)
            }
            Step::Replace { path, bytes } => replace_file(path, bytes),
            Step::Relink { overlay, link } => {
                let name = overlay.args.storage.name().to_owned();
                let relinked = overlay.format.relink(overlay.args.clone(), Some(link));
                relinked.map_err(|error| error.in_file(name))
            }
            Step::Remove { path, .. } => {
                if path.symlink_metadata().is_err() {
                    return Ok(()); // A file system without hard links: it was renamed.
                }
                remove_file(path)
            }
        }
    }
}

/// Gives a file a second name; on a file system without hard links, another name.
fn link_or_rename(from: &Path, to: &Path) -> Result<()> {
    let failed = |error| Error::io("rename", error).in_file(to);
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        // A run that was cut off had come this far.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::Unsupported
            ) =>
        {
            std::fs::rename(from, to).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use hako_block::{Access, BlockImage, Cancel, NoProgress};
    use hako_formats::{CreateOptions, FORMATS};

    use super::*;
    use crate::{CreateRequest, create};

    const SIZE: u64 = 3 << 20;

    fn make(path: &Path, to: &str, subformat: &str, parent: Option<&Path>) {
        let request = CreateRequest {
            path: path.to_path_buf(),
            to: hako_formats::format_named(to).unwrap(),
            virtual_size: Some(SIZE),
            create: CreateOptions {
                subformat: (!subformat.is_empty()).then(|| subformat.to_owned()),
                ..CreateOptions::default()
            },
            parent: parent.map(Path::to_path_buf),
            parent_from: None,
            rules: Default::default(),
            force: false,
        };
        create(request, &NoProgress, &Cancel::default()).unwrap();
    }

    fn subject(path: &Path) -> Subject {
        Subject {
            path: path.to_path_buf(),
            open: OpenOptions::default(),
        }
    }

    fn content(path: &Path) -> Result<Vec<u8>> {
        let opened = open_chain(path, &OpenOptions::default())?;
        let mut bytes = vec![0; SIZE as usize];
        opened.chain.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Makes an image with an overlay on it, if it can have one; returns what the guest sees.
    fn world(folder: &Path, to: &str, subformat: &str) -> (PathBuf, Option<PathBuf>, Vec<u8>) {
        let extension = hako_formats::format_named(to).unwrap().extensions()[0];
        let (old, top) = ["old", "top"]
            .map(|name| folder.join(format!("{name}.{extension}")))
            .into();
        make(&old, to, subformat, None);
        let mut bytes = vec![0; SIZE as usize];
        bytes[4096..8192].fill(7);
        let options = OpenOptions {
            access: Access::ReadWrite,
            ..OpenOptions::default()
        };
        let chain = open_chain(&old, &options).unwrap().chain;
        chain.write_at(0, &bytes).unwrap();
        chain.flush().unwrap();
        drop(chain);
        let is_overlay = matches!(
            (to, subformat),
            ("qcow2", _) | ("vmdk", "twoGbMaxExtentSparse")
        );
        if is_overlay {
            make(&top, to, subformat, Some(&old));
        }
        (old, is_overlay.then_some(top), bytes)
    }

    #[test]
    fn image_is_there_wherever_a_renaming_is_cut_off_and_the_next_run_completes_it() {
        let variants = FORMATS.iter().flat_map(|format| {
            let rows = format.subformats().iter();
            rows.filter(|row| {
                row.create && row.write && !matches!(row.name, "differencing" | "diff")
            })
            .map(|row| (format.name(), row.name))
        });
        for (to, subformat) in variants {
            let mut n_done = 0;
            loop {
                let folder = tempfile::tempdir().unwrap();
                let (old, top, bytes) = world(folder.path(), to, subformat);
                let new = old.with_file_name(
                    old.file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .replace("old", "new"),
                );
                let plan = Plan::make(&subject(&old), &new).unwrap();
                let n_steps = plan.steps.len();
                for step in &plan.steps[..n_done] {
                    step.run().unwrap();
                }
                drop(plan);
                let about = format!("{to} {subformat} after {n_done} of {n_steps} steps");
                let is_at = |path: &Path| content(path).is_ok_and(|found| found == bytes);
                assert!(is_at(&old) || is_at(&new), "{about}");
                if let Some(top) = &top {
                    assert!(is_at(top), "{about}: the overlay");
                }
                if old.exists() {
                    rename(&subject(&old), &new).unwrap_or_else(|error| panic!("{about}: {error}"));
                }
                assert!(is_at(&new), "{about}: completed");
                assert!(!old.exists(), "{about}");
                if let Some(top) = &top {
                    assert!(is_at(top), "{about}: the overlay, completed");
                }
                n_done += 1;
                if n_done > n_steps {
                    break;
                }
            }
        }
    }
}
