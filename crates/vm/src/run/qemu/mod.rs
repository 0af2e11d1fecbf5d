//! The QEMU engine: a machine as its VMX says, in a QEMU process that this one drives over QMP and
//! that ends with it.
//!
//! ```text
//! plan         the command line, a pure function of what follows
//! media        the images in the drives; served    those that QEMU gets over our NBD
//! connections  what serial ports lead to;          firmware, host    what the host has
//! direct       a kernel out of the guest's disk;   script            one that runs a script in it
//! trial        a boot that leaves nothing behind;  passphrase        what either types
//! qmp, machine driving it
//! ```

mod connections;
mod direct;
mod dump;
mod firmware;
mod host;
mod machine;
mod media;
mod passphrase;
mod plan;
mod qmp;
mod script;
mod served;
mod trial;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hako_block::{Cancel, Error, Result, Storage};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Firmware, Machine as Hardware, Node};
use serde_json::json;

use self::dump::Listener;
use self::machine::{Running, Watch};
use self::plan::{Backend, CommandLine, Flash, Kernel, Loaded, Sockets, Wanted};
use self::qmp::Qmp;
use self::served::{Served, Serving};
use super::cards::seed;
use super::fitness::refuse_encrypted;
use super::kernel::KernelFiles;
use super::process::Process;
use super::{Boot, Engine, Events, Facts, Launcher, Machine, RunFolder, Start};
use crate::settings::VARIABLES_KEY;

pub use self::passphrase::QUESTIONS;
pub use self::script::{GuestScript, ScriptSite, Verdict};
pub use self::trial::{Examiner, Heard, Trial};

/// How long QEMU may take until it can be talked to.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// The oldest QEMU that is driven.
const OLDEST: (u64, u64) = (7, 2);

/// The QEMU engine.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// Programs to use, the first that is there: names are looked for as usual.
    pub programs: Vec<PathBuf>,
    /// Folders with descriptions of firmware, the most important first.
    pub firmware_folders: Vec<PathBuf>,
}

impl Default for Qemu {
    fn default() -> Self {
        Self {
            programs: host::usual_programs(),
            firmware_folders: host::usual_firmware_folders(),
        }
    }
}

impl Engine for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn start(&self, start: Start<'_>) -> Result<Box<dyn Machine>> {
        let prepared = self.prepare(&start)?;
        let place = Place {
            folder: start.folder,
            launcher: start.launcher,
            cancel: start.cancel,
        };
        let running = self.run(prepared, &place, &start.events)?;
        direct::remove(start.folder);
        Ok(Box::new(running))
    }
}

/// A machine with all that its command line is made of, but for what the host has.
struct Prepared {
    machine: Hardware,
    keys: Dictionary,
    media: BTreeMap<Node, Loaded>,
    floppy: Option<Loaded>,
    serving: Vec<Serving>,
    serial: BTreeMap<u8, Backend>,
    flash: Option<Flash>,
    kernel: Option<Kernel>,
    seed: [u8; 3],
    notes: Vec<String>,
    /// Whether the kernel is of the guest's own disk.
    is_direct: bool,
    /// Whether a reset is the end.
    is_once: bool,
    /// Whether nothing leads in or out of it.
    is_isolated: bool,
}

impl Prepared {
    fn new(machine: Hardware) -> Self {
        Self {
            machine,
            keys: Dictionary::new(),
            media: BTreeMap::new(),
            floppy: None,
            serving: Vec::new(),
            serial: BTreeMap::new(),
            flash: None,
            kernel: None,
            seed: [0; 3],
            notes: Vec::new(),
            is_direct: false,
            is_once: false,
            is_isolated: false,
        }
    }
}

/// Where a machine runs.
struct Place<'a> {
    folder: &'a RunFolder,
    launcher: &'a Launcher,
    cancel: &'a Cancel,
}

impl Qemu {
    /// Opens what a machine is made of, as its VMX and the user want it.
    fn prepare(&self, start: &Start<'_>) -> Result<Prepared> {
        let mut machine = start.vm.vmx.machine();
        let mut notes = start.notes.clone();
        refuse_encrypted(start.vm, &mut notes)?;
        media::insert(&mut machine, start.vm, &start.options.cdroms)?;
        let media = media::open(start.vm, &machine, start.options, start.folder)?;
        notes.extend(media.warnings);
        let (serial, warnings) = connections::of(start.vm);
        notes.extend(warnings);
        let kernel = match start.options.boot {
            Boot::Direct { entry } => {
                let (kernel, told) = direct::kernel(start.vm, &machine, entry, start.folder)?;
                notes.extend(told);
                Some(kernel)
            }
            _ => KernelFiles::of(start.vm, &machine, &start.options.boot)?.map(Kernel::from),
        };
        Ok(Prepared {
            keys: start.vm.vmx.dictionary().clone(),
            media: media.loaded,
            floppy: media.floppy,
            serving: media.serving,
            serial,
            flash: match kernel {
                None => self.flash(&machine, start)?,
                Some(_) => None,
            },
            kernel,
            is_direct: matches!(start.options.boot, Boot::Direct { .. }),
            seed: seed(start.vm.path()),
            notes,
            ..Prepared::new(machine)
        })
    }

    /// Starts a machine.
    fn run(&self, prepared: Prepared, place: &Place<'_>, events: &Events) -> Result<Running> {
        let (program, types) = host::qemu(&self.programs)?;
        let (accelerator, slow) = host::accelerator();
        let sockets = Sockets {
            qmp: place.folder.socket("qmp.sock")?,
            console: place.folder.socket("serial.sock")?,
            vnc: place.folder.socket("vnc.sock")?,
            frames: place.folder.path().to_owned(),
        };
        let mut line = plan::command_line(&Wanted {
            machine: &prepared.machine,
            keys: &prepared.keys,
            accelerator,
            types: &types,
            media: &prepared.media,
            floppy: prepared.floppy,
            serial: prepared.serial,
            flash: prepared.flash,
            kernel: prepared.kernel,
            sockets,
            now: now(),
            seed: prepared.seed,
            is_isolated: prepared.is_isolated,
        })?;
        if prepared.is_once {
            line.args
                .extend(["-action", "reboot=shutdown"].map(Into::into));
        }
        let mut notes: Vec<String> = slow.into_iter().collect();
        notes.extend(prepared.notes);
        notes.append(&mut line.warnings);
        let served = Served::begin(prepared.serving, place.folder, events)?;
        let facts = Facts {
            engine: "qemu".to_owned(),
            accelerator: accelerator.name().to_owned(),
            pid: 0,
            vnc: Some(line.vnc.clone()),
            direct_boot: prepared.is_direct,
            notes,
        };
        let command = place.launcher.command(&program);
        launch(command, line, served, facts, place, events)
    }

    /// Returns the firmware of a machine with UEFI.
    fn flash(&self, machine: &Hardware, start: &Start<'_>) -> Result<Option<Flash>> {
        if machine.firmware != Firmware::Efi {
            return Ok(None);
        }
        let found = firmware::find(&self.firmware_folders, machine.secure_boot)?;
        let own = start.vm.settings_target(VARIABLES_KEY)?;
        let own = start.vm.folder().join(own);
        let flash = match start.options.discard_writes {
            true => found.with_copy(&own, &start.folder.file("efivars.fd")),
            false => found.with_variables(&own),
        };
        flash.map(Some)
    }
}

/// Starts QEMU and lets the guest go.
fn launch(
    mut command: Command,
    line: CommandLine,
    served: Served,
    facts: Facts,
    place: &Place<'_>,
    events: &Events,
) -> Result<Running> {
    let listen = |name: &str| {
        let path = place.folder.socket(name)?;
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path);
        listener.map_err(|error| Error::io("listen", error).in_file(path))
    };
    let (qmp, console) = (listen("qmp.sock")?, listen("serial.sock")?);
    let cards = line.cards.iter();
    let listeners = cards
        .map(|(node, (mac, pipe))| Listener::new(node.clone(), mac.0, pipe))
        .collect::<Result<Vec<_>>>()?;
    let log = place.folder.file("qemu.log");
    command.args(&line.args);
    let watch = Watch::new(events.clone());
    let after = machine::after(watch.clone(), served, log.clone());
    let process = Process::start("QEMU", command, &log, after)?;
    let given_up = |error: Error| {
        watch.give_up();
        error
    };
    // QEMU connects the console before it can be talked to.
    let connect = || -> Result<(Qmp, _)> {
        let stream = match line.console {
            Some(_) => Some(process.accept(&console, place.cancel, START_PATIENCE)?),
            None => None,
        };
        let control = process.accept(&qmp, place.cancel, START_PATIENCE)?;
        let told = watch.clone();
        let greeted = Qmp::greet(control, move |event| told.take(event));
        let (mut qmp, version) =
            greeted.map_err(|error| match process.is_over(Duration::from_millis(200)) {
                true => process.failure("QEMU has ended"),
                false => error,
            })?;
        if version < OLDEST {
            let (major, minor) = version;
            let what = format!("QEMU is {major}.{minor}, but has to be 7.2 or newer");
            return Err(Error::unsupported(what));
        }
        if let Some(password) = &line.vnc_password {
            let arguments = json!({"protocol": "vnc", "password": password});
            qmp.execute("set_password", arguments)?;
        }
        for listener in listeners {
            listener.listen(events.clone())?;
        }
        watch.begin();
        qmp.execute("cont", json!({}))?;
        Ok((qmp, stream))
    };
    let (qmp, console) = connect().map_err(given_up)?;
    let sockets = ["qmp.sock", "serial.sock"].map(|name| place.folder.file(name));
    let pipes = line.cards.into_values().map(|(_, pipe)| pipe);
    for path in sockets.into_iter().chain(pipes) {
        let _ = std::fs::remove_file(path);
    }
    Ok(Running {
        facts: Facts {
            pid: process.pid(),
            ..facts
        },
        console,
        qmp,
        process,
        drives: line.drives,
        watch,
    })
}

impl From<KernelFiles> for Kernel {
    fn from(files: KernelFiles) -> Self {
        let path = |storage: &dyn Storage| PathBuf::from(storage.name());
        Self {
            kernel: path(&*files.kernel),
            initrd: files.initrd.as_deref().map(path),
            cmdline: files.cmdline,
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
