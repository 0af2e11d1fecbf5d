//! What answers at an address: devices on the guest's I/O ports or in its memory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that the guest reads and writes. Any of its processors may, at the same time.
pub trait BusDevice: Send + Sync {
    /// Reads at `offset` from the device's first address, and fills all of `data`: 1, 2, 4 or 8
    /// bytes.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes 1, 2, 4 or 8 bytes at `offset`.
    fn write(&self, offset: u64, data: &[u8]);
}

/// Devices by their first address. Made once; nothing moves while the machine runs.
#[derive(Default, Clone)]
pub struct Bus {
    devices: BTreeMap<u64, (u64, Arc<dyn BusDevice>)>,
}

impl Bus {
    /// Puts a device at `len` addresses from `start`.
    pub fn add(&mut self, start: u64, len: u64, device: Arc<dyn BusDevice>) {
        self.devices.insert(start, (len, device));
    }

    /// Reads. Where nothing is, all bits are ones, as on a real bus.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes. Where nothing is, nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    /// Returns the device that all of the access falls into.
    fn find(&self, address: u64, len: usize) -> Option<(u64, &dyn BusDevice)> {
        let (start, (device_len, device)) = self.devices.range(..=address).next_back()?;
        let offset = address - start;
        let end = offset.checked_add(len as u64)?;
        (end <= *device_len).then_some((offset, &**device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl BusDevice for Echo {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&self, _: u64, _: &[u8]) {}
    }

    #[test]
    fn an_access_that_leaves_a_device_finds_nothing() {
        let mut bus = Bus::default();
        bus.add(0x100, 8, Arc::new(Echo));
        let read = |address, len| {
            let mut data = vec![0; len];
            bus.read(address, &mut data);
            data
        };
        assert_eq!(read(0x104, 4), [4; 4]);
        assert_eq!(read(0x106, 4), [0xff; 4]);
        assert_eq!(read(0xff, 1), [0xff]);
        assert_eq!(read(u64::MAX, 8), [0xff; 8]);
    }
}
