//! What a server is made of and runs: the facts that everything else of P2V stands on. Taken from the
//! system that runs, or from images of its disks.

mod encryption;
mod findings;
mod firmware;
mod host;
mod images;
pub mod model;
mod network;
mod running;
mod services;
mod system;

pub use images::of_images;
pub use network::NicName;
pub(super) use network::{ByHardware, KnownBy, by_hardware, known_by};
pub use running::of_running;
