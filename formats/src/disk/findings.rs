//! What a check found.

use hako_block::Error;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Odd, but nothing is lost: a flag left set, a redundant copy that differs.
    Oddity,
    /// Space in the file that nothing refers to.
    Leak,
    /// The image is damaged: some content is wrong or cannot be read.
    Corruption,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The host file.
    pub file: String,
    /// Where in the structure and what is wrong, with the values.
    pub text: String,
    /// File offset in bytes, if one is known.
    pub byte: Option<u64>,
}

/// Everything a check found. Keeps the first [`Findings::MAX_KEPT`] in full and counts the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The findings kept, in the order they were made.
    pub list: Vec<Finding>,
    /// How many corruptions there are.
    pub n_corruptions: u64,
    /// How many leaks there are.
    pub n_leaks: u64,
    /// Bytes lost to leaks.
    pub leaked_bytes: u64,
    /// How many oddities there are.
    pub n_oddities: u64,
    /// Allocation units that the image stores.
    pub n_allocated_units: u64,
    /// Allocation units that the disk has.
    pub n_units: u64,
    /// Stored units that are compressed.
    pub n_compressed_units: u64,
}

impl Findings {
    /// Findings kept in full: enough for a person, bounded for a hostile file.
    pub const MAX_KEPT: usize = 1000;

    /// Adds a finding.
    pub fn add(
        &mut self,
        severity: Severity,
        file: &str,
        text: impl Into<String>,
        byte: Option<u64>,
    ) {
        match severity {
            Severity::Oddity => self.n_oddities += 1,
            Severity::Leak => self.n_leaks += 1,
            Severity::Corruption => self.n_corruptions += 1,
        }
        if self.list.len() < Self::MAX_KEPT {
            self.list.push(Finding {
                severity,
                file: file.to_owned(),
                text: text.into(),
                byte,
            });
        }
    }

    /// Adds damage that came as an error, with its file, place and byte.
    pub fn add_error(&mut self, file: &str, error: &Error) {
        let file = error
            .file()
            .map_or_else(|| file.to_owned(), |file| file.display().to_string());
        self.add(Severity::Corruption, &file, error.finding(), error.byte());
    }

    /// Takes in what was found in another file of the image.
    pub fn append(&mut self, other: Findings) {
        let room = Self::MAX_KEPT.saturating_sub(self.list.len());
        self.list.extend(other.list.into_iter().take(room));
        self.n_corruptions += other.n_corruptions;
        self.n_leaks += other.n_leaks;
        self.leaked_bytes += other.leaked_bytes;
        self.n_oddities += other.n_oddities;
        self.n_allocated_units += other.n_allocated_units;
        self.n_units += other.n_units;
        self.n_compressed_units += other.n_compressed_units;
    }

    /// Returns the worst severity found.
    pub fn worst(&self) -> Option<Severity> {
        if self.n_corruptions > 0 {
            Some(Severity::Corruption)
        } else if self.n_leaks > 0 {
            Some(Severity::Leak)
        } else if self.n_oddities > 0 {
            Some(Severity::Oddity)
        } else {
            None
        }
    }
}
