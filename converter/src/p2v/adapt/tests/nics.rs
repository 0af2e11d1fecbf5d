//! Plans about names and addresses of network cards.

use super::*;

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn nic(name: &str, mac_text: &str) -> NicName {
    NicName {
        name: name.into(),
        mac: mac(mac_text),
    }
}

#[test]
fn names_of_cards_are_tied_to_their_addresses() {
    let nic = nic("enp3s0", "24:6e:96:aa:bb:01");
    let interfaces = "auto enp3s0\niface enp3s0 inet static\n# eno9 was here\n";
    let root = || debian().file("/etc/network/interfaces", interfaces);
    let systemd = || root().file("/lib/systemd/network/99-default.link", "");
    let about_cards = |plan: &Plan| {
        let asked = plan.remarks.iter();
        asked
            .filter(|remark| remark.contains("--nic enp3s0=MAC"))
            .count()
    };
    let said = planned(vec![(None, systemd().build())], &request());
    assert!(said.changes.is_empty());
    assert_eq!(about_cards(&said), 1, "{:?}", said.remarks);

    let path = "/etc/systemd/network/10-hako-enp3s0.link";
    let link = |plan: &Plan| match &plan.changes.last().unwrap().what {
        What::Create { bytes, .. } => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let named = Request {
        nics: vec![nic.clone()],
        ..request()
    };
    let only = Request {
        macs: vec![nic.mac],
        ..request()
    };
    for wanted in [&named, &only] {
        let plan = planned(vec![(None, systemd().build())], wanted);
        assert_eq!(about_cards(&plan), 0);
        assert_eq!(plan.changes.last().unwrap().path, path);
        let text = link(&plan).to_lowercase();
        assert!(text.contains("macaddress=24:6e:96:aa:bb:01\n"), "{text}");
        assert!(text.contains("\nname=enp3s0\n"), "{text}");
    }
    let rules = root().dir("/etc/udev/rules.d");
    let plan = planned(vec![(None, rules.build())], &named);
    assert!(link(&plan).contains("ATTR{address}==\"24:6e:96:aa:bb:01\""));
    let tied = "[Match]\nMACAddress=24:6E:96:aa:bb:01\n[Link]\nName=enp3s0\n";
    let tied = systemd().file("/etc/systemd/network/1.link", tied);
    let plan = planned(vec![(None, tied.build())], &named);
    assert_eq!((plan.changes.len(), about_cards(&plan)), (0, 0));
}

const OLD: &str = "24:6E:96:AA:BB:01";
const NEW: &str = "00:50:56:00:12:34";

/// Texts that know a card by its address, each with what they are of the new one.
const TEXTS: &[(&str, &str)] = &[
    (
        "/etc/sysconfig/network-scripts/ifcfg-lan",
        "DEVICE=lan # was 24:6E:96:AA:BB:01\nHWADDR=24:6E:96:AA:BB:01\nMACADDR=\"24:6E:96:AA:BB:01\"\n",
    ),
    (
        "/etc/netplan/50-cloud-init.yaml",
        "network:\n  ethernets:\n    lan:\n      # 24:6e:96:aa:bb:01\n      match: {macaddress: 24:6e:96:aa:bb:01}\n      set-name: lan\n",
    ),
    (
        "/etc/NetworkManager/system-connections/lan.nmconnection",
        "[connection]\ntype=ethernet\ninterface-name=lan\n[ethernet]\nmac-address=24:6E:96:AA:BB:01\ncloned-mac-address=02:00:00:00:00:07\n",
    ),
    (
        "/etc/udev/rules.d/70-persistent-net.rules",
        "# PCI device (tg3) 24:6e:96:aa:bb:01\nSUBSYSTEM==\"net\", ATTR{address}==\"24:6e:96:aa:bb:01\", NAME=\"lan\"\n",
    ),
    (
        "/etc/systemd/network/10-lan.link",
        "[Match]\nMACAddress=24-6e-96-aa-bb-01\n[Link]\nName=lan\n",
    ),
];

fn rewritten(text: &str) -> String {
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let lines = text
        .split_inclusive('\n')
        .map(|line| match line.split_once(" # ") {
            _ if is_comment(line) => line.to_owned(),
            Some(_) => line.to_owned(),
            None => line
                .replace("24:6E:96:AA:BB:01", NEW)
                .replace("24:6e:96:aa:bb:01", NEW)
                .replace("24-6e-96-aa-bb-01", &NEW.replace(':', "-")),
        });
    lines.collect()
}

#[test]
fn texts_that_know_a_card_by_its_old_address_know_it_by_the_new_one() {
    for (path, text) in TEXTS {
        let root = || {
            debian()
                .file(path, text)
                .file("/lib/systemd/network/99-default.link", "")
                .file("/usr/lib/udev/rename_device", "")
        };
        let wanted = Request {
            nics: vec![nic("lan", NEW)],
            ..request()
        };
        let plan = planned(vec![(None, root().build())], &wanted);
        assert_eq!(new_text(&plan, path), rewritten(text), "{path}");
        // What gives no name itself needs a .link file beside it.
        let n_more = usize::from(path.contains("NetworkManager"));
        let files = plan.changes.iter();
        let files = files.filter(|change| !matches!(change.what, What::Folder { .. }));
        assert_eq!(files.count(), 1 + n_more, "{path}: {plan:?}");
        // The machine's only card is the one that is known.
        let only = Request {
            macs: vec![mac(NEW)],
            ..request()
        };
        let of_one = planned(vec![(None, root().build())], &only);
        assert_eq!(of_one.changes, plan.changes, "{path}");
        // The address that it had stays if it has it still; of two cards nobody knows which is which.
        let same = Request {
            nics: vec![nic("lan", OLD)],
            ..request()
        };
        let plan = planned(vec![(None, root().build())], &same);
        assert!(
            plan.changes.iter().all(|change| change.path != *path),
            "{path}"
        );
        let two = Request {
            macs: vec![mac(NEW), mac("00:50:56:00:12:35")],
            ..request()
        };
        let plan = planned(vec![(None, root().build())], &two);
        assert!(plan.changes.is_empty(), "{path}: {plan:?}");
        assert!(
            plan.remarks.join("\n").contains("--nic lan=MAC"),
            "{path}: {plan:?}"
        );
    }
}

#[test]
fn cards_that_swapped_their_addresses_swap_them_in_texts_and_the_inventory_tells_what_no_text_does()
{
    let other = "24:6e:96:aa:bb:02";
    let rule = |mac: &str, name: &str| {
        let mac = mac.to_lowercase();
        format!("SUBSYSTEM==\"net\", ATTR{{address}}==\"{mac}\", NAME=\"{name}\"\n")
    };
    let path = "/etc/udev/rules.d/70-persistent-net.rules";
    let root = debian().file(path, rule(OLD, "eth0") + &rule(other, "eth1"));
    let wanted = Request {
        nics: vec![nic("eth0", other), nic("eth1", OLD)],
        ..request()
    };
    let plan = planned(vec![(None, root.build())], &wanted);
    assert_eq!(
        new_text(&plan, path),
        rule(other, "eth0") + &rule(OLD, "eth1")
    );
    assert_eq!(plan.changes.len(), 1);

    let path = "/etc/netplan/1.yaml";
    let text = "network:\n  ethernets:\n    id0:\n      match:\n        macaddress: \"24:6e:96:aa:bb:01\"\n";
    let root = || debian().file(path, text).dir("/etc/udev/rules.d");
    let named = Request {
        nics: vec![nic("eno1", NEW)],
        ..request()
    };
    let unknown = planned(vec![(None, root().build())], &named);
    assert!(unknown.changes.iter().all(|change| change.path != path));
    let told = Request {
        were: vec![nic("eno1", OLD)],
        ..named
    };
    let plan = planned(vec![(None, root().build())], &told);
    assert_eq!(new_text(&plan, path), rewritten(text));

    // One address cannot have become two.
    let both = Request {
        nics: vec![nic("a", NEW), nic("b", other)],
        were: vec![nic("a", OLD), nic("b", OLD)],
        ..request()
    };
    let plan = planned(vec![(None, root().build())], &both);
    assert!(plan.changes.iter().all(|change| change.path != path));
    assert!(
        plan.remarks
            .join("\n")
            .contains("was the address of a and of b")
    );
}

#[test]
fn a_card_that_is_known_by_its_address_alone_is_the_only_one_of_the_machine() {
    let texts = [
        (
            "/etc/netplan/1.yaml",
            "network:\n  ethernets:\n    id0:\n      match:\n        macaddress: 24:6e:96:aa:bb:01\n",
        ),
        (
            "/etc/netplan/2.yaml",
            "network:\n  ethernets:\n    eno1: {match: {macaddress: \"24:6E:96:AA:BB:01\"}}\n",
        ),
        (
            "/etc/NetworkManager/system-connections/w",
            "[connection]\nid=em1\ntype=ethernet\n[ethernet]\nmac-address=24:6E:96:AA:BB:01\n",
        ),
    ];
    for (path, text) in texts {
        let root = || {
            debian()
                .file(path, text)
                .file("/lib/systemd/network/99-default.link", "")
        };
        // Which file, or which name, is told.
        let n_told = |plan: &Plan| {
            let about = [path, "--nic"];
            let is_about = |remark: &&String| about.iter().any(|what| remark.contains(what));
            plan.remarks.iter().filter(is_about).count()
        };
        let with = |macs: &[&str]| Request {
            macs: macs.iter().map(|text| mac(text)).collect(),
            ..request()
        };
        let plan = planned(vec![(None, root().build())], &with(&[NEW]));
        assert_eq!(new_text(&plan, path), rewritten(text));
        assert_eq!((plan.changes.len(), n_told(&plan)), (1, 0), "{plan:?}");
        let plan = planned(vec![(None, root().build())], &with(&[OLD]));
        assert_eq!((plan.changes.len(), n_told(&plan)), (0, 0), "{plan:?}");
        // Which of two it is nobody knows, nor what the one is that has a name.
        let named = Request {
            nics: vec![nic("eno1", NEW)],
            ..request()
        };
        for wanted in [with(&[NEW, "00:50:56:00:12:35"]), named] {
            let plan = planned(vec![(None, root().build())], &wanted);
            assert!(plan.changes.iter().all(|change| change.path != path));
            assert_eq!(n_told(&plan), 1, "{plan:?}");
        }
    }
}

#[test]
fn names_and_matches_by_hardware_are_told() {
    let interfaces = "auto lan0\niface lan0 inet dhcp\n";
    let rule = "SUBSYSTEM==\"net\", ACTION==\"add\", KERNELS==\"0000:02:00.0\", NAME=\"lan0\"\n";
    let ruled = || {
        debian()
            .file("/etc/udev/rules.d/70-lan.rules", rule)
            .file("/etc/network/interfaces", interfaces)
    };
    let linked = debian().file(
        "/etc/systemd/network/10-lan.link",
        "[Match]\nPath=pci-0000:02:00.0\n[Link]\nName=lan0\n",
    );
    let driven = debian().file(
        "/etc/netplan/1.yaml",
        "network:\n  ethernets:\n    lan:\n      match:\n        driver: ixgbe\n      set-name: lan\n",
    );
    for (root, what) in [
        (ruled(), "calls a card lan0 by KERNELS==\"0000:02:00.0\""),
        (linked, "calls a card lan0 by Path=pci-0000:02:00.0"),
        (driven, "looks for a card by driver: ixgbe"),
    ] {
        let plan = planned(vec![(None, root.build())], &request());
        let told = plan.remarks.iter().filter(|remark| remark.contains(what));
        assert_eq!(told.count(), 1, "{what}: {:?}", plan.remarks);
    }
    let kept = Request {
        nics: vec![nic("lan0", NEW)],
        ..request()
    };
    let plan = planned(vec![(None, ruled().build())], &kept);
    assert!(!plan.remarks.join("\n").contains("KERNELS"), "{plan:?}");
}

#[test]
fn a_part_of_a_card_is_not_the_card() {
    for name in ["em1_1", "p1p1_0"] {
        let text = format!("auto {name}\niface {name} inet dhcp\n");
        let root = debian()
            .file("/etc/network/interfaces", text)
            .file("/lib/systemd/network/99-default.link", "");
        let only = Request {
            macs: vec![mac(NEW)],
            ..request()
        };
        let plan = planned(vec![(None, root.build())], &only);
        let path = format!("/etc/systemd/network/10-hako-{name}.link");
        assert_eq!(plan.changes.last().map(|change| &change.path), Some(&path));
    }
}

#[test]
fn udev_before_systemd_209_gets_a_rule() {
    let root = debian()
        .file("/lib/systemd/systemd-udevd", "204")
        .dir("/etc/udev/rules.d");
    let named = Request {
        nics: vec![nic("em1", NEW)],
        ..request()
    };
    let plan = planned(vec![(None, root.build())], &named);
    let paths: Vec<&str> = plan.changes.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/etc/udev/rules.d/70-persistent-net.rules"]);
}
