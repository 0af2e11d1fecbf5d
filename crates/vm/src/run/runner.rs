//! The process that drives a machine: it takes the machine's lock, starts it, does what it is asked
//! over its control socket, and lets go when the guest is off.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use hako_block::{Cancel, Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::console::Console;
use super::console_log::ConsoleLog;
use super::control::{self, Ask};
use super::fitness::refuse_unfit;
use super::protocol::{Request, answer, event_line};
use super::status::{now_us, process_usage};
use super::{
    End, Engine, EngineChoice, Event, Events, Launcher, Machine, RunFolder, RunHome, RunState,
    Start, StartOptions, Stats, Status,
};
use crate::{Held, Home, Vm};

/// How long a guest may take to shut down when the runner is asked to end.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// How long an engine may take to switch a guest off.
const QUIT: Duration = Duration::from_secs(10);

/// A machine that is to run, and what it runs with.
#[derive(Clone, Copy)]
pub struct RunSite<'a> {
    /// Where machines are listed.
    pub home: &'a Home,
    /// Where the state of runs is.
    pub run: &'a RunHome,
    /// What the user called it, as [`Vm::open`] takes it.
    pub machine: &'a Path,
    /// What it may name beyond its folder.
    pub allow: &'a [PathBuf],
    /// Starts programs.
    pub launcher: &'a Launcher,
}

/// Which machine is to run, and how.
pub struct RunRequest<'a> {
    /// Which machine.
    pub site: RunSite<'a>,
    /// What the user chose.
    pub options: &'a StartOptions,
}

/// What reaches the runner's main loop.
pub(super) enum Message {
    /// A signal: shut down.
    Stop,
    /// Something happened to the machine.
    Event(Event),
    /// A client asks.
    Ask(Ask),
}

/// Asks a runner to end, from any thread.
#[derive(Clone)]
pub struct Stopper {
    cancel: Cancel,
    messages: Sender<Message>,
}

impl Stopper {
    /// Asks to end: a start is given up; a guest that runs is asked to shut down, and switched off
    /// if it takes more than a minute, or if this is asked again.
    pub fn stop(&self) {
        self.cancel.cancel();
        // When the runner is gone, it has ended.
        let _ = self.messages.send(Message::Stop);
    }
}

/// A runner before it has a machine.
pub struct Runner {
    stopper: Stopper,
    inbox: Receiver<Message>,
}

impl Default for Runner {
    fn default() -> Self {
        let (messages, inbox) = channel();
        let cancel = Cancel::default();
        Self {
            stopper: Stopper { cancel, messages },
            inbox,
        }
    }
}

impl Runner {
    /// Returns what asks it to end.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Starts the machine; it runs when this returns. `engine` gives the engine that was chosen.
    ///
    /// Errors: [`ErrorKind::Locked`] if it runs or is used; those of the engine. Nothing of it is
    /// left then but the logs.
    pub fn start(
        self,
        request: &RunRequest<'_>,
        engine: impl FnOnce(EngineChoice) -> Box<dyn Engine>,
    ) -> Result<Running> {
        let site = &request.site;
        let mut vm = Vm::open(site.home, site.machine, site.allow)?;
        let held = vm.hold()?;
        vm.reload()?;
        refuse_unfit(site.home, &vm, request.options)?;
        let folder = site.run.folder(vm.path());
        let lock = folder.claim(vm.path())?;
        site.run.sweep();
        let begun = self.begin(request, &vm, &folder, engine);
        let (machine, console, status) = begun.inspect_err(|_| {
            // What cannot be cleared is left to the next start.
            let _ = folder.clear();
        })?;
        Ok(Running {
            machine,
            console,
            status,
            inbox: self.inbox,
            messages: self.stopper.messages,
            watchers: Vec::new(),
            ending: Ending::No,
            folder,
            lock,
            held,
        })
    }

    fn begin(
        &self,
        request: &RunRequest<'_>,
        vm: &Vm,
        folder: &RunFolder,
        engine: impl FnOnce(EngineChoice) -> Box<dyn Engine>,
    ) -> Result<(Box<dyn Machine>, Option<Console>, Status)> {
        let options = request.options;
        let control_socket = folder.listen("control.sock")?;
        let console_socket = folder.listen("console.sock")?;
        let log = ConsoleLog::begin(folder)?;
        let messages = self.stopper.messages.clone();
        let events = Events::new(move |event| {
            // When the main loop is gone, the machine is dropped.
            let _ = messages.send(Message::Event(event));
        });
        let mut machine = engine(options.engine).start(Start {
            vm,
            options,
            folder,
            launcher: request.site.launcher,
            events,
            cancel: &self.stopper.cancel,
            notes: Vec::new(),
        })?;
        let port = machine.console()?;
        let has_console = port.is_some();
        let console = port.map(|port| Console::start(port, console_socket, log));
        let now = now_us();
        let status = Status {
            state: RunState::Running,
            why: None,
            since_us: now,
            started_us: now,
            facts: machine.facts().clone(),
            runner_pid: std::process::id(),
            console: has_console.then(|| folder.file("console.sock")),
            addresses: Vec::new(),
            discard_writes: options.discard_writes,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        control::serve(control_socket, self.stopper.messages.clone())?;
        Ok((machine, console.transpose()?, status))
    }
}

/// Whether the runner is about to end.
enum Ending {
    No,
    /// The guest was asked to shut down, and has time till then.
    Asked(Instant),
    /// It was switched off, and the engine has time till then.
    Quit(Instant),
}

/// A runner with its machine.
pub struct Running {
    machine: Box<dyn Machine>,
    console: Option<Console>,
    status: Status,
    inbox: Receiver<Message>,
    /// Keeps the inbox open.
    messages: Sender<Message>,
    watchers: Vec<UnixStream>,
    ending: Ending,
    folder: RunFolder,
    lock: File,
    held: Held,
}

impl Running {
    /// Returns what the runner says of its machine.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Does what it is asked until the guest is off, and returns how that came. Each thing that
    /// happens is handed to `log` as a line.
    pub fn run(mut self, log: &dyn Fn(&str)) -> End {
        loop {
            match self.next() {
                Some(Message::Event(Event::Off(end))) => return self.finish(end, log),
                Some(Message::Event(event)) => self.tell(&event, log),
                Some(Message::Ask(ask)) => self.attend(ask, log),
                Some(Message::Stop) => {
                    log("asked to end");
                    self.go_on_ending(log);
                }
                None if matches!(self.ending, Ending::Quit(_)) => {
                    return self.finish(End::Failed("did not go off".to_owned()), log);
                }
                None => self.go_on_ending(log),
            }
        }
    }

    /// Waits for what is next; none when time is up.
    fn next(&self) -> Option<Message> {
        let (Ending::Asked(until) | Ending::Quit(until)) = self.ending else {
            // It cannot fail, for we could send ourselves.
            return self.inbox.recv().ok();
        };
        let left = until.saturating_duration_since(Instant::now());
        self.inbox.recv_timeout(left).ok()
    }

    /// Asks the guest to shut down; if that was done, switches it off.
    fn go_on_ending(&mut self, log: &dyn Fn(&str)) {
        let done = match self.ending {
            Ending::No => {
                self.ending = Ending::Asked(Instant::now() + SHUTDOWN);
                self.power_button()
            }
            Ending::Asked(_) => {
                log("switching the guest off");
                self.ending = Ending::Quit(Instant::now() + QUIT);
                self.machine.quit()
            }
            Ending::Quit(_) => Ok(()),
        };
        if let Err(error) = done {
            log(&error.to_string());
        }
    }

    /// Asks the guest to shut down. One that is paused must run to hear it.
    fn power_button(&mut self) -> Result<()> {
        if self.status.state == RunState::Paused {
            self.machine.resume()?;
        }
        self.machine.power_button()
    }

    /// Takes note of what happened, and tells who watches.
    fn tell(&mut self, event: &Event, log: &dyn Fn(&str)) {
        let now = now_us();
        match event {
            Event::Paused { why } => {
                log(&format!("paused{}", because(why.as_deref())));
                self.status.state = RunState::Paused;
                self.status.why.clone_from(why);
                self.status.since_us = now;
            }
            Event::Resumed => {
                log("goes on");
                self.status.state = RunState::Running;
                self.status.why = None;
                self.status.since_us = now;
            }
            Event::Reset => log("reset"),
            Event::Address { node, address } => {
                log(&format!("{node} uses {address}"));
                self.status.addresses.push((node.clone(), *address));
            }
            Event::Note(text) => log(text),
            Event::Off(_) => (),
        }
        let line = event_line(event);
        // One who does not listen is not told any more.
        self.watchers
            .retain_mut(|watcher| watcher.write_all(line.as_bytes()).is_ok());
    }

    /// Does what a client asks, and answers.
    fn attend(&mut self, ask: Ask, log: &dyn Fn(&str)) {
        let nothing = |()| json!({});
        if !matches!(ask.request, Request::Status | Request::Stats) {
            log(&format!("asked for {}", ask.request.name()));
        }
        let result = match ask.request {
            Request::Status => Ok(self.status.to_json()),
            Request::Stats => self.stats().map(|stats| stats.to_json()),
            Request::Pause => self.machine.pause().map(nothing),
            Request::Resume => self.machine.resume().map(nothing),
            Request::Reset => self.machine.reset().map(nothing),
            Request::PowerButton => self.power_button().map(nothing),
            Request::Quit => self.machine.quit().map(nothing),
            Request::Watch => self.watch(ask.stream),
            Request::Console { replay } => self.admit(ask.stream, replay),
        };
        // A client that has gone misses nothing.
        let _ = ask.reply.send(result);
    }

    fn stats(&mut self) -> Result<Stats> {
        let (cpu_us, resident_bytes) = process_usage(self.status.facts.pid)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "the machine's process is gone"))?;
        Ok(Stats {
            time_us: now_us(),
            cpu_us,
            resident_bytes,
            io: self.machine.io_stats()?,
        })
    }

    fn watch(&mut self, stream: Option<UnixStream>) -> Result<Value> {
        let status = self.status.to_json();
        let stream = welcome(stream, &status)?;
        self.watchers.push(stream);
        Ok(status)
    }

    fn admit(&mut self, stream: Option<UnixStream>, replay: bool) -> Result<Value> {
        let console = self
            .console
            .as_ref()
            .ok_or_else(|| Error::unsupported("the machine has no serial port"))?;
        console.admit(welcome(stream, &json!({}))?, replay);
        Ok(json!({}))
    }

    /// Lets go of everything, then says so.
    fn finish(self, end: End, log: &dyn Fn(&str)) -> End {
        log(&match &end {
            End::Guest => "the guest has shut down".to_owned(),
            End::Quit => "switched off".to_owned(),
            End::Failed(why) => format!("the engine failed: {why}"),
        });
        drop(self.machine);
        drop(self.console);
        if let Err(error) = self.folder.clear() {
            log(&error.to_string());
        }
        drop(self.lock);
        drop(self.held);
        drop(self.messages);
        let line = event_line(&Event::Off(end.clone()));
        for mut watcher in self.watchers {
            // Who does not listen learns it by the end of the connection.
            let _ = watcher.write_all(line.as_bytes());
        }
        end
    }
}

/// Answers a client whose connection is for something else from then on.
fn welcome(stream: Option<UnixStream>, value: &Value) -> Result<UnixStream> {
    let mut stream = stream.ok_or_else(|| Error::invalid("no connection"))?;
    let line = answer(Ok(value.clone()));
    match stream.write_all(line.as_bytes()) {
        Ok(()) => Ok(stream),
        Err(error) => Err(Error::io("answer", error)),
    }
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}
