//! Machines on their way out and in again.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test panics to fail.

mod backup;
mod damage;
mod package;
mod round_trip;
mod world;
