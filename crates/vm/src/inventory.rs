//! The inventory: a text file that lists where machines are, and what each may open beyond its
//! own folder because the user said so. Nothing else: the VMX is the truth about a machine.
//!
//! ```text
//! vm /var/lib/hako/vms/web/web.vmx
//! allow /srv/images/debian.iso
//! vm /home/me/mail/mail.vmx
//! base /var/lib/hako/vms/web/web.vmx
//! to /home/me/post/post.vmx
//! ```
//!
//! `allow`, `base` and `to` belong to the machine above them; `base` is the machine on whose disks
//! those of this one stand, a linked clone; `to` is where a renaming that is under way
//! (or was cut off) takes it. Paths are bytes, absolute, and end with the line.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hako_block::gate::replace_file;
use hako_block::{Error, ErrorKind, Result};

use crate::Home;

/// No inventory is larger: 16 MiB are more than 100 000 machines.
const MAX_BYTES: u64 = 16 << 20;

/// Which machines there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The machines, in the order in which they were registered.
    pub entries: Vec<Entry>,
}

/// One machine of the inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its .vmx, absolute.
    pub vmx: PathBuf,
    /// Files and folders that it may name beyond its own folder, with the user's consent.
    pub allow: Vec<PathBuf>,
    /// The .vmx of the machine that it is a linked clone of.
    pub base: Option<PathBuf>,
    /// The .vmx that it will have when a renaming that was begun is through.
    pub to: Option<PathBuf>,
}

impl Entry {
    /// Returns the machine's .vmx as it is now: while a renaming is under way one of several that
    /// may exist. The last to come into being counts. If none exists, the one that was registered.
    pub fn current(&self) -> PathBuf {
        let Some(to) = &self.to else {
            return self.vmx.clone();
        };
        let between = to.file_name().map(|name| self.vmx.with_file_name(name));
        let mut newest_first = [Some(to.clone()), between].into_iter().flatten();
        newest_first
            .find(|path| path.is_file())
            .unwrap_or_else(|| self.vmx.clone())
    }

    /// Returns the name of its .vmx, for one that cannot be asked.
    pub(crate) fn name(&self) -> String {
        let path = self.current();
        let stem = path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// Returns whether `path` is one of the machine's, before a renaming or after it.
    pub fn has_path(&self, path: &Path) -> bool {
        self.vmx == path || self.to.as_deref() == Some(path) || self.current() == path
    }
}

impl Inventory {
    /// Reads the inventory; an empty one if there is none yet.
    pub fn read(home: &Home) -> Result<Self> {
        let path = home.inventory();
        let failed = |error| Error::io("read", error).in_file(&path);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed(error)),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                let what = format!("{} bytes are too many for an inventory", metadata.len());
                return Err(Error::new(ErrorKind::Corrupt, what).in_file(&path));
            }
            Ok(_) => (),
        }
        let bytes = std::fs::read(&path).map_err(failed)?;
        Self::parse(&bytes).map_err(|error| error.in_file(&path))
    }

    /// Reads the inventory, lets `change` change it, and replaces it; nobody else changes it
    /// meanwhile. If `change` fails nothing is written.
    pub fn change<T>(home: &Home, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let path = home.inventory();
        std::fs::create_dir_all(&home.root)
            .map_err(|error| Error::io("create", error).in_file(&home.root))?;
        let _lock = lock(&path.with_extension("lock"))?;
        let before = Self::read(home)?;
        let mut after = before.clone();
        let result = change(&mut after)?;
        if after != before {
            replace_file(&path, &after.to_bytes()?)?;
        }
        Ok(result)
    }

    /// Returns the entry of the machine with this .vmx.
    pub fn entry(&self, vmx: &Path) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.has_path(vmx))
    }

    /// Returns the entry of the machine with this .vmx, to be changed.
    pub fn entry_mut(&mut self, vmx: &Path) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.has_path(vmx))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let wrong = |what: &str| Error::corrupt(format!("line {}", index + 1), what);
            let (word, path) = split_line(line).ok_or_else(|| wrong("is no \"vm PATH\""))?;
            if !path.is_absolute() {
                return Err(wrong("the path is not absolute"));
            }
            match (word, entries.last_mut()) {
                (b"vm", _) => entries.push(Entry {
                    vmx: path,
                    ..Entry::default()
                }),
                (b"allow", Some(entry)) => entry.allow.push(path),
                (b"base", Some(entry)) => entry.base = Some(path),
                (b"to", Some(entry)) => entry.to = Some(path),
                _ => return Err(wrong("is none of vm, allow, base and to, or stands first")),
            }
        }
        Ok(Self { entries })
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for entry in &self.entries {
            push_line(&mut bytes, "vm", &entry.vmx)?;
            for path in &entry.allow {
                push_line(&mut bytes, "allow", path)?;
            }
            if let Some(path) = &entry.base {
                push_line(&mut bytes, "base", path)?;
            }
            if let Some(path) = &entry.to {
                push_line(&mut bytes, "to", path)?;
            }
        }
        Ok(bytes)
    }
}

fn split_line(line: &[u8]) -> Option<(&[u8], PathBuf)> {
    let blank = line.iter().position(|byte| *byte == b' ')?;
    let (word, rest) = line.split_at(blank);
    Some((word, PathBuf::from(OsStr::from_bytes(rest.get(1..)?))))
}

fn push_line(bytes: &mut Vec<u8>, word: &str, path: &Path) -> Result<()> {
    let text = path.as_os_str().as_bytes();
    if text.contains(&b'\n') || !path.is_absolute() {
        let what = "cannot be listed in the inventory: not absolute, or with a line end in it";
        return Err(Error::invalid(what).in_file(path));
    }
    bytes.extend_from_slice(word.as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(text);
    bytes.push(b'\n');
    Ok(())
}

/// Waits for the lock file and holds it until what is returned is dropped.
fn lock(path: &Path) -> Result<File> {
    let failed = |error| Error::io("lock", error).in_file(path);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(vmx: &str) -> Entry {
        Entry {
            vmx: vmx.into(),
            ..Entry::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("home"));
        assert_eq!(Inventory::read(&home).unwrap(), Inventory::default());
        let entries = vec![
            Entry {
                allow: vec!["/srv/with blank".into(), "/iso/a.iso".into()],
                ..entry("/vms/web server/web.vmx")
            },
            Entry {
                to: Some("/vms/b/b.vmx".into()),
                ..entry("/vms/a/a.vmx")
            },
            Entry {
                base: Some("/vms/a/a.vmx".into()),
                ..entry("/vms/clone/clone.vmx")
            },
            entry("/vms/\u{fc}/c.vmx"),
        ];
        Inventory::change(&home, |inventory| {
            inventory.entries = entries.clone();
            Ok(())
        })
        .unwrap();
        assert_eq!(Inventory::read(&home).unwrap().entries, entries);
    }

    #[test]
    fn a_failed_change_changes_nothing_and_odd_paths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        for path in ["relative.vmx", "/with\nline/a.vmx"] {
            let changed = Inventory::change(&home, |inventory| {
                inventory.entries.push(entry(path));
                Ok(())
            });
            assert_eq!(changed.unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(Inventory::read(&home).unwrap(), Inventory::default());
    }

    #[test]
    fn lines_that_mean_nothing_are_refused() {
        for text in ["allow /a", "to /a", "vm", "vm a", "VM /a", "vm /a\nboo /b"] {
            let error = Inventory::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}");
        }
        let parsed = Inventory::parse(b"# a comment\n\nvm /a\n").unwrap();
        assert_eq!(parsed.entries, [entry("/a")]);
    }

    #[test]
    fn many_at_once_lose_none() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        std::thread::scope(|scope| {
            for number in 0..8 {
                let home = &home;
                scope.spawn(move || {
                    Inventory::change(home, |inventory| {
                        inventory.entries.push(entry(&format!("/vms/{number}.vmx")));
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(Inventory::read(&home).unwrap().entries.len(), 8);
    }
}
