//! Verbs cut off at every write.

use hako_block::testkit::{FaultFolder, Rng, SparseBytes, cut_images};

use super::*;

/// States tried at each cut, beyond "all kept" and "all lost".
const N_VARIANTS: usize = 4;
/// How often qemu-img looks at what a cut left, too.
const QEMU_ONE_IN: usize = 40;

/// `disk.qcow2` alone, for the parent may be missing.
const WITHOUT_PARENT: &str = "json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{\"driver\":\"file\",\"filename\":\"disk.qcow2\"}}";

/// Returns the files of a host folder in memory, but for raw ones that tests leave there.
pub fn load(folder: &Path) -> FaultFolder {
    let loaded = FaultFolder::default();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.ends_with(".raw") {
            loaded.insert(&name, sparse(&entry.path()));
        }
    }
    loaded
}

fn sparse(path: &Path) -> SparseBytes {
    let bytes = std::fs::read(path).unwrap();
    let mut content = SparseBytes::default();
    for (index, page) in bytes.chunks(4096).enumerate() {
        if !is_zero(page) {
            content.write(index as u64 * 4096, page);
        }
    }
    content.set_len(bytes.len() as u64);
    content
}

/// Makes an empty disk of 2 TiB, has `fill` write into each of 64 places from its beginning to its
/// end, and loads it.
pub fn load_wide(fill: impl Fn(&dyn BlockImage, u64)) -> FaultFolder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    qemu_img(
        folder.path(),
        &["create", "-f", "qcow2", "disk.qcow2", "2T"],
    );
    let image = open_file(&path, Access::ReadWrite);
    for index in 0..64 {
        fill(&*image, index << 35);
    }
    image.flush().unwrap();
    drop(image);
    load(folder.path())
}

/// What a driver is given to change `disk.qcow2`.
pub fn args_of(files: &FaultFolder, access: Access) -> OpenArgs {
    args_of_name(files, "disk.qcow2", access)
}

pub fn args_of_name(files: &FaultFolder, name: &str, access: Access) -> OpenArgs {
    OpenArgs {
        storage: files.file(name).unwrap(),
        name: name.into(),
        resolver: Arc::new(files.clone()),
        access,
        salvage: false,
        snapshot: None,
    }
}

pub fn open_in(files: &FaultFolder, access: Access) -> Box<dyn BlockImage> {
    Qcow2.open(args_of(files, access)).unwrap()
}

/// Passes if hako finds no corruption (and qemu-img neither), and no leak if `whole`.
pub fn assert_sound(files: &FaultFolder, whole: bool) {
    let findings = Qcow2.check(args_of(files, Access::ReadOnly)).unwrap();
    assert_eq!(findings.n_corruptions, 0, "{:#?}", findings.list);
    assert!(!whole || findings.n_leaks == 0, "{:#?}", findings.list);
    assert_eq!(findings.n_oddities, 0, "{:#?}", findings.list);
}

/// Passes if both versions of qemu-img find no corruption, and no leak if `whole`.
pub fn assert_qemu_sound(files: &FaultFolder, whole: bool) {
    let scratch = tempfile::tempdir().unwrap();
    files.save(scratch.path());
    for program in qemu_imgs() {
        let output = Command::new(&program)
            .args(["check", "-U", WITHOUT_PARENT])
            .current_dir(scratch.path())
            .output()
            .unwrap();
        let code = output.status.code().unwrap();
        assert!(
            code == 0 || (code == 3 && !whole),
            "{program:?} check: {code}, {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Every qemu-img there is: those that `tests/run` unpacked, else the system's.
pub fn qemu_imgs() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let unpacked = std::fs::read_dir(root.join(".peers")).into_iter().flatten();
    let mut found: Vec<_> = unpacked
        .flatten()
        .map(|entry| entry.path().join("qemu-img"))
        .filter(|path| path.exists())
        .collect();
    if found.is_empty() {
        println!("SKIPPED: only the system's qemu-img, tests/run unpacks both versions");
        found.push("qemu-img".into());
    }
    found
}

/// What the image in memory holds, read by hako.
pub fn content_in(files: &FaultFolder) -> Vec<u8> {
    let image = open_in(files, Access::ReadOnly);
    let content = read_all(&*image);
    check_extents(&*image, &content);
    content
}

/// What the image in memory holds, read by qemu-img.
pub fn qemu_content_in(files: &FaultFolder) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    files.save(scratch.path());
    qemu_content(&scratch.path().join("disk.qcow2"))
}

/// Runs `verb` on the files and calls `each` with possible states after a cut at every write,
/// each of them sound. Leaves the files as the verb left them.
pub fn cut_everywhere(
    files: &FaultFolder,
    verb: impl FnOnce(&FaultFolder),
    mut each: impl FnMut(&FaultFolder),
) {
    let mut n = 0;
    cut_states(files, verb, |cut| {
        assert_sound(cut, false);
        each(cut);
        if n % QEMU_ONE_IN == 0 {
            assert_qemu_sound(cut, false);
        }
        n += 1;
    });
}

/// Runs `verb` on the files and calls `each` with possible states after a cut at every write.
pub fn cut_states(
    files: &FaultFolder,
    verb: impl FnOnce(&FaultFolder),
    mut each: impl FnMut(&FaultFolder),
) {
    let (before, numbers) = (files.files(), files.numbers());
    files.take_log();
    verb(files);
    let log = files.take_log();
    cut_images(
        &before,
        &numbers,
        &log,
        N_VARIANTS,
        &mut Rng::new(5),
        |cut| {
            let caught =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| each(&cut.folder)));
            if let Err(panic) = caught {
                println!("… cut after {} operations, lost: {}", cut.n_ops, cut.lost);
                std::panic::resume_unwind(panic);
            }
        },
    );
}
