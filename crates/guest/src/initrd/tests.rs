use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn main_archive() -> Vec<u8> {
    let mut writer = cpio::Writer::new(Vec::new());
    writer.directory(b"usr").unwrap();
    writer.link(b"lib", b"usr/lib").unwrap();
    writer
        .file(b"scripts/functions", 0o755, b"#!/bin/sh\n")
        .unwrap();
    writer.file(b"conf/modules", 0o644, b"dm_mod\n").unwrap();
    let module = vec![7; 100_000];
    for name in [
        "drivers/block/virtio_blk.ko",
        "fs/ext4/ext4.ko.xz",
        "fs/x.txt",
    ] {
        let path = format!("usr/lib/modules/6.1.0-9/kernel/{name}");
        writer.file(path.as_bytes(), 0o644, &module).unwrap();
    }
    writer.finish().unwrap()
}

fn early_archive() -> Vec<u8> {
    let mut writer = cpio::Writer::new(Vec::new());
    let path = b"kernel/x86/microcode/AuthenticAMD.bin";
    writer.file(path, 0o644, &[9; 3001]).unwrap();
    let mut bytes = writer.finish().unwrap();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Returns what a program makes of `input`; none if it is not installed.
pub(crate) fn through(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(_) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: no {program}");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program}");
    Some(output.stdout)
}

const PROGRAMS: &[(&str, &[&str], Compression)] = &[
    ("cat", &[], Compression::None),
    ("gzip", &["-9n"], Compression::Gzip),
    ("bzip2", &[], Compression::Bzip2),
    ("xz", &["--check=crc32"], Compression::Xz),
    (
        "xz",
        &["--check=crc32", "--x86", "--lzma2"],
        Compression::Xz,
    ),
    ("xz", &["--format=lzma"], Compression::Lzma),
    ("lz4", &["-l", "-9"], Compression::Lz4Legacy),
    ("lz4", &["-9"], Compression::Lz4),
    ("lzop", &["-9"], Compression::Lzo),
    ("zstd", &["-q", "-19"], Compression::Zstd),
];

fn contents(bytes: &[u8]) -> Result<Contents> {
    Contents::read(&mut &*bytes, &Limits::default())
}

fn check_main(contents: &Contents) {
    assert!(contents.has("lib/modules/6.1.0-9/kernel/fs/x.txt"));
    assert_eq!(contents.text("conf/modules"), Some("dm_mod\n"));
    assert_eq!(
        contents.modules_folder("6.1.0-9"),
        b"usr/lib/modules/6.1.0-9"
    );
    assert_eq!(contents.versions(), ["6.1.0-9"]);
    let modules: Vec<_> = contents.modules("6.1.0-9").collect();
    let expected = [
        "kernel/drivers/block/virtio_blk.ko",
        "kernel/fs/ext4/ext4.ko.xz",
    ];
    assert_eq!(modules, expected.map(str::as_bytes));
    assert_eq!(contents.tool(), Tool::InitramfsTools);
}

#[test]
fn archives_of_every_program_follow_each_other() {
    for (program, arguments, compression) in PROGRAMS {
        let Some(packed) = through(program, arguments, &main_archive()) else {
            continue;
        };
        assert_eq!(Compression::of(&packed), Some(*compression), "{program}");
        let mut initrd = early_archive();
        let early = initrd.len() as u64;
        initrd.extend_from_slice(&packed);
        let read = contents(&initrd).unwrap();
        check_main(&read);
        assert!(read.has("kernel/x86/microcode/AuthenticAMD.bin"));
        assert_eq!(read.segments.len(), 2, "{program}");
        assert_eq!(read.segments[1].compression, *compression);
        assert_eq!(read.segments[1].offset, early);
        assert_eq!(
            read.segments[1].len_bytes,
            packed.len() as u64,
            "{program} {arguments:?}"
        );
        assert_eq!(read.segments[1].unpacked_bytes, main_archive().len() as u64);
    }
}

#[test]
fn what_is_appended_after_any_compression_is_found() {
    let mut second = cpio::Writer::new(Vec::new());
    second.file(b"conf/modules", 0o644, b"other\n").unwrap();
    let second = second.finish().unwrap();
    for (program, arguments, compression) in PROGRAMS {
        let Some(packed) = through(program, arguments, &main_archive()) else {
            continue;
        };
        let mut initrd = packed.clone();
        initrd.resize(packed.len().next_multiple_of(4) + 4, 0);
        initrd.extend_from_slice(&second);
        let read = contents(&initrd).unwrap();
        let kinds: Vec<_> = read.segments.iter().map(|part| part.compression).collect();
        assert_eq!(kinds, [*compression, Compression::None], "{program}");
        assert_eq!(read.text("conf/modules"), Some("other\n"));
        let mut twice = packed.clone();
        twice.resize(packed.len().next_multiple_of(4) + 8, 0);
        twice.extend_from_slice(&packed);
        check_main(&contents(&twice).unwrap());
    }
}

#[test]
fn a_bomb_is_cut_at_the_limit() {
    // A cpio that promises 4 GiB of zeros, and a file after it.
    let mut bomb = cpio::Writer::new(Vec::new());
    bomb.file(b"big", 0o644, b"").unwrap();
    let mut bomb = bomb.finish().unwrap()[..116].to_vec();
    bomb[54..62].copy_from_slice(b"FFFFFFF0");
    bomb.resize(40 << 20, 0);
    let limits = Limits {
        unpacked_bytes: 20 << 20,
        ..Limits::default()
    };
    for (program, arguments, compression) in PROGRAMS {
        if matches!(program, &"bzip2" | &"xz") && arguments.len() != 1 {
            continue;
        }
        let Some(packed) = through(program, arguments, &bomb) else {
            continue;
        };
        let error = Contents::read(&mut &*packed, &limits).unwrap_err();
        assert_eq!(
            error.kind(),
            hako_block::ErrorKind::Unsupported,
            "{compression:?}"
        );
    }
    let mut names = cpio::Writer::new(Vec::new());
    for number in 0..1000 {
        names
            .file(format!("{number}").as_bytes(), 0o644, b"")
            .unwrap();
    }
    let names = names.finish().unwrap();
    for limits in [
        Limits {
            members: 999,
            ..Limits::default()
        },
        Limits {
            name_bytes: 1000,
            ..Limits::default()
        },
    ] {
        assert!(Contents::read(&mut &*names, &limits).is_err());
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let limits = Limits {
        unpacked_bytes: 4 << 20,
        ..Limits::default()
    };
    let mut rng = hako_block::testkit::Rng::new(6);
    for (program, arguments, _) in PROGRAMS {
        let Some(packed) = through(program, arguments, &main_archive()) else {
            continue;
        };
        for _ in 0..60 {
            let mut bytes = packed.clone();
            for _ in 0..rng.below(1..4) {
                let at = rng.below(0..bytes.len().min(400) as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            let _ = Contents::read(&mut &*bytes, &limits);
            let len = rng.below(1..packed.len() as u64) as usize;
            let _ = Contents::read(&mut &packed[..len], &limits);
        }
    }
    let many = [&[0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0][..]; 1000].concat();
    assert!(contents(&many).is_err());
    assert!(contents(b"\x00\x00garbage").is_err());
    assert!(contents(b"").unwrap().members.is_empty());
}

#[test]
fn tools_are_told_by_what_they_leave() {
    for (path, tool) in [
        (&b"usr/lib/dracut/hooks/x"[..], Tool::Dracut),
        (b"conf/initramfs.conf", Tool::InitramfsTools),
        (b"init_functions", Tool::Mkinitcpio),
        (b"usr/sbin/nlplug-findfs", Tool::Mkinitfs),
        (b"etc/booster.init.yaml", Tool::Booster),
        (b"init", Tool::Unknown),
    ] {
        let mut writer = cpio::Writer::new(Vec::new());
        for at in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            writer.directory(&path[..at.0]).unwrap();
        }
        writer.file(path, 0o644, b"").unwrap();
        let read = contents(&writer.finish().unwrap()).unwrap();
        assert_eq!(read.tool(), tool, "{}", path.escape_ascii());
    }
}

#[test]
fn links_of_an_initrd_lead_nowhere_but_inside() {
    let mut writer = cpio::Writer::new(Vec::new());
    writer.link(b"a", b"../../b/./c").unwrap();
    writer.link(b"b/c", b"/d").unwrap();
    writer.file(b"d", 0o644, b"").unwrap();
    writer.link(b"loop", b"loop").unwrap();
    writer.link(b"grow", b"grow/grow").unwrap();
    let read = contents(&writer.finish().unwrap()).unwrap();
    assert_eq!(read.resolve(b"a"), b"d");
    assert_eq!(read.resolve(b"/x/../a"), b"d");
    read.resolve(b"loop");
    assert!(read.resolve(b"grow/grow").len() < 1000);
}
