//! `hako vm create`: a new machine.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::{Error, Result};
use hako_formats::Task;
use hako_formats::machine::{Cpu, Firmware};
use hako_vm::{CpuChange, CreateRequest, KernelFiles, NewDisk, NewNic};
use serde_json::json;

use super::home::home;
use super::specs;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako vm create web --guest-os ubuntu-64 --disk 20G --cdrom ubuntu.iso
  hako vm create web --from-disk jammy.img --guest-os ubuntu-64 --cloud-init user-data
  hako vm create db --cpus 8,4 --memory 16G --disk 40G,bus=nvme --disk 200G,format=qcow2
  hako vm create win --guest-os windows2022srvNext-64 --disk 60G --nic bridged,model=vmxnet3
  hako vm create tiny --disk 1G --kernel vmlinuz --initrd initrd.img --cmdline 'root=/dev/sda'

Exit status:
  0    done
  1    failed, or there is such a machine already
  2    wrong usage
  4    an image is corrupt
  5    locked or in use
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Create a virtual machine
///
/// It gets a folder of its own, with a VMX that current VMware products accept, and is listed in
/// the inventory. What is not said is chosen by --guest-os: Linux gets pvscsi and vmxnet3, Windows
/// NVMe, e1000e and UEFI since 10, LSI Logic SAS before; what is not known gets hardware that
/// nearly everything has drivers for.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Create {
    /// The machine's name, which its files get, too
    name: String,

    /// Virtual processors, and how many of them share a socket
    #[arg(long, value_name = "N[,CORES_PER_SOCKET]", value_parser = specs::cpus)]
    cpus: Option<CpuChange>,

    /// Memory, a multiple of 4 MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,

    /// The guest system, by its VMX name: ubuntu-64, windows2019srv-64, other-64
    #[arg(long, value_name = "ID")]
    guest_os: Option<String>,

    /// What starts the guest
    #[arg(long, value_name = "WHAT", value_parser = firmware)]
    firmware: Option<Firmware>,

    /// VMware's virtual hardware version
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=99))]
    hardware_version: Option<u32>,

    /// A note
    #[arg(long, value_name = "TEXT", default_value = "")]
    annotation: String,

    /// The machine's folder, instead of vms/NAME in the home of machines
    ///
    /// One that exists may hold images, for --from-disk, but no .vmx.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,

    /// Make a disk of an image (repeatable)
    ///
    /// The image is copied into the machine's folder, as VMDK unless format= says otherwise, with
    /// all that its parents hold. One that is in the machine's folder already (--folder) is used
    /// as it is. Keys: from=FORMAT for what the image is, and those of --disk. Such disks come
    /// before those of --disk.
    #[arg(long, value_name = "FILE[,KEY=VALUE]...", value_parser = specs::copied_disk)]
    from_disk: Vec<NewDisk>,

    /// Add an empty disk (repeatable)
    ///
    /// Keys: bus=scsi|sata|nvme|ide, node=scsi0:1, controller=pvscsi|lsilogic|lsisas1068|buslogic,
    /// format=vmdk|qcow2|..., subformat=NAME, mode=persistent|independent-persistent|
    /// independent-nonpersistent, file=NAME.
    #[arg(long, value_name = "SIZE[,KEY=VALUE]...", value_parser = specs::empty_disk)]
    disk: Vec<NewDisk>,

    /// Add a network card (repeatable); none for a machine without. By default: nat
    ///
    /// bridged, nat, hostonly or network=NAME (VMnet3, a port group); then model=vmxnet3|e1000e|
    /// e1000|vlance and mac=ADDRESS.
    #[arg(long, value_name = "NETWORK[,KEY=VALUE]...", value_parser = nic)]
    nic: Vec<Nic>,

    /// Put a CD image into a drive (repeatable); used where it is
    #[arg(long, value_name = "ISO", value_hint = ValueHint::FilePath)]
    cdrom: Vec<PathBuf>,

    /// Give cloud-init a seed: a file with user-data, or a folder
    ///
    /// A NoCloud volume on a CD of its own. Of a folder: user-data, meta-data, network-config and
    /// vendor-data. Without meta-data the machine's name is the host name.
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    cloud_init: Option<PathBuf>,

    /// Start this kernel without firmware; copied into the machine's folder
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: Option<PathBuf>,

    /// The kernel's initial file system
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "kernel")]
    initrd: Option<PathBuf>,

    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "", requires = "kernel")]
    cmdline: String,

    /// Let the machine and its images name files below DIR, now and later (repeatable)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    allow_path: Vec<PathBuf>,
}

/// A card, or that there is to be none.
#[derive(Debug, Clone)]
struct Nic(Option<NewNic>);

fn nic(text: &str) -> std::result::Result<Nic, String> {
    specs::nic(text).map(Nic)
}

pub fn firmware(text: &str) -> std::result::Result<Firmware, String> {
    match text {
        "bios" => Ok(Firmware::Bios),
        "efi" => Ok(Firmware::Efi),
        _ => Err("bios or efi".to_owned()),
    }
}

impl Create {
    /// Creates it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let request = self.request()?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let task = Task {
            progress: &*progress,
            cancel: &cancel,
        };
        let report = hako_vm::create(&home()?, &request, task)?;
        drop(progress);
        context.tell(&[], &report.warnings);
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "name": self.name,
                "vmx": report.vmx.to_string_lossy(),
                "warnings": report.warnings,
            }))?;
            out.finish()?;
        }
        context.summary(&format!("{}: created", report.vmx.display()));
        Ok(Exit::Done)
    }

    fn request(&self) -> Result<CreateRequest> {
        Ok(CreateRequest {
            name: self.name.clone(),
            folder: self.folder.clone(),
            cpu: self.cpus.map(|cpus| cpus.over(Cpu::default())),
            memory_bytes: self.memory,
            guest_os: self.guest_os.clone(),
            firmware: self.firmware,
            hardware_version: self.hardware_version,
            annotation: self.annotation.clone(),
            disks: self.from_disk.iter().chain(&self.disk).cloned().collect(),
            nics: self.nics()?,
            cdroms: self.cdrom.clone(),
            cloud_init: self.cloud_init.clone(),
            direct_boot: self.kernel.clone().map(|kernel| KernelFiles {
                kernel,
                initrd: self.initrd.clone(),
                cmdline: self.cmdline.clone(),
            }),
            allow: self.allow_path.clone(),
            keys: Vec::new(),
        })
    }

    fn nics(&self) -> Result<Option<Vec<NewNic>>> {
        if self.nic.is_empty() {
            return Ok(None);
        }
        let nics: Vec<NewNic> = self.nic.iter().filter_map(|nic| nic.0.clone()).collect();
        if nics.len() != self.nic.len() && self.nic.len() > 1 {
            return Err(Error::invalid("--nic none goes with no other --nic"));
        }
        Ok(Some(nics))
    }
}
