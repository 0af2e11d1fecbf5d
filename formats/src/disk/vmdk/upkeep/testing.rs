//! What the tests of the verbs share: images in a folder that can be cut, and what they must be
//! after it.

use std::path::PathBuf;

use hako_block::testkit::{Fault, FaultFolder, Rng, SparseBytes, cut_images};
use hako_block::{Access, BlockImage, Outputs, ParentLink, Resolver, Result};

use crate::disk::vmdk::Vmdk;
use crate::disk::vmdk::testing::{qemu_img, text};
use crate::disk::{CreateArgs, CreateOptions, DiskFormat, Findings, OpenArgs, Severity};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const NAME: &str = "disk.vmdk";

/// Returns what a verb is given.
pub(super) fn args_of(folder: &FaultFolder, name: &str, access: Access) -> OpenArgs {
    let opened = folder.open(name, access).unwrap();
    OpenArgs {
        storage: opened.storage,
        name: opened.name,
        resolver: opened.resolver,
        access,
        salvage: false,
        snapshot: None,
    }
}

pub(super) fn args(folder: &FaultFolder) -> OpenArgs {
    args_of(folder, NAME, Access::ReadWrite)
}

pub(super) fn open(folder: &FaultFolder) -> Result<Box<dyn BlockImage>> {
    Vmdk.open(args_of(folder, NAME, Access::ReadOnly))
}

/// Creates `disk.vmdk` of that variant with data between these guest offsets.
pub(super) fn create(
    subformat: &str,
    virtual_size: u64,
    parent: Option<ParentLink>,
    data: &[(u64, u64)],
) -> FaultFolder {
    let folder = FaultFolder::default();
    let mut sink = Vmdk
        .stream(CreateArgs {
            storage: Outputs::create(&folder, NAME).unwrap(),
            name: NAME.to_owned(),
            outputs: &folder,
            virtual_size,
            parent,
            options: CreateOptions {
                subformat: Some(subformat.to_owned()),
                ..CreateOptions::default()
            },
        })
        .unwrap();
    let mut rng = Rng::new(7);
    for (start, end) in data {
        let mut bytes = vec![0; (end - start) as usize];
        for word in bytes.chunks_mut(8) {
            let random = rng.next_u64().to_le_bytes();
            word.copy_from_slice(&random[..word.len()]);
        }
        sink.data(*start, &bytes).unwrap();
    }
    sink.finish().unwrap();
    folder.copy()
}

/// Returns the content as its size and the runs of sectors that are not zeros, for disks of any
/// size.
pub(super) fn content(image: &dyn BlockImage) -> Content {
    try_content(image).unwrap()
}

/// A size, and runs by their guest offsets.
pub(super) type Content = (u64, Vec<(u64, Vec<u8>)>);

/// Returns the content of an image that may be damaged.
pub(super) fn try_content(image: &dyn BlockImage) -> Result<Content> {
    let size = image.info().virtual_size;
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for extent in hako_block::extents(image) {
        let extent = extent?;
        let offset = extent.offset;
        if extent.kind == hako_block::ExtentKind::Data {
            let mut bytes = vec![0; extent.len as usize];
            image.read_at(offset, &mut bytes)?;
            for (at, sector) in (offset..).step_by(512).zip(bytes.chunks(512)) {
                match runs.last_mut() {
                    _ if hako_block::is_zero(sector) => {}
                    Some((start, run)) if *start + run.len() as u64 == at => run.extend(sector),
                    _ => runs.push((at, sector.to_vec())),
                }
            }
        }
    }
    Ok((size, runs))
}

/// Runs a verb on a copy of the folder and shows every state that a cut or a failure may leave: the
/// folder, and whether the verb had returned, or succeeded. Returns the folder as the verb left it.
pub(super) fn cuts(
    folder: &FaultFolder,
    verb: impl Fn(&FaultFolder) -> Result<()>,
    mut judge: impl FnMut(&FaultFolder, bool),
) -> FaultFolder {
    let worked = folder.copy();
    let (before, numbers) = (worked.files(), worked.numbers());
    verb(&worked).unwrap();
    let log = worked.take_log();
    let done = log.len();
    cut_images(&before, &numbers, &log, 8, &mut Rng::new(3), |cut| {
        let context = format!("cut after {} of {done}, lost: {}", cut.n_ops, cut.lost);
        let _context = Context(context);
        judge(&cut.folder, cut.n_ops == done);
    });
    faults(folder, &verb, &mut judge);
    worked
}

/// Lets every change fail once, and the disk be full from every change on.
fn faults(
    folder: &FaultFolder,
    verb: impl Fn(&FaultFolder) -> Result<()>,
    mut judge: impl FnMut(&FaultFolder, bool),
) {
    let healthy = folder.copy();
    healthy.set_fault(None);
    verb(&healthy).unwrap();
    let (n_changes, _) = healthy.counts();
    for n in 0..n_changes {
        for fault in [Fault::WriteEio(n), Fault::DiskFull(n)] {
            let _context = Context(format!("{fault:?}"));
            let folder = folder.copy();
            folder.set_fault(Some(fault));
            let is_done = verb(&folder).is_ok();
            folder.set_fault(None);
            judge(&folder, is_done);
        }
    }
}

/// Says where a panic happened.
struct Context(String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in: {}", self.0);
        }
    }
}

pub(super) fn check(folder: &FaultFolder) -> Findings {
    Vmdk.check(args_of(folder, NAME, Access::ReadOnly)).unwrap()
}

/// Fails on damage.
pub(super) fn assert_sound(folder: &FaultFolder) {
    let findings = check(folder);
    assert_eq!(findings.n_corruptions, 0, "{:#?}", findings.list);
}

/// Fails on anything that a check tells.
pub(super) fn assert_flawless(folder: &FaultFolder) {
    let findings = check(folder);
    assert_eq!(findings.worst(), None::<Severity>, "{:#?}", findings.list);
}

/// Writes the files to a folder of the host.
pub(super) fn on_host(folder: &FaultFolder) -> (tempfile::TempDir, PathBuf) {
    let host = tempfile::tempdir().unwrap();
    folder.save(host.path());
    let path = host.path().join(NAME);
    (host, path)
}

/// qemu finds nothing wrong and reads the same.
pub(super) fn assert_qemu_agrees(folder: &FaultFolder) {
    let (_host, path) = on_host(folder);
    let check = qemu_img(&["check", "-f", "vmdk", text(&path)]);
    assert!(check.contains("No errors"), "{check}");
    let raw = path.with_extension("raw");
    qemu_img(&[
        "convert",
        "-f",
        "vmdk",
        "-O",
        "raw",
        text(&path),
        text(&raw),
    ]);
    let (size, runs) = content(&*open(folder).unwrap());
    let mut wanted = SparseBytes::default();
    for (offset, bytes) in &runs {
        wanted.write(*offset, bytes);
    }
    wanted.set_len(size);
    let mine = path.with_extension("mine");
    wanted.save(&mine);
    qemu_img(&["compare", "-f", "raw", "-F", "raw", text(&raw), text(&mine)]);
}
