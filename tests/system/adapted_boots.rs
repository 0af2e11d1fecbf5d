//! `hako p2v adapt` of disks that hako itself does not write: their guests do it, and boot on other
//! hardware then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hako_tests::bed::Bed;
use hako_tests::disk::{copy_sparse, sha256};
use hako_tests::guests::{Console, Site, disk};
use hako_tests::{all, root, run_program, skip};

/// An initrd's init that asks for a passphrase, mounts the root and calls what is in its list, as that of
/// initramfs-tools does.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin rootmnt=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /run; mount -t tmpfs run /run
printf 'Please unlock disk data: ' >/dev/console
read -r key </dev/console
[ "$key" = open ] || poweroff -f
mount -o ro /dev/nvme0n1 /root || reboot -f
[ -d /scripts/init-bottom ] && . /scripts/init-bottom/ORDER
poweroff -f
"#;

/// Makes `disk.raw`: busybox on ext4 with a journal that is to be replayed, a kernel, an initrd, and a
/// menu of extlinux. A kernel's driver of NVMe is all that they know.
const MAKE: &str = r#"set -eu
version=$(basename "$peer"/root/boot/vmlinuz-* | cut -d- -f2-)
mkdir -p tree/bin tree/dev tree/proc tree/sys tree/run tree/tmp tree/etc tree/usr/lib tree/sbin \
    tree/var/lib tree/boot/extlinux "tree/lib/modules/$version" initrd/bin initrd/scripts initrd/conf initrd/dev \
    initrd/proc initrd/sys initrd/root
for tree in tree initrd; do cp "$peer/initramfs/bin/busybox" $tree/bin/; done
cp -a "$peer"/initramfs/lib "$peer"/initramfs/lib64 initrd/
cp -a "$peer"/initramfs/lib64 tree/
cp -a "$peer"/initramfs/lib/. tree/lib/
for name in $(tree/bin/busybox --list); do [ $name = busybox ] || ln -s busybox tree/bin/$name; done
mv init initrd/init
chmod 755 initrd/init
touch initrd/scripts/functions initrd/conf/initramfs.conf
(cd initrd && find . | ./bin/busybox cpio -o -H newc >../tree/boot/initrd.img-$version 2>/dev/null)
cp "$peer"/root/boot/vmlinuz-* tree/boot/vmlinuz-$version
echo kernel/drivers/nvme/host/nvme.ko >tree/lib/modules/$version/modules.builtin
: >tree/lib/modules/$version/modules.dep
echo ID=own >tree/etc/os-release
echo '/dev/nvme0n1 / ext4 defaults 0 1' >tree/etc/fstab
cat >tree/boot/extlinux/extlinux.conf <<MENU
DEFAULT own
LABEL own
  LINUX /boot/vmlinuz-$version
  INITRD /boot/initrd.img-$version
  APPEND root=/dev/nvme0n1 quiet mitigations=off cryptomgr.notests no_timer_check
MENU
truncate -s 96M disk.raw
mkfs.ext4 -q -d tree disk.raw
debugfs -w -R 'feature needs_recovery' disk.raw >/dev/null 2>&1
"#;

/// Makes the small guest in the folder of a site; none, and the test says that it skips, without what
/// it is made of.
fn small_guest(site: &Site) -> Option<PathBuf> {
    let peer = root().join(".peers/nbd-guest");
    if !peer.join("initramfs.cpio").exists() {
        skip("no kernel in .peers: tests/run installs it");
        return None;
    }
    std::fs::write(site.path("init"), INIT).unwrap();
    let make = format!(
        "cd '{}'; peer='{}'\n{MAKE}",
        site.path("").display(),
        peer.display()
    );
    run_program("sh", &["-c", &make]).ok();
    Some(site.path("disk.raw"))
}

fn file(disk: &Path, path: &str) -> String {
    run_program(
        "debugfs",
        &["-R", &format!("cat {path}"), disk.to_str().unwrap()],
    )
    .ok()
}

#[test]
fn a_journal_that_was_not_replayed_is_left_to_the_guest_and_a_kill_leaves_the_disk_as_it_was() {
    let Some(site) = Site::new() else { return };
    let Some(disk) = small_guest(&site) else {
        return;
    };
    let before = sha256(&disk);
    let words = [
        "p2v",
        "adapt",
        "disk.raw",
        "--target",
        "kvm",
        "--serial-console",
        "--with",
        "data.raw",
    ];
    let (secret, how) = ("secret,id=key,data=open", "key-secret=key,iter-time=10");
    let data = site.path("data.raw");
    let create = ["create", "-q", "-f", "luks", "--object", secret, "-o", how];
    run_program(
        "qemu-img",
        &[&create[..], &[data.to_str().unwrap(), "4M"]].concat(),
    )
    .ok();

    let dry = site
        .hako(&[&words[..], &["--dry-run", "--json"]].concat())
        .json();
    assert_eq!((&dry["done"], &dry["by"]), (&false.into(), &"guest".into()));
    let why = dry["by_why"].as_str().unwrap();
    assert!(why.contains("not unmounted"), "{why}");

    std::fs::write(site.path("key"), "open\n").unwrap();
    let with_key = [&words[..], &["--key", "key"]].concat();
    let mut killed = site.command(&with_key);
    let mut killed = killed
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let kernel = || {
        let folders = std::fs::read_dir(site.path("run"))
            .into_iter()
            .flatten()
            .flatten();
        folders
            .map(|folder| folder.path().join("script.sock"))
            .any(|path| path.exists())
    };
    while !kernel() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(sha256(&disk), before);

    let locked = site.hako(&words).expect_code(2);
    assert!(
        locked.stderr.contains("asks for the passphrase"),
        "{}",
        locked.stderr
    );
    assert!(locked.stderr.contains("--key FILE"), "{}", locked.stderr);
    assert_eq!(sha256(&disk), before);
    let done = site.hako(&with_key).expect_code(0);
    assert!(
        done.stderr.contains("the guest's own kernel does it"),
        "{}",
        done.stderr
    );
    run_program("e2fsck", &["-fn", disk.to_str().unwrap()]).ok();
    let fstab = file(&disk, "/etc/fstab");
    assert!(
        fstab.starts_with("UUID=") && fstab.ends_with(" / ext4 defaults 0 1\n"),
        "{fstab}"
    );
    let menu = file(&disk, "/boot/extlinux/extlinux.conf");
    assert!(menu.contains("APPEND root=UUID="), "{menu}");
    assert!(menu.contains("console=ttyS0,115200n8\n"), "{menu}");
    assert_eq!(
        file(&disk, "/var/lib/hako/adapt/kept-0"),
        "/dev/nvme0n1 / ext4 defaults 0 1\n"
    );
    let again = site.hako(&words).expect_code(0);
    assert_eq!(again.stdout, "nothing is to be changed\n");
    let left = std::fs::read_dir(site.path("run")).unwrap().count();
    assert_eq!(left, 0, "folders of runs are left");

    // The journal is replayed, and hako puts back what the guest has changed.
    site.hako(&["p2v", "adapt", "disk.raw", "--undo"]).ok();
    run_program("e2fsck", &["-fn", disk.to_str().unwrap()]).ok();
    assert_eq!(
        file(&disk, "/etc/fstab"),
        "/dev/nvme0n1 / ext4 defaults 0 1\n"
    );
}

/// Checks both file systems of a disk as Fedora's, and returns all that is in them: a line for each
/// file, folder and link, by their paths.
fn content(disk: &Path) -> Option<BTreeMap<String, String>> {
    const SCRIPT: &str = "
        vgchange -q -ay >/dev/null
        boot=$(readlink /dev/disk0)2
        for fs in $boot /dev/vg0/root; do xfs_repair -n $fs >/dev/null 2>&1; done
        mkdir mnt
        mount -o ro /dev/vg0/root mnt
        mount -o ro $boot mnt/boot
        cd mnt
        find . -type f -exec sha256sum {} + | sed 's/  / /'
        find . ! -type f -printf '%y:%m:%l %p\\n'
        cd ..
        umount -R mnt
        vgchange -q -an >/dev/null";
    let said = Bed::new(SCRIPT)?.disk(disk).seconds(1800).run().ok();
    let lines = said.lines().filter_map(|line| line.split_once(' '));
    Some(
        lines
            .map(|(what, path)| (path.trim_end().to_owned(), what.to_owned()))
            .collect(),
    )
}

#[test]
fn a_disk_as_fedoras_repairs_itself_and_boots_on_vmware_hardware() {
    let (Some(disk), Some(site)) = (disk("fedora-like"), Site::new()) else {
        return;
    };
    let vmdk = site.path("copy.vmdk");
    hako_tests::convert(&disk, &vmdk, &["--to", "vmdk"]);
    let dry = [
        "p2v",
        "adapt",
        "copy.vmdk",
        "--target",
        "vmware",
        "--dry-run",
    ];
    let dry = site.hako(&dry).ok();
    assert!(dry.contains("the module vmw_pvscsi, for pvscsi"), "{dry}");
    assert!(dry.contains("hako does not write xfs"), "{dry}");
    site.create(&vmdk, &["--nic", "nat,model=vmxnet3"]);
    site.hako(&["p2v", "adapt", "web", "--target", "vmware"])
        .ok();
    // Nothing has to be added any more: the initrd on the disk has the driver.
    let started = site.start(&["--boot", "direct"]);
    assert!(!started.stderr.contains("appended"), "{}", started.stderr);
    site.wait_for_line("guest login:");
    let mut console = Console::of(&site);
    console.log_in();
    let of_disk = console.ask("readlink /sys/block/sda/device/../../../driver | sed 's|.*/||'");
    let of_nic = console.ask("readlink /sys/class/net/e*/device/driver | sed 's|.*/||'");
    assert_eq!(
        (of_disk.as_str(), of_nic.as_str()),
        ("vmw_pvscsi", "vmxnet3")
    );
    assert_eq!(console.ask("findmnt -n -r -o FSTYPE /"), "xfs");
}

#[test]
fn what_a_disk_as_fedoras_was_is_put_back_by_itself() {
    if !all() {
        return;
    }
    let (Some(disk), Some(site)) = (disk("fedora-like"), Site::new()) else {
        return;
    };
    let copy = site.path("copy.raw");
    copy_sparse(&disk, &copy);
    let Some(before) = content(&disk) else { return };
    assert!(before.len() > 5000, "{}", before.len());
    let adapt = ["p2v", "adapt", "copy.raw", "--target", "vmware", "--json"];
    let plan = site.hako(&adapt).json();
    assert_eq!(
        (&plan["done"], &plan["by"]),
        (&true.into(), &"guest".into())
    );
    let planned = plan["changes"].as_array().unwrap().iter();
    let planned: Vec<String> = planned
        .map(|one| format!(".{}", one["path"].as_str().unwrap()))
        .collect();
    let now = content(&copy).unwrap();
    let differs = |path: &&String| before.get(*path) != now.get(*path);
    let paths = before
        .keys()
        .chain(now.keys().filter(|path| !before.contains_key(*path)));
    for path in paths.filter(differs) {
        let is_meant = planned.contains(path) || path.starts_with("./var/lib/hako");
        assert!(
            is_meant,
            "{path}: {:?} is now {:?}",
            before.get(path),
            now.get(path)
        );
    }
    assert!(planned.iter().all(|path| differs(&path)), "{planned:?}");
    site.hako(&["p2v", "adapt", "copy.raw", "--undo"]).ok();
    let now = content(&copy).unwrap();
    assert!(now == before, "something is not what it was");
}
