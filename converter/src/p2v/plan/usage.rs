//! What recordings come to: the numbers that sizes are made from, window, samples, and confidence.

use super::history::{Distribution, History, Metric, Recording};
use super::model::{Confidence, Measured};
use super::size::{CpuUse, MIB, MemoryUse};

const HOUR_MS: i64 = 3_600_000;
/// Percentiles, in hundredths of a percent.
const P95: u32 = 9500;
const P99: u32 = 9900;
const P995: u32 = 9950;

/// The numbers that sizes are made from; none where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Of processors.
    pub cpu: Option<CpuUse>,
    /// Of memory; what services take for themselves is not in it.
    pub memory: Option<MemoryUse>,
}

impl Usage {
    /// Returns the numbers of a history.
    pub fn of(history: &History) -> Self {
        let at = |metric, hundredths| history.distribution(&metric).percentile(hundredths);
        let cpu = || {
            Some(CpuUse {
                p95: at(Metric::BusyCores, P95)?,
                p995: at(Metric::BusyCores, P995)?,
                pressure_p95: at(Metric::CpuPressure, P95),
            })
        };
        let memory = || {
            Some(MemoryUse {
                p99: at(Metric::MemoryUsed, P99)?,
                max: history.distribution(&Metric::MemoryUsed).max()?,
                pressure_p95: at(Metric::MemoryPressure, P95),
                swap_in_p99: at(Metric::SwapIn, P99),
                floor_bytes: 0,
            })
        };
        Self {
            cpu: cpu(),
            memory: memory(),
        }
    }
}

/// Returns what was measured, for people; none if neither processors nor memory were.
pub fn measured(history: &History, usage: Usage, recordings: Vec<String>) -> Option<Measured> {
    let main = match usage.cpu {
        Some(_) => Metric::BusyCores,
        None => Metric::MemoryUsed,
    };
    let spans = history.spans(&main);
    let (first, last) = (spans.first()?, spans.last()?);
    let window_ms = last.end_ms().saturating_sub(first.start_ms).max(1);
    let coverage_percent = covered_percent(&history.distribution(&main), window_ms);
    let (confidence, confidence_why) = confidence(window_ms, coverage_percent);
    let Usage { cpu, memory } = usage;
    let mib = |bytes: f64| rounded(bytes / MIB);
    let io_pressure = history.distribution(&Metric::IoPressure).percentile(P95);
    Some(Measured {
        from: first.start_ms.div_euclid(1000),
        to: last.end_ms().div_euclid(1000),
        samples: spans.len() as u64,
        coverage_percent: rounded(coverage_percent),
        confidence,
        confidence_why,
        recordings,
        busy_cores_p95: cpu.map(|cpu| rounded(cpu.p95)),
        busy_cores_p995: cpu.map(|cpu| rounded(cpu.p995)),
        memory_used_p99_mib: memory.map(|memory| mib(memory.p99)),
        memory_used_max_mib: memory.map(|memory| mib(memory.max)),
        swap_in_p99: memory.and_then(|memory| memory.swap_in_p99).map(rounded),
        cpu_pressure_p95: cpu.and_then(|cpu| cpu.pressure_p95).map(rounded),
        memory_pressure_p95: memory.and_then(|memory| memory.pressure_p95).map(rounded),
        io_pressure_p95: io_pressure.map(rounded),
    })
}

/// Names a recording for people: `sysstat of web01, sa15.json`.
pub fn named(recording: &Recording, file: &str) -> String {
    match recording.host.is_empty() {
        true => format!("{}, {file}", recording.kind),
        false => format!("{} of {}, {file}", recording.kind, recording.host),
    }
}

/// A thousandth is more than any of these programs measures to.
fn rounded(number: f64) -> f64 {
    let rounded = (number * 1000.0).round() / 1000.0;
    // What has no thousandths any more stays as it is.
    if rounded.is_finite() { rounded } else { number }
}

fn covered_percent(spans: &Distribution, window_ms: i64) -> f64 {
    let share = spans.total_ms() as f64 / window_ms as f64;
    (share * 100.0).min(100.0)
}

/// Says how far to trust measurements over a window, and why.
fn confidence(window_ms: i64, coverage_percent: f64) -> (Confidence, String) {
    let hours = window_ms as f64 / HOUR_MS as f64;
    let confidence = match (hours, coverage_percent) {
        (168.0.., 80.0..) => Confidence::High,
        (24.0.., 60.0..) => Confidence::Medium,
        _ => Confidence::Low,
    };
    let lasted = match hours {
        48.0.. => format!("{:.1} days", hours / 24.0),
        1.0.. => format!("{hours:.1} hours"),
        0.05.. => format!("{:.0} minutes", hours * 60.0),
        _ => format!("{:.0} seconds", hours * 3600.0),
    };
    let why = format!(
        "{lasted}, {coverage_percent:.0} % of them measured; high is 7 days and 80 %, medium 1 day and 60 %"
    );
    (confidence, why)
}
