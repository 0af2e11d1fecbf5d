//! COM1: a 16550, as far as kernels drive it. What the guest writes goes to a sink, what is typed
//! waits until there is room in its FIFO.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;

/// Where a console's output goes. Errors are not told to the guest: nobody may be listening.
pub type Output = Box<dyn Write + Send>;

/// What is typed and not yet taken: more is thrown away, as a terminal that is not read does.
const WAITING_BYTES: usize = 1 << 16;

/// The interrupt line, as an event that the kernel waits for.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

struct Port {
    serial: Serial<Line, NoEvents, Output>,
    waiting: VecDeque<u8>,
}

/// The eight ports.
pub struct Com1(Mutex<Port>);

impl Com1 {
    /// Returns a port whose interrupt is `line`.
    pub fn new(line: EventFd, output: Output) -> Self {
        Self(Mutex::new(Port {
            serial: Serial::new(Line(line), output),
            waiting: VecDeque::new(),
        }))
    }

    /// Types. What finds no room in the FIFO waits; returns how many bytes were taken.
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = WAITING_BYTES.saturating_sub(port.waiting.len());
        let taken = bytes.len().min(room);
        port.waiting.extend(bytes.iter().take(taken));
        port.fill();
        taken
    }
}

impl Port {
    fn fill(&mut self) {
        let room = self.serial.fifo_capacity().min(self.waiting.len());
        if room == 0 {
            return;
        }
        let bytes: Vec<u8> = self.waiting.iter().copied().take(room).collect();
        // In loopback nothing is taken: it waits on.
        if let Ok(taken) = self.serial.enqueue_raw_bytes(&bytes) {
            self.waiting.drain(..taken);
        }
    }
}

impl BusDevice for Com1 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        data.fill(port.serial.read(offset as u8));
        if offset == 0 {
            port.fill();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in data {
            // What fails is the output or the interrupt; the port goes on.
            let _ = port.serial.write(offset as u8, byte);
        }
        port.fill();
    }
}
