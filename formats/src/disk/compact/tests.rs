use std::sync::Arc;

use hako_block::testkit::{FaultFolder, FaultStorage, Rng, SparseBytes, cut_images};
use hako_block::{Cancel, ErrorKind, NoProgress};

use super::*;

const STEP: u64 = 4096;
const N_ENTRIES: u64 = 64;

/// A format for this test: 64 entries of four bytes, the place of each unit, 0 for none.
struct Toy {
    storage: Arc<FaultStorage>,
    /// Places that one unit takes.
    n_places: u64,
    /// Bytes of its last place that a unit leaves free.
    padding: u64,
    fixed: Option<Range<u64>>,
}

impl Toy {
    fn open(folder: &FaultFolder, n_places: u64) -> Self {
        Self {
            storage: folder.file("toy").unwrap(),
            n_places,
            padding: 0,
            fixed: None,
        }
    }

    fn entry(&self, key: u64) -> u64 {
        let mut bytes = [0; 4];
        self.storage.read_at(key * 4, &mut bytes).unwrap();
        u64::from(u32::from_le_bytes(bytes))
    }

    fn set_entry(&self, key: u64, place: u64) -> Result<()> {
        let bytes = (place as u32).to_le_bytes();
        self.storage.write_at(key * 4, &bytes)
    }

    fn content(&self) -> Vec<u8> {
        let len = (self.n_places * STEP) as usize;
        let mut content = vec![0; N_ENTRIES as usize * len];
        for (key, unit) in content.chunks_mut(len).enumerate() {
            match self.entry(key as u64) {
                0 => {}
                place => self.storage.read_at(place * STEP, unit).unwrap(),
            }
        }
        content
    }
}

impl Compactable for Toy {
    fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    fn grid(&self) -> Grid {
        Grid {
            base: STEP,
            step: STEP,
        }
    }

    fn fixed(&self, each: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        self.fixed.iter().cloned().for_each(each);
        Ok(())
    }

    fn units(&self, from: u64, units: &mut Vec<Unit>) -> Result<Option<u64>> {
        let end = (from + 10).min(N_ENTRIES);
        for key in from..end {
            let offset = self.entry(key) * STEP;
            let len = self.n_places * STEP - self.padding;
            let content = (key != 7).then_some(offset..offset + len);
            if offset > 0 {
                units.push(Unit {
                    key,
                    offset,
                    len,
                    content,
                });
            }
        }
        Ok((end < N_ENTRIES).then_some(end))
    }

    fn give_up(&mut self, units: &[Unit]) -> Result<()> {
        for unit in units {
            self.set_entry(unit.key, 0)?;
        }
        self.storage.sync()
    }

    fn relocate(&mut self, moves: &[Move]) -> Result<()> {
        for Move { unit, to } in moves {
            self.set_entry(unit.key, to / STEP)?;
        }
        self.storage.sync()
    }
}

/// A file of places in random order: data, zeros, holes of the host file, leaks.
fn scattered(seed: u64, n_places: u64) -> FaultFolder {
    let mut rng = Rng::new(seed);
    let folder = FaultFolder::with_files([("toy".to_owned(), SparseBytes::default())]);
    let toy = Toy::open(&folder, n_places);
    let file_places = 1 + 90 * n_places;
    toy.storage.set_len(file_places * STEP).unwrap();
    let mut places: Vec<u64> = (0..90).map(|slot| 1 + slot * n_places).collect();
    for key in 0..40 {
        let place = places.swap_remove(rng.below(0..places.len() as u64) as usize);
        toy.set_entry(rng.below(0..N_ENTRIES), place).unwrap();
        let bytes = rng.bytes((n_places * STEP) as usize);
        let at = place * STEP;
        match key % 4 {
            0 => toy.storage.write_at(at, &vec![0; bytes.len()]).unwrap(),
            1 => toy.storage.write_at(at + 100, &bytes[..50]).unwrap(),
            _ => toy.storage.write_at(at, &bytes).unwrap(),
        }
    }
    folder.copy()
}

fn run(toy: &mut Toy) -> Result<()> {
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    compact(toy, task)
}

fn n_stored(toy: &Toy) -> u64 {
    (0..N_ENTRIES).filter(|key| toy.entry(*key) > 0).count() as u64
}

#[test]
fn content_stays_and_the_file_has_no_gaps() {
    for seed in 0..20 {
        for n_places in [1, 3] {
            let folder = scattered(seed, n_places);
            let mut toy = Toy::open(&folder, n_places);
            let before = toy.content();
            run(&mut toy).unwrap();
            assert!(before == toy.content(), "seed {seed}");
            let len = toy.storage.len_bytes().unwrap();
            assert_eq!(len, STEP * (1 + n_places * n_stored(&toy)));
            for key in 0..N_ENTRIES {
                let unit = toy.entry(key) * STEP;
                let mut bytes = vec![0; (n_places * STEP) as usize];
                toy.storage.read_at(unit, &mut bytes).unwrap();
                assert!(unit == 0 || key == 7 || !is_zero(&bytes), "entry {key}");
            }
            folder.take_log();
            run(&mut toy).unwrap();
            assert!(folder.take_log().is_empty(), "nothing is left to do");
        }
    }
}

#[test]
fn units_that_lie_well_are_not_moved() {
    let folder = scattered(3, 1);
    let mut toy = Toy::open(&folder, 1);
    let places = |toy: &Toy| -> Vec<u64> { (0..N_ENTRIES).map(|key| toy.entry(key)).collect() };
    let before = places(&toy);
    run(&mut toy).unwrap();
    let n_left = n_stored(&toy);
    let mut n_stayed = 0;
    for (old, new) in before.into_iter().zip(places(&toy)) {
        if new > 0 && old <= n_left {
            assert_eq!(old, new);
            n_stayed += 1;
        }
    }
    assert!(n_stayed > 3);
}

#[test]
fn what_is_fixed_stays_and_free_space_before_it_is_punched() {
    let folder = scattered(5, 1);
    let mut toy = Toy::open(&folder, 1);
    let end = toy.storage.len_bytes().unwrap() + 10;
    toy.storage.write_at(end - 10, b"fixed here").unwrap();
    toy.fixed = Some(end - 10..end);
    let before = toy.content();
    run(&mut toy).unwrap();
    assert!(before == toy.content());
    assert_eq!(toy.storage.len_bytes().unwrap(), end);
    let mut tail = [0; 10];
    toy.storage.read_at(end - 10, &mut tail).unwrap();
    assert_eq!(&tail, b"fixed here");
    let stored = STEP * (2 + n_stored(&toy));
    assert!(toy.storage.allocated_bytes().unwrap() <= stored);
}

#[test]
fn a_unit_beside_something_fixed_stays_and_one_over_it_is_refused() {
    let folder = scattered(5, 1);
    let mut toy = Toy::open(&folder, 1);
    toy.padding = 512;
    // Every unit's padding is zeros, but for what is fixed in that of the last one.
    for key in 0..N_ENTRIES {
        let place = toy.entry(key);
        toy.storage
            .write_at((place + 1) * STEP - 512, &[0; 512])
            .unwrap();
    }
    let last = (0..N_ENTRIES).max_by_key(|key| toy.entry(*key)).unwrap();
    let place = toy.entry(last);
    let at = (place + 1) * STEP - 512;
    toy.storage.write_at(at, b"fixed here").unwrap();
    toy.storage.write_at(place * STEP, b"no zeros").unwrap();
    toy.fixed = Some(at..at + 512 + 10 * STEP);
    toy.storage.set_len(at + 512 + 10 * STEP).unwrap();
    let before = toy.content();
    run(&mut toy).unwrap();
    assert!(before == toy.content());
    assert_eq!(toy.entry(last), place);
    let mut fixed = [0; 10];
    toy.storage.read_at(at, &mut fixed).unwrap();
    assert_eq!(&fixed, b"fixed here");
    assert_eq!(toy.storage.len_bytes().unwrap(), at + 512 + 10 * STEP);

    toy.fixed = Some(at - 1..at + 512);
    folder.take_log();
    assert_eq!(run(&mut toy).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(folder.take_log().is_empty(), "nothing was written");
}

#[test]
fn units_out_of_line_or_used_twice_are_never_overwritten() {
    let folder = scattered(6, 1);
    let mut toy = Toy::open(&folder, 1);
    let stored: Vec<u64> = (0..N_ENTRIES).filter(|key| toy.entry(*key) > 0).collect();
    toy.set_entry(stored[0], toy.entry(stored[1])).unwrap();
    folder.take_log();
    let error = run(&mut toy).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(folder.take_log().is_empty(), "nothing was written");
    toy.set_entry(stored[0], 1000).unwrap();
    assert_eq!(run(&mut toy).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn cut_at_any_write_leaves_the_same_content() {
    for seed in 0..4 {
        let folder = scattered(seed, 1);
        let (before, numbers) = (folder.files(), folder.numbers());
        let mut toy = Toy::open(&folder, 1);
        let content = toy.content();
        run(&mut toy).unwrap();
        let log = folder.take_log();
        cut_images(&before, &numbers, &log, 4, &mut Rng::new(seed), |cut| {
            let mut toy = Toy::open(&cut.folder, 1);
            let what = format!("after {} operations, lost: {}", cut.n_ops, cut.lost);
            assert!(toy.content() == content, "{what}");
            if cut.n_ops % 16 == 0 {
                run(&mut toy).unwrap();
                assert!(toy.content() == content, "{what}, compacted again");
            }
        });
    }
}

#[test]
fn cancelled_work_leaves_a_whole_image() {
    let folder = scattered(8, 1);
    let mut toy = Toy::open(&folder, 1);
    let before = toy.content();
    let cancel = Cancel::default();
    cancel.cancel();
    let task = Task {
        progress: &NoProgress,
        cancel: &cancel,
    };
    let error = compact(&mut toy, task).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(before == toy.content());
}
