//! Packages that come through a pipe.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use flate2::Compression;
use flate2::write::GzEncoder;
use hako_block::{ErrorKind, NoProgress};
use hako_formats::OpenOptions;
use hako_vm::{ExportTarget, ImportRequest, ImportSource, list_import};

use crate::world::{MIB, World, content, contents, peer};

/// A request for what comes through a pipe, into which these bytes are sent.
pub fn through_a_pipe(world: &World, bytes: Vec<u8>) -> ImportRequest {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // Who receives may give up before the end.
    std::thread::spawn(move || drop(writer.write_all(&bytes)));
    let mut request = world.import_request("-".as_ref(), "web");
    request.source = ImportSource::Stdin(File::from(OwnedFd::from(reader)));
    request
}

fn disks() -> [Vec<u8>; 2] {
    [content(1, 5 * MIB), content(2, 3 * MIB + 512)]
}

/// The files of an exported machine, in this order, in a tar.
fn tar(world: &World, order: &[&str]) -> Option<Vec<u8>> {
    let folder = world.path("ovf");
    let args = ["--format=ustar", "-cf", "../web.tar"];
    peer(&folder, "tar", &[&args[..], order].concat())?;
    Some(std::fs::read(world.path("web.tar")).unwrap())
}

fn exported() -> World {
    let world = World::new();
    let [first, second] = disks();
    let vm = world.machine("web", &[&first, &second]);
    let target = ExportTarget::Ovf(world.path("ovf"));
    world.export(&vm, target, &world.request()).unwrap();
    world
}

const DISKS: [&str; 2] = ["web-disk1.vmdk", "web-disk2.vmdk"];

#[test]
fn members_come_in_any_order() {
    let [one, two] = DISKS;
    for order in [
        ["web.ovf", "web.mf", one, two],
        ["web.ovf", "web.mf", two, one],
        ["web.ovf", one, two, "web.mf"],
        [one, "web.ovf", two, "web.mf"],
        [one, two, "web.mf", "web.ovf"],
    ] {
        let world = exported();
        let Some(bytes) = tar(&world, &order) else {
            return;
        };
        let mut request = through_a_pipe(&world, bytes);
        request.verify = order[1] == "web.mf";
        let report = world.import_by(request).unwrap();
        assert!(report.verified && report.warnings.is_empty(), "{order:?}");
        assert!(contents(&report.vmx) == disks(), "{order:?}");
        assert_eq!(report.disks[1].virtual_size, 3 * MIB as u64 + 512);
    }
}

#[test]
fn a_disk_of_another_kind_is_kept_until_the_end() {
    let world = exported();
    let path = world.path("ovf").join(DISKS[0]);
    std::fs::remove_file(&path).unwrap();
    crate::world::write_disk(&path, &disks()[0]);
    let ovf = world.path("ovf/web.ovf");
    let text = std::fs::read_to_string(&ovf).unwrap();
    let len = std::fs::metadata(&path).unwrap().len();
    let start = text.find("ovf:size=\"").unwrap() + 10;
    let end = start + text[start..].find('"').unwrap();
    std::fs::write(&ovf, format!("{}{len}{}", &text[..start], &text[end..])).unwrap();
    let Some(bytes) = tar(&world, &["web.ovf", DISKS[0], DISKS[1]]) else {
        return;
    };
    let report = world.import_by(through_a_pipe(&world, bytes)).unwrap();
    assert!(!report.verified);
    assert!(contents(&report.vmx) == disks());
}

#[test]
fn what_a_manifest_does_not_confirm_is_not_delivered() {
    let [one, two] = DISKS;
    for order in [
        ["web.ovf", "web.mf", one, two],
        ["web.ovf", one, two, "web.mf"],
    ] {
        let world = exported();
        let manifest = world.path("ovf/web.mf");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let line = text.lines().find(|line| line.contains(two)).unwrap();
        let swapped: String = line.chars().rev().take(64).collect();
        let wrong = line.replace(&line[line.len() - 64..], &swapped);
        std::fs::write(&manifest, text.replace(line, &wrong)).unwrap();
        let Some(bytes) = tar(&world, &order) else {
            return;
        };
        let error = world.refused(through_a_pipe(&world, bytes));
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.to_string().contains(two), "{error}");
    }
}

#[test]
fn damage_and_cuts_anywhere_are_found() {
    let world = exported();
    let Some(bytes) = tar(&world, &["web.ovf", "web.mf", DISKS[0], DISKS[1]]) else {
        return;
    };
    for part in 1..16 {
        let at = bytes.len() / 16 * part;
        let error = world.refused(through_a_pipe(&world, bytes[..at].to_vec()));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {at}: {error}");
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = world.refused(through_a_pipe(&world, damaged));
        let is_found = matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::Corrupt);
        assert!(is_found, "byte {at}: {error}");
    }
    let error = world.refused(through_a_pipe(&world, vec![1; 5000]));
    assert!(error.to_string().contains("no OVA"), "{error}");
    assert!(
        world
            .refused(through_a_pipe(&world, Vec::new()))
            .to_string()
            .contains("no OVA")
    );
}

#[test]
fn a_package_in_a_gzip_is_unpacked_on_its_way() {
    let world = exported();
    let Some(bytes) = tar(&world, &["web.ovf", "web.mf", DISKS[0], DISKS[1]]) else {
        return;
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&bytes).unwrap();
    let packed = encoder.finish().unwrap();
    let path = world.path("web.ova.gz");
    std::fs::write(&path, &packed).unwrap();
    let cut = through_a_pipe(&world, packed[..packed.len() / 2].to_vec());
    assert_eq!(world.refused(cut).kind(), ErrorKind::Corrupt);
    let mut damaged = packed.clone();
    damaged[packed.len() / 2] ^= 1;
    let error = world.refused(through_a_pipe(&world, damaged));
    let is_found = matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::Corrupt);
    assert!(is_found, "{error}");
    let source = ImportSource::Path(path.clone());
    let folder = world.path("");
    let open = OpenOptions::default();
    let listing = list_import(source, &open, &folder, &NoProgress, &world.cancel).unwrap();
    assert_eq!((listing.disks.len(), listing.has_manifest), (2, true));
    let mut through = through_a_pipe(&world, packed);
    through.name = Some("piped".to_owned());
    for request in [world.import_request(&path, "web"), through] {
        let report = world.import_by(request).unwrap();
        assert!(report.verified && contents(&report.vmx) == disks());
    }
}
