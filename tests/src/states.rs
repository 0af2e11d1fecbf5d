//! A machine's files read in process: what each of its disks shows now and in each snapshot.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hako_block::{Access, BlockImage, Gate, GateRules, Resolver};
use hako_formats::machine::{DiskMedium, DiskMode};
use hako_formats::vmsd::Vmsd;
use hako_formats::vmx::Vmx;
use hako_formats::{OpenOptions, OpenedChain, format_named, open_chain_of};

/// What disks show, by node.
pub type Content = BTreeMap<String, Vec<u8>>;

/// A machine's texts, and the disks that they name.
pub struct Files {
    folder: PathBuf,
    /// Below it its disks may stand on others'.
    home: PathBuf,
    /// Its VMX.
    pub vmx: Vmx,
    /// Its list of snapshots.
    pub vmsd: Option<Vmsd>,
}

impl Files {
    /// Reads the texts of the machine `name` in the home of machines.
    #[track_caller]
    pub fn of(home: &Path, name: &str) -> Self {
        let folder = home.join("vms").join(name);
        let path = folder.join(format!("{name}.vmx"));
        let vmx = std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let vmsd = std::fs::read(path.with_extension("vmsd")).ok();
        Self {
            folder,
            home: home.to_path_buf(),
            vmx: Vmx::parse(&vmx).unwrap(),
            vmsd: vmsd.map(|bytes| Vmsd::parse(&bytes).unwrap()),
        }
    }

    /// Returns its disks, by node.
    pub fn disks(&self) -> BTreeMap<String, DiskMedium> {
        let machine = self.vmx.machine();
        let disks = machine.disks();
        disks
            .map(|(node, disk)| (node.to_string(), disk.clone()))
            .collect()
    }

    /// Returns the disks that snapshots hold, by node, of each snapshot by its uid.
    pub fn held(&self) -> BTreeMap<u32, BTreeMap<String, DiskMedium>> {
        let snapshots = self.vmsd.iter().flat_map(Vmsd::snapshots);
        snapshots
            .map(|snapshot| {
                let disks = snapshot.disks.iter();
                let disks = disks.map(|disk| (disk.node.to_string(), disk.medium()));
                (snapshot.uid, disks.collect())
            })
            .collect()
    }

    /// Opens a disk with its parents.
    #[track_caller]
    pub fn open(&self, disk: &DiskMedium, access: Access) -> OpenedChain {
        let rules = GateRules {
            allow_paths: vec![self.home.clone()],
            ..GateRules::default()
        };
        let gate = Gate::of_folder(&self.folder, &rules).unwrap();
        let opened = gate.open(&disk.file, access).unwrap();
        let format = format_named(disk.format.as_deref().unwrap_or("vmdk")).unwrap();
        let options = OpenOptions {
            access,
            rules,
            ..OpenOptions::default()
        };
        open_chain_of(format, opened, &options)
            .unwrap_or_else(|error| panic!("{}: {error}", disk.file))
    }

    /// Returns what a disk shows.
    #[track_caller]
    pub fn content(&self, disk: &DiskMedium) -> Vec<u8> {
        let opened = self.open(disk, Access::ReadOnly);
        let mut bytes = vec![0; opened.chain.info().virtual_size as usize];
        opened.chain.read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Writes into a disk as a guest would.
    #[track_caller]
    pub fn write(&self, disk: &DiskMedium, offset: u64, bytes: &[u8]) {
        let opened = self.open(disk, Access::ReadWrite);
        opened.chain.write_at(offset, bytes).unwrap();
        opened.chain.flush().unwrap();
        drop(opened);
        self.until_unlocked();
    }

    /// Waits until nobody has a lock on its files. What another test starts holds ours between its fork
    /// and its exec.
    fn until_unlocked(&self) {
        let files = std::fs::read_dir(&self.folder).unwrap();
        let inodes: Vec<String> = files
            .map(|file| format!(":{} ", file.unwrap().metadata().unwrap().ino()))
            .collect();
        let is_locked =
            |line: &str| line.contains("OFDLCK") && inodes.iter().any(|inode| line.contains(inode));
        let end = Instant::now() + Duration::from_secs(60);
        while std::fs::read_to_string("/proc/locks")
            .unwrap()
            .lines()
            .any(is_locked)
        {
            assert!(Instant::now() < end, "{:?} stays locked", self.folder);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns what all disks show.
    #[track_caller]
    pub fn present(&self) -> Content {
        let disks = self.disks().into_iter();
        disks
            .map(|(node, disk)| (node, self.content(&disk)))
            .collect()
    }

    /// Returns what all snapshots hold, by uid.
    #[track_caller]
    pub fn snapshots(&self) -> BTreeMap<u32, Content> {
        let content = |disks: BTreeMap<String, DiskMedium>| -> Content {
            let disks = disks.into_iter();
            disks
                .map(|(node, disk)| (node, self.content(&disk)))
                .collect()
        };
        let held = self.held().into_iter();
        held.map(|(uid, disks)| (uid, content(disks))).collect()
    }

    /// Returns the nodes of the disks that snapshots leave alone.
    pub fn independent(&self) -> Vec<String> {
        let is_independent = |disk: &DiskMedium| {
            matches!(
                disk.mode,
                DiskMode::IndependentPersistent | DiskMode::IndependentNonpersistent
            )
        };
        let disks = self.disks().into_iter();
        disks
            .filter(|(_, disk)| is_independent(disk))
            .map(|(node, _)| node)
            .collect()
    }

    /// Returns the layers of a disk, the top first: path and format of each.
    #[track_caller]
    pub fn layers(&self, disk: &DiskMedium) -> Vec<(PathBuf, &'static str)> {
        let opened = self.open(disk, Access::ReadOnly);
        let layers = opened.layers.iter();
        layers
            .map(|layer| (layer.args.storage.name().into(), layer.format.name()))
            .collect()
    }
}
