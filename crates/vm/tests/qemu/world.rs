//! Machines with disks, and what a runner is to them.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hako_block::{BlockImage, Cancel, GateRules, NoProgress, Result};
use hako_formats::machine::{DiskMedium, Machine};
use hako_formats::vmx::Vmx;
use hako_formats::{CreateOptions, OpenOptions, format_named, open_chain};
use hako_vm::Vm;
use hako_vm::run::{
    Engine, Event, Events, Launcher, Machine as RunningMachine, Qemu, RunFolder, RunHome, Start,
    StartOptions,
};

const DISK_BYTES: u64 = 8 << 20;
/// How long a guest may take for anything: it takes seconds, but machines can be busy.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn machine_of(vmx: &str) -> Machine {
    Vmx::parse(vmx.as_bytes()).unwrap().machine()
}

/// A machine in a folder of its own.
pub struct World {
    folder: tempfile::TempDir,
    name: String,
    pub options: StartOptions,
    pub qemu: Qemu,
    pub cancel: Cancel,
}

impl World {
    /// Makes the machine, with empty disks of 8 MiB as its VMX says.
    pub fn new(name: &str, vmx: &str) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            name: name.to_owned(),
            options: StartOptions::default(),
            qemu: Qemu::default(),
            cancel: Cancel::default(),
        };
        std::fs::create_dir(world.folder.path().join(name)).unwrap();
        std::fs::write(world.vmx(), vmx).unwrap();
        for (_, disk) in machine_of(vmx).disks() {
            world.make(disk);
        }
        world
    }

    fn make(&self, disk: &DiskMedium) {
        let format = disk.format.as_deref().unwrap_or("vmdk");
        let options = CreateOptions {
            subformat: disk
                .file
                .contains("stream")
                .then(|| "streamOptimized".to_owned()),
            ..CreateOptions::default()
        };
        let request = hako_disk::CreateRequest {
            path: self.path(&disk.file),
            to: format_named(format).unwrap(),
            virtual_size: Some(DISK_BYTES),
            create: options,
            parent: None,
            parent_from: None,
            rules: GateRules::default(),
            force: false,
        };
        hako_disk::create(request, &NoProgress, &Cancel::default()).unwrap();
    }

    fn vmx(&self) -> PathBuf {
        self.path(&format!("{}.vmx", self.name))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(&self.name).join(name)
    }

    /// Adds lines to the VMX.
    pub fn say(&self, lines: &str) {
        let text = std::fs::read_to_string(self.vmx()).unwrap();
        std::fs::write(self.vmx(), text + lines).unwrap();
    }

    /// Has a script stand for QEMU.
    pub fn fake_qemu(&mut self, script: &str) {
        let path = self.folder.path().join("fake-qemu");
        let script = format!("#!/bin/sh\n[ \"$1\" = -machine ] && exit\n{script}\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        self.qemu.programs = vec![path];
    }

    /// Reads what a guest would.
    pub fn read(&self, file: &str, offset: u64, len: usize) -> Vec<u8> {
        let opened = open_chain(&self.path(file), &OpenOptions::default()).unwrap();
        let mut bytes = vec![0; len];
        opened.chain.read_at(offset, &mut bytes).unwrap();
        bytes
    }

    /// Returns all files of the machine with what is in them.
    pub fn bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(self.path("")).unwrap();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        let read = |path: PathBuf| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        };
        files.into_iter().map(read).collect()
    }

    fn folder_of_run(&self) -> RunFolder {
        let folder = RunHome::new(self.folder.path().join("run")).folder(&self.vmx());
        folder.create().unwrap();
        folder
    }

    pub fn start(&self) -> Result<Run> {
        let vm = Vm::at(&self.vmx(), &[])?;
        let folder = self.folder_of_run();
        let (send, events) = channel();
        let send = Mutex::new(send);
        let events_of_machine = Events::new(move |event| {
            let _ = send.lock().unwrap().send(event);
        });
        let mut machine = self.qemu.start(Start {
            vm: &vm,
            options: &self.options,
            folder: &folder,
            launcher: &Launcher::new(Vec::new()),
            events: events_of_machine,
            cancel: &self.cancel,
            notes: Vec::new(),
        })?;
        let console = machine.console().unwrap();
        Ok(Run {
            machine,
            console,
            events,
            heard: Vec::new(),
        })
    }
}

/// A machine that runs.
pub struct Run {
    machine: Box<dyn RunningMachine>,
    console: Option<UnixStream>,
    events: Receiver<Event>,
    heard: Vec<u8>,
}

impl Run {
    pub fn machine(&mut self) -> &mut dyn RunningMachine {
        &mut *self.machine
    }

    /// What its start was told with, up to the first comma each.
    pub fn notes(&self) -> Vec<&str> {
        let notes = self.machine.facts().notes.iter();
        notes.map(|note| note.split(',').next().unwrap()).collect()
    }

    pub fn pid(&self) -> u32 {
        self.machine.facts().pid
    }

    pub fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        let mut console = self.console.as_ref().unwrap();
        console.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until the guest says this, and returns what it has said since the last time.
    pub fn wait_for(&mut self, line: &str) -> Vec<String> {
        let mut console = self.console.as_ref().unwrap();
        console
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&self.heard).into_owned();
            let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            if text.ends_with('\n') && lines.iter().any(|said| said == line) {
                self.heard.clear();
                return lines;
            }
            assert!(Instant::now() < deadline, "no {line:?} in\n{text}");
            let mut bytes = [0; 4096];
            match console.read(&mut bytes) {
                Ok(0) => panic!("the console ended without {line:?}:\n{text}"),
                Ok(n) => self.heard.extend(&bytes[..n]),
                Err(_) => {}
            }
        }
    }
}

/// Returns a folder that tests/run fills.
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.peers")
}
