//! A clone whose disks are overlays on what a snapshot holds.

use std::path::{Path, PathBuf};

use hako_block::{Cancel, NoProgress, Result, StagedTree};
use hako_disk::CreateRequest;
use hako_formats::OpenOptions;
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{DiskMedium, Node};
use hako_formats::vmx::Vmx;

use super::ClonedDisk;
use crate::Vm;
use crate::overlay::overlay_on;

/// Makes the overlays of a clone.
pub(super) struct Overlays<'a> {
    pub(super) vm: &'a Vm,
    /// The clone's name.
    pub(super) name: &'a str,
    pub(super) tree: &'a StagedTree,
}

impl Overlays<'_> {
    /// Puts an empty overlay on each of the disks, and names it in the clone's text.
    pub(super) fn make(
        &self,
        vmx: &mut Vmx,
        disks: &[(Node, DiskMedium)],
    ) -> Result<Vec<ClonedDisk>> {
        let mut made = Vec::new();
        for (number, (node, disk)) in disks.iter().enumerate() {
            let overlay = self
                .put_on(*node, disk, number)
                .map_err(|error| error.place(format!("disk {node}")))?;
            vmx.set_drive_file(*node, &overlay.disk.file)?;
            let key = format!("hako.{node}.format");
            match overlay.format {
                "vmdk" => drop(vmx.remove(&key)?),
                format => vmx.set(&key, format)?,
            }
            made.push(overlay.disk);
        }
        Ok(made)
    }

    fn put_on(&self, node: Node, disk: &DiskMedium, number: usize) -> Result<Overlay> {
        let mut options = OpenOptions {
            rules: self.vm.rules(false),
            ..OpenOptions::default()
        };
        let opened = self.vm.open_disk(disk, &options)?;
        let parent = &opened.layers[0];
        let shape = overlay_on(parent)?;
        let from = parent.format.name();
        let parent = PathBuf::from(parent.args.storage.name());
        drop(opened);
        options
            .rules
            .allow_paths
            .push(self.vm.folder().to_path_buf());
        let extension = shape.format.extensions().first().unwrap_or(&"img");
        let file = match number {
            0 => format!("{}.{extension}", self.name),
            number => format!("{}_{number}.{extension}", self.name),
        };
        let format = shape.format.name();
        let request = CreateRequest {
            path: self.tree.path().join(&file),
            to: shape.format,
            virtual_size: None,
            create: shape.create,
            parent: Some(parent.clone()),
            parent_from: Some(from.to_owned()),
            rules: options.rules,
            force: false,
        };
        let report = hako_disk::create(request, &NoProgress, &Cancel::default())?;
        Ok(Overlay {
            disk: ClonedDisk {
                node,
                file,
                virtual_size: report.virtual_size,
                data_bytes: 0,
                parent: Some(parent),
            },
            format,
        })
    }
}

struct Overlay {
    disk: ClonedDisk,
    format: &'static str,
}

/// Returns the list of snapshots of a clone: none, but VMware's products read there what the clone
/// stands on, and leave that alone when they delete the clone.
pub(super) fn list_of_clone(of: &Path, disks: &[ClonedDisk]) -> Result<Vec<u8>> {
    let mut list = Dictionary::new();
    list.set("cloneOf0", &of.to_string_lossy())?;
    list.set("numCloneOf", "1")?;
    for (number, disk) in disks.iter().enumerate() {
        list.set(&format!("sentinel{number}"), &disk.file)?;
    }
    list.set("numSentinels", &disks.len().to_string())?;
    Ok(list.to_bytes())
}
