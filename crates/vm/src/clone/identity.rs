//! What tells a clone from the machine that it is made of: UUIDs, addresses, names of files; and
//! what of the text is about that machine alone.

use std::collections::BTreeSet;
use std::path::Path;

use hako_block::identity::random_u64;
use hako_block::{Result, Uuid};
use hako_formats::machine::{Mac, Medium};
use hako_formats::vmx::{Encryption, Vmx};

use crate::references::references;
use crate::{Home, Inventory, Vm};

/// Keys about the one machine: where it is and was, its suspended state, its files at run time,
/// which products make anew. Without `uuid.location` they keep `uuid.bios` and do not ask whether
/// the machine was moved.
const OWN_KEYS: [&str; 14] = [
    "uuid.location",
    "extendedConfigFile",
    "checkpoint.vmState",
    "checkpoint.vmState.readOnly",
    "vmxstats.filename",
    "sched.swap.derivedName",
    "workingDir",
    "snapshot.redoNotWithParent",
    "fileSearchPath",
    "migrate.hostlog",
    "migrate.hostLog",
    "vmotion.checkpointFBSize",
    "vmotion.checkpointSVGAPrimarySize",
    "log.fileName",
];

/// The identity of a clone.
pub(super) struct Identity<'a> {
    pub(super) home: &'a Home,
    pub(super) name: &'a str,
}

impl Identity<'_> {
    /// Gives it to a text; returns what the user should know.
    pub(super) fn give(&self, vmx: &mut Vmx) -> Result<Vec<String>> {
        vmx.set_bios_uuid(Uuid::random())?;
        let has = |vmx: &Vmx, key: &str| vmx.dictionary().value(key).is_some();
        if has(vmx, "vc.uuid") {
            vmx.set_vcenter_uuid(Uuid::random())?;
        }
        // What a guest knows by that it was copied: a number of 64 bits, signed.
        for key in ["vm.genid", "vm.genidX"] {
            if has(vmx, key) {
                vmx.set(key, &random_u64().cast_signed().to_string())?;
            }
        }
        if has(vmx, "nvram") {
            vmx.set("nvram", &format!("{}.nvram", self.name))?;
        }
        for key in OWN_KEYS {
            vmx.remove(key)?;
        }
        let mut told = self.give_addresses(vmx)?;
        if vmx.encryption() == Encryption::Partial {
            told.push("the clone has the same virtual TPM, with all its secrets".to_owned());
        }
        Ok(told)
    }

    /// Takes out the addresses that products made, for they make others; those that somebody
    /// chose are replaced.
    fn give_addresses(&self, vmx: &mut Vmx) -> Result<Vec<String>> {
        let mut told = Vec::new();
        let chosen = vmx.machine().nics.into_iter();
        let chosen: Vec<_> = chosen.filter(|nic| nic.mac_is_static).collect();
        let mut taken = match chosen.is_empty() {
            true => BTreeSet::new(),
            false => addresses(self.home)?,
        };
        for nic in chosen {
            let Some(old) = nic.mac else { continue };
            let new = another(old, &taken);
            taken.insert(new.0);
            let name = format!("ethernet{}", nic.number);
            vmx.set(&format!("{name}.address"), &new.to_string())?;
            told.push(format!(
                "{name}: its address was chosen ({old}); the clone's is {new}"
            ));
        }
        for key in made_addresses(vmx) {
            vmx.remove(&key)?;
        }
        Ok(told)
    }
}

/// Returns the keys of addresses that products made.
fn made_addresses(vmx: &Vmx) -> Vec<String> {
    let keys = vmx.dictionary().entries().map(|(key, _)| key.to_owned());
    let is_made = |key: &String| {
        let key = key.to_ascii_lowercase();
        key.starts_with("ethernet")
            && (key.ends_with(".generatedaddress") || key.ends_with(".generatedaddressoffset"))
    };
    keys.filter(is_made).collect()
}

/// Returns the addresses of all machines of the inventory.
fn addresses(home: &Home) -> Result<BTreeSet<[u8; 6]>> {
    let entries = Inventory::read(home)?.entries.into_iter();
    let machines = entries.filter_map(|entry| Vm::at(&entry.current(), &entry.allow).ok());
    let nics = machines.flat_map(|vm| vm.vmx.machine().nics);
    Ok(nics.filter_map(|nic| nic.mac).map(|mac| mac.0).collect())
}

/// Returns an address that nobody has, of the maker of `old`, and in VMware's range for chosen
/// ones if that is.
fn another(old: Mac, taken: &BTreeSet<[u8; 6]>) -> Mac {
    loop {
        let [a, b, c, ..] = old.0;
        let [mut d, e, f, ..] = random_u64().to_le_bytes();
        if old.is_vmware_static() {
            d &= 0x3f;
        }
        let new = Mac([a, b, c, d, e, f]);
        if new != old && !taken.contains(&new.0) {
            return new;
        }
    }
}

/// Turns what still names files of the machine `of`: CD images stay where they are, what has an
/// absolute path into its folder becomes the clone's, whose files are in `folder`. Returns what
/// the user should know.
pub(super) fn settle(vmx: &mut Vmx, of: &Vm, folder: &Path) -> Result<Vec<String>> {
    for drive in vmx.machine().drives {
        let Medium::CdImage { file } = drive.medium else {
            continue;
        };
        let path = of.folder().join(&file);
        let is_shared = !folder.join(&file).exists() && !path.starts_with(of.folder());
        if let Some(path) = path.to_str().filter(|path| is_shared && *path != file) {
            vmx.set_drive_file(drive.node, path)?;
        }
    }
    for (key, value) in references(vmx.dictionary(), of.folder(), &|_| None) {
        vmx.set(&key, &value)?;
    }
    let left = vmx.dictionary().entries().filter(|(key, value)| {
        key.to_ascii_lowercase().ends_with(".filename")
            && of.own_file(value).is_some()
            && !folder.join(value).exists()
    });
    let told = left.map(|(key, value)| format!("{key}: {value} is not taken along"));
    Ok(told.collect())
}
