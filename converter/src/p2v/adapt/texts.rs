//! Texts that name devices: fstab, crypttab, the device to resume from, mdadm, LVM, multipath.

use hako_guest::root::fstab;

use super::devices::{Device, resolve};
use super::words::{fields, with_field, with_lines, with_values};
use super::{Guest, Plan, What};

/// Caches of names of devices.
const CACHES: &[&str] = &[
    "/etc/blkid/blkid.tab",
    "/etc/blkid.tab",
    "/etc/lvm/cache/.cache",
];

/// File systems that are on no disk of the machine.
const ELSEWHERE: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "glusterfs",
    "9p",
    "virtiofs",
];

/// Adds what has to change in texts.
pub(super) fn add(guest: &Guest<'_>, plan: &mut Plan) {
    add_fstab(guest, plan);
    add_crypttab(guest, plan);
    for path in [
        "/etc/initramfs-tools/conf.d/resume",
        "/etc/initramfs-tools/initramfs.conf",
    ] {
        add_resume(guest, plan, path);
    }
    add_mdadm(guest, plan);
    add_lvm(guest, plan);
    if guest.text("/etc/multipath.conf").is_some() || guest.text("/etc/multipath/wwids").is_some() {
        plan.remarks.push(
            "multipath is configured: switch multipathd off if no volume needs it any more".into(),
        );
    }
    for path in CACHES {
        if let Some(old) = guest.text(path) {
            let old = Some(old.into_bytes());
            plan.add(
                *path,
                What::Remove { old },
                "it caches names of the old disks",
            );
        }
    }
}

fn add_fstab(guest: &Guest<'_>, plan: &mut Plan) {
    const PATH: &str = "/etc/fstab";
    let Some(old) = guest.text(PATH) else {
        return;
    };
    let mut why = Vec::new();
    let mut remarks = Vec::new();
    let new = with_lines(&old, |line| {
        let words: Vec<&str> = fields(line)
            .filter_map(|(from, to)| line.get(from..to))
            .collect();
        let (source, target) = (*words.first()?, *words.get(1)?);
        let kind = words.get(2).copied().unwrap_or("auto");
        if source.starts_with('#') || ELSEWHERE.contains(&kind) {
            return None;
        }
        match resolve(guest.volumes, source, kind) {
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
                    "/etc/fstab: {target}: {source} is on none of the disks"
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
                remarks.push(format!("/etc/fstab: {target}: {what}; it stays as it is"));
                None
            }
        }
    });
    debug_assert!(fstab::parse(new.as_bytes()).len() == fstab::parse(old.as_bytes()).len());
    plan.remarks.extend(remarks);
    plan.replace(PATH, &old, new, why);
}

fn add_crypttab(guest: &Guest<'_>, plan: &mut Plan) {
    const PATH: &str = "/etc/crypttab";
    let Some(old) = guest.text(PATH) else {
        return;
    };
    let mut why = Vec::new();
    let mut remarks = Vec::new();
    let new = with_lines(&old, |line| {
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
                "/etc/crypttab: {name} is opened by the server's TPM: have a passphrase at hand"
            ));
        }
        match resolve(guest.volumes, source, "") {
            Device::By(identity) => {
                why.push(format!("{name}: {source} is {identity}"));
                Some(with_field(line, 1, &identity))
            }
            Device::Missing => {
                remarks.push(format!(
                    "/etc/crypttab: {name}: {source} is on none of the disks"
                ));
                None
            }
            Device::Unclear(what) => {
                remarks.push(format!("/etc/crypttab: {name}: {what}; it stays as it is"));
                None
            }
            Device::Stays => None,
        }
    });
    plan.remarks.extend(remarks);
    plan.replace(PATH, &old, new, why);
}

fn add_resume(guest: &Guest<'_>, plan: &mut Plan, path: &str) {
    let Some(old) = guest.text(path) else {
        return;
    };
    let mut why = Vec::new();
    let new = with_values(&old, "RESUME=", |value| {
        match resolve(guest.volumes, value, "swap") {
            Device::By(name) => {
                why.push(format!("{value} is {name}"));
                Some(name)
            }
            _ => None,
        }
    });
    plan.replace(path, &old, new, why);
}

/// Arrays are found by their own UUIDs; lists of the disks that they are on only stand in the way.
fn add_mdadm(guest: &Guest<'_>, plan: &mut Plan) {
    for path in ["/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"] {
        let Some(old) = guest.text(path) else {
            continue;
        };
        let new = with_lines(&old, |line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let keyword = words.first()?.to_ascii_uppercase();
            if keyword == "DEVICE" && words.iter().any(|word| word.starts_with("/dev/")) {
                return Some("DEVICE partitions".to_owned());
            }
            let is_list = |word: &&str| word.to_ascii_lowercase().starts_with("devices=/dev/");
            if keyword == "ARRAY" && words.iter().any(is_list) {
                let kept: Vec<&str> = words.into_iter().filter(|word| !is_list(word)).collect();
                return Some(kept.join(" "));
            }
            None
        });
        let why = "arrays are found by their UUIDs, on whatever disks they are";
        plan.replace(path, &old, new, vec![why.to_owned()]);
    }
}

/// A filter or list of disks keeps LVM from finding its volumes on others.
fn add_lvm(guest: &Guest<'_>, plan: &mut Plan) {
    const LIST: &str = "/etc/lvm/devices/system.devices";
    if let Some(old) = guest.text(LIST) {
        let old = Some(old.into_bytes());
        let why = "it lists the old disks, and LVM looks at no other while it is there";
        plan.add(LIST, What::Remove { old }, why);
    }
    const CONFIG: &str = "/etc/lvm/lvm.conf";
    let Some(old) = guest.text(CONFIG) else {
        return;
    };
    let new = with_lines(&old, |line| {
        let (key, value) = line.trim_start().split_once('=')?;
        let is_filter = matches!(key.trim(), "filter" | "global_filter");
        // Names that the kernel gives; a filter that leaves out other things stays.
        let names = [
            "/dev/sd",
            "/dev/hd",
            "/dev/nvme",
            "/dev/cciss",
            "/dev/disk/by-",
            "sda",
            "nvme",
        ];
        let is_by_name = names.iter().any(|name| value.contains(name));
        (is_filter && is_by_name && value.contains(']')).then(|| format!("# by hako: {line}"))
    });
    let why = "the filter lets LVM look at disks by their old names only";
    plan.replace(CONFIG, &old, new, vec![why.to_owned()]);
}
