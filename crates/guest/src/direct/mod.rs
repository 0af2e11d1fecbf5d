//! Booting a guest's kernel without its firmware and boot loader: the kernel, the initrd and the
//! command line of one of its entries, and behind the initrd an archive with those of the guest's
//! own modules that the virtual hardware needs and the initrd lacks. Nothing on the disk changes.
//!
//! Linux takes any number of archives one after the other, and a later file replaces an earlier one:
//! with the modules go the guest's own index files, unchanged, and udev in the initrd loads what the
//! hardware asks for as it would have loaded anything.

mod append;
mod initrd;
mod tail;
#[cfg(test)]
mod tests;

use hako_block::{Error, ErrorKind, Result};

pub use append::OverlaidFile;
use initrd::ENDED;
pub use initrd::Initrd;

use crate::boot::{Entry, Image, Loader, Menu};
use crate::drivers::{Hardware, Index, Whereabouts, find};
use crate::initrd::{Contents, Limits, Tool};
use crate::os::image_version;
use crate::root::Root;
use tail::Tail;

/// What is to be booted, on what.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// The place of the entry in the menu; without it the one that boots if nobody chooses.
    pub entry: Option<usize>,
    /// The hardware that the machine has.
    pub hardware: &'a [Hardware],
    /// Whether the kernel is to use the first serial port as its console.
    pub serial_console: bool,
}

/// What is handed to an engine.
pub struct DirectBoot {
    /// The title of the entry.
    pub title: String,
    /// The kernel.
    pub kernel: Image,
    /// Its version; empty if it cannot be told.
    pub version: String,
    /// The initrd; none if the entry has none.
    pub initrd: Option<Initrd>,
    /// The command line.
    pub options: String,
    /// Where the kernel finds the driver of each hardware, before anything was appended.
    pub drivers: Vec<(Hardware, Whereabouts)>,
    /// What the user should know: each thing that is appended, and what is missing.
    pub messages: Vec<String>,
    is_unified: bool,
}

/// How long a command line Linux reads on x86, its NUL not counted (`COMMAND_LINE_SIZE`).
const LONGEST_OPTIONS: usize = 2047;

impl DirectBoot {
    /// Says how to boot an entry of a guest's menu. `root` is its installed system, for the modules;
    /// without it nothing can be appended.
    ///
    /// Errors: [`ErrorKind::NotFound`] for a menu without entries, [`ErrorKind::Invalid`] for an
    /// entry that it does not have, [`ErrorKind::Unsupported`] for one that starts no Linux kernel,
    /// and where something would have to be appended and cannot be: to a unified kernel image (it is
    /// signed as a whole), to an initrd that would not look at it.
    pub fn plan(root: Option<&Root>, menu: &Menu, request: &Request<'_>) -> Result<Self> {
        let entry = chosen(menu, request.entry)?;
        let kernel = kernel_of(entry)?;
        let mut plan = Self {
            title: entry.title.clone(),
            version: version_of(&kernel),
            initrd: Initrd::of(&entry.initrds),
            options: options_of(entry, request)?,
            drivers: Vec::new(),
            messages: Vec::new(),
            is_unified: entry.loader == Loader::Uki,
            kernel,
        };
        if plan.options.len() > LONGEST_OPTIONS {
            let len = plan.options.len();
            let message =
                format!("the command line has {len} bytes: Linux reads {LONGEST_OPTIONS}");
            plan.messages.push(message);
        }
        if let Some(root) = root {
            plan.complete(root, request.hardware)?;
        }
        Ok(plan)
    }

    /// Appends an archive (see [`crate::cpio::Writer`]) to the initrd: its files replace those that
    /// are there. Errors: [`ErrorKind::Unsupported`] for a unified kernel image, and for an entry
    /// without an initrd.
    pub fn append(&mut self, archive: &[u8]) -> Result<()> {
        if self.is_unified {
            return Err(Error::unsupported(UNIFIED));
        }
        match &mut self.initrd {
            Some(initrd) => initrd.append(archive).map(drop),
            None => Err(Error::unsupported("the entry has no initrd to append to")),
        }
    }

    /// Finds out which drivers are missing, and appends them.
    fn complete(&mut self, root: &Root, hardware: &[Hardware]) -> Result<()> {
        let (index, contents) = match known(root, &self.version, self.initrd.as_ref()) {
            Ok(known) => known,
            Err(message) => {
                self.messages.push(message);
                return Ok(());
            }
        };
        let can_follow = match (&mut self.initrd, &contents) {
            (Some(initrd), Some(contents)) => initrd.prepare(contents, &self.version),
            _ => true,
        };
        self.drivers = whereabouts(&index, contents.as_ref(), hardware);
        let mut missing = Vec::new();
        for &(one, place) in &self.drivers {
            match place {
                Whereabouts::Modules if one.is_for_root() => missing.push(one),
                Whereabouts::Nowhere => {
                    let message = format!("the kernel has no driver for {}", one.name());
                    self.messages.push(message);
                }
                _ => (),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = missing.iter().map(|one| one.name()).collect();
        let lacks = format!("the initrd has no driver for {}", names.join(", "));
        if self.is_unified {
            return Err(refused(format!("{lacks}, and {UNIFIED}")));
        }
        let (Some(initrd), Some(contents)) = (&mut self.initrd, contents) else {
            self.messages
                .push(format!("{lacks}: there is none to append them to"));
            return Ok(());
        };
        if contents.tool() == Tool::Booster {
            return Err(refused(format!("{lacks}, and {BOOSTER}")));
        }
        if !can_follow {
            return Err(refused(format!("{lacks}, and {ENDED}")));
        }
        let made = append::archive(root, &index, &contents, &missing, &[])?;
        initrd.append(&made.archive)?;
        self.messages.extend(made.messages);
        Ok(())
    }
}

/// What is known of the drivers of a boot entry's kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryDrivers {
    /// The kernel's version; empty if it cannot be told.
    pub version: String,
    /// What made the initrd; none if there is none.
    pub tool: Option<Tool>,
    /// Where the kernel finds the driver of each hardware.
    pub drivers: Vec<(Hardware, Whereabouts)>,
}

/// What the initrd of a boot entry lacks for some hardware.
pub struct Appendix {
    /// The file that it goes behind: the last one of the entry's initrds.
    pub initrd: Image,
    /// What is to be written right behind that file; none if nothing is missing.
    pub bytes: Option<Vec<u8>>,
    /// What is in it, and what the kernel has no driver for at all.
    pub messages: Vec<String>,
}

/// Says what is to be written behind the initrd of an entry so that the kernel finds its root on this
/// hardware, and the files that `overlay` wants to be in it, which is shown what it holds.
///
/// Errors: [`ErrorKind::Unsupported`] for an entry that starts no Linux kernel or has no initrd, where
/// that or the modules cannot be read, and where something is missing and cannot be appended: to a
/// unified kernel image, to what has to be unpacked first.
pub fn appendix(
    root: &Root,
    entry: &Entry,
    hardware: &[Hardware],
    overlay: &mut dyn FnMut(&Contents) -> Vec<OverlaidFile>,
) -> Result<Appendix> {
    let version = version_of(&kernel_of(entry)?);
    let initrd = Initrd::of(&entry.initrds);
    let (Some(mut initrd), Some(last)) = (initrd, entry.initrds.last()) else {
        return Err(Error::unsupported(format!(
            "boot entry {:?} has no initrd",
            entry.title
        )));
    };
    let (index, contents) = known(root, &version, Some(&initrd)).map_err(Error::unsupported)?;
    let mut appendix = Appendix {
        initrd: last.clone(),
        bytes: None,
        messages: Vec::new(),
    };
    let Some(contents) = contents else {
        return Ok(appendix);
    };
    let mut missing = Vec::new();
    for (one, place) in whereabouts(&index, Some(&contents), hardware) {
        match place {
            Whereabouts::Modules if one.is_for_root() => missing.push(one),
            Whereabouts::Nowhere => {
                let message = format!("the kernel has no driver for {}", one.name());
                appendix.messages.push(message);
            }
            _ => (),
        }
    }
    let files = overlay(&contents);
    if missing.is_empty() && files.is_empty() {
        return Ok(appendix);
    }
    if let Some(why) = refusal(entry, &contents) {
        let lacks = missing.iter().map(|one| one.name().to_owned());
        let lacks: Vec<String> = lacks
            .chain(files.into_iter().map(|file| file.path))
            .collect();
        let what = format!("it lacks {}, and {why}", lacks.join(", "));
        return Err(Error::unsupported(what));
    }
    if !initrd.prepare(&contents, &version) {
        return Err(Error::unsupported(ENDED));
    }
    let made = append::archive(root, &index, &contents, &missing, &files)?;
    appendix.bytes = Some(initrd.append(&made.archive)?);
    appendix.messages.extend(made.messages);
    Ok(appendix)
}

/// Returns the bytes that bring an archive behind an initrd of so many bytes. Errors:
/// [`ErrorKind::Unsupported`] if nothing can follow it.
pub fn following(contents: &Contents, len_bytes: u64, archive: &[u8]) -> Result<Vec<u8>> {
    let mut tail = Tail::of(contents, len_bytes, "").ok_or_else(|| Error::unsupported(ENDED))?;
    Ok(tail.following(len_bytes, archive))
}

/// Says why nothing goes into the initrd of an entry, if that is so.
fn refusal(entry: &Entry, contents: &Contents) -> Option<&'static str> {
    match contents.tool() {
        _ if entry.loader == Loader::Uki => Some(UNIFIED),
        Tool::Booster => Some(BOOSTER),
        _ => None,
    }
}

/// Says where the kernel of an entry finds drivers. Errors: [`ErrorKind::Unsupported`] for an entry
/// that starts no Linux kernel, or whose initrd or modules cannot be read.
pub fn drivers_of(root: &Root, entry: &Entry, hardware: &[Hardware]) -> Result<EntryDrivers> {
    let version = version_of(&kernel_of(entry)?);
    let initrd = Initrd::of(&entry.initrds);
    let (index, contents) = known(root, &version, initrd.as_ref()).map_err(Error::unsupported)?;
    Ok(EntryDrivers {
        tool: contents.as_ref().map(Contents::tool),
        drivers: whereabouts(&index, contents.as_ref(), hardware),
        version,
    })
}

fn whereabouts(
    index: &Index,
    contents: Option<&Contents>,
    hardware: &[Hardware],
) -> Vec<(Hardware, Whereabouts)> {
    let found = hardware
        .iter()
        .map(|&one| (one, find(index, contents, one)));
    found.collect()
}

/// Reads the index of a kernel's modules, and the initrd; else says why that cannot be done.
fn known(
    root: &Root,
    version: &str,
    initrd: Option<&Initrd>,
) -> std::result::Result<(Index, Option<Contents>), String> {
    let index = Index::read(&root.tree, version)
        .map_err(|error| format!("the modules of the kernel {version:?} are not known: {error}"))?;
    let contents = initrd.map(|initrd| Contents::read(&mut initrd.reader(), &Limits::default()));
    let contents = contents
        .transpose()
        .map_err(|error| format!("the initrd cannot be read, and is used as it is: {error}"))?;
    Ok((index, contents))
}

/// Why nothing goes into an initrd of booster's.
const BOOSTER: &str = "booster made it, whose init loads only what it was made with";
/// Why nothing goes into a unified kernel image.
const UNIFIED: &str = "nothing is appended to a unified kernel image: it is signed as a whole";

fn refused(what: String) -> Error {
    Error::unsupported(what)
        .hint("start it through its firmware, or give the machine a controller that it knows")
}

fn chosen(menu: &Menu, wanted: Option<usize>) -> Result<&Entry> {
    let n_entries = menu.entries.len();
    match wanted {
        Some(at) => menu.entries.get(at).ok_or_else(|| {
            let what = format!("no boot entry {at}: there are {n_entries}, counted from 0");
            Error::invalid(what)
        }),
        None => menu
            .default_entry()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no boot entry is on the disks")),
    }
}

fn kernel_of(entry: &Entry) -> Result<Image> {
    let cannot = |why: &str| Error::unsupported(format!("boot entry {:?}: {why}", entry.title));
    match (&entry.kernel, &entry.trouble) {
        (_, Some(trouble)) => Err(cannot(trouble)),
        (Some(kernel), None) => Ok(kernel.clone()),
        (None, None) => Err(cannot("it starts no Linux kernel")),
    }
}

/// Returns the version of a kernel: what the image says, else what its name ends in.
fn version_of(kernel: &Image) -> String {
    image_version(&kernel.blob).unwrap_or_else(|| {
        let name = kernel.path.rsplit('/').next().unwrap_or_default();
        let version = name.split_once('-').map(|(_, version)| version);
        version.unwrap_or_default().to_owned()
    })
}

fn options_of(entry: &Entry, request: &Request<'_>) -> Result<String> {
    let mut options = entry.options.clone();
    if options.contains(['\0', '\n']) {
        let what = "its command line has characters that none may have";
        return Err(Error::corrupt(entry.source.clone(), what));
    }
    let mut words = options.split_ascii_whitespace();
    let has_console = words.any(|word| word == SERIAL || word.starts_with("console=ttyS0,"));
    if request.serial_console && !has_console {
        options = format!("{options} {SERIAL}").trim_start().to_owned();
    }
    Ok(options)
}

/// What makes the first serial port the console.
const SERIAL: &str = "console=ttyS0";
