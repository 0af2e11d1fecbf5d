//! The machine on this host's KVM, whatever kind it is, with a guest of our own (`guest.c`): its
//! devices end to end, interrupts included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod tiny;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hako_block::testkit::MemoryImage;
use hako_block::{MemoryStorage, Storage};
use hako_engine::link::socket::StreamLink;
use hako_engine::virtio::net::Counters;
use hako_engine::{Card, Disk, Kernel, Machine, Pages, Request, Signals, Spec, Topology};

/// A software KVM on a busy machine runs some 100,000 instructions a second.
const LIMIT: Duration = Duration::from_secs(120);

fn guest() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(tiny::guest)
}

/// What COM1 has said, as it grows.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, what: &str) {
        let begun = Instant::now();
        while !self.text().contains(what) {
            assert!(begun.elapsed() < LIMIT, "no {what:?} in {:?}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Returns whether there is a KVM here; if not, says so.
fn kvm() -> bool {
    let there = hako_engine::kvm::open();
    if let Err(error) = &there {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs /dev/kvm: {error}"
        );
        println!("skipped: {error}");
    }
    there.is_ok()
}

struct World {
    machine: Machine,
    said: Said,
}

fn file(bytes: Vec<u8>) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new("kernel", bytes))
}

fn start(words: &str, change: impl FnOnce(&mut Spec)) -> World {
    let said = Said::default();
    let mut spec = Spec {
        topology: Topology {
            sockets: 1,
            cores: 1,
            threads: 1,
        },
        memory_bytes: 32 << 20,
        pages: Pages::Normal,
        kernel: Kernel {
            image: file(guest().to_vec()),
            initrd: None,
            command_line: words.into(),
        },
        disks: Vec::new(),
        cards: Vec::new(),
        console: Box::new(said.clone()),
        hvc: None,
        clock_offset_seconds: 0,
        signals: Signals::default(),
    };
    change(&mut spec);
    let machine = Machine::new(spec).unwrap();
    machine.resume();
    World { machine, said }
}

impl World {
    fn ends_with(&self, request: &Request) {
        assert_eq!(
            self.machine.wait(LIMIT).as_ref(),
            Some(request),
            "{:?}",
            self.said.text()
        );
    }
}

#[test]
fn a_guest_starts_speaks_and_switches_itself_off() {
    if !kvm() {
        return;
    }
    let world = start("timer", |_| {});
    world.ends_with(&Request::Off);
    let text = world.said.text();
    assert!(
        text.starts_with("guest\ncentury 32\nten milliseconds\noff\n"),
        "{text:?}"
    );
}

#[test]
fn a_disk_is_read_written_and_flushed_with_an_interrupt_for_each() {
    if !kvm() {
        return;
    }
    let content: Vec<u8> = (0..1 << 20)
        .map(|at: u32| (at / 512 * 3 + at) as u8)
        .collect();
    let image = MemoryImage::new(content.clone());
    let world = start("block", |spec| {
        spec.disks.push(Disk {
            image: Arc::clone(&image) as _,
            read_only: false,
            serial: "tiny".into(),
            pause_when_full: true,
        });
    });
    world.ends_with(&Request::Off);
    let sum = content[512..512 + 4096].iter().fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let expected =
        format!("guest\nsectors 2048\nread 0\nsum {sum}\nwrite 0\nflush 0\npast 1\noff\n");
    assert_eq!(world.said.text(), expected);
    let written: Vec<u8> = (0..4096u32).map(|at| (at * 7) as u8).collect();
    assert_eq!(image.bytes()[9 * 512..9 * 512 + 4096], written);
    assert_eq!(image.log(), ["flush"]);
}

#[test]
fn frames_go_through_a_card_both_ways() {
    if !kvm() {
        return;
    }
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let counters = Arc::new(Counters::default());
    let of_card = Arc::clone(&counters);
    let world = start("net", |spec| {
        spec.cards.push(Card {
            mac: [0, 12, 41, 1, 2, 3],
            link: Some(Box::new(StreamLink::new(ours).unwrap())),
            counters: of_card,
            slot_number: 192,
        });
    });
    world.said.wait_for("0:12:41:1:2:3\nlistening\n");
    theirs.set_read_timeout(Some(LIMIT)).unwrap();
    for len in [60usize, 61, 1514] {
        let frame: Vec<u8> = (0..len).map(|at| (at * 5) as u8).collect();
        theirs.write_all(&(len as u32).to_be_bytes()).unwrap();
        theirs.write_all(&frame).unwrap();
        let mut back = vec![0; 4 + len];
        theirs.read_exact(&mut back).unwrap();
        assert_eq!(back[..4], (len as u32).to_be_bytes());
        assert!(back[4..].iter().rev().eq(frame.iter()));
    }
    theirs.write_all(&[0, 0, 0, 4, 1, 2, 3, 4]).unwrap();
    world.ends_with(&Request::Off);
    assert!(world.said.text().ends_with("net done\noff\n"));
    let sent = counters.sent.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(sent, 60 + 61 + 1514);
}

#[test]
fn entropy_is_random() {
    if !kvm() {
        return;
    }
    let world = start("rng", |_| {});
    world.ends_with(&Request::Off);
    assert_eq!(world.said.text(), "guest\nrandom 64\nrandom enough\noff\n");
}

#[test]
fn what_is_typed_comes_back() {
    if !kvm() {
        return;
    }
    let world = start("echo", |_| {});
    world.said.wait_for("echo\n");
    // More than its FIFO holds.
    let words = "hako ".repeat(40);
    assert_eq!(world.machine.type_in(words.as_bytes()), words.len());
    assert_eq!(world.machine.type_in(b"."), 1);
    world.ends_with(&Request::Off);
    assert!(world.said.text().contains(&words.to_uppercase()));
}

#[test]
fn strings_go_through_a_port_item_by_item() {
    if !kvm() {
        return;
    }
    let world = start("strings", |_| {});
    world.ends_with(&Request::Off);
    let said = "guest\nmore than the eight ports have\ncentury 32\ntimes 12\noff\n";
    assert_eq!(world.said.text(), said);
}

#[test]
fn the_bus_says_the_same_by_its_ports() {
    if !kvm() {
        return;
    }
    let world = start("ports", |_| {});
    world.ends_with(&Request::Off);
    let said = world.said.text();
    assert!(said.contains("same 512\n"), "{said}");
    assert!(!said.contains("devices 0\n"), "{said}");
    // So many writes are more than the kernel keeps at once.
    assert!(said.ends_with("named 999\ndisabled 1\noff\n"), "{said}");
}

#[test]
fn a_guest_sees_the_power_button() {
    if !kvm() {
        return;
    }
    let world = start("button", |_| {});
    world.said.wait_for("waiting for the button\n");
    world.machine.press_power_button();
    world.ends_with(&Request::Off);
    assert!(world.said.text().contains("pressed\n"));
}

#[test]
fn a_paused_guest_stands_still_and_goes_on() {
    if !kvm() {
        return;
    }
    let world = start("count", |_| {});
    world.said.wait_for("++");
    for _ in 0..3 {
        world.machine.pause();
        let before = world.said.text().len();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(world.said.text().len(), before);
        world.machine.resume();
        let begun = Instant::now();
        while world.said.text().len() == before {
            assert!(begun.elapsed() < LIMIT, "it does not go on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    world.machine.type_in(b"x");
    world.ends_with(&Request::Off);
}

#[test]
fn a_guest_that_asks_for_a_reset_goes_no_further() {
    if !kvm() {
        return;
    }
    let world = start("reset", |_| {});
    world.ends_with(&Request::Reset);
    world.machine.pause();
    assert_eq!(world.said.text(), "guest\n", "its next words would be: off");
}

/// Returns how many huge pages are free here.
fn huge_pages() -> u64 {
    let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let free = std::fs::read_to_string(path).unwrap_or_default();
    free.trim().parse().unwrap_or(0)
}

#[test]
fn a_guest_lives_in_huge_pages_where_there_are_some() {
    if !kvm() {
        return;
    }
    if huge_pages() < 16 {
        // The test bed has some: tests/system/native_boots.rs.
        println!("skipped: 16 huge pages are not set aside here");
        return;
    }
    let before = huge_pages();
    let world = start("echo", |spec| spec.pages = Pages::Huge);
    world.said.wait_for("echo\n");
    assert_eq!(
        huge_pages(),
        before - 16,
        "all of them are taken at the start"
    );
    world.machine.type_in(b".");
    world.ends_with(&Request::Off);
}

#[test]
fn machines_that_cannot_be_are_refused() {
    if !kvm() {
        return;
    }
    let spec = |change: &dyn Fn(&mut Spec)| {
        let mut spec = Spec {
            topology: Topology {
                sockets: 1,
                cores: 1,
                threads: 1,
            },
            memory_bytes: 32 << 20,
            pages: Pages::Normal,
            kernel: Kernel {
                image: file(guest().to_vec()),
                initrd: None,
                command_line: Vec::new(),
            },
            disks: Vec::new(),
            cards: Vec::new(),
            console: Box::new(std::io::sink()),
            hvc: None,
            clock_offset_seconds: 0,
            signals: Signals::default(),
        };
        change(&mut spec);
        Machine::new(spec).err().map(|error| error.to_string())
    };
    assert_eq!(spec(&|_| {}), None);
    let refused = |change: &dyn Fn(&mut Spec)| spec(change).expect("it was made");
    assert!(refused(&|spec| spec.topology.sockets = 65).contains("65 processors"));
    assert!(refused(&|spec| spec.memory_bytes = 1).contains("1 bytes of memory"));
    assert!(refused(&|spec| spec.kernel.image = file(vec![0; 5000])).contains("no kernel"));
    assert!(
        refused(&|spec| spec.kernel.image = file(guest()[..100].to_vec())).contains("no kernel")
    );
    assert!(
        refused(&|spec| spec.kernel.initrd = Some(file(vec![0; 32 << 20]))).contains("no room")
    );
    assert!(refused(&|spec| spec.kernel.command_line = vec![0]).contains("command line"));
}
