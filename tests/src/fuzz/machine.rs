//! Guests that lie: registers, rings and PCI configuration of the native engine's devices, without
//! KVM. An input is a list of steps.
//!
//! | step | bytes that follow | what it does |
//! |---|---|---|
//! | 0 | address (3), length, so many bytes | writes the guest's memory |
//! | 1 | queue | rings |
//! | 2 | offset (2), length, 8 bytes | writes a register |
//! | 3 | offset (2), length | reads one |
//! | 4 | offset, length, 4 bytes | writes the PCI configuration |
//! | 5 | offset, length | reads it |
//! | 6 | queue, address (3) | gives a queue its rings, and says that the driver is ready |

use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use hako_block::Result;
use hako_block::testkit::MemoryImage;
use hako_engine::bus::BusDevice;
use hako_engine::layout;
use hako_engine::link::socket::DatagramLink;
use hako_engine::memory::{self, Memory};
use hako_engine::pci::bus::{ConfigPorts, Ecam, Windows};
use hako_engine::pci::msix::{EventFd, Message, Routes, event};
use hako_engine::pci::{PciBus, PciDevice};
use hako_engine::signal::Signals;
use hako_engine::virtio::VirtioDevice;
use hako_engine::virtio::block::{Block, Disk};
use hako_engine::virtio::console::Console;
use hako_engine::virtio::net::Net;
use hako_engine::virtio::pci::{Doorbells, VirtioPci, WINDOW};
use hako_engine::virtio::rng::Rng;
use vm_memory::{Bytes, GuestAddress};

/// The guest's memory.
const MEMORY: u64 = 16 << 20;
/// The disk that it is given.
const DISK: usize = 64 << 10;
/// Steps that are taken.
const MOST_STEPS: usize = 400;

/// The block device.
pub fn virtio_block(bytes: &[u8]) {
    lie(Box::new(block()), bytes);
}

fn block() -> Block {
    let disk = Disk {
        image: MemoryImage::new(vec![7; DISK]),
        read_only: false,
        serial: "fuzz".to_owned(),
        pause_when_full: false,
    };
    Block::new(disk, 2, Signals::default())
}

/// The network card, with a peer that sends a frame now and then.
pub fn virtio_net(bytes: &[u8]) {
    let Ok((ours, peer)) = UnixDatagram::pair() else {
        return;
    };
    let Ok(link) = DatagramLink::new(ours) else {
        return;
    };
    for len in [14, 60, 1514] {
        let _ = peer.send(&vec![5; len]);
    }
    let card = Net::new([2, 0, 0, 0, 0, 1], Some(Box::new(link)), Arc::default());
    lie(Box::new(card), bytes);
}

/// The console, on which something was typed.
pub fn virtio_console(bytes: &[u8]) {
    let Ok((ours, mut keyboard)) = UnixStream::pair() else {
        return;
    };
    let _ = keyboard.write_all(&[b'x'; 5000]);
    if let Ok(console) = Console::new(ours) {
        lie(Box::new(console), bytes);
    }
}

/// The entropy device.
pub fn virtio_rng(bytes: &[u8]) {
    lie(Box::new(Rng::default()), bytes);
}

/// PCI as a guest reaches it: configuration by ports and by address, and the windows (BARs) wherever
/// it puts them. Of an input's step the first byte says whether it reads, and through what, then an
/// offset of 4 bytes, a length, and 8 bytes to write.
pub fn pci(bytes: &[u8]) {
    let Ok(memory) = memory::map(MEMORY, memory::Pages::Normal) else {
        return;
    };
    let devices: [Box<dyn VirtioDevice>; 2] = [Box::new(block()), Box::new(Rng::default())];
    let devices: Vec<_> = (0..)
        .zip(devices)
        .filter_map(|(index, device)| {
            let address = layout::HOLE as u32 + index * WINDOW;
            let routes = Arc::new(Nowhere);
            VirtioPci::new(device, memory.clone(), address, routes, Box::new(Nowhere)).ok()
        })
        .collect();
    let on_bus = devices.iter().map(|device| Arc::clone(device) as _);
    let bus = PciBus::new(on_bus.collect());
    let ways: [(Arc<dyn BusDevice>, u64); 3] = [
        (Arc::new(ConfigPorts::new(Arc::clone(&bus))), 8),
        (Arc::new(Ecam(Arc::clone(&bus))), layout::ECAM_BYTES),
        (Arc::new(Windows(bus)), layout::PCI_WINDOW_BYTES),
    ];
    watch_threads();
    let mut steps = Steps(bytes);
    for _ in 0..MOST_STEPS {
        if steps.reach(&ways).is_none() {
            break;
        }
    }
    devices.iter().for_each(|device| device.stop());
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread has panicked");
}

/// How many threads have panicked: devices serve their queues in threads of their own, which are
/// waited for, whatever has become of them.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Has [`PANICS`] counted.
fn watch_threads() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(panic);
        }));
    });
}

/// Routes and doorbells that lead nowhere.
struct Nowhere;

impl Routes for Nowhere {
    fn new_event(&self) -> Result<(EventFd, u32)> {
        Ok((event()?, 0))
    }

    fn set(&self, _: u32, _: Message) -> Result<()> {
        Ok(())
    }
}

impl Doorbells for Nowhere {
    fn add(&self, _: &EventFd, _: u64) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &EventFd, _: u64) {}
}

fn lie(device: Box<dyn VirtioDevice>, bytes: &[u8]) {
    let made = memory::map(MEMORY, memory::Pages::Normal).and_then(|memory| {
        let routes = Arc::new(Nowhere);
        let address = 0xc000_0000;
        let device = VirtioPci::new(device, memory.clone(), address, routes, Box::new(Nowhere))?;
        Ok((memory, device))
    });
    let Ok((memory, device)) = made else { return };
    watch_threads();
    let mut steps = Steps(bytes);
    for _ in 0..MOST_STEPS {
        if steps.step(&memory, &device).is_none() {
            break;
        }
    }
    // What was rung for is served before the device goes.
    std::thread::sleep(Duration::from_micros(300));
    device.stop();
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread has panicked");
}

struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number<const N: usize>(&mut self) -> Option<u64> {
        let bytes = self.take::<N>()?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u64::from(*byte)),
        )
    }

    /// The length of an access: 1, 2, 4 or 8.
    fn access(&mut self) -> Option<usize> {
        Some(1 << (self.byte()? % 4))
    }

    fn step(&mut self, memory: &Memory, device: &VirtioPci) -> Option<()> {
        match self.byte()? % 7 {
            0 => {
                let address = self.number::<3>()?;
                let len = usize::from(self.byte()?).min(self.0.len());
                let (content, rest) = self.0.split_at(len);
                let _ = memory.write_slice(content, GuestAddress(address));
                self.0 = rest;
            }
            1 => device.write(0x3000 + 4 * u64::from(self.byte()?), &[0; 2]),
            2 => {
                let offset = self.number::<2>()? % u64::from(WINDOW);
                let len = self.access()?;
                device.write(offset, &self.take::<8>()?[..len]);
            }
            3 => {
                let offset = self.number::<2>()? % u64::from(WINDOW);
                device.read(offset, &mut [0; 8][..self.access()?]);
            }
            4 => {
                let offset = usize::from(self.byte()?);
                let len = self.access()?.min(4);
                device.write_config(offset, &self.take::<4>()?[..len]);
            }
            5 => {
                let offset = usize::from(self.byte()?);
                device.read_config(offset, &mut [0; 8][..self.access()?]);
            }
            _ => self.set_up(device)?,
        }
        Some(())
    }

    /// Reads or writes through one of the ways to PCI.
    fn reach(&mut self, ways: &[(Arc<dyn BusDevice>, u64)]) -> Option<()> {
        let kind = usize::from(self.byte()?);
        let (way, len) = ways.get(kind / 2 % ways.len())?;
        let offset = self.number::<4>()? % len;
        let bytes = self.access()?;
        match kind % 2 {
            0 => way.read(offset, &mut [0; 8][..bytes]),
            _ => way.write(offset, &self.take::<8>()?[..bytes]),
        }
        Some(())
    }

    /// What every driver does before its first request: nothing behind it would ever be reached by
    /// chance.
    fn set_up(&mut self, device: &VirtioPci) -> Option<()> {
        let queue = self.byte()? % 2;
        let address = self.number::<3>()? & !0xfff;
        let write = |offset: u64, value: u64, len: usize| {
            device.write(offset, &value.to_le_bytes()[..len]);
        };
        write(20, 3, 1);
        write(8, 1, 4);
        write(12, 1, 4);
        write(20, 11, 1);
        for queue in [u64::from(queue), u64::from(1 - queue)] {
            write(22, queue, 2);
            write(24, 16, 2);
            for (register, part) in [(32, 0), (40, 0x400), (48, 0x800)] {
                write(register, address + part + queue * 0x1000, 8);
            }
            write(28, 1, 2);
        }
        write(20, 15, 1);
        Some(())
    }
}
