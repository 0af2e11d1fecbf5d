//! Texts that name devices: fstab, units of systemd, crypttab, the device to resume from, mdadm, LVM,
//! multipath.

use hako_guest::root::{Place, fstab};

use super::devices::{Device, Names, is_by_place};
use super::words::{with_field, with_lines, with_options, with_values, words};
use super::{Guest, Plan, What, arrays, lvm};

/// Caches of names of devices.
const CACHES: &[&str] = &[
    "/etc/blkid/blkid.tab",
    "/etc/blkid.tab",
    "/etc/lvm/cache/.cache",
];

/// Options of fstab that name another device: of btrfs, XFS, ext4, reiserfs.
const DEVICE_OPTIONS: &[&str] = &["device", "logdev", "rtdev", "journal_path", "jdev"];

/// A text as it is to be.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub text: String,
    /// Why it changed.
    pub why: Vec<String>,
    /// What the user has to see to.
    pub remarks: Vec<String>,
}

impl Rewritten {
    /// Returns what a device is to be called, and says why; what stays and should not is said, too.
    /// `of`: what the text at `path` names it for.
    fn called(&mut self, (path, of): (&str, &str), source: &str, device: Device) -> Option<String> {
        match device {
            Device::By(name) => {
                self.why.push(format!("{of}: {source} is {name}"));
                return Some(name);
            }
            Device::Missing => {
                let what = format!("{path}: {of}: {source} is on none of the disks");
                self.remarks.push(what);
            }
            Device::Unclear(what) => {
                let what = format!("{path}: {of}: {what}; it stays as it is");
                self.remarks.push(what);
            }
            Device::Stays => {}
        }
        None
    }

    /// Returns the path that a device is to be called by, where only paths are known.
    fn called_by_path(
        &mut self,
        names: &Names<'_>,
        (path, of): (&str, &str),
        source: &str,
    ) -> Option<String> {
        let device = names.resolve(source, "", "");
        let name = self.called((path, of), source, device)?;
        Some(as_path(&name))
    }
}

/// Texts of one kind.
pub(super) struct Kind {
    /// Where the system has them; `*` for whatever is in a folder with that ending.
    paths: &'static [&'static str],
    /// Where an initrd has copies of them, which count before the system's.
    pub in_initrd: &'static [&'static str],
    /// What becomes of one, by its path.
    pub rewrite: fn(&Names<'_>, &str, &str) -> Rewritten,
}

/// Those that name devices.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        paths: &["/etc/fstab"],
        in_initrd: &[],
        rewrite: fstab,
    },
    Kind {
        paths: &["/etc/systemd/system/*.mount", "/etc/systemd/system/*.swap"],
        in_initrd: &[],
        rewrite: unit,
    },
    Kind {
        paths: &["/etc/crypttab"],
        in_initrd: &["etc/crypttab", "cryptroot/crypttab"],
        rewrite: crypttab,
    },
    Kind {
        paths: &[],
        in_initrd: &["conf/conf.d/cryptroot"],
        rewrite: cryptroot,
    },
    Kind {
        paths: &[
            "/etc/initramfs-tools/conf.d/resume",
            "/etc/initramfs-tools/initramfs.conf",
        ],
        in_initrd: &["conf/conf.d/resume", "conf/initramfs.conf"],
        rewrite: resume,
    },
    Kind {
        paths: &["/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"],
        in_initrd: &["etc/mdadm/mdadm.conf", "etc/mdadm.conf"],
        rewrite: |_, path, old| arrays::without_disks(path, old),
    },
    Kind {
        paths: &["/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf"],
        in_initrd: &["etc/lvm/lvm.conf", "etc/lvm/lvmlocal.conf"],
        rewrite: |_, path, old| lvm::without_filters(path, old),
    },
];

/// Adds what has to change in texts.
pub(super) fn add(guest: &Guest<'_>, names: &Names<'_>, plan: &mut Plan) {
    for kind in KINDS {
        for path in kind.paths.iter().flat_map(|path| paths_of(guest, path)) {
            if let Some(old) = guest.text(&path) {
                let new = (kind.rewrite)(names, &path, &old);
                plan.remarks.extend(new.remarks);
                plan.replace(&path, &old, new.text, new.why);
            }
        }
    }
    const LIST: &str = "/etc/lvm/devices/system.devices";
    if let old @ Some(_) = guest.bytes(LIST) {
        let why = "it lists the old disks, and LVM looks at no other while it is there";
        plan.add(LIST, What::Remove { old }, why);
    }
    if guest.text("/etc/multipath.conf").is_some() || guest.text("/etc/multipath/wwids").is_some() {
        plan.remarks.push(
            "multipath is configured: switch multipathd off if no volume needs it any more".into(),
        );
    }
    for path in CACHES {
        if let old @ Some(_) = guest.bytes(path) {
            plan.add(
                *path,
                What::Remove { old },
                "it caches names of the old disks",
            );
        }
    }
}

/// Returns the paths that a pattern of [`Kind::paths`] stands for.
fn paths_of(guest: &Guest<'_>, pattern: &str) -> Vec<String> {
    match pattern.split_once("/*") {
        Some((folder, ending)) => guest.files_in(folder, ending),
        None => vec![pattern.to_owned()],
    }
}

fn fstab(names: &Names<'_>, path: &str, old: &str) -> Rewritten {
    let mut new = Rewritten::default();
    let text = with_lines(old, |line| fstab_line(names, path, line, &mut new));
    let n_lines = |text: &str| fstab::parse(text.as_bytes()).len();
    debug_assert!(n_lines(&text) == n_lines(old));
    Rewritten { text, ..new }
}

fn fstab_line(names: &Names<'_>, path: &str, line: &str, new: &mut Rewritten) -> Option<String> {
    let words: Vec<&str> = words(line).collect();
    let (source, target) = (*words.first()?, *words.get(1)?);
    let kind = words.get(2).copied().unwrap_or("auto");
    if source.starts_with('#') || Place::of(kind) != Place::Disk {
        return None;
    }
    let options = words.get(3).copied().unwrap_or_default();
    let options = with_options(options, DEVICE_OPTIONS, |device| {
        new.called_by_path(names, (path, target), device)
    });
    let line = with_field(line, 3, &options);
    let device = names.resolve(&fstab::unescaped(source), kind, target);
    let is_missing = device == Device::Missing;
    if let Some(name) = new.called((path, target), source, device) {
        return Some(with_field(&line, 0, &name));
    }
    let has = |option: &str| options.split(',').any(|known| known == option);
    let is_needed = ["/", "/usr", "/boot", "/var", "/etc"].contains(&target);
    if !is_missing || is_needed || options.is_empty() || has("nofail") || has("noauto") {
        return Some(line);
    }
    new.why.push(format!(
        "{target}: {source} is not there: starting goes on without it"
    ));
    Some(with_field(&line, 3, &format!("{options},nofail")))
}

/// A unit that mounts something, or swaps to it, see systemd.mount(5) and systemd.swap(5).
fn unit(names: &Names<'_>, path: &str, old: &str) -> Rewritten {
    let value = |wanted: &str| {
        let mut lines = old.lines().filter_map(|line| line.split_once('='));
        let found = lines.find(|(key, _)| key.trim() == wanted);
        found.map(|(_, value)| value.trim())
    };
    let kind = match path.ends_with(".swap") {
        true => "swap",
        false => value("Type").unwrap_or("auto"),
    };
    let target = value("Where").unwrap_or(kind);
    let mut new = Rewritten::default();
    if Place::of(kind) != Place::Disk {
        new.text = old.to_owned();
        return new;
    }
    new.text = with_lines(old, |line| {
        let (key, value) = line.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        // What begins with `%` is filled in by systemd.
        if value.contains('%') {
            return None;
        }
        let value = match key {
            "What" => {
                let device = names.resolve(value, kind, target);
                as_path(&new.called((path, target), value, device)?)
            }
            "Options" => with_options(value, DEVICE_OPTIONS, |device| {
                new.called_by_path(names, (path, target), device)
            }),
            _ => return None,
        };
        Some(format!("{key}={value}"))
    });
    new
}

fn crypttab(names: &Names<'_>, path: &str, old: &str) -> Rewritten {
    let mut new = Rewritten::default();
    new.text = with_lines(old, |line| {
        let words: Vec<&str> = words(line).collect();
        let (name, source) = (*words.first()?, *words.get(1)?);
        if name.starts_with('#') {
            return None;
        }
        let (key, options) = (words.get(2), words.get(3));
        if options.is_some_and(|options| options.contains("tpm2-device")) {
            new.remarks.push(format!(
                "{path}: {name} is opened by the server's TPM: have a passphrase at hand"
            ));
        }
        let mut line = line.to_owned();
        let device = names.resolve(source, "", "");
        if let Some(identity) = new.called((path, name), source, device) {
            line = with_field(&line, 1, &identity);
        }
        let mut with_path = |text: &str| {
            let device = device_in(text)?;
            let own = new.called_by_path(names, (path, name), device)?;
            Some(text.replacen(device, &own, 1))
        };
        if let Some(key) = key.and_then(|key| with_path(key)) {
            line = with_field(&line, 2, &key);
        }
        if let Some(options) = options {
            let options = with_options(options, &["header"], with_path);
            line = with_field(&line, 3, &options);
        }
        Some(line)
    });
    new
}

/// Returns the device by whose place a key, or a header, is told: `DEVICE`, `DEVICE:/PATH` (Debian's
/// passdev), `/PATH:DEVICE` (systemd).
fn device_in(text: &str) -> Option<&str> {
    let before = text.split_once(":/").map(|(device, _)| device);
    let behind = text.rsplit_once(':').map(|(_, device)| device);
    let mut all = [before, behind, Some(text)].into_iter().flatten();
    all.find(|device| is_by_place(device))
}

/// Returns the path of what is called by a tag.
fn as_path(name: &str) -> String {
    match name.split_once('=') {
        Some((tag, value)) => format!("/dev/disk/by-{}/{value}", tag.to_lowercase()),
        None => name.to_owned(),
    }
}

/// `target=NAME,source=DEVICE,…` a line: what initramfs-tools made of crypttab before Debian 10.
fn cryptroot(names: &Names<'_>, path: &str, old: &str) -> Rewritten {
    let mut new = Rewritten::default();
    new.text = with_values(old, "source=", |value| {
        let device = names.resolve(value, "", "");
        new.called((path, "source"), value, device)
    });
    new
}

fn resume(names: &Names<'_>, _path: &str, old: &str) -> Rewritten {
    let mut new = Rewritten::default();
    new.text = with_values(old, "RESUME=", |value| {
        match names.resolve(value, "swap", "") {
            Device::By(name) => {
                new.why.push(format!("{value} is {name}"));
                Some(name)
            }
            _ => None,
        }
    });
    new
}
