//! What `atop -P CPU,MEM,SWP,PAG,PSI,DSK,NET` prints, documented in atop(1), PARSEABLE OUTPUT: a line
//! of words for each thing of each interval. After a line `RESET` the values are those since the
//! system's start: they are passed over, up to the next line `SEP`.

use std::io::BufRead;

use hako_block::{Error, Result};

use super::{Metric, Recording, Time, for_each_line};

/// Labels of lines, those that are not read too.
const LABELS: [&str; 22] = [
    "RESET", "SEP", "CPU", "cpu", "CPL", "GPU", "MEM", "SWP", "PAG", "PSI", "LVM", "MDD", "DSK",
    "NFM", "NFC", "NFS", "NET", "IFB", "LLC", "NUM", "NUC", "PRG",
];

/// Returns whether a text begins as atop's does.
pub fn is_it(text: &[u8]) -> bool {
    let word = text.split(u8::is_ascii_whitespace).next();
    word.is_some_and(|word| LABELS.iter().any(|label| label.as_bytes() == word))
}

/// Reads it.
pub fn read(text: impl BufRead) -> Result<Recording> {
    let mut recording = Recording::new("atop");
    let mut is_since_boot = false;
    for_each_line(text, |line| {
        match line {
            "RESET" => is_since_boot = true,
            "SEP" => is_since_boot = false,
            _ if is_since_boot => (),
            _ => add(&mut recording, line)?,
        }
        Ok(())
    })?;
    Ok(recording)
}

/// Adds what a line says.
fn add(recording: &mut Recording, line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let Some(label) = words.next() else {
        return Ok(());
    };
    if !matches!(label, "CPU" | "MEM" | "SWP" | "PAG" | "PSI" | "DSK" | "NET") {
        return Ok(());
    }
    let host = words.next().unwrap_or_default();
    let epoch = words.next();
    let interval = words.nth(2);
    let strange = || Error::corrupt("line", format!("no line {label} of atop"));
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<i64>().ok());
    let seconds = number(interval).ok_or_else(strange)?;
    let time = Time {
        end_ms: number(epoch).ok_or_else(strange)?.saturating_mul(1000),
        len_ms: seconds.saturating_mul(1000),
    };
    if recording.host.is_empty() {
        recording.host = host.to_owned();
    }
    let words: Vec<&str> = words.collect();
    let line = Line {
        words: &words,
        seconds: seconds as f64,
    };
    let values = match label {
        "CPU" => line.cpu(recording),
        "MEM" => line.memory(recording),
        "SWP" => line.swap(),
        "PAG" => line.paging(),
        "PSI" => Some(line.pressure()),
        "DSK" => line.disk(),
        _ => line.nic(),
    };
    for (metric, value) in values.ok_or_else(strange)? {
        recording.add(metric, time, value)?;
    }
    Ok(())
}

/// The words of a line behind those that all lines have.
struct Line<'a> {
    words: &'a [&'a str],
    seconds: f64,
}

type Values = Option<Vec<(Metric, f64)>>;

impl Line<'_> {
    fn number(&self, at: usize) -> Option<f64> {
        self.words.get(at)?.parse().ok()
    }

    /// Ticks: a second, processors, system, user, nice, idle, wait, irq, softirq, steal.
    fn cpu(&self, recording: &mut Recording) -> Values {
        let n_cpus: u32 = self.words.get(1)?.parse().ok()?;
        recording.n_cpus = recording.n_cpus.max(n_cpus);
        let sum = |range: std::ops::Range<usize>| -> Option<f64> {
            range.map(|at| self.number(at)).sum()
        };
        // What an old atop does not count is 0.
        let busy = sum(2..5)? + sum(7..10).unwrap_or(0.0);
        let all = busy + sum(5..7)?;
        let cores = (all > 0.0).then(|| busy / all * f64::from(n_cpus));
        Some(
            cores
                .map(|cores| (Metric::BusyCores, cores))
                .into_iter()
                .collect(),
        )
    }

    /// Bytes of a page, then pages: memory, free, cache, buffers, slab, dirty, reclaimable slab,
    /// balloon, shared.
    fn memory(&self, recording: &mut Recording) -> Values {
        let page = self.number(0)?;
        let (total, free) = (self.number(1)?, self.number(2)?);
        let (cache, buffers) = (self.number(3)?, self.number(4)?);
        let reclaimable = self.number(7).unwrap_or(0.0);
        let shared = self.number(9).unwrap_or(0.0);
        let available = free + buffers + reclaimable + (cache - shared).max(0.0);
        // No machine has more than 2^63 bytes; the conversion stops at the type's end.
        recording.memory_bytes = Some((total * page) as u64);
        Some(vec![(
            Metric::MemoryUsed,
            (total - available).max(0.0) * page,
        )])
    }

    /// Bytes of a page, then pages: swap space, free, cached, committed.
    fn swap(&self) -> Values {
        let page = self.number(0)?;
        let used = (self.number(1)? - self.number(2)?) * page;
        let committed = self.number(4)? * page;
        Some(vec![
            (Metric::SwapUsed, used),
            (Metric::MemoryCommitted, committed),
        ])
    }

    /// Bytes of a page, scans, stalls, nothing, pages swapped in.
    fn paging(&self) -> Values {
        Some(vec![(Metric::SwapIn, self.number(4)? / self.seconds)])
    }

    /// `y`, then averages over 10, 60 and 300 s and a sum, of: processors, memory some, memory full,
    /// I/O some, I/O full.
    fn pressure(&self) -> Vec<(Metric, f64)> {
        if self.words.first() != Some(&"y") {
            return Vec::new();
        }
        let places = [
            (Metric::CpuPressure, 3),
            (Metric::MemoryPressure, 7),
            (Metric::IoPressure, 15),
        ];
        let values = places.into_iter();
        values
            .filter_map(|(metric, at)| Some((metric, self.number(at)?)))
            .collect()
    }

    /// Name, milliseconds busy, reads, sectors read, writes, sectors written.
    fn disk(&self) -> Values {
        let name = || self.words.first().map(|name| (*name).to_owned());
        let requests = (self.number(2)? + self.number(4)?) / self.seconds;
        let bytes = (self.number(3)? + self.number(5)?) * 512.0 / self.seconds;
        Some(vec![
            (Metric::DiskRequests(name()?), requests),
            (Metric::DiskBytes(name()?), bytes),
        ])
    }

    /// Name, packets and bytes received, packets and bytes sent; `upper` is no card.
    fn nic(&self) -> Values {
        match self.words.first() {
            Some(&"upper") => Some(Vec::new()),
            Some(name) => {
                let bytes = (self.number(2)? + self.number(4)?) / self.seconds;
                Some(vec![(Metric::NicBytes((*name).to_owned()), bytes)])
            }
            None => None,
        }
    }
}
