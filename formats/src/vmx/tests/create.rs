use hako_block::testkit::Rng;
use hako_block::{ErrorKind, Uuid};

use super::*;
use crate::machine::{
    BootDevice, Bus, Controller, Cpu, DirectBoot, DiskMode, Firmware, Mac, SerialPort, Share,
    Weight,
};

/// A machine that has some of everything.
fn full() -> Machine {
    Machine {
        name: "Büro 1".to_owned(),
        hardware_version: Some(21),
        guest_os: Some("ubuntu-64".to_owned()),
        firmware: Firmware::Efi,
        secure_boot: true,
        cpu: Cpu {
            count: 8,
            cores_per_socket: 4,
        },
        memory_bytes: 6 << 30,
        controllers: vec![
            Controller {
                bus: Bus::Sata,
                number: 0,
                model: None,
            },
            Controller {
                bus: Bus::Scsi,
                number: 0,
                model: Some("pvscsi".to_owned()),
            },
            Controller {
                bus: Bus::Scsi,
                number: 1,
                model: Some("lsilogic".to_owned()),
            },
            Controller {
                bus: Bus::Nvme,
                number: 0,
                model: None,
            },
        ],
        drives: vec![
            disk("ide0:0", "old.vmdk"),
            cd("ide1:0", Medium::CdEmpty),
            cd(
                "sata0:0",
                Medium::CdImage {
                    file: "/iso/a \"b\".iso".to_owned(),
                },
            ),
            cd(
                "sata0:1",
                Medium::CdDevice {
                    device: "auto detect".to_owned(),
                },
            ),
            disk("sata0:29", "s.vmdk"),
            Drive {
                node: node("scsi0:0"),
                medium: Medium::Disk(DiskMedium {
                    file: "web.qcow2".to_owned(),
                    format: Some("qcow2".to_owned()),
                    mode: DiskMode::IndependentNonpersistent,
                    physical: false,
                }),
                connected: true,
            },
            disk("scsi0:64", "w.vmdk"),
            Drive {
                node: node("scsi1:15"),
                medium: Medium::Disk(DiskMedium {
                    file: "raw.vmdk".to_owned(),
                    physical: true,
                    ..DiskMedium::default()
                }),
                connected: true,
            },
            disk("nvme0:63", "n.vmdk"),
        ],
        nics: vec![
            nic(0, Network::Bridged),
            Nic {
                mac: Some(Mac([0x00, 0x50, 0x56, 0x3f, 1, 2])),
                mac_is_static: true,
                ..nic(1, Network::PortGroup("VM Network".to_owned()))
            },
            Nic {
                mac: Some(Mac([0x52, 0x54, 0, 1, 2, 3])),
                mac_is_static: true,
                connected: false,
                ..nic(2, Network::Custom("VMnet3".to_owned()))
            },
            Nic {
                mac: Some(Mac([0x00, 0x0c, 0x29, 1, 2, 3])),
                model: None,
                ..nic(9, Network::Nat)
            },
        ],
        serial_ports: vec![SerialPort {
            number: 0,
            kind: "pipe".to_owned(),
            target: "/tmp/com1".to_owned(),
        }],
        annotation: "line 1\nline \"2\" | 3".to_owned(),
        bios_uuid: Uuid::parse("564d96afe646bd865c4d654e7736ef31"),
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
        direct_boot: Some(DirectBoot {
            kernel: "vmlinuz".to_owned(),
            initrd: Some("initrd.img".to_owned()),
            cmdline: "console=ttyS0 root=/dev/vda1".to_owned(),
        }),
    }
}

#[test]
fn a_machine_comes_back_from_its_new_vmx() {
    let machine = full();
    let vmx = Vmx::new(&machine).unwrap();
    assert_eq!(vmx.machine(), machine);
    let again = Vmx::parse(&vmx.to_bytes()).unwrap();
    assert_eq!(again.machine(), machine);
    assert_eq!(again.oddities(), [""; 0]);
    let nic_2 = "ethernet2.checkMACAddress";
    assert_eq!(again.dictionary().value(nic_2).as_deref(), Some("FALSE"));
    assert_eq!(again.dictionary().value("ethernet1.checkMACAddress"), None);
}

#[test]
fn random_machines_come_back_from_their_new_vmx() {
    let mut rng = Rng::new(3);
    for round in 0..200 {
        let mut machine = full();
        let mut keep = |_: &_| !rng.one_in(3);
        machine.drives.retain(|drive| keep(&drive.node.unit));
        machine.nics.retain(|nic| keep(&nic.number));
        machine.serial_ports.retain(|port| keep(&port.number));
        for nic in &mut machine.nics {
            nic.connected = rng.one_in(2);
            if rng.one_in(3) {
                nic.network = Network::HostOnly;
            }
        }
        for drive in &mut machine.drives {
            drive.connected = rng.one_in(2);
            if let Medium::Disk(disk) = &mut drive.medium {
                disk.mode = DiskMode::ALL[rng.below(0..4) as usize];
            }
        }
        machine.secure_boot = rng.one_in(2);
        machine.boot_order.truncate(rng.below(0..4) as usize);
        machine.cpu_share.weight =
            [None, Some(Weight::Low), Some(Weight::Normal)][rng.below(0..3) as usize];
        machine.memory_share.limit = rng.one_in(2).then_some(rng.below(1024..9999));
        machine.direct_boot = machine.direct_boot.filter(|_| rng.one_in(2));
        let vmx = Vmx::new(&machine).unwrap();
        let again = Vmx::parse(&vmx.to_bytes()).unwrap();
        assert_eq!(again.machine(), machine, "round {round}");
        assert_eq!(again.oddities(), [""; 0]);
    }
}

/// What Workstation 17 and ESXi 8 write into a new machine's VMX themselves.
#[test]
fn a_new_vmx_has_what_vmware_wants() {
    let machine = Machine {
        name: "../web: 1".to_owned(),
        guest_os: Some("windows2019srv-64".to_owned()),
        memory_bytes: 4 << 30,
        drives: vec![disk("scsi0:0", "web.vmdk"), disk("nvme1:0", "more.vmdk")],
        ..Machine::default()
    };
    let text = String::from_utf8(Vmx::new(&machine).unwrap().to_bytes()).unwrap();
    for line in [
        ".encoding = \"UTF-8\"",
        "config.version = \"8\"",
        "virtualHW.version = \"19\"",
        "pciBridge0.present = \"TRUE\"",
        "pciBridge7.virtualDev = \"pcieRootPort\"",
        "pciBridge7.functions = \"8\"",
        "vmci0.present = \"TRUE\"",
        "hpet0.present = \"TRUE\"",
        "nvram = \"_web_ 1.nvram\"",
        "displayName = \"../web: 1\"",
        "guestOS = \"windows2019srv-64\"",
        "numvcpus = \"1\"",
        "memsize = \"4096\"",
        "scsi0.present = \"TRUE\"",
        "scsi0.virtualDev = \"lsisas1068\"",
        "scsi0:0.deviceType = \"scsi-hardDisk\"",
        "scsi0:0.fileName = \"web.vmdk\"",
        "scsi0:0.present = \"TRUE\"",
        "nvme1.present = \"TRUE\"",
        "nvme1:0.present = \"TRUE\"",
        "floppy0.present = \"FALSE\"",
        "powerType.powerOff = \"soft\"",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}:\n{text}");
    }
    assert!(
        !text.contains("nvme1:0.deviceType"),
        "virt-v2v and VMware want none"
    );
    assert!(text.starts_with(".encoding"));
}

#[test]
fn scsi_controllers_suit_the_guest() {
    for (guest_os, model) in [
        ("windows9srv-64", "lsisas1068"),
        ("winNetStandard", "lsisas1068"),
        ("ubuntu-64", "pvscsi"),
        ("other5xlinux-64", "pvscsi"),
        ("debian5", "lsilogic"),
        ("freebsd12-64", "lsilogic"),
        ("other-64", "lsilogic"),
    ] {
        let machine = Machine {
            name: "x".to_owned(),
            guest_os: Some(guest_os.to_owned()),
            memory_bytes: 64 << 20,
            drives: vec![disk("scsi0:0", "x.vmdk")],
            ..Machine::default()
        };
        let machine = Vmx::new(&machine).unwrap().machine();
        assert_eq!(
            machine.controllers[0].model.as_deref(),
            Some(model),
            "{guest_os}"
        );
    }
}

#[test]
fn machines_that_cannot_be_are_refused() {
    let refused = |change: &dyn Fn(&mut Machine)| {
        let mut machine = full();
        change(&mut machine);
        Vmx::new(&machine).unwrap_err().kind()
    };
    let cases: [&dyn Fn(&mut Machine); 15] = [
        &|m| m.name.clear(),
        &|m| m.name = "a\nb".to_owned(),
        &|m| m.memory_bytes = 0,
        &|m| m.memory_bytes = (6 << 20) + 1,
        &|m| m.memory_bytes = 6 << 20,
        &|m| m.cpu.count = 0,
        &|m| m.cpu.cores_per_socket = 3,
        &|m| m.firmware = Firmware::Bios,
        &|m| m.drives.push(m.drives[0].clone()),
        &|m| m.nics.push(m.nics[0].clone()),
        &|m| m.nics[0].number = 10,
        &|m| m.nics[0].model = Some("ne2000".to_owned()),
        &|m| m.controllers[1].model = Some("virtio".to_owned()),
        &|m| m.drives.push(disk("scsi1:16", "x")),
        &|m| m.drives.push(disk("scsi0:5", "")),
    ];
    for (index, change) in cases.into_iter().enumerate() {
        assert_eq!(refused(change), ErrorKind::Invalid, "{index}");
    }
}
