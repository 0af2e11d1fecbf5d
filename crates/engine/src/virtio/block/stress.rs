//! Drivers that do as a guest's kernel does: requests of several kinds under way in each of two queues,
//! notifications only where the device asks for them (VIRTIO_F_EVENT_IDX), sleep until an interrupt
//! comes. One that is lost, of either kind, leaves a driver asleep for ever.

use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};

use hako_block::testkit::{MemoryImage, Rng};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::pci::bus::PciDevice;
use crate::virtio::testing::{Driver, QUEUE_SIZE};

const QUEUES: usize = 2;
/// Requests of three descriptors that a ring has room for.
const SLOTS: u16 = QUEUE_SIZE / 3;
const SECTORS: u64 = 2048;
/// No interrupt takes longer, in milliseconds.
const LIMIT_MS: i32 = 60_000;

/// How many requests each driver sends.
fn requests() -> u64 {
    match std::env::var_os("HAKO_ALL") {
        Some(_) => 1_000_000,
        None => 20_000,
    }
}

/// What a slot's request is, while it is under way.
#[derive(Clone, Copy)]
struct Sent {
    kind: u32,
    sector: u64,
}

/// A guest's driver of one queue.
struct Side {
    device: Arc<crate::virtio::pci::VirtioPci>,
    memory: Memory,
    queue: usize,
    interrupt: EventFd,
    /// Waits for that.
    wakes: Epoll,
    slots: [Option<Sent>; SLOTS as usize],
    avail: u16,
    used: u16,
    /// What each sector of this queue holds: the same number all over.
    content: Vec<u64>,
    random: Rng,
    kicks: u64,
    sleeps: u64,
}

impl Side {
    fn new(driver: &Driver, queue: usize) -> Self {
        let interrupt = driver.interrupt(queue);
        let wakes = Epoll::new().unwrap();
        let wanted = EpollEvent::new(EventSet::IN, 0);
        let added = wakes.ctl(ControlOperation::Add, interrupt.as_raw_fd(), wanted);
        added.unwrap();
        Self {
            device: Arc::clone(&driver.device),
            memory: driver.memory.clone(),
            queue,
            interrupt,
            wakes,
            slots: [None; SLOTS as usize],
            avail: 0,
            used: 0,
            content: vec![0; (SECTORS / QUEUES as u64) as usize],
            random: Rng::new(queue as u64 + 1),
            kicks: 0,
            sleeps: 0,
        }
    }

    fn ring(&self, part: usize) -> u64 {
        Driver::rings(self.queue)[part]
    }

    fn put<T: vm_memory::ByteValued>(&self, value: T, address: u64) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    fn get<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    /// A 16-bit field that both sides use without a lock.
    fn load(&self, address: u64) -> u16 {
        let load = self.memory.load(GuestAddress(address), Ordering::Acquire);
        load.unwrap()
    }

    fn store(&self, value: u16, address: u64) {
        let store = self
            .memory
            .store(value, GuestAddress(address), Ordering::Release);
        store.unwrap();
    }

    /// Where a slot has its header, its data and its status.
    fn buffers(&self, slot: u16) -> [u64; 3] {
        let base = 0x40_0000 + (self.queue as u64) * 0x10_0000 + u64::from(slot) * 0x1000;
        [base, base + 0x200, base + 0x400]
    }

    /// Fills some of the free slots, and notifies the device if it wants to be.
    fn send(&mut self, left: &mut u64) {
        let before = self.avail;
        let most = self.random.below(1..u64::from(SLOTS) + 1);
        for slot in 0..SLOTS {
            let free = self.slots[usize::from(slot)].is_none();
            if free && *left > 0 && u64::from(self.avail.wrapping_sub(before)) < most {
                self.fill(slot);
                *left -= 1;
            }
        }
        if self.avail == before {
            return;
        }
        self.store(self.avail, self.ring(1) + 2);
        fence(Ordering::SeqCst);
        let event = self.load(self.ring(2) + 4 + 8 * u64::from(QUEUE_SIZE));
        let new = self.avail;
        if new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(before) {
            self.kicks += 1;
            let register = 0x3000 + 4 * self.queue as u64;
            self.device.write(register, &0u16.to_le_bytes());
        }
    }

    /// Makes a request of a slot, about a sector that no other slot's request is about.
    fn fill(&mut self, slot: u16) {
        let kinds = [
            READ,
            READ,
            WRITE,
            WRITE,
            WRITE_ZEROES_REQUEST,
            FLUSH_REQUEST,
        ];
        let kind = kinds[self.random.below(0..6) as usize];
        let places = SECTORS / (QUEUES as u64 * u64::from(SLOTS));
        let place = self.random.below(0..places) * u64::from(SLOTS) + u64::from(slot);
        let sector = place * QUEUES as u64 + self.queue as u64;
        let [header, data, status] = self.buffers(slot);
        self.put([kind, 0], header);
        self.put(sector, header + 8);
        self.put(0xffu8, status);
        let len = match kind {
            WRITE => {
                let value = self.random.next_u64();
                self.put([value; 32], data);
                self.put([value; 32], data + 256);
                self.content[place as usize] = value;
                512
            }
            WRITE_ZEROES_REQUEST => {
                self.put([sector, 1], data);
                self.content[place as usize] = 0;
                16
            }
            _ => 512,
        };
        let written = u16::from(kind == READ) << 1;
        let mut chain = vec![(header, 16, 0), (data, len, written), (status, 1, 2)];
        if kind == FLUSH_REQUEST {
            chain.remove(1);
        }
        let last = chain.len() - 1;
        for (index, (address, len, flags)) in chain.into_iter().enumerate() {
            let at = 3 * slot + index as u16;
            let place = self.ring(0) + 16 * u64::from(at);
            self.put(address, place);
            self.put::<u32>(len, place + 8);
            self.put(flags | u16::from(index < last), place + 12);
            self.put(at + 1, place + 14);
        }
        let entry = self.ring(1) + 4 + 2 * u64::from(self.avail % QUEUE_SIZE);
        self.put(3 * slot, entry);
        self.avail = self.avail.wrapping_add(1);
        self.slots[usize::from(slot)] = Some(Sent { kind, sector });
    }

    /// Takes what the device is done with, until it has nothing more: then it is to interrupt for the
    /// next. Says whether there was anything.
    fn take(&mut self) -> bool {
        let before = self.used;
        loop {
            while self.load(self.ring(2) + 2) != self.used {
                let element = self.ring(2) + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
                let head: u32 = self.get(element);
                self.finish(head as u16 / 3);
                self.used = self.used.wrapping_add(1);
            }
            self.store(self.used, self.ring(1) + 4 + 2 * u64::from(QUEUE_SIZE));
            fence(Ordering::SeqCst);
            if self.load(self.ring(2) + 2) == self.used {
                return self.used != before;
            }
        }
    }

    fn finish(&mut self, slot: u16) {
        let sent = self.slots[usize::from(slot)].take();
        let sent = sent.expect("a request that was sent");
        let [_, data, status] = self.buffers(slot);
        assert_eq!(self.get::<u8>(status), OK, "of {}", sent.kind);
        if sent.kind == READ {
            let place = (sent.sector / QUEUES as u64) as usize;
            let expected = [self.content[place]; 32];
            let halves: [[u64; 32]; 2] = [self.get(data), self.get(data + 256)];
            assert_eq!(halves, [expected; 2], "sector {}", sent.sector);
        }
    }

    /// Sleeps until an interrupt comes.
    fn sleep(&mut self) {
        self.sleeps += 1;
        let came = self.wakes.wait(LIMIT_MS, &mut [EpollEvent::default()]);
        assert!(
            came.unwrap() == 1,
            "queue {}: no interrupt; {} sent, {} taken, {} done",
            self.queue,
            self.avail,
            self.used,
            self.load(self.ring(2) + 2)
        );
        let _ = self.interrupt.read();
    }

    fn run(&mut self, mut left: u64) {
        while left > 0 || self.slots.iter().any(Option::is_some) {
            self.send(&mut left);
            // Some guests look before they sleep.
            if !(self.random.one_in(3) && self.take()) {
                self.sleep();
                self.take();
            }
        }
    }
}

#[test]
fn neither_notifications_nor_interrupts_are_lost_between_busy_queues() {
    let image = MemoryImage::new(vec![0; (SECTORS * 512) as usize]);
    let disk = Disk {
        image: image.clone(),
        read_only: false,
        serial: String::new(),
        pause_when_full: true,
    };
    let block = Block::new(disk, QUEUES as u16, Signals::default());
    let driver = Driver::ready_with_interrupts(Box::new(block));
    let mut sides = [0, 1].map(|queue| Side::new(&driver, queue));
    std::thread::scope(|scope| {
        for side in &mut sides {
            scope.spawn(|| side.run(requests()));
        }
    });
    for side in &sides {
        // It was worth it: neither was asked for each time.
        assert!(side.kicks < requests() && side.sleeps < requests());
        assert!(side.kicks > 0 && side.sleeps > 0);
        for (place, value) in side.content.iter().enumerate() {
            let at = (place * QUEUES + side.queue) * 512;
            let found = &image.bytes()[at..at + 512];
            let sound = found
                .chunks_exact(8)
                .all(|word| word == value.to_le_bytes());
            assert!(sound, "sector {}", at / 512);
        }
    }
}
