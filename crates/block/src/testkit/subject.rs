//! What the suite needs to know of a format.

use std::sync::Arc;

use super::FaultFolder;
use crate::{Access, BlockImage, ParentLink, Result, Sink};

/// What a variant can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Can be written in place.
    pub writable: bool,
    /// Can have a parent.
    pub overlay: bool,
    /// May refuse to open after a cut (a clear error, never wrong bytes).
    pub may_refuse_after_cut: bool,
}

/// What a check said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Damage found, one text each.
    pub corruptions: Vec<String>,
    /// How many leaks were found.
    pub n_leaks: u64,
}

/// One creatable variant of a format, as the suite sees it.
pub trait Subject: Sync {
    /// Returns the name for messages.
    fn name(&self) -> String;

    /// Returns what the variant can do.
    fn traits(&self) -> Traits;

    /// Returns the usual file name extension.
    fn extension(&self) -> &str;

    /// Begins an image of `size` bytes under the file name `name`.
    fn create(
        &self,
        folder: &FaultFolder,
        name: &str,
        size: u64,
        parent: Option<ParentLink>,
    ) -> Result<Box<dyn Sink>>;

    /// Opens the one layer `name`.
    fn open(&self, folder: &FaultFolder, name: &str, access: Access)
    -> Result<Arc<dyn BlockImage>>;

    /// Checks the one layer `name`; `None` if the format has nothing to check.
    fn check(&self, folder: &FaultFolder, name: &str) -> Result<Option<CheckReport>>;

    /// Returns how an overlay in the same folder names `parent`.
    fn parent_link(&self, name: &str, parent: &dyn BlockImage) -> ParentLink {
        ParentLink {
            name: name.to_owned(),
            format: Some(parent.info().format.to_owned()),
            identity: parent.info().identity,
            content_id: parent.info().content_id,
            ..ParentLink::default()
        }
    }
}

/// How long to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Random workloads of each kind.
    pub n_seeds: u64,
    /// Steps of a workload.
    pub n_steps: usize,
    /// States tried at each cut, beyond "all kept" and "all lost".
    pub n_cut_variants: usize,
    /// At most so many places of each kind of fault, spread evenly.
    pub n_faults: u64,
}

impl Effort {
    /// A few seconds a format.
    pub const QUICK: Effort = Effort {
        n_seeds: 1,
        n_steps: 25,
        n_cut_variants: 4,
        n_faults: 40,
    };

    /// Some minutes for all formats, on two cores a quarter of an hour.
    pub const LONG: Effort = Effort {
        n_seeds: 2,
        n_steps: 30,
        n_cut_variants: 6,
        n_faults: 150,
    };
}
