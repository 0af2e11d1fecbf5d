//! Envelopes of other people's software, each with what it must be read as; and what another reader
//! makes of ours.

use std::path::{Path, PathBuf};

use hako_formats::machine::{
    Bus, Controller, Cpu, DiskMedium, Drive, Firmware, Machine, Medium, Network, Nic,
};
use hako_formats::ovf::{self, Choices, Envelope, WrittenDisk};
use hako_tests::peers::QemuImg;
use hako_tests::{root, run_program, skip};

/// Processors, MiB of memory, disks and network cards.
type Hardware = (u32, u64, usize, usize);

/// What an envelope must be read as.
enum Expected {
    /// These machines, under the deployment option that it prefers.
    Machines(&'static [Hardware]),
    /// These machines, and this is told of what was not carried over.
    Told(&'static [Hardware], &'static str),
    /// Nothing: it is refused, and the reason has these words.
    Refused(&'static str),
}

use Expected::{Machines, Refused, Told};

const ENVELOPES: &[(&str, Expected)] = &[
    (
        "category-grouping.ovf",
        Told(&[(1, 1024, 0, 0)], "which has no content"),
    ),
    ("configspec.ovf", Machines(&[(2, 4096, 5, 2)])),
    ("deployment-configs.ovf", Machines(&[(8, 8192, 3, 1)])),
    ("disk-capacity-property.ovf", Machines(&[(1, 512, 1, 0)])),
    (
        "dmtf_gos_test.ovf",
        Told(&[(1, 0, 1, 1)], "no memory is described"),
    ),
    ("dmtf_gos_versioned_test.ovf", Machines(&[(1, 0, 1, 0)])),
    (
        "complete_vsc.ovf",
        Machines(&[(1, 64, 2, 1), (1, 64, 1, 1)]),
    ),
    ("computeResource.ovf", Machines(&[(1, 512, 0, 0)])),
    (
        "haoUnOS2VMsNoNics.ovf",
        Machines(&[(1, 256, 1, 0), (1, 256, 1, 0)]),
    ),
    ("nostalgia-two-disks-same.ovf", Machines(&[(1, 64, 2, 1)])),
    ("scaleout.ovf", Machines(&[(1, 0, 0, 0)])),
    ("tagBasedPlacement001.ovf", Machines(&[])),
    ("tagBasedPlacement005.ovf", Machines(&[])),
    (
        "DiskSection/Neg/dup_filerefs.ovf",
        Refused("\"file1\" belongs to two disks"),
    ),
    (
        "DiskSection/Pos/valid_2gbFlat_disk.ovf",
        Machines(&[(1, 0, 1, 0)]),
    ),
    (
        "DiskSection_1_0/Neg/dup_filerefs.ovf",
        Refused("\"file1\" belongs to two disks"),
    ),
    (
        "Envelope_1_0/Neg/invalid_ref_no_href.ovf",
        Refused("File: has no href"),
    ),
    (
        "Envelope_1_0/Neg/invalid_ref_size_null.ovf",
        Refused("no size is said of its file"),
    ),
    ("Envelope_1_0/Pos/valid_iso.ovf", Machines(&[(1, 0, 0, 0)])),
    (
        "ProductSection/Neg/dup_prodsec.ovf",
        Refused("two ProductSections have the class"),
    ),
    (
        "VirtualHardware_1_0/Pos/valid_multiple_vh.ovf",
        Told(&[(1, 0, 1, 0)], "other hardware, for xen3"),
    ),
    ("nvm001.ovf", Machines(&[(1, 512, 1, 1)])),
    ("prod_sec_catnprop.ovf", Machines(&[(1, 512, 1, 1)])),
    ("prop_type_sint16.ovf", Machines(&[(1, 0, 1, 1)])),
    ("section_compatibility_rec.ovf", Machines(&[(1, 0, 0, 0)])),
    ("nostalgia-128mb.ovf", Machines(&[(1, 128, 1, 1)])),
    (
        "nostalgia-virtualdiskformat-disk.ovf",
        Machines(&[(1, 64, 3, 1)]),
    ),
    ("nostalgia_signed.ovf", Machines(&[(1, 32, 1, 1)])),
    (
        "Zimbra_606_Ubuntu_8041_i386_OVF10.ovf",
        Machines(&[(1, 2048, 2, 1)]),
    ),
    (
        "Nested-ESXi-3-Node-VSAN-Template.ovf",
        Machines(&[(2, 5120, 3, 1), (2, 5120, 3, 1), (2, 5120, 3, 1)]),
    ),
    ("yVM.ovf", Machines(&[(1, 48, 2, 1)])),
    ("child_kitem_req_false.ovf", Machines(&[(1, 0, 1, 0)])),
    ("valid_multiple_subtypes.ovf", Machines(&[(1, 0, 1, 0)])),
    ("valid_multiple_vhtypes.ovf", Machines(&[(1, 0, 1, 0)])),
    (
        "invalid-property-key.ovf",
        Refused("\"invalid.key\" has a dot"),
    ),
    ("mixed-disks.ovf", Machines(&[(1, 512, 2, 0)])),
    ("multiple_disks.ovf", Machines(&[(2, 64, 4, 1)])),
    ("properties.ovf", Machines(&[(2, 2048, 0, 1)])),
    ("ttylinux.ovf", Machines(&[(1, 32, 1, 1)])),
    (
        "unsupported-resourcesubtype.ovf",
        Told(&[(2, 4096, 0, 0)], "invalidResourceSubType"),
    ),
    ("test-i-ova-snapshots.ovf", Machines(&[(1, 1024, 1, 1)])),
    ("test-i-ova-two-disks.ovf", Machines(&[(1, 1024, 2, 1)])),
    ("test-i-ova.ovf", Machines(&[(1, 2048, 1, 1)])),
];

/// Returns every envelope below a folder.
fn envelopes(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(envelopes(&path));
        } else if path.extension().is_some_and(|extension| extension == "ovf") {
            found.push(path);
        }
    }
    found
}

/// Returns the machines of an envelope, and all that is told of what was not carried over.
fn hardware(envelope: &Envelope) -> (Vec<Hardware>, String) {
    let mut told = Vec::new();
    let machines = envelope.systems.iter().map(|system| {
        let (machine, lost) = system.machine(envelope, &Choices::default()).unwrap();
        told.extend(lost);
        let is_disk = |drive: &&Drive| matches!(drive.medium, Medium::Disk(_));
        let n_disks = machine.drives.iter().filter(is_disk).count();
        (
            machine.cpu.count,
            machine.memory_bytes >> 20,
            n_disks,
            machine.nics.len(),
        )
    });
    (machines.collect(), told.join("\n"))
}

#[test]
fn every_envelope_is_read_with_its_hardware_or_refused_with_the_reason() {
    let Some(corpus) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
        skip("HAKO_CORPUS is not set, NO REAL ENVELOPE IS READ");
        return;
    };
    let found = envelopes(&corpus);
    for path in &found {
        let expected = ENVELOPES.iter().find(|(name, _)| path.ends_with(name));
        let (_, expected) = expected.unwrap_or_else(|| panic!("{} is new", path.display()));
        let read = Envelope::parse(&std::fs::read(path).unwrap());
        let shown = path.display();
        match (expected, read) {
            (Refused(reason), Err(error)) => {
                assert!(error.to_string().contains(reason), "{shown}: {error}");
            }
            (Refused(_), Ok(_)) => panic!("{shown} is not refused"),
            (_, Err(error)) => panic!("{shown}: {error}"),
            (Machines(machines), Ok(envelope)) => {
                assert_eq!(hardware(&envelope).0, *machines, "{shown}");
            }
            (Told(machines, what), Ok(envelope)) => {
                let (read, told) = hardware(&envelope);
                assert_eq!(read, *machines, "{shown}");
                assert!(told.contains(what), "{shown}: {told}");
            }
        }
    }
    assert!(
        found.len() >= ENVELOPES.len(),
        "only {} envelopes",
        found.len()
    );
}

fn machine() -> Machine {
    let nic = |number, model: &str, network| Nic {
        number,
        model: Some(model.to_owned()),
        network,
        mac: None,
        mac_is_static: false,
        connected: true,
    };
    Machine {
        name: "web & <mail>".to_owned(),
        hardware_version: Some(13),
        guest_os: Some("debian12-64".to_owned()),
        firmware: Firmware::Efi,
        cpu: Cpu {
            count: 2,
            cores_per_socket: 2,
        },
        memory_bytes: 1536 << 20,
        controllers: vec![Controller {
            bus: Bus::Scsi,
            number: 0,
            model: Some("pvscsi".to_owned()),
        }],
        drives: vec![Drive {
            node: "scsi0:0".parse().unwrap(),
            medium: Medium::Disk(DiskMedium {
                file: "disk1".to_owned(),
                ..DiskMedium::default()
            }),
            connected: true,
        }],
        nics: vec![
            nic(0, "vmxnet3", Network::PortGroup("VM Network".to_owned())),
            nic(1, "e1000", Network::Nat),
        ],
        annotation: "a note\nof two lines".to_owned(),
        ..Machine::default()
    }
}

/// COT reads what is written, and writes it again changed; we read what it wrote.
#[test]
fn cot_reads_our_envelope_and_we_read_what_it_makes_of_it() {
    let cot = root().join(".venv/bin/cot");
    let Some(qemu_img) = QemuImg::any().filter(|_| cot.exists()) else {
        skip("no .venv with cot, or no qemu-img: tests/run makes them");
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let disk = path("disk1.vmdk");
    qemu_img.ok(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        &disk,
        "8M",
    ]);
    let disks = [WrittenDisk {
        id: "disk1".to_owned(),
        href: "disk1.vmdk".to_owned(),
        capacity_bytes: 8 << 20,
        size: Some(std::fs::metadata(&disk).unwrap().len()),
        populated_bytes: Some(0),
    }];
    let text = ovf::write(&machine(), &disks).unwrap();
    std::fs::write(path("ours.ovf"), text).unwrap();

    let info = run_program(&cot, &["info", "-v", &path("ours.ovf")]).ok();
    for part in [
        "disk1.vmdk",
        "8 MiB harddisk @ SCSI 0:0",
        "vmx-13",
        "VirtualSCSI",
        "VmxNet3 E1000",
        "1.5 GiB",
        "VM Network",
    ] {
        assert!(info.contains(part), "{part}: {info}");
    }

    std::fs::create_dir(path("cot")).unwrap();
    let theirs = path("cot/theirs.ovf");
    let change = [
        "-f",
        "edit-hardware",
        &path("ours.ovf"),
        "-o",
        &theirs,
        "--cpus",
        "4",
    ];
    run_program(&cot, &change).ok();
    let envelope = Envelope::parse(&std::fs::read(&theirs).unwrap()).unwrap();
    let (read, _) = envelope.systems[0]
        .machine(&envelope, &Choices::default())
        .unwrap();
    let expected = Machine {
        cpu: Cpu {
            count: 4,
            cores_per_socket: 2,
        },
        ..machine()
    };
    assert_eq!(read, expected);
    let manifest = std::fs::read(path("cot/theirs.mf")).unwrap();
    let manifest = ovf::Manifest::parse(&manifest).unwrap();
    assert_eq!(manifest.entries.len(), 2);
}
