//! Texts that are hostile, or in another encoding.

use hako_block::ErrorKind;

use super::{NAMESPACES, envelope, read, refusal};
use crate::ovf::{Envelope, xml};

#[test]
fn entities_and_document_types_are_refused() {
    let bomb = r#"<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><Envelope>&b;</Envelope>"#;
    let error = refusal(bomb);
    assert!(
        error.contains("line 2: a document type definition"),
        "{error}"
    );
    let external = r#"<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>"#;
    assert!(refusal(external).contains("document type"), "{external}");
    for text in ["<x>&xxe;</x>", "<x a=\"&xxe;\"/>"] {
        let error = refusal(text);
        assert!(error.contains("line 1: is no well-formed XML"), "{error}");
    }
}

#[test]
fn the_entities_of_xml_itself_and_characters_by_number_are_read() {
    let root =
        xml::parse(b"<x a=\"&lt;&#x41;&#10;&quot;\n\">&amp;&gt;&apos;&#66;<![CDATA[<&]]></x>");
    let root = root.unwrap();
    assert_eq!(root.attributes[0].value, "<A\n\" ");
    assert_eq!(root.text, "&>'B<&");
    for text in [
        "<x>&#0;</x>",
        "<x>&#1;</x>",
        "<x>&#xd800;</x>",
        "<x>&#x110000;</x>",
        "<x>\u{1}</x>",
    ] {
        assert!(xml::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn nesting_elements_attributes_and_prefixes_are_counted() {
    let deep = "<a>".repeat(100_000);
    let many = format!("<a>{}</a>", "<b/>".repeat(60_000));
    let attributes: String = (0..100).map(|n| format!(" a{n}=\"\"")).collect();
    let prefixes: String = (0..100).map(|n| format!(" xmlns:p{n}=\"u\"")).collect();
    let few: String = (0..40).map(|n| format!(" xmlns:p{n}=\"u\"")).collect();
    for (text, what) in [
        (deep, "64 deep"),
        (many, "50000 elements"),
        (format!("<a{attributes}/>"), "64 attributes"),
        (format!("<a{prefixes}/>"), "64 attributes"),
        (
            format!("<a{few}><a{few}/></a>"),
            "binds more than 64 prefixes",
        ),
        (" ".repeat(xml::MAX_BYTES + 1), "longer than"),
    ] {
        let error = xml::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn texts_that_are_no_xml_are_refused_with_the_line() {
    for (text, what) in [
        ("", "has no element"),
        ("just words", "has text outside"),
        ("<a>\n<b>\n</a>", "line 3"),
        ("<a>\n<b>", "line 2: <b> has no end"),
        ("<a/><b/>", "a second element"),
        ("<a/>\nmore", "has text outside"),
        ("<a b=1/>", "no well-formed"),
        ("<a b='1' b='2'/>", "the attribute b twice"),
        ("<a", "no well-formed"),
        ("<a>&amp</a>", "no well-formed"),
        ("</a>", "no well-formed"),
        (
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
            "has no element",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(what), "{text}: {error}");
    }
}

#[test]
fn every_encoding_that_is_declared_or_marked_is_read() {
    let text = envelope("<NetworkSection><Info>grün ☃</Info></NetworkSection>", "");
    let expected = read(&text);
    let utf16 = |to_bytes: fn(u16) -> [u8; 2], mark: bool| -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        mark.into_iter()
            .chain(text.encode_utf16())
            .flat_map(to_bytes)
            .collect()
    };
    for bytes in [
        format!("\u{feff}{text}").into_bytes(),
        format!("<?xml version='1.0' encoding = 'utf-8'?>{text}").into_bytes(),
        utf16(u16::to_le_bytes, true),
        utf16(u16::to_be_bytes, true),
        utf16(u16::to_le_bytes, false),
        utf16(u16::to_be_bytes, false),
    ] {
        assert_eq!(Envelope::parse(&bytes).unwrap(), expected);
    }
    let latin = text.replace('☃', "");
    let declared = format!("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>{latin}");
    let (bytes, ..) = encoding_rs::WINDOWS_1252.encode(&declared);
    assert_eq!(Envelope::parse(&bytes).unwrap(), read(&latin));
}

#[test]
fn encodings_that_are_wrong_or_unknown_are_refused() {
    for (bytes, what) in [
        (
            &b"<?xml version=\"1.0\" encoding=\"EBCDIC-US\"?><a/>"[..],
            "EBCDIC-US",
        ),
        (
            b"<?xml version=\"1.0\" encoding=\"UTF-16\"?><a/>",
            "one byte per character",
        ),
        (b"<a>\xff</a>", "not valid UTF-8 (byte 0x3)"),
        (b"\xff\xfe\0\0<\0\0\0", "UTF-32"),
        (b"\xff\xfe<\0a\0/\0>", "not valid UTF-16LE"),
    ] {
        let error = Envelope::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn prefixes_are_read_by_what_they_stand_for() {
    let text = envelope("", "");
    let renamed = text
        .replace("xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\"", "")
        .replace("xmlns:ovf=", "xmlns:z=")
        .replace("ovf:id", "z:id")
        .replace("xmlns:rasd=", "xmlns:q=")
        .replace("<rasd:", "<q:")
        .replace("</rasd:", "</q:");
    assert_eq!(read(&renamed).systems, read(&text).systems);
    let other = text.replace(
        NAMESPACES,
        "xmlns=\"http://example.com/\" xmlns:ovf=\"http://example.com/\"",
    );
    assert!(refusal(&other).contains("no namespace of OVF"));
}
