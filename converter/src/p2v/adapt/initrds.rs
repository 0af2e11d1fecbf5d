//! What is appended to initrds: the guest's own drivers that they lack, and copies of texts that they
//! keep of the system, where those change or names of network cards are to be known early.

use hako_block::{ErrorKind, Result};
use hako_guest::boot::Entry;
use hako_guest::direct::{OverlaidFile, appendix};
use hako_guest::initrd::Contents;

use super::boot::{path_of, renamed};
use super::devices::Names;
use super::lossless::{decoded, encoded};
use super::macs::Moves;
use super::{Change, Guest, Plan, Request, What, texts};

/// Texts of initrds that may hold addresses of cards: names, rules, and options for dracut.
const WITH_ADDRESSES: &[&str] = &[
    "etc/systemd/network/",
    "etc/udev/rules.d/",
    "etc/sysconfig/network-scripts/",
    "etc/NetworkManager/system-connections/",
    "etc/cmdline.d/",
    "etc/netplan/",
];

/// Programs that name network cards.
const UDEV: &[&str] = &[
    "usr/lib/systemd/systemd-udevd",
    "lib/systemd/systemd-udevd",
    "usr/lib/udev/udevd",
    "lib/udev/udevd",
    "sbin/udevd",
    "usr/sbin/udevd",
    "usr/bin/udevadm",
    "bin/udevadm",
    "sbin/udevadm",
];

/// Adds what initrds lack: the default entry's, and those of the others.
pub(super) fn add(overlay: &Overlay<'_>, request: &Request, plan: &mut Plan) -> Result<()> {
    let guest = overlay.guest;
    let Some(default) = guest.menu.default_entry() else {
        let what = "no boot entry was found: whether the kernel finds its disks is not known";
        plan.remarks.push(what.into());
        return Ok(());
    };
    let same_initrd = |one: &Entry, other: &Entry| {
        let ends = one.initrds.last().zip(other.initrds.last());
        ends.is_some_and(|(one, other)| one.blob.file().is(other.blob.file()))
    };
    // Entries that start something else, or have no initrd, lack nothing.
    let others = guest.menu.entries.iter();
    let others = others.filter(|entry| entry.kernel.is_some() && !entry.initrds.is_empty());
    let mut done: Vec<&Entry> = Vec::new();
    for entry in std::iter::once(default).chain(others) {
        if done.iter().any(|known| same_initrd(known, entry)) {
            continue;
        }
        let is_default = done.is_empty();
        done.push(entry);
        let (change, mut remarks) = overlay.lacking(entry, request, plan)?;
        match change {
            Some(_) if request.only_default && !is_default => remarks.push(format!(
                "boot entry {:?} is not fitted: there was no room for what its initrd lacks",
                entry.title
            )),
            change => plan.changes.extend(change),
        }
        remarks.retain(|remark| !plan.remarks.contains(remark));
        plan.remarks.extend(remarks);
    }
    Ok(())
}

/// What goes over the files of initrds.
pub(super) struct Overlay<'a> {
    pub guest: &'a Guest<'a>,
    pub names: &'a Names<'a>,
    pub moves: &'a Moves,
    /// The system's texts that give cards their names.
    pub naming: &'a [String],
}

impl Overlay<'_> {
    /// Returns what brings the initrd of an entry what it lacks, if that is anything, and what the user
    /// has to see to.
    fn lacking(
        &self,
        entry: &Entry,
        request: &Request,
        plan: &Plan,
    ) -> Result<(Option<Change>, Vec<String>)> {
        let mut remarks = Vec::new();
        let mut files = |contents: &Contents| {
            let files = self.files(contents, plan);
            remarks = files.1;
            files.0
        };
        let appendix = match appendix(self.guest.root, entry, request.hardware(), &mut files) {
            Ok(appendix) => appendix,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                remarks.push(format!("initrd of {:?}: {error}", entry.title));
                return Ok((None, remarks));
            }
            Err(error) => return Err(error),
        };
        let Some(bytes) = appendix.bytes else {
            return Ok((None, remarks));
        };
        let image = &appendix.initrd;
        let Some(path) = path_of(self.guest, image.blob.file(), &image.path) else {
            let remark = format!("initrd {}: the system does not mount it", image.path);
            remarks.push(remark);
            return Ok((None, remarks));
        };
        let len = image.blob.len_bytes();
        // What the kernel lacks for one of several controllers is no harm.
        let why = appendix.messages.into_iter();
        let why = why.filter(|message| message.starts_with("appended"));
        let change = Change {
            path,
            what: What::Append { len, bytes },
            why: why.collect(),
        };
        Ok((Some(change), remarks))
    }

    /// Returns the files that go over those of an initrd, and what the user has to see to.
    fn files(&self, contents: &Contents, plan: &Plan) -> (Vec<OverlaidFile>, Vec<String>) {
        let mut remarks = Vec::new();
        let mut files = self.of_devices(contents, &mut remarks);
        files.extend(self.of_addresses(contents, &mut remarks));
        files.extend(without_list(contents));
        if UDEV.iter().any(|path| contents.has(path)) {
            files.extend(self.naming.iter().filter_map(|path| {
                let inside = path.trim_start_matches('/');
                let text = plan.text(self.guest, path)?;
                let why = "so that cards have their names from the beginning";
                (text_of(contents, inside).as_ref() != Some(&text)).then(|| over(inside, text, why))
            }));
        }
        (files, remarks)
    }

    /// Returns its copies of texts that name devices.
    fn of_devices(&self, contents: &Contents, remarks: &mut Vec<String>) -> Vec<OverlaidFile> {
        let mut files = Vec::new();
        for kind in texts::KINDS {
            for path in kind.in_initrd {
                let Some(old) = text_of(contents, path) else {
                    continue;
                };
                let new = (kind.rewrite)(self.names, &format!("initrd: {path}"), &old);
                remarks.extend(new.remarks);
                if new.text != old {
                    files.push(over(path, new.text, &new.why.join("; ")));
                }
            }
        }
        files
    }

    /// Returns its texts that know cards by their addresses, and its pieces of the command line.
    fn of_addresses(&self, contents: &Contents, remarks: &mut Vec<String>) -> Vec<OverlaidFile> {
        let mut files = Vec::new();
        let paths = contents.texts.keys();
        for path in paths.filter_map(|path| std::str::from_utf8(path).ok()) {
            let is_one = WITH_ADDRESSES.iter().any(|one| path.starts_with(one));
            // What the system has of it goes there as it is.
            let is_naming = |own: &String| own.trim_start_matches('/') == path;
            if !is_one || self.naming.iter().any(is_naming) {
                continue;
            }
            let old = text_of(contents, path).unwrap_or_default();
            let (mut new, mut why) = self.moves.in_text(&old);
            if path.starts_with("etc/cmdline.d/") {
                let named = format!("initrd: {path}");
                new = renamed(self.names, remarks, &named, &new, true, &mut why);
            }
            if new != old {
                files.push(over(path, new, &why.join("; ")));
            }
        }
        files
    }
}

/// LVM looks at no disks but those of a list, if there is one; a file of an initrd cannot be taken out.
fn without_list(contents: &Contents) -> Option<OverlaidFile> {
    const LVM: &str = "etc/lvm/lvmlocal.conf";
    const UNLISTED: &str = "devices/use_devicesfile=0";
    let local = text_of(contents, LVM).unwrap_or_default();
    let has_list = contents.has("etc/lvm/devices/system.devices");
    let why = "so that LVM finds its volumes on other disks than those of the server";
    let text = || format!("{local}\n# by hako\n{UNLISTED}\n");
    (has_list && !local.contains(UNLISTED)).then(|| over(LVM, text(), why))
}

/// Returns a text of an initrd, as [`super::lossless`] makes it.
fn text_of(contents: &Contents, path: &str) -> Option<String> {
    Some(decoded(contents.bytes(path)?))
}

fn over(path: &str, content: String, why: &str) -> OverlaidFile {
    OverlaidFile {
        path: path.to_owned(),
        content: encoded(&content),
        why: why.to_owned(),
    }
}
