//! systemd-boot and unified kernel images (Arch), extlinux (Alpine), syslinux.

use super::*;

fn arch(loader: &str) -> MemoryFs {
    let entry = |kernel: &str| {
        format!(
            "title   Arch Linux ({kernel})\nlinux   /vmlinuz-{kernel}\n# microcode first\n\
             initrd  /amd-ucode.img\ninitrd  /initramfs-{kernel}.img\n\
             options root=PARTUUID=0-2 rw\noptions quiet\n"
        )
    };
    MemoryFs::new("vfat")
        .any_case()
        .file("/loader/loader.conf", loader)
        .file("/loader/entries/arch.conf", entry("linux"))
        .file("/loader/entries/arch-lts+0-3.conf", entry("linux-lts"))
        .file(
            "/loader/entries/zen.conf",
            entry("linux-zen").replace("/vmlinuz", "/gone"),
        )
        .file("/vmlinuz-linux", "kernel")
        .file("/vmlinuz-linux-lts", "lts")
        .file("/initramfs-linux.img", "initrd")
        .file("/initramfs-linux-lts.img", "initrd")
        .file("/amd-ucode.img", "ucode")
}

fn menu(esp: MemoryFs) -> Menu {
    let root = system("ext4", "r", "PARTUUID=0-1 /boot vfat\n");
    menu_of(vec![(Some(ESP), esp.build()), (None, root.build())])
}

#[test]
fn systemd_boot_goes_by_its_pattern_and_sorts_what_failed_last() {
    let first = menu(arch("timeout 3\n"));
    let ids: Vec<_> = first.entries.iter().map(|entry| &entry.id[..]).collect();
    assert_eq!(ids, ["zen", "arch", "arch-lts"]);
    assert_eq!(first.default, Some(0));
    for (pattern, at) in [
        ("arch.conf", 1),
        ("ARCH", 1),
        ("arch-*", 2),
        ("none*", 0),
        ("@saved", 0),
    ] {
        let menu = menu(arch(&format!("#default x\ndefault  {pattern}\n")));
        assert_eq!(menu.default, Some(at), "{pattern}: {}", menu.reason);
    }
    let entry = &first.entries[1];
    assert_eq!(entry.loader, Loader::SystemdBoot);
    assert_eq!(entry.options, "root=PARTUUID=0-2 rw quiet");
    let paths: Vec<_> = entry.initrds.iter().map(|image| &image.path[..]).collect();
    assert_eq!(paths, ["p1:/amd-ucode.img", "p1:/initramfs-linux.img"]);
    assert!(first.entries[0].trouble.as_ref().unwrap().contains("/gone"));
}

#[test]
fn entries_with_sort_keys_go_first_the_newest_version_first() {
    let entry = |version: &str, key: &str| {
        format!("title t\nversion {version}\nsort-key {key}\nmachine-id m\nlinux /k\n")
    };
    let boot = MemoryFs::new("ext4")
        .file("/k", "kernel")
        .file("/loader/entries/a.conf", entry("6.1.9", "fedora"))
        .file("/loader/entries/b.conf", entry("6.1.10", "fedora"))
        .file("/loader/entries/c.conf", entry("5.0", "debian"))
        .file("/loader/entries/z.conf", "title none\nlinux /k\n");
    let esp = MemoryFs::new("vfat")
        .any_case()
        .file("/EFI/systemd/systemd-bootx64.efi", "");
    let root = system("ext4", "r", "");
    let menu = menu_of(vec![
        (Some(ESP), esp.build()),
        (Some(XBOOTLDR), boot.build()),
        (None, root.build()),
    ]);
    let ids: Vec<_> = menu.entries.iter().map(|entry| &entry.id[..]).collect();
    assert_eq!(ids, ["c", "b", "a", "z"]);
}

/// Makes a program with these sections.
pub(super) fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut head = b"MZ".to_vec();
    head.resize(0x3c, 0);
    head.extend(0x80_u32.to_le_bytes());
    head.resize(0x80, 0);
    head.extend(b"PE\0\0\x64\x86");
    head.extend((sections.len() as u16).to_le_bytes());
    head.extend([0; 12]);
    head.extend(240_u16.to_le_bytes());
    head.extend([0; 2 + 240]);
    let mut at = 0x1000_u32;
    let mut body = Vec::new();
    for (name, bytes) in sections {
        let mut name = name.as_bytes().to_vec();
        name.resize(8, 0);
        let padded = bytes.len().next_multiple_of(512) as u32;
        head.extend(name);
        for number in [bytes.len() as u32, at, padded, at] {
            head.extend(number.to_le_bytes());
        }
        head.extend([0; 16]);
        body.extend_from_slice(bytes);
        body.resize(body.len().next_multiple_of(512), 0);
        at += padded;
    }
    head.resize(0x1000, 0);
    head.extend(body);
    head
}

const UKI: &[(&str, &[u8])] = &[
    (".text", b"code"),
    (".osrel", b"ID=arch\nPRETTY_NAME=\"Arch Linux\"\n"),
    (".uname", b"6.9.1-arch1-1"),
    (".cmdline", b"root=PARTUUID=0-2 rw\n\0"),
    (".initrd", b"the initrd"),
    (".linux", b"the kernel"),
];

#[test]
fn a_unified_kernel_image_is_taken_apart() {
    let esp = MemoryFs::new("vfat")
        .any_case()
        .file("/EFI/Linux/arch-linux.efi", program(UKI))
        .file("/EFI/Linux/shell.efi", program(&[(".text", b"x")]))
        .file("/EFI/Linux/broken.efi", b"MZ");
    let menu = menu(esp);
    assert_eq!(titles(&menu), ["Arch Linux"]);
    let entry = default(&menu);
    assert_eq!(entry.loader, Loader::Uki);
    assert_eq!(entry.options, "root=PARTUUID=0-2 rw");
    let kernel = entry.kernel.as_ref().unwrap();
    assert_eq!(kernel.path, "p1:/EFI/Linux/arch-linux.efi:.linux");
    assert_eq!(content(kernel), "the kernel");
    assert_eq!(content(&entry.initrds[0]), "the initrd");
}

#[test]
fn a_damaged_program_is_a_remark_and_never_a_panic() {
    let good = program(UKI);
    for at in (0..0x400).chain(0x1000..0x1010) {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let esp = MemoryFs::new("vfat")
                .any_case()
                .file("/EFI/Linux/x.efi", bytes);
            menu(esp);
        }
    }
    for len in (0..0x400).chain([0x1001, 0x1400]) {
        let esp = MemoryFs::new("vfat")
            .any_case()
            .file("/EFI/Linux/x.efi", &good[..len]);
        menu(esp);
    }
}

const ALPINE: &str = "\
# Generated by update-extlinux 6.04_pre1-r15
DEFAULT menu.c32
PROMPT 0
MENU TITLE Alpine/Linux Boot Menu
MENU HIDDEN
MENU AUTOBOOT Alpine will be booted automatically in # seconds.
TIMEOUT 10
LABEL lts
  MENU DEFAULT
  MENU LABEL Linux ^lts
  LINUX vmlinuz-lts
  INITRD initramfs-lts
  APPEND root=UUID=r modules=sd-mod,usb-storage,ext4 quiet rootfstype=ext4

LABEL virt
  MENU LABEL Linux virt
  KERNEL /vmlinuz-virt
  APPEND initrd=/a,/initramfs-virt root=/dev/sda3
LABEL hdt
  COM32 hdt.c32
MENU SEPARATOR
";

#[test]
fn extlinux_boots_its_menu_default() {
    let boot = MemoryFs::new("ext4")
        .uuid("b")
        .file("/extlinux.conf", ALPINE)
        .file("/vmlinuz-lts", "lts")
        .file("/initramfs-lts", "initrd lts")
        .file("/vmlinuz-virt", "virt")
        .file("/initramfs-virt", "initrd virt")
        .file("/a", "first");
    let root = system("ext4", "r", "UUID=b /boot ext4\n");
    let menu = menu_of(vec![(None, boot.build()), (None, root.build())]);
    assert_eq!(titles(&menu), ["Linux lts", "Linux virt", "hdt"]);
    assert_eq!(
        (menu.default, &menu.reason[..]),
        (Some(0), "its menu default")
    );
    let entry = default(&menu);
    assert_eq!(content(&entry.initrds[0]), "initrd lts");
    assert!(entry.options.starts_with("root=UUID=r modules=sd-mod"));
    let virt = &menu.entries[1];
    assert_eq!(virt.options, "root=/dev/sda3");
    assert_eq!(virt.initrds.len(), 2);
    assert!(menu.entries[2].trouble.is_some());
}

#[test]
fn syslinux_reads_what_it_includes() {
    let root = system("ext4", "r", "")
        .file(
            "/boot/syslinux/syslinux.cfg",
            "INCLUDE more.cfg\nDEFAULT b\n",
        )
        .file(
            "/boot/syslinux/more.cfg",
            "APPEND common\nLABEL a\nLINUX ../vmlinuz\nLABEL b\nLINUX ../vmlinuz\nAPPEND -\n",
        )
        .file("/boot/vmlinuz", "kernel");
    let menu = menu_of(vec![(None, root.build())]);
    assert_eq!(menu.default_entry().unwrap().id, "b");
    assert_eq!(menu.entries[0].options, "common");
    assert_eq!(default(&menu).options, "");
}
