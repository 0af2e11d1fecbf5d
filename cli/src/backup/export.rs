//! `hako backup export`: a machine as one file, night after night.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use hako_block::{Error, Result};
use hako_vm::{BackupReport, BackupTarget, ExportRequest};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;
use crate::vm::export::{HowToExport, report_json, stdout};

const EXAMPLES: &str = "\
Examples:
  hako backup export web -o web.ova
  hako backup export web -o /srv/backup --keep 7
  hako backup export web --snapshot nightly -o /srv/backup --keep 7
  hako backup export web -o - | ssh backup 'cat > web.ova'
  hako vm import --name web /srv/backup/web-2026-11-22T013000Z.ova

Every night by cron:
  # /etc/cron.d/hako: what goes wrong is mailed, all else is silence
  30 1 * * * root /usr/local/bin/hako -q backup export web -o /srv/backup --keep 7 --rate 100M

Every night by systemd:
  # /etc/systemd/system/hako-backup@.service
  [Service]
  Type=oneshot
  Nice=10
  ExecStart=/usr/local/bin/hako backup export %i -o /srv/backup --keep 7

  # /etc/systemd/system/hako-backup@.timer
  [Timer]
  OnCalendar=*-*-* 01:30
  Persistent=true
  [Install]
  WantedBy=timers.target

  # systemctl enable --now hako-backup@web.timer

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    a disk is corrupt, or the backup did not verify
  5    locked or in use: the machine runs or is suspended, or another backup is under way
  6    no such virtual machine
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM
  141    the reader of standard output went away";

/// Back a machine up as one file, an OVA
///
/// The machine must be off, or a snapshot of it be given: that is not written while the machine
/// runs. Chains of disks are flattened. The SHA-256 of what the guest sees of each disk is recorded
/// in the OVA, in a comment that other readers pass over, and compared when the backup is verified.
/// `hako vm import` restores it.
///
/// Into a folder the file is named for the machine and the time in UTC (or $SOURCE_DATE_EPOCH).
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Export {
    /// The machine: a name, or the path of its .vmx
    vm: PathBuf,

    /// Where the backup goes: a file, a folder that exists, or - for standard output
    #[arg(short, long, value_name = "FILE|DIR|-", value_hint = ValueHint::AnyPath)]
    output: PathBuf,

    /// Keep so many backups of the machine in the folder
    ///
    /// Older ones are removed once the new one was read back and found right, as with --verify.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep: Option<u16>,

    #[command(flatten)]
    how: HowToExport,
}

impl Export {
    /// Backs up.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let target = self.target()?;
        let is_pipe = matches!(target, BackupTarget::Pipe(_));
        if self.keep.is_some() && !matches!(target, BackupTarget::Folder(_)) {
            return Err(Error::invalid("--keep is for backups in a folder"));
        }
        let (vm, request) = self.how.request(&self.vm, is_pipe, context)?;
        let request = ExportRequest {
            record_contents: true,
            verify: self.how.verify || self.keep.is_some(),
            ..request
        };
        let keep = self.keep.map(usize::from);
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_vm::backup_export(&vm, target, keep, &request, &*progress, &cancel)?;
        drop(progress);
        context.tell(&report.export.cleared, &report.export.warnings);
        if context.json && !is_pipe {
            let mut out = Out::new();
            out.json(&json(&report))?;
            out.finish()?;
        }
        if let Some(file) = &report.file {
            let bytes = size::human(report.file_bytes.unwrap_or(0));
            context.summary(&format!("{}: {bytes}", file.display()));
        }
        Ok(Exit::Done)
    }

    fn target(&self) -> Result<BackupTarget> {
        Ok(if self.output == Path::new("-") {
            BackupTarget::Pipe(stdout()?)
        } else if self.output.is_dir() {
            BackupTarget::Folder(self.output.clone())
        } else {
            BackupTarget::File(self.output.clone())
        })
    }
}

fn json(report: &BackupReport) -> Value {
    let mut object = report_json(&report.export);
    object["file"] = json!(report.file.as_ref().map(|file| file.to_string_lossy()));
    object["file_bytes"] = json!(report.file_bytes);
    object["removed"] = json!(report.removed);
    object
}
