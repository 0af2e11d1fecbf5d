//! The ring file of `hako p2v sample`: differences of counters become rates.

use std::path::Path;

use hako_block::Result;

use super::{Metric, Recording, Time};
use crate::p2v::sample::{Device, DeviceKind, MemoryKib, Ring, Sample};

/// Reads a ring file; it may be written to meanwhile.
pub fn read(path: &Path) -> Result<Recording> {
    let ring = Ring::read(path)?;
    let mut recording = Recording::new("hako");
    recording.host = ring.header().host.clone();
    // A sample that came late is one; where several are missing nobody knows what was.
    let longest_ms = ring.header().interval_ms.saturating_mul(3);
    let mut before: Option<Sample> = None;
    for sample in ring.samples() {
        let sample = sample?;
        recording.n_cpus = recording.n_cpus.max(sample.n_cpus);
        recording.memory_bytes = Some(sample.memory.total.saturating_mul(1024));
        if let Some(before) = &before
            && before.boot_id == sample.boot_id
        {
            let len_ms = sample.uptime_ms.saturating_sub(before.uptime_ms);
            if (1..=longest_ms).contains(&len_ms) {
                add(&mut recording, before, &sample, len_ms)?;
            }
        }
        before = Some(sample);
    }
    match ring.n_damaged() {
        0 => (),
        n => recording
            .remarks
            .push(format!("{n} damaged records left out")),
    }
    Ok(recording)
}

/// Adds what happened between two samples.
fn add(recording: &mut Recording, a: &Sample, b: &Sample, len_ms: u64) -> Result<()> {
    let end_ms = i64::try_from(b.time_ms).unwrap_or(i64::MAX);
    let time = Time {
        end_ms,
        len_ms: span_ms(a, b, len_ms),
    };
    let rate = |then: u64, now: u64| {
        now.checked_sub(then)
            .map(|n| n as f64 * 1000.0 / len_ms as f64)
    };
    let mut add = |metric, value: Option<f64>| match value {
        Some(value) => recording.add(metric, time, value),
        None => Ok(()),
    };
    add(Metric::BusyCores, busy_cores(a, b))?;
    let bytes = |kib: u64| Some(kib as f64 * 1024.0);
    add(Metric::MemoryUsed, bytes(used_kib(&b.memory)))?;
    add(Metric::MemoryCommitted, bytes(b.memory.committed))?;
    add(
        Metric::SwapUsed,
        bytes(b.memory.swap.saturating_sub(b.memory.swap_free)),
    )?;
    add(
        Metric::SwapIn,
        rate(a.paging.swapped_in, b.paging.swapped_in),
    )?;
    if let Some(pressure) = &b.pressure {
        let percent = |hundredths: u16| Some(f64::from(hundredths) / 100.0);
        add(Metric::CpuPressure, percent(pressure.cpu_some.avg300))?;
        add(Metric::MemoryPressure, percent(pressure.memory_some.avg300))?;
        add(Metric::IoPressure, percent(pressure.io_some.avg300))?;
    }
    for device in &b.devices {
        let is_it = |then: &&Device| then.kind == device.kind && then.name == device.name;
        let Some(then) = a.devices.iter().find(is_it) else {
            continue;
        };
        let bytes = |device: &Device| device.read_bytes.saturating_add(device.written_bytes);
        let requests = |device: &Device| device.reads.saturating_add(device.writes);
        let name = || device.name.clone();
        match device.kind {
            DeviceKind::Disk => {
                let n = rate(requests(then), requests(device));
                add(Metric::DiskRequests(name()), n)?;
                add(Metric::DiskBytes(name()), rate(bytes(then), bytes(device)))?;
            }
            DeviceKind::Nic => add(Metric::NicBytes(name()), rate(bytes(then), bytes(device)))?,
        }
    }
    Ok(())
}

/// Returns for how long the clock says the time between two samples was, so that spans meet; where it
/// was set meanwhile, for how long it was.
fn span_ms(a: &Sample, b: &Sample, len_ms: u64) -> i64 {
    /// The time since the start is known to hundredths of a second, and read a moment earlier.
    const TOLERANCE_MS: u64 = 100;
    let by_clock = b.time_ms.saturating_sub(a.time_ms);
    let span_ms = match by_clock.abs_diff(len_ms) <= TOLERANCE_MS {
        true => by_clock,
        false => len_ms,
    };
    i64::try_from(span_ms).unwrap_or(i64::MAX)
}

/// Returns how many processors were busy, by their own ticks: the clock is not asked.
fn busy_cores(a: &Sample, b: &Sample) -> Option<f64> {
    // Some counters of idle processors go back now and then.
    let since = |then: u64, now: u64| now.saturating_sub(then) as f64;
    let idle = since(a.cpu.idle, b.cpu.idle) + since(a.cpu.iowait, b.cpu.iowait);
    let busy = since(a.cpu.user, b.cpu.user)
        + since(a.cpu.nice, b.cpu.nice)
        + since(a.cpu.system, b.cpu.system)
        + since(a.cpu.irq, b.cpu.irq)
        + since(a.cpu.softirq, b.cpu.softirq)
        + since(a.cpu.steal, b.cpu.steal);
    let all = busy + idle;
    (all > 0.0).then(|| busy / all * f64::from(b.n_cpus))
}

fn used_kib(memory: &MemoryKib) -> u64 {
    let cache = memory.cached.saturating_sub(memory.shared);
    let estimate = [memory.free, memory.buffers, cache, memory.reclaimable];
    let estimate = || estimate.into_iter().fold(0, u64::saturating_add);
    memory
        .total
        .saturating_sub(memory.available.unwrap_or_else(estimate))
}
