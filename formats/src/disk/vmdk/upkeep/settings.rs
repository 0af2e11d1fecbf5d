//! What a descriptor says: settings and the parent.

use hako_block::{ContentId, Error, ParentLink, Result, SECTOR_BYTES};

use crate::disk::vmdk::descriptor::{Descriptor, Edits, NO_PARENT};
use crate::disk::vmdk::layout::Text;
use crate::disk::vmdk::template::{geometry, uuid_text};
use crate::disk::{Adapter, OpenArgs, Settings};

/// Changes what the descriptor says of the disk. The content ID stays.
pub fn set(args: &OpenArgs, settings: &Settings) -> Result<()> {
    let text = Text::find(args)?;
    text.refuse_unwritable()?;
    let mut edits = text.descriptor.edit();
    if let Some(adapter) = settings.adapter {
        edits.set("ddb.adapterType", adapter.name())?;
        set_geometry(&mut edits, adapter, virtual_size(&text.descriptor)?)?;
    }
    if let Some(version) = settings.hw_version {
        edits.set("ddb.virtualHWVersion", &version.to_string())?;
    }
    if let Some(version) = settings.tools_version {
        edits.set("ddb.toolsVersion", &version.to_string())?;
    }
    if let Some(uuid) = settings.uuid {
        edits.set("ddb.uuid", &uuid_text(uuid))?;
    }
    match settings.comment.as_deref() {
        Some("") => edits.remove("ddb.comment"),
        Some(comment) => edits.set("ddb.comment", comment)?,
        None => {}
    }
    text.home.replace(&text.descriptor, &edits.finish()?)
}

/// Makes the disk an overlay on another parent, or on none. The content ID stays.
pub fn relink(args: &OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
    let text = Text::find(args)?;
    text.refuse_unwritable()?;
    let mut edits = text.descriptor.edit();
    match parent {
        Some(parent) => {
            refuse_plain(&text.descriptor)?;
            let id = parent_content_id(parent)?;
            edits.set("parentCID", &format!("{id:08x}"))?;
            edits.set("parentFileNameHint", &parent.name)?;
        }
        None => {
            edits.set("parentCID", &format!("{NO_PARENT:08x}"))?;
            edits.remove("parentFileNameHint");
        }
    }
    let mut new = edits.finish()?;
    if new.parent_content_id()? != text.descriptor.parent_content_id()? {
        // VirtualBox knows the parent by these; what they say is another disk's.
        let mut edits = new.edit();
        edits.remove("ddb.uuid.parent");
        edits.remove("ddb.uuid.parentmodification");
        new = edits.finish()?;
    }
    text.home.replace(&text.descriptor, &new)
}

/// Gives the geometry that a new disk with that adapter and size has.
fn set_geometry(edits: &mut Edits<'_>, adapter: Adapter, virtual_size: u64) -> Result<()> {
    let (cylinders, heads, sectors) = geometry(adapter, virtual_size);
    for (key, value) in [
        ("cylinders", cylinders),
        ("heads", heads),
        ("sectors", sectors),
    ] {
        edits.set(&format!("ddb.geometry.{key}"), &value.to_string())?;
    }
    Ok(())
}

/// Returns the size of the disk in bytes by its extent lines.
fn virtual_size(descriptor: &Descriptor) -> Result<u64> {
    let mut lines = descriptor.extents().iter();
    lines
        .try_fold(0u64, |sum, line| sum.checked_add(line.n_sectors))
        .and_then(|n_sectors| n_sectors.checked_mul(SECTOR_BYTES))
        .ok_or_else(|| Error::corrupt("descriptor", "the extents are too large together"))
}

/// Refuses a disk with extents that cannot say "ask the parent".
fn refuse_plain(descriptor: &Descriptor) -> Result<()> {
    let mut lines = descriptor.extents().iter();
    let plain = lines.find(|line| line.n_sectors > 0 && !line.kind.is_sparse());
    match plain {
        Some(line) => Err(Error::unsupported(format!(
            "a VMDK with {} extents can have no parent",
            line.kind.word()
        ))
        .hint("convert it to monolithicSparse first")),
        None => Ok(()),
    }
}

fn parent_content_id(parent: &ParentLink) -> Result<u32> {
    let is_vmdk = parent
        .format
        .as_deref()
        .is_none_or(|format| format == "vmdk");
    match parent.content_id {
        Some(ContentId::Cid(id)) if is_vmdk && id != NO_PARENT && !parent.name.is_empty() => Ok(id),
        _ => Err(
            Error::unsupported("the parent of a VMDK must be a VMDK with a CID")
                .in_file(&parent.name),
        ),
    }
}
