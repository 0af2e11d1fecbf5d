//! Opening an image, and what `info` shows of it.

use std::sync::{Arc, Condvar, Mutex, RwLock};

use hako_block::{Access, Error, ImageInfo, ParentLink, Result, Storage, Value};

use super::bitmaps;
use super::header::{self, Header};
use super::image::{Image, Meta};
use super::map::Map;
use super::snapshot::Snapshots;
use super::tables::Tables;
use super::write::Writer;
use crate::disk::OpenArgs;
use crate::disk::qcow2::backing;

/// Opens one layer.
pub fn open(args: &OpenArgs) -> Result<Image> {
    let storage = Arc::clone(&args.storage);
    let header = Header::read(&*storage)?;
    let layout = header.layout();
    let writable = args.access == Access::ReadWrite;
    if writable {
        refuse_writing(&header, args)?;
    }
    let mut oddities = oddities(&header);
    let snapshots = match Snapshots::read(&*storage, &header) {
        Err(error) if !writable && args.snapshot.is_none() => {
            oddities.push(format!("the snapshots cannot be read: {error}"));
            Snapshots::default()
        }
        result => result?,
    };
    let mut map = Map {
        layout,
        l1_offset: header.l1_offset,
        n_l1: u64::from(header.n_l1),
    };
    let mut virtual_size = header.virtual_size;
    if let Some(wanted) = &args.snapshot {
        let snapshot = snapshots.find(wanted)?;
        (map, virtual_size) = (snapshot.map, snapshot.virtual_size);
    }
    refuse_table_past_end(&*storage, &map)?;
    let data = open_data(args, &header)?;
    let mut files = vec![storage.name().to_owned()];
    let mut allocated_size = storage.allocated_bytes()?;
    if header.incompatible & header::DATA_FILE != 0 {
        files.push(data.name().to_owned());
        allocated_size += data.allocated_bytes()?;
    }
    let info = ImageInfo {
        format: "qcow2",
        subformat: Some(format!("v{}", header.version)),
        virtual_size,
        unit_bytes: 1 << layout.sub_shift(),
        has_zero_extents: header.version >= 3,
        writable,
        parent: parent(&header),
        files,
        allocated_size,
        details: details(&header, &snapshots, &*storage, &mut oddities),
        oddities,
        ..ImageInfo::default()
    };
    let writer = if writable {
        Some(Writer::new(&header, &snapshots)?)
    } else {
        None
    };
    Ok(Image {
        data_name: data.name().into(),
        codec: header.codec,
        map,
        info,
        gate: RwLock::new(()),
        meta: Mutex::new(Meta {
            tables: Tables::new(Arc::clone(&storage), layout.cluster_shift),
            writer,
        }),
        idle: Condvar::new(),
        storage,
        data,
    })
}

/// Refuses to write to what may be damaged, or to a snapshot.
pub fn refuse_writing(header: &Header, args: &OpenArgs) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::unsupported(what).hint(format!(
            "have it repaired first: hako disk check --repair all {}",
            args.storage.name()
        )))
    };
    if args.snapshot.is_some() {
        return Err(Error::unsupported("an internal snapshot cannot be written"));
    }
    if header.incompatible & header::CORRUPT != 0 {
        return refused("marked corrupt: not opened for writing");
    }
    if header.incompatible & header::DIRTY != 0 {
        return refused("not closed cleanly, its refcounts may be wrong: not opened for writing");
    }
    Ok(())
}

fn refuse_table_past_end(storage: &dyn Storage, map: &Map) -> Result<()> {
    let len = storage.len_bytes()?;
    if map.n_l1 != 0 && map.l1_offset + map.n_l1 * 8 > len {
        return Err(Error::corrupt(
            "L1 table",
            format!(
                "{} entries at {:#x} reach past the end of the file ({len} bytes)",
                map.n_l1, map.l1_offset
            ),
        ));
    }
    Ok(())
}

/// Opens the external data file, if the image has one.
fn open_data(args: &OpenArgs, header: &Header) -> Result<Arc<dyn Storage>> {
    if header.incompatible & header::DATA_FILE == 0 {
        return Ok(Arc::clone(&args.storage));
    }
    let Some(name) = &header.data_file_name else {
        return Err(Error::corrupt(
            "header",
            "an external data file without a name",
        ));
    };
    Ok(args.resolver.open(name, args.access)?.storage)
}

fn parent(header: &Header) -> Option<ParentLink> {
    let name = header.backing_name.as_ref()?;
    Some(ParentLink {
        // qemu's own way to say that the rest is a file name, whatever colons are in it.
        name: name.strip_prefix("file:").unwrap_or(name).to_owned(),
        format: header
            .backing_format
            .as_deref()
            .map(|name| backing::from_qemu(name).to_owned()),
        ..ParentLink::default()
    })
}

fn oddities(header: &Header) -> Vec<String> {
    let mut oddities = Vec::new();
    let mut note = |holds: bool, text: &str| {
        if holds {
            oddities.push(text.to_owned());
        }
    };
    note(
        header.incompatible & header::DIRTY != 0,
        "not closed cleanly: refcounts may be wrong",
    );
    note(header.incompatible & header::CORRUPT != 0, "marked corrupt");
    note(
        header.backing_name.is_some() && header.backing_format.is_none(),
        "the format of the parent is not recorded",
    );
    note(
        header.bitmaps.is_some() && header.autoclear & header::BITMAPS == 0,
        "the bitmaps are stale: a program that knows none has written to the image",
    );
    note(
        header.autoclear & !(header::BITMAPS | header::RAW_EXTERNAL) != 0,
        "has autoclear features that hako does not know: the first write drops them",
    );
    note(
        !header.virtual_size.is_multiple_of(512),
        "the virtual size is no multiple of 512 bytes",
    );
    oddities
}

fn details(
    header: &Header,
    snapshots: &Snapshots,
    storage: &dyn Storage,
    oddities: &mut Vec<String>,
) -> Vec<(&'static str, Value)> {
    let mut details: Vec<(&'static str, Value)> = vec![
        ("version", u64::from(header.version).into()),
        ("cluster_size_bytes", (1_u64 << header.cluster_shift).into()),
        ("compression", header.codec.name().into()),
        ("refcount_bits", (1_u64 << header.refcount_order).into()),
        (
            "lazy_refcounts",
            (header.compatible & header::LAZY_REFCOUNTS != 0).into(),
        ),
        (
            "extended_l2",
            (header.incompatible & header::EXTENDED_L2 != 0).into(),
        ),
        ("dirty", (header.incompatible & header::DIRTY != 0).into()),
        (
            "corrupt",
            (header.incompatible & header::CORRUPT != 0).into(),
        ),
    ];
    if header.incompatible & header::DATA_FILE != 0 {
        if let Some(name) = &header.data_file_name {
            details.push(("data_file", name.clone().into()));
        }
        details.push((
            "data_file_raw",
            (header.autoclear & header::RAW_EXTERNAL != 0).into(),
        ));
    }
    if let Some(name) = &header.backing_name {
        details.push(("backing_file", name.clone().into()));
    }
    if let Some(format) = &header.backing_format {
        details.push(("backing_format", format.clone().into()));
    }
    if !snapshots.list.is_empty() {
        let list = snapshots
            .list
            .iter()
            .map(super::snapshot::Snapshot::value)
            .collect();
        details.push(("snapshots", Value::List(list)));
    }
    if let Some(directory) = &header.bitmaps {
        match bitmaps::read(storage, directory) {
            Ok(list) => {
                let names = list.into_iter().map(|bitmap| bitmap.name.into()).collect();
                details.push(("bitmaps", Value::List(names)));
            }
            Err(error) => oddities.push(format!("the bitmaps cannot be read: {error}")),
        }
    }
    details
}
