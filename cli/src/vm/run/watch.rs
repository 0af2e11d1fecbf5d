//! Waiting for what becomes of a machine, in steps, so that a signal is noticed.

use std::time::{Duration, Instant};

use hako_block::{Cancel, Result};
use hako_vm::run::{End, Event, Watch};

/// How long a signal may go unnoticed.
pub const STEP: Duration = Duration::from_millis(200);

/// Waits until the machine is off; `None` if it is not by then. What else happens is handed to
/// `told`.
pub fn until_off(
    watch: &mut Watch,
    deadline: Option<Instant>,
    cancel: &Cancel,
    mut told: impl FnMut(&Event),
) -> Result<Option<End>> {
    loop {
        cancel.check()?;
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        match watch.next(left.map_or(STEP, |left| left.min(STEP)))? {
            Some(Event::Off(end)) => return Ok(Some(end)),
            Some(event) => told(&event),
            None => (),
        }
    }
}

/// Reads how many seconds something may take.
pub fn parse_seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| *time <= MAX)
        .ok_or_else(|| "not between 0 and 10 years".to_owned())
}

/// So that no time is beyond what the clock can count: 10 years.
const MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read() {
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_seconds("0"), Ok(Duration::ZERO));
        for text in ["", "-1", "x", "inf", "NaN", "1e300", "1m"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
