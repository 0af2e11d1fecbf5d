//! The kept seeds of the fuzz targets, and the inputs that once crashed, on stable; and each of
//! them damaged in a few hundred ways.

use std::path::Path;

use hako_block::testkit::Rng;
use hako_tests::fuzz::TARGETS;
use hako_tests::{all, names, root};

/// Says which input was running when a body panicked.
struct Input<'a>(&'a str, &'a str, u64);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("… in target {}, seed {}, damage {}", self.0, self.1, self.2);
        }
    }
}

fn seeds(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let names = names(folder).into_iter();
    names
        .map(|name| {
            let bytes = std::fs::read(folder.join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

/// Damages an input: bits flipped, bytes set to edge values, ends cut off, pieces moved.
fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.below(1..5) {
        if bytes.is_empty() {
            return;
        }
        // Mostly near the beginning, where the header is.
        let most = if rng.one_in(3) {
            bytes.len()
        } else {
            bytes.len().min(1024)
        };
        let at = rng.below(0..most as u64) as usize;
        match rng.below(0..6) {
            0 => bytes[at] ^= 1 << rng.below(0..8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(0..5) as usize],
            2 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            3 => bytes.truncate(at),
            4 => {
                let from = rng.below(0..bytes.len() as u64) as usize;
                let len = 8.min(bytes.len() - from).min(bytes.len() - at);
                bytes.copy_within(from..from + len, at);
            }
            _ => bytes[at] = rng.next_u64() as u8,
        }
    }
}

/// `HAKO_SUBJECT=part-of-a-name` runs only the targets so named.
#[test]
fn seeds_and_past_crashes_run_clean() {
    let wanted = std::env::var("HAKO_SUBJECT").unwrap_or_default();
    let n_damaged = if all() { 3000 } else { 60 };
    for target in TARGETS
        .iter()
        .filter(|target| target.name.contains(&wanted))
    {
        let folder = root().join("tests/fuzz/seeds").join(target.name);
        let seeds = seeds(&folder);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (name, bytes) in &seeds {
            let mut rng = Rng::new(name.len() as u64);
            for round in 0..=n_damaged {
                let _input = Input(target.name, name, round);
                let mut bytes = bytes.clone();
                if round > 0 {
                    damage(&mut bytes, &mut rng);
                }
                (target.body)(&bytes);
            }
        }
    }
}
