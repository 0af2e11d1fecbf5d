//! Machines on their way out and in again.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test panics to fail.
#![allow(clippy::print_stderr)] // It says so where a peer is missing.

mod backup;
mod damage;
mod package;
mod pipe;
mod round_trip;
mod world;
