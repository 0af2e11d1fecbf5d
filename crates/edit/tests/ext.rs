//! What the writer makes of ext2 to ext4, looked at by those who know: e2fsck finds nothing wrong, and
//! debugfs reads what was written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hako_block::ErrorKind;
use hako_edit::{Ext, Look, Staged, check};
use hako_guest::{Tree, Volume, fs};

const LOOK: Look = Look {
    mode: 0o644,
    time: 1_700_000_000,
};

/// Each kind of file system that installers make or made, by options of mke2fs.
const KINDS: &[&str] = &[
    "-t ext4 -b 4096",
    "-t ext4 -b 1024 -g 1024 -N 4000",
    "-t ext4 -O ^metadata_csum,uninit_bg -I 128",
    "-t ext2 -b 1024",
    "-t ext4 -b 2048 -O meta_bg,^resize_inode",
    "-t ext4 -O ^metadata_csum",
    "-t ext4 -O ^64bit,^flex_bg -b 1024",
    "-t ext4 -O metadata_csum_seed,large_dir",
    "-t ext4 -O sparse_super2,orphan_file,fast_commit",
    "-t ext4 -O ^has_journal",
    "-t ext3",
    "-t ext2 -b 4096 -I 128",
];

/// Of those few; all with HAKO_ALL.
fn kinds() -> impl Iterator<Item = &'static str> {
    let is_all = std::env::var_os("HAKO_ALL").is_some();
    let n = if is_all { KINDS.len() } else { 5 };
    KINDS.iter().copied().take(n)
}

fn has_peers() -> bool {
    let there = Command::new("debugfs").arg("-V").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "e2fsprogs is missing"
    );
    if !there {
        eprintln!("skipped: debugfs is not installed");
    }
    there
}

/// Runs a program, and returns what it said.
#[track_caller]
fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {text}");
    text
}

struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Makes a file system of `mib` MiB with some files in it, and a directory with an index.
    fn new(options: &str, mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        for name in ["etc/many", "boot", "var/lib"] {
            std::fs::create_dir_all(files.join(name)).unwrap();
        }
        std::fs::write(files.join("etc/fstab"), "/dev/sda1 / ext4 defaults 0 1\n").unwrap();
        std::fs::write(files.join("boot/initrd"), vec![0x55; 1_234_567]).unwrap();
        for n in 0..400 {
            let name = format!("etc/many/a-file-with-a-long-name-{n}");
            std::fs::write(files.join(name), n.to_string()).unwrap();
        }
        let disk = Self { folder };
        std::fs::File::create(disk.path())
            .unwrap()
            .set_len(mib << 20)
            .unwrap();
        let (path, from) = (disk.path(), files.to_str().unwrap().to_owned());
        let mut words: Vec<&str> = options.split(' ').collect();
        words.extend(["-q", "-F", "-d", &from, path.to_str().unwrap()]);
        run("mke2fs", &words);
        // Sorted directories: exit code 1, something was changed.
        let _ = Command::new("e2fsck")
            .args(["-fyD", path.to_str().unwrap()])
            .output();
        disk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk.raw")
    }

    fn staged(&self) -> Arc<Staged> {
        let base: Arc<dyn Volume> = Arc::new(std::fs::read(self.path()).unwrap());
        Arc::new(Staged::new(base))
    }

    /// Changes it, checks that with the reader, and writes it.
    fn edit(&self, edit: impl FnOnce(&mut Ext, &Tree)) {
        let staged = self.staged();
        let before = fs::open(Arc::clone(staged.base())).unwrap().unwrap();
        let mut ext = Ext::open(Arc::clone(&staged)).unwrap();
        edit(&mut ext, &Tree::new(Arc::clone(&before)));
        let traces = ext.finish(LOOK.time).unwrap();
        check(&staged, &before, &traces).unwrap();
        let mut bytes = std::fs::read(self.path()).unwrap();
        for piece in staged.changes().unwrap() {
            let at = piece.offset as usize;
            bytes[at..at + piece.new.len()].copy_from_slice(&piece.new);
        }
        std::fs::write(self.path(), bytes).unwrap();
        run("e2fsck", &["-fn", self.path().to_str().unwrap()]);
    }

    fn debugfs(&self, command: &str) -> String {
        run("debugfs", &["-R", command, self.path().to_str().unwrap()])
    }

    /// Returns the sums of all files, as debugfs unpacks them.
    fn sums(&self) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        self.debugfs(&format!("rdump / {}", folder.path().display()));
        let mut sums = BTreeMap::new();
        collect(folder.path(), folder.path(), &mut sums);
        sums
    }
}

fn collect(top: &Path, folder: &Path, sums: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(top).unwrap().display().to_string();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(top, &path, sums);
        } else if kind.is_file() {
            sums.insert(name, std::fs::read(&path).unwrap());
        } else {
            let target = std::fs::read_link(&path).unwrap();
            sums.insert(name, target.to_str().unwrap().as_bytes().to_vec());
        }
    }
}

fn node(tree: &Tree, path: &str) -> u32 {
    tree.find(path.as_bytes()).unwrap().node().number as u32
}

#[test]
fn what_is_written_to_every_kind_is_read_by_debugfs_and_found_sound_by_e2fsck() {
    if !has_peers() {
        return;
    }
    for kind in kinds() {
        let disk = Disk::new(kind, 48);
        let mut expected = disk.sums();
        let modules = vec![0xaa; 7_000_001];
        let text = "UUID=x / ext4 defaults 0 1\n".repeat(1000);
        disk.edit(|ext, tree| {
            ext.replace(node(tree, "/etc/fstab"), text.as_bytes(), LOOK.time)
                .unwrap();
            ext.append(node(tree, "/boot/initrd"), 1_234_567, &modules, LOOK.time)
                .unwrap();
            let many = node(tree, "/etc/many");
            for n in 0..60 {
                let name = format!("another-name-that-is-as-long-as-that-{n}");
                ext.create(many, name.as_bytes(), b"new\n", LOOK).unwrap();
            }
            let again = ext.create(many, b"another-name-that-is-as-long-as-that-7", b"", LOOK);
            assert_eq!(again.unwrap_err().kind(), ErrorKind::Exists);
            let folder = Look {
                mode: 0o755,
                ..LOOK
            };
            let hako = ext
                .make_folder(node(tree, "/var/lib"), b"hako", folder)
                .unwrap();
            ext.create(hako, b"empty", b"", LOOK).unwrap();
            ext.link(hako, b"null", b"/dev/null", LOOK).unwrap();
        });
        expected.insert("etc/fstab".into(), text.clone().into());
        expected.get_mut("boot/initrd").unwrap().extend(&modules);
        for n in 0..60 {
            let name = format!("etc/many/another-name-that-is-as-long-as-that-{n}");
            expected.insert(name, b"new\n".to_vec());
        }
        expected.insert("var/lib/hako/empty".into(), Vec::new());
        expected.insert("var/lib/hako/null".into(), b"/dev/null".to_vec());
        assert!(disk.sums() == expected, "{kind}");
    }
}

#[test]
fn what_was_made_can_be_taken_back_and_nothing_is_lost() {
    if !has_peers() {
        return;
    }
    for kind in kinds() {
        let disk = Disk::new(kind, 48);
        let (expected, free) = (disk.sums(), free(&disk));
        disk.edit(|ext, tree| {
            let text = b"another text";
            ext.replace(node(tree, "/etc/fstab"), text, LOOK.time)
                .unwrap();
            ext.append(
                node(tree, "/boot/initrd"),
                1_234_567,
                &[7; 5_000_000],
                LOOK.time,
            )
            .unwrap();
            let hako = ext
                .make_folder(node(tree, "/var/lib"), b"hako", LOOK)
                .unwrap();
            ext.create(hako, b"file", &[1; 100_000], LOOK).unwrap();
            ext.link(hako, b"null", b"/dev/null", LOOK).unwrap();
            let full = ext.remove(node(tree, "/var/lib"), b"hako", LOOK.time);
            assert_eq!(full.unwrap_err().kind(), ErrorKind::Invalid);
        });
        disk.edit(|ext, tree| {
            let text = b"/dev/sda1 / ext4 defaults 0 1\n";
            ext.replace(node(tree, "/etc/fstab"), text, LOOK.time)
                .unwrap();
            ext.cut(node(tree, "/boot/initrd"), 1_234_567, LOOK.time)
                .unwrap();
            let hako = node(tree, "/var/lib/hako");
            ext.remove(hako, b"file", LOOK.time).unwrap();
            ext.remove(hako, b"null", LOOK.time).unwrap();
            ext.remove(node(tree, "/var/lib"), b"hako", LOOK.time)
                .unwrap();
        });
        assert!(disk.sums() == expected, "{kind}");
        assert_eq!(free, self::free(&disk), "{kind}");
    }
}

/// Returns what dumpe2fs says is free.
fn free(disk: &Disk) -> Vec<String> {
    let text = run("dumpe2fs", &["-h", disk.path().to_str().unwrap()]);
    let lines = text.lines().filter(|line| line.starts_with("Free "));
    lines.map(str::to_owned).collect()
}

#[test]
fn labels_of_selinux_are_those_of_the_folder_and_stay_with_a_file() {
    if !has_peers() {
        return;
    }
    for kind in ["-t ext4", "-t ext4 -I 512"] {
        let disk = Disk::new(kind, 48);
        for (path, label) in [("/etc/fstab", "fstab_t"), ("/etc", "etc_t")] {
            let command = format!("ea_set {path} security.selinux system_u:object_r:{label}:s0");
            run(
                "debugfs",
                &["-w", "-R", &command, disk.path().to_str().unwrap()],
            );
        }
        disk.edit(|ext, tree| {
            ext.replace(node(tree, "/etc/fstab"), b"x", LOOK.time)
                .unwrap();
            ext.create(node(tree, "/etc"), b"new", b"y", LOOK).unwrap();
            ext.create(node(tree, "/var"), b"none", b"z", LOOK).unwrap();
        });
        let label = |path| disk.debugfs(&format!("ea_get {path} security.selinux"));
        assert!(label("/etc/fstab").contains("object_r:fstab_t:s0"));
        assert!(label("/etc/new").contains("object_r:etc_t:s0"));
        assert!(!label("/var/none").contains("object_r"));
    }
}

#[test]
fn what_is_not_known_or_not_clean_is_refused_before_anything_is_written() {
    if !has_peers() {
        return;
    }
    for kind in ["-t ext4 -O bigalloc", "-t ext4 -O quota", "-t ext4 -O mmp"] {
        let disk = Disk::new(kind, 48);
        let error = Ext::open(disk.staged()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{kind}: {error}");
    }
    let disk = Disk::new("-t ext4", 48);
    let path = disk.path();
    run(
        "debugfs",
        &["-w", "-R", "feature needs_recovery", path.to_str().unwrap()],
    );
    let error = Ext::open(disk.staged()).err().unwrap();
    assert!(error.to_string().contains("not unmounted"), "{error}");

    let disk = Disk::new("-t ext4", 48);
    let staged = disk.staged();
    let tree = Tree::new(fs::open(Arc::clone(staged.base())).unwrap().unwrap());
    let mut ext = Ext::open(Arc::clone(&staged)).unwrap();
    let error = ext
        .replace(node(&tree, "/etc/fstab"), &vec![1; 60 << 20], 1)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let error = ext.replace(node(&tree, "/etc"), b"", 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_byte_that_nobody_was_to_change_is_found_by_the_check() {
    if !has_peers() {
        return;
    }
    let disk = Disk::new("-t ext4 -b 4096", 48);
    let staged = disk.staged();
    let before = fs::open(Arc::clone(staged.base())).unwrap().unwrap();
    let tree = Tree::new(Arc::clone(&before));
    let mut ext = Ext::open(Arc::clone(&staged)).unwrap();
    ext.replace(node(&tree, "/etc/fstab"), b"x", 1).unwrap();
    let traces = ext.finish(1).unwrap();
    check(&staged, &before, &traces).unwrap();
    let blocks = disk.debugfs("blocks /boot/initrd");
    let block = blocks
        .split_whitespace()
        .filter_map(|word| word.parse::<u64>().ok())
        .next_back();
    staged.write_at(block.unwrap() * 4096, &[0]).unwrap();
    let error = check(&staged, &before, &traces).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
