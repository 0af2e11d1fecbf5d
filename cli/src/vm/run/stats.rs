//! `hako vm stats`: what a machine uses.

use std::time::{Duration, Instant};

use clap::Args;
use hako_block::{Cancel, ErrorKind, Result};
use hako_vm::run::{Client, DiskStats, NicStats, Stats as Usage};

use super::Which;
use super::watch::{STEP, parse_seconds};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako vm stats web
  hako vm stats --interval 5 web
  hako vm stats --json web | jq .cpu_us

Exit status:
  0    done; with --interval: the machine went off
  1    failed, or it does not run
  2    wrong usage
  5    it is in use by something else
  6    no such virtual machine
  130  ended by SIGINT";

/// Show what a machine that runs has used: CPU time, memory, disks and network
///
/// CPU time and memory are those of its process on the host; the rest is what its devices have done
/// since it was started. The QEMU engine does not count what goes over the user network. With --json
/// an object {\"time_us\",\"cpu_us\",\"resident_bytes\",\"disks\",\"nics\"}, with --interval one a
/// line.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Stats {
    #[command(flatten)]
    which: Which,

    /// Show it again and again, what was used meanwhile a second
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    interval: Option<Duration>,
}

impl Stats {
    /// Shows it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let (found, mut client) = self.which.connect()?;
        let stats = client.stats();
        let mut before = stats.map_err(|error| error.in_file(found.vm.path()))?;
        if context.json || self.interval.is_none() {
            show(context, &before, &totals(&before))?;
        }
        let Some(interval) = self.interval else {
            return Ok(Exit::Done);
        };
        let cancel = context.cancel_on_signals()?;
        let mut next = Instant::now();
        loop {
            next += interval.max(STEP);
            sleep_until(next, &cancel)?;
            match now(&mut client)? {
                None => return Ok(Exit::Done),
                Some(usage) => {
                    show(context, &usage, &[rates(&before, &usage)])?;
                    before = usage;
                }
            }
        }
    }
}

fn sleep_until(time: Instant, cancel: &Cancel) -> Result<()> {
    loop {
        cancel.check()?;
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// Returns what it has used by now; `None` if it went off.
fn now(client: &mut Client) -> Result<Option<Usage>> {
    match client.stats() {
        Ok(usage) => Ok(Some(usage)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn show(context: &Context, usage: &Usage, lines: &[String]) -> Result<()> {
    let mut out = Out::new();
    if context.json {
        out.json(&usage.to_json())?;
    } else {
        for line in lines {
            out.line(line)?;
        }
    }
    out.finish()
}

/// Says what it has used since its start.
fn totals(usage: &Usage) -> Vec<String> {
    let row = |key: &str, value: String| format!("{:<16} {value}", format!("{key}:"));
    let seconds = usage.cpu_us / 1_000_000;
    let tenths = usage.cpu_us / 100_000 % 10;
    let mut lines = vec![
        row("CPU time", format!("{seconds}.{tenths} s")),
        row("memory", size::human(usage.resident_bytes)),
    ];
    lines.extend(usage.io.disks.iter().map(|disk| {
        let text = format!(
            "{} reads ({}), {} writes ({}), {} flushes",
            disk.reads,
            size::human(disk.read_bytes),
            disk.writes,
            size::human(disk.written_bytes),
            disk.flushes
        );
        row(&disk.node, text)
    }));
    lines.extend(usage.io.nics.iter().map(|nic| {
        let received = size::human(nic.received_bytes);
        let sent = size::human(nic.sent_bytes);
        row(&nic.node, format!("{received} received, {sent} sent"))
    }));
    lines
}

/// Says in one line what it has used a second between two looks.
fn rates(before: &Usage, usage: &Usage) -> String {
    let time_us = usage.time_us.saturating_sub(before.time_us).max(1);
    let percent = usage
        .cpu_us
        .saturating_sub(before.cpu_us)
        .saturating_mul(100)
        / time_us;
    let rate = |then: u64, now: u64| {
        let bytes = u128::from(now.saturating_sub(then)) * 1_000_000 / u128::from(time_us);
        format!(
            "{}/s",
            size::human(u64::try_from(bytes).unwrap_or(u64::MAX))
        )
    };
    let memory = size::human(usage.resident_bytes);
    let mut parts = vec![format!("CPU {percent} %"), format!("memory {memory}")];
    for disk in &usage.io.disks {
        let then = before.io.disks.iter().find(|then| then.node == disk.node);
        let none = DiskStats::default();
        let then = then.unwrap_or(&none);
        parts.push(format!(
            "{} {} read, {} written",
            disk.node,
            rate(then.read_bytes, disk.read_bytes),
            rate(then.written_bytes, disk.written_bytes)
        ));
    }
    for nic in &usage.io.nics {
        let then = before.io.nics.iter().find(|then| then.node == nic.node);
        let none = NicStats::default();
        let then = then.unwrap_or(&none);
        parts.push(format!(
            "{} {} received, {} sent",
            nic.node,
            rate(then.received_bytes, nic.received_bytes),
            rate(then.sent_bytes, nic.sent_bytes)
        ));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_vm::run::IoStats;

    fn usage(time_us: u64, cpu_us: u64, read_bytes: u64) -> Usage {
        Usage {
            time_us,
            cpu_us,
            resident_bytes: 1 << 20,
            io: IoStats {
                disks: vec![DiskStats {
                    node: "scsi0:0".to_owned(),
                    read_bytes,
                    ..DiskStats::default()
                }],
                nics: vec![],
            },
        }
    }

    #[test]
    fn rates_are_a_second() {
        let line = rates(&usage(0, 0, 0), &usage(2_000_000, 1_000_000, 4096));
        assert_eq!(
            line,
            "CPU 50 %; memory 1 MiB; scsi0:0 2 KiB/s read, 0 bytes/s written"
        );
        // Clocks that stand still or go back.
        rates(&usage(9, 9, 9), &usage(9, 0, 0));
        assert_eq!(totals(&usage(0, 1_250_000, 0))[0], "CPU time:        1.2 s");
    }
}
