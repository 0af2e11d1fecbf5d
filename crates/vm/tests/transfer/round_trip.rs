//! What goes out comes in again.

use std::fs::File;
use std::io::Read;

use hako_block::ErrorKind;
use hako_formats::digest::{Algorithm, hex};
use hako_formats::format_named;
use hako_vm::{ExportTarget, ImportSource, Inventory, Product, Vm};

use crate::world::{MIB, World, content, contents, image_content, names, peer, sha256};

fn disks() -> Vec<Vec<u8>> {
    vec![content(1, 5 * MIB), content(2, 3 * MIB + 512), vec![0; MIB]]
}

fn machine(world: &World, name: &str) -> Vm {
    let disks = disks();
    let disks: Vec<_> = disks.iter().map(Vec::as_slice).collect();
    world.machine(name, &disks)
}

#[test]
fn every_export_imports_with_the_same_content_and_hardware() {
    let world = World::new();
    let vm = machine(&world, "web");
    let before = vm.vmx.machine();
    let folder = |name: &str| world.path(name);
    let targets = [
        (
            "ova",
            ExportTarget::Ova(folder("web.ova")),
            folder("web.ova"),
        ),
        ("ovf", ExportTarget::Ovf(folder("ovf")), folder("ovf")),
        (
            "workstation",
            ExportTarget::Vmx {
                folder: folder("ws"),
                product: Product::Workstation,
            },
            folder("ws"),
        ),
        (
            "esxi",
            ExportTarget::Vmx {
                folder: folder("esxi"),
                product: Product::Esxi,
            },
            folder("esxi/web.vmx"),
        ),
    ];
    for (name, target, path) in targets {
        let mut request = world.request();
        request.verify = true;
        let report = world.export(&vm, target, &request).unwrap();
        assert_eq!((report.disks.len(), report.verified), (3, true), "{name}");
        let imported = world.import(&path, name).unwrap();
        assert!(contents(&imported.vmx) == disks(), "{name}");
        let after = Vm::at(&imported.vmx, &[]).unwrap().vmx.machine();
        assert_eq!(after.name, name);
        assert_eq!(
            (
                after.cpu,
                after.memory_bytes,
                after.firmware,
                &after.guest_os
            ),
            (
                before.cpu,
                before.memory_bytes,
                before.firmware,
                &before.guest_os
            ),
            "{name}"
        );
        assert_eq!(
            after.controllers[0].model.as_deref(),
            Some("pvscsi"),
            "{name}"
        );
        assert_eq!(after.nics[0].model.as_deref(), Some("vmxnet3"), "{name}");
        assert_eq!(after.annotation, before.annotation, "{name}");
        let nodes = |machine: &hako_formats::machine::Machine| {
            machine
                .drives
                .iter()
                .map(|drive| drive.node)
                .collect::<Vec<_>>()
        };
        assert_eq!(nodes(&after), nodes(&before), "{name}");
    }
    let listed = Inventory::read(&world.home).unwrap();
    assert_eq!(listed.entries.len(), 4);
    assert_eq!(
        names(&world.home.vms()),
        ["esxi", "ova", "ovf", "workstation"]
    );
}

#[test]
fn an_ova_goes_through_pipes() {
    let world = World::new();
    let vm = machine(&world, "web");
    let path = world.path("web.ova");
    let pipe = File::create_new(&path).unwrap();
    world
        .export(&vm, ExportTarget::Pipe(Box::new(pipe)), &world.request())
        .unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let sent = path.clone();
    let sending = std::thread::spawn(move || {
        std::io::copy(&mut File::open(sent).unwrap(), &mut writer).unwrap();
    });
    let mut request = world.import_request(&path, "web");
    request.source = ImportSource::Stdin(File::from(std::os::fd::OwnedFd::from(
        reader.try_clone().unwrap(),
    )));
    let report = world.import_by(request).unwrap();
    sending.join().unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(report.verified);
    assert!(contents(&report.vmx) == disks());
}

#[test]
fn peers_read_what_is_exported() {
    let world = World::new();
    let vm = machine(&world, "web");
    let ova = world.ova(&vm, "web.ova");
    let out = world.path("out");
    std::fs::create_dir(&out).unwrap();
    let Some(list) = peer(&out, "tar", &["-xvf", ova.to_str().unwrap()]) else {
        return;
    };
    assert_eq!(
        list.lines().collect::<Vec<_>>(),
        [
            "web.ovf",
            "web.mf",
            "web-disk1.vmdk",
            "web-disk2.vmdk",
            "web-disk3.vmdk"
        ]
    );
    // GNU's own tag format has blanks that VMware's readers do not take.
    let manifest = std::fs::read_to_string(out.join("web.mf")).unwrap();
    let tagged = manifest
        .replace("SHA256(", "SHA256 (")
        .replace(")= ", ") = ");
    std::fs::write(out.join("tagged"), tagged).unwrap();
    peer(&out, "sha256sum", &["-c", "--strict", "tagged"]);
    // The blanks behind the envelope are no trouble to others.
    let parse = "import sys, xml.etree.ElementTree as t; print(t.parse(sys.argv[1]).getroot().tag)";
    if let Some(root) = peer(&out, "python3", &["-c", parse, "web.ovf"]) {
        assert!(root.trim_end().ends_with("}Envelope"), "{root}");
    }
    for (number, content) in (1..).zip(disks()) {
        let name = format!("web-disk{number}.vmdk");
        peer(&out, "qemu-img", &["convert", "-O", "raw", &name, "raw"]);
        if let Ok(found) = std::fs::read(out.join("raw")) {
            assert!(found == content, "{name}");
        }
        let info = image_content(&out.join(&name));
        assert!(info == content, "{name}");
    }
}

#[test]
fn manifests_are_as_asked_for() {
    let world = World::new();
    let vm = machine(&world, "web");
    for algorithm in [Some(Algorithm::Sha1), Some(Algorithm::Sha512), None] {
        let name = algorithm.map_or("none", Algorithm::name);
        let mut request = world.request();
        request.manifest = algorithm;
        world
            .export(&vm, ExportTarget::Ovf(world.path(name)), &request)
            .unwrap();
        let manifest = std::fs::read_to_string(world.path(name).join("web.mf"));
        match algorithm {
            Some(_) => assert!(manifest.unwrap().starts_with(&format!("{name}(web.ovf)= "))),
            None => assert!(manifest.is_err()),
        }
        let report = world.import(&world.path(name), name).unwrap();
        assert_eq!(report.verified, algorithm.is_some());
    }
}

#[test]
fn content_is_recorded_where_only_hako_looks() {
    let world = World::new();
    let vm = machine(&world, "web");
    let mut request = world.request();
    (request.record_contents, request.verify) = (true, true);
    let path = world.path("web.ova");
    let report = world
        .export(&vm, ExportTarget::Ova(path.clone()), &request)
        .unwrap();
    for (disk, content) in report.disks.iter().zip(disks()) {
        assert_eq!(disk.sha256.unwrap().to_vec(), sha256(&content));
    }
    let verified = hako_vm::verify_file(&path, &hako_block::NoProgress, &world.cancel).unwrap();
    assert_eq!((verified.disks, verified.contents), (3, 3));
    // It stands in the description, behind the envelope.
    let bytes = std::fs::read(&path).unwrap();
    let digest = hex(&sha256(&disks()[0]));
    assert!(
        bytes[..20_000]
            .windows(64)
            .any(|window| window == digest.as_bytes())
    );
}

#[test]
fn disks_are_imported_in_the_format_that_is_asked_for() {
    let world = World::new();
    let vm = machine(&world, "web");
    let ova = world.ova(&vm, "web.ova");
    let mut request = world.import_request(&ova, "q");
    request.format = format_named("qcow2").unwrap();
    request.verify = true;
    let report = world.import_by(request).unwrap();
    assert_eq!(report.disks[1].file, "q_1.qcow2");
    assert!(contents(&report.vmx) == disks());
}

#[test]
fn a_disk_by_itself_becomes_a_machine() {
    let world = World::new();
    let bytes = content(3, 2 * MIB + 100);
    std::fs::write(world.path("old.raw"), &bytes).unwrap();
    let report = world.import(&world.path("old.raw"), "old").unwrap();
    let found = contents(&report.vmx);
    assert_eq!(found[0].len(), 2 * MIB + 512);
    assert!(found[0][..bytes.len()] == bytes);
}

#[test]
fn a_chain_is_flattened_and_the_source_stays() {
    let world = World::new();
    let vm = world.machine("web", &[&content(1, 2 * MIB)]);
    std::fs::write(vm.folder().join("web.nvram"), b"nvram").unwrap();
    let before = names(vm.folder());
    let report = world.import(vm.path(), "copy").unwrap();
    assert!(contents(&report.vmx) == contents(vm.path()));
    assert_eq!(names(vm.folder()), before);
    let copied = names(report.vmx.parent().unwrap());
    assert_eq!(copied, ["copy.nvram", "copy.vmdk", "copy.vmx"]);
}

#[test]
fn what_the_firmware_keeps_goes_along() {
    let world = World::new();
    let vm = world.machine("web", &[&content(1, MIB)]);
    std::fs::write(vm.folder().join("web.nvram"), b"boot entries").unwrap();
    let ova = world.ova(&vm, "web.ova");
    let piped = world.path("piped.ova");
    let pipe = File::create_new(&piped).unwrap();
    let target = ExportTarget::Pipe(Box::new(pipe));
    world.export(&vm, target, &world.request()).unwrap();
    let folder = world.path("ovf");
    world
        .export(&vm, ExportTarget::Ovf(folder.clone()), &world.request())
        .unwrap();
    for (name, path) in [("a", &ova), ("b", &piped), ("c", &folder)] {
        let report = world.import(path, name).unwrap();
        assert_eq!(report.warnings, [""; 0], "{name}");
        let kept = std::fs::read(report.vmx.with_extension("nvram")).unwrap();
        assert_eq!(kept, b"boot entries", "{name}");
        let vmx = Vm::at(&report.vmx, &[]).unwrap().vmx;
        assert_eq!(vmx.nvram(), Some(format!("{name}.nvram")));
    }
}

#[test]
fn a_libvirt_folder_has_xml_and_qcow2() {
    let world = World::new();
    let vm = machine(&world, "web");
    let folder = world.path("kvm");
    world
        .export(&vm, ExportTarget::Libvirt(folder.clone()), &world.request())
        .unwrap();
    assert_eq!(
        names(&folder),
        ["web.qcow2", "web.xml", "web_1.qcow2", "web_2.qcow2"]
    );
    assert!(image_content(&folder.join("web_1.qcow2")) == disks()[1]);
    let xml = std::fs::read_to_string(folder.join("web.xml")).unwrap();
    assert!(
        xml.contains(folder.join("web_1.qcow2").to_str().unwrap()),
        "{xml}"
    );
}

#[test]
fn what_exists_stays() {
    let world = World::new();
    let vm = machine(&world, "web");
    let ova = world.ova(&vm, "web.ova");
    for target in [
        ExportTarget::Ova(ova.clone()),
        ExportTarget::Ovf(world.path("web")),
        ExportTarget::Libvirt(world.path("web")),
    ] {
        let error = world.export(&vm, target, &world.request()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    }
    world.import(&ova, "new").unwrap();
    let again = world.import(&ova, "new").unwrap_err();
    assert!(
        matches!(again.kind(), ErrorKind::Exists | ErrorKind::Invalid),
        "{again}"
    );
    assert_eq!(names(&world.home.vms()), ["new"]);
}
