//! `hako vm set`: what a machine is made of, and any key of its VMX.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueHint};
use hako_block::{Error, Result};
use hako_formats::Task;
use hako_formats::machine::{BootDevice, Firmware, Node, Weight};
use hako_vm::{CdChange, CpuChange, NewDisk, NewNic, SetReport, SetRequest, ShareChange, Vm};
use serde_json::json;

use super::create::firmware;
use super::home::home;
use super::specs;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako vm set web --cpus 4 --memory 8G
  hako vm set web --add-disk 100G,bus=nvme --add-nic bridged,model=vmxnet3
  hako vm set web --remove-disk scsi0:1 --delete-file
  hako vm set web --cdrom rescue.iso --boot-order cdrom,hdd
  hako vm set web tools.syncTime=TRUE --unset guestinfo.token
  hako vm set web hako.ethernet0.forward=tcp:2222-:22,udp:127.0.0.1:5353-:53

Keys of our own:
  hako.NODE.format             format of the image at NODE (scsi0:1) that is no VMDK
  hako.scsiN.virtualDev        SCSI controller N when QEMU runs it, instead of the like of
                               scsiN.virtualDev: virtio-scsi, virtio-blk, pvscsi, lsisas1068, ahci
  hako.ethernetN.virtualDev    network card N when QEMU runs it: virtio-net
  hako.ethernetN.forward       ports of the host that lead into a NAT network, several between
                               commas: tcp|udp:[ADDRESS:]PORT-[ADDRESS]:PORT, the host's first, its
                               address 127.0.0.1 if not said
  hako.ethernetN.tap           the host's TAP interface that network card N is plugged into when the
                               machine runs on KVM alone (--engine kvm); it has to be there
  hako.ethernetN.socket        UNIX sockets that network card N is plugged into when the machine runs
                               so, in its folder or below --allow-path: stream:PATH of one that
                               listens, as passt's and QEMU's (each frame with its length before it),
                               or dgram:PEER,OWN (a datagram a frame)
  hako.hugePages               TRUE: all of its memory in pages of 2 MiB, which the host has set
                               aside (vm.nr_hugepages), when it runs so
  hako.onNoSpace               what comes when the host has no room for what the guest writes: pause,
                               if not said (free some space, then hako vm unpause: nothing is lost),
                               or report (the guest reads an error)
  hako.kernel, hako.initrd, hako.cmdline    files and command line that a machine starts with
                               instead of its firmware
  hako.nvram                   file with the UEFI variables that QEMU keeps; NAME.hako-efivars.fd
                               if not said

Exit status:
  0    done
  1    failed, or the VMX is encrypted
  2    wrong usage, or the machine would not start
  4    the VMX or an image is corrupt
  5    it runs, is suspended or in use, or a disk is
  6    no such virtual machine
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Change what a virtual machine is made of, or any key of its VMX
///
/// All of it is done or nothing, and only the lines that must change do. What would keep the
/// machine from starting is refused: odd memory, a node that is taken, a disk that is used
/// elsewhere or cannot be opened.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = ArgGroup::new("changes").required(true).multiple(true).args([
    "raw", "unset", "cpus", "memory", "guest_os", "firmware", "boot_order", "annotation",
    "add_disk", "attach_disk", "remove_disk", "add_nic", "remove_nic", "cdrom",
    "cpu_reservation", "cpu_limit", "cpu_shares",
    "memory_reservation", "memory_limit", "memory_shares",
]))]
pub struct Set {
    /// The machine: its name, or the path of its .vmx
    #[arg(value_name = "VM", value_hint = ValueHint::FilePath)]
    machine: PathBuf,

    /// Keys of the VMX, as they are
    #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
    raw: Vec<KeyValue>,

    /// Remove a key of the VMX (repeatable)
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,

    /// Virtual processors, and how many of them share a socket
    ///
    /// Without the second number sockets stay as large as they are, if that is possible.
    #[arg(long, value_name = "N[,CORES_PER_SOCKET]", value_parser = specs::cpus)]
    cpus: Option<CpuChange>,

    /// Memory, a multiple of 4 MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,

    /// The guest system, by its VMX name
    #[arg(long, value_name = "ID")]
    guest_os: Option<String>,

    /// What starts the guest
    #[arg(long, value_name = "WHAT", value_parser = firmware)]
    firmware: Option<Firmware>,

    /// What the guest starts from, first to last: hdd, cdrom, ethernet0, floppy
    #[arg(long, value_name = "LIST", value_parser = boot_order)]
    boot_order: Option<BootOrder>,

    /// The note; empty removes it
    #[arg(long, value_name = "TEXT")]
    annotation: Option<String>,

    /// Add an empty disk (repeatable); keys as of create --disk
    #[arg(long, value_name = "SIZE[,KEY=VALUE]...", value_parser = specs::empty_disk)]
    add_disk: Vec<NewDisk>,

    /// Add a disk with this image, used where it is (repeatable)
    ///
    /// One that is no VMDK gets hako.NODE.format. If it is not in the machine's folder, the
    /// machine is allowed to use its folder from then on. Keys: from=FORMAT, bus, node,
    /// controller, mode.
    #[arg(long, value_name = "FILE[,KEY=VALUE]...", value_parser = specs::attached_disk)]
    attach_disk: Vec<NewDisk>,

    /// Take away the drive at a node: scsi0:1 (repeatable)
    #[arg(long, value_name = "NODE", value_parser = node)]
    remove_disk: Vec<Node>,

    /// Delete the images of disks that are taken away
    #[arg(long, requires = "remove_disk")]
    delete_file: bool,

    /// Add a network card (repeatable); as of create --nic
    #[arg(long, value_name = "NETWORK[,KEY=VALUE]...", value_parser = nic)]
    add_nic: Vec<NewNic>,

    /// Take away the network card of this number (repeatable)
    #[arg(long, value_name = "N")]
    remove_nic: Vec<u8>,

    /// Put an image into the first CD drive, or that at NODE; none empties it
    #[arg(long, value_name = "[NODE=]ISO|none", value_hint = ValueHint::FilePath)]
    cdrom: Option<String>,

    /// Processor time that is kept for the machine, in MHz
    #[arg(long, value_name = "MHZ")]
    cpu_reservation: Option<u64>,

    /// Processor time that it never gets more than, in MHz; none for no limit
    #[arg(long, value_name = "MHZ|none", value_parser = mhz_limit)]
    cpu_limit: Option<Limit>,

    /// Its weight against others: low, normal, high or a number
    #[arg(long, value_name = "WEIGHT", value_parser = specs::weight)]
    cpu_shares: Option<Weight>,

    /// Memory that is kept for the machine
    #[arg(long, value_name = "SIZE", value_parser = mib)]
    memory_reservation: Option<u64>,

    /// Memory of the host's that it never gets more than; none for no limit
    #[arg(long, value_name = "SIZE|none", value_parser = mib_limit)]
    memory_limit: Option<Limit>,

    /// Its weight against others: low, normal, high or a number
    #[arg(long, value_name = "WEIGHT", value_parser = specs::weight)]
    memory_shares: Option<Weight>,

    /// Let the machine and its images name files below DIR (repeatable)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    allow_path: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
struct KeyValue(String, String);

#[derive(Debug, Clone)]
struct BootOrder(Vec<BootDevice>);

/// A limit, or that there is to be none.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<u64>);

impl Set {
    /// Sets.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let home = home()?;
        let request = self.request()?;
        let mut vm = Vm::open(&home, &self.machine, &self.allow_path)?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let task = Task {
            progress: &*progress,
            cancel: &cancel,
        };
        let report = hako_vm::set(&home, &mut vm, &request, task)?;
        drop(progress);
        context.tell(&[], &report.warnings);
        if context.json {
            let mut out = Out::new();
            out.json(&report_json(&vm, &report))?;
            out.finish()?;
        }
        for (key, value) in &report.changed {
            context.summary(&match value {
                Some(value) => format!("{key} = {value:?}"),
                None => format!("{key} removed"),
            });
        }
        Ok(Exit::Done)
    }

    fn request(&self) -> Result<SetRequest> {
        let set = self
            .raw
            .iter()
            .map(|KeyValue(key, value)| (key.clone(), Some(value.clone())));
        let unset = self.unset.iter().map(|key| (key.clone(), None));
        Ok(SetRequest {
            cpu: self.cpus,
            memory_bytes: self.memory,
            guest_os: self.guest_os.clone(),
            firmware: self.firmware,
            boot_order: self.boot_order.clone().map(|order| order.0),
            annotation: self.annotation.clone(),
            remove_drives: self.remove_disk.clone(),
            delete_files: self.delete_file,
            add_disks: self
                .add_disk
                .iter()
                .chain(&self.attach_disk)
                .cloned()
                .collect(),
            remove_nics: self.remove_nic.clone(),
            add_nics: self.add_nic.clone(),
            cdrom: self.cdrom.as_deref().map(cd_change).transpose()?,
            cpu_share: ShareChange {
                reservation: self.cpu_reservation,
                limit: self.cpu_limit.map(|limit| limit.0),
                weight: self.cpu_shares,
            },
            memory_share: ShareChange {
                reservation: self.memory_reservation,
                limit: self.memory_limit.map(|limit| limit.0),
                weight: self.memory_shares,
            },
            raw: set.chain(unset).collect(),
        })
    }
}

fn report_json(vm: &Vm, report: &SetReport) -> serde_json::Value {
    let changed = report
        .changed
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)));
    let added = report.added.iter().map(|node| node.to_string());
    let deleted = report.deleted.iter().map(|path| path.to_string_lossy());
    json!({
        "name": vm.name(),
        "vmx": vm.path().to_string_lossy(),
        "changed": changed.collect::<serde_json::Map<_, _>>(),
        "added": added.collect::<Vec<_>>(),
        "deleted": deleted.collect::<Vec<_>>(),
        "warnings": report.warnings,
    })
}

/// Reads `ISO`, `none`, or either behind `NODE=`.
fn cd_change(text: &str) -> Result<CdChange> {
    let (node, image) = match text
        .split_once('=')
        .map(|(node, rest)| (node.parse(), rest))
    {
        Some((Ok(node), rest)) => (Some(node), rest),
        _ => (None, text),
    };
    if image.is_empty() {
        return Err(Error::invalid("a CD image without a name"));
    }
    Ok(CdChange {
        node,
        image: (image != "none").then(|| PathBuf::from(image)),
    })
}

fn key_value(text: &str) -> std::result::Result<KeyValue, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok(KeyValue(key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

fn boot_order(text: &str) -> std::result::Result<BootOrder, String> {
    let device = |word: &str| {
        let mut all = BootDevice::ALL.into_iter();
        all.find(|device| device.name() == word.trim())
            .ok_or_else(|| format!("{word:?}: one of hdd, cdrom, ethernet0, floppy"))
    };
    text.split(',')
        .map(device)
        .collect::<std::result::Result<_, _>>()
        .map(BootOrder)
}

fn node(text: &str) -> std::result::Result<Node, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

fn nic(text: &str) -> std::result::Result<NewNic, String> {
    specs::nic(text)?.ok_or_else(|| "none is no network".to_owned())
}

fn mhz_limit(text: &str) -> std::result::Result<Limit, String> {
    specs::or_none(text, |text| {
        text.parse().map_err(|_| "a number of MHz".to_owned())
    })
    .map(Limit)
}

fn mib(text: &str) -> std::result::Result<u64, String> {
    match size::parse(text)? {
        bytes if bytes.is_multiple_of(1 << 20) => Ok(bytes >> 20),
        _ => Err("a multiple of 1 MiB".to_owned()),
    }
}

fn mib_limit(text: &str) -> std::result::Result<Limit, String> {
    specs::or_none(text, mib).map(Limit)
}
