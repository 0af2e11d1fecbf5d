//! The seed for cloud-init, read by a reader of ISO 9660 that we did not write.

use std::process::Command;

use hako_tests::{hako, root, run_program, skip};

#[test]
fn pycdlib_reads_the_seed() {
    let python = root().join(".venv/bin/python3");
    let has_pycdlib = Command::new(&python)
        .args(["-c", "import pycdlib"])
        .status()
        .is_ok_and(|status| status.success());
    if !has_pycdlib {
        skip("no .venv with pycdlib: tests/run makes it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let seed = folder.path().join("seed");
    std::fs::create_dir(&seed).unwrap();
    let long = vec![b'x'; 100_000];
    for (name, content) in [
        ("user-data", &b"#cloud-config\nhostname: web\n"[..]),
        ("meta-data", b"instance-id: one\n"),
        ("network-config", b""),
        ("vendor-data", &long),
    ] {
        std::fs::write(seed.join(name), content).unwrap();
    }
    let status = Command::new(hako())
        .args(["vm", "create", "web", "--cloud-init", "seed"])
        .current_dir(folder.path())
        .env("HAKO_HOME", folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let script = root().join("tests/peers/read_iso.py");
    let image = folder.path().join("vms/web/web-seed.iso");
    let read = run_program(&python, &[script.as_os_str(), image.as_os_str()]).ok();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let mut lines = vec!["cidata".to_owned()];
    for kind in ["joliet", "iso"] {
        for (name, content) in [
            ("meta-data", &b"instance-id: one\n"[..]),
            ("network-config", b""),
            ("user-data", b"#cloud-config\nhostname: web\n"),
            ("vendor-data", &long),
        ] {
            let name = match kind {
                "iso" => format!("{}.;1", name.to_uppercase().replace('-', "_")),
                _ => name.to_owned(),
            };
            lines.push(format!("{kind} {name} {}", hex(content)));
        }
    }
    let read: Vec<&str> = read.lines().map(str::trim_end).collect();
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    assert_eq!(read, lines);
}
