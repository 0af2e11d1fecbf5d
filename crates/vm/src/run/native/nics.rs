//! Network cards: each has a cable to a TAP interface of the host, to a socket ([`super::sockets`]), or
//! to passt, a network behind the host for whoever has no rights on its own. Cables outlive a reset of the machine.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hako_block::{Error, ErrorKind, Result};
use hako_engine::Card;
use hako_engine::link::Link;
use hako_engine::link::socket::StreamLink;
use hako_engine::link::tap::TapLink;
use hako_engine::virtio::net::Counters;
use hako_formats::dictionary::Dictionary;
use hako_formats::machine::{Machine, Nic};

use super::super::addresses::address_in;
use super::super::cards::{self, Forward};
use super::super::process::Process;
use super::super::{Event, Events, NicStats, Start};
use super::Report;
use super::sockets::{self, Made};

/// The program that is a network behind the host.
const PASST: &str = "passt";
/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest packets that a guest gets: those of Ethernet.
const MTU: &str = "1500";
/// Bytes of the header before frames on a TAP.
const HEADER_BYTES: usize = 12;
/// Addresses of a card that are told.
const MOST_ADDRESSES: usize = 8;

/// A network card of the machine.
pub(super) struct Plugged {
    node: String,
    mac: [u8; 6],
    slot_number: u16,
    cable: Option<Cable>,
    counters: Arc<Counters>,
    _beside: Beside,
}

/// What goes when the card does.
#[derive(Default)]
struct Beside {
    helper: Option<Helper>,
    _socket: Option<Made>,
}

impl Plugged {
    /// Returns it for a machine.
    pub fn card(&self) -> Card {
        Card {
            mac: self.mac,
            link: self.cable.clone().map(|cable| Box::new(cable) as _),
            counters: Arc::clone(&self.counters),
            slot_number: self.slot_number,
        }
    }

    /// Returns what went through it.
    pub fn stats(&self) -> NicStats {
        NicStats {
            node: self.node.clone(),
            received_bytes: self.counters.received.load(Ordering::Relaxed),
            sent_bytes: self.counters.sent.load(Ordering::Relaxed),
        }
    }
}

/// Notes what networks lead elsewhere here than the VMX says.
pub(super) fn note_losses(machine: &Machine, keys: &Dictionary, report: &mut Report) {
    for nic in machine.nics.iter().filter(|nic| nic.connected) {
        let is_said = |what| {
            let said = keys.value(&format!("hako.ethernet{}.{what}", nic.number));
            said.is_some_and(|said| !said.trim().is_empty())
        };
        if !is_said("tap") && !is_said("socket") {
            cards::is_closed(nic, &mut report.losses);
        }
    }
}

/// Connects the machine's cards. Errors: a TAP interface or a socket that cannot be had.
pub(super) fn plug(
    machine: &Machine,
    start: &Start<'_>,
    report: &mut Report,
) -> Result<Vec<Plugged>> {
    let seed = cards::seed(start.vm.path());
    let cards = machine.nics.iter().map(|nic| {
        let node = format!("ethernet{}", nic.number);
        let mac = cards::mac(machine, nic, seed).0;
        let (link, beside) = link(nic, &node, start, report)?;
        // That passt has ended is told of passt.
        let parting = match beside.helper {
            Some(_) => None,
            None => Some(format!("{node} has no network any more")),
        };
        let cable = |link| Cable::new(link, Ear::new(&node, mac, &start.events), parting);
        Ok(Plugged {
            slot_number: cards::slot_number(start.vm.vmx.dictionary(), nic.number),
            cable: link.map(cable),
            node,
            mac,
            counters: Arc::default(),
            _beside: beside,
        })
    });
    cards.collect()
}

type Linked = (Option<Box<dyn Link>>, Beside);

fn link(nic: &Nic, node: &str, start: &Start<'_>, report: &mut Report) -> Result<Linked> {
    let keys = start.vm.vmx.dictionary();
    if !nic.connected {
        return Ok((None, Beside::default()));
    }
    if let Some(name) = cards::tap(keys, nic.number) {
        return Ok((Some(Box::new(tap(&name, node)?)), Beside::default()));
    }
    let socket = cards::socket(keys, nic.number);
    if let Some(socket) = socket.map_err(|error| error.in_file(start.vm.path()))? {
        let (link, made) = sockets::connect(start.vm, &socket)?;
        let beside = Beside {
            _socket: made,
            ..Beside::default()
        };
        return Ok((Some(link), beside));
    }
    // What is to be said of it was said: [`note_losses`].
    if cards::is_closed(nic, &mut Vec::new()) {
        return Ok((None, Beside::default()));
    }
    let forwards = cards::forwards(keys, nic.number, &mut report.notes);
    match passt(node, forwards, start, report) {
        Ok((link, helper)) => {
            let beside = Beside {
                helper: Some(helper),
                ..Beside::default()
            };
            Ok((Some(Box::new(link)), beside))
        }
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            report
                .losses
                .push(format!("{node} has no network: {error}"));
            Ok((None, Beside::default()))
        }
    }
}

/// Opens a TAP interface. It has to be there: a VMX, which may have come from anybody, makes none.
fn tap(name: &str, node: &str) -> Result<TapLink> {
    let is_name = !name.contains('/') && !name.starts_with('.');
    let shown: String = name.chars().take(40).collect();
    if !is_name
        || !Path::new("/sys/class/net")
            .join(name)
            .join("tun_flags")
            .exists()
    {
        let what = format!("{node}: the host has no TAP interface {shown:?}");
        return Err(Error::new(ErrorKind::NotFound, what)
            .hint("make it first: ip tuntap add NAME mode tap user USER"));
    }
    TapLink::open(name).map_err(|error| Error::io(format!("{node}: open the TAP {shown:?}"), error))
}

/// Starts passt for a card.
fn passt(
    node: &str,
    forwards: Vec<Forward>,
    start: &Start<'_>,
    report: &mut Report,
) -> Result<(StreamLink, Helper)> {
    let asked = Command::new(PASST)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "passt is not installed"),
        _ => Error::io("start passt", error),
    })?;
    let socket = start.folder.socket(&format!("{node}.sock"))?;
    let mut command = start.launcher.command(Path::new(PASST));
    command.args(["--foreground", "--quiet", "--one-off", "--mtu", MTU]);
    // Else it would be nobody, who does not get at the socket's folder.
    if rustix::process::geteuid().is_root() {
        command.args(["--runas", "0:0"]);
    }
    command.arg("--socket").arg(&socket);
    for one in forwards {
        if one.guest.is_some() {
            let note = format!("hako.{node}.forward: the guest's address is what it is given");
            report.notes.push(note);
        }
        let flag = if one.protocol == "tcp" { "-t" } else { "-u" };
        let ports = format!("{}/{}:{}", one.host, one.host_port, one.guest_port);
        command.args([flag, &ports]);
    }
    let log = start.folder.file(&format!("{node}.log"));
    let helper = Helper::start(command, &log, node, &start.events)?;
    let stream = helper.process.connect(&socket, start.cancel, PATIENCE)?;
    let link = StreamLink::new(stream).map_err(|error| Error::io("connect to passt", error))?;
    Ok((link, helper))
}

/// A program that a card needs. That it has ended is told, unless it was ended here.
struct Helper {
    is_wanted: Arc<AtomicBool>,
    process: Process,
}

impl Helper {
    fn start(command: Command, log: &Path, node: &str, events: &Events) -> Result<Self> {
        let is_wanted = Arc::new(AtomicBool::new(true));
        let (wanted, events) = (Arc::clone(&is_wanted), events.clone());
        let note = format!("{node} has no network any more: passt has ended");
        let process = Process::start(PASST, command, log, move |_| {
            if wanted.load(Ordering::Acquire) {
                events.send(Event::Note(note));
            }
        })?;
        Ok(Self { is_wanted, process })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Release);
        self.process.kill();
    }
}

/// What a card is plugged into. Clones are the same: a machine that is built anew has it again.
#[derive(Clone)]
struct Cable(Arc<Mutex<Ends>>);

struct Ends {
    link: Box<dyn Link>,
    ear: Ear,
    /// What is told, once, when the other side has gone.
    parting: Option<String>,
}

impl Ends {
    /// Tells why there is no network any more.
    fn told<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && let Some(parting) = self.parting.take()
        {
            let note = format!("{parting}: {error}");
            self.ear.events.send(Event::Note(note));
        }
        done
    }

    /// Has a frame heard, with the header that it may have.
    fn hear(&mut self, frame: &[u8]) {
        let start = if self.link.has_header() {
            HEADER_BYTES
        } else {
            0
        };
        self.ear.hear(frame.get(start..).unwrap_or_default());
    }
}

impl Cable {
    fn new(link: Box<dyn Link>, ear: Ear, parting: Option<String>) -> Self {
        let ends = Ends { link, ear, parting };
        Self(Arc::new(Mutex::new(ends)))
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link for Cable {
    fn fd(&self) -> RawFd {
        self.ends().link.fd()
    }

    fn receive(&mut self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        let mut ends = self.ends();
        let received = ends.link.receive(frame);
        let received = ends.told(received)?;
        if let Some(len) = received {
            ends.hear(frame.get(..len).unwrap_or_default());
        }
        Ok(received)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut ends = self.ends();
        ends.hear(frame);
        let sent = ends.link.send(frame);
        ends.told(sent)
    }

    fn has_header(&self) -> bool {
        self.ends().link.has_header()
    }
}

/// Hears which addresses a guest uses, until it has heard one of IPv4.
struct Ear {
    node: String,
    mac: [u8; 6],
    events: Events,
    known: BTreeSet<IpAddr>,
}

impl Ear {
    fn new(node: &str, mac: [u8; 6], events: &Events) -> Self {
        Self {
            node: node.to_owned(),
            mac,
            events: events.clone(),
            known: BTreeSet::new(),
        }
    }

    fn hear(&mut self, frame: &[u8]) {
        if self.known.len() >= MOST_ADDRESSES || self.known.iter().any(IpAddr::is_ipv4) {
            return;
        }
        if let Some(address) = address_in(frame, self.mac)
            && self.known.insert(address)
        {
            self.events.send(Event::Address {
                node: self.node.clone(),
                address,
            });
        }
    }
}
