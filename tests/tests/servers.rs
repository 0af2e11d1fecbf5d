//! Servers that become virtual machines, from end to end: the disk of one that has drivers for its own
//! hardware alone is captured, adapted, and started on other hardware by its own boot loader.

use std::path::PathBuf;

use hako_tests::guests::{Console, Site, disk};
use hako_tests::{all, run_program};

/// The address of the server's network card.
const MAC: &str = "24:6e:96:00:00:01";

/// A server, and the machine that it becomes.
struct Server {
    /// Of the test bed.
    disk: &'static str,
    target: &'static str,
    /// How its machine is made.
    hardware: &'static [&'static str],
    /// The keys of its disk and its network card.
    disk_keys: &'static str,
    nic_model: &'static str,
    /// What drives them then.
    drivers: [&'static str; 2],
    /// What is mounted: where, and what it is.
    mounts: &'static [(&'static str, &'static str)],
    swap: bool,
    /// What adapting needs besides.
    options: &'static [&'static str],
}

impl Server {
    /// Takes the server through all of it.
    fn convert(&self) {
        let (Some(disk), Some(site)) = (disk(self.disk), Site::new()) else {
            return;
        };
        let copy = self.capture(&site, disk);
        let from = format!("{},{}", copy.display(), self.disk_keys);
        let nic = format!("nat,model={},mac={MAC}", self.nic_model);
        let machine = ["--memory", "640M", "--from-disk", &from, "--nic", &nic];
        site.create_of(&[&machine, self.hardware].concat());
        let name = format!("enp3s0={MAC}");
        let adapt = [
            "p2v",
            "adapt",
            "web",
            "--target",
            self.target,
            "--nic",
            &name,
        ];
        site.hako(&[&adapt[..], self.options].concat()).ok();
        let again = site.hako(&[&adapt[..], self.options].concat()).ok();
        assert_eq!(again, "nothing is to be changed\n");
        site.start(&[]);
        site.wait_for_line("guest login:");
        self.look_inside(&site);
        site.hako(&["vm", "stop", "web", "--timeout", "1200"]).ok();
    }

    /// Captures the disk, and has what the server is written down.
    fn capture(&self, site: &Site, disk: PathBuf) -> PathBuf {
        let (disk, copy) = (disk.to_str().unwrap(), site.path("copy.vmdk"));
        let inventory = site.hako(&["p2v", "inventory", disk, "--json"]).json();
        assert_eq!(
            inventory["blockers"].as_array().map(Vec::len),
            Some(0),
            "{inventory}"
        );
        site.hako(&["p2v", "capture", disk, "-o", copy.to_str().unwrap()])
            .ok();
        run_program("qemu-img", &["check", copy.to_str().unwrap()]).ok();
        copy
    }

    fn look_inside(&self, site: &Site) {
        let mut console = Console::of(site);
        console.log_in();
        for (path, kind) in self.mounts {
            assert_eq!(
                console.ask(&format!("findmnt -n -r -o FSTYPE {path}")),
                *kind,
                "{path}"
            );
        }
        assert_eq!(
            console.ask("swapon --noheadings --show=TYPE | wc -l"),
            if self.swap { "1" } else { "0" }
        );
        assert_eq!(console.ask("cat /sys/class/net/enp3s0/address"), MAC);
        assert_eq!(console.ask("ls /sys/class/net | grep -v lo"), "enp3s0");
        let until = "until ip -4 -o addr show enp3s0 | grep -q inet; do sleep 1; done";
        let addresses = console.ask(&format!("{until}; ip -4 -o addr show enp3s0"));
        assert!(addresses.contains("inet 192.0.2.10/24"), "{addresses}");
        let disk = console.ask("readlink /sys/block/{sda,nvme0n1,vda}/device/driver /sys/block/sda/device/../../../driver 2>/dev/null | sed 's|.*/||' | tr '\\n' ' '");
        let [of_disk, of_nic] = self.drivers;
        assert!(disk.contains(of_disk), "{disk}");
        let nic = console.ask("readlink /sys/class/net/enp3s0/device/driver | sed 's|.*/||'");
        assert_eq!(nic, of_nic);
        let failed = console.ask("systemctl --failed --no-legend --plain");
        assert!(failed.is_empty(), "{failed}");
    }
}

#[test]
fn a_server_with_ext4_and_names_of_the_kernel_runs_on_vmware_hardware() {
    Server {
        disk: "server-mbr",
        target: "vmware",
        hardware: &[],
        disk_keys: "controller=pvscsi",
        nic_model: "vmxnet3",
        drivers: ["vmw_pvscsi", "vmxnet3"],
        mounts: &[("/", "ext4"), ("/srv", "ext4")],
        swap: true,
        options: &[],
    }
    .convert();
}

#[test]
fn a_server_with_btrfs_whose_firmware_alone_knew_its_loader_starts_on_a_new_one() {
    Server {
        disk: "server-uefi",
        target: "vmware",
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
        swap: true,
        options: &[],
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
        target: "vmware",
        hardware: &[],
        disk_keys: "controller=pvscsi",
        nic_model: "vmxnet3",
        drivers: ["vmw_pvscsi", "vmxnet3"],
        mounts: &[("/", "ext4"), ("/boot", "ext4")],
        swap: true,
        options: &[],
    }
    .convert();
}
