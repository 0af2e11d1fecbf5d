//! `hako p2v capture`: what is in use of a disk, as a new image.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueHint};
use hako_block::{Cancel, Error, NoProgress, Result};
use hako_converter::p2v::capture::{CaptureReport, CaptureRequest, capture};
use hako_converter::p2v::plan::model::Disk;
use hako_disk::Target;
use hako_formats::{Allocation, DiskFormat, Task};
use hako_guest::{Keys, VolumeUse};
use serde_json::{Value, json};

use super::machine::{self, NamedDisk};
use super::plan::read_plan;
use crate::context::{Context, standard};
use crate::disk::keys::KeyFlags;
use crate::disk::options::{ReadFlags, TargetFlags, Threads, rate, sector_sizes};
use crate::exit::Exit;
use crate::output::{Out, print_table};
use crate::size;
use crate::vm::home::home;

const EXAMPLES: &str = "\
Examples:
  hako p2v capture /dev/sda -o web.vmdk
  hako p2v capture server.img -o web.vmdk --subformat streamOptimized
  hako p2v capture --with second.img first.img -o first.qcow2
  hako p2v capture --key passphrase.txt /dev/sda -o laptop.qcow2
  hako p2v capture --json /dev/nvme0n1 -o web.vhdx
  hako p2v capture --plan web01.toml sda=/dev/sda sdb=/dev/sdb
  hako p2v capture --to vmdk --subformat streamOptimized disk.raw -o - | ssh host 'cat > d.vmdk'

What is copied: partition tables, boot code and gaps between partitions; of ext2, ext3, ext4, XFS,
btrfs, NTFS, FAT and exFAT the blocks in use; of a swap area its header; of LVM2 and MD what they
keep for themselves, and the volumes in them as their content says; of LUKS that a key opens (--key)
header, keyslots, and what is in use inside, encrypted as it is. What else is encrypted, damaged or not
understood is copied as a whole, and so is a file system that was stopped in a way which leaves its
maps in doubt; the report tells. The rest of the disk reads as zeros in the copy.

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    incomplete: what --salvage could not read became zeros
  4    the image is corrupt, or the copy did not verify
  5    the disk is in use: mounted, swapped to, part of something that runs, or it was written to
       meanwhile
  7    a key opens nothing
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Copy a disk that nobody writes to: only the blocks in use
///
/// The disk is an image, or a block device of a machine that was stopped or started from something
/// else. The new image appears under its name only when it is whole and was read back; a block
/// device is written in place.
///
/// With --plan all disks that the plan keeps are copied into a machine's folder, and the machine gets the
/// hardware of the plan: processors, memory, firmware, controllers, network cards. Each disk must be as
/// long as the plan has it. The .vmx comes last: cut off before, there is no machine, and images that
/// are whole stay in its folder (--force replaces them).
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Capture {
    /// The disk to copy: an image or a block device; with --plan all that it keeps
    ///
    /// A disk of a plan is NAME=DISK, by its name there. Without a name it is the one with that world-wide
    /// name, serial number or partition table; else /dev/NAME, or the only one. One that says to be another
    /// is refused.
    #[arg(value_name = "[NAME=]DISK", value_hint = ValueHint::FilePath, required = true)]
    disks: Vec<OsString>,

    /// The new image: a file, a block device, or - for standard output
    #[arg(short, long, value_name = "TARGET", value_hint = ValueHint::FilePath,
          required_unless_present = "plan")]
    output: Option<PathBuf>,

    /// Make the whole machine of this plan of hako p2v plan: its .vmx, and a copy of each disk it keeps
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "output")]
    plan: Option<PathBuf>,

    /// The machine's name, instead of the plan's
    #[arg(long, value_name = "NAME", requires = "plan")]
    name: Option<String>,

    /// The machine's folder, instead of one of its name where machines live
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "plan")]
    folder: Option<PathBuf>,

    /// Another disk of the machine, to understand this one by (repeatable)
    ///
    /// For volume groups, arrays and btrfs that lie on several disks. It is not copied.
    #[arg(long, value_name = "DISK", value_hint = ValueHint::FilePath)]
    with: Vec<PathBuf>,

    /// Copy all blocks, whether they are in use or not
    #[arg(long, conflicts_with_all = ["keep_swap_files", "with", "key"])]
    all_blocks: bool,

    /// Copy the content of pagefile.sys, swapfile.sys and hiberfil.sys, too
    ///
    /// Without this it reads as zeros in the copy, unless Windows is hibernated.
    #[arg(long)]
    keep_swap_files: bool,

    /// Do not read the new image back before it gets its name
    #[arg(long)]
    no_verify: bool,

    /// Size of a sector as the guest sees it, where the disk does not say: 512 or 4096
    #[arg(long, value_name = "BYTES", value_parser = sector_sizes(), id = "guest_sector_size")]
    guest_sector_size: Option<u32>,

    /// Write at most this many bytes of data per second
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,

    #[command(flatten)]
    keys: KeyFlags,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    new: TargetFlags,

    #[command(flatten)]
    read: ReadFlags,
}

impl Capture {
    /// Captures.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let keys = self.keys.read()?;
        let cancel = context.cancel_on_signals()?;
        match (&self.plan, &self.output, &self.disks[..]) {
            (Some(plan), ..) => self.machine(context, plan, keys, &cancel),
            (None, Some(output), [disk]) => {
                let job = Job {
                    disk: PathBuf::from(disk),
                    with: self.with.clone(),
                    to: self.new.format(output)?,
                    output: output.clone(),
                    is_thin: true,
                };
                let copied = self.copied(context, job, keys, &cancel)?;
                if !is_dash(output) {
                    let mut out = Out::new();
                    match context.json {
                        true => out.json(&copied.json())?,
                        false => print(&mut out, &copied.report)?,
                    }
                    out.finish()?;
                }
                Ok(self.ended(&copied))
            }
            _ => Err(Error::invalid("several disks: one goes into an image")
                .hint("--plan makes a machine of several; --with looks at others too")),
        }
    }

    /// Copies all disks of a plan, and makes the machine.
    fn machine(&self, context: &Context, path: &Path, keys: Keys, cancel: &Cancel) -> Result<Exit> {
        let named = |error: Error| error.in_file(path);
        let plan = read_plan(context, path, None)?;
        machine::refuse_undoable(&plan).map_err(named)?;
        let given: Vec<_> = self.disks.iter().map(|text| NamedDisk::of(text)).collect();
        let disks = machine::matched(&plan, &given, &self.read.options())?;
        let name = self.name.as_ref().unwrap_or(&plan.machine.name);
        let home = home()?;
        let bare =
            machine::request(&plan, name.clone(), self.folder.clone(), &[]).map_err(named)?;
        let folder = hako_vm::folder_for(&home, &bare)?;
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::io("create", error).in_file(&folder))?;
        let copies = self.copies(context, &disks, &folder.join(name), keys, cancel)?;
        let images: Vec<_> = disks
            .iter()
            .zip(&copies)
            .map(|((disk, _), copied)| (*disk, copied.output.clone()))
            .collect();
        let request = machine::request(&plan, name.clone(), self.folder.clone(), &images)?;
        let task = Task {
            progress: &NoProgress,
            cancel,
        };
        let created = hako_vm::create(&home, &request, task)?;
        context.tell(&[], &created.warnings);
        let mut out = Out::new();
        match context.json {
            true => {
                let disks = images.iter().zip(&copies).map(|((disk, _), copied)| {
                    let mut one = copied.json();
                    one["source"] = disk.source.as_str().into();
                    one
                });
                out.json(&json!({
                    "name": name,
                    "vmx": created.vmx.to_string_lossy(),
                    "disks": disks.collect::<Vec<_>>(),
                    "warnings": created.warnings,
                }))?;
            }
            false => {
                for ((disk, image), copied) in images.iter().zip(&copies) {
                    out.line(&format!("disk {}: {}", disk.source, image.display()))?;
                    print(&mut out, &copied.report)?;
                }
            }
        }
        out.finish()?;
        context.summary(&format!("{}: created", created.vmx.display()));
        let mut all = copies.iter().map(|copied| self.ended(copied));
        Ok(all.find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done))
    }

    /// Copies disks into images beside one another: STEM.vmdk, STEM-2.vmdk and so on.
    fn copies(
        &self,
        context: &Context,
        disks: &[(&Disk, PathBuf)],
        stem: &Path,
        keys: Keys,
        cancel: &Cancel,
    ) -> Result<Vec<Copied>> {
        let to = self.new.format(Path::new("disk.vmdk"))?;
        let extension = to.extensions().first().copied().unwrap_or("img");
        let mut copies = Vec::new();
        for (number, (disk, path)) in (1..).zip(disks) {
            let mut image = stem.as_os_str().to_owned();
            if number > 1 {
                image.push(format!("-{number}"));
            }
            image.push(format!(".{extension}"));
            let others = disks
                .iter()
                .filter(|(other, _)| other.source != disk.source);
            let with = others.map(|(_, path)| path).chain(&self.with);
            let job = Job {
                disk: path.clone(),
                with: with.cloned().collect(),
                to,
                output: image.into(),
                is_thin: disk.thin,
            };
            copies.push(self.copied(context, job, keys.clone(), cancel)?);
        }
        Ok(copies)
    }

    /// Copies a disk.
    fn copied(&self, context: &Context, job: Job, keys: Keys, cancel: &Cancel) -> Result<Copied> {
        if self.new.force {
            crate::disk::refuse_to_replace(&job.output)?;
        }
        let (disk, output, format) = (job.disk.clone(), job.output.clone(), job.to.name());
        let request = self.request(job, keys)?;
        let progress = context.progress();
        let began = Instant::now();
        let report = capture(request, &*progress, cancel)?;
        let took = began.elapsed();
        drop(progress);
        context.tell(&report.cleared, &report.warnings);
        let copied = Copied {
            disk,
            output,
            format,
            report,
            took,
        };
        context.summary(&copied.summary());
        Ok(copied)
    }

    fn ended(&self, copied: &Copied) -> Exit {
        match self.read.salvage() && !copied.report.warnings.is_empty() {
            true => Exit::Incomplete,
            false => Exit::Done,
        }
    }

    fn request(&self, job: Job, keys: Keys) -> Result<CaptureRequest> {
        let is_dash = is_dash(&job.output);
        let mut create = self.new.create_options();
        if !job.is_thin && create.allocation == Allocation::Thin {
            create.allocation = Allocation::Lazy;
        }
        Ok(CaptureRequest {
            disk: job.disk,
            with: job.with,
            open: self.read.options(),
            keys,
            sector_bytes: self.guest_sector_size,
            all_blocks: self.all_blocks,
            keep_swap_files: self.keep_swap_files,
            to: job.to,
            target: match is_dash {
                true => Target::Stdout {
                    writer: Box::new(standard(std::io::stdout())?),
                    is_terminal: std::io::stdout().is_terminal(),
                },
                false => Target::Path(job.output),
            },
            create,
            force: self.new.force,
            verify: !self.no_verify && !is_dash,
            threads: self.threads.number(),
            rate: self.rate,
        })
    }
}

/// What to copy.
struct Job {
    disk: PathBuf,
    /// Other disks to understand it by.
    with: Vec<PathBuf>,
    to: &'static dyn DiskFormat,
    output: PathBuf,
    /// Whether the plan, if there is one, lets space be taken only by what is written.
    is_thin: bool,
}

/// What was copied.
struct Copied {
    disk: PathBuf,
    output: PathBuf,
    format: &'static str,
    report: CaptureReport,
    took: Duration,
}

impl Copied {
    fn summary(&self) -> String {
        let report = &self.report;
        format!(
            "{}: {}, of it {} in use{}, in {:.1} s",
            self.output.display(),
            size::human(report.virtual_size),
            size::human(report.used_bytes),
            if report.verified { ", verified" } else { "" },
            self.took.as_secs_f64(),
        )
    }

    fn json(&self) -> Value {
        let report = &self.report;
        json!({
            "disk": self.disk.to_string_lossy(),
            "file": self.output.to_string_lossy(),
            "format": self.format,
            "virtual_size": report.virtual_size,
            "used_bytes": report.used_bytes,
            "skipped_bytes": report.skipped_bytes,
            "data_bytes": report.data_bytes,
            "verified": report.verified,
            "seconds": self.took.as_secs_f64(),
            "volumes": report.volumes.iter().map(volume_json).collect::<Vec<_>>(),
            "cleared": report.cleared,
            "warnings": report.warnings,
        })
    }
}

fn volume_json(volume: &VolumeUse) -> Value {
    json!({
        "name": volume.name,
        "type": volume.kind,
        "bytes": volume.bytes,
        "used_bytes": volume.used_bytes,
        "skipped_bytes": volume.bytes - volume.used_bytes,
        "swap_file_bytes": volume.scratch_bytes,
        "whole": volume.is_whole,
        "notes": volume.notes,
    })
}

/// Prints how the disk falls to its volumes, and why some are copied as a whole.
fn print(out: &mut Out, report: &CaptureReport) -> Result<()> {
    let row = |volume: &VolumeUse| {
        [
            volume.name.clone(),
            match volume.kind.as_str() {
                "" => "-".to_owned(),
                kind => kind.to_owned(),
            },
            size::human(volume.bytes),
            size::human(volume.used_bytes),
            size::human(volume.bytes - volume.used_bytes),
        ]
    };
    let rows: Vec<_> = report.volumes.iter().map(row).collect();
    let heading = ["volume", "holds", "size", "copied", "skipped"];
    print_table(out, &heading, &rows)?;
    for volume in &report.volumes {
        for note in &volume.notes {
            let whole = if volume.is_whole {
                "copied as a whole: "
            } else {
                ""
            };
            let hint = match volume.kind.as_str() {
                "crypto_LUKS" if volume.is_whole => " (--key opens it)",
                _ => "",
            };
            out.line(&format!("{}: {whole}{note}{hint}", volume.name))?;
        }
        if volume.scratch_bytes > 0 {
            let bytes = size::human(volume.scratch_bytes);
            let what = "of swap files are zeros in the copy (--keep-swap-files keeps them)";
            out.line(&format!("{}: {bytes} {what}", volume.name))?;
        }
    }
    out.line(&format!(
        "{} copied, {} skipped",
        size::human(report.used_bytes),
        size::human(report.skipped_bytes)
    ))
}

fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}
