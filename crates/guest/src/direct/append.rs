//! The second archive: modules, what they need, their index files, and what makes them be loaded.

use std::collections::BTreeSet;

use hako_block::{Error, ErrorKind, Result};

use crate::cpio::Writer;
use crate::drivers::{Hardware, Index, module_name};
use crate::initrd::{Contents, MemberKind, Tool};
use crate::root::Root;
use crate::tree::shown;

/// Index files that programs in an initrd read, as depmod(8) names them.
const INDEX: &[&str] = &[
    "modules.dep",
    "modules.dep.bin",
    "modules.alias",
    "modules.alias.bin",
    "modules.softdep",
    "modules.builtin",
    "modules.builtin.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.modinfo",
    "modules.order",
    "modules.devname",
];

/// The longest file that is appended, and all of them together.
const FILE_BYTES: usize = 64 << 20;
const ALL_BYTES: usize = 256 << 20;

/// A file that is laid over an initrd: it replaces the one that is there, or is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaidFile {
    /// Its path there, without `/` at its beginning.
    pub path: String,
    /// What it holds.
    pub content: Vec<u8>,
    /// What that is for.
    pub why: String,
}

/// An archive, and what is in it.
pub(super) struct Made {
    pub archive: Vec<u8>,
    pub messages: Vec<String>,
}

/// Makes the archive that brings an initrd the drivers of some hardware, and files.
pub(super) fn archive(
    root: &Root,
    index: &Index,
    contents: &Contents,
    missing: &[Hardware],
    files: &[OverlaidFile],
) -> Result<Made> {
    let mut making = Making {
        root,
        index,
        contents,
        folder: contents.modules_folder(index.version()),
        writer: Writer::new(Vec::new()),
        made: BTreeSet::new(),
        n_bytes: 0,
        messages: Vec::new(),
    };
    let drivers: Vec<(Hardware, &[u8])> = missing
        .iter()
        .flat_map(|&one| {
            let names = index.modules_for(one);
            let paths: Vec<_> = names.iter().filter_map(|name| index.path(name)).collect();
            paths.into_iter().map(move |path| (one, path))
        })
        .collect();
    if !missing.is_empty() {
        making.modules(&drivers)?;
        making.index_files()?;
        let names = drivers.iter().filter_map(|(_, path)| module_name(path));
        making.loading(&names.collect::<Vec<_>>())?;
    }
    for file in files {
        making.file(file.path.as_bytes(), &file.content)?;
        let what = format!("appended to the initrd: {}, {}", file.path, file.why);
        making.messages.push(what);
    }
    let archive = making.writer.finish().map_err(failed)?;
    Ok(Made {
        archive,
        messages: making.messages,
    })
}

struct Making<'a> {
    root: &'a Root,
    index: &'a Index,
    contents: &'a Contents,
    /// Where modules belong in the initrd.
    folder: Vec<u8>,
    writer: Writer<Vec<u8>>,
    /// Directories that are in the archive.
    made: BTreeSet<Vec<u8>>,
    n_bytes: usize,
    messages: Vec<String>,
}

impl Making<'_> {
    /// Adds the drivers and what they need. With them go those that the initrd has under other names
    /// than the index does (unpacked ones): the index would lead to nothing.
    fn modules(&mut self, drivers: &[(Hardware, &[u8])]) -> Result<()> {
        let own: BTreeSet<&[u8]> = self.contents.modules(self.index.version()).collect();
        let renamed = own.iter().filter_map(|path| {
            let path = self.index.path(&module_name(path)?)?;
            (!own.contains(path)).then_some(path)
        });
        let renamed: Vec<&[u8]> = renamed.collect();
        let wanted = drivers.iter().map(|(_, path)| *path);
        for path in self
            .index
            .with_needed(wanted.chain(renamed.iter().copied()))
        {
            if own.contains(path) {
                continue;
            }
            let driver = drivers.iter().find(|(_, driver)| *driver == path);
            self.copy(path)?;
            let name = module_name(path).unwrap_or_default();
            let why = match driver {
                Some((hardware, _)) => format!("for {}", hardware.name()),
                None if renamed.contains(&path) => continue,
                None => "which is needed for that".into(),
            };
            self.messages
                .push(format!("appended to the initrd: the module {name}, {why}"));
        }
        if !renamed.is_empty() {
            let n = renamed.len();
            let what = format!("{n} modules that it has under names that the index does not know");
            self.messages
                .push(format!("appended to the initrd: {what}"));
        }
        Ok(())
    }

    fn index_files(&mut self) -> Result<()> {
        for name in INDEX {
            match self.copy(name.as_bytes()) {
                Err(error) if error.kind() == ErrorKind::NotFound => (),
                other => other?,
            }
        }
        let what = "the index of the guest's modules (modules.dep, modules.alias …)";
        self.messages
            .push(format!("appended to the initrd: {what}"));
        Ok(())
    }

    /// Adds what loads the drivers where nothing does it by itself: systemd is told; scripts of
    /// initramfs-tools without udev read a list. Elsewhere udev asks the index.
    fn loading(&mut self, names: &[String]) -> Result<()> {
        let has = |path: &str| self.contents.has(path);
        let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
        let is_by_scripts =
            self.contents.tool() == Tool::InitramfsTools && !has("scripts/init-top/udev");
        let (path, text) = if is_by_scripts {
            const LIST: &str = "conf/modules";
            let known = self.contents.bytes(LIST).unwrap_or_default();
            let mut list = known.trim_ascii_end().to_vec();
            if !list.is_empty() {
                list.push(b'\n');
            }
            list.extend(lines.into_bytes());
            (LIST, list)
        } else if has("usr/lib/systemd/systemd-modules-load")
            || has("lib/systemd/systemd-modules-load")
        {
            ("etc/modules-load.d/hako.conf", lines.into_bytes())
        } else {
            return Ok(());
        };
        self.file(path.as_bytes(), &text)?;
        let what = format!("{path}, so that they are loaded");
        self.messages
            .push(format!("appended to the initrd: {what}"));
        Ok(())
    }

    /// Copies a file of the kernel's folder from the guest.
    fn copy(&mut self, path: &[u8]) -> Result<()> {
        let from = [
            b"/lib/modules/",
            self.index.version().as_bytes(),
            b"/",
            path,
        ]
        .concat();
        let content = self.root.tree.read(&from, FILE_BYTES)?;
        self.file(&[&self.folder, &b"/"[..], path].concat(), &content)
    }

    /// Adds a file where `path` leads in the initrd, and the folders that it lacks.
    fn file(&mut self, path: &[u8], content: &[u8]) -> Result<()> {
        self.n_bytes = self.n_bytes.saturating_add(content.len());
        if self.n_bytes > ALL_BYTES {
            let what = format!(
                "{}: more than {ALL_BYTES} bytes would be appended",
                shown(path)
            );
            return Err(Error::unsupported(what));
        }
        let path = self.contents.resolve(path);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (end, _) in ends {
            let folder = path.get(..end).unwrap_or_default();
            let known = self.contents.members.get(folder);
            let is_there = known.is_some_and(|member| member.kind == MemberKind::Directory);
            if !is_there && self.made.insert(folder.to_vec()) {
                self.writer.directory(folder).map_err(failed)?;
            }
        }
        self.writer.file(&path, 0o644, content).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("make an archive", error)
}
