//! An OVA that comes through a pipe, or out of a gzip: a disk is converted while it passes by,
//! everything else is kept in an unnamed file, where the package is then found as if all of it had
//! come there.
//!
//! That takes a description in front of its disks, as DSP0243 wants it, and disks that tell in
//! their order what is in them ([`ArrivingHead`]). What a manifest says is compared once all of it
//! has come, wherever in the package it is.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind as IoErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::bufread::MultiGzDecoder;
use hako_block::{
    BlockImage, Cancel, Error, FileStorage, Progress, Result, Storage, StorageExtent,
};
use hako_disk::{unnamed_file, write_blocks};
use hako_formats::digest::{Algorithm, HashingThread};
use hako_formats::disk::vmdk::ArrivingHead;
use hako_formats::ova::{Member, Members, Next, Ova, check_beginning};
use hako_formats::ovf::{self, Envelope, Manifest};

use super::package::Package;
use crate::copy::small_len;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 18;
/// How a gzip begins (RFC 1952, 2.3).
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What is told of a package while it comes.
pub(super) trait Receiver {
    /// The description has come. Returns the files of disks that are to be written when they
    /// come, as it names them.
    fn described(&mut self, envelope: &Envelope) -> Result<Vec<String>>;

    /// One of those files has come, by its place among them; all of `image` is to be read.
    fn disk(&mut self, index: usize, image: &dyn BlockImage) -> Result<Arrived>;
}

/// A disk that was written while it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrived {
    /// Its file in the new folder.
    pub(crate) file: String,
    /// Its virtual size in bytes.
    pub(crate) virtual_size: u64,
    /// How many bytes of it are data.
    pub(crate) data_bytes: u64,
    /// Digests of the file that came.
    pub(super) digests: Vec<(Algorithm, Vec<u8>)>,
}

/// A package that is still to come.
pub(super) struct Coming {
    /// Where from: the name of a file, or of the pipe.
    pub(super) name: PathBuf,
    pub(super) pipe: Box<dyn Read + Send>,
}

/// Receives a package. What is kept of it is in an unnamed file in `folder`.
pub(super) fn receive(
    coming: Coming,
    folder: &Path,
    receiver: &mut dyn Receiver,
    (progress, cancel): (&dyn Progress, &Cancel),
) -> Result<Package> {
    let Coming { name, pipe } = coming;
    let name = name.as_path();
    let spool = unnamed_file(name, folder)?;
    let pipe = unwrapped(Patient {
        pipe,
        cancel: cancel.clone(),
    });
    let pipe = pipe.map_err(|error| cancel.check().err().unwrap_or(error).in_file(name))?;
    let growing = Growing::new(pipe, spool, cancel);
    let mut receipt = Receipt {
        growing: &growing,
        receiver,
        progress,
        described: None,
        manifest: None,
        arrived: HashMap::new(),
    };
    receipt.run().map_err(|error| error.in_file(name))?;
    let arrived = receipt.arrived;
    let ova = Ova::open(Arc::new(growing.kept()?))?;
    Package::of_arrived(ova, arrived, cancel)
}

struct Receipt<'a, 'p> {
    growing: &'a Growing<'p>,
    receiver: &'a mut dyn Receiver,
    progress: &'a dyn Progress,
    described: Option<Described>,
    manifest: Option<Manifest>,
    /// By the name of the member.
    arrived: HashMap<String, Arrived>,
}

/// The description that has come.
struct Described {
    /// Name of its member.
    ovf: String,
    /// Members with disks to be written, and what the description calls them.
    disks: Vec<(String, String)>,
}

impl Receipt<'_, '_> {
    fn run(&mut self) -> Result<()> {
        const HEADER_BYTES: u64 = 512;
        self.growing.receive_to(HEADER_BYTES)?;
        check_beginning(self.growing)?;
        let mut members = Members::new(self.growing);
        self.progress.phase("receive");
        loop {
            self.growing.receive_to(members.position() + HEADER_BYTES)?;
            match members.next_header()? {
                None => break,
                Some(Next::Other) => {}
                Some(Next::Member(member)) => self.member(&member)?,
            }
        }
        self.growing.discard_rest()
    }

    fn member(&mut self, member: &Member) -> Result<()> {
        if self.is_converted(member)? {
            self.progress.phase("receive");
            return Ok(());
        }
        self.growing.receive_to(member.range.end)?;
        let is = |extension: &str| {
            let end = member.name.len().checked_sub(extension.len());
            let end = end.and_then(|at| member.name.get(at..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(extension))
        };
        if is(".ovf") && self.described.is_none() {
            let envelope = Envelope::parse(&self.text(member, ovf::MAX_BYTES)?)
                .map_err(|error| error.in_file(&member.name))?;
            let hrefs = self.receiver.described(&envelope)?;
            let folder = member.name.rsplit_once('/').map(|(folder, _)| folder);
            let disks = hrefs.into_iter().map(|href| match folder {
                Some(folder) => (format!("{folder}/{href}"), href),
                None => (href.clone(), href),
            });
            self.described = Some(Described {
                ovf: member.name.clone(),
                disks: disks.collect(),
            });
        }
        let is_manifest = self.described.as_ref().is_some_and(|described| {
            Path::new(&described.ovf).with_extension("")
                == Path::new(&member.name).with_extension("")
        });
        if is(".mf") && is_manifest {
            let text = self.text(member, ovf::manifest::MAX_BYTES)?;
            let manifest = Manifest::parse(&text).map_err(|error| error.in_file(&member.name))?;
            self.manifest = Some(manifest);
        }
        Ok(())
    }

    /// Reads a small member that was kept.
    fn text(&self, member: &Member, max_bytes: usize) -> Result<Vec<u8>> {
        let Range { start, end } = member.range;
        let len = small_len(end - start, max_bytes, "such text")
            .map_err(|error| error.in_file(&member.name))?;
        let mut bytes = vec![0; len];
        self.growing.read_at(start, &mut bytes)?;
        Ok(bytes)
    }

    /// Converts a member while it comes, if it is a disk that can be.
    fn is_converted(&mut self, member: &Member) -> Result<bool> {
        let Some(described) = &self.described else {
            return Ok(false);
        };
        let mut disks = described.disks.iter();
        let Some(index) = disks.position(|(name, _)| *name == member.name) else {
            return Ok(false);
        };
        let Range { start, end } = member.range;
        let head_len = (end - start).min(ArrivingHead::MAX_BYTES as u64);
        self.growing.receive_to(start + head_len)?;
        let mut head = vec![0; head_len as usize];
        self.growing.read_at(start, &mut head)?;
        let Some(beginning) = ArrivingHead::find(&head) else {
            return Ok(false);
        };
        let mut hashing = self.hashing(&described.disks[index].1)?;
        for (_, thread) in &mut hashing {
            thread.update(&head)?;
        }
        let head = head.split_off(beginning.len_bytes().min(head.len()));
        let growing = self.growing;
        let mut rest = Rest {
            head: head.into(),
            left: end - start - head_len,
            hashing: &mut hashing,
        };
        let source = Box::new(|buf: &mut [u8]| rest.next(growing, buf));
        let image = beginning.image(&member.name, source);
        let mut arrived = self.receiver.disk(index, &image)?;
        image.finish()?;
        drop(image);
        for (algorithm, thread) in hashing {
            arrived.digests.push((algorithm, thread.finish()?));
        }
        self.arrived.insert(member.name.clone(), arrived);
        Ok(true)
    }

    /// Starts the digests that the manifest has of a file; all of them if it is still to come.
    fn hashing(&self, href: &str) -> Result<Vec<(Algorithm, HashingThread)>> {
        let is_wanted = |algorithm: &Algorithm| match &self.manifest {
            None => true,
            Some(manifest) => {
                let mut entries = manifest.of_file(href);
                entries.any(|entry| entry.algorithm == *algorithm)
            }
        };
        let wanted = Algorithm::ALL.into_iter().filter(is_wanted);
        wanted
            .map(|algorithm| Ok((algorithm, HashingThread::start(algorithm)?)))
            .collect()
    }
}

/// A disk's file from its first grain on.
struct Rest<'h> {
    /// What was looked at already.
    head: VecDeque<u8>,
    /// How many bytes are still to come.
    left: u64,
    hashing: &'h mut [(Algorithm, HashingThread)],
}

impl Rest<'_> {
    fn next(&mut self, growing: &Growing<'_>, buf: &mut [u8]) -> Result<usize> {
        if !self.head.is_empty() {
            return self
                .head
                .read(buf)
                .map_err(|error| Error::io("read", error));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let len = buf.len().min(most);
        let buf = &mut buf[..len];
        growing.pass(buf)?;
        for (_, thread) in &mut *self.hashing {
            thread.update(buf)?;
        }
        self.left -= len as u64;
        Ok(len)
    }
}

/// A pipe whose reader need not begin again where nothing came for a while.
struct Patient {
    pipe: Box<dyn Read + Send>,
    cancel: Cancel,
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.pipe.read(buf) {
                Err(error) if error.kind() == IoErrorKind::Interrupted => {
                    let check = self.cancel.check();
                    check.map_err(|error| std::io::Error::other(error.to_string()))?;
                }
                read => return read,
            }
        }
    }
}

/// Returns what comes, unpacked if it is a gzip.
fn unwrapped(pipe: Patient) -> Result<Box<dyn Read + Send>> {
    let mut pipe = BufReader::with_capacity(PIECE_BYTES, pipe);
    if !pipe
        .fill_buf()
        .map_err(read_error)?
        .starts_with(&GZIP_MAGIC)
    {
        return Ok(Box::new(pipe));
    }
    let unpacked = MultiGzDecoder::new(pipe);
    Ok(Box::new(BufReader::with_capacity(PIECE_BYTES, unpacked)))
}

/// Tells a gzip that is damaged from a pipe that fails.
fn read_error(error: std::io::Error) -> Error {
    use IoErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => Error::corrupt("gzip", error.to_string()),
        _ => Error::io("read", error),
    }
}

/// A tar that grows while it is received. It can be read as far as it is kept: what is asked for
/// and has not come is waited for.
struct Growing<'a> {
    spool: FileStorage,
    stream: Mutex<Stream>,
    cancel: &'a Cancel,
}

struct Stream {
    pipe: Box<dyn Read + Send>,
    /// How many bytes have come.
    position: u64,
    has_ended: bool,
}

impl<'a> Growing<'a> {
    fn new(pipe: Box<dyn Read + Send>, spool: FileStorage, cancel: &'a Cancel) -> Self {
        Self {
            spool,
            stream: Mutex::new(Stream {
                pipe,
                position: 0,
                has_ended: false,
            }),
            cancel,
        }
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `buf`, but for the end of it all.
    fn fill(&self, stream: &mut Stream, buf: &mut [u8]) -> Result<usize> {
        let mut len = 0;
        while len < buf.len() && !stream.has_ended {
            self.cancel.check()?;
            match stream.pipe.read(&mut buf[len..]) {
                Ok(0) => stream.has_ended = true,
                Ok(n) => len += n,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => {
                    self.cancel.check()?;
                    return Err(read_error(error));
                }
            }
        }
        stream.position += len as u64;
        Ok(len)
    }

    /// Keeps what comes before the byte `end`, or before the end of it all.
    fn receive_to(&self, end: u64) -> Result<()> {
        let mut stream = self.stream();
        let mut piece = Vec::new();
        while stream.position < end && !stream.has_ended {
            let len = (end - stream.position).min(PIECE_BYTES as u64);
            piece.resize(len as usize, 0);
            let position = stream.position;
            let len = self.fill(&mut stream, &mut piece)?;
            write_blocks(&self.spool, position, &piece[..len])?;
        }
        Ok(())
    }

    /// Gives the next bytes, and does not keep them.
    fn pass(&self, buf: &mut [u8]) -> Result<()> {
        let mut stream = self.stream();
        let len = self.fill(&mut stream, buf)?;
        if len < buf.len() {
            return Err(Error::corrupt(
                "tar",
                "is truncated: it ends in the midst of a disk",
            ));
        }
        Ok(())
    }

    /// Receives what is left: who sends it shall not stumble over a pipe without an end.
    fn discard_rest(&self) -> Result<()> {
        let mut stream = self.stream();
        let position = stream.position;
        let mut piece = vec![0; PIECE_BYTES];
        while !stream.has_ended {
            self.fill(&mut stream, &mut piece)?;
        }
        // None of it is part of the tar.
        stream.position = position;
        Ok(())
    }

    /// Returns what was kept, in its places.
    fn kept(self) -> Result<FileStorage> {
        let stream = self.stream.into_inner();
        let stream = stream.unwrap_or_else(PoisonError::into_inner);
        self.spool.set_len(stream.position)?;
        Ok(self.spool)
    }
}

impl Storage for Growing<'_> {
    fn name(&self) -> &str {
        self.spool.name()
    }

    fn len_bytes(&self) -> Result<u64> {
        let stream = self.stream();
        Ok(match stream.has_ended {
            true => stream.position,
            // Nobody knows.
            false => i64::MAX as u64,
        })
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        self.receive_to(end)?;
        let stream = self.stream();
        if stream.position < end {
            return Err(Error::corrupt("tar", "is truncated"));
        }
        // Zeros at the end may not have been written.
        self.spool.set_len(self.spool.len_bytes()?.max(end))?;
        self.spool.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<StorageExtent> {
        let len = self.len_bytes()?.saturating_sub(offset).max(1);
        let data = true;
        Ok(StorageExtent { offset, len, data })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hako_block::{MemoryFolder, MemoryStorage, NoProgress};
    use hako_formats::machine::{Bus, DiskMedium, Drive, Machine, Medium, Node};
    use hako_formats::ova::OvaWriter;
    use hako_formats::{CreateArgs, CreateOptions, format_named};
    use hako_pipeline::{CopyOptions, sha256};

    use super::*;

    const LEN: u64 = 4 << 20;

    /// An OVA with a disk that does not compress.
    fn ova() -> Vec<u8> {
        let node = Node {
            bus: Bus::Sata,
            controller: 0,
            unit: 0,
        };
        let machine = Machine {
            name: "web".to_owned(),
            drives: vec![Drive {
                node,
                medium: Medium::Disk(DiskMedium {
                    file: "disk1".to_owned(),
                    ..DiskMedium::default()
                }),
                connected: true,
            }],
            ..Machine::default()
        };
        let disk = ovf::WrittenDisk {
            id: "disk1".to_owned(),
            href: "web-disk1.vmdk".to_owned(),
            capacity_bytes: LEN,
            size: None,
            populated_bytes: None,
        };
        let text = ovf::write_with_nvram(&machine, &[disk], None).unwrap();
        let out = Arc::new(MemoryStorage::new("web.ova", Vec::new()));
        let mut writer = OvaWriter::new(out.clone(), 0, None);
        writer.put("web.ovf", text.as_bytes()).unwrap();
        let mut sink = format_named("vmdk")
            .unwrap()
            .stream(CreateArgs {
                storage: writer.begin("web-disk1.vmdk", None).unwrap(),
                name: "web-disk1.vmdk".to_owned(),
                outputs: &MemoryFolder::default(),
                virtual_size: LEN,
                parent: None,
                options: CreateOptions {
                    subformat: Some("streamOptimized".to_owned()),
                    ..CreateOptions::default()
                },
            })
            .unwrap();
        let mut rng = hako_block::testkit::Rng::new(1);
        let words = (0..LEN / 8).flat_map(|_| rng.next_u64().to_le_bytes());
        let encoder = sink.encoder().unwrap();
        for (index, unit) in words.collect::<Vec<_>>().chunks(65536).enumerate() {
            let offset = index as u64 * 65536;
            let mut stored = Vec::new();
            encoder.encode(offset, unit, &mut stored).unwrap();
            sink.encoded(offset, &stored).unwrap();
        }
        sink.finish().unwrap();
        writer.end().unwrap();
        writer.finish().unwrap();
        out.to_vec()
    }

    struct Reading(Cancel);

    impl Receiver for Reading {
        fn described(&mut self, _envelope: &Envelope) -> Result<Vec<String>> {
            Ok(vec!["web-disk1.vmdk".to_owned()])
        }

        fn disk(&mut self, _index: usize, image: &dyn BlockImage) -> Result<Arrived> {
            sha256(image, &CopyOptions::new(&NoProgress, &self.0))?;
            Ok(Arrived::default())
        }
    }

    #[test]
    fn of_a_disk_that_passes_by_only_the_beginning_is_kept() {
        let cancel = Cancel::default();
        let coming = Coming {
            name: PathBuf::from("a pipe"),
            pipe: Box::new(std::io::Cursor::new(ova())),
        };
        let folder = std::env::temp_dir();
        let reports: (&dyn Progress, _) = (&NoProgress, &cancel);
        let mut reading = Reading(Cancel::default());
        let mut package = receive(coming, &folder, &mut reading, reports).unwrap();
        let file = package.envelope.files[0].clone();
        let stored = package.open(&file).unwrap();
        let digests = stored.arrived.unwrap().digests;
        assert_eq!(digests.len(), 3, "no manifest came: any may");
        let len = stored.opened.storage.len_bytes().unwrap();
        let mut bytes = vec![0; len as usize];
        stored.opened.storage.read_at(0, &mut bytes).unwrap();
        assert!(len > LEN);
        assert!(hako_block::is_zero(&bytes[ArrivingHead::MAX_BYTES..]));
    }
}
