use std::os::unix::fs::MetadataExt;

use hako_block::{Cancel, NoProgress};

use super::*;
use crate::snapshot::testing::World;

fn with_task<T>(use_it: impl FnOnce(Task<'_>) -> T) -> T {
    use_it(Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    })
}

fn planned(world: &World, doomed: &Doomed) -> Result<SnapshotDeletion> {
    with_task(|task| SnapshotDeletion::plan(&world.home, world.vm(), doomed, task))
}

/// Deletes, and returns what stays that one might expect to go.
fn delete(world: &World, doomed: &Doomed) -> Vec<String> {
    let deletion = planned(world, doomed).unwrap();
    let kept = deletion.kept().to_vec();
    let warnings = with_task(|task| deletion.run(task)).unwrap();
    assert_eq!(warnings, [""; 0]);
    kept
}

fn one(what: &str) -> Doomed {
    Doomed::One(what.to_owned())
}

/// Returns uids, parents and files of the snapshots.
fn listed(world: &World) -> Vec<(u32, Option<u32>, String)> {
    let snapshots = world.vm().vmsd().unwrap().unwrap().snapshots();
    let rows = snapshots.into_iter();
    rows.map(|one| (one.uid, one.parent, one.disks[0].file.clone()))
        .collect()
}

/// Four layers with three snapshots between, each with pieces of its own and some over others'.
fn chain_of(extension: &str, base_extension: &str) -> (World, Vec<String>) {
    let name = |stem: &str| format!("{stem}.{extension}");
    let names = vec![
        format!("web.{base_extension}"),
        name("web-000001"),
        name("web-000002"),
        name("web-000003"),
    ];
    let world = World::new();
    for (index, file) in names.iter().enumerate() {
        let below = index.checked_sub(1).map(|below| names[below].as_str());
        world.image(file, below);
        let own = index as u64;
        world.write(file, &[own, 10 + own, 20, 30 + own % 2], 1 + index as u8);
    }
    world.vmx(&[&names[3]]);
    let snapshots = [
        (1, 0, names[0].as_str()),
        (2, 1, names[1].as_str()),
        (3, 2, names[2].as_str()),
    ];
    world.vmsd(3, &snapshots);
    (world, names)
}

#[test]
fn every_state_that_stays_shows_what_it_showed_in_every_format() {
    for (extension, base) in [
        ("vmdk", "vmdk"),
        ("qcow2", "qcow2"),
        ("vhdx", "vhdx"),
        ("vhd", "vhd"),
        ("qcow2", "raw"),
        ("qcow2", "vdi"),
    ] {
        for uid in 1..=3 {
            let (world, names) = chain_of(extension, base);
            let shown: Vec<_> = names.iter().map(|name| world.shown(name)).collect();
            delete(&world, &one(&uid.to_string()));
            let about = format!("{extension} on {base}, {uid}");
            // What stood on the snapshot's image is in that now.
            let (gone, at) = (uid as usize, uid as usize - 1);
            assert!(!world.at(&names[gone]).exists(), "{about}");
            for (index, was) in shown.iter().enumerate() {
                let now = match index {
                    index if index == at => continue,
                    index if index == gone => &names[at],
                    _ => &names[index],
                };
                assert_eq!(world.shown(now), *was, "{about}: {index}");
            }
            let vm = world.vm();
            let live = &vm.disks()[0].1.file;
            assert_eq!(
                live,
                if uid == 3 { &names[2] } else { &names[3] },
                "{about}"
            );
            let held: Vec<String> = listed(&world).into_iter().map(|row| row.2).collect();
            let expected = match uid {
                1 => [&names[0], &names[2]],
                2 => [&names[0], &names[1]],
                _ => [&names[0], &names[1]],
            };
            assert_eq!(held.iter().collect::<Vec<_>>(), expected, "{about}");
            assert!(vm.pending().unwrap().is_none());
        }
    }
}

#[test]
fn all_snapshots_leave_the_base_alone_with_everything_in_it() {
    for (extension, base) in [("vmdk", "vmdk"), ("qcow2", "raw")] {
        let (world, names) = chain_of(extension, base);
        let shown = world.shown(&names[3]);
        assert_eq!(delete(&world, &Doomed::All), [""; 0]);
        assert_eq!(world.names(), [names[0].as_str(), "web.vmsd", "web.vmx"]);
        assert_eq!(world.shown(&names[0]), shown);
        let (_, disk) = &world.vm().disks()[0];
        assert_eq!(disk.file, names[0]);
        assert_eq!(disk.format.as_deref(), (base == "raw").then_some("raw"));
        assert!(listed(&world).is_empty());
        assert_eq!(world.vm().vmsd().unwrap().unwrap().last_uid(), Some(3));
    }
}

#[test]
fn a_branch_goes_with_all_that_was_taken_on_it() {
    let (world, names) = chain_of("vmdk", "vmdk");
    // The machine went back to the first snapshot.
    world.image("web-000004.vmdk", Some(&names[0]));
    world.vmx(&["web-000004.vmdk"]);
    let shown = (world.shown(&names[0]), world.shown("web-000004.vmdk"));
    let kept = delete(&world, &one("1"));
    assert!(kept[0].contains("web.vmdk stays: 2 images"), "{kept:?}");
    // The old live overlay is not the snapshots': nothing says that it may go.
    let kept = delete(&world, &Doomed::Branch("s2".to_owned()));
    assert!(
        kept.iter()
            .any(|line| line.contains("to which nothing refers")),
        "{kept:?}"
    );
    assert!(world.at(&names[3]).exists());
    assert_eq!(world.shown(&names[0]), shown.0);
    assert_eq!(world.shown("web-000004.vmdk"), shown.1);
    assert!(listed(&world).is_empty());
}

#[test]
fn a_fork_is_merged_when_one_branch_is_left() {
    let (world, names) = chain_of("vmdk", "vmdk");
    std::fs::remove_file(world.at(&names[3])).unwrap();
    world.image("web-000004.vmdk", Some(&names[0]));
    world.write("web-000004.vmdk", &[3, 20], 9);
    world.vmx(&["web-000004.vmdk"]);
    let shown = world.shown("web-000004.vmdk");
    delete(&world, &one("1"));
    assert_eq!(world.vm().disks()[0].1.file, "web-000004.vmdk");
    assert_eq!(delete(&world, &Doomed::Branch("2".to_owned())), [""; 0]);
    assert_eq!(world.names(), ["web.vmdk", "web.vmsd", "web.vmx"]);
    assert_eq!(world.vm().disks()[0].1.file, "web.vmdk");
    assert_eq!(world.shown("web.vmdk"), shown);
}

#[test]
fn the_result_is_as_large_as_the_overlay_was() {
    for sizes in [[4 << 20, 8 << 20], [8 << 20, 4 << 20]] {
        let world = World::new();
        world.image_of("web.vmdk", None, sizes[0]);
        world.write("web.vmdk", &[0, 63], 1);
        world.image_of("web-000001.vmdk", Some("web.vmdk"), sizes[1]);
        world.write("web-000001.vmdk", &[1], 2);
        world.vmx(&["web-000001.vmdk"]);
        world.vmsd(1, &[(1, 0, "web.vmdk")]);
        let shown = world.shown("web-000001.vmdk");
        delete(&world, &Doomed::All);
        assert_eq!(world.shown("web.vmdk"), shown);
    }
}

#[test]
fn files_of_a_snapshot_go_unless_another_one_names_them() {
    let (world, _) = chain_of("vmdk", "vmdk");
    let mut text = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    text += "snapshot0.filename = \"web-Snapshot1.vmsn\"\n\
             hako.uid1.config = \"web-Snapshot1.vmx\"\n\
             snapshot1.filename = \"shared.vmsn\"\nsnapshot2.filename = \"shared.vmsn\"\n";
    std::fs::write(world.at("web.vmsd"), text).unwrap();
    let files = ["web-Snapshot1.vmsn", "web-Snapshot1.vmem", "shared.vmsn"];
    for file in files {
        std::fs::write(world.at(file), b"x").unwrap();
    }
    std::fs::copy(world.at("web.vmx"), world.at("web-Snapshot1.vmx")).unwrap();
    let deletion = planned(&world, &one("s1")).unwrap();
    let expected = [
        "web-000001.vmdk",
        "web-Snapshot1.vmem",
        "web-Snapshot1.vmsn",
        "web-Snapshot1.vmx",
    ];
    assert_eq!(deletion.files(), expected);
    drop(deletion);
    delete(&world, &one("s1"));
    delete(&world, &one("s2"));
    assert!(world.at("shared.vmsn").exists());
    delete(&world, &one("s3"));
    assert_eq!(world.names(), ["web.vmdk", "web.vmsd", "web.vmx"]);
}

#[test]
fn texts_that_name_the_machine_itself_take_nothing_away() {
    let (world, _) = chain_of("vmdk", "vmdk");
    let outside = world.at("../outside");
    std::fs::write(&outside, b"x").unwrap();
    let mut text = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    text += "snapshot0.filename = \"web.vmx\"\nsnapshot1.filename = \"../outside\"\n\
             snapshot2.filename = \"web.vmsd\"\nhako.uid1.config = \"web-000003.vmdk\"\n";
    std::fs::write(world.at("web.vmsd"), text).unwrap();
    let shown = world.shown("web-000003.vmdk");
    delete(&world, &one("s1"));
    assert!(world.at("web.vmx").exists() && outside.exists());
    assert_eq!(world.shown("web-000003.vmdk"), shown);
}

#[test]
fn an_entry_without_files_can_be_deleted() {
    let (world, names) = chain_of("vmdk", "vmdk");
    let snapshots = [(1, 0, names[0].as_str()), (2, 1, "gone.vmdk")];
    world.vmsd(2, &snapshots);
    let shown = world.shown(&names[3]);
    delete(&world, &one("2"));
    assert_eq!(listed(&world), [(1, None, names[0].clone())]);
    assert_eq!(world.shown(&names[3]), shown);
}

#[test]
fn what_does_not_fit_together_is_refused_and_left() {
    let refused = |world: &World, doomed: &Doomed| {
        let before = world.names();
        let error = planned(world, doomed).err().unwrap();
        assert_eq!(world.names(), before);
        error
    };
    // The snapshot's disk was written to after the overlay was made on it.
    let (world, names) = chain_of("vmdk", "vmdk");
    world.write(&names[1], &[5], 9);
    assert_eq!(refused(&world, &one("2")).kind(), ErrorKind::Corrupt);
    // Something that cannot be read may be an overlay on what would go.
    let (world, _) = chain_of("vmdk", "vmdk");
    std::fs::write(world.at("bad-000001.vmdk"), b"KDMVbroken").unwrap();
    assert_eq!(refused(&world, &one("2")).kind(), ErrorKind::Corrupt);
    // What is needed cannot be told.
    let (world, _) = chain_of("vmdk", "vmdk");
    let text = std::fs::read_to_string(world.at("web.vmx")).unwrap();
    let encrypted = text.clone() + "encryption.keySafe = \"x\"\nencryption.data = \"y\"\n";
    std::fs::write(world.at("web.vmx"), encrypted).unwrap();
    assert_eq!(refused(&world, &one("2")).kind(), ErrorKind::Unsupported);
    std::fs::write(world.at("web.vmx"), text).unwrap();
    let list = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    std::fs::write(world.at("web.vmsd"), list + "encryption.data = \"y\"\n").unwrap();
    assert_eq!(refused(&world, &one("2")).kind(), ErrorKind::Unsupported);
    // Nothing of that name.
    let (world, _) = chain_of("vmdk", "vmdk");
    assert_eq!(refused(&world, &one("x")).kind(), ErrorKind::NotFound);
    world.vmsd(0, &[]);
    assert_eq!(refused(&world, &Doomed::All).kind(), ErrorKind::NotFound);
}

#[test]
fn a_snapshot_that_another_machine_stands_on_stays_in_its_file() {
    let (world, names) = chain_of("vmdk", "vmdk");
    world.image("clone.vmdk", Some(&names[1]));
    let clone = "displayName = \"clone\"\nscsi0.present = \"TRUE\"\n\
                 scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"clone.vmdk\"\n";
    std::fs::write(world.at("clone.vmx"), clone).unwrap();
    let shown = world.shown("clone.vmdk");
    let kept = delete(&world, &one("2"));
    assert!(
        kept[0].contains("web-000001.vmdk stays: 2 images"),
        "{kept:?}"
    );
    // Not even with all of them gone.
    delete(&world, &Doomed::All);
    assert_eq!(world.shown("clone.vmdk"), shown);
}

#[test]
fn a_little_change_in_a_huge_chain_moves_little() {
    const TIB: u64 = 1 << 40;
    // A sparse VMDK in one file ends a little below 2 TiB.
    let vmdk = 2 * TIB - (8 << 30);
    for (extension, size) in [("vmdk", vmdk), ("qcow2", 2 * TIB), ("vhdx", 2 * TIB)] {
        let name = |stem: &str| format!("{stem}.{extension}");
        let names = [name("web"), name("web-000001"), name("web-000002")];
        let world = World::new();
        for (index, file) in names.iter().enumerate() {
            let below = index.checked_sub(1).map(|below| names[below].as_str());
            world.image_of(file, below, size);
            world.write(file, &[7, 1 << 20, (1 << 24) + index as u64], 1);
        }
        world.vmx(&[&names[2]]);
        world.vmsd(2, &[(1, 0, &names[0]), (2, 1, &names[1])]);
        let deletion = planned(&world, &one("2")).unwrap();
        let merges = deletion.merges();
        assert_eq!(merges.len(), 1);
        assert!(merges[0].bytes <= 3 * (2 << 20), "{extension}: {merges:?}");
        drop(deletion);
        delete(&world, &one("2"));
        let merged = std::fs::metadata(world.at(&names[1])).unwrap();
        assert!(
            merged.blocks() * 512 < 64 << 20,
            "{extension}: {}",
            merged.blocks()
        );
    }
}

#[test]
fn nothing_is_merged_into_what_an_overlay_that_lost_its_parent_may_stand_on() {
    for extension in ["vmdk", "qcow2"] {
        let name = |stem: &str| format!("{stem}.{extension}");
        let [base, beside, live] = ["web", "web-000001", "web-000002"].map(name);
        let world = World::new();
        world.image(&base, None);
        world.write(&base, &[0, 1], 1);
        world.image(&beside, Some(&base));
        world.write(&beside, &[1], 2);
        world.image(&live, Some(&base));
        world.write(&live, &[0], 3);
        world.vmx(&[&live]);
        world.vmsd(1, &[(1, 0, &base), (2, 1, &beside)]);
        let before = world.shown(&beside);
        // It names a parent that is not there.
        let bytes = std::fs::read(world.at(&beside)).unwrap();
        let mut lost = bytes.clone();
        let at = lost
            .windows(base.len())
            .position(|part| part == base.as_bytes())
            .unwrap();
        lost[at] = b'W';
        std::fs::write(world.at(&beside), &lost).unwrap();
        let error = planned(&world, &one("s1")).err().unwrap();
        assert!(error.to_string().contains("may stand on"), "{error}");
        std::fs::write(world.at(&beside), bytes).unwrap();
        delete(&world, &one("s1"));
        assert_eq!(world.shown(&beside), before);
    }
}
