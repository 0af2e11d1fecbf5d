//! A driver for tests: it does with a device what a guest's kernel does, through the registers and
//! the guest's memory, without KVM; and what no kernel would do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hako_block::Result;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::{self, Memory, Pages};
use crate::pci::bus::PciDevice;
use crate::pci::msix::{self, tests::Remembered};
use crate::virtio::VirtioDevice;
use crate::virtio::pci::{Doorbells, VirtioPci};

/// Nobody counts notifications: the driver's writes come through.
pub(crate) struct NoDoorbells;

impl Doorbells for NoDoorbells {
    fn add(&self, _: &EventFd, _: u64) -> Result<()> {
        Ok(())
    }
    fn remove(&self, _: &EventFd, _: u64) {}
}

/// A buffer of a request: address, bytes, whether the device writes it.
pub(crate) type Buffer = (u64, u32, bool);

/// Status bits.
pub(crate) const ACKNOWLEDGE: u8 = 1;
pub(crate) const DRIVER: u8 = 2;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const NEEDS_RESET: u8 = 0x40;

pub(crate) const QUEUE_SIZE: u16 = 16;

pub(crate) struct Driver {
    pub(crate) device: Arc<VirtioPci>,
    pub(crate) memory: Memory,
    routes: Arc<Remembered>,
    avail: Vec<u16>,
    used: Vec<u16>,
}

impl Driver {
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Self {
        let memory = memory::map(16 << 20, Pages::Normal).unwrap();
        let queues = device.queue_sizes().len();
        let routes = Arc::new(Remembered::default());
        let device = VirtioPci::new(
            device,
            memory.clone(),
            0xc000_0000,
            Arc::clone(&routes) as _,
            Box::new(NoDoorbells),
        )
        .unwrap();
        Self {
            device,
            memory,
            routes,
            avail: vec![0; queues],
            used: vec![0; queues],
        }
    }

    /// A device whose driver is ready, with all features.
    pub(crate) fn ready(device: Box<dyn VirtioDevice>) -> Self {
        let mut driver = Self::new(device);
        driver.start();
        driver
    }

    /// A device whose driver is ready, and whose queues interrupt it.
    pub(crate) fn ready_with_interrupts(device: Box<dyn VirtioDevice>) -> Self {
        let driver = Self::ready(device);
        for vector in 0..=driver.used.len() as u64 {
            driver.write(0x8000 + 16 * vector + 12, 0, 4);
        }
        let byte = |at: usize| {
            let mut byte = [0];
            driver.device.read_config(at, &mut byte);
            usize::from(byte[0])
        };
        let mut capability = byte(0x34);
        while byte(capability) != usize::from(msix::CAPABILITY) {
            capability = byte(capability + 1);
        }
        let enable: u16 = 1 << 15;
        driver
            .device
            .write_config(capability + 2, &enable.to_le_bytes());
        driver
    }

    /// Returns what a queue's interrupt is written to.
    pub(crate) fn interrupt(&self, queue: usize) -> EventFd {
        let routes = self.routes.0.lock().unwrap();
        routes[queue + 1].0.try_clone().unwrap()
    }

    /// Makes a device that was reset ready.
    pub(crate) fn start(&mut self) {
        self.start_with(self.offered());
    }

    /// Makes it ready with these features alone.
    pub(crate) fn start_with(&mut self, features: u64) {
        self.negotiate(features);
        for queue in 0..self.used.len() {
            let rings = Self::rings(queue);
            self.put([0u16; 2], rings[1]);
            self.put([0u16; 2], rings[2]);
            self.avail[queue] = 0;
            self.used[queue] = 0;
            self.set_up_queue(queue as u16, rings);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_eq!(self.status() & NEEDS_RESET, 0);
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> u64 {
        let mut bytes = [0; 8];
        self.device.read(offset, &mut bytes[..len]);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write(&self, offset: u64, value: u64, len: usize) {
        self.device.write(offset, &value.to_le_bytes()[..len]);
    }

    pub(crate) fn status(&self) -> u8 {
        self.read(20, 1) as u8
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.write(20, u64::from(status), 1);
    }

    pub(crate) fn offered(&self) -> u64 {
        (0..2).fold(0, |all, word| {
            self.write(0, word, 4);
            all | self.read(4, 4) << (32 * word)
        })
    }

    pub(crate) fn negotiate(&self, features: u64) {
        self.set_status(ACKNOWLEDGE | DRIVER);
        for word in 0..2 {
            self.write(8, word, 4);
            self.write(12, (features >> (32 * word)) & 0xffff_ffff, 4);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    /// Where the descriptors, the available ring and the used ring of a queue are.
    pub(crate) fn rings(queue: usize) -> [u64; 3] {
        let base = 0x10_0000 + queue as u64 * 0x1_0000;
        [base, base + 0x4000, base + 0x8000]
    }

    pub(crate) fn set_up_queue(&self, queue: u16, rings: [u64; 3]) {
        self.write(22, u64::from(queue), 2);
        self.write(24, u64::from(QUEUE_SIZE), 2);
        self.write(26, u64::from(queue) + 1, 2);
        for (register, address) in [32, 40, 48].into_iter().zip(rings) {
            self.write(register, address, 8);
        }
        self.write(28, 1, 2);
    }

    pub(crate) fn put<T: vm_memory::ByteValued>(&self, value: T, address: u64) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    pub(crate) fn get<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    /// Writes a descriptor: flags are 1 for one that goes on at `next`, 2 for one the device writes.
    pub(crate) fn descriptor(
        &self,
        queue: usize,
        index: u16,
        buffer: (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let at = Self::rings(queue)[0] + 16 * u64::from(index);
        self.put(buffer.0, at);
        self.put(buffer.1, at + 8);
        self.put(flags, at + 12);
        self.put(next, at + 14);
    }

    /// Makes the descriptor `head` available, and rings.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let ring = Self::rings(queue)[1];
        let index = self.avail[queue];
        self.put(head, ring + 4 + 2 * u64::from(index % QUEUE_SIZE));
        self.avail[queue] = index.wrapping_add(1);
        self.put(self.avail[queue], ring + 2);
        self.ring(queue);
    }

    pub(crate) fn ring(&self, queue: usize) {
        self.write(0x3000 + 4 * queue as u64, 0, 2);
    }

    /// Sends a request of these buffers and returns how many bytes the device has written, when it
    /// has; none if it gives up.
    pub(crate) fn request(&mut self, queue: usize, buffers: &[Buffer]) -> Option<u32> {
        for (index, (address, len, written)) in buffers.iter().enumerate() {
            let last = index + 1 == buffers.len();
            let flags = u16::from(!last) | u16::from(*written) << 1;
            self.descriptor(
                queue,
                index as u16,
                (*address, *len),
                flags,
                index as u16 + 1,
            );
        }
        self.offer(queue, 0);
        self.completion(queue)
    }

    /// Waits for the next request that the device is done with.
    pub(crate) fn completion(&mut self, queue: usize) -> Option<u32> {
        let ring = Self::rings(queue)[2];
        let before = self.used[queue];
        let begun = Instant::now();
        while self.get::<u16>(ring + 2) == before {
            if self.status() & NEEDS_RESET != 0 {
                return None;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the device hangs"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
        self.used[queue] = before.wrapping_add(1);
        let element = ring + 4 + 8 * u64::from(before % QUEUE_SIZE);
        Some(self.get(element + 4))
    }

    /// Waits until the device gives up.
    pub(crate) fn gives_up(&self) -> bool {
        let begun = Instant::now();
        while self.status() & NEEDS_RESET == 0 {
            if begun.elapsed() > Duration::from_secs(60) {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}
