//! Opening an image: which format it is, and its chain of parents.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::chain::MAX_LAYERS;
use hako_block::{
    Access, BlockImage, Chain, ContentId, Error, ErrorKind, FileId, Gate, GateRules, ImageInfo,
    Opened, ParentLink, Result, Storage,
};

use crate::disk::{DiskFormat, FORMATS, OpenArgs, format_named};
use crate::suspended::refuse_disk_of_suspended;

/// How to open an image.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The format, if the user said one (`--from`).
    pub from: Option<String>,
    /// Reading only, or writing too: the top layer; parents are only read.
    pub access: Access,
    /// Open the top layer's parent with `access` too, for committing into it.
    pub parent_writable: bool,
    /// Take a parent whose content ID is not the one that its overlay was made on.
    pub any_content: bool,
    /// What files named inside the image may be opened.
    pub rules: GateRules,
    /// Open a damaged file as far as it goes.
    pub salvage: bool,
    /// Show this internal snapshot of the top layer.
    pub snapshot: Option<String>,
    /// Open the top layer alone, without its parents.
    pub top_only: bool,
}

impl OpenOptions {
    /// Returns what a driver is given to open, or to check, the file `opened` as one layer.
    pub fn args(&self, opened: Opened) -> OpenArgs {
        OpenArgs {
            storage: opened.storage,
            name: opened.name,
            resolver: opened.resolver,
            access: self.access,
            salvage: self.salvage,
            snapshot: self.snapshot.clone(),
        }
    }
}

/// One layer with the format that opened it.
pub struct OpenedLayer {
    /// The format.
    pub format: &'static dyn DiskFormat,
    /// The image.
    pub image: Arc<dyn BlockImage>,
    /// What it was opened with, for checking the same file.
    pub args: OpenArgs,
}

impl OpenedLayer {
    /// Returns what is odd about it, one sentence each that begins with its file.
    pub fn oddities(&self) -> impl Iterator<Item = String> {
        let file = self.args.storage.name();
        let oddities = self.image.info().oddities.iter();
        oddities.map(move |oddity| format!("{file}: {oddity}"))
    }
}

/// An image with its parents.
pub struct OpenedChain {
    /// The disk that the guest sees.
    pub chain: Chain,
    /// The layers, the top first.
    pub layers: Vec<OpenedLayer>,
}

impl OpenedChain {
    /// Returns what is odd about its layers, one sentence each that begins with the layer's file.
    pub fn oddities(&self) -> Vec<String> {
        self.layers.iter().flat_map(OpenedLayer::oddities).collect()
    }
}

/// Opens the file at `path` and finds its format; no driver has looked at it yet.
pub fn open_file(path: &Path, options: &OpenOptions) -> Result<(&'static dyn DiskFormat, Opened)> {
    let opened = Gate::open_user(path, options.access, &options.rules)?;
    if options.access == Access::ReadWrite {
        refuse_disk_of_suspended(path, opened.storage.id())?;
    }
    let format = match &options.from {
        Some(name) => format_named(name)?,
        None => detect(&*opened.storage, path)?,
    };
    Ok((format, opened))
}

/// Opens the image at `path` with all its parents.
pub fn open_chain(path: &Path, options: &OpenOptions) -> Result<OpenedChain> {
    let (format, opened) = open_file(path, options)?;
    open_chain_of(format, opened, options)
}

/// Opens an image of a known format with all its parents: one that a text names, and the gate of
/// that text opened. (Its parents are then opened by that gate, too.)
pub fn open_chain_of(
    format: &'static dyn DiskFormat,
    opened: Opened,
    options: &OpenOptions,
) -> Result<OpenedChain> {
    let mut layers = vec![open_layer(format, opened, options)?];
    let mut seen: Vec<FileId> = layers[0].args.storage.id().into_iter().collect();
    while let Some(link) = layers[layers.len() - 1].image.info().parent.clone() {
        if options.top_only {
            break;
        }
        let child = &layers[layers.len() - 1];
        let parent = open_parent(child, &link, options, &mut seen, layers.len())
            .map_err(|error| error.in_file(child.args.storage.name()))?;
        layers.push(parent);
    }
    let chain = Chain::new(
        layers
            .iter()
            .map(|layer| Arc::clone(&layer.image))
            .collect(),
    )?;
    Ok(OpenedChain { chain, layers })
}

/// Opens one layer, no parent, with a known format.
pub fn open_layer(
    format: &'static dyn DiskFormat,
    opened: Opened,
    options: &OpenOptions,
) -> Result<OpenedLayer> {
    let args = options.args(opened);
    let image = format
        .open(args.clone())
        .map_err(|error| error.in_file(args.storage.name()))?;
    Ok(OpenedLayer {
        format,
        image: Arc::from(image),
        args,
    })
}

fn open_parent(
    child: &OpenedLayer,
    link: &ParentLink,
    options: &OpenOptions,
    seen: &mut Vec<FileId>,
    n_layers: usize,
) -> Result<OpenedLayer> {
    if n_layers >= MAX_LAYERS {
        return Err(Error::corrupt(
            "parent",
            format!("a chain of more than {MAX_LAYERS} layers"),
        ));
    }
    let options = OpenOptions {
        from: None,
        access: match options.access {
            Access::ReadWrite if options.parent_writable && n_layers == 1 => Access::ReadWrite,
            _ => Access::ReadOnly,
        },
        snapshot: None,
        ..options.clone()
    };
    let opened = find_parent(child, link, &options)?;
    if options.access == Access::ReadWrite {
        refuse_disk_of_suspended(Path::new(opened.storage.name()), opened.storage.id())?;
    }
    if let Some(id) = opened.storage.id() {
        if seen.contains(&id) {
            return Err(Error::corrupt(
                "parent",
                format!(
                    "{:?} is already in the chain: the chain is a loop",
                    link.name
                ),
            ));
        }
        seen.push(id);
    }
    let Some(format) = &link.format else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the image does not record the format of its parent {:?}",
                link.name
            ),
        )
        .hint(
            "record it: hako disk rebase --unsafe --parent PARENT --parent-format FORMAT IMAGE",
        ));
    };
    let parent = open_layer(format_named(format)?, opened, &options)?;
    let info = parent.image.info();
    let found = info.identity;
    if link.identity.is_some() && link.identity != found {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} is not the parent that the overlay was made on: {} was, this is {}",
                parent.args.storage.name(),
                id_text(link.identity),
                id_text(found)
            ),
        ));
    }
    if !fits(link, info) && !options.any_content {
        let names = match link.content_id {
            Some(ContentId::Cid(_)) => ("parentCID", "CID"),
            _ => ("parent content ID", "content ID"),
        };
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} {} does not match the {} {} of {:?}",
                names.0,
                id_text(link.content_id),
                names.1,
                id_text(info.content_id),
                parent.args.name
            ),
        )
        .hint("the parent was changed after this overlay was made: its content no longer fits"));
    }
    Ok(parent)
}

fn id_text(id: Option<impl std::fmt::Display>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

/// Opens the file of an overlay's parent with `options.access`: the first of its names that leads
/// to a file; without a name, the file beside the overlay that has the parent's identity.
pub fn find_parent(
    child: &OpenedLayer,
    link: &ParentLink,
    options: &OpenOptions,
) -> Result<Opened> {
    let mut missing = None;
    for name in iter::once(&link.name).chain(&link.other_names) {
        if name.is_empty() {
            continue;
        }
        refuse_protocol(name)?;
        match child.args.resolver.open(name, options.access) {
            Ok(opened) => return Ok(opened),
            // Of several names, one that the gate refuses is as good as one that leads nowhere,
            // as long as another one leads to the parent.
            Err(error) => missing = missing.or(Some(missing_parent(child, name, error))),
        }
    }
    if let Some(error) = missing {
        return Err(error);
    }
    let by_identity = find_by_identity(child, link, options)?;
    by_identity.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "no file beside the overlay is its parent, the disk {}",
                id_text(link.identity)
            ),
        )
        .hint("put the parent into the overlay's folder")
    })
}

fn missing_parent(child: &OpenedLayer, name: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        error
    } else if name.contains('\\') {
        error.hint(format!(
            "{name:?} is a Windows path: put the parent beside the overlay and correct its name there"
        ))
    } else {
        error.hint(format!(
            "the parent of {} is missing",
            child.args.storage.name()
        ))
    }
}

/// Of several copies of the parent, the one with the right content counts.
fn find_by_identity(
    child: &OpenedLayer,
    link: &ParentLink,
    options: &OpenOptions,
) -> Result<Option<Opened>> {
    let (Some(format), Some(_)) = (&link.format, link.identity) else {
        return Ok(None);
    };
    let format = format_named(format)?;
    let mut found = None;
    for name in child.args.resolver.names()? {
        if name == child.args.name {
            continue;
        }
        // A neighbour that is locked, damaged or something else is not the parent.
        let Ok(info) = info_of_neighbour(child, &name, format, options) else {
            continue;
        };
        if info.identity != link.identity {
            continue;
        }
        if fits(link, &info) {
            return child.args.resolver.open(&name, options.access).map(Some);
        }
        found = found.or(Some(name));
    }
    found
        .map(|name| child.args.resolver.open(&name, options.access))
        .transpose()
}

fn info_of_neighbour(
    child: &OpenedLayer,
    name: &str,
    format: &'static dyn DiskFormat,
    options: &OpenOptions,
) -> Result<ImageInfo> {
    let opened = child.args.resolver.open(name, Access::ReadOnly)?;
    let (head, tail) = head_and_tail(&*opened.storage)?;
    if !format.probe(&head, &tail) {
        return Err(Error::unsupported("is of another format"));
    }
    let options = OpenOptions {
        access: Access::ReadOnly,
        snapshot: None,
        ..options.clone()
    };
    Ok(format.open(options.args(opened))?.info().clone())
}

/// Returns whether a parent's content is what the overlay was made on, as far as it says.
pub fn fits(link: &ParentLink, parent: &ImageInfo) -> bool {
    let found = parent.content_id;
    link.content_id.is_none()
        || link.content_id == found
        || (found.is_some() && link.other_content_id == found)
}

/// Refuses a parent that is no file: qemu's protocols and JSON descriptions.
fn refuse_protocol(name: &str) -> Result<()> {
    const PROTOCOLS: [&str; 12] = [
        "json", "nbd", "nbd+unix", "http", "https", "ftp", "ftps", "ssh", "iscsi", "rbd",
        "gluster", "nfs",
    ];
    let named = name.split_once(':').is_some_and(|(scheme, rest)| {
        PROTOCOLS.contains(&scheme) || (rest.starts_with("//") && !scheme.contains('/'))
    });
    if !named {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "the parent {name:?} is no file, but something that qemu reaches by a protocol"
    )))
}

/// Returns the format of a file that the user named without saying its format. Never falls back
/// to raw: raw is what is named so, or a block device.
pub fn detect(storage: &dyn Storage, path: &Path) -> Result<&'static dyn DiskFormat> {
    let raw = format_named("raw")?;
    if storage.is_device() {
        return Ok(raw);
    }
    let (head, tail) = head_and_tail(storage)?;
    let mut probing = FORMATS
        .iter()
        .copied()
        .filter(|format| format.probe(&head, &tail));
    let probed = probing.next();
    if let (Some(one), Some(other)) = (probed, probing.next()) {
        return Err(ambiguous(path, one.name(), other.name()));
    }
    let extension = lower_extension(path);
    let named_raw = raw.extensions().contains(&extension.as_str());
    match probed {
        // `.img` says little: cloud images in qcow2 are named so. `.raw` and `.dd` say raw, and a
        // guest can write any header into its disk.
        Some(format) if named_raw && extension != "img" => Err(Error::invalid(format!(
            "is named .{extension}, but begins like {}",
            format.name()
        ))
        .in_file(path)
        .hint(format!(
            "say which it is: --from raw or --from {}",
            format.name()
        ))),
        Some(format) => Ok(format),
        None if named_raw => Ok(raw),
        None => Err(unknown(path, &extension, storage.len_bytes()?)),
    }
}

/// A fixed VHD begins with what its guest wrote, any format's header perhaps: never guess.
fn ambiguous(path: &Path, one: &str, other: &str) -> Error {
    Error::invalid(format!("looks like {one} and like {other}"))
        .in_file(path)
        .hint(format!("say which it is: --from {one} or --from {other}"))
}

fn unknown(path: &Path, extension: &str, len: u64) -> Error {
    let claimed = FORMATS
        .iter()
        .find(|format| format.extensions().contains(&extension));
    let what = match claimed {
        _ if len == 0 => "is empty".to_owned(),
        Some(format) => format!(
            "is named .{extension}, but its content is no {}",
            format.name()
        ),
        None => "is of no format that hako knows".to_owned(),
    };
    let error = Error::new(ErrorKind::Unsupported, what).in_file(path);
    match descriptor_beside(path) {
        Some(descriptor) => error.hint(format!(
            "this is an extent file, part of an image: open {} instead",
            descriptor.display()
        )),
        None => error.hint("if it is a raw disk, say so: --from raw"),
    }
}

/// Returns the descriptor that an extent file's name points to, if it is there.
fn descriptor_beside(path: &Path) -> Option<PathBuf> {
    let name = descriptor_name(path.file_name()?.to_str()?)?;
    let descriptor = path.with_file_name(name);
    descriptor.is_file().then_some(descriptor)
}

/// Returns the usual name of the descriptor that goes with a VMDK extent file of this name
/// (`disk-flat.vmdk` → `disk.vmdk`); `None` if the name is not one of an extent file.
pub fn descriptor_name(name: &str) -> Option<String> {
    let (stem, _) = name.rsplit_once('.')?;
    let (base, part) = stem.rsplit_once('-')?;
    let numbered = part.len() >= 4
        && part.starts_with(['s', 'f'])
        && part.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    let is_part =
        numbered || matches!(part, "flat" | "delta" | "sesparse" | "rdm" | "rdmp" | "ctk");
    is_part.then(|| format!("{base}.vmdk"))
}

fn head_and_tail(storage: &dyn Storage) -> Result<(Vec<u8>, Vec<u8>)> {
    let len = storage.len_bytes()?;
    let mut head = vec![0; len.min(65536) as usize];
    storage.read_at(0, &mut head)?;
    let mut tail = vec![0; len.min(4096) as usize];
    storage.read_at(len - tail.len() as u64, &mut tail)?;
    Ok((head, tail))
}

fn lower_extension(path: &Path) -> String {
    path.extension()
        .map(|text| text.to_string_lossy().to_lowercase())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect_name(name: &str, content: &[u8]) -> Result<&'static str> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let opened = Gate::open_user(&path, Access::ReadOnly, &GateRules::default())?;
        detect(&*opened.storage, &path).map(|format| format.name())
    }

    #[test]
    fn a_guest_does_not_choose_the_format_of_its_fixed_vhd() {
        let mut disk = vec![0; 4096];
        disk[3584..3592].copy_from_slice(b"conectix");
        assert_eq!(detect_name("a.vhd", &disk).unwrap(), "vhd");
        disk[..4].copy_from_slice(b"QFI\xfb");
        let error = detect_name("a.vhd", &disk).unwrap_err();
        assert!(error.hint_text().is_some(), "{error}");
    }

    #[test]
    fn raw_is_only_what_is_named_so() {
        assert_eq!(detect_name("a.raw", &[0; 512]).unwrap(), "raw");
        assert_eq!(detect_name("a.IMG", &[0; 512]).unwrap(), "raw");
        for name in ["a.vmdk", "a.qcow2", "a", "a.bin"] {
            let error = detect_name(name, &[0; 512]).unwrap_err();
            assert!(error.hint_text().is_some(), "{error}");
        }
    }
}
