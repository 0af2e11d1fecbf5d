//! Copying disks into a machine's folder, and small files into memory.

use std::path::Path;

use hako_block::{BlockImage, Error, ErrorKind, Result, SECTOR_BYTES, Storage, Value};
use hako_disk::{Ready, reopen};
use hako_formats::{Adapter, CreateArgs, CreateOptions, DiskFormat, OpenedChain};
use hako_pipeline::{CopyOptions, Delivery, deliver};

/// How new disks are to be.
pub(crate) struct Manner<'a> {
    /// Their format.
    pub(crate) format: &'static dyn DiskFormat,
    /// What the user chose about them.
    pub(crate) create: &'a CreateOptions,
    /// Read each one back before it gets its name.
    pub(crate) verify: bool,
    /// How to copy.
    pub(crate) copy: CopyOptions<'a>,
}

impl Manner<'_> {
    /// Returns how a disk is to be that has a shape of its own.
    pub(crate) fn shaped<'a>(&'a self, shape: &'a Shape) -> Manner<'a> {
        Manner {
            format: shape.format,
            create: &shape.create,
            verify: self.verify,
            copy: self.copy,
        }
    }
}

/// What a new image is to be.
pub(crate) struct Shape {
    /// Its format.
    pub(crate) format: &'static dyn DiskFormat,
    /// What is chosen about it.
    pub(crate) create: CreateOptions,
}

impl Shape {
    /// Returns what the lowest layer of a chain is, which is what somebody once chose: overlays
    /// come and go with snapshots. A variant that cannot be made, or is not for writing, becomes
    /// the format's usual one, and that is told.
    pub(crate) fn of(chain: &OpenedChain) -> (Option<Self>, Option<String>) {
        let Some(base) = chain.layers.last() else {
            return (None, None);
        };
        let (format, info) = (base.format, base.image.info());
        let wanted = info.subformat.as_deref().map(|name| match name {
            // Kinds of one and the same on ESXi's file system.
            "vmfsThin" | "vmfsThick" | "vmfsPreallocated" | "vmfsEagerZeroedThick" => "vmfs",
            name => name,
        });
        let is_fit = |name: &str| {
            let mut rows = format.subformats().iter();
            rows.any(|row| row.create && row.write && row.name.eq_ignore_ascii_case(name))
        };
        let subformat = wanted.filter(|name| is_fit(name));
        let told = wanted.filter(|_| subformat.is_none()).map(|name| {
            let usual = format.subformats().first().map_or("", |row| row.name);
            format!("is {name}, which is not made: the copy is {usual}")
        });
        let detail = |key: &str| info.details.iter().find(|(name, _)| *name == key);
        let create = CreateOptions {
            subformat: subformat.map(str::to_owned),
            adapter: detail("adapter").and_then(|(_, value)| adapter(value)),
            sector_bytes: detail("logical_sector_size").and_then(|(_, value)| sector(value)),
            ..CreateOptions::default()
        };
        (Some(Self { format, create }), told)
    }
}

fn adapter(value: &Value) -> Option<Adapter> {
    let Value::Text(name) = value else {
        return None;
    };
    let mut all = Adapter::ALL.into_iter();
    all.find(|adapter| adapter.name().eq_ignore_ascii_case(name))
}

fn sector(value: &Value) -> Option<u32> {
    match value {
        Value::Int(bytes) => u32::try_from(*bytes).ok(),
        _ => None,
    }
}

/// Writes what `source` shows into the new image `path`; nothing appears there before it is whole.
/// `capacity` is the size that it is said to have, in bytes: a smaller one grows to that, as it
/// does where products make a disk of that size first. Returns its virtual size and how much of it
/// is data, both in bytes. Errors: [`ErrorKind::Mismatch`] for a larger one.
pub(crate) fn copy_image(
    source: &dyn BlockImage,
    capacity: Option<u64>,
    path: &Path,
    manner: &Manner<'_>,
) -> Result<(u64, u64)> {
    let virtual_size = size_of_copy(source, capacity)?;
    let format = manner.format;
    let target = Ready::path(path, false)?;
    let name = target.name;
    let delivery = Delivery {
        source,
        virtual_size,
        target: target.place,
        sink: Box::new(move |storage, outputs| {
            format.stream(CreateArgs {
                storage,
                name,
                outputs,
                virtual_size,
                parent: None,
                options: manner.create.clone(),
            })
        }),
        verify: manner.verify.then(|| reopen(format)),
    };
    let report = deliver(delivery, &manner.copy)?;
    Ok((virtual_size, report.data_bytes))
}

fn size_of_copy(source: &dyn BlockImage, capacity: Option<u64>) -> Result<u64> {
    let own = whole_sectors(source)?;
    let Some(capacity) = capacity else {
        return Ok(own);
    };
    match capacity.checked_next_multiple_of(SECTOR_BYTES) {
        Some(capacity) if capacity >= own => Ok(capacity),
        _ => Err(Error::new(
            ErrorKind::Mismatch,
            format!("the disk has {own} bytes, but the description says {capacity}"),
        )
        .hint("correct the capacity in the .ovf, or import the disk by itself")),
    }
}

/// Returns the virtual size that a copy of `source` has, in bytes: whole sectors.
pub(crate) fn whole_sectors(source: &dyn BlockImage) -> Result<u64> {
    let size = source.info().virtual_size;
    size.checked_next_multiple_of(SECTOR_BYTES)
        .ok_or_else(|| Error::invalid(format!("a disk of {size} bytes is too large")))
}

/// Reads all of a small file; `what` it is for the error of one with more than `max_bytes`.
pub(crate) fn read_small(storage: &dyn Storage, max_bytes: usize, what: &str) -> Result<Vec<u8>> {
    let len = small_len(storage.len_bytes()?, max_bytes, what)
        .map_err(|error| error.in_file(storage.name()))?;
    let mut bytes = vec![0; len];
    storage.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Returns the length of a small file; `what` it is for the error of one with more than
/// `max_bytes`.
pub(crate) fn small_len(len: u64, max_bytes: usize, what: &str) -> Result<usize> {
    let found = usize::try_from(len).ok();
    found.filter(|len| *len <= max_bytes).ok_or_else(|| {
        Error::unsupported(format!(
            "has {len} bytes: no {what} has more than {max_bytes}"
        ))
    })
}
