//! `hako p2v sample`: what a server uses, for a plan.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueHint};
use hako_block::{Error, Result};
use hako_converter::p2v::sample::{SampleReport, SampleRequest, System, sample};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako p2v sample
  hako p2v sample --interval 1m --for 14d --out /var/tmp/web01.samples
  systemd-run --unit=hako-sample hako p2v sample --out /var/tmp/web01.samples
  hako p2v plan --inventory web01.json --history /var/tmp/web01.samples

Exit status:
  0    done, or ended by SIGHUP, SIGINT or SIGTERM: what was sampled is in the file
  1    failed
  2    wrong usage, or the file was made for another interval or time
  4    the file is damaged, or is no file of samples
  5    another process samples into the file
  8    no space left";

/// Sample what this server uses, as the base of a plan
///
/// Looks at /proc again and again: processors, memory, swapping, pressure, disks and network cards.
/// The file has its full size from the beginning, and is whole whenever this ends: SIGKILL, a crash and
/// a reboot cost a sample (a power cut those of the last minute). Started again with the same file, it
/// goes on, until the time since the first sample is over.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Sample {
    /// The time between samples: 15s, 500ms, 1m [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    interval: Option<Duration>,

    /// How long to sample: 7d, 12h [default: 7d]
    ///
    /// A week has the days and nights, backups and reports that a server is sized for. The file holds
    /// so much.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    window: Option<Duration>,

    /// Go on after that time, until stopped: new samples replace the oldest
    #[arg(long)]
    endless: bool,

    /// The file [default: HOST.samples]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,

    /// Look at /proc and /sys below DIR instead of this system's
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "/",
          hide_default_value = true)]
    root: PathBuf,
}

impl Sample {
    /// Samples.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let request = SampleRequest {
            root: self.root.clone(),
            file: self.file()?,
            interval: self.interval,
            window: self.window,
            endless: self.endless,
        };
        let mut signals = context.signals()?;
        let report = sample(&request, &mut |time| wait(&mut signals, time))?;
        tell(context, &request.file, &report)?;
        Ok(Exit::Done)
    }

    fn file(&self) -> Result<PathBuf> {
        if let Some(file) = &self.out {
            return Ok(file.clone());
        }
        let host = System::below(&self.root).host()?;
        match host.is_empty() || host.contains('/') || host.starts_with('.') {
            true => Err(Error::invalid("this system has no name").hint("name a file: --out FILE")),
            false => Ok(format!("{host}.samples").into()),
        }
    }
}

/// Says what was sampled.
fn tell(context: &Context, file: &Path, report: &SampleReport) -> Result<()> {
    let name = file.display();
    if report.n_damaged > 0 {
        let text = format!("{name}: {} damaged records are left out", report.n_damaged);
        context.messages.warn(&text);
    }
    if report.n_left_out > 0 {
        let text = format!(
            "{name} has no room for {} disks or network cards that came later; a new file has",
            report.n_left_out
        );
        context.messages.warn(&text);
    }
    if context.json {
        let mut out = Out::new();
        out.json(&json!({
            "file": file.to_string_lossy(),
            "new_samples": report.n_new,
            "earlier_samples": report.n_before,
            "held_samples": report.n_held,
            "complete": report.is_complete,
            "damaged": report.n_damaged,
            "devices_left_out": report.n_left_out,
        }))?;
        out.finish()?;
    }
    let state = match report.is_complete {
        true => "complete",
        false => "started again with this file, it goes on",
    };
    context.summary(&format!(
        "{name}: {} samples, {} of them new; {state}",
        report.n_held, report.n_new
    ));
    Ok(())
}

/// Waits; returns `false` if a signal came.
fn wait(signals: &mut UnixStream, time: Duration) -> Result<bool> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Error::invalid("too long a time"))?;
        let mut fds = [PollFd::new(&*signals, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(true),
            Ok(_) => break,
            Err(Errno::INTR) => (),
            Err(error) => return Err(Error::io("wait", error)),
        }
    }
    // What is read is only that something came.
    let _ = signals.read(&mut [0; 16]);
    Ok(false)
}

/// Reads `15s`, `500ms`, `1m`, `12h`, `7d`; a bare number is seconds.
pub fn parse_time(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || "write it like 15s, 500ms, 1m, 12h or 7d".to_owned();
    let digits_len = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_len);
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let millis = number.checked_mul(unit_ms).filter(|ms| *ms <= MAX_MS);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "more than 10 years".to_owned())
}

/// So that no time is beyond what a clock can count.
const MAX_MS: u64 = 10 * 366 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("15s", 15),
            ("15", 15),
            ("2m", 120),
            ("1h", 3600),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1w",
            "1 s",
            "99999999999999999999s",
            "4000d",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
