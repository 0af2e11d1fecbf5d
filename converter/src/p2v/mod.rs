//! Turning a server into a virtual machine, one module per step.

pub mod adapt;
pub mod capture;
pub mod inventory;
pub mod plan;
pub mod sample;
pub mod verify;
