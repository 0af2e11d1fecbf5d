use hako_block::{Cancel, ErrorKind, NoProgress};

use super::super::testing::World;
use super::*;

fn image(file: &str) -> ImageName {
    let extension = file.rsplit_once('.').unwrap().1;
    ImageName {
        file: file.to_owned(),
        format: extension.to_owned(),
    }
}

fn change(old: &str, new: &str) -> DiskChange {
    DiskChange {
        node: "scsi0:0".parse().unwrap(),
        old: Some(old.to_owned()),
        new: Some(image(new)),
    }
}

fn quiet<T>(run: impl FnOnce(Task<'_>) -> T) -> T {
    run(Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    })
}

fn recover(vm: &mut Vm) -> Result<Option<Recovered>> {
    vm.reload().unwrap();
    quiet(|task| Journal::recover(vm, task))
}

const LIST: &[u8] = b"snapshot.lastUID = \"2\"\n";

/// base <- first <- second <- top, the two in the middle held by snapshots 2 and 3; snapshot 1
/// holds the base. All but 1 are to be deleted: of each state one byte tells.
fn chain(extension: &str) -> (World, [String; 4]) {
    let world = World::new();
    let name = |name: &str| format!("{name}.{extension}");
    let names = ["base", "first", "second", "top"].map(name);
    for (index, file) in names.iter().enumerate() {
        let parent = index.checked_sub(1).map(|below| names[below].as_str());
        world.image(file, parent);
        world.write(file, &[0, index as u64 + 1], index as u8 + 1);
    }
    world.vmx(&[&names[3]]);
    world.vmsd(
        3,
        &[(1, 0, &names[0]), (2, 1, &names[1]), (3, 2, &names[2])],
    );
    (world, names)
}

/// Deletes 1 and 3: the first layer goes into the base, the top into the second.
fn deletion(world: &World, names: &[String; 4]) -> Journal {
    let [base, first, second, top] = names;
    let vm = world.vm();
    let text = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    let vmsd = format!("# new\n{}", text.replace(first, base)).into_bytes();
    let merge = |child: &str, parent: &str| Merge {
        child: image(child),
        parent: image(parent),
    };
    Journal {
        merges: vec![merge(first, base), merge(top, second)],
        relinks: vec![Relink {
            overlay: image(second),
            parent: image(base),
        }],
        disks: vec![change(top, second)],
        remove: vec![first.clone(), top.clone()],
        ..Journal::new(Verb::Delete, &vm, vmsd).unwrap()
    }
}

#[track_caller]
fn assert_deleted(world: &World, names: &[String; 4]) {
    let [base, _, second, _] = names;
    assert_eq!(world.shown(base)[..5], [2, 1, 2, 0, 0]);
    assert_eq!(world.shown(second)[..5], [4, 1, 2, 3, 4]);
    assert_eq!(world.vm().disks()[0].1.file, *second);
    let text = std::fs::read(world.at("web.vmsd")).unwrap();
    assert!(text.starts_with(b"# new\n"));
    let mut left = vec![base.as_str(), second, "web.vmsd", "web.vmx"];
    left.sort_unstable();
    assert_eq!(world.names(), left);
}

#[test]
fn a_journal_reads_as_it_was_written() {
    let (world, names) = chain("vmdk");
    let journal = Journal {
        made: vec!["web-Snapshot1.vmx".to_owned()],
        vmsd: b"\x00\xff\"|\n\r\xc3".to_vec()[1..].to_vec(),
        ..deletion(&world, &names)
    };
    let vm = world.vm();
    assert_eq!(Journal::read(&vm).unwrap(), None);
    journal.write(&vm).unwrap();
    assert_eq!(Journal::read(&vm).unwrap(), Some(journal));
    assert_eq!(vm.pending().unwrap(), Some(Verb::Delete));
    let error = vm.hold().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.hint_text().unwrap().contains("doctor"));
}

#[test]
fn what_is_no_journal_is_refused() {
    let world = World::new();
    world.vmx(&[]);
    let vm = world.vm();
    for (text, kind) in [
        ("", ErrorKind::Corrupt),
        ("hako.journal = \"2\"\n", ErrorKind::Unsupported),
        (
            "hako.journal = \"1\"\nverb = \"dance\"\n",
            ErrorKind::Corrupt,
        ),
        (
            "hako.journal = \"1\"\nverb = \"delete\"\nvmx.before = \"\"\nvmsd.before = \"\"\n\
             vmsd.after = \"\u{100}\"\n",
            ErrorKind::Corrupt,
        ),
        (
            "hako.journal = \"1\"\nverb = \"delete\"\nvmx.before = \"\"\nvmsd.before = \"\"\n\
             vmsd.after = \"\"\nmerge0.child.file = \"a.vmdk\"\n",
            ErrorKind::Corrupt,
        ),
    ] {
        std::fs::write(path_of(&vm), text).unwrap();
        assert_eq!(Journal::read(&vm).unwrap_err().kind(), kind, "{text}");
        assert!(vm.hold().is_err());
    }
}

#[test]
fn a_deletion_is_completed_wherever_it_was_cut_off() {
    for extension in ["vmdk", "qcow2", "vhdx"] {
        for steps in 0..6 {
            let (world, names) = chain(extension);
            let journal = deletion(&world, &names);
            let mut vm = world.vm();
            journal.write(&vm).unwrap();
            let part = Journal {
                merges: journal.merges[..steps.min(2)].to_vec(),
                ..journal.clone()
            };
            quiet(|task| part.merge(&vm, task)).unwrap();
            // The machine and its snapshots show what they showed, though it was cut off.
            assert_eq!(world.shown(&names[3])[..5], [4, 1, 2, 3, 4]);
            if steps > 2 {
                journal.relink(&vm).unwrap();
            }
            if steps > 3 {
                journal.switch(&mut vm).unwrap();
                // From here on the guest may write.
                world.write(&names[2], &[4], 4);
            }
            if steps > 4 {
                std::fs::write(world.at("web.vmsd"), &journal.vmsd).unwrap();
            }
            let recovered = recover(&mut vm).unwrap().unwrap();
            assert_eq!(recovered, Recovered::Completed(Verb::Delete, vec![]));
            assert_deleted(&world, &names);
            assert_eq!(recover(&mut vm).unwrap(), None);
        }
    }
}

#[test]
fn what_the_guest_wrote_after_the_switch_is_not_overwritten() {
    let (world, names) = chain("vmdk");
    let journal = deletion(&world, &names);
    let mut vm = world.vm();
    journal.write(&vm).unwrap();
    quiet(|task| journal.merge(&vm, task)).unwrap();
    journal.relink(&vm).unwrap();
    journal.switch(&mut vm).unwrap();
    world.write(&names[2], &[0], 9);
    recover(&mut vm).unwrap();
    assert_eq!(world.shown(&names[2])[..5], [9, 1, 2, 3, 4]);
}

#[test]
fn texts_that_somebody_else_changed_are_left_alone() {
    for name in ["web.vmsd", "web.vmx"] {
        let (world, names) = chain("vmdk");
        let journal = deletion(&world, &names);
        let mut vm = world.vm();
        journal.write(&vm).unwrap();
        let text = std::fs::read_to_string(world.at(name)).unwrap();
        let text = match name {
            "web.vmx" => text.replace("top.vmdk", "first.vmdk"),
            _ => format!("{text}# theirs\n"),
        };
        std::fs::write(world.at(name), &text).unwrap();
        let before = world.names();
        let error = recover(&mut vm).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(world.names(), before);
        assert_eq!(std::fs::read_to_string(world.at(name)).unwrap(), text);
        assert_eq!(world.shown("base.vmdk")[..2], [1, 1]);
    }
    // Other lines of the VMX are nobody's business here.
    let (world, names) = chain("vmdk");
    let mut vm = world.vm();
    deletion(&world, &names).write(&vm).unwrap();
    vm.vmx.set("memsize", "64").unwrap();
    vm.save().unwrap();
    recover(&mut vm).unwrap();
    assert_deleted(&world, &names);
    assert_eq!(vm.vmx.dictionary().value("memsize").as_deref(), Some("64"));
}

#[test]
fn a_file_that_is_in_use_or_elsewhere_is_not_removed() {
    let (world, names) = chain("vmdk");
    std::fs::write(world.at("../other.vmdk"), b"foreign").unwrap();
    std::fs::write(world.at("diary.txt"), b"mine").unwrap();
    let mut vm = world.vm();
    let journal = Journal {
        remove: [
            "base.vmdk",
            "web.vmx",
            "../other.vmdk",
            "not-there.vmdk",
            "diary.txt",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Journal::new(Verb::Delete, &vm, LIST.to_vec()).unwrap()
    };
    journal.write(&vm).unwrap();
    let recovered = recover(&mut vm).unwrap().unwrap();
    assert_eq!(recovered.warnings().len(), 3, "{recovered:?}");
    assert!(world.at("diary.txt").exists());
    assert!(world.at("../other.vmdk").exists());
    assert_eq!(world.shown(&names[3])[..2], [4, 1]);
    assert_eq!(std::fs::read(world.at("web.vmsd")).unwrap(), LIST);
}

fn creation(world: &World) -> Journal {
    Journal {
        made: vec!["web-Snapshot1.vmx".to_owned()],
        disks: vec![change("web.vmdk", "web-000001.vmdk")],
        ..Journal::new(Verb::Create, &world.vm(), LIST.to_vec()).unwrap()
    }
}

#[test]
fn a_creation_that_was_cut_off_early_has_not_happened() {
    for steps in 0..4 {
        let world = World::new();
        world.image("web.vmdk", None);
        world.write("web.vmdk", &[0], 7);
        world.vmx(&["web.vmdk"]);
        let before = world.names();
        creation(&world).write(&world.vm()).unwrap();
        if steps > 0 {
            world.image("web-000001.vmdk", Some("web.vmdk"));
        }
        if steps > 1 {
            std::fs::write(world.at("web-Snapshot1.vmx"), b"x").unwrap();
        }
        if steps > 2 {
            std::fs::write(world.at(".web.vmx.hako-part"), b"x").unwrap();
        }
        let recovered = recover(&mut world.vm()).unwrap();
        assert_eq!(recovered, Some(Recovered::Undone(Verb::Create, vec![])));
        assert_eq!(world.names(), before);
    }
}

#[test]
fn a_creation_is_completed_once_the_vmx_names_the_new_disk() {
    let world = World::new();
    world.image("web.vmdk", None);
    world.write("web.vmdk", &[0], 7);
    world.vmx(&["web.vmdk"]);
    creation(&world).write(&world.vm()).unwrap();
    world.image("web-000001.vmdk", Some("web.vmdk"));
    world.vmx(&["web-000001.vmdk"]);
    world.write("web-000001.vmdk", &[1], 8);
    let recovered = recover(&mut world.vm()).unwrap();
    assert_eq!(recovered, Some(Recovered::Completed(Verb::Create, vec![])));
    assert_eq!(world.shown("web-000001.vmdk")[..2], [7, 8]);
    assert_eq!(std::fs::read(world.at("web.vmsd")).unwrap(), LIST);
}

#[test]
fn a_new_overlay_that_was_written_to_is_never_removed() {
    let world = World::new();
    world.image("web.vmdk", None);
    world.vmx(&["web.vmdk"]);
    creation(&world).write(&world.vm()).unwrap();
    world.image("web-000001.vmdk", Some("web.vmdk"));
    world.write("web-000001.vmdk", &[1], 8);
    let recovered = recover(&mut world.vm()).unwrap().unwrap();
    assert!(recovered.warnings()[0].contains("web-000001.vmdk"));
    assert_eq!(world.names(), ["web-000001.vmdk", "web.vmdk", "web.vmx"]);
}

#[test]
fn without_disks_the_texts_alone_tell_how_far_it_came() {
    for (verb, is_switched, wanted) in [
        (Verb::Create, false, Recovered::Undone(Verb::Create, vec![])),
        (Verb::Revert, false, Recovered::Undone(Verb::Revert, vec![])),
        (
            Verb::Revert,
            true,
            Recovered::Completed(Verb::Revert, vec![]),
        ),
        (
            Verb::Delete,
            false,
            Recovered::Completed(Verb::Delete, vec![]),
        ),
    ] {
        let world = World::new();
        world.vmx(&[]);
        let mut vm = world.vm();
        let journal = Journal::new(verb, &vm, LIST.to_vec()).unwrap();
        journal.write(&vm).unwrap();
        if is_switched {
            vm.vmx.set("memsize", "64").unwrap();
            vm.save().unwrap();
        }
        assert_eq!(recover(&mut vm).unwrap(), Some(wanted));
        assert!(!path_of(&vm).exists());
    }
}

#[test]
fn undoing_takes_away_nothing_but_what_was_made() {
    let world = World::new();
    world.image("web.vmdk", None);
    world.image("web-000001.vmdk", Some("web.vmdk"));
    world.image("web-000002.vmdk", Some("web-000001.vmdk"));
    world.image("base.vmdk", None);
    world.vmx(&["web-000002.vmdk"]);
    world.vmsd(1, &[(1, 0, "web-000001.vmdk")]);
    let foreign = world.at("../foreign.vmdk").to_str().unwrap().to_owned();
    for file in ["../foreign.vmdk", "diary.txt", "web-Snapshot1.vmx"] {
        std::fs::write(world.at(file), b"mine").unwrap();
    }
    let vmsd = std::fs::read_to_string(world.at("web.vmsd")).unwrap();
    let vmsd = format!("{vmsd}hako.uid1.config = \"web-Snapshot1.vmx\"\n");
    std::fs::write(world.at("web.vmsd"), vmsd).unwrap();
    let before = world.names();
    // What a damaged journal, or somebody else's, could name.
    for new in ["base.vmdk", "web-000001.vmdk", "../foreign.vmdk", &foreign] {
        let journal = Journal {
            made: [
                "diary.txt",
                "web.vmdk",
                "web.vmx",
                "web-Snapshot1.vmx",
                &foreign,
            ]
            .map(str::to_owned)
            .to_vec(),
            disks: vec![change("web-000002.vmdk", new)],
            ..Journal::new(Verb::Create, &world.vm(), LIST.to_vec()).unwrap()
        };
        journal.write(&world.vm()).unwrap();
        recover(&mut world.vm()).unwrap();
        assert_eq!(world.names(), before, "{new}");
        assert!(world.at("../foreign.vmdk").exists(), "{new}");
    }
}
