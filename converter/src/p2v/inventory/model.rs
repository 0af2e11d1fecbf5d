//! The inventory as data, and as JSON: this module is the schema.
//!
//! The JSON has the fields' names as they are here; enumerations are their variants in kebab-case.
//! A field that is not there is its empty value, one that nobody knows is passed over, so that an
//! inventory can be written by hand and read by later versions. Within a schema's number fields are
//! added, never changed. Lengths and places are bytes unless the name says otherwise; a text that is
//! not known is empty, a number that is not known is `null`.

use hako_block::{Error, Result};
use serde::{Deserialize, Serialize};

/// The schema's number: the first.
pub const SCHEMA: u32 = 1;

/// All that is known of a server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// The schema's number, [`SCHEMA`].
    pub schema: u32,
    /// The version of hako that wrote it.
    pub hako: String,
    /// When it was taken, in seconds since 1970-01-01 UTC.
    pub taken: u64,
    /// What it was taken from.
    pub source: Source,
    /// The name of the host.
    pub hostname: String,
    /// The machine as its firmware describes it; empty from images.
    pub machine: Machine,
    /// How it starts.
    pub firmware: Firmware,
    /// Its processors; none are known from images.
    pub cpu: Cpu,
    /// Its memory; not known from images.
    pub memory: Memory,
    /// Its disks, in the order of their names (of images: in which they were given).
    pub disks: Vec<Disk>,
    /// All that is on them: partitions, arrays, logical volumes, opened encryption, multipath maps.
    /// What a volume lies on comes before it.
    pub volumes: Vec<Volume>,
    /// What is mounted, the root first; from images what fstab mounts.
    pub mounts: Vec<Mount>,
    /// What is swapped to.
    pub swaps: Vec<Swap>,
    /// Its network interfaces but the loopback.
    pub nics: Vec<Nic>,
    /// Routes that lead past the own networks.
    pub routes: Vec<Route>,
    /// Its name servers.
    pub name_servers: Vec<String>,
    /// Its system.
    pub os: Os,
    /// How that is booted.
    pub boot: Boot,
    /// What runs (from images: what is installed) that wants care when it is moved.
    pub services: Vec<Service>,
    /// What stands in the way or should be known, the worst first.
    pub findings: Vec<Finding>,
    /// What could not be found out, and why.
    pub remarks: Vec<String>,
}

/// What an inventory was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The system that hako ran on.
    #[default]
    Running,
    /// Images of its disks.
    Images,
}

/// A machine as its firmware describes it (SMBIOS).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Who made it.
    pub vendor: String,
    /// Its model.
    pub model: String,
    /// Its serial number; only root may read it.
    pub serial: String,
    /// Its identity; only root may read it.
    pub uuid: String,
    /// The mainboard's model.
    pub board: String,
    /// The firmware's maker, version and date.
    pub bios: String,
    /// What it runs in, if it is a virtual machine already: `kvm`, `vmware`, `xen`, `microsoft`,
    /// `virtualbox`, `qemu`.
    pub hypervisor: String,
    /// Its slots for memory that are filled.
    pub memory_modules: Vec<MemoryModule>,
}

/// A memory module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryModule {
    /// Which slot it is in.
    pub slot: String,
    /// Its size.
    pub bytes: u64,
}

/// How a machine starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Firmware {
    /// Which kind; from images what the disks are made for.
    pub kind: FirmwareKind,
    /// By what that is known, from images.
    pub why: String,
    /// Whether the disks are made for BIOS and UEFI; `kind` is what the system uses, as far as its
    /// files tell. Of a system that runs nobody asks.
    pub starts_both: bool,
    /// Whether Secure Boot is on; `null` if unknown.
    pub secure_boot: Option<bool>,
    /// Whether a TPM is there; `null` if unknown.
    pub tpm: Option<bool>,
    /// UEFI's boot entries in the order in which they are tried.
    pub entries: Vec<FirmwareEntry>,
    /// Whether `\EFI\BOOT\BOOTX64.EFI`, which boots where there are no entries, is there; `null` if
    /// there is no EFI system partition that can be read.
    pub has_fallback: Option<bool>,
}

/// A kind of firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirmwareKind {
    /// Nobody knows.
    #[default]
    Unknown,
    /// BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// A boot entry of UEFI (`Boot####`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FirmwareEntry {
    /// Its number.
    pub number: u16,
    /// What people call it.
    pub label: String,
    /// The PARTUUID of the partition that the loader is on; empty if it names none.
    pub partition: String,
    /// The loader's path on it.
    pub loader: String,
    /// Whether the machine was started by it.
    pub is_current: bool,
}

/// Processors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// The model's name.
    pub model: String,
    /// The maker: `GenuineIntel`, `AuthenticAMD`.
    pub vendor: String,
    /// As uname(1) says it: `x86_64`.
    pub architecture: String,
    /// Sockets that are filled.
    pub sockets: u32,
    /// Cores of all sockets together.
    pub cores: u32,
    /// Logical processors that are online.
    pub threads: u32,
    /// The highest clock of one.
    pub max_mhz: Option<u32>,
    /// What Linux says they can: `vmx`, `avx2` …
    pub flags: Vec<String>,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What the system has (`MemTotal`).
    pub total_bytes: u64,
    /// What it could give at once (`MemAvailable`).
    pub available_bytes: u64,
    /// What is set aside for huge pages.
    pub hugepages_bytes: u64,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Its name: the kernel's (`sda`), of images `disk`, `disk2` …
    pub name: String,
    /// The device or image file.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Bytes of a sector as it is addressed: 512 or 4096.
    pub sector_bytes: u32,
    /// Bytes of a sector inside it.
    pub physical_sector_bytes: u32,
    /// Who made it.
    pub vendor: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its world-wide name.
    pub wwn: String,
    /// What it hangs on: `sata`, `sas`, `scsi`, `nvme`, `ide`, `usb`, `virtio`, `iscsi`, `fc`, `mmc`.
    pub bus: String,
    /// The driver of the controller that it hangs on: `ahci`, `megaraid_sas`, `nvme`.
    pub driver: String,
    /// Whether it turns.
    pub is_rotational: Option<bool>,
    /// Whether it can be taken out.
    pub is_removable: bool,
    /// Whether it cannot be written to.
    pub is_read_only: bool,
    /// The partition table: `gpt`, `dos`; empty if it has none.
    pub table: String,
    /// Its identity (`PTUUID`).
    pub table_uuid: String,
    /// What is on it, if that is no partition table.
    pub content: Content,
    /// Where its last partition ends.
    pub last_partition_end: Option<u64>,
    /// Bytes that a capture copies, where that was found out (images).
    pub used_bytes: Option<u64>,
}

/// What is in a disk or volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Content {
    /// What it is, as blkid(8) says it (`TYPE`): `ext4`, `swap`, `LVM2_member`, `crypto_LUKS`; empty
    /// if nothing is known.
    pub kind: String,
    /// Its label.
    pub label: String,
    /// Its identity as blkid writes it.
    pub uuid: String,
}

/// A run of bytes on disks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name: `sda1`, `md0`, `vg0/root`, the name of a map (`luks-…`); of images as
    /// `hako disk ls` has it (`p1`).
    pub name: String,
    /// Its device; empty from images.
    pub path: String,
    /// What kind of volume it is.
    pub kind: VolumeKind,
    /// Names of the disks and volumes that it lies on.
    pub on: Vec<String>,
    /// Its length.
    pub bytes: u64,
    /// What is in it.
    pub content: Content,
    /// Bytes of its file system that are in use.
    pub used_bytes: Option<u64>,
    /// What the partition table says, of a partition.
    pub partition: Option<Partition>,
    /// What the volume group says, of a logical volume.
    pub logical: Option<Logical>,
    /// What the array says of itself, of an array.
    pub array: Option<Array>,
    /// How it is encrypted, of an encrypted volume (the one that is locked).
    pub encryption: Option<Encryption>,
    /// What is odd about it.
    pub remarks: Vec<String>,
}

/// A kind of volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// A partition.
    #[default]
    Partition,
    /// A logical volume of LVM2.
    Logical,
    /// An array of MD.
    Array,
    /// Encryption that is open.
    Crypt,
    /// Several paths to one disk.
    Multipath,
    /// Another map of device-mapper.
    Map,
    /// bcache.
    Bcache,
}

/// What a partition table says of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its first byte on the disk.
    pub start: u64,
    /// Its type as sfdisk(8) writes it: `83`, `0FC63DAF-…`.
    pub kind: String,
    /// The type's name: `EFI System`, `BIOS boot`.
    pub kind_name: String,
    /// Its identity (`PARTUUID`).
    pub uuid: String,
    /// Its name (`PARTLABEL`).
    pub label: String,
    /// Whether a BIOS is to boot it.
    pub is_bootable: bool,
}

/// What a volume group says of a logical volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Logical {
    /// The volume group's name.
    pub group: String,
    /// Its own.
    pub name: String,
    /// Its identity as LVM writes it.
    pub uuid: String,
    /// `linear`, `striped`, `raid1`, `thin`: LVM's name of its segments.
    pub layout: String,
}

/// What an array says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Array {
    /// `raid1`, `raid0`, `linear` …
    pub level: String,
    /// Its identity as blkid writes it.
    pub uuid: String,
    /// How its superblock is laid out: `1.2`, `0.90`.
    pub metadata: String,
    /// How many members it should have.
    pub n_members: u32,
    /// How many are missing or out of sync.
    pub n_missing: u32,
    /// What it is doing: `clean`, `active`, `resync`; empty from images.
    pub state: String,
}

/// How a volume is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Encryption {
    /// `LUKS1`, `LUKS2`, `BitLocker`.
    pub kind: String,
    /// What opens it besides a passphrase: `tpm2`, `clevis`, `fido2`, `keyfile`.
    pub tokens: Vec<String>,
    /// Whether it is open (its content is another volume).
    pub is_open: bool,
}

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where.
    pub path: String,
    /// The name of the disk or volume; of a network's file system what the mount names.
    pub volume: String,
    /// The file system's kind: `ext4`, `nfs4`.
    pub kind: String,
    /// The subvolume or folder of it that is mounted, if that is not its root.
    pub subvolume: String,
    /// The options it is mounted with.
    pub options: String,
    /// Its length as statfs(2) says it.
    pub total_bytes: Option<u64>,
    /// What of that is in use.
    pub used_bytes: Option<u64>,
    /// What fstab names it by (`UUID=…`, `/dev/sda1`); empty if fstab does not name it.
    pub fstab: String,
    /// Whether it is on another machine.
    pub is_remote: bool,
}

/// Something that is swapped to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Swap {
    /// The name of the volume, or the path of a file.
    pub volume: String,
    /// Whether it is a file.
    pub is_file: bool,
    /// Its length.
    pub bytes: u64,
    /// What of it is in use.
    pub used_bytes: Option<u64>,
    /// What fstab names it by.
    pub fstab: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub kind: NicKind,
    /// The address that it was made with; empty if it has none.
    pub permanent_mac: String,
    /// The address that it uses.
    pub mac: String,
    /// Its driver: `e1000e`, `tg3`.
    pub driver: String,
    /// Where it is plugged in: `0000:00:03.0`.
    pub bus_address: String,
    /// Its speed in megabits per second.
    pub speed_mbps: Option<u32>,
    /// Its longest packet in bytes.
    pub mtu: Option<u32>,
    /// Whether it is connected; `null` if unknown.
    pub is_up: Option<bool>,
    /// Names of the interfaces that it is made of (bond, bridge, VLAN).
    pub ports: Vec<String>,
    /// The VLAN's number, of a VLAN.
    pub vlan: Option<u16>,
    /// Its addresses with the lengths of their networks: `192.0.2.5/24`.
    pub addresses: Vec<String>,
    /// Where its addresses come from.
    pub method: AddressMethod,
    /// The files that configure it, as paths of the guest.
    pub configured_in: Vec<String>,
}

/// A kind of network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicKind {
    /// Hardware.
    #[default]
    Physical,
    /// Several as one.
    Bond,
    /// A switch.
    Bridge,
    /// A VLAN of another one.
    Vlan,
    /// Anything else that is made of software.
    Virtual,
}

/// Where an interface's addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressMethod {
    /// Nobody knows.
    #[default]
    Unknown,
    /// They are written down.
    Static,
    /// DHCP.
    Dhcp,
    /// It has none.
    None,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Where to: `default`, `198.51.100.0/24`.
    pub to: String,
    /// By whom.
    pub gateway: String,
    /// Through which interface; empty if unknown.
    pub nic: String,
}

/// A system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Os {
    /// `linux` or `windows`; empty if none was found.
    pub family: String,
    /// As os-release's `ID`: `debian`.
    pub id: String,
    /// As `ID_LIKE`.
    pub like: Vec<String>,
    /// As `VERSION_ID`.
    pub version: String,
    /// What people call it.
    pub name: String,
    /// What its programs run on: `x86_64`.
    pub architecture: String,
    /// How software is installed: `dpkg`, `rpm`.
    pub packages: String,
    /// What its first process is: `systemd`.
    pub init: String,
    /// Whether SELinux is `enforcing`, `permissive` or `disabled`; empty if it has none.
    pub selinux: String,
    /// Whether the hardware's clock shows local time; `null` if unknown.
    pub clock_is_local: Option<bool>,
}

/// How a system is booted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Boot {
    /// Which loader: `grub`, `systemd-boot`, `extlinux`, `windows`; empty if none was found.
    pub loader: String,
    /// The version of the kernel that runs, or is booted by default.
    pub kernel: String,
    /// The kernel's command line.
    pub command_line: String,
    /// What makes its initrds: `dracut`, `initramfs-tools`, `mkinitcpio`.
    pub initrd_tool: String,
    /// Its kernels, the newest first.
    pub kernels: Vec<Kernel>,
}

/// A kernel that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// Its version, as uname -r says it.
    pub version: String,
    /// The path of its image.
    pub image: String,
    /// The path of its initrd.
    pub initrd: String,
    /// Whether it is booted by default (or runs).
    pub is_default: bool,
    /// Whether its modules are there.
    pub has_modules: bool,
    /// Where it finds drivers: of the default kernel, with `--deep` of all; else empty.
    pub drivers: Vec<DriverPlace>,
    /// Names of all modules in its initrd, where that was read.
    pub initrd_modules: Vec<String>,
}

/// Where a kernel finds the driver of some hardware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DriverPlace {
    /// Which hardware: `pvscsi`, `virtio-blk`, `ahci` … ([`hako_guest::drivers::Hardware::name`]).
    pub hardware: String,
    /// Where its driver is: `builtin`, `initrd`, `modules`, `nowhere`.
    pub place: String,
}

/// A service that wants care when its machine is moved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Which: `postgresql`, `mysql`, `oracle`, `java`.
    pub name: String,
    /// What it is to a move.
    pub kind: ServiceKind,
    /// Whether it runs; `null` from images.
    pub is_running: Option<bool>,
    /// Memory that it is told to take for itself (buffers of a database, the heap of a Java machine).
    pub reserved_bytes: Option<u64>,
    /// By what it was found: a process, a unit, a file.
    pub found_by: String,
}

/// What a service is to a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// It keeps data that has to be at rest while it is copied.
    #[default]
    Database,
    /// It takes its memory for itself.
    Heap,
    /// It is there for the hardware and of no use in a virtual machine.
    HardwareAgent,
    /// It belongs to another hypervisor.
    GuestAgent,
    /// It runs machines or containers itself.
    Virtualization,
    /// It is one of several that watch each other.
    Cluster,
    /// It shares files or blocks.
    Storage,
}

/// Something that stands in the way or should be known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is, for programs: `tpm-bound-luks`, `root-on-multipath`. Stays the same in later
    /// versions.
    pub code: String,
    /// The name of the disk, volume, interface or service that it is about; empty if of the whole.
    pub about: String,
    /// What it is, for people.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// How bad a finding is; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The move fails, or loses something.
    Blocker,
    /// It may.
    Warning,
    /// It works; one should know.
    #[default]
    Note,
}

impl Inventory {
    /// Reads an inventory out of JSON. Errors: [`hako_block::ErrorKind::Corrupt`] if that is none, and
    /// [`hako_block::ErrorKind::Unsupported`] if it has a later schema.
    pub fn from_json(text: &str) -> Result<Self> {
        let corrupt = |error: serde_json::Error| Error::corrupt("inventory", error.to_string());
        let inventory: Self = serde_json::from_str(text).map_err(corrupt)?;
        match inventory.schema {
            SCHEMA => Ok(inventory),
            0 => Err(Error::corrupt("inventory", "it does not say its schema")),
            later => Err(Error::unsupported(format!(
                "an inventory of schema {later}; this version reads {SCHEMA}"
            ))),
        }
    }

    /// Returns the inventory as JSON.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        let failed = |error: serde_json::Error| Error::invalid(error.to_string());
        serde_json::to_value(self).map_err(failed)
    }

    /// Returns the volume of that name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// Returns the names of the disks that a disk or volume lies on, each once.
    pub fn disks_of(&self, name: &str) -> Vec<&str> {
        let mut names = vec![name];
        let mut disks = Vec::new();
        // A name that was looked at is not looked at again: a volume that lies on itself ends, too.
        let mut next = 0;
        while let Some(name) = names.get(next).copied() {
            next += 1;
            if let Some(disk) = self.disks.iter().find(|disk| disk.name == name) {
                disks.push(disk.name.as_str());
            } else if let Some(volume) = self.volume(name) {
                for below in &volume.on {
                    if !names.contains(&below.as_str()) {
                        names.push(below);
                    }
                }
            }
        }
        disks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_written_by_hand_is_read_and_written_again() {
        let text = r#"{"schema": 1, "source": "images", "unknown": 7,
            "disks": [{"name": "disk", "bytes": 1024}],
            "volumes": [{"name": "p1", "on": ["disk"], "partition": {"number": 1}},
                        {"name": "vg0/root", "kind": "logical", "on": ["p1", "vg0/root"]}],
            "findings": [{"level": "blocker", "code": "x"}]}"#;
        let inventory = Inventory::from_json(text).unwrap();
        assert_eq!(inventory.source, Source::Images);
        assert_eq!(inventory.disks_of("vg0/root"), ["disk"]);
        assert_eq!(inventory.disks_of("no such"), [""; 0]);
        assert_eq!(inventory.findings[0].level, Level::Blocker);
        let again = inventory.to_json().unwrap().to_string();
        assert_eq!(Inventory::from_json(&again).unwrap(), inventory);
    }

    #[test]
    fn a_later_schema_is_refused() {
        assert!(Inventory::from_json("{}").is_err());
        assert!(Inventory::from_json("[]").is_err());
        let error = Inventory::from_json(r#"{"schema": 2}"#).unwrap_err();
        assert!(error.to_string().contains("schema 2"), "{error}");
    }
}
