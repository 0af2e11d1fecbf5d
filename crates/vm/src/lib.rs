//! Virtual machines as files: the inventory of those that are known, and what is done to a
//! machine while it is off.
//!
//! Knows no text format (VMX and the like are `hako-formats`), prints nothing and reads no
//! environment: where machines live is handed in as [`Home`].

#![forbid(unsafe_code)]

mod backup_export;
mod check;
mod clone;
mod copy;
mod create;
mod delete;
mod devices;
mod export;
mod files;
mod guest;
mod held;
mod home;
mod import;
mod inside;
mod inventory;
mod list;
mod overlay;
mod references;
mod rename;
mod room;
pub mod run;
mod seed;
mod set;
mod settings;
mod snapshot;
mod state;
mod time;
mod users;
mod vm;

pub use backup_export::{BackupReport, BackupTarget, backup_export};
pub use clone::{CloneReport, CloneRequest, ClonedDisk, clone_vm};
pub use create::{CreateReport, CreateRequest, KernelFiles, create, folder_for};
pub use delete::{Deletion, delete_rest};
pub use devices::{DiskContent, ImageFile, NewDisk, NewNic};
pub use export::{
    ExportReport, ExportRequest, ExportTarget, ExportedDisk, Product, Verified, export, verify_file,
};
pub use guest::{DEFAULT_GUEST_OS, GuestDefaults, guest_defaults};
pub use held::Held;
pub use home::Home;
pub use import::{
    ImportReport, ImportRequest, ImportSource, ImportedDisk, ListedDisk, ListedSystem, Listing,
    PackageChoices, import, list_import,
};
pub use inside::{Guest, Inside, hardware_of};
pub use inventory::{Entry, Inventory};
pub use list::{Listed, list, register, unregister, vmx_in};
pub use rename::{RenameReport, rename, rename_for_people};
pub use set::{CdChange, CpuChange, SetReport, SetRequest, ShareChange, set};
pub use snapshot::{
    Consolidation, Doomed, Finding, ImageMerge, ListedSnapshot, LostDisk, Recovered, Reversal,
    RevertReport, SnapshotDeletion, SnapshotList, SnapshotReport, SnapshotRequest, Treatment,
    Trouble, Verb, create_snapshot, examine_snapshots, find as find_snapshot, list_snapshots,
    repair_snapshots,
};
pub use state::State;
pub use time::utc;
pub use users::{refuse_clones, refuse_needed};
pub use vm::Vm;
