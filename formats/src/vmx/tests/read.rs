use super::*;
use crate::machine::{BootDevice, Cpu, DiskMode, Firmware, Mac, Share, Weight};

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
    assert_eq!(medium(&[raw]), Medium::CdEmpty);
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
