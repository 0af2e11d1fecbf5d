//! A script in the guest's own mounted root, run by the guest's own kernel: how a guest whose file
//! systems we only read repairs itself.
//!
//! The guest's kernel is started with its initrd and one more archive behind that. A hook in the
//! archive is called once the initrd has mounted the root, and never returns: it runs the script
//! there (`chroot`), says on the second serial port what came of it, and switches the machine off. The
//! first serial port stays the console, where a passphrase may be asked for.
//!
//! Only the root is mounted, and `/usr` if the initrd does that: a script mounts what else it needs,
//! whose volumes are there. Known initrds: initramfs-tools and dracut. SELinux is switched off, so
//! that labels are attributes like others (`chcon`); what gets none needs the guest to relabel
//! (`touch /.autorelabel`). A key of LUKS that is no text, and one that only a TPM has, cannot be given.

mod archive;
mod talk;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hako_block::gate::replace_file;
use hako_block::{BlockImage, Cancel, Chain, Error, ErrorKind, Result, Uuid};
use hako_formats::machine::{DiskMedium, Drive, Medium, Node};
use hako_formats::vmx::Vmx;
use hako_guest::initrd::{Contents, Limits};

use super::super::disks::name_of;
use super::super::scratch::Scratch;
use super::super::{End, Event, Events, Launcher, RunFolder};
use super::plan::{Backend, Kernel, Loaded, Source};
use super::served::{Serving, socket_name};
use super::{Place, Prepared, Qemu, direct};
use talk::{Console, Report};

/// How long a guest may take to go off once its verdict is known.
const PARTING: Duration = Duration::from_secs(30);

/// What is not taken over from the guest's command line: nobody is there to answer a shell, a screen
/// hides what is asked, and a server had more memory.
const UNWANTED: &[&str] = &[
    "break=",
    "console=",
    "crashkernel=",
    "default_hugepagesz=",
    "enforcing=",
    "hugepages",
    "mem=",
    "memmap=",
    "panic=",
    "rd.break",
    "rd.shell",
    "rdinit=",
    "resume",
    "rhgb",
    "security=",
    "selinux=",
    "splash",
];

/// What is to be run in a guest.
pub struct GuestScript<'a> {
    /// The guest's hardware. Its disks are replaced by `disks`; it has no network.
    pub vmx: &'a Vmx,
    /// Its disks.
    pub disks: BTreeMap<Node, Arc<dyn BlockImage>>,
    /// Whether what is written to them is thrown away.
    pub discard_writes: bool,
    /// Its kernel.
    pub kernel: &'a [u8],
    /// The initrd of that kernel.
    pub initrd: &'a [u8],
    /// The kernel's command line, as its boot loader gives it.
    pub cmdline: &'a str,
    /// What `/bin/sh` of the guest runs in its root. Files are in `/run/hako/files`.
    pub script: &'a str,
    /// Files for the script: names without `/`, and what is in them.
    pub files: &'a [(&'a str, &'a [u8])],
    /// What opens the guest's encrypted disks (LUKS), if it asks.
    pub passphrase: Option<&'a str>,
    /// How long all of it may take.
    pub limit: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The script's exit status.
    pub status: u8,
    /// What it has printed, on standard output and standard error.
    pub output: String,
    /// Whether the root was written out and read-only again before the machine went off.
    pub is_clean: bool,
}

/// Where a guest runs.
pub struct ScriptSite<'a> {
    /// Where its sockets and files belong: a folder that nobody else uses.
    pub folder: &'a RunFolder,
    /// Starts programs that end with this process.
    pub launcher: &'a Launcher,
    /// Asks to give up.
    pub cancel: &'a Cancel,
}

impl Qemu {
    /// Runs a script in a guest, and switches that off. On an error the script may have run to any
    /// place: give it a copy, or `discard_writes`, where that would matter.
    ///
    /// Errors: [`ErrorKind::Unsupported`] for an initrd of a kind that is not known;
    /// [`ErrorKind::Io`] if the guest does not get to its root, with the end of what its console
    /// said, or takes too long; [`ErrorKind::Cancelled`].
    pub fn run_script(&self, script: &GuestScript<'_>, site: &ScriptSite<'_>) -> Result<Verdict> {
        let contents = Contents::read(&mut &*script.initrd, &Limits::default())?;
        let nonce = Uuid::random().to_string();
        let archive = archive::build(script, &contents, &nonce)?;
        let report = site.folder.socket("script.sock")?;
        let _ = std::fs::remove_file(&report);
        let failed = |error| Error::io("listen", error).in_file(&report);
        let listener = UnixListener::bind(&report).map_err(failed)?;
        let kernel = write_boot_files(script, &archive, site.folder)?;
        let mut prepared = prepare(script, site.folder)?;
        prepared.kernel = Some(kernel);
        let path = report.clone();
        prepared.serial.insert(
            1,
            Backend::Pipe {
                path,
                server: false,
            },
        );
        prepared.is_once = true;
        let (send, events) = channel();
        let send = Mutex::new(send);
        let events_of_machine = Events::new(move |event| {
            if let Ok(send) = send.lock() {
                let _ = send.send(event);
            }
        });
        let place = Place {
            folder: site.folder,
            launcher: site.launcher,
            cancel: site.cancel,
        };
        let deadline = Instant::now() + script.limit;
        let mut running = self.run(prepared, &place, &events_of_machine)?;
        direct::remove(site.folder);
        let mut report = Report::new(
            running.process.accept(&listener, site.cancel, PARTING)?,
            &nonce,
        )?;
        let mut console = Console::new(running.console.take(), script.passphrase)?;
        let mut ended = None;
        let verdict = loop {
            site.cancel.check()?;
            console.listen()?;
            if let Some(verdict) = report.listen()? {
                break verdict;
            }
            // What was said before the end is still to be heard.
            if let Some(end) = &ended {
                return Err(console.error(&format!("the guest went off without a verdict{end}")));
            }
            ended = events.try_iter().find_map(end_of);
            if Instant::now() > deadline {
                let what = match report.has_begun() {
                    true => "the script took too long",
                    false => "the guest took too long to get to its root",
                };
                return Err(console.error(what));
            }
        };
        let deadline = Instant::now() + PARTING;
        while ended.is_none() && Instant::now() < deadline {
            console.listen()?;
            ended = events.try_iter().find_map(end_of);
        }
        drop(running);
        match ended.or_else(|| events.try_iter().find_map(end_of)) {
            Some(end) if !end.is_empty() => {
                Err(console.error(&format!("the guest ended badly{end}")))
            }
            _ => Ok(verdict),
        }
    }
}

/// Returns what was wrong with a machine's end; nothing if it just went off.
fn end_of(event: Event) -> Option<String> {
    match event {
        Event::Off(End::Failed(why)) => Some(format!(": {why}")),
        Event::Off(_) => Some(String::new()),
        _ => None,
    }
}

/// The kernel and the initrd with the archive behind it, in the folder of the run.
fn write_boot_files(
    script: &GuestScript<'_>,
    archive: &[u8],
    folder: &RunFolder,
) -> Result<Kernel> {
    let (kernel, initrd) = (folder.file(direct::KERNEL), folder.file(direct::INITRD));
    replace_file(&kernel, script.kernel)?;
    let mut bytes = script.initrd.to_vec();
    // An archive begins at a multiple of 4 bytes; zeros may be between two.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(archive);
    replace_file(&initrd, &bytes)?;
    let cmdline = script.cmdline.split_whitespace();
    let is_wanted = |word: &&str| !UNWANTED.iter().any(|name| word.starts_with(name));
    let mut words: Vec<&str> = cmdline.filter(is_wanted).collect();
    words.extend([
        "console=ttyS0",
        "panic=5",
        "rd.shell=0",
        "rd.emergency=poweroff",
        "plymouth.enable=0",
        "selinux=0",
        // What was asleep when it was copied is not woken up.
        "noresume",
        // A host that is busy is late with the ticks of an emulated timer.
        "no_timer_check",
    ]);
    Ok(Kernel {
        kernel,
        initrd: Some(initrd),
        cmdline: words.join(" "),
    })
}

/// The machine: its controllers and its disks, nothing else.
fn prepare(script: &GuestScript<'_>, folder: &RunFolder) -> Result<Prepared> {
    let mut machine = script.vmx.machine();
    machine.nics.clear();
    machine.serial_ports.clear();
    machine.drives.clear();
    let mut prepared = Prepared {
        keys: script.vmx.dictionary().clone(),
        ..Prepared::new(machine)
    };
    for (node, image) in &script.disks {
        let name = name_of(*node);
        let socket = folder.socket(&socket_name(&name))?;
        let image = match script.discard_writes {
            true => over(image, folder.path())?,
            false => Arc::clone(image),
        };
        let source = Source::Nbd {
            socket,
            writable: true,
        };
        prepared.media.insert(
            *node,
            Loaded {
                source,
                serial: None,
            },
        );
        prepared.serving.push(Serving {
            name,
            image,
            writable: true,
        });
        prepared.machine.drives.push(Drive {
            node: *node,
            medium: Medium::Disk(DiskMedium {
                file: node.to_string(),
                ..DiskMedium::default()
            }),
            connected: true,
        });
    }
    Ok(prepared)
}

/// Returns a disk over another that stays as it is.
fn over(image: &Arc<dyn BlockImage>, folder: &Path) -> Result<Arc<dyn BlockImage>> {
    let scratch = Scratch::new(image.info().virtual_size, folder)?;
    let layers: Vec<Arc<dyn BlockImage>> = vec![Arc::new(scratch), Arc::clone(image)];
    Ok(Arc::new(Chain::new(layers)?))
}

/// Returns the error of a guest that asks for what nobody has given.
fn locked() -> Error {
    Error::new(
        ErrorKind::Invalid,
        "the guest asks for the passphrase of an encrypted disk",
    )
    .hint("--key FILE gives it")
}
