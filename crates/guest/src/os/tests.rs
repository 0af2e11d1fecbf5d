use super::*;
use crate::boot::Blob;
use crate::testkit::MemoryFs;

fn os(fs: MemoryFs) -> Os {
    Os::of(&Tree::new(fs.build()))
}

fn elf(machine: u16) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(18, 0);
    bytes.extend(machine.to_le_bytes());
    bytes
}

#[test]
fn a_debian_is_told_with_its_kernels() {
    let os = os(MemoryFs::new("ext4")
        .link("/bin", "usr/bin")
        .link("/sbin", "usr/sbin")
        .link("/lib", "usr/lib")
        .link("/usr/sbin/init", "/lib/systemd/systemd")
        .file("/usr/bin/env", elf(62))
        .link("/etc/os-release", "../usr/lib/os-release")
        .file(
            "/usr/lib/os-release",
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
        )
        .file("/etc/hostname", "web\n")
        .file("/var/lib/dpkg/status", "")
        .file("/boot/vmlinuz-6.1.0-9-amd64", "")
        .file("/boot/initrd.img-6.1.0-9-amd64", "")
        .file("/boot/vmlinuz-6.1.0-10-amd64", "")
        .file("/boot/vmlinuz-5.10.0-1-amd64", "")
        .file("/usr/lib/modules/6.1.0-9-amd64/modules.dep", "")
        .file("/usr/lib/modules/6.1.0-10-amd64/modules.dep", "")
        .dir("/usr/lib/modules/empty"));
    assert_eq!(os.name, "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(
        (&os.id[..], &os.version[..], &os.hostname[..]),
        ("debian", "12", "web")
    );
    assert_eq!(
        (os.architecture, os.packages, os.init),
        ("x86_64", "dpkg", "systemd")
    );
    let kernels: Vec<_> = os
        .kernels
        .iter()
        .map(|kernel| &kernel.version[..])
        .collect();
    assert_eq!(
        kernels,
        ["6.1.0-10-amd64", "6.1.0-9-amd64", "5.10.0-1-amd64"]
    );
    assert_eq!(os.kernels[0].initrd, None);
    let initrd = os.kernels[1].initrd.as_deref();
    assert_eq!(initrd, Some("/boot/initrd.img-6.1.0-9-amd64"));
    assert!(!os.kernels[2].has_modules);
}

#[test]
fn kernels_of_arch_alpine_and_fedora_have_their_initrds() {
    let fs = MemoryFs::new("ext4")
        .file("/lib/modules/6.9.1-arch1-1/pkgbase", "linux\n")
        .file("/lib/modules/6.9.1-arch1-1/vmlinuz", "")
        .file("/lib/modules/6.6.1-0-lts/modules.dep", "")
        .file("/lib/modules/5.14.0-1.el9.x86_64/modules.dep", "")
        .file("/boot/vmlinuz-linux", "")
        .file("/boot/initramfs-linux.img", "")
        .file("/boot/vmlinuz-lts", "")
        .file("/boot/initramfs-lts", "")
        .file("/boot/vmlinuz-5.14.0-1.el9.x86_64", "")
        .file("/boot/initramfs-5.14.0-1.el9.x86_64.img", "")
        .file("/boot/vmlinuz-0-rescue-1234", "");
    let found: Vec<_> = os(fs)
        .kernels
        .into_iter()
        .map(|kernel| {
            (
                kernel.image.unwrap_or_default(),
                kernel.initrd.unwrap_or_default(),
            )
        })
        .collect();
    let expected = [
        ("/boot/vmlinuz-linux", "/boot/initramfs-linux.img"),
        ("/boot/vmlinuz-lts", "/boot/initramfs-lts"),
        (
            "/boot/vmlinuz-5.14.0-1.el9.x86_64",
            "/boot/initramfs-5.14.0-1.el9.x86_64.img",
        ),
        ("/boot/vmlinuz-0-rescue-1234", ""),
    ];
    assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn systems_before_os_release_are_told() {
    for (path, text, id, version) in [
        (
            "/etc/redhat-release",
            "CentOS release 6.10 (Final)\n",
            "centos",
            "6.10",
        ),
        ("/etc/debian_version", "6.0.10\n", "debian", "6.0.10"),
        (
            "/etc/lsb-release",
            "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=8.04\nDISTRIB_DESCRIPTION=\"Ubuntu 8.04\"\n",
            "ubuntu",
            "8.04",
        ),
        (
            "/etc/os-release",
            "ID='alpine' # x\nVERSION_ID=3.19.1\n",
            "alpine",
            "3.19.1",
        ),
    ] {
        let os = os(MemoryFs::new("ext3").file(path, text));
        assert_eq!((&os.id[..], &os.version[..]), (id, version), "{path}");
    }
    let centos = os(MemoryFs::new("ext4")
        .file(
            "/etc/sysconfig/network",
            "NETWORKING=yes\nHOSTNAME=db.example\n",
        )
        .file("/etc/inittab", "")
        .dir("/var/lib/rpm"));
    assert_eq!(
        (&centos.hostname[..], centos.init),
        ("db.example", "sysvinit")
    );
    assert_eq!(centos.packages, "rpm");
}

#[test]
fn windows_is_told_with_its_version() {
    let mut kernel = vec![0x5a; 1000];
    let text = "ProductVersion\0\x0010.0.19041.1\0";
    kernel.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    let fs = MemoryFs::new("ntfs")
        .any_case()
        .dir("/WINDOWS/system32/CONFIG");
    assert_eq!(os(fs.clone()).name, "Windows");
    let os = os(fs
        .file("/WINDOWS/system32/ntoskrnl.exe", kernel)
        .dir("/WINDOWS/SysWOW64"));
    assert_eq!(
        (&os.version[..], os.architecture),
        ("10.0.19041.1", "x86_64")
    );
}

#[test]
fn nothing_that_a_file_says_makes_a_panic() {
    for text in [&b"\xff\xfe=\"\\"[..], b"ID=\"", b"=", b"ID=\\", b""] {
        let fs = MemoryFs::new("ext4")
            .file("/etc/os-release", text)
            .file("/etc/hostname", text)
            .file("/usr/bin/env", text)
            .file("/Windows/System32/ntoskrnl.exe", text);
        os(fs.clone());
        Os::of(&Tree::new(fs.file("/Windows", "").build()));
    }
}

#[test]
fn an_image_says_the_version_of_its_kernel() {
    let mut image = vec![0; 0x1000];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
    image[0x600..0x610].copy_from_slice(b"6.1.0-9-amd64 (d");
    let of = |image: &[u8]| {
        let tree = Tree::new(MemoryFs::new("ext4").file("/k", image).build());
        image_version(&Blob::of(tree.find(b"/k").unwrap()).unwrap())
    };
    assert_eq!(of(&image).as_deref(), Some("6.1.0-9-amd64"));
    assert_eq!(of(&image[..0x600]), None);
    assert_eq!(of(&image[..0x100]), None);
}
