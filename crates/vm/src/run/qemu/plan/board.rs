//! The board: chips, processors, memory, firmware, clock, identity.

use hako_block::{Result, Uuid};
use hako_formats::machine::{Bus, Firmware, Machine, check_memory};
use serde_json::json;

use super::{Accelerator, Chipset, CommandLine, Flash, Wanted, text, value};
use crate::guest::guest_defaults;
use crate::time::utc;

const MIB: u64 = 1 << 20;
/// From this hardware version on VMware's guests read the UUID's first three fields little-endian
/// (SMBIOS 2.7), before that in the order of the text.
const FIRST_MIXED_ENDIAN: u32 = 13;

/// Returns the chips for a machine. UEFI is at home on Q35, and Linux finds everything there; only
/// Q35's slots can have VMware's numbers, which its network cards are named by. Whatever else
/// knows the chips of VMware's board, and disks on IDE are nowhere but on PIIX.
pub(super) fn chipset(machine: &Machine) -> Chipset {
    let has_ide_disk = machine.disks().any(|(node, _)| node.bus == Bus::Ide);
    let is_free = is_new_linux(machine) && !has_ide_disk;
    match machine.firmware {
        Firmware::Efi => Chipset::Q35,
        Firmware::Bios if is_free => Chipset::Q35,
        Firmware::Bios => Chipset::Pc,
    }
}

/// Returns whether the guest is a Linux with drivers for VMware's paravirtual devices.
pub(super) fn is_new_linux(machine: &Machine) -> bool {
    let guest_os = machine.guest_os.as_deref().unwrap_or_default();
    let is_esx = guest_os.to_ascii_lowercase().starts_with("vmkernel");
    guest_defaults(guest_os).scsi_model == "pvscsi" && !is_esx
}

pub(super) fn is_windows(machine: &Machine) -> bool {
    let guest_os = machine.guest_os.as_deref().unwrap_or_default();
    guest_os.to_ascii_lowercase().starts_with("win")
        || guest_os.to_ascii_lowercase().starts_with("longhorn")
}

pub(super) fn add(line: &mut CommandLine, wanted: &Wanted<'_>, chipset: Chipset) -> Result<()> {
    let machine = wanted.machine;
    machine.cpu.check()?;
    check_memory(machine.memory_bytes)?;
    line.args
        .extend(["-nodefaults", "-no-user-config", "-S"].map(Into::into));
    line.arg("-name", format!("guest={}", value(&machine.name)));
    // QEMU needs no programs and no other privileges once it runs.
    line.arg(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    add_chips(line, wanted, chipset);
    add_processors(line, wanted);
    line.arg("-m", format!("{}M", machine.memory_bytes / MIB));
    add_identity(line, machine);
    let clock = clock(line, wanted);
    line.arg("-rtc", clock);
    if let Some(flash) = wanted.flash.as_ref().filter(|_| wanted.kernel.is_none()) {
        add_flash(line, flash)?;
    }
    if let Some(kernel) = &wanted.kernel {
        line.arg("-kernel", kernel.kernel.as_os_str());
        if let Some(initrd) = &kernel.initrd {
            line.arg("-initrd", initrd.as_os_str());
        }
        line.arg("-append", kernel.cmdline.replace('\0', ""));
    }
    Ok(())
}

fn add_chips(line: &mut CommandLine, wanted: &Wanted<'_>, chipset: Chipset) {
    let name = match chipset {
        Chipset::Pc => &wanted.types.pc,
        Chipset::Q35 => &wanted.types.q35,
    };
    let smm = match &wanted.flash {
        Some(flash) if flash.needs_smm && wanted.kernel.is_none() => ",smm=on",
        _ => "",
    };
    let flash = match &wanted.flash {
        Some(_) if wanted.kernel.is_none() => ",pflash0=firmware-code,pflash1=firmware-variables",
        _ => "",
    };
    // VMware's tools would take QEMU's backdoor for VMware's.
    line.arg(
        "-machine",
        format!("{name},usb=off,vmport=off,dump-guest-core=off{smm}{flash}"),
    );
    let accelerator = match wanted.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg,thread=multi",
    };
    line.arg("-accel", accelerator);
    if chipset == Chipset::Q35 {
        // Slots have the numbers of their ports only if it is not ACPI that knows them.
        line.arg(
            "-global",
            "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        );
    }
}

fn add_processors(line: &mut CommandLine, wanted: &Wanted<'_>) {
    let cpu = wanted.machine.cpu;
    let hyper_v = ",hv-relaxed,hv-vapic,hv-spinlocks=0x1fff,hv-vpindex,hv-runtime,hv-time,\
                   hv-synic,hv-stimer,hv-frequencies,hv-reset";
    let model = match wanted.accelerator {
        Accelerator::Kvm if is_windows(wanted.machine) => format!("host{hyper_v}"),
        Accelerator::Kvm => "host".to_owned(),
        // All that can be translated, but for page tables of five levels, which some firmware
        // and loaders trip over.
        Accelerator::Tcg => "max,la57=off".to_owned(),
    };
    line.arg("-cpu", model);
    let (count, cores) = (cpu.count, cpu.cores_per_socket);
    line.arg(
        "-smp",
        format!(
            "cpus={count},sockets={},cores={cores},threads=1",
            count / cores
        ),
    );
}

/// What a guest, and the licences in it, know the machine by.
fn add_identity(line: &mut CommandLine, machine: &Machine) {
    let Some(uuid) = machine.bios_uuid else {
        return;
    };
    let is_mixed = machine
        .hardware_version
        .is_some_and(|version| version >= FIRST_MIXED_ENDIAN);
    let seen = match is_mixed {
        true => Uuid::from_mixed_endian(uuid.0),
        false => uuid,
    };
    line.arg("-uuid", seen.to_string());
    let half = |bytes: &[u8]| {
        let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        pairs.join(" ")
    };
    let (first, second) = uuid.0.split_at(8);
    let serial = format!("VMware-{}-{}", half(first), half(second));
    line.arg("-smbios", format!("type=1,serial={serial}"));
}

/// The clock: UTC, or local time for Windows, unless the VMX says how many seconds it is off.
fn clock(line: &mut CommandLine, wanted: &Wanted<'_>) -> String {
    let is_windows = is_windows(wanted.machine);
    let slew = match wanted.accelerator {
        Accelerator::Kvm if is_windows => ",driftfix=slew",
        _ => "",
    };
    let offset = wanted.keys.value("rtc.diffFromUTC");
    let offset = offset.filter(|text| !text.trim().is_empty());
    let seconds = offset
        .as_deref()
        .and_then(|text| text.trim().parse::<i64>().ok());
    if let (Some(text), None) = (&offset, seconds) {
        let text: String = text.chars().take(40).collect();
        line.warn(format!("rtc.diffFromUTC is {text:?}, no number; left out"));
    }
    let base = match seconds.and_then(|seconds| wanted.now.checked_add_signed(seconds)) {
        Some(time) => {
            let [year, month, day, hour, minute, second] = utc(time);
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
        }
        None if is_windows => "localtime".to_owned(),
        None => "utc".to_owned(),
    };
    format!("base={base}{slew}")
}

fn add_flash(line: &mut CommandLine, flash: &Flash) -> Result<()> {
    for (name, path, read_only) in [
        ("firmware-code", &flash.code, true),
        ("firmware-variables", &flash.variables, false),
    ] {
        line.json(
            "-blockdev",
            &json!({
                "driver": "raw", "node-name": name, "read-only": read_only,
                "file": {"driver": "file", "filename": text(path)?, "read-only": read_only},
            }),
        );
    }
    if flash.needs_smm {
        line.arg("-global", "driver=cfi.pflash01,property=secure,value=on");
        // Waking up from S3 would lose what SMM protects.
        line.arg("-global", "ICH9-LPC.disable_s3=1");
    }
    Ok(())
}
