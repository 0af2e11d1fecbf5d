use super::*;
use crate::machine::{
    Controller, Cpu, DirectBoot, DiskMedium, Drive, Medium, Network, Nic, Weight,
};

fn disk(node: &str) -> Drive {
    Drive {
        node: node.parse().unwrap(),
        medium: Medium::Disk(DiskMedium {
            file: format!("/srv/kvm/{node}.qcow2"),
            format: Some("qcow2".to_owned()),
            ..DiskMedium::default()
        }),
        connected: true,
    }
}

fn cd(node: &str, medium: Medium) -> Drive {
    Drive {
        medium,
        ..disk(node)
    }
}

fn scsi(number: u8, model: &str) -> Controller {
    Controller {
        bus: Bus::Scsi,
        number,
        model: Some(model.to_owned()),
    }
}

fn machine(drives: Vec<Drive>) -> Machine {
    Machine {
        name: "web/1 <&>".to_owned(),
        memory_bytes: 2 << 30,
        drives,
        ..Machine::default()
    }
}

/// Returns the text, which must be well formed, and the warnings.
fn written(machine: &Machine) -> (String, Vec<String>) {
    let (text, warnings) = domain(machine).unwrap();
    crate::ovf::check_well_formed(text.as_bytes()).unwrap();
    (text, warnings)
}

#[test]
fn devices_that_qemu_has_stay_what_they_are() {
    let mut machine = machine(vec![
        cd("ide1:0", Medium::CdEmpty),
        disk("sata0:4"),
        disk("scsi0:0"),
        disk("scsi1:8"),
    ]);
    machine.controllers = vec![scsi(0, "pvscsi"), scsi(1, "lsisas1068")];
    machine.nics = ["e1000", "e1000e", "vmxnet3", "vlance"]
        .into_iter()
        .zip(0..)
        .map(|(model, number)| Nic {
            number,
            model: Some(model.to_owned()),
            network: Network::Nat,
            mac: "00:50:56:00:00:01".parse().ok(),
            mac_is_static: true,
            connected: true,
        })
        .collect();
    let (text, warnings) = written(&machine);
    for part in [
        "<name>web-1 &lt;&amp;&gt;</name>",
        "<memory unit=\"KiB\">2097152</memory>",
        "machine=\"pc\"",
        "<target dev=\"hdc\" bus=\"ide\"/>",
        "<target dev=\"sda\" bus=\"sata\"/>",
        "<target dev=\"sdb\" bus=\"scsi\"/>",
        "<source file=\"/srv/kvm/scsi1:8.qcow2\"/>",
        "<controller type=\"scsi\" index=\"0\" model=\"vmpvscsi\"/>",
        "<controller type=\"scsi\" index=\"1\" model=\"lsisas1068\"/>",
        "<model type=\"vmxnet3\"/>",
        "<model type=\"pcnet\"/>",
        "<mac address=\"00:50:56:00:00:01\"/>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("virtio"), "{text}");
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn devices_that_qemu_lacks_are_told() {
    let mut machine = machine(vec![disk("scsi0:0"), disk("scsi1:0"), disk("nvme0:0")]);
    machine.controllers = vec![scsi(0, "lsilogic"), scsi(1, "buslogic")];
    machine.nics = vec![Nic {
        number: 0,
        model: Some("vmxnet".to_owned()),
        network: Network::PortGroup("VM Network".to_owned()),
        mac: None,
        mac_is_static: false,
        connected: false,
    }];
    machine.cpu_share.weight = Some(Weight::High);
    let (text, warnings) = written(&machine);
    assert!(
        text.contains("machine=\"q35\"") && text.contains("<link state=\"down\"/>"),
        "{text}"
    );
    for part in [
        "no lsilogic",
        "no buslogic",
        "nvme0:0 is a SATA",
        "no vmxnet",
        "VM Network",
        "shares",
    ] {
        assert!(
            warnings.iter().any(|line| line.contains(part)),
            "{part}: {warnings:?}"
        );
    }
}

#[test]
fn many_drives_find_places_on_more_controllers() {
    let drives = (0..15)
        .filter(|unit| *unit != 7)
        .map(|unit| disk(&format!("scsi0:{unit}")))
        .chain((0..8).map(|unit| disk(&format!("sata0:{unit}"))))
        .chain((8..14).map(|unit| disk(&format!("nvme0:{unit}"))));
    let mut machine = machine(drives.collect());
    machine.controllers = vec![scsi(0, "pvscsi")];
    let (text, _) = written(&machine);
    let addresses: std::collections::HashSet<_> = text
        .lines()
        .filter(|line| line.contains("<address type=\"drive\""))
        .collect();
    let names: std::collections::HashSet<_> = text
        .lines()
        .filter(|line| line.contains("<target dev="))
        .collect();
    assert_eq!(names.len(), 28);
    // SCSI and SATA number their controllers each for themselves.
    assert!(addresses.len() >= 14);
    assert!(text.contains("dev=\"sdab\""), "{text}");
    assert_eq!(text.matches("<controller type=\"scsi\"").count(), 2);
    assert_eq!(text.matches("<controller type=\"sata\"").count(), 3);
}

#[test]
fn firmware_secure_boot_and_topology_are_said() {
    let mut machine = machine(vec![cd("ide0:0", Medium::CdEmpty)]);
    machine.firmware = Firmware::Efi;
    machine.secure_boot = true;
    machine.guest_os = Some("windows2019srv-64".to_owned());
    machine.cpu = Cpu {
        count: 8,
        cores_per_socket: 4,
    };
    machine.boot_order = vec![BootDevice::Cdrom, BootDevice::Network];
    let (text, warnings) = written(&machine);
    for part in [
        "<os firmware=\"efi\">",
        "machine=\"q35\"",
        "<feature enabled=\"yes\" name=\"secure-boot\"/>",
        "<smm state=\"on\"/>",
        "<topology sockets=\"2\" cores=\"4\" threads=\"1\"/>",
        "<clock offset=\"localtime\"/>",
        "<boot dev=\"cdrom\"/>",
        "<target dev=\"sda\" bus=\"sata\"/>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        warnings[0].contains("ide0:0 is a SATA drive"),
        "{warnings:?}"
    );
}

#[test]
fn files_that_libvirt_would_look_for_elsewhere_are_left_out() {
    let image = |file: &str| Medium::CdImage {
        file: file.to_owned(),
    };
    let mut machine = machine(vec![
        cd("sata0:0", image("tools.iso")),
        cd("sata0:1", image("/srv/tools.iso")),
    ]);
    machine.direct_boot = Some(DirectBoot {
        kernel: "vmlinuz".to_owned(),
        ..DirectBoot::default()
    });
    let (text, warnings) = written(&machine);
    assert_eq!(text.matches("<source file=").count(), 1);
    assert!(!text.contains("vmlinuz"), "{text}");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_machine_without_memory_is_refused() {
    assert!(domain(&Machine::default()).is_err());
}
