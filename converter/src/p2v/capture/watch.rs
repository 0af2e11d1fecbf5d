//! Noticing that somebody writes to what is copied.

use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{Encode, Error, ErrorKind, Result, Sink};
use hako_formats::OpenedChain;

/// What is copied, as it was when it was opened.
pub(super) struct Watch {
    seen: Vec<(PathBuf, Option<State>)>,
}

/// What changes when somebody writes.
#[derive(PartialEq, Eq)]
struct State {
    len: u64,
    modified: (i64, i64),
    /// Writes to a block device since the system was started.
    writes: Option<String>,
}

impl Watch {
    /// Looks at the files and devices of images.
    pub(super) fn of<'a>(opened: impl Iterator<Item = &'a OpenedChain>) -> Self {
        let layers = opened.flat_map(|chain| &chain.layers);
        let paths = layers.flat_map(|layer| {
            let main = Path::new(layer.args.storage.name()).to_path_buf();
            let more = layer.image.info().files.iter().map(PathBuf::from);
            std::iter::once(main).chain(more)
        });
        Self {
            seen: paths.map(|path| (path.clone(), state(&path))).collect(),
        }
    }

    /// Says that something was written to since then. Errors: [`ErrorKind::Locked`].
    pub(super) fn check(&self) -> Result<()> {
        match self.seen.iter().find(|(path, seen)| state(path) != *seen) {
            None => Ok(()),
            Some((path, _)) => Err(Error::new(
                ErrorKind::Locked,
                "it was written to while it was copied: the copy is of no moment",
            )
            .in_file(path)
            .hint("stop what writes to it, and capture it again")),
        }
    }
}

fn state(path: &Path) -> Option<State> {
    let about = std::fs::metadata(path).ok()?;
    Some(State {
        len: about.len(),
        modified: (about.mtime(), about.mtime_nsec()),
        writes: writes(&about),
    })
}

/// Returns how often a block device was written to, see the kernel's `block/stat.rst`: the fifth number.
fn writes(about: &Metadata) -> Option<String> {
    if !about.file_type().is_block_device() {
        return None;
    }
    let number = about.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    text.split_ascii_whitespace().nth(4).map(str::to_owned)
}

/// A sink that does not complete the copy of what was written to meanwhile.
pub(super) struct Watched {
    pub(super) sink: Box<dyn Sink>,
    pub(super) watch: Arc<Watch>,
}

impl Sink for Watched {
    fn unit_bytes(&self) -> u64 {
        self.sink.unit_bytes()
    }

    fn encoder(&self) -> Option<Arc<dyn Encode>> {
        self.sink.encoder()
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.sink.data(offset, bytes)
    }

    fn encoded(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.sink.encoded(offset, bytes)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.sink.zero(range)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.watch.check()?;
        self.sink.finish()
    }
}

#[cfg(test)]
mod tests {
    use hako_formats::{OpenOptions, open_chain};

    use super::*;

    #[test]
    fn a_file_that_is_written_to_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.img");
        std::fs::write(&path, [7; 4096]).unwrap();
        let opened = open_chain(&path, &OpenOptions::default()).unwrap();
        let watch = Watch::of(std::iter::once(&opened));
        std::fs::read(&path).unwrap();
        watch.check().unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
        file.set_modified(later).unwrap();
        let error = watch.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains("d.img"), "{error}");
    }
}
