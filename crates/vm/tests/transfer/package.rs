//! Packages as others make them.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use hako_block::ErrorKind;
use hako_formats::machine::Network;
use hako_vm::{ExportTarget, Vm};

use crate::world::{MIB, World, content, contents};

/// An OVF in a folder, without manifest, its disk and the disk's content.
fn package(world: &World) -> (PathBuf, PathBuf, Vec<u8>) {
    let bytes = content(4, 2 * MIB);
    let vm = world.machine("web", &[&bytes]);
    let mut request = world.request();
    request.manifest = None;
    let folder = world.path("ovf");
    world
        .export(&vm, ExportTarget::Ovf(folder.clone()), &request)
        .unwrap();
    (folder.join("web.ovf"), folder.join("web-disk1.vmdk"), bytes)
}

fn edit(path: &Path, change: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(path).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed);
    std::fs::write(path, changed).unwrap();
}

/// Adds an attribute to the file of the disk.
fn add_attribute(ovf: &Path, attribute: &str) {
    edit(ovf, |text| {
        text.replace(
            "ovf:href=\"web-disk1.vmdk\"",
            &format!("ovf:href=\"web-disk1.vmdk\" {attribute}"),
        )
    });
}

#[test]
fn packed_disks_are_unpacked() {
    let world = World::new();
    let (ovf, disk, bytes) = package(&world);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&std::fs::read(&disk).unwrap()).unwrap();
    let mut packed = encoder.finish().unwrap();
    std::fs::write(&disk, &packed).unwrap();
    add_attribute(&ovf, "ovf:compression=\"gzip\"");
    let report = world.import(&ovf, "new").unwrap();
    assert!(contents(&report.vmx) == [bytes]);
    packed.truncate(packed.len() / 2);
    std::fs::write(&disk, &packed).unwrap();
    let error = world.import(&ovf, "cut").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn pieces_are_joined() {
    let world = World::new();
    let (ovf, disk, bytes) = package(&world);
    let whole = std::fs::read(&disk).unwrap();
    std::fs::remove_file(&disk).unwrap();
    let piece = |number: usize| disk.with_file_name(format!("web-disk1.vmdk.{number:09}"));
    for (number, bytes) in whole.chunks(100_000).enumerate() {
        std::fs::write(piece(number), bytes).unwrap();
    }
    add_attribute(&ovf, "ovf:chunkSize=\"100000\"");
    let report = world.import(&ovf, "new").unwrap();
    assert!(contents(&report.vmx) == [bytes]);
    std::fs::remove_file(piece(3)).unwrap();
    let error = world.import(&ovf, "missing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_file_of_another_size_or_none_at_all_is_refused() {
    let world = World::new();
    let (ovf, disk, _) = package(&world);
    let mut bytes = std::fs::read(&disk).unwrap();
    bytes.push(0);
    std::fs::write(&disk, bytes).unwrap();
    let error = world.refused(world.import_request(&ovf, "new"));
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    std::fs::remove_file(&disk).unwrap();
    let error = world.refused(world.import_request(&ovf, "new"));
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn files_outside_the_folder_are_not_opened() {
    let world = World::new();
    let (ovf, disk, _) = package(&world);
    std::fs::rename(&disk, world.path("outside.vmdk")).unwrap();
    for name in [
        "../outside.vmdk".to_owned(),
        world.path("outside.vmdk").to_str().unwrap().to_owned(),
    ] {
        let text = std::fs::read_to_string(&ovf).unwrap();
        edit(&ovf, |text| text.replace("web-disk1.vmdk", &name));
        let error = world.refused(world.import_request(&ovf, "new"));
        assert_eq!(error.kind(), ErrorKind::Gate, "{error}");
        std::fs::write(&ovf, text).unwrap();
    }
}

#[test]
fn networks_are_mapped_by_name() {
    let world = World::new();
    let (ovf, _, _) = package(&world);
    let text = std::fs::read_to_string(&ovf).unwrap();
    let listing = hako_vm::list_import(
        hako_vm::ImportSource::Path(ovf.clone()),
        &hako_formats::OpenOptions::default(),
        &world.path(""),
        &hako_block::NoProgress,
        &world.cancel,
    )
    .unwrap();
    let name = listing.networks[0].name.clone();
    assert!(text.contains(&name));
    let mut request = world.import_request(&ovf, "new");
    request.choices.networks = vec![(name, Network::HostOnly)];
    let report = world.import_by(request).unwrap();
    let machine = Vm::at(&report.vmx, &[]).unwrap().vmx.machine();
    assert_eq!(machine.nics[0].network, Network::HostOnly);
    let mut request = world.import_request(&ovf, "other");
    request.choices.networks = vec![("no such".to_owned(), Network::Nat)];
    assert_eq!(
        world.import_by(request).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn a_licence_has_to_be_accepted() {
    let world = World::new();
    let (ovf, _, _) = package(&world);
    edit(&ovf, |text| {
        let section = "<EulaSection><Info>e</Info><License>Be kind.</License></EulaSection>";
        text.replacen("</VirtualSystem>", &format!("{section}</VirtualSystem>"), 1)
    });
    let error = world.refused(world.import_request(&ovf, "new"));
    assert!(
        error.hint_text().unwrap().contains("--accept-eula"),
        "{error}"
    );
    let mut request = world.import_request(&ovf, "new");
    request.choices.accept_eula = true;
    world.import_by(request).unwrap();
}

#[test]
fn packages_of_others_are_imported() {
    let Some(corpus) = std::env::var_os("HAKO_CORPUS") else {
        eprintln!("skipped: HAKO_CORPUS is not set");
        return;
    };
    let world = World::new();
    for (number, name) in [
        "open-vmdk-made/basic.ova",
        "open-vmdk-made/nvme.ova",
        "govmomi/ttylinux-pc_i486-16.1.ova",
    ]
    .into_iter()
    .enumerate()
    {
        let path = Path::new(&corpus).join(name);
        let mut request = world.import_request(&path, &format!("vm{number}"));
        request.choices.accept_eula = true;
        match world.import_by(request) {
            Ok(report) => assert_eq!((report.disks.len(), report.verified), (1, true), "{name}"),
            // govmomi cut this one's disk to its first MiB, and said so in the manifest alone.
            Err(error) => {
                assert!(name.contains("ttylinux"), "{name}: {error}");
                assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
            }
        }
    }
}

#[test]
fn a_disk_is_as_large_as_its_description_says_or_refused() {
    let world = World::new();
    let (ovf, _, bytes) = package(&world);
    let capacity = |bytes: usize| {
        edit(&ovf, |text| {
            let start = text.find("ovf:capacity=\"").unwrap() + 14;
            let end = start + text[start..].find('"').unwrap();
            format!("{}{bytes}{}", &text[..start], &text[end..])
        });
        let files = ["web.ovf", "web-disk1.vmdk"];
        let tar = world.path(&format!("{bytes}.ova"));
        let out = tar.to_str().unwrap();
        let args = [&["--format=ustar", "-cf", out][..], &files].concat();
        crate::world::peer(ovf.parent().unwrap(), "tar", &args)?;
        Some(std::fs::read(tar).unwrap())
    };
    let Some(small) = capacity(2 * MIB - 512) else {
        return;
    };
    let requests = || {
        [
            world.import_request(&ovf, "web"),
            crate::pipe::through_a_pipe(&world, small.clone()),
        ]
    };
    for request in requests() {
        let error = world.refused(request);
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.hint_text().unwrap().contains("capacity"), "{error}");
    }
    let large = capacity(5 * MIB).unwrap();
    let mut grown = bytes;
    grown.resize(5 * MIB, 0);
    let mut through = crate::pipe::through_a_pipe(&world, large);
    through.name = Some("piped".to_owned());
    for request in [world.import_request(&ovf, "web"), through] {
        let report = world.import_by(request).unwrap();
        assert_eq!(report.disks[0].virtual_size, 5 * MIB as u64);
        assert!(contents(&report.vmx) == [grown.clone()]);
    }
}
