//! How a device tells its driver: interrupts of queues, interrupts of the configuration, and that it
//! has given up.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pci::msix::Msix;

/// The vector of what has none.
pub const NO_VECTOR: u16 = 0xffff;
/// Device status: the device gave up; nothing goes on until the driver resets it.
pub const NEEDS_RESET: u8 = 0x40;
/// Interrupt status: a queue; the configuration.
const QUEUE: u8 = 1;
const CONFIGURATION: u8 = 2;

/// The interrupts of a device.
pub struct DeviceInterrupts {
    msix: Mutex<Msix>,
    /// What happened since it was read last.
    happened: AtomicU8,
    config_vector: AtomicU16,
    status: AtomicU8,
}

impl DeviceInterrupts {
    /// Returns the interrupts of a device that was reset.
    pub fn new(msix: Msix) -> Arc<Self> {
        Arc::new(Self {
            msix: Mutex::new(msix),
            happened: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            status: AtomicU8::new(0),
        })
    }

    /// Returns the table of messages.
    pub fn msix(&self) -> MutexGuard<'_, Msix> {
        self.msix.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the device gives up, for what its driver asks of it cannot be.
    pub fn give_up(&self) {
        self.status.fetch_or(NEEDS_RESET, Ordering::SeqCst);
        self.configuration_changed();
    }

    /// Interrupts for the configuration.
    pub fn configuration_changed(&self) {
        self.happened.fetch_or(CONFIGURATION, Ordering::SeqCst);
        self.msix().send(self.config_vector.load(Ordering::SeqCst));
    }

    pub(super) fn status(&self) -> u8 {
        self.status.load(Ordering::SeqCst)
    }

    pub(super) fn set_status(&self, status: u8) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Returns what happened, and forgets it.
    pub(super) fn take_happened(&self) -> u8 {
        self.happened.swap(0, Ordering::SeqCst)
    }

    pub(super) fn config_vector(&self) -> &AtomicU16 {
        &self.config_vector
    }
}

/// The interrupt of one queue.
#[derive(Clone)]
pub struct QueueInterrupt {
    device: Arc<DeviceInterrupts>,
    vector: Arc<AtomicU16>,
}

impl QueueInterrupt {
    /// Returns the interrupt of a queue whose vector is kept in `vector`.
    pub fn new(device: Arc<DeviceInterrupts>, vector: Arc<AtomicU16>) -> Self {
        Self { device, vector }
    }

    /// Sends it.
    pub fn send(&self) {
        self.device.happened.fetch_or(QUEUE, Ordering::SeqCst);
        self.device.msix().send(self.vector.load(Ordering::SeqCst));
    }
}
