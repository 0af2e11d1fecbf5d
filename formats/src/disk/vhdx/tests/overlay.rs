//! Overlays: partially present blocks, which other software writes, and parents.

use hako_block::{Chain, ContentId};

use super::super::layout::{STATE_PARTIAL, STATE_PRESENT};
use super::*;

const BAT: u64 = 3 * MIB;
/// Blocks of 1 MiB that share a sector bitmap block of 2^23 sectors of 512 bytes.
const CHUNK: u64 = 4096;

pub fn link_to(parent: &FaultFolder) -> ParentLink {
    let id = Headers::read(&*parent.file("parent.vhdx").unwrap()).unwrap();
    ParentLink {
        name: "parent.vhdx".to_owned(),
        format: Some("vhdx".to_owned()),
        content_id: Some(ContentId::Uuid(id.current.data_write)),
        ..ParentLink::default()
    }
}

/// Which sectors of block 1 an overlay has: odd ones at its beginning, then longer runs.
fn is_present(sector: usize) -> bool {
    if sector < 32 {
        sector % 2 == 1
    } else {
        sector / 200 % 2 == 1
    }
}

/// An overlay as Hyper-V makes it, with some sectors of block 1. Returns what it shows over its
/// parent, and by itself.
pub fn partial() -> (FaultFolder, Vec<u8>, Vec<u8>) {
    let folder = FaultFolder::default();
    let below = create(&folder, "parent.vhdx", options("dynamic", 512), None);
    let link = link_to(&folder);
    let mut own = create(&folder, NAME, options("differencing", 512), Some(link));
    let mut shown = below;
    for block in (0..N_BLOCKS).step_by(2) {
        let range = block * BLOCK..((block + 1) * BLOCK).min(SIZE);
        shown[range.clone()].copy_from_slice(&own[range]);
    }
    let file = folder.file(NAME).unwrap();
    let end = file.len_bytes().unwrap();
    file.set_len(end + 2 * MIB).unwrap();
    // What is not present holds bytes that must never be seen.
    file.write_at(end, &[0xbb; BLOCK]).unwrap();
    let mut bits = [0_u8; 256];
    for sector in (0..BLOCK / 512).filter(|sector| is_present(*sector)) {
        bits[sector / 8] |= 1 << (sector % 8);
        let at = BLOCK + sector * 512;
        file.write_at(end + sector as u64 * 512, &[sector as u8; 512])
            .unwrap();
        own[at..at + 512].fill(sector as u8);
        shown[at..at + 512].fill(sector as u8);
    }
    file.write_at(end + MIB + 256, &bits).unwrap();
    let set = |entry: u64, word: u64| {
        file.write_at(BAT + entry * 8, &word.to_le_bytes()).unwrap();
    };
    set(1, end | STATE_PARTIAL);
    set(CHUNK, (end + MIB) | STATE_PRESENT);
    (folder.copy(), shown, own)
}

fn chain(folder: &FaultFolder, access: Access) -> Chain {
    let top = open(folder, NAME, access).unwrap();
    let base = open(folder, "parent.vhdx", Access::ReadOnly).unwrap();
    Chain::new(vec![Arc::from(top), Arc::from(base)]).unwrap()
}

#[test]
fn partially_present_blocks_show_the_parent_between_their_sectors() {
    let (folder, shown, own) = partial();
    assert_eq!(check(&folder).worst(), None);
    assert!(read_all(&chain(&folder, Access::ReadOnly)) == shown);
    assert!(content(&folder) == own);
    let disk = open(&folder, NAME, Access::ReadOnly).unwrap();
    let at = |offset: usize| {
        let extent = disk.next_extent(offset as u64).unwrap();
        (extent.kind, extent.len)
    };
    assert_eq!(at(BLOCK), (ExtentKind::Hole, 512));
    assert_eq!(at(BLOCK + 512), (ExtentKind::Data, 512));
    assert_eq!(at(BLOCK + 700), (ExtentKind::Data, 324));
}

#[test]
fn writing_makes_a_partially_present_block_whole() {
    let (folder, mut shown, _) = partial();
    let before = shown.clone();
    shown[BLOCK + 1000..BLOCK + 9000].fill(1);
    cut_everywhere(
        &folder,
        |folder| {
            let disk = chain(folder, Access::ReadWrite);
            disk.write_at(BLOCK as u64 + 1000, &[1; 8000]).unwrap();
            disk.flush().unwrap();
        },
        |cut| {
            let got = read_all(&chain(cut, Access::ReadOnly));
            let written = BLOCK + 1000..BLOCK + 9000;
            assert!(got[..written.start] == before[..written.start]);
            assert!(got[written.end..] == before[written.end..]);
            for at in written {
                assert!([before[at], shown[at]].contains(&got[at]), "byte {at:#x}");
            }
        },
    );
    assert!(read_all(&chain(&folder, Access::ReadOnly)) == shown);
    let disk = open(&folder, NAME, Access::ReadOnly).unwrap();
    let extent = disk.next_extent(BLOCK as u64).unwrap();
    assert_eq!((extent.kind, extent.len), (ExtentKind::Data, BLOCK as u64));
    assert_eq!(check(&folder).worst(), None);
}

#[test]
fn writing_to_the_layer_alone_fills_the_rest_with_zeros() {
    for zeros in [false, true] {
        let (folder, _, mut own) = partial();
        let disk = open(&folder, NAME, Access::ReadWrite).unwrap();
        if zeros {
            disk.write_zeroes(BLOCK as u64 + 100..BLOCK as u64 + 2000)
                .unwrap();
            own[BLOCK + 100..BLOCK + 2000].fill(0);
        } else {
            disk.write_at(BLOCK as u64 + 100, &[4; 1900]).unwrap();
            own[BLOCK + 100..BLOCK + 2000].fill(4);
        }
        disk.flush().unwrap();
        drop(disk);
        assert!(content(&folder) == own, "zeros: {zeros}");
        assert_eq!(check(&folder).worst(), None);
    }
}

#[test]
fn partial_block_without_its_bitmap_is_damage() {
    let (folder, _, _) = partial();
    let file = folder.file(NAME).unwrap();
    file.write_at(BAT + CHUNK * 8, &[0; 8]).unwrap();
    let disk = open(&folder, NAME, Access::ReadOnly).unwrap();
    assert!(disk.read_at(BLOCK as u64, &mut [0]).is_err());
    assert_eq!(check(&folder).n_corruptions, 1);
}

#[test]
fn zeroed_blocks_of_an_overlay_hide_the_parent() {
    let (folder, mut shown, _) = partial();
    let disk = chain(&folder, Access::ReadWrite);
    disk.write_zeroes(BLOCK as u64..3 * BLOCK as u64).unwrap();
    disk.discard(4 * BLOCK as u64..SIZE as u64).unwrap();
    disk.flush().unwrap();
    drop(disk);
    shown[BLOCK..3 * BLOCK].fill(0);
    shown[4 * BLOCK..].fill(0);
    assert!(read_all(&chain(&folder, Access::ReadOnly)) == shown);
    assert_eq!(check(&folder).worst(), None);
}

#[test]
fn parent_of_another_format_or_content_unknown_is_refused() {
    let folder = FaultFolder::default();
    create(&folder, "parent.vhdx", options("dynamic", 512), None);
    let refused = |change: fn(&mut ParentLink)| {
        let mut link = link_to(&folder);
        change(&mut link);
        let sink = Vhdx.stream(CreateArgs {
            storage: folder.create("x").unwrap(),
            name: "x".to_owned(),
            outputs: &folder,
            virtual_size: SIZE as u64,
            parent: Some(link),
            options: CreateOptions::default(),
        });
        sink.err().map(|error| error.kind())
    };
    assert_eq!(refused(|_| ()), None);
    assert_eq!(
        refused(|link| link.format = Some("raw".to_owned())),
        Some(ErrorKind::Unsupported)
    );
    assert_eq!(
        refused(|link| link.content_id = None),
        Some(ErrorKind::Unsupported)
    );
    assert_eq!(
        refused(|link| link.name = "a".repeat(40_000)),
        Some(ErrorKind::Invalid)
    );
}
