//! What the tests of the variants share.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hako_block::{BlockImage, MemoryStorage, Result, Storage};

use crate::disk::Findings;

/// Reads the whole disk.
pub(super) fn read_all(image: &dyn BlockImage) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(image.info().virtual_size).unwrap()];
    image.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Runs a check over a file's bytes.
pub(super) fn findings_of(
    check: impl Fn(Arc<dyn Storage>, &mut Findings) -> Result<()>,
    file: &[u8],
) -> Findings {
    let mut findings = Findings::default();
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", file.to_vec()));
    check(storage, &mut findings).unwrap();
    findings
}

/// Runs qemu-img and returns what it says.
pub(super) fn qemu_img(args: &[&str]) -> String {
    let output = Command::new("qemu-img").args(args).output();
    let output = output.expect("qemu-img is needed for this test: install qemu-utils");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(output.status.success(), "qemu-img {args:?}: {said}");
    said
}

/// Returns a path as text.
pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes an extent file with a descriptor of one extent, and lets qemu-img compare it.
pub(super) fn assert_same_in_qemu(create_type: &str, kind: &str, file: &[u8], content: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // No blank line before the extent's: qemu would count the extent twice.
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\nRW {} {kind} \"extent.vmdk\"\n",
        content.len() / 512
    );
    std::fs::write(path("disk.vmdk"), descriptor).unwrap();
    std::fs::write(path("extent.vmdk"), file).unwrap();
    std::fs::write(path("disk.raw"), content).unwrap();
    let (disk, raw) = (path("disk.vmdk"), path("disk.raw"));
    qemu_img(&[
        "compare",
        "-f",
        "vmdk",
        "-F",
        "raw",
        text(&disk),
        text(&raw),
    ]);
}
