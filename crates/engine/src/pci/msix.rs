//! MSI-X (PCI Local Bus 3.0, section 6.8.2): interrupts as messages, a table of them in the device's
//! window. A message becomes a route in the kernel, and sending it a write to an event.

use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, Result};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;
pub use vmm_sys_util::eventfd::EventFd;

use crate::kvm::failed;
use crate::layout;

/// The id of the capability.
pub const CAPABILITY: u8 = 0x11;
/// Bytes of an entry of the table: address, data, control.
pub const ENTRY_BYTES: u64 = 16;
/// Message control: MSI-X is on; all of it is masked.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
/// Vector control: this one is masked.
const MASK: u32 = 1;

/// Where a message goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Message {
    /// The address that is written to.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// Where messages are sent. The kernel's routes in a machine; a list in a test.
pub trait Routes: Send + Sync {
    /// Returns a new event: writing to it sends the message that `gsi` has.
    fn new_event(&self) -> Result<(EventFd, u32)>;
    /// Gives `gsi` a message.
    fn set(&self, gsi: u32, message: Message) -> Result<()>;
}

/// The kernel's table of routes: the lines of the old controllers, and messages.
pub struct KernelRoutes {
    vm: Arc<VmFd>,
    messages: Mutex<Vec<Message>>,
}

impl KernelRoutes {
    /// Returns the routes of `vm`, which the old lines are made in.
    pub fn new(vm: Arc<VmFd>) -> Result<Self> {
        let routes = Self {
            vm,
            messages: Mutex::default(),
        };
        routes.write(&[])?;
        Ok(routes)
    }

    fn write(&self, messages: &[Message]) -> Result<()> {
        let mut entries = lines();
        entries.extend(messages.iter().enumerate().map(|(index, message)| {
            let mut entry = kvm_irq_routing_entry {
                gsi: layout::FIRST_MSI_GSI + index as u32,
                type_: KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi.address_lo = message.address as u32;
            entry.u.msi.address_hi = (message.address >> 32) as u32;
            entry.u.msi.data = message.data;
            entry
        }));
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| Error::invalid(format!("interrupt routes: {error:?}")))?;
        self.vm
            .set_gsi_routing(&table)
            .map_err(|error| failed("set interrupt routes", error))
    }
}

impl Routes for KernelRoutes {
    fn new_event(&self) -> Result<(EventFd, u32)> {
        let event = event()?;
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let gsi = layout::FIRST_MSI_GSI + messages.len() as u32;
        messages.push(Message::default());
        self.vm
            .register_irqfd(&event, gsi)
            .map_err(|error| failed("register an interrupt", error))?;
        Ok((event, gsi))
    }

    fn set(&self, gsi: u32, message: Message) -> Result<()> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let place = gsi
            .checked_sub(layout::FIRST_MSI_GSI)
            .and_then(|index| messages.get_mut(index as usize))
            .ok_or_else(|| Error::invalid(format!("interrupt {gsi} was never made")))?;
        if *place == message {
            return Ok(());
        }
        let before = std::mem::replace(place, message);
        let written = self.write(&messages);
        if written.is_err() {
            // One that the kernel refuses must not spoil the routes of others.
            if let Some(place) = messages.get_mut((gsi - layout::FIRST_MSI_GSI) as usize) {
                *place = before;
            }
        }
        written
    }
}

/// Returns a new event that never blocks.
pub fn event() -> Result<EventFd> {
    EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK)
        .map_err(|error| Error::io("make an event", error))
}

/// The lines of the two old controllers and of the I/O APIC, pin by pin.
fn lines() -> Vec<kvm_irq_routing_entry> {
    let entry = |gsi: u32, irqchip: u32, pin: u32| {
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..Default::default()
        };
        entry.u.irqchip.irqchip = irqchip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let master = (0..8).map(|pin| entry(pin, KVM_IRQCHIP_PIC_MASTER, pin));
    let slave = (0..8).map(|pin| entry(pin + 8, KVM_IRQCHIP_PIC_SLAVE, pin));
    let io_apic = (0..layout::FIRST_MSI_GSI).map(|pin| entry(pin, KVM_IRQCHIP_IOAPIC, pin));
    master.chain(slave).chain(io_apic).collect()
}

/// The interrupts of a device, as its capability and its table have them.
pub struct Msix {
    vectors: Vec<Vector>,
    control: u16,
    routes: Arc<dyn Routes>,
}

struct Vector {
    message: Message,
    /// Vector control.
    control: u32,
    /// An interrupt came while it was masked.
    pending: bool,
    event: EventFd,
    gsi: u32,
}

impl Msix {
    /// Returns `count` interrupts, all masked, MSI-X off.
    pub fn new(count: u16, routes: Arc<dyn Routes>) -> Result<Self> {
        let vectors = (0..count)
            .map(|_| {
                let (event, gsi) = routes.new_event()?;
                Ok(Vector {
                    message: Message::default(),
                    control: MASK,
                    pending: false,
                    event,
                    gsi,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            vectors,
            control: 0,
            routes,
        })
    }

    /// Returns the capability's bytes after its header, for a table at `table` and pending bits at
    /// `pending` in BAR 0; and which bits the guest can change.
    pub fn capability(&self, table: u32, pending: u32) -> ([u8; 10], [u8; 2]) {
        let mut body = [0; 10];
        let size = (self.vectors.len() as u16).saturating_sub(1);
        body[..2].copy_from_slice(&size.to_le_bytes());
        body[2..6].copy_from_slice(&table.to_le_bytes());
        body[6..].copy_from_slice(&pending.to_le_bytes());
        (body, (ENABLE | MASK_ALL).to_le_bytes())
    }

    /// Takes the message control that the guest has written.
    pub fn set_control(&mut self, control: u16) {
        self.control = control;
        (0..self.vectors.len()).for_each(|index| self.deliver(index));
    }

    /// Sends the interrupt `index`; a number that the guest made up does nothing.
    pub fn send(&mut self, index: u16) {
        if let Some(vector) = self.vectors.get_mut(usize::from(index)) {
            vector.pending = true;
            self.deliver(usize::from(index));
        }
    }

    /// Reads the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.entry(offset).map(|vector| {
            let mut bytes = [0; ENTRY_BYTES as usize];
            bytes[..8].copy_from_slice(&vector.message.address.to_le_bytes());
            bytes[8..12].copy_from_slice(&vector.message.data.to_le_bytes());
            bytes[12..].copy_from_slice(&vector.control.to_le_bytes());
            bytes
        });
        let start = (offset % ENTRY_BYTES) as usize;
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = bytes
                .and_then(|bytes| bytes.get(start + index).copied())
                .unwrap_or(0);
        }
    }

    /// Writes the table: 4 or 8 bytes, as the specification asks of drivers.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        for (index, word) in data.chunks_exact(4).enumerate() {
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            self.write_word(offset + 4 * index as u64, value);
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let Ok(index) = usize::try_from(offset / ENTRY_BYTES) else {
            return;
        };
        let Some(vector) = self.vectors.get_mut(index) else {
            return;
        };
        let address = &mut vector.message.address;
        match offset % ENTRY_BYTES {
            0 => *address = (*address & !0xffff_ffff) | u64::from(value),
            4 => *address = (*address & 0xffff_ffff) | u64::from(value) << 32,
            8 => vector.message.data = value,
            12 => vector.control = value & MASK,
            _ => return,
        }
        self.deliver(index);
    }

    /// Reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let first = (offset as usize + index) * 8;
            *byte = (0..8)
                .filter(|bit| self.vectors.get(first + bit).is_some_and(|v| v.pending))
                .fold(0, |byte, bit| byte | 1 << bit);
        }
    }

    fn entry(&self, offset: u64) -> Option<&Vector> {
        self.vectors
            .get(usize::try_from(offset / ENTRY_BYTES).ok()?)
    }

    /// Sends what is pending, if nothing masks it.
    fn deliver(&mut self, index: usize) {
        if self.control & ENABLE == 0 || self.control & MASK_ALL != 0 {
            return;
        }
        let Some(vector) = self.vectors.get_mut(index) else {
            return;
        };
        if vector.control & MASK != 0 {
            return;
        }
        // A message that the kernel refuses is the guest's fault, and its loss.
        if self.routes.set(vector.gsi, vector.message).is_err() {
            return;
        }
        if std::mem::take(&mut vector.pending) {
            let _ = vector.event.write(1);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Routes that remember their messages and nothing else.
    #[derive(Default)]
    pub(crate) struct Remembered(pub(crate) Mutex<Vec<(EventFd, Message)>>);

    impl Routes for Remembered {
        fn new_event(&self) -> Result<(EventFd, u32)> {
            let mut all = self.0.lock().unwrap();
            let event = event()?;
            all.push((event.try_clone().unwrap(), Message::default()));
            Ok((event, all.len() as u32 - 1))
        }

        fn set(&self, gsi: u32, message: Message) -> Result<()> {
            self.0.lock().unwrap()[gsi as usize].1 = message;
            Ok(())
        }
    }

    #[test]
    fn a_masked_interrupt_waits_until_it_is_unmasked() {
        let routes = Arc::new(Remembered::default());
        let mut msix = Msix::new(2, Arc::clone(&routes) as Arc<dyn Routes>).unwrap();
        let came = || routes.0.lock().unwrap()[1].0.read().is_ok();
        msix.send(1);
        assert!(!came(), "off");
        msix.set_control(ENABLE);
        assert!(!came(), "masked");
        let mut pending = [0];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [2]);
        msix.write_table(16, &0xfee0_1000u64.to_le_bytes());
        msix.write_table(24, &0x41u64.to_le_bytes());
        assert!(came());
        assert_eq!(
            routes.0.lock().unwrap()[1].1,
            Message {
                address: 0xfee0_1000,
                data: 0x41
            }
        );
        assert!(!came(), "once");
        msix.set_control(ENABLE | MASK_ALL);
        msix.send(1);
        assert!(!came());
        msix.set_control(ENABLE);
        assert!(came());
    }

    #[test]
    fn a_table_that_is_written_in_odd_pieces_keeps_its_messages() {
        let mut msix = Msix::new(2, Arc::new(Remembered::default())).unwrap();
        msix.write_table(0, &0x1_fee0_1000u64.to_le_bytes());
        msix.write_table(8, &0x41u32.to_le_bytes());
        let table = |msix: &Msix| {
            let mut bytes = [0; 2 * ENTRY_BYTES as usize];
            let halves = bytes.chunks_mut(8).enumerate();
            halves.for_each(|(at, half)| msix.read_table(8 * at as u64, half));
            bytes
        };
        let before = table(&msix);
        for (offset, len) in [
            (0, 1),
            (0, 2),
            (1, 4),
            (2, 4),
            (6, 8),
            (8, 1),
            (10, 4),
            (29, 2),
        ] {
            msix.write_table(offset, &[0xaa; 8][..len]);
            assert_eq!(table(&msix), before, "{len} bytes at {offset}");
        }
        // Eight bytes may end in the next entry, and past the last.
        msix.write_table(12, &[0; 8]);
        msix.write_table(28, &[0; 8]);
        let after = table(&msix);
        assert_eq!((after[12], after[28]), (0, 0), "neither is masked");
    }

    /// A kernel that refuses messages to anything but processors.
    #[derive(Default)]
    struct Choosy(Remembered);

    impl Routes for Choosy {
        fn new_event(&self) -> Result<(EventFd, u32)> {
            self.0.new_event()
        }

        fn set(&self, gsi: u32, message: Message) -> Result<()> {
            match message.address >> 20 {
                0xfee => self.0.set(gsi, message),
                _ => Err(Error::invalid("no such processor")),
            }
        }
    }

    #[test]
    fn a_message_that_the_kernel_refuses_waits_for_a_better_one_and_harms_no_other() {
        let routes = Arc::new(Choosy::default());
        let mut msix = Msix::new(2, Arc::clone(&routes) as Arc<dyn Routes>).unwrap();
        let came = |index: usize| routes.0.0.lock().unwrap()[index].0.read().is_ok();
        msix.set_control(ENABLE);
        for (index, address) in [(0, 0xdead_0000_u64), (1, 0xfee0_1000)] {
            msix.write_table(16 * index, &address.to_le_bytes());
            msix.write_table(16 * index + 8, &0x41u64.to_le_bytes());
        }
        msix.send(0);
        msix.send(1);
        assert_eq!((came(0), came(1)), (false, true));
        let mut pending = [0];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [1]);
        msix.write_table(0, &0xfee0_2000u64.to_le_bytes());
        assert_eq!((came(0), came(1)), (true, false));
        let message = Message {
            address: 0xfee0_2000,
            data: 0x41,
        };
        assert_eq!(routes.0.0.lock().unwrap()[0].1, message);
    }

    #[test]
    fn numbers_that_the_guest_made_up_do_nothing() {
        let mut msix = Msix::new(1, Arc::new(Remembered::default())).unwrap();
        msix.set_control(ENABLE);
        msix.send(7);
        msix.write_table(u64::MAX - 8, &[1; 8]);
        msix.write_table(16, &[1; 4]);
        msix.write_table(3, &[1; 1]);
        let mut data = [9; 8];
        msix.read_table(1 << 40, &mut data);
        assert_eq!(data, [0; 8]);
        msix.read_pending(1 << 40, &mut data);
        assert_eq!(data, [0; 8]);
    }
}
