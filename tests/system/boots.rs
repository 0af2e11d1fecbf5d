//! Whole Debian guests, started by `hako vm start --engine qemu`: by firmware and directly, on disks of
//! several kinds, with the hardware that the VMX names.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use hako_tests::disk::{make_dense, sha256};
use hako_tests::guests::{Console, Site, disk};
use hako_tests::{all, convert, run_program, skip};
use rustix::process::{Pid, Signal, kill_process};

fn words(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

#[test]
fn debian_comes_up_through_its_grub_on_vmware_hardware_and_its_console_is_typed_on() {
    let (Some(disk), Some(site)) = (disk("debian-bios"), Site::new()) else {
        return;
    };
    site.create(&disk, &["--nic", "nat,model=vmxnet3"]);
    site.start(&[]);
    site.wait_for_line("guest login:");
    // The guest says nothing with it yet.
    assert_eq!(site.wait_for_ip().trim(), "10.0.2.15");
    let mut console = Console::of(&site);
    console.log_in();
    let mut ask = |command: &str| console.ask(command);
    assert_eq!(ask("echo $((6 * 7))"), "42");
    assert_eq!(
        ask("readlink /sys/class/net/e*/device/driver | sed 's|.*/||'"),
        "vmxnet3"
    );
    assert_eq!(
        ask("readlink /sys/block/sda/device/../../../driver | sed 's|.*/||'"),
        "vmw_pvscsi"
    );
    let root = ask("findmnt -n -r -o SOURCE,FSTYPE,OPTIONS /");
    assert!(root.starts_with("/dev/mapper/vg0-root ext4 rw"), "{root}");
    let units = ask("systemctl --failed --no-legend --plain");
    assert!(units.is_empty(), "{units}");

    // What the host serves comes through the user network, once DHCP has given an address.
    let content = site.path("content");
    make_dense(&content, 100_000, 3);
    let port = serve(&content);
    ask("until ip -4 route | grep -q ^default; do sleep 1; done");
    let fetched = ask(&format!(
        "busybox wget -q -O - http://10.0.2.2:{port}/ | sha256sum"
    ));
    assert_eq!(fetched.split(' ').next().unwrap(), sha256(&content));

    let listed = site.hako(&["vm", "list", "--json"]).json();
    assert_eq!(listed[0]["state"], "running", "{listed}");
    site.hako(&["vm", "stop", "web", "--timeout", "1200"]).ok();
    let log = site.log();
    assert!(log.contains("reboot: Power down"), "{log}");
}

/// Serves a file to whoever asks, by HTTP, on a port of 127.0.0.1.
fn serve(content: &Path) -> u16 {
    let content = std::fs::read(content).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
                content.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&content);
        }
    });
    port
}

#[test]
fn a_direct_boot_comes_up_and_discarded_writes_reach_no_disk() {
    let (Some(disk), Some(site)) = (disk("debian-bios"), Site::new()) else {
        return;
    };
    site.create(&disk, &[]);
    let image = site.path("home/vms/web/web.vmdk");
    let before = sha256(&image);
    site.start(&["--boot", "direct", "--discard-writes"]);
    site.wait_for_line("guest login:");
    site.hako(&["vm", "stop", "web", "--force"]).ok();
    assert_eq!(sha256(&image), before);
}

#[test]
fn debian_comes_up_through_uefi() {
    let (Some(disk), Some(site)) = (disk("debian-uefi"), Site::new()) else {
        return;
    };
    site.create(&disk, &["--firmware", "efi"]);
    site.start(&[]);
    site.wait_for_line("guest login:");
    // The firmware's variables are the machine's own.
    let names = hako_tests::names(&site.path("home/vms/web"));
    assert!(
        names.contains(&"web.hako-efivars.fd".to_owned()),
        "{names:?}"
    );
}

#[test]
fn what_a_guest_wrote_after_a_snapshot_is_gone_when_it_is_reverted() {
    let (Some(disk), Some(site)) = (disk("debian-bios"), Site::new()) else {
        return;
    };
    let script = site.script("mount -o remount,rw / && echo of the guest >/root/mark && sync");
    site.create(&disk, &words(&script));
    site.hako(&["snapshot", "create", "web", "before"]).ok();
    site.start(&[]);
    let log = site.wait_until_off();
    assert!(log.contains("GUEST ends 0"), "{log}");
    let mark = || {
        let info = site.hako(&["vm", "info", "web", "--json"]).json();
        let top = info["drives"][0]["layers"][0]["file"]
            .as_str()
            .unwrap()
            .to_owned();
        site.hako(&["disk", "cat", &format!("{top}:vg0/root"), "/root/mark"])
    };
    assert_eq!(mark().ok(), "of the guest\n");
    site.hako(&["snapshot", "revert", "web", "before", "--yes"])
        .ok();
    mark().expect_code(1);
}

#[test]
fn what_a_guest_has_synced_survives_the_death_of_the_runner() {
    let (Some(disk), Some(site)) = (disk("debian-bios"), Site::new()) else {
        return;
    };
    let script = site.script(
        r#"if [ ! -e /root/synced ]; then
    mount -o remount,rw /
    mkdir /root/synced
    n=0
    while :; do
        n=$((n + 1))
        seq $n $((n + 5000)) >/root/synced/$n
        sync /root/synced/$n /root/synced
        echo "GUEST synced $n"
    done
fi
n=1
while seq $n $((n + 5000)) | cmp -s - /root/synced/$n; do echo "GUEST has $n"; n=$((n + 1)); done
dmesg | grep 'EXT4-fs.*recovery complete'
e2fsck -f -n /dev/mapper/vg0-root
echo "GUEST fsck $?""#,
    );
    site.create(&disk, &words(&script));
    site.start(&[]);
    site.wait_for_line("GUEST synced 12");
    let runner = Pid::from_raw(site.runner_pid()).unwrap();
    kill_process(runner, Signal::KILL).unwrap();
    let log = site.wait_until_off();
    let last = |word: &str, log: &str| -> usize {
        let lines = log.lines().filter_map(|line| line.strip_prefix(word));
        lines
            .filter_map(|number| number.trim().parse().ok())
            .max()
            .unwrap_or(0)
    };
    let synced = last("GUEST synced ", &log);
    assert!(synced >= 12, "{log}");

    site.start(&[]);
    let log = site.wait_until_off();
    let there = last("GUEST has ", &log);
    assert!(there >= synced, "{there} files of {synced}: {log}");
    assert!(
        log.contains("recovery complete"),
        "no journal was replayed: {log}"
    );
    assert!(log.contains("GUEST fsck 0"), "{log}");
}

#[test]
fn a_disk_as_fedoras_boots_directly_though_its_initrd_lacks_the_drivers() {
    boot_fedora_like("bus=scsi", "vmw_pvscsi, for pvscsi");
}

#[test]
fn a_disk_as_fedoras_boots_directly_from_nvme() {
    if all() {
        boot_fedora_like("bus=nvme", "nvme, for nvme");
    }
}

/// Boots it from a disk there; the module is told to be appended to its initrd.
fn boot_fedora_like(place: &str, module: &str) {
    let (Some(disk), Some(site)) = (disk("fedora-like"), Site::new()) else {
        return;
    };
    let script = site.script("findmnt -n -r -o SOURCE,FSTYPE /; cat /proc/cmdline");
    let disk = format!("{},{place}", disk.display());
    site.create(Path::new(&disk), &words(&script));
    let started = site.start(&["--boot", "direct"]);
    let told = format!("appended to the initrd: the module {module}");
    assert!(started.stderr.contains(&told), "{}", started.stderr);
    let log = site.wait_until_off();
    assert!(log.contains("/dev/mapper/vg0-root xfs"), "{log}");
    assert!(
        log.contains("rd.lvm.lv=vg0/root console=ttyS0 quiet"),
        "{log}"
    );
    assert!(log.contains("GUEST ends 0"), "{log}");
}

#[test]
fn a_cloud_image_finds_the_seed_that_it_was_given() {
    let (Some(disk), Some(site)) = (disk("debian-bios"), Site::new()) else {
        return;
    };
    let script = site.script(
        "modprobe -a sr_mod isofs
mount -o ro $(blkid -L cidata) /mnt && cat /mnt/user-data && grep local-hostname /mnt/meta-data",
    );
    let seed = site.path("user-data");
    std::fs::write(&seed, "#cloud-config\n# for this guest alone\n").unwrap();
    let mut options = words(&script);
    options.extend(["--cloud-init", seed.to_str().unwrap()]);
    site.create(&disk, &options);
    site.start(&[]);
    let log = site.wait_until_off();
    assert!(log.contains("# for this guest alone"), "{log}");
    assert!(log.contains("local-hostname: \"web\""), "{log}");
    assert!(log.contains("GUEST ends 0"), "{log}");
}

#[test]
fn other_programs_disks_boot_as_they_are() {
    if !all() {
        return;
    }
    let Some(raw) = disk("debian-bios") else {
        return;
    };
    for (extension, to, start) in [
        ("qcow2", &["--to", "qcow2"][..], &[][..]),
        ("vhdx", &["--to", "vhdx"], &[]),
        (
            "vmdk",
            &["--to", "vmdk", "--subformat", "streamOptimized"],
            &["--discard-writes"][..],
        ),
    ] {
        let Some(site) = Site::new() else {
            return;
        };
        let folder = site.path("web");
        std::fs::create_dir(&folder).unwrap();
        let image = folder.join(format!("debian.{extension}"));
        convert(&raw, &image, to);
        let script =
            site.script("mount -o remount,rw / && echo here >/root/here && sync && cat /root/here");
        let mut options = words(&script);
        options.extend(["--folder", folder.to_str().unwrap()]);
        site.create(&image, &options);
        site.start(start);
        let log = site.wait_until_off();
        assert!(log.contains("GUEST ends 0"), "{extension}: {log}");
    }
}

#[test]
fn a_new_machine_without_a_system_boots_the_cd_that_it_was_made_with() {
    let Some(site) = Site::new() else {
        return;
    };
    let loader = Path::new("/usr/lib/grub/i386-pc/biosdisk.mod");
    if !loader.exists() {
        return skip("GRUB for BIOS is not installed: tests/run does that");
    }
    let grub = site.path("cd/boot/grub");
    std::fs::create_dir_all(&grub).unwrap();
    let menu = "serial --unit=0\nterminal_output serial\necho INSTALLER begins\nsleep 3600\n";
    std::fs::write(grub.join("grub.cfg"), menu).unwrap();
    let image = grub.join("eltorito.img");
    let make = [
        "-O",
        "i386-pc-eltorito",
        "-p",
        "/boot/grub",
        "-o",
        image.to_str().unwrap(),
    ];
    let modules = [
        "biosdisk", "iso9660", "normal", "serial", "terminal", "echo", "sleep",
    ];
    run_program("grub-mkimage", &[&make[..], &modules].concat()).ok();
    let (cd, iso) = (site.path("cd"), site.path("cd.iso"));
    let make = [
        "-quiet",
        "-R",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
        "-b",
        "boot/grub/eltorito.img",
        "-o",
        iso.to_str().unwrap(),
        cd.to_str().unwrap(),
    ];
    run_program("genisoimage", &make).ok();
    let cdrom = iso.to_str().unwrap();
    site.create_of(&["--memory", "128M", "--disk", "1G", "--cdrom", cdrom]);
    site.start(&[]);
    site.wait_for_line("INSTALLER begins");
}
