//! The one error type of the libraries: what kind it is, which file, where in its structure, what
//! is wrong. The text reads `file: where: what (byte 0x…)`; hints are kept apart for the CLI.

use std::fmt;
use std::path::{Path, PathBuf};

/// Shorthand for a result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What code may match on. Detail that only a human needs lives in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system failed an operation.
    Io,
    /// A file or name does not exist.
    NotFound,
    /// No virtual machine has that name, or its .vmx is gone.
    VmNotFound,
    /// The target exists and may not be overwritten.
    Exists,
    /// The operating system refused access.
    PermissionDenied,
    /// Somebody else holds a lock, or the image is in use.
    Locked,
    /// No space is left on the target.
    NoSpace,
    /// The image's structure is damaged or hostile.
    Corrupt,
    /// Content differs from what was written or promised.
    Mismatch,
    /// The image or request needs something hako does not do.
    Unsupported,
    /// The caller's argument is out of range or contradicts another.
    Invalid,
    /// A name found inside an image leads where it may not.
    Gate,
    /// The image or storage was opened read-only.
    ReadOnly,
    /// What is encrypted does not open with the key that was given.
    WrongKey,
    /// The user or a program cancelled the operation.
    Cancelled,
}

impl ErrorKind {
    /// Each kind with the word that programs know it by.
    const NAMES: [(ErrorKind, &str); 15] = [
        (ErrorKind::Io, "io"),
        (ErrorKind::NotFound, "not-found"),
        (ErrorKind::VmNotFound, "vm-not-found"),
        (ErrorKind::Exists, "exists"),
        (ErrorKind::PermissionDenied, "permission-denied"),
        (ErrorKind::Locked, "locked"),
        (ErrorKind::NoSpace, "no-space"),
        (ErrorKind::Corrupt, "corrupt"),
        (ErrorKind::Mismatch, "mismatch"),
        (ErrorKind::Unsupported, "unsupported"),
        (ErrorKind::Invalid, "invalid"),
        (ErrorKind::Gate, "gate"),
        (ErrorKind::ReadOnly, "read-only"),
        (ErrorKind::WrongKey, "wrong-key"),
        (ErrorKind::Cancelled, "cancelled"),
    ];

    /// Returns the word that stands for the kind in JSON.
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(kind, _)| *kind == self);
        found.map_or("io", |(_, name)| name)
    }

    /// Returns the kind that a word stands for; [`ErrorKind::Io`] for one that is unknown.
    pub fn named(name: &str) -> Self {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(_, known)| *known == name);
        found.map_or(ErrorKind::Io, |(kind, _)| *kind)
    }
}

/// An error of the data path. Build it with one of the constructors, then add what each layer
/// knows with [`Error::in_file`], [`Error::at_byte`], [`Error::place`] and [`Error::hint`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, thiserror::Error)]
struct Inner {
    kind: ErrorKind,
    file: Option<PathBuf>,
    place: Option<String>,
    what: String,
    byte: Option<u64>,
    hint: Option<String>,
    #[source]
    source: Option<std::io::Error>,
}

impl Error {
    /// Returns an error of `kind` that says `what` is wrong.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            file: None,
            place: None,
            what: what.into(),
            byte: None,
            hint: None,
            source: None,
        }))
    }

    /// Returns a [`ErrorKind::Corrupt`] error: `place` is where in the structure ("grain table 12,
    /// entry 77"), `what` the finding with its values.
    pub fn corrupt(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, what).place(place)
    }

    /// Returns a [`ErrorKind::Unsupported`] error.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, what)
    }

    /// Returns a [`ErrorKind::Invalid`] error.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, what)
    }

    /// Returns the [`ErrorKind::ReadOnly`] error that every read-only image gives on a write.
    pub fn read_only() -> Self {
        Self::new(ErrorKind::ReadOnly, "opened read-only")
    }

    /// Returns the [`ErrorKind::Cancelled`] error.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// Wraps an operating system error; `doing` is the operation ("read 65536 bytes").
    pub fn io(doing: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::NoSpace
            }
            std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            _ => ErrorKind::Io,
        };
        let mut error = Self::new(kind, doing);
        error.0.source = Some(source);
        error
    }

    /// Names the file, unless an inner layer has named one already.
    #[must_use]
    pub fn in_file(mut self, file: impl AsRef<Path>) -> Self {
        self.0
            .file
            .get_or_insert_with(|| file.as_ref().to_path_buf());
        self
    }

    /// Names the place in the structure, unless an inner layer has named one already.
    #[must_use]
    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.0.place.get_or_insert_with(|| place.into());
        self
    }

    /// Gives the file offset in bytes that the error is about.
    #[must_use]
    pub fn at_byte(mut self, byte: u64) -> Self {
        self.0.byte.get_or_insert(byte);
        self
    }

    /// Adds what the user can do about it; the CLI shows it on a line of its own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Returns what code may match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the file the error is about.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// Returns what the user can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the file offset in bytes, where one is known.
    pub fn byte(&self) -> Option<u64> {
        self.0.byte
    }

    /// Returns the text without file name and byte, for a list that shows them in columns.
    pub fn finding(&self) -> String {
        let place = self.0.place.iter().map(|place| format!("{place}: "));
        let source = self
            .0
            .source
            .iter()
            .map(|source| format!(": {}", plain(source)));
        place.chain([self.0.what.clone()]).chain(source).collect()
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(byte) = self.byte {
            write!(f, " (byte {byte:#x})")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {}", plain(source))?;
        }
        Ok(())
    }
}

/// The system's words without Rust's "(os error 5)" tail.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_file_place_finding_byte() {
        let error = Error::corrupt("grain table 12, entry 77", "sector 9 past end of file")
            .at_byte(0x2a34)
            .in_file("web-s001.vmdk")
            .in_file("outer.vmdk");
        assert_eq!(
            error.to_string(),
            "web-s001.vmdk: grain table 12, entry 77: sector 9 past end of file (byte 0x2a34)"
        );
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        for (kind, name) in ErrorKind::NAMES {
            assert_eq!((kind.name(), ErrorKind::named(name)), (name, kind));
        }
        assert_eq!(ErrorKind::named("nonsense"), ErrorKind::Io);
    }

    #[test]
    fn full_disk_has_its_own_kind() {
        let error = Error::io("write", std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.to_string(), "write: no space left on device");
    }
}
