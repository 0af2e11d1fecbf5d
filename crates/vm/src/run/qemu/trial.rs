//! A boot that leaves nothing behind: what the guest writes is thrown away, its network cards lead
//! nowhere, and its serial ports are ours. The first is the console; on the second comes what a program
//! in the guest says, if somebody has put one there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind as IoKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hako_block::{BlockImage, Cancel, Error, Result};
use hako_guest::direct::following;
use hako_guest::initrd::{Contents, Limits};
use serde_json::json;

use super::super::fitness::refuse_unfit;
use super::super::{
    Boot, End, EngineChoice, Event, Events, RunFolder, RunSite, Start, StartOptions,
};
use super::machine::Running;
use super::passphrase::{Answer, Typist, can_be_typed};
use super::plan::Backend;
use super::{Place, Qemu, direct};
use crate::Vm;

/// How long one look at a port takes.
const LOOK: Duration = Duration::from_millis(50);
/// How often the screen is looked at.
const SCREEN: Duration = Duration::from_secs(10);
/// Most that is kept of what a port says, in bytes.
const MAX_BYTES: usize = 16 << 20;
/// Where a PC has its text screen, and how long it is: 25 lines of 80 letters, each with its colour.
const TEXT_AT: u64 = 0xb_8000;
const TEXT_LINES: usize = 25;
const TEXT_COLUMNS: usize = 80;
/// How long QEMU may take to connect, and to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which machine is tried, and how.
pub struct Trial<'a> {
    /// Which machine.
    pub site: RunSite<'a>,
    /// How it boots.
    pub boot: Boot,
    /// What it is told when its console asks for the passphrase of a disk; one that cannot be typed is no
    /// answer.
    pub passphrase: Option<&'a str>,
    /// How long it may take.
    pub limit: Duration,
    /// Asks to give up.
    pub cancel: &'a Cancel,
}

/// Who tries a machine.
pub trait Examiner {
    /// Gets the disks as the guest will have them, in the machine's order, before it starts. What is
    /// written to them is thrown away. Files may be put into the folder.
    fn prepare(&mut self, disks: &[Arc<dyn BlockImage>], folder: &RunFolder) -> Result<()>;

    /// Gets what is in the initrd of a guest that boots without its firmware; returns an archive that is
    /// put behind it, if there is one to put.
    fn append(&mut self, initrd: &Contents) -> Result<Option<Vec<u8>>>;

    /// Is told what there is so far, now and then; returns whether that is enough.
    fn is_over(&mut self, heard: &Heard) -> bool;
}

/// What was heard of a machine.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    /// What it wrote to its console.
    pub console: Vec<u8>,
    /// What it wrote to its second serial port.
    pub report: Vec<u8>,
    /// What is on its text screen, as lines; empty if it shows no text.
    pub screen: String,
    /// Addresses that its network cards use.
    pub addresses: Vec<(String, IpAddr)>,
    /// Whether its console asked for a passphrase and was given one.
    pub is_answered: bool,
    /// How often it was reset.
    pub n_resets: u32,
    /// What the user should know of the machine.
    pub notes: Vec<String>,
    /// How it ended by itself.
    pub end: Option<End>,
    /// Whether its time was up.
    pub is_time_up: bool,
    /// How long it ran.
    pub took: Duration,
}

impl Qemu {
    /// Boots a machine, hears it until that is enough, and switches it off. Nobody else uses it
    /// meanwhile; its files stay as they are. Errors: [`hako_block::ErrorKind::Locked`] if it runs or
    /// is used; what starting gives; [`hako_block::ErrorKind::Cancelled`].
    pub fn try_boot(&self, trial: &Trial<'_>, examiner: &mut dyn Examiner) -> Result<Heard> {
        let site = &trial.site;
        let mut vm = Vm::open(site.home, site.machine, site.allow)?;
        let _held = vm.hold()?;
        vm.reload()?;
        let options = StartOptions {
            engine: EngineChoice::Qemu,
            discard_writes: true,
            boot: trial.boot.clone(),
            cdroms: Vec::new(),
        };
        refuse_unfit(site.home, &vm, &options)?;
        let folder = site.run.folder(vm.path());
        let _lock = folder.claim(vm.path())?;
        let heard = self.boot_and_hear(trial, (&vm, &options, &folder), examiner);
        // What cannot be cleared is left to the next start.
        let _ = folder.clear();
        heard
    }

    fn boot_and_hear(
        &self,
        trial: &Trial<'_>,
        (vm, options, folder): (&Vm, &StartOptions, &RunFolder),
        examiner: &mut dyn Examiner,
    ) -> Result<Heard> {
        let (send, inbox) = channel();
        let send = Mutex::new(send);
        let events = Events::new(move |event| {
            if let Ok(send) = send.lock() {
                // Who has gone hears nothing.
                let _ = send.send(event);
            }
        });
        let mut prepared = self.prepare(&Start {
            vm,
            options,
            folder,
            launcher: trial.site.launcher,
            events: events.clone(),
            cancel: trial.cancel,
            notes: Vec::new(),
        })?;
        let disks = prepared.serving.iter().filter(|disk| disk.writable);
        let disks: Vec<_> = disks.map(|disk| Arc::clone(&disk.image)).collect();
        examiner.prepare(&disks, folder)?;
        // That of a direct boot is our own copy.
        let kernel = prepared.kernel.as_ref().filter(|_| prepared.is_direct);
        if let Some(initrd) = kernel.and_then(|kernel| kernel.initrd.as_deref()) {
            append(initrd, examiner)?;
        }
        let path = folder.socket("report.sock")?;
        let failed = |error| Error::io("listen", error).in_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let report = Backend::Pipe {
            path: path.clone(),
            server: false,
        };
        prepared.serial = BTreeMap::from([(1, report)]);
        prepared.is_isolated = true;
        let place = Place {
            folder,
            launcher: trial.site.launcher,
            cancel: trial.cancel,
        };
        let begun = Instant::now();
        let mut running = self.run(prepared, &place, &events)?;
        direct::remove(folder);
        let report = running.process.accept(&listener, trial.cancel, PATIENCE)?;
        let mut hearing = Hearing {
            heard: Heard {
                notes: running.facts.notes.clone(),
                ..Heard::default()
            },
            console: running.console.take().map(port).transpose()?,
            typist: Typist::new(trial.passphrase.filter(|text| can_be_typed(text)))?,
            report: port(report)?,
            inbox,
            screen: folder.file("screen"),
        };
        let deadline = begun + trial.limit;
        let mut next_look = begun + SCREEN;
        loop {
            trial.cancel.check()?;
            hearing.listen()?;
            if Instant::now() >= next_look {
                hearing.look(&mut running);
                next_look = Instant::now() + SCREEN;
            }
            if hearing.heard.end.is_some() || examiner.is_over(&hearing.heard) {
                break;
            }
            if Instant::now() > deadline {
                hearing.heard.is_time_up = true;
                break;
            }
        }
        hearing.look(&mut running);
        hearing.listen()?;
        hearing.heard.took = begun.elapsed();
        drop(running);
        Ok(hearing.heard)
    }
}

/// Puts an archive behind an initrd, if there is one.
fn append(path: &Path, examiner: &mut dyn Examiner) -> Result<()> {
    let failed = |error| Error::io("append to the initrd", error).in_file(path);
    let mut options = File::options();
    let mut file = options.read(true).append(true).open(path).map_err(failed)?;
    let contents = Contents::read(&mut BufReader::new(&file), &Limits::default())?;
    if let Some(archive) = examiner.append(&contents)? {
        let len = file.metadata().map_err(failed)?.len();
        let bytes = following(&contents, len, &archive)?;
        file.write_all(&bytes).map_err(failed)?;
    }
    Ok(())
}

/// Where it is heard.
struct Hearing<'a> {
    heard: Heard,
    console: Option<UnixStream>,
    typist: Typist<'a>,
    report: UnixStream,
    inbox: Receiver<Event>,
    /// Where QEMU puts the screen.
    screen: PathBuf,
}

impl Hearing<'_> {
    /// Listens for a moment.
    fn listen(&mut self) -> Result<()> {
        match &mut self.console {
            Some(console) => {
                hear(console, &mut self.heard.console)?;
                // One that is not answered is where the boot ends; what it says tells it.
                let answer = self.typist.answer(&self.heard.console, console)?;
                self.heard.is_answered |= answer == Answer::Given;
            }
            None => std::thread::sleep(LOOK),
        }
        hear(&mut self.report, &mut self.heard.report)?;
        for event in self.inbox.try_iter() {
            match event {
                Event::Address { node, address } => self.heard.addresses.push((node, address)),
                Event::Reset => self.heard.n_resets += 1,
                Event::Note(note) => self.heard.notes.push(note),
                Event::Paused { why: Some(why) } => self.heard.notes.push(why),
                Event::Off(end) => self.heard.end = Some(end),
                Event::Paused { .. } | Event::Resumed => {}
            }
        }
        Ok(())
    }

    /// Looks at the text on the screen. It is one witness of several: without it things go on.
    fn look(&mut self, running: &mut Running) {
        let Some(path) = self.screen.to_str() else {
            return;
        };
        let size = TEXT_LINES * TEXT_COLUMNS * 2;
        let arguments = json!({"val": TEXT_AT, "size": size, "filename": path});
        let saved = running.qmp.execute("pmemsave", arguments);
        if let (Ok(_), Ok(bytes)) = (saved, std::fs::read(path)) {
            self.heard.screen = screen_text(&bytes);
        }
        let _ = std::fs::remove_file(path);
    }
}

/// Returns the lines of a text screen; nothing if it holds no text.
fn screen_text(bytes: &[u8]) -> String {
    let letters = |line: &[u8]| -> String {
        let letters = line.iter().step_by(2).map(|letter| match letter {
            0 => ' ',
            letter if letter.is_ascii_graphic() || *letter == b' ' => char::from(*letter),
            _ => '?',
        });
        letters.collect::<String>().trim_end().to_owned()
    };
    let lines: Vec<String> = bytes.chunks(TEXT_COLUMNS * 2).map(letters).collect();
    let text = lines.join("\n").trim_matches('\n').to_owned();
    // Pictures, and memory that nobody has written to.
    let n_odd = text.chars().filter(|letter| *letter == '?').count();
    match n_odd * 4 > text.len() {
        true => String::new(),
        false => text,
    }
}

fn port(stream: UnixStream) -> Result<UnixStream> {
    let set = stream.set_read_timeout(Some(LOOK));
    set.map_err(|error| Error::io("listen to the guest", error))?;
    Ok(stream)
}

/// Reads what is there, waiting a moment for it. What is too much is dropped.
fn hear(stream: &mut UnixStream, heard: &mut Vec<u8>) -> Result<()> {
    let mut bytes = [0; 16 << 10];
    match stream.read(&mut bytes) {
        // The other side is gone: nobody is to wait here in a hurry.
        Ok(0) => std::thread::sleep(LOOK),
        Ok(n) if heard.len() < MAX_BYTES => {
            heard.extend_from_slice(bytes.get(..n).unwrap_or_default());
        }
        Ok(_) => {}
        Err(error) => match error.kind() {
            IoKind::WouldBlock | IoKind::TimedOut | IoKind::Interrupted => {}
            IoKind::ConnectionReset => std::thread::sleep(LOOK),
            _ => return Err(Error::io("listen to the guest", error)),
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_on_a_screen_is_read_and_pictures_are_not() {
        let mut bytes = vec![0; TEXT_LINES * TEXT_COLUMNS * 2];
        for (cell, letter) in bytes.chunks_mut(2).skip(TEXT_COLUMNS).zip(b"grub rescue> ") {
            cell.copy_from_slice(&[*letter, 7]);
        }
        assert_eq!(screen_text(&bytes), "grub rescue>");
        assert_eq!(screen_text(&[0x93; 4000]), "");
        assert_eq!(screen_text(&[]), "");
    }
}
