//! Plans for guests in memory.

use std::sync::Arc;

use hako_guest::boot::Menu;
use hako_guest::root::{Root, installations};
use hako_guest::testkit::MemoryFs;
use hako_guest::{FileSystem, Volumes};

use super::*;

mod boot;
mod devices;
mod initrds;
mod nics;

const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

fn request() -> Request {
    Request {
        target: Target::Vmware,
        serial_console: false,
        mask_agents: false,
        nics: Vec::new(),
        were: Vec::new(),
        macs: Vec::new(),
        only_default: false,
    }
}

fn debian() -> MemoryFs {
    MemoryFs::new("ext4")
        .uuid("root-uuid")
        .file("/etc/os-release", "ID=debian\n")
        .dir("/usr/lib/systemd/system")
        .dir("/etc/systemd/system")
        .dir("/boot/efi")
}

/// Plans for disks of these file systems, one partition each.
fn planned(parts: Vec<(Option<&'static str>, Arc<dyn FileSystem>)>, request: &Request) -> Plan {
    planned_on(&Volumes::in_memory().disk(parts), request)
}

/// Plans for the first system on these disks.
fn planned_on(volumes: &Volumes, request: &Request) -> Plan {
    let installed = installations(volumes);
    let root = Root::mount(volumes, &installed[0]).unwrap();
    let menu = Menu::read(volumes, Some(&root));
    let guest = Guest {
        volumes,
        root: &root,
        menu: &menu,
    };
    plan(&guest, request).unwrap()
}

#[track_caller]
fn new_text(plan: &Plan, path: &str) -> String {
    let change = plan.changes.iter().find(|change| change.path == path);
    match &change
        .unwrap_or_else(|| panic!("{path} stays: {plan:?}"))
        .what
    {
        What::Replace { new, .. } => String::from_utf8(new.clone()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_named_by_its_place_is_called_by_its_uuid() {
    let fstab = "# /dev/sda1 was here\n/dev/sda2\t/  ext4 errors=remount-ro 0 1\n\
        /dev/sda1 /boot ext4 defaults 0 2\nLABEL=x /x ext4 defaults 0 2\n\
        /dev/mapper/vg-a /a ext4 defaults 0 2\n/dev/sdc1 /data xfs defaults 0 2\n\
        /dev/sda1 /wrong xfs defaults 0 0\n";
    let root = debian()
        .file("/etc/fstab", fstab)
        .file(
            "/etc/crypttab",
            "c /dev/sda1 none luks\nd UUID=y none luks\n",
        )
        .file("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/sda9\n")
        .file(
            "/etc/default/grub",
            "GRUB_CMDLINE_LINUX=\"root=/dev/sda2 quiet\"\n",
        )
        .file(
            "/etc/mdadm/mdadm.conf",
            "DEVICE /dev/sda1 /dev/sdb1\nARRAY /dev/md0 UUID=1\n",
        )
        .file(
            "/etc/lvm/lvm.conf",
            "a {\n  filter = [ \"a|/dev/sda.*|\", \"r|.*|\" ]\n}\n",
        )
        .file("/etc/lvm/devices/system.devices", "IDTYPE=sys_wwid\n");
    let boot = MemoryFs::new("ext4").uuid("boot-uuid");
    let plan = planned(vec![(None, boot.build()), (None, root.build())], &request());
    assert_eq!(
        new_text(&plan, "/etc/fstab"),
        "# /dev/sda1 was here\nUUID=root-uuid\t/  ext4 errors=remount-ro 0 1\n\
        UUID=boot-uuid /boot ext4 defaults 0 2\nLABEL=x /x ext4 defaults,nofail 0 2\n\
        /dev/mapper/vg-a /a ext4 defaults,nofail 0 2\n/dev/sdc1 /data xfs defaults,nofail 0 2\n\
        /dev/sda1 /wrong xfs defaults 0 0\n"
    );
    let crypttab = new_text(&plan, "/etc/crypttab");
    assert_eq!(crypttab, "c UUID=boot-uuid none luks\nd UUID=y none luks\n");
    let grub = new_text(&plan, "/etc/default/grub");
    assert_eq!(grub, "GRUB_CMDLINE_LINUX=\"root=UUID=root-uuid quiet\"\n");
    let mdadm = new_text(&plan, "/etc/mdadm/mdadm.conf");
    assert_eq!(mdadm, "DEVICE partitions\nARRAY /dev/md0 UUID=1\n");
    assert!(new_text(&plan, "/etc/lvm/lvm.conf").contains("# by hako:   filter ="));
    let list = "/etc/lvm/devices/system.devices";
    let removed = plan
        .changes
        .iter()
        .find(|change| change.path == list)
        .unwrap();
    assert!(matches!(removed.what, What::Remove { old: Some(_) }));
    assert!(
        !plan
            .changes
            .iter()
            .any(|change| change.path.contains("resume"))
    );
    let said = plan.remarks.join("\n");
    assert!(said.contains("/dev/sdc1 is on none of the disks"), "{said}");
    assert!(said.contains("said to hold xfs"), "{said}");
}

#[test]
fn bytes_that_are_not_utf8_stay_as_they_are() {
    let fstab =
        b"# Platte f\xfcr Daten\n/dev/sda1 / ext4 defaults 0 1\n/dev/sdb1 /B\xfccher ext4 ro 0 0\n";
    let grub = b"menuentry 'Debian f\xfcr' {\n\tlinux /v root=/dev/sda1\n}\n";
    let mut environment = b"saved_entry=f\xfcr\nkernelopts=root=/dev/sda1\n".to_vec();
    environment.resize(1024, b'#');
    let root = debian()
        .file("/etc/fstab", fstab)
        .file("/boot/grub/grub.cfg", grub)
        .file("/boot/grub/grubenv", &environment)
        .file("/etc/blkid.tab", b"\xfc");
    let plan = planned(vec![(None, root.build())], &request());
    let what = |path: &str| {
        let change = plan.changes.iter().find(|change| change.path == path);
        change.map(|change| change.what.clone())
    };
    let replaced = |path: &str| match what(path) {
        Some(What::Replace { old, new }) => (old, new),
        other => panic!("{path}: {other:?}"),
    };
    let new = b"# Platte f\xfcr Daten\nUUID=root-uuid / ext4 defaults 0 1\n\
        /dev/sdb1 /B\xfccher ext4 ro,nofail 0 0\n";
    assert_eq!(replaced("/etc/fstab"), (fstab.to_vec(), new.to_vec()));
    let new = b"menuentry 'Debian f\xfcr' {\n\tlinux /v root=PARTUUID=0-1\n}\n";
    assert_eq!(
        replaced("/boot/grub/grub.cfg"),
        (grub.to_vec(), new.to_vec())
    );
    let (old, new) = replaced("/boot/grub/grubenv");
    let head = b"saved_entry=f\xfcr\nkernelopts=root=PARTUUID=0-1\n###";
    assert_eq!((old, new.len()), (environment, 1024));
    assert!(new.starts_with(head), "{new:?}");
    let old = Some(b"\xfc".to_vec());
    assert_eq!(what("/etc/blkid.tab"), Some(What::Remove { old }));
    assert!(
        plan.remarks
            .iter()
            .any(|one| one.contains("/B\u{fffd}cher"))
    );
}

#[test]
fn an_environment_of_grub_keeps_its_length() {
    let text = "# GRUB Environment Block\nkernelopts=root=/dev/sda1 ro\n";
    let environment = format!("{text:#<1024}");
    let root = debian().file("/boot/grub2/grubenv", &environment);
    let plan = planned(vec![(None, root.build())], &request());
    let new = new_text(&plan, "/boot/grub2/grubenv");
    assert_eq!(new.len(), 1024);
    assert!(new.contains("kernelopts=root=UUID=root-uuid ro\n####"));
}

#[test]
fn firmware_that_remembers_nothing_finds_a_copy_of_shim_and_no_fallback() {
    let esp = |more: fn(MemoryFs) -> MemoryFs| {
        let fs = MemoryFs::new("vfat")
            .uuid("12AB-34CD")
            .any_case()
            .file("/EFI/Microsoft/shimx64.efi", "not this")
            .file("/EFI/debian/shimx64.efi", "shim")
            .file("/EFI/debian/grubx64.efi", "grub")
            .file("/EFI/debian/fbx64.efi", "fallback")
            .file("/EFI/debian/mmx64.efi", "mok");
        more(fs).build()
    };
    let paths = |plan: &Plan| -> Vec<String> {
        plan.changes
            .iter()
            .map(|change| change.path.clone())
            .collect()
    };
    // What no fstab names is mounted by its type.
    let plan = planned(
        vec![(Some(ESP), esp(|fs| fs)), (None, debian().build())],
        &request(),
    );
    let names = ["", "/BOOTX64.EFI", "/grubx64.efi", "/mmx64.efi"];
    let expected = names.map(|name| format!("/boot/efi/EFI/BOOT{name}"));
    assert_eq!(paths(&plan), expected);
    assert!(matches!(&plan.changes[1].what, What::Create { bytes, .. } if bytes == b"shim"));
    // Its copy on another disk is not mounted, and cannot be told from it by its UUID.
    let twice = vec![
        (Some(ESP), esp(|fs| fs)),
        (None, debian().build()),
        (Some(ESP), esp(|fs| fs)),
    ];
    let plan = planned(twice, &request());
    assert_eq!(paths(&plan), expected);
    let said = plan.remarks.join("\n");
    assert!(
        said.contains("UUID=12AB-34CD: is there more than once"),
        "{said}"
    );
    let has_one = esp(|fs| fs.file("/EFI/BOOT/BOOTX64.EFI", "x"));
    let plan = planned(
        vec![(Some(ESP), has_one), (None, debian().build())],
        &request(),
    );
    assert_eq!(paths(&plan), [""; 0]);
}

#[test]
fn a_serial_console_and_masks_are_added_on_request_only() {
    let root = || {
        debian()
            .file("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n")
            .file(
                "/boot/grub/grub.cfg",
                "menuentry x {\n\tlinux /v root=/dev/sda1\n}\n",
            )
            .file("/usr/lib/systemd/system/smartd.service", "")
            .file("/usr/lib/systemd/system/ipmievd.service", "")
            .link("/etc/systemd/system/ipmievd.service", "/dev/null")
    };
    let plan = planned(vec![(None, root().build())], &request());
    assert_eq!(plan.changes.len(), 1);
    let wanted = Request {
        serial_console: true,
        mask_agents: true,
        ..request()
    };
    let plan = planned(vec![(None, root().build())], &wanted);
    let grub = new_text(&plan, "/boot/grub/grub.cfg");
    assert!(
        grub.contains("root=PARTUUID=0-1 console=tty0 console=ttyS0,115200n8\n"),
        "{grub}"
    );
    let masked: Vec<&Change> = plan
        .changes
        .iter()
        .filter(|change| matches!(change.what, What::Link { .. }))
        .collect();
    assert_eq!(masked.len(), 1);
    assert_eq!(masked[0].path, "/etc/systemd/system/smartd.service");
}
