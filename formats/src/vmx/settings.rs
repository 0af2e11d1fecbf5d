//! Changes of what a machine has one of: name, processors, memory, firmware, note, shares.

use hako_block::{Error, Result, Uuid};

use super::read::{Reader, share};
use super::{Vmx, put, put_or_remove, truth};
use crate::dictionary::Dictionary;
use crate::machine::{BootDevice, Cpu, DirectBoot, Firmware, Share, check_memory};

const MIB: u64 = 1 << 20;

impl Vmx {
    /// Calls the machine something else; no file is renamed. Errors:
    /// [`hako_block::ErrorKind::Invalid`] for no name and one with control characters.
    pub fn set_name(&mut self, name: &str) -> Result<()> {
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            return Err(Error::invalid(format!("{name:?} is no name for a machine")));
        }
        self.edit(|dictionary| dictionary.set("displayName", name))
    }

    /// Says which system the guest is, by VMware's name: "ubuntu-64". Errors:
    /// [`hako_block::ErrorKind::Invalid`] for what is no such name.
    pub fn set_guest_os(&mut self, name: &str) -> Result<()> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(is_name) {
            let error = Error::invalid(format!("{name:?} is no guest system's name"));
            return Err(error.hint("VMware's names are like ubuntu-64 and windows2019srv-64"));
        }
        self.edit(|dictionary| dictionary.set("guestOS", name))
    }

    /// Sets the processors. Errors: those of [`Cpu::check`].
    pub fn set_cpu(&mut self, cpu: Cpu) -> Result<()> {
        cpu.check()?;
        let Cpu {
            count,
            cores_per_socket: cores,
        } = cpu;
        self.edit(|dictionary| {
            put(dictionary, "numvcpus", &count.to_string(), "1")?;
            put(dictionary, "cpuid.coresPerSocket", &cores.to_string(), "1")
        })
    }

    /// Sets the memory, in bytes. Errors: those of [`check_memory`], and
    /// [`hako_block::ErrorKind::Invalid`] for less than is kept for the machine (`sched.mem.min`).
    pub fn set_memory(&mut self, bytes: u64) -> Result<()> {
        check_memory(bytes)?;
        let mib = bytes / MIB;
        let kept = self.machine().memory_share.reservation.unwrap_or(0);
        if kept > mib {
            return Err(Error::invalid(format!(
                "{mib} MiB of memory, but {kept} MiB are kept for the machine"
            ))
            .hint("lower the reservation first"));
        }
        self.edit(|dictionary| dictionary.set("memsize", &mib.to_string()))
    }

    /// Sets what starts the guest. Errors: [`hako_block::ErrorKind::Invalid`] for secure boot
    /// without UEFI.
    pub fn set_firmware(&mut self, firmware: Firmware, secure_boot: bool) -> Result<()> {
        if secure_boot && firmware != Firmware::Efi {
            return Err(Error::invalid("secure boot needs UEFI").hint("set the firmware to efi"));
        }
        self.edit(|dictionary| {
            put(
                dictionary,
                "firmware",
                firmware.name(),
                Firmware::Bios.name(),
            )?;
            let key = "uefi.secureBoot.enabled";
            put(dictionary, key, truth(secure_boot), truth(false))
        })
    }

    /// Sets what the guest starts from, first to last; nothing leaves it to the product.
    pub fn set_boot_order(&mut self, order: &[BootDevice]) -> Result<()> {
        if order == self.machine().boot_order {
            return Ok(());
        }
        let names: Vec<&str> = order.iter().map(|device| device.name()).collect();
        let order = (!names.is_empty()).then(|| names.join(","));
        self.edit(|dictionary| put_or_remove(dictionary, "bios.bootOrder", order.as_deref()))
    }

    /// Sets the note; lines end in `\n`. A note whose lines ended as in Windows keeps that.
    pub fn set_annotation(&mut self, note: &str) -> Result<()> {
        let old = self.dictionary.value("annotation").unwrap_or_default();
        let note = match old.contains("\r\n") {
            true => note.replace('\n', "\r\n"),
            false => note.to_owned(),
        };
        let note = Some(note).filter(|note| !note.is_empty());
        self.edit(|dictionary| put_or_remove(dictionary, "annotation", note.as_deref()))
    }

    /// Sets the UUID that the guest sees in SMBIOS.
    pub fn set_bios_uuid(&mut self, uuid: Uuid) -> Result<()> {
        self.edit(|dictionary| dictionary.set("uuid.bios", &uuid_text(uuid)))
    }

    /// Sets the UUID that vCenter knows the machine by.
    pub fn set_vcenter_uuid(&mut self, uuid: Uuid) -> Result<()> {
        self.edit(|dictionary| dictionary.set("vc.uuid", &uuid_text(uuid)))
    }

    /// Sets the share of the host's processors, in MHz. Errors:
    /// [`hako_block::ErrorKind::Invalid`] for a limit below the reservation.
    pub fn set_cpu_share(&mut self, new: Share) -> Result<()> {
        let old = self.machine().cpu_share;
        self.edit(|dictionary| {
            let is_about_mhz = (new.reservation, new.limit) != (old.reservation, old.limit);
            if is_about_mhz {
                dictionary.set("sched.cpu.units", "mhz")?;
            }
            put_share(dictionary, "cpu", new)
        })
    }

    /// Sets the share of the host's memory, in MiB. Errors: [`hako_block::ErrorKind::Invalid`] for
    /// a limit below the reservation, and a reservation above the memory.
    pub fn set_memory_share(&mut self, new: Share) -> Result<()> {
        let mib = self.machine().memory_bytes / MIB;
        if let Some(kept) = new.reservation.filter(|kept| *kept > mib) {
            let what = format!("{kept} MiB cannot be kept for a machine of {mib} MiB");
            return Err(Error::invalid(what));
        }
        self.edit(|dictionary| put_share(dictionary, "mem", new))
    }

    /// Sets the kernel that is started without firmware (`hako.kernel`, `hako.initrd`,
    /// `hako.cmdline`), or none. Errors: [`hako_block::ErrorKind::Invalid`] for a kernel without a
    /// file.
    pub fn set_direct_boot(&mut self, boot: Option<&DirectBoot>) -> Result<()> {
        if boot.is_some_and(|boot| boot.kernel.is_empty()) {
            return Err(Error::invalid("a kernel without a file"));
        }
        let initrd = boot.and_then(|boot| boot.initrd.as_deref());
        let cmdline = boot.map(|boot| boot.cmdline.as_str());
        let cmdline = cmdline.filter(|text| !text.is_empty());
        self.edit(|dictionary| {
            let kernel = boot.map(|boot| boot.kernel.as_str());
            put_or_remove(dictionary, "hako.kernel", kernel)?;
            put_or_remove(dictionary, "hako.initrd", initrd)?;
            put_or_remove(dictionary, "hako.cmdline", cmdline)
        })
    }
}

/// Writes what of a share is another than the text says.
fn put_share(dictionary: &mut Dictionary, what: &str, new: Share) -> Result<()> {
    let limit = new.limit.unwrap_or(u64::MAX);
    if new.reservation.is_some_and(|kept| kept > limit) {
        return Err(Error::invalid(
            "the limit is below what is kept for the machine",
        ));
    }
    let old = share(&mut Reader::new(dictionary), what);
    let key = |name: &str| format!("sched.{what}.{name}");
    if new.reservation != old.reservation {
        let amount = new.reservation.map(|amount| amount.to_string());
        put_or_remove(dictionary, &key("min"), amount.as_deref())?;
        // The older name of the same says the same.
        let legacy = key("minSize");
        if dictionary.value(&legacy).is_some() {
            put_or_remove(dictionary, &legacy, amount.as_deref())?;
        }
    }
    if new.limit != old.limit {
        let amount = new.limit.map(|amount| amount.to_string());
        let amount = amount.as_deref().unwrap_or("unlimited");
        put(dictionary, &key("max"), amount, "unlimited")?;
    }
    if new.weight != old.weight {
        let weight = new.weight.map(|weight| weight.to_string());
        put_or_remove(dictionary, &key("shares"), weight.as_deref())?;
    }
    Ok(())
}

/// Returns a UUID as VMware writes it: "56 4d 96 af e6 46 bd 86-5c 4d 65 4e 77 36 ef 31".
pub(super) fn uuid_text(uuid: Uuid) -> String {
    let half = |bytes: &[u8]| {
        let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        pairs.join(" ")
    };
    format!("{}-{}", half(&uuid.0[..8]), half(&uuid.0[8..]))
}
