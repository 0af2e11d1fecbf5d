//! The tables that tell the kernel of its machine (ACPI 6.5): processors, interrupts, PCI's places,
//! how to switch off.

use acpi_tables::aml::{
    self, AddressSpace, AddressSpaceCacheable, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, gas};
use hako_block::{Error, Result};

use crate::cpu::Topology;
use crate::layout;
use crate::legacy::acpi_pm;
use crate::load;
use crate::memory::Memory;

const OEM: [u8; 6] = *b"HAKO  ";
const TABLE: [u8; 8] = *b"HAKOPC  ";
const REVISION: u32 = 1;

/// Writes all tables into the guest's memory. Of `slots` each is a slot of the PCI bus and the number
/// that people know it by: Linux names a network card by that ("ens192").
pub fn write_tables(memory: &Memory, topology: Topology, slots: &[(u8, u16)]) -> Result<()> {
    let mut place = Place {
        memory,
        next: layout::ACPI_TABLES,
    };
    let dsdt = place.put(&bytes_of(&dsdt(slots)))?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    for table in [bytes_of(&fadt(dsdt)), madt(topology), bytes_of(&mcfg())] {
        xsdt.add_entry(place.put(&table)?);
    }
    let xsdt = place.put(&bytes_of(&xsdt))?;
    load::write(memory, &bytes_of(&Rsdp::new(OEM, xsdt)), layout::RSDP)
}

/// Where the next table goes.
struct Place<'a> {
    memory: &'a Memory,
    next: u64,
}

impl Place<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64> {
        let here = self.next;
        let end = here + table.len() as u64;
        if end > layout::HIGH_MEMORY {
            return Err(Error::invalid("ACPI tables that have no room below 1 MiB"));
        }
        load::write(self.memory, table, here)?;
        self.next = end.next_multiple_of(16);
        Ok(here)
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    /// There is no VGA to be probed for.
    const NO_VGA: u16 = 1 << 2;
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    let port = |offset: u16| u32::from(layout::ACPI_PM + offset);
    fadt.sci_int = (layout::ACPI_IRQ as u16).into();
    fadt.pm1a_evt_blk = port(0).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = port(acpi_pm::PM1_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = port(acpi_pm::TIMER).into();
    fadt.pm_tmr_len = 4;
    // Deeper idle states than C1 there are none.
    fadt.p_lvl2_lat = 0xffff.into();
    fadt.p_lvl3_lat = 0xffff.into();
    fadt.century = 0x32;
    fadt.iapc_boot_arch = NO_VGA.into();
    fadt.reset_reg = gas::GAS::new(
        gas::AddressSpace::SystemIo,
        8,
        0,
        gas::AccessSize::ByteAccess,
        u64::from(layout::ACPI_PM + acpi_pm::RESET),
    );
    fadt.reset_value = acpi_pm::RESET_VALUE;
    fadt.finalize()
}

/// Processors and interrupt controllers.
fn madt(topology: Topology) -> Vec<u8> {
    /// The old interrupt controllers are there, too.
    const PCAT_COMPAT: u32 = 1;
    /// Level-triggered, active high.
    const LEVEL_HIGH: u16 = 0b1101;
    let mut madt = Sdt::new(*b"APIC", 44, 4, OEM, TABLE, REVISION);
    madt.write_u32(36, layout::LOCAL_APIC as u32);
    madt.write_u32(40, PCAT_COMPAT);
    for index in 0..topology.processors() {
        let mut entry = vec![0, 8, index as u8, topology.apic_id(index) as u8];
        entry.extend(1u32.to_le_bytes());
        madt.append_slice(&entry);
    }
    let mut io_apic = vec![1, 12, 0, 0];
    io_apic.extend((layout::IO_APIC as u32).to_le_bytes());
    io_apic.extend(0u32.to_le_bytes());
    madt.append_slice(&io_apic);
    let mut sci = vec![2, 10, 0, layout::ACPI_IRQ as u8];
    sci.extend(layout::ACPI_IRQ.to_le_bytes());
    sci.extend(LEVEL_HIGH.to_le_bytes());
    madt.append_slice(&sci);
    // NMI comes in by LINT1 of every processor.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt.as_slice().to_vec()
}

fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    let last_bus = (layout::ECAM_BYTES >> 20) - 1;
    mcfg.add_ecam(layout::ECAM, 0, 0, last_bus as u8);
    mcfg
}

/// The devices that no bus tells of, and what it does not tell of others.
fn dsdt(slots: &[(u8, u16)]) -> Sdt {
    let mut code = Vec::new();
    Scope::new("_SB_".into(), vec![&pci(), &com1(), &reserved()]).to_aml_bytes(&mut code);
    let slots: Vec<Slot> = slots
        .iter()
        .map(|&(at, number)| Slot { at, number })
        .collect();
    let slots = slots.iter().map(|slot| slot as &dyn Aml);
    Scope::new("_SB_.PCI0".into(), slots.collect()).to_aml_bytes(&mut code);
    let sleep = acpi_pm::S5;
    Name::new(
        "_S5_".into(),
        &Package::new(vec![&sleep, &sleep, &0u8, &0u8]),
    )
    .to_aml_bytes(&mut code);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    dsdt.append_slice(&code);
    dsdt
}

/// A slot of the bus with its number.
struct Slot {
    at: u8,
    number: u16,
}

impl Aml for Slot {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let address = Name::new("_ADR".into(), &(u32::from(self.at) << 16));
        let number = Name::new("_SUN".into(), &self.number);
        let name = format!("SL{:02X}", self.at);
        aml::Device::new(name.as_str().into(), vec![&address, &number]).to_aml_bytes(sink);
    }
}

/// A device whose resources do not change, as AML.
struct Fixed {
    name: &'static str,
    hid: &'static str,
    cid: Option<&'static str>,
    resources: Vec<Box<dyn Aml>>,
}

impl Aml for Fixed {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let hid = Name::new("_HID".into(), &EISAName::new(self.hid));
        let uid = Name::new("_UID".into(), &aml::ZERO);
        let resources =
            ResourceTemplate::new(self.resources.iter().map(|r| &**r as &dyn Aml).collect());
        let crs = Name::new("_CRS".into(), &resources);
        let cid = self
            .cid
            .map(|cid| Name::new("_CID".into(), &EISAName::new(cid)));
        let mut parts: Vec<&dyn Aml> = vec![&hid, &uid, &crs];
        if let Some(cid) = &cid {
            parts.push(cid);
        }
        aml::Device::new(self.name.into(), parts).to_aml_bytes(sink);
    }
}

/// The root of PCI: bus 0, and the windows that its devices may lie in. Interrupts are messages:
/// there is no routing of lines.
fn pci() -> Fixed {
    let window_end = layout::HOLE + layout::PCI_WINDOW_BYTES - 1;
    Fixed {
        name: "PCI0",
        hid: "PNP0A08",
        cid: Some("PNP0A03"),
        resources: vec![
            Box::new(AddressSpace::new_bus_number(0u16, 0u16)),
            Box::new(IO::new(layout::PCI_CONFIG, layout::PCI_CONFIG, 1, 8)),
            Box::new(AddressSpace::new_memory(
                AddressSpaceCacheable::NotCacheable,
                true,
                layout::HOLE as u32,
                window_end as u32,
                None,
            )),
        ],
    }
}

fn com1() -> Fixed {
    Fixed {
        name: "COM1",
        hid: "PNP0501",
        cid: None,
        resources: vec![
            Box::new(IO::new(layout::COM1, layout::COM1, 1, 8)),
            Box::new(Interrupt::new(true, true, false, false, layout::COM1_IRQ)),
        ],
    }
}

/// What nothing else may be put on: PCI's configuration, ACPI's ports. Linux uses the first only if
/// it is reserved here.
fn reserved() -> Fixed {
    Fixed {
        name: "MBRD",
        hid: "PNP0C02",
        cid: None,
        resources: vec![
            Box::new(Memory32Fixed::new(
                true,
                layout::ECAM as u32,
                layout::ECAM_BYTES as u32,
            )),
            Box::new(IO::new(
                layout::ACPI_PM,
                layout::ACPI_PM,
                1,
                acpi_pm::LEN as u8,
            )),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums_to_zero(table: &[u8]) -> bool {
        table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    #[test]
    fn tables_have_their_length_and_checksum() {
        let topology = Topology {
            sockets: 2,
            cores: 2,
            threads: 1,
        };
        for table in [
            bytes_of(&dsdt(&[(3, 192), (31, 0x1fff)])),
            bytes_of(&fadt(0x1234)),
            madt(topology),
            bytes_of(&mcfg()),
        ] {
            let len = u32::from_le_bytes(table[4..8].try_into().unwrap());
            assert_eq!(len as usize, table.len());
            assert!(sums_to_zero(&table), "{:?}", &table[..4]);
        }
    }

    #[test]
    fn tables_of_the_largest_machine_have_room() {
        let memory = crate::memory::map(64 << 20, crate::memory::Pages::Normal).unwrap();
        let topology = Topology {
            sockets: 8,
            cores: 4,
            threads: 2,
        };
        let slots: Vec<_> = (1..32).map(|slot| (slot, 0x1fff)).collect();
        write_tables(&memory, topology, &slots).unwrap();
    }
}
