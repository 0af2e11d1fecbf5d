//! Files of the host as `cp` makes them: by open folders, so that no link on the way is followed,
//! whoever puts one there; never half-written under their final names.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result};
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid,
    fchmod, fchown, flock, fstat, linkat, mkdirat, openat, renameat, renameat_with, statat,
    symlinkat, unlinkat, utimensat,
};

use hako_guest::Stat;

/// The longest name that Linux's file systems take, in bytes.
const LONGEST_NAME: usize = 255;

/// How names are made in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// At once: the folder itself has a name that is not final yet.
    Hidden,
    /// By renaming what is whole, where nothing has the name.
    New,
    /// By renaming what is whole over a file or link that has it.
    Replacing,
}

/// What of a guest's file the host's one keeps.
#[derive(Debug, Clone)]
pub struct Kept {
    mode: Mode,
    times: Timestamps,
    owner: Option<(u32, u32)>,
}

impl Kept {
    /// Returns mode and time; with `owner` the owner and the set-id bits, too: without him they
    /// would give away the rights of whoever runs the copy.
    pub fn of(stat: &Stat, owner: bool) -> Self {
        let bits = if owner { 0o7777 } else { 0o777 };
        let time = Timespec {
            tv_sec: stat.modified.seconds,
            tv_nsec: stat.modified.nanoseconds.into(),
        };
        Self {
            mode: Mode::from_raw_mode(stat.mode & bits),
            times: Timestamps {
                last_access: time,
                last_modification: time,
            },
            owner: owner.then_some((stat.uid, stat.gid)),
        }
    }

    fn give(&self, file: &OwnedFd) -> rustix::io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        fchmod(file, self.mode)?;
        rustix::fs::futimens(file, &self.times)
    }
}

/// An open folder.
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at a path that the user gave.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty());
        Ok(Self {
            fd: fd.map_err(|error| Error::io("open the folder", error).in_file(path))?,
            path: path.to_path_buf(),
        })
    }

    /// Returns the path of a name in it.
    pub fn path_of(&self, name: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(name))
    }

    /// Makes a folder in it; one that is there does where names are replaced. Until
    /// [`Folder::finish`] only its owner may enter it.
    pub fn folder(&self, name: &[u8], making: Making) -> Result<Self> {
        let failed = |error| self.failed("create the folder", name, error);
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) if making == Making::Replacing => {}
            made => made.map_err(failed)?,
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self {
            fd: openat(&self.fd, name, flags, Mode::empty()).map_err(failed)?,
            path: self.path_of(name),
        })
    }

    /// Gives the folder what is kept.
    pub fn finish(&self, kept: &Kept) -> Result<()> {
        kept.give(&self.fd)
            .map_err(|error| Error::io("set mode and time", error).in_file(&self.path))
    }

    /// Returns once everything in the folder's file system is on stable storage.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.fd).map_err(|error| Error::io("sync", error).in_file(&self.path))
    }

    /// Makes an empty file in it, that has its name when it is committed.
    pub fn file(&self, name: &[u8], making: Making) -> Result<NewFile<'_>> {
        let part = part_name(name, making);
        let created = match self.create(&part) {
            // What a killed run left behind goes, what a living one is writing does not.
            Err(rustix::io::Errno::EXIST) if making != Making::Hidden => {
                self.clear(&part)?;
                self.create(&part)
            }
            created => created,
        };
        let fd = created.map_err(|error| self.failed("create", name, error))?;
        if making != Making::Hidden {
            self.lock(&fd, &part)?;
        }
        Ok(NewFile {
            folder: self,
            name: name.to_vec(),
            part,
            making,
            file: File::from(fd),
            is_done: false,
        })
    }

    fn create(&self, part: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(&self.fd, part, flags, Mode::RUSR | Mode::WUSR)
    }

    /// Removes a part that nobody is writing.
    fn clear(&self, part: &[u8]) -> Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::RDONLY | OFlags::CLOEXEC;
        if let Ok(fd) = openat(&self.fd, part, flags, Mode::empty()) {
            self.lock(&fd, part)?;
        }
        let removed = unlinkat(&self.fd, part, AtFlags::empty());
        removed.map_err(|error| self.failed("clear what a killed run left behind", part, error))
    }

    /// Locks a part. Errors: locked if another run has it, or has cleared it.
    fn lock(&self, fd: &OwnedFd, part: &[u8]) -> Result<()> {
        let locked = flock(fd, FlockOperation::NonBlockingLockExclusive);
        let here = statat(&self.fd, part, AtFlags::SYMLINK_NOFOLLOW);
        let is_ours = match (fstat(fd), here) {
            (Ok(ours), Ok(named)) => (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino),
            _ => false,
        };
        // Some network file systems have no locks to give.
        if locked == Err(rustix::io::Errno::WOULDBLOCK) || !is_ours {
            let what = "another hako is writing this target";
            return Err(Error::new(ErrorKind::Locked, what).in_file(self.path_of(part)));
        }
        Ok(())
    }

    /// Makes a symbolic link in it, whose target is not looked at.
    pub fn symlink(&self, name: &[u8], target: &[u8], kept: &Kept, making: Making) -> Result<()> {
        let failed = |error| self.failed("create the link", name, error);
        let part = part_name(name, making);
        symlinkat(target, &self.fd, &part[..]).map_err(failed)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((uid, gid)) = kept.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(&self.fd, &part[..], Some(uid), Some(gid), flags)
                .map_err(failed)?;
        }
        utimensat(&self.fd, &part[..], &kept.times, flags).map_err(failed)?;
        let named = self.give_name(&part, name, making);
        if named.is_err() && making != Making::Hidden {
            let _ = unlinkat(&self.fd, &part[..], AtFlags::empty());
        }
        named.map_err(failed)
    }

    /// Gives the file at a path in `root` another name, in this folder.
    pub fn hard_link(&self, name: &[u8], root: &Self, path: &Path) -> Result<()> {
        linkat(&root.fd, path, &self.fd, name, AtFlags::empty())
            .map_err(|error| self.failed("create the link", name, error))
    }

    fn give_name(&self, part: &[u8], name: &[u8], making: Making) -> rustix::io::Result<()> {
        match making {
            Making::Hidden => Ok(()),
            Making::New => renameat_with(&self.fd, part, &self.fd, name, RenameFlags::NOREPLACE),
            Making::Replacing => renameat(&self.fd, part, &self.fd, name),
        }
    }

    fn failed(&self, doing: &str, name: &[u8], error: rustix::io::Errno) -> Error {
        let error = Error::io(doing, error).in_file(self.path_of(name));
        match error.kind() {
            ErrorKind::Exists => error.hint("--force replaces it"),
            _ => error,
        }
    }
}

/// The name under which something is made.
fn part_name(name: &[u8], making: Making) -> Vec<u8> {
    const SUFFIX: &[u8] = b".hako-part";
    if making == Making::Hidden {
        return name.to_vec();
    }
    let room = LONGEST_NAME - SUFFIX.len() - 1;
    let stem = name.get(..room).unwrap_or(name);
    [b".", stem, SUFFIX].concat()
}

/// A file that is being written. Dropping it removes it.
pub struct NewFile<'a> {
    folder: &'a Folder,
    name: Vec<u8>,
    part: Vec<u8>,
    making: Making,
    file: File,
    is_done: bool,
}

impl NewFile<'_> {
    /// Returns the file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns an error of an operation on it.
    pub fn failed(&self, doing: &str, error: std::io::Error) -> Error {
        Error::io(doing, error).in_file(self.folder.path_of(&self.name))
    }

    /// Gives it what is kept, and its name. Outside of hidden folders it is on stable storage then.
    pub fn commit(mut self, kept: &Kept) -> Result<()> {
        let fd = self
            .file
            .try_clone()
            .map_err(|error| self.failed("open", error))?;
        kept.give(&fd.into())
            .map_err(|error| self.failed("set mode and time", error.into()))?;
        if self.making != Making::Hidden {
            self.file
                .sync_all()
                .map_err(|error| self.failed("sync", error))?;
        }
        self.folder
            .give_name(&self.part, &self.name, self.making)
            .map_err(|error| self.folder.failed("create", &self.name, error))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = unlinkat(&self.folder.fd, &self.part[..], AtFlags::empty());
        }
    }
}

/// Lets a half-made tree be removed, whatever modes its folders were given.
pub fn make_removable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_removable(&entry.path());
        }
    }
}
