//! The guest's memory: where it lies, and its mapping into this process.

use hako_block::{Error, Result};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

use crate::layout;

/// The guest's memory.
pub type Memory = GuestMemoryMmap<()>;

/// How the guest's memory is had from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pages {
    /// Pages of 4 KiB; the host may join them (transparent huge pages).
    #[default]
    Normal,
    /// Pages of 2 MiB that the administrator has set aside; all of them are taken at the start.
    Huge,
}

/// The smallest guest: 16 MiB.
pub const LEAST_BYTES: u64 = 16 << 20;

/// The size of the host's large pages.
const LARGE_PAGE: usize = 2 << 20;

/// A run of memory: first address and length in bytes.
pub type Run = (GuestAddress, u64);

/// Returns where `bytes` of memory lie: below the hole of PCI, then above 4 GiB.
pub fn runs(bytes: u64) -> Vec<Run> {
    let below = bytes.min(layout::HOLE);
    let mut runs = vec![(GuestAddress(0), below)];
    if bytes > below {
        runs.push((GuestAddress(layout::ABOVE_HOLE), bytes - below));
    }
    runs
}

/// Maps `bytes` of memory, a multiple of 2 MiB. Errors: [`hako_block::ErrorKind::Invalid`] for a
/// size that no guest can have, [`hako_block::ErrorKind::Io`] if the host has not that much.
pub fn map(bytes: u64, pages: Pages) -> Result<Memory> {
    if bytes < LEAST_BYTES || !bytes.is_multiple_of(2 << 20) {
        return Err(Error::invalid(format!(
            "a guest cannot have {bytes} bytes of memory: at least 16 MiB and a multiple of 2 MiB"
        )));
    }
    let mut regions = Vec::new();
    for (start, len) in runs(bytes) {
        let len = usize::try_from(len)
            .map_err(|_| Error::invalid(format!("{len} bytes of memory cannot be addressed")))?;
        let region = GuestRegionMmap::new(reserve(len, pages)?, start)
            .ok_or_else(|| Error::invalid("memory past the end of addresses"))?;
        regions.push(region);
    }
    Memory::from_regions(regions).map_err(|error| Error::invalid(format!("memory: {error}")))
}

/// Maps memory whose address is a multiple of 2 MiB if that can be had: only such can the host give in
/// pages of that size, which a guest needs a five hundredth of.
fn reserve(len: usize, pages: Pages) -> Result<MmapRegion> {
    let region = map_anywhere(len, pages)?;
    let beyond = region.as_ptr() as usize % LARGE_PAGE;
    let Some(beside) = len.checked_add(beyond).filter(|_| beyond > 0) else {
        return Ok(region);
    };
    drop(region);
    // The next one is put below it.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let _beside: Option<MmapRegion> = MmapRegion::build(None, beside, libc::PROT_NONE, flags).ok();
    map_anywhere(len, pages)
}

fn map_anywhere(len: usize, pages: Pages) -> Result<MmapRegion> {
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    if pages == Pages::Huge {
        // What was set aside is taken now: a guest that touched a page that is not there would be
        // killed.
        flags &= !libc::MAP_NORESERVE;
        flags |= libc::MAP_HUGETLB | libc::MAP_HUGE_2MB | libc::MAP_POPULATE;
    }
    MmapRegion::build(None, len, libc::PROT_READ | libc::PROT_WRITE, flags).map_err(|error| {
        let error = Error::new(
            hako_block::ErrorKind::Io,
            format!("{len} bytes of memory for the guest: {error}"),
        );
        match pages {
            Pages::Normal => error,
            Pages::Huge => error.hint("set pages aside: sysctl vm.nr_hugepages"),
        }
    })
}

/// Returns the address past the last byte below the hole.
pub fn low_end(memory: &Memory) -> u64 {
    memory
        .iter()
        .map(|region| region.start_addr().0 + region.len())
        .filter(|&end| end <= layout::HOLE)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_around_the_hole() {
        assert_eq!(runs(1 << 30), [(GuestAddress(0), 1 << 30)]);
        assert_eq!(
            runs(5 << 30),
            [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 2 << 30)]
        );
    }

    #[test]
    fn huge_pages_that_were_not_set_aside_are_missed_at_the_start() {
        // 4 TiB of them has nobody.
        let error = map(4 << 40, Pages::Huge).unwrap_err();
        assert!(error.to_string().contains("bytes of memory"), "{error}");
        let advice = error.hint_text().unwrap_or_default();
        assert!(advice.contains("vm.nr_hugepages"), "{advice}");
    }

    #[test]
    fn sizes_that_no_guest_has_are_refused() {
        for bytes in [0, 1 << 20, (64 << 20) + 4096] {
            assert!(map(bytes, Pages::Normal).is_err(), "{bytes}");
        }
        let memory = map(4 << 30, Pages::Normal).unwrap();
        assert_eq!(low_end(&memory), 3 << 30);
        assert_eq!(memory.last_addr(), GuestAddress((5 << 30) - 1));
    }

    #[test]
    fn memory_lies_where_the_host_can_give_large_pages() {
        // What other threads map meanwhile may come between.
        let lies_well = |_| {
            let memory = map(64 << 20, Pages::Normal).unwrap();
            let mut starts = memory.iter().map(|region| region.as_ptr() as usize);
            starts.all(|start| start.is_multiple_of(LARGE_PAGE))
        };
        assert!((0..100).any(lies_well));
    }
}
