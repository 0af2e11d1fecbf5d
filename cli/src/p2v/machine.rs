//! What a plan makes of a server's disks: which of them is which, and the machine they end up in.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hako_block::{Error, Result};
use hako_converter::p2v::plan::model::{Action, Disk, Nic, Plan};
use hako_formats::OpenOptions;
use hako_formats::machine::{Bus, Cpu, Firmware, Node};
use hako_vm::{CreateRequest, DiskContent, ImageFile, NewDisk, NewNic};

use super::identity::Identity;
use crate::size;
use crate::vm::specs::network;

/// A disk that the user named: by the name that the plan has for it, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedDisk {
    name: Option<String>,
    path: PathBuf,
}

impl NamedDisk {
    /// Reads `NAME=PATH` or `PATH`. What is there under the whole text is a path.
    pub fn of(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        let sign = bytes.iter().position(|byte| *byte == b'=');
        let split = sign.filter(|_| Path::new(text).symlink_metadata().is_err());
        let name = split.and_then(|at| std::str::from_utf8(bytes.get(..at)?).ok());
        let path = split.and_then(|at| bytes.get(at + 1..));
        match name.zip(path) {
            Some((name, path)) => Self {
                name: Some(name.to_owned()),
                path: PathBuf::from(OsString::from_vec(path.to_vec())),
            },
            None => Self {
                name: None,
                path: PathBuf::from(text),
            },
        }
    }
}

/// Refuses a plan that cannot be carried out by copying disks as they are.
pub fn refuse_undoable(plan: &Plan) -> Result<()> {
    if let Some(blocker) = plan.blockers().first() {
        let what = format!(
            "blocker {}: {}; {}",
            blocker.code, blocker.what, blocker.advice
        );
        let hint = "see to it, or set accepted = true where the plan tells of it";
        return Err(Error::invalid(what).hint(hint));
    }
    if let Some(disk) = kept(plan).find(|disk| disk.bytes != disk.as_is_bytes) {
        let (from, to) = (disk.as_is_bytes, disk.bytes);
        let what = format!(
            "disk {}: {from} bytes are to become {to}: a copy keeps its length",
            disk.source
        );
        let hint = "set bytes to as_is_bytes; `hako disk resize` changes the copy";
        return Err(Error::unsupported(what).hint(hint));
    }
    match plan.swaps.iter().find(|swap| swap.copy_content) {
        None => Ok(()),
        Some(swap) => {
            let what = format!("swap {}: what was swapped out is not copied", swap.source);
            Err(Error::unsupported(what).hint("set copy_content to false"))
        }
    }
}

fn kept(plan: &Plan) -> impl Iterator<Item = &Disk> {
    plan.disks.iter().filter(|disk| disk.action == Action::Keep)
}

/// Returns the disks that the plan keeps, in its order, each with where it is. Errors: invalid, wherever
/// it is not beyond doubt which is which.
pub fn matched<'a>(
    plan: &'a Plan,
    given: &[NamedDisk],
    open: &OpenOptions,
) -> Result<Vec<(&'a Disk, PathBuf)>> {
    let all: Vec<&Disk> = kept(plan).collect();
    let mut found: Vec<(&Disk, PathBuf)> = Vec::new();
    let paths: Vec<&Path> = given.iter().map(|one| one.path.as_path()).collect();
    for (one, identity) in given.iter().zip(Identity::of_each(&paths, open)?) {
        let named = |error: Error| error.in_file(&one.path);
        let disk = which(plan, &all, one, given.len(), &identity).map_err(named)?;
        refuse_other(disk, &identity).map_err(named)?;
        if found.iter().any(|(known, _)| known.source == disk.source) {
            let what = format!("disk {} is there already", disk.source);
            return Err(Error::invalid(what).in_file(&one.path));
        }
        found.push((disk, one.path.clone()));
    }
    if let Some(missing) = all
        .iter()
        .find(|disk| !found.iter().any(|(known, _)| known.source == disk.source))
    {
        let name = &missing.source;
        let what = format!(
            "the plan keeps disk {name} ({}), and nobody said where it is",
            missing.about
        );
        return Err(
            Error::invalid(what).hint(format!("add {name}=PATH, or set its action to \"drop\""))
        );
    }
    found.sort_by_key(|(disk, _)| all.iter().position(|known| known.source == disk.source));
    Ok(found)
}

/// Returns which disk of the plan is meant: the one that is said; else the one that it says to be; else
/// the one of its name.
fn which<'a>(
    plan: &Plan,
    all: &[&'a Disk],
    one: &NamedDisk,
    n_given: usize,
    identity: &Identity,
) -> Result<&'a Disk> {
    let named = |name: &str| all.iter().copied().find(|disk| disk.source == name);
    if let Some(name) = &one.name {
        return named(name).ok_or_else(|| {
            let is_dropped = plan.disks.iter().any(|disk| disk.source == *name);
            Error::invalid(match is_dropped {
                true => format!("the plan drops disk {name}"),
                false => format!("the plan has no disk {name}; it keeps {}", names(all)),
            })
        });
    }
    let mut same = all.iter().filter(|disk| identity.is(disk) == Some(true));
    if let (Some(disk), None) = (same.next(), same.next()) {
        return Ok(disk);
    }
    // A device of the server itself has the name that its inventory gave it.
    let device = one.path.strip_prefix("/dev").ok().and_then(Path::to_str);
    match (device.and_then(named), all) {
        (Some(disk), _) => Ok(disk),
        (None, [only]) if n_given == 1 => Ok(*only),
        _ => Err(
            Error::invalid(format!("which of the plan's disks is it: {}", names(all)))
                .hint(format!("say NAME={}", one.path.display())),
        ),
    }
}

fn names(disks: &[&Disk]) -> String {
    let names = disks
        .iter()
        .map(|disk| format!("{} ({})", disk.source, disk.about));
    names.collect::<Vec<_>>().join("; ")
}

/// Refuses a disk that is not as long as the plan has it, or says that it is another one.
fn refuse_other(disk: &Disk, identity: &Identity) -> Result<()> {
    let virtual_size = identity.virtual_size;
    if virtual_size != disk.as_is_bytes {
        let [here, there] = [virtual_size, disk.as_is_bytes].map(size::human);
        return Err(Error::invalid(format!(
            "it has {virtual_size} bytes ({here}), disk {} of the plan {} ({there}): another disk",
            disk.source, disk.as_is_bytes
        )));
    }
    if identity.is(disk) == Some(false) {
        let what = format!(
            "it is {}, disk {} of the plan {}: another disk",
            identity.shown(),
            disk.source,
            Identity::of_planned(disk).shown()
        );
        let hint = "if it is that one all the same, take these lines out of the plan";
        return Err(Error::invalid(what).hint(hint));
    }
    Ok(())
}

/// Returns the machine of a plan with these images, one for each disk that it keeps.
pub fn request(
    plan: &Plan,
    name: String,
    folder: Option<PathBuf>,
    images: &[(&Disk, PathBuf)],
) -> Result<CreateRequest> {
    let mut keys = Vec::new();
    let is_efi = plan.machine.firmware == "efi";
    if is_efi && plan.machine.secure_boot {
        keys.push(("uefi.secureBoot.enabled".to_owned(), "TRUE".to_owned()));
    }
    let disks = images
        .iter()
        .map(|(disk, image)| new_disk(disk, image, &mut keys));
    let disks = disks.collect::<Result<_>>()?;
    let nics = plan.nics.iter().filter(|nic| nic.action == Action::Keep);
    let nics = nics
        .zip(0_u8..)
        .map(|(nic, number)| new_nic(nic, number, &mut keys));
    let nics = nics.collect::<Result<_>>()?;
    Ok(CreateRequest {
        name,
        folder,
        cpu: Some(Cpu {
            count: plan.cpu.count,
            cores_per_socket: plan.cpu.cores_per_socket,
        }),
        memory_bytes: plan.memory.mib.checked_mul(1 << 20),
        guest_os: Some(plan.machine.guest_os.clone()),
        firmware: Some(if is_efi {
            Firmware::Efi
        } else {
            Firmware::Bios
        }),
        annotation: format!("{}, {}", plan.source.host, plan.source.model),
        disks,
        nics: Some(nics),
        keys,
        ..CreateRequest::default()
    })
}

fn new_disk(disk: &Disk, image: &Path, keys: &mut Vec<(String, String)>) -> Result<NewDisk> {
    let node: Node = disk.node.parse()?;
    let content = DiskContent::InPlace(ImageFile {
        path: image.to_path_buf(),
        from: None,
    });
    // VMware knows no virtio: what QEMU is to take instead is a key of our own.
    let is_virtio = disk.controller.starts_with("virtio-");
    if is_virtio {
        let key = format!("hako.scsi{}.virtualDev", node.controller);
        keys.push((key, disk.controller.clone()));
    }
    Ok(NewDisk {
        node: Some(node),
        controller: (node.bus == Bus::Scsi && !is_virtio).then(|| disk.controller.clone()),
        ..NewDisk::new(content)
    })
}

fn new_nic(nic: &Nic, number: u8, keys: &mut Vec<(String, String)>) -> Result<NewNic> {
    let is_virtio = nic.model.starts_with("virtio-");
    if is_virtio {
        let key = format!("hako.ethernet{number}.virtualDev");
        keys.push((key, nic.model.clone()));
    }
    Ok(NewNic {
        network: network(&nic.network),
        model: (!is_virtio).then(|| nic.model.clone()),
        mac: match nic.mac.as_str() {
            "" => None,
            mac => Some(mac.parse()?),
        },
    })
}
