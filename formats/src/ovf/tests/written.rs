//! What is written: read back it is the same machine, and it keeps DSP0243's rules.

use std::collections::HashSet;

use hako_block::{ErrorKind, Uuid};

use crate::machine::{
    BootDevice, Bus, Controller, Cpu, DirectBoot, DiskMedium, DiskMode, Drive, Firmware, Machine,
    Medium, Network, Nic, Node, SerialPort, Share, Weight,
};
use crate::ovf::{Choices, Envelope, WrittenDisk, not_written, write, xml};

fn disk(id: &str, size: Option<u64>) -> WrittenDisk {
    WrittenDisk {
        id: id.to_owned(),
        href: format!("web & <mail>-{id}.vmdk"),
        capacity_bytes: 20 << 30,
        size,
        populated_bytes: size,
    }
}

fn drive(node: &str, medium: Medium) -> Drive {
    Drive {
        node: node.parse::<Node>().unwrap(),
        connected: !matches!(medium, Medium::CdEmpty),
        medium,
    }
}

fn hard_disk(id: &str, mode: DiskMode) -> Medium {
    Medium::Disk(DiskMedium {
        file: id.to_owned(),
        mode,
        ..DiskMedium::default()
    })
}

fn nic(number: u8, model: &str, network: Network, mac: Option<&str>) -> Nic {
    Nic {
        number,
        model: Some(model.to_owned()),
        network,
        mac: mac.map(|mac| mac.parse().unwrap()),
        mac_is_static: mac.is_some(),
        connected: number != 1,
    }
}

fn controller(bus: Bus, number: u8, model: Option<&str>) -> Controller {
    Controller {
        bus,
        number,
        model: model.map(str::to_owned),
    }
}

/// A machine with something of everything that an envelope can hold.
fn everything() -> Machine {
    Machine {
        name: "web & <mail> \"1\"".to_owned(),
        hardware_version: Some(21),
        guest_os: Some("debian12-64".to_owned()),
        firmware: Firmware::Efi,
        secure_boot: true,
        cpu: Cpu {
            count: 8,
            cores_per_socket: 4,
        },
        memory_bytes: 4 << 30,
        controllers: vec![
            controller(Bus::Ide, 1, None),
            controller(Bus::Sata, 0, None),
            controller(Bus::Scsi, 0, Some("pvscsi")),
            controller(Bus::Scsi, 1, Some("lsisas1068")),
            controller(Bus::Scsi, 2, Some("buslogic")),
            controller(Bus::Scsi, 3, None),
            controller(Bus::Nvme, 2, None),
        ],
        drives: vec![
            drive("ide1:0", Medium::CdEmpty),
            drive(
                "sata0:3",
                Medium::CdDevice {
                    device: "auto detect".to_owned(),
                },
            ),
            drive("scsi0:0", hard_disk("d1", DiskMode::Persistent)),
            drive(
                "scsi1:8",
                hard_disk("d2", DiskMode::IndependentNonpersistent),
            ),
            drive("nvme2:1", hard_disk("d3", DiskMode::IndependentPersistent)),
        ],
        nics: vec![
            nic(
                0,
                "vmxnet3",
                Network::PortGroup("VM Network".to_owned()),
                None,
            ),
            nic(1, "e1000e", Network::Nat, Some("00:50:56:00:00:01")),
            nic(2, "e1000", Network::Bridged, None),
            nic(3, "vlance", Network::HostOnly, None),
            nic(4, "e1000", Network::Custom("VMnet3".to_owned()), None),
        ],
        serial_ports: vec![SerialPort {
            number: 0,
            kind: "pipe".to_owned(),
            target: r"\\.\pipe\com".to_owned(),
        }],
        annotation: " one\n  two & <three>\n\ttab\n".to_owned(),
        bios_uuid: Uuid::parse("564d1234-5678-9abc-def0-112233445566"),
        boot_order: vec![BootDevice::Cdrom, BootDevice::Disk, BootDevice::Network],
        cpu_share: Share {
            reservation: Some(500),
            limit: Some(2000),
            weight: Some(Weight::High),
        },
        memory_share: Share {
            reservation: Some(1024),
            limit: None,
            weight: Some(Weight::Custom(77)),
        },
        direct_boot: None,
    }
}

fn disks() -> [WrittenDisk; 3] {
    [
        disk("d1", Some(123)),
        disk("d2", None),
        disk("d3", Some(u64::MAX)),
    ]
}

#[test]
fn what_is_written_is_read_back_as_the_same_machine() {
    let machine = everything();
    let text = write(&machine, &disks()).unwrap();
    let envelope = Envelope::parse(text.as_bytes()).unwrap();
    let (read, lost) = envelope.systems[0]
        .machine(&envelope, &Choices::default())
        .unwrap();
    assert_eq!(read, machine);
    assert_eq!(lost, Vec::<String>::new());
    assert_eq!(envelope.oddities, Vec::<String>::new());
    assert_eq!(not_written(&machine), Vec::<String>::new());
    let sizes: Vec<_> = envelope.files.iter().map(|file| file.size).collect();
    assert_eq!(sizes, [Some(123), None, Some(u64::MAX)]);
    assert_eq!(envelope.disks[0].populated_bytes, Some(123));
    assert_eq!(envelope.disks[2].populated_bytes, Some(20 << 30));
}

#[test]
fn a_machine_that_says_nothing_is_written_too() {
    let text = write(&Machine::default(), &[]).unwrap();
    let envelope = Envelope::parse(text.as_bytes()).unwrap();
    let (read, _) = envelope.systems[0]
        .machine(&envelope, &Choices::default())
        .unwrap();
    assert_eq!(read.name, "machine");
    assert_eq!(read.hardware_version, Some(13));
    assert_eq!(read.guest_os.as_deref(), Some("other"));
}

#[test]
fn a_network_with_blanks_around_its_name_is_found_again() {
    let machine = Machine {
        nics: vec![nic(
            0,
            "e1000",
            Network::PortGroup(" LAN\t1 ".to_owned()),
            None,
        )],
        ..Machine::default()
    };
    let text = write(&machine, &[]).unwrap();
    let envelope = Envelope::parse(text.as_bytes()).unwrap();
    let (read, _) = envelope.systems[0]
        .machine(&envelope, &Choices::default())
        .unwrap();
    assert_eq!(
        read.nics[0].network,
        Network::PortGroup("LAN\t1".to_owned())
    );
}

#[test]
fn memory_of_any_size_is_kept() {
    for bytes in [1, 4 << 20, (4 << 20) + 1, 6 << 40] {
        let machine = Machine {
            memory_bytes: bytes,
            memory_share: Share {
                reservation: Some(1),
                ..Share::default()
            },
            ..Machine::default()
        };
        let text = write(&machine, &[]).unwrap();
        let envelope = Envelope::parse(text.as_bytes()).unwrap();
        let (read, _) = envelope.systems[0]
            .machine(&envelope, &Choices::default())
            .unwrap();
        assert_eq!(read.memory_bytes, bytes);
        assert_eq!(read.memory_share.reservation, Some(1));
    }
}

/// With the largest size a text is as long as it can get: what is reserved for it is enough.
#[test]
fn no_size_makes_the_text_longer_than_the_largest() {
    let machine = everything();
    let of_size = |size| {
        let disks = ["d1", "d2", "d3"].map(|id| disk(id, size));
        write(&machine, &disks).unwrap().len()
    };
    let longest = of_size(Some(u64::MAX));
    for size in [None, Some(0), Some(1 << 40)] {
        assert!(of_size(size) <= longest);
    }
}

#[test]
fn a_drive_without_its_disk_is_refused() {
    let error = write(&everything(), &disks()[..2]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("nvme2:1 has the disk \"d3\""),
        "{error}"
    );
    let twice = [disk("d1", None), disk("d1", None)];
    assert!(write(&Machine::default(), &twice).is_err());
}

#[test]
fn what_an_envelope_has_no_place_for_is_told() {
    let machine = Machine {
        guest_os: Some("temple-os".to_owned()),
        controllers: vec![controller(Bus::Scsi, 0, Some("virtio"))],
        nics: vec![nic(0, "virtio", Network::Nat, None)],
        drives: vec![
            drive(
                "sata0:0",
                Medium::CdImage {
                    file: "a.iso".to_owned(),
                },
            ),
            drive(
                "scsi0:1",
                Medium::Other {
                    kind: "scsi-passthru".to_owned(),
                    file: String::new(),
                },
            ),
        ],
        direct_boot: Some(DirectBoot::default()),
        ..Machine::default()
    };
    assert_eq!(
        not_written(&machine).len(),
        6,
        "{:?}",
        not_written(&machine)
    );
    let text = write(&machine, &[]).unwrap();
    assert!(
        !text.contains("virtio") && !text.contains("passthru"),
        "{text}"
    );
}

/// The order of DSP8023's sequences, the attributes that it requires, references that lead
/// somewhere, parts of items in the order of the alphabet, and no two of one id.
#[test]
fn the_rules_of_the_schema_are_kept() {
    let text = write(&everything(), &disks()).unwrap();
    let root = xml::parse(text.as_bytes()).unwrap();
    let names = |element: &xml::Element| -> Vec<String> {
        element
            .children
            .iter()
            .map(|child| child.name.clone())
            .collect()
    };
    let child = |element: &xml::Element, name: &str| -> xml::Element {
        element.named(name).next().unwrap().clone()
    };
    assert_eq!(
        names(&root),
        [
            "References",
            "DiskSection",
            "NetworkSection",
            "VirtualSystem"
        ]
    );
    for section in &root.children[1..] {
        assert_eq!(section.children[0].name, "Info", "{}", section.name);
    }
    let system = child(&root, "VirtualSystem");
    assert_eq!(
        names(&system)[..3],
        ["Info", "Name", "OperatingSystemSection"]
    );
    for section in &system.children[2..] {
        assert_eq!(section.children[0].name, "Info", "{}", section.name);
    }
    let hardware = child(&system, "VirtualHardwareSection");
    let order = ["Info", "System", "Item", "Config", "ExtraConfig"];
    let ranks: Vec<_> = names(&hardware)
        .iter()
        .map(|name| order.iter().position(|known| known == name).unwrap())
        .collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    let mut ids = HashSet::new();
    for item in hardware.named("Item") {
        let parts: Vec<_> = names(item)
            .into_iter()
            .filter(|name| name != "Config")
            .collect();
        let (cim, vmware): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|name| name != "CoresPerSocket");
        assert!(cim.is_sorted(), "{cim:?}");
        assert!(vmware.len() <= 1);
        for required in ["ElementName", "InstanceID", "ResourceType"] {
            assert!(
                item.text_of(required).is_some_and(|text| !text.is_empty()),
                "{required}"
            );
        }
        assert!(ids.insert(item.text_of("InstanceID").unwrap().to_owned()));
    }
    for item in hardware.named("Item") {
        if let Some(parent) = item.text_of("Parent") {
            assert!(ids.contains(parent));
        }
    }
}
