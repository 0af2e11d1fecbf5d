//! Turns one image into another: what the user asks for becomes a copy; and servers into machines
//! ([`p2v`]).
//!
//! Moves no bytes itself (that is `hako-pipeline`), knows no format (that is `hako-formats`),
//! prints nothing and reads no environment.

#![forbid(unsafe_code)]

mod convert;
mod new_image;
pub mod p2v;
mod source;

pub use convert::{ConvertReport, ConvertRequest, convert};
pub use source::Source;
