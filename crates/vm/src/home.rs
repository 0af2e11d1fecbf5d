//! Where virtual machines live.

use std::path::PathBuf;

/// Where virtual machines live, and the list of them. Which folder that is, is for the program to
/// decide: a library reads no environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The folder of all of it.
    pub root: PathBuf,
}

impl Home {
    /// Returns the home in the folder `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the folder in which a new machine gets a folder of its own.
    pub fn vms(&self) -> PathBuf {
        self.root.join("vms")
    }

    /// Returns the file that lists the machines.
    pub fn inventory(&self) -> PathBuf {
        self.root.join("inventory")
    }
}
