//! The block device (virtio 1.2, section 5.2) over a [`BlockImage`]. A flush returns when everything
//! that was written before is durable.

use std::io::{Read, Write};
use std::sync::Arc;

use hako_block::{BlockImage, ErrorKind, Result};
use virtio_queue::{Reader, Writer};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::Memory;
use crate::signal::{Request, Signals};
use crate::virtio::queue::{Broken, Chain, Left, ServedQueue};
use crate::virtio::worker::{Serve, Workers};
use crate::virtio::{Activation, VirtioDevice, read_bytes};

/// Features.
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLOCK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const MULTI_QUEUE: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

/// Kinds of requests.
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH_REQUEST: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD_REQUEST: u32 = 11;
const WRITE_ZEROES_REQUEST: u32 = 13;

/// How a request ended.
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// The unit of a request's position.
const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 256;
/// Segments of a request: the ring less header and status.
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes that pass through memory of ours at a time.
const CHUNK: usize = 256 << 10;
/// The longest discard or writing of zeros at once: 4 GiB less a sector.
const MOST_SECTORS: u32 = (1 << 23) - 1;
/// Of those in one request.
const MOST_RANGES: u32 = 16;
/// Bytes of the identity.
const ID_BYTES: usize = 20;

/// What the device is made of.
#[derive(Clone)]
pub struct Disk {
    /// Its content.
    pub image: Arc<dyn BlockImage>,
    /// The guest cannot write.
    pub read_only: bool,
    /// What the guest's kernel calls its serial number; 20 bytes of it are shown.
    pub serial: String,
    /// When there is no room for what the guest writes, the machine is paused rather than the guest
    /// told: it goes on when there is.
    pub pause_when_full: bool,
}

/// The device.
pub struct Block {
    disk: Disk,
    queues: u16,
    signals: Signals,
    workers: Workers,
}

impl Block {
    /// Returns a device with `queues` queues.
    pub fn new(disk: Disk, queues: u16, signals: Signals) -> Self {
        Self {
            disk,
            queues: queues.max(1),
            signals,
            workers: Workers::default(),
        }
    }

    /// The configuration (section 5.2.4).
    fn config(&self) -> [u8; 60] {
        let mut config = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| {
            for (place, byte) in config.iter_mut().skip(at).zip(bytes) {
                *place = *byte;
            }
        };
        let info = self.disk.image.info();
        put(0, &(info.virtual_size / SECTOR).to_le_bytes());
        put(12, &SEGMENTS.to_le_bytes());
        put(20, &512u32.to_le_bytes());
        // Physical blocks of 4 KiB: partitions and file systems align themselves to these.
        put(24, &[3]);
        put(34, &self.queues.to_le_bytes());
        put(36, &MOST_SECTORS.to_le_bytes());
        put(40, &MOST_RANGES.to_le_bytes());
        put(44, &8u32.to_le_bytes());
        put(48, &MOST_SECTORS.to_le_bytes());
        put(52, &MOST_RANGES.to_le_bytes());
        put(56, &[1]);
        config
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> u16 {
        2
    }

    fn class(&self) -> u32 {
        0x01_80_00
    }

    fn features(&self) -> u64 {
        let common = SEG_MAX | BLOCK_SIZE | FLUSH | TOPOLOGY | MULTI_QUEUE;
        match self.disk.read_only {
            true => common | READ_ONLY,
            false => common | DISCARD | WRITE_ZEROES,
        }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; usize::from(self.queues)]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        for queue in activation.queues.into_iter().flatten() {
            let work = Requests {
                disk: self.disk.clone(),
                memory: activation.memory.clone(),
                queue,
                is_write_through: activation.features & FLUSH == 0,
                signals: self.signals.clone(),
                chunk: vec![0; CHUNK],
            };
            let interrupts = activation.interrupts.clone();
            self.workers.start("block", Box::new(work), interrupts)?;
        }
        Ok(())
    }

    fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }
}

/// One queue's requests.
struct Requests {
    disk: Disk,
    memory: Memory,
    queue: ServedQueue,
    /// The driver has no flushes (section 5.2.6.2): what it is told is written is durable.
    is_write_through: bool,
    signals: Signals,
    chunk: Vec<u8>,
}

impl Serve for Requests {
    fn serve(&mut self) -> std::result::Result<Left, Broken> {
        for _ in 0..QUEUE_SIZE {
            let Some(chain) = self.queue.next(&self.memory)? else {
                match self.queue.listen(&self.memory)? {
                    true => continue,
                    false => return Ok(Left::Nothing),
                }
            };
            let head = chain.head_index();
            let mut transfer = Transfer {
                disk: &self.disk,
                is_write_through: self.is_write_through,
                chunk: &mut self.chunk,
            };
            match transfer.carry_out(&self.memory, chain)? {
                Done::Written(bytes) => self.queue.done(&self.memory, head, bytes)?,
                Done::NoSpace(error) => {
                    // It comes again when the machine goes on.
                    self.queue.put_back();
                    self.signals.ask(Request::NoSpace { error });
                    return Ok(Left::Nothing);
                }
            }
        }
        Ok(Left::More)
    }

    fn kicks(&self) -> Vec<&EventFd> {
        vec![&self.queue.kick]
    }
}

/// How a request ended.
enum Done {
    /// So many bytes were written for the driver.
    Written(u32),
    /// It has to wait until there is room.
    NoSpace(String),
}

struct Transfer<'a> {
    disk: &'a Disk,
    is_write_through: bool,
    chunk: &'a mut Vec<u8>,
}

impl Transfer<'_> {
    /// Carries a request out: a header that is read, data, and a last byte that is written with how
    /// it ended.
    fn carry_out(
        &mut self,
        memory: &Memory,
        chain: Chain<'_>,
    ) -> std::result::Result<Done, Broken> {
        let mut from = chain.clone().reader(memory)?;
        let mut to = chain.writer(memory)?;
        let kind: u32 = from.read_obj().map_err(|_| Broken)?;
        let _priority: u32 = from.read_obj().map_err(|_| Broken)?;
        let sector: u64 = from.read_obj().map_err(|_| Broken)?;
        let room = to.available_bytes().checked_sub(1).ok_or(Broken)?;
        let mut status = to.split_at(room)?;
        let ended = match kind {
            READ => self.read(sector, &mut to),
            WRITE => self.write(sector, &mut from),
            FLUSH_REQUEST => self.disk.image.flush().map_err(Failure::Image),
            GET_ID => self.identity(&mut to),
            DISCARD_REQUEST => self.ranges(&mut from, false),
            WRITE_ZEROES_REQUEST => self.ranges(&mut from, true),
            _ => Err(Failure::Unsupported),
        };
        let ended = ended.and_then(|()| match kind {
            WRITE | WRITE_ZEROES_REQUEST if self.is_write_through => {
                self.disk.image.flush().map_err(Failure::Image)
            }
            _ => Ok(()),
        });
        let waits = |error: &hako_block::Error| {
            self.disk.pause_when_full && error.kind() == ErrorKind::NoSpace
        };
        let code = match ended {
            Ok(()) => OK,
            Err(Failure::Unsupported) => UNSUPPORTED,
            Err(Failure::Image(error)) if waits(&error) => {
                return Ok(Done::NoSpace(error.to_string()));
            }
            Err(Failure::Refused | Failure::Image(_)) => IO_ERROR,
            Err(Failure::Memory) => return Err(Broken),
        };
        status.write_all(&[code]).map_err(|_| Broken)?;
        let written = u32::try_from(to.bytes_written() + 1).unwrap_or(u32::MAX);
        Ok(Done::Written(written))
    }

    /// Returns the offset in bytes if the range lies on the disk.
    fn place(&self, sector: u64, len: u64) -> std::result::Result<u64, Failure> {
        let size = self.disk.image.info().virtual_size;
        let start = sector.checked_mul(SECTOR).ok_or(Failure::Refused)?;
        match start.checked_add(len) {
            Some(end) if end <= size && len.is_multiple_of(SECTOR) => Ok(start),
            _ => Err(Failure::Refused),
        }
    }

    fn read(&mut self, sector: u64, to: &mut Writer<'_>) -> std::result::Result<(), Failure> {
        let len = to.available_bytes();
        let mut offset = self.place(sector, len as u64)?;
        let mut left = len;
        while left > 0 {
            let part = left.min(self.chunk.len());
            let bytes = self.chunk.get_mut(..part).ok_or(Failure::Refused)?;
            self.disk
                .image
                .read_at(offset, bytes)
                .map_err(Failure::Image)?;
            to.write_all(bytes).map_err(|_| Failure::Memory)?;
            offset += part as u64;
            left -= part;
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &mut Reader<'_>) -> std::result::Result<(), Failure> {
        self.refuse_read_only()?;
        let len = from.available_bytes();
        let mut offset = self.place(sector, len as u64)?;
        let mut left = len;
        while left > 0 {
            let part = left.min(self.chunk.len());
            let bytes = self.chunk.get_mut(..part).ok_or(Failure::Refused)?;
            from.read_exact(bytes).map_err(|_| Failure::Memory)?;
            self.disk
                .image
                .write_at(offset, bytes)
                .map_err(Failure::Image)?;
            offset += part as u64;
            left -= part;
        }
        Ok(())
    }

    fn identity(&self, to: &mut Writer<'_>) -> std::result::Result<(), Failure> {
        let mut id = [0; ID_BYTES];
        for (place, byte) in id.iter_mut().zip(self.disk.serial.bytes()) {
            *place = byte;
        }
        let room = to.available_bytes().min(ID_BYTES);
        to.write_all(id.get(..room).unwrap_or_default())
            .map_err(|_| Failure::Memory)
    }

    /// Discards ranges, or makes them zeros.
    fn ranges(&self, from: &mut Reader<'_>, zeroes: bool) -> std::result::Result<(), Failure> {
        self.refuse_read_only()?;
        const RANGE_BYTES: usize = 16;
        let count = from.available_bytes() / RANGE_BYTES;
        if count == 0
            || count > MOST_RANGES as usize
            || !from.available_bytes().is_multiple_of(RANGE_BYTES)
        {
            return Err(Failure::Unsupported);
        }
        for _ in 0..count {
            let sector: u64 = from.read_obj().map_err(|_| Failure::Memory)?;
            let sectors: u32 = from.read_obj().map_err(|_| Failure::Memory)?;
            let flags: u32 = from.read_obj().map_err(|_| Failure::Memory)?;
            // Bit 0 (unmap) is for the writing of zeros only; the rest is reserved.
            if flags > u32::from(zeroes) || sectors > MOST_SECTORS {
                return Err(Failure::Unsupported);
            }
            let len = u64::from(sectors) * SECTOR;
            let start = self.place(sector, len)?;
            let range = start..start + len;
            match zeroes {
                true => self.disk.image.write_zeroes(range),
                false => self.disk.image.discard(range),
            }
            .map_err(Failure::Image)?;
        }
        Ok(())
    }

    fn refuse_read_only(&self) -> std::result::Result<(), Failure> {
        match self.disk.read_only {
            true => Err(Failure::Refused),
            false => Ok(()),
        }
    }
}

/// Why a request was not carried out.
enum Failure {
    /// The disk could not.
    Image(hako_block::Error),
    /// It asks for what the disk does not have.
    Refused,
    /// There is no such request.
    Unsupported,
    /// The guest's memory is not where it says.
    Memory,
}

#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;
