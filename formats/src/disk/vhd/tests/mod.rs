//! What only VHD has: footers at both ends, sector bitmaps, sizes by the creator.

mod upkeep;

use std::sync::Arc;

use hako_block::testkit::FaultFolder;
use hako_block::{
    Access, BlockImage, ErrorKind, ExtentKind, Outputs, ParentLink, Resolver, Result, Storage, Uuid,
};

use super::Vhd;
use crate::disk::{CreateArgs, CreateOptions, DiskFormat, OpenArgs, Severity};

const MIB: u64 = 1 << 20;

/// Makes a disk with bytes at some places.
fn create(
    folder: &FaultFolder,
    options: CreateOptions,
    size: u64,
    parent: Option<ParentLink>,
    data: &[(u64, u8)],
) -> Result<()> {
    let mut sink = Vhd.stream(CreateArgs {
        storage: folder.create("disk")?,
        name: "disk".to_owned(),
        outputs: folder,
        virtual_size: size,
        parent,
        options,
    })?;
    for (offset, byte) in data {
        sink.data(*offset, &[*byte; 4096])?;
    }
    sink.finish()
}

fn dynamic(data: &[(u64, u8)]) -> FaultFolder {
    let folder = FaultFolder::default();
    create(&folder, CreateOptions::default(), 20 * MIB, None, data).unwrap();
    folder
}

fn options(subformat: &str) -> CreateOptions {
    CreateOptions {
        subformat: Some(subformat.to_owned()),
        ..CreateOptions::default()
    }
}

fn args(folder: &FaultFolder, access: Access) -> OpenArgs {
    let opened = folder.open("disk", access).unwrap();
    OpenArgs {
        storage: opened.storage,
        name: opened.name,
        resolver: opened.resolver,
        access,
        salvage: false,
        snapshot: None,
    }
}

fn open(folder: &FaultFolder, access: Access) -> Result<Box<dyn BlockImage>> {
    Vhd.open(args(folder, access))
}

fn file(folder: &FaultFolder) -> Arc<dyn Storage> {
    args(folder, Access::ReadWrite).storage
}

/// Changes bytes of the file.
fn patch(folder: &FaultFolder, at: u64, bytes: &[u8]) {
    file(folder).write_at(at, bytes).unwrap();
}

fn byte(image: &dyn BlockImage, offset: u64) -> u8 {
    let mut byte = [0];
    image.read_at(offset, &mut byte).unwrap();
    byte[0]
}

fn kinds(folder: &FaultFolder) -> Vec<(Severity, String)> {
    let findings = Vhd.check(args(folder, Access::ReadOnly)).unwrap();
    let list = findings.list.into_iter();
    list.map(|finding| (finding.severity, finding.text))
        .collect()
}

#[test]
fn either_footer_will_do_and_the_bad_one_is_told() {
    let folder = dynamic(&[(5 * MIB, 7)]);
    let len = file(&folder).len_bytes().unwrap();
    for at in [3, len - 512 + 50] {
        let hurt = folder.copy();
        patch(&hurt, at, &[0xee]);
        let image = open(&hurt, Access::ReadOnly).unwrap();
        assert_eq!(byte(&*image, 5 * MIB), 7);
        assert_eq!(image.info().oddities.len(), 1, "{:?}", image.info());
        assert_eq!(kinds(&hurt)[0].0, Severity::Oddity);
        // The first change mends both.
        let image = open(&hurt, Access::ReadWrite).unwrap();
        image.write_at(0, &[1]).unwrap();
        image.flush().unwrap();
        drop(image);
        assert_eq!(kinds(&hurt), []);
    }
    patch(&folder, 3, &[0xee]);
    patch(&folder, len - 512 + 50, &[0xee]);
    let error = open(&folder, Access::ReadOnly).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_fixed_disk_is_never_read_by_what_its_guest_wrote() {
    let folder = FaultFolder::default();
    create(&folder, options("fixed"), 4 * MIB, None, &[]).unwrap();
    let other = dynamic(&[]);
    let mut forged = vec![0; 1536];
    file(&other).read_at(0, &mut forged).unwrap();
    let image = open(&folder, Access::ReadWrite).unwrap();
    image.write_at(0, &forged).unwrap();
    drop(image);
    let image = open(&folder, Access::ReadOnly).unwrap();
    assert_eq!(image.info().subformat.as_deref(), Some("fixed"));
    assert_eq!(image.info().virtual_size, 4 * MIB);
    assert_eq!(byte(&*image, 0), b'c');
}

#[test]
fn the_footer_of_511_bytes_is_read() {
    let folder = FaultFolder::default();
    create(&folder, options("fixed"), 4 * MIB, None, &[(8192, 9)]).unwrap();
    file(&folder).set_len(4 * MIB + 511).unwrap();
    let bytes = folder.files()["disk"].to_vec();
    assert!(Vhd.probe(&bytes[..512], &bytes[bytes.len() - 4096..]));
    let image = open(&folder, Access::ReadWrite).unwrap();
    assert_eq!(byte(&*image, 8192), 9);
    image.write_at(4 * MIB - 1, &[5]).unwrap();
    image.flush().unwrap();
    assert_eq!(byte(&*image, 4 * MIB - 1), 5);
    assert_eq!(kinds(&folder), []);
}

#[test]
fn a_fixed_disk_that_is_cut_off_is_refused() {
    let folder = FaultFolder::default();
    create(&folder, options("fixed"), 4 * MIB, None, &[]).unwrap();
    let mut footer = vec![0; 512];
    file(&folder).read_at(4 * MIB, &mut footer).unwrap();
    file(&folder).set_len(2 * MIB).unwrap();
    assert!(open(&folder, Access::ReadOnly).is_err());
    patch(&folder, 2 * MIB, &footer);
    let error = open(&folder, Access::ReadOnly).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let salvage = OpenArgs {
        salvage: true,
        ..args(&folder, Access::ReadOnly)
    };
    assert_eq!(byte(&*Vhd.open(salvage).unwrap(), 0), 0);
}

fn parent() -> ParentLink {
    ParentLink {
        name: "base.vhd".to_owned(),
        format: Some("vhd".to_owned()),
        identity: Some(Uuid([9; 16])),
        ..ParentLink::default()
    }
}

#[test]
fn clear_bits_are_the_parents_and_set_bits_are_not() {
    let folder = FaultFolder::default();
    let data = [(2 * MIB, 7), (2 * MIB + 8192, 8)];
    create(
        &folder,
        CreateOptions::default(),
        20 * MIB,
        Some(parent()),
        &data,
    )
    .unwrap();
    let image = open(&folder, Access::ReadWrite).unwrap();
    assert_eq!(image.info().subformat.as_deref(), Some("differencing"));
    assert_eq!(image.info().parent, Some(parent()));
    let extent = |offset| {
        let extent = image.next_extent(offset).unwrap();
        (extent.kind, extent.len)
    };
    assert_eq!(extent(0), (ExtentKind::Hole, 2 * MIB));
    assert_eq!(extent(2 * MIB), (ExtentKind::Data, 4096));
    assert_eq!(extent(2 * MIB + 4096), (ExtentKind::Hole, 4096));
    assert_eq!(extent(2 * MIB + 8192), (ExtentKind::Data, 4096));
    assert_eq!(
        extent(2 * MIB + 12288),
        (ExtentKind::Hole, 18 * MIB - 12288)
    );
    // A write to what is not stored yet brings its sectors only, whole.
    image.write_at(2 * MIB + 5000, &[1; 100]).unwrap();
    image.flush().unwrap();
    assert_eq!(image.next_extent(2 * MIB + 4096).unwrap().len, 512);
    assert_eq!(image.next_extent(2 * MIB + 4608).unwrap().len, 512);
    assert_eq!(
        image.next_extent(2 * MIB + 4608).unwrap().kind,
        ExtentKind::Data
    );
    assert_eq!(byte(&*image, 2 * MIB + 4700), 0);
    assert_eq!(byte(&*image, 2 * MIB + 5050), 1);
    assert_eq!(extent(2 * MIB + 5120).0, ExtentKind::Hole);
    assert_eq!(kinds(&folder), []);
}

#[test]
fn in_a_dynamic_disk_nothing_stored_is_hidden() {
    let folder = dynamic(&[(0, 7)]);
    let image = open(&folder, Access::ReadOnly).unwrap();
    let host = image.next_extent(0).unwrap().host.unwrap().offset;
    drop(image);
    patch(&folder, host - 512, &[0; 512]);
    let image = open(&folder, Access::ReadWrite).unwrap();
    assert_eq!(byte(&*image, 0), 7);
    // What is written is seen by those who go by the bits, too.
    image.write_at(1000, &[3; 100]).unwrap();
    image.flush().unwrap();
    let mut bits = [0; 2];
    file(&folder).read_at(host - 512, &mut bits).unwrap();
    assert_eq!(bits, [0b0110_0000, 0]);
}

#[test]
fn entries_that_lead_out_of_the_file_are_errors_and_told() {
    let folder = dynamic(&[(0, 7), (4 * MIB, 8)]);
    let mut entry = [0; 4];
    file(&folder).read_at(1536, &mut entry).unwrap();
    patch(&folder, 1536 + 4, &0x7fff_fff0_u32.to_be_bytes());
    patch(&folder, 1536 + 12, &entry);
    patch(&folder, 1536 + 16, &0_u32.to_be_bytes());
    let image = open(&folder, Access::ReadOnly).unwrap();
    assert_eq!(byte(&*image, 0), 7);
    let error = image.read_at(2 * MIB, &mut [0]).unwrap_err();
    assert_eq!(error.byte(), Some(1536 + 4));
    assert!(image.read_at(8 * MIB, &mut [0]).is_err());
    let texts = kinds(&folder);
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts.iter().all(|(kind, _)| *kind == Severity::Corruption));
}

#[test]
fn what_nothing_refers_to_is_a_leak() {
    let folder = dynamic(&[(0, 7), (4 * MIB, 8)]);
    patch(&folder, 1536, &[0xff; 4]);
    let texts = kinds(&folder);
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(texts[0].0, Severity::Leak);
}

#[test]
fn what_a_vhd_cannot_be_is_refused() {
    let folder = FaultFolder::default();
    let try_with = |options, size, parent| create(&folder, options, size, parent, &[]);
    let unit = |unit_bytes| CreateOptions {
        unit_bytes: Some(unit_bytes),
        ..CreateOptions::default()
    };
    assert!(try_with(CreateOptions::default(), 2040 << 30, None).is_ok());
    let error = try_with(CreateOptions::default(), (2040 << 30) + 512, None).unwrap_err();
    assert!(error.hint_text().is_some());
    assert!(try_with(options("fixed"), (2040 << 30) + 512, None).is_err());
    assert!(try_with(unit(4096), MIB, None).is_err());
    assert!(try_with(unit(3 << 20), MIB, None).is_err());
    assert!(try_with(unit(512 << 10), MIB, None).is_ok());
    assert!(try_with(unit(256 << 20), MIB, None).is_ok());
    assert!(try_with(options("differencing"), MIB, None).is_err());
    assert!(try_with(options("differencing"), MIB, Some(parent())).is_ok());
    assert!(try_with(options("fixed"), MIB, Some(parent())).is_err());
    let qcow2 = ParentLink {
        format: Some("qcow2".to_owned()),
        ..parent()
    };
    assert!(try_with(CreateOptions::default(), MIB, Some(qcow2)).is_err());
}

#[test]
fn an_empty_disk_of_the_largest_size_is_walked_at_once() {
    let folder = FaultFolder::default();
    create(&folder, CreateOptions::default(), 2040 << 30, None, &[]).unwrap();
    let image = open(&folder, Access::ReadOnly).unwrap();
    let (mut offset, mut n) = (0, 0);
    while offset < 2040 << 30 {
        offset = image.next_extent(offset).unwrap().end();
        n += 1;
    }
    assert!(n < 10, "{n} calls");
    assert_eq!(kinds(&folder), []);
}

#[test]
fn garbage_with_the_right_cookies_is_refused_quietly() {
    let folder = dynamic(&[(0, 7)]);
    let len = file(&folder).len_bytes().unwrap();
    for at in (0..1700).chain(len - 512..len) {
        let mut old = [0];
        file(&folder).read_at(at, &mut old).unwrap();
        patch(&folder, at, &[old[0] ^ 0xf1]);
        let salvage = OpenArgs {
            salvage: true,
            ..args(&folder, Access::ReadOnly)
        };
        if let Ok(image) = Vhd.open(salvage) {
            let size = image.info().virtual_size;
            let _ = image.next_extent(0);
            let _ = image.read_at(size.saturating_sub(1), &mut [0]);
        }
        patch(&folder, at, &old);
    }
}
