use hako_block::testkit::Rng;
use hako_block::{ErrorKind, Uuid};

use super::*;
use crate::dictionary::tests::real_files;
use crate::machine::{
    BootDevice, Bus, Controller, Cpu, DirectBoot, DiskMedium, DiskMode, Drive, Firmware, Mac,
    Medium, Network, Nic, Node, SerialPort, Share, Weight,
};

fn parsed(text: &str) -> Vmx {
    Vmx::parse(text.as_bytes()).unwrap()
}

fn node(text: &str) -> Node {
    text.parse().unwrap()
}

fn disk(at: &str, file: &str) -> Drive {
    Drive {
        node: node(at),
        medium: Medium::Disk(DiskMedium {
            file: file.to_owned(),
            ..DiskMedium::default()
        }),
        connected: true,
    }
}

fn cd(at: &str, medium: Medium) -> Drive {
    Drive {
        node: node(at),
        medium,
        connected: false,
    }
}

fn nic(number: u8, network: Network) -> Nic {
    Nic {
        number,
        model: Some("vmxnet3".to_owned()),
        network,
        mac: None,
        mac_is_static: false,
        connected: true,
    }
}

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

/// What virt-v2v says of a machine (`--print-source`).
fn as_virt_v2v_prints(machine: &Machine) -> Vec<String> {
    let firmware = match machine.firmware {
        Firmware::Bios => "bios",
        Firmware::Efi => "uefi",
    };
    let mut lines = vec![
        format!("source name: {}", machine.name),
        format!("memory: {} (bytes)", machine.memory_bytes),
        format!("nr vCPUs: {}", machine.cpu.count),
        format!("firmware: {firmware}"),
        format!("UEFI secureboot: {}", machine.secure_boot),
        "disks:".to_owned(),
    ];
    let disks = machine.drives.iter();
    let disks = disks.filter(|drive| matches!(drive.medium, Medium::Disk(_)));
    lines.extend(
        disks
            .enumerate()
            .map(|(i, disk)| format!("{i} [{}]", disk.node.bus.name())),
    );
    lines.push("removable media:".to_owned());
    // virt-v2v tells of those on IDE alone.
    let cds = machine
        .drives
        .iter()
        .filter(|drive| drive.node.bus == Bus::Ide);
    lines.extend(cds.map(|drive| {
        let slot = drive.node.controller * 2 + drive.node.unit;
        format!("CD-ROM [ide] in slot {slot}")
    }));
    lines.push("NICs:".to_owned());
    lines.extend(machine.nics.iter().map(|nic| {
        let Network::PortGroup(network) = &nic.network else {
            panic!("{:?} is no port group", nic.network);
        };
        let (mac, model) = (nic.mac.unwrap(), nic.model.as_deref().unwrap());
        format!("Network \"{network}\" mac: {mac} [{model}]")
    }));
    lines
}

#[test]
fn real_files_have_the_hardware_that_virt_v2v_reads() {
    for (name, bytes) in real_files() {
        let vmx = Vmx::parse(&bytes).unwrap();
        assert_eq!(vmx.to_bytes(), bytes, "{name}");
        assert_eq!(vmx.oddities(), [""; 0], "{name}");
        assert_eq!(vmx.encryption(), Encryption::None);
        assert_eq!(vmx.suspended(), None);
        let corpus = std::path::PathBuf::from(std::env::var_os("HAKO_CORPUS").unwrap());
        let expected = corpus.join("virt-v2v").join(format!("{name}.expected"));
        let expected = std::fs::read_to_string(expected).unwrap();
        const NOT_READ: [&str; 8] = [
            "hypervisor",
            "VM genid",
            "CPU vendor",
            "CPU model",
            "CPU topology",
            "CPU features",
            "display",
            "sound",
        ];
        let expected: Vec<&str> = expected.lines().map(str::trim).collect();
        let expected = expected[2..].iter().filter(|line| {
            !line.is_empty() && !NOT_READ.iter().any(|not_read| line.starts_with(not_read))
        });
        let expected: Vec<&str> = expected.copied().collect();
        assert_eq!(as_virt_v2v_prints(&vmx.machine()), expected, "{name}");
    }
}

#[test]
fn real_files_have_what_virt_v2v_does_not_tell() {
    let files = real_files();
    let Some((_, bytes)) = files.get(1) else {
        return;
    };
    let vmx = Vmx::parse(bytes).unwrap();
    assert_eq!(vmx.nvram().as_deref(), Some("Fedora 20.nvram"));
    assert_eq!(vmx.extended_config().as_deref(), Some("Fedora 20.vmxf"));
    let machine = vmx.machine();
    assert_eq!(machine.hardware_version, Some(10));
    assert_eq!(machine.guest_os.as_deref(), Some("rhel7-64"));
    assert_eq!(machine.controllers.len(), 2);
    assert_eq!(machine.controllers[1].model.as_deref(), Some("pvscsi"));
    assert!(
        matches!(&machine.drives[0].medium, Medium::CdImage { file } if file.ends_with(".iso"))
    );
    assert!(!machine.drives[0].connected);
    assert_eq!(machine.drives[1], disk("scsi0:0", "Fedora-20.vmdk"));
    assert_eq!(
        machine.bios_uuid.unwrap().to_string(),
        "421b4b87-e6b7-d881-07a0-c9d221cd3c6b"
    );
    assert_eq!(machine.cpu_share.reservation, Some(0));
    assert_eq!(machine.memory_share.weight, Some(Weight::Normal));
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

#[test]
fn what_is_not_said_is_vmwares_default() {
    let machine = parsed("config.version = \"8\"\n").machine();
    let default = Machine {
        memory_bytes: 32 << 20,
        ..Machine::default()
    };
    assert_eq!(machine, default);
}

#[test]
fn what_is_switched_off_is_not_there() {
    let vmx = parsed(
        "scsi0.present = \"TRUE\"\nscsi0:0.present = \"false\"\nscsi0:0.fileName = \"a.vmdk\"\n\
         scsi0:1.redo = \"\"\nide0:0.present = \"True\"\nide0:0.fileName = \"b.vmdk\"\n\
         ethernet0.present = \"FALSE\"\nethernet0.virtualDev = \"e1000\"\n\
         ethernet1.generatedAddress = \"00:0c:29:00:00:01\"\nserial0.present = \"FALSE\"\n\
         serial0.fileType = \"file\"\nsched.present = \"FALSE\"\nsched.cpu.min = \"5\"\n\
         hako.present = \"FALSE\"\nhako.kernel = \"x\"\n",
    );
    let machine = vmx.machine();
    assert_eq!(machine.drives, [disk("ide0:0", "b.vmdk")]);
    assert!(machine.nics.is_empty());
    assert!(machine.serial_ports.is_empty());
    assert_eq!(machine.cpu_share, Share::default());
    assert_eq!(machine.direct_boot, None);
    assert_eq!(vmx.oddities(), [""; 0]);
}

#[test]
fn drives_are_told_apart_as_vmware_does() {
    let medium = |keys: &[(&str, &str)]| {
        let bus = keys
            .iter()
            .find(|(key, _)| *key == "bus")
            .map_or("scsi", |(_, bus)| bus);
        let mut text = format!("{bus}0.present = \"TRUE\"\n{bus}0:0.present = \"TRUE\"\n");
        for (key, value) in keys.iter().filter(|(key, _)| *key != "bus") {
            text += &format!("{bus}0:0.{key} = \"{value}\"\n");
        }
        let mut drives = parsed(&text).machine().drives;
        assert_eq!(drives.len(), 1, "{text}");
        drives.remove(0).medium
    };
    let file = ("fileName", "a.vmdk");
    let plain = disk("scsi0:0", "a.vmdk").medium;
    assert_eq!(medium(&[file]), plain);
    for kind in ["disk", "scsi-hardDisk", "SCSI-HARDDISK"] {
        assert_eq!(medium(&[file, ("deviceType", kind)]), plain, "{kind}");
    }
    for bus in ["sata", "nvme", "ide"] {
        assert_eq!(medium(&[file, ("bus", bus)]), plain, "{bus}");
    }
    assert_eq!(
        medium(&[file, ("bus", "ide"), ("deviceType", "ata-hardDisk")]),
        plain
    );
    for kind in ["rawDisk", "plainDisk", "scsi-passthru-rdm"] {
        let medium = medium(&[file, ("deviceType", kind)]);
        assert!(
            matches!(medium, Medium::Disk(DiskMedium { physical: true, .. })),
            "{kind}"
        );
    }
    let iso = ("fileName", "a.ISO");
    let image = Medium::CdImage {
        file: "a.ISO".to_owned(),
    };
    assert_eq!(medium(&[iso, ("deviceType", "cdrom-image")]), image);
    assert_eq!(medium(&[iso, ("bus", "ide")]), image);
    let empty = ("fileName", "emptyBackingString");
    let raw = ("deviceType", "cdrom-raw");
    assert_eq!(
        medium(&[empty, ("deviceType", "cdrom-image")]),
        Medium::CdEmpty
    );
    assert_eq!(
        medium(&[empty, ("deviceType", "atapi-cdrom")]),
        Medium::CdEmpty
    );
    assert_eq!(medium(&[raw, ("clientDevice", "TRUE")]), Medium::CdEmpty);
    let device = |name: &str| Medium::CdDevice {
        device: name.to_owned(),
    };
    assert_eq!(
        medium(&[raw, ("autodetect", "TRUE")]),
        device("auto detect")
    );
    assert_eq!(medium(&[raw, ("fileName", "/dev/sr0")]), device("/dev/sr0"));
    assert_eq!(
        medium(&[("fileName", "/dev/sg1"), ("deviceType", "scsi-passthru")]),
        Medium::Other {
            kind: "scsi-passthru".to_owned(),
            file: "/dev/sg1".to_owned(),
        }
    );
}

#[test]
fn modes_of_disks_are_read_also_as_old_products_wrote_them() {
    for (word, mode) in [
        ("persistent", DiskMode::Persistent),
        ("Independent-Persistent", DiskMode::IndependentPersistent),
        (
            "independent-nonpersistent",
            DiskMode::IndependentNonpersistent,
        ),
        ("nonpersistent", DiskMode::IndependentNonpersistent),
        ("undoable", DiskMode::Undoable),
    ] {
        let text =
            format!("ide0:0.present = \"1\"\nide0:0.fileName = \"a\"\nide0:0.mode = \"{word}\"\n");
        let drives = parsed(&text).machine().drives;
        assert!(
            matches!(&drives[0].medium, Medium::Disk(disk) if disk.mode == mode),
            "{word}"
        );
    }
}

#[test]
fn network_cards_are_read_in_every_form() {
    let vmx = parsed(
        "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"nat\"\n\
         ethernet0.addressType = \"generated\"\nethernet0.address = \"00:50:56:00:00:09\"\n\
         ethernet0.generatedAddress = \"00:0C:29:01:02:03\"\n\
         ethernet1.present = \"TRUE\"\nethernet1.connectionType = \"custom\"\n\
         ethernet1.vnet = \"VMnet3\"\nethernet1.addressType = \"static\"\n\
         ethernet1.address = \"00:50:56:00:00:01\"\nethernet1.virtualDev = \"E1000e\"\n\
         ethernet2.present = \"TRUE\"\nethernet2.connectionType = \"bridged\"\n\
         ethernet2.networkName = \"VM Network\"\nethernet2.address = \"00:50:56:00:00:02\"\n\
         ethernet3.present = \"TRUE\"\nethernet3.dvs.portgroupId = \"dvportgroup-7\"\n\
         ethernet3.startConnected = \"FALSE\"\n\
         ethernet4.present = \"TRUE\"\nethernet4.connectionType = \"pvn\"\n\
         ethernet4.pvnID = \"52 1f\"\nethernet10.present = \"TRUE\"\n\
         ethernet10.connectionType = \"hostonly\"\nethernet10.address = \"zz\"\n",
    );
    let nics = vmx.machine().nics;
    let numbers: Vec<u8> = nics.iter().map(|nic| nic.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 10]);
    let mac = |text: &str| Some(text.parse::<Mac>().unwrap());
    assert_eq!(
        (nics[0].mac, nics[0].mac_is_static),
        (mac("00:0c:29:01:02:03"), false)
    );
    assert_eq!(
        (nics[1].mac, nics[1].mac_is_static),
        (mac("00:50:56:00:00:01"), true)
    );
    assert_eq!(
        (nics[2].mac, nics[2].mac_is_static),
        (mac("00:50:56:00:00:02"), true)
    );
    assert_eq!(nics[1].model.as_deref(), Some("e1000e"));
    let networks: Vec<Network> = nics.iter().map(|nic| nic.network.clone()).collect();
    let name = |text: &str| text.to_owned();
    assert_eq!(
        networks,
        [
            Network::Nat,
            Network::Custom(name("VMnet3")),
            Network::PortGroup(name("VM Network")),
            Network::PortGroup(name("dvportgroup-7")),
            Network::Custom(name("52 1f")),
            Network::HostOnly,
        ]
    );
    assert!(!nics[3].connected);
    assert_eq!(vmx.oddities().len(), 2, "{:?}", vmx.oddities());
}

#[test]
fn shares_are_read_with_their_older_names() {
    let vmx = parsed(
        "sched.cpu.min = \"100\"\nsched.cpu.max = \"-1\"\nsched.cpu.shares = \"low\"\n\
         sched.mem.minSize = \"64\"\nsched.mem.max = \"unlimited\"\nsched.mem.shares = \"1234\"\n",
    );
    let machine = vmx.machine();
    assert_eq!(machine.cpu_share.reservation, Some(100));
    assert_eq!(machine.cpu_share.limit, None);
    assert_eq!(machine.cpu_share.weight, Some(Weight::Low));
    assert_eq!(machine.memory_share.reservation, Some(64));
    assert_eq!(machine.memory_share.limit, None);
    assert_eq!(machine.memory_share.weight, Some(Weight::Custom(1234)));
    let percent = parsed("sched.cpu.units = \"percent\"\nsched.cpu.min = \"50\"\n");
    assert_eq!(percent.machine().cpu_share.reservation, None);
    assert_eq!(percent.oddities().len(), 1);
}

#[test]
fn nonsense_is_told_and_read_as_the_default() {
    let vmx = parsed(
        "numvcpus = \"0\"\ncpuid.coresPerSocket = \"3\"\nmemsize = \"99999999999999999999\"\n\
         firmware = \"coreboot\"\nuefi.secureBoot.enabled = \"maybe\"\nuuid.bios = \"56 4d\"\n\
         scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"virtio\"\nscsi0:7.present = \"TRUE\"\n\
         scsi9:0.fileName = \"x\"\nscsi0:2.fileName = \"y.vmdk\"\nscsi0:3.present = \"TRUE\"\n\
         bios.bootOrder = \"cdrom,tape,cdrom,scsi0:2,ethernet7\"\nscsi1.present = \"FALSE\"\n\
         scsi1:0.fileName = \"z.vmdk\"\nscsi1:0.present = \"TRUE\"\nscsi0:2.mode = \"odd\"\n\
         sched.cpu.shares = \"many\"\nvirtualHW.version = \"x\"\n",
    );
    let machine = vmx.machine();
    assert_eq!(machine.cpu, Cpu::default());
    assert_eq!(machine.memory_bytes, 32 << 20);
    assert_eq!(machine.firmware, Firmware::Bios);
    assert_eq!(machine.drives.len(), 2);
    assert_eq!(machine.drives[0], disk("scsi0:2", "y.vmdk"));
    let order = [BootDevice::Cdrom, BootDevice::Disk, BootDevice::Network];
    assert_eq!(machine.boot_order, order);
    let oddities = vmx.oddities().join("\n");
    for expected in [
        "numvcpus is 0",
        "cpuid.coresPerSocket is 3",
        "memsize is \"99999999999999999999\"",
        "firmware is \"coreboot\"",
        "uefi.secureBoot.enabled is \"maybe\"",
        "uuid.bios is \"56 4d\"",
        "scsi0.virtualDev is \"virtio\"",
        "\"scsi0:7\" is no node",
        "\"scsi9:0\" is no node",
        "scsi0:2.present is missing",
        "scsi0:3 is a disk without a file",
        "scsi1:0 is there, but scsi1 is not",
        "scsi0:2.mode is \"odd\"",
        "bios.bootOrder is \"tape\"",
        "sched.cpu.shares is \"many\"",
        "virtualHW.version is \"x\"",
    ] {
        assert!(oddities.contains(expected), "{expected}:\n{oddities}");
    }
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
    assert_eq!(vmx.free_node(Bus::Scsi), Some(node("scsi1:0")));
    let error = vmx.put_drive(&disk("scsi0:1", "b"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(vmx.to_bytes(), text.as_bytes());
}

#[test]
fn free_nodes_are_found_on_controllers_that_are_there_first() {
    let mut vmx = parsed(TEXT);
    assert_eq!(vmx.free_node(Bus::Scsi), Some(node("scsi0:1")));
    assert_eq!(vmx.free_node(Bus::Ide), Some(node("ide0:0")));
    assert_eq!(vmx.free_node(Bus::Nvme), Some(node("nvme0:0")));
    for _ in 0..14 {
        let at = vmx.free_node(Bus::Scsi).unwrap().to_string();
        vmx.put_drive(&disk(&at, "x.vmdk"), None).unwrap();
    }
    assert_eq!(vmx.free_node(Bus::Scsi), Some(node("scsi1:0")));
    for at in ["ide0:0", "ide0:1", "ide1:0", "ide1:1"] {
        assert_eq!(vmx.free_node(Bus::Ide), Some(node(at)));
        vmx.put_drive(&disk(at, "x.vmdk"), None).unwrap();
    }
    assert_eq!(vmx.free_node(Bus::Ide), None);
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

#[test]
fn a_suspended_machine_names_its_state() {
    assert_eq!(parsed("checkpoint.vmState = \"\"\n").suspended(), None);
    let vmx = parsed("checkpoint.vmState = \"web-1.vmss\"\n");
    assert_eq!(vmx.suspended().as_deref(), Some("web-1.vmss"));
}

#[test]
fn what_is_no_vmx_is_refused() {
    for bytes in [
        &b""[..],
        b"hello\n",
        b"KDMV\0\0",
        b"# Disk DescriptorFile\nversion=1\n",
    ] {
        assert!(Vmx::parse(bytes).is_err());
    }
}
