//! Puts a kernel, its initrd and its command line into the guest's memory, and tells it what the
//! machine has: by Linux's boot protocol (Documentation/arch/x86/boot.rst) or by PVH's
//! (xen/docs/misc/pvh.pandoc).

use std::io::Read;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result, Storage};
use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::image::Image;
use crate::layout;
use crate::memory::{self, Memory};

/// What is booted.
#[derive(Clone)]
pub struct Kernel {
    /// The kernel: an ELF file (vmlinux) or a bzImage. An ELF file starts sooner: a bzImage unpacks
    /// itself in the guest.
    pub image: Arc<dyn Storage>,
    /// Its initrd.
    pub initrd: Option<Arc<dyn Storage>>,
    /// Its command line, without NUL.
    pub command_line: Vec<u8>,
}

/// How the first processor enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode, with the zero page in RSI.
    Linux(u64),
    /// In 32-bit mode without paging, with `hvm_start_info` in EBX.
    Pvh(u64),
}

/// Kinds of memory in the map that a kernel is told, as e820 and PVH number them alike.
const USABLE: u32 = 1;
const RESERVED: u32 = 2;

/// Initrds that Linux is given lie below this, if its header does not say more.
const INITRD_END: u64 = 0x8000_0000;
/// `type_of_loader` of loaders without a number of their own.
const UNKNOWN_LOADER: u8 = 0xff;
/// `hvm_start_info.magic`.
const PVH_MAGIC: u32 = 0x336e_c578;
/// Where the 64-bit entry of a bzImage is, after the start of its protected-mode code.
const BZIMAGE_ENTRY_64: u64 = 0x200;
/// `xloadflags`: the kernel has that entry.
const XLF_KERNEL_64: u16 = 1;

/// Puts `kernel` into `memory` and returns how it is entered. Errors: [`ErrorKind::Corrupt`] for an
/// image that is no kernel, [`ErrorKind::Invalid`] for what does not fit into the memory.
pub fn load(memory: &Memory, kernel: &Kernel) -> Result<Entry> {
    command_line(memory, &kernel.command_line)?;
    let mut magic = [0; 4];
    let mut image = Image::new(&*kernel.image)?;
    let is_elf = image.read_exact(&mut magic).is_ok() && magic == *b"\x7fELF";
    let loaded = match is_elf {
        true => load_elf(memory, kernel, &mut image),
        false => load_bzimage(memory, kernel, &mut image),
    };
    // What the file said is more than that the loader could not read it.
    loaded.map_err(|error| image.failed().unwrap_or(error))
}

fn command_line(memory: &Memory, text: &[u8]) -> Result<()> {
    if text.len() >= layout::COMMAND_LINE_BYTES || text.contains(&0) {
        return Err(Error::invalid(format!(
            "a kernel's command line of {} bytes: fewer than {} and no NUL",
            text.len(),
            layout::COMMAND_LINE_BYTES
        )));
    }
    write(memory, text, layout::COMMAND_LINE)?;
    write(memory, &[0], layout::COMMAND_LINE + text.len() as u64)
}

fn load_elf(memory: &Memory, kernel: &Kernel, image: &mut Image<'_>) -> Result<Entry> {
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = Elf::load(memory, None, image, high).map_err(bad)?;
    let initrd = place_initrd(memory, kernel, loaded.kernel_end, INITRD_END)?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => {
            tell_pvh(memory, initrd)?;
            Ok(Entry::Pvh(entry.0))
        }
        _ => {
            let header = setup_header {
                boot_flag: 0xaa55,
                header: 0x5372_6448,
                kernel_alignment: 0x100_0000,
                ..Default::default()
            };
            tell_linux(memory, header, initrd, kernel)?;
            Ok(Entry::Linux(loaded.kernel_load.0))
        }
    }
}

fn load_bzimage(memory: &Memory, kernel: &Kernel, image: &mut Image<'_>) -> Result<Entry> {
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = BzImage::load(memory, None, image, high).map_err(bad)?;
    let KernelLoaderResult {
        setup_header: Some(header),
        kernel_load,
        ..
    } = loaded
    else {
        return Err(bad("no header"));
    };
    if header.version < 0x20c || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(Error::unsupported("a kernel that has no 64-bit entry"));
    }
    // It unpacks itself to where it prefers to be, and needs room for that.
    let unpacked = header.pref_address.checked_add(u64::from(header.init_size));
    let end = unpacked.unwrap_or(u64::MAX).max(loaded.kernel_end);
    let limit = INITRD_END.min(u64::from(header.initrd_addr_max) + 1);
    let initrd = place_initrd(memory, kernel, end, limit)?;
    tell_linux(memory, header, initrd, kernel)?;
    Ok(Entry::Linux(kernel_load.0 + BZIMAGE_ENTRY_64))
}

/// Puts the initrd as high as it may lie, and returns where. None: address 0, length 0.
fn place_initrd(
    memory: &Memory,
    kernel: &Kernel,
    kernel_end: u64,
    limit: u64,
) -> Result<(u64, u64)> {
    let Some(initrd) = &kernel.initrd else {
        return Ok((0, 0));
    };
    let len = initrd.len_bytes()?;
    let end = memory::low_end(memory).min(limit);
    let start = end.checked_sub(len).map(|start| start & !0xfff);
    match start {
        Some(start) if start >= kernel_end => {
            copy(memory, &**initrd, start)?;
            Ok((start, len))
        }
        _ => Err(Error::invalid(format!(
            "an initrd of {len} bytes and a kernel that ends at {kernel_end:#x} have no room below {end:#x}"
        ))
        .hint("give the machine more memory")),
    }
}

/// Copies all of a file into the guest's memory.
fn copy(memory: &Memory, storage: &dyn Storage, address: u64) -> Result<()> {
    let mut image = Image::new(storage)?;
    let len = usize::try_from(storage.len_bytes()?).unwrap_or(usize::MAX);
    let copied = memory.read_exact_volatile_from(GuestAddress(address), &mut image, len);
    copied.map_err(|error| {
        let what = || Error::invalid(format!("guest memory at {address:#x}: {error}"));
        image.failed().unwrap_or_else(what)
    })
}

/// Returns the map of memory that the kernel is told: address, bytes, kind.
fn memory_map(memory: &Memory) -> Vec<(u64, u64, u32)> {
    let low = memory::low_end(memory);
    let mut map = vec![
        (0, layout::LOW_MEMORY_END, USABLE),
        (
            layout::LOW_MEMORY_END,
            0xa_0000 - layout::LOW_MEMORY_END,
            RESERVED,
        ),
        (layout::RSDP, layout::HIGH_MEMORY - layout::RSDP, RESERVED),
        (layout::HIGH_MEMORY, low - layout::HIGH_MEMORY, USABLE),
        (layout::ECAM, layout::ECAM_BYTES, RESERVED),
    ];
    use vm_memory::GuestMemoryRegion;
    for region in memory.iter() {
        if region.start_addr().0 >= layout::ABOVE_HOLE {
            map.push((region.start_addr().0, region.len(), USABLE));
        }
    }
    map
}

fn tell_linux(
    memory: &Memory,
    header: setup_header,
    initrd: (u64, u64),
    kernel: &Kernel,
) -> Result<()> {
    let mut page = boot_params {
        hdr: header,
        acpi_rsdp_addr: layout::RSDP,
        ..Default::default()
    };
    page.hdr.type_of_loader = UNKNOWN_LOADER;
    page.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    page.hdr.cmdline_size = kernel.command_line.len() as u32;
    // Both lie below 2 GiB.
    page.hdr.ramdisk_image = initrd.0 as u32;
    page.hdr.ramdisk_size = initrd.1 as u32;
    let map = memory_map(memory);
    page.e820_entries = map.len() as u8;
    for (slot, (addr, size, kind)) in page.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry {
            addr,
            size,
            r#type: kind,
        };
    }
    let params = BootParams::new(&page, GuestAddress(layout::ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, memory).map_err(bad)
}

fn tell_pvh(memory: &Memory, initrd: (u64, u64)) -> Result<()> {
    let map: Vec<_> = memory_map(memory)
        .into_iter()
        .map(|(addr, size, kind)| hvm_memmap_table_entry {
            addr,
            size,
            type_: kind,
            reserved: 0,
        })
        .collect();
    let info = hvm_start_info {
        magic: PVH_MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.1 > 0),
        modlist_paddr: layout::PVH_MODULES,
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: layout::RSDP,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let module = hvm_modlist_entry {
        paddr: initrd.0,
        size: initrd.1,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(layout::PVH_INFO));
    params.set_sections(&map, GuestAddress(layout::PVH_MEMORY_MAP));
    params.set_modules(&[module], GuestAddress(layout::PVH_MODULES));
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(bad)
}

/// Writes into the guest's memory.
pub(crate) fn write(memory: &Memory, bytes: &[u8], address: u64) -> Result<()> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|error| Error::invalid(format!("guest memory at {address:#x}: {error}")))
}

fn bad(error: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("no kernel that can be loaded: {error}"),
    )
    .place("kernel")
}
