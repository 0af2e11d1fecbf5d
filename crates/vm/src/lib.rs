//! Virtual machines as files: the inventory of those that are known, and what is done to a
//! machine while it is off.
//!
//! Knows no text format (VMX and the like are `hako-formats`), prints nothing and reads no
//! environment: where machines live is handed in as [`Home`].

#![forbid(unsafe_code)]

mod guest;
mod held;
mod home;
mod inventory;

pub use guest::{DEFAULT_GUEST_OS, DEFAULT_HARDWARE_VERSION, GuestDefaults, guest_defaults};
pub use held::Held;
pub use home::Home;
pub use inventory::{Entry, Inventory};
