//! Checking an image.

use std::path::{Path, PathBuf};

use hako_block::{Cancel, Error, ErrorKind, Progress, Result};
use hako_formats::{
    DiskFormat, Findings, OpenArgs, OpenOptions, OpenedLayer, Severity, open_chain, open_file,
};
use hako_pipeline::{CopyOptions, read_all};

/// What to check.
pub struct CheckRequest {
    /// The image.
    pub path: PathBuf,
    /// How to open it; `top_only` checks it without its parents.
    pub open: OpenOptions,
    /// Read all data too, so that every compressed unit is unpacked once.
    pub data: bool,
    /// How many threads read; as many as the machine runs at once if not said.
    pub threads: Option<usize>,
}

/// What a check found, the top layer first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// One per layer checked.
    pub layers: Vec<LayerCheck>,
}

impl CheckReport {
    /// Returns the worst severity found in any layer.
    pub fn worst(&self) -> Option<Severity> {
        let layers = self.layers.iter();
        layers.filter_map(|layer| layer.findings.worst()).max()
    }
}

/// What a check found in one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCheck {
    /// The layer's main file.
    pub file: String,
    /// Name of its format.
    pub format: &'static str,
    /// Whether the format has a structure that was checked; raw has none.
    pub has_structure: bool,
    /// What was found.
    pub findings: Findings,
}

/// Checks an image and its parents. Damage is a finding; an error means that the check itself
/// could not be done.
pub fn check(
    request: &CheckRequest,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CheckReport> {
    let options = CopyOptions::new(progress, cancel).with_threads(request.threads);
    progress.phase("check");
    let opened = match open_chain(&request.path, &request.open) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let layer = check_unopened(&request.path, &request.open, &error)?;
            return Ok(CheckReport {
                layers: vec![layer],
            });
        }
        Err(error) => return Err(error),
    };
    let mut layers = Vec::new();
    for layer in &opened.layers {
        cancel.check()?;
        let mut checked = check_structure(layer.format, layer.args.clone())?;
        if request.data {
            progress.phase("data");
            check_data(layer, &options, &mut checked)?;
        }
        layers.push(checked);
    }
    Ok(CheckReport { layers })
}

pub(crate) fn check_structure(
    format: &'static dyn DiskFormat,
    args: OpenArgs,
) -> Result<LayerCheck> {
    let file = args.storage.name().to_owned();
    let (has_structure, findings) = match format.check(args) {
        Ok(findings) => (true, findings),
        Err(error) if error.kind() == ErrorKind::Unsupported => (false, Findings::default()),
        Err(error) => return Err(error.in_file(file)),
    };
    Ok(LayerCheck {
        file,
        format: format.name(),
        has_structure,
        findings,
    })
}

/// Checks the top layer of an image that cannot be opened for the damage in `error`.
fn check_unopened(path: &Path, options: &OpenOptions, error: &Error) -> Result<LayerCheck> {
    let (format, opened) = open_file(path, options)?;
    let args = options.args(opened);
    let mut checked = check_structure(format, args)?;
    if checked.findings.n_corruptions == 0 {
        checked.findings.add_error(&checked.file, error);
    }
    Ok(checked)
}

fn check_data(
    layer: &OpenedLayer,
    options: &CopyOptions<'_>,
    checked: &mut LayerCheck,
) -> Result<()> {
    read_all(&*layer.image, options, |offset, len, error| {
        let file = error
            .file()
            .map_or_else(|| checked.file.clone(), |file| file.display().to_string());
        let text = format!("guest offset {offset}, {len} bytes: {}", error.finding());
        let byte = error.byte();
        checked
            .findings
            .add(Severity::Corruption, &file, text, byte);
    })
}
