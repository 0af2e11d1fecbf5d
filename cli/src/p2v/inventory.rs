//! `hako p2v inventory`: what a server is made of and runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueHint};
use hako_block::{Error, Result};
use hako_converter::p2v::inventory::model::{
    FirmwareKind, Inventory, Kernel, Level, Mount, Nic, NicKind, Volume,
};
use hako_converter::p2v::inventory::{of_images, of_running};
use hako_formats::open_chain;
use hako_guest::{Disk, Volumes};

use crate::context::Context;
use crate::disk::keys::KeyFlags;
use crate::disk::options::{ReadFlags, sector_sizes};
use crate::exit::Exit;
use crate::output::{Out, print_table};
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako p2v inventory
  hako p2v inventory --json > web01.json
  hako p2v inventory --json --deep first.img second.vmdk > db01.json
  hako p2v plan --inventory web01.json --history web01.samples -o web01.toml
  hako p2v inventory --key passphrase.txt laptop.img
  ssh root@web01 hako p2v inventory --json | hako p2v plan --inventory - --size as-is

JSON (schema 1), an object with: schema, hako, taken (seconds since 1970), source (running or images),
hostname, machine, firmware, cpu, memory, disks, volumes (partitions, arrays, logical volumes, opened
encryption, multipath maps; each after what it lies on), mounts, swaps, nics, routes, name_servers, os,
boot (with kernels), services, findings, remarks. Lengths are bytes. A text that is not known is empty,
a number that is not known is null, and a variant is written like-this. A finding has level (blocker,
warning or note), code (for programs: it stays), about (the name of a disk, volume, interface or service),
what and advice. Within a schema's number fields are added, never changed.

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    done, but something stands in the way of a move: a finding of level blocker
  4    an image is damaged
  5    an image is in use
  7    a key opens nothing";

/// Say what a server is made of and runs, and what stands in the way of moving it
///
/// From the system that hako runs on, without other programs and without changing anything; as root,
/// or serial numbers, UEFI's entries and what is in the disks stay unknown. Or from images of its disks,
/// given in its order.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct InventoryOf {
    /// Images of all disks of the machine, in its order; without any the system that runs
    #[arg(value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    images: Vec<PathBuf>,

    /// Look at the system whose /proc, /sys, /dev and /etc are below this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "images")]
    root: Option<PathBuf>,

    /// Look into the initrds of all kernels, and of images at what of each volume is in use
    #[arg(long)]
    deep: bool,

    /// Size of a sector as the guest sees it, where an image does not say: 512 or 4096
    #[arg(long, value_name = "BYTES", value_parser = sector_sizes(), id = "guest_sector_size",
          requires = "images")]
    guest_sector_size: Option<u32>,

    #[command(flatten)]
    keys: KeyFlags,

    #[command(flatten)]
    read: ReadFlags,
}

impl InventoryOf {
    /// Takes the inventory and prints it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let inventory = match &self.images[..] {
            [] => self.running(context)?,
            images => self.of_images(context, images)?,
        };
        let mut out = Out::new();
        match context.json {
            true => out.json(&inventory.to_json()?)?,
            false => page(&mut out, &inventory)?,
        }
        out.finish()?;
        let mut findings = inventory.findings.iter();
        Ok(
            match findings.any(|finding| finding.level == Level::Blocker) {
                true => Exit::Incomplete,
                false => Exit::Done,
            },
        )
    }

    fn running(&self, context: &Context) -> Result<Inventory> {
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        if !root.join("proc").is_dir() {
            let what = "there is no /proc in it: no system to look at";
            return Err(Error::invalid(what).in_file(root));
        }
        Ok(of_running(root, self.deep, context.time()))
    }

    fn of_images(&self, context: &Context, images: &[PathBuf]) -> Result<Inventory> {
        let mut disks: Vec<Arc<dyn hako_guest::Volume>> = Vec::new();
        for path in images {
            let opened = open_chain(path, &self.read.options())?;
            crate::disk::salvaged(context, &self.read, &opened);
            let told = Disk::told_sector_bytes(&opened.chain);
            let sector_bytes = self.guest_sector_size.or(told).unwrap_or(512);
            disks.push(Arc::new(Disk::new(Arc::new(opened.chain), sector_bytes)));
        }
        let volumes = Volumes::opened(disks, self.keys.read()?);
        let first = images.first().map_or(Path::new(""), PathBuf::as_path);
        let volumes = volumes.map_err(|error| error.in_file(first))?;
        let names: Vec<String> = images
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        of_images(&volumes, &names, self.deep, context.time())
    }
}

/// Prints an inventory for people.
fn page(out: &mut Out, inventory: &Inventory) -> Result<()> {
    for [key, value] in about(inventory) {
        out.line(&format!("{key:14}{value}"))?;
    }
    section(out, "Disks", &DISKS, &disks(inventory))?;
    section(out, "Volumes", &VOLUMES, &volumes(inventory))?;
    section(out, "Mounts and swap", &MOUNTS, &mounts(inventory))?;
    section(out, "Network", &NICS, &nics(inventory))?;
    section(out, "Kernels", &KERNELS, &kernels(inventory))?;
    section(out, "Services", &SERVICES, &services(inventory))?;
    findings(out, inventory)
}

fn section<const N: usize>(
    out: &mut Out,
    title: &str,
    heading: &[&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.line(&format!("{title}:"))?;
    print_table(out, heading, rows)
}

/// Joins what is not empty.
fn joined(parts: &[&str], between: &str) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).collect();
    let said: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    said.join(between)
}

/// A text, or a dash for none.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// What is known of the machine as a whole: keys and values.
fn about(inventory: &Inventory) -> Vec<[String; 2]> {
    let Inventory {
        machine,
        firmware,
        cpu,
        memory,
        os,
        boot,
        ..
    } = inventory;
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| {
        if !value.is_empty() {
            rows.push([key.to_owned(), value]);
        }
    };
    row("host name", inventory.hostname.clone());
    row("machine", joined(&[&machine.vendor, &machine.model], " "));
    row("serial number", machine.serial.clone());
    let kind = match firmware.kind {
        FirmwareKind::Unknown => "",
        FirmwareKind::Bios => "BIOS",
        FirmwareKind::Uefi => "UEFI",
    };
    let secure = match firmware.secure_boot {
        Some(true) => "Secure Boot is on",
        _ => "",
    };
    let tpm = if firmware.tpm == Some(true) {
        "TPM"
    } else {
        ""
    };
    row(
        "firmware",
        joined(&[kind, &machine.bios, secure, tpm], ", "),
    );
    if cpu.threads > 0 {
        let count = format!(
            "{} sockets, {} cores, {} threads",
            cpu.sockets, cpu.cores, cpu.threads
        );
        row("processors", joined(&[&count, &cpu.model], ": "));
    }
    if memory.total_bytes > 0 {
        let total = size::human(memory.total_bytes);
        row(
            "memory",
            format!("{total}, {} available", size::human(memory.available_bytes)),
        );
    }
    row(
        "system",
        joined(&[&os.name, &os.architecture, &os.init, &os.packages], ", "),
    );
    row(
        "boots by",
        joined(&[&boot.loader, &boot.initrd_tool], ", initrds by "),
    );
    row("command line", boot.command_line.clone());
    let routes = inventory.routes.iter();
    for route in routes {
        let way = format!("{} by {}", route.to, route.gateway);
        row("route", joined(&[&way, &route.nic], ", "));
    }
    row("name servers", inventory.name_servers.join(", "));
    rows
}

const DISKS: [&str; 6] = ["NAME", "SIZE", "SECTOR", "HOLDS", "ON", "MODEL"];

fn disks(inventory: &Inventory) -> Vec<[String; 6]> {
    let rows = inventory.disks.iter().map(|disk| {
        [
            disk.name.clone(),
            size::human(disk.bytes),
            disk.sector_bytes.to_string(),
            or_dash(&joined(&[&disk.table, &disk.content.kind], ", ")),
            or_dash(&joined(&[&disk.bus, &disk.driver], ", ")),
            match joined(&[&disk.vendor, &disk.model, &disk.serial], " ") {
                model if model.is_empty() => disk.path.clone(),
                model => model,
            },
        ]
    });
    rows.collect()
}

const VOLUMES: [&str; 6] = ["NAME", "LIES ON", "SIZE", "IN USE", "HOLDS", "UUID"];

fn volumes(inventory: &Inventory) -> Vec<[String; 6]> {
    let rows = inventory.volumes.iter().map(|volume| {
        [
            volume.name.clone(),
            or_dash(&volume.on.join(", ")),
            size::human(volume.bytes),
            volume
                .used_bytes
                .map_or_else(|| "-".to_owned(), size::human),
            or_dash(&holds(volume)),
            or_dash(&volume.content.uuid),
        ]
    });
    rows.collect()
}

fn holds(volume: &Volume) -> String {
    let array = volume.array.as_ref().map_or("", |array| &array.level);
    let layout = volume
        .logical
        .as_ref()
        .map_or("", |logical| &logical.layout);
    let kind = volume.partition.as_ref().map_or("", |part| &part.kind_name);
    let label = match volume.content.label.as_str() {
        "" => String::new(),
        label => format!("\"{label}\""),
    };
    let content = joined(&[&volume.content.kind, &label], " ");
    let what = if content.is_empty() { kind } else { &content };
    joined(&[array, layout, what], ", ")
}

const MOUNTS: [&str; 5] = ["PATH", "VOLUME", "KIND", "IN USE", "FSTAB"];

fn mounts(inventory: &Inventory) -> Vec<[String; 5]> {
    let fill = |mount: &Mount| match (mount.used_bytes, mount.total_bytes) {
        (Some(used), Some(total)) => format!("{} of {}", size::human(used), size::human(total)),
        _ => "-".to_owned(),
    };
    let mounts = inventory.mounts.iter().map(|mount| {
        [
            mount.path.clone(),
            joined(&[&mount.volume, &mount.subvolume], ":"),
            mount.kind.clone(),
            fill(mount),
            or_dash(&mount.fstab),
        ]
    });
    let swaps = inventory.swaps.iter().map(|swap| {
        [
            "swap".to_owned(),
            swap.volume.clone(),
            if swap.is_file { "file" } else { "swap" }.to_owned(),
            size::human(swap.bytes),
            or_dash(&swap.fstab),
        ]
    });
    mounts.chain(swaps).collect()
}

const NICS: [&str; 6] = [
    "NAME",
    "KIND",
    "MAC",
    "DRIVER",
    "ADDRESSES",
    "CONFIGURED IN",
];

fn nics(inventory: &Inventory) -> Vec<[String; 6]> {
    let rows = inventory.nics.iter().map(|nic| {
        let mac = [&nic.permanent_mac, &nic.mac];
        let mac = mac.into_iter().find(|mac| !mac.is_empty());
        [
            nic.name.clone(),
            nic_kind(nic),
            or_dash(mac.map_or("", |mac| mac)),
            or_dash(&nic.driver),
            or_dash(&nic.addresses.join(", ")),
            or_dash(&nic.configured_in.join(", ")),
        ]
    });
    rows.collect()
}

fn nic_kind(nic: &Nic) -> String {
    let kind = match nic.kind {
        NicKind::Physical => "card",
        NicKind::Bond => "bond",
        NicKind::Bridge => "bridge",
        NicKind::Vlan => "VLAN",
        NicKind::Virtual => "virtual",
    };
    let number = nic.vlan.map_or_else(String::new, |vlan| format!(" {vlan}"));
    match nic.ports.is_empty() {
        true => format!("{kind}{number}"),
        false => format!("{kind}{number} of {}", nic.ports.join(", ")),
    }
}

const KERNELS: [&str; 4] = ["VERSION", "IMAGE", "INITRD", "DRIVERS"];

fn kernels(inventory: &Inventory) -> Vec<[String; 4]> {
    let rows = inventory.boot.kernels.iter().map(|kernel| {
        let default = if kernel.is_default { " (default)" } else { "" };
        [
            format!("{}{default}", kernel.version),
            or_dash(&kernel.image),
            or_dash(&kernel.initrd),
            or_dash(&drivers(kernel)),
        ]
    });
    rows.collect()
}

/// `initrd: ahci, sd_mod; modules: pvscsi`.
fn drivers(kernel: &Kernel) -> String {
    let places = ["builtin", "initrd", "modules", "nowhere"];
    let all = places.iter().filter_map(|place| {
        let here = kernel
            .drivers
            .iter()
            .filter(|driver| driver.place == *place);
        let names: Vec<&str> = here.map(|driver| driver.hardware.as_str()).collect();
        (!names.is_empty()).then(|| format!("{place}: {}", names.join(", ")))
    });
    all.collect::<Vec<_>>().join("; ")
}

const SERVICES: [&str; 4] = ["NAME", "RUNS", "MEMORY", "FOUND BY"];

fn services(inventory: &Inventory) -> Vec<[String; 4]> {
    let rows = inventory.services.iter().map(|service| {
        [
            service.name.clone(),
            match service.is_running {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            }
            .to_owned(),
            service
                .reserved_bytes
                .map_or_else(|| "-".to_owned(), size::human),
            service.found_by.clone(),
        ]
    });
    rows.collect()
}

/// Prints what stands in the way, and what could not be found out.
fn findings(out: &mut Out, inventory: &Inventory) -> Result<()> {
    if !inventory.findings.is_empty() {
        out.line("")?;
        out.line("Findings:")?;
    }
    for finding in &inventory.findings {
        let level = match finding.level {
            Level::Blocker => "blocker",
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let about = joined(&[&finding.about, &finding.what], ": ");
        out.line(&format!("{level} {}: {about}", finding.code))?;
        if !finding.advice.is_empty() {
            out.line(&format!("    {}", finding.advice))?;
        }
    }
    if !inventory.remarks.is_empty() {
        out.line("")?;
        out.line("Not found out:")?;
    }
    for remark in &inventory.remarks {
        out.line(remark)?;
    }
    Ok(())
}
