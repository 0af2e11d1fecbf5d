//! Writing an overlay's own content into its parent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{
    BlockImage, Cancel, Error, LayerView, NoProgress, ParentLink, Progress, Result, Uuid,
};
use hako_formats::{CreateOptions, OpenOptions, OpenedChain, OpenedLayer, Settings, open_chain};
use hako_pipeline::{CopyOptions, InPlace, copy};

use crate::change::{Subject, Top};
use crate::create::{CreateRequest, create};
use crate::delete::remove_files;
use crate::overlays::overlays_of;

/// What becomes of the overlay once its content is in the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It stays, empty: made anew.
    Empty,
    /// It stays as it is.
    Keep,
    /// It is deleted.
    Delete,
}

/// What to commit.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// The overlay.
    pub subject: Subject,
    /// What becomes of it.
    pub afterwards: Afterwards,
    /// Do it though other overlays stand on the parent.
    pub force: bool,
    /// How many threads read; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitReport {
    /// The parent's file.
    pub parent: PathBuf,
    /// Bytes written into it as data.
    pub data_bytes: u64,
}

/// Writes what the overlay itself stores into its parent. Cut off anywhere, the overlay still has
/// all its content; a parent that was written to is another one to VMDK and VHDX, so that the
/// overlay is refused until the commit is run again, which then goes through.
pub fn commit(
    request: &CommitRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CommitReport> {
    let subject = &request.subject;
    let intent = Intent::of(&subject.path);
    let mut opened = open_both(subject, intent.is_there())?;
    let parent = PathBuf::from(opened.layers[1].args.storage.name());
    if !request.force {
        Subject {
            path: parent.clone(),
            open: OpenOptions::default(),
        }
        .refuse_overlays(
            Some(&subject.path),
            "its content would change under that overlay",
        )?;
    }
    match request.afterwards {
        Afterwards::Keep => {}
        Afterwards::Empty => refuse_to_empty(&opened.layers[0])?,
        Afterwards::Delete if request.force => {}
        Afterwards::Delete => {
            subject.refuse_overlays(None, "deleting it would lose that one's content, too")?;
        }
    }
    intent.write()?;
    let size = opened.chain.info().virtual_size;
    if size > opened.layers[1].image.info().virtual_size {
        grow_parent(opened, size)?;
        opened = open_both(subject, true)?;
    }
    let options = CopyOptions {
        keep_holes: true,
        ..CopyOptions::new(progress, cancel).with_threads(request.threads)
    };
    progress.phase("commit");
    let OpenedChain { chain, layers } = opened;
    let Some(below) = chain.from_layer(1) else {
        return Err(no_parent(subject));
    };
    let own = LayerView::new(Arc::clone(&layers[0].image), Arc::new(chain));
    let report = copy(&own, Box::new(InPlace(&below)), size, &options)?;
    drop((own, below));
    finish(request, layers, &parent)?;
    intent.remove()?;
    Ok(CommitReport {
        parent,
        data_bytes: report.data_bytes,
    })
}

/// Opens an overlay with its parents, itself and its parent for writing.
fn open_both(subject: &Subject, resuming: bool) -> Result<OpenedChain> {
    let options = OpenOptions {
        parent_writable: true,
        any_content: resuming,
        ..subject.writable()
    };
    let opened = open_chain(&subject.path, &options)?;
    if opened.layers.len() < 2 {
        return Err(no_parent(subject));
    }
    Ok(opened)
}

fn no_parent(subject: &Subject) -> Error {
    Error::invalid("has no parent to commit into").in_file(&subject.path)
}

/// Refuses an overlay that holds more than content: making it anew would lose that.
fn refuse_to_empty(overlay: &OpenedLayer) -> Result<()> {
    let info = overlay.image.info();
    let has = |key: &str| info.details.iter().any(|(name, _)| *name == key);
    match ["snapshots", "bitmaps"].into_iter().find(|key| has(key)) {
        None => Ok(()),
        Some(key) => Err(Error::unsupported(format!(
            "the overlay has {key} inside, which emptying it would lose"
        ))
        .in_file(overlay.args.storage.name())
        .hint("keep it as it is (--keep) or delete it (--delete)")),
    }
}

/// Makes a smaller parent as large as its overlay. The layers are opened anew afterwards: the
/// driver may have replaced the file.
fn grow_parent(opened: OpenedChain, size: u64) -> Result<()> {
    match Top::of_chain(opened).into_iter().nth(1) {
        Some(parent) => {
            let name = parent.args.storage.name().to_owned();
            let resized = parent.format.resize(parent.args, size);
            resized.map_err(|error| error.in_file(name))
        }
        None => Ok(()),
    }
}

fn finish(request: &CommitRequest, layers: Vec<OpenedLayer>, parent: &Path) -> Result<()> {
    let subject = &request.subject;
    match request.afterwards {
        Afterwards::Delete => remove_files(&layers[0]),
        Afterwards::Keep => {
            drop(layers);
            relink_to_current(subject)
        }
        Afterwards::Empty => {
            let above = overlays_of(&subject.path)?;
            let overlay = &layers[0];
            let (to, info) = (overlay.format, overlay.image.info().clone());
            drop(layers);
            let create_options = CreateOptions {
                subformat: info.subformat,
                ..CreateOptions::default()
            };
            let request = CreateRequest {
                path: subject.path.clone(),
                to,
                virtual_size: Some(info.virtual_size),
                create: create_options,
                parent: Some(parent.to_path_buf()),
                parent_from: None,
                rules: subject.open.rules.clone(),
                force: true,
            };
            create(request, &NoProgress, &Cancel::default())?;
            keep_identity(subject, info.identity)?;
            relink_above(subject, &above)
        }
    }
    .map_err(|error| error.in_file(&subject.path))
}

/// Gives an overlay that was made anew what it was known by.
fn keep_identity(subject: &Subject, identity: Option<Uuid>) -> Result<()> {
    let Some(uuid) = identity else { return Ok(()) };
    let top = subject.open_top()?;
    let settings = Settings {
        uuid: Some(uuid),
        ..Settings::default()
    };
    top.format.set(top.args, &settings)
}

/// Tells the overlays on an overlay that was made anew its new content ID: its content is what it
/// was.
fn relink_above(subject: &Subject, above: &[PathBuf]) -> Result<()> {
    for path in above {
        relink_to_current(&Subject {
            path: path.clone(),
            open: subject.open.clone(),
        })?;
    }
    Ok(())
}

/// Makes an overlay say the content ID that its parent has now.
pub(crate) fn relink_to_current(subject: &Subject) -> Result<()> {
    let options = OpenOptions {
        any_content: true,
        ..subject.writable()
    };
    let opened = open_chain(&subject.path, &options)?;
    let link = opened.chain.info().parent.clone();
    let (Some(link), Some(below)) = (link, opened.layers.get(1)) else {
        return Ok(());
    };
    let content_id = below.image.info().content_id;
    match Top::of_chain(opened).into_iter().next() {
        Some(overlay) if link.content_id != content_id => {
            let link = ParentLink { content_id, ..link };
            overlay.format.relink(overlay.args, Some(&link))
        }
        _ => Ok(()),
    }
}

/// What the name of a [note](overlay_of_note) ends with.
const COMMIT_SUFFIX: &str = ".hako-commit";

/// Returns the overlay of which a file is the note that its commit has begun; none if it is no such
/// note.
pub fn overlay_of_note(note: &Path) -> Option<PathBuf> {
    let name = note.file_name()?.to_str()?.strip_prefix('.')?;
    Some(note.with_file_name(name.strip_suffix(COMMIT_SUFFIX)?))
}

/// The note beside an overlay that its commit has begun: its parent's content ID may have changed
/// since the overlay recorded it, and that is no reason to refuse.
struct Intent(PathBuf);

impl Intent {
    fn of(overlay: &Path) -> Self {
        let name = overlay.file_name().unwrap_or_default().to_string_lossy();
        Intent(overlay.with_file_name(format!(".{name}{COMMIT_SUFFIX}")))
    }

    fn is_there(&self) -> bool {
        self.0.exists()
    }

    fn write(&self) -> Result<()> {
        hako_block::gate::replace_file(&self.0, b"hako disk commit has begun\n")
    }

    fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", error).in_file(&self.0))
            }
            _ => Ok(()),
        }
    }
}
