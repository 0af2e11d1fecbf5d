//! What a system's files say: which it is, its kernels, what it mounts. The files are a guest's, or
//! the host's own.

use hako_guest::Tree;
use hako_guest::drivers::{Hardware, Index, find, module_name};
use hako_guest::initrd::{Contents, Limits};
use hako_guest::os;
use hako_guest::root::{Place, fstab};

use super::model::{DriverPlace, Kernel, Os};

/// Longest text that is read of those that tell.
const TEXT_BYTES: usize = 1 << 20;
/// Names in a folder that are looked at.
const MOST_NAMES: usize = 4096;

/// Returns a text file, what is no text replaced; empty if it is not there.
pub(super) fn text(tree: &Tree, path: &str) -> String {
    let bytes = tree.read(path.as_bytes(), TEXT_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns what a file of one value holds; empty if it is not there.
pub(super) fn word(tree: &Tree, path: &str) -> String {
    text(tree, path).trim().trim_end_matches('\0').to_owned()
}

/// Returns the number in a file of one value; none if it holds none.
pub(super) fn number<T: std::str::FromStr>(tree: &Tree, path: &str) -> Option<T> {
    word(tree, path).parse().ok()
}

/// Returns the last name of what a link leads to; empty if there is none.
pub(super) fn link(tree: &Tree, path: &str) -> String {
    let target = tree
        .find_no_follow(path.as_bytes())
        .and_then(|link| link.read_link());
    let target = target.unwrap_or_default();
    let name = target
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Returns the names in a folder, sorted.
pub(super) fn names(tree: &Tree, path: &str) -> Vec<String> {
    let entries = tree
        .entries(path.as_bytes(), MOST_NAMES)
        .unwrap_or_default();
    let names = entries
        .into_iter()
        .map(|entry| String::from_utf8(entry.name));
    let mut names: Vec<String> = names.filter_map(Result::ok).collect();
    names.sort();
    names
}

/// Returns the system, its host name and kernels.
pub(super) fn os(tree: &Tree) -> (Os, String, Vec<os::Kernel>) {
    let known = os::Os::of(tree);
    let os = Os {
        family: known.family.to_owned(),
        id: known.id,
        like: known.like,
        version: known.version,
        name: known.name,
        architecture: known.architecture.to_owned(),
        packages: known.packages.to_owned(),
        init: known.init.to_owned(),
        selinux: selinux(tree),
        clock_is_local: clock(tree),
    };
    (os, known.hostname, known.kernels)
}

fn selinux(tree: &Tree) -> String {
    let config = text(tree, "/etc/selinux/config");
    let mut values = config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("SELINUX="));
    values.next().unwrap_or_default().trim().to_owned()
}

fn clock(tree: &Tree) -> Option<bool> {
    let adjtime = text(tree, "/etc/adjtime");
    match adjtime.lines().nth(2)?.trim() {
        "LOCAL" => Some(true),
        "UTC" => Some(false),
        _ => None,
    }
}

/// Returns the lines of fstab that mount something.
pub(super) fn fstab(tree: &Tree) -> Vec<fstab::Line> {
    fstab::parse(text(tree, "/etc/fstab").as_bytes())
}

/// Returns what fstab swaps to.
pub(super) fn swaps_of_fstab(tree: &Tree) -> Vec<String> {
    let text = text(tree, "/etc/fstab");
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let swaps = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (source, _, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "swap").then(|| source.to_owned())
    });
    swaps.collect()
}

/// Whether a file system is on another machine, or used by others at the same time.
pub(super) fn is_remote(kind: &str) -> bool {
    Place::of(kind) == Place::Network || matches!(kind, "gfs2" | "ocfs2")
}

/// Returns what makes initrds.
pub(super) fn initrd_tool(tree: &Tree) -> &'static str {
    const TOOLS: &[(&str, &str)] = &[
        ("usr/sbin/update-initramfs", "initramfs-tools"),
        ("usr/bin/dracut", "dracut"),
        ("usr/sbin/dracut", "dracut"),
        ("sbin/dracut", "dracut"),
        ("usr/bin/mkinitcpio", "mkinitcpio"),
        ("sbin/mkinitfs", "mkinitfs"),
        ("sbin/mkinitrd", "mkinitrd"),
    ];
    let mut tools = TOOLS.iter();
    let found = tools.find(|(path, _)| tree.find(path.as_bytes()).is_ok());
    found.map_or("", |(_, name)| name)
}

/// Returns what is known of a kernel; with its drivers if they are asked for.
pub(super) fn kernel(tree: &Tree, kernel: &os::Kernel, with_drivers: bool) -> Kernel {
    let mut shown = Kernel {
        version: kernel.version.clone(),
        image: kernel.image.clone().unwrap_or_default(),
        initrd: kernel.initrd.clone().unwrap_or_default(),
        has_modules: kernel.has_modules,
        ..Kernel::default()
    };
    if !with_drivers {
        return shown;
    }
    let contents = kernel.initrd.as_ref().and_then(|path| contents(tree, path));
    if let Ok(index) = Index::read(tree, &kernel.version) {
        let places = Hardware::ALL.iter().map(|&hardware| DriverPlace {
            hardware: hardware.name().to_owned(),
            place: find(&index, contents.as_ref(), hardware).name().to_owned(),
        });
        shown.drivers = places.collect();
    }
    if let Some(contents) = &contents {
        let modules = contents.modules(&kernel.version).filter_map(module_name);
        shown.initrd_modules = modules.collect();
        shown.initrd_modules.sort();
        shown.initrd_modules.dedup();
    }
    shown
}

fn contents(tree: &Tree, path: &str) -> Option<Contents> {
    let mut reader = tree.find(path.as_bytes()).ok()?.reader();
    Contents::read(&mut reader, &Limits::default()).ok()
}
