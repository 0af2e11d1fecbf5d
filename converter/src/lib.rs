//! Turns what the user asks for into work on images: convert one into another format, create an
//! empty one or an overlay, check one.
//!
//! Moves no bytes itself (that is `hako-pipeline`), knows no format (that is `hako-formats`),
//! prints nothing and reads no environment.

#![forbid(unsafe_code)]

mod check;
mod convert;
mod create;
mod parent;
mod source;
mod target;

pub use check::{CheckReport, CheckRequest, LayerCheck, check};
pub use convert::{ConvertReport, ConvertRequest, convert};
pub use create::{CreateReport, CreateRequest, create};
pub use source::Source;
pub use target::Target;
