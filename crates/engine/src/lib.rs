//! A machine of hako's own on KVM: PCIe, ACPI, virtio 1.2, the few old devices that every kernel
//! looks for. It boots a kernel that it is given, and knows no disk format and no VMX: disks are
//! [`hako_block::BlockImage`]s, network cards lead to a [`link::Link`].
//!
//! The guest is not trusted. What it writes into registers and rings is checked before it is used;
//! a device that is lied to gives up, and nothing else does.
//!
//! `unsafe` is where the kernel asks for it: in [`kvm`] (the guest's memory) and [`link::tap`].

#![deny(unsafe_code)]

pub mod acpi;
pub mod bus;
pub mod cpu;
mod image;
pub mod kvm;
pub mod layout;
pub mod legacy;
pub mod link;
pub mod load;
pub mod machine;
pub mod memory;
pub mod pci;
pub mod signal;
pub mod vcpu;
pub mod virtio;

pub use cpu::Topology;
pub use load::Kernel;
pub use machine::{Card, Machine, Spec};
pub use memory::Pages;
pub use signal::{Request, Signals};
pub use virtio::block::Disk;
