use super::*;
use crate::Tree;
use crate::cpio::Writer;
use crate::initrd::Limits;
use crate::testkit::MemoryFs;

const DEP: &str = "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/scsi/vmw-pvscsi.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz
kernel/drivers/scsi/scsi_mod.ko.xz:
/lib/modules/6.1/kernel/old.ko: /lib/modules/6.1/kernel/older.ko
kernel/drivers/../../../../etc/x.ko:
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
";

fn tree() -> Tree {
    let fs = MemoryFs::new("ext4")
        .link("/lib", "usr/lib")
        .file("/usr/lib/modules/6.1/modules.dep", DEP)
        .file(
            "/usr/lib/modules/6.1/modules.builtin",
            "kernel/drivers/ata/ahci.ko\nkernel/drivers/nvme/host/nvme-core.ko\n",
        )
        .file(
            "/usr/lib/modules/6.1/modules.alias",
            "# Aliases\nalias pci:v000015ADd000007B0sv*sd*bc*sc*i* vmxnet4\nalias x\n",
        )
        .file(
            "/usr/lib/modules/5.0/modules.builtin.modinfo",
            "ext4.x=y\0sd_mod.a=b\0",
        );
    Tree::new(fs.build())
}

#[test]
fn drivers_are_found_where_the_kernel_finds_them() {
    let index = Index::read(&tree(), "6.1").unwrap();
    let mut initrd = Writer::new(Vec::new());
    initrd
        .file(b"lib/modules/6.1/kernel/x/virtio-blk.ko.zst", 0o644, b"")
        .unwrap();
    let initrd = initrd.finish().unwrap();
    let contents = Contents::read(&mut &*initrd, &Limits::default()).unwrap();
    for (hardware, with, without) in [
        (Hardware::Ahci, Whereabouts::Builtin, Whereabouts::Builtin),
        (
            Hardware::VirtioBlk,
            Whereabouts::Initrd,
            Whereabouts::Modules,
        ),
        (Hardware::Pvscsi, Whereabouts::Modules, Whereabouts::Modules),
        (
            Hardware::Vmxnet3,
            Whereabouts::Nowhere,
            Whereabouts::Nowhere,
        ),
        (Hardware::Nvme, Whereabouts::Nowhere, Whereabouts::Nowhere),
    ] {
        assert_eq!(find(&index, Some(&contents), hardware), with);
        assert_eq!(find(&index, None, hardware), without);
    }
    let names = index.modules_for(Hardware::Vmxnet3);
    assert!(names.contains("vmxnet4"), "the aliases know it");
    let old = Index::read(&tree(), "5.0").unwrap();
    assert!(old.is_builtin("sd_mod"));
}

#[test]
fn what_a_module_needs_comes_before_it_and_once() {
    let index = Index::read(&tree(), "6.1").unwrap();
    let paths = ["virtio_blk", "virtio_pci"].map(|name| index.path(name).unwrap());
    let order = index.with_needed(paths);
    let names: Vec<_> = order.iter().filter_map(|path| module_name(path)).collect();
    assert_eq!(names.len(), 5);
    let at = |name: &str| names.iter().position(|known| known == name).unwrap();
    assert!(at("virtio") < at("virtio_blk"));
    assert!(at("virtio_pci_modern_dev") < at("virtio_pci"));
    let circle = index.with_needed([index.path("a").unwrap()]);
    assert_eq!(circle.len(), 2);
}

#[test]
fn paths_that_lead_out_of_the_kernels_folder_are_not_believed() {
    let index = Index::read(&tree(), "6.1").unwrap();
    assert_eq!(index.path("x"), None);
    assert_eq!(index.path("old"), Some(&b"kernel/old.ko"[..]));
    for version in ["", "..", "a/b", "7.0"] {
        assert!(Index::read(&tree(), version).is_err(), "{version}");
    }
}

#[test]
fn names_of_modules_are_as_the_kernel_has_them() {
    for (path, name) in [
        ("kernel/vmw-pvscsi.ko.xz", Some("vmw_pvscsi")),
        ("a.ko", Some("a")),
        ("a.ko.zst", Some("a")),
        ("a.ko.gz", Some("a")),
        ("a.kold", None),
        (".ko", None),
        ("a.ko/b", None),
    ] {
        assert_eq!(module_name(path.as_bytes()).as_deref(), name, "{path}");
    }
}
