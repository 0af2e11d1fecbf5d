//! The machine in which a guest repairs itself: its own kernel and initrd, on hardware that these have
//! drivers for.

use hako_block::{Error, ErrorKind, Result};
use hako_formats::machine::Node;
use hako_formats::vmx::Vmx;
use hako_guest::direct::{DirectBoot, Request, drivers_of};
use hako_guest::drivers::{Hardware, Whereabouts};

use super::super::Guest;
use super::super::devices::{Device, Names};
use super::super::words::with_values;
use super::script::Script;

/// The largest kernel and the largest initrd that are started.
const BOOT_BYTES: usize = 1 << 30;

/// What a guest runs in.
pub(super) struct Machine {
    pub vmx: Vmx,
    /// Where its disks hang, in their order.
    pub nodes: Vec<Node>,
    pub kernel: Vec<u8>,
    pub initrd: Vec<u8>,
    pub cmdline: String,
}

/// What disks may hang on.
struct Bus {
    name: &'static str,
    /// What the VMX says of a controller, behind its name.
    model: &'static str,
    /// Units of a controller that QEMU has.
    units: &'static [u8],
    hardware: &'static [Hardware],
}

const SCSI_UNITS: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// Those, what most servers know first.
const BUSES: &[Bus] = &[
    Bus {
        name: "sata",
        model: "",
        units: &[0, 1, 2, 3, 4, 5],
        hardware: &[Hardware::Ahci, Hardware::SdMod],
    },
    Bus {
        name: "scsi",
        model: "pvscsi",
        units: SCSI_UNITS,
        hardware: &[Hardware::Pvscsi, Hardware::SdMod],
    },
    Bus {
        name: "nvme",
        model: "",
        units: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
        hardware: &[Hardware::Nvme],
    },
];
const CONTROLLERS: u8 = 4;

impl Machine {
    /// Returns the one for a guest with so many disks.
    pub fn of(guest: &Guest<'_>, n_disks: usize, script: &Script<'_>) -> Result<Self> {
        let bus = bus_for(guest, n_disks)?;
        let request = Request {
            entry: None,
            hardware: bus.hardware,
            serial_console: true,
        };
        let plan = DirectBoot::plan(Some(guest.root), guest.menu, &request)?;
        let none = || Error::unsupported("the default boot entry has no initrd to run a script in");
        let initrd = plan.initrd.as_ref().ok_or_else(none)?;
        let initrd = initrd.bytes(BOOT_BYTES as u64)?;
        let kernel = plan.kernel.blob.read(BOOT_BYTES)?;
        let n_bytes = kernel.len() + initrd.len() + script.n_bytes();
        let (text, nodes) = vmx(bus, n_disks, memory_mib(n_bytes))?;
        Ok(Self {
            vmx: Vmx::parse(text.as_bytes())?,
            nodes,
            kernel,
            initrd,
            cmdline: cmdline(guest, &plan.options),
        })
    }
}

/// Returns what the disks are to hang on: the first that the initrd can drive as it is, else the first
/// whose modules can be appended to it.
fn bus_for(guest: &Guest<'_>, n_disks: usize) -> Result<&'static Bus> {
    let entry = guest.menu.default_entry().ok_or_else(|| {
        let what = "no boot entry was found: the guest cannot be started to repair itself";
        Error::new(ErrorKind::NotFound, what)
    })?;
    let mut fits = BUSES
        .iter()
        .filter(|bus| bus.units.len() * usize::from(CONTROLLERS) >= n_disks);
    let mut known = Vec::new();
    for bus in fits.clone() {
        known.push((bus, drivers_of(guest.root, entry, bus.hardware)?.drivers));
    }
    let with = |is_it: fn(Whereabouts) -> bool| {
        let has = |found: &&(&'static Bus, Vec<(Hardware, Whereabouts)>)| {
            found.1.iter().all(|(_, place)| is_it(*place))
        };
        known.iter().find(has).map(|(bus, _)| *bus)
    };
    let is_there = |place| matches!(place, Whereabouts::Builtin | Whereabouts::Initrd);
    with(is_there)
        .or_else(|| with(|place| place != Whereabouts::Nowhere))
        .ok_or_else(|| match fits.next() {
            Some(_) => {
                Error::unsupported("the guest's kernel has no driver for AHCI, pvscsi or NVMe")
            }
            None => Error::unsupported(format!("{n_disks} disks are more than a machine takes")),
        })
}

/// Returns the memory that a guest gets, in MiB: what is handed to it is in memory twice while it is
/// unpacked, and packed it is smaller.
fn memory_mib(n_bytes: usize) -> usize {
    const LEAST_MIB: usize = 1024;
    (LEAST_MIB + (n_bytes >> 20) * 4).next_multiple_of(4)
}

fn vmx(bus: &Bus, n_disks: usize, memory_mib: usize) -> Result<(String, Vec<Node>)> {
    let mut text = format!("displayName = \"repair\"\nmemsize = \"{memory_mib}\"\n");
    let mut nodes = Vec::new();
    let places =
        (0..CONTROLLERS).flat_map(|number| bus.units.iter().map(move |unit| (number, unit)));
    for (number, unit) in places.take(n_disks) {
        let controller = format!("{}{number}", bus.name);
        if unit == &0 {
            text.push_str(&format!("{controller}.present = \"TRUE\"\n"));
            if !bus.model.is_empty() {
                text.push_str(&format!("{controller}.virtualDev = \"{}\"\n", bus.model));
            }
        }
        nodes.push(format!("{controller}:{unit}").parse()?);
    }
    Ok((text, nodes))
}

/// Returns the kernel's command line, with a root that is found whatever the disks hang on.
fn cmdline(guest: &Guest<'_>, options: &str) -> String {
    let names = Names::of(guest);
    with_values(options, "root=", |value| {
        match names.resolve(value, "", "/") {
            Device::By(name) => Some(name),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_hang_one_after_the_other_and_the_machine_has_their_controllers() {
        let (text, nodes) = vmx(&BUSES[1], 17, 1024).unwrap();
        let names: Vec<String> = nodes.iter().map(Node::to_string).collect();
        assert_eq!(names[..2], ["scsi0:0", "scsi0:1"]);
        assert_eq!(names[7..9], ["scsi0:8", "scsi0:9"]);
        assert_eq!(names[15..], ["scsi1:0", "scsi1:1"]);
        let machine = Vmx::parse(text.as_bytes()).unwrap().machine();
        let models: Vec<_> = machine
            .controllers
            .iter()
            .map(|one| one.model.as_deref())
            .collect();
        assert_eq!(models, [Some("pvscsi"), Some("pvscsi")]);
        assert_eq!(memory_mib(100 << 20), 1424);
    }
}
