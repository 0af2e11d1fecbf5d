//! What is done to an image that exists, beyond reading and writing its content.

use hako_block::{Cancel, Error, Progress, Result, Uuid};

use super::Adapter;

/// How much to repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Give back space that nothing refers to.
    Leaks,
    /// Mend what can be mended without guessing, too.
    All,
}

/// Who is told how far long work is, and who may stop it.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Told how far the work is.
    pub progress: &'a dyn Progress,
    /// Stops the work; the image is whole then.
    pub cancel: &'a Cancel,
}

/// What of an image's description to change; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The controller that the image names.
    pub adapter: Option<Adapter>,
    /// Virtual hardware version.
    pub hw_version: Option<u32>,
    /// Version of VMware Tools in the guest.
    pub tools_version: Option<u32>,
    /// What the disk is known by.
    pub uuid: Option<Uuid>,
    /// A comment; empty removes it.
    pub comment: Option<String>,
}

impl Settings {
    /// Refuses every setting whose option name is not in `known`, so that none is ignored
    /// silently. Names: "adapter", "hw-version", "tools-version", "uuid", "comment".
    pub fn refuse_others(&self, format: &str, known: &[&str]) -> Result<()> {
        let chosen = [
            ("adapter", self.adapter.is_some()),
            ("hw-version", self.hw_version.is_some()),
            ("tools-version", self.tools_version.is_some()),
            ("uuid", self.uuid.is_some()),
            ("comment", self.comment.is_some()),
        ];
        match chosen
            .iter()
            .find(|(name, chosen)| *chosen && !known.contains(name))
        {
            Some((name, _)) => Err(Error::unsupported(format!("{format} records no {name}"))),
            None => Ok(()),
        }
    }
}

/// What must change when an image's main file gets another name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renaming {
    /// Further files of the image: the name now, in the image's own folder, and the new one.
    pub files: Vec<(String, String)>,
    /// Further files whose names do not come from the main file's, and which keep them.
    pub kept: Vec<String>,
    /// The main file's content under the new name, if it is a small text that names the others;
    /// `None` if the main file only moves.
    pub main: Option<Vec<u8>>,
}
