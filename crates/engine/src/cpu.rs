//! What a processor is when it starts: its features (CPUID), model specific registers, and the
//! registers that the kernel is entered with.

use hako_block::Result;
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_fpu, kvm_lapic_state, kvm_msr_entry,
    kvm_regs, kvm_segment, kvm_sregs, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::kvm::failed;
use crate::layout;
use crate::load::{self, Entry};
use crate::memory::Memory;

/// How many processors there are, and how they sit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Packages.
    pub sockets: u32,
    /// Cores in each.
    pub cores: u32,
    /// Threads in each of those.
    pub threads: u32,
}

impl Topology {
    /// Returns how many processors there are.
    pub fn processors(&self) -> u32 {
        self.sockets
            .saturating_mul(self.cores)
            .saturating_mul(self.threads)
    }

    /// Returns the APIC id of the processor with `index`: the fields of threads, cores and sockets
    /// are whole numbers of bits, so that ids may have gaps.
    pub fn apic_id(&self, index: u32) -> u32 {
        let thread = index % self.threads;
        let core = index / self.threads % self.cores;
        let socket = index / self.threads / self.cores;
        (socket << self.package_bits()) | (core << self.thread_bits()) | thread
    }

    fn thread_bits(&self) -> u32 {
        bits_for(self.threads)
    }

    fn package_bits(&self) -> u32 {
        self.thread_bits() + bits_for(self.cores)
    }
}

/// Returns the bits that number `n` things.
fn bits_for(n: u32) -> u32 {
    n.next_power_of_two().trailing_zeros()
}

/// Returns what KVM can give a guest on this host.
pub fn supported(kvm: &Kvm) -> Result<CpuId> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| failed("ask for processor features", error))
}

/// Leaf 1, ECX: the guest runs on a hypervisor; the local APIC has a deadline timer.
const HYPERVISOR: u32 = 1 << 31;
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, EDX: there may be more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 0xD subleaf 1, EAX: XSAVEC and XSAVES, whose areas are compacted.
const XSAVEC: u32 = 1 << 1;
const XSAVES: u32 = 1 << 3;

/// Returns the CPUID that the processor with `index` has: what the host can give, with the topology
/// of this machine, and leaf 0xD made consistent.
pub fn cpuid(supported: &CpuId, topology: Topology, index: u32) -> Result<CpuId> {
    let id = topology.apic_id(index);
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        .copied()
        // These describe the host's topology; ours follow.
        .filter(|entry| !matches!(entry.function, 0xb | 0x1f | 0x8000_001e))
        .collect();
    let areas = xsave_areas(&entries);
    for entry in &mut entries {
        match entry.function {
            0x1 => leaf_1(entry, topology, id),
            0x4 => leaf_4(entry, topology),
            0xd => leaf_d(entry, &areas),
            0x8000_0008 => leaf_8000_0008(entry, topology),
            _ => {}
        }
    }
    entries.extend(leaf_b(topology, id));
    if let Some(leaf_0) = entries.iter_mut().find(|entry| entry.function == 0) {
        leaf_0.eax = leaf_0.eax.max(0xb);
    }
    CpuId::from_entries(&entries)
        .map_err(|error| hako_block::Error::invalid(format!("CPUID: {error:?}")))
}

fn leaf_1(entry: &mut kvm_cpuid_entry2, topology: Topology, id: u32) {
    let in_package = 1u32 << topology.package_bits();
    entry.ebx = (entry.ebx & 0xffff) | (in_package.min(255) << 16) | (id.min(255) << 24);
    entry.ecx |= HYPERVISOR | TSC_DEADLINE;
    match topology.cores * topology.threads > 1 {
        true => entry.edx |= HTT,
        false => entry.edx &= !HTT,
    }
}

/// Caches of Intel: who shares them.
fn leaf_4(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    if entry.eax & 0x1f == 0 {
        return;
    }
    let level = (entry.eax >> 5) & 7;
    let sharing = match level {
        1 | 2 => topology.threads,
        _ => 1 << topology.package_bits(),
    };
    let cores = 1u32 << bits_for(topology.cores);
    entry.eax =
        (entry.eax & 0x3fff) | (sharing.clamp(1, 4096) - 1) << 14 | (cores.clamp(1, 64) - 1) << 26;
}

/// AMD's count of threads in a package.
fn leaf_8000_0008(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    let in_package = topology.cores * topology.threads;
    entry.ecx = (topology.package_bits() & 0xf) << 12 | (in_package.clamp(1, 256) - 1);
}

/// The levels of topology: threads, cores.
fn leaf_b(topology: Topology, id: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, bits: u32, processors: u32, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: bits,
        ebx: processors,
        ecx: index | kind << 8,
        edx: id,
        ..Default::default()
    };
    [
        level(0, topology.thread_bits(), topology.threads, 1),
        level(
            1,
            topology.package_bits(),
            topology.cores * topology.threads,
            2,
        ),
        level(2, 0, 0, 0),
    ]
}

/// Offset and size of each state component of XSAVE from 2 on, as the host gives them.
fn xsave_areas(entries: &[kvm_cpuid_entry2]) -> Vec<(u32, u32, u32)> {
    entries
        .iter()
        .filter(|entry| entry.function == 0xd && entry.index >= 2 && entry.eax > 0)
        .map(|entry| (entry.index, entry.ebx, entry.eax))
        .collect()
}

/// The sizes of XSAVE's area follow from its components: hosts that emulate a processor are known to
/// say something else, and Linux warns of that. What is compacted goes where they disagree.
fn leaf_d(entry: &mut kvm_cpuid_entry2, areas: &[(u32, u32, u32)]) {
    /// The legacy region and the header.
    const HEAD: u32 = 512 + 64;
    match entry.index {
        0 => {
            let enabled = entry.eax;
            entry.ecx = areas
                .iter()
                .filter(|(index, ..)| *index < 32 && enabled & (1 << index) != 0)
                .map(|(_, offset, size)| offset.saturating_add(*size))
                .fold(HEAD, u32::max);
            // What is enabled at the start: x87 only. KVM keeps it current.
            entry.ebx = HEAD;
        }
        1 if entry.eax & XSAVEC == 0 => {
            entry.eax &= !XSAVES;
            entry.ebx = 0;
            entry.ecx = 0;
            entry.edx = 0;
        }
        _ => {}
    }
}

/// Sets a processor up before it runs for the first time. The first one enters the kernel; the
/// others wait for it to start them.
pub fn set_up(vcpu: &VcpuFd, cpuid: &CpuId, entry: Option<Entry>) -> Result<()> {
    vcpu.set_cpuid2(cpuid)
        .map_err(|error| failed("set processor features", error))?;
    set_xcr0(vcpu, cpuid)?;
    set_msrs(vcpu)?;
    set_lapic(vcpu)?;
    let Some(entry) = entry else { return Ok(()) };
    vcpu.set_fpu(&kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    })
    .map_err(|error| failed("set the FPU", error))?;
    let mut sregs = vcpu
        .get_sregs()
        .map_err(|error| failed("read registers", error))?;
    enter(&mut sregs, entry);
    vcpu.set_sregs(&sregs)
        .map_err(|error| failed("set segment registers", error))?;
    vcpu.set_regs(&registers(entry))
        .map_err(|error| failed("set registers", error))
}

fn registers(entry: Entry) -> kvm_regs {
    let common = kvm_regs {
        rflags: 2,
        ..Default::default()
    };
    match entry {
        Entry::Linux(address) => kvm_regs {
            rip: address,
            rsi: layout::ZERO_PAGE,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            ..common
        },
        Entry::Pvh(address) => kvm_regs {
            rip: address,
            rbx: layout::PVH_INFO,
            ..common
        },
    }
}

/// CR0, CR4 and EFER.
const PROTECTED: u64 = 1;
const EXTENSION_TYPE: u64 = 1 << 4;
const PAGING: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
const LONG_MODE: u64 = 1 << 8 | 1 << 10;

/// Sets segments and mode. The GDT is the one that [`write_tables`] wrote.
fn enter(sregs: &mut kvm_sregs, entry: Entry) {
    let long = matches!(entry, Entry::Linux(_));
    let [code, data, task] = segments(long);
    sregs.cs = code;
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.tr = task;
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = (GDT_ENTRIES * 8 - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = PROTECTED | EXTENSION_TYPE;
    sregs.cr4 = 0;
    sregs.efer = 0;
    if long {
        sregs.cr3 = layout::PAGE_TABLES;
        sregs.cr4 = PAE;
        sregs.cr0 |= PAGING;
        sregs.efer = LONG_MODE;
    }
}

const GDT_ENTRIES: usize = 4;

/// Code (selector 0x10, as Linux asks for), data (0x18) and a task state (0x8).
fn segments(long: bool) -> [kvm_segment; 3] {
    let flat = kvm_segment {
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    [
        kvm_segment {
            selector: 0x10,
            type_: 0xb,
            l: u8::from(long),
            db: u8::from(!long),
            ..flat
        },
        kvm_segment {
            selector: 0x18,
            type_: 0x3,
            db: 1,
            ..flat
        },
        kvm_segment {
            selector: 0x8,
            limit: 0x67,
            type_: 0xb,
            present: 1,
            ..Default::default()
        },
    ]
}

/// Returns a segment as the GDT has it.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(match segment.g {
        0 => segment.limit,
        _ => segment.limit >> 12,
    });
    let flags = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7
        | u64::from(segment.avl) << 12
        | u64::from(segment.l) << 13
        | u64::from(segment.db) << 14
        | u64::from(segment.g) << 15;
    (limit & 0xffff) | (limit & 0xf_0000) << 32 | flags << 40
}

/// Writes the GDT and page tables that the kernel is entered with.
pub fn write_tables(memory: &Memory, entry: Entry) -> Result<()> {
    let [code, data, task] = segments(matches!(entry, Entry::Linux(_)));
    let gdt = [0, descriptor(&task), descriptor(&code), descriptor(&data)];
    write_words(memory, &gdt, layout::GDT)?;

    /// Present and writable; and a page of 2 MiB.
    const TABLE: u64 = 0b11;
    const LARGE: u64 = 0b1000_0011;
    const PAGE: u64 = 4096;
    let level_3 = layout::PAGE_TABLES + PAGE;
    let level_2 = level_3 + PAGE;
    write_words(memory, &[level_3 | TABLE], layout::PAGE_TABLES)?;
    let tables: Vec<u64> = (0..4).map(|n| (level_2 + n * PAGE) | TABLE).collect();
    write_words(memory, &tables, level_3)?;
    let pages: Vec<u64> = (0..2048).map(|n| (n << 21) | LARGE).collect();
    write_words(memory, &pages, level_2)
}

fn write_words(memory: &Memory, words: &[u64], address: u64) -> Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    load::write(memory, &bytes, address)
}

/// Switches all state components on, as a kernel does itself before it looks how large they are. KVM
/// gives the size by what it knows to be on, and a processor that does not tell it of the guest's
/// XSETBV (QEMU's emulation of SVM) would have the kernel do without XSAVE.
fn set_xcr0(vcpu: &VcpuFd, cpuid: &CpuId) -> Result<()> {
    let leaf_d = |entry: &&kvm_cpuid_entry2| entry.function == 0xd && entry.index == 0;
    let Some(entry) = cpuid.as_slice().iter().find(leaf_d) else {
        return Ok(());
    };
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0].value = u64::from(entry.edx) << 32 | u64::from(entry.eax);
    vcpu.set_xcrs(&xcrs)
        .map_err(|error| failed("set XCR0", error))
}

fn set_msrs(vcpu: &VcpuFd) -> Result<()> {
    /// IA32_MISC_ENABLE: fast string operations.
    const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
    /// IA32_MTRR_DEF_TYPE: on, and memory is write-back where nothing else is said.
    const MTRR_DEF_TYPE: (u32, u64) = (0x2ff, 1 << 11 | 6);
    let entries = [MISC_ENABLE, MTRR_DEF_TYPE].map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    });
    let msrs = Msrs::from_entries(&entries)
        .map_err(|error| hako_block::Error::invalid(format!("MSRs: {error:?}")))?;
    // A host that lacks one of them gives the guest what it has instead.
    vcpu.set_msrs(&msrs)
        .map(|_| ())
        .map_err(|error| failed("set model specific registers", error))
}

/// LINT0 takes the old interrupt controller's interrupts, LINT1 is NMI: as firmware leaves it.
fn set_lapic(vcpu: &VcpuFd) -> Result<()> {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    const EXT_INT: u32 = 7;
    const NMI: u32 = 4;
    let mut lapic = vcpu
        .get_lapic()
        .map_err(|error| failed("read the local APIC", error))?;
    set_delivery(&mut lapic, LVT_LINT0, EXT_INT);
    set_delivery(&mut lapic, LVT_LINT1, NMI);
    vcpu.set_lapic(&lapic)
        .map_err(|error| failed("set the local APIC", error))
}

fn set_delivery(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let Some(bytes) = lapic.regs.get_mut(register..register + 4) else {
        return;
    };
    let mut value = 0;
    for (shift, byte) in bytes.iter().enumerate() {
        value |= u32::from(*byte as u8) << (8 * shift);
    }
    value = (value & !0x700) | mode << 8;
    for (shift, byte) in bytes.iter_mut().enumerate() {
        *byte = (value >> (8 * shift)) as u8 as _;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apic_ids_have_a_field_for_each_level() {
        let topology = Topology {
            sockets: 2,
            cores: 3,
            threads: 1,
        };
        let ids: Vec<u32> = (0..6).map(|index| topology.apic_id(index)).collect();
        assert_eq!(ids, [0, 1, 2, 4, 5, 6]);
        let threads = Topology {
            sockets: 1,
            cores: 2,
            threads: 2,
        };
        assert_eq!(
            (0..4).map(|i| threads.apic_id(i)).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        let levels = leaf_b(threads, 3);
        assert_eq!((levels[0].eax, levels[0].ebx), (1, 2));
        assert_eq!((levels[1].eax, levels[1].ebx), (2, 4));
    }

    #[test]
    fn sizes_of_xsave_are_those_of_its_components() {
        let mut entries = vec![
            kvm_cpuid_entry2 {
                function: 0xd,
                index: 0,
                eax: 7,
                ebx: 576,
                ecx: 576,
                ..Default::default()
            },
            kvm_cpuid_entry2 {
                function: 0xd,
                index: 2,
                eax: 256,
                ebx: 576,
                ..Default::default()
            },
        ];
        let areas = xsave_areas(&entries);
        leaf_d(&mut entries[0], &areas);
        assert_eq!(entries[0].ecx, 832);
    }

    #[test]
    fn descriptors_are_those_of_the_manual() {
        let [code, data, _] = segments(true);
        assert_eq!(descriptor(&code), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data), 0x00cf_9300_0000_ffff);
    }
}
