//! The machine: what it is made of, and that it starts, pauses and stops.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use hako_block::{Error, Result};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::acpi;
use crate::cpu::{self, Topology};
use crate::kvm;
use crate::layout;
use crate::legacy::acpi_pm::{self, AcpiPm};
use crate::legacy::cmos::Cmos;
use crate::legacy::i8042::I8042;
use crate::legacy::serial::{Com1, Output};
use crate::link::Link;
use crate::load::{self, Kernel};
use crate::memory::{self, Memory, Pages};
use crate::pci::bus::{ConfigPorts, Ecam, PciBus, PciDevice, SLOTS, Windows};
use crate::pci::msix::{KernelRoutes, Routes, event};
use crate::signal::{Request, Signals};
use crate::vcpu::{Buses, Vcpus};
use crate::virtio::VirtioDevice;
use crate::virtio::block::{Block, Disk};
use crate::virtio::console::Console;
use crate::virtio::net::{self, Net};
use crate::virtio::pci::{VirtioPci, WINDOW};
use crate::virtio::rng::Rng;

/// The most processors that a machine has.
pub const MOST_PROCESSORS: u32 = 64;
/// The most queues that a disk has: one for each processor up to this.
const MOST_QUEUES: u32 = 8;

/// What a machine is made of.
pub struct Spec {
    /// Its processors.
    pub topology: Topology,
    /// Its memory in bytes.
    pub memory_bytes: u64,
    /// How the host gives it.
    pub pages: Pages,
    /// What it boots.
    pub kernel: Kernel,
    /// Its disks, in the order in which the guest is to find them.
    pub disks: Vec<Disk>,
    /// Its network cards, likewise.
    pub cards: Vec<Card>,
    /// Where COM1's output goes.
    pub console: Output,
    /// The other end of hvc0, if the machine has one.
    pub hvc: Option<UnixStream>,
    /// Seconds that its clock is ahead of UTC.
    pub clock_offset_seconds: i64,
    /// Where it asks for what has to be done outside; what is there from another machine counts, too.
    pub signals: Signals,
}

/// A network card.
pub struct Card {
    /// Its address.
    pub mac: [u8; 6],
    /// What it is connected to; none for a card without a cable.
    pub link: Option<Box<dyn Link>>,
    /// Counts what goes through it.
    pub counters: Arc<net::Counters>,
    /// The number of its slot, which the guest's system may name it by.
    pub slot_number: u16,
}

/// A machine that runs, or is paused. It ends when it is dropped.
pub struct Machine {
    // In the order in which they go: processors first, memory last.
    vcpus: Vcpus,
    devices: Vec<Arc<VirtioPci>>,
    com1: Arc<Com1>,
    pm: Arc<AcpiPm>,
    signals: Signals,
    _vm: Arc<VmFd>,
    _memory: Memory,
}

impl Machine {
    /// Makes a machine, paused: [`Machine::resume`] starts it. Errors: what the host lacks, what is no
    /// kernel, what does not fit.
    pub fn new(spec: Spec) -> Result<Self> {
        let processors = spec.topology.processors();
        if processors == 0 || processors > MOST_PROCESSORS {
            return Err(Error::invalid(format!(
                "{processors} processors: there are 1 to {MOST_PROCESSORS}"
            )));
        }
        let host = kvm::open()?;
        let memory = memory::map(spec.memory_bytes, spec.pages)?;
        let vm = kvm::machine(&host, &memory)?;
        let routes: Arc<dyn Routes> = Arc::new(KernelRoutes::new(Arc::clone(&vm))?);
        let signals = spec.signals;

        let slots = slot_numbers(spec.disks.len(), &spec.cards)?;
        let parts = parts(spec.disks, spec.cards, spec.hvc, processors, &signals)?;
        let devices = on_pci(parts, &memory, &vm, &routes)?;
        let (com1, pm) = (com1(&vm, spec.console)?, acpi_pm(&vm, &signals));
        let cmos = Cmos::new(spec.clock_offset_seconds);
        let buses = buses(&devices, &com1, &pm, cmos, &signals);

        acpi::write_tables(&memory, spec.topology, &slots)?;
        let vcpus = processors_of(&host, &vm, &memory, spec.topology, &spec.kernel)?;
        Ok(Self {
            vcpus: Vcpus::start(vcpus, &buses, &signals)?,
            devices,
            com1,
            pm,
            signals,
            _vm: vm,
            _memory: memory,
        })
    }

    /// Returns once nothing of the machine moves: processors first, then its devices.
    pub fn pause(&self) {
        self.vcpus.pause();
        self.devices.iter().for_each(|device| device.pause());
        // Whoever asked for a pause has it. It may have asked twice before it came.
        self.signals.forget_no_space();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.devices.iter().for_each(|device| device.resume());
        self.vcpus.resume();
    }

    /// Presses its power button.
    pub fn press_power_button(&self) {
        self.pm.press_power_button();
    }

    /// Types on COM1; returns how many bytes were taken.
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        self.com1.type_in(bytes)
    }

    /// Waits until something has to be done from outside; none if nothing had to in time. After one
    /// the processors may be paused, and go on by [`Machine::resume`] only.
    pub fn wait(&self, limit: Duration) -> Option<Request> {
        self.signals.wait(limit)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.vcpus.stop();
        self.devices.iter().for_each(|device| device.stop());
    }
}

/// Returns the slots of the cards and their numbers. The host bridge is in slot 0, and disks come
/// before cards.
fn slot_numbers(n_disks: usize, cards: &[Card]) -> Result<Vec<(u8, u16)>> {
    let too_many = |_| Error::invalid("more devices than there are slots");
    let slots = cards.iter().enumerate().map(|(index, card)| {
        let slot = u8::try_from(1 + n_disks + index).map_err(too_many)?;
        Ok((slot, card.slot_number))
    });
    slots.collect()
}

/// Returns the devices in the order of their slots: disks and cards first, for their places give
/// them their names.
fn parts(
    disks: Vec<Disk>,
    cards: Vec<Card>,
    hvc: Option<UnixStream>,
    processors: u32,
    signals: &Signals,
) -> Result<Vec<Box<dyn VirtioDevice>>> {
    let queues = processors.min(MOST_QUEUES) as u16;
    let mut parts: Vec<Box<dyn VirtioDevice>> = Vec::new();
    for disk in disks {
        parts.push(Box::new(Block::new(disk, queues, signals.clone())));
    }
    for card in cards {
        parts.push(Box::new(Net::new(card.mac, card.link, card.counters)));
    }
    if let Some(socket) = hvc {
        parts.push(Box::new(Console::new(socket)?));
    }
    parts.push(Box::new(Rng::default()));
    Ok(parts)
}

fn on_pci(
    parts: Vec<Box<dyn VirtioDevice>>,
    memory: &Memory,
    vm: &Arc<VmFd>,
    routes: &Arc<dyn Routes>,
) -> Result<Vec<Arc<VirtioPci>>> {
    if parts.len() >= SLOTS {
        return Err(Error::invalid(format!(
            "{} devices: there is room for {}",
            parts.len(),
            SLOTS - 1
        )));
    }
    let mut address = layout::HOLE as u32;
    parts
        .into_iter()
        .map(|part| {
            let here = address;
            address += WINDOW;
            let doorbells = Box::new(Arc::clone(vm));
            VirtioPci::new(part, memory.clone(), here, Arc::clone(routes), doorbells)
        })
        .collect()
}

fn com1(vm: &Arc<VmFd>, output: Output) -> Result<Arc<Com1>> {
    let line = event()?;
    vm.register_irqfd(&line, layout::COM1_IRQ)
        .map_err(|error| kvm::failed("register COM1's interrupt", error))?;
    Ok(Arc::new(Com1::new(line, output)))
}

fn acpi_pm(vm: &Arc<VmFd>, signals: &Signals) -> Arc<AcpiPm> {
    let vm = Arc::clone(vm);
    let line = move |up| {
        // The line is there: it was made with the controllers.
        let _ = vm.set_irq_line(layout::ACPI_IRQ, up);
    };
    Arc::new(AcpiPm::new(Box::new(line), signals.clone()))
}

fn buses(
    devices: &[Arc<VirtioPci>],
    com1: &Arc<Com1>,
    pm: &Arc<AcpiPm>,
    cmos: Cmos,
    signals: &Signals,
) -> Buses {
    let on_bus = devices
        .iter()
        .map(|device| Arc::clone(device) as Arc<dyn PciDevice>)
        .collect();
    let pci = PciBus::new(on_bus);
    let mut buses = Buses::default();
    let ports = &mut buses.ports;
    ports.add(u64::from(layout::COM1), 8, Arc::clone(com1) as _);
    ports.add(u64::from(layout::CMOS), 2, Arc::new(cmos));
    ports.add(
        u64::from(layout::I8042),
        5,
        Arc::new(I8042(signals.clone())),
    );
    let pm_len = u64::from(acpi_pm::LEN);
    ports.add(u64::from(layout::ACPI_PM), pm_len, Arc::clone(pm) as _);
    let config = Arc::new(ConfigPorts::new(Arc::clone(&pci)));
    ports.add(u64::from(layout::PCI_CONFIG), 8, config);
    let ecam = Arc::new(Ecam(Arc::clone(&pci)));
    buses.memory.add(layout::ECAM, layout::ECAM_BYTES, ecam);
    let windows = Arc::new(Windows(pci));
    buses
        .memory
        .add(layout::HOLE, layout::PCI_WINDOW_BYTES, windows);
    buses
}

/// Makes the processors, loads the kernel and sets all up for it.
fn processors_of(
    host: &Kvm,
    vm: &VmFd,
    memory: &Memory,
    topology: Topology,
    kernel: &Kernel,
) -> Result<Vec<VcpuFd>> {
    let entry = load::load(memory, kernel)?;
    cpu::write_tables(memory, entry)?;
    let supported = cpu::supported(host)?;
    let made: Result<Vec<VcpuFd>> = (0..topology.processors())
        .map(|index| {
            let id = u64::from(topology.apic_id(index));
            let vcpu = vm
                .create_vcpu(id)
                .map_err(|error| kvm::failed("make a processor", error))?;
            let cpuid = cpu::cpuid(&supported, topology, index)?;
            cpu::set_up(&vcpu, &cpuid, (index == 0).then_some(entry))?;
            Ok(vcpu)
        })
        .collect();
    let mut vcpus = made?;
    kvm::post_port(host, vm, &mut vcpus, layout::PCI_CONFIG)?;
    Ok(vcpus)
}
