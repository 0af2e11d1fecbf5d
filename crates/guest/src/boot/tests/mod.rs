mod debian;
mod fedora;
mod grub;
mod hostile;
mod others;
mod suse;
mod ubuntu;

use std::sync::Arc;

use super::*;
use crate::fs::FileSystem;
use crate::root::installations;
use crate::testkit::MemoryFs;

const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";

/// A system's root with what says that it is one.
fn system(kind: &'static str, uuid: &str, fstab: &str) -> MemoryFs {
    MemoryFs::new(kind)
        .uuid(uuid)
        .file("/etc/os-release", "ID=test\n")
        .file("/etc/fstab", fstab)
        .dir("/usr/lib")
        .dir("/boot/efi")
        .dir("/efi")
}

fn menu_of(parts: Vec<(Option<&str>, Arc<dyn FileSystem>)>) -> Menu {
    let volumes = Volumes::in_memory().disk(parts);
    let all = installations(&volumes);
    let root = all.first().map(|one| Root::mount(&volumes, one).unwrap());
    Menu::read(&volumes, root.as_ref())
}

fn titles(menu: &Menu) -> Vec<&str> {
    menu.entries.iter().map(|entry| &entry.title[..]).collect()
}

fn default(menu: &Menu) -> &Entry {
    menu.default_entry().unwrap()
}

fn content(image: &Image) -> String {
    String::from_utf8(image.blob.read(1000).unwrap()).unwrap()
}
