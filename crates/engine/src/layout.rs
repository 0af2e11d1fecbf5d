//! Where things are in the guest's physical address space and I/O space. One picture for the
//! loader, ACPI, PCI and the memory slots.
//!
//! | from | to | what |
//! |---|---|---|
//! | 0 | 640 KiB | memory: what the loader leaves for the kernel |
//! | 640 KiB | 1 MiB | the hole of VGA and the BIOS; ACPI tables are put here |
//! | 1 MiB | 3 GiB | memory |
//! | 3 GiB | 3.625 GiB | PCI devices' windows (BARs) |
//! | 3.625 GiB | 1 MiB more | PCI configuration (ECAM) of bus 0 |
//! | 0xfec0_0000 | 4 GiB | I/O APIC, local APIC, KVM's own pages |
//! | 4 GiB | | memory that did not find room below 3 GiB |

/// The GDT that the kernel is entered with.
pub const GDT: u64 = 0x500;
/// What a PVH kernel is told (`hvm_start_info`).
pub const PVH_INFO: u64 = 0x6000;
/// The modules that it is told of.
pub const PVH_MODULES: u64 = 0x6040;
/// The memory map that it is told.
pub const PVH_MEMORY_MAP: u64 = 0x6100;
/// What a Linux kernel is told (`boot_params`, the "zero page").
pub const ZERO_PAGE: u64 = 0x7000;
/// The stack that the kernel is entered with grows down from here.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page tables that map the first 4 GiB to themselves: one page of level 4, one of level 3, four of
/// level 2.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// The most bytes that it may have, the NUL included (`COMMAND_LINE_SIZE` of x86 is 2048; kernels
/// may be built with more).
pub const COMMAND_LINE_BYTES: usize = 0x1_0000;
/// The end of memory below the BIOS's hole: its last KiB is left, where an EBDA would be.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// The first ACPI table; kernels that are told nothing look for it from here on.
pub const RSDP: u64 = 0xe_0000;
/// The rest of the ACPI tables.
pub const ACPI_TABLES: u64 = 0xe_0040;
/// Where they end, and memory goes on.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Where memory below 4 GiB ends at most, and PCI's windows begin.
pub const HOLE: u64 = 0xc000_0000;
/// The bytes of PCI's windows.
pub const PCI_WINDOW_BYTES: u64 = 0x2800_0000;
/// PCI configuration space by address.
pub const ECAM: u64 = HOLE + PCI_WINDOW_BYTES;
/// Its bytes: 1 MiB for the one bus that there is. Where more are told of, Linux looks for 32 devices
/// on each.
pub const ECAM_BYTES: u64 = 0x10_0000;
/// The I/O APIC.
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local APICs.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// A page that KVM needs on processors of Intel without unrestricted guests.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that it needs there for a task state.
pub const KVM_TSS: u64 = 0xfffb_d000;
/// Where memory goes on that did not find room below [`HOLE`].
pub const ABOVE_HOLE: u64 = 1 << 32;

/// COM1: eight ports.
pub const COM1: u16 = 0x3f8;
/// Its interrupt.
pub const COM1_IRQ: u32 = 4;
/// CMOS clock: index and data.
pub const CMOS: u16 = 0x70;
/// The keyboard controller's ports 0x60 to 0x64, of which its reset is used.
pub const I8042: u16 = 0x60;
/// ACPI's fixed registers: PM1 event (4 bytes), PM1 control (2), PM timer (4), reset (1).
pub const ACPI_PM: u16 = 0x600;
/// ACPI's interrupt.
pub const ACPI_IRQ: u32 = 9;
/// PCI configuration by ports: address and data.
pub const PCI_CONFIG: u16 = 0xcf8;

/// The first interrupt line (GSI) that message signalled interrupts use; those below are the lines
/// of the I/O APIC.
pub const FIRST_MSI_GSI: u32 = 24;
