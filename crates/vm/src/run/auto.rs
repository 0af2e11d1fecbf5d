//! The engine for who does not choose: our own where it can do all that the machine asks for, else
//! QEMU.

use hako_block::{ErrorKind, Result};

use super::host::kvm_lacks;
use super::native::Native;
use super::{Engine, Machine, Qemu, Start};

/// Chooses among engines.
#[derive(Debug, Clone, Default)]
pub(super) struct Auto {
    native: Native,
    qemu: Qemu,
}

impl Engine for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn start(&self, mut start: Start<'_>) -> Result<Box<dyn Machine>> {
        let why = match kvm_lacks() {
            Some(why) => why,
            None => match self.native.start_whole(&start) {
                Ok(machine) => return Ok(machine),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                // What is wrong with the machine itself QEMU's start tells, too.
                Err(error) => error.to_string(),
            },
        };
        start.notes.push(format!("QEMU runs it, not hako: {why}"));
        self.qemu.start(start)
    }
}
