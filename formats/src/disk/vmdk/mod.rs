//! VMDK in its variants.
//!
//! An image is a text descriptor and extents, in the order of the disk. The descriptor is a file
//! of its own or lies inside a sparse extent file. `layout` finds it and what each of its lines
//! stands for; `image` makes one disk of the parts; the parts are images of their own: plain
//! files (`flat`) and the sparse kinds.

mod arriving;
mod check;
mod content_id;
mod cowd;
mod create;
mod create_type;
mod descriptor;
mod extent_line;
mod flat;
mod header;
mod home;
mod hosted;
mod image;
mod info;
mod layout;
mod sesparse;
mod stream;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod two_level;
mod upkeep;

pub use arriving::ArrivingHead;
pub(crate) use descriptor::looks_like_descriptor;
pub use stream::arriving::{ArrivingImage, Source};

use hako_block::{BlockImage, ParentLink, Result, Sink};

use super::{
    CheckArgs, CreateArgs, DiskFormat, Findings, OpenArgs, Renaming, Repair, Settings, Subformat,
    Task,
};

/// Where before the end of a streamOptimized file its footer begins.
const FOOTER_FROM_END: usize = 1024;

/// The VMDK format.
pub struct Vmdk;

impl DiskFormat for Vmdk {
    fn name(&self) -> &'static str {
        "vmdk"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vmdk"]
    }

    fn subformats(&self) -> &'static [Subformat] {
        create_type::CREATE_TYPES
    }

    fn probe(&self, head: &[u8], tail: &[u8]) -> bool {
        let footer = tail
            .len()
            .checked_sub(FOOTER_FROM_END)
            .and_then(|at| tail.get(at..));
        head.starts_with(&header::MAGIC)
            || head.starts_with(&cowd::MAGIC)
            || head.starts_with(&sesparse::MAGIC)
            || descriptor::looks_like_descriptor(head)
            || footer.is_some_and(|footer| footer.starts_with(&header::MAGIC))
    }

    fn open(&self, args: OpenArgs) -> Result<Box<dyn BlockImage>> {
        Ok(Box::new(image::VmdkImage::open(&args)?))
    }

    fn stream(&self, args: CreateArgs<'_>) -> Result<Box<dyn Sink>> {
        create::stream(args)
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
        upkeep::set(&args, settings)
    }

    fn relink(&self, args: OpenArgs, parent: Option<&ParentLink>) -> Result<()> {
        upkeep::relink(&args, parent)
    }

    fn renaming(&self, args: OpenArgs, new_name: &str) -> Result<Renaming> {
        upkeep::renaming(&args, new_name)
    }

    fn renamed(&self, args: OpenArgs) -> Result<()> {
        upkeep::renamed(&args)
    }
}
