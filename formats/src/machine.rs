//! What a virtual machine is made of, whatever text says so: the common ground of VMX, OVF and
//! libvirt's XML. Plain values; each text has its own reader and writer.

use std::fmt;
use std::str::FromStr;

use hako_block::{Error, Result, Uuid};

/// A virtual machine's hardware and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Its name for people.
    pub name: String,
    /// VMware's virtual hardware version: 21 for vmx-21.
    pub hardware_version: Option<u32>,
    /// The guest system, by its VMX name: "ubuntu-64", "windows2019srv-64".
    pub guest_os: Option<String>,
    /// What starts the guest.
    pub firmware: Firmware,
    /// Whether UEFI starts only what is signed.
    pub secure_boot: bool,
    /// Processors.
    pub cpu: Cpu,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Controllers that are said to be there; ascending by bus and number.
    pub controllers: Vec<Controller>,
    /// Disks and CD drives, ascending by node.
    pub drives: Vec<Drive>,
    /// Network cards, ascending by number.
    pub nics: Vec<Nic>,
    /// Serial ports, ascending by number.
    pub serial_ports: Vec<SerialPort>,
    /// The note that people keep with it; lines end in `\n`.
    pub annotation: String,
    /// The UUID that the guest sees in SMBIOS (`uuid.bios`).
    pub bios_uuid: Option<Uuid>,
    /// What the guest starts from, first to last; empty where nobody said.
    pub boot_order: Vec<BootDevice>,
    /// Share of the host's processors, in MHz.
    pub cpu_share: Share,
    /// Share of the host's memory, in MiB.
    pub memory_share: Share,
    /// A kernel that is started without firmware.
    pub direct_boot: Option<DirectBoot>,
}

impl Machine {
    /// Returns the hard disks with their nodes, ascending by node.
    pub fn disks(&self) -> impl Iterator<Item = (Node, &DiskMedium)> {
        self.drives.iter().filter_map(|drive| match &drive.medium {
            Medium::Disk(disk) => Some((drive.node, disk)),
            _ => None,
        })
    }
}

/// What starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    /// BIOS.
    #[default]
    Bios,
    /// UEFI.
    Efi,
}

impl Firmware {
    /// Returns VMX's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Firmware::Bios => "bios",
            Firmware::Efi => "efi",
        }
    }
}

/// Processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Virtual processors, at least 1.
    pub count: u32,
    /// How many of them share a socket; `count` is a multiple of it.
    pub cores_per_socket: u32,
}

impl Cpu {
    /// Most processors of a machine: of VMware's largest (hardware version 22).
    pub const MAX_COUNT: u32 = 960;

    /// Refuses processors that no product starts. Errors: [`hako_block::ErrorKind::Invalid`].
    pub fn check(self) -> Result<()> {
        let Cpu {
            count,
            cores_per_socket: cores,
        } = self;
        if !(1..=Self::MAX_COUNT).contains(&count) {
            return Err(Error::invalid(format!(
                "{count} processors: a machine has 1 to {}",
                Self::MAX_COUNT
            )));
        }
        if cores == 0 || !count.is_multiple_of(cores) {
            return Err(Error::invalid(format!(
                "{count} processors cannot be in sockets of {cores}"
            ))
            .hint("the number of processors is a multiple of the cores of a socket"));
        }
        Ok(())
    }
}

/// Refuses an amount of memory, in bytes, that no product starts. Errors:
/// [`hako_block::ErrorKind::Invalid`].
pub fn check_memory(bytes: u64) -> Result<()> {
    /// Memory comes in pieces of 4 MiB (VMX key `memsize`, in MiB).
    const UNIT_BYTES: u64 = 4 << 20;
    /// Most memory: 24 TiB (hardware version 18 and later).
    const MAX_BYTES: u64 = 24 << 40;
    if bytes == 0 || bytes > MAX_BYTES || !bytes.is_multiple_of(UNIT_BYTES) {
        return Err(Error::invalid(format!("memory of {bytes} bytes"))
            .hint("memory is a multiple of 4 MiB, up to 24 TiB"));
    }
    Ok(())
}

impl Default for Cpu {
    fn default() -> Self {
        Self {
            count: 1,
            cores_per_socket: 1,
        }
    }
}

/// What drives hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bus {
    /// IDE: 2 controllers, 2 units each.
    Ide,
    /// SATA: 4 controllers, 30 units each.
    Sata,
    /// SCSI: 4 controllers, 16 units each, of which unit 7 is the controller itself (with pvscsi 65
    /// units from hardware version 14 on).
    Scsi,
    /// NVMe: 4 controllers, 15 units each (64 from hardware version 21 on).
    Nvme,
}

impl Bus {
    /// Every bus.
    pub const ALL: [Bus; 4] = [Bus::Ide, Bus::Sata, Bus::Scsi, Bus::Nvme];

    /// Returns VMX's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Bus::Ide => "ide",
            Bus::Sata => "sata",
            Bus::Scsi => "scsi",
            Bus::Nvme => "nvme",
        }
    }

    /// Returns how many controllers of it a machine may have.
    pub fn max_controllers(self) -> u8 {
        match self {
            Bus::Ide => 2,
            _ => 4,
        }
    }

    /// Returns how many units the numbers of one controller reach to; SCSI's includes number 7.
    pub fn max_units(self) -> u8 {
        match self {
            Bus::Ide => 2,
            Bus::Sata => 30,
            Bus::Scsi => 65,
            Bus::Nvme => 64,
        }
    }
}

/// Where a drive is: `scsi0:1`. In this order they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// The bus.
    pub bus: Bus,
    /// The controller's number.
    pub controller: u8,
    /// The drive's number on it.
    pub unit: u8,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", self.bus.name(), self.controller, self.unit)
    }
}

impl FromStr for Node {
    type Err = Error;

    /// Reads `scsi0:1`, in any case. Errors: [`hako_block::ErrorKind::Invalid`] for what is no
    /// node, or one that no machine has.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let wrong = || {
            Error::invalid(format!("{text:?} is no node of a drive"))
                .hint("write it like scsi0:1, sata0:0, nvme0:0 or ide1:0")
        };
        let number = |text: &str| -> Option<u8> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        let parsed = Bus::ALL.into_iter().find_map(|bus| {
            let (controller, unit) = lower.strip_prefix(bus.name())?.split_once(':')?;
            Some(Node {
                bus,
                controller: number(controller)?,
                unit: number(unit)?,
            })
        });
        let node = parsed.ok_or_else(wrong)?;
        let in_range = node.controller < node.bus.max_controllers()
            && node.unit < node.bus.max_units()
            && !(node.bus == Bus::Scsi && node.unit == 7);
        in_range.then_some(node).ok_or_else(wrong)
    }
}

/// A controller of drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Its bus.
    pub bus: Bus,
    /// Its number.
    pub number: u8,
    /// Its model by VMX's name, for SCSI: "lsilogic", "lsisas1068", "pvscsi", "buslogic". None for
    /// a bus with one model, or where nobody said.
    pub model: Option<String>,
}

/// A disk or CD drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Where it is.
    pub node: Node,
    /// What is in it.
    pub medium: Medium,
    /// Whether it is connected when the machine starts.
    pub connected: bool,
}

/// What is in a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// A hard disk.
    Disk(DiskMedium),
    /// A CD drive with an image in it.
    CdImage {
        /// The image as the text names it.
        file: String,
    },
    /// A CD drive of the host, or of a client.
    CdDevice {
        /// The device as the text names it; "auto detect" is whichever the host has.
        device: String,
    },
    /// An empty CD drive.
    CdEmpty,
    /// A device of another kind ("scsi-passthru"), left alone.
    Other {
        /// VMX's deviceType.
        kind: String,
        /// What it names.
        file: String,
    },
}

/// A hard disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskMedium {
    /// The image as the text names it, relative to the machine's folder or absolute; empty for a
    /// disk that a text without images describes.
    pub file: String,
    /// Format of the image if it isn't VMDK (`hako.NODE.format`).
    pub format: Option<String>,
    /// What becomes of what the guest writes.
    pub mode: DiskMode,
    /// Whether it is a whole or part of a physical disk ("rawDisk", "plainDisk").
    pub physical: bool,
}

/// What becomes of what the guest writes to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskMode {
    /// It stays, and snapshots hold it.
    #[default]
    Persistent,
    /// It stays, and no snapshot holds it.
    IndependentPersistent,
    /// It is gone when the machine is switched off.
    IndependentNonpersistent,
    /// It may be kept or thrown away (`undoable`; older products).
    Undoable,
}

impl DiskMode {
    /// Every mode.
    pub const ALL: [DiskMode; 4] = [
        DiskMode::Persistent,
        DiskMode::IndependentPersistent,
        DiskMode::IndependentNonpersistent,
        DiskMode::Undoable,
    ];

    /// Returns whether snapshots leave such a disk alone.
    pub fn is_independent(self) -> bool {
        matches!(
            self,
            DiskMode::IndependentPersistent | DiskMode::IndependentNonpersistent
        )
    }

    /// Returns VMX's word for it.
    pub fn name(self) -> &'static str {
        match self {
            DiskMode::Persistent => "persistent",
            DiskMode::IndependentPersistent => "independent-persistent",
            DiskMode::IndependentNonpersistent => "independent-nonpersistent",
            DiskMode::Undoable => "undoable",
        }
    }
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its number: ethernet0 has 0.
    pub number: u8,
    /// Its model by VMX's name: "e1000", "e1000e", "vmxnet3", "vlance". None where nobody said.
    pub model: Option<String>,
    /// What it is plugged into.
    pub network: Network,
    /// Its address, if the text has one.
    pub mac: Option<Mac>,
    /// Whether somebody chose that address, rather than a product made it.
    pub mac_is_static: bool,
    /// Whether it is connected when the machine starts.
    pub connected: bool,
}

/// What a network card is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// The host's own network.
    #[default]
    Bridged,
    /// A network behind the host.
    Nat,
    /// A network of the host's machines alone.
    HostOnly,
    /// A virtual network by name ("VMnet3").
    Custom(String),
    /// A port group by name ("VM Network").
    PortGroup(String),
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Returns whether VMware products take it for one that somebody chose: below 00:50:56, the
    /// fourth byte at most 3f ("Virtual Machine MAC Address" in the Workstation manual).
    pub fn is_vmware_static(self) -> bool {
        self.0[..3] == [0x00, 0x50, 0x56] && self.0[3] <= 0x3f
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Reads six pairs of hexadecimal digits between `:` or `-`. Refuses a group address.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(format!("{text:?} {what}")).hint("write it like 00:50:56:00:12:34")
        };
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| wrong("is no hardware address"))?;
        }
        if parts.next().is_some() {
            return Err(wrong("is no hardware address"));
        }
        if bytes[0] & 1 != 0 {
            return Err(wrong("is the address of a group"));
        }
        Ok(Mac(bytes))
    }
}

/// A serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPort {
    /// Its number: serial0 has 0.
    pub number: u8,
    /// VMX's fileType: "pipe", "file", "device", "network", "thinprint".
    pub kind: String,
    /// What it is connected to.
    pub target: String,
}

/// What a guest may start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootDevice {
    /// Hard disks.
    Disk,
    /// CD drives.
    Cdrom,
    /// The network.
    Network,
    /// Floppy disks.
    Floppy,
}

impl BootDevice {
    /// Every one.
    pub const ALL: [BootDevice; 4] = [
        BootDevice::Disk,
        BootDevice::Cdrom,
        BootDevice::Network,
        BootDevice::Floppy,
    ];

    /// Returns VMX's word for it (`bios.bootOrder`).
    pub fn name(self) -> &'static str {
        match self {
            BootDevice::Disk => "hdd",
            BootDevice::Cdrom => "cdrom",
            BootDevice::Network => "ethernet0",
            BootDevice::Floppy => "floppy",
        }
    }
}

/// A share of something of the host's, in the unit its field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// What is kept for the machine.
    pub reservation: Option<u64>,
    /// What it never gets more than; none for no limit.
    pub limit: Option<u64>,
    /// Its weight against others.
    pub weight: Option<Weight>,
}

/// A weight against other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Half of normal.
    Low,
    /// What most have.
    Normal,
    /// Twice normal.
    High,
    /// So many shares.
    Custom(u32),
}

impl FromStr for Weight {
    type Err = Error;

    /// Reads VMX's word for it, in any case, or a number of shares.
    fn from_str(text: &str) -> Result<Self> {
        let named = [Weight::Low, Weight::Normal, Weight::High].into_iter();
        let mut named = named.filter(|weight| weight.to_string().eq_ignore_ascii_case(text));
        let custom = || text.parse().ok().map(Weight::Custom);
        named
            .next()
            .or_else(custom)
            .ok_or_else(|| Error::invalid(format!("{text:?} is not low, normal, high or a number")))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Weight::Low => f.write_str("low"),
            Weight::Normal => f.write_str("normal"),
            Weight::High => f.write_str("high"),
            Weight::Custom(shares) => shares.fmt(f),
        }
    }
}

/// A kernel that is started without firmware (`hako.kernel`, `hako.initrd`, `hako.cmdline`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectBoot {
    /// The kernel's file.
    pub kernel: String,
    /// The initial file system's file.
    pub initrd: Option<String>,
    /// The kernel's command line.
    pub cmdline: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_product_starts_is_refused() {
        let cpu = |count, cores_per_socket| Cpu {
            count,
            cores_per_socket,
        };
        assert!(cpu(4, 2).check().is_ok() && cpu(960, 1).check().is_ok());
        for wrong in [cpu(0, 1), cpu(4, 3), cpu(2, 4), cpu(4, 0), cpu(961, 1)] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(check_memory(512 << 20).is_ok());
        for wrong in [0, 1, 510 << 20, 4097 << 10, 1 << 50, u64::MAX] {
            assert!(check_memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn weights_read_and_write_alike() {
        for text in ["low", "normal", "high", "1234"] {
            assert_eq!(text.parse::<Weight>().unwrap().to_string(), text);
        }
        assert_eq!("HIGH".parse::<Weight>().unwrap(), Weight::High);
        assert!("some".parse::<Weight>().is_err() && "-1".parse::<Weight>().is_err());
    }

    #[test]
    fn nodes_read_and_write_alike() {
        for text in ["scsi0:0", "scsi3:64", "sata0:29", "nvme3:14", "ide1:1"] {
            assert_eq!(text.parse::<Node>().unwrap().to_string(), text);
        }
        assert_eq!("SCSI0:1".parse::<Node>().unwrap().to_string(), "scsi0:1");
    }

    #[test]
    fn nodes_that_no_machine_has_are_refused() {
        for text in [
            "",
            "scsi0",
            "scsi0:7",
            "scsi4:0",
            "scsi0:65",
            "ide2:0",
            "ide0:2",
            "scsi+0:1",
            "usb0:1",
            "scsi0:1:2",
            "scsi-1:0",
        ] {
            assert!(text.parse::<Node>().is_err(), "{text}");
        }
    }

    #[test]
    fn hardware_addresses_read_and_write_alike() {
        let mac: Mac = "00-50-56-3F-00-01".parse().unwrap();
        assert_eq!(mac.to_string(), "00:50:56:3f:00:01");
        assert!(mac.is_vmware_static());
        for text in [
            "",
            "00:50:56:00:00",
            "00:50:56:00:00:0g",
            "01:00:00:00:00:00",
            "0:1:2:3:4:5",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
