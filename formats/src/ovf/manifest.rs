//! Manifests (`.mf`): the digests of the files of a package (DSP0243, 7.1), one line each:
//! `SHA256(disk1.vmdk)= 0123…`. A text that is cut off or has a line that is none is refused: a
//! manifest that is read in part verifies nothing.

use std::collections::HashMap;

use hako_block::{Error, ErrorKind, Result};

use crate::digest::{Algorithm, hex};

/// Longest manifest, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// The digest of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The file's name, as the envelope has it.
    pub file: String,
    /// How the digest is made.
    pub algorithm: Algorithm,
    /// The digest; as long as the algorithm says.
    pub digest: Vec<u8>,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Its lines, in the order of the text. A file may be there with several algorithms.
    pub entries: Vec<ManifestEntry>,
}

impl Manifest {
    /// Reads a manifest. Blanks are taken before `(`, around `=` and at a line's end, and digests in
    /// any case, as products write them. Errors: [`hako_block::ErrorKind::Corrupt`] with the line
    /// for one that is none, and for two different digests of a file by one algorithm;
    /// [`hako_block::ErrorKind::Unsupported`] for an unknown algorithm.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::unsupported(format!(
                "a manifest of {} bytes",
                bytes.len()
            )));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::corrupt("text", "is not valid UTF-8").at_byte(error.valid_up_to() as u64)
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut manifest = Manifest::default();
        let mut seen = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let place = format!("line {}", index + 1);
            let entry = read_line(line).map_err(|error| error.place(&place))?;
            let key = (entry.file.clone(), entry.algorithm.name());
            match seen.insert(key, entry.digest.clone()) {
                None => manifest.entries.push(entry),
                Some(digest) if digest == entry.digest => {}
                Some(_) => {
                    let name = entry.algorithm.name();
                    let what = format!("has a second, different {name} of {:?}", entry.file);
                    return Err(Error::corrupt(place, what));
                }
            }
        }
        Ok(manifest)
    }

    /// Returns the digest of a file by an algorithm.
    pub fn digest(&self, file: &str, algorithm: Algorithm) -> Option<&[u8]> {
        let of_file = |entry: &&ManifestEntry| entry.file == file && entry.algorithm == algorithm;
        self.entries
            .iter()
            .find(of_file)
            .map(|entry| entry.digest.as_slice())
    }

    /// Returns what is known of a file; empty if it is not in the manifest.
    pub fn of_file<'a>(&'a self, file: &'a str) -> impl Iterator<Item = &'a ManifestEntry> {
        self.entries.iter().filter(move |entry| entry.file == file)
    }

    /// Returns the text: one line per entry, as every reader takes it.
    pub fn render(&self) -> String {
        self.entries
            .iter()
            .map(|entry| {
                format!(
                    "{}({})= {}\n",
                    entry.algorithm.name(),
                    entry.file,
                    hex(&entry.digest)
                )
            })
            .collect()
    }
}

/// A name may have parentheses of its own: the last one before `=` ends it.
fn read_line(line: &str) -> Result<ManifestEntry> {
    let wrong = |what: String| Error::new(ErrorKind::Corrupt, what);
    let parts = || {
        let (algorithm, rest) = line.split_once('(')?;
        let (name, digest) = rest.rsplit_once('=')?;
        Some((
            algorithm.trim(),
            name.trim_end().strip_suffix(')')?,
            digest.trim(),
        ))
    };
    let (algorithm, file, digest) =
        parts().ok_or_else(|| wrong("is not like SHA256(file)= digest".to_owned()))?;
    let algorithm: Algorithm = algorithm.parse()?;
    if file.is_empty() {
        return Err(wrong("names no file".to_owned()));
    }
    let digest = read_hex(digest)
        .filter(|digest| digest.len() == algorithm.digest_bytes())
        .ok_or_else(|| {
            wrong(format!(
                "a {} has {} digits",
                algorithm.name(),
                algorithm.digest_bytes() * 2
            ))
        })?;
    Ok(ManifestEntry {
        file: file.to_owned(),
        algorithm,
        digest,
    })
}

fn read_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    fn sha1() -> Vec<u8> {
        read_hex(SHA1).unwrap()
    }

    #[test]
    fn lines_of_every_product_are_read() {
        let sha256 = "ab".repeat(32);
        let sha512 = "CD".repeat(64);
        let text = format!(
            "SHA1(a.ovf)= {SHA1}\r\n\r\nSHA256 (disk 1.vmdk) = {sha256}\nSHA512(b(2).iso)={sha512}"
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        let names: Vec<_> = manifest
            .entries
            .iter()
            .map(|entry| entry.file.as_str())
            .collect();
        assert_eq!(names, ["a.ovf", "disk 1.vmdk", "b(2).iso"]);
        assert_eq!(manifest.digest("a.ovf", Algorithm::Sha1), Some(&sha1()[..]));
        assert_eq!(
            manifest.digest("b(2).iso", Algorithm::Sha512),
            Some(&[0xcd; 64][..])
        );
        assert_eq!(manifest.digest("a.ovf", Algorithm::Sha256), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let entry = |file: &str, algorithm: Algorithm| ManifestEntry {
            file: file.to_owned(),
            algorithm,
            digest: vec![0x5a; algorithm.digest_bytes()],
        };
        let manifest = Manifest {
            entries: vec![
                entry("x.ovf", Algorithm::Sha256),
                entry("x=1).vmdk", Algorithm::Sha512),
                entry("x.ovf", Algorithm::Sha1),
            ],
        };
        assert_eq!(
            Manifest::parse(manifest.render().as_bytes()).unwrap(),
            manifest
        );
        assert!(manifest.render().starts_with("SHA256(x.ovf)= 5a5a"));
    }

    #[test]
    fn lines_that_are_none_are_refused() {
        for (text, what) in [
            ("hello", "is not like"),
            ("SHA1(a.ovf) da39", "is not like"),
            ("SHA1 a.ovf= da39", "is not like"),
            (
                "SHA1()= da39a3ee5e6b4b0d3255bfef95601890afd80709",
                "names no file",
            ),
            ("SHA1(a)= da39", "has 40 digits"),
            (
                "SHA1(a)= za39a3ee5e6b4b0d3255bfef95601890afd80709",
                "has 40 digits",
            ),
            (
                "SHA1(a)= da39a3ee5e6b4b0d3255bfef95601890afd8070",
                "has 40 digits",
            ),
            ("SHA1(a)=", "has 40 digits"),
            ("MD5(a)= d41d8cd98f00b204e9800998ecf8427e", "is known"),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(what) && error.contains("line 1"),
                "{text}: {error}"
            );
        }
        assert!(Manifest::parse(b"SHA1(\xff)= 00").is_err());
    }

    #[test]
    fn a_file_may_be_there_twice_only_with_the_same_digest() {
        let line = format!("SHA1(a)= {SHA1}\n");
        let manifest = Manifest::parse(line.repeat(2).as_bytes()).unwrap();
        assert_eq!(manifest.entries.len(), 1);
        let other = format!("{line}SHA1(a)= {}\n", "0".repeat(40));
        let error = Manifest::parse(other.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("different"),
            "{error}"
        );
    }

    #[test]
    fn its_own_name_in_it_is_a_file_like_others() {
        let text = format!("SHA1(own.mf)= {SHA1}\n");
        assert_eq!(
            Manifest::parse(text.as_bytes()).unwrap().entries[0].file,
            "own.mf"
        );
    }
}
