//! One virtual machine: its .vmx, the folder around it, and what it may open.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hako_block::gate::{folder_of, replace_file};
use hako_block::{Access, Error, ErrorKind, Gate, GateRules, Opened, Resolver, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::DiskMedium;
use hako_formats::vmsd::Vmsd;
use hako_formats::vmx::Vmx;
use hako_formats::{OpenOptions, OpenedChain, detect, format_named, open_chain_of};

use crate::list::vmx_in;
use crate::{Entry, Home, Inventory};

/// No text of a machine is longer: 16 MiB.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// A virtual machine. What is changed in its text is on disk after [`Vm::save`].
pub struct Vm {
    /// Its .vmx, absolute.
    path: PathBuf,
    /// Its text.
    pub vmx: Vmx,
    /// What it may name beyond its own folder.
    allow: Vec<PathBuf>,
    is_registered: bool,
}

impl Vm {
    /// Opens the machine that the user called so: by the path of its .vmx (what has a `/` in it or
    /// ends in .vmx), else by its display name or the name of its folder, which must be unique in
    /// the inventory. Beyond what the inventory allows it may name what is below `allow`.
    ///
    /// Errors: [`ErrorKind::VmNotFound`]; [`ErrorKind::Invalid`] for a name that several have.
    pub fn open(home: &Home, what: &Path, allow: &[PathBuf]) -> Result<Self> {
        let inventory = Inventory::read(home)?;
        let path = if is_path(what) {
            let path = absolute(&vmx_in(what)?)?;
            // One that is being renamed may be elsewhere by now.
            inventory.entry(&path).map_or(path, Entry::current)
        } else {
            find_by_name(&inventory, what)?.current()
        };
        let mut vm = Self::at(&path, allow)?;
        if let Some(entry) = inventory.entry(&vm.path) {
            vm.allow.extend(entry.allow.iter().cloned());
            vm.is_registered = true;
        }
        Ok(vm)
    }

    /// Opens the machine of a .vmx, whatever the inventory says of it.
    pub fn at(path: &Path, allow: &[PathBuf]) -> Result<Self> {
        let path = absolute(path)?;
        let bytes = read_text(&path)?.ok_or_else(|| not_found(&path))?;
        let vmx = Vmx::parse(&bytes).map_err(|error| error.in_file(&path))?;
        Ok(Self {
            path,
            vmx,
            allow: allow.to_vec(),
            is_registered: false,
        })
    }

    /// Reads its text again.
    pub(crate) fn reload(&mut self) -> Result<()> {
        self.vmx = Self::at(&self.path, &[])?.vmx;
        Ok(())
    }

    /// Returns its .vmx, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its folder, absolute.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Returns the name that people know it by: its display name, else that of its .vmx.
    pub fn name(&self) -> String {
        let display_name = self.vmx.dictionary().value("displayName");
        display_name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| self.stem())
    }

    /// Returns the name of its .vmx without the extension, which its files usually share.
    pub fn stem(&self) -> String {
        let stem = self.path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// Returns whether the inventory lists it.
    pub fn is_registered(&self) -> bool {
        self.is_registered
    }

    /// Returns what the files that it names may be, and how they are locked: as usual, or not at
    /// all.
    pub fn rules(&self, no_lock: bool) -> GateRules {
        GateRules {
            allow_paths: self.allow.clone(),
            allow_devices: false,
            no_lock,
        }
    }

    /// Opens a file that its text names.
    pub fn open_file(&self, name: &str, access: Access, rules: &GateRules) -> Result<Opened> {
        Gate::of_folder(self.folder(), rules)?.open(name, access)
    }

    /// Opens one of its disks, with its parents. Its format is VMDK, or what the text says; it is
    /// never guessed: a guest can write any header into its disk.
    pub fn open_disk(&self, disk: &DiskMedium, options: &OpenOptions) -> Result<OpenedChain> {
        let opened = self.open_file(&disk.file, options.access, &options.rules)?;
        if disk.format.is_none() {
            refuse_unrecorded(&opened)?;
        }
        let format = format_named(disk.format.as_deref().unwrap_or("vmdk"))?;
        open_chain_of(format, opened, options)
    }

    /// Returns the path of its list of snapshots.
    pub fn vmsd_path(&self) -> PathBuf {
        self.path.with_extension("vmsd")
    }

    /// Reads its list of snapshots; none if it has no such file.
    pub fn vmsd(&self) -> Result<Option<Vmsd>> {
        let path = self.vmsd_path();
        let Some(bytes) = read_text(&path)? else {
            return Ok(None);
        };
        let parsed = Vmsd::parse(&bytes).map_err(|error| error.in_file(&path))?;
        Ok(Some(parsed))
    }

    /// Returns the machine, its text as it is here, once its .vmx is at another path.
    pub(crate) fn moved_to(&self, path: PathBuf) -> Self {
        Self {
            path,
            vmx: self.vmx.clone(),
            allow: self.allow.clone(),
            is_registered: self.is_registered,
        }
    }

    /// Writes its text, all or nothing.
    pub fn save(&self) -> Result<()> {
        replace_file(&self.path, &self.vmx.to_bytes())
    }
}

impl Inventory {
    /// Refuses a name that a machine with another .vmx has.
    pub(crate) fn refuse_other(&self, name: &str, vmx: &Path) -> Result<()> {
        let mut others = self.entries.iter().filter(|entry| !entry.has_path(vmx));
        match others.find(|entry| is_called(entry, name.as_ref())) {
            None => Ok(()),
            Some(other) => Err(name_taken(name, other)),
        }
    }

    /// Lists a new machine called `name`, then lets `deliver` put its folder where it belongs; if
    /// that fails, it is not listed. In this order, for a machine that is listed and missing can be
    /// made again; one that is there and not listed would be in the way.
    pub(crate) fn admit(
        home: &Home,
        name: &str,
        entry: Entry,
        deliver: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let vmx = entry.vmx.clone();
        Self::change(home, |inventory| {
            inventory.refuse_taken(name, &vmx)?;
            inventory.entries.retain(|listed| listed.vmx != vmx);
            inventory.entries.push(entry);
            Ok(())
        })?;
        deliver().or_else(|error| {
            Self::change(home, |inventory| {
                inventory.entries.retain(|listed| listed.vmx != vmx);
                Ok(())
            })?;
            Err(error)
        })
    }

    /// Refuses a name or a .vmx that another machine has. One that is listed with this very .vmx
    /// and is not there is none.
    pub(crate) fn refuse_taken(&self, name: &str, vmx: &Path) -> Result<()> {
        let is_taken = |entry: &&Entry| {
            let is_missing = entry.vmx == vmx && !entry.current().is_file();
            !is_missing && (entry.has_path(vmx) || is_called(entry, name.as_ref()))
        };
        match self.entries.iter().find(is_taken) {
            None => Ok(()),
            Some(other) => Err(name_taken(name, other)),
        }
    }
}

fn name_taken(name: &str, by: &Entry) -> Error {
    let what = format!(
        "a machine {name:?} is listed already: {}",
        by.current().display()
    );
    Error::new(ErrorKind::Exists, what)
}

/// Refuses what is plainly of another format than the text says; what it is, is only told.
fn refuse_unrecorded(opened: &Opened) -> Result<()> {
    let name = opened.storage.name();
    match detect(&*opened.storage, Path::new(name)) {
        Ok(format) if format.name() != "vmdk" => Err(Error::unsupported(format!(
            "looks like {}, but the VMX does not say that it is no VMDK",
            format.name()
        ))
        .in_file(name)
        .hint(format!(
            "say so: hako vm set VM hako.NODE.format={}",
            format.name()
        ))),
        _ => Ok(()),
    }
}

/// Returns whether the user means a path rather than a name.
fn is_path(what: &Path) -> bool {
    what.as_os_str().as_bytes().contains(&b'/')
        || what
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("vmx"))
}

/// Returns the entry of the machine that the user called so.
pub(crate) fn find_entry<'a>(inventory: &'a Inventory, what: &Path) -> Result<&'a Entry> {
    if !is_path(what) {
        return find_by_name(inventory, what);
    }
    let path = absolute(&vmx_in(what)?)?;
    inventory
        .entry(&path)
        .ok_or_else(|| Error::new(ErrorKind::VmNotFound, "is not in the inventory").in_file(&path))
}

/// Returns the one machine of that name.
fn find_by_name<'a>(inventory: &'a Inventory, name: &Path) -> Result<&'a Entry> {
    let matching: Vec<&Entry> = inventory
        .entries
        .iter()
        .filter(|entry| is_called(entry, name.as_os_str()))
        .collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => Err(
            Error::new(ErrorKind::VmNotFound, format!("no machine {name:?}"))
                .hint("`hako vm list` shows those that there are; or give the path of a .vmx"),
        ),
        several => {
            let paths = several.iter().map(|entry| entry.current());
            let paths: Vec<_> = paths.map(|path| path.display().to_string()).collect();
            Err(
                Error::invalid(format!("{} machines are called {name:?}", several.len()))
                    .hint(format!("say which by its path: {}", paths.join(", "))),
            )
        }
    }
}

/// Returns whether a machine has that name: its folder's, or its display name. One that is being
/// renamed has the old name and the new.
fn is_called(entry: &Entry, name: &OsStr) -> bool {
    let paths = [Some(&entry.vmx), entry.to.as_ref()];
    let of_folder = |path: &PathBuf| path.parent().and_then(Path::file_name) == Some(name);
    let of_file = |path: &PathBuf| path.file_stem() == Some(name);
    paths.into_iter().flatten().any(of_folder)
        || (entry.to.is_some() && paths.into_iter().flatten().any(of_file))
        || shown_name(&entry.current()).is_some_and(|shown| OsStr::new(&shown) == name)
}

/// Returns the name that people know the machine of a .vmx by, as [`Vm::name`] does. Nothing else
/// of the text is looked at, for all machines are asked this when one is looked for.
fn shown_name(path: &Path) -> Option<String> {
    const BOM: &[u8] = b"\xef\xbb\xbf";
    const KEYS: [&[u8]; 2] = [b"displayName", b".encoding"];
    let bytes = read_text(path).ok()??;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let is_wanted = |line: &&[u8]| {
        let line = line.strip_prefix(BOM).unwrap_or(line).trim_ascii_start();
        let begins = |key: &&[u8]| {
            let begin = line.get(..key.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(key))
        };
        KEYS.iter().any(begins)
    };
    let text: Vec<u8> = lines.filter(is_wanted).flatten().copied().collect();
    let shown = Dictionary::parse(&text).ok()?.value("displayName");
    let stem = || Some(path.file_stem()?.to_str()?.to_owned());
    shown.filter(|name| !name.is_empty()).or_else(stem)
}

/// Reads a text of a machine; `None` if there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |error| Error::io("read", error).in_file(path);
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.is_file() => {
            return Err(Error::invalid("is no regular file").in_file(path));
        }
        Ok(metadata) if metadata.len() > MAX_TEXT_BYTES => {
            let what = format!("{} bytes are too many for such a text", metadata.len());
            return Err(Error::new(ErrorKind::Corrupt, what).in_file(path));
        }
        Ok(_) => (),
    }
    std::fs::read(path).map(Some).map_err(failed)
}

pub(crate) fn not_found(path: &Path) -> Error {
    Error::new(ErrorKind::VmNotFound, "no such machine").in_file(path)
}

/// Returns the path from the root on, its folder free of symlinks; the file need not exist.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::io("find", error).in_file(path);
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid("names no file").in_file(path))?;
    match std::fs::canonicalize(folder_of(path)) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::path::absolute(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_without_reading_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.vmx");
        for (text, name) in [
            (
                &b"a = \"1\"\nDisplayName = \"Web |22a|22\"\n"[..],
                "Web \"a\"",
            ),
            (b"  displayName = \"x\"\r\ndisplayName = \"y\"\r\n", "x"),
            (b"\xef\xbb\xbfdisplayName = \"\xc3\xbc\"\n", "\u{fc}"),
            (
                b"displayName = \"\x83|7C\"\n.encoding = \"Shift_JIS\"\n",
                "\u{30dd}",
            ),
            (b"displayName = \"\"\na = \"1\"\n", "web"),
            (b"a = \"1\"\n", "web"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(shown_name(&path).unwrap(), name);
            assert_eq!(Vm::at(&path, &[]).unwrap().name(), name);
        }
        assert_eq!(shown_name(&folder.path().join("none.vmx")), None);
    }
}
