//! The extent lines of a descriptor: `RW 4192256 SPARSE "disk-s001.vmdk"`.

/// What may be done with an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentAccess {
    /// RW.
    ReadWrite,
    /// RDONLY.
    ReadOnly,
    /// NOACCESS.
    NoAccess,
}

impl ExtentAccess {
    const ALL: [Self; 3] = [Self::ReadWrite, Self::ReadOnly, Self::NoAccess];

    /// Returns the word that descriptors use.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadWrite => "RW",
            Self::ReadOnly => "RDONLY",
            Self::NoAccess => "NOACCESS",
        }
    }
}

/// How an extent is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentType {
    /// Plain bytes in a file or on a device.
    Flat,
    /// Plain bytes in a file on VMFS.
    Vmfs,
    /// A hosted sparse or streamOptimized file.
    Sparse,
    /// Zeros; no file.
    Zero,
    /// A COWD file.
    VmfsSparse,
    /// An SESparse file.
    SeSparse,
    /// A raw device, mapped.
    VmfsRdm,
    /// A raw device.
    VmfsRaw,
}

impl ExtentType {
    const ALL: [Self; 8] = [
        Self::Flat,
        Self::Vmfs,
        Self::Sparse,
        Self::Zero,
        Self::VmfsSparse,
        Self::SeSparse,
        Self::VmfsRdm,
        Self::VmfsRaw,
    ];

    /// Returns the word that descriptors use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Flat => "FLAT",
            Self::Vmfs => "VMFS",
            Self::Sparse => "SPARSE",
            Self::Zero => "ZERO",
            Self::VmfsSparse => "VMFSSPARSE",
            Self::SeSparse => "SESPARSE",
            Self::VmfsRdm => "VMFSRDM",
            Self::VmfsRaw => "VMFSRAW",
        }
    }

    /// Returns whether the extent is a file with tables of its own.
    pub fn is_sparse(self) -> bool {
        matches!(self, Self::Sparse | Self::VmfsSparse | Self::SeSparse)
    }
}

/// One extent line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentLine {
    /// What may be done with it.
    pub access: ExtentAccess,
    /// Its length in sectors.
    pub n_sectors: u64,
    /// How it is stored.
    pub kind: ExtentType,
    /// The file, relative to the descriptor; ZERO and some NOACCESS extents have none.
    pub file: Option<String>,
    /// Where in the file it begins, in sectors.
    pub offset_sectors: u64,
}

/// Parses a line without blanks around it. `None`: no extent line. Errors are texts: what is wrong.
pub fn parse_extent_line(line: &str) -> Result<Option<ExtentLine>, String> {
    let (access_word, rest) = split_word(line);
    let (sectors_word, rest) = split_word(rest);
    let access = ExtentAccess::ALL
        .into_iter()
        .find(|access| access.word().eq_ignore_ascii_case(access_word));
    let numeric = sectors_word.starts_with(|char: char| char.is_ascii_digit());
    let access = match access {
        Some(access) if !sectors_word.starts_with('=') => access,
        _ if line.starts_with('#') || access_word.contains('=') || !numeric => return Ok(None),
        _ => return Err(format!("access {access_word:?} is not known")),
    };
    let n_sectors = sectors_word
        .parse()
        .map_err(|_| format!("{sectors_word:?} is no number of sectors"))?;
    let (kind_word, rest) = split_word(rest);
    let kind = ExtentType::ALL
        .into_iter()
        .find(|kind| kind.word().eq_ignore_ascii_case(kind_word));
    let (file, rest) = split_file(rest)?;
    let (offset_word, _) = split_word(rest);
    let offset_sectors = if offset_word.starts_with(|char: char| char.is_ascii_alphabetic()) {
        // Further fields (partitionUUID) without an offset before them.
        0
    } else if offset_word.is_empty() {
        0
    } else {
        offset_word
            .parse()
            .map_err(|_| format!("{offset_word:?} is no offset in sectors"))?
    };
    let kind = match kind {
        Some(kind) => kind,
        // Nothing of it will be opened, so how it is stored does not matter.
        None if access == ExtentAccess::NoAccess => ExtentType::Zero,
        None => return Err(format!("extent type {kind_word:?} is not known")),
    };
    if file.is_none() && kind != ExtentType::Zero && access != ExtentAccess::NoAccess {
        return Err(format!("a {} extent without a file name", kind.word()));
    }
    Ok(Some(ExtentLine {
        access,
        n_sectors,
        kind,
        file,
        offset_sectors,
    }))
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    text.split_at(end)
}

fn split_file(text: &str) -> Result<(Option<String>, &str), String> {
    let text = text.trim_start();
    if let Some(quoted) = text.strip_prefix('"') {
        let Some((name, rest)) = quoted.split_once('"') else {
            return Err("a file name without its closing quote".to_owned());
        };
        return Ok(((!name.is_empty()).then(|| name.to_owned()), rest));
    }
    let (word, rest) = split_word(text);
    Ok(((!word.is_empty()).then(|| word.to_owned()), rest))
}
