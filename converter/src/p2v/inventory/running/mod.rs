//! An inventory of the system that runs, out of `/proc`, `/sys` and its files: no program is started,
//! and nothing is changed. What only root may read is missing without it, and a remark says so.

mod block;
mod devices;
mod machine;
mod mounts;
mod netlink;
mod nics;
mod paths;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use hako_guest::Tree;

use super::host::HostFs;
use super::model::{Boot, Inventory, Kernel, SCHEMA, Source};
use super::network::Known;
use super::system::{text, word};
use super::{findings, firmware, network, services, system};

/// Takes the inventory of the system below `root`: `/`, or a copy of its `/proc`, `/sys`, `/dev`,
/// `/etc` … `deep`: drivers of all kernels, not only the one that runs. What cannot be read is a remark.
pub fn of_running(root: &Path, deep: bool, now: u64) -> Inventory {
    let tree = Tree::new(Arc::new(HostFs::below(root)));
    let mut inventory = Inventory {
        schema: SCHEMA,
        hako: env!("CARGO_PKG_VERSION").to_owned(),
        taken: now,
        source: Source::Running,
        machine: machine::machine(&tree),
        cpu: machine::cpu(&tree),
        memory: machine::memory(&tree),
        firmware: firmware::running(&tree),
        ..Inventory::default()
    };
    let found = block::find(&tree, root);
    inventory.disks = found.disks;
    inventory.volumes = found.volumes;
    inventory.remarks.extend(found.remarks);
    mounts::add(&mut inventory, &tree, &found.numbers, root);
    let (os, hostname, kernels) = system::os(&tree);
    inventory.hostname = match word(&tree, "/proc/sys/kernel/hostname") {
        name if name.is_empty() => hostname,
        name => name,
    };
    inventory.os = os;
    if let Some(mode) = selinux(&tree) {
        inventory.os.selinux = mode.to_owned();
    }
    if inventory.cpu.architecture.is_empty() {
        inventory
            .cpu
            .architecture
            .clone_from(&inventory.os.architecture);
    }
    inventory.boot = boot(&tree, &kernels, deep);
    nics::add(&mut inventory, &tree, root);
    let known = match root == Path::new("/") {
        true => Known::All,
        false => Known::Cards,
    };
    if known == Known::Cards && !inventory.nics.is_empty() {
        let what = "addresses of network cards are those that files tell: no kernel can be asked";
        inventory.remarks.push(what.to_owned());
    }
    network::add(&mut inventory, &tree, known);
    inventory.services = services::running(&tree);
    inventory.findings = devices::left_behind(&tree);
    findings::add(&mut inventory);
    inventory
}

/// Returns what SELinux does now; none if it is not there.
fn selinux(tree: &Tree) -> Option<&'static str> {
    match word(tree, "/sys/fs/selinux/enforce").as_str() {
        "1" => Some("enforcing"),
        "0" => Some("permissive"),
        _ => None,
    }
}

fn boot(tree: &Tree, kernels: &[hako_guest::os::Kernel], deep: bool) -> Boot {
    let version = word(tree, "/proc/sys/kernel/osrelease");
    let kernels = kernels.iter().map(|kernel| {
        let is_default = kernel.version == version;
        Kernel {
            is_default,
            ..system::kernel(tree, kernel, is_default || deep)
        }
    });
    Boot {
        loader: loader(tree).to_owned(),
        command_line: text(tree, "/proc/cmdline").trim().to_owned(),
        initrd_tool: system::initrd_tool(tree).to_owned(),
        kernels: kernels.collect(),
        kernel: version,
    }
}

/// Returns the boot loader whose configuration is there.
fn loader(tree: &Tree) -> &'static str {
    const LOADERS: &[(&str, &str)] = &[
        ("/boot/grub/grub.cfg", "grub"),
        ("/boot/grub2/grub.cfg", "grub"),
        ("/boot/efi/loader/loader.conf", "systemd-boot"),
        ("/efi/loader/loader.conf", "systemd-boot"),
        ("/boot/loader/loader.conf", "systemd-boot"),
        ("/boot/extlinux/extlinux.conf", "extlinux"),
        ("/boot/extlinux.conf", "extlinux"),
    ];
    let mut loaders = LOADERS.iter();
    let found = loaders.find(|(path, _)| tree.find(path.as_bytes()).is_ok());
    found.map_or("", |(_, name)| name)
}
