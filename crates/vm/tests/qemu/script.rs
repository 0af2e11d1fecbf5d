//! Scripts in a guest's own root.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hako_block::{Access, BlockImage, Cancel, ErrorKind, Result};
use hako_formats::vmx::Vmx;
use hako_formats::{OpenOptions, open_chain};
use hako_guest::boot::Menu;
use hako_guest::direct::{DirectBoot, Request};
use hako_guest::drivers::Hardware;
use hako_guest::root::{Root, installations};
use hako_guest::{Disk, Volume, Volumes};
use hako_vm::run::{GuestScript, Launcher, Qemu, RunFolder, RunHome, ScriptSite, Verdict};

use crate::guest::Guest;
use crate::world::peers;

/// An initrd's init that does what that of initramfs-tools does: it mounts the root, and calls what
/// is in its list.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin rootmnt=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /run; mount -t tmpfs run /run
case $(cat /proc/cmdline) in
*ask*)
    printf 'Please unlock disk root: ' >/dev/console
    read -r key </dev/console
    [ "$key" = open ] || poweroff -f
    ;;
esac
mount -o ro /dev/nvme0n1 /root || reboot -f
[ -d /scripts/init-bottom ] && . /scripts/init-bottom/ORDER
echo 'nothing was called'
poweroff -f
"#;

/// An initrd's init that has cryptsetup ask for what opens the root.
const INIT_OF_LUKS: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin rootmnt=/root DM_DISABLE_UDEV=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /run/cryptsetup
while read -r module; do insmod "$module"; done </modules/order
until [ -e /dev/nvme0n1 ]; do sleep 0.1; done
/sbin/cryptsetup open /dev/nvme0n1 root </dev/console >/dev/console 2>&1 || poweroff -f
mount -t ext4 -o ro /dev/mapper/root /root || poweroff -f
. /scripts/init-bottom/ORDER
"#;

/// Makes an encrypted root in the test bed's outer machine, with that machine's tools and modules, and
/// an initrd that opens it.
const MAKE_LUKS: &str = r#"set -euo pipefail
disk=$(readlink /dev/disk0)
printf open | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$disk" -
printf open | cryptsetup open "$disk" root -
mkfs.ext4 -q /dev/mapper/root
mount /dev/mapper/root /mnt
mkdir -p /mnt/{bin,dev,proc,sys,run,etc} initrd/{bin,sbin,lib64,modules,scripts,conf,dev,proc,sys,root}
for tree in /mnt initrd; do cp /bin/busybox $tree/bin/; done
for name in sh mount sync cat; do ln -s busybox /mnt/bin/$name; done
echo here >/mnt/etc/name
umount /mnt
cryptsetup close root
cd initrd
cp /sbin/cryptsetup sbin/
for file in $(/lib64/ld-linux-x86-64.so.2 --list /sbin/cryptsetup | grep -o '/[^ ]*'); do
    mkdir -p ".${file%/*}"
    cp -L "$file" ".$file"
done
modprobe -a --show-depends nvme ext4 dm_crypt aes_generic xts sha256_generic algif_skcipher |
    sed -n 's/^insmod \([^ ]*\).*/\1/p' >order
while read -r module; do
    [ ! -e "modules/${module##*/}" ] || continue
    cp "$module" modules/
    echo "/modules/${module##*/}" >>modules/order
done <order
rm order
cp ../init init
chmod 755 init
touch scripts/functions conf/initramfs.conf
find . | ./bin/busybox cpio -o -H newc >../initrd.cpio
"#;

/// Disks and a kernel to run scripts with.
struct Bench {
    folder: tempfile::TempDir,
    disk: PathBuf,
    vmx: Vmx,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    cmdline: String,
    cancel: Cancel,
}

impl Bench {
    /// A root of nothing but busybox, on ext4, and an initrd that is like one of initramfs-tools.
    fn small() -> Option<Self> {
        let guest = Guest::new()?;
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "set -e; cd {folder}; mkdir -p root/bin root/dev root/proc root/sys root/run root/etc initrd/scripts initrd/conf \
             initrd/dev initrd/proc initrd/sys initrd/root; \
             for tree in root initrd; do cp -a {peer}/bin {peer}/lib {peer}/lib64 $tree/; done; \
             ln -sf busybox root/bin/sh; for name in mount sync cat touch; do ln -sf busybox root/bin/$name; done; \
             echo here >root/etc/name; truncate -s 32M disk.raw; \
             mkfs.ext4 -q -d root disk.raw; cp init initrd/init; chmod 755 initrd/init; \
             touch initrd/scripts/functions initrd/conf/initramfs.conf; cd initrd; \
             find . | ./bin/busybox cpio -o -H newc >../initrd.cpio 2>/dev/null",
            folder = folder.path().display(),
            peer = peers()
                .join("nbd-guest/initramfs")
                .canonicalize()
                .unwrap()
                .display(),
        );
        std::fs::write(folder.path().join("init"), INIT).unwrap();
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success()
        );
        let vmx = "displayName = \"x\"\nmemsize = \"256\"\nnvme0.present = \"TRUE\"\n\
                   nvme0:0.present = \"TRUE\"\nnvme0:0.fileName = \"x.vmdk\"\n";
        Some(Self {
            disk: folder.path().join("disk.raw"),
            vmx: Vmx::parse(vmx.as_bytes()).unwrap(),
            kernel: std::fs::read(guest.kernel()).unwrap(),
            initrd: std::fs::read(folder.path().join("initrd.cpio")).unwrap(),
            cmdline: "quiet mitigations=off cryptomgr.notests".to_owned(),
            folder,
            cancel: Cancel::default(),
        })
    }

    /// The same on LUKS, opened by cryptsetup.
    fn luks() -> Option<Self> {
        let outer = peers().join("bed/outer");
        if !outer.join("made-of").exists() {
            assert!(std::env::var_os("CI").is_none(), "CI has no test bed");
            eprintln!("skipped: the test bed is not built: tests/run does that");
            return None;
        }
        let mut bench = Self::small()?;
        let work = bench.folder.path().join("luks");
        std::fs::create_dir(&work).unwrap();
        std::fs::write(work.join("init"), INIT_OF_LUKS).unwrap();
        std::fs::write(work.join("run"), MAKE_LUKS).unwrap();
        bench.disk = bench.folder.path().join("luks.raw");
        File::create(&bench.disk)
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        let made = Command::new(peers().join("../tests/bed/run"))
            .arg("--disk")
            .args([&bench.disk, &work])
            .output()
            .unwrap();
        let [said, why] = [&made.stdout, &made.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(made.status.success(), "{said}{why}");
        bench.kernel = std::fs::read(outer.join("vmlinuz")).unwrap();
        bench.initrd = std::fs::read(work.join("initrd.cpio")).unwrap();
        Some(bench)
    }

    /// What a disk of the test bed boots by default, with the drivers that its initrd lacks for pvscsi.
    fn of_bed(name: &str) -> Option<Self> {
        let disk = peers().join(format!("bed/{name}/disk.raw"));
        if !disk.exists() {
            eprintln!("skipped: no {name} in the test bed");
            return None;
        }
        let image = open(&disk, Access::ReadOnly);
        let volumes =
            Volumes::of(vec![Arc::new(Disk::new(image, 512)) as Arc<dyn Volume>]).unwrap();
        let installation = installations(&volumes).into_iter().next().unwrap();
        let root = Root::mount(&volumes, &installation).unwrap();
        let menu = Menu::read(&volumes, Some(&root));
        let request = Request {
            hardware: &[Hardware::Pvscsi, Hardware::SdMod],
            ..Request::default()
        };
        let plan = DirectBoot::plan(Some(&root), &menu, &request).unwrap();
        let mut kernel = Vec::new();
        let mut image = plan.kernel.blob.reader();
        image.read_to_end(&mut kernel).unwrap();
        let vmx = "displayName = \"x\"\nmemsize = \"512\"\nscsi0.present = \"TRUE\"\n\
                   scsi0.virtualDev = \"pvscsi\"\nguestOS = \"debian12-64\"\n";
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            vmx: Vmx::parse(vmx.as_bytes()).unwrap(),
            kernel,
            initrd: plan.initrd.unwrap().bytes(1 << 30).unwrap(),
            cmdline: plan.options,
            disk,
            cancel: Cancel::default(),
        })
    }

    fn folder_of_run(&self) -> RunFolder {
        let folder = RunHome::new(self.folder.path().join("run")).folder(Path::new("/x.vmx"));
        folder.create().unwrap();
        folder
    }

    fn run(&self, script: &str, change: impl FnOnce(&mut GuestScript<'_>)) -> Result<Verdict> {
        let nodes = if self
            .vmx
            .machine()
            .controllers
            .iter()
            .any(|c| c.bus.name() == "nvme")
        {
            "nvme0:0"
        } else {
            "scsi0:0"
        };
        let mut request = GuestScript {
            vmx: &self.vmx,
            disks: BTreeMap::new(),
            discard_writes: true,
            kernel: &self.kernel,
            initrd: &self.initrd,
            cmdline: &self.cmdline,
            script,
            files: &[("a file", b"what is in it")],
            passphrase: None,
            limit: Duration::from_secs(1800),
        };
        change(&mut request);
        let access = match request.discard_writes {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        request
            .disks
            .insert(nodes.parse().unwrap(), open(&self.disk, access));
        let site = ScriptSite {
            folder: &self.folder_of_run(),
            launcher: &Launcher::new(Vec::new()),
            cancel: &self.cancel,
        };
        Qemu::default().run_script(&request, &site)
    }

    /// What a file of the root holds.
    fn root_file(&self, path: &str) -> String {
        let request = format!("cat {path}");
        let output = Command::new("debugfs")
            .args(["-R", &request])
            .arg(&self.disk)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn open(disk: &Path, access: Access) -> Arc<dyn BlockImage> {
    let options = OpenOptions {
        access,
        ..OpenOptions::default()
    };
    Arc::new(open_chain(disk, &options).unwrap().chain)
}

#[test]
fn a_script_changes_a_guest_and_says_what_came_of_it() {
    let Some(bench) = Bench::small() else { return };
    let script =
        "cat /etc/name '/run/hako/files/a file'; echo; echo done >/etc/name; echo oops >&2; exit 7";
    // First over the disk, which stays as it is.
    let verdict = bench.run(script, |_| {}).unwrap();
    assert_eq!(
        (verdict.status, verdict.is_clean),
        (7, true),
        "{}",
        verdict.output
    );
    assert_eq!(verdict.output, "here\nwhat is in it\noops\n");
    assert_eq!(bench.root_file("/etc/name"), "here\n");
    // Then for good, with an encrypted root's question before.
    let verdict = bench.run(script, |request| {
        request.discard_writes = false;
        request.cmdline = "quiet ask";
        request.passphrase = Some("open");
    });
    let verdict = verdict.unwrap();
    assert_eq!((verdict.status, verdict.is_clean), (7, true));
    assert_eq!(bench.root_file("/etc/name"), "done\n");
    let fsck = Command::new("e2fsck")
        .arg("-fn")
        .arg(&bench.disk)
        .output()
        .unwrap();
    assert!(
        fsck.status.success(),
        "{}",
        String::from_utf8_lossy(&fsck.stdout)
    );
}

#[test]
fn a_guest_that_never_gets_to_its_root_is_told_with_its_last_words() {
    let Some(mut bench) = Bench::small() else {
        return;
    };
    let error = bench
        .run("true", |request| request.cmdline = "quiet ask")
        .unwrap_err();
    assert!(error.to_string().contains("passphrase"), "{error}");
    let error = bench
        .run("sleep 600", |request| {
            request.limit = Duration::from_secs(20)
        })
        .unwrap_err();
    assert!(error.to_string().contains("took too long"), "{error}");
    std::fs::write(&bench.disk, vec![0; 32 << 20]).unwrap();
    let error = bench.run("true", |_| {}).unwrap_err();
    assert!(error.to_string().contains("without a verdict"), "{error}");
    bench.initrd = b"nothing that Linux unpacks".to_vec();
    assert!(bench.run("true", |_| {}).is_err());
    bench.cancel.cancel();
    bench.initrd = Bench::small().unwrap().initrd;
    assert_eq!(
        bench.run("true", |_| {}).unwrap_err().kind(),
        ErrorKind::Cancelled
    );
}

#[test]
fn a_root_on_luks_is_opened_with_the_passphrase_that_is_given() {
    let Some(bench) = Bench::luks() else { return };
    let with = |passphrase| {
        bench.run("cat /etc/name; echo done >/etc/name; exit 7", |request| {
            request.discard_writes = false;
            request.passphrase = passphrase;
        })
    };
    let error = with(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let error = with(Some("wrong")).unwrap_err();
    assert!(error.to_string().contains("without a verdict"), "{error}");
    for output in ["here\n", "done\n"] {
        let verdict = with(Some("open")).unwrap();
        let (status, is_clean) = (verdict.status, verdict.is_clean);
        assert_eq!(
            (verdict.output.as_str(), status, is_clean),
            (output, 7, true)
        );
    }
    // The disk itself tells nothing.
    let bytes = std::fs::read(&bench.disk).unwrap();
    assert!(bytes.starts_with(b"LUKS") && !bytes.windows(5).any(|found| found == b"done\n"));
}

/// Whole systems: minutes each.
#[test]
fn debian_and_a_system_like_fedora_repair_themselves() {
    if std::env::var_os("HAKO_ALL").is_none() {
        eprintln!("skipped: HAKO_ALL is not set");
        return;
    }
    let script = ". /etc/os-release; echo \"$NAME\"; mount /boot; mount | grep -c ' /boot '; umount /boot; \
                  command -v update-initramfs dracut; touch /.autorelabel";
    for name in ["debian-bios", "fedora-like"] {
        let Some(bench) = Bench::of_bed(name) else {
            continue;
        };
        let verdict = bench.run(script, |_| {}).unwrap();
        assert_eq!(
            (verdict.status, verdict.is_clean),
            (0, true),
            "{name}: {}",
            verdict.output
        );
        assert!(
            verdict.output.starts_with("Debian GNU/Linux\n1\n"),
            "{name}: {}",
            verdict.output
        );
    }
}
