//! virtio 1.2: what a device is ([`VirtioDevice`]), how it is found on PCI ([`pci`]), and the devices.
//!
//! A device serves its queues in threads of its own, never in a processor's. The guest is not
//! trusted: what is wrong with a queue stops the device (DEVICE_NEEDS_RESET) and nothing else.

pub mod block;
pub mod console;
pub mod interrupt;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;
#[cfg(test)]
pub(crate) mod testing;
pub mod worker;

use hako_block::Result;

use crate::memory::Memory;
pub use interrupt::{DeviceInterrupts, QueueInterrupt};
pub use queue::ServedQueue;
pub use worker::Workers;

/// VIRTIO_F_VERSION_1: not one of the devices of before 1.0. All of them offer it, and insist.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX, which the queues here have.
pub const RING_FEATURES: u64 = 1 << 28 | 1 << 29;

/// What a device is given when its driver is ready.
pub struct Activation {
    /// The guest's memory.
    pub memory: Memory,
    /// The features that driver and device agree on.
    pub features: u64,
    /// A queue for each that the device has; none for those that the driver left out.
    pub queues: Vec<Option<ServedQueue>>,
    /// For interrupts about the device's configuration, and to say that it gave up.
    pub interrupts: std::sync::Arc<DeviceInterrupts>,
}

/// A device behind its transport.
pub trait VirtioDevice: Send {
    /// Returns its number (virtio 1.2, chapter 5).
    fn kind(&self) -> u16;

    /// Returns its PCI class: `0xCCSSPP`.
    fn class(&self) -> u32;

    /// Returns what it offers beside [`VERSION_1`] and [`RING_FEATURES`].
    fn features(&self) -> u64;

    /// Returns the size of each of its queues, powers of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Reads its configuration; what lies past it is 0.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let _ = offset;
        data.fill(0);
    }

    /// Starts to serve its queues.
    fn activate(&mut self, activation: Activation) -> Result<()>;

    /// Returns the threads that do so, to stop or pause them.
    fn workers(&mut self) -> &mut Workers;
}

/// Reads from the bytes of a configuration.
pub(crate) fn read_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = start
            .checked_add(index)
            .and_then(|at| config.get(at).copied())
            .unwrap_or(0);
    }
}
