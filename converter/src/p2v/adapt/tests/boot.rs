//! Plans about command lines of kernels.

use super::*;

/// Plans for a disk with an EFI system partition (/dev/sda1) and a root (/dev/sda2) whose fstab mounts
/// that at `efi`.
fn of_disk(esp: MemoryFs, root: MemoryFs, efi: &str) -> Plan {
    let fstab =
        format!("UUID=root-uuid / ext4 defaults 0 1\nUUID=12AB-34CD {efi} vfat defaults 0 2\n");
    let root = root
        .file("/etc/fstab", fstab)
        .dir("/efi")
        .file("/boot/vmlinuz", "kernel")
        .file("/boot/initrd.img", "");
    let esp = esp
        .uuid("12AB-34CD")
        .file("/EFI/BOOT/BOOTX64.EFI", "x")
        .file("/vmlinuz", "kernel")
        .file("/initrd.img", "");
    planned(
        vec![(Some(ESP), esp.build()), (None, root.build())],
        &request(),
    )
}

fn esp() -> MemoryFs {
    MemoryFs::new("vfat")
}

#[test]
fn the_text_that_an_entry_is_from_is_changed_wherever_it_is() {
    let label = "DEFAULT lts\nLABEL lts\n  LINUX vmlinuz\n  INITRD initrd.img\n  APPEND root=/dev/sda2 quiet\n";
    let entry = "title Arch\nlinux /vmlinuz\ninitrd /initrd.img\noptions root=/dev/sda2 rw\n";
    let grub = "search --no-floppy --fs-uuid --set=root root-uuid\nmenuentry 'CentOS' {\n\
        \tlinuxefi /boot/vmlinuz root=/dev/sda2 ro\n\tinitrdefi /boot/initrd.img\n}\n";
    let custom =
        "menuentry 'own' {\n linux /boot/vmlinuz root=/dev/sda2 ro\n initrd /boot/initrd.img\n}\n";
    let sourcing = "if [ -f  ${config_directory}/custom.cfg ]; then\n  source ${config_directory}/custom.cfg\n\
        elif [ -z \"${config_directory}\" -a -f  $prefix/custom.cfg ]; then\n  source $prefix/custom.cfg\nfi\n";
    let systemd = || {
        esp()
            .file("/loader/loader.conf", "default arch.conf\n")
            .file("/loader/entries/arch.conf", entry)
    };
    let alpine = debian()
        .file("/boot/extlinux.conf", label)
        .file("/etc/update-extlinux.conf", "root=/dev/sda2\n");
    let own = debian()
        .file("/boot/grub/grub.cfg", sourcing)
        .file("/boot/grub/custom.cfg", custom);
    let centos = esp().file("/EFI/centos/grub.cfg", grub);
    let cases = [
        (
            of_disk(esp(), alpine, "/boot/efi"),
            "/boot/extlinux.conf",
            label,
        ),
        (
            of_disk(esp(), own, "/boot/efi"),
            "/boot/grub/custom.cfg",
            custom,
        ),
        (
            of_disk(systemd(), debian(), "/efi"),
            "/efi/loader/entries/arch.conf",
            entry,
        ),
        (
            of_disk(systemd(), debian(), "/boot/efi"),
            "/boot/efi/loader/entries/arch.conf",
            entry,
        ),
        (
            of_disk(centos, debian(), "/boot/efi"),
            "/boot/efi/EFI/centos/grub.cfg",
            grub,
        ),
    ];
    for (plan, path, old) in &cases {
        let new = old.replace("/dev/sda2", "UUID=root-uuid");
        assert_eq!(new_text(plan, path), new);
        let named = plan.remarks.iter().find(|remark| remark.contains("sda2"));
        assert_eq!(named, None, "{path}");
    }
    assert_eq!(
        new_text(&cases[0].0, "/etc/update-extlinux.conf"),
        "root=UUID=root-uuid\n"
    );
}

#[test]
fn what_initrds_of_other_systems_call_the_root_by_is_changed_and_the_rest_is_told() {
    let grub = |options: &str| {
        let text = format!(
            "menuentry 'own' {{\n linux /boot/vmlinuz {options}\n initrd /boot/initrd.img\n}}\n"
        );
        debian().file("/boot/grub/grub.cfg", text)
    };
    for (old, new) in [
        (
            "cryptdevice=/dev/sda2:root:allow-discards",
            "cryptdevice=UUID=root-uuid:root:allow-discards",
        ),
        (
            "cryptkey=/dev/sda1:vfat:/key",
            "cryptkey=UUID=12AB-34CD:vfat:/key",
        ),
        (
            "cryptopts=source=/dev/sda2,target=c",
            "cryptopts=source=UUID=root-uuid,target=c",
        ),
        (
            "root=/dev/ram0 real_root=/dev/sda2",
            "root=/dev/ram0 real_root=UUID=root-uuid",
        ),
        ("fips=1 boot=/dev/sda1", "fips=1 boot=UUID=12AB-34CD"),
    ] {
        let plan = of_disk(esp(), grub(old), "/boot/efi");
        let text = new_text(&plan, "/boot/grub/grub.cfg");
        assert!(text.contains(new), "{text}");
        assert!(!plan.remarks.join("\n").contains("/dev/sda"), "{plan:?}");
    }
    // What is not on the disks is told once, by the text that has it.
    for (stays, n_remarks) in [
        ("md=0,/dev/sda2,/dev/sdb2", 1),
        ("root=/dev/sdc1", 1),
        ("root=/dev/mapper/a console=/dev/ttyS0", 0),
    ] {
        let plan = of_disk(esp(), grub(stays), "/boot/efi");
        assert_eq!(plan.changes, []);
        let told = plan
            .remarks
            .iter()
            .filter(|remark| remark.contains("/dev/"));
        assert_eq!(told.count(), n_remarks, "{:?}", plan.remarks);
    }
    // The same words in a text that is changed are not those of an entry that hako cannot change.
    let entry = "linux /vmlinuz\ninitrd /initrd.img\noptions root=/dev/sda2 rw\n";
    let unmounted = esp()
        .file("/vmlinuz", "kernel")
        .file("/initrd.img", "")
        .file("/loader/loader.conf", "")
        .file("/loader/entries/arch.conf", entry);
    let root = debian()
        .file("/boot/efi/keeps-others-away", "")
        .file("/etc/kernel/cmdline", "root=/dev/sda2 rw\n");
    let plan = planned(
        vec![(Some(ESP), unmounted.build()), (None, root.build())],
        &request(),
    );
    let settings = new_text(&plan, "/etc/kernel/cmdline");
    assert_eq!(settings, "root=UUID=root-uuid rw\n");
    let of_entry = |remark: &&String| remark.contains("loader/entries/arch.conf");
    let told = plan.remarks.iter().filter(of_entry);
    assert_eq!(told.count(), 1, "{:?}", plan.remarks);
}
