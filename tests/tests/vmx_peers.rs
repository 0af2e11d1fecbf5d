//! A VMX says the same to dissect.hypervisor as to us: those that we write, and real ones.

use std::path::Path;

use hako_formats::machine::{DiskMedium, Drive, Machine, Medium};
use hako_formats::vmx::Vmx;
use hako_tests::peers::dissect_vmx;

fn drive(node: &str, medium: Medium) -> Drive {
    Drive {
        node: node.parse().unwrap(),
        medium,
        connected: true,
    }
}

fn disk(node: &str, file: &str) -> Drive {
    let file = file.to_owned();
    let disk = DiskMedium {
        file,
        ..DiskMedium::default()
    };
    drive(node, Medium::Disk(disk))
}

/// Compares what a VMX says to both, where no value has escapes: dissect does not know them.
fn both_read_the_same(path: &Path, vmx: &Vmx) {
    let Some(read) = dissect_vmx(path) else {
        return;
    };
    let machine = vmx.machine();
    let drives = machine.drives.iter();
    let mut disks: Vec<String> = drives
        .filter_map(|drive| match &drive.medium {
            Medium::Disk(disk) => Some(disk.file.clone()),
            _ => None,
        })
        .collect();
    disks.sort();
    assert_eq!(
        read["disks"],
        serde_json::json!(disks),
        "{}",
        path.display()
    );
    let keys = read["keys"].as_object().unwrap();
    let mut n_keys = 0;
    for (key, value) in vmx.dictionary().entries() {
        let other = keys[&key.to_ascii_lowercase()].as_str().unwrap();
        assert_eq!(other, value.trim(), "{key}");
        n_keys += 1;
    }
    assert_eq!(n_keys, keys.len());
}

#[test]
fn dissect_reads_the_vmx_of_a_new_machine_and_of_a_changed_one() {
    let machine = Machine {
        name: "Gerät 1".to_owned(),
        guest_os: Some("rhel9-64".to_owned()),
        memory_bytes: 2 << 30,
        drives: vec![
            disk("ide0:0", "i.vmdk"),
            disk("sata0:3", "a.vmdk"),
            drive(
                "sata0:4",
                Medium::CdImage {
                    file: "cd.iso".to_owned(),
                },
            ),
            disk("scsi0:0", "s.vmdk"),
            disk("nvme0:0", "n.vmdk"),
        ],
        ..Machine::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("machine.vmx");
    let mut vmx = Vmx::new(&machine).unwrap();
    std::fs::write(&path, vmx.to_bytes()).unwrap();
    both_read_the_same(&path, &vmx);
    vmx.remove_drive("ide0:0".parse().unwrap()).unwrap();
    vmx.put_drive(&disk("scsi1:0", "new.vmdk"), Some("pvscsi"))
        .unwrap();
    vmx.set_memory(4 << 30).unwrap();
    std::fs::write(&path, vmx.to_bytes()).unwrap();
    both_read_the_same(&path, &vmx);
}

#[test]
fn dissect_reads_real_files_as_we_do() {
    let Some(corpus) = std::env::var_os("HAKO_CORPUS") else {
        eprintln!("skipped: HAKO_CORPUS is not set, NO REAL VMX IS TESTED");
        return;
    };
    let folder = Path::new(&corpus).join("virt-v2v");
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let of_vmx = paths.filter(|path| path.extension().is_some_and(|end| end == "vmx"));
    let mut n_files = 0;
    for path in of_vmx {
        let vmx = Vmx::parse(&std::fs::read(&path).unwrap()).unwrap();
        both_read_the_same(&path, &vmx);
        n_files += 1;
    }
    assert!(n_files >= 4);
}
