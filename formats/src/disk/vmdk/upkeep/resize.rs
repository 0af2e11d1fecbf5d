//! Another virtual size.
//!
//! The extent lines of the descriptor say how large the disk is; an extent file may have more room
//! than its line says, never less. So a disk that grows gets its room first and its lines last, one
//! that shrinks the other way round.

use std::collections::BTreeSet;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Resolver, Result, SECTOR_BYTES, Sink, Storage};

use crate::disk::vmdk::create::{SPLIT_SECTORS, stem};
use crate::disk::vmdk::create_type::canonical;
use crate::disk::vmdk::descriptor::{Descriptor, Edits};
use crate::disk::vmdk::extent_line::ExtentAccess;
use crate::disk::vmdk::hosted::{self, HostedArgs, HostedCreate, HostedSink};
use crate::disk::vmdk::image::VmdkImage;
use crate::disk::vmdk::layout::{Layout, MAX_EXTENTS, Part, Source, Text};
use crate::disk::{Allocation, OpenArgs};

/// Names tried for a new extent file.
const MAX_NAMES: usize = 1000;

/// Changes the virtual size. New space is a hole; what lies beyond a smaller size is lost.
pub fn resize(args: &OpenArgs, virtual_size: u64) -> Result<()> {
    if virtual_size == 0 || !virtual_size.is_multiple_of(SECTOR_BYTES) {
        return Err(Error::invalid(format!(
            "a VMDK cannot have a size of {virtual_size} bytes (a multiple of 512, at least 512)"
        )));
    }
    // One that cannot be opened is not made to look as if it could.
    drop(VmdkImage::open(args)?);
    let layout = Layout::find(args)?;
    let old = layout
        .parts
        .iter()
        .try_fold(0u64, |sum, part| sum.checked_add(part.len));
    match old {
        Some(old) if virtual_size > old => grow(args, layout, virtual_size - old),
        Some(old) if virtual_size < old => shrink(args, layout, virtual_size),
        Some(_) => Ok(()),
        None => Err(Error::corrupt(
            "descriptor",
            "the extents are too large together",
        )),
    }
}

/// Makes the disk larger by `more` bytes.
fn grow(args: &OpenArgs, layout: Layout, more: u64) -> Result<()> {
    let last = layout.parts.last();
    let last = last.ok_or_else(|| Error::corrupt("descriptor", "it has no extent"))?;
    refuse_fixed(last)?;
    let plan = Plan::of(&layout.descriptor, last, more)?;
    if plan.last_len > last.len {
        grow_part(&layout, last, plan.last_len)?;
    }
    let mut edits = layout.descriptor.edit();
    edits.set_extent_sectors(last.index, plan.last_len / SECTOR_BYTES)?;
    let added = plan.added_lens.iter().sum::<u64>();
    let size = layout.parts.iter().map(|part| part.len).sum::<u64>() - last.len + plan.last_len;
    set_cylinders(&mut edits, &layout.descriptor, size + added)?;
    let mut created = Vec::new();
    let new = create_parts(args, last, &plan, &mut created).and_then(|lines| {
        if !lines.is_empty() {
            edits.add_extents(&lines)?;
        }
        edits.finish()
    });
    let new = new.inspect_err(|_| {
        // Nothing names them.
        for name in &created {
            let _ = args.resolver.remove(name);
        }
    })?;
    layout.home.replace(&layout.descriptor, &new)
}

/// How much each extent gets.
struct Plan {
    /// The last extent's length then, in bytes.
    last_len: u64,
    /// Lengths of new extents behind it.
    added_lens: Vec<u64>,
}

impl Plan {
    fn of(descriptor: &Descriptor, last: &Part, more: u64) -> Result<Self> {
        let wanted = last
            .len
            .checked_add(more)
            .filter(|len| *len <= i64::MAX as u64);
        let wanted = wanted.ok_or_else(|| Error::invalid("the disk would be too large"))?;
        let create_type = descriptor.value("createType").unwrap_or_default();
        let is_split = matches!(
            canonical(&create_type),
            Some("twoGbMaxExtentSparse" | "twoGbMaxExtentFlat")
        );
        if !is_split {
            return Ok(Self {
                last_len: wanted,
                added_lens: Vec::new(),
            });
        }
        let split = SPLIT_SECTORS * SECTOR_BYTES;
        // What follows must begin on a grain.
        let whole = last.len.next_multiple_of(last.source.unit_bytes());
        let last_len = split.max(whole).min(wanted);
        let rest = wanted - last_len;
        if rest.div_ceil(split) + descriptor.extents().len() as u64 > MAX_EXTENTS as u64 {
            return Err(Error::invalid("the disk would need too many extent files")
                .hint("convert it to a subformat of one file"));
        }
        let added = (0..rest.div_ceil(split)).map(|n| split.min(rest - n * split));
        Ok(Self {
            last_len,
            added_lens: added.collect(),
        })
    }
}

fn refuse_fixed(last: &Part) -> Result<()> {
    let what = match &last.source {
        Source::Zeros => "the last extent has no file that could grow",
        Source::Flat { storage, .. } if storage.is_device() => "the last extent is a device",
        _ if last.line.access != ExtentAccess::ReadWrite => "the last extent is read-only",
        Source::Flat { .. } | Source::Hosted(..) => return Ok(()),
        _ => "the last extent is of a kind that is not written in place",
    };
    Err(Error::unsupported(format!("{what}: the disk cannot grow"))
        .hint("convert it to a new image"))
}

/// Gives the last extent more room. Its line stays as it is.
fn grow_part(layout: &Layout, part: &Part, len: u64) -> Result<()> {
    match &part.source {
        Source::Hosted(storage, header) => {
            let args = hosted_args(storage, header);
            hosted::grow(args, part.len, len).map_err(|error| error.in_file(storage.name()))
        }
        Source::Flat { storage, offset } => {
            refuse_shared(layout, part)?;
            let end = offset.checked_add(len);
            let end = end.ok_or_else(|| Error::invalid("the file would be too large"))?;
            // What is behind the extent in the file now is no content of the disk.
            storage.punch_hole(offset + part.len..end)?;
            if storage.len_bytes()? < end {
                storage.set_len(end)?;
            }
            storage.sync()
        }
        _ => Ok(()),
    }
}

fn hosted_args(
    storage: &Arc<dyn Storage>,
    header: &crate::disk::vmdk::header::SparseHeader,
) -> HostedArgs {
    HostedArgs {
        storage: Arc::clone(storage),
        header: header.clone(),
        access: hako_block::Access::ReadWrite,
        has_parent: false,
    }
}

/// Refuses a file of which other extents have parts, too.
fn refuse_shared(layout: &Layout, part: &Part) -> Result<()> {
    let file = part.line.file.as_deref().unwrap_or_default();
    let lines = layout.descriptor.extents().iter().enumerate();
    let shared = lines
        .filter(|(index, _)| *index != part.index)
        .any(|(_, line)| line.file.as_deref() == Some(file));
    if shared {
        return Err(
            Error::unsupported("several extents are in this file: it cannot be resized")
                .in_file(file)
                .hint("convert the disk to a new image"),
        );
    }
    Ok(())
}

/// Creates the extent files that the plan adds. Returns their lines; their names go to `created`.
fn create_parts(
    args: &OpenArgs,
    last: &Part,
    plan: &Plan,
    created: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut names = Names::after(&args.name, last);
    let mut lines = Vec::new();
    for len in &plan.added_lens {
        let (name, storage) = names.create_next(&*args.resolver)?;
        created.push(name.clone());
        let n_sectors = len / SECTOR_BYTES;
        match &last.source {
            Source::Hosted(_, header) => {
                lines.push(format!("RW {n_sectors} SPARSE \"{name}\""));
                let sink = HostedSink::new(HostedCreate {
                    storage,
                    capacity_bytes: *len,
                    grain_bytes: header.grain_bytes(),
                    descriptor: None,
                    zeroed_grains: header.has_zeroed_grains(),
                    allocation: Allocation::Thin,
                })?;
                Box::new(sink).finish()?;
            }
            _ => {
                lines.push(format!("RW {n_sectors} FLAT \"{name}\" 0"));
                storage.set_len(*len)?;
                storage.sync()?;
            }
        }
    }
    Ok(lines)
}

/// The names of new extent files: what the last one is called, with the next number.
struct Names {
    prefix: String,
    number: usize,
}

impl Names {
    fn after(main: &str, last: &Part) -> Self {
        let file = last.line.file.as_deref().unwrap_or_default();
        let kind = if last.line.kind.is_sparse() { 's' } else { 'f' };
        let prefix = format!("{}-{kind}", stem(main));
        let numbered = stem(file)
            .rsplit_once(['s', 'f'])
            .and_then(|(start, digits)| {
                let prefix = &file[..start.len() + 1];
                let number = digits.parse::<usize>().ok()?;
                (prefix.ends_with(&format!("-{kind}")) && !prefix.contains(['/', '\\']))
                    .then(|| (prefix.to_owned(), number))
            });
        let (prefix, number) = numbered.unwrap_or((prefix, 0));
        Self { prefix, number }
    }

    /// Creates a file under the next name that is free: a run that was cut off may have left one.
    fn create_next(&mut self, resolver: &dyn Resolver) -> Result<(String, Arc<dyn Storage>)> {
        let mut failed = None;
        for _ in 0..MAX_NAMES {
            self.number = self.number.saturating_add(1);
            let name = format!("{}{:03}.vmdk", self.prefix, self.number);
            match resolver.create_new(&name) {
                Ok(storage) => return Ok((name, storage)),
                Err(error) if error.kind() == ErrorKind::Exists => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::invalid("no name for another extent file")))
    }
}

/// Cuts the disk to `size` bytes.
fn shrink(args: &OpenArgs, layout: Layout, size: u64) -> Result<()> {
    let (mut start, mut kept) = (0, None);
    for part in &layout.parts {
        if start < size {
            kept = Some((part, part.len.min(size - start)));
        }
        start += part.len;
    }
    let (last, len) = kept.ok_or_else(|| Error::corrupt("descriptor", "it has no extent"))?;
    let text = Text::find(args)?;
    let own_line = text.own_line(&args.name, &mut Vec::new())?;
    if own_line.is_some_and(|own| own > last.index) {
        return Err(Error::unsupported(
            "the extent that holds the descriptor would be cut off",
        ));
    }
    if len < last.len && matches!(last.source, Source::Flat { .. }) {
        refuse_shared(&layout, last)?;
    }
    let mut edits = layout.descriptor.edit();
    edits.set_extent_sectors(last.index, len / SECTOR_BYTES)?;
    edits.remove_extents(last.index + 1);
    set_cylinders(&mut edits, &layout.descriptor, size)?;
    layout.home.replace(&layout.descriptor, &edits.finish()?)?;
    match &last.source {
        Source::Hosted(storage, header) if len < last.len => {
            let shrunk = hosted::shrink(hosted_args(storage, header), len);
            shrunk.map_err(|error| error.in_file(storage.name()))?;
        }
        Source::Flat { storage, offset } if len < last.len && !storage.is_device() => {
            storage.set_len(offset + len)?;
            storage.sync()?;
        }
        _ => {}
    }
    remove_files(args, &layout, last.index)
}

/// Removes the files that only extents behind `last` are in.
fn remove_files(args: &OpenArgs, layout: &Layout, last: usize) -> Result<()> {
    let lines = layout.descriptor.extents().iter();
    let kept: BTreeSet<_> = lines.take(last + 1).flat_map(|line| &line.file).collect();
    let mut removed = BTreeSet::new();
    for part in layout.parts.iter().filter(|part| part.index > last) {
        let is_file = match &part.source {
            Source::Flat { storage, .. } => !storage.is_device(),
            Source::Hosted(..) => true,
            _ => false,
        };
        if let Some(name) = &part.line.file
            && is_file
            && !kept.contains(name)
            && removed.insert(name)
        {
            match args.resolver.remove(name) {
                // One out of the image's folder is not the image's to remove.
                Err(error) if error.kind() == ErrorKind::Gate => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// Lets the geometry follow the size, if there is one: heads and sectors stay, for a guest may
/// have written them into its partition table.
fn set_cylinders(edits: &mut Edits<'_>, descriptor: &Descriptor, size: u64) -> Result<()> {
    const MAX_IDE_CYLINDERS: u64 = 16383;
    let number = |key: &str| descriptor.value(key)?.parse::<u64>().ok();
    let heads = number("ddb.geometry.heads");
    let sectors = number("ddb.geometry.sectors");
    let per_cylinder = heads
        .zip(sectors)
        .and_then(|(heads, sectors)| heads.checked_mul(sectors));
    let Some(per_cylinder) = per_cylinder.filter(|n_sectors| *n_sectors > 0) else {
        return Ok(());
    };
    let adapter = descriptor.value("ddb.adapterType").unwrap_or_default();
    let most = match adapter.eq_ignore_ascii_case("ide") {
        true => MAX_IDE_CYLINDERS,
        false => u64::MAX,
    };
    let cylinders = (size / SECTOR_BYTES / per_cylinder).clamp(1, most);
    edits.set_if_there("ddb.geometry.cylinders", &cylinders.to_string())
}
