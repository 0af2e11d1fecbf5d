use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use hako_block::{Access, BlockImage, ErrorKind, ExtentKind, GateRules, NoProgress};
use hako_disk::{CreateRequest, create};
use hako_formats::{format_named, open_chain};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a raw disk: data with holes of zeros in it.
    fn disk(&self, name: &str, len: usize) -> Vec<u8> {
        let mut content = vec![0; len];
        for (block, bytes) in content.chunks_mut(30_000).enumerate() {
            if block % 3 != 1 {
                bytes.fill(block as u8 | 1);
            }
        }
        std::fs::write(self.path(name), &content).unwrap();
        content
    }

    fn request(&self, source: &str, target: &str) -> ConvertRequest {
        ConvertRequest {
            source: Source::Path(self.path(source)),
            open: OpenOptions::default(),
            layer: None,
            target: Target::Path(self.path(target)),
            to: format_named("raw").unwrap(),
            create: CreateOptions::default(),
            parent: None,
            force: false,
            verify: true,
            threads: None,
            rate: None,
            temp_folder: self.0.path().to_path_buf(),
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn run(request: ConvertRequest) -> Result<ConvertReport> {
    convert(request, &NoProgress, &Cancel::default())
}

#[test]
fn odd_size_is_rounded_up_and_said_so() {
    let folder = Folder::new();
    let mut content = folder.disk("a.img", 1_000_001);
    let report = run(folder.request("a.img", "b.img")).unwrap();
    content.resize(1_000_448, 0);
    assert!(std::fs::read(folder.path("b.img")).unwrap() == content);
    assert_eq!(report.virtual_size, 1_000_448);
    assert!(report.verified);
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
}

#[test]
fn target_that_exists_is_replaced_only_by_force() {
    let folder = Folder::new();
    let content = folder.disk("a.img", 1 << 20);
    folder.disk("b.img", 512);
    let error = run(folder.request("a.img", "b.img")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    let mut request = folder.request("a.img", "b.img");
    request.force = true;
    run(request).unwrap();
    assert!(std::fs::read(folder.path("b.img")).unwrap() == content);
    assert_eq!(folder.names(), ["a.img", "b.img"]);
}

#[test]
fn source_is_never_its_own_target() {
    let folder = Folder::new();
    let content = folder.disk("a.img", 1 << 20);
    std::os::unix::fs::symlink("a.img", folder.path("link.img")).unwrap();
    for target in ["a.img", "link.img"] {
        let mut request = folder.request("a.img", target);
        request.force = true;
        let error = run(request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert!(std::fs::read(folder.path("a.img")).unwrap() == content);
}

#[test]
fn image_in_use_is_not_replaced() {
    let folder = Folder::new();
    folder.disk("a.img", 1 << 20);
    folder.disk("b.img", 512);
    let _vm = hako_block::FileStorage::open(
        &folder.path("b.img"),
        Access::ReadOnly,
        hako_block::LockMode::Read,
    )
    .unwrap();
    let mut request = folder.request("a.img", "b.img");
    request.force = true;
    assert_eq!(run(request).unwrap_err().kind(), ErrorKind::Locked);
}

#[test]
fn failed_conversion_leaves_nothing_behind() {
    let folder = Folder::new();
    folder.disk("a.img", 1 << 20);
    let cancel = Cancel::default();
    cancel.cancel();
    let error = convert(folder.request("a.img", "b.img"), &NoProgress, &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(folder.names(), ["a.img"]);
}

#[test]
fn layer_that_is_not_there_is_refused() {
    let folder = Folder::new();
    folder.disk("a.img", 1 << 20);
    let mut request = folder.request("a.img", "b.img");
    request.layer = Some(1);
    assert_eq!(run(request).unwrap_err().kind(), ErrorKind::Invalid);
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn disk_passes_from_stdin_to_stdout() {
    let folder = Folder::new();
    let content = folder.disk("a.img", 3 << 20);
    let collected = Collected::default();
    let request = |is_terminal| ConvertRequest {
        source: Source::Stdin(File::open(folder.path("a.img")).unwrap()),
        open: OpenOptions {
            from: Some("raw".to_owned()),
            ..OpenOptions::default()
        },
        target: Target::Stdout {
            writer: Box::new(collected.clone()),
            is_terminal,
        },
        verify: false,
        ..folder.request("a.img", "unused")
    };
    assert_eq!(run(request(true)).unwrap_err().kind(), ErrorKind::Invalid);
    run(request(false)).unwrap();
    assert!(*collected.0.lock().unwrap() == content);
}

#[test]
fn extent_file_of_the_source_is_not_replaced_by_one_of_the_target() {
    let folder = Folder::new();
    let content = folder.disk("new-flat.vmdk", 1 << 20);
    let to_flat = |source: &str| ConvertRequest {
        open: OpenOptions {
            from: Some("raw".to_owned()),
            ..OpenOptions::default()
        },
        to: format_named("vmdk").unwrap(),
        create: CreateOptions {
            subformat: Some("monolithicFlat".to_owned()),
            ..CreateOptions::default()
        },
        force: true,
        ..folder.request(source, "new.vmdk")
    };
    let error = run(to_flat("new-flat.vmdk")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(folder.names(), ["new-flat.vmdk"]);
    std::fs::rename(folder.path("new-flat.vmdk"), folder.path("a.img")).unwrap();
    run(to_flat("a.img")).unwrap();
    assert!(std::fs::read(folder.path("new-flat.vmdk")).unwrap() == content);
}

/// A layer's unit that the new image stores in part is filled up from below, whatever the units.
#[test]
fn one_layer_becomes_an_overlay_that_shows_what_the_chain_showed() {
    for (format, unit) in [("qcow2", None), ("qcow2", Some(2 << 20)), ("vmdk", None)] {
        let folder = Folder::new();
        let mut content = folder.disk("base.img", 3 << 20);
        let to = |format| format_named(format).unwrap();
        let base = |name: &str| ConvertRequest {
            to: to(format),
            ..folder.request("base.img", name)
        };
        run(base("base")).unwrap();
        let overlay = CreateRequest {
            path: folder.path("top"),
            to: to(format),
            virtual_size: None,
            create: CreateOptions::default(),
            parent: Some(folder.path("base")),
            parent_from: None,
            rules: GateRules::default(),
            force: false,
        };
        create(overlay, &NoProgress, &Cancel::default()).unwrap();
        let write = OpenOptions {
            access: Access::ReadWrite,
            ..OpenOptions::default()
        };
        let top = open_chain(&folder.path("top"), &write).unwrap();
        top.chain.write_at(1_500_000, &[0xab; 100]).unwrap();
        top.chain.write_zeroes(65_536..131_072).unwrap();
        top.chain.flush().unwrap();
        drop(top);
        content[1_500_000..1_500_100].fill(0xab);
        content[65_536..131_072].fill(0);
        let layer = ConvertRequest {
            layer: Some(0),
            parent: Some(folder.path("base")),
            to: to(format),
            create: CreateOptions {
                unit_bytes: unit,
                ..CreateOptions::default()
            },
            ..folder.request("top", "copy")
        };
        run(layer).unwrap();
        run(folder.request("copy", "copy.raw")).unwrap();
        let found = std::fs::read(folder.path("copy.raw")).unwrap();
        assert!(found == content, "{format} {unit:?}");
        let copy = open_chain(&folder.path("copy"), &OpenOptions::default()).unwrap();
        let own = copy.layers[0].image.next_extent(0).unwrap();
        assert_eq!(own.kind == ExtentKind::Hole, unit.is_none(), "{format}");
    }
}
