use super::super::tests::{GRAIN, content, write_stream};
use super::*;
use crate::disk::vmdk::ArrivingHead;
use crate::disk::vmdk::testing::qemu_img;

/// Gives a few bytes at a time, as pipes do.
fn source(file: &[u8]) -> Source<'_> {
    let mut rest = file;
    Box::new(move |buf| {
        let len = buf.len().min(10_007).min(rest.len());
        let (now, later) = rest.split_at(len);
        buf[..len].copy_from_slice(now);
        rest = later;
        Ok(len)
    })
}

fn open(file: &[u8]) -> Option<ArrivingImage<'_>> {
    let head = ArrivingHead::find(&file[..file.len().min(ArrivingHead::MAX_BYTES)])?;
    let start = head.len_bytes();
    Some(head.image("pipe", source(&file[start..])))
}

/// Reads the data of a disk as a copy does: in order, `step` bytes at most at once.
fn read(image: &ArrivingImage<'_>, step: usize) -> Result<Vec<(u64, Vec<u8>)>> {
    let size = image.info().virtual_size;
    let mut all = Vec::new();
    let mut offset = 0;
    while offset < size {
        let extent = image.next_extent(offset)?;
        assert_eq!(extent.offset, offset);
        if extent.kind == ExtentKind::Data {
            let mut bytes = vec![0; extent.len as usize];
            for (index, part) in bytes.chunks_mut(step).enumerate() {
                image.read_at(offset + (index * step) as u64, part)?;
            }
            all.push((offset, bytes));
        }
        offset = extent.end();
    }
    image.finish()?;
    Ok(all)
}

/// The grains of a disk that are not zero.
fn data(content: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let grains = (0..).step_by(GRAIN).zip(content.chunks(GRAIN));
    let data = grains.filter(|(_, grain)| !hako_block::is_zero(grain));
    data.map(|(offset, grain)| (offset, grain.to_vec()))
        .collect()
}

/// Two grains, a hole, two grains of another table, and a short one.
fn small() -> Vec<u8> {
    let mut bytes = vec![0; 40 << 20];
    bytes.extend([7; 1536]);
    for grain in [0, 1, 3, 600, 601] {
        for (at, byte) in bytes[grain * GRAIN..][..GRAIN].iter_mut().enumerate() {
            *byte = (at / 700 + grain) as u8 | 1;
        }
    }
    bytes
}

#[test]
fn what_arrives_is_what_the_file_holds() {
    for content in [content(), small(), vec![0; GRAIN], vec![1; 512]] {
        let file = write_stream(&content);
        for step in [GRAIN, 4096, 1000] {
            let image = open(&file).unwrap();
            assert!(read(&image, step).unwrap() == data(&content), "{step}");
        }
    }
}

#[test]
fn a_changed_byte_is_noticed_or_changes_nothing() {
    let content = small();
    let file = write_stream(&content);
    let content = data(&content);
    let start = ArrivingHead::find(&file).unwrap().len_bytes();
    for at in (0..start)
        .step_by(101)
        .chain((start..file.len()).step_by(3))
    {
        let mut damaged = file.clone();
        damaged[at] ^= 0x11;
        let Some(image) = open(&damaged) else {
            continue;
        };
        if let Ok(found) = read(&image, GRAIN) {
            assert!(found == content, "byte {at}");
        }
    }
}

#[test]
fn a_file_that_is_cut_is_refused() {
    let file = write_stream(&small());
    let start = ArrivingHead::find(&file).unwrap().len_bytes();
    // Of the end-of-stream marker nothing is needed.
    for len in (start..file.len() - 600).step_by(512) {
        let image = open(&file[..len]).unwrap();
        let error = read(&image, GRAIN).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}: {error}");
    }
}

#[test]
fn grains_out_of_order_are_refused_with_a_hint() {
    let mut file = write_stream(&small());
    let start = ArrivingHead::find(&file).unwrap().len_bytes();
    let second = start
        + stored_bytes(u32::from_le_bytes(
            file[start + 8..][..4].try_into().unwrap(),
        )) as usize;
    file[second..second + 8].copy_from_slice(&0_u64.to_le_bytes());
    let error = read(&open(&file).unwrap(), GRAIN).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint_text().unwrap().contains("as a file"));
}

#[test]
fn nothing_is_lost_unnoticed_by_a_reader_that_skips_or_repeats() {
    let file = write_stream(&small());
    let image = open(&file).unwrap();
    let mut grain = vec![0; GRAIN];
    image.next_extent(0).unwrap();
    image.read_at(0, &mut grain).unwrap();
    assert!(image.read_at(0, &mut grain).is_err(), "read twice");
    assert!(image.next_extent(3 * GRAIN as u64).is_err(), "passed over");
    assert!(image.finish().is_err(), "not all was read");
    let image = open(&file).unwrap();
    image.next_extent(0).unwrap();
    assert!(image.finish().is_err());
}

#[test]
fn a_file_with_its_tables_in_front_has_to_be_there_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    std::fs::write(&raw, small()).unwrap();
    let vmdk = folder.path().join("disk.vmdk");
    let (raw, vmdk) = (raw.to_str().unwrap(), vmdk.to_str().unwrap());
    let options = "subformat=streamOptimized";
    qemu_img(&["convert", "-O", "vmdk", "-o", options, raw, vmdk]);
    assert!(open(&std::fs::read(vmdk).unwrap()).is_none());
}
