//! What is done to disk images beyond moving their content: create an empty one or an overlay,
//! check and repair, resize, compact, commit, rebase, set, rename, delete.
//!
//! Knows no format (that is `hako-formats`), moves no bytes itself (that is `hako-pipeline`),
//! prints nothing and reads no environment.

#![forbid(unsafe_code)]

mod change;
mod check;
mod commit;
mod compact;
mod create;
mod delete;
mod merge;
mod overlays;
mod parent;
mod rebase;
mod rename;
mod repair;
mod resize;
mod set;
mod spool;
mod stored;
mod target;

pub use change::Subject;
pub use check::{CheckReport, CheckRequest, LayerCheck, check};
pub use commit::{Afterwards, CommitReport, CommitRequest, commit, overlay_of_note};
pub use compact::{CompactReport, compact};
pub use create::{CreateReport, CreateRequest, create};
pub use delete::{delete, files_of, is_empty};
pub use merge::{MergeRequest, check_merge, merge};
pub use overlays::{overlays_of, parent_of, refuse_to_replace};
pub use parent::Parent;
pub use rebase::{RebaseReport, RebaseRequest, rebase};
pub use rename::{RenameReport, rename, rename_and_tell};
pub use repair::{RepairReport, free_saved_name, repair, undo};
pub use resize::{NewSize, ResizeReport, ResizeRequest, resize};
pub use set::{is_known_by_uuid, set};
pub use spool::{Inflow, Pipe, unnamed_file, write_blocks};
pub use stored::stored_at;
pub use target::{Guarded, Ready, Target, refuse_source, reopen};
