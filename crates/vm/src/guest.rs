//! What a new machine is made of by default: hardware that its guest system has drivers for.
//!
//! After what VMware's products propose for each guest system (GuestOsDescriptor of the vSphere
//! API, the new-machine wizard of Workstation) and which drivers the systems bring along: pvscsi
//! and vmxnet3 are in Linux since 2.6.33, lsisas1068 in Windows since Vista, e1000e since 8, NVMe
//! since 8.1; Windows XP has a driver for none of the SCSI models.

use hako_formats::machine::{Bus, Cpu, Firmware};

/// The guest system of a machine about which nothing was said.
pub const DEFAULT_GUEST_OS: &str = "other-64";

/// Hardware for a guest system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestDefaults {
    /// What disks hang on.
    pub disk_bus: Bus,
    /// The model of a SCSI controller, by VMX's name.
    pub scsi_model: &'static str,
    /// What CD drives hang on.
    pub cd_bus: Bus,
    /// The model of a network card, by VMX's name.
    pub nic_model: &'static str,
    /// What starts the guest.
    pub firmware: Firmware,
    /// Processors.
    pub cpu: Cpu,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

const GIB: u64 = 1 << 30;

/// What nearly everything has drivers for.
const PLAIN: GuestDefaults = GuestDefaults {
    disk_bus: Bus::Scsi,
    scsi_model: "lsilogic",
    cd_bus: Bus::Ide,
    nic_model: "e1000",
    firmware: Firmware::Bios,
    cpu: Cpu {
        count: 1,
        cores_per_socket: 1,
    },
    memory_bytes: GIB,
};

const LINUX: GuestDefaults = GuestDefaults {
    scsi_model: "pvscsi",
    cd_bus: Bus::Sata,
    nic_model: "vmxnet3",
    memory_bytes: 2 * GIB,
    ..PLAIN
};

const ESX: GuestDefaults = GuestDefaults {
    firmware: Firmware::Efi,
    cpu: Cpu {
        count: 2,
        cores_per_socket: 1,
    },
    memory_bytes: 8 * GIB,
    ..LINUX
};

/// Windows 2000 and XP.
const OLD_WINDOWS: GuestDefaults = GuestDefaults {
    disk_bus: Bus::Ide,
    nic_model: "vlance",
    ..PLAIN
};

/// Windows Vista, 7, Server 2008.
const WINDOWS_7: GuestDefaults = GuestDefaults {
    scsi_model: "lsisas1068",
    cd_bus: Bus::Sata,
    memory_bytes: 2 * GIB,
    ..PLAIN
};

/// Windows 8, Server 2012.
const WINDOWS_8: GuestDefaults = GuestDefaults {
    nic_model: "e1000e",
    ..WINDOWS_7
};

/// Windows 10, Server 2016 and newer.
const WINDOWS: GuestDefaults = GuestDefaults {
    disk_bus: Bus::Nvme,
    firmware: Firmware::Efi,
    cpu: Cpu {
        count: 2,
        cores_per_socket: 2,
    },
    memory_bytes: 4 * GIB,
    ..WINDOWS_8
};

const MAC: GuestDefaults = GuestDefaults {
    disk_bus: Bus::Sata,
    ..WINDOWS
};

/// Returns the hardware for a guest system, given by its VMX name in any case. Of one that nobody
/// has heard of: what nearly everything has drivers for.
pub fn guest_defaults(guest_os: &str) -> GuestDefaults {
    let name = guest_os.to_ascii_lowercase();
    let name = name.strip_prefix("arm-").unwrap_or(&name);
    let (word, version) = word_and_version(name);
    let since = |first: u32, then: GuestDefaults| match version {
        Some(version) if version >= first => then,
        _ => PLAIN,
    };
    match word {
        "windows" => match version {
            Some(7) => WINDOWS_7,
            Some(8) => WINDOWS_8,
            _ => WINDOWS,
        },
        "winhyperv" => WINDOWS,
        "longhorn" | "winvista" => WINDOWS_7,
        "winxppro" | "winxphome" if !name.ends_with("-64") => OLD_WINDOWS,
        "win" | "winme" | "winnt" => OLD_WINDOWS,
        "darwin" => MAC,
        "rhel" | "centos" | "oraclelinux" | "debian" => since(6, LINUX),
        "sles" | "sled" => since(11, LINUX),
        "asianux" => since(4, LINUX),
        "ubuntu" | "fedora" | "opensuse" | "almalinux" | "rockylinux" | "amazonlinux"
        | "coreos" | "vmware" | "crxpod" | "crxsys" => LINUX,
        // other3xlinux-64 and later; other26xlinux is 2.6.
        "other" if name.contains("xlinux") && version.is_some_and(|version| version < 20) => LINUX,
        "vmkernel" if matches!(version, Some(65 | 7..=20)) => ESX,
        _ => PLAIN,
    }
}

/// Returns the letters that a name begins with, and the number that follows them.
fn word_and_version(name: &str) -> (&str, Option<u32>) {
    let word_len = name
        .find(|letter: char| !letter.is_ascii_alphabetic())
        .unwrap_or(name.len());
    let (word, rest) = name.split_at(word_len);
    let digits_len = rest
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(rest.len());
    (word, rest[..digits_len].parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_get_what_they_have_drivers_for() {
        for (guest_os, expected) in [
            ("ubuntu-64", LINUX),
            ("ubuntu", LINUX),
            ("debian12-64", LINUX),
            ("arm-debian12-64", LINUX),
            ("debian5-64", PLAIN),
            ("rhel9-64", LINUX),
            ("rhel5", PLAIN),
            ("centos-64", PLAIN),
            ("sles15-64", LINUX),
            ("other6xlinux-64", LINUX),
            ("other26xlinux-64", PLAIN),
            ("vmware-photon-64", LINUX),
            ("vmkernel8", ESX),
            ("vmkernel5", PLAIN),
            ("windows11-64", WINDOWS),
            ("windows2019srv-64", WINDOWS),
            ("windows9srv-64", WINDOWS),
            ("windows8srv-64", WINDOWS_8),
            ("windows7-64", WINDOWS_7),
            ("longhorn-64", WINDOWS_7),
            ("winXPPro", OLD_WINDOWS),
            ("winXPPro-64", PLAIN),
            ("win2000Pro", OLD_WINDOWS),
            ("winNetEnterprise-64", PLAIN),
            ("darwin22-64", MAC),
            ("freebsd-64", PLAIN),
            ("other-64", PLAIN),
            ("", PLAIN),
            ("windows99999999999", WINDOWS),
        ] {
            assert_eq!(guest_defaults(guest_os), expected, "{guest_os}");
        }
    }
}
