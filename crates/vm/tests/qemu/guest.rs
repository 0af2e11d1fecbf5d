//! A guest: a real kernel with busybox, which says what it finds and does what it is told on its
//! serial port. Both are from what `tests/run` has unpacked for the NBD tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{World, peers};

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for slot in /sys/bus/pci/slots/*; do
    echo "GUEST slot $(basename $slot) $(cut -d: -f2- $slot/address)"
done
for device in /sys/bus/pci/devices/*; do
    id="$(cut -c3- $device/vendor):$(cut -c3- $device/device)"
    echo "GUEST pci $(basename $device | cut -d: -f2-) $id"
done
echo "GUEST uuid $(cat /sys/class/dmi/id/product_uuid)"
echo "GUEST serial $(cat /sys/class/dmi/id/product_serial)"
echo "GUEST cpus $(grep -c ^processor /proc/cpuinfo)"
for disk in /sys/block/nvme*; do echo "GUEST disk $(basename $disk) $(cat $disk/size)"; done
echo "GUEST ready"
while read -r word rest; do
    case $word in
    off) poweroff -f ;;
    net)
        for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
            failover net_failover virtio_net; do
            insmod /modules/$module.ko
        done
        ip link set eth0 up; ip addr add $rest/24 dev eth0
        ping -c 3 10.0.2.2 >/dev/null && echo "GUEST pinged"
        ;;
    cmdline) echo "GUEST cmdline $(cat /proc/cmdline)" ;;
    write)
        printf 'written by the guest' | dd of=/dev/$rest bs=1 seek=12345 conv=notrunc,fsync 2>/dev/null
        echo "GUEST wrote $rest"
        ;;
    read)
        echo 3 >/proc/sys/vm/drop_caches
        echo "GUEST read $rest $(dd if=/dev/$rest bs=1 skip=12345 count=20 2>/dev/null)"
        ;;
    *) echo "GUEST heard $word" ;;
    esac
done
"#;

/// The guest's files.
pub struct Guest {
    kernel: PathBuf,
    initrd: PathBuf,
    _folder: tempfile::TempDir,
}

impl Guest {
    /// Makes it. None, and the test says that it skips, if what it is made of is not there.
    pub fn new() -> Option<Self> {
        let peer = peers().join("nbd-guest");
        let kernel = std::fs::read_dir(peer.join("root/boot"))
            .ok()
            .and_then(|mut files| {
                files.find_map(|file| {
                    let path = file.ok()?.path();
                    path.file_name()?
                        .to_str()?
                        .starts_with("vmlinuz")
                        .then_some(path)
                })
            });
        let has_qemu = Command::new("qemu-system-x86_64")
            .arg("-version")
            .output()
            .is_ok();
        let Some(kernel) = kernel.filter(|_| has_qemu) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI has no QEMU, or no kernel for a guest"
            );
            eprintln!("skipped: no QEMU, or no kernel in .peers: tests/run installs both");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let initrd = folder.path().join("initrd");
        pack(&peer.join("initramfs"), folder.path(), &initrd);
        Some(Self {
            kernel,
            initrd,
            _folder: folder,
        })
    }

    /// Returns the kernel's file.
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// Makes a disk with it: extlinux's menu, the kernel, the initrd.
    pub fn install(&self, disk: &Path) {
        let root = tempfile::tempdir().unwrap();
        let boot = root.path().join("boot");
        std::fs::create_dir_all(boot.join("extlinux")).unwrap();
        std::fs::copy(&self.kernel, boot.join("vmlinuz")).unwrap();
        std::fs::copy(&self.initrd, boot.join("initrd")).unwrap();
        for folder in ["etc", "usr/lib", "sbin", "lib/modules"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("etc/os-release"), "ID=own\nNAME=own\n").unwrap();
        std::fs::write(
            root.path().join("etc/fstab"),
            "/dev/nvme0n1 / ext4 defaults 0 1\n",
        )
        .unwrap();
        let menu = "DEFAULT own\nLABEL own\n  LINUX /boot/vmlinuz\n  INITRD /boot/initrd\n  APPEND quiet own no_timer_check\n";
        std::fs::write(boot.join("extlinux/extlinux.conf"), menu).unwrap();
        std::fs::write(disk, b"").unwrap();
        let mut mkfs = Command::new("mkfs.ext4");
        let mkfs = mkfs
            .arg("-q")
            .arg("-d")
            .arg(root.path())
            .arg(disk)
            .arg("64M");
        assert!(mkfs.status().unwrap().success());
    }

    /// Has a machine start it.
    pub fn put(&self, world: &World, cmdline: &str) {
        for (file, name) in [(&self.kernel, "kernel"), (&self.initrd, "initrd")] {
            std::fs::copy(file, world.path(name)).unwrap();
        }
        world.say(&format!(
            "hako.kernel = \"kernel\"\nhako.initrd = \"initrd\"\nhako.cmdline = \"console=ttyS0 \
             quiet panic=-1 no_timer_check mitigations=off cryptomgr.notests {cmdline}\"\n"
        ));
    }
}

/// Packs the peer's initramfs with our init.
fn pack(from: &Path, work: &Path, to: &Path) {
    let script = format!(
        "set -e; mkdir {root}; cd {root}; cp -a {from}/bin {from}/lib {from}/lib64 {from}/modules .; \
         mkdir dev proc sys; cp {init} init; chmod 755 init; \
         find . | bin/busybox cpio -o -H newc >{to} 2>/dev/null",
        root = work.join("root").display(),
        from = from.canonicalize().unwrap().display(),
        init = work.join("init").display(),
        to = to.display(),
    );
    std::fs::write(work.join("init"), INIT).unwrap();
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(status.success());
}
