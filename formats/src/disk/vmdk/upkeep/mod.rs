//! What is done to a VMDK that exists: what it says of itself, its parent, its names, its size,
//! its repair.

mod name;
#[cfg(test)]
mod name_and_settings_tests;
mod resize;
#[cfg(test)]
mod resize_tests;
mod settings;
#[cfg(test)]
mod testing;

pub use name::{renamed, renaming};
pub use resize::resize;
pub use settings::{relink, set};
