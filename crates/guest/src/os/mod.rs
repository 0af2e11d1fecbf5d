//! What system a guest's files are: its name and version, its kernels and how it starts.

mod kernels;
pub(crate) mod release;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::BTreeMap;

pub(crate) use kernels::Version;
pub use kernels::{Kernel, image_version};
pub use release::variables;

use crate::fs::NodeKind;
use crate::tree::Tree;

/// What is known of a system. Texts are empty and lists without entries where nothing tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Os {
    /// Its family: `linux` or `windows`.
    pub family: &'static str,
    /// Which it is, as os-release's `ID`: `debian`, `fedora`, `windows`.
    pub id: String,
    /// What it is derived from, as `ID_LIKE`.
    pub like: Vec<String>,
    /// Its version, as `VERSION_ID`.
    pub version: String,
    /// What people call it.
    pub name: String,
    /// The name of the host.
    pub hostname: String,
    /// What its programs run on, as uname(1) says it: `x86_64`.
    pub architecture: &'static str,
    /// How software is installed: `dpkg`, `rpm`, `apk`, `pacman` …
    pub packages: &'static str,
    /// What its first process is: `systemd`, `openrc`, `sysvinit` …
    pub init: &'static str,
    /// Its kernels, the newest first.
    pub kernels: Vec<Kernel>,
}

/// Longest text that is read of those that tell.
const TEXT_BYTES: usize = 64 << 10;

impl Os {
    /// Looks at a guest's files. What cannot be read tells nothing.
    pub fn of(tree: &Tree) -> Self {
        if let Some(os) = windows::look_at(tree) {
            return os;
        }
        let release = release::read(tree);
        let text = |key: &str| release.get(key).cloned().unwrap_or_default();
        let id = match text("ID") {
            id if id.is_empty() => "linux".to_owned(),
            id => id,
        };
        let name = [text("PRETTY_NAME"), text("NAME")];
        let name = name.into_iter().find(|name| !name.is_empty());
        let like = text("ID_LIKE");
        Self {
            family: "linux",
            like: like.split_ascii_whitespace().map(str::to_owned).collect(),
            version: text("VERSION_ID"),
            name: name.unwrap_or_else(|| "Linux".to_owned()),
            hostname: hostname(tree),
            architecture: architecture(tree),
            packages: first(tree, PACKAGES),
            init: init(tree),
            kernels: kernels::list(tree),
            id,
        }
    }
}

/// What each package system leaves.
const PACKAGES: &[(&str, &str)] = &[
    ("var/lib/dpkg/status", "dpkg"),
    ("lib/apk/db/installed", "apk"),
    ("usr/lib/apk/db/installed", "apk"),
    ("var/lib/pacman/local", "pacman"),
    ("var/lib/rpm", "rpm"),
    ("usr/lib/sysimage/rpm", "rpm"),
    ("usr/share/rpm", "rpm"),
    ("var/db/pkg", "portage"),
    ("var/db/xbps", "xbps"),
    ("var/log/packages", "slackware"),
    ("nix/store", "nix"),
];

/// What each init leaves, where /sbin/init does not tell.
const INITS: &[(&str, &str)] = &[
    ("usr/lib/systemd/systemd", "systemd"),
    ("lib/systemd/systemd", "systemd"),
    ("sbin/openrc", "openrc"),
    ("usr/sbin/openrc", "openrc"),
    ("etc/runit/1", "runit"),
    ("sbin/upstart", "upstart"),
    ("etc/init/rc.conf", "upstart"),
    ("etc/inittab", "sysvinit"),
];

fn has(tree: &Tree, path: &str) -> bool {
    tree.find(path.as_bytes()).is_ok()
}

fn first(tree: &Tree, marks: &[(&str, &'static str)]) -> &'static str {
    let mut marks = marks.iter();
    let found = marks.find(|(path, _)| has(tree, path));
    found.map_or("", |(_, name)| name)
}

fn init(tree: &Tree) -> &'static str {
    let link = tree.find_no_follow(b"sbin/init");
    let target = link.and_then(|link| link.read_link()).unwrap_or_default();
    let ends = |name: &str| target.ends_with(name.as_bytes());
    match () {
        () if ends("systemd") => "systemd",
        () if ends("openrc-init") => "openrc",
        () if ends("runit-init") => "runit",
        () if ends("busybox") && has(tree, "sbin/openrc") => "openrc",
        () if ends("busybox") => "busybox",
        () => first(tree, INITS),
    }
}

fn hostname(tree: &Tree) -> String {
    let text = |path: &str| {
        let text = tree.read(path.as_bytes(), TEXT_BYTES).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    let plain = |path: &str| {
        let text = text(path)?;
        let mut lines = text.lines().map(str::trim);
        lines
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
    };
    let variable = |path: &str, key: &str| {
        let values = release::variables(text(path)?.as_bytes());
        values.get(key).cloned()
    };
    let name = plain("etc/hostname")
        .or_else(|| plain("etc/HOSTNAME"))
        .or_else(|| variable("etc/sysconfig/network", "HOSTNAME"))
        .or_else(|| variable("etc/conf.d/hostname", "hostname"));
    name.unwrap_or_default().chars().take(255).collect()
}

/// Machines of ELF files (`e_machine`), with their class and byte order.
const MACHINES: &[(u16, u8, &str)] = &[
    (3, 1, "i686"),
    (62, 2, "x86_64"),
    (62, 1, "x32"),
    (183, 2, "aarch64"),
    (40, 1, "armv7l"),
    (243, 2, "riscv64"),
    (21, 2, "ppc64le"),
    (22, 2, "s390x"),
    (258, 2, "loongarch64"),
    (8, 1, "mips"),
    (8, 2, "mips64"),
];

/// Returns what the first program found is for.
fn architecture(tree: &Tree) -> &'static str {
    let programs = [
        "usr/bin/env",
        "bin/sh",
        "usr/bin/bash",
        "bin/busybox",
        "sbin/init",
    ];
    let of = |path: &&str| {
        let file = tree.find(path.as_bytes()).ok()?;
        if file.stat().ok()?.kind != NodeKind::File {
            return None;
        }
        let mut head = [0; 20];
        let len = file.read_at(0, &mut head).ok()?;
        if len < head.len() || !head.starts_with(b"\x7fELF") {
            return None;
        }
        let machine = match head[5] {
            2 => u16::from_be_bytes([head[18], head[19]]),
            _ => u16::from_le_bytes([head[18], head[19]]),
        };
        let mut machines = MACHINES.iter();
        machines
            .find(|(known, class, _)| *known == machine && *class == head[4])
            .map(|(.., name)| *name)
    };
    programs.iter().find_map(of).unwrap_or_default()
}

/// Values of a file by their keys.
pub type Variables = BTreeMap<String, String>;
