//! Packages that are not what they say they are, and runs that are stopped.

use hako_block::ErrorKind;
use hako_formats::ova::Ova;
use hako_vm::ExportTarget;

use crate::world::{MIB, World, content, names};

#[test]
fn one_changed_byte_anywhere_is_found() {
    let world = World::new();
    let vm = world.machine("web", &[&content(1, MIB), &content(2, MIB)]);
    let path = world.ova(&vm, "web.ova");
    let whole = std::fs::read(&path).unwrap();
    let storage = hako_block::MemoryStorage::new("web.ova", whole.clone());
    let ova = Ova::open(std::sync::Arc::new(storage)).unwrap();
    let damaged = world.path("damaged.ova");
    for member in ova.members().to_vec() {
        let len = member.range.end - member.range.start;
        for part in 0..7 {
            let at = (member.range.start + len / 7 * part) as usize;
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&damaged, &bytes).unwrap();
            let error = world.refused(world.import_request(&damaged, "web"));
            let is_found = matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::Corrupt);
            // A digit of the manifest that became none, or an unknown digest's name.
            let is_manifest = member.name.ends_with(".mf");
            assert!(
                is_found || is_manifest,
                "{} at {part}/7: {error}",
                member.name
            );
        }
    }
}

#[test]
fn a_truncated_ova_is_refused() {
    let world = World::new();
    let vm = world.machine("web", &[&content(1, MIB)]);
    let path = world.ova(&vm, "web.ova");
    let whole = std::fs::read(&path).unwrap();
    for part in 1..8 {
        let cut = world.path("cut.ova");
        std::fs::write(&cut, &whole[..whole.len() / 8 * part]).unwrap();
        let error = world.refused(world.import_request(&cut, "web"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn what_is_cancelled_leaves_nothing() {
    let world = World::new();
    let vm = world.machine("web", &[&content(1, MIB)]);
    let path = world.ova(&vm, "web.ova");
    let before = world.names("");
    world.cancel.cancel();
    let targets = [
        ExportTarget::Ova(world.path("new.ova")),
        ExportTarget::Ovf(world.path("new")),
        ExportTarget::Libvirt(world.path("new")),
    ];
    for target in targets {
        let error = world.export(&vm, target, &world.request()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    let error = world.refused(world.import_request(&path, "web"));
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let mut after = world.names("");
    after.retain(|name| name != "home");
    assert_eq!(after, before);
}

#[test]
fn a_damaged_disk_is_not_exported() {
    let world = World::new();
    let vm = world.machine("web", &[&content(1, MIB)]);
    let disk = vm.folder().join("web-0.vmdk");
    let len = std::fs::metadata(&disk).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&disk)
        .unwrap()
        .set_len(len / 2)
        .unwrap();
    let target = ExportTarget::Ova(world.path("web.ova"));
    let error = world.export(&vm, target, &world.request()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(world.names(""), ["web"]);
}

#[test]
fn a_machine_that_is_suspended_or_in_use_is_left_alone() {
    let world = World::new();
    let vm = world.machine("web", &[&content(1, MIB)]);
    let held = vm.hold().unwrap();
    let target = || ExportTarget::Ova(world.path("web.ova"));
    let error = world.export(&vm, target(), &world.request()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    let error = world.refused(world.import_request(vm.path(), "copy"));
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    drop(held);
    std::fs::write(vm.folder().join("web.vmss"), b"memory").unwrap();
    let error = world.export(&vm, target(), &world.request()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert_eq!(names(&world.path(""))[..], ["web"]);
}
