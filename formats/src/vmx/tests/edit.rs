use hako_block::ErrorKind;

use super::*;
use crate::dictionary::tests::real_files;
use crate::machine::{BootDevice, Bus, Cpu, DiskMode, Firmware, Mac, Share};

/// The lines of `after` that are not in `before`, and the other way round.
fn changes(before: &str, after: &Vmx) -> (Vec<String>, Vec<String>) {
    let after = String::from_utf8(after.to_bytes()).unwrap();
    let without = |some: &str, others: &str| -> Vec<String> {
        let others: Vec<&str> = others.lines().collect();
        let lines = some.lines().filter(|line| !others.contains(line));
        lines.map(str::to_owned).collect()
    };
    (without(&after, before), without(before, &after))
}

const TEXT: &str = ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nvirtualHW.version = \"19\"\n\
    displayName = \"web\"\nguestOS = \"ubuntu-64\"\nmemSize = \"1024\"\nnumvcpus = \"2\"\n\
    # kept\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsilogic\"\n\
    scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"web.vmdk\"\nscsi0:0.redo = \"\"\n\
    sched.scsi0:0.shares = \"normal\"\nsched.cpu.units = \"mhz\"\n\
    ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"nat\"\n\
    ethernet0.virtualDev = \"e1000\"\nethernet0.addressType = \"generated\"\n\
    ethernet0.generatedAddress = \"00:0c:29:01:02:03\"\n\
    ethernet0.generatedAddressOffset = \"0\"\nethernet0.pciSlotNumber = \"33\"\n\
    sched.mem.min = \"512\"\nsched.mem.minSize = \"512\"\nannotation = \"a|0D|0Ab\"\n";

/// Returns the lines that an edit adds or changes, and those that it removes or changes.
fn edited(edit: impl Fn(&mut Vmx) -> Result<()>) -> (Vec<String>, Vec<String>) {
    let mut vmx = parsed(TEXT);
    edit(&mut vmx).unwrap();
    changes(TEXT, &vmx)
}

#[test]
fn one_edit_changes_one_line() {
    let one = |edit: &dyn Fn(&mut Vmx) -> Result<()>, new: &str| {
        let (added, removed) = edited(edit);
        assert_eq!(added, [new]);
        assert!(removed.len() <= 1, "{removed:?}");
    };
    one(&|vmx| vmx.set_name("neu ü"), "displayName = \"neu ü\"");
    one(&|vmx| vmx.set_memory(2 << 30), "memSize = \"2048\"");
    let cpu = |count, cores_per_socket| Cpu {
        count,
        cores_per_socket,
    };
    one(&|vmx| vmx.set_cpu(cpu(4, 1)), "numvcpus = \"4\"");
    one(
        &|vmx| vmx.set_cpu(cpu(2, 2)),
        "cpuid.coresPerSocket = \"2\"",
    );
    one(
        &|vmx| vmx.set_firmware(Firmware::Efi, false),
        "firmware = \"efi\"",
    );
    one(
        &|vmx| vmx.set_boot_order(&[BootDevice::Network, BootDevice::Floppy]),
        "bios.bootOrder = \"ethernet0,floppy\"",
    );
    one(
        &|vmx| vmx.set_annotation("c\nd"),
        "annotation = \"c|0D|0Ad\"",
    );
    one(
        &|vmx| vmx.set_drive_file(node("scsi0:0"), "b.vmdk"),
        "scsi0:0.fileName = \"b.vmdk\"",
    );
    one(
        &|vmx| {
            vmx.set_cpu_share(Share {
                limit: Some(5),
                ..Share::default()
            })
        },
        "sched.cpu.max = \"5\"",
    );
    let changed_disk = |change: &dyn Fn(&mut DiskMedium)| {
        let mut drive = disk("scsi0:0", "web.vmdk");
        if let Medium::Disk(disk) = &mut drive.medium {
            change(disk);
        }
        drive
    };
    let independent = changed_disk(&|disk| disk.mode = DiskMode::IndependentPersistent);
    one(
        &|vmx| vmx.put_drive(&independent, None),
        "scsi0:0.mode = \"independent-persistent\"",
    );
    let qcow2 = changed_disk(&|disk| disk.format = Some("qcow2".to_owned()));
    one(
        &|vmx| vmx.put_drive(&qcow2, Some("lsilogic")),
        "hako.scsi0:0.format = \"qcow2\"",
    );
    let nat = |change: &dyn Fn(&mut Nic)| {
        let mut nic = parsed(TEXT).machine().nics.remove(0);
        change(&mut nic);
        nic
    };
    let off = nat(&|nic| nic.connected = false);
    one(
        &|vmx| vmx.put_nic(&off),
        "ethernet0.startConnected = \"FALSE\"",
    );
    let bridged = nat(&|nic| nic.network = Network::Bridged);
    one(
        &|vmx| vmx.put_nic(&bridged),
        "ethernet0.connectionType = \"bridged\"",
    );
    one(&|vmx| vmx.set("Unknown.key", "x"), "Unknown.key = \"x\"");
}

#[test]
fn an_edit_that_says_what_is_there_changes_nothing() {
    let mut vmx = parsed(TEXT);
    let machine = vmx.machine();
    vmx.set_name(&machine.name).unwrap();
    vmx.set_cpu(machine.cpu).unwrap();
    vmx.set_memory(machine.memory_bytes).unwrap();
    vmx.set_firmware(machine.firmware, machine.secure_boot)
        .unwrap();
    vmx.set_boot_order(&machine.boot_order).unwrap();
    vmx.set_annotation(&machine.annotation).unwrap();
    vmx.set_cpu_share(machine.cpu_share).unwrap();
    vmx.set_memory_share(machine.memory_share).unwrap();
    vmx.set_direct_boot(machine.direct_boot.as_ref()).unwrap();
    vmx.put_drive(&machine.drives[0], None).unwrap();
    vmx.put_nic(&machine.nics[0]).unwrap();
    assert_eq!(vmx.to_bytes(), TEXT.as_bytes());
    for (name, bytes) in real_files() {
        let mut vmx = Vmx::parse(&bytes).unwrap();
        let machine = vmx.machine();
        for drive in &machine.drives {
            vmx.put_drive(drive, None).unwrap();
        }
        for nic in &machine.nics {
            vmx.put_nic(nic).unwrap();
        }
        vmx.set_memory_share(machine.memory_share).unwrap();
        assert_eq!(vmx.to_bytes(), bytes, "{name}");
    }
}

#[test]
fn drives_come_with_their_controller_and_go_with_their_keys() {
    let (added, removed) = edited(|vmx| vmx.put_drive(&disk("nvme0:0", "n.vmdk"), None));
    assert_eq!(
        added,
        [
            "nvme0.present = \"TRUE\"",
            "nvme0:0.fileName = \"n.vmdk\"",
            "nvme0:0.present = \"TRUE\""
        ]
    );
    assert!(removed.is_empty());
    let (added, removed) = edited(|vmx| vmx.put_drive(&disk("scsi1:0", "n"), Some("buslogic")));
    assert_eq!(
        added[..2],
        [
            "scsi1.present = \"TRUE\"",
            "scsi1.virtualDev = \"buslogic\""
        ]
    );
    assert!(removed.is_empty());
    let (added, removed) = edited(|vmx| vmx.remove_drive(node("scsi0:0")));
    assert!(added.is_empty());
    assert_eq!(removed.len(), 4, "{removed:?}");
    let (added, removed) = edited(|vmx| {
        let image = Medium::CdImage {
            file: "a.iso".to_owned(),
        };
        vmx.put_drive(&cd("scsi0:0", image), None)
    });
    assert_eq!(added.len(), 3, "{added:?}");
    assert!(
        removed.contains(&"scsi0:0.redo = \"\"".to_owned()),
        "{removed:?}"
    );
}

#[test]
fn drives_that_do_not_fit_are_refused_and_change_nothing() {
    let mut vmx = parsed(TEXT);
    let kind = |result: Result<()>| result.unwrap_err().kind();
    let n = |at: &str| disk(at, "n.vmdk");
    assert_eq!(
        kind(vmx.put_drive(&n("scsi0:1"), Some("pvscsi"))),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(vmx.put_drive(&n("scsi0:16"), None)),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(vmx.put_drive(&n("scsi1:0"), Some("ahci"))),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(vmx.put_drive(&n("sata0:0"), Some("lsilogic"))),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(vmx.put_drive(&n("nvme0:15"), None)),
        ErrorKind::Invalid
    );
    assert_eq!(kind(vmx.remove_drive(node("scsi0:1"))), ErrorKind::NotFound);
    assert_eq!(
        kind(vmx.set_drive_file(node("ide0:0"), "x")),
        ErrorKind::NotFound
    );
    assert_eq!(kind(vmx.remove_nic(1)), ErrorKind::NotFound);
    assert_eq!(vmx.to_bytes(), TEXT.as_bytes());
    vmx.put_drive(&n("scsi1:64"), Some("pvscsi")).unwrap();
}

#[test]
fn a_controller_that_is_off_is_not_switched_on_with_what_sleeps_on_it() {
    let text = "scsi0.present = \"FALSE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a\"\n";
    let mut vmx = parsed(text);
    assert_eq!(vmx.free_node(Bus::Scsi, None), Some(node("scsi1:0")));
    let error = vmx.put_drive(&disk("scsi0:1", "b"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(vmx.to_bytes(), text.as_bytes());
}

#[test]
fn free_nodes_are_found_on_controllers_that_are_there_first() {
    let mut vmx = parsed(TEXT);
    assert_eq!(vmx.free_node(Bus::Scsi, None), Some(node("scsi0:1")));
    assert_eq!(vmx.free_node(Bus::Ide, None), Some(node("ide0:0")));
    assert_eq!(vmx.free_node(Bus::Nvme, None), Some(node("nvme0:0")));
    for _ in 0..14 {
        let at = vmx.free_node(Bus::Scsi, None).unwrap().to_string();
        vmx.put_drive(&disk(&at, "x.vmdk"), None).unwrap();
    }
    assert_eq!(vmx.free_node(Bus::Scsi, None), Some(node("scsi1:0")));
    for at in ["ide0:0", "ide0:1", "ide1:0", "ide1:1"] {
        assert_eq!(vmx.free_node(Bus::Ide, None), Some(node(at)));
        vmx.put_drive(&disk(at, "x.vmdk"), None).unwrap();
    }
    assert_eq!(vmx.free_node(Bus::Ide, None), None);
    assert_eq!(
        vmx.free_node(Bus::Scsi, Some("none")),
        Some(node("scsi1:0"))
    );
}

#[test]
fn network_cards_come_change_and_go() {
    let (added, removed) = edited(|vmx| vmx.put_nic(&nic(1, Network::HostOnly)));
    assert_eq!(
        added,
        [
            "ethernet1.virtualDev = \"vmxnet3\"",
            "ethernet1.connectionType = \"hostonly\"",
            "ethernet1.addressType = \"generated\"",
            "ethernet1.present = \"TRUE\"",
        ]
    );
    assert!(removed.is_empty());
    let (added, removed) = edited(|vmx| vmx.remove_nic(0));
    assert!(added.is_empty());
    assert_eq!(removed.len(), 7);
    let (added, removed) = edited(|vmx| {
        let mut nic = vmx.machine().nics.remove(0);
        nic.mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        nic.mac_is_static = true;
        vmx.put_nic(&nic)
    });
    assert_eq!(
        added,
        [
            "ethernet0.addressType = \"static\"",
            "ethernet0.checkMACAddress = \"FALSE\"",
            "ethernet0.address = \"02:00:00:00:00:01\"",
        ]
    );
    assert_eq!(removed.len(), 3);
    let mut vmx = parsed(TEXT);
    let vcenter = Nic {
        mac: Some(Mac([0x00, 0x50, 0x56, 0x9b, 0, 1])),
        ..nic(0, Network::PortGroup("net".to_owned()))
    };
    vmx.put_nic(&vcenter).unwrap();
    assert_eq!(
        vmx.dictionary().value("ethernet0.addressType").unwrap(),
        "vpx"
    );
    assert_eq!(vmx.dictionary().value("ethernet0.connectionType"), None);
    assert_eq!(vmx.machine().nics[0], vcenter);
}

#[test]
fn shares_and_memory_must_fit_each_other() {
    let mut vmx = parsed(TEXT);
    let kind = |result: Result<()>| result.unwrap_err().kind();
    let share = |reservation, limit| Share {
        reservation,
        limit,
        weight: None,
    };
    assert_eq!(kind(vmx.set_memory(256 << 20)), ErrorKind::Invalid);
    assert_eq!(
        kind(vmx.set_memory_share(share(Some(1025), None))),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(vmx.set_memory_share(share(Some(9), Some(8)))),
        ErrorKind::Invalid
    );
    assert_eq!(
        kind(vmx.set_cpu_share(share(Some(9), Some(8)))),
        ErrorKind::Invalid
    );
    assert_eq!(vmx.to_bytes(), TEXT.as_bytes());
    vmx.set_memory_share(share(Some(8), None)).unwrap();
    vmx.set_memory(256 << 20).unwrap();
    let (added, _) = changes(TEXT, &vmx);
    assert_eq!(
        added,
        [
            "memSize = \"256\"",
            "sched.mem.min = \"8\"",
            "sched.mem.minSize = \"8\""
        ]
    );
    vmx.set_memory_share(share(None, Some(100))).unwrap();
    vmx.set_memory_share(share(None, None)).unwrap();
    assert_eq!(
        vmx.dictionary().value("sched.mem.max").unwrap(),
        "unlimited"
    );
    assert_eq!(vmx.machine().memory_share, Share::default());
}

#[test]
fn an_encrypted_vmx_is_read_and_not_changed() {
    let text = ".encoding = \"UTF-8\"\ndisplayName = \"Encrypted\"\n\
        encryption.keySafe = \"vmware:key/list/(pair/(phrase/MA3fCocdhNc%3d/pass2key))\"\n\
        encryption.data = \"X4sG4nJc0yeWAaSk\"\n";
    let mut vmx = parsed(text);
    assert_eq!(vmx.encryption(), Encryption::Full);
    assert_eq!(vmx.machine().name, "Encrypted");
    assert_eq!(vmx.oddities().len(), 1);
    for result in [
        vmx.set("displayName", "x"),
        vmx.remove("displayName").map(|_| ()),
        vmx.set_memory(1 << 30),
        vmx.put_drive(&disk("sata0:0", "a"), None),
        vmx.put_nic(&nic(0, Network::Nat)),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert_eq!(vmx.to_bytes(), text.as_bytes());
}

#[test]
fn a_partly_encrypted_vmx_keeps_its_secrets() {
    for kind in ["encryption.type", "vmx.encryptionType"] {
        let text = format!(
            "{TEXT}{kind} = \"partial\"\ncryptedVM.guid = \"1\"\nencryption.keySafe = \"k\"\n\
             encryption.data = \"d\"\nvtpm.ekCRT = \"c\"\n"
        );
        let mut vmx = parsed(&text);
        assert_eq!(vmx.encryption(), Encryption::Partial);
        for key in [
            "encryption.data",
            "Encryption.KeySafe",
            "vtpm.present",
            kind,
            "cryptedvm.guid",
        ] {
            assert_eq!(
                vmx.set(key, "x").unwrap_err().kind(),
                ErrorKind::Unsupported,
                "{key}"
            );
            assert!(vmx.remove(key).is_err(), "{key}");
        }
        vmx.set_memory(2 << 30).unwrap();
        vmx.put_drive(&disk("sata0:0", "a"), None).unwrap();
        let after = String::from_utf8(vmx.to_bytes()).unwrap();
        assert!(after.contains("encryption.data = \"d\"\nvtpm.ekCRT = \"c\"\n"));
    }
}
