//! VHD, the format of Virtual PC and of Hyper-V before VHDX (Microsoft, Virtual Hard Disk Image
//! Format Specification 1.0): fixed, dynamic, differencing.
//!
//! | file | what is in it |
//! |---|---|
//! | `footer`, `header` | the two records |
//! | `parent` | the names of a parent |
//! | `layout` | sizes that follow from the records |
//! | `open` | which of the copies to believe, `info` |
//! | `fixed` | fixed disks, read, written, created |
//! | `image`, `pages` | dynamic disks: reading, the extent map; tables in memory |
//! | `write`, `allocate` | dynamic disks: writing in place |
//! | `sink` | dynamic disks: creating |
//! | `check`, `upkeep` | checking; repairing, resizing, compacting, settings |

mod allocate;
mod check;
mod fixed;
mod footer;
mod header;
mod image;
mod layout;
mod open;
mod pages;
mod parent;
mod sink;
#[cfg(test)]
mod tests;
mod upkeep;
mod write;

use hako_block::{BlockImage, Error, ParentLink, Result, Sink};

use super::{
    CheckArgs, CreateArgs, DiskFormat, Findings, OpenArgs, Repair, Settings, Subformat, Task,
};
use footer::{COOKIE, DiskType, FOOTER_BYTES, MAX_DISK_BYTES, OLD_FOOTER_BYTES};
use open::{Dynamic, Found};

/// The VHD format.
pub struct Vhd;

impl DiskFormat for Vhd {
    fn name(&self) -> &'static str {
        "vhd"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vhd", "vpc", "avhd"]
    }

    fn subformats(&self) -> &'static [Subformat] {
        &[
            Subformat {
                name: "dynamic",
                read: true,
                create: true,
                write: true,
                repair: true,
                resize: true,
                compact: true,
                notes: "up to 2040 GiB",
                ..Subformat::NONE
            },
            Subformat {
                name: "fixed",
                read: true,
                create: true,
                write: true,
                pipe: true,
                repair: true,
                resize: true,
                notes: "up to 2040 GiB, also with the 511-byte footer of old Virtual PC",
                ..Subformat::NONE
            },
            Subformat {
                name: "differencing",
                read: true,
                create: true,
                write: true,
                repair: true,
                resize: true,
                compact: true,
                notes: "what a parent makes of dynamic; every kind of parent locator read",
                ..Subformat::NONE
            },
        ]
    }

    fn probe(&self, head: &[u8], tail: &[u8]) -> bool {
        let at_end = |len: u64| {
            tail.len()
                .checked_sub(len as usize)
                .and_then(|at| tail.get(at..))
                .is_some_and(|footer| footer.starts_with(COOKIE))
        };
        head.starts_with(COOKIE) || at_end(FOOTER_BYTES) || at_end(OLD_FOOTER_BYTES)
    }

    fn open(&self, args: OpenArgs) -> Result<Box<dyn BlockImage>> {
        let found = Found::read(&*args.storage, args.salvage)?;
        if !args.salvage {
            found.refuse_resizing()?;
        }
        if found.footer.disk_type == DiskType::Fixed {
            return Ok(Box::new(fixed::open(&args, &found)?));
        }
        let dynamic = Dynamic::read(found, &*args.storage, args.salvage)?;
        Ok(Box::new(image::Image::open(&args, dynamic)?))
    }

    fn stream(&self, args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
        let is_fixed = chosen(&args)? == DiskType::Fixed;
        if args.virtual_size > MAX_DISK_BYTES {
            return Err(Error::invalid(format!(
                "{} bytes are more than the {MAX_DISK_BYTES} (2040 GiB) that a VHD can have",
                args.virtual_size
            ))
            .hint("VHDX can be larger"));
        }
        if args.storage.is_device() {
            return Err(Error::unsupported(
                "a VHD ends with its footer, and a block device has no end of its own",
            )
            .hint("write it to a file"));
        }
        if is_fixed {
            args.options.refuse_others("vhd", &["allocation"])?;
            return Ok(Box::new(fixed::FixedSink::new(&args)?));
        }
        args.options.refuse_others("vhd", &["allocation", "unit"])?;
        Ok(Box::new(sink::DynamicSink::new(&args)?))
    }

    fn check(&self, args: CheckArgs) -> Result<Findings> {
        check::check(&args)
    }

    fn repair(&self, args: OpenArgs, what: Repair) -> Result<Vec<String>> {
        upkeep::repair(&args, what)
    }

    fn resize(&self, args: OpenArgs, virtual_size: u64) -> Result<()> {
        upkeep::resize(&args, virtual_size)
    }

    fn compact(&self, args: OpenArgs, task: Task<'_>) -> Result<()> {
        upkeep::compact(&args, task)
    }

    fn set(&self, args: OpenArgs, settings: &Settings) -> Result<()> {
        settings.refuse_others(self.name(), &["uuid"])?;
        upkeep::set(&args, settings)
    }

    fn relink(&self, args: OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
        upkeep::relink(&args, parent)
    }
}

/// Returns which kind of disk to create.
fn chosen(args: &CreateArgs<'_>) -> Result<DiskType> {
    let name = args.options.subformat.as_deref().unwrap_or("dynamic");
    let kinds = [DiskType::Dynamic, DiskType::Fixed, DiskType::Differencing];
    let kind = kinds
        .into_iter()
        .find(|kind| kind.name().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            Error::invalid(format!("vhd has no subformat {name:?}"))
                .hint("one of dynamic, fixed, differencing")
        })?;
    match (kind, &args.parent) {
        (DiskType::Fixed, Some(_)) => Err(Error::invalid("a fixed VHD can have no parent")),
        (DiskType::Differencing, None) => {
            Err(Error::invalid("a differencing VHD needs a parent").hint("name it with --parent"))
        }
        (DiskType::Dynamic, Some(_)) => Ok(DiskType::Differencing),
        (kind, _) => Ok(kind),
    }
}
