use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;

use super::super::model::{AddressMethod, FirmwareKind, Level, NicKind, Source, VolumeKind};
use super::*;

/// A copy of a server's `/sys`, `/proc` and files: a Dell with a RAID controller, LVM on LUKS, an
/// array, a bond and a VLAN on it.
struct Server(tempfile::TempDir);

impl Server {
    fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, text).unwrap();
    }

    fn files(&self, folder: &str, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.file(&format!("{folder}/{name}"), format!("{text}\n"));
        }
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.path().join(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn folder(&self, path: &str) {
        create_dir_all(self.0.path().join(path)).unwrap();
    }

    fn look(&self) -> Inventory {
        of_running(self.0.path(), false, 1_700_000_000)
    }
}

fn server() -> Server {
    let server = Server(tempfile::tempdir().unwrap());
    machine(&server);
    disks(&server);
    network(&server);
    server
}

fn machine(server: &Server) {
    server.files(
        "sys/class/dmi/id",
        &[
            ("sys_vendor", "Dell Inc."),
            ("product_name", "PowerEdge R640"),
            ("product_serial", "ABC1234"),
            ("product_uuid", "4C4C4544-0042-3510-8053-B4C04F583332"),
            ("bios_vendor", "Dell Inc."),
            ("bios_version", "2.19.1"),
            ("board_name", "Default string"),
        ],
    );
    let processor = |n: u32| {
        format!(
            "processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon Gold\nphysical id\t: {}\ncore id\t\t: {}\nflags\t\t: fpu vmx\n\n",
            n / 4,
            n % 4 / 2
        )
    };
    server.file("proc/cpuinfo", (0..8).map(processor).collect::<String>());
    server.file(
        "proc/meminfo",
        "MemTotal: 1024 kB\nMemAvailable: 512 kB\nHugePages_Total: 3\nHugepagesize: 2048 kB\n",
    );
    server.files(
        "proc/sys/kernel",
        &[
            ("hostname", "web01"),
            ("osrelease", "6.1.0-9-amd64"),
            ("arch", "x86_64"),
        ],
    );
    server.file(
        "proc/cmdline",
        "BOOT_IMAGE=/vmlinuz root=/dev/mapper/vg0-root ro\n",
    );
    server.file(
        "etc/os-release",
        "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\n",
    );
    server.file(
        "lib/modules/6.1.0-9-amd64/modules.dep",
        "kernel/drivers/scsi/vmw_pvscsi.ko:\n",
    );
    server.file(
        "lib/modules/6.1.0-9-amd64/modules.builtin",
        "kernel/drivers/ata/ahci.ko\n",
    );
    server.file("boot/grub/grub.cfg", "");
    server.file("usr/sbin/update-initramfs", "");
    server.folder("sys/firmware/efi/efivars");
    server.folder("boot/efi/EFI/debian");
    server.file("sys/bus/usb/devices/1-2/idVendor", "0529\n");
    server.file("sys/class/ipmi/ipmi0/dev", "x");
}

fn disks(server: &Server) {
    const SIZE: &str = "409600";
    let on_pci = "devices/pci0000:00/0000:00:10.0";
    for (n, name) in ["sda", "sdb"].iter().enumerate() {
        let real = format!("{on_pci}/host0/target0:0:{n}/0:0:{n}:0/block/{name}");
        server.link(&format!("sys/block/{name}"), &format!("../{real}"));
        server.link(&format!("sys/class/block/{name}"), &format!("../../{real}"));
        let place = format!("sys/{real}");
        server.files(
            &place,
            &[
                ("size", SIZE),
                ("dev", &format!("8:{}", n * 16)),
                ("removable", "0"),
                ("ro", "0"),
            ],
        );
        server.files(
            &format!("{place}/queue"),
            &[("logical_block_size", "512"), ("rotational", "0")],
        );
        server.link(&format!("{place}/device"), &format!("../../../0:0:{n}:0"));
        server.files(
            &format!("sys/{on_pci}/host0/target0:0:{n}/0:0:{n}:0"),
            &[("model", "PERC H740P"), ("vendor", "DELL")],
        );
        for (part, start, sectors) in [(1, 2048, 204_800), (2, 206_848, 200_000)] {
            server.files(
                &format!("{place}/{name}{part}"),
                &[
                    ("partition", &part.to_string()),
                    ("start", &start.to_string()),
                    ("size", &sectors.to_string()),
                    ("dev", &format!("8:{}", n * 16 + part)),
                ],
            );
        }
    }
    server.link(
        &format!("sys/{on_pci}/driver"),
        "../../bus/pci/drivers/megaraid_sas",
    );
    server.file(
        "run/udev/data/b8:1",
        "E:ID_FS_TYPE=linux_raid_member\nE:ID_PART_ENTRY_UUID=1-1\n",
    );
    server.file(
        "run/udev/data/b8:2",
        "E:ID_FS_TYPE=crypto_LUKS\nE:ID_FS_UUID=l-l\n",
    );
    server.file(
        "run/udev/data/b8:0",
        "E:ID_PART_TABLE_TYPE=gpt\nE:ID_SERIAL_SHORT=600508\n",
    );
    server.file(
        "run/udev/data/b253:1",
        "E:ID_FS_TYPE=ext4\nE:ID_FS_UUID=r-r\n",
    );
    server.file(
        "run/udev/data/b253:2",
        "E:ID_FS_TYPE=swap\nE:ID_FS_UUID=s-s\n",
    );
    let map = |device: &str, number: &str, name: &str, uuid: &str, below: &str| {
        let place = format!("sys/block/{device}");
        server.files(&place, &[("size", "100000"), ("dev", number)]);
        server.files(&format!("{place}/dm"), &[("name", name), ("uuid", uuid)]);
        server.folder(&format!("{place}/slaves/{below}"));
    };
    map("dm-0", "253:0", "luks-x", "CRYPT-LUKS2-ll-luks-x", "sda2");
    let lvm = format!(
        "LVM-{}{}",
        "g".repeat(32),
        "0123456789abcdef0123456789abcdef"
    );
    map("dm-1", "253:1", "vg0-root", &lvm, "dm-0");
    map("dm-2", "253:2", "vg0-my--swap", &lvm, "dm-0");
    server.files("sys/block/md0", &[("size", "204000"), ("dev", "9:0")]);
    server.files(
        "sys/block/md0/md",
        &[
            ("level", "raid1"),
            ("raid_disks", "2"),
            ("degraded", "1"),
            ("metadata_version", "1.2"),
            ("sync_action", "idle"),
            ("array_state", "clean"),
        ],
    );
    server.folder("sys/block/md0/slaves/sda1");
    server.folder("sys/block/md0/slaves/sdb1");
    server.files("sys/block/loop0", &[("size", "10"), ("dev", "7:0")]);
    server.file(
        "proc/self/mountinfo",
        "22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg0-root rw,errors=remount-ro\n\
         23 22 0:21 / /proc rw - proc proc rw\n\
         24 22 9:0 / /boot rw - ext4 /dev/md0 rw\n\
         25 22 0:40 / /data\\040x rw - nfs4 nas:/export rw\n\
         26 22 253:1 /var/x /srv/bound rw - ext4 /dev/mapper/vg0-root rw\n",
    );
    server.file("proc/swaps", "Filename Type Size Used Priority\n/dev/dm-2 partition 51196 100 -2\n/swap\\040file file 1024 0 -3\n");
    server.link("dev/mapper/vg0-root", "../dm-1");
    server.file(
        "etc/fstab",
        "/dev/mapper/vg0-root / ext4 x 0 1\n/dev/md0 /boot ext4 x 0 2\nUUID=s-s none swap sw 0 0\n",
    );
}

fn network(server: &Server) {
    let card = |name: &str, mac: &str, pci: &str| {
        let place = format!("sys/devices/pci0000:00/{pci}/net/{name}");
        server.link(
            &format!("sys/class/net/{name}"),
            &format!("../../{}", place.trim_start_matches("sys/")),
        );
        server.files(
            &place,
            &[
                ("address", mac),
                ("type", "1"),
                ("mtu", "1500"),
                ("operstate", "up"),
                ("speed", "1000"),
                ("addr_assign_type", "0"),
            ],
        );
        server.link(&format!("{place}/device"), "../../");
        server.link(
            &format!("sys/devices/pci0000:00/{pci}/driver"),
            "../../../bus/pci/drivers/tg3",
        );
    };
    card("eno1", "52:54:00:aa:bb:01", "0000:01:00.0");
    card("eno2", "52:54:00:aa:bb:01", "0000:01:00.1");
    server.link(
        "sys/devices/pci0000:00/0000:01:00.1/net/eno2/master",
        "../bond0",
    );
    server.files(
        "sys/class/net/bond0",
        &[("address", "52:54:00:aa:bb:01"), ("type", "1")],
    );
    server.file("sys/class/net/bond0/bonding/slaves", "eno1 eno2\n");
    server.files(
        "sys/class/net/bond0.10",
        &[
            ("type", "1"),
            ("uevent", "DEVTYPE=vlan\nINTERFACE=bond0.10"),
        ],
    );
    server.folder("sys/class/net/bond0.10/lower_bond0");
    server.files("sys/class/net/lo", &[("type", "772")]);
    server.file(
        "proc/net/vlan/bond0.10",
        "bond0.10  VID: 10\t REORDER_HDR: 1\n",
    );
    server.file(
        "proc/net/bonding/bond0",
        "Slave Interface: eno1\nPermanent HW addr: 52:54:00:aa:bb:01\nSlave Interface: eno2\nPermanent HW addr: 52:54:00:AA:BB:02\n",
    );
    server.file("proc/net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask\nbond0 00000000 010200C0 0003 0 0 0 00000000\n");
    server.file(
        "proc/net/ipv6_route",
        "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 \
         00000000000000000000000000000000 00000100 00000001 00000000 00000001    bond0\n\
         20010db8000100000000000000000000 30 00000000000000000000000000000000 00 \
         20010db8000000000000000000000002 00000400 00000001 00000000 00000003    bond0\n\
         00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
         fe800000000000000000000000000001 00000400 00000001 00000000 00000003    bond0\n\
         00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
         00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n",
    );
    server.file(
        "proc/net/if_inet6",
        "20010db8000000000000000000000005 04 40 00 80    bond0\n\
         20010db80000000000000000deadbeef 04 40 00 01    bond0\n\
         fe8000000000000050540000000000aa 04 40 20 80    bond0\n\
         00000000000000000000000000000001 01 80 10 80       lo\n",
    );
    server.file(
        "etc/network/interfaces",
        "auto bond0\niface bond0 inet static\n address 192.0.2.5/24\n\
         iface bond0 inet6 static\n address 2001:DB8:0::5/64\n address 2001:db8::7\n netmask 64\n",
    );
}

#[test]
fn a_servers_hardware_and_disks_are_known() {
    let inventory = server().look();
    assert_eq!(
        (inventory.source, inventory.hostname.as_str()),
        (Source::Running, "web01")
    );
    assert_eq!(inventory.machine.model, "PowerEdge R640");
    assert_eq!(
        (
            inventory.machine.board.as_str(),
            inventory.machine.hypervisor.as_str()
        ),
        ("", "")
    );
    assert_eq!(
        (
            inventory.cpu.sockets,
            inventory.cpu.cores,
            inventory.cpu.threads
        ),
        (2, 4, 8)
    );
    assert_eq!(inventory.memory.hugepages_bytes, 6 << 20);
    assert_eq!(inventory.firmware.kind, FirmwareKind::Uefi);
    assert_eq!(inventory.firmware.has_fallback, Some(false));
    let names: Vec<&str> = inventory
        .disks
        .iter()
        .map(|disk| disk.name.as_str())
        .collect();
    assert_eq!(names, ["sda", "sdb"]);
    let disk = &inventory.disks[0];
    assert_eq!(
        (disk.bus.as_str(), disk.driver.as_str()),
        ("scsi", "megaraid_sas")
    );
    assert_eq!(
        (disk.bytes, disk.table.as_str(), disk.serial.as_str()),
        (200 << 20, "gpt", "600508")
    );
    assert_eq!(disk.last_partition_end, Some(406_848 * 512));
    let volume = |name: &str| {
        inventory
            .volume(name)
            .unwrap_or_else(|| panic!("{name}: {:?}", inventory.volumes))
    };
    assert_eq!(
        (volume("sda2").bytes, volume("sda2").content.kind.as_str()),
        (200_000 * 512, "crypto_LUKS")
    );
    assert_eq!(volume("luks-x").kind, VolumeKind::Crypt);
    assert_eq!(volume("vg0/root").on, ["luks-x"]);
    let logical = volume("vg0/my-swap").logical.clone().unwrap();
    assert_eq!(
        (logical.group.as_str(), logical.name.as_str()),
        ("vg0", "my-swap")
    );
    assert_eq!(logical.uuid, "012345-6789-abcd-ef01-2345-6789-abcdef");
    assert_eq!(inventory.disks_of("vg0/root"), ["sda"]);
    assert_eq!(inventory.disks_of("md0"), ["sda", "sdb"]);
    let array = volume("md0").array.clone().unwrap();
    assert_eq!(
        (array.level.as_str(), array.n_missing, array.state.as_str()),
        ("raid1", 1, "clean")
    );
}

#[test]
fn what_is_mounted_and_swapped_to_is_known() {
    let inventory = server().look();
    let mounts: Vec<_> = inventory
        .mounts
        .iter()
        .map(|mount| (mount.path.as_str(), mount.volume.as_str()))
        .collect();
    assert_eq!(
        mounts,
        [
            ("/", "vg0/root"),
            ("/boot", "md0"),
            ("/data x", "nas:/export"),
            ("/srv/bound", "vg0/root")
        ]
    );
    assert_eq!(inventory.mounts[0].fstab, "/dev/mapper/vg0-root");
    assert_eq!(inventory.mounts[0].options, "rw,relatime,errors=remount-ro");
    assert!(inventory.mounts[2].is_remote);
    assert_eq!(inventory.mounts[3].subvolume, "/var/x");
    let swaps: Vec<_> = inventory
        .swaps
        .iter()
        .map(|swap| (swap.volume.as_str(), swap.fstab.as_str(), swap.is_file))
        .collect();
    assert_eq!(
        swaps,
        [("vg0/my-swap", "UUID=s-s", false), ("/swap file", "", true)]
    );
    assert_eq!(inventory.boot.loader, "grub");
    assert_eq!(inventory.boot.initrd_tool, "initramfs-tools");
    let kernel = &inventory.boot.kernels[0];
    assert!(kernel.is_default);
    let place = |name: &str| {
        kernel
            .drivers
            .iter()
            .find(|driver| driver.hardware == name)
            .unwrap()
            .place
            .as_str()
    };
    assert_eq!(
        (place("ahci"), place("pvscsi"), place("nvme")),
        ("builtin", "modules", "nowhere")
    );
}

#[test]
fn cards_have_the_addresses_that_they_were_made_with() {
    let inventory = server().look();
    let nic = |name: &str| inventory.nics.iter().find(|nic| nic.name == name).unwrap();
    assert_eq!(nic("eno1").permanent_mac, "52:54:00:aa:bb:01");
    assert_eq!(nic("eno2").permanent_mac, "52:54:00:aa:bb:02");
    assert_eq!(
        (
            nic("eno2").driver.as_str(),
            nic("eno2").bus_address.as_str()
        ),
        ("tg3", "0000:01:00.1")
    );
    assert_eq!(
        (nic("bond0").kind, nic("bond0").method),
        (NicKind::Bond, AddressMethod::Static)
    );
    assert_eq!(nic("bond0").ports, ["eno1", "eno2"]);
    assert_eq!(nic("bond0").configured_in, ["/etc/network/interfaces"]);
    assert_eq!(
        (nic("bond0.10").kind, nic("bond0.10").vlan),
        (NicKind::Vlan, Some(10))
    );
    assert_eq!(nic("bond0.10").ports, ["bond0"]);
    let routes: Vec<_> = inventory
        .routes
        .iter()
        .map(|route| {
            (
                route.to.as_str(),
                route.gateway.as_str(),
                route.nic.as_str(),
            )
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("default", "192.0.2.1", "bond0"),
            ("2001:db8:1::/48", "2001:db8::2", "bond0"),
            ("default", "fe80::1", "bond0"),
        ]
    );
    // Of a copy of its files nobody can ask the kernel: what they say counts, each address once.
    assert_eq!(
        nic("bond0").addresses,
        ["2001:db8::5/64", "192.0.2.5/24", "2001:db8::7/64"]
    );
    assert!(
        inventory
            .remarks
            .iter()
            .any(|one| one.contains("no kernel can be asked"))
    );
    assert!(inventory.nics.iter().all(|nic| nic.name != "lo"));
}

#[test]
fn what_stays_behind_and_what_is_odd_is_found() {
    let inventory = server().look();
    let codes: Vec<&str> = inventory
        .findings
        .iter()
        .map(|found| found.code.as_str())
        .collect();
    for code in [
        "usb-dongle",
        "ipmi",
        "array-degraded",
        "no-efi-fallback",
        "remote-mount",
    ] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    assert!(
        inventory
            .findings
            .iter()
            .all(|found| found.level != Level::Blocker)
    );
    assert!(
        inventory.remarks[0].starts_with("dm-0 cannot be read"),
        "{:?}",
        inventory.remarks
    );
}

/// Adds a disk of a controller: what is above it in `/sys/devices`, its number there and its identity.
fn lun(server: &Server, name: &str, above: &str, number: &str, wwn: &str) {
    let device = format!("devices/{above}/{number}");
    let place = format!("sys/{device}/block/{name}");
    server.link(
        &format!("sys/block/{name}"),
        &format!("../{device}/block/{name}"),
    );
    server.files(
        &place,
        &[("size", "409600"), ("dev", &format!("65:{}", name.len()))],
    );
    server.files(&format!("{place}/queue"), &[("logical_block_size", "512")]);
    server.link(&format!("{place}/device"), &format!("../../../{number}"));
    server.files(
        &format!("sys/{device}"),
        &[("model", "LUN"), ("vendor", "NETAPP"), ("wwid", wwn)],
    );
}

#[test]
fn disks_on_a_storage_network_and_their_paths_are_known() {
    let server = server();
    let wwn = "naa.600a098038303053453f463045727643";
    let fc = |port: u32| {
        format!("pci0000:00/0000:05:00.{port}/host{port}/rport-{port}:0-2/target{port}:0:0")
    };
    lun(&server, "sdc", &fc(1), "1:0:0:1", wwn);
    lun(&server, "sdde", &fc(2), "2:0:0:1", wwn);
    lun(
        &server,
        "sdfgh",
        "platform/host9/session1/target9:0:0",
        "9:0:0:0",
        "naa.6001405aaaa",
    );
    server.files("sys/block/dm-9", &[("size", "409600"), ("dev", "253:9")]);
    let uuid = "mpath-3600a098038303053453f463045727643";
    server.files("sys/block/dm-9/dm", &[("name", "mpatha"), ("uuid", uuid)]);
    server.folder("sys/block/dm-9/slaves/sdc");
    server.folder("sys/block/dm-9/slaves/sdde");
    for driver in ["0000:05:00.1", "0000:05:00.2"] {
        let place = format!("sys/devices/pci0000:00/{driver}/driver");
        server.link(&place, "../../../bus/pci/drivers/lpfc");
    }
    server.file(
        "proc/self/mountinfo",
        "22 1 65:5 / / rw - ext4 /dev/sdfgh rw\n24 22 253:9 / /data rw - xfs /dev/mapper/mpatha rw\n",
    );
    let inventory = server.look();
    let disk = |name: &str| {
        let disk = inventory
            .disks
            .iter()
            .find(|disk| disk.name == name)
            .unwrap();
        (disk.bus.as_str(), disk.driver.as_str())
    };
    assert_eq!(
        (disk("sdc"), disk("sdde")),
        (("fc", "lpfc"), ("fc", "lpfc"))
    );
    assert_eq!(disk("sdfgh").0, "iscsi");
    let map = inventory.volume("mpatha").unwrap();
    assert_eq!((map.kind, map.on.len()), (VolumeKind::Multipath, 2));
    assert_eq!(inventory.disks_of("mpatha"), ["sdc", "sdde"]);
    let found = |code: &str| {
        let all = inventory.findings.iter().filter(|found| found.code == code);
        all.map(|found| (found.about.as_str(), found.level))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("multipath"), [("mpatha", Level::Warning)]);
    assert_eq!(found("root-on-network-disk"), [("sdfgh", Level::Blocker)]);
    let paths = ["sdc", "sdde"].map(|name| (name, Level::Warning));
    assert_eq!(found("network-disk"), paths);
}

#[test]
fn cards_with_virtual_functions_and_those_that_compute_stay_behind() {
    let server = server();
    let pci = "sys/bus/pci/devices";
    server.files(
        &format!("{pci}/0000:3b:00.0"),
        &[
            ("class", "0x020000"),
            ("vendor", "0x8086"),
            ("sriov_numvfs", "8"),
            ("sriov_totalvfs", "64"),
        ],
    );
    server.files(
        &format!("{pci}/0000:3b:00.1"),
        &[
            ("class", "0x020000"),
            ("vendor", "0x8086"),
            ("sriov_numvfs", "0"),
            ("sriov_totalvfs", "64"),
        ],
    );
    let inventory = server.look();
    let all = inventory.findings.iter();
    let found: Vec<_> = all.filter(|found| found.code == "sriov").collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].about, "0000:3b:00.0");
    assert!(
        found[0].what.contains('8') && !found[0].advice.is_empty(),
        "{found:?}"
    );
}

#[test]
fn names_of_logical_volumes_have_their_dashes() {
    assert_eq!(paths::logical_name("vg0-root"), "vg0/root");
    assert_eq!(paths::logical_name("my--vg-my--root-x"), "my-vg/my-root-x");
    assert_eq!(paths::logical_name("plain"), "plain");
}

#[test]
fn this_system_is_known_and_one_without_anything_is_no_trouble() {
    let inventory = of_running(Path::new("/"), false, 0);
    assert!(inventory.cpu.threads > 0);
    assert!(inventory.memory.total_bytes > 0);
    assert!(!inventory.hostname.is_empty());
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(of_running(empty.path(), true, 0).disks.len(), 0);
}
