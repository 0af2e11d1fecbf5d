//! The gate: the only way to a file that an image names (an extent file, a parent).
//!
//! Such a name is hostile. It is opened only below the folder of the image that the user named,
//! without `..` and without a symlink that leads out, and never a device node; beyond that only
//! what the user allowed in so many words.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::staging::PART_SUFFIX;
use crate::{Access, Error, ErrorKind, FileStorage, LockMode, Result, Storage};

/// Opens the files that an image names.
pub trait Resolver: Send + Sync {
    /// Opens the file that the image calls `name`, relative to the image's own folder.
    fn open(&self, name: &str, access: Access) -> Result<Opened>;

    /// Replaces the small file `name` of the image's own folder by `bytes`, all or nothing, and
    /// returns once that is on stable storage.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Returns the names of the regular files in the image's own folder, sorted: where a format
    /// that records no name for its parent has it looked for.
    fn names(&self) -> Result<Vec<String>>;

    /// Creates the empty file `name` in the image's own folder, for an image that needs one more;
    /// one that exists is [`ErrorKind::Exists`]. Its name is on stable storage.
    fn create_new(&self, name: &str) -> Result<Arc<dyn Storage>> {
        Err(Error::read_only().in_file(name))
    }

    /// Removes the file `name` of the image's own folder, which the image no longer needs.
    fn remove(&self, name: &str) -> Result<()> {
        Err(Error::read_only().in_file(name))
    }
}

/// A file that a [`Resolver`] opened.
pub struct Opened {
    /// The bytes.
    pub storage: Arc<dyn Storage>,
    /// Its name within its own folder, for [`Resolver::replace`].
    pub name: String,
    /// What opens the names found inside it.
    pub resolver: Arc<dyn Resolver>,
}

/// What the user allows beyond the folder of the image.
#[derive(Debug, Clone, Default)]
pub struct GateRules {
    /// Folders below which named files may lie besides.
    pub allow_paths: Vec<PathBuf>,
    /// Whether a named file may be a block device.
    pub allow_devices: bool,
    /// Whether to open without locks (an image in use, at the user's risk).
    pub no_lock: bool,
}

/// The gate of one folder.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The folder the user named, canonical; the same for a whole chain.
    root: PathBuf,
    /// The folder that names are relative to, canonical.
    folder: PathBuf,
    rules: Arc<GateRules>,
}

impl Gate {
    /// Opens the file that the user named, with a gate for what it names in turn. The user may
    /// name anything: a device, a path through symlinks.
    pub fn open_user(path: &Path, access: Access, rules: &GateRules) -> Result<Opened> {
        let lock = if rules.no_lock {
            LockMode::None
        } else {
            access.lock()
        };
        let storage = FileStorage::open(path, access, lock)?;
        let gate = Gate::of_folder(folder_of(path), rules)?;
        Ok(Opened {
            storage: Arc::new(storage),
            name: file_name(path)?,
            resolver: Arc::new(gate),
        })
    }

    /// Returns the gate of a folder that the user named: the names that a text in it has.
    pub fn of_folder(folder: &Path, rules: &GateRules) -> Result<Self> {
        let folder = canonical(folder)?;
        Ok(Gate {
            root: folder.clone(),
            folder,
            rules: Arc::new(rules.clone()),
        })
    }

    /// Checks a name and returns the canonical path of what it leads to.
    fn resolve(&self, name: &str) -> Result<PathBuf> {
        if name.is_empty() || name.contains('\0') {
            return Err(refused(name, "is no file name"));
        }
        let path = self.folder.join(name);
        let target = canonical(&path)?;
        if self.rules.allow_paths.iter().any(|allowed| {
            std::fs::canonicalize(allowed).is_ok_and(|allowed| target.starts_with(allowed))
        }) {
            return Ok(target);
        }
        if Path::new(name)
            .components()
            .any(|part| part == Component::ParentDir)
        {
            return Err(
                refused(name, "leads out of the image's folder by `..`").hint(allow_hint(&target))
            );
        }
        let is_device =
            std::fs::metadata(&target).is_ok_and(|metadata| metadata.file_type().is_block_device());
        if target.starts_with(&self.root) || (is_device && self.rules.allow_devices) {
            return Ok(target);
        }
        let why = if is_device {
            "is a device node"
        } else if Path::new(name).is_absolute() {
            "is an absolute path out of the image's folder"
        } else {
            "leads out of the image's folder through a symlink"
        };
        let hint = if is_device {
            "allow it with --allow-devices".to_owned()
        } else {
            allow_hint(&target)
        };
        Err(refused(name, why).hint(hint))
    }

    /// Returns the path of a plain name in the image's own folder.
    fn own_path(&self, name: &str) -> Result<PathBuf> {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(_)), None) if !name.contains('\0') => {
                Ok(self.folder.join(name))
            }
            _ => Err(refused(name, "is not in the image's own folder")),
        }
    }
}

impl Resolver for Gate {
    fn open(&self, name: &str, access: Access) -> Result<Opened> {
        let path = self.resolve(name)?;
        let metadata = std::fs::symlink_metadata(&path)
            .map_err(|error| Error::io("open", error).in_file(&path))?;
        let kind = metadata.file_type();
        if kind.is_block_device() && !self.rules.allow_devices {
            return Err(refused(name, "is a device node").hint("allow it with --allow-devices"));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(refused(name, "is not a regular file"));
        }
        let lock = if self.rules.no_lock {
            LockMode::None
        } else {
            access.lock()
        };
        let storage = FileStorage::open(&path, access, lock)?;
        // What was checked must be what was opened, even if the folder changed in between.
        if kind.is_file()
            && storage
                .id()
                .is_some_and(|id| (id.device, id.inode) != (metadata.dev(), metadata.ino()))
        {
            return Err(refused(name, "changed while it was being opened"));
        }
        let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let gate = Gate {
            folder,
            ..self.clone()
        };
        Ok(Opened {
            storage: Arc::new(storage),
            name: file_name(&path)?,
            resolver: Arc::new(gate),
        })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        replace_file(&self.own_path(name)?, bytes)
    }

    fn names(&self) -> Result<Vec<String>> {
        let names = file_names(&self.folder)?.into_iter();
        Ok(names.filter_map(|name| name.into_string().ok()).collect())
    }

    fn create_new(&self, name: &str) -> Result<Arc<dyn Storage>> {
        let path = self.own_path(name)?;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| Error::io("create", error).in_file(&path))?;
        sync_folder_of(&path)?;
        Ok(Arc::new(FileStorage::from_file(file, &path, true)?))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.own_path(name)?;
        std::fs::remove_file(&path).map_err(|error| Error::io("remove", error).in_file(&path))?;
        sync_folder_of(&path)
    }
}

/// Returns the names of the regular files in a folder, sorted. What a run is writing, or a killed
/// one left behind, is none: it is no image yet.
pub fn file_names(folder: &Path) -> Result<Vec<OsString>> {
    let failed = |error| Error::io("list", error).in_file(folder);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let is_part = name.to_string_lossy().ends_with(PART_SUFFIX);
        if entry.file_type().is_ok_and(|kind| kind.is_file()) && !is_part {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Replaces a file by `bytes`, all or nothing: written beside, synced, renamed, folder synced.
/// Keeps the permission bits of what was there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    // Through a symlink the file behind it is replaced, not the link.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let failed = |doing: &str, error: std::io::Error| Error::io(doing, error).in_file(path);
    let beside = path.with_file_name(format!(".{}{PART_SUFFIX}", file_name(path)?));
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&beside)
        .map_err(|error| failed("write beside", error))?;
    let written = (|| {
        if let Ok(old) = std::fs::metadata(path) {
            file.set_permissions(old.permissions())?;
            // Only root can give a file away; anybody else keeps what he writes.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if let Err(error) = written {
        let _ = std::fs::remove_file(&beside);
        return Err(failed("replace", error));
    }
    sync_folder_of(path)
}

/// Returns the folder that a path's last name is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Returns once the folder's entries are on stable storage.
pub fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io("sync the folder", error).in_file(folder))
}

/// Returns the last part of a path as text.
pub(crate) fn file_name(path: &Path) -> Result<String> {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .ok_or_else(|| Error::invalid("names no file").in_file(path))
}

fn canonical(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|error| Error::io("open", error).in_file(path))
}

fn refused(name: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Gate,
        format!("refused: the image names it, and it {why}"),
    )
    .in_file(name)
}

fn allow_hint(target: &Path) -> String {
    let folder = target.parent().unwrap_or(target);
    format!(
        "if you trust the image, add --allow-path {}",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for sub in ["vm/sub", "other"] {
                std::fs::create_dir_all(folder.path().join(sub)).unwrap();
            }
            for file in ["vm/top", "vm/sub/base", "other/base"] {
                std::fs::write(folder.path().join(file), b"x").unwrap();
            }
            std::os::unix::fs::symlink("../other/base", folder.path().join("vm/out")).unwrap();
            std::os::unix::fs::symlink("sub/base", folder.path().join("vm/in")).unwrap();
            Self { folder }
        }

        fn open(&self, name: &str, rules: &GateRules) -> Result<Opened> {
            let top = self.folder.path().join("vm/top");
            Gate::open_user(&top, Access::ReadOnly, rules)?
                .resolver
                .open(name, Access::ReadOnly)
        }

        fn refuses(&self, name: &str) {
            let error = self.open(name, &GateRules::default()).err().expect(name);
            assert_eq!(error.kind(), ErrorKind::Gate, "{name}: {error}");
        }
    }

    #[test]
    fn names_below_the_folder_open() {
        let world = World::new();
        for name in ["top", "sub/base", "./sub/base", "in"] {
            world.open(name, &GateRules::default()).unwrap();
        }
        let inside = world.folder.path().join("vm/sub/base");
        world
            .open(inside.to_str().unwrap(), &GateRules::default())
            .unwrap();
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let world = World::new();
        for name in [
            "../other/base",
            "sub/../top",
            "out",
            "/etc/passwd",
            "/dev/null",
            "",
            "sub",
        ] {
            world.refuses(name);
        }
        let outside = world.folder.path().join("other/base");
        world.refuses(outside.to_str().unwrap());
    }

    #[test]
    fn allowed_folder_opens_and_its_own_names_stay_gated() {
        let world = World::new();
        let rules = GateRules {
            allow_paths: vec![world.folder.path().join("other")],
            ..GateRules::default()
        };
        let opened = world.open("../other/base", &rules).unwrap();
        assert!(opened.resolver.open("base", Access::ReadOnly).is_ok());
        assert!(
            opened
                .resolver
                .open("/etc/passwd", Access::ReadOnly)
                .is_err()
        );
    }

    #[test]
    fn file_is_created_and_removed_in_the_own_folder_only() {
        let world = World::new();
        let top = world.folder.path().join("vm/top");
        let gate = Gate::open_user(&top, Access::ReadWrite, &GateRules::default())
            .unwrap()
            .resolver;
        gate.create_new("new").unwrap().write_at(0, b"x").unwrap();
        assert_eq!(
            gate.create_new("new").err().unwrap().kind(),
            ErrorKind::Exists
        );
        gate.remove("new").unwrap();
        assert!(!world.folder.path().join("vm/new").exists());
        for name in ["sub/new", "../new", "..", "", "/new"] {
            assert_eq!(gate.create_new(name).err().unwrap().kind(), ErrorKind::Gate);
            assert_eq!(gate.remove(name).err().unwrap().kind(), ErrorKind::Gate);
        }
    }

    #[test]
    fn replace_keeps_permissions_and_leaves_nothing_beside() {
        use std::os::unix::fs::PermissionsExt;
        let world = World::new();
        let path = world.folder.path().join("vm/top");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        replace_file(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(!path.with_file_name(".top.hako-part").exists());
    }
}
