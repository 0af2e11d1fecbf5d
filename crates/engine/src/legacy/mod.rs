//! The few devices of old that every kernel looks for: a serial port, the clock, the keyboard
//! controller's reset, ACPI's fixed registers.

pub mod acpi_pm;
pub mod cmos;
pub mod i8042;
pub mod serial;
