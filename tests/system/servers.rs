//! Servers that become virtual machines, from end to end: the disk of one that has drivers for its own
//! hardware alone is captured, adapted, and started on other hardware by its own boot loader.

use std::path::{Path, PathBuf};

use hako_tests::disk::{copy_sparse, debugfs};
use hako_tests::guests::{Console, Site, disk};
use hako_tests::nested::{bare, has_in_order};
use hako_tests::{all, hako, run_program};
use serde_json::Value;

/// The address of the server's network card.
const MAC: &str = "24:6e:96:00:00:01";

/// A server, and the machine that it becomes.
struct Server {
    /// Of the test bed.
    disk: &'static str,
    /// How its machine is made.
    hardware: &'static [&'static str],
    /// The keys of its disk and its network card.
    disk_keys: &'static str,
    nic_model: &'static str,
    /// What drives them then.
    drivers: [&'static str; 2],
    /// What is mounted: where, and what it is.
    mounts: &'static [(&'static str, &'static str)],
    /// What opens what is encrypted on it.
    passphrase: Option<&'static str>,
    /// The exit code of `p2v verify --no-boot`.
    verdict: i32,
    /// Whether its files have labels of SELinux.
    has_labels: bool,
}

/// What most of them have, but for a disk: /boot beside the root, and VMware's own controller and card.
const USUAL: Server = Server {
    disk: "",
    hardware: &[],
    disk_keys: "controller=pvscsi",
    nic_model: "vmxnet3",
    drivers: ["vmw_pvscsi", "vmxnet3"],
    mounts: &[("/", "ext4"), ("/boot", "ext4")],
    passphrase: None,
    verdict: 0,
    has_labels: false,
};

impl Server {
    /// Takes the server through all of it.
    fn convert(&self) {
        let (Some(disk), Some(site)) = (disk(self.disk), Site::new()) else {
            return;
        };
        let copy = self.capture(&site, &disk);
        let from = format!("{},{}", copy.display(), self.disk_keys);
        let nic = format!("nat,model={},mac={MAC}", self.nic_model);
        let machine = ["--memory", "640M", "--from-disk", &from, "--nic", &nic];
        site.create_of(&[&machine, self.hardware].concat());
        let name = format!("enp3s0={MAC}");
        let words = ["p2v", "adapt", "web", "--target", "vmware", "--nic"];
        let adapt = [&words[..], &[&name], self.key()].concat();
        let adapted = site.hako(&[&adapt[..], &["--json"]].concat()).json();
        assert_eq!(site.hako(&adapt).ok(), "nothing is to be changed\n");
        self.verify(&site);
        site.start(&[]);
        if let Some(passphrase) = self.passphrase {
            Console::of(&site).unlock(passphrase);
        }
        site.wait_for_line("guest login:");
        let mut console = self.look_inside(&site);
        if self.has_labels {
            look_at_labels(&mut console, &adapted["changes"]);
        }
        site.hako(&["vm", "stop", "web", "--timeout", "1200"]).ok();
    }

    /// Has it verified; under `--all` with a boot where that is special: the root is not written to, and
    /// is asked in a second one.
    fn verify(&self, site: &Site) {
        let is_booted = all() && (self.passphrase.is_some() || self.mounts[0].1 != "ext4");
        let boot: &[&str] = match is_booted {
            true => &["--timeout", "3000"],
            false => &["--no-boot"],
        };
        let verify = [&["p2v", "verify", "web"], boot, self.key()].concat();
        let verified = site.hako(&verify).expect_code(self.verdict);
        for (path, _) in self.mounts.iter().filter(|_| is_booted) {
            let line = format!("{:12}{:12} {path}\n", "passed", "mount");
            assert!(verified.stdout.contains(&line), "{}", verified.stdout);
        }
        assert_eq!(verified.stderr.contains("once more"), is_booted);
    }

    /// Returns the options that open what is encrypted.
    fn key(&self) -> &'static [&'static str] {
        match self.passphrase {
            Some(_) => &["--key", "key"],
            None => &[],
        }
    }

    /// Captures the disk, in whose way nothing stands.
    fn capture(&self, site: &Site, disk: &Path) -> PathBuf {
        std::fs::write(site.path("key"), self.passphrase.unwrap_or_default()).unwrap();
        let (disk, copy) = (disk.to_str().unwrap(), site.path("copy.vmdk"));
        let inventory = ["p2v", "inventory", disk, "--json"];
        let inventory = site.hako(&[&inventory[..], self.key()].concat());
        let found = inventory.expect_code(0).json();
        assert_eq!(found["nics"][0]["name"], "enp3s0", "{found}");
        let capture = ["p2v", "capture", disk, "-o", copy.to_str().unwrap()];
        site.hako(&[&capture[..], self.key()].concat()).ok();
        run_program("qemu-img", &["check", copy.to_str().unwrap()]).ok();
        copy
    }

    fn look_inside(&self, site: &Site) -> Console {
        let mut console = Console::of(site);
        console.log_in();
        for (path, kind) in self.mounts {
            assert_eq!(
                console.ask(&format!("findmnt -n -r -o FSTYPE {path}")),
                *kind,
                "{path}"
            );
        }
        assert_eq!(console.ask("swapon --noheadings --show=TYPE | wc -l"), "1");
        assert_eq!(console.ask("cat /sys/class/net/enp3s0/address"), MAC);
        assert_eq!(console.ask("ls /sys/class/net | grep -v lo"), "enp3s0");
        let until = "until ip -4 -o addr show enp3s0 | grep -q inet; do sleep 1; done";
        let addresses = console.ask(&format!("{until}; ip -4 -o addr show enp3s0"));
        assert!(addresses.contains("inet 192.0.2.10/24"), "{addresses}");
        let block = "ls /sys/block | grep -m 1 -E '^(sd|nvme|vd)'";
        let drivers = format!("udevadm info -a -n /dev/$({block}) | grep DRIVERS");
        let disk = console.ask(&drivers);
        let [of_disk, of_nic] = self.drivers;
        assert!(disk.contains(of_disk), "{disk}");
        let nic = console.ask("readlink /sys/class/net/enp3s0/device/driver | sed 's|.*/||'");
        assert_eq!(nic, of_nic);
        let failed = console.ask("systemctl --failed --no-legend --plain");
        assert!(failed.is_empty(), "{failed}");
        console
    }
}

/// Asks the guest's own policy whether the files of these changes are labelled as it has it, by its own
/// program. It has not labelled them itself.
fn look_at_labels(console: &mut Console, changes: &Value) {
    assert_eq!(console.ask("getenforce"), "Permissive");
    assert_eq!(console.ask("ls -A / | grep relabel"), "");
    let changes = changes.as_array().unwrap().iter();
    let paths: Vec<&str> = changes.map(|one| one["path"].as_str().unwrap()).collect();
    assert!(!paths.is_empty());
    let verified = console.ask(&format!("matchpathcon -V {}", paths.join(" ")));
    let lines: Vec<String> = paths
        .iter()
        .map(|path| format!("{path} verified."))
        .collect();
    assert_eq!(verified, lines.join("\n"));
}

#[test]
fn a_server_with_ext4_and_names_of_the_kernel_runs_on_vmware_hardware() {
    Server {
        disk: "server-mbr",
        mounts: &[("/", "ext4"), ("/srv", "ext4")],
        ..USUAL
    }
    .convert();
}

#[test]
fn a_server_with_btrfs_whose_firmware_alone_knew_its_loader_starts_on_a_new_one() {
    Server {
        disk: "server-uefi",
        hardware: &["--firmware", "efi"],
        disk_keys: "bus=nvme",
        nic_model: "e1000e",
        drivers: ["nvme", "e1000e"],
        mounts: &[
            ("/", "btrfs"),
            ("/home", "btrfs"),
            ("/var/log", "btrfs"),
            ("/boot/efi", "vfat"),
        ],
        ..USUAL
    }
    .convert();
}

#[test]
fn a_server_with_a_mirror_runs_on_the_half_of_it() {
    if !all() {
        return;
    }
    Server {
        disk: "server-mirror",
        // Half of a mirror is not whole.
        verdict: 3,
        ..USUAL
    }
    .convert();
}

#[test]
fn a_server_of_an_older_system_and_kernel_behind_a_raid_controller_runs_on_sata() {
    if !all() {
        return;
    }
    Server {
        disk: "server-old",
        disk_keys: "bus=sata",
        nic_model: "e1000e",
        drivers: ["ahci", "e1000e"],
        ..USUAL
    }
    .convert();
}

#[test]
fn a_server_with_an_nvme_disk_and_no_fallback_loader_runs_on_sata() {
    if !all() {
        return;
    }
    Server {
        disk: "server-nvme",
        hardware: &["--firmware", "efi"],
        disk_keys: "bus=sata",
        drivers: ["ahci", "vmxnet3"],
        mounts: &[("/", "ext4"), ("/boot", "ext4"), ("/boot/efi", "vfat")],
        ..USUAL
    }
    .convert();
}

#[test]
fn an_initrd_that_initramfs_tools_fitted_to_its_server_gets_what_it_lacks() {
    if !all() {
        return;
    }
    Server {
        disk: "server-dep",
        ..USUAL
    }
    .convert();
}

#[test]
fn a_server_with_xfs_and_selinux_runs_with_its_files_labelled_as_its_policy_says() {
    if !all() {
        return;
    }
    Server {
        disk: "server-selinux",
        mounts: &[("/", "xfs"), ("/boot", "xfs")],
        has_labels: true,
        ..USUAL
    }
    .convert();
}

#[test]
fn a_server_on_luks_is_adapted_by_its_own_kernel_and_asks_for_its_passphrase() {
    if !all() {
        return;
    }
    Server {
        disk: "server-luks",
        passphrase: Some("open"),
        ..USUAL
    }
    .convert();
}

/// What the server itself tells of where it is, once it is up; then it switches itself off.
const TELL: &str = "\
# A getty hangs the port up for whoever has it open.
tell() { echo \"TOLD $*\" >/dev/console; }
tell root $(findmnt -n -o FSTYPE /) srv $(findmnt -n -o FSTYPE /srv) on $(ls /sys/block | grep ^vd)
tell swaps $(swapon --noheadings | wc -l)
tell cards $(ls /sys/class/net | grep -v lo) $(cat /sys/class/net/enp3s0/address)
tell driver $(basename $(readlink /sys/class/net/enp3s0/device/driver))
tell address $(ip -4 -o addr show enp3s0 | tr -s ' ' | cut -d ' ' -f 4)
tell failed $(systemctl --failed --no-legend | grep -c failed)
systemctl poweroff
";

const UNIT: &str = "\
[Unit]
After=networking.service local-fs.target swap.target
[Service]
ExecStart=/bin/sh /root/tell
";

/// Within the outer machine, whose KVM is real.
#[test]
fn a_server_runs_on_our_own_engine() {
    if !all() {
        return;
    }
    let script = format!(
        "mkdir vm; mv disk.vmdk vm/
        modprobe tun; ip tuntap add tap0 mode tap; ip link set tap0 up
        vm create web --guest-os debian12-64 --memory 384M --folder vm --from-disk vm/disk.vmdk \\
            --nic bridged,mac={MAC}
        vm set web hako.ethernet0.tap=tap0
        vm start web --engine kvm 2>&1
        vm wait web --timeout 3000
        vm console --log web | tr -d '\\r' | grep -o 'TOLD.*'"
    );
    let (Some(disk), Some(bed)) = (disk("server-mbr"), bare(&script)) else {
        return;
    };
    let path = |name: &str| bed.path(name).display().to_string();
    let (server, copy) = (path("server.raw"), path("disk.vmdk"));
    copy_sparse(&disk, Path::new(&server));
    std::fs::write(bed.path("tell"), TELL).unwrap();
    std::fs::write(bed.path("tell.service"), UNIT).unwrap();
    let units = "/etc/systemd/system";
    let commands = format!(
        "write {} /root/tell\nwrite {} {units}/tell.service\n\
         symlink {units}/multi-user.target.wants/tell.service {units}/tell.service\n",
        path("tell"),
        path("tell.service"),
    );
    debugfs(Path::new(&server), 1 << 20, &commands);
    let hako = |words: &[&str]| run_program(hako(), &[&["p2v"], words].concat()).ok();
    hako(&["capture", &server, "-o", &copy]);
    std::fs::remove_file(server).unwrap();
    let card = format!("enp3s0={MAC}");
    hako(&["adapt", &copy, "--target", "kvm", "--nic", &card]);
    let said = bed.run().expect_code(0).stdout;
    let card = format!("TOLD cards enp3s0 {MAC}");
    has_in_order(
        &said,
        &[
            "TOLD root ext4 srv ext4 on vda",
            "TOLD swaps 1",
            &card,
            "TOLD driver virtio_net",
            "TOLD address 192.0.2.10/24",
            "TOLD failed 0",
        ],
    );
}
