//! `hako p2v inventory` beside what lsblk, blkid and ip say of the same machine, on which a kernel runs
//! with LVM, MD and mounts: from the inside, and afterwards from its disks.

use std::fs::File;
use std::path::Path;

use hako_tests::bed::Bed;
use hako_tests::{hako, run, run_program};
use serde_json::Value;

/// Makes volumes, mounts some, and has everybody say what is there.
const SCRIPT: &str = r#"
    one=$(readlink /dev/disk0) two=$(readlink /dev/disk1)
    printf 'label: gpt\nsize=64M, name=boot\nsize=300M, type=lvm\n' | sfdisk -q $one
    printf 'label: dos\nsize=80M, type=fd\nsize=80M, type=fd\n' | sfdisk -q $two
    udevadm settle
    mkfs.ext4 -q -L boot ${one}1
    pvcreate -q ${one}2
    vgcreate -q my-vg ${one}2
    lvcreate -q -y -n my-root -L 160M my-vg
    lvcreate -q -y -n swap -L 40M my-vg
    mkfs.xfs -q -f -L root /dev/my-vg/my-root || mkfs.ext4 -q -L root /dev/my-vg/my-root
    mkswap -q /dev/my-vg/swap
    swapon /dev/my-vg/swap
    mdadm --quiet --create /dev/md0 --run --homehost=any --level=1 --metadata=1.2 --raid-devices=2 ${two}1 ${two}2
    mkfs.ext4 -q -L data /dev/md0
    mkdir -p /mnt/root /mnt/data
    mount /dev/my-vg/my-root /mnt/root
    mount /dev/md0 /mnt/data
    mdadm --wait /dev/md0 || true
    udevadm settle
    /work/hako p2v inventory --json >/work/running.json || [ $? = 3 ]
    lsblk -J -b -o NAME,TYPE,SIZE,MOUNTPOINT >/work/lsblk.json
    for name in $(lsblk -n -r -o NAME | sort -u); do
        device=/dev/$name
        [ -e $device ] || device=/dev/mapper/$name
        blkid -p -o export $device >/work/$name.blkid || true
    done
    ip -j address >/work/ip.json
    umount /mnt/root /mnt/data
    swapoff -a
    mdadm --stop --quiet /dev/md0
    vgchange -q -an my-vg
"#;

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// All devices that lsblk lists, whatever they lie on, each once.
fn devices(list: &Value, all: &mut Vec<Value>) {
    for device in list.as_array().into_iter().flatten() {
        if !all.iter().any(|known| known["name"] == device["name"]) {
            all.push(device.clone());
        }
        devices(&device["children"], all);
    }
}

/// A volume of an inventory by a name of lsblk's.
fn volume<'a>(inventory: &'a Value, name: &str) -> Option<&'a Value> {
    let name = match name {
        "my--vg-my--root" => "my-vg/my-root",
        "my--vg-swap" => "my-vg/swap",
        name => name,
    };
    let lists = ["disks", "volumes"].map(|key| inventory[key].as_array().unwrap());
    let mut all = lists.into_iter().flatten();
    all.find(|volume| volume["name"] == name)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[test]
fn a_machine_is_what_its_kernel_and_lsblk_say() {
    let folder = tempfile::tempdir().unwrap();
    let disks = ["one.raw", "two.raw"].map(|name| folder.path().join(name));
    for disk in &disks {
        File::create(disk).unwrap().set_len(400 << 20).unwrap();
    }
    let Some(bed) = Bed::new(SCRIPT) else {
        return;
    };
    std::fs::copy(hako(), bed.path("hako")).unwrap();
    let bed = disks.iter().fold(bed, |bed, disk| bed.disk(disk));
    bed.run().ok();
    let running = read(&bed.path("running.json"));
    let mut listed = Vec::new();
    devices(&read(&bed.path("lsblk.json"))["blockdevices"], &mut listed);
    assert!(listed.len() > 7, "{listed:?}");
    for device in &listed {
        let name = device["name"].as_str().unwrap();
        if ["loop", "sr", "fd", "zram", "nbd"]
            .iter()
            .any(|begin| name.starts_with(begin))
        {
            continue;
        }
        let known = volume(&running, name).unwrap_or_else(|| panic!("{name}: {running:#}"));
        assert_eq!(
            known["bytes"].to_string(),
            device["size"].to_string().trim_matches('"'),
            "{name}"
        );
        let told = std::fs::read_to_string(bed.path(&format!("{name}.blkid"))).unwrap();
        for (ours, theirs) in [
            ("/content/kind", "TYPE="),
            ("/content/uuid", "UUID="),
            ("/content/label", "LABEL="),
            ("/partition/uuid", "PART_ENTRY_UUID="),
            ("/table", "PTTYPE="),
        ] {
            let mut values = told.lines().filter_map(|line| line.strip_prefix(theirs));
            let expected = values.next().unwrap_or_default();
            assert_eq!(text(known, ours), expected, "{name}: {known:#} {told}");
        }
        let path = text(device, "/mountpoint");
        if path.starts_with("/mnt/") {
            let mut mounts = running["mounts"].as_array().unwrap().iter();
            let mount = mounts.find(|mount| mount["path"] == path).unwrap();
            assert_eq!(mount["volume"], known["name"]);
            assert!(mount["used_bytes"].as_u64().unwrap() < mount["total_bytes"].as_u64().unwrap());
        }
    }
    assert_eq!(running["swaps"][0]["volume"], "my-vg/swap");
    let array = volume(&running, "md0").unwrap();
    assert_eq!(
        (text(array, "/array/level"), &array["array"]["n_missing"]),
        ("raid1", &0.into())
    );
    assert_eq!(array["on"].as_array().unwrap().len(), 2);
    assert_network(&running, &read(&bed.path("ip.json")));
    assert_same_volumes(&running, &disks);
}

#[track_caller]
fn assert_network(running: &Value, links: &Value) {
    for nic in running["nics"].as_array().unwrap() {
        let mut links = links.as_array().unwrap().iter();
        let link = links.find(|link| link["ifname"] == nic["name"]).unwrap();
        assert_eq!(nic["mac"], link["address"]);
        assert!(
            nic["driver"] == "" || nic["permanent_mac"] == link["address"],
            "{nic}"
        );
    }
}

/// From the disks all is the same: what is in the volumes, and what lies on what.
#[track_caller]
fn assert_same_volumes(running: &Value, disks: &[std::path::PathBuf]) {
    let [one, two] = [&disks[0], &disks[1]].map(|path| path.to_str().unwrap());
    let images = run(&["p2v", "inventory", "--json", "--deep", one, two]);
    let images = images.expect_code(0).json();
    for volume in running["volumes"].as_array().unwrap() {
        let uuid = text(volume, "/content/uuid");
        let mut all = images["volumes"].as_array().unwrap().iter();
        // Members of an array share its identity.
        let same = all.find(|other| {
            text(other, "/content/uuid") == uuid && other["bytes"] == volume["bytes"]
        });
        let same = same.unwrap_or_else(|| panic!("{volume:#} is not in {images:#}"));
        for key in [
            "/kind",
            "/content/kind",
            "/content/label",
            "/partition/kind",
            "/logical/uuid",
            "/array/uuid",
            "/array/metadata",
        ] {
            let ours = text(same, key);
            let is_known = !text(volume, key).is_empty();
            assert!(
                !is_known || ours == text(volume, key),
                "{key}: {volume:#} {same:#}"
            );
        }
        assert_eq!(
            volume["on"].as_array().unwrap().len(),
            same["on"].as_array().unwrap().len()
        );
    }
    let table = run_program("sfdisk", &["-J", one]).ok();
    let table: Value = serde_json::from_str(&table).unwrap();
    let id = text(&table, "/partitiontable/id").to_lowercase();
    assert_eq!(text(&images, "/disks/0/table_uuid"), id);
}

#[test]
fn debians_of_the_bed_are_known_by_their_disks() {
    for (name, firmware, loader, root) in [
        ("debian-bios", "bios", "grub", "ext4"),
        ("debian-uefi", "uefi", "grub", "ext4"),
        ("fedora-like", "unknown", "grub-bls", "xfs"),
    ] {
        let Some(disk) = hako_tests::guests::disk(name) else {
            return;
        };
        let disk = disk.to_str().unwrap();
        let known = run(&["p2v", "inventory", "--json", "--deep", disk])
            .expect_code(0)
            .json();
        assert_eq!(text(&known, "/os/id"), "debian");
        assert_eq!(
            (text(&known, "/firmware/kind"), text(&known, "/boot/loader")),
            (firmware, loader)
        );
        assert_eq!(
            (
                text(&known, "/mounts/0/volume"),
                text(&known, "/mounts/0/kind")
            ),
            ("vg0/root", root)
        );
        assert_eq!(text(&known, "/swaps/0/volume"), "vg0/swap");
        let kernel = &known["boot"]["kernels"][0];
        assert_eq!(kernel["is_default"], true);
        // Debian's has what any machine may need, the other one what its own had.
        let mut drivers = kernel["drivers"].as_array().unwrap().iter();
        let pvscsi = drivers
            .find(|driver| driver["hardware"] == "pvscsi")
            .unwrap();
        let is_in = name != "fedora-like";
        assert_eq!(pvscsi["place"], if is_in { "initrd" } else { "modules" });
        let modules = kernel["initrd_modules"].as_array().unwrap();
        assert!(modules.contains(&"ahci".into()));
        assert_eq!(modules.contains(&"vmw_pvscsi".into()), is_in);
        assert!(known["volumes"][1]["used_bytes"].as_u64().unwrap() > 1 << 20);
    }
}
