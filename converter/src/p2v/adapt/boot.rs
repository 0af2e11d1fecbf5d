//! What the kernel is started with: its command line, and where its files are.

use hako_guest::Found;
use hako_guest::boot::{Entry, Loader};
use hako_guest::tree::shown;

use super::devices::{Device, Names, is_by_place};
use super::lossless::encoded;
use super::words::with_values;
use super::{Guest, Plan};

/// Texts with command lines of kernels beside those that the menu's entries are from: what entries are
/// made from, what they take variables from, and what the reader of menus does not know.
const COMMAND_LINES: &[&str] = &[
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/etc/update-extlinux.conf",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
];
/// And folders of such.
const FOLDERS: &[&str] = &["/etc/default/grub.d", "/boot/loader/entries"];
const ENDINGS: &[&str] = &[".cfg", ".conf"];

/// Environments of GRUB: so many bytes, the last of them `#`.
const ENVIRONMENTS: &[&str] = &["/boot/grub/grubenv", "/boot/grub2/grubenv"];
const ENVIRONMENT_BYTES: usize = 1024;

/// What names devices for the initrd: the kernel's own `root=`, those of systemd, dracut (`boot=`),
/// Debian (`cryptopts=source=`), Arch, Alpine and Gentoo. All of them know `UUID=`.
const KEYS: &[&str] = &[
    "root=",
    "resume=",
    "mount.usr=",
    "boot=",
    "source=",
    "cryptdevice=",
    "cryptkey=",
    "cryptroot=",
    "crypt_root=",
    "real_root=",
    "real_resume=",
];
/// Those of whose values the device is only the first part: `cryptdevice=/dev/sda3:root`.
const IN_PARTS: &[&str] = &["cryptdevice=", "cryptkey="];

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
    let entries = guest.menu.entries.iter();
    paths.extend(entries.filter_map(|entry| path_of_source(guest, entry)));
    let mut seen = std::collections::BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()) && guest.text(path).is_some());
    paths
}

/// Adds changes of what names the root and the device to resume from.
pub(super) fn add_command_lines(guest: &Guest<'_>, names: &Names<'_>, plan: &mut Plan) {
    let has_initrd = guest
        .menu
        .default_entry()
        .is_none_or(|entry| !entry.initrds.is_empty());
    for path in command_lines(guest) {
        let Some(old) = guest.text(&path) else {
            continue;
        };
        let mut why = Vec::new();
        let new = renamed(names, &mut plan.remarks, &path, &old, has_initrd, &mut why);
        plan.replace(&path, &old, new, why);
    }
    for path in ENVIRONMENTS {
        let Some(old) = guest
            .text(path)
            .filter(|text| encoded(text).len() == ENVIRONMENT_BYTES)
        else {
            continue;
        };
        let mut why = Vec::new();
        let text = old.trim_end_matches('#');
        let mut new = renamed(names, &mut plan.remarks, path, text, has_initrd, &mut why);
        let len = encoded(&new).len();
        if len > ENVIRONMENT_BYTES {
            plan.remarks
                .push(format!("{path}: there is no room for longer names"));
            continue;
        }
        new.extend(std::iter::repeat_n('#', ENVIRONMENT_BYTES - len));
        plan.replace(path, &old, new, why);
    }
}

/// Returns where what a key names is mounted; empty if nobody can say.
fn target_of(key: &str) -> &'static str {
    match key {
        "root=" | "real_root=" => "/",
        "boot=" => "/boot",
        _ => "",
    }
}

/// Returns a text in which the root and the device to resume from are called by what they are.
pub(super) fn renamed(
    names: &Names<'_>,
    remarks: &mut Vec<String>,
    path: &str,
    old: &str,
    has_initrd: bool,
    why: &mut Vec<String>,
) -> String {
    let mut text = old.to_owned();
    for key in KEYS {
        let target = target_of(key);
        text = with_values(&text, key, |value| {
            let (device, more) = match value.split_once(':') {
                Some((device, _)) if IN_PARTS.contains(key) => value.split_at(device.len()),
                _ => (value, ""),
            };
            match names.resolve(device, "", target) {
                Device::By(name) => {
                    // Without an initrd the kernel itself knows partitions only.
                    let own = match has_initrd {
                        true => Some(name),
                        false => names.by_partition(device, target),
                    };
                    let own = own.map(|name| name + more);
                    match &own {
                        Some(name) => {
                            let reason = format!("{key}{value} is {name}");
                            if !why.contains(&reason) {
                                why.push(reason);
                            }
                        }
                        None => {
                            remarks.push(format!("{path}: {key}{value} stays: there is no initrd"));
                        }
                    }
                    own
                }
                Device::Missing => {
                    remarks.push(format!("{path}: {key}{value} is on none of the disks"));
                    None
                }
                Device::Unclear(what) => {
                    remarks.push(format!("{path}: {key}{value} stays: {what}"));
                    None
                }
                Device::Stays => None,
            }
        });
    }
    text
}

/// Adds a remark on every entry of the menu that still names a device as the kernel does, by its place:
/// what is in no text that is changed (a unified kernel image), or behind a key that nobody knows.
pub(super) fn add_remarks(guest: &Guest<'_>, plan: &mut Plan) {
    let texts = command_lines(guest);
    let mut remarks: Vec<String> = Vec::new();
    for entry in &guest.menu.entries {
        let path = path_of_source(guest, entry);
        for word in entry.options.split(is_between_words) {
            let is_told = path.as_ref().is_some_and(|path| {
                let begin = format!("{path}: {word} ");
                plan.remarks.iter().any(|remark| remark.starts_with(&begin))
            });
            if names_by_place(word) && !is_told && stays(guest, plan, &path, &texts, word) {
                remarks.push(format!(
                    "{}: {:?} starts with {word}, which may be another device on other hardware",
                    entry.source, entry.title
                ));
            }
        }
    }
    remarks.dedup();
    plan.remarks.extend(remarks);
}

fn is_between_words(c: char) -> bool {
    c.is_ascii_whitespace() || matches!(c, '"' | '\'')
}

/// Whether a word of a command line has a name in it that the kernel gives by place, or the number of
/// a device as LILO wrote it (`root=803`, `root=8:3`).
fn names_by_place(word: &str) -> bool {
    let mut names = word.split(['=', ',', ':']);
    let is_number = |value: &str| {
        let digits = value.strip_prefix("0x").unwrap_or(value);
        let mut digits = digits.bytes();
        digits.len() > 0 && digits.all(|byte| byte.is_ascii_hexdigit() || byte == b':')
    };
    names.any(is_by_place) || word.strip_prefix("root=").is_some_and(is_number)
}

/// Whether a word stays on the command line of an entry: in the text at `path`, which it is from; if
/// it is not there, in those that entries take variables from.
fn stays(
    guest: &Guest<'_>,
    plan: &Plan,
    path: &Option<String>,
    texts: &[String],
    word: &str,
) -> bool {
    let has = |text: Option<String>| {
        text.is_some_and(|text| text.split(is_between_words).any(|one| one == word))
    };
    let had = |path: &str| has(guest.text(path));
    let will_have = |path: &str| has(plan.text(guest, path));
    match path.as_deref() {
        None => true,
        Some(path) if had(path) => will_have(path),
        Some(_) => {
            let texts = texts.iter().map(String::as_str);
            let all: Vec<&str> = texts
                .chain(ENVIRONMENTS.iter().copied())
                .filter(|path| had(path))
                .collect();
            all.is_empty() || all.into_iter().any(will_have)
        }
    }
}

/// Returns the guest's path of the text that an entry of the menu is from; none if it is from no text,
/// or from one that the system does not mount.
fn path_of_source(guest: &Guest<'_>, entry: &Entry) -> Option<String> {
    if entry.loader == Loader::Uki {
        return None;
    }
    let is_there = |path: &String| guest.tree().find(path.as_bytes()).is_ok();
    let (volume, _) = entry.source.split_once(":/")?;
    let paths = paths_of(guest, &entry.source).filter(|(mounted, _)| *mounted == volume);
    let mut paths = paths.map(|(_, path)| path);
    paths.find(is_there)
}

/// Returns the guest's path of a file that a boot loader calls `VOLUME:PATH`: that in one of the
/// mounted file systems that leads to it.
pub(super) fn path_of(guest: &Guest<'_>, file: &Found, named: &str) -> Option<String> {
    let is_it = |path: &String| {
        let found = guest.tree().find(path.as_bytes());
        found.is_ok_and(|found| found.is(file))
    };
    let mut paths = paths_of(guest, named).map(|(_, path)| path);
    paths
        .find(is_it)
        .filter(|path| !shown(path.as_bytes()).is_empty())
}

/// Returns the paths that a file that a boot loader calls `VOLUME:PATH` would have in each of the
/// mounted file systems, and those systems' volumes.
fn paths_of<'a>(
    guest: &'a Guest<'_>,
    named: &'a str,
) -> impl Iterator<Item = (&'a str, String)> + 'a {
    let (_, inner) = named.split_once(":/").unwrap_or_default();
    let inner = inner.trim_start_matches('/');
    guest.root.mounts.iter().map(move |mount| {
        let top = mount.path.trim_end_matches('/');
        // A path in a subvolume begins with the name of that.
        let inner = mount
            .subvolume
            .as_deref()
            .and_then(|name| inner.strip_prefix(name.trim_matches('/')))
            .map_or(inner, |rest| rest.trim_start_matches('/'));
        (mount.volume.as_str(), format!("{top}/{inner}"))
    })
}
