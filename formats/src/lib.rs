//! The formats that a VM is made of. Disk formats live in [`disk`], one module each behind one
//! registry, [`disk::FORMATS`]; [`open_chain`] opens an image with its parents. [`machine`] is what
//! the texts that describe a machine have in common; [`vmx`] and [`vmsd`] are VMware's texts, over
//! the lines that [`dictionary`] reads and edits; [`ovf`] is everybody's, and [`ova`] its package.

#![forbid(unsafe_code)]

mod code_page;
pub mod dictionary;
pub mod digest;
pub mod disk;
pub mod iso;
pub mod libvirt;
pub mod machine;
mod oddities;
mod open;
pub mod ova;
pub mod ovf;
pub mod suspended;
pub mod vmsd;
pub mod vmsn;
pub mod vmx;
mod xml_text;

pub use disk::{
    Adapter, Allocation, CheckArgs, Compression, CreateArgs, CreateOptions, DiskFormat, FORMATS,
    Finding, Findings, OpenArgs, Renaming, Repair, Settings, Severity, Subformat, Task,
    format_named,
};
pub use open::{
    OpenOptions, OpenedChain, OpenedLayer, descriptor_name, detect, find_parent, fits, open_chain,
    open_chain_of, open_file, open_layer,
};
pub use xml_text::xml_escaped;
