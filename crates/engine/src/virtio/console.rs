//! The console (virtio 1.2, section 5.3), one port: the guest's hvc0. What the guest writes goes to a
//! sink; what is typed comes out of a pipe or socket.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use hako_block::{Error, Result};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::Memory;
use crate::virtio::queue::{Broken, Left, ServedQueue};
use crate::virtio::worker::{Serve, Workers};
use crate::virtio::{Activation, VirtioDevice};

const QUEUE_SIZE: u16 = 64;
/// Bytes that pass at a time.
const CHUNK: usize = 4096;

/// The device.
pub struct Console {
    socket: Arc<Mutex<UnixStream>>,
    workers: Workers,
}

impl Console {
    /// Returns a console that reads from and writes to `socket`. What the other side does not take in
    /// time is lost.
    pub fn new(socket: UnixStream) -> Result<Self> {
        socket
            .set_nonblocking(true)
            .map_err(|error| Error::io("set up a console's socket", error))?;
        Ok(Self {
            socket: Arc::new(Mutex::new(socket)),
            workers: Workers::default(),
        })
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u16 {
        3
    }

    fn class(&self) -> u32 {
        0x07_80_00
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        let mut queues = activation.queues.into_iter();
        let (Some(Some(receive)), Some(Some(transmit))) = (queues.next(), queues.next()) else {
            return Err(Error::invalid("a console without both queues"));
        };
        let socket = self
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_clone()
            .map_err(|error| Error::io("share a console's socket", error))?;
        let work = Port {
            socket,
            memory: activation.memory,
            receive,
            transmit,
        };
        self.workers
            .start("console", Box::new(work), activation.interrupts)
    }

    fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }
}

struct Port {
    socket: UnixStream,
    memory: Memory,
    receive: ServedQueue,
    transmit: ServedQueue,
}

impl Port {
    fn write_all(&mut self) -> std::result::Result<Left, Broken> {
        let Self {
            socket,
            memory,
            transmit,
            ..
        } = self;
        transmit.serve_all(memory, |chain| {
            let mut from = chain.reader(memory)?;
            let mut chunk = [0; CHUNK];
            while from.available_bytes() > 0 {
                let len = from.read(&mut chunk).map_err(|_| Broken)?;
                // Nobody may be listening, or not fast enough.
                let _ = socket.write(chunk.get(..len).unwrap_or_default());
            }
            Ok(0)
        })
    }

    fn read_all(&mut self) -> std::result::Result<Left, Broken> {
        for _ in 0..QUEUE_SIZE {
            let Some(chain) = self.receive.next(&self.memory)? else {
                match self.receive.listen(&self.memory)? {
                    true => continue,
                    false => return Ok(Left::Nothing),
                }
            };
            let head = chain.head_index();
            let mut to = chain.writer(&self.memory)?;
            let mut chunk = vec![0; to.available_bytes().min(CHUNK)];
            let got = self.socket.read(&mut chunk).unwrap_or(0);
            if got == 0 {
                self.receive.put_back();
                return Ok(Left::Nothing);
            }
            let bytes = chunk.get(..got).unwrap_or_default();
            to.write_all(bytes).map_err(|_| Broken)?;
            self.receive.done(&self.memory, head, got as u32)?;
        }
        Ok(Left::More)
    }
}

impl Serve for Port {
    fn serve(&mut self) -> std::result::Result<Left, Broken> {
        Ok(self.write_all()?.or(self.read_all()?))
    }

    fn kicks(&self) -> Vec<&EventFd> {
        vec![&self.receive.kick, &self.transmit.kick]
    }

    fn source(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
}
