//! The boot of a machine of which nothing is kept.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hako_block::{BlockImage, Cancel, ErrorKind, Result, Uuid};
use hako_converter::p2v::adapt::{self, Job};
use hako_converter::p2v::inventory::model::Inventory;
use hako_converter::p2v::verify::{
    About, Check, Outcome, Signs, Testimony, asks_for_login, compare, dead_end, judge, witness,
    witness_archive,
};
use hako_edit::Intent;
use hako_guest::Keys;
use hako_guest::initrd::Contents;
use hako_vm::Guest;
use hako_vm::run::{Boot, Examiner, Heard, Qemu, RunFolder, RunSite, Trial};

use crate::context::Context;
use crate::vm::home::{home, run_home};
use crate::vm::run::launch::launcher;

/// How often what was heard is thought about.
const STEP: Duration = Duration::from_secs(1);
/// How long a console may take to ask once the witness has spoken, and the witness once the console
/// asks.
const FOR_LOGIN: Duration = Duration::from_secs(30);
const FOR_WITNESS: Duration = Duration::from_secs(300);
/// How long a dead end may turn out to be none; where the witness may still say why, longer.
const FOR_DEAD_END: Duration = Duration::from_secs(5);
const FOR_REASONS: Duration = Duration::from_secs(60);
/// How long a passphrase that was given may take to open a disk.
const FOR_UNLOCKING: Duration = Duration::from_secs(300);

/// What is booted, and how.
pub struct Wanted<'a> {
    pub machine: &'a Path,
    /// What opens encrypted volumes, to put a witness beside what is in them.
    pub keys: &'a Keys,
    pub boot: Boot,
    pub limit: Duration,
}

/// What came of it.
pub struct Booted {
    pub heard: Heard,
    pub checks: Vec<Check>,
}

/// Boots it, and compares what it is like with an inventory. Where nobody in its own boot could say that,
/// it is booted once more, and asked by its initrd.
pub fn boot(
    wanted: &Wanted<'_>,
    inventory: &Inventory,
    cancel: &Cancel,
    context: &Context,
) -> Result<Booted> {
    let mut watch = Watch {
        nonce: Uuid::random().to_string(),
        keys: wanted.keys.clone(),
        time: context.time(),
        no_witness: None,
        has_systemd: false,
        testimony: None,
        next: Instant::now(),
        seen: None,
    };
    let mut booted = once(wanted, &mut watch, cancel)?;
    let is_up = booted
        .checks
        .iter()
        .all(|one| one.outcome == Outcome::Passed);
    if is_up && watch.is_to_be_asked_by_its_initrd() && wanted.boot == Boot::Usual {
        context.say("it came up; booting its kernel once more, to ask what is mounted");
        let again = Wanted {
            boot: Boot::Direct { entry: None },
            ..*wanted
        };
        match once(&again, &mut watch, cancel) {
            Ok(asked) => booted.heard.report = asked.heard.report,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                watch.no_witness = Some(format!("its initrd cannot be asked: {error}"));
            }
        }
    }
    match &watch.testimony {
        Some(told) => booted.checks.extend(compare(inventory, told)),
        None => booted.checks.push(Check {
            about: About::Mount,
            name: "mounts, swap, network cards".to_owned(),
            outcome: Outcome::NotChecked,
            notes: vec![watch.no_witness.take().unwrap_or_else(|| {
                "the guest did not get so far as to say what they are".to_owned()
            })],
        }),
    }
    Ok(booted)
}

/// Boots it once; returns how far it came.
fn once(wanted: &Wanted<'_>, watch: &mut Watch, cancel: &Cancel) -> Result<Booted> {
    // Of an earlier boot.
    watch.seen = None;
    let heard = Qemu::default().try_boot(
        &Trial {
            site: RunSite {
                home: &home()?,
                run: &run_home()?,
                machine: wanted.machine,
                allow: &[],
                launcher: &launcher()?,
            },
            boot: wanted.boot.clone(),
            passphrase: wanted.keys.passphrase(),
            limit: wanted.limit,
            cancel,
        },
        watch,
    )?;
    watch.testimony = Testimony::read(&heard.report, &watch.nonce);
    let console = String::from_utf8_lossy(&heard.console);
    let given_up = format!("it did not come up in {} s", wanted.limit.as_secs());
    let checks = judge(&Signs {
        is_off: heard.end.is_some(),
        given_up: heard.is_time_up.then_some(given_up.as_str()),
        ..watch.signs(&console, &heard)
    });
    Ok(Booted { heard, checks })
}

/// Who watches it.
struct Watch {
    nonce: String,
    keys: Keys,
    time: u64,
    /// Why nobody in the guest can say what it is like.
    no_witness: Option<String>,
    has_systemd: bool,
    testimony: Option<Testimony>,
    /// When to think about it next.
    next: Instant,
    /// What was seen last that ends it after a while, and since when.
    seen: Option<(&'static str, Instant)>,
}

impl Watch {
    fn signs<'a>(&'a self, console: &'a str, heard: &'a Heard) -> Signs<'a> {
        Signs {
            console,
            screen: &heard.screen,
            testimony: self.testimony.as_ref(),
            is_answered: heard.is_answered,
            is_off: false,
            given_up: None,
        }
    }

    /// Whether the initrd can bring the witness that could not be put into its root.
    fn is_to_be_asked_by_its_initrd(&self) -> bool {
        self.has_systemd && self.no_witness.is_some()
    }

    fn put_witness(&mut self, disks: &[Arc<dyn BlockImage>], folder: &RunFolder) -> Result<bool> {
        let volumes = adapt::volumes_of(disks, &self.keys)?;
        let found = Guest::of(&volumes, None);
        let Some(guest) = adapt::Guest::of(&volumes, &found) else {
            return Ok(false);
        };
        let Some(plan) = witness(&guest, &self.nonce) else {
            return Ok(false);
        };
        self.has_systemd = true;
        let intent = Intent::at(&folder.file("witness"));
        let job = Job {
            guest,
            plan: &plan,
            keep: false,
            disks,
            keys: &self.keys,
        };
        job.in_memory(self.time)?.write(&intent, disks)?;
        Ok(true)
    }

    /// Returns what has been seen that ends it, and how long that may take.
    fn ending(&self, signs: &Signs<'_>) -> Option<(&'static str, Duration)> {
        let asks = asks_for_login(signs);
        let has_witness = self.no_witness.is_none();
        match (self.testimony.is_some(), asks) {
            (true, true) => Some(("all", Duration::ZERO)),
            (true, false) => Some(("witness", FOR_LOGIN)),
            (false, true) if !has_witness => Some(("login", Duration::ZERO)),
            (false, true) => Some(("login", FOR_WITNESS)),
            (false, false) => dead_end(signs).map(|end| {
                let patience = match end {
                    _ if has_witness && end.has_systemd => FOR_REASONS,
                    _ if end.is_question && signs.is_answered => FOR_UNLOCKING,
                    _ => FOR_DEAD_END,
                };
                (end.name, patience)
            }),
        }
    }
}

impl Examiner for Watch {
    fn prepare(&mut self, disks: &[Arc<dyn BlockImage>], folder: &RunFolder) -> Result<()> {
        if self.is_to_be_asked_by_its_initrd() {
            return Ok(()); // An earlier boot found that out; to open what is encrypted takes long.
        }
        match self.put_witness(disks, folder) {
            Ok(true) => {}
            Ok(false) => {
                self.no_witness = Some("no system with systemd was found on the disks".to_owned());
            }
            // It is booted all the same.
            Err(error) => match error.kind() {
                ErrorKind::Unsupported | ErrorKind::Corrupt | ErrorKind::NoSpace => {
                    let what = format!(
                        "nothing can be put into its root ({error}), nor has its initrd been asked"
                    );
                    self.no_witness = Some(what);
                }
                _ => return Err(error),
            },
        }
        Ok(())
    }

    fn append(&mut self, initrd: &Contents) -> Result<Option<Vec<u8>>> {
        if !self.is_to_be_asked_by_its_initrd() {
            return Ok(None);
        }
        let archive = witness_archive(initrd, &self.nonce)?;
        if archive.is_some() {
            self.no_witness = None;
        }
        Ok(archive)
    }

    fn is_over(&mut self, heard: &Heard) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + STEP;
        self.testimony = Testimony::read(&heard.report, &self.nonce);
        let console = String::from_utf8_lossy(&heard.console);
        let Some((what, patience)) = self.ending(&self.signs(&console, heard)) else {
            self.seen = None;
            return false;
        };
        let since = match self.seen {
            Some((seen, since)) if seen == what => since,
            _ => now,
        };
        self.seen = Some((what, since));
        now.duration_since(since) >= patience
    }
}
