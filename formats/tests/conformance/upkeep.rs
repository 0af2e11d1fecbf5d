//! What the registry says of repairing, resizing and compacting holds: every variant whose row
//! says so, and every one that takes a parent, is changed, cut off at every write and let fail at
//! every write. What is left is the image as it was, or as it shall be, or refused.

use std::collections::BTreeMap;
use std::ops::Range;

use hako_block::testkit::{Fault, FaultFolder, Op, Rng, Subject, cut_images};
use hako_block::{Access, BlockImage, Cancel, ErrorKind, ExtentKind, NoProgress, Result, is_zero};
use hako_formats::{Repair, Task};

use super::variant::Variant;
use super::{run_each, variants};

/// States tried at each cut, beyond "all kept" and "all lost".
const N_CUT_VARIANTS: usize = 3;
/// Most places at which a write is let fail, evenly spread.
const N_FAULTS: u64 = 40;
const SECTOR: usize = 512;

/// The sectors of a disk that are not all zeros.
type Content = BTreeMap<u64, Vec<u8>>;

/// A change to an image.
struct Verb<'a> {
    what: &'a str,
    run: &'a dyn Fn(&FaultFolder) -> Result<()>,
    /// Virtual sizes before and after.
    sizes: [u64; 2],
}

/// An image of a variant, in memory.
struct Upkeep<'a> {
    variant: &'a Variant,
    folder: FaultFolder,
    name: String,
    content: Content,
}

/// `HAKO_SUBJECT=part-of-a-name` runs only the variants so named.
#[test]
fn what_the_registry_says_of_upkeep_holds() {
    let wanted = std::env::var("HAKO_SUBJECT").unwrap_or_default();
    let variants: Vec<_> = variants()
        .into_iter()
        .filter(|variant| variant.label.contains(&wanted) && variant.subformat.write)
        .collect();
    run_each(
        &variants,
        |variant| variant.label.clone(),
        |variant| {
            let Some((mut image, unit)) = Upkeep::build(variant) else {
                return;
            };
            let row = variant.subformat;
            if row.repair {
                image.repair();
            }
            if row.resize {
                image.resize(2 * unit);
            }
            if row.compact {
                image.compact(unit);
            }
            if row.resize {
                image.shrink(unit);
            }
        },
    );
}

/// `HAKO_SUBJECT=part-of-a-name` runs only the variants so named.
#[test]
fn every_overlay_gets_another_parent_or_none() {
    let wanted = std::env::var("HAKO_SUBJECT").unwrap_or_default();
    let variants: Vec<_> = variants()
        .into_iter()
        .filter(|variant| variant.label.contains(&wanted))
        .filter(|variant| variant.subformat.write && variant.traits().overlay)
        .collect();
    run_each(&variants, |variant| variant.label.clone(), relink);
}

fn relink(variant: &Variant) {
    let Some((mut image, unit)) = Upkeep::build(variant) else {
        return;
    };
    let [old, new] = ["old", "new"].map(|name| format!("{name}.{}", variant.extension()));
    let bytes = image.folder.files()[&image.name].clone();
    image.folder.insert(&old, bytes.clone());
    image.folder.insert(&new, bytes);
    let link = |folder: &FaultFolder, name: &str| {
        let parent = variant.open(folder, name, Access::ReadOnly);
        variant.parent_link(name, &*parent.expect("opens the parent"))
    };
    let first = link(&image.folder, &old);
    let sink = variant.create(&image.folder, &image.name, 4 * unit, Some(first));
    sink.expect("creates an overlay")
        .finish()
        .expect("finishes");
    let overlay = image.open(Access::ReadWrite);
    let unit = overlay.info().unit_bytes.max(SECTOR as u64);
    let whole = Rng::new(3).bytes(unit as usize);
    overlay.write_at(unit, &whole).expect("writes a unit");
    overlay.flush().expect("flushes");
    image.content = content_of(&*overlay).expect("reads");
    drop(overlay);
    let probe = Variant::open_args(&image.folder.copy(), &image.name, Access::ReadWrite);
    let refusal = variant.format.relink(probe.expect("opens"), None).err();
    if refusal.is_some_and(|error| error.kind() == ErrorKind::Unsupported) {
        #[allow(clippy::print_stdout)]
        {
            println!("SKIPPED: {} cannot be relinked", variant.label);
        }
        return;
    }
    let size = image.size();
    for parent in [Some(&new), None, Some(&old)] {
        image.change(&Verb {
            what: "relink",
            run: &|folder| {
                let parent = parent.map(|name| link(folder, name));
                let args = Variant::open_args(folder, &image.name, Access::ReadWrite)?;
                variant.format.relink(args, parent.as_ref())
            },
            sizes: [size; 2],
        });
        let found = image.open(Access::ReadOnly).info().parent.clone();
        assert_eq!(found.is_some(), parent.is_some(), "{found:?}");
    }
}

impl<'a> Upkeep<'a> {
    /// Makes a disk of a few units with data in some of them. `None`: not as an image alone.
    fn build(variant: &'a Variant) -> Option<(Self, u64)> {
        let name = format!("disk.{}", variant.extension());
        let unit = {
            let folder = FaultFolder::default();
            let sink = variant.create(&folder, &name, 8 << 20, None).ok()?;
            let unit = sink.unit_bytes();
            sink.finish().expect("finishes an empty disk");
            let image = variant.open(&folder, &name, Access::ReadOnly);
            unit.max(image.expect("opens an empty disk").info().unit_bytes)
                .max(1 << 20)
        };
        let folder = FaultFolder::default();
        let sink = variant.create(&folder, &name, 4 * unit, None);
        sink.expect("creates").finish().expect("finishes");
        let mut upkeep = Self {
            variant,
            folder,
            name,
            content: Content::new(),
        };
        let mut rng = Rng::new(7);
        let image = upkeep.open(Access::ReadWrite);
        for index in [3, 0, 2] {
            let bytes = rng.bytes(20_000);
            image
                .write_at(index * unit + 3000, &bytes)
                .expect("writes data");
        }
        image.flush().expect("flushes");
        upkeep.content = content_of(&*image).expect("reads");
        Some((upkeep, unit))
    }

    fn open(&self, access: Access) -> std::sync::Arc<dyn BlockImage> {
        let image = self.variant.open(&self.folder, &self.name, access);
        image.expect("opens")
    }

    fn size(&self) -> u64 {
        self.open(Access::ReadOnly).info().virtual_size
    }

    fn repair(&self) {
        let size = self.size();
        for what in [Repair::Leaks, Repair::All] {
            self.change(&Verb {
                what: "repair of a sound image",
                run: &|folder| {
                    let args = Variant::open_args(folder, &self.name, Access::ReadWrite)?;
                    self.variant.format.repair(args, what).map(|_| ())
                },
                sizes: [size; 2],
            });
        }
    }

    fn resize(&self, by: u64) {
        let size = self.size();
        self.resize_to("grow", [size, size + by]);
    }

    /// Cuts the last units off, in which there is nothing.
    fn shrink(&mut self, by: u64) {
        let size = self.size();
        let new_size = size - by;
        self.empty(new_size..size);
        self.resize_to("shrink", [size, new_size]);
    }

    fn resize_to(&self, what: &str, sizes: [u64; 2]) {
        self.change(&Verb {
            what,
            run: &|folder| {
                let args = Variant::open_args(folder, &self.name, Access::ReadWrite)?;
                self.variant.format.resize(args, sizes[1])
            },
            sizes,
        });
    }

    /// Compacts after one unit was given up and another zeroed.
    fn compact(&mut self, unit: u64) {
        let size = self.size();
        self.empty(0..unit);
        let image = self.open(Access::ReadWrite);
        image.discard(3 * unit..4 * unit).expect("discards");
        image.flush().expect("flushes");
        self.content = content_of(&*image).expect("reads");
        drop(image);
        self.change(&Verb {
            what: "compact",
            run: &|folder| {
                let args = Variant::open_args(folder, &self.name, Access::ReadWrite)?;
                let task = Task {
                    progress: &NoProgress,
                    cancel: &Cancel::default(),
                };
                self.variant.format.compact(args, task)
            },
            sizes: [size; 2],
        });
    }

    /// Writes zeros where there is something.
    fn empty(&mut self, range: Range<u64>) {
        let image = self.open(Access::ReadWrite);
        for offset in self.content.range(range.clone()).map(|(offset, _)| *offset) {
            image.write_at(offset, &[0; SECTOR]).expect("writes zeros");
        }
        image.flush().expect("flushes");
        self.content.retain(|offset, _| !range.contains(offset));
    }

    /// Lets the verb fail, be cut off, and succeed.
    fn change(&self, verb: &Verb<'_>) {
        let original = self.folder.copy();
        original.set_fault(None);
        (verb.run)(&original).unwrap_or_else(|error| panic!("{}: {error}", verb.what));
        let (n_changes, _) = original.counts();
        let log = original.take_log();
        let step = n_changes.div_ceil(N_FAULTS).max(1);
        for nth in (0..n_changes).step_by(step as usize) {
            let folder = self.folder.copy();
            folder.set_fault(Some(Fault::WriteEio(nth)));
            let result = (verb.run)(&folder);
            folder.set_fault(None);
            self.assert_old_or_new(&folder, verb, &format!("write {nth} failed"));
            // A hole that cannot be punched costs space, nothing else: a driver may go on.
            let op = log
                .get(nth as usize)
                .filter(|_| log.len() as u64 == n_changes);
            let matters = op.is_some_and(|op| !matches!(op, Op::Punch { .. }));
            assert!(
                result.is_err() || !matters,
                "{}: failed write {nth} unnoticed",
                verb.what
            );
        }
        let (before, numbers) = (self.folder.files(), self.folder.numbers());
        self.folder.take_log();
        (verb.run)(&self.folder).expect("succeeds again");
        let log = self.folder.take_log();
        let mut rng = Rng::new(3);
        cut_images(&before, &numbers, &log, N_CUT_VARIANTS, &mut rng, |cut| {
            let what = format!("cut after {} operations, lost: {}", cut.n_ops, cut.lost);
            self.assert_old_or_new(&cut.folder, verb, &what);
        });
        assert_eq!(self.size(), verb.sizes[1], "{}", verb.what);
        self.assert_old_or_new(&self.folder, verb, "done");
    }

    fn assert_old_or_new(&self, folder: &FaultFolder, verb: &Verb<'_>, when: &str) {
        let what = verb.what;
        let image = match self.variant.open(folder, &self.name, Access::ReadOnly) {
            Ok(image) => image,
            Err(error) if when == "done" => panic!("{what}: {error}"),
            Err(_) => return,
        };
        let size = image.info().virtual_size;
        assert!(verb.sizes.contains(&size), "{what}, {when}: {size} bytes");
        match content_of(&*image) {
            Ok(content) => assert!(content == self.content, "{what}, {when}: content"),
            Err(error) => panic!("{what}, {when}: {error}"),
        }
        drop(image);
        let report = self.variant.check(folder, &self.name).expect("checks");
        let corruptions = report.map(|report| report.corruptions).unwrap_or_default();
        assert!(corruptions.is_empty(), "{what}, {when}: {corruptions:?}");
    }
}

/// Reads what is stored, whatever the size of the disk.
fn content_of(image: &dyn BlockImage) -> Result<Content> {
    let size = image.info().virtual_size;
    let mut content = Content::new();
    let mut offset = 0;
    while offset < size {
        let extent = image
            .next_extent(offset)?
            .clipped(size)
            .clipped(offset + (1 << 20));
        if extent.kind == ExtentKind::Data {
            let mut bytes = vec![0; extent.len as usize];
            image.read_at(offset, &mut bytes)?;
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                if !is_zero(sector) {
                    content.insert(offset + (index * SECTOR) as u64, sector.to_vec());
                }
            }
        }
        offset = extent.end();
    }
    Ok(content)
}
