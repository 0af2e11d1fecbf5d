//! Tests that boot emulated machines, which takes minutes: real kernels make what hako reads, and guests
//! come up on what it wrote.

mod adapted_boots;
mod bed;
mod boots;
mod guest_boots;
mod native_boots;
mod native_disks;
mod native_host;
mod p2v_inventory;
mod p2v_verify;
mod servers;
mod volumes;
