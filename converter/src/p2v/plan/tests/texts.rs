//! Plans as texts, and whether an edited one can be carried out.

use super::super::model::Action;
use super::*;
use crate::p2v::inventory::model::Level;

#[test]
fn a_plan_reads_back_as_it_was_written() {
    let mut inventory = server();
    let recordings = vec![recording(1008, 10.0, 13 << 20)];
    let evil = "a\"b\\c\n[x]\u{7f}\u{1b}é # '''";
    inventory.disks[0].model = evil.to_owned();
    inventory.hostname = evil.to_owned();
    inventory.findings.push(inv::Finding {
        level: Level::Blocker,
        code: "x".to_owned(),
        what: evil.to_owned(),
        ..inv::Finding::default()
    });
    let plan = plan(&inventory, recordings, &request(Target::Vmware)).unwrap();
    let text = to_toml(&plan);
    assert_eq!(from_toml(&text).unwrap(), plan, "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7f}'));
    let json = to_json(&plan).unwrap();
    assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), plan);
    // And the smallest one.
    let plan = planned(&Inventory::default());
    assert_eq!(from_toml(&to_toml(&plan)).unwrap(), plan);
}

#[test]
fn a_slip_is_found_with_its_line() {
    let text = to_toml(&planned(&server()));
    assert_eq!(
        check(&mut from_toml(&text).unwrap(), Some(&server())),
        [""; 0]
    );
    for (from, to, line_has) in [
        ("count = 32", "count = many", "count"),
        ("count = 32", "cuont = 32", "cuont"),
        ("target = \"vmware\"", "target = \"xen\"", "target"),
        ("action = \"keep\"", "action = \"kepe\"", "action"),
        ("[memory]", "[memory", "[memory"),
    ] {
        let edited = text.replacen(from, to, 1);
        let error = from_toml(&edited).unwrap_err();
        assert_eq!(error.kind(), hako_block::ErrorKind::Invalid);
        let said = error.to_string();
        let number = said
            .strip_prefix("line ")
            .and_then(|rest| rest.split(':').next());
        let number: usize = number.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        let line = edited.lines().nth(number - 1).unwrap();
        assert!(line.contains(line_has), "{said}: {line}");
    }
}

#[test]
fn what_no_machine_has_is_found() {
    let inventory = server();
    let plan = planned(&inventory);
    let mistakes = |edit: &dyn Fn(&mut Plan)| {
        let mut edited = plan.clone();
        edit(&mut edited);
        check(&mut edited, Some(&inventory))
    };
    type Edit<'a> = (&'a dyn Fn(&mut Plan), &'a str);
    let edits: &[Edit<'_>] = &[
        (&|plan| plan.plan = 2, "plan: 2"),
        (&|plan| plan.cpu.count = 0, "cpu: 0"),
        (&|plan| plan.cpu.cores_per_socket = 5, "sockets of 5"),
        (&|plan| plan.memory.mib = 1026, "memory: 1026 MiB"),
        (&|plan| plan.memory.mib = u64::MAX, "memory:"),
        (&|plan| plan.machine.name = "../x".to_owned(), "is no name"),
        (
            &|plan| plan.machine.firmware = "ueif".to_owned(),
            "neither bios nor efi",
        ),
        (
            &|plan| plan.disks[0].bytes = 512,
            "disk sda: 512 bytes are less",
        ),
        (&|plan| plan.disks[0].bytes += 1, "a multiple of 512"),
        (
            &|plan| plan.disks[0].controller = "virtio-blk".to_owned(),
            "one of pvscsi",
        ),
        (
            &|plan| plan.disks[0].node = "scsi0:0".to_owned(),
            "no node of sata",
        ),
        (
            &|plan| plan.disks[0].node = "sata0:1".to_owned(),
            "another disk's",
        ),
        (
            &|plan| plan.disks[0].node = "there".to_owned(),
            "is no node",
        ),
        (
            &|plan| plan.disks[0].source = "sdz".to_owned(),
            "none of that name",
        ),
        (
            &|plan| plan.disks[1].source = "sda".to_owned(),
            "there twice",
        ),
        (&|plan| plan.disks[0].as_is_bytes = 7, "in the server"),
        (
            &|plan| plan.nics[0].mac = "01:00:00:00:00:01".to_owned(),
            "nic eno1",
        ),
        (
            &|plan| plan.nics[0].model = "ne2000".to_owned(),
            "one of vmxnet3",
        ),
        (&|plan| plan.nics[0].network.clear(), "plugged into nothing"),
        (
            &|plan| plan.nics[0].source = "eth9".to_owned(),
            "none of that name",
        ),
        (
            &|plan| {
                plan.disks
                    .iter_mut()
                    .for_each(|disk| disk.action = Action::Drop)
            },
            "none is kept",
        ),
        (
            &|plan| plan.machine.target = Target::Kvm,
            "one of virtio-blk",
        ),
    ];
    for (edit, expected) in edits {
        let found = mistakes(edit);
        assert!(
            found.iter().any(|text| text.contains(expected)),
            "{expected}: {found:?}"
        );
    }
    // What is dropped may be as it likes, and sizes may grow.
    let fine: &dyn Fn(&mut Plan) = &|plan| {
        plan.disks[1].node = "sata0:0".to_owned();
        plan.disks[0].bytes += 1 << 30;
        plan.nics[0].mac.clear();
    };
    assert_eq!(mistakes(fine), [""; 0]);
}

#[test]
fn blockers_stay_until_they_are_accepted_or_what_they_are_about_is_dropped() {
    let mut inventory = server();
    let blocker = |code: &str, about: &str| inv::Finding {
        level: Level::Blocker,
        code: code.to_owned(),
        about: about.to_owned(),
        ..inv::Finding::default()
    };
    inventory.findings = vec![
        blocker("tpm-bound-luks", ""),
        blocker("sectors-4096", "sdd"),
    ];
    let mut plan = planned(&inventory);
    assert_eq!(plan.blockers().len(), 2);
    plan.disks[3].action = Action::Drop;
    assert_eq!(plan.blockers().len(), 1);
    plan.findings[0].accepted = true;
    assert!(plan.blockers().is_empty());
    // One that was struck out comes back with the inventory.
    plan.findings.clear();
    assert_eq!(check(&mut plan, Some(&inventory)), [""; 0]);
    assert_eq!(plan.blockers().len(), 1);
}
