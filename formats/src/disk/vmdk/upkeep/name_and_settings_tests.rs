//! What an image says of itself, of its parent and of its files: changed, cut at every write,
//! read by others.

use hako_block::{Access, ContentId, ErrorKind, ParentLink, Resolver, Uuid};

use super::testing::*;
use crate::disk::vmdk::Vmdk;
use crate::disk::vmdk::descriptor::Descriptor;
use crate::disk::vmdk::layout::Text;
use crate::disk::vmdk::testing::{qemu_img, text};
use crate::disk::{Adapter, DiskFormat, Settings};

const DATA: &[(u64, u64)] = &[(MIB, 2 * MIB)];
const FIRST_GRAIN: &[(u64, u64)] = &[(0, 65_536)];
const THIRD_GRAIN: &[(u64, u64)] = &[(131_072, 196_608)];
const SINGLE: &[&str] = &["monolithicSparse", "streamOptimized"];
const ALL: &[&str] = &[
    "monolithicSparse",
    "streamOptimized",
    "twoGbMaxExtentSparse",
    "monolithicFlat",
    "vmfs",
];

fn descriptor(folder: &hako_block::testkit::FaultFolder) -> Descriptor {
    Text::find(&args_of(folder, NAME, Access::ReadOnly))
        .unwrap()
        .descriptor
}

fn comment(comment: &str) -> Settings {
    Settings {
        comment: Some(comment.to_owned()),
        ..Settings::default()
    }
}

fn everything() -> Settings {
    Settings {
        adapter: Some(Adapter::Ide),
        hw_version: Some(21),
        tools_version: Some(12345),
        uuid: Uuid::parse("6000c290-0102-0304-0506-0708090a0b0c"),
        comment: Some("web server, disk 1".to_owned()),
    }
}

fn parent() -> ParentLink {
    ParentLink {
        name: "base.vmdk".to_owned(),
        content_id: Some(ContentId::Cid(0x1234_5678)),
        ..ParentLink::default()
    }
}

#[test]
fn every_setting_is_said_and_every_cut_leaves_the_old_text_or_the_new() {
    for subformat in ALL {
        let folder = create(subformat, 4 * MIB, None, DATA);
        let (before, whole) = (descriptor(&folder), content(&*open(&folder).unwrap()));
        let set = |folder: &_| Vmdk.set(args(folder), &everything());
        let after = folder.copy();
        set(&after).unwrap();
        let wanted = descriptor(&after);
        let worked = cuts(&folder, set, |cut, done| {
            let now = descriptor(cut);
            assert!(now.text() == wanted.text() || (!done && now.text() == before.text()));
            assert_eq!(content(&*open(cut).unwrap()), whole);
            assert_sound(cut);
        });
        for (key, value) in [
            ("ddb.adapterType", "ide"),
            ("ddb.geometry.cylinders", "8"),
            ("ddb.geometry.heads", "16"),
            ("ddb.geometry.sectors", "63"),
            ("ddb.virtualHWVersion", "21"),
            ("ddb.toolsVersion", "12345"),
            (
                "ddb.uuid",
                "60 00 C2 90 01 02 03 04-05 06 07 08 09 0a 0b 0c",
            ),
            ("ddb.comment", "web server, disk 1"),
        ] {
            assert_eq!(wanted.value(key).as_deref(), Some(value), "{subformat}");
        }
        assert_eq!(before.content_id(), wanted.content_id());
        assert_flawless(&worked);
        assert_qemu_agrees(&worked);
        let names: Vec<_> = worked.files().into_keys().collect();
        assert_eq!(names, folder.files().into_keys().collect::<Vec<_>>());
        if SINGLE.contains(subformat) {
            let len = |folder: &hako_block::testkit::FaultFolder| folder.files()[NAME].len();
            assert_eq!(len(&worked), len(&folder), "{subformat}");
        }
    }
}

#[test]
fn empty_comment_is_removed_and_one_no_text_can_hold_is_refused() {
    let folder = create("monolithicSparse", MIB, None, &[]);
    Vmdk.set(args(&folder), &comment("x")).unwrap();
    Vmdk.set(args(&folder), &comment("")).unwrap();
    assert_eq!(descriptor(&folder).value("ddb.comment"), None);
    for bad in ["a\"b", "a\nb"] {
        let error = Vmdk.set(args(&folder), &comment(bad)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn text_larger_than_its_room_moves_to_the_end_and_home_again() {
    let folder = create("monolithicSparse", 4 * MIB, None, DATA);
    let whole = content(&*open(&folder).unwrap());
    let large = "x".repeat(12_000);
    let before = descriptor(&folder).text().to_vec();
    let moved = cuts(
        &folder,
        |folder| Vmdk.set(args(folder), &comment(&large)),
        |cut, done| {
            let now = descriptor(cut);
            let is_new = now.value("ddb.comment").as_ref() == Some(&large);
            assert!(is_new || (!done && now.text() == before));
            assert_eq!(content(&*open(cut).unwrap()), whole);
            assert_sound(cut);
        },
    );
    assert_flawless(&moved);
    // Written to as ever, with its text behind the grains.
    let image = Vmdk.open(args(&moved)).unwrap();
    image.write_at(3 * MIB, &[9; 70_000]).unwrap();
    image.flush().unwrap();
    drop(image);
    assert_flawless(&moved);
    let whole = content(&*open(&moved).unwrap());
    let home = cuts(
        &moved,
        |folder| Vmdk.set(args(folder), &comment("short")),
        |cut, done| {
            let now = descriptor(cut).value("ddb.comment");
            assert!(now.as_deref() == Some("short") || (!done && now.as_ref() == Some(&large)));
            assert_eq!(content(&*open(cut).unwrap()), whole);
            assert_sound(cut);
        },
    );
    assert_sound(&home);
    assert_qemu_agrees(&home);
}

#[test]
fn text_that_a_stream_has_no_room_for_is_refused_and_nothing_changes() {
    let folder = create("streamOptimized", MIB, None, FIRST_GRAIN);
    let before = folder.files();
    let error = Vmdk
        .set(args(&folder), &comment(&"x".repeat(70_000)))
        .unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    assert_eq!(folder.files(), before);
    // What follows the claimed sectors is free up to the first grain.
    Vmdk.set(args(&folder), &comment(&"x".repeat(20_000)))
        .unwrap();
    assert_flawless(&folder);
    assert_qemu_agrees(&folder);
    let header = |from: u64| {
        let mut bytes = [0; 16];
        assert!(folder.files()[NAME].read(from + 28, &mut bytes));
        bytes
    };
    assert_eq!(header(0), header(folder.files()[NAME].len() - 1024));
}

#[test]
fn parent_is_linked_and_unlinked_at_every_cut_one_or_the_other() {
    for subformat in ["monolithicSparse", "twoGbMaxExtentSparse"] {
        let folder = create(subformat, 2 * MIB, None, FIRST_GRAIN);
        let before = descriptor(&folder);
        let linked = cuts(
            &folder,
            |folder| Vmdk.relink(args(folder), Some(&parent())),
            |cut, done| {
                let found = open(cut).unwrap().info().parent.clone();
                assert!(found.is_some() || !done);
                let name = found.map(|parent| parent.name);
                assert!(name.is_none_or(|name| name == "base.vmdk"));
            },
        );
        let link = open(&linked).unwrap().info().parent.clone().unwrap();
        assert_eq!(link.content_id, Some(ContentId::Cid(0x1234_5678)));
        let alone = cuts(
            &linked,
            |folder| Vmdk.relink(args(folder), None),
            |cut, done| assert!(open(cut).unwrap().info().parent.is_none() || !done),
        );
        assert_eq!(descriptor(&alone).text(), before.text());
        assert_flawless(&alone);
        assert_qemu_agrees(&alone);
    }
}

#[test]
fn plain_extents_can_have_no_parent_and_a_parent_needs_a_content_id() {
    let folder = create("monolithicFlat", MIB, None, &[]);
    let error = Vmdk.relink(args(&folder), Some(&parent())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    Vmdk.relink(args(&folder), None).unwrap();
    let folder = create("monolithicSparse", MIB, None, &[]);
    let nobody = ParentLink {
        content_id: None,
        ..parent()
    };
    assert!(Vmdk.relink(args(&folder), Some(&nobody)).is_err());
}

#[test]
fn linked_overlay_is_read_by_qemu_through_its_new_parent() {
    let overlay = create("monolithicSparse", MIB, None, FIRST_GRAIN);
    let (_host, base) = on_host(&create("monolithicSparse", MIB, None, THIRD_GRAIN));
    let cid = descriptor(&create("monolithicSparse", MIB, None, &[])).content_id();
    assert!(cid.is_some());
    let named = base.with_file_name("base.vmdk");
    std::fs::rename(&base, &named).unwrap();
    let bytes = std::fs::read(&named).unwrap();
    let base_cid = Descriptor::parse(&bytes[512..512 * 21])
        .unwrap()
        .content_id();
    let link = ParentLink {
        content_id: base_cid.map(ContentId::Cid),
        ..parent()
    };
    Vmdk.relink(args(&overlay), Some(&link)).unwrap();
    let whole = overlay.files()[NAME].to_vec();
    std::fs::write(&base, whole).unwrap();
    let raw = base.with_extension("raw");
    qemu_img(&[
        "convert",
        "-f",
        "vmdk",
        "-O",
        "raw",
        text(&base),
        text(&raw),
    ]);
    let flat = std::fs::read(&raw).unwrap();
    assert!(flat[..65536].iter().any(|byte| *byte != 0));
    assert!(flat[131_072..196_608].iter().any(|byte| *byte != 0));
}

#[test]
fn files_called_by_the_stem_follow_and_others_are_told() {
    let folder = create("twoGbMaxExtentSparse", 4 * MIB, None, &[]);
    let mut edits_text = String::from_utf8(descriptor(&folder).text().to_vec()).unwrap();
    edits_text = edits_text.replace(
        "RW 8192 SPARSE \"disk-s001.vmdk\"\n",
        "RW 8192 SPARSE \"disk-s001.vmdk\"\nRW 8 FLAT \"disk2-flat.vmdk\" 0\nRW 8 FLAT \"disk2-flat.vmdk\" 8\nRW 8 FLAT \"sub/disk-flat.vmdk\"\nRW 8 ZERO\nchangeTrackPath=\"disk-ctk.vmdk\"\n",
    );
    folder.replace(NAME, edits_text.as_bytes()).unwrap();
    for (there, files) in [(false, 1), (true, 2)] {
        if there {
            folder.create_new("disk-ctk.vmdk").unwrap();
        }
        let renaming = Vmdk.renaming(args(&folder), "web 2.vmdk").unwrap();
        assert_eq!(renaming.files.len(), files);
        assert_eq!(
            renaming.files[0],
            ("disk-s001.vmdk".to_owned(), "web 2-s001.vmdk".to_owned())
        );
        assert_eq!(renaming.kept, ["disk2-flat.vmdk", "sub/disk-flat.vmdk"]);
        let main = String::from_utf8(renaming.main.unwrap()).unwrap();
        let wanted = edits_text
            .replace("\"disk-s001", "\"web 2-s001")
            .replace("\"disk-ctk", "\"web 2-ctk");
        assert_eq!(main, wanted);
    }
    let taken = edits_text.replace("disk2-flat", "web-s001");
    folder.replace(NAME, taken.as_bytes()).unwrap();
    let error = Vmdk.renaming(args(&folder), "web.vmdk").unwrap_err();
    assert!(error.to_string().contains("web-s001.vmdk"), "{error}");
    assert!(Vmdk.renaming(args(&folder), "a\"b.vmdk").is_err());
}

#[test]
fn renamed_single_file_says_its_new_name_inside() {
    for subformat in SINGLE {
        let folder = create(subformat, MIB, None, FIRST_GRAIN);
        let file = folder.files()[NAME].clone();
        let moved = hako_block::testkit::FaultFolder::with_files([("web.vmdk".to_owned(), file)]);
        let at = |folder: &_| args_of(folder, "web.vmdk", Access::ReadWrite);
        assert_eq!(
            Vmdk.renaming(at(&moved), "x.vmdk").unwrap(),
            Default::default()
        );
        let line = |folder: &_| {
            let text = Text::find(&at(folder)).unwrap();
            text.descriptor.extents()[0].file.clone().unwrap()
        };
        let worked = cuts(
            &moved,
            |folder| Vmdk.renamed(at(folder)),
            |cut, done| {
                let name = line(cut);
                assert!(name == "web.vmdk" || (!done && name == NAME), "{name}");
                Vmdk.open(at(cut)).map(drop).unwrap_or_else(|error| {
                    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                });
            },
        );
        let image = Vmdk
            .open(args_of(&worked, "web.vmdk", Access::ReadOnly))
            .unwrap();
        assert!(
            image.info().oddities.is_empty(),
            "{:?}",
            image.info().oddities
        );
    }
}

#[test]
fn renamed_single_file_takes_its_change_track_along() {
    let folder = create("monolithicSparse", MIB, None, &[]);
    let text = Text::find(&args(&folder)).unwrap();
    let mut edits = text.descriptor.edit();
    edits.set("changeTrackPath", "disk-ctk.vmdk").unwrap();
    text.home
        .replace(&text.descriptor, &edits.finish().unwrap())
        .unwrap();
    folder.create_new("disk-ctk.vmdk").unwrap();
    let renaming = Vmdk.renaming(args(&folder), "web.vmdk").unwrap();
    assert_eq!(
        renaming.files,
        [("disk-ctk.vmdk".to_owned(), "web-ctk.vmdk".to_owned())]
    );
    assert_eq!(renaming.main, None);
    folder.insert("web.vmdk", folder.files()[NAME].clone());
    Vmdk.renamed(args_of(&folder, "web.vmdk", Access::ReadWrite))
        .unwrap();
    let text = Text::find(&args_of(&folder, "web.vmdk", Access::ReadOnly)).unwrap();
    assert_eq!(
        text.descriptor.value("changeTrackPath").as_deref(),
        Some("web-ctk.vmdk")
    );
}

#[test]
fn text_of_an_esx_delta_changes_and_its_extent_is_not_looked_at() {
    for (create_type, kind, part) in [
        ("vmfsSparse", "VMFSSPARSE", "delta"),
        ("seSparse", "SESPARSE", "sesparse"),
    ] {
        let before = format!(
            "# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID=22222222\n\
             createType=\"{create_type}\"\nparentFileNameHint=\"old.vmdk\"\n\
             RW 2048 {kind} \"disk-{part}.vmdk\"\n"
        );
        let folder = hako_block::testkit::FaultFolder::default();
        folder.replace(NAME, before.as_bytes()).unwrap();
        Vmdk.relink(args(&folder), Some(&parent())).unwrap();
        Vmdk.set(args(&folder), &comment("x")).unwrap();
        let wanted = before
            .replace("22222222", "12345678")
            .replace("old.vmdk", "base.vmdk");
        let text = descriptor(&folder);
        let text = String::from_utf8(text.text().to_vec()).unwrap();
        assert_eq!(text, format!("{wanted}ddb.comment = \"x\"\n"));
        let renaming = Vmdk.renaming(args(&folder), "web.vmdk").unwrap();
        let new = format!("web-{part}.vmdk");
        assert_eq!(renaming.files, [(format!("disk-{part}.vmdk"), new.clone())]);
        assert!(
            String::from_utf8(renaming.main.unwrap())
                .unwrap()
                .contains(&new)
        );
    }
}
