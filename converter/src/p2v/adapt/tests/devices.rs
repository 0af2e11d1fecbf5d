//! What devices are called by whose names change with the hardware.

use super::*;

const FSTAB: &str = "/etc/fstab";

/// The partitions of one.
type Disk = Vec<(Option<&'static str>, Arc<dyn FileSystem>)>;

fn part(uuid: &str) -> Arc<dyn FileSystem> {
    MemoryFs::new("ext4").uuid(uuid).build()
}

/// The partitions of a disk with a system whose fstab this is, on the second, and a boot loader's entry
/// with that root.
fn system(fstab: &str, root: &str) -> MemoryFs {
    let menu = format!("menuentry x {{\n linux /boot/vmlinuz root={root} ro\n}}\n");
    debian()
        .file(FSTAB, fstab)
        .file("/boot/grub/grub.cfg", menu)
        .file("/boot/vmlinuz", "kernel")
}

fn on_second(system: MemoryFs) -> Disk {
    vec![(None, part("boot-uuid")), (None, system.build())]
}

fn data() -> Disk {
    vec![(None, part("data-1")), (None, part("data-2"))]
}

fn planned_with(disks: Vec<Disk>) -> Plan {
    let volumes = disks.into_iter().fold(Volumes::in_memory(), Volumes::disk);
    planned_on(&volumes, &request())
}

#[track_caller]
fn stays(plan: &Plan, path: &str) {
    let changes: Vec<&str> = plan.changes.iter().map(|one| one.path.as_str()).collect();
    assert!(!changes.contains(&path), "{plan:?}");
}

#[track_caller]
fn says(plan: &Plan, what: &[&str]) {
    let has = |one: &String| what.iter().all(|what| one.contains(what));
    assert!(plan.remarks.iter().any(has), "{what:?}: {:?}", plan.remarks);
}

#[test]
fn disks_of_another_kind_are_not_taken_for_those_of_the_system() {
    for (root, other) in [
        ("/dev/nvme0n1p2", "/dev/sda2"),
        ("/dev/cciss/c0d0p2", "/dev/cciss/c1d0p2"),
        ("/dev/vda2", "/dev/sda1"),
    ] {
        let fstab = format!("{root} / ext4 defaults 0 1\n{other} /srv ext4 defaults 0 2\n");
        for with in [vec![], vec![data()]] {
            let mut disks = vec![on_second(system(&fstab, root))];
            disks.extend(with);
            let plan = planned_with(disks);
            assert_eq!(
                new_text(&plan, FSTAB),
                format!("UUID=root-uuid / ext4 defaults 0 1\n{other} /srv ext4 defaults 0 2\n")
            );
            says(&plan, &["/srv", other, "stays as it is"]);
            assert!(new_text(&plan, "/boot/grub/grub.cfg").contains("root=PARTUUID=0-2 ro"));
        }
    }
    // The second disk of several kinds may be any of those that are here.
    let fstab = "/dev/nvme0n1p2 / ext4 defaults 0 1\n/dev/nvme1n1p1 /a ext4 defaults 0 2\n\
        /dev/sda1 /b ext4 defaults 0 2\n/dev/hda /media/cdrom0 iso9660 noauto 0 0\n";
    let plan = planned_with(vec![
        on_second(system(fstab, "/dev/nvme0n1p2")),
        data(),
        data(),
    ]);
    says(&plan, &["/a", "/dev/nvme1n1p1 cannot be told"]);
    // A drive for disks of their own is none of them.
    let fstab = "/dev/sda2 / ext4 defaults 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n\
        /dev/hdc /media/cdrom0 iso9660 noauto 0 0\n";
    let plan = planned_with(vec![on_second(system(fstab, "/dev/sda2"))]);
    let new = new_text(&plan, FSTAB);
    assert!(new.contains("UUID=boot-uuid /boot ext4"), "{new}");
}

#[test]
fn a_volume_that_is_the_systems_is_mounted_nowhere_else() {
    let fstab = "UUID=root-uuid / ext4 defaults 0 1\n/dev/sda2 /srv ext4 defaults 0 2\n";
    let plan = planned_with(vec![on_second(system(fstab, "UUID=root-uuid"))]);
    stays(&plan, FSTAB);
    says(&plan, &["/srv", "/dev/sda2 would be", "system itself"]);
}

#[test]
fn an_id_is_that_of_the_only_disk_where_the_system_says_so() {
    let usb = "/dev/disk/by-id/usb-WD_Elements_25A2_575833-0:0-part2";
    let fstab = format!("UUID=root-uuid / ext4 defaults 0 1\n{usb} /backup ext4 noauto,user 0 0\n");
    let plan = planned_with(vec![on_second(system(&fstab, "UUID=root-uuid"))]);
    stays(&plan, FSTAB);
    says(&plan, &["/backup", usb, "stays as it is"]);

    let ata = "/dev/disk/by-id/ata-INTEL";
    let fstab = format!(
        "{ata}-part2 / ext4 defaults 0 1\n{ata}-part1 /boot ext4 defaults 0 2\n\
         {ata}-part3 /data ext4 defaults 0 2\n{usb} /backup ext4 noauto,user 0 0\n"
    );
    let mut parts = on_second(system(&fstab, "UUID=root-uuid"));
    parts.push((None, part("data-uuid")));
    let plan = planned_with(vec![parts]);
    assert_eq!(
        new_text(&plan, FSTAB),
        format!(
            "UUID=root-uuid / ext4 defaults 0 1\nUUID=boot-uuid /boot ext4 defaults 0 2\n\
             UUID=data-uuid /data ext4 defaults 0 2\n{usb} /backup ext4 noauto,user 0 0\n"
        )
    );
}

#[test]
fn nothing_is_called_by_another_disk_if_the_disks_are_in_another_order() {
    let fstab = "/dev/sda2 / ext4 defaults 0 1\n/dev/sdb1 /data ext4 defaults 0 2\n";
    let plan = planned_with(vec![data(), on_second(system(fstab, "/dev/sda2"))]);
    stays(&plan, FSTAB);
    stays(&plan, "/boot/grub/grub.cfg");
    says(&plan, &["/etc/fstab: /:", "another order"]);
    says(&plan, &["/etc/fstab: /data:", "another order"]);
    says(&plan, &["grub.cfg: root=/dev/sda2", "another order"]);
    // The loader alone says so, too.
    let fstab = "UUID=root-uuid / ext4 defaults 0 1\n/dev/sdb1 /data ext4 defaults 0 2\n";
    let plan = planned_with(vec![data(), on_second(system(fstab, "/dev/sda2"))]);
    stays(&plan, FSTAB);
    stays(&plan, "/boot/grub/grub.cfg");
    // In order, all have their own.
    let fstab = "/dev/sda2 / ext4 defaults 0 1\n/dev/sdb1 /data ext4 defaults 0 2\n";
    let plan = planned_with(vec![on_second(system(fstab, "/dev/sda2")), data()]);
    assert_eq!(
        new_text(&plan, FSTAB),
        "UUID=root-uuid / ext4 defaults 0 1\nUUID=data-1 /data ext4 defaults 0 2\n"
    );
}

#[test]
fn names_of_multipath_are_those_of_the_only_disk() {
    let fstab = "/dev/mapper/mpathap2 / ext4 defaults 0 1\n\
        /dev/disk/by-id/dm-uuid-part1-mpath-3600508b400105e21 /boot ext4 defaults 0 0\n\
        /dev/mapper/mpatha3 /data ext4 defaults 0 0\n/dev/mapper/mpathb1 /b ext4 defaults 0 0\n";
    let disk = || {
        let mut parts = on_second(system(fstab, "/dev/mapper/mpatha-part2"));
        parts.push((None, part("data-uuid")));
        parts
    };
    let plan = planned_with(vec![disk()]);
    assert_eq!(
        new_text(&plan, FSTAB),
        "UUID=root-uuid / ext4 defaults 0 1\nUUID=boot-uuid /boot ext4 defaults 0 0\n\
         UUID=data-uuid /data ext4 defaults 0 0\n/dev/mapper/mpathb1 /b ext4 defaults 0 0\n"
    );
    says(&plan, &["/b", "/dev/mapper/mpathb1 cannot be told"]);
    assert!(new_text(&plan, "/boot/grub/grub.cfg").contains("root=PARTUUID=0-2 ro"));
    let plan = planned_with(vec![disk(), data()]);
    stays(&plan, FSTAB);
    says(&plan, &["grub.cfg: root=/dev/mapper/mpatha-part2 stays"]);
}

#[test]
fn what_is_called_by_what_it_is_and_is_not_there_does_not_stop_the_start() {
    let lost = [
        "UUID=99999999-2222-3333-4444-555555555555",
        "LABEL=backup",
        "PARTUUID=9-9",
        "/dev/disk/by-uuid/9999",
        "/dev/vg_data/lv",
        "/dev/mapper/vg--data-lv",
    ];
    for source in lost {
        let line = |options: &str| format!("{source} /data ext4 {options} 0 2\n");
        let root = "UUID=root-uuid / ext4 defaults 0 1\n";
        let fstab = format!("{root}{}", line("defaults"));
        let plan = planned_with(vec![on_second(system(&fstab, "UUID=root-uuid"))]);
        let new = new_text(&plan, FSTAB);
        assert_eq!(new, format!("{root}{}", line("defaults,nofail")));
        says(&plan, &["/data", source, "on none of the disks"]);
        for options in ["noauto,user", "nofail"] {
            let fstab = format!("{root}{}", line(options));
            let plan = planned_with(vec![on_second(system(&fstab, "UUID=root-uuid"))]);
            stays(&plan, FSTAB);
        }
    }
}

#[test]
fn what_may_be_there_unseen_or_is_made_by_others_stays() {
    let fstab = "UUID=root-uuid / ext4 defaults 0 1\nUUID=9 /data ext4 defaults 0 2\n";
    // What holds a file system that is not read may be it.
    let mut parts = on_second(system(fstab, "UUID=root-uuid"));
    parts.push((None, MemoryFs::new("jfs").build()));
    let plan = planned_with(vec![parts]);
    stays(&plan, FSTAB);
    says(&plan, &["/data", "UUID=9 was not found, and may be in"]);

    let fstab = "UUID=root-uuid / ext4 defaults 0 1\n/dev/mapper/data-crypt /a ext4 defaults 0 2\n\
        /dev/mapper/luks-1-2 /b ext4 defaults 0 2\n/dev/vg0/snapshot /c ext4 defaults 0 2\n\
        /srv /d none bind 0 0\nserver:/x /e nfs defaults 0 0\npool/x /f zfs defaults 0 0\n\
        /dev/zvol/x /g ext4 defaults 0 0\n/dev/cdrom /h udf defaults 0 0\n\
        LABEL=x /i nfs defaults 0 0\nUUID=boot-uuid /boot ext4 defaults 0 0\n";
    let root = system(fstab, "UUID=root-uuid")
        .file("/etc/crypttab", "data-crypt UUID=boot-uuid none luks\n");
    let volumes =
        Volumes::in_memory()
            .disk(on_second(root))
            .logical("home", "lv-1", part("home-uuid"));
    let plan = planned_on(&volumes, &request());
    stays(&plan, FSTAB);
    assert_eq!(
        plan.remarks
            .iter()
            .filter(|one| one.contains(FSTAB))
            .count(),
        0
    );
}

#[test]
fn devices_behind_the_first_field_and_in_units_are_called_by_what_they_are() {
    let fstab = "/dev/sda2 / ext4 defaults 0 1\n\
        UUID=data-uuid /data ext4 noatime,journal_path=/dev/sda4,device=/dev/sdb1 0 0\n";
    let crypttab = "c /dev/sda3 /dev/sda1:/key luks,header=/head:/dev/sda4,tries=1\n\
        d UUID=data-uuid /key:/dev/sda1 luks\ne UUID=data-uuid /etc/e:key luks\n\
        f UUID=data-uuid /dev/disk/by-path/pci-0000:00:1f.2-part1:/key luks\n";
    let mount = "[Mount]\nWhat = /dev/sda3\nWhere=/srv\nType=ext4\nOptions=ro,logdev=/dev/sda4\n";
    let swap = "[Swap]\nWhat=/dev/sda4\n";
    let filled = "[Mount]\nWhat=/dev/%i\nWhere=/x\n";
    let others = "[Mount]\nWhat=server:/dev/sda1\nWhere=/y\nType=nfs\n";
    let units = "/etc/systemd/system";
    let mut parts = on_second(
        system(fstab, "803")
            .file("/etc/crypttab", crypttab)
            .file(&format!("{units}/srv.mount"), mount)
            .file(&format!("{units}/dev-sda4.swap"), swap)
            .file(&format!("{units}/x.mount"), filled)
            .file(&format!("{units}/y.mount"), others)
            .link(&format!("{units}/z.mount"), "/dev/null"),
    );
    parts.push((None, part("data-uuid")));
    parts.push((None, MemoryFs::new("").build()));
    let plan = planned_with(vec![parts]);
    assert_eq!(
        new_text(&plan, FSTAB),
        "UUID=root-uuid / ext4 defaults 0 1\nUUID=data-uuid /data ext4 \
         noatime,journal_path=/dev/disk/by-partuuid/0-4,device=/dev/sdb1 0 0\n"
    );
    says(
        &plan,
        &[FSTAB, "/data", "/dev/sdb1 is on none of the disks"],
    );
    assert_eq!(
        new_text(&plan, "/etc/crypttab"),
        "c UUID=data-uuid /dev/disk/by-uuid/boot-uuid:/key \
         luks,header=/head:/dev/disk/by-partuuid/0-4,tries=1\n\
         d UUID=data-uuid /key:/dev/disk/by-uuid/boot-uuid luks\n\
         e UUID=data-uuid /etc/e:key luks\n\
         f UUID=data-uuid /dev/disk/by-path/pci-0000:00:1f.2-part1:/key luks\n"
    );
    says(&plan, &["/etc/crypttab: f", "cannot be told"]);
    assert_eq!(
        new_text(&plan, &format!("{units}/srv.mount")),
        "[Mount]\nWhat=/dev/disk/by-uuid/data-uuid\nWhere=/srv\nType=ext4\n\
         Options=ro,logdev=/dev/disk/by-partuuid/0-4\n"
    );
    // What is no swap any more is none of the disks' swaps.
    says(&plan, &["dev-sda4.swap", "is said to hold swap"]);
    for name in ["dev-sda4.swap", "x.mount", "y.mount", "z.mount"] {
        stays(&plan, &format!("{units}/{name}"));
    }
    // A number of the kernel is nobody's name.
    says(&plan, &["grub.cfg", "root=803", "may be another device"]);
}
