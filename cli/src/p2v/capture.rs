//! `hako p2v capture`: what is in use of a disk, as a new image.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_converter::p2v::capture::{CaptureReport, CaptureRequest, capture};
use hako_disk::Target;
use hako_guest::VolumeUse;
use serde_json::{Value, json};

use crate::context::{Context, standard};
use crate::disk::options::{ReadFlags, TargetFlags, Threads, rate, sector_sizes};
use crate::exit::Exit;
use crate::output::{Out, print_table};
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako p2v capture /dev/sda -o web.vmdk
  hako p2v capture server.img -o web.vmdk --subformat streamOptimized
  hako p2v capture --with second.img first.img -o first.qcow2
  hako p2v capture --json /dev/nvme0n1 -o web.vhdx
  hako p2v capture --to vmdk --subformat streamOptimized disk.raw -o - | ssh host 'cat > d.vmdk'

What is copied: partition tables, boot code and gaps between partitions; of ext2, ext3, ext4, XFS,
btrfs, NTFS, FAT and exFAT the blocks in use; of a swap area its header; of LVM2 and MD what they
keep for themselves, and the volumes in them as their content says. What is encrypted, damaged or not
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
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Copy a disk that nobody writes to: only the blocks in use
///
/// The disk is an image, or a block device of a machine that was stopped or started from something
/// else. The new image appears under its name only when it is whole and was read back; a block
/// device is written in place.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Capture {
    /// The disk to copy: an image or a block device
    #[arg(value_name = "DISK", value_hint = ValueHint::FilePath)]
    disk: PathBuf,

    /// The new image: a file, a block device, or - for standard output
    #[arg(short, long, value_name = "TARGET", value_hint = ValueHint::FilePath)]
    output: PathBuf,

    /// Another disk of the machine, to understand this one by (repeatable)
    ///
    /// For volume groups, arrays and btrfs that lie on several disks. It is not copied.
    #[arg(long, value_name = "DISK", value_hint = ValueHint::FilePath)]
    with: Vec<PathBuf>,

    /// Copy all blocks, whether they are in use or not
    #[arg(long, conflicts_with_all = ["keep_swap_files", "with"])]
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
    threads: Threads,

    #[command(flatten)]
    new: TargetFlags,

    #[command(flatten)]
    read: ReadFlags,
}

impl Capture {
    /// Captures.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let request = self.request()?;
        if self.new.force {
            crate::disk::refuse_to_replace(&self.output)?;
        }
        let format = request.to.name();
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let began = Instant::now();
        let report = capture(request, &*progress, &cancel)?;
        let took = began.elapsed();
        drop(progress);
        context.tell(&report.cleared, &report.warnings);
        if !is_dash(&self.output) {
            let mut out = Out::new();
            match context.json {
                true => out.json(&self.report_json(format, &report, took))?,
                false => print(&mut out, &report)?,
            }
            out.finish()?;
        }
        context.summary(&self.summary(&report, took));
        Ok(match self.read.salvage() && !report.warnings.is_empty() {
            true => Exit::Incomplete,
            false => Exit::Done,
        })
    }

    fn request(&self) -> Result<CaptureRequest> {
        let is_dash = is_dash(&self.output);
        Ok(CaptureRequest {
            disk: self.disk.clone(),
            with: self.with.clone(),
            open: self.read.options(),
            sector_bytes: self.guest_sector_size,
            all_blocks: self.all_blocks,
            keep_swap_files: self.keep_swap_files,
            to: self.new.format(&self.output)?,
            target: match is_dash {
                true => Target::Stdout {
                    writer: Box::new(standard(std::io::stdout())?),
                    is_terminal: std::io::stdout().is_terminal(),
                },
                false => Target::Path(self.output.clone()),
            },
            create: self.new.create_options(),
            force: self.new.force,
            verify: !self.no_verify && !is_dash,
            threads: self.threads.number(),
            rate: self.rate,
        })
    }

    fn summary(&self, report: &CaptureReport, took: Duration) -> String {
        format!(
            "{}: {}, of it {} in use{}, in {:.1} s",
            self.output.display(),
            size::human(report.virtual_size),
            size::human(report.used_bytes),
            if report.verified { ", verified" } else { "" },
            took.as_secs_f64(),
        )
    }

    fn report_json(&self, format: &str, report: &CaptureReport, took: Duration) -> Value {
        json!({
            "disk": self.disk.to_string_lossy(),
            "file": self.output.to_string_lossy(),
            "format": format,
            "virtual_size": report.virtual_size,
            "used_bytes": report.used_bytes,
            "skipped_bytes": report.skipped_bytes,
            "data_bytes": report.data_bytes,
            "verified": report.verified,
            "seconds": took.as_secs_f64(),
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
            out.line(&format!("{}: {whole}{note}", volume.name))?;
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
