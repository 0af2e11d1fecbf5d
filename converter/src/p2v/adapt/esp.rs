//! The loader that firmware starts when it remembers nothing: `\EFI\BOOT\BOOTX64.EFI`. What a server's
//! firmware remembered stays behind with the server.
//!
//! It is a copy of the system's own loader: shim and beside it GRUB and MOK's manager. `fbx64.efi` is
//! left out: with it shim would want to write the firmware's list anew and start over. A GRUB that
//! was signed looks for its text where it was built to (`/EFI/debian`, `/EFI/ubuntu`), wherever it is.

use hako_block::Result;
use hako_guest::partitions::PartitionKind;
use hako_guest::{FoundVolume, NodeKind, Tree};

use super::{Guest, Plan, What};

/// The type of an EFI system partition, in a GPT and in an MBR.
const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const ESP_MBR: u8 = 0xef;
const LOADER_BYTES: usize = 32 << 20;

/// What is copied beside shim.
const BESIDE_SHIM: &[&str] = &["grubx64.efi", "mmx64.efi"];

/// Adds the loader to every EFI system partition that has none.
pub(super) fn add(guest: &Guest<'_>, plan: &mut Plan) -> Result<()> {
    for volume in guest.volumes.list() {
        let is_esp = volume.partition().is_some_and(|part| match part.kind {
            PartitionKind::Gpt(kind) => kind.to_string() == ESP,
            PartitionKind::Mbr(kind) => kind == ESP_MBR,
        });
        let is_mounted = guest
            .root
            .mounts
            .iter()
            .any(|mount| mount.volume == volume.name && mount.path.starts_with("/boot/efi"));
        if let Some(fs) = volume.file_system()
            && volume.content.kind == "vfat"
            && (is_esp || is_mounted)
        {
            add_to(guest, volume, &Tree::new(fs.clone()), plan)?;
        }
    }
    Ok(())
}

fn add_to(guest: &Guest<'_>, volume: &FoundVolume, tree: &Tree, plan: &mut Plan) -> Result<()> {
    if tree.look_for(b"/EFI/BOOT/BOOTX64.EFI")?.is_some() {
        return Ok(());
    }
    let Some((folder, loader)) = own_loader(guest, tree)? else {
        if tree.look_for(b"/EFI")?.is_some() {
            plan.remarks.push(format!(
                "{}: no boot loader was found that \\EFI\\BOOT\\BOOTX64.EFI could be a copy of",
                volume.name
            ));
        }
        return Ok(());
    };
    let top = name_of(guest, volume);
    if !top.starts_with('/') && guest.volumes.find(top.trim_end_matches(':')).len() != 1 {
        let what = "is there more than once: none of them gets a loader for new firmware";
        plan.remarks.push(format!("{top} {what}"));
        return Ok(());
    }
    if tree.look_for(b"/EFI/BOOT")?.is_none() {
        let why = "firmware looks there when it remembers nothing";
        plan.add(format!("{top}/EFI/BOOT"), What::Folder { mode: 0o755 }, why);
    }
    let mut copies = vec![(loader, "BOOTX64.EFI")];
    if loader.starts_with("shim") {
        copies.extend(BESIDE_SHIM.iter().map(|name| (*name, *name)));
    }
    for (from, to) in copies {
        let from = format!("{folder}/{from}");
        if tree
            .look_for(format!("/EFI/BOOT/{to}").as_bytes())?
            .is_some()
        {
            continue;
        }
        if tree.look_for(from.as_bytes())?.is_some() {
            let bytes = tree.read(from.as_bytes(), LOADER_BYTES)?;
            let why = format!("a copy of {from}: the firmware of a new machine knows no other");
            let what = What::Create { bytes, mode: 0o644 };
            plan.add(format!("{top}/EFI/BOOT/{to}"), what, &why);
        }
    }
    Ok(())
}

/// Returns how the file system is called in paths: where it is mounted, else its UUID.
fn name_of(guest: &Guest<'_>, volume: &FoundVolume) -> String {
    let mut mounts = guest.root.mounts.iter();
    match mounts.find(|mount| mount.volume == volume.name) {
        Some(mount) => mount.path.trim_end_matches('/').to_owned(),
        None => format!("UUID={}:", volume.content.uuid),
    }
}

/// Returns the folder of the system's own loader, and its name: of several that of the system that is
/// installed.
fn own_loader(guest: &Guest<'_>, tree: &Tree) -> Result<Option<(String, &'static str)>> {
    const MOST_FOLDERS: usize = 1000;
    const LOADERS: &[&str] = &["shimx64.efi", "grubx64.efi", "systemd-bootx64.efi"];
    if tree.look_for(b"/EFI")?.is_none() {
        return Ok(None);
    }
    let id = hako_guest::os::Os::of(guest.tree()).id;
    let mut names: Vec<String> = Vec::new();
    for entry in tree.entries(b"/EFI", MOST_FOLDERS)? {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let path = format!("/EFI/{name}");
        let is_folder = tree.stat(path.as_bytes())?.kind == NodeKind::Directory;
        if is_folder && !name.eq_ignore_ascii_case("BOOT") {
            names.push(name);
        }
    }
    // That of the system first; RHEL and what is built from it call theirs by other names.
    let rank = |name: &str| match name.to_ascii_lowercase() {
        own if own == id
            || (id == "rhel" && own == "redhat")
            || (id == "ol" && own == "redhat") =>
        {
            0
        }
        own if own == "microsoft" => 2,
        _ => 1,
    };
    names.sort_by_key(|name| (rank(name), name.clone()));
    for name in names.iter().filter(|name| rank(name) < 2) {
        for loader in LOADERS {
            let path = format!("/EFI/{name}/{loader}");
            if tree.look_for(path.as_bytes())?.is_some() {
                return Ok(Some((format!("/EFI/{name}"), loader)));
            }
        }
    }
    Ok(None)
}
