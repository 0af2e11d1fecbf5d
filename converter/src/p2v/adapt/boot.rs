//! What the kernel is started with: its command line, and where its files are.

use hako_guest::Found;
use hako_guest::tree::shown;

use super::devices::{Device, by_partition, resolve};
use super::words::with_values;
use super::{Guest, Plan};

/// Texts with command lines of kernels.
const COMMAND_LINES: &[&str] = &[
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/extlinux/extlinux.conf",
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
];
/// And folders of such.
const FOLDERS: &[&str] = &["/etc/default/grub.d", "/boot/loader/entries"];
const ENDINGS: &[&str] = &[".cfg", ".conf"];

/// Environments of GRUB: so many bytes, the last of them `#`.
const ENVIRONMENTS: &[&str] = &["/boot/grub/grubenv", "/boot/grub2/grubenv"];
const ENVIRONMENT_BYTES: usize = 1024;

/// Returns the texts with command lines that the guest has.
pub(super) fn command_lines(guest: &Guest<'_>) -> Vec<String> {
    let mut paths: Vec<String> = COMMAND_LINES
        .iter()
        .map(|path| (*path).to_owned())
        .collect();
    for folder in FOLDERS {
        for ending in ENDINGS {
            paths.extend(guest.files_in(folder, ending));
        }
    }
    paths.retain(|path| guest.text(path).is_some());
    paths
}

/// Adds changes of what names the root and the device to resume from.
pub(super) fn add_command_lines(guest: &Guest<'_>, plan: &mut Plan) {
    let has_initrd = guest
        .menu
        .default_entry()
        .is_none_or(|entry| !entry.initrds.is_empty());
    for path in command_lines(guest) {
        let Some(old) = guest.text(&path) else {
            continue;
        };
        let mut why = Vec::new();
        let new = renamed(guest, &mut plan.remarks, &path, &old, has_initrd, &mut why);
        plan.replace(&path, &old, new, why);
    }
    for path in ENVIRONMENTS {
        let Some(old) = guest
            .text(path)
            .filter(|text| text.len() == ENVIRONMENT_BYTES)
        else {
            continue;
        };
        let mut why = Vec::new();
        let text = old.trim_end_matches('#');
        let mut new = renamed(guest, &mut plan.remarks, path, text, has_initrd, &mut why);
        if new.len() > ENVIRONMENT_BYTES {
            plan.remarks
                .push(format!("{path}: there is no room for longer names"));
            continue;
        }
        new.extend(std::iter::repeat_n('#', ENVIRONMENT_BYTES - new.len()));
        plan.replace(path, &old, new, why);
    }
}

/// Returns a text in which the root and the device to resume from are called by what they are.
pub(super) fn renamed(
    guest: &Guest<'_>,
    remarks: &mut Vec<String>,
    path: &str,
    old: &str,
    has_initrd: bool,
    why: &mut Vec<String>,
) -> String {
    let mut text = old.to_owned();
    for key in ["root=", "resume="] {
        text = with_values(&text, key, |value| {
            match resolve(guest.volumes, value, "") {
                Device::By(name) => {
                    // Without an initrd the kernel itself knows partitions only.
                    let own = match has_initrd {
                        true => Some(name),
                        false => by_partition(guest.volumes, value),
                    };
                    match &own {
                        Some(name) => {
                            let reason = format!("{key}{value} is {name}");
                            if !why.contains(&reason) {
                                why.push(reason);
                            }
                        }
                        None => {
                            let what = format!("{path}: {key}{value} stays: there is no initrd");
                            remarks.push(what);
                        }
                    }
                    own
                }
                Device::Missing | Device::Unclear(_) => {
                    remarks.push(format!("{path}: {key}{value} is on none of the disks"));
                    None
                }
                Device::Stays => None,
            }
        });
    }
    text
}

/// Returns the guest's path of a file that a boot loader calls `VOLUME:PATH`: that in one of the
/// mounted file systems that leads to it.
pub(super) fn path_of(guest: &Guest<'_>, file: &Found, named: &str) -> Option<String> {
    let (_, inner) = named.split_once(":/")?;
    let inner = inner.trim_start_matches('/');
    let is_it = |path: &String| {
        guest.tree().find(path.as_bytes()).is_ok_and(|found| {
            std::sync::Arc::ptr_eq(found.fs(), file.fs()) && found.node() == file.node()
        })
    };
    let mut paths = guest.root.mounts.iter().map(|mount| {
        let top = mount.path.trim_end_matches('/');
        // A path in a subvolume begins with the name of that.
        let inner = mount
            .subvolume
            .as_deref()
            .and_then(|name| inner.strip_prefix(name.trim_matches('/')))
            .map_or(inner, |rest| rest.trim_start_matches('/'));
        format!("{top}/{inner}")
    });
    paths
        .find(is_it)
        .filter(|path| !shown(path.as_bytes()).is_empty())
}
