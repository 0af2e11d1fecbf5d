//! A machine as a folder for other products.

use std::path::Path;

use hako_block::gate::replace_file;
use hako_block::{Result, StagedTree};
use hako_formats::machine::{DiskMedium, Machine, Medium};
use hako_formats::{CreateOptions, format_named, libvirt};
use hako_pipeline::CopyOptions;

use super::{ExportReport, ExportedDisk, Product};
use crate::Vm;
use crate::copy::Manner;
use crate::import::{ImportedDisk, Incoming, NewFile, UsedBy, write_files};
use crate::vm::absolute;

/// Writes a folder with a .vmx.
pub(super) fn to_vmx(
    vm: &Vm,
    incoming: Incoming,
    folder: &Path,
    product: Product,
    verify: bool,
    copy: CopyOptions<'_>,
) -> Result<ExportReport> {
    let tree = StagedTree::new(folder)?;
    let subformat = match product {
        Product::Workstation => "monolithicSparse",
        Product::Esxi => "vmfs",
    };
    let create = CreateOptions {
        subformat: Some(subformat.to_owned()),
        ..CreateOptions::default()
    };
    let manner = Manner {
        format: format_named("vmdk")?,
        create: &create,
        verify,
        copy,
    };
    let stem = vm.stem();
    let disks =
        write_files(incoming, &stem, &tree, &manner)?.write_text(&vm.name(), &stem, &tree)?;
    finish(tree, disks, verify, Vec::new(), copy)
}

/// Writes a folder with a domain's XML.
pub(super) fn to_libvirt(
    vm: &Vm,
    mut incoming: Incoming,
    folder: &Path,
    verify: bool,
    copy: CopyOptions<'_>,
) -> Result<ExportReport> {
    let tree = StagedTree::new(folder)?;
    let create = CreateOptions::default();
    let manner = Manner {
        format: format_named("qcow2")?,
        create: &create,
        verify,
        copy,
    };
    // VMware's NVRAM and team files mean nothing to QEMU.
    let is_of_drive = |file: &NewFile| matches!(file.used_by, UsedBy::Drive(_));
    incoming.files.retain(is_of_drive);
    let stem = vm.stem();
    let written = write_files(incoming, &stem, &tree, &manner)?;
    let mut machine = written.machine(&vm.name());
    absolute_files(&mut machine, &absolute(folder)?);
    let (xml, warnings) = libvirt::domain(&machine)?;
    replace_file(&tree.path().join(format!("{stem}.xml")), xml.as_bytes())?;
    finish(tree, written.disks, verify, warnings, copy)
}

/// Libvirt wants its drives' files from the root on.
fn absolute_files(machine: &mut Machine, folder: &Path) {
    for drive in &mut machine.drives {
        if let Medium::Disk(DiskMedium { file, .. }) | Medium::CdImage { file } = &mut drive.medium
        {
            *file = folder.join(&*file).to_string_lossy().into_owned();
        }
    }
}

fn finish(
    tree: StagedTree,
    disks: Vec<ImportedDisk>,
    verified: bool,
    warnings: Vec<String>,
    copy: CopyOptions<'_>,
) -> Result<ExportReport> {
    copy.cancel.check()?;
    let cleared = tree.cleared().to_vec();
    tree.commit()?;
    let disks = disks.into_iter().map(|disk| ExportedDisk {
        node: disk.node,
        file: disk.file,
        virtual_size: disk.virtual_size,
        data_bytes: disk.data_bytes,
        sha256: None,
    });
    Ok(ExportReport {
        disks: disks.collect(),
        verified,
        cleared,
        warnings,
    })
}
