//! How many processors and how much memory a machine needs, by what the server used. Pure.
//!
//! After the move processors and memory are to be loaded by 65 % in the busy hours, whatever the server
//! was built with:
//!
//! - processors: `ceil(p95 of busy processors / 0.65)`, and at least `ceil(p99.5 / 0.95)`: 1, 2, then
//!   even numbers;
//! - memory: `p99 of what is used / 0.65`, at least the most that ever was used / 0.90, what databases
//!   and Java machines are told to take (or huge pages, if that is more) and 512 MiB for the rest: a
//!   multiple of 256 MiB;
//! - neither more than the server has; and where something waited for processors or memory, or pages
//!   were swapped in, not less.

/// Load to aim at.
const LOAD: f64 = 0.65;
/// Load of the rare peaks, of processors and of memory.
const PEAK_CPU_LOAD: f64 = 0.95;
const PEAK_MEMORY_LOAD: f64 = 0.90;
/// Percent of the time in which something waited, above which nothing is taken away.
const CPU_PRESSURE: f64 = 10.0;
const MEMORY_PRESSURE: f64 = 5.0;
/// Bytes in a MiB.
pub(super) const MIB: f64 = 1_048_576.0;
/// What memory is a multiple of, in MiB.
const MEMORY_STEP_MIB: u64 = 256;
/// What a system needs besides what its services take for themselves, in MiB.
const SYSTEM_MIB: u64 = 512;

/// What was measured of processors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuUse {
    /// Busy processors, not exceeded in 95 % of the time.
    pub p95: f64,
    /// The same, in 99.5 %.
    pub p995: f64,
    /// Percent of the time in which something waited for one, not exceeded in 95 % of the time.
    pub pressure_p95: Option<f64>,
}

/// What was measured of memory, in bytes, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryUse {
    /// Memory in use, not exceeded in 99 % of the time.
    pub p99: f64,
    /// The most that ever was.
    pub max: f64,
    /// Percent of the time in which something waited for it, not exceeded in 95 % of the time.
    pub pressure_p95: Option<f64>,
    /// Pages swapped in a second, not exceeded in 99 % of the time.
    pub swap_in_p99: Option<f64>,
    /// What services take for themselves: see [`floor_bytes`].
    pub floor_bytes: u64,
}

/// A size and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sized<T> {
    /// The size.
    pub size: T,
    /// Why so.
    pub why: String,
    /// Whether the load to aim at takes more than the server has.
    pub is_short: bool,
}

/// Returns how many processors a machine needs that takes the place of a server with `as_is`.
pub fn cpus(used: CpuUse, as_is: Option<u32>) -> Sized<u32> {
    let by_load = whole(used.p95 / LOAD);
    let by_peak = whole(used.p995 / PEAK_CPU_LOAD);
    let need = match by_load.max(by_peak) {
        0 | 1 => 1,
        need => need.saturating_add(need % 2),
    };
    let mut why = format!(
        "busy processors: {:.2} in 95 % of the time, / {LOAD} = {by_load}; {:.2} in 99.5 %, / \
         {PEAK_CPU_LOAD} = {by_peak}",
        used.p95, used.p995
    );
    let Some(as_is) = as_is.filter(|as_is| *as_is > 0) else {
        return Sized {
            size: need,
            why,
            is_short: false,
        };
    };
    let pressure = used.pressure_p95.filter(|share| *share > CPU_PRESSURE);
    let size = match pressure {
        _ if need > as_is => {
            why.push_str(&format!("; no more than the {as_is} that it has"));
            as_is
        }
        Some(share) if need < as_is => {
            why.push_str(&format!(
                "; but something waited for one {share:.0} % of the time: none taken away"
            ));
            as_is
        }
        _ => need,
    };
    Sized {
        size,
        why,
        is_short: by_load.max(by_peak) > as_is,
    }
}

/// Returns how much memory, in MiB, a machine needs that takes the place of a server with `as_is_mib`.
pub fn memory(used: MemoryUse, as_is_mib: Option<u64>) -> Sized<u64> {
    let by_load = used.p99 / LOAD / MIB;
    let by_peak = used.max / PEAK_MEMORY_LOAD / MIB;
    let floor = mib_up(used.floor_bytes).max(SYSTEM_MIB);
    let need = step_up(wide(by_load.max(by_peak)).max(floor));
    let mut why = format!(
        "in use: {:.0} MiB in 99 % of the time, / {LOAD} = {by_load:.0}; {:.0} at most, / \
         {PEAK_MEMORY_LOAD} = {by_peak:.0}",
        used.p99 / MIB,
        used.max / MIB
    );
    if floor > SYSTEM_MIB {
        why.push_str(&format!(
            "; services take {floor} for themselves and the system"
        ));
    }
    let Some(as_is) = as_is_mib.filter(|as_is| *as_is > 0) else {
        return Sized {
            size: need,
            why,
            is_short: false,
        };
    };
    let pressure = used.pressure_p95.filter(|share| *share > MEMORY_PRESSURE);
    let swap_in = used.swap_in_p99.filter(|pages| *pages > 0.0);
    let size = match (pressure, swap_in) {
        _ if need > as_is => {
            why.push_str(&format!("; no more than the {as_is} that it has"));
            as_is
        }
        (Some(share), _) if need < as_is => {
            why.push_str(&format!(
                "; but something waited for memory {share:.0} % of the time: none taken away"
            ));
            as_is
        }
        (None, Some(pages)) if need < as_is => {
            why.push_str(&format!(
                "; but {pages:.1} pages a second were swapped in: none taken away"
            ));
            as_is
        }
        _ => need,
    };
    Sized {
        size,
        why,
        is_short: need > step_up(as_is),
    }
}

/// Returns the memory that services have for sure: what they are told to take, or the huge pages, which
/// are mostly for one of them, and what the system needs besides.
pub fn floor_bytes(reserved: impl Iterator<Item = u64>, hugepages_bytes: u64) -> u64 {
    let reserved = reserved.fold(0, u64::saturating_add).max(hugepages_bytes);
    match reserved {
        0 => 0,
        reserved => reserved.saturating_add(SYSTEM_MIB << 20),
    }
}

/// Returns bytes in MiB, rounded up to what memory is a multiple of.
pub fn memory_mib(bytes: u64) -> u64 {
    step_up(mib_up(bytes))
}

fn mib_up(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn step_up(mib: u64) -> u64 {
    mib.div_ceil(MEMORY_STEP_MIB)
        .saturating_mul(MEMORY_STEP_MIB)
}

/// Returns the number rounded up; what floating point adds to a whole number is not rounded up.
fn whole(number: f64) -> u32 {
    // Beyond the type's ends the conversion stops there.
    (number - 1e-9).ceil().max(0.0) as u32
}

/// The same in MiB, up to what no machine has.
fn wide(mib: f64) -> u64 {
    const MOST: f64 = (1u64 << 40) as f64;
    (mib - 1e-9).ceil().clamp(0.0, MOST) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use hako_block::testkit::Rng;

    const GIB: f64 = 1024.0 * MIB;

    fn cpu(p95: f64, p995: f64) -> CpuUse {
        CpuUse {
            p95,
            p995,
            pressure_p95: None,
        }
    }

    fn used(p99: f64, max: f64) -> MemoryUse {
        MemoryUse {
            p99,
            max,
            pressure_p95: None,
            swap_in_p99: None,
            floor_bytes: 0,
        }
    }

    #[test]
    fn processors_are_loaded_by_two_thirds() {
        for (p95, p995, as_is, expected) in [
            (0.0, 0.0, 16, 1),
            (0.6, 0.7, 16, 1),
            (0.65, 0.95, 16, 1),
            (0.66, 0.9, 16, 2),
            (1.3, 1.3, 16, 2),
            (2.31, 2.9, 16, 4),
            (2.6, 2.6, 16, 4),
            (2.61, 2.61, 16, 6),
            // The peak asks for more than the load.
            (0.3, 3.0, 16, 4),
            (0.3, 3.81, 16, 6),
            // Never more than there are.
            (9.0, 12.0, 16, 14),
            (12.0, 15.9, 16, 16),
            (2.9, 3.0, 3, 3),
        ] {
            assert_eq!(
                cpus(cpu(p95, p995), Some(as_is)).size,
                expected,
                "{p95} {p995}"
            );
        }
        assert_eq!(cpus(cpu(12.0, 12.0), None).size, 20);
        assert!(cpus(cpu(12.0, 12.0), Some(16)).is_short);
        assert!(!cpus(cpu(2.0, 2.0), Some(16)).is_short);
    }

    #[test]
    fn memory_is_loaded_by_two_thirds() {
        for (p99, max, as_is_gib, expected_mib) in [
            (6.5 * GIB, 6.5 * GIB, 64, 10 * 1024),
            (6.51 * GIB, 6.6 * GIB, 64, 10 * 1024 + 256),
            // The most ever asks for more.
            (6.5 * GIB, 18.0 * GIB, 64, 20 * 1024),
            (0.0, 0.0, 64, 512),
            (60.0 * GIB, 62.0 * GIB, 64, 64 * 1024),
        ] {
            let sized = memory(used(p99, max), Some(as_is_gib * 1024));
            assert_eq!(sized.size, expected_mib, "{p99} {max}");
        }
        assert_eq!(memory(used(65.0 * GIB, 65.0 * GIB), None).size, 100 * 1024);
    }

    #[test]
    fn what_services_take_is_never_taken_away() {
        let floor = |reserved: &[u64], huge| floor_bytes(reserved.iter().copied(), huge);
        assert_eq!(floor(&[], 0), 0);
        assert_eq!(floor(&[8 << 30, 4 << 30], 0), (12 << 30) + (512 << 20));
        // Huge pages are what the database takes.
        assert_eq!(floor(&[8 << 30], 10 << 30), (10 << 30) + (512 << 20));
        assert_eq!(floor(&[u64::MAX, 1], 0), u64::MAX);
        let use_of = MemoryUse {
            floor_bytes: floor(&[12 << 30], 0),
            ..used(2.0 * GIB, 2.0 * GIB)
        };
        assert_eq!(memory(use_of, Some(65536)).size, 12 * 1024 + 512);
    }

    #[test]
    fn where_something_waited_nothing_is_taken_away() {
        let waited = |share| CpuUse {
            pressure_p95: Some(share),
            ..cpu(1.0, 1.0)
        };
        assert_eq!(cpus(waited(10.0), Some(16)).size, 2);
        assert_eq!(cpus(waited(10.1), Some(16)).size, 16);
        let waited = |share, swapped| MemoryUse {
            pressure_p95: Some(share),
            swap_in_p99: Some(swapped),
            ..used(GIB, GIB)
        };
        assert_eq!(memory(waited(5.0, 0.0), Some(8192)).size, 1792);
        assert_eq!(memory(waited(5.1, 0.0), Some(8192)).size, 8192);
        assert_eq!(memory(waited(0.0, 0.1), Some(8192)).size, 8192);
        assert!(
            memory(waited(0.0, 0.1), Some(8192))
                .why
                .contains("swapped in")
        );
    }

    #[test]
    fn more_use_never_makes_a_smaller_machine() {
        let mut rng = Rng::new(4);
        let mut next = |most: f64| rng.below(0..1_000_001) as f64 / 1e6 * most;
        for _ in 0..2000 {
            let (p95, extra, more) = (next(64.0), next(8.0), next(8.0));
            let as_is = Some(64);
            let small = cpus(cpu(p95, p95 + extra), as_is);
            let large = cpus(cpu(p95 + more, p95 + extra + more), as_is);
            assert!(small.size <= large.size && (1..=64).contains(&large.size));
            if large.size < 64 {
                let size = f64::from(large.size);
                assert!((p95 + more) / size <= LOAD + 1e-9);
                assert!((p95 + extra + more) / size <= PEAK_CPU_LOAD + 1e-9);
            }
            let small = memory(used(p95 * GIB, (p95 + extra) * GIB), Some(65536));
            let large = memory(
                used((p95 + more) * GIB, (p95 + extra + more) * GIB),
                Some(65536),
            );
            assert!(small.size <= large.size && large.size.is_multiple_of(256));
        }
    }

    #[test]
    fn numbers_without_sense_make_some_machine() {
        for number in [f64::NAN, f64::INFINITY, -1.0, f64::MAX] {
            assert!(cpus(cpu(number, number), Some(4)).size <= 4);
            assert!(cpus(cpu(number, number), None).size >= 1);
            assert!(memory(used(number, number), Some(4096)).size <= 4096);
            memory(used(number, number), None);
        }
    }
}
