//! The machine itself: what its firmware says (SMBIOS), processors, memory.
//!
//! | SMBIOS structure (DSP0134) | |
//! |---|---|
//! | 0 | type u8, length u8, handle u16; texts behind it, each ended by 0, all by one more |
//! | type 17, a memory module | 0x0c size u16 (MiB; bit 15: KiB; 0x7fff: at 0x1c u32), 0x10 slot's text u8 |

use std::collections::BTreeSet;

use hako_guest::Tree;
use hako_guest::bytes::le;

use super::super::model::{Cpu, Machine, Memory, MemoryModule};
use super::super::system::{names, number, text, word};

/// The longest table of SMBIOS that is read.
const MOST_BYTES: usize = 1 << 20;

/// Returns what the firmware says of the machine.
pub(super) fn machine(tree: &Tree) -> Machine {
    let dmi = |name: &str| {
        let text = word(tree, &format!("/sys/class/dmi/id/{name}"));
        // What makers leave when they have nothing to say.
        match text.as_str() {
            "To Be Filled By O.E.M." | "Default string" | "Not Specified" | "None" => String::new(),
            _ => text,
        }
    };
    let bios = ["bios_vendor", "bios_version", "bios_date"].map(&dmi);
    let bios: Vec<&str> = bios
        .iter()
        .map(String::as_str)
        .filter(|word| !word.is_empty())
        .collect();
    let table = tree
        .read(b"/sys/firmware/dmi/tables/DMI", MOST_BYTES)
        .unwrap_or_default();
    let mut machine = Machine {
        vendor: dmi("sys_vendor"),
        model: dmi("product_name"),
        serial: dmi("product_serial"),
        uuid: dmi("product_uuid").to_lowercase(),
        board: dmi("board_name"),
        bios: bios.join(" "),
        hypervisor: String::new(),
        memory_modules: modules(&table),
    };
    machine.hypervisor = hypervisor(tree, &machine).to_owned();
    machine
}

fn hypervisor(tree: &Tree, machine: &Machine) -> &'static str {
    const KNOWN: &[(&str, &str)] = &[
        ("KVM", "kvm"),
        ("QEMU", "qemu"),
        ("VMware", "vmware"),
        ("innotek", "virtualbox"),
        ("VirtualBox", "virtualbox"),
        ("Xen", "xen"),
        ("Amazon EC2", "kvm"),
        ("Google Compute", "kvm"),
        ("OpenStack", "kvm"),
    ];
    let is_flagged = flags(&text(tree, "/proc/cpuinfo")).any(|flag| flag == "hypervisor");
    let said = [&machine.vendor, &machine.model, &machine.bios];
    let mut known = KNOWN.iter();
    let found = known.find(|(word, _)| said.iter().any(|text| text.contains(word)));
    // A server of Microsoft's own is no virtual machine.
    let is_hyper_v = machine.vendor.starts_with("Microsoft") && machine.model == "Virtual Machine";
    match (found, is_hyper_v, is_flagged) {
        (Some((_, name)), ..) => name,
        (None, true, _) => "microsoft",
        (None, false, true) => match word(tree, "/sys/hypervisor/type").as_str() {
            "xen" => "xen",
            _ => "kvm",
        },
        (None, false, false) => "",
    }
}

/// Returns the memory modules in a table of SMBIOS.
fn modules(table: &[u8]) -> Vec<MemoryModule> {
    let mut modules = Vec::new();
    let mut rest = table;
    while let [kind, len, ..] = *rest {
        let len = usize::from(len);
        let Some((body, behind)) = rest.split_at_checked(len).filter(|_| len >= 4) else {
            break;
        };
        let Some(end) = behind.windows(2).position(|pair| pair == [0, 0]) else {
            break;
        };
        let texts = behind.get(..end).unwrap_or_default();
        if kind == 17 && len >= 0x11 {
            let bytes = match le::u16_at(body, 0x0c) {
                0 | 0xffff => 0,
                0x7fff if len >= 0x20 => u64::from(le::u32_at(body, 0x1c) & 0x7fff_ffff) << 20,
                kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) << 10,
                mib => u64::from(mib) << 20,
            };
            let which = usize::from(body.get(0x10).copied().unwrap_or(0));
            let mut all = texts.split(|byte| *byte == 0);
            let slot = which
                .checked_sub(1)
                .and_then(|at| all.nth(at))
                .unwrap_or_default();
            if bytes > 0 {
                let slot = String::from_utf8_lossy(slot).trim().to_owned();
                modules.push(MemoryModule { slot, bytes });
            }
        }
        // Type 127 is the last one.
        if kind == 127 {
            break;
        }
        rest = behind.get(end + 2..).unwrap_or_default();
    }
    modules
}

/// Returns the values of a key of `/proc/cpuinfo`, one for each processor.
fn values<'a>(info: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    info.lines().filter_map(move |line| {
        let (known, value) = line.split_once(':')?;
        (known.trim() == key).then(|| value.trim())
    })
}

fn flags(info: &str) -> impl Iterator<Item = &str> {
    let of_first = values(info, "flags").chain(values(info, "Features")).next();
    of_first.unwrap_or_default().split_ascii_whitespace()
}

/// Returns the processors.
pub(super) fn cpu(tree: &Tree) -> Cpu {
    let info = text(tree, "/proc/cpuinfo");
    let first = |key: &str| values(&info, key).next().unwrap_or_default().to_owned();
    let packages = values(&info, "physical id");
    let cores: BTreeSet<(&str, &str)> = packages.zip(values(&info, "core id")).collect();
    let sockets: BTreeSet<&str> = cores.iter().map(|(package, _)| *package).collect();
    let threads = values(&info, "processor").count();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    // Some virtual machines do not say which core is where.
    let or_threads = |n: usize| if n == 0 { threads } else { n };
    let kilohertz = number::<u64>(
        tree,
        "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    );
    let megahertz = kilohertz.and_then(|khz| u32::try_from(khz / 1000).ok());
    let now = first("cpu MHz")
        .split('.')
        .next()
        .and_then(|mhz| mhz.parse().ok());
    Cpu {
        model: first("model name"),
        vendor: first("vendor_id"),
        architecture: word(tree, "/proc/sys/kernel/arch"),
        sockets: count(if threads == 0 {
            0
        } else {
            sockets.len().max(1)
        }),
        cores: count(or_threads(cores.len())),
        threads: count(threads),
        max_mhz: megahertz.or(now),
        flags: flags(&info).map(str::to_owned).collect(),
    }
}

/// Returns the memory.
pub(super) fn memory(tree: &Tree) -> Memory {
    let info = text(tree, "/proc/meminfo");
    let value = |key: &str| -> u64 {
        let value = values(&info, key).next().unwrap_or_default();
        let value = value.split_ascii_whitespace().next().unwrap_or_default();
        value.parse().unwrap_or(0)
    };
    let kib = |key: &str| value(key).saturating_mul(1024);
    Memory {
        total_bytes: kib("MemTotal"),
        available_bytes: kib("MemAvailable"),
        hugepages_bytes: hugepages(tree)
            .unwrap_or_else(|| value("HugePages_Total").saturating_mul(kib("Hugepagesize"))),
    }
}

/// Returns what is set aside for huge pages of all sizes; none if that is not said.
fn hugepages(tree: &Tree) -> Option<u64> {
    const FOLDER: &str = "/sys/kernel/mm/hugepages";
    let sizes = names(tree, FOLDER);
    let bytes = sizes.iter().filter_map(|name| {
        let kib: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let pages: u64 = number(tree, &format!("{FOLDER}/{name}/nr_hugepages"))?;
        Some(kib.saturating_mul(1024).saturating_mul(pages))
    });
    (!sizes.is_empty()).then(|| bytes.fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_modules_are_read_however_the_table_is_cut() {
        let module = |size: u16, extended: u32| {
            let mut body = [0; 0x22];
            body[..2].copy_from_slice(&[17, 0x22]);
            body[0x0c..0x0e].copy_from_slice(&size.to_le_bytes());
            body[0x10] = 2;
            body[0x1c..0x20].copy_from_slice(&extended.to_le_bytes());
            [&body[..], b"first\0DIMM A1 \0\0"].concat()
        };
        let other = [&[1, 4, 0, 0][..], b"\0\0"].concat();
        let table = [
            module(8192, 0),
            other,
            module(0x7fff, 65536),
            module(0, 0),
            module(0x8000 | 64, 0),
        ]
        .concat();
        let found = modules(&table);
        let bytes: Vec<u64> = found.iter().map(|one| one.bytes).collect();
        assert_eq!(bytes, [8 << 30, 64 << 30, 64 << 10]);
        assert_eq!(found[0].slot, "DIMM A1");
        for len in 0..table.len() {
            let _ = modules(&table[..len]);
        }
    }
}
