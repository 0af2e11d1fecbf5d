//! A machine of our own on a KVM of any kind, with the engine's tiny guest.

#[path = "../../../../engine/tests/tiny/mod.rs"]
mod tiny;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hako_block::testkit::MemoryImage;
use hako_block::{BlockImage, Cancel, Error, ErrorKind, Extent, ImageInfo, MemoryStorage, Result};
use hako_engine::{Pages, Topology};

use super::Native;
use super::boot::Source;
use super::drives::Drive;
use super::machine::{Hardware, Running};
use crate::run::kernel::KernelFiles;
use crate::run::{End, Event, Events, Facts, Launcher, Machine, RunHome, Start, StartOptions};
use crate::{Home, Vm};

/// A software KVM on a busy machine is slow.
const LIMIT: Duration = Duration::from_secs(120);

/// A disk whose file system has no room at times, or which fails for good.
struct Troubled {
    image: Arc<MemoryImage>,
    is_full: AtomicBool,
    is_broken: AtomicBool,
}

impl BlockImage for Troubled {
    fn info(&self) -> &ImageInfo {
        self.image.info()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.image.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.image.next_extent(offset)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::NoSpace, "no space left"));
        }
        self.image.write_at(offset, buf)
    }

    fn flush(&self) -> Result<()> {
        match self.is_broken.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Io, "the disk has gone")),
            false => self.image.flush(),
        }
    }
}

struct World {
    machine: Running,
    disk: Arc<Troubled>,
    happens: Receiver<Event>,
}

/// Starts the tiny guest, which waits for room on its disk; none, said so, without a KVM.
fn start(words: &str) -> Option<World> {
    start_with(words, true)
}

fn start_with(words: &str, waits_for_room: bool) -> Option<World> {
    if let Err(error) = hako_engine::kvm::open() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs /dev/kvm: {error}"
        );
        return None;
    }
    let (send, happens) = channel();
    let send = Mutex::new(send);
    let events = Events::new(move |event| drop(send.lock().map(|send| send.send(event))));
    let disk = Arc::new(Troubled {
        image: MemoryImage::new(vec![0; 1 << 20]),
        is_full: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
    });
    let drive = Drive::new(
        "scsi0:0".parse().unwrap(),
        Arc::clone(&disk) as _,
        None,
        waits_for_room,
        events.clone(),
    );
    let source = Source::Files(KernelFiles {
        kernel: Arc::new(MemoryStorage::new("tiny", tiny::guest())),
        initrd: None,
        cmdline: words.to_owned(),
    });
    let hardware = Hardware {
        topology: Topology {
            sockets: 1,
            cores: 1,
            threads: 1,
        },
        memory_bytes: 32 << 20,
        pages: Pages::Normal,
        clock_offset_seconds: 0,
        disks: vec![drive],
        nics: Vec::new(),
        source,
    };
    let kernel = hardware.kernel().unwrap().kernel;
    disk.is_full
        .store(words.contains("block"), Ordering::SeqCst);
    let machine = Running::start(hardware, kernel, Facts::default(), events).unwrap();
    Some(World {
        machine,
        disk,
        happens,
    })
}

impl World {
    fn next(&self) -> Event {
        self.happens.recv_timeout(LIMIT).unwrap()
    }
}

#[test]
fn a_guest_waits_for_room_on_a_full_disk_and_goes_on_when_there_is() {
    let Some(mut world) = start("block") else {
        return;
    };
    let Event::Paused { why: Some(why) } = world.next() else {
        panic!("it is not paused");
    };
    assert!(why.contains("no space left"), "{why}");
    assert!(why.ends_with("hako vm unpause"), "{why}");
    // As long as there is none, it does not go on.
    world.machine.resume().unwrap();
    assert_eq!(world.next(), Event::Resumed);
    assert!(matches!(world.next(), Event::Paused { why: Some(_) }));
    world.disk.is_full.store(false, Ordering::SeqCst);
    world.machine.resume().unwrap();
    assert_eq!(world.next(), Event::Resumed);
    assert_eq!(world.next(), Event::Off(End::Guest));
    let mut said = String::new();
    let mut console = world.machine.console().unwrap().unwrap();
    drop(world.machine);
    console.read_to_string(&mut said).unwrap();
    assert!(said.contains("write 0\nflush 0\n"), "{said}");
    let written: Vec<u8> = (0..4096u32).map(|at| (at * 7) as u8).collect();
    assert_eq!(world.disk.image.bytes()[9 * 512..9 * 512 + 4096], written);
}

#[test]
fn a_guest_that_does_not_wait_for_room_reads_an_error() {
    let Some(mut world) = start_with("block", false) else {
        return;
    };
    let Event::Note(note) = world.next() else {
        panic!("nobody is told");
    };
    assert!(note.contains("scsi0:0: a write") && note.contains("no space left"));
    assert_eq!(world.next(), Event::Off(End::Guest));
    let mut said = String::new();
    let mut console = world.machine.console().unwrap().unwrap();
    drop(world.machine);
    console.read_to_string(&mut said).unwrap();
    assert!(said.contains("write 1\nflush 0\n"), "{said}");
}

#[test]
fn what_cannot_be_flushed_at_the_end_is_no_good_end() {
    let Some(mut world) = start("echo") else {
        return;
    };
    world.disk.is_broken.store(true, Ordering::SeqCst);
    world.machine.quit().unwrap();
    assert!(matches!(world.next(), Event::Note(note) if note.contains("the disk has gone")));
    let Event::Off(End::Failed(why)) = world.next() else {
        panic!("it ended well");
    };
    assert!(why.contains("not safe"), "{why}");
}

/// Returns why a machine with these lines, whose disk is missing, is not run here.
fn refusal(lines: &str) -> String {
    let temp = tempfile::tempdir().unwrap();
    let vmx = temp.path().join("web.vmx");
    let disk = "scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
                scsi0:0.fileName = \"gone.vmdk\"\n";
    let text = format!("config.version = \"8\"\ndisplayName = \"web\"\n{disk}{lines}");
    std::fs::write(&vmx, text).unwrap();
    let vm = Vm::open(&Home::new(temp.path().join("home")), &vmx, &[]).unwrap();
    let folder = RunHome::new(temp.path().join("run")).folder(vm.path());
    let start = Start {
        vm: &vm,
        options: &StartOptions::default(),
        folder: &folder,
        launcher: &Launcher::new(Vec::new()),
        events: Events::new(|_| ()),
        cancel: &Cancel::default(),
        notes: Vec::new(),
    };
    match Native.start_whole(&start) {
        Ok(_) => panic!("it runs"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_would_be_lost_of_a_vmx_is_told_before_its_disks_are_opened() {
    let told = refusal("");
    assert!(told.contains("gone.vmdk"), "{told}");
    for (lines, what) in [
        ("floppy0.present = \"TRUE\"\n", "floppy0"),
        ("serial1.present = \"TRUE\"\n", "serial1"),
        (
            "ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-image\"\n\
          ide1:0.fileName = \"gone.iso\"\n",
            "ide1:0",
        ),
    ] {
        let told = refusal(lines);
        assert!(told.contains(what) && !told.contains("gone.vmdk"), "{told}");
    }
}
