//! What is in an initrd: its names, its kernel modules, and who made it.

use std::collections::BTreeMap;
use std::io::Read;

use hako_block::{Error, Result};

use super::{Limits, Segment, from_io, visit};
use crate::cpio;

/// What an initrd's archives leave in memory when Linux has unpacked them: an entry replaces an
/// earlier one of its path.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The stretches it is made of.
    pub segments: Vec<Segment>,
    /// What is there, by path; no path begins with `/`.
    pub members: BTreeMap<Vec<u8>, Member>,
    /// Its texts: what short files in `etc`, `conf` and `cryptroot` hold, by path.
    pub texts: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A name in an initrd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub kind: MemberKind,
    /// The length of its content in bytes.
    pub len_bytes: u32,
}

/// What a name in an initrd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// Bytes.
    File,
    /// Names.
    Directory,
    /// A path.
    Link(Vec<u8>),
    /// A device and the like.
    Other,
}

/// What made an initrd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Debian's and Ubuntu's initramfs-tools.
    InitramfsTools,
    /// dracut: Fedora, RHEL, SUSE, Gentoo …
    Dracut,
    /// mkinitcpio: Arch.
    Mkinitcpio,
    /// mkinitfs: Alpine.
    Mkinitfs,
    /// booster, whose init knows only the modules that it was made with.
    Booster,
    /// Something else.
    Unknown,
}

impl Tool {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::InitramfsTools => "initramfs-tools",
            Self::Dracut => "dracut",
            Self::Mkinitcpio => "mkinitcpio",
            Self::Mkinitfs => "mkinitfs",
            Self::Booster => "booster",
            Self::Unknown => "unknown",
        }
    }
}

/// Folders whose files are kept: what configures the programs in it.
const TEXTS: &[&str] = &["etc/", "conf/", "cryptroot/"];

/// How long one may be, and all of them together.
const TEXT_BYTES: u32 = 128 << 10;
const ALL_TEXT_BYTES: usize = 16 << 20;

/// Links that may be met on the way of one path.
const MOST_LINKS: u32 = 40;

impl Contents {
    /// Reads an initrd from its beginning to its end. Errors: as of [`visit`].
    pub fn read(source: &mut dyn Read, limits: &Limits) -> Result<Self> {
        let mut contents = Self::default();
        let mut name_bytes = 0_usize;
        let mut left = ALL_TEXT_BYTES;
        let mut too_many = |contents: &Self, more: usize| {
            name_bytes = name_bytes.saturating_add(more);
            match contents.members.len() >= limits.members || name_bytes > limits.name_bytes {
                true => Err(Error::unsupported(
                    "an initrd with more names than are allowed",
                )),
                false => Ok(()),
            }
        };
        let segments = visit(source, limits, &mut |header, content| {
            let kind = kind_of(header, content)?;
            let of_link = match &kind {
                MemberKind::Link(target) => target.len(),
                _ => 0,
            };
            too_many(&contents, header.path.len() + of_link)?;
            contents.texts.remove(&header.path);
            let len = header.len_bytes as usize;
            if kind == MemberKind::File && is_text(header) && len <= left {
                let mut text = Vec::new();
                content.read_to_end(&mut text).map_err(from_io)?;
                contents.texts.insert(header.path.clone(), text);
                left -= len;
            }
            if !header.path.is_empty() {
                let len_bytes = header.len_bytes;
                let member = Member { kind, len_bytes };
                contents.members.insert(header.path.clone(), member);
            }
            Ok(())
        })?;
        contents.segments = segments;
        Ok(contents)
    }

    /// Returns whether something is at `path`, links on the way followed.
    pub fn has(&self, path: &str) -> bool {
        self.members.contains_key(&self.resolve(path.as_bytes()))
    }

    /// Returns a text, links on the way to it followed; none if it is not there or is no text.
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(path)?).ok()
    }

    /// Returns what is in a text, links on the way to it followed; none if it is not there.
    pub fn bytes(&self, path: &str) -> Option<&[u8]> {
        let bytes = self.texts.get(&self.resolve(path.as_bytes()))?;
        Some(bytes)
    }

    /// Returns the path that `path` leads to, links on its way and at its end followed. What is not
    /// there is kept as it is.
    pub fn resolve(&self, path: &[u8]) -> Vec<u8> {
        let mut links = 0;
        let mut way: Vec<Vec<u8>> = Vec::new();
        let mut names = names_of(path);
        while let Some(name) = names.pop() {
            if name == b".." {
                way.pop();
                continue;
            }
            way.push(name);
            let here = self.members.get(&way.join(&b'/'));
            if let Some(MemberKind::Link(target)) = here.map(|member| &member.kind)
                && links < MOST_LINKS
            {
                links += 1;
                match target.first() {
                    Some(b'/') => way.clear(),
                    _ => drop(way.pop()),
                }
                names.extend(names_of(target));
            }
        }
        way.join(&b'/')
    }

    /// Returns the folder that modules of the kernel `version` are in, or belong.
    pub fn modules_folder(&self, version: &str) -> Vec<u8> {
        self.resolve(format!("lib/modules/{version}").as_bytes())
    }

    /// Returns the modules of the kernel `version`: paths below its folder (`kernel/fs/xfs.ko.xz`).
    pub fn modules(&self, version: &str) -> impl Iterator<Item = &[u8]> {
        let mut folder = self.modules_folder(version);
        folder.push(b'/');
        let begin = folder.clone();
        self.members
            .range(begin..)
            .map_while(move |(path, member)| Some((path.strip_prefix(&*folder)?, member)))
            .filter(|(path, _)| crate::drivers::module_name(path).is_some())
            .map(|(path, _)| path)
    }

    /// Returns the versions of the kernels that it has modules of.
    pub fn versions(&self) -> Vec<String> {
        let mut folder = self.resolve(b"lib/modules");
        folder.push(b'/');
        let below = self.members.range(folder.clone()..);
        let mut versions: Vec<String> = below
            .map_while(|(path, _)| path.strip_prefix(&*folder))
            .filter_map(|path| path.split(|&byte| byte == b'/').next())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        versions.dedup();
        versions
    }

    /// Returns what made it, by the files that only that tool puts in.
    pub fn tool(&self) -> Tool {
        let has = |path: &str| self.has(path);
        match () {
            () if has("etc/booster.init.yaml") => Tool::Booster,
            () if has("usr/lib/dracut") || has("lib/dracut") || has("etc/initrd-release") => {
                match has("init_functions") {
                    true => Tool::Mkinitcpio,
                    false => Tool::Dracut,
                }
            }
            () if has("conf/initramfs.conf") || has("scripts/functions") => Tool::InitramfsTools,
            () if has("init_functions") || has("usr/lib/initcpio") || has("buildconfig") => {
                Tool::Mkinitcpio
            }
            () if has("sbin/nlplug-findfs") || has("usr/sbin/nlplug-findfs") => Tool::Mkinitfs,
            () => Tool::Unknown,
        }
    }
}

fn is_text(header: &cpio::Header) -> bool {
    let mut folders = TEXTS.iter();
    let is_in = folders.any(|folder| header.path.starts_with(folder.as_bytes()));
    is_in && header.len_bytes <= TEXT_BYTES
}

fn kind_of(header: &cpio::Header, content: &mut dyn Read) -> Result<MemberKind> {
    if header.is_file() {
        return Ok(MemberKind::File);
    }
    if header.is_directory() {
        return Ok(MemberKind::Directory);
    }
    if !header.is_link() {
        return Ok(MemberKind::Other);
    }
    let mut target = Vec::new();
    let mut content = content.take(crate::fs::LONGEST_LINK as u64);
    content.read_to_end(&mut target).map_err(from_io)?;
    // Some tools count the NUL at its end.
    while target.last() == Some(&0) {
        target.pop();
    }
    Ok(MemberKind::Link(target))
}

/// Returns the names of a path, the first one last.
fn names_of(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}
