//! Where a conversion reads from: an image and its parents, one layer of it, standard input.

use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::lock::lock_file;
use hako_block::{
    Access, BlockImage, Cancel, Chain, Error, FileStorage, LayerView, LockMode, MemoryFolder,
    Opened, Progress, Result, Storage, is_zero,
};
use hako_formats::{OpenOptions, OpenedChain, detect, format_named, open_chain, open_layer};
use rustix::event::{PollFd, PollFlags, Timespec};

/// What to convert.
pub enum Source {
    /// The image at this path, with its parents.
    Path(PathBuf),
    /// An image on standard input. A regular file or block device is read in place; what comes
    /// through a pipe is kept, zeros left out, in an unnamed file while it is converted.
    Stdin(File),
}

impl Source {
    /// Opens it for reading. `spool_folder` is where the content of a pipe is kept.
    pub(crate) fn open(
        self,
        options: &OpenOptions,
        spool_folder: &Path,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<OpenedChain> {
        let options = OpenOptions {
            access: Access::ReadOnly,
            ..options.clone()
        };
        match self {
            Source::Path(path) => open_chain(&path, &options),
            Source::Stdin(file) => {
                let storage = stdin_storage(file, &options, spool_folder, progress, cancel)?;
                open_stdin(storage, &options)
            }
        }
    }
}

const STDIN: &str = "standard input";

fn open_stdin(storage: FileStorage, options: &OpenOptions) -> Result<OpenedChain> {
    let format = match &options.from {
        Some(name) => format_named(name)?,
        None if storage.is_device() => format_named("raw")?,
        None => detect(&storage, Path::new(STDIN))?,
    };
    let opened = Opened {
        storage: Arc::new(storage),
        name: STDIN.to_owned(),
        // It has no folder: no name in it leads anywhere.
        resolver: Arc::new(MemoryFolder::default()),
    };
    let layer = open_layer(format, opened, options)?;
    if layer.image.info().parent.is_some() && !options.top_only {
        return Err(Error::unsupported(
            "is an overlay, and standard input has no folder to look for its parent in",
        )
        .in_file(STDIN)
        .hint("give the image's path"));
    }
    Ok(OpenedChain {
        chain: Chain::new(vec![Arc::clone(&layer.image)])?,
        layers: vec![layer],
    })
}

fn stdin_storage(
    file: File,
    options: &OpenOptions,
    spool_folder: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<FileStorage> {
    let kind = file
        .metadata()
        .map_err(|error| Error::io("stat", error).in_file(STDIN))?
        .file_type();
    if kind.is_file() || kind.is_block_device() {
        if !options.rules.no_lock {
            lock_file(&file, Path::new(STDIN), LockMode::Read)?;
        }
        return FileStorage::from_file(file, Path::new(STDIN), false);
    }
    let spool = tempfile::tempfile_in(spool_folder)
        .map_err(|error| Error::io("create a temporary file", error).in_file(spool_folder))?;
    let spool = FileStorage::from_file(spool, Path::new(STDIN), true)?;
    progress.phase("receive");
    receive(Patient(file), &spool, progress, cancel)?;
    Ok(spool)
}

/// A pipe that lets its reader look up now and then while nothing comes through.
struct Patient(File);

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        const NAP: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&NAP))? == 0 {
            return Err(IoErrorKind::Interrupted.into());
        }
        self.0.read(buf)
    }
}

/// Copies all of `reader` into the blank `spool`, blocks of zeros left out.
fn receive(
    mut reader: impl Read,
    spool: &dyn Storage,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    const BLOCK_BYTES: usize = 65536;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let len = fill(&mut reader, &mut buffer, cancel)?;
        for block in buffer[..len].chunks(BLOCK_BYTES) {
            if !is_zero(block) {
                spool.write_at(offset, block)?;
            }
            offset += block.len() as u64;
        }
        progress.advance(len as u64);
        if len < buffer.len() {
            return spool.set_len(offset);
        }
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8], cancel: &Cancel) -> Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        cancel.check()?;
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == IoErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", error).in_file(STDIN)),
        }
    }
    Ok(len)
}

/// Picks what to copy: the whole chain, or one layer of it (0 the top). `is_overlay`: the new
/// image will have a parent.
pub(crate) fn pick(
    opened: &OpenedChain,
    layer: Option<usize>,
    is_overlay: bool,
) -> Result<Arc<dyn BlockImage>> {
    let layers = opened.chain.layers();
    let Some(index) = layer else {
        return Ok(Arc::new(Chain::new(layers.to_vec())?));
    };
    let (Some(image), Some(chain)) = (layers.get(index), opened.chain.from_layer(index)) else {
        return Err(Error::invalid(format!(
            "no layer {index}: the chain has {} (0 is the top)",
            layers.len()
        )));
    };
    let content: Arc<dyn BlockImage> = if is_overlay {
        Arc::new(chain)
    } else {
        Arc::clone(image)
    };
    Ok(Arc::new(LayerView::new(Arc::clone(image), content)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hako_block::{ErrorKind, MemoryStorage, NoProgress};

    use super::*;

    /// Gives a few bytes at a time, as pipes do.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let len = buf.len().min(10_007).min(self.0.len());
            buf[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn what_comes_through_a_pipe_is_kept_whole() {
        for len in [0, 1, 65_536, 3_000_001] {
            let mut content = vec![0; len];
            for at in (0..len).step_by(200_000) {
                content[at] = 1;
            }
            let spool = MemoryStorage::new("spool", Vec::new());
            let cancel = Cancel::default();
            receive(Trickle(&content), &spool, &NoProgress, &cancel).unwrap();
            assert!(spool.to_vec() == content, "{len}");
        }
    }

    #[test]
    fn raw_on_stdin_must_be_named_so() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1024]).unwrap();
        let open = |from: Option<&str>| {
            let options = OpenOptions {
                from: from.map(str::to_owned),
                ..OpenOptions::default()
            };
            let file = file.try_clone().unwrap();
            let folder = std::env::temp_dir();
            Source::Stdin(file).open(&options, &folder, &NoProgress, &Cancel::default())
        };
        let error = open(None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains("--from raw"));
        let opened = open(Some("raw")).unwrap();
        assert_eq!(opened.chain.info().virtual_size, 1024);
    }
}
