//! ACPI's fixed registers (ACPI 6.5, section 4.8): the power button, switching off, the timer, reset.
//!
//! | offset | bytes | register |
//! |---|---|---|
//! | 0 | 2 | PM1 status: what happened, cleared by writing ones |
//! | 2 | 2 | PM1 enable: of what the guest wants to hear |
//! | 4 | 2 | PM1 control: sleep type and enable |
//! | 8 | 4 | timer, 3,579,545 Hz |
//! | 12 | 1 | reset |

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::bus::BusDevice;
use crate::signal::{Request, Signals};

/// Where PM1 control is.
pub const PM1_CONTROL: u16 = 4;
/// Where the timer is.
pub const TIMER: u16 = 8;
/// Where the reset register is.
pub const RESET: u16 = 12;
/// What is written there.
pub const RESET_VALUE: u8 = 6;
/// How many ports there are.
pub const LEN: u16 = 16;
/// The sleep type that the DSDT gives for S5.
pub const S5: u8 = 5;

/// Status and enable: the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// Control: SCI is on (ACPI mode); sleep now.
const SCI_ENABLE: u16 = 1;
const SLEEP: u16 = 1 << 13;
const TIMER_HZ: u128 = 3_579_545;

/// A line that can be raised and lowered.
pub type Line = Box<dyn Fn(bool) + Send + Sync>;

/// The registers.
pub struct AcpiPm {
    state: Mutex<Pm1>,
    start: Instant,
    line: Line,
    signals: Signals,
}

#[derive(Default)]
struct Pm1 {
    status: u16,
    enable: u16,
}

impl AcpiPm {
    /// Returns the registers of a machine whose ACPI interrupt is `line`.
    pub fn new(line: Line, signals: Signals) -> Self {
        Self {
            state: Mutex::default(),
            start: Instant::now(),
            line,
            signals,
        }
    }

    /// Presses the power button: a guest that listens shuts down.
    pub fn press_power_button(&self) {
        self.change(|pm1| pm1.status |= POWER_BUTTON);
    }

    /// Changes the registers, and the line with them.
    fn change(&self, change: impl FnOnce(&mut Pm1)) {
        let mut pm1 = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pm1);
        (self.line)(pm1.status & pm1.enable & POWER_BUTTON != 0);
    }

    fn register(&self, offset: u64) -> u8 {
        let pm1 = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ticks = self.start.elapsed().as_nanos() * TIMER_HZ / 1_000_000_000;
        match offset {
            0..2 => pm1.status.to_le_bytes()[offset as usize],
            2..4 => pm1.enable.to_le_bytes()[offset as usize - 2],
            4 => SCI_ENABLE as u8,
            8..12 => (ticks as u32).to_le_bytes()[offset as usize - 8],
            _ => 0,
        }
    }

    fn control(&self, value: u16) {
        if value & SLEEP != 0 && (value >> 10) & 7 == u16::from(S5) {
            self.signals.ask(Request::Off);
        }
    }
}

impl BusDevice for AcpiPm {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // The timer's four bytes are of one moment.
        if offset == u64::from(TIMER) && data.len() == 4 {
            let ticks = self.start.elapsed().as_nanos() * TIMER_HZ / 1_000_000_000;
            data.copy_from_slice(&(ticks as u32).to_le_bytes());
            return;
        }
        for (offset, byte) in (offset..).zip(data) {
            *byte = self.register(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let word = u16::from_le_bytes([
            data.first().copied().unwrap_or(0),
            data.get(1).copied().unwrap_or(0),
        ]);
        match (offset, data.len()) {
            (0, 2..) => self.change(|pm1| pm1.status &= !word),
            (2, 2..) => self.change(|pm1| pm1.enable = word),
            (4, 2..) => self.control(word),
            (12, _) if data.first() == Some(&RESET_VALUE) => self.signals.ask(Request::Reset),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    fn registers() -> (AcpiPm, Arc<AtomicBool>, Signals) {
        let line = Arc::new(AtomicBool::new(false));
        let raised = Arc::clone(&line);
        let signals = Signals::default();
        let set = move |up| raised.store(up, Ordering::SeqCst);
        (AcpiPm::new(Box::new(set), signals.clone()), line, signals)
    }

    #[test]
    fn power_button_raises_the_line_until_the_guest_has_seen_it() {
        let (pm, line, _) = registers();
        pm.press_power_button();
        assert!(!line.load(Ordering::SeqCst), "nobody listens yet");
        pm.write(2, &POWER_BUTTON.to_le_bytes());
        assert!(line.load(Ordering::SeqCst));
        let mut status = [0; 2];
        pm.read(0, &mut status);
        assert_eq!(u16::from_le_bytes(status), POWER_BUTTON);
        pm.write(0, &POWER_BUTTON.to_le_bytes());
        assert!(!line.load(Ordering::SeqCst));
    }

    #[test]
    fn s5_switches_off_and_other_sleeps_do_not() {
        let (pm, _, signals) = registers();
        pm.write(4, &(SLEEP | 3 << 10).to_le_bytes());
        assert_eq!(signals.wait(Duration::ZERO), None);
        pm.write(4, &(SLEEP | u16::from(S5) << 10).to_le_bytes());
        assert_eq!(signals.wait(Duration::ZERO), Some(Request::Off));
        pm.write(12, &[RESET_VALUE]);
        assert_eq!(signals.wait(Duration::ZERO), Some(Request::Reset));
    }
}
