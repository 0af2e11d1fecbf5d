//! OVAs as others write them, as we do, and as nobody should.

use std::process::Command;
use std::sync::Arc;

use hako_block::{Error, ErrorKind, MemoryStorage, PipeStorage, Storage};

use super::header::{BLOCK_BYTES, Header};
use super::*;
use crate::digest::{Algorithm, digest};

/// A member of a test's tar: name, type, content.
type Entry<'a> = (&'a str, u8, &'a [u8]);

fn sealed(mut block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content) in entries {
        let mut block = Header::encode_file("x", content.len() as u64, 0).unwrap();
        block[..1].fill(0);
        let name = &name.as_bytes()[..name.len().min(100)];
        block[..name.len()].copy_from_slice(name);
        block[156] = *kind;
        bytes.extend(sealed(block));
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    bytes
}

fn open(bytes: &[u8]) -> hako_block::Result<Ova> {
    Ova::open(Arc::new(MemoryStorage::new("a.ova", bytes.to_vec())))
}

fn refused(bytes: &[u8]) -> Error {
    let error = open(bytes).err().expect("refused");
    assert!(error.to_string().starts_with("a.ova: "), "{error}");
    error
}

fn content(ova: &Ova, name: &str) -> Vec<u8> {
    let storage = ova.member(name).unwrap();
    let mut bytes = vec![0; storage.len_bytes().unwrap() as usize];
    storage.read_at(0, &mut bytes).unwrap();
    bytes
}

fn names(ova: &Ova) -> Vec<&str> {
    ova.members().iter().map(|one| one.name.as_str()).collect()
}

#[test]
fn members_are_read_where_they_lie() {
    let bytes = tar(&[
        ("./a.ovf", b'0', b"<x/>"),
        ("a.mf", 0, b"SHA"),
        ("sub/", b'5', b""),
        ("sub/._disk.vmdk", b'0', b"mac"),
        ("disk.vmdk", b'0', &[7; 1000]),
    ]);
    let ova = open(&bytes).unwrap();
    assert_eq!(names(&ova), ["a.ovf", "a.mf", "disk.vmdk"]);
    assert_eq!(ova.ovf().range, 512..516);
    assert_eq!(ova.manifest().unwrap().name, "a.mf");
    assert_eq!(content(&ova, "./disk.vmdk"), [7; 1000]);
    assert!(ova.oddities().is_empty());
    assert_eq!(ova.member("b").err().unwrap().kind(), ErrorKind::NotFound);
}

#[test]
fn names_are_relative_to_the_folder_of_the_ovf() {
    let bytes = tar(&[
        ("vm/a.OVF", b'0', b""),
        ("vm/d", b'0', b"beside"),
        ("d", b'0', b"top"),
        ("e", b'0', b"only on top"),
    ]);
    let ova = open(&bytes).unwrap();
    assert_eq!(content(&ova, "d"), b"beside");
    assert_eq!(content(&ova, "e"), b"only on top");
}

#[test]
fn long_names_and_pax_records_count_for_the_next_member_alone() {
    let long = format!("{}.vmdk", "n".repeat(200));
    let gnu = format!("{long}\0");
    let path = format!("{}.vmdk", "p".repeat(190));
    let pax = format!("205 path={path}\n");
    assert_eq!(pax.len(), 205);
    let bytes = tar(&[
        ("pax_global", b'g', b"20 comment=whatever\n"),
        ("a.ovf", b'0', b""),
        ("././@LongLink", b'L', gnu.as_bytes()),
        ("nnn", b'0', b"gnu"),
        ("PaxHeader/p", b'x', pax.as_bytes()),
        ("ppp", b'0', b"pax"),
        ("plain", b'0', b"plain"),
    ]);
    let ova = open(&bytes).unwrap();
    assert_eq!(names(&ova), ["a.ovf", &long, &path, "plain"]);
    assert_eq!(content(&ova, &path), b"pax");
}

#[test]
fn a_pax_size_replaces_that_of_the_header() {
    let mut bytes = tar(&[
        ("a.ovf", b'0', b""),
        ("PaxHeader/p", b'x', b"11 size=600\n"),
        ("p", b'0', &[3; 600]),
    ]);
    let header = bytes.len() - 2 * BLOCK_BYTES - 1024 - BLOCK_BYTES;
    let zero = Header::encode_file("p", 0, 0).unwrap();
    bytes[header..header + BLOCK_BYTES].copy_from_slice(&zero);
    // "11 size=600\n" is 12 bytes long: the record is cut, and so is no record.
    assert!(refused(&bytes).to_string().contains("pax header"));
    let at = bytes
        .windows(3)
        .position(|window| window == b"11 ")
        .unwrap();
    bytes[at..at + 2].copy_from_slice(b"12");
    let ova = open(&bytes).unwrap();
    assert_eq!(content(&ova, "p"), [3; 600]);
}

#[test]
fn what_an_ova_has_no_use_for_is_refused() {
    for (kind, what) in [
        (b'1', "hard link"),
        (b'2', "symbolic link"),
        (b'3', "device"),
        (b'4', "device"),
        (b'6', "FIFO"),
        (b'S', "sparse"),
        (b'M', "volume"),
        (b'?', "unknown"),
    ] {
        let error = refused(&tar(&[("a.ovf", b'0', b""), ("x", kind, b"")]));
        assert!(error.to_string().contains(what), "{error}");
    }
    let sparse: &[u8] = b"22 GNU.sparse.major=1\n";
    let error = refused(&tar(&[("p", b'x', sparse), ("a.ovf", b'0', b"")]));
    assert!(error.to_string().contains("sparse"), "{error}");
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in [
        "/a.ovf",
        "../a.ovf",
        "x/../a.ovf",
        "a\\b.ovf",
        ".",
        "a\x1b.ovf",
    ] {
        let error = refused(&tar(&[(name, b'0', b"")]));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn exactly_one_ovf_is_needed_and_no_name_twice() {
    let none = refused(&tar(&[("a.vmdk", b'0', b"")]));
    assert!(none.to_string().contains("no .ovf"), "{none}");
    let two = refused(&tar(&[("a.ovf", b'0', b""), ("b.ovf", b'0', b"")]));
    assert!(two.to_string().contains("several"), "{two}");
    let twice = [
        ("a.ovf", b'0', &b""[..]),
        ("d", b'0', b"1"),
        ("./d", b'0', b"2"),
    ];
    let error = refused(&tar(&twice));
    assert!(error.to_string().contains("twice"), "{error}");
    assert_eq!(error.byte(), Some(4 * 512));
}

#[test]
fn a_tar_cut_anywhere_is_refused_or_told() {
    let whole = tar(&[("a.ovf", b'0', &[1; 700]), ("d", b'0', &[2; 700])]);
    for len in 0..whole.len() {
        match open(&whole[..len]) {
            // One block of zeros is there: GNU tar takes that for the end too.
            Err(error) => assert!(len < 512 * 7, "{len}: {error}"),
            Ok(ova) if len >= 512 * 7 => assert_eq!(ova.members().len(), 2, "{len}"),
            // Whole members, but who knows what is missing.
            Ok(ova) => assert_eq!(ova.oddities().len(), 1, "{len}"),
        }
    }
}

#[test]
fn sizes_past_the_end_are_refused() {
    let mut bytes = tar(&[("a.ovf", b'0', b"")]);
    for size in [2000, 1 << 33, u64::MAX] {
        let header = Header::encode_file("a.ovf", size, 0).unwrap();
        bytes[..BLOCK_BYTES].copy_from_slice(&header);
        let error = refused(&bytes);
        assert!(error.to_string().contains("truncated"), "{error}");
    }
}

#[test]
fn more_members_than_any_ova_has_are_refused() {
    let many: Vec<String> = (0..70_000).map(|number| number.to_string()).collect();
    let entries: Vec<Entry<'_>> = many
        .iter()
        .map(|name| (name.as_str(), b'0', &b""[..]))
        .collect();
    let error = refused(&tar(&entries));
    assert!(error.to_string().contains("65536"), "{error}");
}

#[test]
fn packed_ones_are_refused_with_a_hint() {
    for (head, hint) in [
        (&b"\x1f\x8b\x08"[..], "gunzip"),
        (b"\xfd7zXZ\0", "unxz"),
        (b"PK\x03\x04", "unzip"),
    ] {
        let mut bytes = head.to_vec();
        bytes.resize(2000, 1);
        let error = refused(&bytes);
        assert!(error.hint_text().unwrap().contains(hint), "{error}");
    }
    assert!(refused(&[1; 2000]).to_string().contains("no OVA"));
    assert!(refused(b"").to_string().contains("no OVA"));
}

#[test]
fn random_damage_never_panics() {
    let whole = tar(&[
        ("g", b'g', b"20 comment=whatever\n"),
        ("L", b'L', b"a.ovf\0"),
        ("a", b'0', &[1; 700]),
        ("x", b'x', b"12 size=700\n14 path=dd/ee\n"),
        ("d", b'0', &[2; 700]),
    ]);
    let mut rng = hako_block::testkit::Rng::new(1);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + rng.next_u64() % 4 {
            let at = rng.next_u64() as usize % bytes.len();
            bytes[at] = rng.next_u64() as u8;
        }
        // Most damage breaks a checksum: set them right, so that what is behind is looked at.
        for start in (0..bytes.len() - BLOCK_BYTES).step_by(BLOCK_BYTES) {
            if &bytes[start + 257..start + 262] == b"ustar" {
                let block: [u8; BLOCK_BYTES] =
                    bytes[start..start + BLOCK_BYTES].try_into().unwrap();
                bytes[start..start + BLOCK_BYTES].copy_from_slice(&sealed(block));
            }
        }
        let _ = open(&bytes);
    }
}

const DISK: &[u8] = &[9; 70_001];

/// Writes the same OVA to a file (numbers filled in at the end) or to a pipe (all known before).
fn write(out: Arc<dyn Storage>, known: bool) -> Vec<Recorded> {
    let mut writer = OvaWriter::new(out, 1_700_000_000, Some(Algorithm::Sha256));
    let ovf = b"<Envelope/>  ";
    if known {
        writer.put("vm.ovf", ovf).unwrap();
        writer.put("vm.mf", b"manifest").unwrap();
    }
    let places = (!known).then(|| {
        let ovf = writer.reserve("vm.ovf", 13).unwrap();
        (ovf, writer.reserve("vm.mf", 8).unwrap())
    });
    let mut all = Vec::new();
    for name in ["vm-disk1.vmdk", "vm-disk2.vmdk"] {
        let size = known.then_some(DISK.len() as u64);
        let member = writer.begin(name, size).unwrap();
        member.write_at(0, &DISK[..10]).unwrap();
        member.write_at(10, &DISK[10..]).unwrap();
        member.set_len(DISK.len() as u64).unwrap();
        member.sync().unwrap();
        all.push(writer.end().unwrap());
    }
    if let Some((place, manifest)) = places {
        writer.fill(&place, ovf).unwrap();
        writer.fill(&manifest, b"manifest").unwrap();
    }
    writer.finish().unwrap();
    all
}

#[test]
fn file_and_pipe_get_the_same_bytes() {
    let file = Arc::new(MemoryStorage::new("a.ova", Vec::new()));
    let recorded = write(file.clone(), false);
    let expected = Recorded {
        size: DISK.len() as u64,
        digest: Some(digest(Algorithm::Sha256, DISK)),
    };
    assert_eq!(recorded, [expected.clone(), expected]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ova");
    let pipe = PipeStorage::new("pipe", Box::new(std::fs::File::create(&path).unwrap()));
    write(Arc::new(pipe), true);
    let bytes = file.to_vec();
    assert!(bytes == std::fs::read(&path).unwrap());
    assert!(bytes.len().is_multiple_of(10240));
    let ova = open(&bytes).unwrap();
    assert_eq!(
        names(&ova),
        ["vm.ovf", "vm.mf", "vm-disk1.vmdk", "vm-disk2.vmdk"]
    );
    assert_eq!(content(&ova, "vm-disk2.vmdk"), DISK);
    assert!(ova.oddities().is_empty());
}

#[test]
fn a_member_of_another_size_than_was_said_is_an_error() {
    let out = Arc::new(MemoryStorage::new("a.ova", Vec::new()));
    let mut writer = OvaWriter::new(out, 0, None);
    writer
        .begin("d", Some(5))
        .unwrap()
        .write_at(0, b"1234")
        .unwrap();
    assert!(writer.put("e", b"").is_err(), "the one before is not ended");
    assert_eq!(writer.end().unwrap_err().kind(), ErrorKind::Mismatch);
    let place = writer.reserve("f", 3).unwrap();
    assert!(writer.fill(&place, b"1234").is_err());
}

#[test]
fn what_is_recorded_cannot_be_gone_back_into() {
    let recorder = Recorder::nowhere("r", Some(Algorithm::Sha1)).unwrap();
    recorder.write_at(3, b"abc").unwrap();
    assert!(recorder.write_at(5, b"x").is_err());
    assert!(recorder.set_len(5).is_err());
    recorder.set_len(8).unwrap();
    let recorded = recorder.end().unwrap();
    assert_eq!(recorded, recorder.end().unwrap());
    assert!(recorder.write_at(8, b"x").is_err(), "it has ended");
    assert_eq!(recorded.size, 8);
    assert_eq!(
        recorded.digest,
        Some(digest(Algorithm::Sha1, b"\0\0\0abc\0\0"))
    );
}

fn run(program: &str, args: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(program).args(args).output() else {
        eprintln!("skipped: no {program} here");
        return None;
    };
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {error}");
    assert_eq!(error, "", "{program}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn tar_and_python_read_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ova");
    let pipe = PipeStorage::new("pipe", Box::new(std::fs::File::create(&path).unwrap()));
    write(Arc::new(pipe), true);
    let path = path.to_str().unwrap();
    if let Some(list) = run("tar", &["-tvf", path]) {
        assert_eq!(list.lines().count(), 4, "{list}");
        assert!(list.contains("70001"), "{list}");
    }
    let script = "import sys, tarfile\n\
        for m in tarfile.open(sys.argv[1]): print(m.name, m.size, m.isreg(), m.mtime)";
    if let Some(list) = run("python3", &["-c", script, path]) {
        assert!(
            list.ends_with("vm-disk2.vmdk 70001 True 1700000000\n"),
            "{list}"
        );
    }
}

#[test]
fn tar_and_python_read_members_of_more_than_8_gib_and_so_do_we() {
    const SIZE: u64 = (9 << 30) + 17;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ova");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let file = hako_block::FileStorage::from_file(file, &path, true).unwrap();
    let file: Arc<dyn Storage> = Arc::new(file);
    let mut writer = OvaWriter::new(Arc::clone(&file), 0, None);
    writer.put("a.ovf", b"").unwrap();
    let place = writer.reserve("huge.vmdk", SIZE).unwrap();
    drop(place);
    writer.put("last", b"here").unwrap();
    writer.finish().unwrap();
    let ova = Ova::open(file).unwrap();
    assert_eq!(content(&ova, "last"), b"here");
    let path = path.to_str().unwrap();
    if let Some(list) = run("tar", &["-tvf", path]) {
        assert!(list.contains(&SIZE.to_string()), "{list}");
    }
    let script = "import sys, tarfile\n\
        t = tarfile.open(sys.argv[1]); print(t.getmember('huge.vmdk').size, t.extractfile('last').read())";
    if let Some(list) = run("python3", &["-c", script, path]) {
        assert_eq!(list, format!("{SIZE} b'here'\n"));
    }
}

#[test]
fn we_read_what_tar_and_python_write() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let long = format!("{}.vmdk", "ü".repeat(120));
    std::fs::write(at("a.ovf"), b"<x/>").unwrap();
    std::fs::write(at(&long), DISK).unwrap();
    let dir = folder.path().to_str().unwrap();
    let check = |path: &str| {
        let bytes = std::fs::read(at(path)).unwrap();
        let ova = open(&bytes).unwrap();
        assert_eq!(names(&ova), ["a.ovf", &long], "{path}");
        assert_eq!(content(&ova, &long), DISK, "{path}");
    };
    for format in ["gnu", "oldgnu", "pax", "posix"] {
        let out = at("t.ova");
        let format = format!("--format={format}");
        let args = [
            &*format,
            "-cf",
            out.to_str().unwrap(),
            "-C",
            dir,
            "a.ovf",
            &long,
        ];
        if run("tar", &args).is_some() {
            check("t.ova");
        }
    }
    let script = "import sys, os, tarfile\n\
        os.chdir(sys.argv[1])\n\
        for f in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):\n  \
          t = tarfile.open(f'p{f}.ova', 'w', format=f); t.add('a.ovf'); t.add(sys.argv[2]); t.close()";
    if run("python3", &["-c", script, dir, &long]).is_some() {
        check("p1.ova");
        check("p2.ova");
    }
}
