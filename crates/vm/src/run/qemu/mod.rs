//! The QEMU engine: a machine as its VMX says, in a QEMU process that this one drives over QMP and
//! that ends with it.
//!
//! ```text
//! plan         the command line, a pure function of what follows
//! media        the images in the drives; served    those that QEMU gets over our NBD
//! connections  what serial ports lead to;          firmware, host    what the host has
//! direct       a kernel out of the guest's disk;   script            one that runs a script in it
//! process      QEMU's process;                     qmp, machine      driving it
//! ```

mod connections;
mod direct;
mod dump;
mod firmware;
mod host;
mod machine;
mod media;
mod plan;
mod process;
mod qmp;
mod scratch;
mod script;
mod served;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hako_block::{Access, Cancel, Error, Result};
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Firmware, Machine as Hardware, Node};
use hako_formats::vmx::Encryption;
use serde_json::json;

use self::dump::Listener;
use self::machine::{Running, Watch};
use self::plan::{Backend, CommandLine, Flash, Kernel, Loaded, Sockets, Wanted};
use self::process::Process;
use self::qmp::Qmp;
use self::served::{Served, Serving};
use super::{Boot, Engine, Events, Facts, Launcher, Machine, RunFolder, Start};
use crate::Vm;
use crate::settings::VARIABLES_KEY;

pub use self::script::{GuestScript, ScriptSite, Verdict};

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
        let mut machine = start.vm.vmx.machine();
        let mut notes = Vec::new();
        refuse_unknown(start.vm, &mut notes)?;
        media::insert(&mut machine, start.vm, &start.options.cdroms)?;
        let media = media::open(start.vm, &machine, start.options, start.folder)?;
        notes.extend(media.warnings);
        let (serial, warnings) = connections::of(start.vm);
        notes.extend(warnings);
        let kernel = match start.options.boot {
            Boot::Firmware => kernel_of_vmx(&machine, start.vm)?,
            Boot::Direct { entry } => {
                let (kernel, told) = direct::kernel(start.vm, &machine, entry, start.folder)?;
                notes.extend(told);
                Some(kernel)
            }
        };
        let running = self.run(
            Prepared {
                keys: start.vm.vmx.dictionary().clone(),
                media: media.loaded,
                floppy: media.floppy,
                serving: media.serving,
                serial,
                flash: self.flash(&machine, &start)?,
                kernel,
                seed: seed(start.vm.path()),
                notes,
                ..Prepared::new(machine)
            },
            &Place {
                folder: start.folder,
                launcher: start.launcher,
                cancel: start.cancel,
            },
            &start.events,
        )?;
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
    /// Whether a reset is the end.
    is_once: bool,
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
            is_once: false,
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
            notes,
        };
        let command = place.launcher.command(&program);
        launch(command, line, served, facts, place, events)
    }

    /// Returns the firmware of a machine with UEFI.
    fn flash(&self, machine: &Hardware, start: &Start<'_>) -> Result<Option<Flash>> {
        let is_direct = start.options.boot != Boot::Firmware || machine.direct_boot.is_some();
        if machine.firmware != Firmware::Efi || is_direct {
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
    let process = Process::start(command, &log, after)?;
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

/// Refuses a machine whose hardware nobody knows.
fn refuse_unknown(vm: &Vm, notes: &mut Vec<String>) -> Result<()> {
    match vm.vmx.encryption() {
        Encryption::Full => Err(Error::unsupported("the configuration is encrypted")
            .in_file(vm.path())
            .hint("remove the encryption with the product that encrypted it")),
        Encryption::Partial => {
            notes
                .push("what is encrypted in the VMX, like a TPM's secrets, is not used".to_owned());
            Ok(())
        }
        Encryption::None => Ok(()),
    }
}

/// Returns the kernel that the VMX names.
fn kernel_of_vmx(machine: &Hardware, vm: &Vm) -> Result<Option<Kernel>> {
    let Some(boot) = &machine.direct_boot else {
        return Ok(None);
    };
    let path = |name: &str| -> Result<PathBuf> {
        let opened = vm.open_file(name, Access::ReadOnly, &vm.rules(true))?;
        Ok(PathBuf::from(opened.storage.name()))
    };
    Ok(Some(Kernel {
        kernel: path(&boot.kernel)?,
        initrd: boot.initrd.as_deref().map(path).transpose()?,
        cmdline: boot.cmdline.clone(),
    }))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Returns what hardware addresses are made of where nothing else tells machines apart.
fn seed(vmx: &Path) -> [u8; 3] {
    let digest = blake3::hash(vmx.as_os_str().as_bytes());
    let [a, b, c, ..] = *digest.as_bytes();
    [a, b, c]
}
