//! Writing a machine into a folder of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hako_block::gate::replace_file;
use hako_block::{
    BlockImage, Cancel, Error, ErrorKind, Opened, Result, StagedFolder, StagedTree, is_zero,
};
use hako_formats::DiskFormat;
use hako_formats::machine::{Machine, Medium, Node};
use hako_formats::vmx::Vmx;

use super::incoming::{Blank, Content, Incoming, NewDisk, NewFile, Text, UsedBy};
use super::package::{Check, wrong_size};
use super::unpack::unpack;
use super::{ImportedDisk, envelope};
use crate::copy::{Manner, copy_image};
use crate::settings::{VARIABLES_KEY, VARIABLES_SUFFIX};

/// What was written beside the text.
pub(crate) struct Written {
    text: Text,
    placed: Placed,
    left_out: Vec<Node>,
    /// The disks.
    pub(crate) disks: Vec<ImportedDisk>,
}

/// Writes disks and files, named after `stem`, into the tree. Nothing is committed.
pub(crate) fn write_files(
    incoming: Incoming,
    stem: &str,
    tree: &StagedTree,
    manner: &Manner<'_>,
) -> Result<Written> {
    let mut names = Names::new(stem);
    let mut placed = Placed::default();
    let mut disks = Vec::new();
    for mut disk in incoming.disks {
        let shape = disk.shape.take();
        let shaped = shape.as_ref().map(|shape| manner.shaped(shape));
        let manner = shaped.as_ref().unwrap_or(manner);
        let file = names.disk(manner.format);
        let node = disk.node;
        let (virtual_size, data_bytes) = write_disk(disk, &file, tree, manner)
            .map_err(|error| error.place(format!("disk {node}")))?;
        placed.disks.push((node, file.clone(), manner.format));
        disks.push(ImportedDisk {
            node,
            file,
            virtual_size,
            data_bytes,
        });
    }
    for file in incoming.files {
        let own = names.file(&file);
        copy_file(&file, &tree.path().join(&own), manner.copy.cancel)?;
        placed.files.push((file.used_by, own));
    }
    Ok(Written {
        text: incoming.text,
        placed,
        left_out: incoming.left_out,
        disks,
    })
}

impl Written {
    /// Writes the machine's text.
    pub(crate) fn write_text(
        self,
        name: &str,
        stem: &str,
        tree: &StagedTree,
    ) -> Result<Vec<ImportedDisk>> {
        let (vmx, disks) = self.into_vmx(name)?;
        replace_file(&tree.path().join(format!("{stem}.vmx")), &vmx.to_bytes())?;
        Ok(disks)
    }

    /// Returns the machine's text, and its disks.
    pub(crate) fn into_vmx(self, name: &str) -> Result<(Vmx, Vec<ImportedDisk>)> {
        let vmx = match self.text {
            Text::Machine(machine) => Vmx::new(&placed_in(*machine, name, &self.placed))?,
            Text::Vmx(vmx) => edited(vmx, name, &self.placed, &self.left_out)?,
        };
        Ok((vmx, self.disks))
    }

    /// Returns the machine, with the names of its files as they are now.
    pub(crate) fn machine(&self, name: &str) -> Machine {
        let mut machine = match &self.text {
            Text::Machine(machine) => (**machine).clone(),
            Text::Vmx(vmx) => vmx.machine(),
        };
        let left_out = &self.left_out;
        machine
            .drives
            .retain(|drive| !left_out.contains(&drive.node));
        placed_in(machine, name, &self.placed)
    }
}

/// What files are called in the new folder.
#[derive(Default)]
struct Placed {
    disks: Vec<(Node, String, &'static dyn DiskFormat)>,
    files: Vec<(UsedBy, String)>,
}

impl Placed {
    fn file(&self, used_by: UsedBy) -> Option<&String> {
        let found = self.files.iter().find(|(one, _)| *one == used_by);
        found.map(|(_, name)| name)
    }
}

/// Returns what a machine's disk is called, by its place among them: `web.vmdk`, `web_1.vmdk`.
pub(super) fn disk_name(stem: &str, index: usize, format: &dyn DiskFormat) -> String {
    let extension = format.extensions()[0];
    match index {
        0 => format!("{stem}.{extension}"),
        number => format!("{stem}_{number}.{extension}"),
    }
}

/// Gives names, none twice.
struct Names<'a> {
    stem: &'a str,
    n_disks: usize,
    taken: BTreeSet<String>,
}

impl<'a> Names<'a> {
    fn new(stem: &'a str) -> Self {
        let taken = BTreeSet::from([format!("{stem}.vmx").to_lowercase()]);
        Self {
            stem,
            n_disks: 0,
            taken,
        }
    }

    /// Returns the next disk's.
    fn disk(&mut self, format: &dyn DiskFormat) -> String {
        let name = disk_name(self.stem, self.n_disks, format);
        self.n_disks += 1;
        self.taken.insert(name.to_lowercase());
        name
    }

    /// Returns that of another file: the machine's with its extension, or its own.
    fn file(&mut self, file: &NewFile) -> String {
        let extension = Path::new(&file.name)
            .extension()
            .and_then(|text| text.to_str());
        let base = match extension.filter(|_| file.used_by.is_made_by_products()) {
            Some(_) if file.used_by.is_key(VARIABLES_KEY) => {
                format!("{}{VARIABLES_SUFFIX}", self.stem)
            }
            Some(extension) => format!("{}.{extension}", self.stem),
            None => file.name.trim_start_matches('.').to_owned(),
        };
        let mut name = base.clone();
        let mut number = 1;
        while name.is_empty() || !self.taken.insert(name.to_lowercase()) {
            name = format!("{number}-{base}");
            number += 1;
        }
        name
    }
}

/// Copies a disk while its file is compared with the manifest; returns its virtual size and how
/// much of it is data.
fn write_disk(
    disk: NewDisk,
    file: &str,
    tree: &StagedTree,
    manner: &Manner<'_>,
) -> Result<(u64, u64)> {
    if let Content::Arrived(arrived) = &disk.content {
        return match arrived.file == file {
            true => Ok((arrived.virtual_size, arrived.data_bytes)),
            false => Err(Error::invalid(format!("was written as {}", arrived.file)).in_file(file)),
        };
    }
    let is_failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let checks = &disk.checks;
        let failed = &is_failed;
        let checking = scope.spawn(move || run_checks(checks, failed, manner.copy.cancel));
        let delivered = source_of(disk.content, tree, manner).and_then(|source| {
            copy_image(&*source, disk.capacity, &tree.path().join(file), manner)
        });
        // What stumbled over damage waits for what the manifest says of it.
        let is_elsewhere = |error: &Error| error.kind() != ErrorKind::Corrupt;
        is_failed.store(
            delivered.as_ref().is_err_and(is_elsewhere),
            Ordering::Relaxed,
        );
        let checked = checking
            .join()
            .unwrap_or_else(|_| Err(Error::invalid("a thread ended before its time")));
        // Of a damaged file the manifest tells more than what stumbled over the damage.
        match (delivered, checked) {
            (_, Err(error)) if error.kind() == ErrorKind::Mismatch => Err(error),
            (Ok(sizes), Ok(())) => Ok(sizes),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    })
}

/// Runs the checks, unless the copy fails for another reason.
fn run_checks(checks: &[Check], is_failed: &AtomicBool, cancel: &Cancel) -> Result<()> {
    let go_on = || match is_failed.load(Ordering::Relaxed) {
        true => Err(Error::cancelled()),
        false => cancel.check(),
    };
    checks.iter().try_for_each(|check| check.run_while(&go_on))
}

fn source_of(
    content: Content,
    tree: &StagedTree,
    manner: &Manner<'_>,
) -> Result<Arc<dyn BlockImage>> {
    match content {
        Content::Image(image) => Ok(image),
        Content::Empty(capacity) => Ok(Arc::new(Blank::new(capacity))),
        Content::Arrived(_) => Err(Error::invalid("is written already")),
        Content::Packed {
            opened,
            size,
            capacity,
        } => {
            let stored = opened.storage.len_bytes()?;
            // Any format's own structures take less than a sixteenth, and what is small at most so much.
            let most = capacity
                .saturating_add(capacity / 16)
                .saturating_add(64 << 20);
            let reports = (manner.copy.progress, manner.copy.cancel);
            let plain = unpack(&*opened.storage, tree.path(), most, reports)?;
            let len = plain.len_bytes()?;
            if let Some(size) = size
                && size != stored
                && size != len
            {
                return Err(wrong_size(opened.storage.name(), stored, size));
            }
            let name = opened
                .name
                .strip_suffix(".gz")
                .unwrap_or(&opened.name)
                .to_owned();
            match envelope::open(Opened {
                storage: plain,
                name,
                resolver: opened.resolver,
            })? {
                Content::Image(image) => Ok(image),
                _ => Err(Error::invalid("is no image")),
            }
        }
    }
}

/// Copies a file as it is, blocks of zeros left out, once it is what the manifest says.
fn copy_file(file: &NewFile, path: &Path, cancel: &Cancel) -> Result<()> {
    const PIECE_BYTES: u64 = 1 << 16;
    for check in &file.checks {
        check.run(cancel)?;
    }
    let staged = StagedFolder::new(path, false)?;
    let to = staged.create_main()?;
    let from = &file.opened.storage;
    let len = from.len_bytes()?;
    let mut buffer = vec![0; PIECE_BYTES as usize];
    let mut offset = 0;
    while offset < len {
        cancel.check()?;
        let piece = &mut buffer[..(len - offset).min(PIECE_BYTES) as usize];
        from.read_at(offset, piece)?;
        if !is_zero(piece) {
            to.write_at(offset, piece)?;
        }
        offset += piece.len() as u64;
    }
    to.set_len(len)?;
    to.sync()?;
    staged.commit()
}

/// Returns the machine with its files' new names.
fn placed_in(mut machine: Machine, name: &str, placed: &Placed) -> Machine {
    machine.name = name.to_owned();
    for drive in &mut machine.drives {
        match &mut drive.medium {
            Medium::Disk(disk) => {
                let found = placed.disks.iter().find(|(node, ..)| *node == drive.node);
                if let Some((_, file, format)) = found {
                    disk.file.clone_from(file);
                    disk.format = recorded_format(*format);
                }
            }
            Medium::CdImage { file } => {
                if let Some(name) = placed.file(UsedBy::Drive(drive.node)) {
                    file.clone_from(name);
                }
            }
            _ => {}
        }
    }
    machine
}

/// Returns a text in which nothing but names of files has changed.
fn edited(mut vmx: Vmx, name: &str, placed: &Placed, left_out: &[Node]) -> Result<Vmx> {
    for node in left_out {
        vmx.remove_drive(*node)?;
    }
    if vmx.machine().name != name {
        vmx.set_name(name)?;
    }
    for (node, file, format) in &placed.disks {
        vmx.set_drive_file(*node, file)?;
        let key = format!("hako.{node}.format");
        match recorded_format(*format) {
            Some(format) => vmx.set(&key, &format)?,
            None if vmx.dictionary().value(&key).is_some() => {
                vmx.remove(&key)?;
            }
            None => {}
        }
    }
    for (used_by, file) in &placed.files {
        match used_by {
            UsedBy::Drive(node) => vmx.set_drive_file(*node, file)?,
            UsedBy::Key(key) => vmx.set(key, file)?,
        }
    }
    Ok(vmx)
}

/// Returns what a text records of the format of a disk: nothing for a VMDK.
fn recorded_format(format: &dyn DiskFormat) -> Option<String> {
    (format.name() != "vmdk").then(|| format.name().to_owned())
}
