use super::*;
use crate::dictionary::tests::real_files;
use crate::machine::{Bus, Firmware, Weight};

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
    let mut disks: Vec<Bus> = disks.map(|disk| disk.node.bus).collect();
    // virt-v2v's order.
    let order = [Bus::Scsi, Bus::Sata, Bus::Nvme, Bus::Ide];
    disks.sort_by_key(|bus| order.iter().position(|other| other == bus));
    let disks = disks.iter().enumerate();
    lines.extend(disks.map(|(index, bus)| format!("{index} [{}]", bus.name())));
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
        let network = match &nic.network {
            Network::PortGroup(name) => format!("Network {name:?}"),
            Network::Bridged => format!("Bridge \"ethernet{}\"", nic.number),
            other => format!("Network of another kind: {other:?}"),
        };
        let (mac, model) = (nic.mac.unwrap(), nic.model.as_deref().unwrap());
        format!("{network} mac: {mac} [{model}]")
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
