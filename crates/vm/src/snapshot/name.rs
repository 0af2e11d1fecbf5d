//! An image as a machine's texts name it.

use std::path::PathBuf;

use hako_block::{Access, Cancel, NoProgress, Result};
use hako_disk::{RebaseRequest, Subject};
use hako_formats::OpenOptions;
use hako_formats::machine::{DiskMedium, Node};
use hako_formats::vmx::Vmx;

use crate::Vm;

/// An image of a machine: its main file as the texts name it (relative to the machine's folder, or
/// absolute), and its format, which is never guessed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ImageName {
    /// The main file.
    pub file: String,
    /// The format.
    pub format: String,
}

impl ImageName {
    /// Returns the image of a disk.
    pub(crate) fn of_disk(disk: &DiskMedium) -> Self {
        Self {
            file: disk.file.clone(),
            format: disk.format.clone().unwrap_or_else(|| "vmdk".to_owned()),
        }
    }

    /// Returns the format as texts say it: nothing for a VMDK.
    pub(crate) fn format_in_text(&self) -> Option<&str> {
        Some(self.format.as_str()).filter(|format| *format != "vmdk")
    }

    /// Makes a text name it for the disk at a node.
    pub(crate) fn name_in(&self, vmx: &mut Vmx, node: Node) -> Result<()> {
        vmx.set_drive_file(node, &self.file)?;
        let key = format!("hako.{node}.format");
        match self.format_in_text() {
            Some(format) => vmx.set(&key, format),
            None => vmx.remove(&key).map(drop),
        }
    }

    /// Returns the path of its main file, which the machine's gate lets through.
    pub(crate) fn path(&self, vm: &Vm) -> Result<PathBuf> {
        let opened = vm.open_file(&self.file, Access::ReadOnly, &vm.rules(true))?;
        Ok(PathBuf::from(opened.storage.name()))
    }

    /// Makes it say that its parent is that one, whose content is what it was made on.
    pub(crate) fn link_to(&self, parent: &ImageName, vm: &Vm) -> Result<()> {
        let request = RebaseRequest {
            subject: self.subject(vm)?,
            parent: Some(parent.path(vm)?),
            parent_from: Some(parent.format.clone()),
            link_only: true,
            threads: None,
        };
        hako_disk::rebase(&request, &NoProgress, &Cancel::default()).map(drop)
    }

    /// Returns it as what is changed.
    pub(crate) fn subject(&self, vm: &Vm) -> Result<Subject> {
        let mut rules = vm.rules(false);
        rules.allow_paths.push(vm.folder().to_path_buf());
        Ok(Subject {
            path: self.path(vm)?,
            open: OpenOptions {
                from: Some(self.format.clone()),
                rules,
                ..OpenOptions::default()
            },
        })
    }
}
