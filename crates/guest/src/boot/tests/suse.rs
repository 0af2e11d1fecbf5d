//! openSUSE: a snapshot of btrfs is the root, its path given from the default subvolume.

use super::*;

const CONFIG: &str = r#"
set btrfs_relative_path="y"
export btrfs_relative_path
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${env_block}" ] ; then
  set env_block="(${root})${env_block}"
  export env_block
  load_env -f "${env_block}"
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
menuentry 'openSUSE Leap 15.5'  --class opensuse --class gnu-linux --class gnu --class os $menuentry_id_option 'gnulinux-simple-S' {
	load_video
	set gfxpayload=keep
	insmod gzio
	insmod part_gpt
	insmod btrfs
	search --no-floppy --fs-uuid --set=root S
	echo	'Loading Linux 5.14.21-default ...'
	linux	/boot/vmlinuz-5.14.21-default root=UUID=S  ${extra_cmdline} splash=silent quiet security=apparmor mitigations=auto
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd-5.14.21-default
}
submenu 'Advanced options for openSUSE Leap 15.5' --hotkey=1 $menuentry_id_option 'gnulinux-advanced-S' {
	menuentry 'openSUSE Leap 15.5, with Linux 5.14.21-default' --hotkey=2 --class opensuse $menuentry_id_option 'gnulinux-5.14.21-default-advanced-S' {
		search --no-floppy --fs-uuid --set=root S
		linux	/boot/vmlinuz-5.14.21-default root=UUID=S ${extra_cmdline} quiet
		initrd	/boot/initrd-5.14.21-default
	}
}
if [ -f  "/.snapshots/grub-snapshot.cfg" ]; then
  source "/.snapshots/grub-snapshot.cfg"
fi
"#;

#[test]
fn a_root_in_a_snapshot_boots_its_own_kernel() {
    let snapshot = "/@/.snapshots/1/snapshot";
    let at = |path: &str| format!("{snapshot}{path}");
    let fstab = "UUID=S / btrfs defaults 0 0\nUUID=S /boot/grub2/x86_64-efi btrfs subvol=/@/boot/grub2/x86_64-efi\n\
                 UUID=S /var btrfs subvol=/@/var 0 0\n";
    let root = MemoryFs::new("btrfs")
        .uuid("S")
        .subvolume("/@", 256)
        .subvolume("/@/var", 258)
        .subvolume("/@/boot/grub2/x86_64-efi", 261)
        .subvolume("/@/.snapshots", 262)
        .subvolume(snapshot, 263)
        .file(&at("/etc/fstab"), fstab)
        .file(&at("/etc/os-release"), "ID=opensuse-leap\n")
        .dir(&at("/usr/lib"))
        .dir(&at("/var"))
        .dir(&at("/boot/grub2/x86_64-efi"))
        .file(&at("/boot/grub2/grub.cfg"), CONFIG)
        .file(
            &at("/boot/grub2/grubenv"),
            "# GRUB Environment Block\nsaved_entry=gnulinux-advanced-S>gnulinux-5.14.21-default-advanced-S\n####",
        )
        .file(&at("/boot/vmlinuz-5.14.21-default"), "kernel")
        .file(&at("/boot/initrd-5.14.21-default"), "initrd")
        .root_at(snapshot);
    let menu = menu_of(vec![(None, root.build())]);
    assert_eq!(menu.entries.len(), 2);
    assert_eq!(menu.default, Some(1), "{}", menu.reason);
    let entry = default(&menu);
    assert_eq!(entry.trouble, None);
    assert_eq!(entry.options, "root=UUID=S quiet");
    assert_eq!(content(&entry.initrds[0]), "initrd");
}
