//! The keyboard controller, of which there is only its pulse on the reset line: Linux's first way to
//! restart, and that of kernels without ACPI.

use crate::bus::BusDevice;
use crate::signal::{Request, Signals};

/// Ports 0x60 to 0x64.
pub struct I8042(pub Signals);

/// The port of commands and of the state, after the first port.
const COMMAND: u64 = 4;
/// The command that pulses the reset line.
const RESET: u8 = 0xfe;

impl BusDevice for I8042 {
    fn read(&self, _: u64, data: &mut [u8]) {
        // Nothing to read, and room for a command.
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset == COMMAND && data.first() == Some(&RESET) {
            self.0.ask(Request::Reset);
        }
    }
}
