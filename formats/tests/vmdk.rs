//! VMDK against the world: real images hash to what their makers' tools say, qemu-img reads what
//! we write, we read what qemu-img writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;

use hako_block::{
    Access, BlockImage, ContentId, ErrorKind, ExtentKind, Outputs, ParentLink, Result, Sink,
    StagedFolder,
};
use hako_formats::{CreateArgs, CreateOptions, OpenOptions, OpenedChain, format_named, open_chain};
use sha2::{Digest, Sha256};

/// Size of the disks made here: no multiple of a grain, more than one grain table.
const SIZE: u64 = (40 << 20) + 512 * 3;

fn open(path: &Path) -> Result<OpenedChain> {
    open_chain(path, &OpenOptions::default())
}

fn open_for_writing(path: &Path) -> Result<OpenedChain> {
    let options = OpenOptions {
        access: Access::ReadWrite,
        ..OpenOptions::default()
    };
    open_chain(path, &options)
}

/// The disk's content by the extent map: what is no data counts as zeros.
fn sha256(image: &dyn BlockImage) -> String {
    let mut hash = Sha256::new();
    let zeros = vec![0; 1 << 20];
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < image.info().virtual_size {
        let extent = image.next_extent(offset).unwrap();
        assert_eq!(extent.offset, offset);
        while offset < extent.end() {
            let len = (extent.end() - offset).min(1 << 20) as usize;
            if extent.kind == ExtentKind::Data {
                image.read_at(offset, &mut buf[..len]).unwrap();
                hash.update(&buf[..len]);
            } else {
                hash.update(&zeros[..len]);
            }
            offset += len as u64;
        }
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn read_all(image: &dyn BlockImage) -> Vec<u8> {
    let mut disk = vec![0x55; image.info().virtual_size as usize];
    image.read_at(0, &mut disk).unwrap();
    disk
}

fn qemu_img(args: &[&str], folder: &Path) {
    let output = Command::new("qemu-img")
        .args(args)
        .current_dir(folder)
        .output()
        .expect("qemu-img is part of the test machine: apt install qemu-utils");
    assert!(
        output.status.success(),
        "qemu-img {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A disk with data at its start, in the middle and in its last sector, zeros elsewhere.
fn pattern() -> Vec<u8> {
    let mut disk = vec![0; SIZE as usize];
    let mut state = 1u32;
    for range in [
        0..100_000,
        20 << 20..(20 << 20) + 300_000,
        SIZE as usize - 700..SIZE as usize,
    ] {
        for byte in &mut disk[range] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
    }
    disk
}

/// Creates `path`, delivering the units of `disk` that are not zeros.
fn write_image(path: &Path, disk: &[u8], options: CreateOptions, parent: Option<ParentLink>) {
    let staged = StagedFolder::new(path, false).unwrap();
    let storage = staged.create_main().unwrap();
    let outputs: &dyn Outputs = &staged;
    let mut sink = format_named("vmdk")
        .unwrap()
        .stream(CreateArgs {
            storage,
            name: staged.main_name().to_owned(),
            outputs,
            virtual_size: disk.len() as u64,
            parent,
            options,
        })
        .unwrap();
    deliver(&mut *sink, disk);
    sink.finish().unwrap();
    staged.commit().unwrap();
}

fn deliver(sink: &mut dyn Sink, disk: &[u8]) {
    let unit = sink.unit_bytes() as usize;
    for (index, bytes) in disk.chunks(unit).enumerate() {
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        let offset = (index * unit) as u64;
        match sink.encoder() {
            Some(encoder) => {
                let mut stored = Vec::new();
                encoder.encode(offset, bytes, &mut stored).unwrap();
                sink.encoded(offset, &stored).unwrap();
            }
            None => sink.data(offset, bytes).unwrap(),
        }
    }
}

fn creatable() -> impl Iterator<Item = &'static str> {
    let rows = format_named("vmdk").unwrap().subformats().iter();
    rows.filter(|row| row.create).map(|row| row.name)
}

fn subformat(name: &str) -> CreateOptions {
    CreateOptions {
        subformat: Some(name.to_owned()),
        ..CreateOptions::default()
    }
}

/// The rows of the corpus's index that are whole VMDKs: path and SHA-256 of the content.
fn corpus() -> Vec<(PathBuf, String)> {
    let Some(folder) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: HAKO_CORPUS is not set, real images are NOT tested");
        return Vec::new();
    };
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let rows = index
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row.len() > 6 && row[4] == "vmdk" && row[6].len() == 64)
        .map(|row| (folder.join(row[0]), row[6].to_owned()))
        .collect()
}

/// Unpacks an image that the corpus keeps packed.
fn unpacked(path: &Path, folder: &Path) -> PathBuf {
    if path.extension().is_none_or(|extension| extension != "bz2") {
        return path.to_path_buf();
    }
    let target = folder.join(path.file_stem().unwrap());
    let output = Command::new("bzip2").arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success(), "bzip2 -dc {}", path.display());
    std::fs::write(&target, output.stdout).unwrap();
    target
}

#[test]
fn real_images_hash_to_the_index() {
    let folder = tempfile::tempdir().unwrap();
    for (path, expected) in corpus() {
        let path = unpacked(&path, folder.path());
        let opened = open(&path).unwrap_or_else(|error| panic!("{error}"));
        // 16 GiB of zeros take longer than all other tests together.
        if opened.chain.info().virtual_size > 1 << 30 && std::env::var_os("HAKO_ALL").is_none() {
            eprintln!("skipped: {} is large; set HAKO_ALL", path.display());
            continue;
        }
        assert_eq!(sha256(&opened.chain), expected, "{}", path.display());
    }
}

#[test]
fn real_images_check_clean() {
    let folder = tempfile::tempdir().unwrap();
    for (path, _) in corpus() {
        let path = unpacked(&path, folder.path());
        let layer = open(&path).unwrap().layers.remove(0);
        let findings = layer.format.check(layer.args).unwrap();
        assert_eq!(
            findings.n_corruptions,
            0,
            "{}: {findings:?}",
            path.display()
        );
    }
}

#[test]
fn extent_file_of_a_real_split_disk_alone_names_its_descriptor() {
    let Some(folder) = std::env::var_os("HAKO_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: HAKO_CORPUS is not set, real images are NOT tested");
        return;
    };
    let error = open(&folder.join("vmdk-rs/twoGbMaxExtentSparse-s001.vmdk"))
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains("twoGbMaxExtentSparse.vmdk")
    );
}

#[test]
fn qemu_img_reads_every_variant_we_create() {
    let folder = tempfile::tempdir().unwrap();
    let disk = pattern();
    std::fs::write(folder.path().join("disk.raw"), &disk).unwrap();
    for name in creatable() {
        let file = format!("{name}.vmdk");
        let path = folder.path().join(&file);
        write_image(&path, &disk, subformat(name), None);
        assert_eq!(read_all(&open(&path).unwrap().chain), disk, "{name}");
        qemu_img(
            &["compare", "-f", "vmdk", "-F", "raw", &file, "disk.raw"],
            folder.path(),
        );
        qemu_img(&["check", "-f", "vmdk", &file], folder.path());
    }
}

#[test]
fn every_variant_of_qemu_img_is_read_and_checks_clean() {
    let folder = tempfile::tempdir().unwrap();
    let disk = pattern();
    std::fs::write(folder.path().join("disk.raw"), &disk).unwrap();
    for name in [
        "monolithicSparse",
        "twoGbMaxExtentSparse",
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "streamOptimized",
        "monolithicSparse,zeroed_grain=on",
        "monolithicSparse,compat6,adapter_type=lsilogic",
    ] {
        let file = format!("{}.vmdk", name.split(',').next().unwrap());
        let option = format!("subformat={name}");
        let convert = ["convert", "-O", "vmdk", "-o", &option, "disk.raw", &file];
        qemu_img(&convert, folder.path());
        let opened = open(&folder.path().join(&file)).unwrap_or_else(|error| panic!("{error}"));
        assert!(read_all(&opened.chain) == disk, "{name} reads differently");
        let layer = &opened.layers[0];
        let findings = layer.format.check(layer.args.clone()).unwrap();
        assert_eq!(findings.n_corruptions, 0, "{name}: {findings:?}");
    }
}

#[test]
fn writable_variants_of_qemu_img_are_written_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = pattern();
    std::fs::write(folder.path().join("disk.raw"), &disk).unwrap();
    let variants = ["monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat"];
    for name in variants {
        let file = format!("{name}.vmdk");
        let option = format!("subformat={name}");
        qemu_img(
            &["convert", "-O", "vmdk", "-o", &option, "disk.raw", &file],
            folder.path(),
        );
    }
    for (at, byte) in [(1000, 1), (30 << 20, 2), (SIZE as usize - 512, 3)] {
        disk[at..at + 512].fill(byte);
    }
    std::fs::write(folder.path().join("new.raw"), &disk).unwrap();
    for name in variants {
        let file = format!("{name}.vmdk");
        let path = folder.path().join(&file);
        let before = open(&path).unwrap().chain.info().content_id;
        let opened = open_for_writing(&path).unwrap();
        for at in [1000, 30 << 20, SIZE as usize - 512] {
            opened
                .chain
                .write_at(at as u64, &disk[at..at + 512])
                .unwrap();
        }
        opened.chain.flush().unwrap();
        drop(opened);
        assert_ne!(
            open(&path).unwrap().chain.info().content_id,
            before,
            "{name}"
        );
        qemu_img(
            &["compare", "-f", "vmdk", "-F", "raw", &file, "new.raw"],
            folder.path(),
        );
    }
}

fn link(path: &Path, name: &str) -> ParentLink {
    ParentLink {
        name: name.to_owned(),
        format: Some("vmdk".to_owned()),
        content_id: open(path).unwrap().chain.info().content_id,
        ..ParentLink::default()
    }
}

#[test]
fn qemu_img_reads_our_overlays_and_zeros_in_them_hide_the_parent() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = pattern();
    let base = folder.path().join("base.vmdk");
    write_image(&base, &disk, subformat("monolithicSparse"), None);
    disk[5000..9000].fill(9);
    disk[20 << 20..21 << 20].fill(0);
    disk[SIZE as usize - 512..].fill(8);
    std::fs::write(folder.path().join("new.raw"), &disk).unwrap();
    for name in ["monolithicSparse", "twoGbMaxExtentSparse"] {
        let file = format!("{name}-top.vmdk");
        let top = folder.path().join(&file);
        let parent = Some(link(&base, "base.vmdk"));
        write_image(&top, &vec![0; SIZE as usize], subformat(name), parent);
        let opened = open_for_writing(&top).unwrap();
        assert_eq!(opened.layers.len(), 2);
        opened.chain.write_at(5000, &[9; 4000]).unwrap();
        opened.chain.write_zeroes(20 << 20..21 << 20).unwrap();
        opened.chain.write_at(SIZE - 512, &[8; 512]).unwrap();
        opened.chain.flush().unwrap();
        drop(opened);
        assert!(
            read_all(&open(&top).unwrap().chain) == disk,
            "{name} reads differently"
        );
        qemu_img(
            &["compare", "-f", "vmdk", "-F", "raw", &file, "new.raw"],
            folder.path(),
        );
    }
}

#[test]
fn overlays_of_qemu_img_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = pattern();
    std::fs::write(folder.path().join("disk.raw"), &disk).unwrap();
    qemu_img(
        &["convert", "-O", "vmdk", "disk.raw", "base.vmdk"],
        folder.path(),
    );
    qemu_img(
        &[
            "create",
            "-f",
            "vmdk",
            "-b",
            "base.vmdk",
            "-F",
            "vmdk",
            "top.vmdk",
        ],
        folder.path(),
    );
    let top = folder.path().join("top.vmdk");
    let opened = open_for_writing(&top).unwrap();
    assert!(read_all(&opened.chain) == disk);
    disk[70_000..80_000].fill(4);
    opened.chain.write_at(70_000, &[4; 10_000]).unwrap();
    opened.chain.flush().unwrap();
    drop(opened);
    std::fs::write(folder.path().join("new.raw"), &disk).unwrap();
    qemu_img(
        &["compare", "-f", "vmdk", "-F", "raw", "top.vmdk", "new.raw"],
        folder.path(),
    );
}

#[test]
fn renamed_image_uses_itself_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["monolithicSparse", "streamOptimized"] {
        let path = folder.path().join("old.vmdk");
        write_image(&path, &pattern(), subformat(name), None);
        let renamed = folder.path().join(format!("{name}.vmdk"));
        std::fs::rename(&path, &renamed).unwrap();
        // Something else under the old name must not be taken for the extent.
        std::fs::write(&path, b"KDMV").unwrap();
        let opened = open(&renamed).unwrap();
        assert!(read_all(&opened.chain) == pattern(), "{name}");
        let odd = &opened.chain.info().oddities;
        assert!(odd.iter().any(|odd| odd.contains("renamed")), "{odd:?}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn first_write_changes_an_embedded_descriptor_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    write_image(&path, &pattern(), subformat("monolithicSparse"), None);
    let text = |path: &Path| std::fs::read(path).unwrap()[512..21 * 512].to_vec();
    // A change track, as VMware adds it, must not be believed after the write.
    let old = String::from_utf8(text(&path)).unwrap();
    let track = "\n# Change Tracking File\nchangeTrackPath=\"disk-ctk.vmdk\"\n";
    let edited = format!("{}{track}", old.trim_end_matches('\0'));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[512..512 + edited.len()].copy_from_slice(edited.as_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let before = open(&path).unwrap().chain.info().content_id.unwrap();
    let opened = open_for_writing(&path).unwrap();
    opened.chain.flush().unwrap();
    assert!(
        text(&path).starts_with(edited.as_bytes()),
        "opening alone changes nothing"
    );
    opened.chain.write_at(0, &[1]).unwrap();
    opened.chain.flush().unwrap();
    let after = open_chain_info(&path);
    let new = String::from_utf8(text(&path)).unwrap();
    let blank = format!(
        "#{}",
        " ".repeat("changeTrackPath=\"disk-ctk.vmdk\"".len() - 1)
    );
    let expected = edited
        .replace(&format!("{before}"), &format!("{after}"))
        .replace("changeTrackPath=\"disk-ctk.vmdk\"", &blank);
    assert_ne!(before, after);
    assert_eq!(new.trim_end_matches('\0'), expected);
}

/// The content ID, read although a writer has the image open.
fn open_chain_info(path: &Path) -> ContentId {
    let mut options = OpenOptions::default();
    options.rules.no_lock = true;
    open_chain(path, &options)
        .unwrap()
        .chain
        .info()
        .content_id
        .unwrap()
}

#[test]
fn second_writer_of_a_split_disk_is_refused_after_its_descriptor_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    write_image(&path, &pattern(), subformat("twoGbMaxExtentFlat"), None);
    let first = open_for_writing(&path).unwrap();
    first.chain.write_at(0, &[1]).unwrap();
    let error = open_for_writing(&path).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked);
}

// The gate, and chains.

fn descriptor(extent: &str, cid: u32, parent: Option<(u32, &str)>) -> String {
    let (parent_cid, hint) = match parent {
        Some((cid, name)) => (cid, format!("parentFileNameHint=\"{name}\"\n")),
        None => (0xffff_ffff, String::new()),
    };
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID={parent_cid:08x}\n\
         createType=\"monolithicFlat\"\n{hint}{extent}\n"
    )
}

fn refused(folder: &Path, extent: &str) -> ErrorKind {
    let path = folder.join("disk.vmdk");
    std::fs::write(&path, descriptor(extent, 1, None)).unwrap();
    open(&path)
        .err()
        .unwrap_or_else(|| panic!("{extent} opened"))
        .kind()
}

#[test]
fn extent_files_are_opened_only_through_the_gate() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("vm");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(outer.path().join("secret"), [1; 512]).unwrap();
    let link = std::os::unix::fs::symlink::<_, PathBuf>;
    link("../secret", folder.join("link")).unwrap();
    let absolute = format!("RW 1 FLAT \"{}/secret\" 0", outer.path().display());
    for extent in [
        "RW 1 FLAT \"../secret\" 0",
        "RW 1 FLAT \"link\" 0",
        "RW 1 FLAT \"/dev/zero\" 0",
        "RW 1 SPARSE \"../secret\"",
        "RW 1 VMFSRDM \"../secret\"",
        &absolute,
    ] {
        assert_eq!(refused(&folder, extent), ErrorKind::Gate, "{extent}");
    }
}

#[test]
fn parent_whose_content_id_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    std::fs::write(folder.path().join("flat"), [7; 512]).unwrap();
    put(
        "base.vmdk",
        descriptor("RW 1 FLAT \"flat\" 0", 0xabcd, None),
    );
    put(
        "top.vmdk",
        descriptor("RW 1 ZERO", 2, Some((0xabcd, "base.vmdk"))),
    );
    let top = folder.path().join("top.vmdk");
    assert_eq!(open(&top).unwrap().layers.len(), 2);
    put(
        "top.vmdk",
        descriptor("RW 1 ZERO", 2, Some((0xabce, "base.vmdk"))),
    );
    let error = open(&top).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("0000abce does not match the CID 0000abcd"),
        "{error}"
    );
}

#[test]
fn parent_named_by_a_windows_path_gets_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top.vmdk");
    let text = descriptor("RW 1 ZERO", 2, Some((1, "C:\\vm\\base.vmdk")));
    std::fs::write(&top, text).unwrap();
    let error = open(&top).err().unwrap();
    assert!(
        error.hint_text().unwrap().contains("Windows path"),
        "{error}"
    );
}

#[test]
fn chain_that_is_a_loop_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, parent) in [("a.vmdk", "b.vmdk"), ("b.vmdk", "a.vmdk")] {
        let text = descriptor("RW 1 ZERO", 1, Some((1, parent)));
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let error = open(&folder.path().join("a.vmdk")).err().unwrap();
    assert!(error.to_string().contains("loop"), "{error}");
}

#[test]
fn split_disk_of_two_tebibytes_has_more_than_999_extents() {
    hako_block::allow_many_files();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vmdk");
    let staged = StagedFolder::new(&path, false).unwrap();
    let args = CreateArgs {
        storage: staged.create_main().unwrap(),
        name: "disk.vmdk".to_owned(),
        outputs: &staged,
        virtual_size: 2 << 40,
        parent: None,
        options: subformat("twoGbMaxExtentSparse"),
    };
    let sink = format_named("vmdk").unwrap().stream(args).unwrap();
    sink.finish().unwrap();
    staged.commit().unwrap();
    assert!(folder.path().join("disk-s1025.vmdk").is_file());
    let opened = open(&path).unwrap();
    assert_eq!(opened.chain.info().virtual_size, 2 << 40);
    let mut end = [1; 4096];
    opened.chain.read_at((2 << 40) - 4096, &mut end).unwrap();
    assert_eq!(end, [0; 4096]);
    let error = open(&folder.path().join("disk-s1025.vmdk")).err().unwrap();
    assert!(error.hint_text().unwrap().contains("disk.vmdk"), "{error}");
}
