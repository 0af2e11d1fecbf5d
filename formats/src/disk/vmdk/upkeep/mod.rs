//! What is done to a VMDK that exists: what it says of itself, its parent, its names, its size,
//! its repair.

mod compact;
#[cfg(test)]
mod compact_tests;
mod name;
#[cfg(test)]
mod name_and_settings_tests;
mod repair;
#[cfg(test)]
mod repair_tests;
mod resize;
#[cfg(test)]
mod resize_tests;
mod settings;
#[cfg(test)]
mod testing;

pub use compact::compact;
pub use name::{renamed, renaming};
pub use repair::repair;
pub use resize::resize;
pub use settings::{relink, set};
