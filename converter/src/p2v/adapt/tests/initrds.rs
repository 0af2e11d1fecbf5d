//! Plans about initrds.

use hako_guest::cpio::Writer;
use hako_guest::initrd::{Contents, Limits};

use super::*;

fn initrd(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        let content = content.as_bytes();
        writer.file(path.as_bytes(), 0o644, content).unwrap();
    }
    writer.finish().unwrap()
}

/// Adds kernels of these versions with their initrds, the first one that of the default entry; an entry
/// for repairs has the same initrd, by a link.
fn with_kernels(mut fs: MemoryFs, kernels: &[(&str, Vec<u8>)]) -> MemoryFs {
    let mut menu = String::new();
    for (version, initrd) in kernels {
        let module = "kernel/drivers/scsi/vmw_pvscsi.ko";
        let folder = format!("/lib/modules/{version}");
        let disks = "kernel/drivers/ata/ahci.ko\nkernel/drivers/nvme/host/nvme.ko\n";
        fs = fs
            .file(&format!("/boot/vmlinuz-{version}"), "kernel")
            .file(&format!("/boot/initrd.img-{version}"), initrd)
            .file(&format!("{folder}/modules.dep"), format!("{module}:\n"))
            .file(&format!("{folder}/modules.builtin"), disks)
            .file(&format!("{folder}/{module}"), "pvscsi")
            .link(
                &format!("/initrd-{version}"),
                &format!("boot/initrd.img-{version}"),
            );
        for (title, path) in [("", "/boot/initrd.img"), (" (recovery)", "/initrd")] {
            menu += &format!(
                "menuentry 'Linux {version}{title}' {{\n linux /boot/vmlinuz-{version} \
                 root=UUID=root-uuid ro\n initrd {path}-{version}\n}}\n"
            );
        }
    }
    menu += "menuentry 'memtest' {\n linux16 /boot/memtest\n}\n";
    fs.file("/boot/grub/grub.cfg", menu)
}

/// Returns what the initrd of a kernel holds once the plan is carried out; none if nothing is appended.
fn fitted(plan: &Plan, version: &str, old: &[u8]) -> Option<Contents> {
    let path = format!("/boot/initrd.img-{version}");
    let change = plan.changes.iter().find(|change| change.path == path)?;
    match &change.what {
        What::Append { len, bytes } => {
            assert_eq!(*len, old.len() as u64);
            let whole = [old, bytes].concat();
            Some(Contents::read(&mut &whole[..], &Limits::default()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

fn has_driver(contents: &Contents, version: &str) -> bool {
    contents.has(&format!(
        "lib/modules/{version}/kernel/drivers/scsi/vmw_pvscsi.ko"
    ))
}

#[test]
fn the_initrd_of_every_boot_entry_gets_its_drivers_once() {
    let scripts = &[("scripts/functions", ""), ("scripts/init-top/udev", "")];
    let path = "lib/modules/6.1.0-3/kernel/drivers/scsi/vmw_pvscsi.ko";
    let complete = initrd(&[("scripts/functions", ""), (path, "pvscsi")]);
    let booster = initrd(&[("etc/booster.init.yaml", "")]);
    let kernels = [
        ("6.1.0-1", initrd(scripts)),
        ("6.1.0-2", initrd(scripts)),
        ("6.1.0-3", complete),
        ("6.1.0-4", booster),
    ];
    let root = || with_kernels(debian(), &kernels).build();
    let plan = planned(vec![(None, root())], &request());
    for (version, old) in &kernels[..2] {
        let contents = fitted(&plan, version, old).unwrap();
        assert!(has_driver(&contents, version), "{version}");
    }
    assert!(fitted(&plan, "6.1.0-3", &kernels[2].1).is_none());
    let appended = plan.changes.iter();
    let appended = appended.filter(|change| matches!(change.what, What::Append { .. }));
    assert_eq!(appended.count(), 2);
    // What cannot be is told, once.
    let [remark] = &plan.remarks[..] else {
        panic!("{:?}", plan.remarks)
    };
    assert!(
        remark.contains("Linux 6.1.0-4") && remark.contains("booster"),
        "{remark}"
    );

    let only = Request {
        only_default: true,
        ..request()
    };
    let plan = planned(vec![(None, root())], &only);
    assert!(fitted(&plan, "6.1.0-1", &kernels[0].1).is_some());
    assert!(fitted(&plan, "6.1.0-2", &kernels[1].1).is_none());
    let about = |version: &str| {
        let all = plan.remarks.iter();
        all.filter(|one| one.contains(version)).count()
    };
    assert_eq!(
        (about("6.1.0-2"), about("6.1.0-3"), about("6.1.0-4")),
        (1, 0, 1)
    );
}

#[test]
fn copies_of_texts_in_an_initrd_change_as_the_texts_themselves() {
    let texts = [
        ("scripts/functions", ""),
        (
            "cryptroot/crypttab",
            "c /dev/sda1 none luks\nd UUID=y none luks\n",
        ),
        ("etc/crypttab", "c UUID=y none luks\n"),
        (
            "conf/conf.d/cryptroot",
            "target=c,source=/dev/sda1,key=none,rootdev\n",
        ),
        ("conf/conf.d/resume", "RESUME=/dev/sda9\n"),
        ("etc/mdadm/mdadm.conf", "DEVICE /dev/sda1\n"),
        ("etc/cmdline.d/95root.conf", " root=/dev/sda2 rd.md=0\n"),
        ("etc/lvm/devices/system.devices", "IDTYPE=sys_wwid\n"),
        ("etc/lvm/lvmlocal.conf", "# own\n"),
    ];
    let old = initrd(&texts);
    let root = |initrd| with_kernels(debian(), &[("6.1.0-1", initrd)]).build();
    let boot = || MemoryFs::new("ext4").uuid("boot-uuid").build();
    let plan = planned(vec![(None, boot()), (None, root(old.clone()))], &request());
    let contents = fitted(&plan, "6.1.0-1", &old).unwrap();
    for (path, new) in [
        (
            "cryptroot/crypttab",
            "c UUID=boot-uuid none luks\nd UUID=y none luks\n",
        ),
        ("etc/crypttab", "c UUID=y none luks\n"),
        (
            "conf/conf.d/cryptroot",
            "target=c,source=UUID=boot-uuid,key=none,rootdev\n",
        ),
        ("conf/conf.d/resume", "RESUME=/dev/sda9\n"),
        ("etc/mdadm/mdadm.conf", "DEVICE partitions\n"),
        (
            "etc/cmdline.d/95root.conf",
            " root=UUID=root-uuid rd.md=0\n",
        ),
        (
            "etc/lvm/lvmlocal.conf",
            "# own\n\n# by hako\ndevices/use_devicesfile=0\n",
        ),
    ] {
        assert_eq!(contents.text(path), Some(new), "{path}");
    }
    // What is fitted stays as it is.
    let path = "/boot/initrd.img-6.1.0-1";
    let change = plan.changes.iter().find(|change| change.path == path);
    let What::Append { bytes, .. } = &change.unwrap().what else {
        panic!("{change:?}")
    };
    let new = [&old[..], bytes].concat();
    let plan = planned(vec![(None, boot()), (None, root(new))], &request());
    assert!(plan.changes.is_empty(), "{plan:?}");
}

#[test]
fn an_initrd_with_udev_knows_the_names_of_cards_too() {
    let (path, inside) = (
        "/etc/systemd/network/10-hako-enp3s0.link",
        "etc/systemd/network/10-hako-enp3s0.link",
    );
    let own = "etc/udev/rules.d/70-persistent-net.rules";
    let rule = |mac: &str| format!("ATTR{{address}}==\"{mac}\", NAME=\"enp3s0\"\n");
    let (was, now) = ("24:6e:96:aa:bb:01", "00:50:56:00:12:34");
    let udev = ("usr/lib/systemd/systemd-udevd", "");
    let wanted = Request {
        nics: vec![NicName {
            name: "enp3s0".into(),
            mac: now.parse().unwrap(),
        }],
        were: vec![NicName {
            name: "enp3s0".into(),
            mac: was.parse().unwrap(),
        }],
        ..request()
    };
    let hardware = "lib/modules/6.1.0-1/kernel/drivers/scsi/vmw_pvscsi.ko";
    for has_udev in [true, false] {
        let rule_was = rule(was);
        let mut files = vec![("scripts/functions", ""), (hardware, ""), (own, &rule_was)];
        files.extend(has_udev.then_some(udev));
        let old = initrd(&files);
        let root = debian()
            .file("/lib/systemd/network/99-default.link", "")
            .file("/etc/network/interfaces", "iface enp3s0 inet dhcp\n");
        let root = with_kernels(root, &[("6.1.0-1", old.clone())]);
        let plan = planned(vec![(None, root.build())], &wanted);
        let link = plan.changes.iter().find(|change| change.path == path);
        let What::Create { bytes, .. } = &link.unwrap().what else {
            panic!("{link:?}")
        };
        let contents = fitted(&plan, "6.1.0-1", &old).unwrap();
        assert_eq!(contents.text(own), Some(rule(now).as_str()));
        let expected = has_udev.then(|| std::str::from_utf8(bytes).unwrap());
        assert_eq!(contents.text(inside), expected);
        // Nothing but what was missing goes in.
        assert!(!contents.has("lib/modules/6.1.0-1/modules.dep"));
    }
}
