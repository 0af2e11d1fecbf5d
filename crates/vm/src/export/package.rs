//! A machine as a package: an OVF with its disks, in one tar or in a folder.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use hako_block::gate::replace_file;
use hako_block::identity::random_u64;
use hako_block::{
    BlockImage, Error, ErrorKind, FileStorage, MemoryFolder, PipeStorage, Result, StagedFolder,
    StagedTree, Storage,
};
use hako_formats::digest::{Algorithm, digest};
use hako_formats::machine::{DiskMode, Machine, Medium, Node};
use hako_formats::ova::{Ova, OvaWriter, Recorded, Recorder};
use hako_formats::ovf::{self, Manifest, ManifestEntry};
use hako_formats::{CreateArgs, CreateOptions, format_named};
use hako_pipeline::{CopyOptions, copy, sha256};

use super::description::{contents_comment, portable_stem};
use super::verify::verify_package;
use super::{ExportReport, ExportRequest, ExportedDisk};
use crate::copy::{read_small, whole_sectors};
use crate::import::{Content, Incoming, Package, Text, UsedBy};
use crate::{Held, Vm};

/// Largest file that is taken for the firmware's settings; VMware's have 8 KiB to 270 KiB.
const MAX_NVRAM_BYTES: usize = 16 << 20;

/// The export of a machine as a package.
pub(super) struct Job<'a> {
    machine: Machine,
    disks: Vec<Disk>,
    /// The firmware's settings, small enough to be held.
    nvram: Option<Vec<u8>>,
    stem: String,
    request: &'a ExportRequest,
    copy: CopyOptions<'a>,
    warnings: Vec<String>,
    _held: Option<Held>,
}

/// A disk on its way out.
struct Disk {
    node: Node,
    id: String,
    href: String,
    image: Arc<dyn BlockImage>,
    virtual_size: u64,
    /// What its identities are made from: it may have to come out twice the same.
    seed: u64,
}

/// What became of a disk.
#[derive(Clone)]
struct Written {
    recorded: Recorded,
    data_bytes: u64,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        vm: &Vm,
        incoming: Incoming,
        request: &'a ExportRequest,
        copy: CopyOptions<'a>,
    ) -> Result<Self> {
        let stem = portable_stem(&vm.name());
        let mut machine = match &incoming.text {
            Text::Machine(machine) => (**machine).clone(),
            Text::Vmx(vmx) => vmx.machine(),
        };
        machine.name = vm.name();
        machine
            .drives
            .retain(|drive| !incoming.left_out.contains(&drive.node));
        let mut disks = Vec::new();
        for (index, disk) in incoming.disks.into_iter().enumerate() {
            let Content::Image(image) = disk.content else {
                continue;
            };
            let virtual_size = whole_sectors(&*image)?;
            disks.push(Disk {
                node: disk.node,
                id: format!("vmdisk{}", index + 1),
                href: format!("{stem}-disk{}.vmdk", index + 1),
                image,
                virtual_size,
                seed: random_u64(),
            });
        }
        let mut warnings = Vec::new();
        let mut nvram = None;
        for file in &incoming.files {
            match &file.used_by {
                UsedBy::Key(key) if key == "nvram" => {
                    nvram = Some(read_small(&*file.opened.storage, MAX_NVRAM_BYTES, "NVRAM")?)
                }
                _ => warnings.push(format!(
                    "{} is not packed: an OVF has no place for it",
                    file.name
                )),
            }
        }
        describe_drives(&mut machine, &disks, &mut warnings);
        let lost = ovf::not_written(&machine).into_iter();
        warnings.extend(lost.map(|what| format!("an OVF has no place for {what}")));
        Ok(Self {
            machine,
            disks,
            nvram,
            stem,
            request,
            copy,
            warnings,
            _held: incoming.held,
        })
    }

    /// Writes one file. The description and the manifest, which come first, get room that is
    /// filled at the end.
    pub(super) fn write_file(self, path: &Path) -> Result<ExportReport> {
        let staged = StagedFolder::new(path, self.request.force)?;
        let contents = self.contents()?;
        let mut writer = OvaWriter::new(
            staged.create_main()?,
            self.request.time,
            self.request.manifest,
        );
        let longest = self.description(&self.longest(), &contents)?.len();
        let ovf = writer.reserve(&self.ovf_name(), longest as u64)?;
        let manifest = match self.manifest(b"", &self.longest()) {
            Some(text) => Some(writer.reserve(&self.manifest_name(), text.len() as u64)?),
            None => None,
        };
        let mut written = Vec::new();
        if let Some(nvram) = &self.nvram {
            writer.put(&self.nvram_name(), nvram)?;
        }
        for disk in &self.disks {
            let member = writer.begin(&disk.href, None)?;
            let data_bytes = self.copy_disk(disk, member, "copy", &self.copy)?;
            let recorded = writer.end()?;
            written.push(Written {
                recorded,
                data_bytes,
            });
        }
        let mut text = self.description(&written, &contents)?.into_bytes();
        if text.len() > longest {
            return Err(Error::invalid("the description is longer than it can be"));
        }
        text.resize(longest, b' ');
        writer.fill(&ovf, &text)?;
        if let (Some(place), Some(lines)) = (manifest, self.manifest(&text, &written)) {
            writer.fill(&place, lines.as_bytes())?;
        }
        writer.finish()?;
        if self.request.verify {
            let ova = Ova::open(staged.reopen_main()?.storage)?;
            verify_package(Package::of_tar(ova, self.copy.cancel)?, &self.copy)?;
        }
        self.copy.cancel.check()?;
        let cleared = staged.cleared().to_vec();
        staged.commit()?;
        Ok(self.report(written, contents, cleared))
    }

    /// Writes into a pipe. Every size must be known before the first byte: the disks are
    /// compressed twice, the first time only to be measured.
    pub(super) fn write_pipe(self, writer: Box<dyn Write + Send>) -> Result<ExportReport> {
        let contents = self.contents()?;
        let mut written = Vec::new();
        for disk in &self.disks {
            let recorder = Arc::new(Recorder::nowhere(&disk.href, self.digest())?);
            let options = CopyOptions {
                rate: None,
                ..self.copy
            };
            let data_bytes =
                self.copy_disk(disk, Arc::clone(&recorder) as _, "measure", &options)?;
            written.push(Written {
                recorded: recorder.end()?,
                data_bytes,
            });
        }
        let pipe = Arc::new(PipeStorage::new("standard output", writer));
        let mut writer = OvaWriter::new(pipe, self.request.time, self.digest());
        let text = self.description(&written, &contents)?.into_bytes();
        writer.put(&self.ovf_name(), &text)?;
        if let Some(lines) = self.manifest(&text, &written) {
            writer.put(&self.manifest_name(), lines.as_bytes())?;
        }
        if let Some(nvram) = &self.nvram {
            writer.put(&self.nvram_name(), nvram)?;
        }
        for (disk, written) in self.disks.iter().zip(&written) {
            let member = writer.begin(&disk.href, Some(written.recorded.size))?;
            self.copy_disk(disk, member, "copy", &self.copy)?;
            if writer.end()? != written.recorded {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    "the disk was changed while it was exported: the OVA is wrong",
                )
                .in_file(&disk.href));
            }
        }
        writer.finish()?;
        Ok(self.report(written, contents, Vec::new()))
    }

    /// Writes a new folder.
    pub(super) fn write_folder(self, folder: &Path) -> Result<ExportReport> {
        let tree = StagedTree::new(folder)?;
        let contents = self.contents()?;
        let mut written = Vec::new();
        for disk in &self.disks {
            let path = tree.path().join(&disk.href);
            let file = std::fs::File::create_new(&path)
                .map_err(|error| Error::io("create", error).in_file(&path))?;
            let storage: Arc<dyn Storage> = Arc::new(FileStorage::from_file(file, &path, true)?);
            let digest = self.request.manifest;
            let recorder = Arc::new(Recorder::onto(Arc::clone(&storage), 0, digest)?);
            let data_bytes =
                self.copy_disk(disk, Arc::clone(&recorder) as _, "copy", &self.copy)?;
            storage.sync()?;
            written.push(Written {
                recorded: recorder.end()?,
                data_bytes,
            });
        }
        if let Some(nvram) = &self.nvram {
            replace_file(&tree.path().join(self.nvram_name()), nvram)?;
        }
        let text = self.description(&written, &contents)?.into_bytes();
        if let Some(lines) = self.manifest(&text, &written) {
            replace_file(&tree.path().join(self.manifest_name()), lines.as_bytes())?;
        }
        let path = tree.path().join(self.ovf_name());
        replace_file(&path, &text)?;
        if self.request.verify {
            let package = Package::of_file(&path, &self.request.open.rules, self.copy.cancel)?;
            verify_package(package, &self.copy)?;
        }
        self.copy.cancel.check()?;
        let cleared = tree.cleared().to_vec();
        tree.commit()?;
        Ok(self.report(written, contents, cleared))
    }

    /// Returns the SHA-256 of what the guest sees of each disk, if it is to be recorded.
    fn contents(&self) -> Result<Vec<(String, [u8; 32])>> {
        if !self.request.record_contents {
            return Ok(Vec::new());
        }
        let mut contents = Vec::new();
        for disk in &self.disks {
            self.copy.progress.phase("hash");
            contents.push((disk.href.clone(), sha256(&*disk.image, &self.copy)?));
        }
        Ok(contents)
    }

    /// Writes a disk and returns how much of it is data.
    fn copy_disk(
        &self,
        disk: &Disk,
        storage: Arc<dyn Storage>,
        phase: &str,
        options: &CopyOptions<'_>,
    ) -> Result<u64> {
        let sink = format_named("vmdk")?.stream(CreateArgs {
            storage,
            name: disk.href.clone(),
            outputs: &MemoryFolder::default(),
            virtual_size: disk.virtual_size,
            parent: None,
            options: CreateOptions {
                subformat: Some("streamOptimized".to_owned()),
                level: self.request.level,
                seed: Some(disk.seed),
                ..CreateOptions::default()
            },
        })?;
        options.progress.phase(phase);
        let report = copy(&*disk.image, sink, disk.virtual_size, options)
            .map_err(|error| error.place(format!("disk {}", disk.node)))?;
        Ok(report.data_bytes)
    }

    /// The digest that tells whether a disk came out the same: of the manifest, if there is one.
    fn digest(&self) -> Option<Algorithm> {
        Some(self.request.manifest.unwrap_or_default())
    }

    fn ovf_name(&self) -> String {
        format!("{}.ovf", self.stem)
    }

    fn nvram_name(&self) -> String {
        format!("{}.nvram", self.stem)
    }

    fn manifest_name(&self) -> String {
        format!("{}.mf", self.stem)
    }

    /// Returns sizes that no disk exceeds, to find out how long a text gets at most.
    fn longest(&self) -> Vec<Written> {
        let longest = Written {
            recorded: Recorded {
                size: u64::MAX,
                digest: self
                    .request
                    .manifest
                    .map(|algorithm| digest(algorithm, b"")),
            },
            data_bytes: u64::MAX,
        };
        vec![longest; self.disks.len()]
    }

    fn description(&self, written: &[Written], contents: &[(String, [u8; 32])]) -> Result<String> {
        let disks = self
            .disks
            .iter()
            .zip(written)
            .map(|(disk, written)| ovf::WrittenDisk {
                id: disk.id.clone(),
                href: disk.href.clone(),
                capacity_bytes: disk.virtual_size,
                size: Some(written.recorded.size),
                populated_bytes: Some(written.data_bytes),
            });
        let disks: Vec<_> = disks.collect();
        let nvram = self.nvram.as_ref().map(|bytes| ovf::WrittenFile {
            href: self.nvram_name(),
            size: bytes.len() as u64,
        });
        let mut text = ovf::write_with_nvram(&self.machine, &disks, nvram.as_ref())?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text += &contents_comment(contents);
        Ok(text)
    }

    /// Returns the manifest's text, if there is to be one.
    fn manifest(&self, description: &[u8], written: &[Written]) -> Option<String> {
        let algorithm = self.request.manifest?;
        let entry = |file: &str, digest: Vec<u8>| ManifestEntry {
            file: file.to_owned(),
            algorithm,
            digest,
        };
        let mut entries = vec![entry(&self.ovf_name(), digest(algorithm, description))];
        if let Some(nvram) = &self.nvram {
            entries.push(entry(&self.nvram_name(), digest(algorithm, nvram)));
        }
        for (disk, written) in self.disks.iter().zip(written) {
            entries.push(entry(&disk.href, written.recorded.digest.clone()?));
        }
        Some(Manifest { entries }.render())
    }

    fn report(
        self,
        written: Vec<Written>,
        contents: Vec<(String, [u8; 32])>,
        cleared: Vec<String>,
    ) -> ExportReport {
        let sha256 = |href: &str| {
            let found = contents.iter().find(|(file, _)| file == href);
            found.map(|(_, digest)| *digest)
        };
        let disks = self
            .disks
            .iter()
            .zip(&written)
            .map(|(disk, written)| ExportedDisk {
                node: disk.node,
                file: disk.href.clone(),
                virtual_size: disk.virtual_size,
                data_bytes: written.data_bytes,
                sha256: sha256(&disk.href),
            });
        ExportReport {
            disks: disks.collect(),
            verified: self.request.verify,
            cleared,
            warnings: self.warnings.clone(),
        }
    }
}

/// Gives disks their ids, takes CDs out of their drives, and says what gets lost.
fn describe_drives(machine: &mut Machine, disks: &[Disk], warnings: &mut Vec<String>) {
    for drive in &mut machine.drives {
        match &mut drive.medium {
            Medium::Disk(medium) => {
                if medium.mode != DiskMode::Persistent || medium.physical {
                    warnings.push(format!(
                        "disk {} is exported like any other: an OVF has no word for {}",
                        drive.node,
                        if medium.physical {
                            "a physical one"
                        } else {
                            medium.mode.name()
                        },
                    ));
                }
                medium.mode = DiskMode::Persistent;
                medium.physical = false;
                medium.format = None;
                if let Some(disk) = disks.iter().find(|disk| disk.node == drive.node) {
                    medium.file.clone_from(&disk.id);
                }
            }
            Medium::CdImage { .. } | Medium::CdDevice { .. } => drive.medium = Medium::CdEmpty,
            _ => {}
        }
    }
}
