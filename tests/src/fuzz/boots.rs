//! What is read of how a guest boots: initrds, boot loaders' texts, unified kernel images.

use std::sync::Arc;

use hako_guest::Volumes;
use hako_guest::boot::Menu;
use hako_guest::fs::FileSystem;
use hako_guest::initrd::{Contents, Limits};
use hako_guest::root::{Root, installations};
use hako_guest::testkit::MemoryFs;

/// An initrd. It may unpack to 16 MiB.
pub fn initrd(bytes: &[u8]) {
    let limits = Limits {
        unpacked_bytes: 16 << 20,
        members: 10_000,
        name_bytes: 1 << 20,
    };
    if let Ok(contents) = Contents::read(&mut &*bytes, &limits) {
        let _ = contents.tool();
        for version in contents.versions() {
            let _ = contents.modules(&version).count();
        }
    }
}

/// GRUB's configuration, which is its environment block and an entry of BLS as well.
pub fn grub(bytes: &[u8]) {
    let fs = MemoryFs::new("ext4")
        .uuid("r")
        .file("/etc/fstab", bytes)
        .file("/etc/os-release", bytes)
        .dir("/usr")
        .file("/boot/grub/grub.cfg", bytes)
        .file("/boot/grub/grubenv", bytes)
        .file("/loader/entries/a.conf", bytes)
        .file("/k", "kernel");
    read(None, fs.build());
}

/// A unified kernel image, which is the texts of systemd-boot and syslinux as well.
pub fn uki(bytes: &[u8]) {
    let fs = MemoryFs::new("vfat")
        .any_case()
        .file("/EFI/Linux/a.efi", bytes)
        .file("/loader/loader.conf", bytes)
        .file("/loader/entries/a.conf", bytes)
        .file("/syslinux.cfg", bytes);
    read(Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), fs.build());
}

fn read(kind: Option<&str>, fs: Arc<dyn FileSystem>) {
    let volumes = Volumes::in_memory().disk(vec![(kind, fs)]);
    let all = installations(&volumes);
    let root = all.first().map(|one| Root::mount(&volumes, one));
    let root = root.transpose().ok().flatten();
    let menu = Menu::read(&volumes, root.as_ref());
    for entry in &menu.entries {
        if let Some(kernel) = &entry.kernel {
            let _ = hako_guest::os::image_version(&kernel.blob);
        }
    }
}
