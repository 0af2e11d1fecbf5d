//! Creating VHD, VHDX and VDI: the options that they take, and what qemu-img sees.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::World;

const MIB: u64 = 1 << 20;

#[test]
fn sectors_of_4096_bytes_are_a_vhdx_s_choice() {
    let world = World::new();
    world.raw("disk.raw", 8 * MIB, &[(MIB, &[7; 5000])]);
    world.done("convert disk.raw a.vhdx --sector-size 4096 --block-size 8M");
    let info = world.json("info a.vhdx");
    let text = info.to_string();
    assert!(text.contains("\"logical_sector_size\":4096"), "{text}");
    assert!(
        text.contains(&format!("\"unit_bytes\":{}", 8 * MIB)),
        "{text}"
    );
    world.done("compare disk.raw a.vhdx");
    world.done("create b.vhdx 1G --sector-size 512");
    world.fails("create c.vhdx 1G --sector-size 1024", 2, "512");
    world.fails("create c.vhd 1G --sector-size 4096", 2, "sector-size");
}

#[test]
fn every_subformat_is_what_qemu_img_sees() {
    let world = World::new();
    world.raw("disk.raw", 8 * MIB, &[(MIB, &[7; 5000])]);
    for (name, subformat, qemu) in [
        ("a.vhd", "dynamic", "vpc"),
        ("b.vhd", "fixed", "vpc"),
        ("c.vhdx", "dynamic", "vhdx"),
        ("d.vhdx", "fixed", "vhdx"),
        ("e.vdi", "dynamic", "vdi"),
        ("f.vdi", "fixed", "vdi"),
    ] {
        world.done(&format!("convert disk.raw {name} --subformat {subformat}"));
        let size = ["info", "--output=json", "-f", qemu, name];
        let info: serde_json::Value = serde_json::from_str(&world.peer("qemu-img", &size)).unwrap();
        assert_eq!(info["virtual-size"], 8 * MIB, "{name}");
        world.peer(
            "qemu-img",
            &["compare", "-f", "raw", "-F", qemu, "disk.raw", name],
        );
        assert_eq!(
            world.json(&format!("info {name}"))["subformat"],
            subformat,
            "{name}"
        );
    }
}
