//! Opening an image, and what `info` shows of it.

use std::sync::{Arc, Mutex};

use hako_block::{Access, ContentId, ImageInfo, Result, Storage, Value};

use super::bat::Bat;
use super::image::Image;
use super::layout::Layout;
use super::structure::Structure;
use super::write::Writer;
use crate::disk::OpenArgs;

/// Opens one layer.
pub fn open(args: &OpenArgs) -> Result<Image> {
    if args.snapshot.is_some() {
        return Err(hako_block::Error::unsupported(
            "a VHDX has no internal snapshots",
        ));
    }
    let structure = Structure::open(&args.storage, args.access)?;
    let layout = *structure.layout();
    let storage = Arc::clone(&structure.storage);
    let bat = Bat::new(
        Arc::clone(&storage),
        structure.bat.clone(),
        layout.n_entries(),
    )?;
    let writer = match args.access {
        Access::ReadOnly => None,
        Access::ReadWrite => Some(Writer::new(&structure)?),
    };
    Ok(Image {
        host_name: storage.name().into(),
        layout,
        leave_allocated: structure.metadata.leave_allocated,
        bat: Mutex::new(bat),
        bitmaps: Image::bitmaps(),
        writer,
        info: describe(&structure, args.access)?,
        storage,
    })
}

/// Returns the name of a variant.
fn subformat(structure: &Structure) -> &'static str {
    match (
        structure.layout().has_parent,
        structure.metadata.leave_allocated,
    ) {
        (true, _) => "differencing",
        (false, true) => "fixed",
        (false, false) => "dynamic",
    }
}

fn describe(structure: &Structure, access: Access) -> Result<ImageInfo> {
    let Structure {
        storage,
        headers,
        metadata,
        ..
    } = structure;
    let layout: &Layout = structure.layout();
    let parent = match &metadata.locator {
        Some(locator) => Some(
            locator
                .link()
                .map_err(|error| error.place("parent locator"))?,
        ),
        None => None,
    };
    Ok(ImageInfo {
        format: "vhdx",
        subformat: Some(subformat(structure).to_owned()),
        virtual_size: layout.virtual_size,
        unit_bytes: layout.block_bytes(),
        has_zero_extents: true,
        writable: access == Access::ReadWrite,
        identity: metadata.disk_id,
        content_id: Some(ContentId::Uuid(headers.current.data_write)),
        parent,
        files: vec![storage.name().to_owned()],
        allocated_size: storage.allocated_bytes()?,
        details: details(structure)?,
        oddities: structure.oddities(),
    })
}

fn details(structure: &Structure) -> Result<Vec<(&'static str, Value)>> {
    let Structure {
        headers, metadata, ..
    } = structure;
    let layout = structure.layout();
    let mut details: Vec<(&'static str, Value)> = vec![
        ("block_size_bytes", layout.block_bytes().into()),
        ("logical_sector_size", (1_u64 << layout.sector_shift).into()),
    ];
    if let Some(size) = metadata.physical_sector {
        details.push(("physical_sector_size", u64::from(size).into()));
    }
    let creator = creator(&*structure.storage)?;
    if !creator.is_empty() {
        details.push(("creator", creator.into()));
    }
    if let Some(id) = metadata.disk_id {
        details.push(("virtual_disk_id", id.to_string().into()));
    }
    details.push((
        "file_write_guid",
        headers.current.file_write.to_string().into(),
    ));
    details.push((
        "data_write_guid",
        headers.current.data_write.to_string().into(),
    ));
    details.push(("log_in_use", structure.n_replayed.is_some().into()));
    if let Some(locator) = &metadata.locator {
        let pairs = locator
            .pairs
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into()));
        details.push(("parent_locator", Value::Map(pairs.collect())));
    }
    Ok(details)
}

/// Returns what wrote the file, as it says in UTF-16 behind the magic (MS-VHDX, section 2.2.1).
fn creator(storage: &dyn Storage) -> Result<String> {
    let mut bytes = [0; 512];
    storage.read_at(8, &mut bytes)?;
    let units = bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|unit| u16::from_le_bytes(*unit))
        .take_while(|unit| *unit != 0);
    Ok(char::decode_utf16(units)
        .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect())
}
