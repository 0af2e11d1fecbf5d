//! The texts of depmod(8): `modules.dep` (a module and those it needs), `modules.builtin` and
//! `modules.alias`. The binary ones beside them say the same and are not read.

use std::collections::{BTreeMap, BTreeSet};

use hako_block::{Error, ErrorKind, Result};

use super::{Hardware, module_name};
use crate::{Tree, glob};

/// The longest index that is read; Debian's longest has 1.5 MB.
const MOST_BYTES: usize = 32 << 20;

/// What `/lib/modules/VERSION` says of one kernel's modules.
#[derive(Debug, Clone, Default)]
pub struct Index {
    version: String,
    /// Modules in the kernel itself, by name.
    builtin: BTreeSet<String>,
    /// The path of each module by its name.
    paths: BTreeMap<String, Vec<u8>>,
    /// What each module needs, by paths.
    needs: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Modules for our hardware by other names than the usual ones.
    aliases: BTreeMap<Hardware, BTreeSet<String>>,
}

impl Index {
    /// Reads the index of the kernel `version` in the guest's tree. A file that is not there says
    /// nothing. Errors: those of reading; [`ErrorKind::NotFound`] if there is no such folder.
    pub fn read(tree: &Tree, version: &str) -> Result<Self> {
        let folder = format!("/lib/modules/{version}");
        if version.is_empty() || version.contains('/') || version == ".." {
            return Err(Error::invalid(format!("{version}: no version of a kernel")));
        }
        tree.find(folder.as_bytes())?;
        let text = |name: &str| match tree.read(format!("{folder}/{name}").as_bytes(), MOST_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        };
        let mut index = Self {
            version: version.to_owned(),
            ..Self::default()
        };
        index.add_dependencies(&folder, &text("modules.dep")?);
        index.add_builtin(&text("modules.builtin")?);
        if index.builtin.is_empty() {
            index.add_builtin_info(&text("modules.builtin.modinfo")?);
        }
        index.add_aliases(&text("modules.alias")?);
        Ok(index)
    }

    /// Returns the version of the kernel.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns whether a module is in the kernel itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    /// Returns the path of a module below the kernel's folder.
    pub fn path(&self, name: &str) -> Option<&[u8]> {
        self.paths.get(name).map(Vec::as_slice)
    }

    /// Returns the names of the modules that drive some hardware: the usual one, and what the
    /// aliases say.
    pub fn modules_for(&self, hardware: Hardware) -> BTreeSet<String> {
        let usual = hardware.module().to_owned();
        if self.builtin.contains(&usual) || self.paths.contains_key(&usual) {
            return BTreeSet::from([usual]);
        }
        let mut names = self.aliases.get(&hardware).cloned().unwrap_or_default();
        names.insert(usual);
        names
    }

    /// Returns the paths of modules and of all that they need, each once, what is needed first.
    pub fn with_needed<'a>(&'a self, paths: impl IntoIterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        // Each module is on the stack twice at most: before and after what it needs.
        let mut stack: Vec<(&[u8], bool)> = paths.into_iter().map(|path| (path, false)).collect();
        stack.reverse();
        while let Some((path, is_after)) = stack.pop() {
            if is_after {
                order.push(path);
            } else if seen.insert(path) {
                stack.push((path, true));
                let needed = self.needs.get(path).into_iter().flatten();
                let unseen = needed.filter(|path| !seen.contains(path.as_slice()));
                stack.extend(unseen.map(|path| (path.as_slice(), false)));
            }
        }
        order
    }

    fn add_dependencies(&mut self, folder: &str, text: &[u8]) {
        for line in lines(text) {
            let mut parts = line.splitn(2, |&byte| byte == b':');
            let Some(path) = parts.next().and_then(|path| below(folder, path)) else {
                continue;
            };
            let needed = parts.next().unwrap_or_default();
            let needed = needed.split(u8::is_ascii_whitespace);
            let needed = needed.filter_map(|path| below(folder, path)).collect();
            if let Some(name) = module_name(&path) {
                self.paths.insert(name, path.clone());
                self.needs.insert(path, needed);
            }
        }
    }

    fn add_builtin(&mut self, text: &[u8]) {
        self.builtin.extend(lines(text).filter_map(module_name));
    }

    /// `modules.builtin.modinfo`: `module.key=value`, each ended by a NUL.
    fn add_builtin_info(&mut self, text: &[u8]) {
        for pair in text.split(|&byte| byte == 0) {
            let name = pair.split(|&byte| byte == b'.').next();
            let name = name.and_then(|name| std::str::from_utf8(name).ok());
            if let Some(name) = name.filter(|name| !name.is_empty() && name.len() < 64) {
                self.builtin.insert(name.replace('-', "_"));
            }
        }
    }

    /// `alias PATTERN MODULE`.
    fn add_aliases(&mut self, text: &[u8]) {
        for line in lines(text) {
            let mut words = line
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            let (Some(b"alias"), Some(pattern), Some(module)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let Ok(module) = std::str::from_utf8(module) else {
                continue;
            };
            for &hardware in Hardware::ALL {
                if glob::matches(pattern, hardware.modalias().as_bytes()) {
                    let names = self.aliases.entry(hardware).or_default();
                    names.insert(module.replace('-', "_"));
                }
            }
        }
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && line[0] != b'#')
}

/// Returns a path below the kernel's folder; depmod wrote absolute ones once. None for one that
/// leads out of it.
fn below(folder: &str, path: &[u8]) -> Option<Vec<u8>> {
    let path = path.trim_ascii();
    let path = match path.strip_prefix(folder.as_bytes()) {
        Some(rest) => rest.strip_prefix(b"/")?,
        None => path,
    };
    let mut names = path.split(|&byte| byte == b'/');
    let is_plain = names.all(|name| !matches!(name, b"" | b"." | b".."));
    is_plain.then(|| path.to_vec())
}
