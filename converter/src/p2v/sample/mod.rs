//! `hako p2v sample`: what a server uses, looked at again and again and kept in a ring file, from
//! which a plan is made later. No program runs for it; a look costs a few reads of `/proc`.

mod proc;
mod record;
mod ring;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hako_block::{Error, ErrorKind, Result};

pub use proc::System;
pub(crate) use proc::is_disk;
pub use record::{CpuTicks, Device, DeviceKind, MemoryKib, Paging, Pressure, Sample, Stall};
pub use ring::{Header, MAGIC, Ring};

/// How often what is sampled is brought to stable storage.
const SYNC_STEP: Duration = Duration::from_secs(60);
/// The shortest and the longest time between samples.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3600)];

/// What to sample.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// The folder that `/proc` and `/sys` are in: `/`.
    pub root: PathBuf,
    /// The ring file; one that exists is gone on with.
    pub file: PathBuf,
    /// The time between samples; 15 s, or what a file that exists was made with.
    pub interval: Option<Duration>,
    /// How long to sample, and how much the file has room for; 7 days, or what it was made with.
    pub window: Option<Duration>,
    /// Goes on after that time, each sample over the oldest.
    pub endless: bool,
}

/// What was sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleReport {
    /// Samples of this run.
    pub n_new: u64,
    /// Samples that the file holds now.
    pub n_held: u64,
    /// Samples that an earlier run had left in it.
    pub n_before: u64,
    /// Whether all of the time has been sampled.
    pub is_complete: bool,
    /// Devices for which the file had no room.
    pub n_left_out: u16,
    /// Slots of the file that were damaged.
    pub n_damaged: u64,
}

/// Samples until the time is over, or `wait` says to stop: it is given how long to wait, and returns
/// `false` to end. A sample that cannot be written ends it with an error; what was written stays.
pub fn sample(
    request: &SampleRequest,
    wait: &mut dyn FnMut(Duration) -> Result<bool>,
) -> Result<SampleReport> {
    let system = System::below(&request.root);
    let mut ring = open(request, &system)?;
    let header = ring.header().clone();
    let n_before = ring.n_written();
    let first_ms = first_ms(&ring)?;
    let mut state = Run {
        interval: Duration::from_millis(header.interval_ms),
        end_ms: match (request.endless, first_ms) {
            (true, _) => u64::MAX,
            (false, Some(first)) => first.saturating_add(header.window_ms),
            (false, None) => 0,
        },
        is_complete: false,
        n_left_out: 0,
    };
    let ended = state.run(&mut ring, &system, wait);
    // What was sampled before an error is kept, too.
    let synced = ring.sync();
    ended.and(synced)?;
    Ok(SampleReport {
        n_new: ring.n_written() - n_before,
        n_held: ring.n_written().min(header.n_slots),
        n_before,
        is_complete: state.is_complete,
        n_left_out: state.n_left_out,
        n_damaged: ring.n_damaged(),
    })
}

/// How a run goes on.
struct Run {
    interval: Duration,
    /// When the last sample is due; 0 before the first.
    end_ms: u64,
    is_complete: bool,
    n_left_out: u16,
}

impl Run {
    fn run(
        &mut self,
        ring: &mut Ring,
        system: &System,
        wait: &mut dyn FnMut(Duration) -> Result<bool>,
    ) -> Result<()> {
        let mut next = Instant::now();
        let mut synced = next;
        loop {
            let sample = system.look()?;
            if self.end_ms == 0 {
                self.end_ms = sample.time_ms.saturating_add(ring.header().window_ms);
            }
            let left_ms = i128::from(self.end_ms) - i128::from(sample.time_ms);
            let half_ms = i128::from(ring.header().interval_ms / 2);
            if left_ms >= -half_ms {
                self.n_left_out = self.n_left_out.max(ring.append(&sample)?);
            }
            if left_ms < half_ms {
                self.is_complete = true;
                return Ok(());
            }
            if synced.elapsed() >= SYNC_STEP {
                ring.sync()?;
                synced = Instant::now();
            }
            let now = Instant::now();
            // A machine that slept has no samples to catch up with.
            next = (next + self.interval).max(now);
            if !wait(next.saturating_duration_since(now))? {
                return Ok(());
            }
        }
    }
}

/// Opens the file, or makes it.
fn open(request: &SampleRequest, system: &System) -> Result<Ring> {
    let path = &request.file;
    match Ring::resume(path) {
        Ok(ring) => {
            refuse_other(
                path,
                "interval",
                request.interval,
                ring.header().interval_ms,
            )?;
            refuse_other(path, "time", request.window, ring.header().window_ms)?;
            Ok(ring)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ring::create(path, &header(request, system)?)
        }
        Err(error) => Err(error),
    }
}

/// Refuses to go on with a file that was made for something else.
fn refuse_other(path: &Path, what: &str, asked: Option<Duration>, made_ms: u64) -> Result<()> {
    let made = Duration::from_millis(made_ms);
    match asked {
        Some(asked) if asked != made => Err(Error::invalid(format!(
            "was made for another {what}: {made:?}, not {asked:?}"
        ))
        .in_file(path)
        .hint("leave the option out to go on with it, or give another file")),
        _ => Ok(()),
    }
}

fn header(request: &SampleRequest, system: &System) -> Result<Header> {
    const INTERVAL: Duration = Duration::from_secs(15);
    const WINDOW: Duration = Duration::from_secs(7 * 86_400);
    let interval = request.interval.unwrap_or(INTERVAL);
    let window = request.window.unwrap_or(WINDOW);
    let [shortest, longest] = INTERVALS;
    if !(shortest..=longest).contains(&interval) {
        return Err(Error::invalid(format!(
            "a sample every {interval:?}: at least {shortest:?}, at most {longest:?}"
        )));
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // One more than there are intervals: what happened in an interval takes a look before and after.
    let n_slots = (millis(window) / millis(interval)).saturating_add(1);
    if !(2..=ring::MAX_SLOTS).contains(&n_slots) {
        return Err(Error::invalid(format!(
            "{window:?} in steps of {interval:?} are {n_slots} samples: 2 to {}",
            ring::MAX_SLOTS
        )));
    }
    let mut host = system.host()?;
    while host.len() > ring::HOST_BYTES {
        host.pop();
    }
    Ok(Header {
        slot_bytes: Header::slot_bytes_for(system.look()?.devices.len()),
        n_slots,
        interval_ms: millis(interval),
        window_ms: millis(window),
        host,
    })
}

/// Returns when the oldest sample that is held was taken.
fn first_ms(ring: &Ring) -> Result<Option<u64>> {
    let oldest = ring.samples().next().transpose()?;
    Ok(oldest.map(|sample| sample.time_ms))
}
