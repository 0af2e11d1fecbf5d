//! The configuration space of a device (PCI Local Bus 3.0, chapter 6): 256 bytes, of which the guest
//! can change some, one window, and a list of capabilities.

/// The bytes of a configuration space. Beyond them (PCIe's extended capabilities) is nothing.
pub const LEN: usize = 256;

/// Command register: answer in the window; write to memory and so signal interrupts.
const COMMAND: usize = 0x04;
const MEMORY: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
/// And do not raise a line, which there is none of.
const NO_LINE: u16 = 1 << 10;
/// Status register: there are capabilities.
const STATUS: usize = 0x06;
const CAPABILITIES: u16 = 1 << 4;
const BAR_0: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// Where the first capability goes.
const FIRST_CAPABILITY: usize = 0x40;

/// Who made a device and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor and device.
    pub vendor: u16,
    /// The device, of that vendor.
    pub device: u16,
    /// Class, subclass and programming interface: `0xCCSSPP`.
    pub class: u32,
    /// Its revision.
    pub revision: u8,
    /// Vendor of the board and the board.
    pub subsystem: (u16, u16),
}

/// A device's configuration space.
pub struct ConfigSpace {
    bytes: [u8; LEN],
    /// Bits that the guest can change.
    writable: [u8; LEN],
    /// The size of BAR 0, a power of two; 0 if the device has none.
    bar_bytes: u32,
    next_capability: usize,
    /// Where the pointer to the next capability goes.
    last_pointer: usize,
}

impl ConfigSpace {
    /// Returns the space of a device whose window, if it has one, has `bar_bytes` (a power of two, at
    /// least 16) and lies at `bar_address` until the guest moves it.
    pub fn new(identity: Identity, bar_address: u32, bar_bytes: u32) -> Self {
        let mut space = Self {
            bytes: [0; LEN],
            writable: [0; LEN],
            bar_bytes,
            next_capability: FIRST_CAPABILITY,
            last_pointer: CAPABILITIES_POINTER,
        };
        space.set(0, &identity.vendor.to_le_bytes());
        space.set(2, &identity.device.to_le_bytes());
        let class = identity.class << 8 | u32::from(identity.revision);
        space.set(8, &class.to_le_bytes());
        space.set(SUBSYSTEM, &identity.subsystem.0.to_le_bytes());
        space.set(SUBSYSTEM + 2, &identity.subsystem.1.to_le_bytes());
        space.set_writable(COMMAND, &(MEMORY | BUS_MASTER | NO_LINE).to_le_bytes());
        space.set_writable(INTERRUPT_LINE, &[0xff]);
        if bar_bytes > 0 {
            // A window of memory, 32 bits, not prefetchable. Firmware would have switched it on.
            space.set(BAR_0, &bar_address.to_le_bytes());
            space.set_writable(BAR_0, &(!(bar_bytes - 1)).to_le_bytes());
            space.set(COMMAND, &MEMORY.to_le_bytes());
        }
        space
    }

    /// Adds a capability with `id` whose bytes after the header are `body`, and says which of their
    /// bits the guest can change. Returns where it is. There is room for what the devices here have.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let here = self.next_capability;
        self.set(self.last_pointer, &[here as u8]);
        self.set(STATUS, &CAPABILITIES.to_le_bytes());
        self.set(here, &[id, 0]);
        self.set(here + 2, body);
        self.set_writable(here + 2, writable);
        self.last_pointer = here + 1;
        self.next_capability = (here + 2 + body.len()).next_multiple_of(4);
        here
    }

    /// Reads from `offset`.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(offset + index).copied().unwrap_or(0);
        }
    }

    /// Writes at `offset` what can be changed.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (index, new) in data.iter().enumerate() {
            let at = offset + index;
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = (*byte & !mask) | (new & mask);
            }
        }
    }

    /// Returns where the device's window lies now, if it answers there at all.
    pub fn window(&self) -> Option<(u64, u64)> {
        let enabled = self.word(COMMAND) & MEMORY != 0;
        let address = u32::from(self.word(BAR_0)) | u32::from(self.word(BAR_0 + 2)) << 16;
        (enabled && self.bar_bytes > 0).then_some((u64::from(address), u64::from(self.bar_bytes)))
    }

    /// Says whether the device may write to memory and signal interrupts.
    pub fn is_bus_master(&self) -> bool {
        self.word(COMMAND) & BUS_MASTER != 0
    }

    fn word(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(offset).zip(bytes) {
            *place = *byte;
        }
    }

    fn set_writable(&mut self, offset: usize, masks: &[u8]) {
        for (place, mask) in self.writable.iter_mut().skip(offset).zip(masks) {
            *place = *mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let identity = Identity {
            vendor: 0x1af4,
            device: 0x1042,
            class: 0x01_80_00,
            revision: 1,
            subsystem: (0x1af4, 0x1100),
        };
        ConfigSpace::new(identity, 0xc001_0000, 0x1_0000)
    }

    #[test]
    fn the_size_of_a_window_is_found_and_the_window_moves() {
        let mut space = space();
        assert_eq!(space.window(), Some((0xc001_0000, 0x1_0000)));
        space.write(BAR_0, &[0xff; 4]);
        let mut mask = [0; 4];
        space.read(BAR_0, &mut mask);
        assert_eq!(u32::from_le_bytes(mask), 0xffff_0000);
        space.write(BAR_0, &0xd002_1234u32.to_le_bytes());
        assert_eq!(space.window(), Some((0xd002_0000, 0x1_0000)));
        space.write(COMMAND, &[0, 0]);
        assert_eq!(space.window(), None);
    }

    #[test]
    fn identity_cannot_be_written_and_past_the_end_is_nothing() {
        let mut space = space();
        space.write(0, &[0; 4]);
        space.write(LEN - 1, &[0xff; 4]);
        let mut bytes = [9; 4];
        space.read(0, &mut bytes);
        assert_eq!(bytes, [0xf4, 0x1a, 0x42, 0x10]);
        space.read(LEN - 1, &mut bytes);
        assert_eq!(bytes, [0; 4]);
    }

    #[test]
    fn capabilities_make_a_list() {
        let mut space = space();
        let first = space.add_capability(9, &[1, 2, 3], &[]);
        let second = space.add_capability(0x11, &[0xff; 10], &[0xf0]);
        let mut byte = [0];
        space.read(CAPABILITIES_POINTER, &mut byte);
        assert_eq!(usize::from(byte[0]), first);
        space.read(first + 1, &mut byte);
        assert_eq!(usize::from(byte[0]), second);
        space.read(second + 1, &mut byte);
        assert_eq!(byte, [0]);
        space.write(second + 2, &[0]);
        space.read(second + 2, &mut byte);
        assert_eq!(byte, [0x0f]);
    }
}
