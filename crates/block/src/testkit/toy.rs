//! A format of forty lines with a switch for each way to get it wrong: the suite must pass the
//! sound one and catch every flaw.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    CheckReport, Effort, FaultFolder, Rng, Subject, Traits, conformance, conformance_of_existing,
};
use crate::image::check_range;
use crate::{
    Access, BlockImage, Error, Extent, ExtentKind, ImageInfo, Outputs, ParentLink, Resolver,
    Result, Sink, Storage,
};

const UNIT: u64 = 16384;
const TABLE: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    TableBeforeData,
    FlushDoesNotSync,
    AllocationUnlocked,
    ZeroIsHole,
    ErrorsSwallowed,
    ExtentTooLong,
    DiscardShowsOldUnit,
    WritesReadOnly,
}

struct Toy(Flaw);

/// Sector 0: virtual size, whether there is a parent. From 4096: a u32 per unit (0 hole, 1 zero,
/// else the unit's number in the file). Units follow the table; none is ever used again.
struct ToyImage {
    flaw: Flaw,
    storage: Arc<dyn Storage>,
    info: ImageInfo,
    table: Mutex<Vec<u32>>,
}

impl ToyImage {
    fn open(flaw: Flaw, storage: Arc<dyn Storage>, writable: bool) -> Result<Self> {
        let mut head = [0; 16];
        storage.read_at(0, &mut head)?;
        let virtual_size = u64::from_le_bytes(head[..8].try_into().unwrap());
        let n_units = virtual_size.div_ceil(UNIT) as usize;
        let mut table = vec![0; n_units * 4];
        storage.read_at(TABLE, &mut table)?;
        let entry = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let info = ImageInfo {
            format: "toy",
            virtual_size,
            unit_bytes: UNIT,
            writable,
            parent: (head[8] == 1).then(|| ParentLink {
                name: "parent.toy".to_owned(),
                format: None,
                ..ParentLink::default()
            }),
            ..ImageInfo::default()
        };
        Ok(Self {
            flaw,
            storage,
            info,
            table: Mutex::new(table.chunks(4).map(entry).collect()),
        })
    }

    fn unit_parts(&self, range: Range<u64>) -> Result<Vec<(usize, u64, Range<usize>)>> {
        let len = range.end.saturating_sub(range.start);
        check_range(self.info.virtual_size, range.start, len)?;
        let mut parts = Vec::new();
        let mut offset = range.start;
        while offset < range.end {
            let end = ((offset / UNIT + 1) * UNIT).min(range.end);
            let place = (offset - range.start) as usize..(end - range.start) as usize;
            parts.push(((offset / UNIT) as usize, offset % UNIT, place));
            offset = end;
        }
        Ok(parts)
    }

    fn write_part(&self, unit: usize, inside: u64, bytes: &[u8]) -> Result<()> {
        let mut table = self.table.lock().unwrap();
        let mut entry = table[unit];
        if entry < 2 {
            if self.flaw == Flaw::AllocationUnlocked {
                drop(table);
                // So long that other threads come in between, even on one idle processor.
                std::thread::sleep(Duration::from_micros(200));
                table = self.table.lock().unwrap();
            }
            entry = self.storage.len_bytes()?.div_ceil(UNIT) as u32;
            self.storage
                .write_at(u64::from(entry) * UNIT, &[0; UNIT as usize])?;
            table[unit] = entry;
        }
        self.storage
            .write_at(u64::from(entry) * UNIT + inside, bytes)
    }
}

impl BlockImage for ToyImage {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        for (unit, inside, place) in self.unit_parts(offset..end)? {
            let entry = self.table.lock().unwrap()[unit];
            if entry < 2 {
                buf[place].fill(0);
            } else {
                let at = u64::from(entry) * UNIT + inside;
                self.storage.read_at(at, &mut buf[place])?;
            }
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        check_range(self.info.virtual_size, offset, 1)?;
        let table = self.table.lock().unwrap();
        let entry = table[(offset / UNIT) as usize];
        let run = table[(offset / UNIT) as usize..]
            .iter()
            .take_while(|next| entry < 2 && **next == entry)
            .count()
            .max(1) as u64;
        let kind = match entry {
            0 => ExtentKind::Hole,
            1 => ExtentKind::Zero,
            _ => ExtentKind::Data,
        };
        let extent = Extent::new(offset, (offset / UNIT + run) * UNIT - offset, kind);
        Ok(match self.flaw {
            Flaw::ExtentTooLong => extent,
            _ => extent.clipped(self.info.virtual_size),
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if !self.info.writable && self.flaw != Flaw::WritesReadOnly {
            return Err(Error::read_only());
        }
        let end = offset.saturating_add(buf.len() as u64);
        for (unit, inside, place) in self.unit_parts(offset..end)? {
            let result = self.write_part(unit, inside, &buf[place]);
            if self.flaw != Flaw::ErrorsSwallowed {
                result?;
            }
        }
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        if !self.info.writable {
            return Err(Error::read_only());
        }
        for (unit, inside, place) in self.unit_parts(range)? {
            if place.len() as u64 == UNIT {
                let zero = u32::from(self.flaw != Flaw::ZeroIsHole);
                self.table.lock().unwrap()[unit] = zero;
            } else {
                self.write_part(unit, inside, &vec![0; place.len()])?;
            }
        }
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        if self.flaw != Flaw::DiscardShowsOldUnit {
            return self.write_zeroes(range);
        }
        for (unit, _, place) in self.unit_parts(range)? {
            let mut table = self.table.lock().unwrap();
            if place.len() as u64 == UNIT && unit > 0 {
                table[unit] = table[unit - 1];
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        if !self.info.writable {
            return Ok(());
        }
        let table = self.table.lock().unwrap();
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        if self.flaw != Flaw::TableBeforeData {
            self.storage.sync()?;
        }
        self.storage.write_at(TABLE, &bytes)?;
        if self.flaw != Flaw::FlushDoesNotSync {
            self.storage.sync()?;
        }
        Ok(())
    }
}

/// Writes through a writable image: a toy's sink needs no more.
struct ToySink(ToyImage);

impl Sink for ToySink {
    fn unit_bytes(&self) -> u64 {
        UNIT
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.0.write_zeroes(range)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.flush()
    }
}

impl Subject for Toy {
    fn name(&self) -> String {
        format!("toy with flaw {:?}", self.0)
    }

    fn traits(&self) -> Traits {
        Traits {
            writable: true,
            overlay: true,
            may_refuse_after_cut: false,
        }
    }

    fn extension(&self) -> &str {
        "toy"
    }

    fn create(
        &self,
        folder: &FaultFolder,
        name: &str,
        size: u64,
        parent: Option<ParentLink>,
    ) -> Result<Box<dyn Sink>> {
        let storage = folder.create(name)?;
        // Units 0 and 1 at least: those numbers mean something else in the table.
        let head_bytes = (TABLE + size.div_ceil(UNIT) * 4).max(2 * UNIT);
        let mut head = vec![0; head_bytes as usize];
        head[..8].copy_from_slice(&size.to_le_bytes());
        head[8] = u8::from(parent.is_some());
        storage.write_at(0, &head)?;
        Ok(Box::new(ToySink(ToyImage::open(self.0, storage, true)?)))
    }

    fn open(
        &self,
        folder: &FaultFolder,
        name: &str,
        access: Access,
    ) -> Result<Arc<dyn BlockImage>> {
        let storage = folder.open(name, access)?.storage;
        let image = ToyImage::open(self.0, storage, access == Access::ReadWrite)?;
        Ok(Arc::new(image))
    }

    fn check(&self, _folder: &FaultFolder, _name: &str) -> Result<Option<CheckReport>> {
        Ok(None)
    }
}

#[test]
fn a_sound_format_passes() {
    conformance(&Toy(Flaw::None), Effort::QUICK);
}

#[test]
fn every_flaw_is_caught() {
    let flaws = [
        Flaw::TableBeforeData,
        Flaw::FlushDoesNotSync,
        Flaw::AllocationUnlocked,
        Flaw::ZeroIsHole,
        Flaw::ErrorsSwallowed,
        Flaw::ExtentTooLong,
        Flaw::DiscardShowsOldUnit,
        Flaw::WritesReadOnly,
    ];
    for flaw in flaws {
        let run = catch_unwind(AssertUnwindSafe(|| {
            conformance(&Toy(flaw), Effort::QUICK);
        }));
        assert!(run.is_err(), "{flaw:?} passed the suite");
    }
}

#[test]
fn an_image_that_exists_passes_only_in_sound_hands() {
    let folder = FaultFolder::default();
    let content = Rng::new(1).bytes(10 * UNIT as usize + 512);
    let size = content.len() as u64;
    let mut sink = Toy(Flaw::None)
        .create(&folder, "disk.toy", size, None)
        .unwrap();
    sink.data(0, &content).unwrap();
    sink.finish().unwrap();
    let passes = |flaw| {
        catch_unwind(AssertUnwindSafe(|| {
            conformance_of_existing(&Toy(flaw), &folder, &content, Effort::QUICK);
        }))
        .is_ok()
    };
    assert!(passes(Flaw::None));
    for flaw in [Flaw::FlushDoesNotSync, Flaw::ErrorsSwallowed] {
        assert!(!passes(flaw), "{flaw:?} passed");
    }
}
