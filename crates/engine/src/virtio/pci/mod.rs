//! virtio on PCI (virtio 1.2, section 4.1): a device of today's kind (no legacy registers), with
//! MSI-X, its registers in one window.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0x0000 | 0x40 | common configuration |
//! | 0x1000 | 1 | interrupt status |
//! | 0x2000 | 0x1000 | the device's own configuration |
//! | 0x3000 | 4 for each queue | notifications |
//! | 0x8000 | 16 for each vector | MSI-X table |
//! | 0xc000 | | its pending bits |

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hako_block::{Error, Result};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use crate::kvm::failed;
use crate::memory::Memory;
use crate::pci::bus::PciDevice;
use crate::pci::config::{ConfigSpace, Identity};
use crate::pci::msix::{self, Msix, Routes, event};
use crate::virtio::interrupt::{DeviceInterrupts, NEEDS_RESET, NO_VECTOR, QueueInterrupt};
use crate::virtio::queue::ServedQueue;
use crate::virtio::{Activation, RING_FEATURES, VERSION_1, VirtioDevice};

/// The bytes of the window.
pub const WINDOW: u32 = 0x1_0000;

const COMMON: u64 = 0;
const COMMON_BYTES: u64 = 0x40;
const STATUS_OF_INTERRUPTS: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const DEVICE_BYTES: u64 = 0x1000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_STRIDE: u64 = 4;
const TABLE: u64 = 0x8000;
const PENDING: u64 = 0xc000;

/// The vendor of virtio devices, and the first number of today's kind.
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// The id of a vendor's own capability, and kinds of those of virtio.
const VENDOR_CAPABILITY: u8 = 9;
const COMMON_CAPABILITY: u8 = 1;
const NOTIFY_CAPABILITY: u8 = 2;
const INTERRUPT_CAPABILITY: u8 = 3;
const DEVICE_CAPABILITY: u8 = 4;
const ACCESS_CAPABILITY: u8 = 5;

/// Device status.
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;

/// Who turns a driver's writes to notification registers into events, without waking a processor's
/// thread: the kernel. Where nobody does, the write itself comes through.
pub trait Doorbells: Send + Sync {
    /// Makes writes to `address` count up `event`.
    fn add(&self, event: &EventFd, address: u64) -> Result<()>;
    /// Ends that.
    fn remove(&self, event: &EventFd, address: u64);
}

impl Doorbells for Arc<VmFd> {
    fn add(&self, event: &EventFd, address: u64) -> Result<()> {
        self.register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|error| failed("register a notification", error))
    }

    fn remove(&self, event: &EventFd, address: u64) {
        // It was registered by `add`: nothing can be wrong.
        let _ = self.unregister_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch);
    }
}

/// A virtio device on PCI.
pub struct VirtioPci {
    config: Mutex<ConfigSpace>,
    state: Mutex<State>,
    interrupts: Arc<DeviceInterrupts>,
    memory: Memory,
    doorbells: Box<dyn Doorbells>,
    /// Where the capabilities are whose registers do something.
    msix_at: usize,
    access_at: usize,
}

struct State {
    device: Box<dyn VirtioDevice>,
    queues: Vec<QueueState>,
    feature_word: u32,
    driver_feature_word: u32,
    driver_features: u64,
    queue: u16,
    generation: u8,
    active: bool,
    /// Where the notifications are that the kernel counts.
    rung_at: Option<u64>,
}

struct QueueState {
    ring: Queue,
    kick: EventFd,
    vector: Arc<AtomicU16>,
    /// An address was given that a ring cannot have: the queue is not served.
    is_misplaced: bool,
}

impl VirtioPci {
    /// Returns `device` with its window at `address`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Memory,
        address: u32,
        routes: Arc<dyn Routes>,
        doorbells: Box<dyn Doorbells>,
    ) -> Result<Arc<Self>> {
        let queues = device
            .queue_sizes()
            .into_iter()
            .map(QueueState::new)
            .collect::<Result<Vec<_>>>()?;
        // One for each queue, and one for the configuration.
        let msix = Msix::new(queues.len() as u16 + 1, routes)?;
        let identity = Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE + device.kind(),
            class: device.class(),
            revision: 1,
            subsystem: (VENDOR, FIRST_DEVICE + device.kind()),
        };
        let mut config = ConfigSpace::new(identity, address, WINDOW);
        let (body, writable) = msix.capability(TABLE as u32, PENDING as u32);
        let msix_at = config.add_capability(msix::CAPABILITY, &body, &writable);
        let notify_bytes = queues.len() as u64 * NOTIFY_STRIDE;
        add_capability(&mut config, COMMON_CAPABILITY, COMMON, COMMON_BYTES, &[]);
        add_capability(
            &mut config,
            INTERRUPT_CAPABILITY,
            STATUS_OF_INTERRUPTS,
            1,
            &[],
        );
        add_capability(&mut config, DEVICE_CAPABILITY, DEVICE, DEVICE_BYTES, &[]);
        let stride = (NOTIFY_STRIDE as u32).to_le_bytes();
        add_capability(
            &mut config,
            NOTIFY_CAPABILITY,
            NOTIFY,
            notify_bytes,
            &stride,
        );
        let access_at = add_capability(&mut config, ACCESS_CAPABILITY, 0, 0, &[0; 4]);
        Ok(Arc::new(Self {
            config: Mutex::new(config),
            interrupts: DeviceInterrupts::new(msix),
            memory,
            doorbells,
            msix_at,
            access_at,
            state: Mutex::new(State {
                device,
                queues,
                feature_word: 0,
                driver_feature_word: 0,
                driver_features: 0,
                queue: 0,
                generation: 0,
                active: false,
                rung_at: None,
            }),
        }))
    }

    /// Returns once the device does nothing any more.
    pub fn pause(&self) {
        self.state().device.workers().pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.state().device.workers().resume();
    }

    /// Ends it.
    pub fn stop(&self) {
        self.reset(&mut self.state());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new device status: the way from one to the next is the driver's, what it may not skip
    /// is the features.
    fn set_status(&self, state: &mut State, status: u8) {
        let old = self.interrupts.status();
        if status == 0 {
            self.reset(state);
            return;
        }
        // Nothing is taken back but by a reset.
        let mut status = status & !NEEDS_RESET | old;
        if status & !old & FEATURES_OK != 0 && !state.features_are_good() {
            status &= !FEATURES_OK;
        }
        self.interrupts.set_status(status);
        let ready = FEATURES_OK | DRIVER_OK;
        if status & ready == ready && !state.active && self.activate(state).is_err() {
            self.interrupts.give_up();
        }
    }

    fn activate(&self, state: &mut State) -> Result<()> {
        let features = state.driver_features;
        let mut queues = Vec::with_capacity(state.queues.len());
        for queue in &state.queues {
            queues.push(queue.served(&self.memory, features, &self.interrupts)?);
        }
        state.active = true;
        self.ring_at(state, self.config().window().map(|(start, _)| start));
        state.device.activate(Activation {
            memory: self.memory.clone(),
            features,
            queues,
            interrupts: Arc::clone(&self.interrupts),
        })
    }

    /// Lets the kernel count notifications in the window at `start`; none: nowhere.
    fn ring_at(&self, state: &mut State, start: Option<u64>) {
        let place = |start: u64, index: usize| start + NOTIFY + index as u64 * NOTIFY_STRIDE;
        if let Some(old) = state.rung_at.take() {
            for (index, queue) in state.queues.iter().enumerate() {
                self.doorbells.remove(&queue.kick, place(old, index));
            }
        }
        let Some(start) = start else { return };
        for (index, queue) in state.queues.iter().enumerate() {
            if self
                .doorbells
                .add(&queue.kick, place(start, index))
                .is_err()
            {
                // Then writes come through, slowly.
                for (done, queue) in state.queues.iter().enumerate().take(index) {
                    self.doorbells.remove(&queue.kick, place(start, done));
                }
                return;
            }
        }
        state.rung_at = Some(start);
    }

    fn reset(&self, state: &mut State) {
        state.device.workers().stop();
        self.ring_at(state, None);
        state.active = false;
        state.driver_features = 0;
        state.feature_word = 0;
        state.driver_feature_word = 0;
        state.queue = 0;
        for queue in &mut state.queues {
            queue.ring.reset();
            queue.is_misplaced = false;
            queue.vector.store(NO_VECTOR, Ordering::SeqCst);
            let _ = queue.kick.read();
        }
        self.interrupts
            .config_vector()
            .store(NO_VECTOR, Ordering::SeqCst);
        let _ = self.interrupts.take_happened();
        self.interrupts.set_status(0);
    }

    fn read_common(&self, offset: u64, data: &mut [u8]) {
        let state = self.state();
        let value = state.common(offset, &self.interrupts).to_le_bytes();
        for (byte, value) in data.iter_mut().zip(value) {
            *byte = value;
        }
    }

    fn write_common(&self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 8];
        for (place, byte) in bytes.iter_mut().zip(data) {
            *place = *byte;
        }
        let value = u64::from_le_bytes(bytes);
        let mut state = self.state();
        match (offset, data.len()) {
            (0, 4) => state.feature_word = value as u32,
            (8, 4) => state.driver_feature_word = value as u32,
            (12, 4) => state.accept(value as u32, self.interrupts.status()),
            (16, 2) => self
                .interrupts
                .config_vector()
                .store(value as u16, Ordering::SeqCst),
            (20, 1) => self.set_status(&mut state, value as u8),
            (22, 2) => state.queue = value as u16,
            (24.., _) => state.set_queue(offset, value, data.len()),
            _ => {}
        }
    }

    /// A driver without a mapping of the window reads and writes it through its configuration.
    fn access(&self) -> Option<(u64, usize)> {
        let mut words = [0; 8];
        self.config().read(self.access_at + 8, &mut words);
        let word = |at: usize| {
            let bytes = words.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map(u32::from_le_bytes)
        };
        let (offset, len) = (u64::from(word(0)?), word(4)? as usize);
        let good = matches!(len, 1 | 2 | 4) && offset + len as u64 <= u64::from(WINDOW);
        (good && offset.is_multiple_of(len as u64)).then_some((offset, len))
    }
}

/// Adds one of virtio's capabilities, about a part of BAR 0, and returns where it is.
fn add_capability(config: &mut ConfigSpace, kind: u8, offset: u64, len: u64, more: &[u8]) -> usize {
    let mut body = vec![16 + more.len() as u8, kind, 0, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((len as u32).to_le_bytes());
    body.extend(more);
    // Of the one for access through the configuration the guest sets where and how much.
    let writable: &[u8] = match kind {
        ACCESS_CAPABILITY => &[
            0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        _ => &[],
    };
    config.add_capability(VENDOR_CAPABILITY, &body, writable)
}

impl QueueState {
    fn new(size: u16) -> Result<Self> {
        let ring = Queue::new(size).map_err(|_| Error::invalid(format!("a queue of {size}")))?;
        Ok(Self {
            ring,
            kick: event()?,
            vector: Arc::new(AtomicU16::new(NO_VECTOR)),
            is_misplaced: false,
        })
    }

    /// Returns the queue for the device; none if the driver has not enabled it.
    fn served(
        &self,
        memory: &Memory,
        features: u64,
        interrupts: &Arc<DeviceInterrupts>,
    ) -> Result<Option<ServedQueue>> {
        /// VIRTIO_F_EVENT_IDX.
        const EVENT_IDX: u64 = 1 << 29;
        if !self.ring.ready() {
            return Ok(None);
        }
        let mut ring =
            Queue::new(self.ring.max_size()).map_err(|_| Error::invalid("a queue of no size"))?;
        clone_ring(&self.ring, &mut ring);
        ring.set_event_idx(features & EVENT_IDX != 0);
        if self.is_misplaced || !ring.is_valid(memory) {
            return Err(Error::invalid(
                "a queue that does not lie in the guest's memory",
            ));
        }
        let kick = self
            .kick
            .try_clone()
            .map_err(|error| Error::io("share an event", error))?;
        Ok(Some(ServedQueue {
            ring,
            kick,
            interrupt: QueueInterrupt::new(Arc::clone(interrupts), Arc::clone(&self.vector)),
        }))
    }
}

fn clone_ring(from: &Queue, to: &mut Queue) {
    let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
    to.set_size(from.size());
    let (low, high) = halves(from.desc_table());
    to.set_desc_table_address(low, high);
    let (low, high) = halves(from.avail_ring());
    to.set_avail_ring_address(low, high);
    let (low, high) = halves(from.used_ring());
    to.set_used_ring_address(low, high);
    to.set_ready(true);
}

impl State {
    fn offered(&self) -> u64 {
        self.device.features() | VERSION_1 | RING_FEATURES
    }

    fn features_are_good(&self) -> bool {
        self.driver_features & !self.offered() == 0 && self.driver_features & VERSION_1 != 0
    }

    /// Takes half of the driver's features, while they can still change.
    fn accept(&mut self, half: u32, status: u8) {
        if status & FEATURES_OK != 0 {
            return;
        }
        let shift = match self.driver_feature_word {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features &= !(0xffff_ffff << shift);
        self.driver_features |= u64::from(half) << shift;
    }

    /// Returns the register at `offset` of the common configuration.
    fn common(&self, offset: u64, interrupts: &DeviceInterrupts) -> u64 {
        let half = |features: u64, word: u32| match word {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        let queue = self.queues.get(usize::from(self.queue));
        let of_ring = |of: fn(&Queue) -> u64| queue.map_or(0, |queue| of(&queue.ring));
        match offset {
            0 => u64::from(self.feature_word),
            4 => half(self.offered(), self.feature_word),
            8 => u64::from(self.driver_feature_word),
            12 => half(self.driver_features, self.driver_feature_word),
            16 => u64::from(interrupts.config_vector().load(Ordering::SeqCst)),
            18 => self.queues.len() as u64,
            20 => u64::from(interrupts.status()),
            21 => u64::from(self.generation),
            22 => u64::from(self.queue),
            24 => of_ring(|ring| u64::from(ring.size())),
            26 => queue.map_or(u64::from(NO_VECTOR), |queue| {
                u64::from(queue.vector.load(Ordering::SeqCst))
            }),
            28 => of_ring(|ring| u64::from(ring.ready())),
            30 => queue.map_or(0, |_| u64::from(self.queue)),
            32 => of_ring(Queue::desc_table),
            36 => of_ring(Queue::desc_table) >> 32,
            40 => of_ring(Queue::avail_ring),
            44 => of_ring(Queue::avail_ring) >> 32,
            48 => of_ring(Queue::used_ring),
            52 => of_ring(Queue::used_ring) >> 32,
            _ => 0,
        }
    }

    /// Writes a register of the selected queue. Once the device is active nothing of a queue changes
    /// but its vector.
    fn set_queue(&mut self, offset: u64, value: u64, len: usize) {
        let active = self.active;
        let Some(queue) = self.queues.get_mut(usize::from(self.queue)) else {
            return;
        };
        if (offset, len) == (26, 2) {
            queue.vector.store(value as u16, Ordering::SeqCst);
            return;
        }
        if active || queue.ring.ready() {
            return;
        }
        let (low, high) = match len {
            8 => (Some(value as u32), Some((value >> 32) as u32)),
            _ => (Some(value as u32), None),
        };
        let upper = Some(value as u32);
        // Section 2.7: what descriptors, available ring and used ring are aligned to.
        let alignment = match offset {
            32 => 16,
            40 => 2,
            48 => 4,
            _ => 1,
        };
        queue.is_misplaced |= !value.is_multiple_of(alignment);
        match (offset, len) {
            (24, 2) => queue.ring.set_size(value as u16),
            (28, 2) if value == 1 => queue.ring.set_ready(true),
            (32, 4 | 8) => queue.ring.set_desc_table_address(low, high),
            (36, 4) => queue.ring.set_desc_table_address(None, upper),
            (40, 4 | 8) => queue.ring.set_avail_ring_address(low, high),
            (44, 4) => queue.ring.set_avail_ring_address(None, upper),
            (48, 4 | 8) => queue.ring.set_used_ring_address(low, high),
            (52, 4) => queue.ring.set_used_ring_address(None, upper),
            _ => {}
        }
    }
}

impl PciDevice for VirtioPci {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        if offset == self.access_at + 16
            && let Some((place, len)) = self.access()
        {
            let mut bytes = [0; 4];
            self.read(place, bytes.get_mut(..len).unwrap_or_default());
            for (byte, value) in data.iter_mut().zip(bytes) {
                *byte = value;
            }
            return;
        }
        self.config().read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let before = self.config().window();
        self.config().write(offset, data);
        let after = self.config().window();
        if before != after {
            let mut state = self.state();
            if state.active {
                self.ring_at(&mut state, after.map(|(start, _)| start));
            }
        }
        if offset < self.msix_at + 4 && offset + data.len() > self.msix_at + 2 {
            let mut control = [0; 2];
            self.config().read(self.msix_at + 2, &mut control);
            self.interrupts
                .msix()
                .set_control(u16::from_le_bytes(control));
        }
        if offset == self.access_at + 16
            && let Some((place, len)) = self.access()
            && let Some(bytes) = data.get(..len)
        {
            self.write(place, bytes);
        }
    }

    fn window(&self) -> Option<(u64, u64)> {
        self.config().window()
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset {
            COMMON..COMMON_BYTES => self.read_common(offset, data),
            STATUS_OF_INTERRUPTS => data.fill(self.interrupts.take_happened()),
            DEVICE..NOTIFY => self.state().device.read_config(offset - DEVICE, data),
            TABLE..PENDING => self.interrupts.msix().read_table(offset - TABLE, data),
            PENDING.. => self.interrupts.msix().read_pending(offset - PENDING, data),
            _ => data.fill(0),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match offset {
            COMMON..COMMON_BYTES => self.write_common(offset, data),
            NOTIFY..TABLE => {
                let state = self.state();
                let index =
                    usize::try_from((offset - NOTIFY) / NOTIFY_STRIDE).unwrap_or(usize::MAX);
                if let Some(queue) = state.queues.get(index) {
                    let _ = queue.kick.write(1);
                }
            }
            TABLE..PENDING => self.interrupts.msix().write_table(offset - TABLE, data),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
