//! Repairing, beside what qemu-img makes of the same damage.

use hako_block::testkit::{FaultFolder, SparseBytes};

use super::cuts::*;
use super::*;
use crate::disk::Repair;

const SIZE: usize = 1_000_448;
/// Offset bits of a table entry.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// The file's bytes, and where its structures are.
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(&self, at: u64) -> u64 {
        let at = at as usize;
        u64::from_be_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn set(&mut self, at: u64, number: u64) {
        let at = at as usize;
        self.0[at..at + 8].copy_from_slice(&number.to_be_bytes());
    }

    fn cluster_bytes(&self) -> u64 {
        1 << self.0[23]
    }

    /// Where the first refcount block is.
    fn block(&self) -> u64 {
        self.number(self.number(48)) & OFFSET
    }

    /// Where the first L2 table is.
    fn l2(&self) -> u64 {
        self.number(self.number(40)) & OFFSET
    }

    /// Where the entries of the first L2 table are that store data plainly.
    fn stored(&self) -> Vec<u64> {
        let step = if self.0[79] & 16 != 0 { 16 } else { 8 };
        (self.l2()..self.l2() + self.cluster_bytes())
            .step_by(step)
            .filter(|at| {
                let word = self.number(*at);
                word & OFFSET != 0 && word >> 62 & 1 == 0
            })
            .collect()
    }

    /// Sets the refcount, of 16 bits, of the cluster that an L2 entry points to.
    fn set_count(&mut self, entry: u64, count: u16) {
        let cluster = (self.number(entry) & OFFSET) / self.cluster_bytes();
        let at = (self.block() + cluster * 2) as usize;
        self.0[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
}

type Damage = fn(&mut Bytes);

/// Damage that can be mended without guessing; the content stays as it is.
const MENDABLE: &[(&str, Damage)] = &[
    ("a refcount too high", |bytes| {
        bytes.set_count(bytes.stored()[1], 3)
    }),
    ("a refcount of 0", |bytes| {
        bytes.set_count(bytes.stored()[2], 0)
    }),
    ("refcounts of 0 in a row, and not closed cleanly", |bytes| {
        for entry in bytes.stored() {
            bytes.set_count(entry, 0);
        }
        bytes.0[79] |= 1;
    }),
    ("marked corrupt", |bytes| bytes.0[79] |= 2),
    ("marked both, with leaks", |bytes| {
        bytes.0[79] |= 3;
        let end = bytes.0.len() as u64 / bytes.cluster_bytes();
        let at = (bytes.block() + (end - 1) * 2) as usize;
        bytes.0[at + 1] += 1;
    }),
    ("a copied flag lost", |bytes| {
        let entry = bytes.stored()[0];
        bytes.set(entry, bytes.number(entry) & !(1 << 63));
    }),
    ("a copied flag too many", |bytes| {
        let (one, other) = (bytes.stored()[0], bytes.stored()[1]);
        bytes.set_count(one, 2);
        bytes.set_count(other, 2);
    }),
    ("no refcount block", |bytes| bytes.set(bytes.number(48), 0)),
    ("a refcount block at no cluster", |bytes| {
        let at = bytes.number(48);
        bytes.set(at, bytes.number(at) + 512);
    }),
    ("refcount table: none", |bytes| {
        bytes.set(48, 0);
        bytes.0[56..60].fill(0);
    }),
    ("refcount table: far away", |bytes| bytes.set(48, 1 << 50)),
    ("a refcount block far away", |bytes| {
        bytes.set(bytes.number(48), 1 << 50)
    }),
    ("a refcount block of nonsense", |bytes| {
        let block = bytes.block() as usize;
        bytes.0[block..block + 400].fill(0x5a);
    }),
];

const LAYOUTS: &[(&str, &[&str])] = &[
    ("cluster_size=4k", &[]),
    ("compat=0.10,cluster_size=4k", &[]),
    ("cluster_size=64k", &[]),
    ("extended_l2=on,cluster_size=16k", &[]),
    ("lazy_refcounts=on", &[]),
];

fn repaired(files: &FaultFolder, what: Repair) -> Vec<String> {
    Qcow2
        .repair(args_of(files, Access::ReadWrite), what)
        .unwrap()
}

fn change(files: &FaultFolder, damage: impl FnOnce(&mut Bytes)) {
    let mut bytes = Bytes(files.files()["disk.qcow2"].to_vec());
    damage(&mut bytes);
    files.insert("disk.qcow2", SparseBytes::from_bytes(&bytes.0));
}

/// What `qemu-img check -r all` makes of the files; it gives up on some.
fn repaired_by_qemu(files: &FaultFolder) -> Option<FaultFolder> {
    let folder = tempfile::tempdir().unwrap();
    files.save(folder.path());
    let output = Command::new("qemu-img")
        .args(["check", "-q", "-r", "all", "disk.qcow2"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    output.status.success().then(|| load(folder.path()))
}

fn is_writable(files: &FaultFolder) -> bool {
    Qcow2.open(args_of(files, Access::ReadWrite)).is_ok()
}

#[test]
fn what_qemu_mends_is_mended_too_and_a_cut_makes_nothing_worse() {
    for (options, flags) in LAYOUTS {
        for (name, damage) in MENDABLE {
            // Version 2 has no marks.
            if options.contains("0.10") && (name.contains("mark") || name.contains("clean")) {
                continue;
            }
            println!("{options} {flags:?}: {name}");
            let folder = tempfile::tempdir().unwrap();
            let content = Random::new(3).disk(SIZE);
            make_with_qemu(folder.path(), &content, options, flags);
            let files = load(folder.path());
            change(&files, damage);
            let by_qemu = repaired_by_qemu(&files);
            let mut n = 0;
            cut_states(
                &files,
                |files| assert!(!repaired(files, Repair::All).is_empty(), "{name}"),
                |cut| {
                    assert!(content_in(cut) == content, "{name}");
                    n += 1;
                    if n % 5 == 0 {
                        repaired(cut, Repair::All);
                        assert_sound(cut, true);
                        assert!(content_in(cut) == content, "{name}");
                    }
                },
            );
            assert!(
                by_qemu.is_some()
                    || name.contains("refcount block")
                    || name.contains("refcount table"),
                "{name}"
            );
            for mended in by_qemu.iter().chain([&files]) {
                assert_sound(mended, true);
                assert_qemu_sound(mended, true);
                assert!(is_writable(mended), "{name}");
                assert!(content_in(mended) == content, "{name}");
            }
            assert!(qemu_content_in(&files) == content, "{name}");
            assert_eq!(
                repaired(&files, Repair::All),
                Vec::<String>::new(),
                "{name}"
            );
        }
    }
}

#[test]
fn leaks_are_given_back_and_the_file_is_cut() {
    for (options, flags) in [
        ("cluster_size=4k", &[] as &[&str]),
        ("cluster_size=4k", &["-c"]),
        ("compat=0.10", &[]),
        ("refcount_bits=1", &[]),
        ("refcount_bits=64,cluster_size=512", &[]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut content = vec![3; SIZE];
        make_with_qemu(folder.path(), &content, options, flags);
        let files = load(folder.path());
        let mut n_lost = 0;
        change(&files, |bytes| {
            let step = bytes.cluster_bytes();
            let n = bytes.l2() as usize..(bytes.l2() + step) as usize;
            for (index, entry) in bytes.0[n].chunks_mut(8).enumerate() {
                let start = index * step as usize;
                if index > 0 && start < SIZE {
                    n_lost += usize::from(entry != [0; 8]);
                    entry.fill(0);
                    let end = (start + step as usize).min(SIZE);
                    content[start..end].fill(0);
                }
            }
        });
        assert!(n_lost > 3);
        let before = files.file("disk.qcow2").unwrap().len_bytes().unwrap();
        let allocated = files.file("disk.qcow2").unwrap().allocated_bytes().unwrap();
        cut_everywhere(
            &files,
            |files| assert!(!repaired(files, Repair::Leaks).is_empty()),
            |cut| assert!(content_in(cut) == content),
        );
        assert_sound(&files, true);
        assert_qemu_sound(&files, true);
        assert!(qemu_content_in(&files) == content);
        let after = files.file("disk.qcow2").unwrap();
        assert!(
            after.len_bytes().unwrap() < before || options.contains("512"),
            "{options}"
        );
        assert!(after.allocated_bytes().unwrap() < allocated, "{options}");
    }
}

#[test]
fn leaks_alone_leave_what_else_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    make_with_qemu(folder.path(), &vec![3; SIZE], "cluster_size=4k", &[]);
    let files = load(folder.path());
    change(&files, |bytes| {
        bytes.set_count(bytes.stored()[3], 0);
        bytes.set_count(bytes.stored()[5], 9);
        bytes.0[79] |= 1;
    });
    let done = repaired(&files, Repair::Leaks);
    assert_eq!(done, ["refcounts lowered: 1"]);
    assert!(!is_writable(&files));
    assert_eq!(repaired(&files, Repair::Leaks), Vec::<String>::new());
    let done = repaired(&files, Repair::All);
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(is_writable(&files));
    assert_qemu_sound(&files, true);
}

#[test]
fn clusters_used_twice_are_shared_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = Random::new(4).bytes(SIZE);
    make_with_qemu(folder.path(), &content, "cluster_size=4k", &[]);
    let files = load(folder.path());
    change(&files, |bytes| {
        let (one, other) = (bytes.stored()[3], bytes.stored()[4]);
        bytes.set(other, bytes.number(one));
    });
    content.copy_within(3 * 4096..4 * 4096, 4 * 4096);
    let by_qemu = repaired_by_qemu(&files).unwrap();
    repaired(&files, Repair::All);
    for mended in [&files, &by_qemu] {
        assert_sound(mended, true);
        assert_qemu_sound(mended, true);
        assert!(content_in(mended) == content);
        let image = open_in(mended, Access::ReadWrite);
        image.write_at(3 * 4096, &[0xaa; 4096]).unwrap();
        image.flush().unwrap();
        let mut other = vec![0; 4096];
        image.read_at(4 * 4096, &mut other).unwrap();
        assert!(other == content[4 * 4096..5 * 4096]);
    }
}

/// What an entry should be is not known: it stays, and nothing that it may have meant is given up.
#[test]
fn entries_that_lead_nowhere_are_told_and_left() {
    let damages: [(&str, Damage); 4] = [
        ("past the end of the file", |bytes| {
            let entry = bytes.stored()[6];
            bytes.set(entry, 1 << 63 | 1 << 40);
        }),
        ("not at a cluster", |bytes| {
            let entry = bytes.stored()[6];
            bytes.set(entry, bytes.number(entry) | 512);
        }),
        ("L1 past the end of the file", |bytes| {
            bytes.set(bytes.number(40), 1 << 63 | 1 << 40);
        }),
        ("a table too", |bytes| {
            let entry = bytes.stored()[6];
            bytes.set(entry, 1 << 63 | bytes.l2());
        }),
    ];
    for (name, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        let content = Random::new(4).bytes(SIZE);
        make_with_qemu(folder.path(), &content, "cluster_size=4k", &[]);
        let files = load(folder.path());
        let whole = Bytes(files.files()["disk.qcow2"].to_vec());
        change(&files, |bytes| {
            damage(bytes);
            bytes.0[79] |= 2;
        });
        for what in [Repair::Leaks, Repair::All] {
            repaired(&files, what);
            let findings = Qcow2.check(args_of(&files, Access::ReadOnly)).unwrap();
            assert!(findings.n_corruptions > 0, "{name}");
            assert!(!is_writable(&files), "{name}: still marked");
        }
        if name == "a table too" {
            continue;
        }
        // Somebody who knows mends the entry: all is there.
        change(&files, |bytes| {
            let (l1, entry) = (whole.number(40), whole.stored()[6]);
            bytes.set(l1, whole.number(l1));
            bytes.set(entry, whole.number(entry));
        });
        assert!(content_in(&files) == content, "{name}");
        repaired(&files, Repair::All);
        assert_sound(&files, true);
        assert_qemu_sound(&files, true);
        assert!(qemu_content_in(&files) == content, "{name}");
    }
}

#[test]
fn snapshots_and_bitmaps_count() {
    let folder = tempfile::tempdir().unwrap();
    let content = Random::new(8).bytes(SIZE);
    let path = make_with_qemu(folder.path(), &content, "cluster_size=4k", &[]);
    qemu_img(folder.path(), &["snapshot", "-c", "one", "disk.qcow2"]);
    qemu_img(folder.path(), &["bitmap", "--add", "disk.qcow2", "changed"]);
    let files = load(folder.path());
    drop(path);
    change(&files, |bytes| bytes.set(bytes.number(48), 0));
    // Not beside qemu-img: version 10 loses the snapshot over it.
    cut_states(
        &files,
        |files| assert!(!repaired(files, Repair::All).is_empty()),
        |cut| assert!(content_in(cut) == content),
    );
    assert_sound(&files, true);
    assert_qemu_sound(&files, true);
    let args = OpenArgs {
        snapshot: Some("one".into()),
        ..args_of(&files, Access::ReadOnly)
    };
    assert!(read_all(&*Qcow2.open(args).unwrap()) == content);
    let info = open_in(&files, Access::ReadOnly).info().clone();
    assert!(format!("{:?}", info.details).contains("changed"));
}

#[test]
fn refcounts_too_narrow_for_the_uses_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let content = Random::new(4).bytes(SIZE);
    make_with_qemu(
        folder.path(),
        &content,
        "cluster_size=4k,refcount_bits=1",
        &[],
    );
    let files = load(folder.path());
    change(&files, |bytes| {
        let (one, other) = (bytes.stored()[3], bytes.stored()[4]);
        bytes.set(other, bytes.number(one));
    });
    let error = Qcow2
        .repair(args_of(&files, Access::ReadWrite), Repair::All)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn rebuilding_two_tebibytes_takes_time_by_the_data() {
    let files = load_wide(|image, offset| image.write_at(offset, &[3; 4096]).unwrap());
    change(&files, |bytes| bytes.set(bytes.number(48), 0));
    files.set_fault(None);
    repaired(&files, Repair::All);
    let (n_changes, n_reads) = files.counts();
    assert!(n_changes < 100 && n_reads < 2000, "{n_changes}, {n_reads}");
    assert_sound(&files, true);
    assert_qemu_sound(&files, true);
}

#[test]
fn repairing_whatever_it_is_never_panics_and_never_changes_what_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(73).disk(600_064);
    let mut random = Random::new(75);
    for (options, flags) in [
        ("cluster_size=512", &[] as &[&str]),
        ("cluster_size=1k", &["-c"]),
        ("extended_l2=on,cluster_size=16k", &[]),
    ] {
        let path = make_with_qemu(folder.path(), &disk, options, flags);
        qemu_img(folder.path(), &["snapshot", "-c", "one", "disk.qcow2"]);
        let bytes = std::fs::read(&path).unwrap();
        for round in 0..100 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(4) {
                let end = if round % 2 == 0 {
                    112
                } else {
                    bytes.len() as u64
                };
                let at = random.below(end) as usize;
                damaged[at] = [0, 1, 0x40, 0x80, 0xff, 7][random.below(6) as usize];
            }
            let files = FaultFolder::default();
            files.insert("disk.qcow2", SparseBytes::from_bytes(&damaged));
            let pieces = || -> Option<Vec<Option<Vec<u8>>>> {
                let image = Qcow2.open(args_of(&files, Access::ReadOnly)).ok()?;
                let size = image.info().virtual_size.min(600_064);
                let piece = |at: u64| {
                    let mut buf = vec![0; 1000.min(size - at) as usize];
                    image.read_at(at, &mut buf).ok().map(|()| buf)
                };
                Some((0..size).step_by(1000).map(piece).collect())
            };
            let before = pieces();
            for what in [Repair::Leaks, Repair::All] {
                let _ = Qcow2.repair(args_of(&files, Access::ReadWrite), what);
                assert!(before == pieces(), "{options} {what:?}");
            }
            assert!(files.files()["disk.qcow2"].allocated_bytes() < 1 << 28);
        }
    }
}
