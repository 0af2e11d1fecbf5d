//! Installed kernels: folders of `/lib/modules`, images in `/boot`, and the initrd of each.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::boot::Blob;
use crate::bytes::le;
use crate::tree::Tree;

/// A kernel that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kernel {
    /// Its version, as uname -r says it.
    pub version: String,
    /// The path of its image, if one is there.
    pub image: Option<String>,
    /// The path of its initrd, if one is there.
    pub initrd: Option<String>,
    /// Whether its modules are in `/lib/modules`.
    pub has_modules: bool,
}

/// Names in a folder that are looked at.
const MOST_NAMES: usize = 4096;
/// Kernels that are listed.
const MOST_KERNELS: usize = 256;
/// How an image of a kernel is called.
const IMAGES: &[&str] = &[
    "vmlinuz-", "vmlinux-", "kernel-", "bzImage-", "Image-", "linux-",
];

pub(super) fn list(tree: &Tree) -> Vec<Kernel> {
    let names = |path: &str| -> Vec<String> {
        let entries = tree
            .entries(path.as_bytes(), MOST_NAMES)
            .unwrap_or_default();
        let names = entries
            .into_iter()
            .map(|entry| String::from_utf8(entry.name));
        names.filter_map(Result::ok).collect()
    };
    let boot = names("/boot");
    let mut kernels: Vec<Kernel> = Vec::new();
    let mut taken = BTreeSet::new();
    for version in names("/lib/modules") {
        let folder = format!("/lib/modules/{version}");
        let has = |name: &str| tree.find(format!("{folder}/{name}").as_bytes()).is_ok();
        let has_modules = has("modules.dep") || has("kernel");
        if !has_modules && !has("vmlinuz") {
            continue;
        }
        let tags = tags_of(tree, &folder, &version);
        let image = find_image(&boot, &tags);
        taken.extend(image.clone());
        let of_package = has("vmlinuz").then(|| format!("{folder}/vmlinuz"));
        kernels.push(Kernel {
            image: image.map(|name| format!("/boot/{name}")).or(of_package),
            initrd: find_initrd(&boot, &tags),
            has_modules,
            version,
        });
    }
    // Images without modules.
    for name in &boot {
        let version = IMAGES.iter().find_map(|begin| name.strip_prefix(begin));
        let Some(version) = version.filter(|_| !taken.contains(name)) else {
            continue;
        };
        // A name without a version is a link of a packager's, or a rescue image.
        if !version.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        kernels.push(Kernel {
            version: version.to_owned(),
            image: Some(format!("/boot/{name}")),
            initrd: find_initrd(&boot, &[version.to_owned()]),
            has_modules: false,
        });
    }
    kernels.sort_by(|a, b| compare_versions(&b.version, &a.version));
    kernels.truncate(MOST_KERNELS);
    kernels
}

/// Returns what the files of a kernel in `/boot` end in: its version; what Arch calls the package;
/// on Alpine the flavour.
fn tags_of(tree: &Tree, folder: &str, version: &str) -> Vec<String> {
    let mut tags = vec![version.to_owned()];
    if let Ok(name) = tree.read(format!("{folder}/pkgbase").as_bytes(), 256) {
        tags.push(String::from_utf8_lossy(&name).trim().to_owned());
    }
    if let Some((_, flavour)) = version.rsplit_once('-')
        && !flavour.starts_with(|c: char| c.is_ascii_digit())
    {
        tags.push(flavour.to_owned());
    }
    tags
}

fn find_image(boot: &[String], tags: &[String]) -> Option<String> {
    let mut names = tags
        .iter()
        .flat_map(|tag| IMAGES.iter().map(move |begin| format!("{begin}{tag}")));
    names.find(|name| boot.contains(name))
}

fn find_initrd(boot: &[String], tags: &[String]) -> Option<String> {
    let names = |tag: &String| {
        [
            "initrd.img-",
            "initramfs-",
            "initrd-",
            "initramfs.img-",
            "initrd.gz-",
        ]
        .into_iter()
        .flat_map(move |begin| ["", ".img"].map(|end| format!("{begin}{tag}{end}")))
        .collect::<Vec<_>>()
    };
    let found = tags.iter().flat_map(names).find(|name| boot.contains(name));
    found.map(|name| format!("/boot/{name}"))
}

/// Compares versions as rpm and dpkg do in what kernels' names have: runs of digits by their value.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (pieces(a), pieces(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match compare_pieces(a, b) {
                Ordering::Equal => (),
                other => return other,
            },
        }
    }
}

fn compare_pieces(a: &str, b: &str) -> Ordering {
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    match (is_number(a), is_number(b)) {
        (true, true) => {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        // `6.1~rc2` and `6.1-rc2` come before `6.1.2`.
        (false, false) => a.cmp(b),
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
    }
}

/// Returns the runs of digits and of letters in a version.
fn pieces(version: &str) -> impl Iterator<Item = &str> {
    let mut rest = version;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_digit = rest.chars().next()?.is_ascii_digit();
        let same = |c: char| c.is_ascii_alphanumeric() && c.is_ascii_digit() == is_digit;
        let len = rest.find(|c| !same(c)).unwrap_or(rest.len());
        let (piece, more) = rest.split_at(len);
        rest = more;
        Some(piece)
    })
}

/// A version that sorts as versions do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(pub String);

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_versions(&self.0, &other.0).then_with(|| self.0.cmp(&other.0))
    }
}

/// Returns the version that an x86 image of a kernel says it is (`kernel_version` of the boot
/// protocol's header, `Documentation/arch/x86/boot.rst`); none if it is no such image.
pub fn image_version(image: &Blob) -> Option<String> {
    const HEADER: u64 = 0x210;
    const LONGEST: u64 = 256;
    let bytes = |at: u64, len: u64| image.part(at, len).ok()?.read(1024).ok();
    let head = bytes(0, HEADER)?;
    if head.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = 0x200 + u64::from(le::u16_at(&head, 0x20e));
    let text = bytes(at, LONGEST.min(image.len_bytes().checked_sub(at)?))?;
    let end = text.iter().position(|byte| matches!(byte, 0 | b' '))?;
    let version = std::str::from_utf8(text.get(..end)?).ok()?;
    let is_version = !version.is_empty() && !version.contains(['/', '\n']);
    is_version.then(|| version.to_owned())
}
