//! The disks: each with a count of what is done to it, and a word to the user about what fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hako_block::{BlockImage, Error, ErrorKind, Extent, ImageInfo, Result};
use hako_engine::Disk;
use hako_formats::machine::{Machine, Medium, Node};

use super::super::disks::{OpenedDisk, waits_for_room};
use super::super::{DiskStats, Event, Events, Start};
use super::Report;

/// Troubles that are told of one disk.
const MAX_NOTES: u32 = 20;

/// A disk of the machine.
pub(super) struct Drive {
    /// Where it is by its VMX.
    pub node: Node,
    /// What the guest reads and writes.
    pub image: Arc<Watched>,
    serial: String,
    waits_for_room: bool,
}

/// Opens the disks, ascending by node.
pub(super) fn open(
    machine: &Machine,
    start: &Start<'_>,
    report: &mut Report,
) -> Result<Vec<Drive>> {
    if !start.options.cdroms.is_empty() {
        return Err(Error::unsupported("the engine kvm has no CD drives")
            .hint("leave --cdrom out, or start it with --engine qemu"));
    }
    let waits = waits_for_room(start.vm.vmx.dictionary())
        .map_err(|error| error.in_file(start.vm.path()))?;
    let mut drives = Vec::new();
    for drive in machine.drives.iter().filter(|drive| drive.connected) {
        let node = drive.node;
        if let Medium::Disk(disk) = &drive.medium {
            let (options, folder) = (start.options, start.folder);
            let opened = OpenedDisk::open(start.vm, disk, options, folder, &mut report.notes)?;
            let serial = opened.serial.clone();
            let image = opened.writable()?;
            let events = start.events.clone();
            drives.push(Drive::new(node, image, serial, waits, events));
        }
    }
    Ok(drives)
}

/// Notes what the machine has beside disks and is not here: what is in its CD drives.
pub(super) fn note_losses(machine: &Machine, report: &mut Report) {
    for drive in machine.drives.iter().filter(|drive| drive.connected) {
        if !matches!(drive.medium, Medium::Disk(_) | Medium::CdEmpty) {
            let loss = format!("{} is left out: there are no CD drives", drive.node);
            report.losses.push(loss);
        }
    }
}

/// Returns what guests read and write, in the order of their drives.
pub(super) fn images(drives: &[Drive]) -> Vec<Arc<dyn BlockImage>> {
    let images = drives.iter().map(|drive| Arc::clone(&drive.image) as _);
    images.collect()
}

impl Drive {
    /// Returns the disk at `node`. A guest may know it by `serial`; `waits_for_room` is
    /// [`Disk::pause_when_full`].
    pub fn new(
        node: Node,
        image: Arc<dyn BlockImage>,
        serial: Option<String>,
        waits_for_room: bool,
        events: Events,
    ) -> Self {
        Self {
            node,
            image: Arc::new(Watched::new(
                image,
                node.to_string(),
                waits_for_room,
                events,
            )),
            serial: serial.unwrap_or_default(),
            waits_for_room,
        }
    }

    /// Returns it for a machine.
    pub fn disk(&self) -> Disk {
        Disk {
            image: Arc::clone(&self.image) as _,
            read_only: false,
            serial: self.serial.clone(),
            pause_when_full: self.waits_for_room,
        }
    }

    /// Returns what was done to it.
    pub fn stats(&self) -> DiskStats {
        let image = &self.image;
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DiskStats {
            node: self.node.to_string(),
            reads: number(&image.reads),
            read_bytes: number(&image.read_bytes),
            writes: number(&image.writes),
            written_bytes: number(&image.written_bytes),
            flushes: number(&image.flushes),
        }
    }
}

/// A disk that counts what is done to it, and tells what fails.
pub(super) struct Watched {
    image: Arc<dyn BlockImage>,
    name: String,
    /// That there is no room is told elsewhere.
    waits_for_room: bool,
    events: Events,
    n_notes: AtomicU32,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
}

impl Watched {
    fn new(image: Arc<dyn BlockImage>, name: String, waits_for_room: bool, events: Events) -> Self {
        Self {
            image,
            name,
            waits_for_room,
            events,
            n_notes: AtomicU32::new(0),
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    /// Tells why something failed, unless it is for want of room and the machine is paused for it:
    /// that is told.
    fn told<T>(&self, doing: &str, offset: u64, len: u64, done: Result<T>) -> Result<T> {
        if let Err(error) = &done
            && !(self.waits_for_room && error.kind() == ErrorKind::NoSpace)
            && self.n_notes.fetch_add(1, Ordering::Relaxed) < MAX_NOTES
        {
            let name = &self.name;
            self.events.send(Event::Note(format!(
                "{name}: {doing} of {len} bytes at guest offset {offset:#x}: {error}"
            )));
        }
        done
    }
}

/// Counts something of so many bytes.
fn count(number: &AtomicU64, bytes: &AtomicU64, len: usize) {
    number.fetch_add(1, Ordering::Relaxed);
    bytes.fetch_add(len as u64, Ordering::Relaxed);
}

impl BlockImage for Watched {
    fn info(&self) -> &ImageInfo {
        self.image.info()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len();
        let done = self.image.read_at(offset, buf);
        self.told("a read", offset, len as u64, done)?;
        count(&self.reads, &self.read_bytes, len);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.image.next_extent(offset)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let done = self.image.write_at(offset, buf);
        self.told("a write", offset, buf.len() as u64, done)?;
        count(&self.writes, &self.written_bytes, buf.len());
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        let (offset, len) = (range.start, range.end - range.start);
        let done = self.image.write_zeroes(range);
        self.told("a writing of zeros", offset, len, done)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        let (offset, len) = (range.start, range.end - range.start);
        let done = self.image.discard(range);
        self.told("a discard", offset, len, done)
    }

    fn flush(&self) -> Result<()> {
        let done = self.image.flush();
        self.told("a flush", 0, self.info().virtual_size, done)?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
