//! What `sadf -j` prints: sysstat's recordings as JSON. Fields that are not known are passed over, and
//! all that are read may be missing: which there are depends on the version and on what sar(1) was
//! asked for. Several documents may follow each other.

use std::fmt;
use std::io::{Read, Take};

use hako_block::{Error, Result};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Metric, Recording, Time, calendar};

/// Most bytes of a text: a day of one interval a minute, all that sar(1) knows, of 128 processors.
const MAX_BYTES: u64 = 64 << 20;
/// Most intervals of a text.
const MAX_INTERVALS: usize = 1 << 18;

/// Reads it.
pub fn read(text: impl Read) -> Result<Recording> {
    let mut recording = Recording::new("sysstat");
    // One more than is allowed, so that the end of the text is not taken for the end of the limit.
    let mut text = text.take(MAX_BYTES + 1);
    let mut n_intervals = 0;
    for document in documents(&mut text) {
        for host in document?.sysstat.hosts {
            recording.host = host.nodename;
            let n_cpus = host.number_of_cpus.unwrap_or(0);
            recording.n_cpus = recording.n_cpus.max(n_cpus);
            n_intervals += host.statistics.0.len();
            for interval in host.statistics.0 {
                add(&mut recording, n_cpus, interval)?;
            }
        }
        if n_intervals > MAX_INTERVALS {
            return Err(too_much());
        }
    }
    if text.limit() == 0 {
        return Err(too_much());
    }
    Ok(recording)
}

fn documents<R: Read>(text: &mut Take<R>) -> impl Iterator<Item = Result<Document>> {
    let documents = serde_json::Deserializer::from_reader(text).into_iter::<Document>();
    documents.map(|document| {
        document.map_err(|error| match error.is_io() {
            true => Error::io("read", std::io::Error::from(error)),
            false => Error::corrupt("JSON of sadf", error.to_string()),
        })
    })
}

fn too_much() -> Error {
    Error::unsupported("more than hako reads of one text of sadf")
        .hint("give fewer days in one file")
}

#[derive(Deserialize)]
struct Document {
    sysstat: Sysstat,
}

#[derive(Deserialize)]
struct Sysstat {
    hosts: Vec<Host>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Host {
    #[serde(default)]
    nodename: String,
    number_of_cpus: Option<u32>,
    #[serde(default)]
    statistics: Intervals,
}

/// The intervals that have a time; their number is bounded while they are read.
#[derive(Default)]
struct Intervals(Vec<Interval>);

impl<'de> Deserialize<'de> for Intervals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Intervals;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of intervals")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut intervals: A,
            ) -> std::result::Result<Intervals, A::Error> {
                let mut all = Vec::new();
                while let Some(interval) = intervals.next_element::<Interval>()? {
                    if interval.timestamp.is_some() {
                        all.push(interval);
                    }
                    if all.len() > MAX_INTERVALS {
                        return Err(serde::de::Error::custom("too many intervals"));
                    }
                }
                Ok(Intervals(all))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Interval {
    timestamp: Option<Timestamp>,
    #[serde(alias = "cpu-load-all", default)]
    cpu_load: Vec<CpuLoad>,
    memory: Option<Memory>,
    swap_pages: Option<SwapPages>,
    #[serde(default)]
    disk: Vec<Disk>,
    network: Option<Network>,
    psi: Option<Psi>,
}

#[derive(Deserialize)]
struct Timestamp {
    date: String,
    time: String,
    /// Seconds.
    interval: i64,
}

/// In percent.
#[derive(Deserialize)]
struct CpuLoad {
    #[serde(default)]
    cpu: serde_json::Value,
    idle: f64,
    #[serde(default)]
    iowait: f64,
}

/// In KiB, but for the percentages.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Memory {
    memfree: Option<f64>,
    avail: Option<f64>,
    memused: Option<f64>,
    memused_percent: Option<f64>,
    buffers: Option<f64>,
    cached: Option<f64>,
    slab: Option<f64>,
    commit: Option<f64>,
    swpused: Option<f64>,
}

/// Pages a second.
#[derive(Deserialize)]
struct SwapPages {
    pswpin: f64,
}

/// A second: requests, KiB, or sectors of 512 bytes of older versions.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Disk {
    disk_device: String,
    tps: Option<f64>,
    #[serde(rename = "rkB")]
    read_kib: Option<f64>,
    #[serde(rename = "wkB")]
    written_kib: Option<f64>,
    #[serde(rename = "rd_sec")]
    read_sectors: Option<f64>,
    #[serde(rename = "wr_sec")]
    written_sectors: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Network {
    #[serde(default)]
    net_dev: Vec<Card>,
}

/// KiB a second.
#[derive(Deserialize)]
struct Card {
    iface: String,
    #[serde(rename = "rxkB")]
    received_kib: Option<f64>,
    #[serde(rename = "txkB")]
    sent_kib: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Psi {
    psi_cpu: Option<Pressure>,
    psi_io: Option<Pressure>,
    psi_mem: Option<Pressure>,
}

/// In percent.
#[derive(Deserialize)]
struct Pressure {
    some_avg300: Option<f64>,
}

/// Adds what an interval says.
fn add(recording: &mut Recording, n_cpus: u32, interval: Interval) -> Result<()> {
    let Some(stamp) = &interval.timestamp else {
        return Ok(());
    };
    let seconds = calendar::seconds(&stamp.date, &stamp.time).ok_or_else(|| {
        let what = format!("{:?} {:?} is no time", stamp.date, stamp.time);
        Error::corrupt("timestamp", what)
    })?;
    let time = Time {
        end_ms: seconds.saturating_mul(1000),
        len_ms: stamp.interval.saturating_mul(1000),
    };
    let mut add = |metric, value: Option<f64>| match value {
        Some(value) => recording.add(metric, time, value),
        None => Ok(()),
    };
    let all = interval.cpu_load.iter().find(|load| load.cpu == "all");
    if let Some(load) = all.filter(|_| n_cpus > 0) {
        let busy = (100.0 - load.idle - load.iowait).max(0.0) / 100.0;
        add(Metric::BusyCores, Some(busy * f64::from(n_cpus)))?;
    }
    let kib = |value: Option<f64>| value.map(|kib| kib * 1024.0);
    if let Some(memory) = &interval.memory {
        add(Metric::MemoryUsed, kib(memory.used_kib()))?;
        add(Metric::MemoryCommitted, kib(memory.commit))?;
        add(Metric::SwapUsed, kib(memory.swpused))?;
    }
    add(
        Metric::SwapIn,
        interval.swap_pages.map(|pages| pages.pswpin),
    )?;
    if let Some(psi) = interval.psi {
        let share = |pressure: Option<Pressure>| pressure?.some_avg300;
        add(Metric::CpuPressure, share(psi.psi_cpu))?;
        add(Metric::MemoryPressure, share(psi.psi_mem))?;
        add(Metric::IoPressure, share(psi.psi_io))?;
    }
    for disk in interval.disk {
        add(Metric::DiskBytes(disk.disk_device.clone()), disk.bytes())?;
        add(Metric::DiskRequests(disk.disk_device), disk.tps)?;
    }
    for card in interval
        .network
        .into_iter()
        .flat_map(|network| network.net_dev)
    {
        let bytes = kib(card.received_kib.zip(card.sent_kib).map(|(a, b)| a + b));
        add(Metric::NicBytes(card.iface), bytes)?;
    }
    if let Some(total) = interval.memory.and_then(|memory| memory.total_kib()) {
        // No machine has more than 2^63 bytes; the conversion stops at the type's end.
        recording.memory_bytes = Some((total * 1024.0) as u64);
    }
    Ok(())
}

impl Memory {
    /// Returns how much the system has, which sadf does not say. `memused` was all but what is free
    /// up to sysstat 11.7, and is all but what is free or cache since: the percentage tells which.
    fn total_kib(&self) -> Option<f64> {
        let (free, used, percent) = (self.memfree?, self.memused?, self.memused_percent?);
        let cache = [self.buffers, self.cached, self.slab];
        let cache: f64 = cache.iter().flatten().sum();
        let candidates = [free + used + cache, free + used];
        let fits = |total: &f64| (used * 100.0 / total - percent).abs() <= 0.006;
        let exact = candidates.into_iter().find(fits);
        // Without the slab (sar -r without ALL) only the percentage is left, as exact as that is.
        exact.or_else(|| (percent > 0.0).then(|| used * 100.0 / percent))
    }

    fn used_kib(&self) -> Option<f64> {
        let cache = || Some(self.memfree? + self.buffers? + self.cached?);
        let available = self.avail.or_else(cache)?;
        Some((self.total_kib()? - available).max(0.0))
    }
}

impl Disk {
    fn bytes(&self) -> Option<f64> {
        let kib = self.read_kib.zip(self.written_kib);
        let sectors = self.read_sectors.zip(self.written_sectors);
        let of_kib = kib.map(|(read, written)| (read + written) * 1024.0);
        of_kib.or_else(|| sectors.map(|(read, written)| (read + written) * 512.0))
    }
}
