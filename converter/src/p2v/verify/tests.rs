use super::compare::compare;
use super::*;
use crate::p2v::inventory::model::{AddressMethod, Content, Inventory, Mount, Nic, Swap, Volume};

fn inventory() -> Inventory {
    let volume = |name: &str, uuid: &str| Volume {
        name: name.into(),
        content: Content {
            uuid: uuid.into(),
            ..Content::default()
        },
        ..Volume::default()
    };
    let mount = |path: &str, volume: &str, kind: &str| Mount {
        path: path.into(),
        volume: volume.into(),
        kind: kind.into(),
        fstab: "UUID=x".into(),
        ..Mount::default()
    };
    Inventory {
        volumes: vec![
            volume("sda1", "aa-1"),
            volume("vg0/root", "aa-2"),
            volume("vg0/swap", "aa-3"),
        ],
        mounts: vec![
            mount("/", "vg0/root", "ext4"),
            mount("/boot", "sda1", "ext4"),
        ],
        swaps: vec![Swap {
            volume: "vg0/swap".into(),
            ..Swap::default()
        }],
        nics: vec![Nic {
            name: "eno1".into(),
            permanent_mac: "24:6E:96:AA:BB:01".into(),
            method: AddressMethod::Static,
            addresses: vec!["192.0.2.5/24".into()],
            ..Nic::default()
        }],
        ..Inventory::default()
    }
}

fn told(changes: &[(&str, &str)]) -> Vec<Check> {
    let mut said = "HAKO-n begin\nstate running\nmount / ext4 /dev/dm-0 rw\n\
        mount /boot ext4 /dev/sdb1 rw\nswap partition /dev/dm-1\nuuid aa-1 /dev/sdb1\n\
        uuid aa-2 /dev/dm-0\nuuid aa-3 /dev/dm-1\nnic eno1 24:6e:96:aa:bb:01 vmxnet3\n\
        address eno1 192.0.2.5/24\nHAKO-n end\n"
        .to_owned();
    for (old, new) in changes {
        assert!(said.contains(old), "{old}");
        said = said.replace(old, new);
    }
    let told = Testimony::read(said.as_bytes(), "n").unwrap();
    compare(&inventory(), &told)
}

#[test]
fn a_guest_that_is_what_the_server_was_passes() {
    let checks = told(&[]);
    assert!(
        checks.iter().all(|check| check.outcome == Outcome::Passed),
        "{checks:#?}"
    );
    assert_eq!(checks.len(), 6);
    assert_eq!(Verdict::of(&checks), Verdict::Verified);
}

#[test]
fn every_difference_is_told() {
    for (old, new, about, name, note) in [
        (
            "mount /boot ext4 /dev/sdb1 rw\n",
            "",
            About::Mount,
            "/boot",
            "not mounted",
        ),
        ("/boot ext4", "/boot xfs", About::Mount, "/boot", "not ext4"),
        ("uuid aa-1", "uuid bb-1", About::Mount, "/boot", "not aa-1"),
        (
            "swap partition /dev/dm-1\n",
            "",
            About::Swap,
            "vg0/swap",
            "not swapped",
        ),
        (
            "nic eno1 ",
            "nic ens192 ",
            About::Nic,
            "eno1",
            "is called ens192 there",
        ),
        (
            "nic eno1 24:6e:96:aa:bb:01",
            "nic ens1 00:0c:29:00:00:01",
            About::Nic,
            "eno1",
            "there are ens1",
        ),
        (
            "192.0.2.5/24",
            "192.0.2.6/24",
            About::Address,
            "eno1 192.0.2.5/24",
            "not there",
        ),
    ] {
        let checks = told(&[(old, new)]);
        let mut failed = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Failed);
        let first = failed.next().unwrap();
        assert_eq!((first.about, first.name.as_str()), (about, name));
        assert!(first.notes[0].contains(note), "{first:?}");
        assert_eq!(Verdict::of(&checks), Verdict::Warnings);
    }
    let odd = told(&[(
        "mount /boot ext4 /dev/sdb1 rw",
        "mount /boot ext4 /dev/sdb1 ro",
    )]);
    assert_eq!(odd[1].outcome, Outcome::Warning);
}

#[test]
fn the_worst_is_the_verdict() {
    let check = |about, outcome| Check {
        about,
        name: String::new(),
        outcome,
        notes: Vec::new(),
    };
    let boot = check(About::Boot, Outcome::Failed);
    let damage = check(About::FileSystem, Outcome::Failed);
    let odd = check(About::Mount, Outcome::Warning);
    let all = [odd, boot, damage];
    assert_eq!(Verdict::of(&all), Verdict::Corrupt);
    assert_eq!(Verdict::of(&all[..2]), Verdict::DoesNotBoot);
    assert_eq!(Verdict::of(&all[..1]), Verdict::Warnings);
    assert_eq!(Verdict::of(&[]), Verdict::Verified);
}
