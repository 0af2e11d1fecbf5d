use super::*;
use crate::testkit::MemoryFs;

const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

fn debian(fstab: &str) -> MemoryFs {
    MemoryFs::new("ext4")
        .uuid("root-uuid")
        .link("/bin", "usr/bin")
        .link("/etc/os-release", "../usr/lib/os-release")
        .file("/usr/lib/os-release", "ID=debian\n")
        .dir("/boot/efi")
        .dir("/home")
        .dir("/data")
        .file("/etc/fstab", fstab)
}

fn mounted(volumes: &Volumes) -> Root {
    let all = installations(volumes);
    assert_eq!(all.len(), 1);
    Root::mount(volumes, &all[0]).unwrap()
}

#[test]
fn fstab_mounts_by_uuid_label_partition_and_name() {
    let fstab = "UUID=ROOT-UUID / ext4 defaults 0 1\n\
        /dev/sda1 /boot/efi/ vfat umask=0077\n\
        LABEL=boot /boot ext4\n\
        PARTUUID=1-1 /home auto\n\
        /home/a /data none bind\n\
        UUID=gone /gone ext4\n\
        tmpfs /tmp tmpfs\n";
    let boot = MemoryFs::new("ext4")
        .label("boot")
        .file("/vmlinuz", "k")
        .dir("/efi");
    let volumes = Volumes::in_memory()
        .disk(vec![
            (None, MemoryFs::new("vfat").file("/EFI/x", "esp").build()),
            (None, boot.build()),
            (None, debian(fstab).build()),
        ])
        .disk(vec![(
            None,
            MemoryFs::new("xfs").file("/a/b", "home").build(),
        )]);
    let root = mounted(&volumes);
    let paths: Vec<_> = root.mounts.iter().map(|mount| &mount.path[..]).collect();
    assert_eq!(paths, ["/", "/boot", "/home", "/boot/efi"]);
    assert_eq!(root.remarks.len(), 1, "{:?}", root.remarks);
    for (path, content) in [
        ("/boot/vmlinuz", "k"),
        ("/boot/efi/EFI/x", "esp"),
        ("/home/a/b", "home"),
        ("/data/b", "home"),
        ("/home/../etc/../etc/os-release", "ID=debian\n"),
    ] {
        assert_eq!(
            root.tree.read(path.as_bytes(), 99).unwrap(),
            content.as_bytes()
        );
    }
}

#[test]
fn without_fstab_partitions_are_mounted_by_their_types() {
    let home = "933ac7e1-2eb4-4f13-b844-0e14e2aef915";
    let volumes = Volumes::in_memory().disk(vec![
        (
            Some(ESP),
            MemoryFs::new("vfat").file("/EFI/x", "esp").build(),
        ),
        (Some(home), MemoryFs::new("ext4").dir("/a").build()),
        (None, debian("").file("/boot/config", "").build()),
    ]);
    let root = mounted(&volumes);
    assert!(root.tree.find(b"/boot/efi/EFI/x").is_ok());
    assert!(root.tree.find(b"/home/a").is_ok());
}

#[test]
fn subvolumes_of_btrfs_are_mounted_and_snapshots_are_no_systems() {
    let fs = MemoryFs::new("btrfs")
        .uuid("b")
        .subvolume("/@", 256)
        .subvolume("/@home", 257)
        .subvolume("/@/.snapshots", 258)
        .subvolume("/@/.snapshots/1/snapshot", 259)
        .file(
            "/@/.snapshots/1/snapshot/etc/fstab",
            "UUID=b / btrfs\nUUID=b /home btrfs subvol=/@home\nUUID=b /srv btrfs subvolid=257\n",
        )
        .dir("/@/.snapshots/1/snapshot/usr/lib")
        .dir("/@/.snapshots/1/snapshot/home")
        .dir("/@/.snapshots/1/snapshot/srv")
        .file("/@home/me/x", "x")
        .root_at("/@/.snapshots/1/snapshot");
    let root = mounted(&Volumes::in_memory().disk(vec![(None, fs.build())]));
    assert_eq!(root.remarks, [""; 0]);
    assert!(root.tree.find(b"/home/me/x").is_ok());
    assert!(root.tree.find(b"/srv/me/x").is_ok());

    let fs = MemoryFs::new("btrfs")
        .subvolume("/root", 256)
        .subvolume("/home", 257)
        .file("/root/etc/os-release", "ID=fedora")
        .dir("/root/usr/lib");
    let volumes = Volumes::in_memory().disk(vec![(None, fs.build())]);
    assert_eq!(
        installations(&volumes)[0].subvolume.as_deref(),
        Some("root")
    );
    assert!(mounted(&volumes).tree.find(b"/etc/os-release").is_ok());
}

#[test]
fn several_systems_are_listed_and_data_is_none() {
    let windows = MemoryFs::new("ntfs")
        .any_case()
        .dir("/WINDOWS/system32/Config");
    let volumes = Volumes::in_memory().disk(vec![
        (None, debian("").build()),
        (
            None,
            MemoryFs::new("ext4").dir("/etc").file("/usr/x", "").build(),
        ),
        (None, windows.build()),
        (None, debian("").build()),
    ]);
    let all = installations(&volumes);
    let found: Vec<_> = all
        .iter()
        .map(|one| (&one.volume[..], one.is_windows))
        .collect();
    assert_eq!(found, [("p1", false), ("p3", true), ("p4", false)]);
}
