use super::*;
use crate::boot::Blob;
use crate::cpio::Writer;
use crate::initrd::tests::through;
use crate::root::installations;
use crate::testkit::MemoryFs;
use crate::tree::Tree;
use crate::volumes::Volumes;

const VERSION: &str = "6.1.0-9-amd64";
const DEP: &str = "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/virtio_net.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/scsi/vmw_pvscsi.ko: kernel/drivers/scsi/scsi_mod.ko
kernel/drivers/scsi/scsi_mod.ko:
kernel/fs/ext4/ext4.ko:
";

/// The files of an initrd with `lib` as a link, and what more is said.
fn initrd(more: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for folder in [
        "usr",
        "usr/lib",
        "usr/lib/modules",
        "scripts",
        "scripts/init-top",
    ] {
        writer.directory(folder.as_bytes()).unwrap();
    }
    writer.link(b"lib", b"usr/lib").unwrap();
    let scsi = format!("usr/lib/modules/{VERSION}/kernel/drivers/scsi/scsi_mod.ko");
    let own = [(&scsi[..], "module scsi_mod")];
    for (path, content) in own.iter().chain(more) {
        writer
            .file(path.as_bytes(), 0o644, content.as_bytes())
            .unwrap();
    }
    writer.finish().unwrap()
}

const DEBIAN: &[(&str, &str)] = &[
    ("scripts/functions", ""),
    ("scripts/init-top/udev", ""),
    ("conf/modules", "dm_mod"),
];

struct Guest {
    volumes: Volumes,
    dep: &'static str,
    initrds: Vec<Vec<u8>>,
}

impl Guest {
    fn new(initrds: Vec<Vec<u8>>) -> Self {
        Self::with(initrds, DEP)
    }

    fn with(initrds: Vec<Vec<u8>>, dep: &'static str) -> Self {
        let mut fs = MemoryFs::new("ext4")
            .file("/etc/fstab", "")
            .file("/boot/vmlinuz-6.1.0-9-amd64", "kernel")
            .link("/lib", "usr/lib")
            .file(&format!("/usr/lib/modules/{VERSION}/modules.dep"), dep)
            .file(
                &format!("/usr/lib/modules/{VERSION}/modules.dep.bin"),
                "bin",
            )
            .file(
                &format!("/usr/lib/modules/{VERSION}/modules.builtin"),
                "kernel/drivers/ata/ahci.ko\n",
            );
        for line in dep.lines() {
            let path = line.split(':').next().unwrap();
            let name = crate::drivers::module_name(path.as_bytes()).unwrap();
            let path = format!("/usr/lib/modules/{VERSION}/{path}");
            fs = fs.file(&path, format!("module {name}"));
        }
        for (at, initrd) in initrds.iter().enumerate() {
            fs = fs.file(&format!("/boot/initrd{at}"), initrd);
        }
        let volumes = Volumes::in_memory().disk(vec![(None, fs.build())]);
        Self {
            volumes,
            dep,
            initrds,
        }
    }

    fn root(&self) -> Root {
        Root::mount(&self.volumes, &installations(&self.volumes)[0]).unwrap()
    }

    fn menu(&self, root: &Root, loader: Loader) -> Menu {
        let image = |path: &str| Image {
            path: format!("p1:{path}"),
            blob: Blob::of(root.tree.find(path.as_bytes()).unwrap()).unwrap(),
        };
        let initrds = (0..self.initrds.len()).map(|at| image(&format!("/boot/initrd{at}")));
        let entry = Entry {
            title: "a".into(),
            id: "a".into(),
            loader,
            source: "p1:/boot/grub/grub.cfg".into(),
            kernel: Some(image("/boot/vmlinuz-6.1.0-9-amd64")),
            initrds: initrds.collect(),
            options: "root=/dev/sda1 ro".into(),
            trouble: None,
        };
        Menu {
            entries: vec![entry],
            default: Some(0),
            ..Menu::default()
        }
    }

    fn plan_of(&self, loader: Loader, hardware: &[Hardware]) -> Result<DirectBoot> {
        assert!(!self.dep.is_empty());
        let root = self.root();
        let request = Request {
            hardware,
            ..Request::default()
        };
        DirectBoot::plan(Some(&root), &self.menu(&root, loader), &request)
    }

    fn plan(&self, hardware: &[Hardware]) -> DirectBoot {
        self.plan_of(Loader::Grub, hardware).unwrap()
    }
}

const VIRTUAL: &[Hardware] = &[
    Hardware::VirtioPci,
    Hardware::VirtioBlk,
    Hardware::Pvscsi,
    Hardware::VirtioNet,
    Hardware::Ahci,
];

/// Reads what is handed to the engine, as Linux would.
fn unpacked(plan: &DirectBoot) -> (Vec<u8>, Contents) {
    let bytes = plan.initrd.as_ref().unwrap().bytes(64 << 20).unwrap();
    assert_eq!(
        bytes.len() as u64,
        plan.initrd.as_ref().unwrap().len_bytes()
    );
    let contents = Contents::read(&mut &*bytes, &Limits::default()).unwrap();
    (bytes, contents)
}

fn modules(contents: &Contents) -> Vec<String> {
    let paths = contents.modules(VERSION);
    paths.filter_map(crate::drivers::module_name).collect()
}

#[test]
fn missing_modules_are_appended_with_what_they_need_and_the_index() {
    let Some(packed) = through("gzip", &["-n"], &initrd(DEBIAN)) else {
        return;
    };
    assert_ne!(packed.len() % 4, 0, "so that padding is proved");
    let plan = Guest::new(vec![packed.clone()]).plan(VIRTUAL);
    let (bytes, contents) = unpacked(&plan);
    assert!(
        bytes.starts_with(&packed),
        "what the guest has is unchanged"
    );
    assert_eq!(
        modules(&contents),
        [
            "virtio_blk",
            "scsi_mod",
            "vmw_pvscsi",
            "virtio",
            "virtio_pci",
            "virtio_ring"
        ]
    );
    let folder = format!("usr/lib/modules/{VERSION}");
    for (name, len) in [("modules.dep", DEP.len()), ("modules.dep.bin", 3)] {
        let path = format!("{folder}/{name}").into_bytes();
        assert_eq!(contents.members[&path].len_bytes as usize, len);
    }
    let lib = &contents.members[&b"lib"[..]];
    assert!(matches!(&lib.kind, crate::initrd::MemberKind::Link(to) if to == b"usr/lib"));
    assert_eq!(contents.text("conf/modules"), Some("dm_mod"), "udev loads");
    assert!(!contents.has("etc/modules-load.d/hako.conf"));
    let index =
        "appended to the initrd: the index of the guest's modules (modules.dep, modules.alias …)";
    assert_eq!(
        plan.messages,
        [
            "appended to the initrd: the module virtio, which is needed for that",
            "appended to the initrd: the module virtio_ring, which is needed for that",
            "appended to the initrd: the module virtio_pci, for virtio-pci",
            "appended to the initrd: the module virtio_blk, for virtio-blk",
            "appended to the initrd: the module vmw_pvscsi, for pvscsi",
            index,
        ]
    );
    assert_eq!(plan.version, VERSION);
    let net = plan
        .drivers
        .iter()
        .find(|(one, _)| *one == Hardware::VirtioNet);
    assert_eq!(
        net.unwrap().1,
        Whereabouts::Modules,
        "the root has it when it is needed"
    );
}

#[test]
fn the_program_cpio_unpacks_what_is_appended() {
    let own = initrd(DEBIAN);
    let plan = Guest::new(vec![own.clone()]).plan(VIRTUAL);
    let (bytes, _) = unpacked(&plan);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    if through("cpio", &["-id", "-D", at], &bytes[own.len()..]).is_none() {
        return;
    }
    let path = format!("usr/lib/modules/{VERSION}/kernel/drivers/scsi/vmw_pvscsi.ko");
    let content = std::fs::read(folder.path().join(path)).unwrap();
    assert_eq!(content, b"module vmw_pvscsi");
}

#[test]
fn an_initrd_that_has_all_is_left_as_it_is() {
    let own = initrd(DEBIAN);
    let plan = Guest::new(vec![own.clone()]).plan(&[Hardware::Ahci, Hardware::VirtioNet]);
    assert_eq!(unpacked(&plan).0, own);
    assert_eq!(plan.messages, [""; 0]);
    assert_eq!(plan.options, "root=/dev/sda1 ro");
}

#[test]
fn systemd_and_scripts_are_told_what_to_load() {
    let dracut = initrd(&[
        ("usr/lib/dracut/x", ""),
        ("usr/lib/systemd/systemd-modules-load", ""),
    ]);
    let contents = unpacked(&Guest::new(vec![dracut]).plan(&[Hardware::Pvscsi])).1;
    assert!(contents.has("etc/modules-load.d/hako.conf"));
    let scripts = initrd(&[("scripts/functions", ""), ("conf/modules", "dm_mod\n")]);
    let contents = unpacked(&Guest::new(vec![scripts]).plan(&[Hardware::Pvscsi])).1;
    assert_eq!(contents.text("conf/modules"), Some("dm_mod\nvmw_pvscsi\n"));
    // A comment in Latin-1 takes nothing away.
    let mut scripts = Writer::new(Vec::new());
    scripts.file(b"scripts/functions", 0o644, b"").unwrap();
    let list = b"# f\xfcr\ndm_mod\n";
    scripts.file(b"conf/modules", 0o644, list).unwrap();
    let scripts = scripts.finish().unwrap();
    let contents = unpacked(&Guest::new(vec![scripts]).plan(&[Hardware::Pvscsi])).1;
    let list = contents.bytes("conf/modules");
    assert_eq!(list.unwrap(), b"# f\xfcr\ndm_mod\nvmw_pvscsi\n");
}

#[test]
fn what_follows_a_stream_of_lz4_goes_on_in_it() {
    let own = initrd(DEBIAN);
    let Some(packed) = through("lz4", &["-l"], &own) else {
        return;
    };
    let mut early = Writer::new(Vec::new());
    early
        .file(b"kernel/x86/microcode/GenuineIntel.bin", 0o644, b"code")
        .unwrap();
    let early = early.finish().unwrap();
    for initrds in [
        vec![packed.clone()],
        vec![[&early[..], &packed[..]].concat()],
        vec![early.clone(), packed.clone()],
    ] {
        let guest = Guest::new(initrds.clone());
        let mut plan = guest.plan(VIRTUAL);
        let mut script = Writer::new(Vec::new());
        script.file(b"scripts/x", 0o755, b"#!/bin/sh").unwrap();
        plan.append(&script.finish().unwrap()).unwrap();
        let (bytes, contents) = unpacked(&plan);
        assert!(bytes.starts_with(&initrds.concat()));
        let before = bytes.len() - packed.len();
        let stream = bytes
            .windows(packed.len())
            .position(|window| window == packed);
        let stream = stream.filter(|at| *at <= before).unwrap();
        assert_eq!(contents.segments.last().unwrap().offset, stream as u64);
        assert!(modules(&contents).contains(&"virtio_blk".to_owned()));
        assert!(contents.has("scripts/x"));
        // A program that we did not write unpacks the whole of it.
        let all = through("lz4", &["-d"], &bytes[stream..]).unwrap();
        assert!(all.starts_with(&own) && all.len() > own.len() && all.len().is_multiple_of(4));
        // And what is written to the disk is the same.
        let root = guest.root();
        let menu = guest.menu(&root, Loader::Grub);
        let appendix = appendix(&root, &menu.entries[0], VIRTUAL, &mut |_| Vec::new()).unwrap();
        let file = initrds.last().unwrap();
        let whole = [&file[..], &appendix.bytes.unwrap()].concat();
        let contents = Contents::read(&mut &whole[..], &Limits::default()).unwrap();
        assert!(modules(&contents).contains(&"virtio_blk".to_owned()));
    }
    // Zeros behind it end it for kernels since 5.13 only.
    let padded = [&packed[..], &[0; 8]].concat();
    let contents = Contents::read(&mut &padded[..], &Limits::default()).unwrap();
    let tail = |version| tail::Tail::of(&contents, padded.len() as u64, version);
    assert_eq!(tail("5.13.0-1-amd64"), Some(tail::Tail::Plain));
    assert_eq!(
        (tail("5.12.19"), tail("4.18.0-553.el8"), tail("")),
        (None, None, None)
    );
    assert!(following(&contents, padded.len() as u64, b"x").is_err());
}

#[test]
fn files_are_laid_over_an_initrd_and_only_they_where_no_driver_is_missing() {
    let guest = Guest::new(vec![initrd(DEBIAN), initrd(&[("etc/crypttab", "old\n")])]);
    let root = guest.root();
    let menu = guest.menu(&root, Loader::Grub);
    let entry = &menu.entries[0];
    let mut overlay = |contents: &Contents| {
        assert_eq!(contents.text("etc/crypttab"), Some("old\n"));
        vec![OverlaidFile {
            path: "etc/crypttab".into(),
            content: b"new\n".to_vec(),
            why: "which is new".into(),
        }]
    };
    for hardware in [&[][..], VIRTUAL] {
        let appendix = appendix(&root, entry, hardware, &mut overlay).unwrap();
        let said = "appended to the initrd: etc/crypttab, which is new";
        assert_eq!(appendix.messages.last().unwrap(), said);
        let bytes = appendix.bytes.unwrap();
        let contents = Contents::read(&mut &bytes[..], &Limits::default()).unwrap();
        assert_eq!(contents.text("etc/crypttab"), Some("new\n"));
        let index = format!("usr/lib/modules/{VERSION}/modules.dep");
        assert_eq!(contents.has(&index), !hardware.is_empty());
    }
    let nothing = appendix(&root, entry, &[], &mut |_| Vec::new()).unwrap();
    assert!(nothing.bytes.is_none());
}

#[test]
fn modules_under_other_names_are_added_as_the_index_calls_them() {
    let dep = "kernel/drivers/scsi/vmw_pvscsi.ko.zst: kernel/drivers/scsi/scsi_mod.ko.zst\n\
               kernel/drivers/scsi/scsi_mod.ko.zst:\n";
    let own = initrd(&[("init_functions", "")]);
    let plan = Guest::with(vec![own], dep).plan(&[Hardware::Pvscsi]);
    let contents = unpacked(&plan).1;
    let folder = format!("lib/modules/{VERSION}/kernel/drivers/scsi");
    for name in ["scsi_mod.ko", "scsi_mod.ko.zst", "vmw_pvscsi.ko.zst"] {
        assert!(contents.has(&format!("{folder}/{name}")), "{name}");
    }
    assert_eq!(plan.messages.len(), 3, "{:?}", plan.messages);
}

#[test]
fn several_initrds_are_laid_one_after_the_other() {
    let mut first = Writer::new(Vec::new());
    first.file(b"first", 0o644, b"x").unwrap();
    let first = first.finish().unwrap();
    let Some(second) = through("xz", &["--check=crc32"], &initrd(DEBIAN)) else {
        return;
    };
    let plan = Guest::new(vec![second.clone(), first]).plan(VIRTUAL);
    let (bytes, contents) = unpacked(&plan);
    assert!(bytes.starts_with(&second));
    assert!(contents.has("first") && contents.has("scripts/functions"));
    assert!(modules(&contents).contains(&"vmw_pvscsi".to_owned()));
}

#[test]
fn nothing_is_appended_to_a_unified_kernel_image() {
    let guest = Guest::new(vec![initrd(DEBIAN)]);
    let error = guest.plan_of(Loader::Uki, VIRTUAL).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("unified"), "{error}");
    assert!(error.hint_text().is_some());
    let mut plan = guest.plan_of(Loader::Uki, &[Hardware::Ahci]).unwrap();
    assert!(plan.append(&[]).is_err());
    let mut plan = guest.plan(&[]);
    let mut script = Writer::new(Vec::new());
    script
        .file(b"scripts/local-bottom/x", 0o755, b"#!/bin/sh")
        .unwrap();
    plan.append(&script.finish().unwrap()).unwrap();
    assert!(unpacked(&plan).1.has("scripts/local-bottom/x"));
}

#[test]
fn boosters_initrd_is_not_appended_to_and_no_initrd_is_told() {
    let booster = initrd(&[("etc/booster.init.yaml", "")]);
    assert!(
        Guest::new(vec![booster])
            .plan_of(Loader::Grub, VIRTUAL)
            .is_err()
    );
    let plan = Guest::new(Vec::new()).plan(VIRTUAL);
    assert!(plan.initrd.is_none());
    assert!(plan.messages[0].contains("there is none to append them to"));
}

#[test]
fn what_no_kernel_module_drives_is_told() {
    let plan = Guest::new(vec![initrd(DEBIAN)]).plan(&[Hardware::Nvme]);
    assert_eq!(plan.messages, ["the kernel has no driver for nvme"]);
}

#[test]
fn the_entry_and_the_console_are_as_asked_for() {
    let guest = Guest::new(vec![initrd(DEBIAN)]);
    let root = guest.root();
    let mut menu = guest.menu(&root, Loader::Grub);
    let plan = |menu: &Menu, entry, serial_console| {
        let request = Request {
            entry,
            serial_console,
            hardware: &[],
        };
        DirectBoot::plan(Some(&root), menu, &request)
    };
    assert_eq!(
        plan(&menu, Some(0), true).unwrap().options,
        "root=/dev/sda1 ro console=ttyS0"
    );
    assert_eq!(
        plan(&menu, Some(1), true).err().unwrap().kind(),
        ErrorKind::Invalid
    );
    menu.entries[0].options = "console=ttyS0,115200n8 x".into();
    assert_eq!(
        plan(&menu, None, true).unwrap().options,
        "console=ttyS0,115200n8 x"
    );
    menu.entries[0].options = "a\nb".into();
    assert_eq!(
        plan(&menu, None, true).err().unwrap().kind(),
        ErrorKind::Corrupt
    );
    menu.entries[0].options = "x".repeat(3000);
    assert!(plan(&menu, None, false).unwrap().messages[0].contains("2047"));
    menu.entries[0].trouble = Some("gone".into());
    assert_eq!(
        plan(&menu, None, true).err().unwrap().kind(),
        ErrorKind::Unsupported
    );
    let none = plan(&Menu::default(), None, true).err().unwrap();
    assert_eq!(none.kind(), ErrorKind::NotFound);
}

#[test]
fn an_initrd_that_cannot_be_read_and_a_kernel_without_modules_are_told() {
    let guest = Guest::new(vec![b"garbage".to_vec()]);
    let plan = guest.plan(VIRTUAL);
    assert!(
        plan.messages[0].contains("is used as it is"),
        "{:?}",
        plan.messages
    );
    assert_eq!(plan.initrd.unwrap().bytes(100).unwrap(), b"garbage");
    let fs = MemoryFs::new("ext4")
        .file("/vmlinuz-7", "kernel")
        .file("/etc/fstab", "")
        .dir("/usr");
    let tree = Tree::new(fs.clone().build());
    let volumes = Volumes::in_memory().disk(vec![(None, fs.build())]);
    let root = Root::mount(&volumes, &installations(&volumes)[0]).unwrap();
    let mut menu = guest.menu(&guest.root(), Loader::Grub);
    menu.entries[0].kernel = Some(Image {
        path: "p1:/vmlinuz-7".into(),
        blob: Blob::of(tree.find(b"/vmlinuz-7").unwrap()).unwrap(),
    });
    let request = Request {
        hardware: VIRTUAL,
        ..Request::default()
    };
    let plan = DirectBoot::plan(Some(&root), &menu, &request).unwrap();
    assert!(
        plan.messages[0].contains("are not known"),
        "{:?}",
        plan.messages
    );
}
