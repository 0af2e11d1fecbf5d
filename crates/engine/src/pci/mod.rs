//! PCI: bus 0 with up to 32 devices, their configuration by ports and by address, and the windows
//! (BARs) in which they answer. Interrupts are messages (MSI-X) only.

pub mod bus;
pub mod config;
pub mod msix;

pub use bus::{PciBus, PciDevice};
pub use config::ConfigSpace;
