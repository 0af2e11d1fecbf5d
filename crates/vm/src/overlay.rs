//! What an overlay on a disk of a machine is to be: the format that its product would give it.

use hako_block::{Error, Result};
use hako_formats::{CreateOptions, OpenedLayer, format_named};

use crate::copy::Shape;

/// The largest disk of which a VMDK overlay is one file: that must stay below 2 TiB when it is
/// full, tables included.
const ONE_FILE_BYTES: u64 = (2 << 40) - (1 << 30);
/// What an extent file of a larger one holds at most: its number of sectors has 31 bits. VMware's
/// 2047 MiB would make a thousand files for each snapshot of a disk of 2 TiB.
const EXTENT_BYTES: u64 = (1 << 40) - (1 << 30);

/// The variant of a delta in several files.
const SPLIT: &str = "twoGbMaxExtentSparse";

/// Returns what an empty overlay on `parent` is to be. VMDK gets a delta, in one file whatever the
/// parent has, for that is made in no time; only beyond 2 TiB it must be split, then into as few files as can be. qcow2, VHDX and VHD
/// get their own kind of overlay; what has none, or is seldom understood with one (VDI), gets a
/// qcow2 on it.
///
/// Errors: [`hako_block::ErrorKind::Unsupported`] for disks of ESXi, which has overlays of its own.
pub(crate) fn overlay_on(parent: &OpenedLayer) -> Result<Shape> {
    let info = parent.image.info();
    let kind = info.subformat.as_deref().unwrap_or_default();
    let (format, subformat) = match parent.format.name() {
        "vmdk" => ("vmdk", Some(delta_of(kind, info.virtual_size)?)),
        name @ ("vhd" | "vhdx") => (name, Some("differencing")),
        _ => ("qcow2", None),
    };
    Ok(Shape {
        format: format_named(format)?,
        create: CreateOptions {
            subformat: subformat.map(str::to_owned),
            extent_bytes: Some(EXTENT_BYTES).filter(|_| subformat == Some(SPLIT)),
            ..CreateOptions::default()
        },
    })
}

/// Returns the variant of a delta on a VMDK of this variant and size.
fn delta_of(kind: &str, virtual_size: u64) -> Result<&'static str> {
    match kind {
        "seSparse" => Err(of_esxi(kind)),
        _ if kind.starts_with("vmfs") => Err(of_esxi(kind)),
        _ if virtual_size > ONE_FILE_BYTES => Ok(SPLIT),
        _ => Ok("monolithicSparse"),
    }
}

/// An overlay of a hosted product on a disk of ESXi would be read by neither.
fn of_esxi(kind: &str) -> Error {
    let what = format!("is {kind}, a disk of ESXi: the overlays of ESXi cannot be made here");
    Error::unsupported(what).hint(
        "make a machine of it that is not ESXi's: hako vm clone VM NEW --format vmdk; or take it \
         out: hako vm export, hako disk convert",
    )
}
