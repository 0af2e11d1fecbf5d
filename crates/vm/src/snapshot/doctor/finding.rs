//! What can be wrong with a machine's snapshots, in an administrator's words.

use std::path::PathBuf;

use hako_formats::machine::Node;

use crate::snapshot::name::ImageName;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind it is of.
    pub trouble: Trouble,
    /// The file that it is about, as seen from the machine's folder.
    pub file: String,
    /// What it is, with names and numbers.
    pub what: String,
    /// What to do.
    pub advice: String,
    /// How it is mended, where that is safe.
    pub(super) remedy: Option<Remedy>,
}

impl Finding {
    /// Returns whether `--repair` mends it.
    pub fn is_repairable(&self) -> bool {
        self.remedy.is_some()
    }
}

/// What mends it. None of them gives up data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// What was begun is completed or undone.
    Recover,
    /// The list's numbers are set right.
    SettleList,
    /// The present state comes from this snapshot.
    SetCurrent(u32),
    /// The list no longer asks for consolidation.
    NeedsNothing,
    /// An overlay gets the parent that it was made on, as that is now; a note beside it goes.
    Relink {
        overlay: ImageName,
        parent: ImageName,
        note: Option<PathBuf>,
    },
    /// A disk gets a new overlay to be written to.
    Protect(Node),
    /// An overlay with nothing in it goes.
    RemoveEmpty(ImageName),
    /// These go: locks of processes that are gone, what killed runs left behind.
    RemoveFiles(Vec<PathBuf>),
}

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A snapshot verb was cut off.
    CutOff,
    /// A lock of a process that is gone.
    StaleLock,
    /// A lock of which nobody here can tell whether it holds.
    OtherLock,
    /// The list of snapshots cannot be read.
    UnreadableList,
    /// The list of snapshots contradicts itself, or the files.
    WrongList,
    /// The machine names a disk that is not there.
    MissingDisk,
    /// A snapshot names a disk that is not there.
    EntryWithoutFile,
    /// A file of a snapshot besides its disks is not there.
    MissingState,
    /// An overlay's parent is not there.
    ParentMissing,
    /// An overlay's parent has other content than the overlay was made on.
    ParentChanged,
    /// A merge was cut off.
    HalfMerged,
    /// An image is damaged, or one of its files is missing.
    Damaged,
    /// The machine writes to a disk that something else stands on.
    HeldDisk,
    /// Another machine uses the disk that this one writes to.
    SharedDisk,
    /// The machine runs on an overlay that no snapshot asks for.
    DeltaWithoutEntry,
    /// The list says that overlays are to be merged.
    NeedsConsolidation,
    /// Nothing refers to an overlay.
    UnreferencedDelta,
    /// Nothing refers to a file of a snapshot.
    UnreferencedState,
    /// What a killed run left behind.
    Leftover,
}

impl Trouble {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::CutOff => "cut-off",
            Trouble::StaleLock => "stale-lock",
            Trouble::OtherLock => "other-lock",
            Trouble::UnreadableList => "unreadable-list",
            Trouble::WrongList => "wrong-list",
            Trouble::MissingDisk => "missing-disk",
            Trouble::EntryWithoutFile => "entry-without-file",
            Trouble::MissingState => "missing-state",
            Trouble::ParentMissing => "parent-missing",
            Trouble::ParentChanged => "parent-changed",
            Trouble::HalfMerged => "half-merged",
            Trouble::Damaged => "damaged",
            Trouble::HeldDisk => "held-disk",
            Trouble::SharedDisk => "shared-disk",
            Trouble::DeltaWithoutEntry => "delta-without-entry",
            Trouble::NeedsConsolidation => "needs-consolidation",
            Trouble::UnreferencedDelta => "unreferenced-delta",
            Trouble::UnreferencedState => "unreferenced-state",
            Trouble::Leftover => "leftover",
        }
    }

    /// Returns what follows from it.
    pub fn consequence(self) -> &'static str {
        match self {
            Trouble::CutOff => {
                "the machine is as it was, or as it shall be; nothing is lost, and nothing else may \
                 change it until that is settled"
            }
            Trouble::StaleLock => {
                "VMware's products and hako take the machine for running and leave it alone"
            }
            Trouble::OtherLock => {
                "if the machine runs there, everything here may change under way; if not, it is \
                 locked for nothing"
            }
            Trouble::UnreadableList => {
                "no snapshot is known; the machine itself starts, its snapshots cannot be reached"
            }
            Trouble::WrongList => {
                "products show a wrong tree, or refuse it; the disks are not touched by that"
            }
            Trouble::MissingDisk => "the machine does not start",
            Trouble::EntryWithoutFile => "there is no way back to this snapshot",
            Trouble::MissingState => {
                "the disks of this snapshot are there, but not what goes with them: hardware, or \
                 memory"
            }
            Trouble::ParentMissing => {
                "the disk shows nothing until the parent is found: all that it does not store \
                 itself is in there"
            }
            Trouble::ParentChanged => {
                "products refuse the disk, and rightly: where the parent's content is another now, \
                 its file systems may be broken"
            }
            Trouble::HalfMerged => {
                "the overlay still has all its content; what else stands on its parent may show \
                 something else than before"
            }
            Trouble::Damaged => {
                "the disk does not open, nor does any overlay on it; what can be read of it is not \
                 known yet"
            }
            Trouble::HeldDisk => {
                "the next start of the machine overwrites what the other needs: a snapshot, or an \
                 overlay that does not open afterwards"
            }
            Trouble::SharedDisk => {
                "when both run, each destroys the other's file systems; when one has written, the \
                 other's overlays no longer fit"
            }
            Trouble::DeltaWithoutEntry => {
                "the machine works; the overlay costs space and time, and there is no snapshot to \
                 go back to"
            }
            Trouble::NeedsConsolidation => {
                "the machine works; overlays that a deletion left behind cost space and time"
            }
            Trouble::UnreferencedDelta => {
                "it takes space, and keeps what it stands on from being merged; it may be the \
                 present state, or a snapshot's, that a lost or old text no longer names"
            }
            Trouble::UnreferencedState => "it takes space, and that is all",
            Trouble::Leftover => "it takes space, and that is all",
        }
    }
}
