//! Bus 0, seen three ways: configuration through ports, configuration by address (ECAM), and the
//! windows of its devices.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::BusDevice;
use crate::layout;
use crate::pci::config::{ConfigSpace, Identity};

/// A device on the bus.
pub trait PciDevice: Send + Sync {
    /// Reads its configuration space.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// Writes it.
    fn write_config(&self, offset: usize, data: &[u8]);
    /// Returns where its window lies: address and bytes.
    fn window(&self) -> Option<(u64, u64)>;
    /// Reads in its window.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes in its window.
    fn write(&self, offset: u64, data: &[u8]);
}

/// How many devices there is room for.
pub const SLOTS: usize = 32;

/// The bus. Its first device is the host bridge.
pub struct PciBus {
    devices: Vec<Arc<dyn PciDevice>>,
}

impl PciBus {
    /// Returns the bus with `devices` in its slots from 1 on, at most 31.
    pub fn new(devices: Vec<Arc<dyn PciDevice>>) -> Arc<Self> {
        let mut all: Vec<Arc<dyn PciDevice>> = vec![Arc::new(HostBridge::new())];
        all.extend(devices);
        all.truncate(SLOTS);
        Arc::new(Self { devices: all })
    }

    /// Returns the function at a bus, device and function number (`bus << 8 | device << 3 |
    /// function`).
    fn function(&self, address: u32) -> Option<&Arc<dyn PciDevice>> {
        match address & 7 {
            0 => self.devices.get(usize::try_from(address >> 3).ok()?),
            _ => None,
        }
    }

    fn read_config(&self, function: u32, offset: usize, data: &mut [u8]) {
        match self.function(function) {
            Some(device) => device.read_config(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write_config(&self, function: u32, offset: usize, data: &[u8]) {
        if let Some(device) = self.function(function) {
            device.write_config(offset, data);
        }
    }

    /// Returns the device that all of an access falls into. Windows that the guest has put over each
    /// other: the first has it.
    fn at(&self, address: u64, len: usize) -> Option<(u64, &Arc<dyn PciDevice>)> {
        self.devices.iter().find_map(|device| {
            let (start, bytes) = device.window()?;
            let offset = address.checked_sub(start)?;
            let inside = offset.checked_add(len as u64)? <= bytes;
            inside.then_some((offset, device))
        })
    }
}

/// Configuration by ports 0xcf8 (which register) and 0xcfc (its value).
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: Mutex<u32>,
}

impl ConfigPorts {
    /// Returns the ports of `bus`.
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self {
            bus,
            address: Mutex::new(0),
        }
    }

    fn address(&self) -> std::sync::MutexGuard<'_, u32> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns function and offset that an access to the data port means, if it means one.
    fn target(&self, offset: u64) -> Option<(u32, usize)> {
        const ENABLE: u32 = 1 << 31;
        let address = *self.address();
        let register = (address & 0xfc) as usize + (offset as usize - 4);
        (address & ENABLE != 0).then_some(((address >> 8) & 0xffff, register))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= 4 {
            match self.target(offset) {
                Some((function, register)) => self.bus.read_config(function, register, data),
                None => data.fill(0xff),
            }
            return;
        }
        let address = self.address().to_le_bytes();
        for (byte, value) in data.iter_mut().zip(address.iter().skip(offset as usize)) {
            *byte = *value;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset >= 4 {
            if let Some((function, register)) = self.target(offset) {
                self.bus.write_config(function, register, data);
            }
        } else if let (0, Ok(bytes)) = (offset, <[u8; 4]>::try_from(data)) {
            *self.address() = u32::from_le_bytes(bytes);
        }
    }
}

/// Configuration by address: 4 KiB for every function.
pub struct Ecam(pub Arc<PciBus>);

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let (function, register) = ecam_target(offset);
        self.0.read_config(function, register, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (function, register) = ecam_target(offset);
        self.0.write_config(function, register, data);
    }
}

fn ecam_target(offset: u64) -> (u32, usize) {
    ((offset >> 12) as u32, (offset & 0xfff) as usize)
}

/// The windows of all devices.
pub struct Windows(pub Arc<PciBus>);

impl BusDevice for Windows {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.0.at(layout::HOLE + offset, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((offset, device)) = self.0.at(layout::HOLE + offset, data.len()) {
            device.write(offset, data);
        }
    }
}

/// The bridge between processors and bus: kernels look for one at 00:00.0. It says that it is
/// Intel's Q35, whose ECAM Linux knows.
struct HostBridge(Mutex<ConfigSpace>);

impl HostBridge {
    fn new() -> Self {
        let identity = Identity {
            vendor: 0x8086,
            device: 0x29c0,
            class: 0x06_00_00,
            revision: 0,
            subsystem: (0x1af4, 0x1100),
        };
        Self(Mutex::new(ConfigSpace::new(identity, 0, 0)))
    }
}

impl PciDevice for HostBridge {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let space = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        space.read(offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut space = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        space.write(offset, data);
    }

    fn window(&self) -> Option<(u64, u64)> {
        None
    }

    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_addresses_show_the_same_registers() {
        let bus = PciBus::new(Vec::new());
        let ports = ConfigPorts::new(Arc::clone(&bus));
        let ecam = Ecam(bus);
        ports.write(0, &0x8000_0000u32.to_le_bytes());
        let mut by_port = [0; 4];
        ports.read(4, &mut by_port);
        let mut by_address = [0; 4];
        ecam.read(0, &mut by_address);
        assert_eq!(by_port, [0x86, 0x80, 0xc0, 0x29]);
        assert_eq!(by_port, by_address);
        // A device and a function that are not there; and nothing is meant without the enable bit.
        for address in [0x8000_0800u32, 0x8000_0100, 0x0000_0000] {
            ports.write(0, &address.to_le_bytes());
            ports.read(4, &mut by_port);
            assert_eq!(by_port, [0xff; 4], "{address:#x}");
        }
        ecam.read(u64::MAX >> 30, &mut by_address);
        assert_eq!(by_address, [0xff; 4]);
    }
}
