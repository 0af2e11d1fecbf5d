use std::path::PathBuf;

use hako_block::ErrorKind;
use hako_block::testkit::Rng;

use super::*;

fn parsed(text: &str) -> Dictionary {
    Dictionary::parse(text.as_bytes()).unwrap()
}

fn text(dictionary: &Dictionary) -> String {
    String::from_utf8(dictionary.to_bytes()).unwrap()
}

fn edited(before: &str, edit: impl FnOnce(&mut Dictionary)) -> String {
    let mut dictionary = parsed(before);
    edit(&mut dictionary);
    text(&dictionary)
}

/// Everything that is odd and allowed.
const ODD: &str = "#!/usr/bin/vmware\r\n.encoding = \"UTF-8\"\n\n  # note = \"kept\"\n\
    displayName=\"Straße\" # by hand\n\tmemSize\t=\t512\t\nscsi0:0.virtualSSD = 1\r\n\
    what is this\nempty =\nscsi0:0.fileName = \"a|22b|7Cc.vmdk\"\nguestinfo.a|b = \"x | y |zz\"\n\
    scsi0:1.present = \"TRUE\n";

#[test]
fn what_was_read_is_written_back_byte_for_byte() {
    let endless = ODD.trim_end();
    let bom = format!("\u{feff}{ODD}");
    let windows = ODD.replace("\r\n", "\n").replace('\n', "\r\n");
    for text in [
        "", "\n", "a", "a = b", ODD, endless, &bom, &windows, "\u{feff}",
    ] {
        assert_eq!(parsed(text).to_bytes(), text.as_bytes());
    }
}

#[test]
fn keys_have_no_case_and_values_lose_their_escapes() {
    let dictionary = parsed(ODD);
    for (key, value) in [
        ("DISPLAYNAME", "Straße"),
        ("memsize", "512"),
        ("scsi0:0.virtualssd", "1"),
        ("empty", ""),
        ("scsi0:0.filename", "a\"b|c.vmdk"),
        ("guestinfo.A|B", "x | y |zz"),
        ("scsi0:1.present", "TRUE"),
    ] {
        assert_eq!(dictionary.value(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(dictionary.value("note"), None);
    assert!(dictionary.is_true("scsi0:1.present"));
    let keys: Vec<&str> = dictionary.entries().map(|(key, _)| key).collect();
    assert_eq!(keys[..3], [".encoding", "displayName", "memSize"]);
}

#[test]
fn what_is_odd_is_told_with_its_line() {
    let text =
        format!("{ODD}a = two words\nb = \"quotes \"in\" quotes\"\nc = \"x\" y\nMEMSIZE = 1\n");
    let dictionary = parsed(&text);
    let oddities = dictionary.oddities().join("\n");
    for expected in [
        "line 8 is not understood",
        "line 12: VMware does not understand how \"scsi0:1.present\" is written",
        "line 13: VMware does not understand how \"a\" is written",
        "line 14: VMware does not understand how \"b\" is written",
        "line 15: VMware does not understand how \"c\" is written",
        "line 16: \"MEMSIZE\" is there again; the first counts",
    ] {
        assert!(oddities.contains(expected), "{expected}: {oddities}");
    }
    assert_eq!(dictionary.oddities().len(), 6);
    assert_eq!(dictionary.value("a").unwrap(), "two words");
    assert_eq!(dictionary.value("b").unwrap(), "quotes \"in\" quotes");
    assert_eq!(dictionary.value("c").unwrap(), "x");
    assert_eq!(dictionary.value("memsize").unwrap(), "512");
    let many = "?\n".repeat(1000);
    assert!(parsed(&many).oddities().len() < 100);
}

#[test]
fn an_edit_changes_its_line_alone() {
    let after = edited(ODD, |dictionary| {
        dictionary.set("DisplayName", "new \"name\"").unwrap();
        dictionary.set("memsize", "1024").unwrap();
        dictionary.set("scsi0:0.virtualSSD", "a b").unwrap();
        dictionary.set("EMPTY", "x").unwrap();
        dictionary.set("scsi0:1.present", "TRUE").unwrap();
        dictionary.set("scsi0:0.fileName", "a\"b|c.vmdk").unwrap();
    });
    let wanted = ODD
        .replace("\"Straße\"", "\"new |22name|22\"")
        .replace("512", "1024")
        .replace("virtualSSD = 1", "virtualSSD = \"a b\"")
        .replace("empty =", "empty =x")
        .replace("\"TRUE\n", "\"TRUE\"\n");
    assert_eq!(after, wanted);
}

#[test]
fn new_keys_come_behind_their_device() {
    let before = "memsize = \"4\"\r\nscsi0.present = \"TRUE\"\r\nscsi0:0.present = \"TRUE\"\r\n\
        ide1:0.present = \"TRUE\"\r\nSCSI0:0.fileName = \"a\"\r\nend = \"1\"";
    let after = edited(before, |dictionary| {
        dictionary.set("scsi0:0.mode", "persistent").unwrap();
        dictionary.set("scsi0:1.present", "TRUE").unwrap();
        dictionary.set("scsi0.virtualDev", "pvscsi").unwrap();
        dictionary.set("numvcpus", "2").unwrap();
    });
    let wanted = before
        .replace(
            "\"a\"\r\n",
            "\"a\"\r\nscsi0:0.mode = \"persistent\"\r\nscsi0:1.present = \"TRUE\"\r\n",
        )
        .replace(
            "scsi0.present = \"TRUE\"\r\n",
            "scsi0.present = \"TRUE\"\r\nscsi0.virtualDev = \"pvscsi\"\r\n",
        );
    assert_eq!(after, format!("{wanted}\r\nnumvcpus = \"2\""));
}

#[test]
fn a_last_line_that_is_open_is_closed_before_the_next() {
    let with_b = |before: &str| edited(before, |dictionary| dictionary.set("b", "2").unwrap());
    assert_eq!(with_b(""), "b = \"2\"\n");
    assert_eq!(with_b("a = \"1\""), "a = \"1\"\nb = \"2\"");
    assert_eq!(with_b("a = \"1\"\r"), "a = \"1\"\r\nb = \"2\"");
    assert_eq!(with_b("x\r\na = \"1\""), "x\r\na = \"1\"\r\nb = \"2\"");
}

#[test]
fn setting_a_key_that_is_there_twice_leaves_the_first_line() {
    let before = "a = \"1\"\nb = \"x\"\nA = \"2\"\nc.d = \"y\"\na = \"3\"\n";
    let set =
        |value: &'static str| edited(before, |dictionary| dictionary.set("a", value).unwrap());
    assert_eq!(set("2"), "a = \"2\"\nb = \"x\"\nc.d = \"y\"\n");
    assert_eq!(set("1"), "a = \"1\"\nb = \"x\"\nc.d = \"y\"\n");
    assert!(parsed(&set("1")).oddities().is_empty());
}

#[test]
fn keys_and_devices_are_removed_with_every_line() {
    let before = "ethernet0.present = \"1\"\nEthernet0.address = \"2\"\nethernet01.x = \"3\"\n\
        ethernet0 = \"4\"\n# ethernet0.y\na = \"5\"\nA = \"6\"";
    let mut dictionary = parsed(before);
    assert_eq!(dictionary.remove_tree("ethernet0"), 2);
    assert!(dictionary.remove("a"));
    assert!(!dictionary.remove("a"));
    assert_eq!(
        text(&dictionary),
        "ethernet01.x = \"3\"\nethernet0 = \"4\"\n# ethernet0.y\n"
    );
}

#[test]
fn values_are_decoded_by_the_code_page_after_their_escapes() {
    let page = |name: &str, value: &[u8]| {
        let start = format!(".encoding = \"{name}\"\ndisplayName = \"");
        let bytes = [start.as_bytes(), value, b"\"\n"].concat();
        let dictionary = Dictionary::parse(&bytes).unwrap();
        assert_eq!(dictionary.to_bytes(), bytes);
        dictionary.value("displayname").unwrap()
    };
    assert_eq!(page("windows-1252", b"M\xfcller"), "Müller");
    assert_eq!(page("windows-1252", b"M|FCller"), "Müller");
    assert_eq!(page("UTF-8", b"M|C3|bcller"), "Müller");
    assert_eq!(page("windows-1251", b"\xcc\xe8\xf0"), "Мир");
    assert_eq!(page("GBK", b"\xd0\xe9\xc4\xe2"), "虚拟");
    assert_eq!(page("Big5", b"\xb5\xea"), "虛");
    // The second byte of ポ is that of `|`.
    assert_eq!(page("Shift_JIS", b"\x83|7Ca"), "ポa");
    assert_eq!(page("Shift_JIS", b"\x83|"), "ポ");
}

#[test]
fn a_text_that_names_no_code_page_is_utf8_or_of_the_west() {
    assert_eq!(parsed("a = \"ü\"\n").value("a").unwrap(), "ü");
    let west = Dictionary::parse(b"a = \"\xfc\"\nb = \"|e9\"\n").unwrap();
    assert_eq!(west.value("a").unwrap(), "ü");
    assert_eq!(west.value("b").unwrap(), "é");
    assert_eq!(west.encoding_name(), "windows-1252");
    assert_eq!(west.oddities().len(), 1);
    let lost = Dictionary::parse(b".encoding = \"UTF-8\"\na = \"\xfc\"\n").unwrap();
    assert_eq!(
        lost.oddities(),
        ["line 2: the value of \"a\" is not valid UTF-8"]
    );
}

#[test]
fn edits_keep_the_code_page_and_refuse_what_it_lacks() {
    let bytes = b".encoding = \"Shift_JIS\"\nannotation = \"x\"\n";
    let mut dictionary = Dictionary::parse(bytes).unwrap();
    dictionary.set("annotation", "ポート|能\n").unwrap();
    let written = dictionary.to_bytes();
    let value = b"\"\x83|7C\x81[\x83g|7C\x94\\|0A\"";
    assert!(written.windows(value.len()).any(|piece| piece == value));
    let again = Dictionary::parse(&written).unwrap();
    assert_eq!(again.value("annotation").unwrap(), "ポート|能\n");
    let error = dictionary.set("annotation", "Ünder 🙂").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("Shift_JIS"), "{error}");
    assert!(error.hint_text().is_some());
    assert_eq!(
        dictionary.to_bytes(),
        written,
        "a refused edit changes nothing"
    );

    let mut unknown = parsed(".encoding = \"EBCDIC\"\na = \"1\"\n");
    unknown.set("a", "2").unwrap();
    assert!(unknown.set("a", "ü").is_err());
}

#[test]
fn the_first_letter_beyond_ascii_brings_the_name_of_the_code_page() {
    let after = edited("#!/usr/bin/vmware\na = \"1\"\n", |dictionary| {
        dictionary.set("a", "ü").unwrap();
    });
    assert_eq!(
        after,
        "#!/usr/bin/vmware\n.encoding = \"UTF-8\"\na = \"ü\"\n"
    );
}

#[test]
fn a_code_page_that_was_guessed_is_named_before_another_would_be() {
    let mut dictionary = Dictionary::parse(b"a = \"\xfc\"\nb = \"\xc3\xbc\"\n").unwrap();
    assert_eq!(dictionary.value("b").unwrap(), "Ã¼");
    dictionary.set("a", "u").unwrap();
    let written = dictionary.to_bytes();
    assert!(written.starts_with(b".encoding = \"windows-1252\"\n"));
    assert_eq!(
        Dictionary::parse(&written).unwrap().value("b").unwrap(),
        "Ã¼"
    );
}

#[test]
fn the_code_page_of_letters_that_are_there_stays() {
    let mut dictionary =
        Dictionary::parse(b".encoding = \"windows-1251\"\na = \"\xcc\"\n").unwrap();
    assert!(dictionary.set(".encoding", "UTF-8").is_err());
    assert!(!dictionary.remove(".encoding"));
    assert_eq!(dictionary.remove_tree(""), 0);
    dictionary.set("a", "x").unwrap();
    dictionary.set(".Encoding", "UTF-8").unwrap();
    dictionary.set("a", "ü").unwrap();
    assert_eq!(text(&dictionary), ".encoding = \"UTF-8\"\na = \"ü\"\n");
}

#[test]
fn control_characters_are_escaped_and_nul_is_refused() {
    let mut dictionary = Dictionary::new();
    dictionary.set("a", "\u{1}\t\r\n\u{7f}").unwrap();
    assert_eq!(
        text(&dictionary),
        ".encoding = \"UTF-8\"\na = \"|01\t|0D|0A|7F\"\n"
    );
    assert!(dictionary.set("a", "x\0").is_err());
    for key in ["", "a b", "a=b", "#a", "\"a\"", "ä", &"k".repeat(2000)] {
        assert!(dictionary.set(key, "x").is_err(), "{key}");
    }
    assert!(dictionary.set("a", &"x".repeat(MAX_BYTES)).is_err());
}

#[test]
fn what_is_no_dictionary_is_refused() {
    for (bytes, what) in [
        (&b"KDMV\x01\0\0\0"[..], "disk image"),
        (b"# Disk DescriptorFile\nversion=1\n", "disk image"),
        (b"\xef\xbb\xbf# disk descriptorfile\r\n", "disk image"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"\xfe\xff\0a", "UTF-16"),
        (b"a = \"b\"\n\0", "binary"),
    ] {
        let error = Dictionary::parse(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(what), "{error}");
    }
    for bytes in ["x".repeat(MAX_BYTES + 1), "\n".repeat(MAX_LINES)] {
        let error = Dictionary::parse(bytes.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn any_value_comes_back_as_it_was_set() {
    let mut rng = Rng::new(7);
    let letters: Vec<char> = "ab|\"#= \t\n\r\\7C22éポ能🙂".chars().collect();
    let mut dictionary = parsed(ODD);
    for round in 0..2000 {
        let value: String = (0..rng.below(0..12))
            .map(|_| letters[rng.below(0..letters.len() as u64) as usize])
            .collect();
        let key = ["displayname", "memsize", "empty", "new.key"][rng.below(0..4) as usize];
        dictionary.set(key, &value).unwrap();
        let again = Dictionary::parse(&dictionary.to_bytes()).unwrap();
        assert_eq!(again.value(key).unwrap(), value, "round {round}");
        assert_eq!(again.to_bytes(), dictionary.to_bytes());
    }
}

/// The VMX files of other people's virtual machines.
pub(crate) fn real_files() -> Vec<(String, Vec<u8>)> {
    let Some(corpus) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
        eprintln!("SKIPPED: HAKO_CORPUS is not set, NO REAL VMX IS TESTED");
        return Vec::new();
    };
    let files = std::fs::read_dir(corpus.join("virt-v2v")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let of_vmx = paths.filter(|path| path.extension().is_some_and(|end| end == "vmx"));
    let mut files: Vec<_> = of_vmx
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() >= 4);
    files
}

#[test]
fn random_edits_of_real_files_leave_all_other_lines_identical() {
    let mut rng = Rng::new(1);
    for (name, bytes) in real_files() {
        let lf = String::from_utf8(bytes.clone())
            .unwrap()
            .replace("\r\n", "\n");
        let crlf = lf.replace('\n', "\r\n");
        for bytes in [bytes, lf.into_bytes(), crlf.into_bytes()] {
            let real = Dictionary::parse(&bytes).unwrap();
            assert_eq!(real.to_bytes(), bytes, "{name}");
            assert_eq!(real.oddities(), [""; 0], "{name}");
            for _ in 0..300 {
                one_edit(&real, &bytes, &mut rng);
            }
        }
    }
}

fn one_edit(real: &Dictionary, bytes: &[u8], rng: &mut Rng) {
    // Behind a last line without an ending a new one comes with an ending.
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let mut dictionary = real.clone();
    let keys: Vec<&str> = real.entries().map(|(key, _)| key).collect();
    let key = keys[rng.below(1..keys.len() as u64) as usize];
    let mut before = lines(bytes);
    let is_of_key = |key: &str, line: &str| line.starts_with(&format!("{key} ="));
    let position = before.iter().position(|line| is_of_key(key, line)).unwrap();
    let kind = rng.below(0..3);
    match kind {
        0 => dictionary.set(&key.to_uppercase(), "new | value").unwrap(),
        1 => assert!(dictionary.remove(key)),
        _ => dictionary.set(&format!("{key}.new"), "1").unwrap(),
    }
    let written = dictionary.to_bytes();
    let n_returns = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\r').count();
    let n_ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    if n_returns(bytes) > 0 {
        assert_eq!(n_returns(&written), n_ends(&written));
    }
    let mut after = lines(&written);
    match kind {
        0 => assert_ne!(before.remove(position), after.remove(position)),
        1 => drop(before.remove(position)),
        _ => {
            let new = after
                .iter()
                .position(|line| is_of_key(&format!("{key}.new"), line));
            after.remove(new.unwrap());
        }
    }
    assert!(before == after, "{key} ({kind})");
}
