//! The code page of VMware's texts: the one that the text names, else UTF-8 if it is that, else
//! the one of the West, in which every byte is a letter.

use encoding_rs::{BIG5, EUC_KR, Encoding, GBK, SHIFT_JIS, UTF_8, WINDOWS_1252};

/// Names that Windows products write and that are no labels of the web's list.
const MORE_NAMES: [(&str, &Encoding); 6] = [
    ("windows-932", SHIFT_JIS),
    ("windows-936", GBK),
    ("windows-949", EUC_KR),
    ("windows-950", BIG5),
    ("cp932", SHIFT_JIS),
    ("cp936", GBK),
];

/// Returns the code page of that name, if it is known and has ASCII where ASCII is.
pub(crate) fn named(label: &str) -> Option<&'static Encoding> {
    let more = MORE_NAMES.iter();
    let more = more.filter(|(name, _)| label.trim().eq_ignore_ascii_case(name));
    Encoding::for_label(label.as_bytes())
        .filter(|encoding| encoding.is_ascii_compatible())
        .or_else(|| more.map(|(_, encoding)| *encoding).next())
}

/// Returns the code page of a text that names `label`, and adds what is odd about it.
pub(crate) fn choose(
    label: Option<&str>,
    is_utf8: bool,
    oddities: &mut Vec<String>,
) -> &'static Encoding {
    let known = label.and_then(named);
    if let (Some(label), None) = (label, known) {
        let label: String = label.chars().take(40).collect();
        oddities.push(format!("encoding {label:?} is not known"));
    }
    match known {
        Some(encoding) => encoding,
        None if is_utf8 => UTF_8,
        None => {
            oddities.push("the text is not UTF-8; read as windows-1252".to_owned());
            WINDOWS_1252
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vmware_and_of_windows_are_known() {
        for (label, name) in [
            ("UTF-8", "UTF-8"),
            ("windows-1252", "windows-1252"),
            ("windows-1251", "windows-1251"),
            ("GBK", "GBK"),
            ("Shift_JIS", "Shift_JIS"),
            ("Big5", "Big5"),
            ("windows-936", "GBK"),
            ("windows-932", "Shift_JIS"),
            ("ISO-8859-1", "windows-1252"),
        ] {
            assert_eq!(named(label).unwrap().name(), name);
        }
    }

    #[test]
    fn code_pages_without_ascii_are_not() {
        for label in ["UTF-16", "UTF-16LE", "ISO-2022-JP", "EBCDIC", ""] {
            assert!(named(label).is_none(), "{label}");
        }
    }

    #[test]
    fn what_names_none_is_utf8_or_of_the_west() {
        let mut oddities = Vec::new();
        assert_eq!(choose(None, true, &mut oddities), UTF_8);
        assert!(oddities.is_empty());
        assert_eq!(choose(None, false, &mut oddities), WINDOWS_1252);
        assert_eq!(choose(Some("nonsense"), true, &mut oddities), UTF_8);
        assert_eq!(oddities.len(), 2);
    }
}
