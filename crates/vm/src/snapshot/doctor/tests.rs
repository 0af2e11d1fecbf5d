use hako_block::{Cancel, NoProgress};

use super::*;
use crate::snapshot::testing::World;

/// Three layers, two snapshots between them, all as it should be.
fn sound() -> World {
    let world = World::new();
    let names = ["web.vmdk", "web-000001.vmdk", "web-000002.vmdk"];
    for (index, name) in names.iter().enumerate() {
        world.image(name, index.checked_sub(1).map(|below| names[below]));
        world.write(name, &[index as u64, 9], 1 + index as u8);
    }
    world.vmx(&["web-000002.vmdk"]);
    world.vmsd(2, &[(1, 0, "web.vmdk"), (2, 1, "web-000001.vmdk")]);
    world
}

fn found(world: &World) -> Vec<Finding> {
    examine_snapshots(&world.home, &world.vm()).unwrap()
}

/// Returns what is found: kind, file, and whether it can be mended.
fn troubles(world: &World) -> Vec<(Trouble, String, bool)> {
    let findings = found(world).into_iter();
    findings
        .map(|finding| {
            assert!(!finding.what.is_empty() && !finding.advice.is_empty());
            (
                finding.trouble,
                finding.file.clone(),
                finding.is_repairable(),
            )
        })
        .collect()
}

fn trouble(trouble: Trouble, file: &str, is_repairable: bool) -> (Trouble, String, bool) {
    (trouble, file.to_owned(), is_repairable)
}

fn treated(world: &World) -> Treatment {
    let mut vm = world.vm();
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    let treatment = repair_snapshots(&world.home, &mut vm, task).unwrap();
    assert_eq!(treatment.failures, [""; 0]);
    treatment
}

/// Repairs, and nothing may be left.
fn cured(world: &World) -> Treatment {
    let treatment = treated(world);
    assert_eq!(treatment.left, []);
    assert_eq!(troubles(world), []);
    treatment
}

#[test]
fn a_sound_machine_has_nothing_and_repair_changes_nothing() {
    let world = sound();
    assert_eq!(troubles(&world), []);
    let before = world.names();
    assert_eq!(cured(&world).repaired, []);
    assert_eq!(world.names(), before);
    // Before its first snapshot, with an empty list or none.
    let world = World::new();
    world.image("web.vmdk", None);
    world.vmx(&["web.vmdk"]);
    assert_eq!(troubles(&world), []);
    std::fs::write(world.at("web.vmsd"), b"").unwrap();
    assert_eq!(troubles(&world), []);
}

#[test]
fn an_entry_without_files_is_told() {
    let world = sound();
    let entries = [
        (1, 0, "web.vmdk"),
        (2, 1, "web-000001.vmdk"),
        (3, 2, "gone.vmdk"),
    ];
    world.vmsd(2, &entries);
    let expected = [trouble(Trouble::EntryWithoutFile, "gone.vmdk", false)];
    assert_eq!(troubles(&world), expected);
    assert!(
        found(&world)[0]
            .advice
            .contains("hako snapshot delete VM 3 --yes")
    );
    assert_eq!(treated(&world).left.len(), 1);
}

#[test]
fn a_disk_of_the_machine_that_is_missing_is_told() {
    let world = sound();
    world.vmx(&["gone.vmdk"]);
    let found = troubles(&world);
    assert!(
        found.contains(&trouble(Trouble::MissingDisk, "gone.vmdk", false)),
        "{found:?}"
    );
    // What the machine should run on is nobody's now, and not empty.
    let orphan = trouble(Trouble::UnreferencedDelta, "web-000002.vmdk", false);
    assert!(found.contains(&orphan), "{found:?}");
    treated(&world);
    assert!(world.at("web-000002.vmdk").exists());
}

#[test]
fn a_lost_list_of_snapshots_is_told_by_the_overlays_that_are_in_use() {
    for text in [None, Some("")] {
        let world = sound();
        match text {
            Some(text) => std::fs::write(world.at("web.vmsd"), text).unwrap(),
            None => std::fs::remove_file(world.at("web.vmsd")).unwrap(),
        }
        let expected = [
            trouble(Trouble::DeltaWithoutEntry, "web-000001.vmdk", false),
            trouble(Trouble::DeltaWithoutEntry, "web-000002.vmdk", false),
        ];
        assert_eq!(troubles(&world), expected);
        assert!(found(&world)[0].what.contains("empty or missing"));
        treated(&world);
        assert!(world.at("web-000001.vmdk").exists());
    }
}

#[test]
fn an_overlay_that_a_clone_stands_on_is_in_order_without_an_entry() {
    let world = sound();
    std::fs::remove_file(world.at("web.vmsd")).unwrap();
    std::fs::create_dir(world.at("other")).unwrap();
    world.image("other/clone.vmdk", Some("web-000001.vmdk"));
    let text = "displayName = \"clone\"\nscsi0.present = \"TRUE\"\n\
                scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"clone.vmdk\"\n";
    std::fs::write(world.at("other/clone.vmx"), text).unwrap();
    let entry = crate::Entry {
        vmx: world.at("other/clone.vmx"),
        allow: vec![world.vm().folder().to_path_buf()],
        ..crate::Entry::default()
    };
    crate::Inventory::change(&world.home, |inventory| {
        inventory.entries.push(entry);
        Ok(())
    })
    .unwrap();
    assert_eq!(troubles(&world), []);
}

#[test]
fn an_overlay_that_nothing_refers_to_goes_only_if_it_is_empty() {
    let world = sound();
    world.image("web-000003.vmdk", Some("web-000001.vmdk"));
    world.image("web-000004.vmdk", Some("web-000001.vmdk"));
    world.write("web-000004.vmdk", &[3], 7);
    let expected = [
        trouble(Trouble::UnreferencedDelta, "web-000003.vmdk", true),
        trouble(Trouble::UnreferencedDelta, "web-000004.vmdk", false),
    ];
    assert_eq!(troubles(&world), expected);
    let treatment = treated(&world);
    assert_eq!(treatment.repaired.len(), 1);
    assert_eq!(treatment.left.len(), 1);
    assert!(!world.at("web-000003.vmdk").exists() && world.at("web-000004.vmdk").exists());
}

#[test]
fn an_empty_overlay_stays_where_the_list_that_may_name_it_was_lost() {
    let world = sound();
    std::fs::write(world.at("web.vmsd"), "").unwrap();
    world.image("web-000003.vmdk", Some("web-000001.vmdk"));
    let found = troubles(&world);
    let stays = trouble(Trouble::UnreferencedDelta, "web-000003.vmdk", false);
    assert!(found.contains(&stays), "{found:?}");
    treated(&world);
    assert!(world.at("web-000003.vmdk").exists());
}

#[test]
fn an_overlay_that_stores_zeros_is_not_empty() {
    for extension in ["vmdk", "qcow2", "vhdx", "vhd"] {
        let name = |stem: &str| format!("{stem}.{extension}");
        let world = World::new();
        world.image(&name("web"), None);
        world.write(&name("web"), &[0], 1);
        world.image(&name("web-000001"), Some(&name("web")));
        world.write(&name("web-000001"), &[0], 0);
        world.vmx(&[&name("web")]);
        world.vmsd(0, &[]);
        treated(&world);
        assert!(world.at(&name("web-000001")).exists(), "{extension}");
    }
}

#[test]
fn a_disk_that_a_snapshot_holds_gets_an_overlay_to_be_written_to() {
    let world = sound();
    std::fs::remove_file(world.at("web-000002.vmdk")).unwrap();
    world.vmx(&["web-000001.vmdk"]);
    let expected = [trouble(Trouble::HeldDisk, "web-000001.vmdk", true)];
    assert_eq!(troubles(&world), expected);
    let shown = world.shown("web-000001.vmdk");
    cured(&world);
    let live = world.vm().disks()[0].1.file.clone();
    assert_eq!(live, "web-000002.vmdk");
    assert_eq!(world.shown(&live), shown);
}

#[test]
fn a_disk_that_an_overlay_stands_on_is_not_guessed_about() {
    let world = sound();
    world.vmsd(0, &[]);
    world.vmx(&["web.vmdk"]);
    let found = troubles(&world);
    assert!(
        found.contains(&trouble(Trouble::HeldDisk, "web.vmdk", false)),
        "{found:?}"
    );
    let before = world.names();
    treated(&world);
    assert_eq!(world.names(), before);
    assert_eq!(world.vm().disks()[0].1.file, "web.vmdk");
}

#[test]
fn two_machines_on_one_disk_are_told() {
    let world = sound();
    let text = std::fs::read_to_string(world.at("web.vmx")).unwrap();
    std::fs::write(world.at("copy.vmx"), text.replace("\"web\"", "\"copy\"")).unwrap();
    let expected = [trouble(Trouble::SharedDisk, "web-000002.vmdk", false)];
    assert_eq!(troubles(&world), expected);
    assert!(found(&world)[0].what.contains("copy"));
}

#[test]
fn a_parent_that_was_written_to_is_told_and_nothing_is_linked() {
    let world = sound();
    world.write("web.vmdk", &[5], 9);
    let expected = [trouble(Trouble::ParentChanged, "web-000001.vmdk", false)];
    assert_eq!(troubles(&world), expected);
    assert!(found(&world)[0].advice.contains("rebase --unsafe"));
    assert_eq!(treated(&world).left.len(), 1);
}

/// Gives a VMDK another content ID, and returns the one that it had.
fn set_cid(world: &World, name: &str, cid: &str) -> String {
    let mut bytes = std::fs::read(world.at(name)).unwrap();
    let found = bytes.windows(5).position(|window| window == b"\nCID=");
    let place = found.unwrap() + 5..found.unwrap() + 13;
    let old = String::from_utf8(bytes[place.clone()].to_vec()).unwrap();
    bytes[place].copy_from_slice(cid.as_bytes());
    std::fs::write(world.at(name), bytes).unwrap();
    old
}

#[test]
fn a_parent_that_stored_nothing_then_and_now_has_not_changed() {
    // As VMware's products do it, and others.
    for is_like_vmware in [true, false] {
        let world = World::new();
        world.image("web.vmdk", None);
        world.write("web.vmdk", &[0], 1);
        world.image("web-000001.vmdk", Some("web.vmdk"));
        if is_like_vmware {
            let base = set_cid(&world, "web.vmdk", "12345678");
            set_cid(&world, "web.vmdk", &base);
            set_cid(&world, "web-000001.vmdk", &base);
        }
        world.image("web-000002.vmdk", Some("web-000001.vmdk"));
        world.write("web-000002.vmdk", &[1], 2);
        world.vmx(&["web-000002.vmdk"]);
        world.vmsd(2, &[(1, 0, "web.vmdk"), (2, 1, "web-000001.vmdk")]);
        let shown = world.shown("web-000002.vmdk");
        set_cid(&world, "web-000001.vmdk", "0badcafe");
        let found = trouble(Trouble::ParentChanged, "web-000002.vmdk", is_like_vmware);
        assert_eq!(troubles(&world), [found]);
        if is_like_vmware {
            cured(&world);
            assert_eq!(world.shown("web-000002.vmdk"), shown);
        }
    }
}

/// Gives a VMDK another name for its parent, of the same length.
fn set_parent_name(world: &World, name: &str, old: &str, new: &str) {
    let mut bytes = std::fs::read(world.at(name)).unwrap();
    let old = format!("parentFileNameHint=\"{old}\"");
    let new = format!("parentFileNameHint=\"{new}\"");
    let found = bytes
        .windows(old.len())
        .position(|window| window == old.as_bytes());
    bytes[found.unwrap()..][..old.len()].copy_from_slice(new.as_bytes());
    std::fs::write(world.at(name), bytes).unwrap();
}

#[test]
fn an_overlay_that_names_itself_gets_the_parent_that_it_was_made_on() {
    let world = sound();
    let shown = world.shown("web-000002.vmdk");
    set_parent_name(
        &world,
        "web-000002.vmdk",
        "web-000001.vmdk",
        "web-000002.vmdk",
    );
    let found = trouble(Trouble::ParentMissing, "web-000002.vmdk", true);
    assert!(troubles(&world).contains(&found), "{:?}", troubles(&world));
    cured(&world);
    assert_eq!(world.shown("web-000002.vmdk"), shown);
}

#[test]
fn of_a_ring_of_overlays_the_link_that_does_not_fit_is_told() {
    let world = World::new();
    world.image("web.vmdk", None);
    world.image("web-000001.vmdk", Some("web.vmdk"));
    world.image("web-000002.vmdk", Some("web-000001.vmdk"));
    world.write("web-000002.vmdk", &[1], 1);
    world.image("web-000003.vmdk", Some("web-000002.vmdk"));
    world.write("web-000003.vmdk", &[2], 1);
    world.vmx(&["web-000003.vmdk"]);
    world.vmsd(
        3,
        &[
            (1, 0, "web.vmdk"),
            (2, 1, "web-000001.vmdk"),
            (3, 2, "web-000002.vmdk"),
        ],
    );
    let shown = world.shown("web-000003.vmdk");
    set_parent_name(
        &world,
        "web-000002.vmdk",
        "web-000001.vmdk",
        "web-000003.vmdk",
    );
    let found = trouble(Trouble::ParentMissing, "web-000002.vmdk", true);
    assert!(troubles(&world).contains(&found), "{:?}", troubles(&world));
    cured(&world);
    assert_eq!(world.shown("web-000003.vmdk"), shown);
}

#[test]
fn a_parent_that_was_moved_is_found_by_its_content() {
    let world = sound();
    let shown = world.shown("web-000002.vmdk");
    std::fs::rename(world.at("web.vmdk"), world.at("base.vmdk")).unwrap();
    world.vmsd(2, &[(1, 0, "base.vmdk"), (2, 1, "web-000001.vmdk")]);
    let expected = [trouble(Trouble::ParentMissing, "web-000001.vmdk", true)];
    assert_eq!(troubles(&world), expected);
    cured(&world);
    assert_eq!(world.shown("web-000002.vmdk"), shown);
    // Of two that could be it none is taken.
    let world = sound();
    std::fs::copy(world.at("web.vmdk"), world.at("copy.vmdk")).unwrap();
    std::fs::rename(world.at("web.vmdk"), world.at("base.vmdk")).unwrap();
    world.vmsd(2, &[(2, 0, "web-000001.vmdk")]);
    let expected = [trouble(Trouble::ParentMissing, "web-000001.vmdk", false)];
    assert_eq!(troubles(&world), expected);
    assert!(found(&world)[0].advice.contains("base.vmdk, copy.vmdk"));
}

#[test]
fn a_parent_that_is_gone_is_told() {
    let world = sound();
    std::fs::remove_file(world.at("web.vmdk")).unwrap();
    let expected = [
        trouble(Trouble::EntryWithoutFile, "web.vmdk", false),
        trouble(Trouble::ParentMissing, "web-000001.vmdk", false),
    ];
    assert_eq!(troubles(&world), expected);
}

#[test]
fn a_merge_that_was_cut_off_fits_again_with_all_its_content() {
    let world = sound();
    let shown = world.shown("web-000002.vmdk");
    world.write("web-000001.vmdk", &[2], 3);
    let note = world.at(".web-000002.vmdk.hako-commit");
    std::fs::write(&note, b"x").unwrap();
    let expected = [trouble(Trouble::HalfMerged, "web-000002.vmdk", true)];
    assert_eq!(troubles(&world), expected);
    cured(&world);
    assert!(!note.exists());
    assert_eq!(world.shown("web-000002.vmdk"), shown);
    // One that had not come to writing.
    std::fs::write(&note, b"x").unwrap();
    assert_eq!(troubles(&world), expected);
    cured(&world);
}

#[test]
fn missing_extents_and_broken_files_are_told() {
    let world = sound();
    let text = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
                createType=\"monolithicFlat\"\nRW 8192 FLAT \"data-flat.vmdk\" 0\n";
    std::fs::write(world.at("data.vmdk"), text).unwrap();
    world.vmx(&["web-000002.vmdk", "data.vmdk"]);
    let expected = [trouble(Trouble::Damaged, "data.vmdk", false)];
    assert_eq!(troubles(&world), expected);
    assert!(found(&world)[0].what.contains("data-flat.vmdk"));
    let world = sound();
    std::fs::write(world.at("web-000009.vmdk"), b"KDMVbroken").unwrap();
    let expected = [trouble(Trouble::Damaged, "web-000009.vmdk", false)];
    assert_eq!(troubles(&world), expected);
}

#[test]
fn a_chain_that_is_a_ring_is_told() {
    let world = sound();
    let text = |cid: &str, parent: &str, name: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent}\n\
             createType=\"monolithicFlat\"\nparentFileNameHint=\"{name}\"\n\
             RW 8192 FLAT \"x-flat.vmdk\" 0\n"
        )
    };
    std::fs::write(world.at("x-flat.vmdk"), vec![0; 4 << 20]).unwrap();
    std::fs::write(world.at("a.vmdk"), text("11111111", "22222222", "b.vmdk")).unwrap();
    std::fs::write(world.at("b.vmdk"), text("22222222", "11111111", "a.vmdk")).unwrap();
    world.vmx(&["a.vmdk"]);
    let found = troubles(&world);
    let told = found.iter().any(|(_, file, _)| file == "a.vmdk");
    assert!(told, "{found:?}");
    treated(&world);
}

#[test]
fn wrong_numbers_in_the_list_are_set_right_and_a_copy_is_kept() {
    let world = sound();
    let good = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    for (from, to) in [
        ("numSnapshots = \"2\"", "numSnapshots = \"7\""),
        ("lastUID = \"2\"", "lastUID = \"1\""),
        ("current = \"2\"", "current = \"9\""),
        ("current = \"2\"", "current = \"1\""),
        ("snapshot1.uid", "snapshot7.uid"),
    ] {
        let broken = good.replace(from, to);
        let broken = match from.starts_with("snapshot1") {
            true => good.replace("snapshot1.", "snapshot7."),
            false => broken,
        };
        assert_ne!(good, broken);
        std::fs::write(world.at("web.vmsd"), &broken).unwrap();
        if to != "snapshot7.uid" {
            let expected = [trouble(Trouble::WrongList, "web.vmsd", true)];
            assert_eq!(troubles(&world), expected, "{to}");
        }
        let treatment = cured(&world);
        let now = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
        if let Some(saved) = treatment.saved.first() {
            assert_eq!(now, good, "{to}");
            assert_eq!(std::fs::read_to_string(saved).unwrap(), broken);
        }
    }
}

#[test]
fn what_a_list_says_that_cannot_be_guessed_is_told() {
    let world = sound();
    let mut text = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    text += "snapshot2.uid = \"2\"\nsnapshot2.displayName = \"twice\"\n";
    text = text.replace("numSnapshots = \"2\"", "numSnapshots = \"3\"");
    std::fs::write(world.at("web.vmsd"), text).unwrap();
    let expected = [trouble(Trouble::WrongList, "web.vmsd", false)];
    assert_eq!(troubles(&world), expected);
    std::fs::write(world.at("web.vmsd"), "encryption.data = \"x\"\n").unwrap();
    let found = troubles(&world);
    assert!(
        found.contains(&trouble(Trouble::UnreadableList, "web.vmsd", false)),
        "{found:?}"
    );
}

#[test]
fn a_wish_for_consolidation_is_told_and_taken_back_where_nothing_is_left() {
    let world = sound();
    let mut text = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    text += "snapshot.needConsolidate = \"TRUE\"\n";
    std::fs::write(world.at("web.vmsd"), &text).unwrap();
    let expected = [trouble(Trouble::NeedsConsolidation, "web.vmsd", true)];
    assert_eq!(troubles(&world), expected);
    cured(&world);
    let text = "snapshot.lastUID = \"2\"\nsnapshot.needConsolidate = \"TRUE\"\n";
    std::fs::write(world.at("web.vmsd"), text).unwrap();
    let found = troubles(&world);
    let wish = trouble(Trouble::NeedsConsolidation, "web.vmsd", false);
    assert!(found.contains(&wish) && found.len() == 3, "{found:?}");
}

#[test]
fn files_of_snapshots_that_are_missing_or_nobodys_are_told() {
    let world = sound();
    let mut text = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    text +=
        "hako.uid1.config = \"web-Snapshot1.vmx\"\nsnapshot1.filename = \"web-Snapshot2.vmsn\"\n";
    std::fs::write(world.at("web.vmsd"), &text).unwrap();
    std::fs::copy(world.at("web.vmx"), world.at("web-Snapshot8.vmx")).unwrap();
    std::fs::write(world.at("web-Snapshot9.vmsn"), b"x").unwrap();
    let expected = [
        trouble(Trouble::MissingState, "web-Snapshot1.vmx", false),
        trouble(Trouble::MissingState, "web-Snapshot2.vmsn", false),
        trouble(Trouble::UnreferencedState, "web-Snapshot8.vmx", false),
        trouble(Trouble::UnreferencedState, "web-Snapshot9.vmsn", false),
    ];
    assert_eq!(troubles(&world), expected);
    treated(&world);
    assert!(world.at("web-Snapshot9.vmsn").exists());
}

#[test]
fn settings_and_configurations_that_do_not_help_any_more_are_told() {
    let world = sound();
    let mut text = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    text += "hako.uid1.config = \"web-Snapshot1.vmx\"\nhako.uid1.nvram = \"web-Snapshot1.nvram\"\n\
             hako.uid2.config = \"web-Snapshot2.vmx\"\n";
    std::fs::write(world.at("web.vmsd"), &text).unwrap();
    std::fs::write(world.at("web-Snapshot1.vmx"), [0; 2000]).unwrap();
    std::fs::create_dir(world.at("web-Snapshot2.vmx")).unwrap();
    std::fs::write(world.at("web-Snapshot9.hako.nvram"), b"x").unwrap();
    let expected = [
        trouble(Trouble::MissingState, "web-Snapshot1.nvram", false),
        trouble(Trouble::MissingState, "web-Snapshot1.vmx", false),
        trouble(Trouble::MissingState, "web-Snapshot2.vmx", false),
        trouble(
            Trouble::UnreferencedState,
            "web-Snapshot9.hako.nvram",
            false,
        ),
    ];
    assert_eq!(troubles(&world), expected);
}

#[test]
fn snapshots_that_hold_one_image_are_told() {
    let world = sound();
    world.vmsd(2, &[(1, 0, "web.vmdk"), (2, 1, "web.vmdk")]);
    let told = found(&world).into_iter().map(|finding| finding.what);
    let told: Vec<String> = told.collect();
    let wish = "the snapshots 1, 2 all hold web.vmdk";
    assert!(told.iter().any(|what| what == wish), "{told:?}");
}

#[test]
fn stale_locks_go_and_those_of_others_stay() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let lock = |world: &World, name: &str, text: &str| {
        let folder = world.at(&format!("{name}.lck"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("M12345.lck"), text).unwrap();
    };
    let world = sound();
    // No process has this number.
    let stale = format!("{} 4194999-77(vmware-vmx) 3 X", host.trim());
    lock(&world, "web.vmx", &stale);
    lock(&world, "web-000002.vmdk", &stale);
    let expected = [
        trouble(Trouble::StaleLock, "web-000002.vmdk.lck", true),
        trouble(Trouble::StaleLock, "web.vmx.lck", true),
    ];
    assert_eq!(troubles(&world), expected);
    cured(&world);
    assert!(!world.at("web.vmx.lck").exists());

    lock(&world, "web.vmx", "another-host 7-77(vmware-vmx) 3 X");
    let expected = [trouble(Trouble::OtherLock, "web.vmx.lck", false)];
    assert_eq!(troubles(&world), expected);
    let mut vm = world.vm();
    let task = Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    };
    let error = repair_snapshots(&world.home, &mut vm, task).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(world.at("web.vmx.lck/M12345.lck").exists());

    let mine = format!("{} {}", host.trim(), std::process::id());
    lock(&world, "web.vmx", &mine);
    let error = examine_snapshots(&world.home, &vm).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
}

#[test]
fn what_killed_runs_left_behind_goes() {
    let world = sound();
    for name in [".web.vmx.hako-part", ".web-000007.vmdk.hako-part"] {
        std::fs::write(world.at(name), b"half").unwrap();
    }
    assert_eq!(troubles(&world).len(), 2);
    // One that is being written is no debris.
    let live = std::fs::File::open(world.at(".web-000007.vmdk.hako-part")).unwrap();
    live.lock().unwrap();
    let expected = [trouble(Trouble::Leftover, ".web.vmx.hako-part", true)];
    assert_eq!(troubles(&world), expected);
    cured(&world);
    assert!(world.at(".web-000007.vmdk.hako-part").exists());
}

#[test]
fn what_was_cut_off_is_settled_first() {
    let world = sound();
    let shown = world.shown("web-000002.vmdk");
    let vm = world.vm();
    let mut journal = crate::snapshot::journal::Journal::new(
        Verb::Delete,
        &vm,
        b"snapshot.lastUID = \"2\"\n".to_vec(),
    )
    .unwrap();
    let snapshots = vm.vmsd().unwrap().unwrap().snapshots();
    let graph = Graph::of(&world.home, &vm, &snapshots).unwrap();
    let tree = graph.tree(&[1, 2]);
    let plan = crate::snapshot::plan::plan(&tree, 0..tree.len());
    crate::snapshot::tidy::Tidying::of(&vm, &graph, &plan)
        .unwrap()
        .tell_journal(&mut journal);
    journal.write(&vm).unwrap();
    let found = troubles(&world);
    assert_eq!(found[0], trouble(Trouble::CutOff, "web.hako-journal", true));
    let treatment = cured(&world);
    assert!(treatment.recovered.is_some());
    assert_eq!(world.names(), ["web.vmdk", "web.vmsd", "web.vmx"]);
    assert_eq!(world.shown("web.vmdk"), shown);
    // One that cannot be read is left for people.
    std::fs::write(world.at("web.hako-journal"), b"?").unwrap();
    let expected = [trouble(Trouble::CutOff, "web.hako-journal", false)];
    assert_eq!(troubles(&world), expected);
}

#[test]
fn every_kind_of_trouble_says_what_follows() {
    let all = [
        Trouble::CutOff,
        Trouble::StaleLock,
        Trouble::OtherLock,
        Trouble::UnreadableList,
        Trouble::WrongList,
        Trouble::MissingDisk,
        Trouble::EntryWithoutFile,
        Trouble::MissingState,
        Trouble::ParentMissing,
        Trouble::ParentChanged,
        Trouble::HalfMerged,
        Trouble::Damaged,
        Trouble::HeldDisk,
        Trouble::SharedDisk,
        Trouble::DeltaWithoutEntry,
        Trouble::NeedsConsolidation,
        Trouble::UnreferencedDelta,
        Trouble::UnreferencedState,
        Trouble::Leftover,
    ];
    let mut names: Vec<&str> = all.iter().map(|trouble| trouble.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|trouble| trouble.consequence().len() > 20));
}
