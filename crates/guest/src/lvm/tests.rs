use std::sync::Arc;

use hako_block::testkit::Rng;

use super::{Found, LogicalVolume, assemble, read};
use crate::crc32;
use crate::volume::{Volume, read_vec};

const CRC_BEGIN: u32 = 0xf597_a6cf;
const EXTENT: usize = 4096;
/// Where the extents of a volume begin, and how many there are.
const START: usize = 16384;
const N_EXTENTS: usize = 16;

/// A physical volume whose every extent is filled with its own number.
fn physical(id: u8, texts: &[(&str, usize)]) -> Vec<u8> {
    let mut bytes = vec![0; START + N_EXTENTS * EXTENT];
    for (extent, place) in bytes[START..].chunks_exact_mut(EXTENT).enumerate() {
        place.fill(id * 32 + extent as u8);
    }
    let mut sector = vec![0; 512];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8] = 1;
    sector[20] = 32;
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..64].fill(b'0' + id);
    sector[72..80].copy_from_slice(&(START as u64).to_le_bytes());
    let mut at = 104;
    for (index, (text, offset)) in texts.iter().enumerate() {
        let area = 4096 + index * 4096;
        sector[at..at + 8].copy_from_slice(&(area as u64).to_le_bytes());
        sector[at + 8..at + 16].copy_from_slice(&4096_u64.to_le_bytes());
        at += 16;
        put_area(
            &mut bytes[area..area + 4096],
            area,
            text.as_bytes(),
            *offset,
        );
    }
    let sum = crc32::run(CRC_BEGIN, &sector[20..]);
    sector[16..20].copy_from_slice(&sum.to_le_bytes());
    bytes[512..1024].copy_from_slice(&sector);
    bytes
}

/// Writes a metadata area whose text begins at `offset`, and goes round at its end.
fn put_area(area: &mut [u8], place: usize, text: &[u8], offset: usize) {
    for (index, byte) in text.iter().enumerate() {
        let at = offset + index;
        area[if at < 4096 { at } else { at - 4096 + 512 }] = *byte;
    }
    let mut header = vec![0; 512];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[20] = 1;
    header[24..32].copy_from_slice(&(place as u64).to_le_bytes());
    header[32..40].copy_from_slice(&4096_u64.to_le_bytes());
    header[40..48].copy_from_slice(&(offset as u64).to_le_bytes());
    header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
    header[56..60].copy_from_slice(&crc32::run(CRC_BEGIN, text).to_le_bytes());
    let sum = crc32::run(CRC_BEGIN, &header[4..]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    area[..512].copy_from_slice(&header);
}

/// A group of two physical volumes and these logical ones.
fn text(seqno: u32, flags: &str, logical: &str) -> String {
    let [one, two] = [1, 2].map(|id| id.to_string().repeat(32));
    format!(
        "vg {{ id = \"G\" seqno = {seqno} extent_size = 8\n physical_volumes {{\n\
         pv0 {{ id = \"{one}\" pe_start = 32 pe_count = 16 }}\n\
         pv1 {{ id = \"{two}\" pe_start = 32 pe_count = 16 {flags} }} }}\n\
         logical_volumes {{ {logical} }} }}"
    )
}

fn volume(name: &str, segments: &str) -> String {
    format!("{name} {{ id = \"L\" status = [\"READ\", \"VISIBLE\"]\n {segments} }}\n")
}

fn linear(start: u64, count: u64, place: &str) -> String {
    format!(
        "segment{start} {{ start_extent = {start} extent_count = {count} type = \"striped\"\n\
         stripe_count = 1 stripes = [{place}] }}\n"
    )
}

fn group(disks: Vec<Vec<u8>>) -> (Vec<LogicalVolume>, Vec<String>) {
    let found: Vec<Found> = disks
        .into_iter()
        .enumerate()
        .filter_map(|(index, disk)| {
            let volume: Arc<dyn Volume> = Arc::new(disk);
            let label = read(&*volume).unwrap()?;
            Some(Found {
                label,
                volume,
                place: index,
                name: format!("disk{index}"),
            })
        })
        .collect();
    assemble(&found)
}

/// The numbers of the extents of a logical volume.
fn extents(volume: &LogicalVolume) -> Vec<u8> {
    let volume = volume.volume.as_ref().unwrap();
    let bytes = read_vec(&**volume, 0, volume.len_bytes() as usize).unwrap();
    bytes.chunks(EXTENT).map(|extent| extent[0]).collect()
}

fn why(volume: &LogicalVolume) -> String {
    volume.volume.as_ref().err().unwrap().to_string()
}

#[test]
fn linear_and_striped_volumes_are_read_whatever_the_order_of_disks() {
    let striped = "segment1 { start_extent = 0 extent_count = 4 type = \"striped\" \
                   stripe_count = 2 stripe_size = 8 stripes = [\"pv0\", 5, \"pv1\", 1] }";
    let logical = [
        volume(
            "lin",
            &(linear(2, 1, "\"pv1\", 0") + &linear(0, 2, "\"pv0\", 3")),
        ),
        volume("str", striped),
    ];
    let text = text(1, "", &logical.concat());
    let disks = [physical(1, &[(&text, 512)]), physical(2, &[])];
    for order in [[0, 1], [1, 0]] {
        let (volumes, remarks) = group(order.map(|disk| disks[disk].clone()).to_vec());
        assert_eq!(remarks, Vec::<String>::new());
        assert_eq!(extents(&volumes[0]), [35, 36, 64]);
        assert_eq!(extents(&volumes[1]), [37, 65, 38, 66]);
        assert_eq!(
            (&*volumes[0].kind, &*volumes[1].kind),
            ("linear", "striped")
        );
    }
}

#[test]
fn the_newest_whole_text_of_all_areas_wins_and_goes_round_the_ring() {
    let of = |seqno: u32, extent: u32| {
        text(
            seqno,
            "",
            &volume("lv", &linear(0, 1, &format!("\"pv0\", {extent}"))),
        )
    };
    let (old, new) = (of(4, 1), of(5, 2));
    let disks = vec![
        physical(1, &[(&old, 512), (&new, 4000)]),
        physical(2, &[(&old, 3000)]),
    ];
    assert_eq!(extents(&group(disks.clone()).0[0]), [34]);
    // The newest is damaged: the one before is as good as ever.
    let mut damaged = disks;
    damaged[0][8192 + 4010] ^= 1;
    let found = read(&damaged[0]).unwrap().unwrap();
    assert_eq!((found.texts.len(), found.remarks.len()), (1, 1));
    assert_eq!(extents(&group(damaged).0[0]), [33]);
}

#[test]
fn only_volumes_that_need_a_missing_disk_are_not_read() {
    let logical = [
        volume("here", &linear(0, 1, "\"pv0\", 0")),
        volume("gone", &linear(0, 1, "\"pv1\", 0")),
    ];
    let whole = text(1, "", &logical.concat());
    let (volumes, remarks) = group(vec![physical(1, &[(&whole, 512)])]);
    assert_eq!(extents(&volumes[0]), [32]);
    assert!(
        why(&volumes[1]).contains("pv1 is missing"),
        "{}",
        why(&volumes[1])
    );
    assert!(remarks[0].contains("on none of the disks"), "{remarks:?}");
    // One that came back after the group was changed without it has old data.
    let stale = text(2, "flags = [\"MISSING\"]", &logical.concat());
    let disks = vec![physical(1, &[(&stale, 512)]), physical(2, &[(&whole, 512)])];
    let (volumes, remarks) = group(disks);
    assert!(volumes[0].volume.is_ok() && volumes[1].volume.is_err());
    assert!(remarks[0].contains("was away"), "{remarks:?}");
}

/// A raid1 of two images, each of one extent, and their metadata: extents 0 and 1 of each disk.
fn raid1() -> String {
    let hidden =
        |name: &str, place: &str| volume(name, &linear(0, 1, place)).replace(", \"VISIBLE\"", "");
    let top = "segment1 { start_extent = 0 extent_count = 1 type = \"raid1\" device_count = 2 \
               raids = [\"m0\", \"i0\", \"m1\", \"i1\"] }";
    [
        volume("mirror", top),
        hidden("m0", "\"pv0\", 0"),
        hidden("i0", "\"pv0\", 1"),
        hidden("m1", "\"pv1\", 0"),
        hidden("i1", "\"pv1\", 1"),
    ]
    .concat()
}

fn put_state(disk: &mut [u8], events: u8, recovered: u64) {
    let meta = &mut disk[START..START + 512];
    meta.fill(0);
    meta[..4].copy_from_slice(b"DmRd");
    meta[16] = events;
    meta[32..40].copy_from_slice(&recovered.to_le_bytes());
}

#[test]
fn a_mirror_is_read_from_an_image_that_is_in_sync() {
    let text = text(1, "", &raid1());
    let mut disks = vec![physical(1, &[(&text, 512)]), physical(2, &[(&text, 512)])];
    let (volumes, _) = group(disks.clone());
    assert_eq!((volumes.len(), extents(&volumes[0])), (1, vec![33]));
    put_state(&mut disks[0], 4, u64::MAX);
    put_state(&mut disks[1], 5, u64::MAX);
    assert_eq!(extents(&group(disks.clone()).0[0]), [65]);
    put_state(&mut disks[0], 5, 0);
    assert_eq!(extents(&group(disks.clone()).0[0]), [65]);
    assert_eq!(extents(&group(disks[1..].to_vec()).0[0]), [65]);
    put_state(&mut disks[1], 5, 0);
    assert!(why(&group(disks).0[0]).contains("in sync"));
}

#[test]
fn what_is_not_read_is_named() {
    let one = |kind: &str| {
        let segment = format!("segment1 {{ start_extent = 0 extent_count = 1 type = \"{kind}\" }}");
        volume(&format!("a_{}", kind.replace('-', "_")), &segment)
    };
    let kinds = [
        "thin",
        "thin-pool",
        "cache",
        "vdo",
        "raid5",
        "raid6",
        "raid10",
        "snapshot",
    ];
    let mut logical = kinds.map(one).concat();
    logical += &volume("origin", &linear(0, 1, "\"pv0\", 0"));
    logical += &volume("snap", &linear(0, 1, "\"pv0\", 1"));
    logical += "snapshot0 { id = \"S\" status = [\"READ\"] segment1 { start_extent = 0 \
                extent_count = 1 type = \"snapshot\" chunk_size = 8 origin = \"origin\" \
                cow_store = \"snap\" } }";
    let text = text(1, "", &logical);
    let (volumes, _) = group(vec![physical(1, &[(&text, 512)]), physical(2, &[])]);
    assert_eq!(volumes.len(), kinds.len() + 2);
    for (volume, kind) in volumes.iter().zip(kinds) {
        assert!(why(volume).contains(kind), "{}", why(volume));
    }
    assert_eq!(extents(&volumes[kinds.len()]), [32]);
    assert_eq!(volumes[kinds.len() + 1].kind, "snapshot");
    assert!(volumes[kinds.len() + 1].volume.is_err());
}

#[test]
fn volumes_in_a_circle_or_past_the_end_are_refused() {
    for segments in [
        linear(0, 1, "\"lv\", 0"),
        linear(0, 1, "\"nothing\", 0"),
        linear(0, 1, "\"pv0\", 16"),
        linear(0, 17, "\"pv0\", 0"),
        linear(0, u64::MAX / 2, "\"pv0\", 0"),
        linear(0, 1, "\"pv0\", 9223372036854775807"),
    ] {
        let text = text(1, "", &volume("lv", &segments));
        let (volumes, _) = group(vec![physical(1, &[(&text, 512)]), physical(2, &[])]);
        assert!(
            volumes.iter().all(|volume| volume.volume.is_err()),
            "{segments}"
        );
    }
}

#[test]
fn damage_anywhere_ends_in_volumes_that_can_be_asked() {
    let mut rng = Rng::new(7);
    let whole = text(
        1,
        "",
        &(raid1() + &volume("lin", &linear(0, 2, "\"pv0\", 3"))),
    );
    for _ in 0..1500 {
        let mut text = whole.clone().into_bytes();
        for _ in 0..rng.below(1..6) {
            let at = rng.below(0..text.len() as u64) as usize;
            text[at] = b"{}[]\"=, 0979mi#\\\0"[rng.below(0..17) as usize];
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut first = physical(1, &[(&text, 700)]);
        if rng.one_in(4) {
            let at = (512 + rng.below(0..200)) as usize;
            first[at] = rng.next_u64() as u8;
            let sum = crc32::run(CRC_BEGIN, &first[532..1024]);
            first[528..532].copy_from_slice(&sum.to_le_bytes());
        }
        for volume in group(vec![first, physical(2, &[])]).0 {
            if let Ok(volume) = volume.volume {
                let _ = volume.read_at(volume.len_bytes() / 2, &mut [0; 1]);
            }
        }
    }
}
