//! What P2V reads besides disks: recordings of what a server used, and plans that people edit.

use std::sync::Arc;

use hako_block::{Crc32c, MemoryStorage};
use hako_converter::p2v::adapt::{self, NicName, Request};
use hako_converter::p2v::inventory::model::Inventory;
use hako_converter::p2v::inventory::{of_images, of_running};
use hako_converter::p2v::plan::history::from_text;
use hako_converter::p2v::plan::model::Target;
use hako_converter::p2v::plan::{PlanRequest, Size, check, from_toml, plan, to_json, to_toml};
use hako_converter::p2v::sample::{Ring, Sample};
use hako_formats::machine::Mac;
use hako_guest::Volumes;
use hako_guest::boot::Menu;
use hako_guest::root::{Root, installations};
use hako_guest::testkit::MemoryFs;

/// A text of sysstat, atop or collectl: what it says makes a plan that reads back.
pub fn p2v_recording(bytes: &[u8]) {
    let Ok(recording) = from_text(bytes) else {
        return;
    };
    let request = PlanRequest {
        name: None,
        target: Target::Vmware,
        size: Size::Measured,
        keep_mirrors: false,
        networks: Vec::new(),
    };
    let recordings = vec![("recording".to_owned(), recording)];
    let plan = plan(&Inventory::default(), recordings, &request).expect("an inventory of nothing");
    let again = from_toml(&to_toml(&plan)).expect("our own text is read");
    assert_eq!(plan, again);
}

/// A ring file of samples. Checksums are made right, or nothing behind them would ever be looked at.
pub fn p2v_samples(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for slot in bytes
        .get_mut(4096..)
        .unwrap_or_default()
        .chunks_exact_mut(512)
    {
        let crc = checksum(&slot[4..]);
        slot[..4].copy_from_slice(&crc.to_le_bytes());
        let _ = Sample::decode(slot);
    }
    if let Ok(ring) = Ring::open(Arc::new(MemoryStorage::new("ring", bytes))) {
        ring.samples().for_each(|sample| {
            sample.expect("it is in memory");
        });
    }
}

/// A plan.
pub fn p2v_plan(bytes: &[u8]) {
    let Ok(mut plan) = from_toml(&String::from_utf8_lossy(bytes)) else {
        return;
    };
    let _ = check(&mut plan, Some(&Inventory::default()));
    let _ = (plan.blockers().len(), to_toml(&plan), to_json(&plan));
}

/// Where texts are that an inventory reads and `adapt` changes.
const TEXTS: &[&str] = &[
    "etc/NetworkManager/system-connections/x.nmconnection",
    "etc/adjtime",
    "etc/crypttab",
    "etc/default/grub",
    "etc/fstab",
    "etc/lvm/lvm.conf",
    "etc/mdadm/mdadm.conf",
    "etc/netplan/1.yaml",
    "etc/network/interfaces",
    "etc/os-release",
    "etc/postgresql/15/main/postgresql.conf",
    "etc/resolv.conf",
    "etc/sysconfig/network-scripts/ifcfg-x",
    "etc/sysconfig/network-scripts/route6-x",
    "etc/sysconfig/network/routes",
    "etc/systemd/network/1.link",
    "etc/systemd/network/1.netdev",
    "etc/systemd/network/1.network",
    "etc/udev/rules.d/70-persistent-net.rules",
    "proc/cmdline",
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/net/bonding/bond0",
    "proc/net/if_inet6",
    "proc/net/ipv6_route",
    "proc/net/route",
    "proc/net/vlan/x",
    "proc/self/mountinfo",
    "proc/swaps",
    "run/udev/data/b8:0",
    "sys/firmware/efi/efivars/Boot0001-8be4df61-93ca-11d2-aa0d-00e098032b8c",
];

/// A text of a server behind the line that says where it is: an inventory of a system with it, from a
/// disk and from a folder, and a plan to fit that.
pub fn p2v_texts(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let wanted = parts.next().unwrap_or_default();
    let text = parts.next().unwrap_or_default();
    let mut paths = TEXTS.iter();
    let known = paths.find(|path| path.as_bytes() == wanted);
    let path = known.unwrap_or(&TEXTS[wanted.len() % TEXTS.len()]);
    let fs = MemoryFs::new("ext4")
        .uuid("root-uuid")
        .file("/etc/os-release", "ID=x\n")
        .dir("/usr/lib/systemd/system")
        .file(&format!("/{path}"), text);
    let volumes = Volumes::in_memory().disk(vec![(None, fs.build())]);
    let inventory = of_images(&volumes, &[], true, 0).expect("a disk in memory");
    let json = inventory.to_json().expect("data").to_string();
    assert!(Inventory::from_json(&json).is_ok_and(|again| again == inventory));
    let installed = installations(&volumes);
    let root = installed.first().map(|one| Root::mount(&volumes, one));
    if let Some(Ok(root)) = root {
        let guest = adapt::Guest {
            volumes: &volumes,
            root: &root,
            menu: &Menu::read(&volumes, Some(&root)),
        };
        let nic = |mac: u8| NicName {
            name: "x".into(),
            mac: Mac([2, 0, 0, 0, 0, mac]),
        };
        let request = Request {
            target: Target::Vmware,
            serial_console: true,
            mask_agents: true,
            nics: vec![nic(1)],
            were: vec![nic(2)],
            macs: Vec::new(),
            only_default: false,
        };
        let _ = adapt::plan(&guest, &request);
    }
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["sys/block/sda/size", "sys/class/net/x/type", path] {
        let file = folder.path().join(name);
        let content = if name == *path { text } else { b"1\n" };
        let made = std::fs::create_dir_all(file.parent().unwrap_or(folder.path()));
        made.and_then(|()| std::fs::write(&file, content))
            .expect("a file");
    }
    let _ = of_running(folder.path(), true, 0).to_json();
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.value()
}
