//! `hako vm info --guest`: what is on the disks of a machine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::vms::Vms;

const VERSION: &str = "6.1.0-9-amd64";
const CONFIG: &str = "\
set default=0
if [ x\"${feature_menuentry_id}\" = xy ]; then menuentry_id_option=--id; fi
menuentry 'Debian GNU/Linux' $menuentry_id_option 'simple' {
	search --no-floppy --fs-uuid --set=root 11111111-2222-3333-4444-555555555555
	linux /boot/vmlinuz-6.1.0-9-amd64 root=/dev/sda1 ro quiet
	initrd /boot/initrd.img-6.1.0-9-amd64
}
menuentry 'Windows' { chainloader +1 }
";

/// Makes a tree as Debian's, with an initrd by the program cpio.
fn tree(root: &Path) {
    let write = |path: &str, content: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write(
        "etc/os-release",
        "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian \x1b[31m12\"\n",
    );
    write("etc/hostname", "web\n");
    write(
        "etc/fstab",
        "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\nLABEL=gone /gone ext4\n",
    );
    write("var/lib/dpkg/status", "");
    write("boot/grub/grub.cfg", CONFIG);
    write(&format!("boot/vmlinuz-{VERSION}"), "kernel");
    let modules = format!("usr/lib/modules/{VERSION}");
    let dep = "kernel/vmw_pvscsi.ko: kernel/scsi_mod.ko\nkernel/scsi_mod.ko:\nkernel/sd_mod.ko: kernel/scsi_mod.ko\n";
    write(&format!("{modules}/modules.dep"), dep);
    write(
        &format!("{modules}/modules.builtin"),
        "kernel/drivers/net/vmxnet3.ko\n",
    );
    std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
    let inside = root.join("initrd");
    let module = inside.join(format!("usr/lib/modules/{VERSION}/kernel/sd_mod.ko"));
    std::fs::create_dir_all(module.parent().unwrap()).unwrap();
    std::fs::write(module, "sd_mod").unwrap();
    std::os::unix::fs::symlink("usr/lib", inside.join("lib")).unwrap();
    let shell = format!(
        "cd '{}' && find . | cpio -o -H newc --quiet | gzip -n",
        inside.display()
    );
    let packed = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(packed.status.success());
    std::fs::write(
        root.join(format!("boot/initrd.img-{VERSION}")),
        packed.stdout,
    )
    .unwrap();
    std::fs::remove_dir_all(inside).unwrap();
}

/// A machine with such a disk: a GPT whose one partition holds ext4.
fn machine() -> Vms {
    let vms = Vms::new();
    let (folder, root) = (vms.path("web"), vms.path("root"));
    std::fs::create_dir_all(&folder).unwrap();
    tree(&root);
    let disk = folder.join("web.img");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let mut sfdisk = Command::new("sfdisk")
        .args(["-q", disk.to_str().unwrap()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let table = b"label: gpt\nstart=2048, size=122880\n";
    sfdisk.stdin.take().unwrap().write_all(table).unwrap();
    assert!(sfdisk.wait().unwrap().success());
    let made = Command::new("mke2fs")
        .args([
            "-q",
            "-t",
            "ext4",
            "-U",
            "11111111-2222-3333-4444-555555555555",
        ])
        .args(["-E", "offset=1048576", "-d", root.to_str().unwrap()])
        .args([disk.to_str().unwrap(), "60M"])
        .status()
        .unwrap();
    assert!(made.success());
    let text = "config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web\"\n\
        memsize = \"512\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n\
        scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"web.img\"\nhako.scsi0:0.format = \"raw\"\n\
        ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n";
    std::fs::write(folder.join("web.vmx"), text).unwrap();
    vms
}

#[test]
fn the_system_its_kernels_and_what_boots_are_shown() {
    let vms = machine();
    let vmx = vms.path("web/web.vmx");
    let vmx = vmx.to_str().unwrap();
    let text = vms.done(&["info", vmx, "--guest"]);
    for line in [
        "system:          Debian \\u{1b}[31m12",
        "host name:       web",
        "packages:        dpkg",
        "kernel:          6.1.0-9-amd64, /boot/vmlinuz-6.1.0-9-amd64, /boot/initrd.img-6.1.0-9-amd64",
        "boot entry:      0 (default) Debian GNU/Linux: p1:/boot/vmlinuz-6.1.0-9-amd64 root=/dev/sda1 ro quiet",
        "boot entry:      1 Windows: it starts something else: chainloader +1",
        "boots:           default=0",
        "driver:          pvscsi: modules",
        "driver:          vmxnet3: builtin",
        "driver:          sd_mod: initrd",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    let json = vms.json(&["info", vmx, "--guest"]);
    let guest = &json["guest"];
    assert_eq!(guest["os"]["id"], "debian");
    assert_eq!(guest["os"]["hostname"], "web");
    assert_eq!(guest["default_boot_entry"], 0);
    assert_eq!(
        guest["boot_entries"][0]["kernel"],
        "p1:/boot/vmlinuz-6.1.0-9-amd64"
    );
    assert_eq!(guest["kernels"][0]["has_modules"], true);
    assert_eq!(guest["installations"][0]["volume"], "p1");
    let volume = guest["volumes"].as_array().unwrap().iter();
    let mut volume = volume.filter(|volume| volume["name"] == "p1");
    assert_eq!(volume.next().unwrap()["mounts"][0], "/");
    assert_eq!(guest["drivers"]["kernel"], VERSION);
    assert_eq!(guest["drivers"]["hardware"][0]["found"], "modules");
    let remarks = guest["remarks"].to_string();
    assert!(remarks.contains("LABEL=gone"), "{remarks}");
    assert!(vms.json(&["info", vmx]).get("guest").is_none());
}

#[test]
fn a_machine_in_use_or_suspended_is_refused() {
    let vms = machine();
    let vmx = vms.path("web/web.vmx");
    let folder = std::fs::File::open(vms.path("web")).unwrap();
    folder.lock().unwrap();
    let arguments = ["info", vmx.to_str().unwrap(), "--guest"];
    vms.fails(&arguments, 5, "another hako");
    folder.unlock().unwrap();
    let mut text = std::fs::read_to_string(&vmx).unwrap();
    text.push_str("checkpoint.vmState = \"web.vmss\"\n");
    std::fs::write(&vmx, text).unwrap();
    std::fs::write(vms.path("web/web.vmss"), "").unwrap();
    vms.fails(&arguments, 5, "suspended");
}

#[test]
fn a_disk_without_a_system_says_so() {
    let vms = machine();
    let disk = vms.path("web/web.img");
    std::fs::File::create(disk)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let vmx = vms.path("web/web.vmx");
    let text = vms.done(&["info", vmx.to_str().unwrap(), "--guest"]);
    assert!(
        text.contains("system:          none that is known"),
        "{text}"
    );
}
