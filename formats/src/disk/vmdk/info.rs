//! What there is to know of a VMDK.

use hako_block::{Access, BlockImage, ContentId, ImageInfo, Result, SECTOR_BYTES, Value};

use super::create_type::canonical;
use super::descriptor::Descriptor;
use super::extent_line::ExtentLine;
use crate::disk::OpenArgs;

/// Most extents shown one by one.
const MAX_SHOWN: usize = 64;

/// Keys of the descriptor that are shown as they are, with the name they are shown under.
const SHOWN: &[(&str, &str)] = &[
    ("ddb.adapterType", "adapter"),
    ("ddb.virtualHWVersion", "hw_version"),
    ("ddb.toolsVersion", "tools_version"),
    ("ddb.uuid", "uuid"),
    ("ddb.uuid.image", "uuid_image"),
    ("ddb.longContentID", "long_content_id"),
    ("ddb.thinProvisioned", "thin_provisioned"),
    ("ddb.comment", "comment"),
    ("changeTrackPath", "change_track_path"),
    ("isNativeSnapshot", "native_snapshot"),
    ("parentFileNameHint", "parent_file_name_hint"),
];

/// Describes the layer. Size, parent and oddities are the caller's.
pub fn describe(
    descriptor: &Descriptor,
    images: &[&dyn BlockImage],
    args: &OpenArgs,
) -> Result<ImageInfo> {
    let infos = || images.iter().map(|image| image.info());
    let create_type = descriptor.value("createType");
    let subformat = create_type.map(|text| canonical(&text).map_or(text, str::to_owned));
    let mut files = vec![args.storage.name().to_owned()];
    let mut allocated_size = args.storage.allocated_bytes()?;
    for info in infos() {
        let new = info.files.iter().filter(|file| !files.contains(file));
        let new: Vec<_> = new.cloned().collect();
        if !new.is_empty() {
            allocated_size = allocated_size.saturating_add(info.allocated_size);
            files.extend(new);
        }
    }
    Ok(ImageInfo {
        format: "vmdk",
        details: details(descriptor, subformat.as_deref(), images),
        subformat,
        unit_bytes: infos()
            .map(|info| info.unit_bytes)
            .max()
            .unwrap_or(SECTOR_BYTES),
        has_zero_extents: infos().all(|info| info.has_zero_extents),
        writable: args.access == Access::ReadWrite,
        content_id: descriptor.content_id().map(ContentId::Cid),
        files,
        allocated_size,
        ..ImageInfo::default()
    })
}

fn details(
    descriptor: &Descriptor,
    create_type: Option<&str>,
    images: &[&dyn BlockImage],
) -> Vec<(&'static str, Value)> {
    let mut details: Vec<(&'static str, Value)> = Vec::new();
    let mut add = |key, value: Option<Value>| details.extend(value.map(|value| (key, value)));
    add("create_type", create_type.map(Value::from));
    add("cid", descriptor.content_id().map(hex));
    let parent = descriptor.parent_content_id().ok().flatten();
    add("parent_cid", parent.map(hex));
    for (key, name) in SHOWN {
        add(name, descriptor.value(key).map(Value::from));
    }
    add("geometry", geometry(descriptor));
    add("encoding", Some(descriptor.encoding_name().into()));
    if let [only] = images {
        for (key, value) in &only.info().details {
            add(key, Some(value.clone()));
        }
    }
    let lines = descriptor.extents();
    add("n_extents", Some((lines.len() as u64).into()));
    let shown = lines.iter().take(MAX_SHOWN).map(extent).collect();
    add("extents", Some(Value::List(shown)));
    details
}

fn hex(id: u32) -> Value {
    format!("{id:08x}").into()
}

fn geometry(descriptor: &Descriptor) -> Option<Value> {
    let part = |name: &str| descriptor.value(&format!("ddb.geometry.{name}"));
    let (cylinders, heads, sectors) = (part("cylinders")?, part("heads")?, part("sectors")?);
    Some(format!("{cylinders}/{heads}/{sectors}").into())
}

fn extent(line: &ExtentLine) -> Value {
    let mut map: Vec<(String, Value)> = vec![
        ("access".to_owned(), line.access.word().into()),
        ("sectors".to_owned(), line.n_sectors.into()),
        ("type".to_owned(), line.kind.word().into()),
    ];
    if let Some(file) = &line.file {
        map.push(("file".to_owned(), file.clone().into()));
        map.push(("offset_sectors".to_owned(), line.offset_sectors.into()));
    }
    Value::Map(map)
}
