//! How the test bed's disks would boot, by their own files: Debian's grub-install, grub-mkconfig and
//! update-initramfs wrote them, and one is as Fedora's (XFS, BLS entries, dracut).

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use hako_formats::{OpenOptions, open_chain};
use hako_guest::boot::{Loader, Menu};
use hako_guest::direct::{DirectBoot, Request, following};
use hako_guest::drivers::{Hardware, Whereabouts};
use hako_guest::initrd::{Compression, Contents, Limits, Tool};
use hako_guest::os::Os;
use hako_guest::root::{Root, installations};
use hako_guest::{Disk, Volumes};
use hako_tests::guests::disk;
use hako_tests::{all, root, skip};

struct Looked {
    os: Os,
    root: Root,
    menu: Menu,
}

fn look(name: &str) -> Option<Looked> {
    let options = OpenOptions {
        from: Some("raw".into()),
        ..OpenOptions::default()
    };
    let opened = open_chain(&disk(name)?, &options).unwrap();
    let volumes = Volumes::of(vec![Arc::new(Disk::new(Arc::new(opened.chain), 512))]).unwrap();
    let all = installations(&volumes);
    assert_eq!(all.len(), 1, "{name}");
    let root = Root::mount(&volumes, &all[0]).unwrap();
    assert_eq!(root.remarks, [""; 0], "{name}");
    Some(Looked {
        os: Os::of(&root.tree),
        menu: Menu::read(&volumes, Some(&root)),
        root,
    })
}

fn through(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // One that has seen enough closes its end.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap().stdout
    })
}

/// The names that the program cpio lists in an initrd: of each stretch that we found, unpacked by
/// the program of its compression.
fn listed_by_cpio(initrd: &[u8], contents: &Contents) -> Vec<String> {
    let mut names = Vec::new();
    for segment in &contents.segments {
        let (at, len) = (segment.offset as usize, segment.len_bytes as usize);
        let packed = &initrd[at..at + len];
        let plain = match segment.compression {
            Compression::None => packed.to_vec(),
            other => through(other.name().trim_end_matches("-legacy"), &["-dc"], packed),
        };
        let listed = through("cpio", &["-t", "--quiet"], &plain);
        let listed = String::from_utf8(listed).unwrap();
        let plain = |name: &str| name.trim_start_matches("./").to_owned();
        names.extend(listed.lines().map(plain));
    }
    names.retain(|name| name != ".");
    names.sort();
    names.dedup();
    names
}

fn plan(looked: &Looked, hardware: &[Hardware]) -> DirectBoot {
    let request = Request {
        hardware,
        ..Request::default()
    };
    DirectBoot::plan(Some(&looked.root), &looked.menu, &request).unwrap()
}

/// Checks what is the same of all: the initrd is listed as cpio lists it, and has all drivers once
/// what it lacks was appended.
fn check(name: &str, looked: &Looked, tool: Tool) {
    assert_eq!(
        (&looked.os.id[..], looked.os.packages),
        ("debian", "dpkg"),
        "{name}"
    );
    assert_eq!(looked.os.architecture, "x86_64");
    let kernel = &looked.os.kernels[0];
    assert!(kernel.has_modules && kernel.image.is_some() && kernel.initrd.is_some());
    let own = plan(looked, &[]);
    assert_eq!(own.version, kernel.version, "the image says its version");
    let initrd = own.initrd.as_ref().unwrap().bytes(1 << 30).unwrap();
    let contents = Contents::read(&mut &*initrd, &Limits::default()).unwrap();
    assert_eq!(contents.tool(), tool, "{name}");
    let members: Vec<_> = contents
        .members
        .keys()
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect();
    assert_eq!(members, listed_by_cpio(&initrd, &contents), "{name}");
    let wanted = Hardware::ALL;
    let whole = plan(looked, wanted);
    let bytes = whole.initrd.as_ref().unwrap().bytes(1 << 30).unwrap();
    let complete = Contents::read(&mut &*bytes, &Limits::default()).unwrap();
    let modules: Vec<_> = complete
        .modules(&kernel.version)
        .filter_map(hako_guest::drivers::module_name)
        .collect();
    for (hardware, place) in &whole.drivers {
        if *place == Whereabouts::Modules && hardware.is_for_root() {
            assert!(
                modules.contains(&hardware.module().to_owned()),
                "{name}: {hardware:?}"
            );
            let told = format!("for {}", hardware.name());
            assert!(
                whole
                    .messages
                    .iter()
                    .any(|message| message.ends_with(&told))
            );
        }
    }
}

#[test]
fn debian_with_a_bios_or_uefi_boots_its_grubs_first_entry() {
    for name in ["debian-bios", "debian-uefi"] {
        let Some(looked) = look(name) else { return };
        let entry = looked.menu.default_entry().unwrap();
        assert_eq!(entry.loader, Loader::Grub, "{name}");
        assert_eq!(entry.title, "Debian GNU/Linux");
        assert!(
            entry.options.starts_with("root=/dev/mapper/vg0-root ro"),
            "{}",
            entry.options
        );
        assert_eq!(looked.menu.remarks, [""; 0]);
        assert!(
            looked
                .menu
                .entries
                .iter()
                .any(|entry| entry.title.ends_with("(recovery mode)"))
        );
        assert_eq!(looked.root.mounts[0].volume, "vg0/root");
        check(name, &looked, Tool::InitramfsTools);
    }
}

#[test]
fn one_as_fedoras_boots_the_saved_entry_of_bls() {
    let Some(looked) = look("fedora-like") else {
        return;
    };
    let entry = looked.menu.default_entry().unwrap();
    assert_eq!(entry.loader, Loader::GrubBls);
    assert!(
        looked.menu.reason.contains("saved_entry"),
        "{}",
        looked.menu.reason
    );
    assert!(
        entry
            .options
            .contains("rd.lvm.lv=vg0/root console=ttyS0 quiet"),
        "{}",
        entry.options
    );
    assert_eq!(looked.menu.entries.len(), 2);
    check("fedora-like", &looked, Tool::Dracut);
}

/// Linux before 5.13 reads nothing behind LZ4's legacy frame, so that an archive has to go on in it: that
/// of Debian 11 does as it says.
#[test]
fn an_old_kernel_takes_what_follows_an_initrd_of_lz4() {
    if !all() {
        return;
    }
    let tree = root().join(".peers/bed/tree-old/tree.tar");
    if !tree.is_file() {
        skip("tree-old is not built: tests/run --all does that");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        let output = command.args(["-c", script]).current_dir(folder.path());
        let output = output.output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        output.stdout
    };
    let tar = format!("tar -xOf '{}' --wildcards", tree.display());
    shell(&format!("{tar} './boot/vmlinuz-*' >kernel"));
    let own = shell(&format!("{tar} './boot/initrd.img-*' | zcat"));
    let packed = through("lz4", &["-l"], &own);
    let mut writer = hako_guest::cpio::Writer::new(Vec::new());
    let init = b"#!/bin/sh\necho it-followed >/dev/console\n";
    writer.file(b"init", 0o755, init).unwrap();
    let archive = writer.finish().unwrap();
    let contents = Contents::read(&mut &packed[..], &Limits::default()).unwrap();
    assert_eq!(contents.segments[0].compression, Compression::Lz4Legacy);
    let more = following(&contents, packed.len() as u64, &archive).unwrap();
    std::fs::write(folder.path().join("initrd"), [packed, more].concat()).unwrap();
    let console = shell(
        "timeout 600 qemu-system-x86_64 -accel tcg -cpu max -m 512 -nodefaults -nographic -serial stdio \
         -kernel kernel -initrd initrd -append 'console=ttyS0 panic=-1 quiet' -no-reboot",
    );
    let console = String::from_utf8_lossy(&console);
    assert!(console.contains("it-followed"), "{console}");
    assert!(!console.contains("unpacking failed"), "{console}");
}
