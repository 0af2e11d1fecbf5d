//! Which image of a mirror is in sync: the kernel's superblock of dm-raid, the log of dm-mirror.
//!
//! | dm-raid (`dm_raid_superblock`) | |
//! |---|---|
//! | 0 | `DmRd`, 8 number of images, 12 which one this is |
//! | 16 | how often it was written, 24 images that failed (bits) |
//! | 32 | sectors that were copied to this one, all ones if all |

use hako_block::Result;

use crate::bytes::{array_at, le};
use crate::volume::{Volume, check_range, read_vec};

/// What an image's superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    events: u64,
    failed: u64,
    recovered_sectors: u64,
}

/// Reads the superblock of an image; none if the kernel has written none yet.
pub(super) fn state(meta: &dyn Volume) -> Result<Option<State>> {
    if check_range(0, 512, meta.len_bytes()).is_err() {
        return Ok(None);
    }
    let bytes = read_vec(meta, 0, 512)?;
    Ok(bytes.starts_with(b"DmRd").then(|| State {
        events: le::u64_at(&bytes, 16),
        failed: le::u64_at(&bytes, 24),
        recovered_sectors: le::u64_at(&bytes, 32),
    }))
}

/// Returns the first image that is in sync: by the newest superblock not failed, as new as that one,
/// and wholly copied. A mirror that was never started has no superblocks: its first image is what the
/// others will be copied from.
pub(super) fn choose<T>(legs: Vec<(usize, Option<State>, T)>) -> Option<T> {
    let states = || legs.iter().filter_map(|(_, state, _)| *state);
    let Some(newest) = states().max_by_key(|state| state.events) else {
        let first = legs.into_iter().find(|(index, ..)| *index == 0);
        return first.map(|(_, _, leg)| leg);
    };
    let failed = states()
        .filter(|state| state.events == newest.events)
        .fold(0, |failed, state| failed | state.failed);
    let in_sync = |index: usize, state: Option<State>| {
        let has_failed = index >= 64 || failed >> index & 1 == 1;
        state.is_some_and(|state| {
            !has_failed && state.events == newest.events && state.recovered_sectors == u64::MAX
        })
    };
    legs.into_iter()
        .find(|(index, state, _)| in_sync(*index, *state))
        .map(|(_, _, leg)| leg)
}

/// Returns whether the log of a mirror says that all of its images are the same. Its header: `MiRr`,
/// version, number of regions; a bit for each that is in sync follows from byte 1024 on.
pub(super) fn log_is_clean(log: &dyn Volume) -> Result<bool> {
    if check_range(0, 512, log.len_bytes()).is_err() {
        return Ok(false);
    }
    let header = read_vec(log, 0, 512)?;
    let n_regions = le::u64_at(&header, 8);
    if array_at::<4>(&header, 0) != *b"rRiM" || n_regions == 0 {
        return Ok(false);
    }
    let mut at = 1024;
    let mut left = n_regions;
    while left > 0 {
        if check_range(at, 512, log.len_bytes()).is_err() {
            return Ok(false);
        }
        let bits = read_vec(log, at, 512)?;
        for byte in &bits {
            let whole = if left >= 8 { 0xff } else { (1_u8 << left) - 1 };
            if byte & whole != whole {
                return Ok(false);
            }
            left = left.saturating_sub(8);
        }
        at += 512;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(events: u64, failed: u64, recovered_sectors: u64) -> Option<State> {
        Some(State {
            events,
            failed,
            recovered_sectors,
        })
    }

    #[test]
    fn the_first_image_in_sync_is_chosen() {
        let all = u64::MAX;
        let choose = |states: &[Option<State>]| {
            let legs = states.iter().enumerate();
            super::choose(legs.map(|(index, state)| (index, *state, index)).collect())
        };
        assert_eq!(choose(&[None, None]), Some(0));
        assert_eq!(choose(&[leg(5, 0, all), leg(5, 0, all)]), Some(0));
        assert_eq!(choose(&[leg(4, 0, all), leg(5, 0, all)]), Some(1));
        assert_eq!(choose(&[leg(5, 1, all), leg(5, 1, all)]), Some(1));
        assert_eq!(choose(&[leg(5, 0, 100), leg(5, 0, all)]), Some(1));
        assert_eq!(choose(&[None, leg(5, 0, all)]), Some(1));
        assert_eq!(choose(&[leg(5, 0, 7), leg(4, 0, all)]), None);
        let second: Vec<(usize, Option<State>, ())> = vec![(1, None, ())];
        assert_eq!(super::choose(second), None);
    }

    #[test]
    fn a_log_with_a_clear_bit_is_not_clean() {
        let mut log = vec![0; 8192];
        assert!(!log_is_clean(&log).unwrap());
        log[..4].copy_from_slice(b"rRiM");
        log[8] = 20;
        log[1024..1027].copy_from_slice(&[0xff, 0xff, 0x0f]);
        assert!(log_is_clean(&log).unwrap());
        log[1025] = 0xfe;
        assert!(!log_is_clean(&log).unwrap());
        log[8..16].fill(0xff);
        log[1024..].fill(0xff);
        assert!(!log_is_clean(&log).unwrap());
    }
}
