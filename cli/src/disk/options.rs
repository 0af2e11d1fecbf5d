//! Options that verbs share: how to open an image, and what a new one is to be like.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};
use hako_block::{Access, Cancel, Error, GateRules, Progress, Result};
use hako_disk::Subject;
use hako_formats::{
    Adapter, Allocation, Compression, CreateOptions, DiskFormat, FORMATS, OpenOptions, format_named,
};

use hako_pipeline::CopyOptions;

use crate::size;

/// How to open an image, whether to read it or to change it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for opening")]
pub struct GateFlags {
    /// Format of the image, instead of finding it out
    ///
    /// Raw is never guessed: it is what is named .raw, .img or .dd, a block device, or what this
    /// option says is raw.
    #[arg(short = 'f', long, value_name = "FORMAT", value_parser = format_names(|_| true))]
    pub from: Option<String>,

    /// Let the image name files below DIR (repeatable)
    ///
    /// Extent files and parents that an image names are opened only below the folder that the
    /// image is in. This adds a folder.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    allow_path: Vec<PathBuf>,

    /// Let the image name block devices
    #[arg(long)]
    allow_devices: bool,
}

impl GateFlags {
    /// Returns the options to open an image for reading, and its locks honoured.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            from: self.from.clone(),
            access: Access::ReadOnly,
            rules: GateRules {
                allow_paths: self.allow_path.clone(),
                allow_devices: self.allow_devices,
                no_lock: false,
            },
            ..OpenOptions::default()
        }
    }

    /// Returns the image at `path`, to be changed.
    pub fn subject(&self, path: &Path) -> Subject {
        Subject {
            path: path.to_path_buf(),
            open: self.options(),
        }
    }
}

/// How to open an image that is only read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for opening")]
pub struct OpenFlags {
    #[command(flatten)]
    pub gate: GateFlags,

    /// Open without locks, even if the image is in use
    ///
    /// What is read may be inconsistent while another program writes.
    #[arg(short = 'U', long)]
    pub force_share: bool,
}

impl OpenFlags {
    /// Returns the options to open an image for reading.
    pub fn options(&self) -> OpenOptions {
        let mut options = self.gate.options();
        options.rules.no_lock = self.force_share;
        options
    }
}

/// How to open an image whose content is read.
#[derive(Debug, Args)]
pub struct ReadFlags {
    #[command(flatten)]
    pub open: OpenFlags,

    #[command(flatten)]
    state: StateFlags,
}

/// Which state of an image to show.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for opening")]
struct StateFlags {
    /// Show an internal snapshot (qcow2), by name or ID
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,

    /// Open a damaged or truncated image as far as it goes
    ///
    /// What is missing reads as zeros and is listed as warnings.
    #[arg(long)]
    salvage: bool,
}

impl ReadFlags {
    /// Returns the options to open an image for reading.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            salvage: self.state.salvage,
            snapshot: self.state.snapshot.clone(),
            ..self.open.options()
        }
    }

    /// Returns whether a damaged image is to be opened.
    pub fn salvage(&self) -> bool {
        self.state.salvage
    }
}

/// How many threads work.
#[derive(Debug, Args)]
pub struct Threads {
    /// How many threads read and compress; by default as many as the machine has processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

impl Threads {
    /// Returns how many, if the user said so.
    pub fn number(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }

    /// Returns the usual options for moving content, with these threads.
    pub fn copy_options<'a>(
        &self,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> CopyOptions<'a> {
        CopyOptions::new(progress, cancel).with_threads(self.number())
    }
}

/// What a new image is to be like.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for the new image")]
pub struct TargetFlags {
    /// Format of the new image; by default what its extension says
    #[arg(short = 'O', long, value_name = "FORMAT", value_parser = format_names(can_be_created))]
    to: Option<String>,

    /// Variant of the format; `hako disk formats` lists them
    #[arg(long, value_name = "NAME", value_parser = subformat_names(), ignore_case = true)]
    subformat: Option<String>,

    /// How much space to take at once
    ///
    /// thin: what is written. lazy: all of it is reserved. eager: all of it is reserved and
    /// filled with zeros.
    #[arg(long, value_name = "HOW", default_value = "thin", value_parser = allocations())]
    allocation: Allocation,

    /// Allocation unit: the grain of a VMDK, the cluster of a qcow2, the block of the others
    #[arg(long, value_name = "SIZE", value_parser = size::parse,
          visible_aliases = ["grain-size", "cluster-size", "block-size"])]
    unit: Option<u64>,

    /// How to compress, in a format that can
    #[arg(long, value_name = "HOW", value_parser = compressions())]
    compression: Option<Compression>,

    /// Compression level, in the codec's own scale
    #[arg(long, value_name = "N")]
    level: Option<u32>,

    /// Size of a sector as the guest sees it, in a VHDX: 512 or 4096
    #[arg(long, value_name = "BYTES", value_parser = sector_sizes())]
    sector_size: Option<u32>,

    /// Disk controller that a VMDK names
    #[arg(long, value_name = "NAME", value_parser = adapters(), ignore_case = true)]
    adapter: Option<Adapter>,

    /// Virtual hardware version that a VMDK names
    #[arg(long, value_name = "N")]
    hw_version: Option<u32>,

    /// Replace an existing file
    ///
    /// Refused all the same if an overlay, a snapshot or a linked clone needs what is there.
    #[arg(long)]
    pub force: bool,
}

impl TargetFlags {
    /// Returns the format of the new image at `path`.
    pub fn format(&self, path: &Path) -> Result<&'static dyn DiskFormat> {
        match &self.to {
            Some(name) => format_named(name),
            None => format_by_name(path),
        }
    }

    /// Returns what the user chose.
    pub fn create_options(&self) -> CreateOptions {
        CreateOptions {
            subformat: self.subformat.clone(),
            allocation: self.allocation,
            unit_bytes: self.unit,
            compression: self.compression,
            level: self.level,
            sector_bytes: self.sector_size,
            adapter: self.adapter,
            hw_version: self.hw_version,
            ..CreateOptions::default()
        }
    }
}

/// Returns whether any variant of a format can be created.
pub fn can_be_created(format: &dyn DiskFormat) -> bool {
    format.subformats().iter().any(|subformat| subformat.create)
}

/// Returns the format that a new file's name says it has.
fn format_by_name(path: &Path) -> Result<&'static dyn DiskFormat> {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let by_extension = FORMATS.iter().copied().find(|format| {
        can_be_created(*format) && format.extensions().contains(&extension.as_str())
    });
    match by_extension {
        Some(format) => Ok(format),
        None if is_block_device(path) => format_named("raw"),
        None => Err(
            Error::invalid("the name does not say which format the new image is to have")
                .in_file(path)
                .hint("say it with --to FORMAT; `hako disk formats` lists them"),
        ),
    }
}

/// Returns whether the path is a block device.
fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Parses the name of a format.
pub fn format_names(wanted: fn(&dyn DiskFormat) -> bool) -> PossibleValuesParser {
    FORMATS
        .iter()
        .filter(|format| wanted(**format))
        .map(|format| format.name())
        .collect::<Vec<_>>()
        .into()
}

/// Parses the name of a variant of a format.
pub fn subformat_names() -> PossibleValuesParser {
    let all = FORMATS.iter().flat_map(|format| format.subformats());
    let mut names = Vec::new();
    for subformat in all.filter(|subformat| subformat.create && !subformat.name.is_empty()) {
        // Several formats have a "dynamic".
        if !names.contains(&subformat.name) {
            names.push(subformat.name);
        }
    }
    names.into()
}

fn allocations() -> impl TypedValueParser<Value = Allocation> {
    PossibleValuesParser::new(["thin", "lazy", "eager"]).map(|name| match name.as_str() {
        "lazy" => Allocation::Lazy,
        "eager" => Allocation::Eager,
        _ => Allocation::Thin,
    })
}

fn compressions() -> impl TypedValueParser<Value = Compression> {
    PossibleValuesParser::new(["none", "zlib", "zstd"]).map(|name| match name.as_str() {
        "zlib" => Compression::Zlib,
        "zstd" => Compression::Zstd,
        _ => Compression::None,
    })
}

/// Parses the size of a sector.
pub fn sector_sizes() -> impl TypedValueParser<Value = u32> {
    PossibleValuesParser::new(["512", "4096"]).try_map(|text| text.parse())
}

pub fn adapters() -> impl TypedValueParser<Value = Adapter> {
    PossibleValuesParser::new(Adapter::ALL.map(Adapter::name)).try_map(|name| {
        Adapter::ALL
            .into_iter()
            .find(|adapter| adapter.name().eq_ignore_ascii_case(&name))
            .ok_or("no such adapter")
    })
}

/// Parses a number of bytes per second.
pub fn rate(text: &str) -> std::result::Result<u64, String> {
    match size::parse(text)? {
        0 => Err("nothing would ever be written".to_owned()),
        rate => Ok(rate),
    }
}
