//! Images on the disk, written through the formats' own code.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test helper panics to fail the test.
#![allow(clippy::print_stderr)] // It names the variant that failed.
#![allow(dead_code)] // Each test file is a crate of its own and uses a part.

use std::path::{Path, PathBuf};

use hako_block::testkit::Rng;
use hako_block::{Access, BlockImage, Cancel, NoProgress};
use hako_disk::{CreateRequest, RebaseRequest, Subject, create, rebase};
use hako_formats::{CreateOptions, DiskFormat, FORMATS, OpenOptions, open_chain};

/// One creatable variant of a format.
#[derive(Clone)]
pub struct Variant {
    pub format: &'static dyn DiskFormat,
    pub subformat: &'static str,
}

impl Variant {
    /// Every variant that can be created and written in place.
    pub fn writable() -> Vec<Self> {
        let rows = FORMATS.iter().copied().flat_map(|format| {
            let rows = format.subformats().iter();
            rows.filter(|row| row.create && row.write)
                .map(move |row| Variant {
                    format,
                    subformat: row.name,
                })
        });
        let folder = tempfile::tempdir().unwrap();
        // Some can be created as overlays only.
        rows.filter(|variant| {
            let path = folder.path().join(variant.name());
            variant.try_create(&path, 1 << 20, None).is_ok()
        })
        .collect()
    }

    /// Every variant of which an overlay can stand on another one.
    pub fn overlays() -> Vec<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut variants = Self::writable();
        variants.retain(|variant| {
            let base = folder.path().join(format!("base-{}", variant.name()));
            let top = folder.path().join(format!("top-{}", variant.name()));
            variant.create(&base, Some(1 << 20), None);
            variant
                .overlay_form()
                .try_create(&top, 1 << 20, Some(&base))
                .is_ok()
        });
        assert!(variants.len() >= 3, "qcow2 and two VMDKs at least");
        variants
    }

    /// The variant that an overlay on this one has.
    pub fn overlay_form(&self) -> Self {
        let row = self
            .format
            .subformats()
            .iter()
            .find(|row| matches!(row.name, "differencing" | "diff"));
        Variant {
            format: self.format,
            subformat: row.map_or(self.subformat, |row| row.name),
        }
    }

    /// Whether the link of an overlay can be rewritten.
    pub fn relinks(&self) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join(format!("base-{}", self.name()));
        let top = folder.path().join(format!("top-{}", self.name()));
        self.create(&base, Some(1 << 20), None);
        self.overlay_form().create(&top, Some(1 << 20), Some(&base));
        let request = RebaseRequest {
            subject: subject(&top),
            parent: Some(base),
            parent_from: None,
            link_only: true,
            threads: None,
        };
        rebase(&request, &NoProgress, &Cancel::default()).is_ok()
    }

    pub fn label(&self) -> String {
        format!("{} {}", self.format.name(), self.subformat)
    }

    /// A file name of its own.
    pub fn name(&self) -> String {
        format!("disk-{}.{}", self.subformat, self.format.extensions()[0])
    }

    pub fn extension(&self) -> &'static str {
        self.format.extensions()[0]
    }

    fn try_create(&self, path: &Path, size: u64, parent: Option<&Path>) -> hako_block::Result<()> {
        let request = CreateRequest {
            path: path.to_path_buf(),
            to: self.format,
            virtual_size: Some(size),
            create: CreateOptions {
                subformat: (!self.subformat.is_empty()).then(|| self.subformat.to_owned()),
                ..CreateOptions::default()
            },
            parent: parent.map(Path::to_path_buf),
            parent_from: None,
            rules: Default::default(),
            force: true,
        };
        create(request, &NoProgress, &Cancel::default()).map(|_| ())
    }

    pub fn create(&self, path: &Path, size: Option<u64>, parent: Option<&Path>) {
        let size = size.unwrap_or(1 << 20);
        self.try_create(path, size, parent)
            .unwrap_or_else(|error| panic!("{}: {error}", self.label()));
    }
}

pub fn subject(path: &Path) -> Subject {
    Subject {
        path: path.to_path_buf(),
        open: OpenOptions::default(),
    }
}

/// Returns the content that the guest sees.
#[track_caller]
pub fn content(path: &Path) -> Vec<u8> {
    let opened = open_chain(path, &OpenOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = vec![0x55; opened.chain.info().virtual_size as usize];
    opened.chain.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Writes random pieces and zeros through the chain, and into `content`.
#[track_caller]
pub fn scribble(path: &Path, content: &mut [u8], rng: &mut Rng) {
    let options = OpenOptions {
        access: Access::ReadWrite,
        ..OpenOptions::default()
    };
    let chain = open_chain(path, &options)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .chain;
    for _ in 0..12 {
        let start = rng.below(0..content.len() as u64);
        let end = (start + 1 + rng.below(0..200_000)).min(content.len() as u64);
        let range = start as usize..end as usize;
        if rng.one_in(4) {
            chain.write_zeroes(start..end).unwrap();
            content[range].fill(0);
        } else {
            let bytes = rng.bytes((end - start) as usize);
            chain.write_at(start, &bytes).unwrap();
            content[range].copy_from_slice(&bytes);
        }
    }
    chain.flush().unwrap();
}

/// A folder with a base and overlays on it, all scribbled in.
pub struct Stack {
    pub folder: tempfile::TempDir,
    pub layers: Vec<PathBuf>,
    /// What the guest sees of each layer.
    pub contents: Vec<Vec<u8>>,
}

impl Stack {
    /// Makes `n_layers` layers of `size` bytes.
    pub fn new(variant: &Variant, n_layers: usize, size: u64, rng: &mut Rng) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut stack = Self {
            layers: Vec::new(),
            contents: Vec::new(),
            folder,
        };
        let mut content = vec![0; size as usize];
        for index in 0..n_layers {
            let path = stack.path(&format!("layer{index}.{}", variant.extension()));
            let below = stack.layers.last().cloned();
            let form = match below {
                Some(_) => variant.overlay_form(),
                None => variant.clone(),
            };
            form.create(&path, Some(size), below.as_deref());
            scribble(&path, &mut content, rng);
            stack.layers.push(path);
            stack.contents.push(content.clone());
        }
        stack
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Says which variant a panic was about.
pub struct About(pub String);

impl Drop for About {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {}", self.0);
        }
    }
}
