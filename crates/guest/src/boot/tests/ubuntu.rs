//! Ubuntu: /boot in the root, recovery entries, gfxmode functions, `$vt_handoff`, recordfail.

use super::*;

const CONFIG: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${initrdfail}" = 2 ]; then
   set initrdfail=
elif [ "${initrdfail}" = 1 ]; then
   set next_entry="${prev_entry}"
   set prev_entry=
   save_env prev_entry
   if [ "${next_entry}" ]; then
      set initrdfail=2
   fi
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function recordfail {
  set recordfail=1
  if [ -n "${have_grubenv}" ]; then if [ -z "${boot_once}" ]; then save_env recordfail; fi; fi
}
function initrdfail {
    if [ -n "${have_grubenv}" ]; then if [ -n "${partuuid}" ]; then
      if [ -z "${initrdfail}" ]; then
        set initrdfail=1
        if [ -n "${boot_once}" ]; then
          set prev_entry="${default}"
          save_env prev_entry
        fi
      fi
      save_env initrdfail
    fi; fi
}
function load_video {
  true
}
function gfxmode {
	set gfxpayload="${1}"
	if [ "${1}" = "keep" ]; then
		set vt_handoff=vt.handoff=7
	else
		set vt_handoff=
	fi
}
if [ "${recordfail}" != 1 ]; then
  if [ -e ${prefix}/gfxblacklist.txt ]; then
    if [ ${grub_platform} != pc ]; then
      set linux_gfx_mode=keep
    elif hwmatch ${prefix}/gfxblacklist.txt 3; then
      if [ ${match} = 0 ]; then
        set linux_gfx_mode=keep
      else
        set linux_gfx_mode=text
      fi
    else
      set linux_gfx_mode=text
    fi
  else
    set linux_gfx_mode=keep
  fi
else
  set linux_gfx_mode=text
fi
export linux_gfx_mode
menuentry 'Ubuntu' --class ubuntu --class gnu-linux --class gnu --class os $menuentry_id_option 'gnulinux-simple-1234' {
	recordfail
	load_video
	gfxmode $linux_gfx_mode
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod ext2
	search --no-floppy --fs-uuid --set=root 1234
	linux	/boot/vmlinuz-5.15.0-91-generic root=UUID=1234 ro  quiet splash $vt_handoff
	initrd	/boot/initrd.img-5.15.0-91-generic
}
submenu 'Advanced options for Ubuntu' $menuentry_id_option 'gnulinux-advanced-1234' {
	menuentry 'Ubuntu, with Linux 5.15.0-91-generic' --class ubuntu $menuentry_id_option 'gnulinux-5.15.0-91-generic-advanced-1234' {
		recordfail
		load_video
		gfxmode $linux_gfx_mode
		search --no-floppy --fs-uuid --set=root 1234
		linux	/boot/vmlinuz-5.15.0-91-generic root=UUID=1234 ro  quiet splash $vt_handoff
		initrd	/boot/initrd.img-5.15.0-91-generic
	}
	menuentry 'Ubuntu, with Linux 5.15.0-91-generic (recovery mode)' --class ubuntu $menuentry_id_option 'gnulinux-5.15.0-91-generic-recovery-1234' {
		recordfail
		search --no-floppy --fs-uuid --set=root 1234
		linux	/boot/vmlinuz-5.15.0-91-generic root=UUID=1234 ro recovery nomodeset dis_ucode_ldr
		initrd	/boot/initrd.img-5.15.0-91-generic
	}
}
menuentry 'Memory test (memtest86+x64.bin)' {
	linux16	/boot/memtest86+x64.bin
}
menuentry "Windows Boot Manager (on /dev/sda1)" --class windows --class os {
	insmod chain
	chainloader /EFI/Microsoft/Boot/bootmgfw.efi
}
# A cloud image's entry: no initrd until that fails.
menuentry 'Cloud' {
	search --no-floppy --fs-uuid --set=root 1234
	if [ "${initrdfail}" = 1 ]; then
	  echo	'GRUB_FORCE_PARTUUID set, initrdless boot failed. Attempting with initrd.'
	  linux	/vmlinuz root=PARTUUID=0-1 ro panic=-1
	  initrd	/boot/initrd.img
	else
	  linux	/vmlinuz root=PARTUUID=0-1 ro panic=-1
	fi
	initrdfail
}
"#;

fn menu(more: impl Fn(MemoryFs) -> MemoryFs) -> Menu {
    let root = system("ext4", "1234", "UUID=1234 / ext4\n")
        .file("/boot/grub/grub.cfg", CONFIG)
        .file("/boot/vmlinuz-5.15.0-91-generic", "kernel")
        .file("/boot/initrd.img-5.15.0-91-generic", "initrd")
        .link("/boot/vmlinuz", "vmlinuz-5.15.0-91-generic")
        .link("/boot/initrd.img", "initrd.img-5.15.0-91-generic")
        .link("/vmlinuz", "boot/vmlinuz");
    menu_of(vec![(None, more(root).build())])
}

#[test]
fn functions_set_what_the_command_line_ends_in() {
    let menu = menu(|root| root);
    assert_eq!(
        default(&menu).options,
        "root=UUID=1234 ro quiet splash vt.handoff=7"
    );
    assert_eq!(
        menu.entries[1].options,
        default(&menu).options,
        "in the submenu, too"
    );
    assert!(menu.entries[2].options.contains("recovery nomodeset"));
    let blacklisted = super::ubuntu::menu(|root| root.file("/boot/grub/gfxblacklist.txt", ""));
    assert!(
        !blacklisted.entries[0].options.contains("handoff=7") || blacklisted.remarks.is_empty()
    );
}

#[test]
fn what_is_no_linux_says_so() {
    let menu = menu(|root| root);
    assert_eq!(menu.entries.len(), 6);
    assert!(
        menu.entries[3]
            .trouble
            .as_ref()
            .unwrap()
            .contains("memtest86")
    );
    assert!(
        menu.entries[4]
            .trouble
            .as_ref()
            .unwrap()
            .contains("chainloader")
    );
}

#[test]
fn links_to_the_kernel_are_followed_and_initrdfail_decides() {
    let one = menu(|root| root);
    assert_eq!(content(one.entries[5].kernel.as_ref().unwrap()), "kernel");
    assert!(one.entries[5].initrds.is_empty());
    let env = "# GRUB Environment Block\ninitrdfail=1\n###";
    let failed = menu(|root| root.file("/boot/grub/grubenv", env));
    assert_eq!(content(&failed.entries[5].initrds[0]), "initrd");
}
