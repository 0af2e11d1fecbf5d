//! The clock with its memory (MC146818): what time it is. It keeps the host's, in UTC or moved by a
//! fixed time.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::BusDevice;

/// Ports 0x70 (which register) and 0x71 (its value).
pub struct Cmos {
    /// Seconds that the guest's clock is ahead of UTC.
    offset_seconds: i64,
    state: Mutex<State>,
}

struct State {
    index: u8,
    memory: [u8; 128],
}

/// Registers.
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;
/// Status B: hours from 0 to 23; numbers are binary, not BCD.
const HOURS_24: u8 = 2;
const BINARY: u8 = 4;
/// Status D: the battery is good.
const VALID: u8 = 0x80;
/// Status A: the divider for 32,768 Hz, and the slowest useful rate.
const DIVIDER: u8 = 0x26;

impl Cmos {
    /// Returns a clock that is `offset_seconds` ahead of UTC.
    pub fn new(offset_seconds: i64) -> Self {
        let mut memory = [0; 128];
        memory[usize::from(STATUS_B)] = HOURS_24;
        Self {
            offset_seconds,
            state: Mutex::new(State { index: 0, memory }),
        }
    }

    fn register(&self, state: &State) -> u8 {
        let stored = state.memory[usize::from(state.index)];
        let form = |number: u8| match state.memory[usize::from(STATUS_B)] & BINARY {
            0 => ((number / 10) << 4) | (number % 10),
            _ => number,
        };
        let time = Moment::at(now().saturating_add(self.offset_seconds));
        match state.index {
            0 => form(time.second),
            2 => form(time.minute),
            4 => form(time.hour),
            6 => form(time.weekday),
            7 => form(time.day),
            8 => form(time.month),
            9 => form((time.year % 100) as u8),
            CENTURY => form((time.year / 100 % 100) as u8),
            STATUS_A => DIVIDER,
            STATUS_B => stored | HOURS_24,
            STATUS_C => 0,
            STATUS_D => VALID,
            _ => stored,
        }
    }
}

impl BusDevice for Cmos {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        data.fill(match offset {
            1 => self.register(&state),
            _ => 0xff,
        });
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match offset {
            // The highest bit is for the mask of NMI.
            0 => state.index = value & 0x7f,
            _ => {
                let index = usize::from(state.index);
                state.memory[index] = value;
            }
        }
    }
}

fn now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

/// A time of the calendar.
#[derive(Debug, PartialEq, Eq)]
struct Moment {
    year: i64,
    month: u8,
    day: u8,
    /// 1 is Sunday.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Moment {
    /// Returns the time so many seconds after 1970-01-01, by counting in years that begin in March:
    /// then the leap day is a year's last.
    fn at(seconds: i64) -> Self {
        const DAY: i64 = 86_400;
        let (days, in_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Days since 0000-03-01; 400 years are 146,097 of them.
        let since = days + 719_468;
        let (era, day_of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8,
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            hour: (in_day / 3600) as u8,
            minute: (in_day / 60 % 60) as u8,
            second: (in_day % 60) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_days_of_the_calendar() {
        let moment = |seconds| {
            let m = Moment::at(seconds);
            (
                m.year, m.month, m.day, m.hour, m.minute, m.second, m.weekday,
            )
        };
        assert_eq!(moment(0), (1970, 1, 1, 0, 0, 0, 5));
        assert_eq!(moment(951_782_400), (2000, 2, 29, 0, 0, 0, 3));
        assert_eq!(moment(1_795_305_599), (2026, 11, 21, 23, 59, 59, 7));
        assert_eq!(moment(4_107_542_400), (2100, 3, 1, 0, 0, 0, 2));
    }

    #[test]
    fn registers_are_bcd_until_the_guest_asks_for_binary() {
        let cmos = Cmos::new(0);
        let read = |register: u8| {
            cmos.write(0, &[register]);
            let mut value = [0];
            cmos.read(1, &mut value);
            value[0]
        };
        assert_eq!(read(CENTURY), 0x20);
        assert_eq!(read(STATUS_D), VALID);
        cmos.write(0, &[STATUS_B]);
        cmos.write(1, &[HOURS_24 | BINARY]);
        assert_eq!(read(CENTURY), 20);
        assert!(read(0) < 60);
    }
}
