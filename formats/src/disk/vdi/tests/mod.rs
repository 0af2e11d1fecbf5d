//! Tests of the driver on images in memory, of small blocks.

mod damage;
mod upkeep;

use std::sync::Arc;

use hako_block::testkit::{FaultFolder, Rng, SparseBytes};
use hako_block::{
    Access, BlockImage, Chain, ContentId, MemoryStorage, Outputs, ParentLink, Resolver, Result,
    Storage, Uuid,
};

use super::Vdi;
use super::header::Header;
use crate::disk::{Allocation, CreateArgs, CreateOptions, DiskFormat, Findings, OpenArgs};

pub const BLOCK: usize = 4096;
/// Blocks of the disks made here; the last one is short.
pub const N_BLOCKS: usize = 24;
pub const SIZE: usize = N_BLOCKS * BLOCK - 3 * 512;

pub fn args(folder: &FaultFolder, name: &str, access: Access) -> OpenArgs {
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

pub fn open(folder: &FaultFolder, name: &str, access: Access) -> Result<Box<dyn BlockImage>> {
    Vdi.open(args(folder, name, access))
}

pub fn check(folder: &FaultFolder, name: &str) -> Findings {
    Vdi.check(args(folder, name, Access::ReadOnly)).unwrap()
}

pub fn read_all(image: &dyn BlockImage) -> Vec<u8> {
    let mut bytes = vec![0x55; image.info().virtual_size as usize];
    image.read_at(0, &mut bytes).unwrap();
    bytes
}

pub fn header(folder: &FaultFolder, name: &str) -> Header {
    Header::read(&*folder.file(name).unwrap()).unwrap()
}

/// Changes bytes of a file behind the driver's back.
pub fn patch(folder: &FaultFolder, name: &str, offset: u64, bytes: &[u8]) {
    let file = folder.file(name).unwrap();
    file.write_at(offset, bytes).unwrap();
    folder.take_log();
}

pub fn parent_link(folder: &FaultFolder, name: &str) -> ParentLink {
    let parent = open(folder, name, Access::ReadOnly).unwrap();
    ParentLink {
        format: Some("vdi".to_owned()),
        identity: parent.info().identity,
        content_id: parent.info().content_id,
        ..ParentLink::default()
    }
}

/// Makes an image of `content`, one delivery each two blocks; all zeros are delivered as such,
/// every fifth such delivery is left out.
pub fn build(
    folder: &FaultFolder,
    name: &str,
    subformat: &str,
    content: &[u8],
    parent: Option<ParentLink>,
) {
    let options = CreateOptions {
        subformat: Some(subformat.to_owned()),
        unit_bytes: Some(BLOCK as u64),
        ..CreateOptions::default()
    };
    let create = CreateArgs {
        storage: folder.create(name).unwrap(),
        name: name.to_owned(),
        outputs: folder,
        virtual_size: content.len() as u64,
        parent: parent.clone(),
        options,
    };
    let mut sink = Vdi.stream(create).unwrap();
    for (index, piece) in content.chunks(2 * BLOCK).enumerate() {
        let offset = (index * 2 * BLOCK) as u64;
        if piece.iter().any(|byte| *byte != 0) {
            sink.data(offset, piece).unwrap();
        } else if index % 5 > 0 || parent.is_some() {
            sink.zero(offset..offset + piece.len() as u64).unwrap();
        }
    }
    sink.finish().unwrap();
}

/// Returns the content of a disk: about half of its blocks are zeros.
pub fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = vec![0; size];
    for block in bytes.chunks_mut(BLOCK) {
        if rng.one_in(2) {
            let random = rng.bytes(block.len());
            block.copy_from_slice(&random);
        }
    }
    bytes
}

/// Makes an image and returns it with its content.
pub fn image(subformat: &str) -> (FaultFolder, Vec<u8>) {
    let folder = FaultFolder::default();
    let content = content(7, SIZE);
    build(&folder, "disk.vdi", subformat, &content, None);
    (folder.copy(), content)
}

/// Makes an overlay on another image; returns them with what the overlay shows.
pub fn overlay() -> (FaultFolder, Vec<u8>) {
    let folder = FaultFolder::default();
    build(&folder, "base.vdi", "dynamic", &content(1, SIZE), None);
    let link = parent_link(&folder, "base.vdi");
    let create = CreateArgs {
        storage: folder.create("disk.vdi").unwrap(),
        name: "disk.vdi".to_owned(),
        outputs: &folder,
        virtual_size: SIZE as u64,
        parent: Some(link),
        options: CreateOptions {
            unit_bytes: Some(BLOCK as u64),
            ..CreateOptions::default()
        },
    };
    Vdi.stream(create).unwrap().finish().unwrap();
    let top = chain(&folder, Access::ReadWrite);
    let mut shown = content(1, SIZE);
    for (at, len, byte) in [(100, 50, 1), (3 * BLOCK, 9000, 0), (SIZE - 600, 600, 2)] {
        shown[at..at + len].fill(byte);
        top.write_at(at as u64, &shown[at..at + len]).unwrap();
    }
    let zeros = 10 * BLOCK..14 * BLOCK;
    shown[zeros.clone()].fill(0);
    top.write_zeroes(zeros.start as u64..zeros.end as u64)
        .unwrap();
    top.flush().unwrap();
    drop(top);
    (folder.copy(), shown)
}

pub fn chain(folder: &FaultFolder, access: Access) -> Chain {
    let top = Arc::from(open(folder, "disk.vdi", access).unwrap());
    let base = Arc::from(open(folder, "base.vdi", Access::ReadOnly).unwrap());
    Chain::new(vec![top, base]).unwrap()
}

#[test]
fn first_write_changes_the_modification_uuid_and_nothing_else_of_the_identity() {
    let (folder, _) = image("dynamic");
    let before = header(&folder, "disk.vdi");
    let disk = open(&folder, "disk.vdi", Access::ReadWrite).unwrap();
    disk.flush().unwrap();
    assert_eq!(header(&folder, "disk.vdi"), before, "nothing was written");
    disk.write_at(0, &[1]).unwrap();
    let marked = header(&folder, "disk.vdi");
    assert_ne!(marked.modification, before.modification);
    assert_eq!(marked.uuid, before.uuid);
    disk.write_at(5000, &[1]).unwrap();
    disk.flush().unwrap();
    let after = header(&folder, "disk.vdi");
    assert_eq!(after.modification, marked.modification, "once an open");
}

#[test]
fn overlay_knows_its_parent_by_uuid() {
    let (folder, shown) = overlay();
    let base = header(&folder, "base.vdi");
    let top = open(&folder, "disk.vdi", Access::ReadOnly).unwrap();
    let link = top.info().parent.clone().unwrap();
    assert_eq!(link.name, "");
    assert_eq!(link.identity, Some(base.uuid));
    assert_eq!(link.content_id, Some(ContentId::Uuid(base.modification)));
    assert_eq!(top.info().subformat.as_deref(), Some("diff"));
    assert_eq!(read_all(&chain(&folder, Access::ReadOnly)), shown);
    // Where VirtualBox has it.
    let mut bytes = [0; 16];
    let file = folder.file("disk.vdi").unwrap();
    file.read_at(0x1a8, &mut bytes).unwrap();
    assert_eq!(Uuid::from_mixed_endian(bytes), base.uuid);
    file.read_at(0x1b8, &mut bytes).unwrap();
    assert_eq!(Uuid::from_mixed_endian(bytes), base.modification);
}

#[test]
fn old_version_and_data_before_each_block_are_read_and_written() {
    let (folder, content) = image("dynamic");
    for (name, file) in [
        ("old.vdi", as_old(&folder)),
        ("extra.vdi", with_extra(&folder, 1024)),
    ] {
        folder.insert(name, SparseBytes::from_bytes(&file));
        let disk = open(&folder, name, Access::ReadWrite).unwrap();
        assert!(read_all(&*disk) == content, "{name}");
        let mut changed = content.clone();
        for at in [10, 5 * BLOCK - 100, SIZE - 700] {
            changed[at..at + 700].fill(9);
            disk.write_at(at as u64, &changed[at..at + 700]).unwrap();
        }
        disk.flush().unwrap();
        drop(disk);
        let disk = open(&folder, name, Access::ReadOnly).unwrap();
        assert!(read_all(&*disk) == changed, "{name}");
        let findings = check(&folder, name);
        assert_eq!(findings.worst(), None, "{name}: {findings:?}");
    }
}

fn bytes_of(folder: &FaultFolder) -> Vec<u8> {
    folder.files()["disk.vdi"].to_vec()
}

/// Returns the image as VirtualBox wrote it before its version 1.0.
fn as_old(folder: &FaultFolder) -> Vec<u8> {
    let new = bytes_of(folder);
    let header = header(folder, "disk.vdi");
    let map = header.map_offset as usize..header.map_end() as usize;
    let mut old = vec![0; 0x1a4];
    old[..0x44].copy_from_slice(&new[..0x44]);
    old[0x44] = 2;
    // Type, flags and comment; geometry; size; block; numbers; UUIDs.
    old[0x48..0x150].copy_from_slice(&new[0x4c..0x154]);
    old[0x150..0x160].copy_from_slice(&new[0x15c..0x16c]);
    old[0x160..0x16c].copy_from_slice(&new[0x170..0x17c]);
    old[0x16c..0x1a4].copy_from_slice(&new[0x180..0x1b8]);
    old.extend_from_slice(&new[map]);
    old.extend_from_slice(&new[header.data_offset as usize..]);
    old
}

/// Returns the image with other data before each block.
fn with_extra(folder: &FaultFolder, extra: u32) -> Vec<u8> {
    let mut file = bytes_of(folder);
    let data_offset = header(folder, "disk.vdi").data_offset as usize;
    let blocks = file.split_off(data_offset);
    file[0x17c..0x180].copy_from_slice(&extra.to_le_bytes());
    for block in blocks.chunks(BLOCK) {
        file.extend(vec![0xee; extra as usize]);
        file.extend_from_slice(block);
    }
    file
}

#[test]
fn discarded_space_is_given_back_and_fixed_images_keep_theirs() {
    for (subformat, keeps) in [("dynamic", false), ("fixed", true)] {
        let (folder, _) = image(subformat);
        let file = folder.file("disk.vdi").unwrap();
        let disk = open(&folder, "disk.vdi", Access::ReadWrite).unwrap();
        disk.write_at(0, &[1; SIZE]).unwrap();
        disk.flush().unwrap();
        let before = file.allocated_bytes().unwrap();
        disk.discard(0..SIZE as u64 / 2).unwrap();
        let after = file.allocated_bytes().unwrap();
        assert_eq!(after < before - SIZE as u64 / 3, !keeps, "{subformat}");
        disk.write_zeroes(0..SIZE as u64).unwrap();
        assert!(read_all(&*disk).iter().all(|byte| *byte == 0));
        disk.flush().unwrap();
        assert_eq!(check(&folder, "disk.vdi").worst(), None, "{subformat}");
    }
}

#[test]
fn what_a_device_held_before_never_shows() {
    for (subformat, allocation) in [
        ("dynamic", Allocation::Thin),
        ("fixed", Allocation::Thin),
        ("fixed", Allocation::Lazy),
        ("fixed", Allocation::Eager),
    ] {
        let storage = Arc::new(MemoryStorage::new("old", vec![0x99; 1 << 20]));
        let outputs = FaultFolder::default();
        let mut sink = Vdi
            .stream(CreateArgs {
                storage: storage.clone(),
                name: "disk.vdi".to_owned(),
                outputs: &outputs,
                virtual_size: SIZE as u64,
                parent: None,
                options: CreateOptions {
                    subformat: Some(subformat.to_owned()),
                    unit_bytes: Some(BLOCK as u64),
                    allocation,
                    ..CreateOptions::default()
                },
            })
            .unwrap();
        let last = SIZE - SIZE % BLOCK;
        sink.data(BLOCK as u64, &[1; BLOCK]).unwrap();
        sink.zero(4 * BLOCK as u64..6 * BLOCK as u64).unwrap();
        sink.data(last as u64, &vec![2; SIZE - last]).unwrap();
        sink.finish().unwrap();
        let mut expected = vec![0; SIZE];
        expected[BLOCK..2 * BLOCK].fill(1);
        expected[last..].fill(2);
        let folder = FaultFolder::default();
        folder.insert("disk.vdi", SparseBytes::from_bytes(&storage.to_vec()));
        let disk = open(&folder, "disk.vdi", Access::ReadWrite).unwrap();
        assert!(read_all(&*disk) == expected, "{subformat} {allocation:?}");
        disk.write_at(9 * BLOCK as u64 + 5, &[3]).unwrap();
        expected[9 * BLOCK + 5] = 3;
        assert!(read_all(&*disk) == expected, "{subformat} {allocation:?}");
        disk.flush().unwrap();
        assert_eq!(check(&folder, "disk.vdi").worst(), None);
    }
}

#[test]
fn impossible_creations_are_refused() {
    let folder = FaultFolder::default();
    let create = |subformat: &str, unit: u64, size: u64, parent: Option<ParentLink>| {
        let options = CreateOptions {
            subformat: Some(subformat.to_owned()),
            unit_bytes: Some(unit),
            ..CreateOptions::default()
        };
        let sink = Vdi.stream(CreateArgs {
            storage: folder.create("new.vdi").unwrap(),
            name: "new.vdi".to_owned(),
            outputs: &folder,
            virtual_size: size,
            parent,
            options,
        });
        sink.map(|_| ())
    };
    let vmdk = ParentLink {
        format: Some("vmdk".to_owned()),
        ..ParentLink::default()
    };
    let unknown = ParentLink {
        format: Some("vdi".to_owned()),
        ..ParentLink::default()
    };
    create("Dynamic", 4096, 512, None).unwrap();
    for (subformat, unit, size, parent) in [
        ("dynamic", 2048, 512, None),
        ("dynamic", 5000, 512, None),
        ("dynamic", 64 << 20, 512, None),
        ("dynamic", 4096, 0, None),
        ("dynamic", 4096, 513, None),
        ("dynamic", 4096, 2 << 40, None),
        ("diff", 4096, 512, None),
        ("fixed", 4096, 512, Some(unknown.clone())),
        ("dynamic", 4096, 512, Some(unknown)),
        ("dynamic", 4096, 512, Some(vmdk)),
        ("sparse", 4096, 512, None),
    ] {
        assert!(
            create(subformat, unit, size, parent).is_err(),
            "{subformat} {unit} {size}"
        );
    }
}
