use std::path::{Path, PathBuf};
use std::process::Command;

use hako_block::testkit::{self, CheckReport, Effort, FaultFolder, Rng, Subject, Traits};
use hako_block::{
    Access, Error, ErrorKind, FileStorage, LockMode, MemoryStorage, ParentLink, PipeStorage,
    Result, SECTOR_BYTES, Sink,
};
use sha2::{Digest, Sha256};

use super::*;
use crate::disk::vmdk::header::HEADER_BYTES;
use crate::disk::vmdk::testing::{qemu_img, text};
use crate::disk::{Findings, Outputs, Severity};

pub(super) const GRAIN: usize = 65536;

fn header_of(storage: &dyn Storage) -> Result<SparseHeader> {
    let mut bytes = [0; HEADER_BYTES];
    storage.read_at(0, &mut bytes)?;
    SparseHeader::decode(&bytes, "header")
}

fn args(storage: Arc<dyn Storage>, salvage: bool) -> Result<StreamArgs> {
    Ok(StreamArgs {
        header: header_of(&*storage)?,
        storage,
        salvage,
    })
}

fn open_bytes(bytes: &[u8], salvage: bool) -> Result<Box<dyn BlockImage>> {
    open(args(
        Arc::new(MemoryStorage::new("disk.vmdk", bytes.to_vec())),
        salvage,
    )?)
}

fn open_file(path: &Path) -> Result<Box<dyn BlockImage>> {
    let storage = FileStorage::open(path, Access::ReadOnly, LockMode::Read)?;
    open(args(Arc::new(storage), false)?)
}

fn findings_of(bytes: &[u8]) -> Findings {
    let mut findings = Findings::default();
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", bytes.to_vec()));
    check(args(storage, false).unwrap(), &mut findings).unwrap();
    findings
}

fn read_all(image: &dyn BlockImage) -> Result<Vec<u8>> {
    let mut bytes = vec![0xee; image.info().virtual_size as usize];
    image.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn descriptor(capacity_bytes: u64) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"streamOptimized\"\n\n# Extent description\n\
         RW {} SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
         ddb.virtualHWVersion = \"13\"\nddb.geometry.cylinders = \"16\"\n\
         ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\n\
         ddb.adapterType = \"lsilogic\"\n",
        capacity_bytes / SECTOR_BYTES
    )
    .into_bytes()
}

fn sink_to(storage: Arc<dyn Storage>, capacity_bytes: u64) -> Result<StreamSink> {
    StreamSink::new(StreamCreate {
        storage,
        capacity_bytes,
        descriptor: descriptor(capacity_bytes),
        level: None,
    })
}

/// Delivers a disk a grain at a time, in turn by the encoder and as plain data.
fn deliver(mut sink: StreamSink, content: &[u8]) -> Result<()> {
    let encoder = sink.encoder().unwrap();
    let mut stored = Vec::new();
    for (index, unit) in content.chunks(GRAIN).enumerate() {
        let offset = (index * GRAIN) as u64;
        if hako_block::is_zero(unit) {
            sink.zero(offset..offset + unit.len() as u64)?;
        } else if index % 2 == 0 {
            stored.clear();
            encoder.encode(offset, unit, &mut stored)?;
            sink.encoded(offset, &stored)?;
        } else {
            sink.data(offset, unit)?;
        }
    }
    Box::new(sink).finish()
}

pub(super) fn write_stream(content: &[u8]) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let sink = sink_to(storage.clone(), content.len() as u64).unwrap();
    deliver(sink, content).unwrap();
    storage.to_vec()
}

/// Bytes that do not compress.
fn noise(rng: &mut Rng, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
    }
}

/// A disk with text, noise and zeros; some tables have no grain; the last grain is partial.
pub(super) fn content() -> Vec<u8> {
    let mut rng = Rng::new(7);
    let mut bytes = vec![0; 75 * (1 << 20) + 512 * 3];
    let n = bytes.len();
    for start in [0, 3 * GRAIN, 17 * GRAIN + 5, 70 << 20, n - 900] {
        let end = (start + 5 * GRAIN + 77).min(n);
        for (at, byte) in bytes[start..end].iter_mut().enumerate() {
            *byte = (at / 700 % 251) as u8;
        }
    }
    noise(&mut rng, &mut bytes[9 * GRAIN..11 * GRAIN]);
    bytes
}

struct Stream;

impl Subject for Stream {
    fn name(&self) -> String {
        "vmdk streamOptimized".into()
    }

    fn traits(&self) -> Traits {
        Traits {
            writable: false,
            overlay: false,
            may_refuse_after_cut: true,
        }
    }

    fn extension(&self) -> &str {
        "vmdk"
    }

    fn create(
        &self,
        folder: &FaultFolder,
        name: &str,
        size: u64,
        _parent: Option<ParentLink>,
    ) -> Result<Box<dyn Sink>> {
        Ok(Box::new(sink_to(Outputs::create(folder, name)?, size)?))
    }

    fn open(
        &self,
        folder: &FaultFolder,
        name: &str,
        _access: Access,
    ) -> Result<Arc<dyn BlockImage>> {
        let storage = folder.file(name).ok_or_else(|| Error::invalid("no file"))?;
        Ok(open(args(storage, false)?)?.into())
    }

    fn check(&self, folder: &FaultFolder, name: &str) -> Result<Option<CheckReport>> {
        let storage = folder.file(name).ok_or_else(|| Error::invalid("no file"))?;
        let mut findings = Findings::default();
        check(args(storage, false)?, &mut findings)?;
        let corruptions = findings
            .list
            .iter()
            .filter(|finding| finding.severity == Severity::Corruption)
            .map(|finding| finding.text.clone())
            .collect();
        Ok(Some(CheckReport {
            corruptions,
            n_leaks: findings.n_leaks,
        }))
    }
}

#[test]
fn conformance() {
    testkit::conformance(&Stream, Effort::QUICK);
}

#[test]
fn what_is_written_reads_back_and_checks_clean() {
    let content = content();
    let file = write_stream(&content);
    let image = open_bytes(&file, false).unwrap();
    assert!(read_all(&*image).unwrap() == content);
    let mut part = vec![0; 3 * GRAIN + 1000];
    image.read_at(16 * GRAIN as u64 + 77, &mut part).unwrap();
    assert!(part == content[16 * GRAIN + 77..][..part.len()]);
    let findings = findings_of(&file);
    assert_eq!(findings.list, []);
    assert_eq!(
        findings.n_units,
        image.info().virtual_size.div_ceil(GRAIN as u64)
    );
    assert!(findings.n_allocated_units > 10);
}

#[test]
fn extents_are_long_and_say_compressed() {
    let image = open_bytes(&write_stream(&content()), false).unwrap();
    let first = image.next_extent(100).unwrap();
    assert_eq!(
        (first.offset, first.kind, first.compressed),
        (100, ExtentKind::Data, true)
    );
    assert_eq!(first.host.unwrap().offset, 128 * 512 + 12);
    let hole = image.next_extent(30 << 20).unwrap();
    assert_eq!((hole.kind, hole.end()), (ExtentKind::Hole, 70 << 20));
}

#[test]
fn pipe_gets_the_same_bytes_as_a_file() {
    #[derive(Clone, Default)]
    struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let written = Shared::default();
    let pipe = Arc::new(PipeStorage::new("-", Box::new(written.clone())));
    let content = content();
    deliver(sink_to(pipe, content.len() as u64).unwrap(), &content).unwrap();
    assert!(*written.0.lock().unwrap() == write_stream(&content));
}

#[test]
fn empty_2_tib_is_small_and_walked_at_once() {
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let sink = sink_to(storage.clone(), 2 << 40).unwrap();
    Box::new(sink).finish().unwrap();
    let bytes = storage.to_vec();
    assert!(bytes.len() < 400 << 10, "{}", bytes.len());
    let image = open_bytes(&bytes, false).unwrap();
    let extent = image.next_extent(0).unwrap();
    assert_eq!((extent.kind, extent.len), (ExtentKind::Hole, 2 << 40));
}

#[test]
fn what_the_format_cannot_address_is_refused() {
    for (size, level) in [((2 << 40) + 512, None), (1000, None), (512, Some(13))] {
        let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
        let created = StreamSink::new(StreamCreate {
            storage,
            capacity_bytes: size,
            descriptor: Vec::new(),
            level,
        });
        assert_eq!(created.err().unwrap().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn deliveries_out_of_order_are_refused() {
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let mut sink = sink_to(storage, 10 * GRAIN as u64 + 512).unwrap();
    sink.data(GRAIN as u64, &[1; GRAIN]).unwrap();
    assert!(sink.data(0, &[1; GRAIN]).is_err());
    assert!(sink.data(2 * GRAIN as u64, &[1; 512]).is_err());
    assert!(sink.zero(5 * GRAIN as u64..11 * GRAIN as u64).is_err());
    sink.data(10 * GRAIN as u64, &[1; 512]).unwrap();
}

#[test]
fn long_descriptor_gets_the_sectors_it_needs() {
    let storage = Arc::new(MemoryStorage::new("disk.vmdk", Vec::new()));
    let sink = StreamSink::new(StreamCreate {
        storage: storage.clone(),
        capacity_bytes: 1 << 20,
        descriptor: vec![b'#'; 100_000],
        level: Some(1),
    });
    Box::new(sink.unwrap()).finish().unwrap();
    let header = header_of(&*storage).unwrap();
    assert_eq!(
        (header.descriptor_sectors, header.overhead_sectors),
        (196, 256)
    );
    assert_eq!(storage.to_vec()[512..100_512], [b'#'; 100_000]);
    assert_eq!(findings_of(&storage.to_vec()).list, []);
}

#[test]
fn cut_anywhere_it_is_refused_and_salvaged() {
    let content = content();
    let file = write_stream(&content);
    let end_of_grains = file.len() - 1536 - 512 - 512 - 2560;
    for cut in [
        file.len() - 512 * 3,
        end_of_grains,
        file.len() / 2,
        128 * 512 + 100,
        128 * 512,
    ] {
        let cut = &file[..cut.min(file.len())];
        let error = open_bytes(cut, false).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.hint_text().unwrap().contains("--salvage"), "{error}");
        assert!(findings_of(cut).n_corruptions > 0);
        let image = open_bytes(cut, true).unwrap();
        let read = read_all(&*image).unwrap();
        let n_wrong = read
            .chunks(GRAIN)
            .zip(content.chunks(GRAIN))
            .filter(|(read, written)| read != written && !hako_block::is_zero(read))
            .count();
        assert_eq!(n_wrong, 0);
        let oddities = image.info().oddities.join("\n");
        assert!(oddities.contains("salvaged: "), "{oddities}");
    }
    let image = open_bytes(&file[..file.len() - 512 * 3], true).unwrap();
    assert!(
        read_all(&*image).unwrap() == content,
        "all grains are there"
    );
}

#[test]
fn directory_named_by_the_header_is_taken_from_there() {
    let content = content();
    let mut file = write_stream(&content);
    let gd_field = file.len() - 1024 + 56;
    file.copy_within(gd_field..gd_field + 8, 56);
    assert!(read_all(&*open_bytes(&file, false).unwrap()).unwrap() == content);
    assert_eq!(findings_of(&file).list, []);
    let cut = &file[..file.len() / 2];
    let error = open_bytes(cut, false).err().unwrap();
    assert!(error.to_string().contains("grain directory: "), "{error}");
    assert!(open_bytes(cut, true).is_ok());
}

#[test]
fn footer_is_right_where_it_differs_from_the_header() {
    let mut file = write_stream(&[7; 3 * GRAIN]);
    file[12] = 0;
    let image = open_bytes(&file, false).unwrap();
    assert_eq!(image.info().virtual_size, 3 * GRAIN as u64);
    let oddities = image.info().oddities.join("");
    assert!(
        oddities.contains("capacity of 384 sectors, but the header has 256"),
        "{oddities}"
    );
    assert_eq!(findings_of(&file).n_corruptions, 1);
}

#[test]
fn plain_deflate_is_read_though_nobody_writes_it() {
    let content: Vec<u8> = (0..GRAIN).map(|at| (at / 300) as u8).collect();
    let mut file = write_stream(&content);
    let mut packed = vec![0; GRAIN];
    let level = libdeflater::CompressionLvl::default();
    let mut compressor = libdeflater::Compressor::new(level);
    let len = compressor.deflate_compress(&content, &mut packed).unwrap();
    let data = 128 * 512 + GRAIN_MARKER_BYTES;
    file[data - 4..data].copy_from_slice(&(len as u32).to_le_bytes());
    file[data..data + len].copy_from_slice(&packed[..len]);
    assert!(read_all(&*open_bytes(&file, false).unwrap()).unwrap() == content);
}

#[test]
fn damaged_entry_ends_the_run_before_it() {
    let mut file = write_stream(&[7; 8 * GRAIN]);
    let gd = header_of(&MemoryStorage::new("", file[file.len() - 1024..].to_vec()));
    let gd = gd.unwrap().gd_sector as usize * 512;
    let gt = u32::from_le_bytes(file[gd..gd + 4].try_into().unwrap()) as usize * 512;
    file[gt + 12..gt + 16].fill(0xff);
    let image = open_bytes(&file, false).unwrap();
    assert_eq!(image.next_extent(0).unwrap().len, 3 * GRAIN as u64);
    let error = image.next_extent(3 * GRAIN as u64).unwrap_err();
    assert!(
        error.to_string().contains("grain table 0, entry 3: "),
        "{error}"
    );
    image.read_at(4 * GRAIN as u64, &mut [0; 512]).unwrap();
}

#[test]
fn salvage_of_a_whole_file_changes_nothing() {
    let content = content();
    let image = open_bytes(&write_stream(&content), true).unwrap();
    assert_eq!(image.info().oddities, Vec::<String>::new());
    assert!(read_all(&*image).unwrap() == content);
}

#[test]
fn salvage_goes_on_after_damage_in_the_midst() {
    let content = content();
    let mut file = write_stream(&content);
    let image = open_bytes(&file, false).unwrap();
    let lost = image
        .next_extent(GRAIN as u64)
        .unwrap()
        .host
        .unwrap()
        .offset as usize;
    file[lost - 12..][..100].fill(0xaa);
    file.truncate(file.len() - 1024);
    let image = open_bytes(&file, true).unwrap();
    let read = read_all(&*image).unwrap();
    assert!(hako_block::is_zero(&read[GRAIN..2 * GRAIN]));
    assert!(read[..GRAIN] == content[..GRAIN] && read[2 * GRAIN..] == content[2 * GRAIN..]);
    let oddities = image.info().oddities.join("\n");
    assert!(oddities.contains("are damaged"), "{oddities}");
}

#[test]
fn padding_after_the_end_is_tolerated() {
    let content = content();
    let mut file = write_stream(&content);
    file.extend([0; 10240 + 100]);
    assert!(read_all(&*open_bytes(&file, false).unwrap()).unwrap() == content);
    assert_eq!(findings_of(&file).worst(), None);
}

#[test]
fn grain_in_a_wrong_place_is_an_error_not_wrong_data() {
    let file = write_stream(&content());
    let marker = 128 * 512;
    let mut other_lba = file.clone();
    other_lba[marker] = 128;
    let mut too_long = file.clone();
    too_long[marker + 8..marker + 12].fill(0x7f);
    let mut flipped = file.clone();
    flipped[marker + 40] ^= 4;
    for (bytes, says) in [
        (other_lba, "the marker there is of LBA 128"),
        (too_long, "are too many"),
        (flipped, "grain at LBA 0: "),
    ] {
        let image = open_bytes(&bytes, false).unwrap();
        let error = image.read_at(0, &mut [0; 4096]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(says), "{error}");
        image.read_at(GRAIN as u64, &mut [0; 4096]).unwrap();
    }
}

#[test]
fn check_finds_planted_damage() {
    let file = write_stream(&content());
    let header = header_of(&MemoryStorage::new("", file[file.len() - 1024..].to_vec())).unwrap();
    let gd = header.gd_sector as usize * 512;
    let gt = u32::from_le_bytes(file[gd..gd + 4].try_into().unwrap()) as usize * 512;
    let damaged = |at: usize, value: u32| {
        let mut file = file.clone();
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        findings_of(&file)
    };
    let says = |findings: Findings, severity, text: &str| {
        assert_eq!(findings.worst(), Some(severity), "{text}: {findings:?}");
        assert!(
            findings.list.iter().any(|one| one.text.contains(text)),
            "{text}: {findings:?}"
        );
    };
    says(
        damaged(gd, 0x7fff_ffff),
        Severity::Corruption,
        "past end of file",
    );
    says(
        damaged(gd + 4, (gt / 512) as u32),
        Severity::Corruption,
        "overlaps",
    );
    says(
        damaged(gt, 0x7fff_ffff),
        Severity::Corruption,
        "past end of file",
    );
    says(damaged(gt, 0), Severity::Leak, "nothing refers to");
    let second = u32::from_le_bytes(file[gt + 4..gt + 8].try_into().unwrap());
    says(
        damaged(gt, second),
        Severity::Corruption,
        "has the grain of LBA 128",
    );
    says(
        damaged(file.len() - 1024 + 12, 1),
        Severity::Corruption,
        "capacity",
    );
    says(damaged(gt - 500, 9), Severity::Leak, "no marker of kind 1");
    says(
        findings_of(&file[..file.len() - 512]),
        Severity::Oddity,
        "no end-of-stream",
    );
}

#[test]
fn hostile_headers_are_refused_in_bounded_memory() {
    let file = write_stream(&[1; GRAIN]);
    for (at, value) in [
        (12, 1u64 << 60),
        (12, 1 << 54),
        (12, 1 << 45),
        (20, 1 << 16),
    ] {
        let mut bytes = file.clone();
        let footer = bytes.len() - 1024;
        for start in [0, footer] {
            bytes[start + at..start + at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let opened = open_bytes(&bytes, false);
        assert!(opened.is_err(), "{value:#x} at {at}");
    }
}

#[test]
fn random_damage_never_panics() {
    let mut content = vec![0; 40 * GRAIN + 512];
    noise(&mut Rng::new(3), &mut content[GRAIN..5 * GRAIN]);
    content[20 * GRAIN..30 * GRAIN].fill(9);
    let file = write_stream(&content);
    let mut rng = Rng::new(11);
    let interesting = [
        0..512,
        65536..65600,
        file.len() as u64 - 5000..file.len() as u64,
    ];
    for _ in 0..300 {
        let mut bytes = file.clone();
        for _ in 0..3 {
            let range = interesting[rng.below(0..3) as usize].clone();
            bytes[rng.below(range) as usize] = [0, 1, 0x7f, 0xff][rng.below(0..4) as usize];
        }
        for salvage in [false, true] {
            let Ok(image) = open_bytes(&bytes, salvage) else {
                continue;
            };
            let size = image.info().virtual_size.min(content.len() as u64);
            let _ = image.read_at(0, &mut vec![0; size as usize]);
            let mut offset = 0;
            for _ in 0..1000 {
                match image.next_extent(offset) {
                    Ok(extent) if extent.end() < image.info().virtual_size => offset = extent.end(),
                    _ => break,
                }
            }
        }
        if let Ok(args) = args(Arc::new(MemoryStorage::new("", bytes)), false) {
            check(args, &mut Findings::default()).unwrap();
        }
    }
}

#[test]
fn qemu_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let (vmdk, raw) = (
        folder.path().join("disk.vmdk"),
        folder.path().join("disk.raw"),
    );
    let content = content();
    std::fs::write(&vmdk, write_stream(&content)).unwrap();
    std::fs::write(&raw, &content).unwrap();
    qemu_img(&[
        "compare",
        "-f",
        "vmdk",
        "-F",
        "raw",
        text(&vmdk),
        text(&raw),
    ]);
    qemu_img(&["check", "-f", "vmdk", text(&vmdk)]);
    let info = qemu_img(&["info", text(&vmdk)]);
    assert!(info.contains("streamOptimized"), "{info}");
}

#[test]
fn we_read_what_qemu_writes_also_when_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (vmdk, raw) = (
        folder.path().join("disk.vmdk"),
        folder.path().join("disk.raw"),
    );
    let content = content();
    std::fs::write(&raw, &content).unwrap();
    let options = "subformat=streamOptimized";
    qemu_img(&[
        "convert",
        "-O",
        "vmdk",
        "-o",
        options,
        text(&raw),
        text(&vmdk),
    ]);
    let image = open_file(&vmdk).unwrap();
    assert!(read_all(&*image).unwrap() == content);
    let bytes = std::fs::read(&vmdk).unwrap();
    assert_eq!(
        findings_of(&bytes).worst(),
        None,
        "{:?}",
        findings_of(&bytes)
    );
    let cut = &bytes[..bytes.len() / 2];
    let error = read_all(&*open_bytes(cut, false).unwrap()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("--salvage"), "{error}");
    let image = open_bytes(cut, true).unwrap();
    read_all(&*image).unwrap();
    assert!(image.info().oddities.join("\n").contains("salvaged: "));
}

/// The folder of real images, or `None` with a loud word.
fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("HAKO_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: HAKO_CORPUS is not set");
    }
    folder
}

fn content_hash(image: &dyn BlockImage) -> String {
    let mut hash = Sha256::new();
    let (mut offset, size) = (0, image.info().virtual_size);
    let mut buf = vec![0; 1 << 20];
    while offset < size {
        let len = (size - offset).min(buf.len() as u64) as usize;
        image.read_at(offset, &mut buf[..len]).unwrap();
        hash.update(&buf[..len]);
        offset += len as u64;
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The member of a tar whose name ends so.
fn member(tar: &[u8], ending: &str) -> Vec<u8> {
    let mut at = 0;
    loop {
        let head = &tar[at..at + 512];
        let text = |range: std::ops::Range<usize>| {
            let field = head[range].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8_lossy(field).trim().to_owned()
        };
        let size = usize::from_str_radix(&text(124..136), 8).unwrap();
        if text(0..100).ends_with(ending) {
            return tar[at + 512..at + 512 + size].to_vec();
        }
        at += 512 + size.next_multiple_of(512);
    }
}

#[test]
fn real_images_read_as_their_checksums_say_and_check_clean() {
    let Some(corpus) = corpus() else { return };
    let small = "a3bcf05f07a1c06a3380eeca8571f0efb2b85afafa1e21662b8cad436d1f7727";
    for (name, expected) in [
        ("vmdk-rs/streamOptimized.vmdk", small),
        ("virtualbox-made/stream.vmdk", small),
    ] {
        let bytes = std::fs::read(corpus.join(name)).unwrap();
        let image = open_bytes(&bytes, false).unwrap();
        assert_eq!(content_hash(&*image), expected, "{name}");
        assert_eq!(findings_of(&bytes).list, [], "{name}");
        let cut = open_bytes(&bytes[..bytes.len() - 4000], true).unwrap();
        assert!(cut.info().oddities.join("").contains("salvaged"), "{name}");
    }
}

#[test]
fn image_of_16_gib_made_by_vmware_reads_as_its_checksum_says() {
    let Some(corpus) = corpus() else { return };
    let packed = corpus.join("qemu-iotests/iotest-version3.vmdk.bz2");
    let output = Command::new("bunzip2").arg("-kc").arg(packed).output();
    let bytes = output.expect("bunzip2 is needed for this test").stdout;
    let image = open_bytes(&bytes, false).unwrap();
    assert_eq!(image.info().virtual_size, 16 << 30);
    assert_eq!(findings_of(&bytes).list, []);
    // The disk's few data, by qemu's reading; hashing all the 16 GiB is for a release build.
    let folder = tempfile::tempdir().unwrap();
    let (vmdk, raw) = (folder.path().join("v3.vmdk"), folder.path().join("v3.raw"));
    std::fs::write(&vmdk, &bytes).unwrap();
    qemu_img(&["convert", "-O", "raw", text(&vmdk), text(&raw)]);
    let raw = FileStorage::open(&raw, Access::ReadOnly, LockMode::Read).unwrap();
    let mut offset = 0;
    while offset < image.info().virtual_size {
        let ours = image.next_extent(offset).unwrap();
        if ours.kind == ExtentKind::Hole {
            offset = ours.end();
            continue;
        }
        let mut buf = [vec![0; ours.len as usize], vec![0; ours.len as usize]];
        image.read_at(offset, &mut buf[0]).unwrap();
        raw.read_at(offset, &mut buf[1]).unwrap();
        assert!(buf[0] == buf[1], "at {offset}");
        offset = ours.end();
    }
}

#[test]
fn disks_inside_ovas_are_read() {
    let Some(corpus) = corpus() else { return };
    for name in [
        "open-vmdk-made/basic.ova",
        "open-vmdk-made/nvme.ova",
        "govmomi/ttylinux-pc_i486-16.1.ova",
    ] {
        let ova = std::fs::read(corpus.join(name)).unwrap();
        let bytes = member(&ova, ".vmdk");
        let image = match open_bytes(&bytes, false) {
            Ok(image) => image,
            // A fixture whose disk was cut to keep it small.
            Err(error) if name.starts_with("govmomi") => {
                assert!(error.hint_text().is_some(), "{error}");
                open_bytes(&bytes, true).unwrap()
            }
            Err(error) => panic!("{name}: {error}"),
        };
        let folder = tempfile::tempdir().unwrap();
        let (vmdk, raw) = (folder.path().join("d.vmdk"), folder.path().join("d.raw"));
        if !name.starts_with("govmomi") {
            assert_eq!(findings_of(&bytes).list, [], "{name}");
            std::fs::write(&vmdk, &bytes).unwrap();
            qemu_img(&["convert", "-O", "raw", text(&vmdk), text(&raw)]);
            assert!(
                std::fs::read(&raw).unwrap() == read_all(&*image).unwrap(),
                "{name}"
            );
        }
    }
}
