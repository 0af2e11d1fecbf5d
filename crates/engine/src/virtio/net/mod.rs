//! The network card (virtio 1.2, section 5.1), one pair of queues, over a [`Link`].

use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hako_block::Result;
use vmm_sys_util::eventfd::EventFd;

use crate::link::{LONGEST_FRAME, Link};
use crate::memory::Memory;
use crate::virtio::queue::{Broken, Left, ServedQueue};
use crate::virtio::worker::{Serve, Workers};
use crate::virtio::{Activation, VirtioDevice, read_bytes};

/// Features.
const CHECKSUM: u64 = 1;
const GUEST_CHECKSUM: u64 = 1 << 1;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const STATUS: u64 = 1 << 16;
/// What is left to a link that carries headers.
const OFFLOADS: u64 = CHECKSUM | GUEST_CHECKSUM | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6;
/// The bytes of `virtio_net_hdr` as devices of version 1 have it.
const HEADER: usize = 12;
const QUEUE_SIZE: u16 = 256;
/// The configuration's status: the cable is in.
const LINK_UP: u16 = 1;

/// What a card has done.
#[derive(Default)]
pub struct Counters {
    /// Bytes of frames that the guest got.
    pub received: AtomicU64,
    /// Bytes of frames that it sent.
    pub sent: AtomicU64,
}

/// The device.
pub struct Net {
    mac: [u8; 6],
    /// There until the device is active: one driver has it at a time.
    link: Arc<std::sync::Mutex<Option<Box<dyn Link>>>>,
    is_plugged: bool,
    has_header: bool,
    counters: Arc<Counters>,
    workers: Workers,
}

impl Net {
    /// Returns a card with the address `mac`. Without a link its cable is out.
    pub fn new(mac: [u8; 6], link: Option<Box<dyn Link>>, counters: Arc<Counters>) -> Self {
        Self {
            mac,
            is_plugged: link.is_some(),
            has_header: link.as_ref().is_some_and(|link| link.has_header()),
            link: Arc::new(std::sync::Mutex::new(link)),
            counters,
            workers: Workers::default(),
        }
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> u16 {
        1
    }

    fn class(&self) -> u32 {
        0x02_00_00
    }

    fn features(&self) -> u64 {
        let offloads = if self.has_header { OFFLOADS } else { 0 };
        MAC | STATUS | offloads
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 8];
        let status = if self.is_plugged { LINK_UP } else { 0 };
        for (place, byte) in config.iter_mut().zip(self.mac) {
            *place = byte;
        }
        for (place, byte) in config.iter_mut().skip(6).zip(status.to_le_bytes()) {
            *place = byte;
        }
        read_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        let mut queues = activation.queues.into_iter();
        let (Some(Some(receive)), Some(Some(transmit))) = (queues.next(), queues.next()) else {
            return Err(hako_block::Error::invalid(
                "a network card without both queues",
            ));
        };
        let taken = self
            .link
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if taken.is_none() && self.is_plugged {
            return Err(hako_block::Error::invalid("the card's link is in use"));
        }
        let work = Frames {
            home: Arc::clone(&self.link),
            link: taken,
            memory: activation.memory,
            receive,
            transmit,
            counters: Arc::clone(&self.counters),
            outgoing: vec![0; HEADER + LONGEST_FRAME],
            buffer: vec![0; HEADER + LONGEST_FRAME],
            waiting: 0,
        };
        self.workers
            .start("net", Box::new(work), activation.interrupts)
    }

    fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }
}

/// Moves frames both ways.
struct Frames {
    /// Where the link goes back to when the driver resets the card.
    home: Arc<std::sync::Mutex<Option<Box<dyn Link>>>>,
    /// None once the other side is gone: then frames are lost.
    link: Option<Box<dyn Link>>,
    memory: Memory,
    receive: ServedQueue,
    transmit: ServedQueue,
    counters: Arc<Counters>,
    /// A frame that the guest sends, with its header.
    outgoing: Vec<u8>,
    /// A frame that the guest gets, with its header.
    buffer: Vec<u8>,
    /// Bytes of the frame in `buffer` that waits for room in the guest; 0 if none does.
    waiting: usize,
}

impl Frames {
    fn send_all(&mut self) -> std::result::Result<Left, Broken> {
        let Self {
            memory,
            transmit,
            link,
            counters,
            outgoing,
            ..
        } = self;
        let mut gone = false;
        let left = transmit.serve_all(memory, |chain| {
            let mut from = chain.reader(memory)?;
            let len = from.available_bytes();
            // A frame that no network can carry is lost.
            let Some(bytes) = outgoing.get_mut(..len).filter(|_| len > HEADER) else {
                return Ok(0);
            };
            from.read_exact(bytes).map_err(|_| Broken)?;
            if let Some(link) = link {
                let start = if link.has_header() { 0 } else { HEADER };
                gone |= link.send(bytes.get(start..).unwrap_or_default()).is_err();
                let sent = (len - HEADER) as u64;
                counters.sent.fetch_add(sent, Ordering::Relaxed);
            }
            Ok(0)
        })?;
        if gone {
            self.link = None;
        }
        Ok(left)
    }

    /// A turn is as many frames as the ring holds: then the guest may send, however many come.
    fn receive_all(&mut self) -> std::result::Result<Left, Broken> {
        for _ in 0..QUEUE_SIZE {
            if self.waiting == 0 && !self.take_frame() {
                return Ok(Left::Nothing);
            }
            if !self.give_frame()? {
                return Ok(Left::Nothing);
            }
        }
        Ok(Left::More)
    }

    /// Takes the next frame from the link. Says whether there was one.
    fn take_frame(&mut self) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let start = if link.has_header() { 0 } else { HEADER };
        self.buffer
            .iter_mut()
            .take(HEADER)
            .for_each(|byte| *byte = 0);
        match link.receive(self.buffer.get_mut(start..).unwrap_or_default()) {
            Ok(Some(len)) => {
                self.waiting = start + len;
                true
            }
            Ok(None) => false,
            Err(_) => {
                self.link = None;
                false
            }
        }
    }

    /// Gives the frame that waits to the guest. Says whether it had room; a frame that is longer than
    /// the room it made is lost.
    fn give_frame(&mut self) -> std::result::Result<bool, Broken> {
        let Some(chain) = self.receive.next(&self.memory)? else {
            // Told of more room from now on; what came meanwhile is looked for at once.
            if self.receive.listen(&self.memory)? {
                return Ok(true);
            }
            return Ok(false);
        };
        let len = std::mem::take(&mut self.waiting);
        // Of how many buffers the frame is: the last two bytes of the header.
        for (place, byte) in self.buffer.iter_mut().skip(10).zip([1, 0]) {
            *place = byte;
        }
        let head = chain.head_index();
        let mut to = chain.writer(&self.memory)?;
        let fits = to.available_bytes() >= len && len >= HEADER;
        let written = if fits { len } else { 0 };
        let bytes = self.buffer.get(..written).unwrap_or_default();
        to.write_all(bytes).map_err(|_| Broken)?;
        let content = written.saturating_sub(HEADER) as u64;
        self.counters.received.fetch_add(content, Ordering::Relaxed);
        self.receive.done(&self.memory, head, written as u32)?;
        Ok(true)
    }
}

impl Serve for Frames {
    fn serve(&mut self) -> std::result::Result<Left, Broken> {
        Ok(self.send_all()?.or(self.receive_all()?))
    }

    fn kicks(&self) -> Vec<&EventFd> {
        vec![&self.receive.kick, &self.transmit.kick]
    }

    fn source(&self) -> Option<RawFd> {
        self.link.as_ref().map(|link| link.fd())
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let mut home = self
            .home
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *home = self.link.take();
    }
}

#[cfg(test)]
mod tests;
