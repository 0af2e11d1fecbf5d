//! The bodies of the fuzz targets: each takes any bytes and must neither panic, nor take long,
//! nor use much memory. `tests/fuzz` runs them under libFuzzer on nightly; `fuzz_replay` runs the
//! kept seeds on stable.

mod boots;
mod file_systems;
mod machine;
mod p2v;
mod texts;

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use hako_block::testkit::{FaultFolder, SparseBytes};
use hako_block::{Access, BlockImage, Cancel, Error, MemoryStorage, NoProgress, Resolver, Result};
use hako_formats::libvirt;
use hako_formats::ova::Ova;
use hako_formats::ovf::units::{self, Base};
use hako_formats::ovf::{self, Choices, Envelope, Manifest, WrittenDisk};
use hako_formats::vmsn::Vmsn;
use hako_formats::{DiskFormat, OpenArgs, Repair, Settings, Task, format_named};
use hako_nbd::{Export, Limits, Server, Socket};

pub use boots::{grub, initrd, uki};
pub use file_systems::{adapt_intent, btrfs, ext, iso9660, luks, ntfs, vfat, volumes, xfs};
pub use machine::{pci, virtio_block, virtio_console, virtio_net, virtio_rng};
pub use p2v::{p2v_plan, p2v_recording, p2v_samples, p2v_texts};
pub use texts::{vmsd, vmx};

/// A target: its name (and its folder of seeds), and what it does with an input.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// The body.
    pub body: fn(&[u8]),
}

/// Every target, one per decoder.
pub const TARGETS: &[Target] = &[
    Target {
        name: "vmdk",
        body: vmdk,
    },
    Target {
        name: "vmdk_descriptor",
        body: vmdk_descriptor,
    },
    Target {
        name: "vmdk_hosted",
        body: vmdk_hosted,
    },
    Target {
        name: "vmdk_cowd",
        body: vmdk_cowd,
    },
    Target {
        name: "vmdk_sesparse",
        body: vmdk_sesparse,
    },
    Target {
        name: "qcow2",
        body: qcow2,
    },
    Target {
        name: "vhdx",
        body: vhdx,
    },
    Target {
        name: "vdi",
        body: vdi,
    },
    Target {
        name: "nbd",
        body: nbd,
    },
    Target {
        name: "vhd",
        body: vhd,
    },
    Target {
        name: "vmx",
        body: vmx,
    },
    Target {
        name: "vmsd",
        body: vmsd,
    },
    Target {
        name: "vmsn",
        body: vmsn,
    },
    Target {
        name: "ovf",
        body: ovf,
    },
    Target {
        name: "ovf_manifest",
        body: ovf_manifest,
    },
    Target {
        name: "ovf_units",
        body: ovf_units,
    },
    Target {
        name: "ova",
        body: ova,
    },
    Target {
        name: "adapt_intent",
        body: adapt_intent,
    },
    Target {
        name: "btrfs",
        body: btrfs,
    },
    Target {
        name: "ntfs",
        body: ntfs,
    },
    Target {
        name: "ext",
        body: ext,
    },
    Target {
        name: "xfs",
        body: xfs,
    },
    Target {
        name: "vfat",
        body: vfat,
    },
    Target {
        name: "iso9660",
        body: iso9660,
    },
    Target {
        name: "luks",
        body: luks,
    },
    Target {
        name: "volumes",
        body: volumes,
    },
    Target {
        name: "initrd",
        body: initrd,
    },
    Target {
        name: "grub",
        body: grub,
    },
    Target {
        name: "uki",
        body: uki,
    },
    Target {
        name: "virtio_block",
        body: virtio_block,
    },
    Target {
        name: "virtio_net",
        body: virtio_net,
    },
    Target {
        name: "pci",
        body: pci,
    },
    Target {
        name: "virtio_rng",
        body: virtio_rng,
    },
    Target {
        name: "virtio_console",
        body: virtio_console,
    },
    Target {
        name: "p2v_recording",
        body: p2v_recording,
    },
    Target {
        name: "p2v_samples",
        body: p2v_samples,
    },
    Target {
        name: "p2v_plan",
        body: p2v_plan,
    },
    Target {
        name: "p2v_texts",
        body: p2v_texts,
    },
];

/// A tar that claims to be an OVA; its headers' checksums are made right, or nothing behind them
/// would ever be looked at.
pub fn ova(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let Ok(ova) = Ova::open(Arc::new(MemoryStorage::new("ova", bytes))) else {
        return;
    };
    for member in ova.members() {
        let storage = ova.window(member).expect("it was found there");
        let len = storage.len_bytes().expect("its own").min(65536);
        storage
            .read_at(0, &mut vec![0; len as usize])
            .expect("it was found there");
    }
    let _ = (ova.manifest(), ova.member("disk.vmdk").is_ok());
}

/// The state of a machine, as VMware's products keep it.
pub fn vmsn(bytes: &[u8]) {
    let _ = Vmsn::read(&MemoryStorage::new("vmsn", bytes.to_vec()));
}

/// One file that claims to be a VMDK with its descriptor inside: monolithicSparse, streamOptimized.
pub fn vmdk(bytes: &[u8]) {
    try_everything("vmdk", &[("disk", bytes)]);
}

/// A VMDK descriptor with files beside it that it may name.
pub fn vmdk_descriptor(bytes: &[u8]) {
    let flat = [7; 65536];
    try_everything(
        "vmdk",
        &[
            ("disk", bytes),
            ("disk-flat.vmdk", &flat),
            ("disk-f001.vmdk", &flat),
            ("disk-s001.vmdk", &flat),
        ],
    );
}

/// An extent file of a split sparse VMDK.
pub fn vmdk_hosted(bytes: &[u8]) {
    extent("twoGbMaxExtentSparse", "SPARSE", bytes);
}

/// An ESX delta.
pub fn vmdk_cowd(bytes: &[u8]) {
    extent("vmfsSparse", "VMFSSPARSE", bytes);
}

/// A space-efficient ESX delta.
pub fn vmdk_sesparse(bytes: &[u8]) {
    extent("seSparse", "SESPARSE", bytes);
}

/// An envelope. A machine that it describes can be written again, and what is written is read.
pub fn ovf(bytes: &[u8]) {
    let Ok(envelope) = Envelope::parse(bytes) else {
        return;
    };
    let choices = Choices::default();
    for disk in &envelope.disks {
        for system in &envelope.systems {
            let _ = envelope.capacity_bytes(disk, system, &choices);
        }
    }
    for system in &envelope.systems {
        let Ok((machine, _)) = system.machine(&envelope, &choices) else {
            continue;
        };
        let disks = envelope.disks.iter().map(|disk| WrittenDisk {
            id: disk.id.clone(),
            href: disk.id.clone(),
            capacity_bytes: 1 << 20,
            size: None,
            populated_bytes: Some(u64::MAX),
        });
        let disks: Vec<_> = disks.collect();
        let text = ovf::write(&machine, &disks).expect("its disks are all there");
        if disks.iter().all(|disk| disk.id.trim() == disk.id) {
            Envelope::parse(text.as_bytes()).expect("what is written is read");
        }
        let _ = libvirt::domain(&machine);
    }
}

/// A manifest. What is read is written as it was.
pub fn ovf_manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let again = Manifest::parse(manifest.render().as_bytes());
        assert_eq!(again.expect("what is written is read"), manifest);
    }
}

/// Units of an envelope.
pub fn ovf_units(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for base in [Base::Byte, Base::Hertz] {
        if let Ok(factor) = units::factor(&text, base) {
            assert_ne!(factor, 0);
            assert_eq!(units::amount(1, &text, base).ok(), Some(factor));
        }
        let _ = units::amount(u64::MAX, &text, base);
    }
}

/// One file that claims to be a qcow2.
pub fn qcow2(bytes: &[u8]) {
    try_everything("qcow2", &[("disk", bytes)]);
}

/// A file that claims to be a VHDX, packed by [`sectors_packed`]: unpacked it has megabytes, most of
/// them holes. Its checksums are made right, or nothing behind them would ever be looked at.
pub fn vhdx(bytes: &[u8]) {
    let mut content = unpacked(bytes);
    let mut seal = |offset: u64, len: u64| {
        let mut record = vec![0; len as usize];
        if content.read(offset, &mut record) {
            record[4..8].fill(0);
            content.write(offset + 4, &crc32c(&record).to_le_bytes());
        }
    };
    for (offset, len) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
        seal(offset << 10, len << 10);
    }
    for offset in (1 << 20..2 << 20).step_by(4096) {
        let mut head = [0; 12];
        if content.read(offset, &mut head) && head.starts_with(b"loge") {
            let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
            let mut entry = vec![0; (len.clamp(4096, 64 << 10)) as usize];
            if content.read(offset, &mut entry) {
                entry[4..8].fill(0);
                content.write(offset + 4, &crc32c(&entry).to_le_bytes());
            }
        }
    }
    let folder = FaultFolder::default();
    folder.insert("disk", content);
    try_folder("vhdx", &folder);
}

/// Sectors that an unpacked image may have: 16 MiB.
const UNPACKED_SECTORS: u64 = 16 << 11;

/// Unpacks what [`sectors_packed`] packed.
fn unpacked(bytes: &[u8]) -> SparseBytes {
    let mut content = SparseBytes::default();
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_first_chunk::<6>() {
        let sector = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
        let len = usize::from(u16::from_le_bytes([head[4], head[5]]) % 4097);
        let (piece, tail) = tail.split_at(len.min(tail.len()));
        content.write(sector % UNPACKED_SECTORS * 512, piece);
        rest = tail;
    }
    content
}

/// Packs an image as the fuzzer's input: for each run of sectors that are not all zeros its number
/// (32 bits), its length in bytes (16 bits, up to 4096) and its bytes.
pub fn sectors_packed(content: &SparseBytes) -> Vec<u8> {
    let mut packed = Vec::new();
    for sector in 0..content.len().div_ceil(512) {
        let mut bytes = [0; 512];
        let len = (content.len() - sector * 512).min(512) as usize;
        content.read(sector * 512, &mut bytes[..len]);
        if bytes != [0; 512] || (sector + 1) * 512 >= content.len() {
            packed.extend((sector as u32).to_le_bytes());
            packed.extend((len as u16).to_le_bytes());
            packed.extend(&bytes[..len]);
        }
    }
    packed
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// One file that claims to be a VDI.
pub fn vdi(bytes: &[u8]) {
    try_everything("vdi", &[("disk", bytes)]);
}

/// All that an NBD client says, to a server of a small disk.
pub fn nbd(bytes: &[u8]) {
    let folder = FaultFolder::default();
    folder.insert("disk", SparseBytes::from_bytes(&[7; NBD_DISK_BYTES]));
    let raw = format_named("raw").expect("in the registry");
    let image = open(raw, &folder, Access::ReadWrite, false).expect("opens");
    let export = Export::new(image, "disk", true).expect("an export");
    let server = Server::new(export, Limits::default(), &|_| ()).expect("a server");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let mut answers = ours.try_clone().expect("a copy");
    std::thread::scope(|scope| {
        scope.spawn(move || server.attend(&Socket::Unix(theirs)));
        scope.spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        // The server may hang up before the end.
        let _ = ours.write_all(bytes);
        let _ = ours.shutdown(Shutdown::Write);
    });
}

/// Bytes of the disk that the fuzzed NBD server serves.
pub const NBD_DISK_BYTES: usize = 1 << 20;

/// One file that claims to be a VHD.
pub fn vhd(bytes: &[u8]) {
    try_everything("vhd", &[("disk", bytes)]);
}

/// Sectors of the extents of the seeds.
pub const EXTENT_SECTORS: u64 = 2048;

fn extent(create_type: &str, kind: &str, bytes: &[u8]) {
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\nRW {EXTENT_SECTORS} {kind} \"extent\"\n"
    );
    try_everything(
        "vmdk",
        &[("disk", descriptor.as_bytes()), ("extent", bytes)],
    );
}

/// Opens, maps, reads, writes and checks the first of the files, each as far as it is let.
fn try_everything(format: &str, files: &[(&str, &[u8])]) {
    let folder = FaultFolder::default();
    for (name, content) in files {
        folder.insert(name, SparseBytes::from_bytes(content));
    }
    let bytes = files[0].1;
    let format_of_name = format_named(format).expect("in the registry");
    format_of_name.probe(bytes, &bytes[bytes.len().saturating_sub(4096)..]);
    try_folder(format, &folder);
}

fn try_folder(format: &str, folder: &FaultFolder) {
    let format = format_named(format).expect("in the registry");
    for salvage in [false, true] {
        if let Ok(image) = open(format, folder, Access::ReadOnly, salvage) {
            look(&*image);
        }
    }
    if let Ok(args) = args(folder, Access::ReadOnly, false) {
        let _ = format.check(args);
    }
    for verb in VERBS {
        keep_up(format, &folder.copy(), *verb);
    }
    if let Ok(image) = open(format, folder, Access::ReadWrite, false) {
        change(&*image);
    }
    if let Ok(image) = open(format, folder, Access::ReadOnly, false) {
        look(&*image);
    }
}

/// What changes an image in place, beyond writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Repair(Repair),
    Grow,
    Shrink,
    Compact,
    Set,
    Relink,
}

/// Largest image whose content is compared, in bytes. It has room to grow to twice that.
const MAX_COMPARED: u64 = 16 << 20;
const GROWTH: u64 = 9 << 20;

const VERBS: &[Verb] = &[
    Verb::Repair(Repair::Leaks),
    Verb::Repair(Repair::All),
    Verb::Grow,
    Verb::Shrink,
    Verb::Compact,
    Verb::Set,
    Verb::Relink,
];

impl Verb {
    fn run(self, format: &dyn DiskFormat, args: OpenArgs, size: u64) -> Result<()> {
        match self {
            Verb::Repair(what) => format.repair(args, what).map(|_| ()),
            Verb::Grow => format.resize(args, size.saturating_add(GROWTH)),
            Verb::Shrink => format.resize(args, (size / 1024 * 512).max(512)),
            Verb::Compact => {
                let task = Task {
                    progress: &NoProgress,
                    cancel: &Cancel::default(),
                };
                format.compact(args, task)
            }
            Verb::Set => {
                let settings = Settings {
                    comment: Some("fuzzed".to_owned()),
                    ..Settings::default()
                };
                format.set(args, &settings)
            }
            Verb::Relink => format.relink(args, None),
        }
    }
}

/// Runs a verb. An image in which the check finds no damage must have none afterwards, and keep
/// its content.
fn keep_up(format: &dyn DiskFormat, folder: &FaultFolder, verb: Verb) {
    let damage = || {
        let args = args(folder, Access::ReadOnly, false)?;
        let found = format.check(args)?;
        Ok::<_, Error>((found.n_corruptions > 0).then_some(found.list))
    };
    let is_sound = matches!(damage(), Ok(None));
    let before = is_sound
        .then(|| content(format, folder, MAX_COMPARED))
        .flatten();
    let size = open(format, folder, Access::ReadOnly, false)
        .map_or(1 << 20, |image| image.info().virtual_size);
    let Ok(args) = args(folder, Access::ReadWrite, false) else {
        return;
    };
    let done = verb.run(format, args, size);
    let Some(before) = before.filter(|_| done.is_ok()) else {
        return;
    };
    let damage = damage();
    assert!(
        matches!(damage, Ok(None)),
        "{verb:?} damaged it: {damage:?}"
    );
    let after = content(format, folder, 2 * MAX_COMPARED).expect("is read as before");
    let both = before.len().min(after.len());
    assert!(
        before[..both] == after[..both],
        "{verb:?} changed the content"
    );
}

/// Returns the content of an image of up to `max` bytes that can be read as a whole.
fn content(format: &dyn DiskFormat, folder: &FaultFolder, max: u64) -> Option<Vec<u8>> {
    let image = open(format, folder, Access::ReadOnly, false).ok()?;
    let size = image.info().virtual_size;
    let mut bytes = vec![0x55; usize::try_from(size).ok().filter(|_| size <= max)?];
    image.read_at(0, &mut bytes).ok()?;
    Some(bytes)
}

fn args(folder: &FaultFolder, access: Access, salvage: bool) -> Result<OpenArgs> {
    let opened = folder.open("disk", access)?;
    Ok(OpenArgs {
        storage: opened.storage,
        name: opened.name,
        resolver: opened.resolver,
        access,
        salvage,
        snapshot: None,
    })
}

fn open(
    format: &dyn DiskFormat,
    folder: &FaultFolder,
    access: Access,
    salvage: bool,
) -> Result<Arc<dyn BlockImage>> {
    format.open(args(folder, access, salvage)?).map(Arc::from)
}

/// Places worth touching on a disk of any size.
fn places(size: u64) -> impl Iterator<Item = u64> {
    [0, 511, 4096, 65536 - 100, size / 3, size / 2]
        .into_iter()
        .chain([size.saturating_sub(513), size.saturating_sub(1)])
        .filter(move |offset| *offset < size)
}

/// Walks a bounded number of extents and reads at several places.
fn look(image: &dyn BlockImage) {
    const MAX_EXTENTS: usize = 200;
    let size = image.info().virtual_size;
    let mut offset = 0;
    for _ in 0..MAX_EXTENTS {
        if offset >= size {
            break;
        }
        let Ok(extent) = image.next_extent(offset) else {
            break;
        };
        assert_eq!(extent.offset, offset, "an extent begins where asked");
        assert!(extent.len > 0, "an empty extent");
        assert!(extent.len <= size - offset, "an extent past the end");
        let mut piece = vec![0; extent.len.min(5000) as usize];
        let _ = image.read_at(offset, &mut piece);
        offset += extent.len;
    }
    for offset in places(size) {
        let mut piece = vec![0; (size - offset).min(70_000) as usize];
        let _ = image.read_at(offset, &mut piece);
        let _ = image.next_extent(offset);
    }
}

/// Writes, zeroes and discards at several places.
fn change(image: &dyn BlockImage) {
    let size = image.info().virtual_size;
    for (index, offset) in places(size).enumerate() {
        let len = (size - offset).min(3000);
        let _ = match index % 3 {
            0 => image.write_at(offset, &vec![index as u8 + 1; len as usize]),
            1 => image.write_zeroes(offset..offset + len),
            _ => image.discard(offset..offset + len),
        };
    }
    let _ = image.flush();
}
