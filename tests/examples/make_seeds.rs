//! Makes the seeds of the fuzz targets, `tests/fuzz/seeds/TARGET/*`: tiny images of every
//! creatable variant, and texts of the kinds seen in the wild.
//!
//! `cargo run -p hako-tests --example make_seeds`

use std::path::Path;
use std::sync::Arc;

use hako_block::testkit::{Fault, FaultFolder, Rng, SparseBytes};
use hako_block::{Access, ContentId, MemoryStorage, Outputs, ParentLink, Resolver, Result, Uuid};
use hako_formats::machine::{DiskMedium, Drive, Mac, Machine, Medium, Network, Nic};
use hako_formats::ova::OvaWriter;
use hako_formats::ovf::{self, WrittenDisk};
use hako_formats::vmx::Vmx;
use hako_formats::{Compression, CreateArgs, CreateOptions, FORMATS, OpenArgs};
use hako_tests::fuzz::{EXTENT_SECTORS, sectors_packed};

/// Seeds larger than this slow the fuzzer down.
const MAX_SEED: usize = 72 << 10;

fn main() {
    let seeds = hako_tests::root().join("tests/fuzz/seeds");
    images(&seeds);
    vhdx_logs(&seeds.join("vhdx"));
    descriptors(&seeds.join("vmdk_descriptor"));
    for (name, disk_type) in [("small-dynamic", 3), ("small-differencing", 4)] {
        write(&seeds.join("vhd"), name, &vhd(disk_type));
    }
    write(&seeds.join("vmdk_cowd"), "small", &cowd());
    write(&seeds.join("vmdk_sesparse"), "small", &sesparse());
    for (name, text) in vmx_texts() {
        write(&seeds.join("vmx"), name, &text);
    }
    write(&seeds.join("vmsd"), "tree", VMSD.as_bytes());
    write(&seeds.join("vmsd"), "empty", b"");
    write(&seeds.join("vmsn"), "state", &vmsn());
    for (name, text) in envelopes() {
        write(&seeds.join("ovf"), name, text.as_bytes());
    }
    write(&seeds.join("ovf_manifest"), "each", MANIFEST.as_bytes());
    for (name, text) in UNITS {
        write(&seeds.join("ovf_units"), name, text.as_bytes());
    }
    for (name, bytes) in ovas() {
        write(&seeds.join("ova"), name, &bytes);
    }
    file_systems(&seeds);
    ext_and_xfs(&seeds);
    volumes(&seeds);
    for (name, structured) in [("simple", false), ("structured", true)] {
        write(&seeds.join("nbd"), name, &nbd_client(structured));
    }
}

/// Small file systems with a few files, by the programs that make them.
fn file_systems(seeds: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("folder")).expect("a folder");
    std::fs::write(source.join("short"), "hello").expect("a file");
    std::fs::write(source.join("folder/long"), [b'a'; 6000]).expect("a file");
    std::os::unix::fs::symlink("../short", source.join("folder/link")).expect("a link");
    let image = folder.path().join("image");
    let make = |program: &str, options: &[&str], mib: u64| {
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(mib << 20).expect("its length");
        let mut args = options.to_vec();
        args.push(image.to_str().expect("its path"));
        hako_tests::run_program(program, &args).ok();
        std::fs::read(&image).expect("the image")
    };
    let root = source.to_str().expect("its path");
    let options = ["-q", "-M", "-n", "4096", "--rootdir", root];
    let btrfs = make("mkfs.btrfs", &options, 8);
    let packed = sectors_packed(&SparseBytes::from_bytes(&btrfs));
    write(&seeds.join("btrfs"), "small", &packed);

    make("mkntfs", &["-q", "-F", "-Q", "-c", "1024"], 2);
    let file = source.join("folder/long");
    let args = [
        "-q",
        image.to_str().expect("its path"),
        file.to_str().expect("its path"),
        "long",
    ];
    hako_tests::run_program("ntfscp", &args).ok();
    let mut ntfs = std::fs::read(&image).expect("the image");
    // Neither the empty log nor the table of upper case is worth its room: that of zeros is one too.
    let mut kept = Vec::new();
    for sector in ntfs.chunks_exact_mut(512) {
        let units = sector
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let units: Vec<u16> = units.collect();
        let n_next = units
            .windows(2)
            .filter(|two| two[0].wrapping_add(1) == two[1])
            .count();
        if n_next > 60 || sector.iter().all(|byte| *byte == 0xff) {
            sector.fill(0);
        }
        kept.extend_from_slice(sector);
    }
    let packed = sectors_packed(&SparseBytes::from_bytes(&kept));
    write(&seeds.join("ntfs"), "small", &packed);
}

/// Every creatable variant that makes a small file: empty, with a little data, as an overlay.
fn images(seeds: &Path) {
    for format in FORMATS.iter().filter(|format| format.name() != "raw") {
        let folder = seeds.join(format.name());
        for subformat in format.subformats().iter().filter(|form| form.create) {
            for (label, options) in options(subformat.name) {
                for (kind, parent, n_units) in [
                    ("empty", None, 0),
                    ("data", None, 3),
                    ("overlay", Some(parent(format.name())), 1),
                ] {
                    let Ok(files) = image(*format, &options, parent, n_units) else {
                        continue;
                    };
                    if format.name() == "vhdx" {
                        let content = SparseBytes::from_bytes(&files[0].1);
                        let name = format!("{}-{label}-{kind}", subformat.name);
                        write(&folder, &name, &sectors_packed(&content));
                        continue;
                    }
                    for (file, bytes) in files.iter().filter(|file| file.1.len() <= MAX_SEED) {
                        let name = format!("{}-{label}-{kind}", subformat.name);
                        if file == "disk" {
                            write(&folder, &name, bytes);
                        } else if bytes.starts_with(b"KDMV") {
                            write(&seeds.join("vmdk_hosted"), &name, bytes);
                        }
                    }
                }
            }
        }
    }
}

fn options(subformat: &str) -> Vec<(&'static str, CreateOptions)> {
    let base = CreateOptions {
        subformat: (!subformat.is_empty()).then(|| subformat.to_owned()),
        ..CreateOptions::default()
    };
    let unit = |unit_bytes| CreateOptions {
        unit_bytes: Some(unit_bytes),
        ..base.clone()
    };
    let compression = |kind| CreateOptions {
        compression: Some(kind),
        ..unit(4096)
    };
    vec![
        ("default", base.clone()),
        ("512", unit(512)),
        ("4k", unit(4096)),
        ("zlib", compression(Compression::Zlib)),
        ("zstd", compression(Compression::Zstd)),
    ]
}

fn parent(format: &str) -> ParentLink {
    ParentLink {
        name: "parent".to_owned(),
        format: Some(format.to_owned()),
        identity: Some(Uuid([7; 16])),
        content_id: Some(match format {
            "vhdx" => ContentId::Uuid(Uuid([5; 16])),
            _ => ContentId::Cid(0x1234_5678),
        }),
        ..ParentLink::default()
    }
}

/// Returns the files of an image of 1 MiB with some units of data.
fn image(
    format: &dyn hako_formats::DiskFormat,
    options: &CreateOptions,
    parent: Option<ParentLink>,
    n_units: u64,
) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = FaultFolder::default();
    let mut sink = format.stream(CreateArgs {
        storage: folder.create("disk")?,
        name: "disk".to_owned(),
        outputs: &folder,
        virtual_size: 1 << 20,
        parent,
        options: options.clone(),
    })?;
    let unit = sink.unit_bytes();
    let mut rng = Rng::new(1);
    let encoder = sink.encoder();
    for index in 0..n_units {
        let offset = (index * 3 * unit) % (1 << 20);
        let mut bytes = vec![0; unit.min(1 << 20) as usize];
        bytes[..100].copy_from_slice(&rng.bytes(100));
        match &encoder {
            Some(encoder) => {
                let mut out = Vec::new();
                encoder.encode(offset, &bytes, &mut out)?;
                sink.encoded(offset, &out)?;
            }
            None => sink.data(offset, &bytes)?,
        }
    }
    sink.finish()?;
    let files = folder.files().into_iter();
    Ok(files
        .map(|(name, content)| (name, content.to_vec()))
        .collect())
}

/// Images whose log must be replayed: each write of a flush fails once.
fn vhdx_logs(seeds: &Path) {
    let format = hako_formats::format_named("vhdx").unwrap();
    let files = image(format, &CreateOptions::default(), None, 1).unwrap();
    for nth in 0..16 {
        let folder = FaultFolder::default();
        folder.insert("disk", SparseBytes::from_bytes(&files[0].1));
        let opened = folder.open("disk", Access::ReadWrite).unwrap();
        let image = format
            .open(OpenArgs {
                storage: opened.storage,
                name: opened.name,
                resolver: opened.resolver,
                access: Access::ReadWrite,
                salvage: false,
                snapshot: None,
            })
            .unwrap();
        image.discard(0..1 << 20).unwrap();
        folder.set_fault(Some(Fault::WriteEio(nth)));
        let _ = image.flush();
        let content = folder.files().remove("disk").unwrap();
        write(
            seeds,
            &format!("flush-cut-{nth}"),
            &sectors_packed(&content),
        );
        if !folder.fired() {
            break;
        }
    }
}

fn descriptors(folder: &Path) {
    let text = |create_type: &str, extents: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\n\
             parentCID=ffffffff\ncreateType=\"{create_type}\"\n\n# Extent description\n\
             {extents}\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n\
             ddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"16\"\n\
             ddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"4\"\n\
             ddb.longContentID = \"0123456789abcdef01234567fffffffe\"\n"
        )
    };
    let flat = "RW 128 FLAT \"disk-flat.vmdk\" 0";
    let many = "RW 64 FLAT \"disk-f001.vmdk\" 0\nRW 64 ZERO\nRDONLY 64 FLAT \"disk-f001.vmdk\" 64\n\
                NOACCESS 32 ZERO";
    let sparse = "RW 128 SPARSE \"disk-s001.vmdk\"";
    let overlay = text("twoGbMaxExtentSparse", sparse)
        .replace("parentCID=ffffffff", "parentCID=12345678")
        .replace("createType", "parentFileNameHint=\"base.vmdk\"\ncreateType");
    let cases = [
        ("flat", text("monolithicFlat", flat)),
        ("vmfs", text("vmfs", "RW 128 VMFS \"disk-flat.vmdk\"")),
        ("many", text("custom", many)),
        ("sparse", text("twoGbMaxExtentSparse", sparse)),
        ("overlay", overlay),
        ("crlf", text("monolithicFlat", flat).replace('\n', "\r\n")),
        (
            "bom",
            format!(
                "\u{feff}{}",
                text("monolithicFlat", flat).replace('=', " = ")
            ),
        ),
        ("device", text("fullDevice", "RW 128 FLAT \"/dev/sda\" 0")),
    ];
    for (name, text) in cases {
        write(folder, name, text.as_bytes());
    }
}

/// VMX files: one of a new machine, and what is found in the wild.
fn vmx_texts() -> Vec<(&'static str, Vec<u8>)> {
    let machine = Machine {
        name: "seed".to_owned(),
        guest_os: Some("ubuntu-64".to_owned()),
        memory_bytes: 1 << 30,
        drives: vec![
            Drive {
                node: "sata0:0".parse().unwrap(),
                medium: Medium::CdEmpty,
                connected: false,
            },
            Drive {
                node: "scsi0:0".parse().unwrap(),
                medium: Medium::Disk(DiskMedium {
                    file: "seed.qcow2".to_owned(),
                    format: Some("qcow2".to_owned()),
                    ..DiskMedium::default()
                }),
                connected: true,
            },
        ],
        nics: vec![Nic {
            number: 0,
            model: Some("vmxnet3".to_owned()),
            network: Network::PortGroup("VM Network".to_owned()),
            mac: Some(Mac([0x00, 0x50, 0x56, 0, 0, 1])),
            mac_is_static: true,
            connected: true,
        }],
        ..Machine::default()
    };
    let new = Vmx::new(&machine).unwrap().to_bytes();
    let wild = "\u{feff}#!/usr/bin/vmware\r\n.encoding = \"UTF-8\"\r\nmemSize = \"512\" # half\r\n\
        scsi0.present = \"TRUE\"\nscsi0:0.fileName = \"a|22b|7C.vmdk\"\nSCSI0:0.filename = \"again\"\n\
        scsi0:0.virtualSSD = 1\nide1:0.present = \"true\nwhat is this\nethernet0.present = \"FALSE\"\n\
        annotation = \"Stra\u{df}e|0D|0A2\"\nsched.mem.max = \"unlimited\"";
    let partial = "encryption.type = \"partial\"\nencryption.keySafe = \"vmware:key/list/(x)\"\n\
        encryption.data = \"AAAA\"\nvtpm.present = \"TRUE\"\nnvme0:0.present = \"TRUE\"\n";
    let full = partial.replace("encryption.type = \"partial\"\n", "");
    vec![
        ("new", new),
        ("wild", wild.as_bytes().to_vec()),
        ("west", b"a = \"\xfc\"\nb = \"\xc3\xbc|e9\"\n".to_vec()),
        (
            "japanese",
            b".encoding = \"Shift_JIS\"\ndisplayName = \"\x83|7C\x94\\\"\n".to_vec(),
        ),
        ("partial", partial.as_bytes().to_vec()),
        ("encrypted", full.into_bytes()),
    ]
}

/// Two snapshots, the second with an index of two digits.
const VMSD: &str = ".encoding = \"UTF-8\"\nsnapshot.lastUID = \"12\"\nsnapshot.current = \"12\"\n\
    snapshot0.uid = \"1\"\nsnapshot0.filename = \"web-Snapshot1.vmsn\"\n\
    snapshot0.displayName = \"a |22b|22\"\nsnapshot0.createTimeHigh = \"310596\"\n\
    snapshot0.createTimeLow = \"-938781285\"\nsnapshot0.numDisks = \"1\"\n\
    snapshot0.disk0.fileName = \"web.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
    snapshot.numSnapshots = \"2\"\nsnapshot10.uid = \"12\"\nsnapshot10.parent = \"1\"\n";

/// A state with a configuration and memory's first item.
fn vmsn() -> Vec<u8> {
    let tag = |name: &str, n_indices: u16, size: u16| {
        let tag = (name.len() as u16) << 8 | n_indices << 6 | size;
        [&tag.to_le_bytes(), name.as_bytes()].concat()
    };
    let config = b"displayName = \"web\"\n";
    let mut snapshot = tag("snapshotVersion", 1, 4);
    snapshot.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    snapshot.extend(tag("cfgFile", 0, 63));
    snapshot.extend((config.len() as u64).to_le_bytes().repeat(2));
    snapshot.extend([3, 0, 0, 0, 0]);
    snapshot.extend(config);
    snapshot.extend([0, 0]);
    let mut memory = tag("regionsCount", 0, 4);
    memory.extend([0; 6]);
    let mut bytes = 0xbed2_bed2_u32.to_le_bytes().to_vec();
    bytes.extend([8, 0, 0, 0, 2, 0, 0, 0]);
    let mut offset = bytes.len() + 2 * 80;
    for (name, items) in [("Snapshot", &snapshot), ("memory", &memory)] {
        let mut name = name.as_bytes().to_vec();
        name.resize(64, 0);
        bytes.extend(name);
        bytes.extend((offset as u64).to_le_bytes());
        bytes.extend((items.len() as u64).to_le_bytes());
        offset += items.len();
    }
    bytes.extend(snapshot);
    bytes.extend(memory);
    bytes
}

/// A dynamic or differencing VHD with blocks of 4 KiB, smaller than any that hako makes: footer,
/// header, table of 16 entries, the name of a parent, two blocks, footer.
fn vhd(disk_type: u32) -> Vec<u8> {
    const BLOCK: u32 = 4096;
    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }
    fn seal(bytes: &mut [u8], at: usize) {
        let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
        put(bytes, at, &(!sum).to_be_bytes());
    }
    let size = u64::from(16 * BLOCK);
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix\0\0\0\x02\0\x01\0\0");
    put(&mut footer, 16, &512_u64.to_be_bytes());
    put(&mut footer, 28, b"win ");
    put(&mut footer, 40, &size.to_be_bytes());
    put(&mut footer, 48, &size.to_be_bytes());
    put(&mut footer, 60, &disk_type.to_be_bytes());
    put(&mut footer, 68, &[7; 16]);
    seal(&mut footer, 64);
    let mut header = vec![0; 1024];
    put(&mut header, 0, b"cxsparse\xff\xff\xff\xff\xff\xff\xff\xff");
    put(&mut header, 16, &1536_u64.to_be_bytes());
    put(&mut header, 24, &[0, 1, 0, 0, 0, 0, 0, 16]);
    put(&mut header, 32, &BLOCK.to_be_bytes());
    let name: Vec<u8> = ".\\base.vhd".bytes().flat_map(|byte| [byte, 0]).collect();
    if disk_type == 4 {
        put(&mut header, 40, &[9; 16]);
        put(&mut header, 64, b"\0b\0.\0v\0h\0d");
        put(&mut header, 576, b"W2ru\0\0\x02\0");
        put(&mut header, 584, &(name.len() as u32).to_be_bytes());
        put(&mut header, 592, &2048_u64.to_be_bytes());
    }
    seal(&mut header, 36);
    let mut table = vec![0xff; 512];
    put(&mut table, 0, &5_u32.to_be_bytes());
    put(&mut table, 12, &14_u32.to_be_bytes());
    let mut names = vec![0; 512];
    put(&mut names, 0, &name);
    let block = |bits: u8| {
        let mut block = vec![0x55; 512 + BLOCK as usize];
        block[..512].fill(0);
        block[0] = bits;
        block
    };
    [
        footer.clone(),
        header,
        table,
        names,
        block(0xff),
        block(0x3c),
        footer,
    ]
    .concat()
}

/// An ESX delta: a header of four sectors, a directory of one entry, a table, one grain.
fn cowd() -> Vec<u8> {
    let mut file = vec![0; (5 + 32 + 1) * 512];
    let mut put = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, u32::from_le_bytes(*b"COWD"));
    put(4, 1);
    put(8, 3);
    put(12, EXTENT_SECTORS as u32);
    put(16, 1);
    put(20, 4);
    put(24, 1);
    put(28, 38);
    put(4 * 512, 5);
    put(5 * 512, 37);
    file[37 * 512..].fill(0x77);
    file
}

/// A space-efficient ESX delta: two headers, journal, directory, one table, maps, two grains.
fn sesparse() -> Vec<u8> {
    let mut file = vec![0; 88 * 512];
    let mut put = |at: usize, value: u64| file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    let header = [
        0xcafe_babe,
        0x0000_0002_0000_0001,
        EXTENT_SECTORS,
        8,
        64,
        0,
        0,
        0,
        0,
        0,
    ];
    // Offset and size in sectors: volatile header, journal header, journal, directory, tables,
    // free bitmap, back map, grains.
    let places = [
        [1, 1],
        [2, 1],
        [3, 1],
        [4, 1],
        [5, 64],
        [69, 1],
        [70, 1],
        [72, 16],
    ];
    let words = header.into_iter().chain(places.into_iter().flatten());
    for (index, word) in words.enumerate() {
        put(index * 8, word);
    }
    put(512, 0xcafe_cafe);
    put(4 * 512, 0x1000_0000_0000_0000);
    for (index, entry) in [
        0x3000_0000_0000_0000,
        0x1000_0000_0000_0000,
        0x3001_0000_0000_0000,
        0x2000_0000_0000_0000,
    ]
    .into_iter()
    .enumerate()
    {
        put(5 * 512 + index * 8, entry);
    }
    file[72 * 512..].fill(0x66);
    file
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

/// Envelopes: one that we write, and one of each dialect in small.
fn envelopes() -> Vec<(&'static str, String)> {
    let disk = WrittenDisk {
        id: "disk1".to_owned(),
        href: "web.vmdk".to_owned(),
        capacity_bytes: 1 << 30,
        size: Some(65536),
        populated_bytes: Some(0),
    };
    let machine = Machine {
        name: "web".to_owned(),
        guest_os: Some("debian12-64".to_owned()),
        memory_bytes: 1 << 30,
        annotation: "a note".to_owned(),
        drives: vec![Drive {
            node: "scsi0:0".parse().unwrap(),
            medium: Medium::Disk(DiskMedium {
                file: disk.id.clone(),
                ..DiskMedium::default()
            }),
            connected: true,
        }],
        ..Machine::default()
    };
    let utf16 = "<a/>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .map(char::from);
    vec![
        ("ours", ovf::write(&machine, &[disk]).unwrap()),
        ("options", OPTIONS.to_owned()),
        ("ovf2", OVF2.to_owned()),
        ("ovirt", OVIRT.to_owned()),
        (
            "bomb",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>".to_owned(),
        ),
        ("utf16", utf16.collect()),
    ]
}

const OPTIONS: &str = r#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:r="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf"><References><File ovf:id="f" ovf:href="a.gz" ovf:compression="gzip" ovf:chunkSize="9"/></References><DiskSection><Info/><Disk ovf:diskId="d" ovf:capacity="${size}" ovf:capacityAllocationUnits="byte * 2^30" ovf:fileRef="f"/></DiskSection><DeploymentOptionSection><Info/><Configuration ovf:id="a" ovf:default="true"/><Configuration ovf:id="b"/></DeploymentOptionSection><VirtualSystemCollection ovf:id="c"><Info/><VirtualSystem ovf:id="v"><Info/><ProductSection ovf:class="x"><Info/><Property ovf:key="size" ovf:type="int" ovf:value="5"><Value ovf:configuration="b" ovf:value="6"/></Property></ProductSection><VirtualHardwareSection><Info/><Item ovf:configuration="a b"><r:InstanceID>1</r:InstanceID><r:ResourceType>4</r:ResourceType><r:VirtualQuantity>64</r:VirtualQuantity><r:AllocationUnits>MegaBytes</r:AllocationUnits></Item><Item ovf:bound="max"><r:InstanceID>1</r:InstanceID><r:ResourceType>4</r:ResourceType></Item><Item><r:InstanceID>2</r:InstanceID><r:ResourceType>5</r:ResourceType></Item><Item><r:InstanceID>3</r:InstanceID><r:ResourceType>17</r:ResourceType><r:HostResource>ovf:/disk/d</r:HostResource><r:Parent>2</r:Parent><r:AddressOnParent>3</r:AddressOnParent></Item><vmw:Config vmw:key="firmware" vmw:value="efi"/></VirtualHardwareSection></VirtualSystem></VirtualSystemCollection><Strings xml:lang="en"><Msg ovf:msgid="m">text</Msg></Strings></Envelope>"#;

const OVF2: &str = r#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/2" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/2" xmlns:s="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd"><References/><VirtualSystem ovf:id="v"><Info/><VirtualHardwareSection><Info/><StorageItem><s:AllocationUnits>byte*1024</s:AllocationUnits><s:InstanceID>1</s:InstanceID><s:ResourceType>31</s:ResourceType><s:VirtualQuantity>64</s:VirtualQuantity></StorageItem></VirtualHardwareSection></VirtualSystem></Envelope>"#;

const OVIRT: &str = r#"<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ovf:version="0.9"><References><File ovf:href="g/v" ovf:id="v"/></References><Section xsi:type="ovf:DiskSection_Type"><Info/><Disk ovf:diskId="v" ovf:size="10" ovf:fileRef="g/v"/></Section><Content ovf:id="o" xsi:type="ovf:VirtualSystem_Type"><Section xsi:type="ovf:VirtualHardwareSection_Type"><Info/><Item><rasd:InstanceId>1</rasd:InstanceId><rasd:ResourceType>3</rasd:ResourceType><rasd:num_of_sockets>2</rasd:num_of_sockets><rasd:cpu_per_socket>1</rasd:cpu_per_socket></Item><Item><rasd:InstanceId>v</rasd:InstanceId><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>g/v</rasd:HostResource></Item></Section></Content></ovf:Envelope>"#;

const MANIFEST: &str = "SHA1(a.ovf)= da39a3ee5e6b4b0d3255bfef95601890afd80709\r\nSHA256 (b (1).vmdk) = e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";

const UNITS: [(&str, &str); 3] = [
    ("power", "byte * 2^20"),
    ("old", "MegaBytes"),
    ("hertz", "hertz*10 ^ 6 * 2"),
];

/// What an NBD client says that uses every option and every command.
fn nbd_client(structured: bool) -> Vec<u8> {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    let mut option = |kind: u32, data: &[u8]| {
        bytes.extend(b"IHAVEOPT");
        bytes.extend(kind.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
    };
    const DISK: &[u8] = b"\0\0\0\x04disk";
    let context = [DISK, b"\0\0\0\x01", b"\0\0\0\x0fbase:allocation"].concat();
    option(3, b"");
    option(5, b"");
    if structured {
        option(8, b"");
        option(9, &context);
        option(10, &context);
        option(6, &[DISK, b"\0\x02", b"\0\x01\0\x03"].concat());
        option(7, &[DISK, b"\0\0"].concat());
    } else {
        option(1, b"disk");
    }
    let mut cookie = 0u64;
    let mut request = |kind: u16, flags: u16, offset: u64, len: u32| {
        cookie += 1;
        bytes.extend(0x2560_9513u32.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        if kind == 1 {
            bytes.extend(vec![9; len as usize]);
        }
    };
    request(1, 1, 1000, 700);
    request(0, 0, 0, 100_000);
    request(0, 4, 900, 900);
    request(6, 0, 65536, 65536);
    request(6, 2, 5000, 3000);
    request(4, 0, 131_072, 65536);
    request(5, 0, 0, 512);
    request(7, 0, 0, 1 << 20);
    request(7, 8, 1000, 70_000);
    request(3, 0, 0, 0);
    request(2, 0, 0, 0);
    bytes
}

/// An OVA as we write it, and headers that others put before a file's.
fn ovas() -> [(&'static str, Vec<u8>); 2] {
    let storage = Arc::new(MemoryStorage::new("ova", Vec::new()));
    let mut writer = OvaWriter::new(storage.clone(), 0, None);
    writer.put("vm.ovf", b"<Envelope/>").expect("written");
    writer.put("vm.mf", b"SHA256(vm.ovf)= 00").expect("written");
    writer.put("disk.vmdk", &[7; 600]).expect("written");
    writer.finish().expect("written");
    let plain = storage.to_vec();
    let mut others = Vec::new();
    // The checksums are set right by the target.
    for (kind, content) in [
        (b'5', &b""[..]),
        (b'g', b"20 comment=whatever\n"),
        (b'L', b"folder/vm.ovf\0"),
        (b'x', b"15 mtime=123.4\n"),
    ] {
        let mut header = plain[..512].to_vec();
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[156] = kind;
        others.extend(header);
        others.extend(content);
        others.resize(others.len().next_multiple_of(512), 0);
    }
    others.extend(&plain);
    [
        ("plain", plain[..4096].to_vec()),
        ("others", others[..8192].to_vec()),
    ]
}

/// Small file systems as mke2fs and mkfs.xfs make them: without checksums, for behind a wrong one
/// nothing is looked at, and one each with.
fn ext_and_xfs(seeds: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("folder/deeper")).unwrap();
    std::fs::write(tree.join("folder/file"), "some text").unwrap();
    std::os::unix::fs::symlink("folder/file", tree.join("link")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), tree.join("long-link")).unwrap();
    let prototype = "none\n0 0\nd--755 0 0\nfolder d--755 0 0\ndeeper d--755 0 0\n$\nfile ---644 0 0 TREE/folder/file\n$\nlink l--777 0 0 folder/file\n$\n";
    let prototype = prototype.replace("TREE", tree.to_str().unwrap());
    std::fs::write(at("prototype"), prototype).unwrap();
    for (name, args) in [
        (
            "extents",
            "-t ext4 -b 1024 -N 24 -O ^metadata_csum,^has_journal,^resize_inode",
        ),
        ("tables", "-t ext2 -b 1024 -N 24 -O ^resize_inode"),
        (
            "inline",
            "-t ext4 -b 1024 -N 24 -O inline_data,metadata_csum,^has_journal,^resize_inode",
        ),
    ] {
        let image = at(name);
        std::fs::File::create(&image)
            .unwrap()
            .set_len(100 << 10)
            .unwrap();
        let mut mke2fs = std::process::Command::new("mke2fs");
        mke2fs
            .args(args.split_whitespace())
            .args(["-q", "-d", tree.to_str().unwrap(), &image]);
        assert!(mke2fs.status().unwrap().success());
        write(&seeds.join("ext"), name, &packed(&image));
    }
    for (name, args) in [
        (
            "version-4",
            "-m crc=0,finobt=0 -b size=512 -i size=256 -d agcount=1",
        ),
        ("version-5", "-b size=1024 -d agcount=1"),
    ] {
        let image = at(name);
        std::fs::File::create(&image)
            .unwrap()
            .set_len(16 << 20)
            .unwrap();
        let mut mkfs = std::process::Command::new("mkfs.xfs");
        mkfs.args(args.split_whitespace())
            .args(["-q", "-f", "-p", &at("prototype"), &image]);
        mkfs.envs([("TEST_DIR", "x"), ("TEST_DEV", "x"), ("QA_CHECK_FS", "x")]);
        assert!(mkfs.status().unwrap().success());
        write(&seeds.join("xfs"), name, &packed(&image));
    }
}

/// A FAT and an ISO 9660 with Rock Ridge, and disks: partitions as sfdisk makes them, a physical volume
/// of pvcreate's and vgcreate's, an exFAT, an array's member.
fn volumes(seeds: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let script = format!("set -e; cd {}; {line}", folder.path().display());
        hako_tests::run_program("sh", &["-c", &script]).ok();
    };
    let keep = |target: &str, name: &str| {
        let image = folder.path().join("image");
        write(&seeds.join(target), name, &packed(image.to_str().unwrap()));
    };
    run(
        "mkdir -p tree/folder; echo text > tree/folder/'a long name.txt'; ln -s a/../b tree/link; \
         echo short > tree/short",
    );
    run(
        "truncate -s 1M image; mkfs.vfat -n LABEL -i 1234abcd image; mcopy -s -i image tree/folder tree/short ::",
    );
    keep("vfat", "small");
    run("truncate -s 40M image; mkfs.vfat -F 32 -i 1234abcd image; mcopy -i image tree/short ::");
    keep("vfat", "fat32");
    run("genisoimage -quiet -R -o image tree");
    keep("iso9660", "rock");
    run("rm tree/link; genisoimage -quiet -J -o image tree");
    keep("iso9660", "joliet");
    for (name, script) in [
        ("gpt", "label: gpt\\nsize=100K, type=U\\nname=two"),
        (
            "mbr",
            "label: dos\\nsize=100K\\ntype=5\\nsize=100K\\nsize=100K",
        ),
    ] {
        run(&format!(
            "rm -f image; truncate -s 8M image; printf '{script}\\n' | sfdisk -q image"
        ));
        keep("volumes", name);
    }
    run(
        "rm -f image; truncate -s 8M image; device=$(losetup -f --show image); \
         trap \"losetup -d $device\" EXIT; export LVM_SUPPRESS_FD_WARNINGS=1; \
         lvm pvcreate -q -ff -y --driverloaded n $device; \
         lvm vgcreate -q -s 64k --driverloaded n vg $device; \
         lvm lvcreate -q -y -an -Zn -Wn -l 5 -n lv --driverloaded n vg",
    );
    keep("volumes", "lvm");
    run("rm -f image; truncate -s 4M image; mkfs.exfat -c 4K image");
    keep("volumes", "exfat");
    write(&seeds.join("volumes"), "md", &array_member());
}

/// A mirror's member of metadata 1.2; its checksum is set right by the target.
fn array_member() -> Vec<u8> {
    let mut member = vec![0; 1 << 20];
    let mut put = |at: usize, bytes: &[u8]| {
        member[4096 + at..4096 + at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &[1]);
    put(16, &[7; 16]);
    put(32, b"host:data");
    put(72, &[1]);
    put(80, &[0, 4]);
    put(92, &[2]);
    put(128, &[64]);
    put(136, &[0, 4]);
    put(144, &[8]);
    put(220, &[2]);
    sectors_packed(&SparseBytes::from_bytes(&member))
}

fn packed(image: &str) -> Vec<u8> {
    sectors_packed(&SparseBytes::from_bytes(&std::fs::read(image).unwrap()))
}
