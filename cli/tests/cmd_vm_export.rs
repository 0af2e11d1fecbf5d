//! `hako vm export` and `hako vm import`: options, exit codes, JSON, pipes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::Stdio;

use common::{Run, World, noise};
use serde_json::Value;

/// A home with the machine `web`, which has a disk of noise.
struct Vms(World);

impl Vms {
    fn new() -> Self {
        let world = World::new();
        let (a, b) = (noise(1, 700_000), noise(2, 65_536));
        world.raw("web.raw", 6 << 20, &[(0, &a), (4 << 20, &b)]);
        let vms = Self(world);
        vms.done(&["vm", "create", "web", "--from-disk", "web.raw"]);
        vms
    }

    fn command(&self) -> assert_cmd::Command {
        let mut command = self.0.command();
        command.env("SOURCE_DATE_EPOCH", "1795339815");
        command
    }

    fn run(&self, words: &[&str]) -> Run {
        self.command().args(words).output().unwrap().into()
    }

    /// Runs the binary, which must succeed; what it warns of is let pass.
    #[track_caller]
    fn done(&self, words: &[&str]) -> String {
        let run = self.run(words);
        assert_eq!(run.code, 0, "{words:?}: {}", run.stderr);
        run.stdout
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[words, &["--json"]].concat())).unwrap()
    }

    #[track_caller]
    fn fails(&self, words: &[&str], code: i32, text: &str) {
        let run = self.run(words);
        assert_eq!(run.code, code, "{words:?}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{words:?}: {}", run.stderr);
    }

    /// Compares the disk of a machine with the one that all of them come from.
    #[track_caller]
    fn assert_same(&self, disk: &str) {
        let run = self.0.disk(&format!("compare web.raw {disk}"));
        assert_eq!(run.code, 0, "{disk}: {}{}", run.stdout, run.stderr);
    }
}

#[test]
fn an_exported_ova_imports_as_another_machine() {
    let vms = Vms::new();
    let exported = vms.json(&["vm", "export", "--verify", "web", "web.ova"]);
    assert_eq!(exported["target"], "web.ova");
    assert_eq!(exported["verified"], true);
    assert_eq!(exported["disks"][0]["file"], "web-disk1.vmdk");
    assert_eq!(exported["disks"][0]["virtual_size"], 6 << 20);
    let imported = vms.json(&["vm", "import", "--name", "copy", "web.ova"]);
    assert_eq!(imported["name"], "copy");
    assert_eq!(imported["manifest_verified"], true);
    assert_eq!(imported["disks"][0]["file"], "copy.vmdk");
    vms.assert_same("home/vms/copy/copy.vmdk");
    let list = vms.json(&["vm", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    vms.fails(&["vm", "export", "web", "web.ova"], 1, "exists already");
    vms.done(&["vm", "export", "--force", "web", "web.ova"]);
    vms.fails(&["vm", "export", "nobody", "x.ova"], 6, "nobody");
    vms.fails(&["vm", "import", "missing.ova"], 1, "missing.ova");
}

#[test]
fn standard_streams_carry_an_ova() {
    let vms = Vms::new();
    let bytes = vms
        .command()
        .args(["vm", "export", "web", "-"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes.stderr), "");
    let run: Run = vms
        .command()
        .args(["vm", "import", "--name", "piped", "-"])
        .write_stdin(bytes.stdout.clone())
        .output()
        .unwrap()
        .into();
    assert_eq!(run.code, 0, "{}", run.stderr);
    vms.assert_same("home/vms/piped/piped.vmdk");
    vms.0.write("file.ova", &bytes.stdout);
    let child = std::process::Command::new(common::binary())
        .args(["vm", "import", "--name", "file", "-"])
        .env("HAKO_HOME", vms.0.path("home"))
        .stdin(Stdio::from(
            std::fs::File::open(vms.0.path("file.ova")).unwrap(),
        ))
        .status()
        .unwrap();
    assert!(child.success());
    vms.assert_same("home/vms/file/file.vmdk");
    vms.fails(
        &["vm", "export", "--verify", "web", "-"],
        2,
        "cannot be verified",
    );
}

#[test]
fn folders_are_made_for_other_products() {
    let vms = Vms::new();
    vms.done(&[
        "vm",
        "export",
        "web",
        "ovf",
        "--manifest",
        "sha1",
        "--level",
        "1",
    ]);
    vms.done(&["vm", "export", "web", "ws", "--for", "workstation"]);
    vms.done(&["vm", "export", "web", "esxi", "--for", "esxi"]);
    vms.done(&["vm", "export", "web", "kvm", "--for", "libvirt"]);
    vms.assert_same("ovf/web-disk1.vmdk");
    vms.assert_same("ws/web.vmdk");
    vms.assert_same("esxi/web.vmdk");
    vms.assert_same("kvm/web.qcow2");
    let info = vms.0.json("info esxi/web.vmdk");
    assert_eq!(info["subformat"], "vmfs");
    assert!(
        String::from_utf8(vms.0.read("ovf/web.mf"))
            .unwrap()
            .starts_with("SHA1(")
    );
    for folder in ["ovf", "ws", "esxi"] {
        let name = format!("from-{folder}");
        vms.done(&["vm", "import", "--name", &name, folder]);
        vms.assert_same(&format!("home/vms/{name}/{name}.vmdk"));
    }
    vms.fails(
        &["vm", "export", "web", "x.ova", "--for", "esxi"],
        2,
        "makes a folder",
    );
}

#[test]
fn what_lies_beside_a_machine_in_its_drives_goes_along_into_folders() {
    let vms = Vms::new();
    vms.0.write("user-data", b"#cloud-config\n");
    vms.done(&["vm", "create", "own", "--cloud-init", "user-data"]);
    let seed = vms.0.read("home/vms/own/own-seed.iso");
    for product in ["workstation", "esxi", "libvirt"] {
        vms.done(&["vm", "export", "own", product, "--for", product]);
        assert!(vms.0.read(&format!("{product}/own-seed.iso")) == seed);
    }
    let xml = String::from_utf8(vms.0.read("libvirt/own.xml")).unwrap();
    let absolute = vms.0.path("libvirt/own-seed.iso");
    assert!(xml.contains(absolute.to_str().unwrap()), "{xml}");
}

#[test]
fn what_is_in_the_way_of_an_import_is_told_with_the_way_around() {
    let vms = Vms::new();
    vms.done(&["vm", "export", "web", "web.ova"]);
    vms.fails(&["vm", "import", "web.ova"], 1, "--name NAME");
    // What is in it is not looked at.
    let packed = [&b"\xfd7zXZ\0"[..], &[0; 600]].concat();
    vms.0.write("web.ova.xz", &packed);
    vms.fails(&["vm", "import", "web.ova.xz"], 1, "unxz");
    let damaged = [&b"\x1f\x8b\x08"[..], &[0; 600]].concat();
    vms.0.write("web.ova.gz", &damaged);
    vms.fails(&["vm", "import", "web.ova.gz"], 4, "web.ova.gz");
}

#[test]
fn a_damaged_ova_is_refused_with_4_and_leaves_nothing() {
    let vms = Vms::new();
    vms.done(&["vm", "export", "web", "web.ova"]);
    let mut bytes = vms.0.read("web.ova");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    vms.0.write("bad.ova", &bytes);
    vms.fails(&["vm", "import", "--name", "bad", "bad.ova"], 4, "manifest");
    assert!(!vms.0.path("home/vms/bad").exists());
    assert!(!vms.0.path("home/vms/.bad.hako-part").exists());
    vms.fails(&["vm", "info", "bad"], 6, "bad");
}

#[test]
fn a_list_shows_what_there_is_and_imports_nothing() {
    let vms = Vms::new();
    vms.done(&["vm", "export", "web", "web.ova"]);
    let listed = vms.json(&["vm", "import", "--list", "web.ova"]);
    assert_eq!(listed["kind"], "package");
    assert_eq!(listed["systems"][0]["name"], "web");
    assert_eq!(listed["disks"][0]["virtual_size"], 6 << 20);
    assert_eq!(listed["manifest"], true);
    let text = vms.done(&["vm", "import", "--list", "web.ova"]);
    assert!(
        text.contains("machine: ") && text.contains("manifest: yes"),
        "{text}"
    );
    for source in ["home/vms/web/web.vmx", "web.raw"] {
        let listed = vms.json(&["vm", "import", "--list", source]);
        assert_eq!(listed["systems"].as_array().unwrap().len(), 1, "{source}");
    }
    assert_eq!(vms.json(&["vm", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn options_decide_what_an_import_makes() {
    let vms = Vms::new();
    vms.done(&["vm", "export", "web", "web.ova"]);
    vms.done(&[
        "vm", "import", "web.ova", "--to", "here", "--name", "q", "--format", "qcow2", "--verify",
    ]);
    vms.assert_same("here/q.qcow2");
    let info = vms.json(&["vm", "info", "here/q.vmx"]);
    assert_eq!(info["name"], "q");
    vms.done(&[
        "vm",
        "import",
        "web.ova",
        "--name",
        "flat",
        "--subformat",
        "monolithicFlat",
        "--threads",
        "1",
        "--rate",
        "1G",
    ]);
    vms.assert_same("home/vms/flat/flat.vmdk");
    vms.fails(
        &["vm", "import", "web.ova", "--name", "x", "--system", "no"],
        2,
        "--system",
    );
    vms.fails(
        &[
            "vm",
            "import",
            "web.ova",
            "--name",
            "x",
            "--network",
            "no=nat",
        ],
        2,
        "network",
    );
    vms.fails(
        &["vm", "import", "web.ova", "--name", "x", "--network", "no"],
        2,
        "NAME=VALUE",
    );
    vms.fails(&["vm", "import", "web.ova", "--name", "a/b"], 2, "--name");
    vms.fails(
        &[
            "vm",
            "import",
            "web.ova",
            "--name",
            "x",
            "--deployment",
            "no",
        ],
        2,
        "deployment",
    );
    vms.done(&[
        "vm",
        "import",
        "web.raw",
        "--name",
        "bare",
        "--guest-os",
        "windows2019srv-64",
    ]);
    let info = vms.json(&["vm", "info", "bare"]);
    assert_eq!(info["guest_os"], "windows2019srv-64");
}
