//! Texts that name devices: fstab, crypttab, the device to resume from, mdadm, LVM, multipath.

use hako_guest::root::{Place, fstab};

use super::devices::{Device, Names};
use super::words::{fields, with_field, with_lines, with_values};
use super::{Guest, Plan, What, arrays, lvm};

/// Caches of names of devices.
const CACHES: &[&str] = &[
    "/etc/blkid/blkid.tab",
    "/etc/blkid.tab",
    "/etc/lvm/cache/.cache",
];

/// A text as it is to be.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub text: String,
    /// Why it changed.
    pub why: Vec<String>,
    /// What the user has to see to.
    pub remarks: Vec<String>,
}

/// Texts of one kind.
pub(super) struct Kind {
    /// Where the system has them.
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
        for path in kind.paths {
            if let Some(old) = guest.text(path) {
                let new = (kind.rewrite)(names, path, &old);
                plan.remarks.extend(new.remarks);
                plan.replace(path, &old, new.text, new.why);
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

fn fstab(names: &Names<'_>, path: &str, old: &str) -> Rewritten {
    let mut why = Vec::new();
    let mut remarks = Vec::new();
    let text = with_lines(old, |line| {
        let words: Vec<&str> = fields(line)
            .filter_map(|(from, to)| line.get(from..to))
            .collect();
        let (source, target) = (*words.first()?, *words.get(1)?);
        let kind = words.get(2).copied().unwrap_or("auto");
        if source.starts_with('#') || Place::of(kind) != Place::Disk {
            return None;
        }
        match names.resolve(&fstab::unescaped(source), kind, target) {
            Device::Stays => None,
            Device::By(name) => {
                why.push(format!(
                    "{target}: {source} is {name}, whatever the disks hang on"
                ));
                Some(with_field(line, 0, &name))
            }
            Device::Missing => {
                let options = words.get(3).copied().unwrap_or_default();
                let has = |option: &str| options.split(',').any(|known| known == option);
                remarks.push(format!(
                    "{path}: {target}: {source} is on none of the disks"
                ));
                let is_needed = ["/", "/usr", "/boot", "/var", "/etc"].contains(&target);
                if is_needed || options.is_empty() || has("nofail") || has("noauto") {
                    return None;
                }
                why.push(format!(
                    "{target}: {source} is not there: starting goes on without it"
                ));
                Some(with_field(line, 3, &format!("{options},nofail")))
            }
            Device::Unclear(what) => {
                remarks.push(format!("{path}: {target}: {what}; it stays as it is"));
                None
            }
        }
    });
    let n_lines = |text: &str| fstab::parse(text.as_bytes()).len();
    debug_assert!(n_lines(&text) == n_lines(old));
    Rewritten { text, why, remarks }
}

fn crypttab(names: &Names<'_>, path: &str, old: &str) -> Rewritten {
    let mut why = Vec::new();
    let mut remarks = Vec::new();
    let text = with_lines(old, |line| {
        let words: Vec<&str> = fields(line)
            .filter_map(|(from, to)| line.get(from..to))
            .collect();
        let (name, source) = (*words.first()?, *words.get(1)?);
        if name.starts_with('#') {
            return None;
        }
        if words
            .get(3)
            .is_some_and(|options| options.contains("tpm2-device"))
        {
            remarks.push(format!(
                "{path}: {name} is opened by the server's TPM: have a passphrase at hand"
            ));
        }
        match names.resolve(source, "", "") {
            Device::By(identity) => {
                why.push(format!("{name}: {source} is {identity}"));
                Some(with_field(line, 1, &identity))
            }
            Device::Missing => {
                remarks.push(format!("{path}: {name}: {source} is on none of the disks"));
                None
            }
            Device::Unclear(what) => {
                remarks.push(format!("{path}: {name}: {what}; it stays as it is"));
                None
            }
            Device::Stays => None,
        }
    });
    Rewritten { text, why, remarks }
}

/// `target=NAME,source=DEVICE,…` a line: what initramfs-tools made of crypttab before Debian 10.
fn cryptroot(names: &Names<'_>, path: &str, old: &str) -> Rewritten {
    let mut new = Rewritten::default();
    new.text = with_values(old, "source=", |value| match names.resolve(value, "", "") {
        Device::By(name) => {
            new.why.push(format!("{value} is {name}"));
            Some(name)
        }
        Device::Missing => {
            let what = format!("{path}: {value} is on none of the disks");
            new.remarks.push(what);
            None
        }
        Device::Unclear(what) => {
            new.remarks
                .push(format!("{path}: {what}; it stays as it is"));
            None
        }
        Device::Stays => None,
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
