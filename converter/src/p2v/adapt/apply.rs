//! Carrying a plan out by what hako itself writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hako_block::{BlockImage, Error, ErrorKind, Result};
use hako_edit::{Ext, Fat, Intent, Look, Staged, Writes, check, check_tree};
use hako_guest::{FileSystem, Found, FoundVolume, Keys, Volumes};

use super::verify::{Changed, all_there, in_volume};
use super::{Change, Guest, Plan, What, records};

/// A plan that is to be carried out on the disks that the guest was found on.
pub struct Job<'a> {
    /// The guest.
    pub guest: Guest<'a>,
    /// What is to be changed.
    pub plan: &'a Plan,
    /// Whether what was there is kept inside.
    pub keep: bool,
    /// The disks.
    pub disks: &'a [Arc<dyn BlockImage>],
    /// What opened encrypted volumes on them.
    pub keys: &'a Keys,
}

/// What is to be written to the disks: all of it is checked, and nothing of it is there yet.
pub struct Prepared {
    pub(super) writes: Writes,
    /// What the user has to see to.
    pub remarks: Vec<String>,
}

impl Prepared {
    /// Returns how many bytes of the disks that are.
    pub fn n_bytes(&self) -> u64 {
        self.writes.n_bytes()
    }

    /// Writes it, at once: what is cut off is completed by [`Intent::complete`].
    pub fn write(&self, intent: &Intent, disks: &[Arc<dyn BlockImage>]) -> Result<()> {
        match self.writes.is_empty() {
            true => Ok(()),
            false => intent.carry_out(&self.writes, disks),
        }
    }
}

impl Job<'_> {
    /// Returns all changes: those of the plan, and those that write them down.
    pub(super) fn changes(&self) -> Result<Vec<Change>> {
        let mut changes = self.plan.changes.clone();
        if self.keep && !changes.is_empty() {
            changes.extend(records::of_plan(&self.guest, self.plan)?);
        }
        Ok(changes)
    }

    /// Makes the changes in memory, and has the reader look at them. `time`: seconds since 1970.
    ///
    /// Errors: [`ErrorKind::Unsupported`] for a file system that is not written (XFS, btrfs), not in
    /// its state, or not where it is (on a mirror): [`Job::by_the_guest`] may do it;
    /// [`ErrorKind::NoSpace`] in one of them.
    pub fn in_memory(&self, time: u64) -> Result<Prepared> {
        let changes = self.changes()?;
        let mut hand = Hand {
            guest: self.guest,
            volumes: BTreeMap::new(),
            made: BTreeMap::new(),
            time: u32::try_from(time).unwrap_or(u32::MAX),
        };
        for change in &changes {
            let named = |error: Error| error.place(change.path.clone());
            hand.change(change).map_err(named)?;
        }
        let mut writes = Writes::new(self.disks);
        let mut changed = Vec::new();
        for (name, edited) in std::mem::take(&mut hand.volumes) {
            let staged = Arc::clone(&edited.staged);
            let named = |error: Error| error.place(name.clone());
            changed.push(edited.finish(hand.time).map_err(named)?);
            writes.add(&staged, self.disks).map_err(named)?;
        }
        all_there(self.guest.root, self.guest.volumes, &changed, &changes)?;
        let remarks = Vec::new();
        Ok(Prepared { writes, remarks })
    }
}

/// A volume that is changed in memory.
struct Edited {
    staged: Arc<Staged>,
    before: Arc<dyn FileSystem>,
    writer: Writer,
}

enum Writer {
    Ext(Box<Ext>),
    /// And the paths that change.
    Fat(Fat, BTreeSet<String>),
}

impl Edited {
    fn of(volume: &FoundVolume) -> Result<Self> {
        let (Some(bytes), Some(fs)) = (&volume.volume, volume.file_system()) else {
            return Err(Error::unsupported("no file system that hako reads"));
        };
        let staged = Arc::new(Staged::new(Arc::clone(bytes)));
        let writer = match fs.info().kind {
            "ext2" | "ext3" | "ext4" => Writer::Ext(Box::new(Ext::open(Arc::clone(&staged))?)),
            "vfat" => Writer::Fat(Fat::open(Arc::clone(&staged))?, BTreeSet::new()),
            kind => {
                let what = format!("hako does not write {kind}");
                return Err(Error::unsupported(what));
            }
        };
        Ok(Self {
            staged,
            before: Arc::clone(fs),
            writer,
        })
    }

    /// Ends the changes, and has them looked at.
    fn finish(self, time: u32) -> Result<Changed> {
        let after = match self.writer {
            Writer::Ext(ext) => check(&self.staged, &self.before, &ext.finish(time)?)?,
            Writer::Fat(_, paths) => check_tree(&self.staged, &self.before, &paths)?,
        };
        Ok((self.before, after))
    }
}

/// What changes are made with.
struct Hand<'a> {
    guest: Guest<'a>,
    /// By the volume's short name.
    volumes: BTreeMap<String, Edited>,
    /// Folders that were made in ext: their volume and inode.
    made: BTreeMap<String, (String, u32)>,
    time: u32,
}

/// Where a change is made.
enum Spot {
    /// In ext: the inode, of a folder or a file.
    Inode(String, u32),
    /// In FAT: the path from its root.
    Path(String, String),
}

impl Hand<'_> {
    fn change(&mut self, change: &Change) -> Result<()> {
        match &change.what {
            What::Replace { .. } | What::Append { .. } | What::Cut { .. } => {
                let spot = self.spot_of_file(&change.path)?;
                self.change_file(spot, &change.what)
            }
            What::Create { .. } | What::Folder { .. } | What::Link { .. } | What::Remove { .. } => {
                let (folder, name) = change
                    .path
                    .rsplit_once('/')
                    .ok_or_else(|| Error::invalid("no path of a file"))?;
                let spot = self.spot_of_folder(folder)?;
                self.change_name(spot, name, change)
            }
        }
    }

    fn change_file(&mut self, spot: Spot, what: &What) -> Result<()> {
        let time = self.time;
        match spot {
            Spot::Inode(volume, inode) => {
                let ext = self.ext(&volume)?;
                match what {
                    What::Append { len, bytes } => ext.append(inode, *len, bytes, time),
                    What::Cut { len } => ext.cut(inode, *len, time),
                    What::Replace { new, .. } => ext.replace(inode, new, time),
                    _ => Ok(()),
                }
            }
            Spot::Path(volume, path) => {
                let fat = self.fat(&volume, &path)?;
                match what {
                    What::Append { len, bytes } => fat.append(&path, *len, bytes),
                    What::Cut { len } => fat.cut(&path, *len),
                    What::Replace { new, .. } => fat.write(&path, new),
                    _ => Ok(()),
                }
            }
        }
    }

    fn change_name(&mut self, spot: Spot, name: &str, change: &Change) -> Result<()> {
        let look = |mode: u16| Look {
            mode,
            time: self.time,
        };
        let (any, time) = (look(0), self.time);
        match spot {
            Spot::Inode(volume, folder) => {
                let ext = self.ext(&volume)?;
                let name = name.as_bytes();
                match &change.what {
                    What::Create { bytes, mode } => {
                        ext.create(folder, name, bytes, Look { mode: *mode, ..any })?;
                    }
                    What::Folder { mode } => {
                        let inode = ext.make_folder(folder, name, Look { mode: *mode, ..any })?;
                        self.made.insert(change.path.clone(), (volume, inode));
                    }
                    What::Link { target } => {
                        ext.link(folder, name, target.as_bytes(), any)?;
                    }
                    _ => ext.remove(folder, name, time)?,
                }
                Ok(())
            }
            Spot::Path(volume, folder) => {
                let path = format!("{folder}/{name}");
                let fat = self.fat(&volume, &path)?;
                match &change.what {
                    What::Create { bytes, .. } => fat.write(&path, bytes),
                    What::Folder { .. } => fat.make_folder(&path),
                    What::Link { .. } => Err(Error::unsupported("FAT has no links")),
                    _ => fat.remove(&path),
                }
            }
        }
    }

    fn spot_of_file(&self, path: &str) -> Result<Spot> {
        if let Some((volume, inner)) = in_volume(self.guest.volumes, path)? {
            return Ok(Spot::Path(volume.name.clone(), inner.to_owned()));
        }
        self.spot(path, &self.guest.tree().find(path.as_bytes())?)
    }

    fn spot_of_folder(&self, path: &str) -> Result<Spot> {
        if let Some((volume, inode)) = self.made.get(path) {
            return Ok(Spot::Inode(volume.clone(), *inode));
        }
        // The root of a volume: `UUID=…:` without its slash.
        let named = format!("{path}/");
        if let Some((volume, inner)) = in_volume(self.guest.volumes, &named)? {
            let inner = inner.trim_end_matches('/').to_owned();
            return Ok(Spot::Path(volume.name.clone(), inner));
        }
        match self.guest.tree().find(named.as_bytes()) {
            Ok(found) => self.spot(path, &found),
            // One that is made in FAT: by its path.
            Err(error) if error.kind() == ErrorKind::NotFound => self.fat_below(path, error),
            Err(error) => Err(error),
        }
    }

    /// Returns the place of a path that is not there yet in the FAT that is mounted above it.
    fn fat_below(&self, path: &str, error: Error) -> Result<Spot> {
        let mounts = self.guest.root.mounts.iter();
        let mount = mounts
            .filter(|mount| mount.kind == "vfat" && path.starts_with(&format!("{}/", mount.path)))
            .max_by_key(|mount| mount.path.len());
        match mount {
            Some(mount) => {
                let inner = path.get(mount.path.len()..).unwrap_or_default();
                Ok(Spot::Path(mount.volume.clone(), inner.to_owned()))
            }
            None => Err(error),
        }
    }

    fn spot(&self, path: &str, found: &Found) -> Result<Spot> {
        let volume = volume_of(self.guest.volumes, found.fs())?;
        if found.fs().info().kind != "vfat" {
            let inode = u32::try_from(found.node().number);
            let inode = inode.map_err(|_| Error::unsupported("an inode of that number"))?;
            return Ok(Spot::Inode(volume.name.clone(), inode));
        }
        let mounts = self.guest.root.mounts.iter();
        let mut own = mounts.filter(|mount| mount.volume == volume.name);
        let inner = own.find_map(|mount| path.strip_prefix(mount.path.trim_end_matches('/')));
        match inner {
            Some(inner) => Ok(Spot::Path(volume.name.clone(), inner.to_owned())),
            None => Err(Error::unsupported("a file of FAT that a link leads to")),
        }
    }

    fn edited(&mut self, name: &str) -> Result<&mut Edited> {
        if !self.volumes.contains_key(name) {
            let volume = self
                .guest
                .volumes
                .list()
                .iter()
                .find(|found| found.name == name);
            let volume = volume.ok_or_else(|| Error::invalid("no such volume"))?;
            let edited = Edited::of(volume).map_err(|error| error.place(name.to_owned()))?;
            self.volumes.insert(name.to_owned(), edited);
        }
        let edited = self.volumes.get_mut(name);
        edited.ok_or_else(|| Error::invalid("no such volume"))
    }

    fn ext(&mut self, name: &str) -> Result<&mut Ext> {
        match &mut self.edited(name)?.writer {
            Writer::Ext(ext) => Ok(ext),
            Writer::Fat(..) => Err(Error::unsupported("FAT has no inodes")),
        }
    }

    fn fat(&mut self, name: &str, path: &str) -> Result<&Fat> {
        match &mut self.edited(name)?.writer {
            Writer::Fat(fat, paths) => {
                let path = path.trim_matches('/').to_lowercase();
                paths.insert(format!("/{path}"));
                Ok(fat)
            }
            Writer::Ext(_) => Err(Error::unsupported("a path in an ext file system")),
        }
    }
}

fn volume_of<'v>(volumes: &'v Volumes, fs: &Arc<dyn FileSystem>) -> Result<&'v FoundVolume> {
    let is_it = |found: &&FoundVolume| found.file_system().is_some_and(|own| Arc::ptr_eq(own, fs));
    let found = volumes.list().iter().find(is_it);
    found.ok_or_else(|| Error::unsupported("its file system is on none of the volumes"))
}
