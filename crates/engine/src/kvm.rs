//! The virtual machine in the kernel: its memory slots, interrupt controllers and processors.
#![allow(unsafe_code)]

use std::slice::ChunksExactMut;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, Result};
use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::layout;
use crate::memory::Memory;

/// What the kernel must offer, by the names of its documentation.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// Opens /dev/kvm. Errors: with a hint of what may be done about it.
pub fn open() -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|error| {
        let io = std::io::Error::from_raw_os_error(error.errno());
        let error = Error::io("open /dev/kvm", io);
        match error.kind() {
            ErrorKind::NotFound => error.hint("the processor's virtualisation is off in the firmware, or the module kvm_intel or kvm_amd is not loaded"),
            ErrorKind::PermissionDenied => error.hint("join the group kvm"),
            _ => error,
        }
    })?;
    if kvm.get_api_version() != 12 {
        return Err(Error::unsupported(format!(
            "/dev/kvm speaks version {}, not 12",
            kvm.get_api_version()
        )));
    }
    for (cap, name) in NEEDED {
        if !kvm.check_extension(*cap) {
            return Err(Error::unsupported(format!("/dev/kvm lacks {name}")));
        }
    }
    Ok(kvm)
}

/// Makes a virtual machine with `memory`, interrupt controllers and timer. The memory must outlive
/// it: whoever keeps the machine keeps both.
pub fn machine(kvm: &Kvm, memory: &Memory) -> Result<Arc<VmFd>> {
    let vm = kvm
        .create_vm()
        .map_err(|error| failed("make a machine", error))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(|error| failed("set the identity map", error))?;
    let tss = usize::try_from(layout::KVM_TSS).map_err(|_| Error::invalid("KVM_TSS"))?;
    vm.set_tss_address(tss)
        .map_err(|error| failed("set the task state", error))?;
    for (slot, region) in memory.iter().enumerate() {
        add_memory(&vm, slot, region)?;
    }
    vm.create_irq_chip()
        .map_err(|error| failed("make interrupt controllers", error))?;
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit)
        .map_err(|error| failed("make a timer", error))?;
    Ok(Arc::new(vm))
}

fn add_memory(vm: &VmFd, slot: usize, region: &vm_memory::GuestRegionMmap<()>) -> Result<()> {
    let slot = kvm_userspace_memory_region {
        slot: u32::try_from(slot).map_err(|_| Error::invalid("too many regions of memory"))?,
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the range is a mapping of `region.len()` bytes that `Memory` owns; the machine that
    // keeps this VmFd keeps a clone of that Memory, so it stays mapped as long as the guest can run.
    unsafe { vm.set_user_memory_region(slot) }.map_err(|error| failed("give it memory", error))?;
    ask_for_large_pages(region);
    Ok(())
}

/// Lets the host give memory in pages of 2 MiB as the guest touches it: there are fewer times that the
/// guest has to wait for one, and fewer addresses to be looked up.
fn ask_for_large_pages(region: &vm_memory::GuestRegionMmap<()>) {
    let len = region.size();
    // SAFETY: the range is the region's own mapping, and the advice changes nothing of its content.
    // A host without such pages refuses, and gives small ones.
    let _ = unsafe { libc::madvise(region.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

/// What a processor came out of the guest for at an I/O port: one access, or some in a row, as of
/// `rep outsb`.
pub(crate) struct PortAccess<'a> {
    pub port: u64,
    pub is_read: bool,
    /// The accesses' bytes, one after another.
    pub items: ChunksExactMut<'a, u8>,
}

/// Returns the access for which `vcpu` came out; none if it did not for one.
pub(crate) fn port_access(vcpu: &mut VcpuFd) -> Option<PortAccess<'_>> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_IO {
        return None;
    }
    // SAFETY: for this reason it is what the kernel has filled of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let (item, count) = (usize::from(io.size), usize::try_from(io.count).ok()?);
    let offset = usize::try_from(io.data_offset).ok()?;
    let first = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: the kernel has put them there, behind the structure, in the pages that VcpuFd has mapped
    // for both; that is borrowed as long as the slice lives.
    let data = unsafe { std::slice::from_raw_parts_mut(first.add(offset), item * count) };
    Some(PortAccess {
        port: u64::from(io.port),
        is_read: u32::from(io.direction) == KVM_EXIT_IO_IN,
        items: data.chunks_exact_mut(item.max(1)),
    })
}

/// Has the kernel keep what guests write to a port of four bytes, until a processor comes out for something
/// else: [`posted`] returns it. The write that says which register is meant costs guests nothing then. A
/// kernel that cannot (before Linux 4.20) has them come out for each.
pub(crate) fn post_port(kvm: &Kvm, vm: &VmFd, vcpus: &mut [VcpuFd], port: u16) -> Result<()> {
    if !kvm.check_extension(Cap::CoalescedPio) {
        return Ok(());
    }
    let posting = |error| failed("post what is written to a port", error);
    for vcpu in vcpus {
        vcpu.map_coalesced_mmio_ring().map_err(posting)?;
    }
    vm.register_coalesced_mmio(IoEventAddress::Pio(u64::from(port)), 4)
        .map_err(posting)
}

/// Returns the next of what was written to such ports, and the port. All processors of a machine take from
/// one ring: one at a time may.
pub(crate) fn posted(vcpu: &mut VcpuFd) -> Option<(u64, [u8; 8], usize)> {
    // Where nothing is posted there is no ring.
    let entry = vcpu.coalesced_mmio_read().ok()??;
    Some((
        entry.phys_addr,
        entry.data,
        usize::try_from(entry.len).ok()?,
    ))
}

/// Returns the error of a call to KVM.
pub(crate) fn failed(doing: &str, error: kvm_ioctls::Error) -> Error {
    Error::io(
        format!("KVM: {doing}"),
        std::io::Error::from_raw_os_error(error.errno()),
    )
}
