//! Progress for people on a terminal (a bar), in a log (lines) and for programs (JSON).

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hako_block::{NoProgress, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::size;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, nothing otherwise
    Auto,
    /// A line on standard error now and then
    Plain,
    /// One JSON object per line on standard error
    Json,
    /// Nothing
    None,
}

impl ProgressMode {
    /// Returns what shows progress in this mode.
    pub fn start(self, quiet: bool) -> Box<dyn Progress> {
        match self {
            ProgressMode::Auto if !quiet && std::io::stderr().is_terminal() => Box::new(Bar::new()),
            ProgressMode::Auto | ProgressMode::None => Box::new(NoProgress),
            ProgressMode::Plain => Box::new(Lines::new(plain, Duration::from_secs(5))),
            ProgressMode::Json => Box::new(Lines::new(as_json, Duration::from_millis(500))),
        }
    }
}

/// A bar that removes itself at the end.
struct Bar(ProgressBar);

/// The bar where the end is known, and where it is not (the content of a pipe).
const WITH_TOTAL: &str = "{msg:8} [{wide_bar}] {percent:>3} % of {binary_total_bytes}, \
                          {binary_bytes_per_sec}, {eta} left";
const WITHOUT_TOTAL: &str = "{msg:8} {spinner} {binary_bytes}, {binary_bytes_per_sec}";

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self(bar)
    }

    fn set_template(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style.progress_chars("=> "));
        }
    }
}

impl Progress for Bar {
    fn total(&self, bytes: u64) {
        self.set_template(WITH_TOTAL);
        self.0.set_length(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn phase(&self, name: &str) {
        self.set_template(WITHOUT_TOTAL);
        self.0.unset_length();
        self.0.reset();
        self.0.set_message(name.to_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Where a phase is.
struct Phase {
    name: String,
    bytes: u64,
    /// Not known of what comes through a pipe.
    total: Option<u64>,
    began: Instant,
    said: Instant,
}

impl Phase {
    fn named(name: &str) -> Self {
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            bytes: 0,
            total: None,
            began: now,
            said: now,
        }
    }

    fn bytes_per_second(&self) -> u64 {
        (self.bytes as f64 / self.began.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    fn seconds_left(&self) -> Option<u64> {
        let left = self.total?.checked_sub(self.bytes)?;
        match self.bytes_per_second() {
            0 => None,
            rate => Some(left.div_ceil(rate)),
        }
    }
}

/// Lines on standard error: at most one per interval, and one at the end of each phase.
struct Lines {
    line: fn(&Phase) -> String,
    every: Duration,
    phase: Mutex<Option<Phase>>,
}

impl Lines {
    fn new(line: fn(&Phase) -> String, every: Duration) -> Self {
        Self {
            line,
            every,
            phase: Mutex::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Phase>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, phase: &Phase) {
        let _ = writeln!(std::io::stderr().lock(), "{}", (self.line)(phase));
    }
}

impl Progress for Lines {
    fn total(&self, bytes: u64) {
        self.lock()
            .get_or_insert_with(|| Phase::named("work"))
            .total = Some(bytes);
    }

    fn advance(&self, bytes: u64) {
        let mut phase = self.lock();
        let phase = phase.get_or_insert_with(|| Phase::named("work"));
        phase.bytes += bytes;
        if phase.said.elapsed() >= self.every {
            phase.said = Instant::now();
            self.say(phase);
        }
    }

    fn phase(&self, name: &str) {
        if let Some(ended) = self.lock().replace(Phase::named(name)) {
            self.say(&ended);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(ended) = self.lock().take() {
            self.say(&ended);
        }
    }
}

fn plain(phase: &Phase) -> String {
    let mut line = format!("{}: ", phase.name);
    if let Some(total) = phase.total {
        let bytes = u128::from(phase.bytes) * 100;
        let percent = bytes.checked_div(total.into()).unwrap_or(100);
        line += &format!("{percent} % of {}, ", size::human(total));
    }
    line += &size::human(phase.bytes);
    line += &format!(", {}/s", size::human(phase.bytes_per_second()));
    if let Some(seconds) = phase.seconds_left() {
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        line += &format!(", {hours}:{minutes:02}:{:02} left", seconds % 60);
    }
    line
}

fn as_json(phase: &Phase) -> String {
    json!({
        "phase": phase.name,
        "bytes": phase.bytes,
        "total": phase.total,
        "bytes_per_second": phase.bytes_per_second(),
        "seconds_left": phase.seconds_left(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_done() -> Phase {
        Phase {
            bytes: 1 << 20,
            total: Some(2 << 20),
            began: Instant::now().checked_sub(Duration::from_secs(10)).unwrap(),
            ..Phase::named("copy")
        }
    }

    #[test]
    fn plain_line_has_rate_and_time_left() {
        let line = plain(&half_done());
        assert!(
            line.starts_with("copy: 50 % of 2 MiB, 1 MiB, 102"),
            "{line}"
        );
        assert!(
            line.ends_with("0:00:11 left") || line.ends_with("0:00:10 left"),
            "{line}"
        );
    }

    #[test]
    fn line_without_a_total_promises_nothing() {
        let unknown = Phase {
            total: None,
            ..half_done()
        };
        let line = plain(&unknown);
        assert!(
            line.starts_with("copy: 1 MiB, 102") && line.ends_with("KiB/s"),
            "{line}"
        );
        assert!(as_json(&unknown).contains(r#""total":null"#));
    }

    #[test]
    fn json_line_has_exactly_the_documented_keys() {
        let value: serde_json::Value = serde_json::from_str(&as_json(&half_done())).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "phase",
                "bytes",
                "total",
                "bytes_per_second",
                "seconds_left"
            ]
        );
    }
}
