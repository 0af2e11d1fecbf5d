//! Names in directory records of 32 bytes: a short one (8.3), and before it, last part first, the
//! parts of a long one in UTF-16.

use crate::bytes::{array_at, le};

/// Parts that a long name has at most, 13 units each.
const MOST_PARTS: usize = 20;

/// The upper half of code page 437, which short names are in.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Puts the parts of long names together.
#[derive(Default)]
pub(super) struct LongName {
    units: Vec<u16>,
    /// The number of the part that was read last; 1 when the name is whole.
    part: u8,
    sum: u8,
}

impl LongName {
    /// Forgets what was read: the record is free.
    pub(super) fn clear(&mut self) {
        self.units.clear();
    }

    /// Takes in a record of attribute 0fh.
    pub(super) fn push(&mut self, record: &[u8; 32]) {
        let number = record[0] & 0x3f;
        let follows = number + 1 == self.part && record[13] == self.sum && !self.units.is_empty();
        if record[0] & 0x40 != 0 && (1..=MOST_PARTS).contains(&usize::from(number)) {
            self.units = vec![0; usize::from(number) * 13];
            self.sum = record[13];
        } else if !follows || number == 0 {
            return self.clear();
        }
        self.part = number;
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain([28, 30]);
        let first = (usize::from(number) - 1) * 13;
        for (unit, place) in self.units.iter_mut().skip(first).zip(places) {
            *unit = le::u16_at(record, place);
        }
    }

    /// Returns the long name of a short record, if what was read is one, and forgets it.
    pub(super) fn take(&mut self, record: &[u8; 32]) -> Option<String> {
        let units = std::mem::take(&mut self.units);
        let sum = record[..11]
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if units.is_empty() || self.part != 1 || sum != self.sum {
            return None;
        }
        let end = units.iter().position(|unit| *unit == 0);
        let name = String::from_utf16_lossy(units.get(..end.unwrap_or(units.len()))?);
        Some(possible(name)).filter(|name| !name.is_empty())
    }
}

/// Returns the short name of a record, in lower case where Windows NT marks it so.
pub(super) fn short(record: &[u8; 32]) -> String {
    let mut base: [u8; 8] = array_at(record, 0);
    if base[0] == 0x05 {
        base[0] = 0xe5;
    }
    let extension: [u8; 3] = array_at(record, 8);
    let mut name = part(&base, record[12] & 8 != 0);
    let extension = part(&extension, record[12] & 16 != 0);
    if !extension.is_empty() {
        name.push('.');
        name.push_str(&extension);
    }
    possible(name)
}

/// Returns a label: 11 characters, blanks at the end.
pub(super) fn label(bytes: &[u8; 11]) -> String {
    part(bytes, false)
}

fn part(bytes: &[u8], is_lower: bool) -> String {
    let text: String = bytes.iter().map(|byte| character(*byte)).collect();
    let text = text.trim_end_matches(' ');
    if is_lower {
        text.to_lowercase()
    } else {
        text.to_owned()
    }
}

fn character(byte: u8) -> char {
    match byte {
        0..=0x7f => char::from(byte),
        byte => CP437
            .chars()
            .nth(usize::from(byte - 0x80))
            .unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

/// Replaces what no name can have.
fn possible(name: String) -> String {
    name.replace(['/', '\0'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &[u8; 11], case: u8) -> [u8; 32] {
        let mut record = [0; 32];
        record[..11].copy_from_slice(name);
        record[12] = case;
        record
    }

    #[test]
    fn short_names_have_their_case_and_code_page() {
        assert_eq!(short(&record(b"README  TXT", 0)), "README.TXT");
        assert_eq!(short(&record(b"README  TXT", 8)), "readme.TXT");
        assert_eq!(short(&record(b"README  TXT", 24)), "readme.txt");
        assert_eq!(short(&record(b"A/B        ", 0)), "A\u{fffd}B");
        assert_eq!(short(&record(b"\x9aBER    \xe1  ", 0)), "ÜBER.ß");
        assert_eq!(short(&record(b"\x05X         ", 0)), "σX");
        assert_eq!(CP437.chars().count(), 128);
    }

    #[test]
    fn parts_out_of_order_or_of_another_name_are_no_long_name() {
        let own = record(b"LONGNA~1TXT", 0);
        let sum = own[..11]
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let part = |number: u8, sum: u8| {
            let mut part = [b'a'; 32];
            part[0] = number;
            part[13] = sum;
            part
        };
        for (parts, is_long) in [
            (vec![part(0x42, sum), part(1, sum)], true),
            (vec![part(0x43, sum), part(1, sum)], false),
            (vec![part(0x42, sum)], false),
            (vec![part(1, sum)], false),
            (vec![part(0x42, sum), part(1, sum ^ 1)], false),
            (vec![part(0x42, sum ^ 1), part(1, sum ^ 1)], false),
            (vec![part(0x40, sum)], false),
            (vec![part(0x7f, sum), part(0, sum)], false),
        ] {
            let mut long = LongName::default();
            parts.iter().for_each(|part| long.push(part));
            assert_eq!(long.take(&own).is_some(), is_long, "{parts:?}");
        }
    }
}
