//! Where a conversion reads from: an image and its parents, one layer of it, standard input.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{
    Access, BlockImage, Cancel, Chain, Error, FileStorage, LayerView, MemoryFolder, Opened,
    Progress, Result, Storage,
};
use hako_disk::Inflow;
use hako_formats::{OpenOptions, OpenedChain, detect, format_named, open_chain, open_layer};

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
                let name = Path::new(STDIN);
                let inflow = Inflow::of(file, name, &options.rules)?;
                let storage = inflow.spool(name, spool_folder, (progress, cancel))?;
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

    use hako_block::{ErrorKind, NoProgress};

    use super::*;

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
