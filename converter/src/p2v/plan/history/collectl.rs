//! What `collectl -P` writes (its plot format): a line of column names that begins with `#Date`, and a
//! line of values for each interval. Further lines that begin with `#` say how it was recorded.

use std::io::BufRead;

use hako_block::{Error, Result};

use super::{Metric, Recording, Time, calendar, for_each_line};

/// Reads it.
pub fn read(text: impl BufRead) -> Result<Recording> {
    let mut table = Table {
        recording: Recording::new("collectl"),
        separator: ' ',
        columns: Vec::new(),
        interval_ms: 0,
        zone_seconds: 0,
        last_ms: None,
    };
    for_each_line(text, |line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with("Date") => {
            table.heading(rest);
            Ok(())
        }
        Some(rest) => {
            table.header(rest);
            Ok(())
        }
        None if line.is_empty() => Ok(()),
        None => table.row(line),
    })?;
    Ok(table.recording)
}

/// What a column tells.
#[derive(Debug, Clone, PartialEq)]
enum Column {
    Idle,
    Wait,
    MemoryTotal,
    MemoryFree,
    Buffers,
    Cached,
    Slab,
    UnreclaimableSlab,
    Shared,
    /// KiB, or pages or KiB a second, that is a value as it is.
    Kib(Metric),
    Value(Metric),
    /// A part of a sum, multiplied.
    Part(Metric, f64),
    Other,
}

struct Table {
    recording: Recording,
    separator: char,
    columns: Vec<Column>,
    interval_ms: i64,
    zone_seconds: i64,
    last_ms: Option<i64>,
}

impl Table {
    /// Takes what a line of the header says: `Host: NAME …`, `… Interval: 10 NumCPUs: 2 …`, `… TZ: +0100`.
    fn header(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_default();
            match word {
                "Host:" => self.recording.host = value().to_owned(),
                "NumCPUs:" => self.recording.n_cpus = value().parse().unwrap_or(0),
                "Interval:" => {
                    let seconds: f64 = value()
                        .split(':')
                        .next()
                        .map_or(0.0, |text| text.parse().unwrap_or(0.0));
                    self.interval_ms = (seconds * 1000.0) as i64;
                }
                "TZ:" => self.zone_seconds = zone_seconds(value()).unwrap_or(0),
                _ => (),
            }
        }
    }

    /// Takes the names of the columns.
    fn heading(&mut self, line: &str) {
        let after = line
            .strip_prefix("Date")
            .and_then(|rest| rest.chars().next());
        self.separator = after.unwrap_or(' ');
        let names = line.split(self.separator).skip(2);
        self.columns = names.map(column).collect();
        self.last_ms = None;
    }

    fn row(&mut self, line: &str) -> Result<()> {
        let strange = |what: &str| Error::corrupt("row", what.to_owned());
        if self.columns.is_empty() {
            return Err(strange("values without names of columns"));
        }
        let mut words = line.split(self.separator);
        let date = words.next().unwrap_or_default();
        let seconds = calendar::seconds(date, words.next().unwrap_or_default());
        let seconds = seconds.ok_or_else(|| strange("it does not begin with date and time"))?;
        let end_ms = (seconds - self.zone_seconds) * 1000;
        let since_last = self.last_ms.map(|last| end_ms - last);
        let time = Time {
            end_ms,
            // What is much longer than asked for is a pause.
            len_ms: match since_last {
                Some(since) if self.interval_ms == 0 || since <= 3 * self.interval_ms => since,
                _ => self.interval_ms,
            },
        };
        self.last_ms = Some(end_ms);
        let values: Vec<(Column, f64)> = self
            .columns
            .iter()
            .zip(words)
            .filter_map(|(column, word)| Some((column.clone(), word.parse().ok()?)))
            .collect();
        self.add(time, &values)
    }

    fn add(&mut self, time: Time, values: &[(Column, f64)]) -> Result<()> {
        let of = |wanted: Column| {
            let found = values.iter().find(|(column, _)| *column == wanted);
            found.map(|(_, value)| *value)
        };
        if let Some(idle) = of(Column::Idle) {
            let busy = (100.0 - idle - of(Column::Wait).unwrap_or(0.0)).max(0.0) / 100.0;
            let cores = busy * f64::from(self.recording.n_cpus);
            if self.recording.n_cpus > 0 {
                self.recording.add(Metric::BusyCores, time, cores)?;
            }
        }
        if let (Some(total), Some(free)) = (of(Column::MemoryTotal), of(Column::MemoryFree)) {
            let or_0 = |column| of(column).unwrap_or(0.0);
            let slab = match of(Column::UnreclaimableSlab) {
                Some(kept) => (or_0(Column::Slab) - kept).max(0.0),
                None => 0.0,
            };
            let cache = (or_0(Column::Cached) - or_0(Column::Shared)).max(0.0);
            let used = (total - free - or_0(Column::Buffers) - cache - slab).max(0.0);
            self.recording
                .add(Metric::MemoryUsed, time, used * 1024.0)?;
            // No machine has more than 2^63 bytes; the conversion stops at the type's end.
            self.recording.memory_bytes = Some((total * 1024.0) as u64);
        }
        let mut sums: Vec<(&Metric, f64)> = Vec::new();
        for (column, value) in values {
            match column {
                Column::Kib(metric) => self.recording.add(metric.clone(), time, value * 1024.0)?,
                Column::Value(metric) => self.recording.add(metric.clone(), time, *value)?,
                // A device has two sums, whose parts stand beside each other.
                Column::Part(metric, factor) => {
                    let mut latest = sums.iter_mut().rev().take(2);
                    match latest.find(|(last, _)| *last == metric) {
                        Some((_, sum)) => *sum += value * factor,
                        None => sums.push((metric, value * factor)),
                    }
                }
                _ => (),
            }
        }
        for (metric, sum) in sums {
            self.recording.add(metric.clone(), time, sum)?;
        }
        Ok(())
    }
}

/// Returns what the column of that name tells.
fn column(name: &str) -> Column {
    match name {
        "[CPU]Idle%" => Column::Idle,
        "[CPU]Wait%" => Column::Wait,
        "[MEM]Tot" => Column::MemoryTotal,
        "[MEM]Free" => Column::MemoryFree,
        "[MEM]Buf" => Column::Buffers,
        "[MEM]Cached" => Column::Cached,
        "[MEM]Slab" => Column::Slab,
        "[MEM]SUnreclaim" => Column::UnreclaimableSlab,
        "[MEM]Shared" => Column::Shared,
        "[MEM]Commit" => Column::Kib(Metric::MemoryCommitted),
        "[MEM]SwapUsed" => Column::Kib(Metric::SwapUsed),
        "[MEM]SwapIn" => Column::Value(Metric::SwapIn),
        _ => device_column(name).unwrap_or(Column::Other),
    }
}

/// Returns what a column of a device tells: `[DSK:sda]RKBytes`, `[NET:eth0]RxKB`.
fn device_column(name: &str) -> Option<Column> {
    let (device, what) = name.strip_prefix('[')?.split_once(']')?;
    let (kind, device) = device.split_once(':')?;
    let device = || device.to_owned();
    Some(match (kind, what) {
        ("DSK", "Reads" | "Writes") => Column::Part(Metric::DiskRequests(device()), 1.0),
        ("DSK", "RKBytes" | "WKBytes") => Column::Part(Metric::DiskBytes(device()), 1024.0),
        ("NET", "RxKB" | "TxKB") => Column::Part(Metric::NicBytes(device()), 1024.0),
        _ => return None,
    })
}

/// Reads `+0130`: how far a zone is before UTC.
fn zone_seconds(text: &str) -> Option<i64> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<i64>().ok();
    Some(sign * (number(0..2)? * 3600 + number(2..4)? * 60))
}
