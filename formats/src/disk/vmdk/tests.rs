//! VMDKs of plain extents in memory: what is found in the wild, what peers get wrong, first writes,
//! new images.

use std::sync::Arc;

use hako_block::{
    Access, BlockImage, ContentId, Error, ErrorKind, ExtentKind, MemoryFolder, MemoryStorage,
    Resolver, Result, Sink, Value,
};

use super::Vmdk;
use crate::disk::{Adapter, Allocation, CreateArgs, CreateOptions, DiskFormat, OpenArgs, Severity};

const HEAD: &str =
    "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"custom\"\n\n";

/// A folder with the extent files a, b, c: eight sectors each of 0xaa, 0xbb, 0xcc.
fn folder() -> MemoryFolder {
    let folder = MemoryFolder::default();
    for (name, byte) in [("a", 0xaa), ("b", 0xbb), ("c", 0xcc)] {
        let storage = MemoryStorage::new(name, vec![byte; 8 * 512]);
        folder.insert(name, Arc::new(storage));
    }
    folder
}

fn put(folder: &MemoryFolder, text: &[u8]) {
    folder.insert(
        "disk.vmdk",
        Arc::new(MemoryStorage::new("disk.vmdk", text.to_vec())),
    );
}

fn args(folder: &MemoryFolder, name: &str, access: Access) -> OpenArgs {
    let opened = folder.open(name, access).unwrap();
    OpenArgs {
        storage: opened.storage,
        name: opened.name,
        resolver: opened.resolver,
        access,
        salvage: false,
        snapshot: None,
    }
}

fn open_bytes(text: &[u8]) -> Result<Box<dyn BlockImage>> {
    let folder = folder();
    put(&folder, text);
    Vmdk.open(args(&folder, "disk.vmdk", Access::ReadOnly))
}

fn open_lines(lines: &str) -> Result<Box<dyn BlockImage>> {
    open_bytes(format!("{HEAD}{lines}").as_bytes())
}

fn refusal(result: Result<Box<dyn BlockImage>>) -> Error {
    result.err().expect("must be refused")
}

/// The first byte of every eight sectors.
fn content(image: &dyn BlockImage) -> Vec<u8> {
    let mut disk = vec![1; image.info().virtual_size as usize];
    image.read_at(0, &mut disk).unwrap();
    let mut pieces = disk.chunks(4096);
    assert!(pieces.all(|piece| piece.iter().all(|byte| *byte == piece[0])));
    disk.chunks(4096).map(|piece| piece[0]).collect()
}

fn text_of(folder: &MemoryFolder, name: &str) -> String {
    let storage = folder.file(name).unwrap();
    let mut bytes = vec![0; storage.len_bytes().unwrap() as usize];
    storage.read_at(0, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

// What peers get wrong.

#[test]
fn blank_line_before_an_extent_line_counts_it_once() {
    let image = open_lines("\n\n\nRW 8 FLAT \"a\" 0\n\nRW 8 FLAT \"b\" 0\n").unwrap();
    assert_eq!(content(&*image), [0xaa, 0xbb]);
}

#[test]
fn zero_extent_in_the_middle_keeps_later_data_in_place() {
    let image = open_lines("RW 8 FLAT \"a\" 0\nRW 8 ZERO\nRW 8 FLAT \"c\" 0\n").unwrap();
    assert_eq!(content(&*image), [0xaa, 0, 0xcc]);
    let zeros = image.next_extent(4096).unwrap();
    assert_eq!((zeros.len, zeros.kind), (4096, ExtentKind::Zero));
}

#[test]
fn rdonly_and_noaccess_extents_keep_their_place() {
    let image = open_lines(
        "RW 8 FLAT \"a\" 0\nRDONLY 8 FLAT \"b\" 0\nNOACCESS 8 FLAT \"gone\" 0\nRW 8 FLAT \"c\"",
    )
    .unwrap();
    assert_eq!(content(&*image), [0xaa, 0xbb, 0, 0xcc]);
    let odd = &image.info().oddities;
    assert!(odd.iter().any(|odd| odd.contains("NOACCESS")), "{odd:?}");
}

#[test]
fn only_rdonly_extents_open() {
    let image = open_lines("RDONLY 8 FLAT \"a\" 0\n").unwrap();
    assert_eq!(content(&*image), [0xaa]);
}

#[test]
fn words_and_keys_in_any_case_are_read() {
    let text = "# DISK descriptorfile\nVERSION=1\ncid=12345678\nPARENTCID=FFFFFFFF\nCREATETYPE=\"MONOLITHICFLAT\"\nrw 8 flat \"a\" 0\nRw 8 Flat \"b\" 0\n";
    let image = open_bytes(text.as_bytes()).unwrap();
    assert_eq!(content(&*image), [0xaa, 0xbb]);
    assert_eq!(image.info().subformat.as_deref(), Some("monolithicFlat"));
    assert_eq!(image.info().content_id, Some(ContentId::Cid(0x1234_5678)));
}

#[test]
fn encoding_may_stand_before_version() {
    let text = "# Disk DescriptorFile\nencoding=\"UTF-8\"\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\nRW 8 VMFS \"a\"\n";
    assert_eq!(content(&*open_bytes(text.as_bytes()).unwrap()), [0xaa]);
}

#[test]
fn byte_order_mark_and_crlf_and_blanks_around_equals_are_read() {
    let text = format!("\u{feff}{HEAD}RW 8 FLAT \"a\" 0\n").replace('=', "  = ");
    let text = text.replace('\n', "\r\n");
    assert!(Vmdk.probe(text.as_bytes(), b""));
    let image = open_bytes(text.as_bytes()).unwrap();
    assert_eq!(content(&*image), [0xaa]);
    assert_eq!(image.info().content_id, Some(ContentId::Cid(0x1234_5678)));
    assert!(
        image.info().oddities.is_empty(),
        "{:?}",
        image.info().oddities
    );
}

#[test]
fn every_create_type_of_plain_files_opens_in_any_spelling() {
    for (word, name) in [
        ("custom", "custom"),
        ("2GbMaxExtentFlat", "twoGbMaxExtentFlat"),
        ("twogbmaxextentflat", "twoGbMaxExtentFlat"),
        ("vmfsThin", "vmfsThin"),
        ("vmfsThick", "vmfsThick"),
        ("vmfsPreallocated", "vmfsPreallocated"),
        ("vmfsEagerZeroedThick", "vmfsEagerZeroedThick"),
        ("fullDevice", "fullDevice"),
        ("partitionedDevice", "partitionedDevice"),
        ("VMFS", "vmfs"),
    ] {
        let text = format!("{HEAD}RW 8 FLAT \"a\" 0\n").replace("custom", word);
        let image = open_bytes(text.as_bytes()).unwrap();
        assert_eq!(image.info().subformat.as_deref(), Some(name), "{word}");
        assert!(image.info().oddities.is_empty());
    }
    let text = format!("{HEAD}RW 8 FLAT \"a\" 0\n").replace("custom", "strange");
    let odd = &open_bytes(text.as_bytes()).unwrap().info().oddities.clone();
    assert!(odd.iter().any(|odd| odd.contains("strange")), "{odd:?}");
}

#[test]
fn further_fields_on_an_extent_line_are_passed_over() {
    let image = open_lines(
        "RW 8 FLAT \"a\" 0 partitionUUID \"12 34\" device \"x\"\nRW 4 FLAT \"b\" 4 partitionUUID x\nRW 4 FLAT b partitionUUID x",
    )
    .unwrap();
    assert_eq!(content(&*image), [0xaa, 0xbb]);
}

#[test]
fn flat_extent_longer_than_its_file_is_refused_with_both_sizes() {
    let error = refusal(open_lines("RW 100 FLAT \"a\" 1\n"));
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for part in ["a: ", "51712", "4096"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(error.hint_text().unwrap().contains("--salvage"));
}

#[test]
fn salvage_reads_what_a_flat_file_lacks_as_zeros_and_says_so() {
    let folder = folder();
    put(
        &folder,
        format!("{HEAD}RW 16 FLAT \"a\" 0\nRW 8 FLAT \"b\"").as_bytes(),
    );
    let mut args = args(&folder, "disk.vmdk", Access::ReadOnly);
    args.salvage = true;
    let image = Vmdk.open(args).unwrap();
    assert_eq!(content(&*image), [0xaa, 0, 0xbb]);
    assert!(image.info().oddities[0].contains("4096 bytes read as zeros"));
}

#[test]
fn content_id_may_have_0x_before_it() {
    let text = format!("{HEAD}RW 8 FLAT \"a\" 0\n").replace("CID=1234", "CID=0x1234");
    let image = open_bytes(text.as_bytes()).unwrap();
    assert_eq!(image.info().content_id, Some(ContentId::Cid(0x1234_5678)));
}

#[test]
fn content_id_inside_another_key_does_not_mislead() {
    let text = "# Disk DescriptorFile\nversion=1\nddb.CID=99999999\nxparentCID=11111111\nparentCID=ffffffff\nCID=12345678\ncreateType=\"custom\"\nRW 8 FLAT \"a\" 0\n";
    let image = open_bytes(text.as_bytes()).unwrap();
    assert_eq!(image.info().content_id, Some(ContentId::Cid(0x1234_5678)));
    assert!(image.info().parent.is_none());
}

#[test]
fn size_of_a_text_descriptor_is_the_disks() {
    let image = open_lines("RW 8 FLAT \"a\" 0\n").unwrap();
    assert_eq!(image.info().virtual_size, 4096);
}

// What else is found in the wild.

#[test]
fn file_names_are_decoded_by_the_encoding() {
    for (encoding, raw, name) in [
        ("windows-1252", &b"M\xfcnchen"[..], "München"),
        ("Shift_JIS", b"\x83\x5c\x83\x74\x83\x67", "ソフト"),
        ("GBK", b"\xb4\xc5\xc5\xcc", "磁盘"),
        ("Big5", b"\xba\xcf\xba\xd0", "磁碟"),
        ("UTF-8", "Zürich".as_bytes(), "Zürich"),
    ] {
        let folder = folder();
        folder.insert(name, folder.file("b").unwrap());
        let mut text = format!("{HEAD}encoding=\"{encoding}\"\nRW 8 FLAT \"").into_bytes();
        text.extend_from_slice(raw);
        text.extend_from_slice(b"\" 0\n");
        put(&folder, &text);
        let image = Vmdk
            .open(args(&folder, "disk.vmdk", Access::ReadOnly))
            .unwrap_or_else(|error| panic!("{encoding}: {error}"));
        assert_eq!(content(&*image), [0xbb]);
    }
}

#[test]
fn line_that_looks_like_an_extent_but_is_not_understood_is_an_error() {
    for line in [
        "RX 8 FLAT \"a\" 0",
        "RW 8 FLOT \"a\" 0",
        "RW eight FLAT \"a\" 0",
        "RW -8 FLAT \"a\" 0",
        "RW 8 FLAT \"a",
        "RW 8 FLAT",
        "RW 8 FLAT \"a\" 0x",
        "RW 99999999999999999999 FLAT \"a\" 0",
        "RW 18014398509481984 ZERO",
        "RW 8 FLAT \"a\" 18446744073709551615",
    ] {
        let error = refusal(open_lines(&format!("{line}\nRW 8 FLAT \"b\" 0\n")));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{line}: {error}");
    }
    let sum = "RW 18014398509481983 ZERO\n".repeat(2);
    assert!(refusal(open_lines(&sum)).to_string().contains("too large"));
    assert!(refusal(open_lines("")).to_string().contains("no extent"));
}

#[test]
fn descriptor_that_names_itself_is_refused() {
    let error = refusal(open_lines("RW 1 FLAT \"disk.vmdk\" 0\n"));
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn missing_extent_file_is_named_with_a_hint() {
    let error = refusal(open_lines("RW 8 FLAT \"gone.vmdk\" 0\n"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("gone.vmdk"));
    assert!(error.hint_text().unwrap().contains("all files"));
    let error = refusal(open_lines("RW 8 FLAT \"C:\\vm\\d-flat.vmdk\" 0\n"));
    assert!(error.hint_text().unwrap().contains("Windows"));
}

#[test]
fn raw_device_mapping_without_its_device_is_refused() {
    let error = refusal(open_lines("RW 8 VMFSRDM \"a\"\n"));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn encrypted_disk_is_refused() {
    let error = refusal(open_lines(
        "encryptionKeys = \"vmware:key\"\nRW 8 FLAT \"a\" 0\n",
    ));
    assert!(error.to_string().contains("encrypted"));
}

#[test]
fn extent_file_opened_alone_names_its_descriptor() {
    let folder = folder();
    put(&folder, HEAD.as_bytes());
    folder.insert(
        "disk-delta.vmdk",
        Arc::new(MemoryStorage::new("x", b"COWD".to_vec())),
    );
    let error = refusal(Vmdk.open(args(&folder, "disk-delta.vmdk", Access::ReadOnly)));
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains("open its descriptor disk.vmdk")
    );
}

#[test]
fn parent_is_told_with_its_content_id() {
    let text = HEAD.replace("ffffffff", "0badcafe");
    let image = open_bytes(
        format!("{text}parentFileNameHint=\"base = 1.vmdk\"\nRW 8 FLAT \"a\" 0\n").as_bytes(),
    )
    .unwrap();
    let parent = image.info().parent.clone().unwrap();
    assert_eq!(parent.name, "base = 1.vmdk");
    assert_eq!(parent.content_id, Some(ContentId::Cid(0x0bad_cafe)));
    let error = refusal(open_bytes(format!("{text}RW 8 FLAT \"a\" 0\n").as_bytes()));
    assert!(error.to_string().contains("parentFileNameHint"));
}

#[test]
fn info_tells_what_the_descriptor_says() {
    let image = open_lines(
        "changeTrackPath=\"d-ctk.vmdk\"\nRW 8 FLAT \"a\" 0\nddb.adapterType=\"lsilogic\"\nddb.geometry.cylinders=\"1\"\nddb.geometry.heads=\"2\"\nddb.geometry.sectors=\"3\"\n",
    )
    .unwrap();
    let details = &image.info().details;
    let value = |key: &str| {
        details
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    };
    assert_eq!(value("adapter"), Some(&Value::from("lsilogic")));
    assert_eq!(value("cid"), Some(&Value::from("12345678")));
    assert_eq!(value("geometry"), Some(&Value::from("1/2/3")));
    assert_eq!(value("change_track_path"), Some(&Value::from("d-ctk.vmdk")));
    assert!(matches!(value("extents"), Some(Value::List(list)) if list.len() == 1));
    assert_eq!(image.info().files, ["disk.vmdk", "a"]);
}

#[test]
fn check_lists_oddities_and_damage() {
    let folder = folder();
    put(&folder, format!("{HEAD}NOACCESS 8 ZERO\n").as_bytes());
    let findings = Vmdk
        .check(args(&folder, "disk.vmdk", Access::ReadOnly))
        .unwrap();
    assert_eq!(findings.worst(), Some(Severity::Oddity));
    put(&folder, format!("{HEAD}RW 99 FLAT \"a\" 0\n").as_bytes());
    let findings = Vmdk
        .check(args(&folder, "disk.vmdk", Access::ReadOnly))
        .unwrap();
    assert_eq!(findings.worst(), Some(Severity::Corruption));
}

// Writing in place.

#[test]
fn first_write_changes_the_content_id_and_keeps_every_other_line() {
    let folder = folder();
    let text = "# Disk DescriptorFile\r\nversion=1\r\n  cid = 12345678 \r\nparentCID=ffffffff\r\n# a comment\r\ncreateType=\"custom\"\r\n\r\nrw 8 flat \"a\" 0\r\nRW 8 FLAT \"b\" 0\r\nchangeTrackPath=\"d-ctk.vmdk\"\r\nstrange.key = 5\r\nddb.longContentID = \"aaaaaaaabbbbbbbbcccccccc12345678\"\r\n";
    put(&folder, text.as_bytes());
    let image = Vmdk
        .open(args(&folder, "disk.vmdk", Access::ReadWrite))
        .unwrap();
    image.flush().unwrap();
    assert_eq!(
        text_of(&folder, "disk.vmdk"),
        text,
        "opening alone changes nothing"
    );
    image.write_at(4000, &[0x11; 200]).unwrap();
    image.write_at(8000, &[0x22; 100]).unwrap();
    image.flush().unwrap();
    let new = text_of(&folder, "disk.vmdk");
    let at = text.find("12345678").unwrap();
    let cid = &new[at..at + 8];
    assert_ne!(cid, "12345678");
    let expected = text
        .replace("12345678", cid)
        .replace("changeTrackPath=\"d-ctk.vmdk\"\r\n", "");
    assert_eq!(new, expected);
    let again = Vmdk
        .open(args(&folder, "disk.vmdk", Access::ReadOnly))
        .unwrap();
    let mut bytes = [0; 200];
    again.read_at(4000, &mut bytes).unwrap();
    assert_eq!(bytes, [0x11; 200]);
}

#[test]
fn writes_to_a_read_only_extent_are_refused() {
    let folder = folder();
    put(
        &folder,
        format!("{HEAD}RW 8 FLAT \"a\" 0\nRDONLY 8 FLAT \"b\" 0\nRW 8 ZERO\n").as_bytes(),
    );
    let image = Vmdk
        .open(args(&folder, "disk.vmdk", Access::ReadWrite))
        .unwrap();
    let error = image.write_at(4096, &[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(image.write_at(8192, &[1]).is_err());
    image.write_zeroes(8192..12288).unwrap();
    image.write_at(0, &[1; 4096]).unwrap();
    assert_eq!(content(&*image), [1, 0xbb, 0]);
    let read_only = Vmdk
        .open(args(&folder, "disk.vmdk", Access::ReadOnly))
        .unwrap();
    assert!(read_only.write_at(0, &[1]).is_err());
}

// New images.

fn create(folder: &MemoryFolder, size: u64, options: CreateOptions) -> Result<Box<dyn Sink>> {
    let storage = Arc::new(MemoryStorage::new("new.vmdk", Vec::new()));
    folder.insert("new.vmdk", storage.clone());
    Vmdk.stream(CreateArgs {
        storage,
        name: "new.vmdk".to_owned(),
        outputs: folder,
        virtual_size: size,
        parent: None,
        options,
    })
}

fn subformat(name: &str) -> CreateOptions {
    CreateOptions {
        subformat: Some(name.to_owned()),
        ..CreateOptions::default()
    }
}

#[test]
fn flat_variants_read_back_what_was_delivered() {
    for (name, file, line) in [
        (
            "monolithicFlat",
            "new-flat.vmdk",
            "RW 24 FLAT \"new-flat.vmdk\" 0",
        ),
        (
            "TWOGBMAXEXTENTFLAT",
            "new-f001.vmdk",
            "RW 24 FLAT \"new-f001.vmdk\" 0",
        ),
        ("vmfs", "new-flat.vmdk", "RW 24 VMFS \"new-flat.vmdk\""),
    ] {
        let folder = MemoryFolder::default();
        let mut sink = create(&folder, 24 * 512, subformat(name)).unwrap();
        sink.data(4096, &[7; 4096]).unwrap();
        sink.finish().unwrap();
        assert_eq!(folder.names().unwrap(), [file, "new.vmdk"]);
        let text = text_of(&folder, "new.vmdk");
        assert!(text.lines().any(|found| found == line), "{text}");
        let image = Vmdk
            .open(args(&folder, "new.vmdk", Access::ReadOnly))
            .unwrap();
        assert_eq!(content(&*image), [0, 7, 0]);
        assert!(
            image.info().oddities.is_empty(),
            "{:?}",
            image.info().oddities
        );
    }
}

#[test]
fn vmfs_descriptor_is_what_esxi_writes() {
    let folder = MemoryFolder::default();
    create(&folder, 2 << 20, subformat("vmfs"))
        .unwrap()
        .finish()
        .unwrap();
    let text = text_of(&folder, "new.vmdk");
    for line in [
        "# Disk DescriptorFile",
        "version=1",
        "encoding=\"UTF-8\"",
        "parentCID=ffffffff",
        "createType=\"vmfs\"",
        "ddb.adapterType = \"lsilogic\"",
        "ddb.geometry.cylinders = \"2\"",
        "ddb.geometry.heads = \"64\"",
        "ddb.geometry.sectors = \"32\"",
        "ddb.thinProvisioned = \"1\"",
        "ddb.toolsVersion = \"2147483647\"",
        "ddb.virtualHWVersion = \"10\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_once('=')
            .unwrap()
            .1
            .trim()
            .trim_matches('"')
            .to_owned()
    };
    assert!(value("ddb.longContentID").ends_with(&value("CID")));
    assert_eq!(value("ddb.longContentID").len(), 32);
    let uuid = value("ddb.uuid");
    assert!(uuid.starts_with("60 00 C2 9") && uuid.len() == 47 && uuid.matches('-').count() == 1);
}

#[test]
fn options_reach_the_descriptor_and_wrong_ones_are_refused() {
    let folder = MemoryFolder::default();
    let options = CreateOptions {
        adapter: Some(Adapter::Ide),
        hw_version: Some(4),
        allocation: Allocation::Eager,
        ..subformat("vmfs")
    };
    create(&folder, 1 << 20, options).unwrap().finish().unwrap();
    let text = text_of(&folder, "new.vmdk");
    assert!(text.contains("ddb.adapterType = \"ide\"") && text.contains("heads = \"16\""));
    assert!(text.contains("virtualHWVersion = \"4\"") && !text.contains("thin"));
    for (size, options) in [
        (0, subformat("vmfs")),
        (513, subformat("vmfs")),
        (512, subformat("vmfsThin")),
        (512, subformat("nonsense")),
        (
            512,
            CreateOptions {
                unit_bytes: Some(65536),
                ..subformat("vmfs")
            },
        ),
        (
            512,
            CreateOptions {
                level: Some(1),
                ..subformat("monolithicFlat")
            },
        ),
        (1 << 62, subformat("twoGbMaxExtentFlat")),
    ] {
        assert!(
            create(&folder, size, options.clone()).is_err(),
            "{size} {options:?}"
        );
    }
}

#[test]
fn damaged_descriptors_never_panic() {
    let text = format!(
        "\u{feff}{HEAD}encoding=\"GBK\"\nchangeTrackPath=\"x\"\nRW 8 FLAT \"a\" 0 partitionUUID x\nRW 8 ZERO\nddb.longContentID = \"aaaaaaaabbbbbbbbcccccccc12345678\"\n"
    );
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    for _ in 0..20_000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..1 + random() % 4 {
            let at = random() % bytes.len();
            match random() % 3 {
                0 => bytes[at] = random() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\"= \n\r\0#8x"[random() % 9]),
            }
        }
        let Ok(descriptor) = super::descriptor::Descriptor::parse(&bytes) else {
            continue;
        };
        let in_place = descriptor.with_content_id_in_place(0x89ab_cdef);
        assert_eq!(in_place.len(), descriptor.text().len());
        let edited = descriptor.with_content_id(0x89ab_cdef);
        let again = super::descriptor::Descriptor::parse(&edited).unwrap();
        assert_eq!(again.extents(), descriptor.extents());
        if descriptor.content_id().is_some() {
            assert_eq!(again.content_id(), Some(0x89ab_cdef));
        }
        assert!(again.value("changetrackpath").is_none());
    }
}

#[test]
fn esx_deltas_open_through_their_descriptor_and_never_for_writing() {
    for (kind, (file, disk)) in [
        ("VMFSSPARSE", super::cowd::tests::sample()),
        ("SESPARSE", super::sesparse::tests::sample()),
    ] {
        let folder = MemoryFolder::default();
        folder.insert("d", Arc::new(MemoryStorage::new("d", file)));
        let line = format!("RW {} {kind} \"d\"\n", disk.len() / 512);
        put(&folder, format!("{HEAD}{line}").as_bytes());
        let image = Vmdk
            .open(args(&folder, "disk.vmdk", Access::ReadOnly))
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(super::testing::read_all(&*image) == disk, "{kind}");
        let error = refusal(Vmdk.open(args(&folder, "disk.vmdk", Access::ReadWrite)));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = refusal(Vmdk.open(args(&folder, "d", Access::ReadOnly)));
        assert!(error.hint_text().unwrap().contains("descriptor"), "{error}");
        let longer = format!("{HEAD}RW {} {kind} \"d\"\n", disk.len() / 512 + 1);
        put(&folder, longer.as_bytes());
        let error = refusal(Vmdk.open(args(&folder, "disk.vmdk", Access::ReadOnly)));
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn sparse_file_named_twice_is_refused() {
    let folder = MemoryFolder::default();
    let (file, disk) = super::cowd::tests::sample();
    folder.insert("d", Arc::new(MemoryStorage::new("d", file)));
    let line = format!("RW {} VMFSSPARSE \"d\"\n", disk.len() / 512);
    put(&folder, format!("{HEAD}{line}{line}").as_bytes());
    let error = refusal(Vmdk.open(args(&folder, "disk.vmdk", Access::ReadOnly)));
    assert!(error.to_string().contains("same sparse file"), "{error}");
}
