//! What a server used, as several programs have recorded it: the ring of `hako p2v sample`, sysstat
//! (`sadf -j`), atop (`atop -P`) and collectl (`-P`, its plot format).

mod atop;
mod calendar;
mod collectl;
mod own;
mod spans;
mod sysstat;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use hako_block::{Error, Result};

use crate::p2v::sample;

pub use spans::{Distribution, Span};

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Processors that were busy: neither idle nor waiting for a disk.
    BusyCores,
    /// Bytes of memory that could not have been given to others without swapping.
    MemoryUsed,
    /// Bytes of memory that programs were promised.
    MemoryCommitted,
    /// Bytes of swap space in use.
    SwapUsed,
    /// Pages a second that were swapped in.
    SwapIn,
    /// Percent of the last 300 s in which something waited for a processor.
    CpuPressure,
    /// Percent of the last 300 s in which something waited for memory.
    MemoryPressure,
    /// Percent of the last 300 s in which something waited for a disk.
    IoPressure,
    /// Requests a second of a disk.
    DiskRequests(String),
    /// Bytes a second of a disk, read and written.
    DiskBytes(String),
    /// Bytes a second of a network card, received and sent.
    NicBytes(String),
}

/// Most values of one recording: nine months of 20 metrics a minute.
const MAX_VALUES: usize = 8 << 20;
/// The longest span that a value stands for; what is longer is a hole in the recording.
const MAX_SPAN_MS: i64 = 86_400_000;

/// What one program recorded in one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Which program: `hako`, `sysstat`, `atop`, `collectl`.
    pub kind: &'static str,
    /// The name of the host; empty if the file does not say.
    pub host: String,
    /// Processors online, the most that there were; 0 if the file does not say.
    pub n_cpus: u32,
    /// Memory of the system in bytes, if the file says.
    pub memory_bytes: Option<u64>,
    /// What is odd about it.
    pub remarks: Vec<String>,
    series: BTreeMap<Metric, Vec<Span>>,
    n_values: usize,
}

impl Recording {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            host: String::new(),
            n_cpus: 0,
            memory_bytes: None,
            remarks: Vec::new(),
            series: BTreeMap::new(),
            n_values: 0,
        }
    }

    /// Adds a value. What is no value, or stands for no time or too long a one, is passed over.
    fn add(&mut self, metric: Metric, time: Time, value: f64) -> Result<()> {
        let is_span = (1..=MAX_SPAN_MS).contains(&time.len_ms);
        if !is_span || !value.is_finite() || value < 0.0 {
            return Ok(());
        }
        self.n_values += 1;
        if self.n_values > MAX_VALUES {
            let what = format!("more than {MAX_VALUES} values in one recording");
            return Err(Error::unsupported(what).hint("give fewer days, or longer intervals"));
        }
        let span = Span {
            start_ms: time.end_ms.saturating_sub(time.len_ms),
            len_ms: time.len_ms,
            value,
        };
        self.series.entry(metric).or_default().push(span);
        Ok(())
    }
}

/// When a value was so.
#[derive(Debug, Clone, Copy)]
struct Time {
    end_ms: i64,
    len_ms: i64,
}

/// All that is known of what a server used.
#[derive(Debug, Clone, Default)]
pub struct History {
    series: BTreeMap<Metric, Vec<Span>>,
}

impl History {
    /// Returns what several recordings say together. Time that several tell of counts once.
    pub fn of(recordings: Vec<Recording>) -> Self {
        let mut lists: BTreeMap<Metric, Vec<Vec<Span>>> = BTreeMap::new();
        for recording in recordings {
            for (metric, spans) in recording.series {
                lists.entry(metric).or_default().push(spans);
            }
        }
        let merged = lists.into_iter();
        Self {
            series: merged
                .map(|(metric, lists)| (metric, spans::merge(lists)))
                .collect(),
        }
    }

    /// Returns how the values of a metric are distributed.
    pub fn distribution(&self, metric: &Metric) -> Distribution {
        Distribution::of(self.spans(metric).to_vec())
    }

    /// Returns the values of a metric, in the order of time.
    pub fn spans(&self, metric: &Metric) -> &[Span] {
        self.series.get(metric).map_or(&[], Vec::as_slice)
    }
}

/// Reads a recording, whichever of the known ones it is.
pub fn read(path: &Path) -> Result<Recording> {
    let named = |error: Error| error.in_file(path);
    let file = File::open(path).map_err(|error| named(Error::io("open", error)))?;
    let mut text = BufReader::with_capacity(65536, file);
    let is_own = head(&mut text).map_err(named)?.starts_with(&sample::MAGIC);
    match is_own {
        true => own::read(path).map_err(named),
        false => from_text(text).map_err(named),
    }
}

/// Reads a text that one of the known programs wrote. Errors: it is none, or holds no values.
pub fn from_text(mut text: impl BufRead) -> Result<Recording> {
    let recording = match kind_of(head(&mut text)?)? {
        Kind::Sysstat => sysstat::read(text),
        Kind::Atop => atop::read(text),
        Kind::Collectl => collectl::read(text),
    }?;
    if recording.series.is_empty() {
        let what = format!("no values in what {} recorded", recording.kind);
        return Err(Error::corrupt("recording", what));
    }
    Ok(recording)
}

/// Returns what a text begins with.
fn head(text: &mut impl BufRead) -> Result<&[u8]> {
    text.fill_buf().map_err(|error| Error::io("read", error))
}

/// Which program wrote a text.
enum Kind {
    Sysstat,
    Atop,
    Collectl,
}

/// Says who wrote what begins so. Errors: it is none of the known texts; of the programs' own binary
/// files the hint says how to turn them into text.
fn kind_of(head: &[u8]) -> Result<Kind> {
    let binary = |who: &str, hint: &str| {
        Err(Error::unsupported(format!("{who}, which only that program reads")).hint(hint))
    };
    match head {
        // Sysstat's magic number, in either byte order.
        [0x96, 0xd5, ..] | [0xd5, 0x96, ..] => binary(
            "a binary file of sysstat",
            "on the server: sadf -j FILE -- -u -r ALL -S -W -q ALL -d -n DEV > FILE.json",
        ),
        [0xef, 0xbe, 0xed, 0xfe, ..] => binary(
            "a binary file of atop",
            "on the server: atop -r FILE -P CPU,MEM,SWP,PAG,PSI,DSK,NET > FILE.txt",
        ),
        [0x1f, 0x8b, ..] => binary(
            "a compressed file",
            "unpack it; of collectl: collectl -p FILE -P -f FOLDER -scdmnDN",
        ),
        _ => {
            let text = head.trim_ascii_start();
            if text.starts_with(b"{") {
                Ok(Kind::Sysstat)
            } else if text.starts_with(b"#") {
                Ok(Kind::Collectl)
            } else if atop::is_it(text) {
                Ok(Kind::Atop)
            } else {
                Err(Error::unsupported(
                    "neither samples of hako nor a text of sysstat, atop or collectl",
                )
                .hint("hako p2v sample, sadf -j, atop -P, collectl -P"))
            }
        }
    }
}

/// Calls `each` with every line of a text. What is no UTF-8 is replaced. Errors: a line is longer than
/// any of these programs writes.
fn for_each_line(mut text: impl BufRead, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    /// A line of collectl has a few hundred bytes for each of up to a thousand disks.
    const MAX_LINE_BYTES: u64 = 1 << 20;
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let mut part = (&mut text).take(MAX_LINE_BYTES);
        let len = part
            .read_until(b'\n', &mut line)
            .map_err(|error| Error::io("read", error))?;
        let place = || format!("line {number}");
        if len == 0 {
            break;
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE_BYTES {
            return Err(Error::corrupt(place(), "it does not end"));
        }
        each(String::from_utf8_lossy(&line).trim_end()).map_err(|error| error.place(place()))?;
    }
    Ok(())
}
