//! The description of an exported machine, and what is recorded of its disks' content.
//!
//! The SHA-256 of what the guest sees of each disk stands in a comment behind the envelope, in the
//! manner of a manifest: other readers pass over it, and the manifest covers it.

use hako_block::Result;
use hako_formats::digest::Algorithm;
use hako_formats::ovf::{Manifest, ManifestEntry};

const BEGIN: &str = "<!-- hako: what the guest sees of each disk, zeros included\n";
const END: &str = "-->\n";

/// Returns the comment with the content of these disks: file and SHA-256. File names are free of
/// `--`.
pub(super) fn contents_comment(contents: &[(String, [u8; 32])]) -> String {
    if contents.is_empty() {
        return String::new();
    }
    let entries = contents.iter().map(|(file, digest)| ManifestEntry {
        file: file.clone(),
        algorithm: Algorithm::Sha256,
        digest: digest.to_vec(),
    });
    let lines = Manifest {
        entries: entries.collect(),
    };
    format!("{BEGIN}{}{END}", lines.render())
}

/// Returns what a description records of its disks' content: file and SHA-256.
pub(crate) fn recorded_contents(description: &str) -> Result<Vec<(String, [u8; 32])>> {
    let Some(start) = description.rfind(BEGIN) else {
        return Ok(Vec::new());
    };
    let rest = &description[start + BEGIN.len()..];
    let lines = rest.split_once(END).map_or(rest, |(lines, _)| lines);
    let manifest = Manifest::parse(lines.as_bytes())?;
    let digests = manifest.entries.into_iter().filter_map(|entry| {
        let digest = <[u8; 32]>::try_from(entry.digest).ok()?;
        Some((entry.file, digest))
    });
    Ok(digests.collect())
}

/// Returns a name for files that every reader of a package takes: letters, digits, `.`, `_`, and
/// single `-`.
pub(crate) fn portable_stem(name: &str) -> String {
    const MAX_BYTES: usize = 60;
    let mut stem = String::new();
    for letter in name.chars() {
        let letter = match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' => letter,
            _ => '-',
        };
        let is_doubled = letter == '-' && (stem.is_empty() || stem.ends_with('-'));
        if !is_doubled && stem.len() < MAX_BYTES {
            stem.push(letter);
        }
    }
    let stem = stem.trim_end_matches(['-', '.']).trim_start_matches('.');
    match stem {
        "" => "machine".to_owned(),
        stem => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_read_as_they_were_written() {
        let contents = vec![
            ("a-disk1.vmdk".to_owned(), [7; 32]),
            ("b".to_owned(), [9; 32]),
        ];
        let text = format!("<Envelope/>\n{}    ", contents_comment(&contents));
        assert_eq!(recorded_contents(&text).unwrap(), contents);
        assert_eq!(recorded_contents("<Envelope/>").unwrap(), []);
        assert_eq!(contents_comment(&[]), "");
    }

    #[test]
    fn names_become_portable() {
        for (name, expected) in [
            ("web", "web"),
            ("Web server (2)", "Web-server-2"),
            ("über--x", "ber-x"),
            ("../..", "machine"),
            ("a.", "a"),
        ] {
            assert_eq!(portable_stem(name), expected, "{name}");
        }
        assert_eq!(portable_stem(&"n".repeat(300)).len(), 60);
    }
}
