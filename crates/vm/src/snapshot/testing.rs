//! A machine's folder for tests, made by hand: what snapshots would leave there, and what breaks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hako_block::{Access, BlockImage, Cancel, GateRules, NoProgress};
use hako_disk::{CreateRequest, create};
use hako_formats::{CreateOptions, OpenOptions, OpenedChain, format_named, open_chain};

use crate::{Home, Vm};

/// Virtual size of the disks: 4 MiB.
pub(super) const SIZE: u64 = 4 << 20;
/// How large a piece is that [`World::write`] fills: 64 KiB.
const PIECE: u64 = 64 << 10;

/// The machine "web" in a home of its own.
pub(super) struct World {
    root: tempfile::TempDir,
    pub home: Home,
}

impl World {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path().join("home"));
        std::fs::create_dir_all(home.vms().join("web")).unwrap();
        Self { root, home }
    }

    /// Returns the path of a file of the machine.
    pub fn at(&self, name: &str) -> PathBuf {
        let root = std::fs::canonicalize(self.root.path()).unwrap();
        root.join("home/vms/web").join(name)
    }

    /// Makes an image, its format that of its extension; an overlay if it has a parent.
    pub fn image(&self, name: &str, parent: Option<&str>) {
        self.image_of(name, parent, SIZE);
    }

    pub fn image_of(&self, name: &str, parent: Option<&str>, size: u64) {
        let path = self.at(name);
        let format = |name: &str| match Path::new(name).extension().unwrap().to_str() {
            Some("raw" | "img") => "raw".to_owned(),
            extension => extension.unwrap().to_owned(),
        };
        let request = CreateRequest {
            to: format_named(&format(name)).unwrap(),
            path,
            virtual_size: Some(size),
            create: CreateOptions::default(),
            parent_from: parent.map(format),
            parent: parent.map(|parent| self.at(parent)),
            rules: GateRules::default(),
            force: false,
        };
        create(request, &NoProgress, &Cancel::default()).unwrap();
    }

    /// Makes a chain of images, each on the one before.
    pub fn chain(&self, names: &[&str]) {
        for (index, name) in names.iter().enumerate() {
            let parent = index.checked_sub(1).map(|below| names[below]);
            self.image(name, parent);
        }
    }

    /// Fills the pieces of these numbers with a byte, of which no one else knows. Parents must have
    /// what they are to have before overlays are made on them.
    pub fn write(&self, name: &str, pieces: &[u64], byte: u8) {
        let opened = self.open(name, Access::ReadWrite);
        for piece in pieces {
            let bytes = vec![byte; PIECE as usize];
            opened.chain.write_at(piece * PIECE, &bytes).unwrap();
        }
        opened.chain.flush().unwrap();
    }

    /// Returns the first byte of each piece that a disk shows.
    pub fn shown(&self, name: &str) -> Vec<u8> {
        let opened = self.open(name, Access::ReadOnly);
        let size = opened.chain.info().virtual_size;
        let pieces = (0..size).step_by(PIECE as usize);
        let bytes = pieces.map(|offset| {
            let mut byte = [0];
            opened.chain.read_at(offset, &mut byte).unwrap();
            byte[0]
        });
        bytes.collect()
    }

    fn open(&self, name: &str, access: Access) -> OpenedChain {
        let options = OpenOptions {
            access,
            ..OpenOptions::default()
        };
        open_chain(&self.at(name), &options).unwrap()
    }

    /// Writes the .vmx with these disks on SCSI units, 0 first.
    pub fn vmx(&self, disks: &[&str]) {
        let mut text = "displayName = \"web\"\nscsi0.present = \"TRUE\"\n".to_owned();
        for (unit, file) in disks.iter().enumerate() {
            let node = format!("scsi0:{unit}");
            writeln!(
                text,
                "{node}.present = \"TRUE\"\n{node}.fileName = \"{file}\""
            )
            .unwrap();
            if let Some(format) = format_key(file) {
                writeln!(text, "hako.{node}.format = \"{format}\"").unwrap();
            }
        }
        std::fs::write(self.at("web.vmx"), text).unwrap();
    }

    /// Writes the .vmsd with these snapshots of one disk each: uid, parent's uid or 0, file.
    pub fn vmsd(&self, current: u32, snapshots: &[(u32, u32, &str)]) {
        let last = snapshots.iter().map(|(uid, ..)| uid).max().unwrap_or(&0);
        let mut text = format!(
            "snapshot.lastUID = \"{last}\"\nsnapshot.current = \"{current}\"\n\
             snapshot.numSnapshots = \"{}\"\n",
            snapshots.len()
        );
        for (index, (uid, parent, file)) in snapshots.iter().enumerate() {
            let mut line = |key: &str, value: &str| {
                writeln!(text, "snapshot{index}.{key} = \"{value}\"").unwrap();
            };
            line("uid", &uid.to_string());
            if *parent != 0 {
                line("parent", &parent.to_string());
            }
            line("displayName", &format!("s{uid}"));
            line("numDisks", "1");
            line("disk0.node", "scsi0:0");
            line("disk0.fileName", file);
            if let Some(format) = format_key(file) {
                writeln!(text, "hako.uid{uid}.scsi0:0.format = \"{format}\"").unwrap();
            }
        }
        std::fs::write(self.at("web.vmsd"), text).unwrap();
    }

    pub fn vm(&self) -> Vm {
        Vm::at(&self.at("web.vmx"), &[]).unwrap()
    }

    /// Returns the names in the machine's folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.at("")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn format_key(file: &str) -> Option<&str> {
    let extension = Path::new(file).extension()?.to_str()?;
    (extension != "vmdk").then_some(extension)
}
