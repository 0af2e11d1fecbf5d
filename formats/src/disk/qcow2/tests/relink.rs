//! Another parent.

use hako_block::testkit::FaultFolder;

use super::cuts::*;
use super::*;
use crate::disk::qcow2::header::Header;

fn link(name: &str, format: &str) -> ParentLink {
    ParentLink {
        name: name.into(),
        format: Some(format.into()),
        ..ParentLink::default()
    }
}

fn relinked(files: &FaultFolder, parent: Option<&ParentLink>) -> hako_block::Result<()> {
    Qcow2.relink(args_of(files, Access::ReadWrite), parent)
}

fn header_of(files: &FaultFolder) -> Header {
    Header::read(&*files.file("disk.qcow2").unwrap()).unwrap()
}

fn said(files: &FaultFolder) -> Option<(String, Option<String>)> {
    let info = open_in(files, Access::ReadOnly).info().clone();
    info.parent.map(|parent| (parent.name, parent.format))
}

fn overlay(folder: &Path, options: &str, parent: Option<&str>) -> FaultFolder {
    let _ = std::fs::remove_file(folder.join("disk.qcow2"));
    let mut args = vec!["create", "-f", "qcow2", "-o", options];
    if let Some(parent) = parent {
        args.extend(["-u", "-b", parent, "-F", "qcow2"]);
    }
    args.extend(["disk.qcow2", "1M"]);
    qemu_img(folder, &args);
    load(folder)
}

#[test]
fn a_cut_leaves_the_old_parent_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=4k",
        "cluster_size=2M",
    ] {
        for first in [None, Some("base.qcow2")] {
            let files = overlay(folder.path(), options, first);
            let long = format!("{}/x.vmdk", "long".repeat(250));
            let parents = [
                Some(link("other.raw", "raw")),
                Some(link(&long, "vmdk")),
                Some(link("b:c.qcow2", "qcow2")),
                None,
                Some(link("/abs/base.qcow2", "qcow2")),
                Some(link("next.vhdx", "vhdx")),
            ];
            for parent in parents {
                let before = header_of(&files);
                let old = said(&files);
                let new = parent.as_ref().map(|link| {
                    let name = if link.name.contains(':') {
                        format!("./{}", link.name)
                    } else {
                        link.name.clone()
                    };
                    (name, link.format.clone())
                });
                cut_everywhere(
                    &files,
                    |files| relinked(files, parent.as_ref()).unwrap(),
                    |cut| {
                        let now = said(cut);
                        assert!(now == old || now == new, "{now:?} of {old:?}, {new:?}");
                    },
                );
                assert_eq!(said(&files), new, "{options}");
                let after = header_of(&files);
                let expected = Header {
                    backing_name: after.backing_name.clone(),
                    backing_format: after.backing_format.clone(),
                    ..before
                };
                assert_eq!(after, expected, "{options}");
                assert_qemu_sound(&files, true);
            }
        }
    }
}

#[test]
fn feature_names_and_bitmaps_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    create_file(&path, &[1; 65536], options(12, Compression::None));
    let named = load(folder.path());
    qemu_img(folder.path(), &["bitmap", "--add", "disk.qcow2", "changed"]);
    let with_bitmap = load(folder.path());
    for parent in [
        Some(link("a.qcow2", "qcow2")),
        Some(link("bb.raw", "raw")),
        None,
    ] {
        relinked(&named, parent.as_ref()).unwrap();
        let bytes = named.files()["disk.qcow2"].to_vec();
        for name in [&b"dirty bit"[..], b"raw external data"] {
            let n_found = bytes[..4096].windows(name.len()).filter(|at| *at == name);
            assert!(n_found.count() > 0, "{}", String::from_utf8_lossy(name));
        }
        relinked(&with_bitmap, parent.as_ref()).unwrap();
        let info = open_in(&with_bitmap, Access::ReadOnly).info().clone();
        assert!(
            format!("{:?}", info.details).contains("changed"),
            "{info:?}"
        );
        assert_eq!(header_of(&with_bitmap).autoclear, 1);
        assert_qemu_sound(&with_bitmap, true);
    }
}

#[test]
fn qemu_img_reads_the_overlay_on_its_new_parent() {
    let folder = tempfile::tempdir().unwrap();
    let base = Random::new(9).disk(1 << 20);
    make_with_qemu(folder.path(), &base, "compat=1.1", &[]);
    let bases = folder.path().join("base.qcow2");
    std::fs::rename(folder.path().join("disk.qcow2"), bases).unwrap();
    let files = overlay(folder.path(), "compat=1.1", None);
    relinked(&files, Some(&link("base.qcow2", "qcow2"))).unwrap();
    assert!(qemu_content_in(&files) == base);
    relinked(&files, None).unwrap();
    assert!(is_zero(&qemu_content_in(&files)));
}

#[test]
fn names_fit_or_are_refused_in_the_smallest_cluster() {
    let folder = tempfile::tempdir().unwrap();
    for options in [
        "cluster_size=512",
        "cluster_size=1k",
        "compat=0.10,cluster_size=512",
    ] {
        let files = overlay(folder.path(), options, None);
        for len in [200, 3, 300, 0, 30] {
            let parent = (len > 0).then(|| link(&"n".repeat(len), "qcow2"));
            let old = said(&files);
            cut_everywhere(
                &files,
                |files| relinked(files, parent.as_ref()).unwrap(),
                |cut| {
                    let now = said(cut).map(|parent| parent.0);
                    let new = parent.as_ref().map(|parent| parent.name.clone());
                    assert!(now == new || now == old.clone().map(|old| old.0));
                },
            );
        }
        let before = files.files();
        for len in [1000, 1024] {
            let error = relinked(&files, Some(&link(&"n".repeat(len), "raw"))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
        assert!(files.files() == before);
        assert_qemu_sound(&files, true);
    }
}

#[test]
fn a_raw_data_file_takes_no_parent() {
    let folder = tempfile::tempdir().unwrap();
    let options = "data_file=data.bin,data_file_raw=on";
    make_with_qemu(folder.path(), &[1; 65536], options, &[]);
    let files = load(folder.path());
    let error = relinked(&files, Some(&link("base.raw", "raw"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let no_format = ParentLink {
        format: None,
        ..link("base.raw", "raw")
    };
    assert!(relinked(&files, Some(&no_format)).is_err());
    relinked(&files, None).unwrap();
}
