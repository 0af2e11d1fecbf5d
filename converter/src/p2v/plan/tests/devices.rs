//! What becomes of disks and network cards.

use super::super::model::Action;
use super::*;

#[test]
fn mirrors_become_one_disk_and_sticks_stay() {
    let inventory = server();
    let plan = planned(&inventory);
    let fates: Vec<_> = plan
        .disks
        .iter()
        .map(|disk| (disk.source.as_str(), disk.action, disk.node.as_str()))
        .collect();
    assert_eq!(
        fates,
        [
            ("sda", Action::Keep, "sata0:0"),
            ("sdb", Action::Drop, "sata0:2"),
            ("sdc", Action::Drop, "sata0:3"),
            ("sdd", Action::Keep, "sata0:1"),
        ]
    );
    assert_eq!(plan.disks[1].mirror_of.as_deref(), Some("sda"));
    assert!(plan.disks[1].why.contains("md0"));
    assert!(
        plan.disks[0].about.ends_with("gpt: /, swap"),
        "{}",
        plan.disks[0].about
    );
    assert_eq!(plan.disks[0].least_bytes, 480_000_000_000 + 33 * 512);
    let swap = &plan.swaps[0];
    assert_eq!(
        (swap.source.as_str(), swap.copy_content),
        ("vg0/swap", false)
    );
    let request = PlanRequest {
        keep_mirrors: true,
        ..request(Target::Vmware)
    };
    let both = plan_of(&inventory, Vec::new(), &request).unwrap();
    assert_eq!(both.disks[1].action, Action::Keep);
}

#[test]
fn a_mirror_with_anything_of_its_own_is_kept() {
    let change = |change: &dyn Fn(&mut Inventory)| {
        let mut inventory = server();
        change(&mut inventory);
        planned(&inventory).disks[1].action
    };
    assert_eq!(change(&|_| ()), Action::Drop);
    let array = |inventory: &mut Inventory| inventory.volumes[4].array.clone().unwrap();
    let set = |inventory: &mut Inventory, array| inventory.volumes[4].array = Some(array);
    // Out of sync, short of a member, or no mirror.
    for (level, n_missing, state) in [
        ("raid1", 1, "clean"),
        ("raid1", 0, "resync"),
        ("raid0", 0, "clean"),
    ] {
        let action = change(&|inventory| {
            let mut array = array(inventory);
            (array.level, array.n_missing) = (level.to_owned(), n_missing);
            array.state = state.to_owned();
            set(inventory, array);
        });
        assert_eq!(action, Action::Keep, "{level} {n_missing} {state}");
    }
    // Swap that is not mirrored.
    let action = change(&|inventory| {
        let mut extra = inventory.volumes[3].clone();
        extra.name = "sdb3".to_owned();
        inventory.volumes.push(extra);
    });
    assert_eq!(action, Action::Keep);
    // An array that is on this disk and a third one.
    let action = change(&|inventory| inventory.volumes[4].on[0] = "sdd".to_owned());
    assert_eq!(action, Action::Keep);
    // Nothing on it that anybody knows.
    let action = change(&|inventory| inventory.volumes.truncate(2));
    assert_eq!(action, Action::Keep);
}

#[test]
fn one_of_several_paths_is_taken() {
    let mut inventory = server();
    inventory.volumes.push(inv::Volume {
        name: "mpatha".to_owned(),
        kind: inv::VolumeKind::Multipath,
        on: vec!["sdd".to_owned(), "sda".to_owned()],
        ..inv::Volume::default()
    });
    let plan = planned(&inventory);
    assert_eq!(plan.disks[3].action, Action::Drop);
    assert_eq!(plan.disks[3].why, "another path to sda");
}

#[test]
fn disks_hang_on_what_the_guest_can_boot_from() {
    let chosen = |target, places: &[(&str, &str)], uefi: bool| {
        let mut inventory = server();
        inventory.boot.kernels[0].drivers = drivers(places);
        if uefi {
            inventory.firmware.kind = FirmwareKind::Uefi;
        }
        let plan = plan(&inventory, Vec::new(), &request(target)).unwrap();
        let codes: Vec<String> = codes(&plan).iter().map(|code| (*code).to_owned()).collect();
        (plan.disks[0].controller.clone(), codes)
    };
    let everything = [
        ("pvscsi", "initrd"),
        ("ahci", "initrd"),
        ("nvme", "builtin"),
        ("sd_mod", "builtin"),
        ("virtio-pci", "initrd"),
        ("virtio-scsi", "initrd"),
        ("virtio-blk", "initrd"),
        ("vmxnet3", "modules"),
        ("virtio-net", "modules"),
    ];
    assert_eq!(chosen(Target::Vmware, &everything, false).0, "pvscsi");
    assert_eq!(chosen(Target::Kvm, &everything, false).0, "virtio-blk");
    assert_eq!(chosen(Target::Qemu, &everything, true).0, "virtio-scsi");
    // The initrd knows the server's controller alone.
    let host_only = [
        ("pvscsi", "modules"),
        ("ahci", "initrd"),
        ("nvme", "modules"),
        ("sd_mod", "initrd"),
        ("virtio-pci", "modules"),
        ("virtio-scsi", "modules"),
        ("virtio-blk", "modules"),
        ("vmxnet3", "modules"),
        ("virtio-net", "modules"),
    ];
    let (controller, codes) = chosen(Target::Vmware, &host_only, false);
    assert_eq!(
        (controller.as_str(), codes),
        ("sata", vec!["nothing-measured".to_owned()])
    );
    let (controller, codes) = chosen(Target::Kvm, &host_only, false);
    assert_eq!(controller, "virtio-blk");
    assert!(codes.contains(&"initrd-lacks-driver".to_owned()));
    // NVMe only: VMware's BIOS boots from none.
    let nvme = [
        ("nvme", "initrd"),
        ("ahci", "modules"),
        ("sd_mod", "initrd"),
    ];
    assert_eq!(chosen(Target::Vmware, &nvme, true).0, "nvme");
    assert_eq!(chosen(Target::Vmware, &nvme, false).0, "sata");
    // Nothing at all.
    let none = [
        ("virtio-pci", "nowhere"),
        ("virtio-blk", "nowhere"),
        ("virtio-net", "nowhere"),
    ];
    let (_, codes) = chosen(Target::Kvm, &none, false);
    assert_eq!(codes[0], "no-disk-driver");
    assert!(codes.contains(&"no-network-driver".to_owned()));
    // Nobody has looked: what it hangs on now.
    assert_eq!(chosen(Target::Vmware, &[], false).0, "sata");
}

#[test]
fn windows_boots_from_what_it_has() {
    let mut inventory = server();
    inventory.os = inv::Os {
        family: "windows".to_owned(),
        name: "Windows Server 2019 Standard".to_owned(),
        ..inv::Os::default()
    };
    inventory.boot.kernels.clear();
    inventory.firmware.kind = FirmwareKind::Uefi;
    for (driver, controller) in [("ahci", "sata"), ("nvme", "nvme"), ("megaraid_sas", "sata")] {
        inventory
            .disks
            .iter_mut()
            .for_each(|disk| disk.driver = driver.to_owned());
        let plan = planned(&inventory);
        assert_eq!(plan.disks[0].controller, controller);
        assert_eq!(
            (plan.nics[0].model.as_str(), plan.machine.firmware.as_str()),
            ("e1000e", "efi")
        );
    }
}

#[test]
fn cards_keep_their_addresses_and_get_their_networks() {
    let mut inventory = server();
    let networks = [(Some("eno1"), "Servers"), (None, "nat")];
    let request = PlanRequest {
        networks: networks
            .map(|(nic, network)| NetworkMap {
                nic: nic.map(str::to_owned),
                network: network.to_owned(),
            })
            .to_vec(),
        ..request(Target::Vmware)
    };
    let plan = plan_of(&inventory, Vec::new(), &request).unwrap();
    assert_eq!(plan.nics.len(), 2);
    let [first, second] = [&plan.nics[0], &plan.nics[1]];
    assert_eq!(
        (first.mac.as_str(), first.network.as_str()),
        ("14:18:77:00:00:01", "Servers")
    );
    assert_eq!(first.about, "tg3, 192.0.2.5/24, port of br0");
    assert_eq!(
        (second.action, second.network.as_str()),
        (Action::Drop, "nat")
    );
    let unknown = PlanRequest {
        networks: vec![NetworkMap {
            nic: Some("eth7".to_owned()),
            network: "nat".to_owned(),
        }],
        ..request
    };
    let error = plan_of(&inventory, Vec::new(), &unknown).unwrap_err();
    assert!(error.to_string().contains("eth7"), "{error}");
    // Off the network: all of them.
    inventory.nics[0].is_up = None;
    inventory.nics[0].addresses.clear();
    inventory.nics.truncate(2);
    let plan = planned(&inventory);
    assert!(plan.nics.iter().all(|nic| nic.action == Action::Keep));
}
