//! Random sequences of what is done to machines with snapshots and clones, against a model with
//! whole copies: after each step every disk of every state shows what the model has.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use hako_block::testkit::{Rng, qemu_name};
use hako_block::{Access, BlockImage};
use hako_formats::machine::DiskMedium;
use hako_tests::machines::Machines;
use hako_tests::peers::{QemuImg, Reader};
use hako_tests::states::{Content, Files};
use hako_tests::{all, disk};

/// Not a multiple of any format's unit; of 8 KiB, for dissect.hypervisor reads no others to the end.
const DISK_BYTES: u64 = (1 << 20) + (24 << 10);
/// Formats of disks, and their variants, that machines here have.
const SHAPES: [&str; 8] = [
    "vmdk",
    "vmdk,subformat=twoGbMaxExtentSparse",
    "vmdk,subformat=monolithicFlat",
    "qcow2",
    "vhdx",
    "vhd",
    "raw",
    "vdi",
];
/// No more snapshots of a machine, nor machines.
const MOST: usize = 6;

/// A machine as it should be.
#[derive(Clone)]
struct Machine {
    present: Content,
    /// Nodes of disks that snapshots leave alone.
    independent: BTreeSet<String>,
    snapshots: BTreeMap<u32, Held>,
    current: Option<u32>,
    last_uid: u32,
    /// The machine that it is a linked clone of.
    base: Option<String>,
}

#[derive(Clone)]
struct Held {
    parent: Option<u32>,
    disks: Content,
}

impl Machine {
    fn new(present: Content) -> Self {
        Self {
            present,
            independent: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            current: None,
            last_uid: 0,
            base: None,
        }
    }

    fn create(&mut self) -> u32 {
        self.last_uid += 1;
        let mut disks = self.present.clone();
        disks.retain(|node, _| !self.independent.contains(node));
        let parent = self.current;
        self.snapshots.insert(self.last_uid, Held { parent, disks });
        self.current = Some(self.last_uid);
        self.last_uid
    }

    /// Returns whether its disks show something else than in the snapshot that it comes from.
    fn is_changed(&self) -> bool {
        let Some(held) = self.current.map(|uid| &self.snapshots[&uid].disks) else {
            return true;
        };
        held.iter().any(|(node, disk)| self.present[node] != *disk)
    }

    fn revert(&mut self, uid: u32) {
        for (node, disk) in &self.snapshots[&uid].disks {
            self.present.insert(node.clone(), disk.clone());
        }
        self.current = Some(uid);
    }

    fn delete(&mut self, uid: u32) {
        let gone = self.snapshots.remove(&uid).unwrap();
        for held in self.snapshots.values_mut() {
            if held.parent == Some(uid) {
                held.parent = gone.parent;
            }
        }
        if self.current == Some(uid) {
            self.current = gone.parent;
        }
    }

    fn delete_branch(&mut self, uid: u32) {
        let above = self.snapshots[&uid].parent;
        let mut gone = BTreeSet::from([uid]);
        // Whoever is on another has a higher uid.
        for (uid, held) in &self.snapshots {
            if held.parent.is_some_and(|parent| gone.contains(&parent)) {
                gone.insert(*uid);
            }
        }
        self.snapshots.retain(|uid, _| !gone.contains(uid));
        if self.current.is_some_and(|uid| gone.contains(&uid)) {
            self.current = above;
        }
    }
}

/// Machines and what they should be.
struct World {
    files: Machines,
    rng: Rng,
    machines: BTreeMap<String, Machine>,
    n_made: usize,
    /// What was done, for messages.
    done: Vec<String>,
}

impl World {
    /// Makes a machine with two disks, the first of this shape, and perhaps an independent one.
    fn new(shape: &str, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let files = Machines::new(4096);
        let mut shapes = vec![shape];
        shapes.push(SHAPES[rng.below(0..SHAPES.len() as u64) as usize]);
        let has_independent = rng.one_in(3);
        let disks: Vec<String> = (0..shapes.len() + usize::from(has_independent))
            .map(|number| {
                let raw = format!("disk{number}.raw");
                disk::make_raw(&files.path(&raw), DISK_BYTES, seed * 10 + number as u64);
                match shapes.get(number) {
                    Some(shape) => format!("{raw},format={shape}"),
                    None => format!("{raw},mode=independent-persistent"),
                }
            })
            .collect();
        let mut words = vec!["vm", "create", "web"];
        words.extend(disks.iter().flat_map(|disk| ["--from-disk", disk]));
        files.run(&words);
        let on_disk = Files::of(&files.path("home"), "web");
        let mut machine = Machine::new(on_disk.present());
        machine.independent = on_disk.independent().into_iter().collect();
        for (number, content) in machine.present.values().enumerate() {
            let raw = std::fs::read(files.path(&format!("disk{number}.raw"))).unwrap();
            assert!(raw == *content, "disk {number}");
        }
        Self {
            files,
            rng,
            machines: BTreeMap::from([("web".to_owned(), machine)]),
            n_made: 0,
            done: vec![format!("{shapes:?}, seed {seed}")],
        }
    }

    fn hako(&mut self, words: &[&str]) {
        self.done.push(words.join(" "));
        self.files.run(words);
    }

    fn on_disk(&self, name: &str) -> Files {
        Files::of(&self.files.path("home"), name)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let len = from.len() as u64;
        (len > 0).then(|| from[self.rng.below(0..len) as usize].clone())
    }

    /// Does something; returns what it was.
    fn step(&mut self) {
        let names: Vec<String> = self.machines.keys().cloned().collect();
        let name = self.pick(&names).unwrap();
        let uids: Vec<u32> = self.machines[&name].snapshots.keys().copied().collect();
        let uid = self.pick(&uids);
        match (self.rng.below(0..20), uid) {
            (0..6, _) => self.write(&name),
            (6..10, _) if uids.len() < MOST => self.create(&name),
            (10..12, Some(uid)) => self.revert(&name, uid),
            (12..15, Some(uid)) => self.delete(&name, uid),
            (15, Some(uid)) => self.delete_branch(&name, uid),
            (16, Some(uid)) if names.len() < MOST => self.clone_linked(&name, uid),
            (17, uid) if names.len() < MOST => self.clone_full(&name, uid),
            (18, _) => self.hako(&["snapshot", "consolidate", &name]),
            (19, _) => self.remove(&name),
            _ => self.write(&name),
        }
    }

    /// Writes as a guest would.
    fn write(&mut self, name: &str) {
        let on_disk = self.on_disk(name);
        for (node, disk) in on_disk.disks() {
            let opened = on_disk.open(&disk, Access::ReadWrite);
            let machine = self.machines.get_mut(name).unwrap();
            let content = machine.present.get_mut(&node).unwrap();
            for _ in 0..self.rng.below(0..4) {
                write_piece(&opened.chain, content, &mut self.rng);
            }
            opened.chain.flush().unwrap();
        }
        self.done.push(format!("write {name}"));
    }

    fn create(&mut self, name: &str) {
        let uid = self.machines.get_mut(name).unwrap().create();
        self.hako(&["snapshot", "create", name, &format!("s{uid}")]);
    }

    fn revert(&mut self, name: &str, uid: u32) {
        let saves = self.machines[name].snapshots.len() < MOST && self.rng.one_in(3);
        let how = if saves { "--save-first" } else { "--yes" };
        self.hako(&["snapshot", "revert", name, &uid.to_string(), how]);
        let found = self.on_disk(name).held();
        let machine = self.machines.get_mut(name).unwrap();
        // What is the same as in the snapshot that it comes from need not be saved.
        if saves && (machine.is_changed() || found.len() > machine.snapshots.len()) {
            machine.create();
        }
        machine.revert(uid);
    }

    fn delete(&mut self, name: &str, uid: u32) {
        self.machines.get_mut(name).unwrap().delete(uid);
        self.hako(&["snapshot", "delete", name, &uid.to_string(), "--yes"]);
    }

    fn delete_branch(&mut self, name: &str, uid: u32) {
        let machine = self.machines.get_mut(name).unwrap();
        if self.rng.one_in(2) {
            machine.delete_branch(uid);
            let uid = uid.to_string();
            self.hako(&["snapshot", "delete", name, &uid, "--children", "--yes"]);
        } else {
            machine.snapshots.clear();
            machine.current = None;
            self.hako(&["snapshot", "delete", name, "--all", "--yes"]);
        }
    }

    fn new_name(&mut self) -> String {
        self.n_made += 1;
        format!("clone{}", self.n_made)
    }

    fn clone_linked(&mut self, name: &str, uid: u32) {
        let new = self.new_name();
        let held = self.machines[name].snapshots[&uid].disks.clone();
        let uid = uid.to_string();
        self.hako(&["vm", "clone", name, &new, "--linked", "--snapshot", &uid]);
        let mut machine = Machine::new(held);
        machine.base = Some(name.to_owned());
        self.machines.insert(new, machine);
    }

    fn clone_full(&mut self, name: &str, uid: Option<u32>) {
        let new = self.new_name();
        let uid = uid.filter(|_| self.rng.one_in(2));
        let machine = match uid {
            Some(uid) => {
                let held = self.machines[name].snapshots[&uid].disks.clone();
                let uid = uid.to_string();
                self.hako(&["vm", "clone", name, &new, "--snapshot", &uid]);
                Machine::new(held)
            }
            None => {
                self.hako(&["vm", "clone", name, &new]);
                let old = &self.machines[name];
                Machine {
                    independent: old.independent.clone(),
                    ..Machine::new(old.present.clone())
                }
            }
        };
        self.machines.insert(new, machine);
    }

    /// Deletes a machine that nobody stands on, but for the first.
    fn remove(&mut self, name: &str) {
        let mut bases = self.machines.values().filter_map(|one| one.base.as_deref());
        if name == "web" || bases.any(|base| base == name) {
            return self.write(name);
        }
        let gone = self.machines.remove(name).unwrap();
        self.hako(&["vm", "delete", name, "--yes"]);
        // What only the clone needed is now to be merged.
        if let Some(base) = gone.base {
            self.hako(&["snapshot", "consolidate", &base]);
        }
    }

    /// Looks whether all is as it should be.
    fn look(&self) {
        for (name, machine) in &self.machines {
            let on_disk = self.on_disk(name);
            assert_content(&on_disk.present(), &machine.present, name);
            let held = on_disk.snapshots();
            let uids: Vec<_> = machine.snapshots.keys().collect();
            assert_eq!(held.keys().collect::<Vec<_>>(), uids, "{name}");
            for (uid, content) in &held {
                let about = format!("{name}, snapshot {uid}");
                assert_content(content, &machine.snapshots[uid].disks, &about);
            }
            if let Some(vmsd) = &on_disk.vmsd {
                let current = machine.current;
                assert_eq!(vmsd.current(), current, "{name}");
                for snapshot in vmsd.snapshots() {
                    let parent = machine.snapshots[&snapshot.uid].parent;
                    assert_eq!(snapshot.parent, parent, "{name}, {}", snapshot.uid);
                }
            }
        }
    }

    /// Nothing is there that nobody needs, and the doctor finds nothing.
    fn look_around(&self) {
        for name in self.machines.keys() {
            self.files.run(&["snapshot", "doctor", name]);
        }
    }

    /// Other programs read every state alike.
    fn ask_peers(&self) {
        for (name, machine) in &self.machines {
            let on_disk = self.on_disk(name);
            let mut states = vec![(on_disk.disks(), &machine.present)];
            for (uid, disks) in on_disk.held() {
                states.push((disks, &machine.snapshots[&uid].disks));
            }
            for (disks, content) in states {
                for (node, disk) in &disks {
                    self.ask_about(&on_disk, disk, &content[node]);
                }
            }
        }
    }

    fn ask_about(&self, on_disk: &Files, disk: &DiskMedium, content: &[u8]) {
        let layers = on_disk.layers(disk);
        let paths: Vec<&Path> = layers.iter().map(|(path, _)| path.as_path()).collect();
        let is_all = |known: &[&str]| layers.iter().all(|(_, format)| known.contains(format));
        let has_parent = layers.len() > 1;
        let is_together = paths.iter().all(|path| path.parent() == paths[0].parent());
        let raw = self.files.path("model.raw");
        std::fs::write(&raw, content).unwrap();
        let sum = disk::sha256(&raw);
        // QEMU has no overlays of Microsoft's formats, and rounds the size of a VHD.
        let for_qemu = is_all(&["vmdk", "qcow2", "raw", "vdi"]) || is_all(&["vhdx"]) && !has_parent;
        if let Some(qemu) = QemuImg::any().filter(|_| for_qemu) {
            let (image, raw) = (paths[0].to_str().unwrap(), raw.to_str().unwrap());
            let format = qemu_name(layers[0].1);
            qemu.ok(&["compare", "-f", format, "-F", "raw", image, raw]);
        }
        let readers = [
            // It finds parents in the same folder only.
            (
                Reader::Dissect,
                is_together && ["vmdk", "vhdx", "qcow2"].iter().any(|one| is_all(&[one])),
            ),
            // It takes what a VHDX has none of for a bitmap: even an empty overlay shows garbage.
            (Reader::Pyvhdi, is_all(&["vhd"])),
        ];
        for (reader, _) in readers.iter().filter(|(_, can)| *can) {
            if let Some(read) = reader.hash_chain(&paths) {
                assert_eq!(read, sum, "{reader:?} reads {paths:?}");
            }
        }
    }
}

#[track_caller]
fn assert_content(found: &Content, wanted: &Content, about: &str) {
    let nodes = |content: &Content| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(nodes(found), nodes(wanted), "{about}");
    for (node, bytes) in found {
        assert_eq!(bytes.len(), wanted[node].len(), "{about}, {node}");
        let differs = bytes.iter().zip(&wanted[node]).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{about}, {node}: first other byte");
    }
}

/// Writes data or zeros somewhere, or discards, and does the same to the model.
fn write_piece(image: &dyn BlockImage, content: &mut [u8], rng: &mut Rng) {
    let size = content.len() as u64;
    let start = rng.below(0..size / 512) * 512;
    let longest = if rng.one_in(3) { 400 << 10 } else { 9 << 10 };
    let len = (rng.below(1..longest / 512) * 512).min(size - start);
    let piece = &mut content[start as usize..][..len as usize];
    match rng.below(0..6) {
        0 => {
            piece.fill(0);
            image.write_zeroes(start..start + len).unwrap();
        }
        1 => {
            image.discard(start..start + len).unwrap();
            let mut read = vec![0; piece.len()];
            image.read_at(start, &mut read).unwrap();
            let is_fit = |(new, old): (&u8, &u8)| new == old || *new == 0;
            assert!(read.iter().zip(&*piece).all(is_fit), "a discard at {start}");
            piece.copy_from_slice(&read);
        }
        _ => {
            piece.copy_from_slice(&rng.bytes(len as usize));
            image.write_at(start, piece).unwrap();
        }
    }
}

/// Runs a sequence; what was done is told if it fails.
fn run(shape: &str, seed: u64, n_steps: usize, asks_every: usize) {
    let mut world = World::new(shape, seed);
    for number in 1..=n_steps {
        let step = catch_unwind(AssertUnwindSafe(|| {
            world.step();
            world.look();
            if number % 5 == 0 {
                world.look_around();
            }
            if number % asks_every == 0 {
                world.ask_peers();
            }
        }));
        if let Err(panic) = step {
            eprintln!("after:\n  {}", world.done.join("\n  "));
            resume_unwind(panic);
        }
    }
}

#[test]
fn every_state_keeps_its_content_whatever_is_done_to_the_others() {
    let (seeds, n_steps) = if all() { (1..4, 120) } else { (1..2, 24) };
    for seed in seeds {
        for (number, shape) in SHAPES.iter().enumerate() {
            run(shape, seed * 100 + number as u64, n_steps, 12);
        }
    }
}
