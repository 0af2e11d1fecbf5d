//! The QEMU engine.
#![allow(dead_code)]
mod plan;
