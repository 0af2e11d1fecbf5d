//! What a file system lives through: thousands of small changes, the same for the same seed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use hako_block::testkit::Rng;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, fallocate,
    makedev, mknodat, utimensat,
};

/// A tree that is being used.
pub struct Life {
    root: PathBuf,
    rng: Rng,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    /// Longest file, in bytes.
    longest: u64,
    n: u64,
}

impl Life {
    /// Begins in the empty folder `root`.
    pub fn new(root: &Path, seed: u64, longest: u64) -> Self {
        Self {
            root: root.to_path_buf(),
            rng: Rng::new(seed),
            folders: vec![root.to_path_buf()],
            files: Vec::new(),
            longest,
            n: 0,
        }
    }

    /// Makes so many changes. What the disk has no room for does not happen.
    pub fn go_on(&mut self, n_changes: usize) -> &mut Self {
        for _ in 0..n_changes {
            let _ = self.change();
        }
        self
    }

    /// Makes what every tree should have once: links of all lengths, devices, odd names and times,
    /// a large sparse file, a fragmented one, a deep folder.
    pub fn oddities(&mut self) -> &mut Self {
        let at = self.root.join("odd");
        std::fs::create_dir(&at).unwrap();
        for len in [1, 59, 60, 61, 155, 156, 157, 700, 1000, 1023] {
            symlink("x".repeat(len), at.join(format!("link{len}"))).unwrap();
        }
        for (kind, name) in [
            (FileType::Fifo, "fifo"),
            (FileType::Socket, "socket"),
            (FileType::CharacterDevice, "char"),
            (FileType::BlockDevice, "block"),
        ] {
            for (major, minor) in [(8, 1), (259, 70000)] {
                let path = at.join(format!("{name}{major}"));
                mknodat(CWD, &path, kind, Mode::from(0o640), makedev(major, minor)).unwrap();
            }
        }
        for name in [&"n".repeat(255), "blank and\nnewline", "Ünïcode", "\u{1}"] {
            std::fs::write(at.join(name), name).unwrap();
        }
        for seconds in [-2_000_000_000, -1, 0, 2_147_483_647, 4_000_000_000] {
            set_time(&at.join("fifo8"), seconds);
            let path = at.join(format!("time{seconds}"));
            std::fs::write(&path, "").unwrap();
            set_time(&path, seconds);
        }
        for uid in [0, 65535, 65536, 4_000_000_000] {
            let path = at.join(format!("owner{uid}"));
            std::fs::write(&path, "x".repeat(uid as usize % 3000)).unwrap();
            let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(uid ^ 1));
            rustix::fs::chown(&path, Some(owner), Some(group)).unwrap();
            rustix::fs::chmod(&path, Mode::from(0o6751)).unwrap();
        }
        self.sparse(&at);
        self.fragmented(&at.join("fragmented"), 300);
        let mut deep = at;
        for level in 0..40 {
            deep.push(format!("level{level}"));
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("bottom"), "bottom").unwrap();
        self
    }

    /// Makes a file of `n` pieces with holes between them.
    pub fn fragmented(&mut self, path: &Path, n: u64) {
        let file = File::create(path).unwrap();
        let piece = self.rng.bytes(700);
        for index in (0..n).rev() {
            file.write_all_at(&piece, index * 16384 + index % 5000)
                .unwrap();
        }
    }

    /// Makes a folder of so many names, of which every seventh goes again.
    pub fn crowd(&mut self, name: &str, n_names: usize) -> &mut Self {
        let folder = self.root.join(name);
        std::fs::create_dir(&folder).unwrap();
        let path = |index: usize| folder.join(format!("{}-{index}", "name".repeat(index % 20)));
        for index in 0..n_names {
            File::create(path(index)).unwrap();
        }
        for index in (0..n_names).step_by(7) {
            std::fs::remove_file(path(index)).unwrap();
        }
        self
    }

    fn sparse(&mut self, at: &Path) {
        let sparse = File::create(at.join("sparse")).unwrap();
        for offset in [0, 60_000, 300_001, 5_000_000, 70_000_000] {
            sparse.write_all_at(b"an island", offset).unwrap();
        }
        sparse.set_len(90_000_000).unwrap();
        let reserved = File::create(at.join("reserved")).unwrap();
        reserved.write_all_at(&self.rng.bytes(40_000), 0).unwrap();
        let _ = fallocate(&reserved, FallocateFlags::empty(), 0, 400_000);
        reserved
            .write_all_at(&self.rng.bytes(3000), 200_000)
            .unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&reserved, punch, 8192, 16384);
        let beyond = File::create(at.join("reserved-beyond")).unwrap();
        let _ = fallocate(&beyond, FallocateFlags::KEEP_SIZE, 0, 100_000);
        std::fs::write(at.join("empty"), "").unwrap();
    }

    fn change(&mut self) -> std::io::Result<()> {
        match self.rng.below(0..20) {
            0..7 => self.create(),
            7 => self.create_folder(),
            8..11 => self.remove(),
            11 => self.rename(),
            12 => self.link(),
            13 | 14 => self.append(),
            15 => self.cut(),
            16 => self.punch(),
            17 => self.link_to(),
            18 => self.attribute(),
            _ => self.overwrite(),
        }
    }

    fn new_path(&mut self) -> PathBuf {
        self.n += 1;
        let folder = self.rng.below(0..self.folders.len() as u64) as usize;
        let stem = ["f", "a-name-of-usual-length", &"long".repeat(50)]
            [self.rng.below(0..3) as usize]
            .to_owned();
        self.folders[folder].join(format!("{stem}{}", self.n))
    }

    fn any_file(&mut self) -> std::io::Result<usize> {
        match self.files.len() as u64 {
            0 => Err(std::io::Error::other("no file yet")),
            n => Ok(self.rng.below(0..n) as usize),
        }
    }

    fn len(&mut self) -> u64 {
        let longest = self.longest;
        match self.rng.below(0..4) {
            0 => self.rng.below(0..100),
            1 => self.rng.below(0..5000),
            _ => self.rng.below(0..longest),
        }
    }

    fn create(&mut self) -> std::io::Result<()> {
        let path = self.new_path();
        let len = self.len();
        let content = self.rng.bytes(len as usize);
        self.files.push(path.clone());
        std::fs::write(path, content)
    }

    fn create_folder(&mut self) -> std::io::Result<()> {
        let path = self.new_path();
        std::fs::create_dir(&path)?;
        self.folders.push(path);
        Ok(())
    }

    fn remove(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        std::fs::remove_file(self.files.swap_remove(index))
    }

    fn rename(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        let path = self.new_path();
        std::fs::rename(&self.files[index], &path)?;
        self.files[index] = path;
        Ok(())
    }

    fn link(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        let path = self.new_path();
        std::fs::hard_link(&self.files[index], &path)?;
        self.files.push(path);
        Ok(())
    }

    fn link_to(&mut self) -> std::io::Result<()> {
        let path = self.new_path();
        let len = self.rng.below(1..200) as usize;
        symlink("t".repeat(len), &path)?;
        self.files.push(path);
        Ok(())
    }

    fn append(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        let bytes = self.rng.below(1..9000) as usize;
        let content = self.rng.bytes(bytes);
        open(&self.files[index], true)?.write_all(&content)
    }

    fn overwrite(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        let offset = self.len();
        let content = self.rng.bytes(1000);
        open(&self.files[index], false)?.write_all_at(&content, offset)
    }

    fn cut(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        let len = self.len();
        open(&self.files[index], false)?.set_len(len)
    }

    fn punch(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        let (from, len) = (self.len(), self.len() + 1);
        let file = open(&self.files[index], false)?;
        let how = match self.rng.below(0..3) {
            0 => FallocateFlags::empty(),
            1 => FallocateFlags::ZERO_RANGE,
            _ => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        };
        Ok(fallocate(file, how, from, len)?)
    }

    fn attribute(&mut self) -> std::io::Result<()> {
        let index = self.any_file()?;
        let path = &self.files[index];
        let value = vec![7; self.rng.below(0..300) as usize];
        let name = format!("user.attribute{}", self.rng.below(0..5));
        let _ = rustix::fs::lsetxattr(path, name, &value, rustix::fs::XattrFlags::empty());
        set_time(path, self.rng.below(0..5_000_000_000) as i64);
        Ok(())
    }
}

/// Opens a file for writing, not a link.
fn open(path: &Path, append: bool) -> std::io::Result<File> {
    if std::fs::symlink_metadata(path)?.is_symlink() {
        return Err(std::io::Error::other("a link"));
    }
    OpenOptions::new().write(true).append(append).open(path)
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let _ = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}
