//! Texts whose bytes are not all UTF-8, such as comments in ISO 8859-1: what is changed in them is
//! ASCII, and all else has to come out as it went in.
//!
//! A byte that is no part of a character becomes one of a private use area, U+EF80 to U+EFFF. So do the
//! bytes of such characters themselves, so that the way back is never in doubt.

const FIRST: char = '\u{ef80}';
const LAST: char = '\u{efff}';

/// Makes a text of bytes.
pub(super) fn decoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                FIRST..=LAST => text.extend(c.encode_utf8(&mut [0; 4]).bytes().map(private)),
                c => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(private));
    }
    text
}

/// Returns the bytes that a text was made of.
pub(super) fn encoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // The lowest eight bits are the byte.
            FIRST..=LAST => bytes.push((u32::from(c) & 0xff) as u8),
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

/// Returns a text as people are shown it.
pub(super) fn shown(text: &str) -> String {
    text.replace(|c| (FIRST..=LAST).contains(&c), "\u{fffd}")
}

fn private(byte: u8) -> char {
    char::from_u32(0xef00 | u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_out_as_they_went_in() {
        let all: Vec<u8> = (0..=255).collect();
        let latin1 = b"# Platte f\xfcr Daten\n/dev/sda1 /\n".to_vec();
        for bytes in [all, latin1, "für \u{ef80}\u{efff}\u{f000}".into()] {
            assert_eq!(encoded(&decoded(&bytes)), bytes);
        }
        assert_eq!(decoded("für".as_bytes()), "für");
        assert_eq!(shown(&decoded(b"f\xfcr")), "f\u{fffd}r");
    }
}
