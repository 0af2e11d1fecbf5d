//! Whether a copy of a server is good: its file systems, whether it boots, and whether it is then what
//! the server was. What is asked is one list of [`Check`]s; who boots the machine is the caller.

mod boot;
mod compare;
mod testimony;
#[cfg(test)]
mod tests;
mod volumes;
mod witness;

pub use boot::{Signs, asks_for_login, dead_end, judge};
pub use compare::compare;
pub use testimony::Testimony;
pub use volumes::check_volumes;
pub use witness::{witness, witness_archive};

/// What was asked, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What kind of question.
    pub about: About,
    /// What it was asked of: a volume, a path, a network card.
    pub name: String,
    /// The answer.
    pub outcome: Outcome,
    /// What was found: a sentence each.
    pub notes: Vec<String>,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A disk, partition, array or logical volume: whether all of it is there.
    Volume,
    /// A file system.
    FileSystem,
    /// Whether it boots.
    Boot,
    /// Whether one can log in.
    Login,
    /// What is mounted somewhere.
    Mount,
    /// What is swapped to.
    Swap,
    /// A network card's name.
    Nic,
    /// An address of the network.
    Address,
    /// Services.
    Units,
}

impl About {
    /// Returns its name, for JSON and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::FileSystem => "file-system",
            Self::Boot => "boot",
            Self::Login => "login",
            Self::Mount => "mount",
            Self::Swap => "swap",
            Self::Nic => "nic",
            Self::Address => "address",
            Self::Units => "services",
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is as it should be.
    Passed,
    /// Nobody could tell.
    NotChecked,
    /// It is not quite as it should be.
    Warning,
    /// It is not as it should be.
    Failed,
}

impl Outcome {
    /// Returns its name, for JSON and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::NotChecked => "not-checked",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What all checks together say: the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A file system is damaged, or a volume is not whole.
    Corrupt,
    /// It does not boot.
    DoesNotBoot,
    /// Something should be seen to.
    Warnings,
    /// All is as it should be.
    Verified,
}

impl Verdict {
    /// Returns what checks say together.
    pub fn of(checks: &[Check]) -> Self {
        let has = |about: &[About], outcome: Outcome| {
            let mut of = checks.iter().filter(|check| about.contains(&check.about));
            of.any(|check| check.outcome == outcome)
        };
        if has(&[About::Volume, About::FileSystem], Outcome::Failed) {
            return Self::Corrupt;
        }
        if has(&[About::Boot], Outcome::Failed) {
            return Self::DoesNotBoot;
        }
        match checks.iter().any(|check| check.outcome >= Outcome::Warning) {
            true => Self::Warnings,
            false => Self::Verified,
        }
    }

    /// Returns its name, for JSON and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::DoesNotBoot => "does-not-boot",
            Self::Warnings => "warnings",
            Self::Verified => "verified",
        }
    }
}
