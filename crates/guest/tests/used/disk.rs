//! Swap areas, and a whole disk: gaps between partitions, and a volume group.

use super::ext::make_ext;
use super::*;

#[test]
fn of_a_swap_area_only_the_header_is_in_use() {
    if !have(&["mkswap"]) {
        return;
    }
    let image = Image::empty(32 * MIB);
    run("mkswap", &["-q", image.text()]);
    let ours = used(&image);
    assert_eq!(ours.n_bytes(), ENDS_BYTES);
    // Suspended: all of it.
    let file = File::options().write(true).open(image.path()).unwrap();
    file.write_all_at(b"S1SUSPEND\0", 4086).unwrap();
    let map = map_of(&[&image], false);
    assert_eq!(map.used(0, &(0..32 * MIB)).unwrap().n_bytes(), 32 * MIB);
}

/// Runs a command of LVM on one device only, without the kernel's device-mapper.
fn lvm(line: &str, device: &str) {
    let line = format!(
        "LVM_SUPPRESS_FD_WARNINGS=1 lvm {line} --driverloaded n --config 'devices {{ \
         use_devicesfile=0 filter=[\"a|^{device}$|\",\"r|.*|\"] }} global {{ locking_type=0 }}' \
         2>/dev/null"
    );
    run("sh", &["-c", &line]);
}

#[test]
fn of_a_disk_gaps_are_in_and_free_extents_of_a_group_are_not() {
    if !have(&["sfdisk", "lvm", "mke2fs", "losetup"]) || !rustix::process::geteuid().is_root() {
        return;
    }
    let image = Image::empty(256 * MIB);
    let script = "label: gpt\nstart=4M, size=16M, type=L\nstart=24M, size=200M, type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n";
    let path = image.folder().join("script");
    fs::write(&path, script).unwrap();
    let sfdisk = format!("sfdisk -q {} < {}", image.text(), path.display());
    run("sh", &["-c", &sfdisk]);
    let offset = format!("offset={}", 4 * MIB);
    run(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "1024",
            "-E",
            &offset,
            image.text(),
            "16384",
        ],
    );
    let device = run(
        "losetup",
        &[
            "-f",
            "--show",
            "-o",
            "24M",
            "--sizelimit",
            "200M",
            image.text(),
        ],
    );
    let device = device.trim();
    lvm(
        &format!("pvcreate -q -y --metadatacopies 2 {device}"),
        device,
    );
    lvm(&format!("vgcreate -q -s 1m hako-vg {device}"), device);
    for (name, len) in [("a", 20), ("gone", 10), ("swap", 8), ("raw", 4)] {
        lvm(
            &format!("lvcreate -q -y -an -Zn -Wn -l {len} -n {name} hako-vg"),
            device,
        );
    }
    lvm("lvremove -q -y hako-vg/gone", device);
    run("sh", &["-c", &format!("sync; losetup -d {device}")]);
    let file = File::options().write(true).open(image.path()).unwrap();
    let put = |made: &Image, at: u64| {
        let bytes = fs::read(made.path()).unwrap();
        file.write_all_at(&bytes, at).unwrap();
    };
    put(&make_ext("-t ext4 -b 1024", 20 * MIB), 25 * MIB);
    let swap = Image::empty(8 * MIB);
    run("mkswap", &["-q", swap.text()]);
    put(&swap, 55 * MIB);
    let map = map_of(&[&image], false);
    let survey = map.survey(0, &mut |_| Ok(())).unwrap();
    let of = |name: &str| survey.iter().find(|one| one.name == name).unwrap();
    assert_eq!(of("hako-vg/raw").used_bytes, 4 * MIB);
    assert!(of("hako-vg/raw").is_whole && !of("hako-vg/a").is_whole);
    assert_eq!(of("hako-vg/a").bytes, 20 * MIB);
    assert!(of("hako-vg/a").used_bytes < 8 * MIB, "{survey:?}");
    assert_eq!(
        (of("hako-vg/swap").bytes, of("hako-vg/swap").used_bytes),
        (8 * MIB, 4096)
    );
    let ours = used_of(&map, 0, len_of(&image));
    assert!(ours.within(&(45 * MIB..55 * MIB)).is_empty(), "{survey:?}");
    assert!(ours.within(&(67 * MIB..222 * MIB)).is_empty(), "{survey:?}");
    // Gaps, and what LVM keeps for itself.
    for range in [MIB..4 * MIB, 20 * MIB..25 * MIB, 223 * MIB..256 * MIB] {
        assert_eq!(ours.within(&range), Ranges::of(range.clone()), "{range:?}");
    }
}
