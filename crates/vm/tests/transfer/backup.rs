//! Backups, night after night.

use std::path::PathBuf;

use hako_block::testkit::Rng;
use hako_block::{Cancel, ErrorKind, NoProgress};
use hako_formats::machine::Medium;
use hako_vm::{BackupReport, BackupTarget, Vm, backup_export, verify_file};

use crate::world::{MIB, World, content, contents, names, sha256, write_disk};

const DAY: u64 = 86_400;

fn backup(world: &World, vm: &Vm, night: u64, keep: usize) -> hako_block::Result<BackupReport> {
    let mut request = world.request();
    request.time += night * DAY;
    (request.record_contents, request.verify) = (true, true);
    let target = BackupTarget::Folder(world.path("backups"));
    backup_export(vm, target, Some(keep), &request, &NoProgress, &world.cancel)
}

/// Thirty nights; in some of them the machine runs, the disk is broken, the run is stopped, or a
/// killed one left its debris. There are always as many good generations as there can be, and each
/// imports with what the machine held that night.
#[test]
fn thirty_nights_with_failures_leave_as_many_good_generations_as_are_kept() {
    const KEEP: usize = 4;
    let mut world = World::new();
    std::fs::create_dir(world.path("backups")).unwrap();
    let vm = world.machine("web", &[&content(0, MIB)]);
    let disk = vm.folder().join("web-0.vmdk");
    let mut rng = Rng::new(30);
    let mut good: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for night in 0..30 {
        let bytes = content(100 + night, MIB);
        std::fs::remove_file(&disk).unwrap();
        write_disk(&disk, &bytes);
        let done = match rng.next_u64() % 6 {
            0 => {
                let _running = vm.hold().unwrap();
                let error = backup(&world, &vm, night, KEEP).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                None
            }
            1 => {
                let len = std::fs::metadata(&disk).unwrap().len();
                let file = std::fs::File::options().write(true).open(&disk).unwrap();
                file.set_len(len / 2).unwrap();
                let error = backup(&world, &vm, night, KEEP).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                None
            }
            2 => {
                world.cancel.cancel();
                backup(&world, &vm, night, KEEP).unwrap_err();
                world.cancel = Cancel::default();
                None
            }
            3 => {
                let part = ".web-2026-11-22T093014Z.ova.hako-part";
                std::fs::write(world.path("backups").join(part), b"debris").unwrap();
                let report = backup(&world, &vm, night, KEEP).unwrap();
                assert_eq!(report.export.cleared, [part]);
                Some(report)
            }
            _ => Some(backup(&world, &vm, night, KEEP).unwrap()),
        };
        if let Some(report) = done {
            assert_eq!(report.removed.len(), usize::from(good.len() >= KEEP));
            good.push((report.file.unwrap(), bytes));
            good.drain(..good.len().saturating_sub(KEEP));
        }
        let expected: Vec<_> = good.iter().map(|(path, _)| path.clone()).collect();
        let found = names(&world.path("backups"));
        let found: Vec<_> = found
            .iter()
            .map(|name| world.path("backups").join(name))
            .collect();
        assert_eq!(found, expected, "night {night}");
        for path in &expected {
            let verified = verify_file(path, &NoProgress, &world.cancel).unwrap();
            assert_eq!(verified.contents, 1);
        }
    }
    assert_eq!(good.len(), KEEP);
    for (number, (path, bytes)) in good.iter().enumerate() {
        let report = world.import(path, &format!("restored{number}")).unwrap();
        assert!(contents(&report.vmx) == [bytes.clone()]);
    }
}

#[test]
fn generations_of_another_machine_stay() {
    let world = World::new();
    std::fs::create_dir(world.path("backups")).unwrap();
    // Two names that make one name of files.
    let [one, other] = ["web 1", "web-1"].map(|name| world.machine(name, &[&content(1, MIB)]));
    for night in 0..3 {
        backup(&world, &one, 2 * night, 2).unwrap();
        backup(&world, &other, 2 * night + 1, 2).unwrap();
    }
    let found = names(&world.path("backups"));
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn a_snapshot_is_backed_up_while_the_machine_runs() {
    let world = World::new();
    let (before, after) = (content(1, MIB), content(2, MIB));
    let vm = world.machine("web", &[&before]);
    let drive = vm.vmx.machine().drives[0].clone();
    let Medium::Disk(base) = &drive.medium else {
        panic!("a disk");
    };
    let snapshot = format!(
        ".encoding = \"UTF-8\"\nsnapshot.lastUID = \"1\"\nsnapshot.current = \"1\"\n\
         snapshot0.uid = \"1\"\nsnapshot0.filename = \"web-Snapshot1.vmsn\"\n\
         snapshot0.displayName = \"nightly\"\nsnapshot0.numDisks = \"1\"\n\
         snapshot0.disk0.fileName = \"{}\"\nsnapshot0.disk0.node = \"{}\"\n\
         snapshot.numSnapshots = \"1\"\n",
        base.file, drive.node
    );
    std::fs::write(vm.vmsd_path(), snapshot).unwrap();
    write_disk(&vm.folder().join("web-000001.vmdk"), &after);
    let mut running = Vm::at(vm.path(), &[]).unwrap();
    running
        .vmx
        .set_drive_file(drive.node, "web-000001.vmdk")
        .unwrap();
    running.save().unwrap();
    let running = Vm::at(vm.path(), &[]).unwrap();
    let _runs = running.hold().unwrap();
    let path = world.path("web.ova");
    let mut request = world.request();
    request.record_contents = true;
    let run = |request: &hako_vm::ExportRequest| {
        let target = BackupTarget::File(path.clone());
        backup_export(&running, target, None, request, &NoProgress, &world.cancel)
    };
    assert_eq!(run(&request).unwrap_err().kind(), ErrorKind::Locked);
    request.snapshot = Some("none".to_owned());
    assert_eq!(run(&request).unwrap_err().kind(), ErrorKind::NotFound);
    request.snapshot = Some("nightly".to_owned());
    let report = run(&request).unwrap();
    assert_eq!(
        report.export.disks[0].sha256.unwrap().to_vec(),
        sha256(&before)
    );
    let imported = world.import(&path, "restored").unwrap();
    assert!(contents(&imported.vmx) == [before]);
}
