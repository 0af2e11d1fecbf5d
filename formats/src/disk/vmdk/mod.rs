//! VMDK in its variants.

pub mod header;
