//! A machine that runs. A thread of its own, the keeper, waits for what the guest asks for: to be
//! built anew (a reset is that), to be off, to wait for room on a disk.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hako_block::{BlockImage, Error, Result};
use hako_engine::{Kernel, Pages, Request, Signals, Spec, Topology};

use super::super::disks::no_room;
use super::super::{End, Event, Events, Facts, IoStats, Machine};
use super::boot::{Found, Source};
use super::console::Typist;
use super::drives::{self, Drive};
use super::nics::Plugged;

/// How long the keeper sleeps where nothing happens.
const LONG: Duration = Duration::from_secs(3600);

/// What the machine is made of whenever it is built.
pub(super) struct Hardware {
    pub topology: Topology,
    pub memory_bytes: u64,
    pub pages: Pages,
    pub clock_offset_seconds: i64,
    pub disks: Vec<Drive>,
    pub nics: Vec<Plugged>,
    pub source: Source,
}

impl Hardware {
    /// Reads the kernel.
    pub fn kernel(&self) -> Result<Found> {
        self.source.read(&drives::images(&self.disks))
    }

    fn build(
        &self,
        kernel: Kernel,
        port: &UnixStream,
        signals: &Signals,
    ) -> Result<hako_engine::Machine> {
        let failed = |error| Error::io("share the console's socket", error);
        hako_engine::Machine::new(Spec {
            topology: self.topology,
            memory_bytes: self.memory_bytes,
            pages: self.pages,
            kernel,
            disks: self.disks.iter().map(Drive::disk).collect(),
            cards: self.nics.iter().map(Plugged::card).collect(),
            console: Box::new(Serial(port.try_clone().map_err(failed)?)),
            hvc: None,
            clock_offset_seconds: self.clock_offset_seconds,
            signals: signals.clone(),
        })
    }

    /// Puts what was written onto stable storage.
    fn flush(&self) -> Result<()> {
        let mut flushed = Ok(());
        for drive in &self.disks {
            // The others too, whatever one of them says.
            flushed = flushed.and(drive.image.flush());
        }
        flushed
    }
}

/// What the guest writes on its serial port. It waits for a reader, as a guest does for the port.
struct Serial(UnixStream);

impl Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The machine as it is.
struct State {
    /// None while it is built anew, and once it is off.
    machine: Option<hako_engine::Machine>,
    /// None once it is off.
    hardware: Option<Hardware>,
    is_paused: bool,
    /// Whether it was switched off from outside.
    is_quitting: bool,
}

/// What the keeper shares with who drives the machine.
struct Shared {
    state: Mutex<State>,
    signals: Signals,
    events: Events,
    /// The machine's end of the serial port.
    port: UnixStream,
}

/// A machine that runs.
pub(super) struct Running {
    facts: Facts,
    console: Option<UnixStream>,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    _typist: Typist,
}

impl Running {
    /// Builds the machine and lets it go.
    pub fn start(hardware: Hardware, kernel: Kernel, facts: Facts, events: Events) -> Result<Self> {
        let failed = |error| Error::io("make the console's socket", error);
        let (port, console) = UnixStream::pair().map_err(failed)?;
        let typed = port.try_clone().map_err(failed)?;
        let signals = Signals::default();
        let machine = hardware.build(kernel, &port, &signals)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                machine: Some(machine),
                hardware: Some(hardware),
                is_paused: false,
                is_quitting: false,
            }),
            signals,
            events,
            port,
        });
        let of_typist = Arc::clone(&shared);
        let typist = Typist::start(typed, move |bytes| of_typist.type_in(bytes))?;
        let of_keeper = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || of_keeper.keep())
            .map_err(|error| Error::io("start a thread", error))?;
        if let Some(machine) = &shared.state().machine {
            machine.resume();
        }
        Ok(Self {
            facts,
            console: Some(console),
            shared,
            keeper: Some(keeper),
            _typist: typist,
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Types; says how much was taken, or that the machine is off.
    fn type_in(&self, bytes: &[u8]) -> Option<usize> {
        let state = self.state();
        state.hardware.as_ref()?;
        let machine = state.machine.as_ref();
        Some(machine.map_or(0, |machine| machine.type_in(bytes)))
    }

    /// Does what the guest asks for, until it is off.
    fn keep(&self) {
        let end = loop {
            match self.signals.wait(LONG) {
                None => {}
                Some(Request::NoSpace { error }) => self.pause(Some(no_room(&error))),
                Some(Request::Reset) => {
                    if let Err(error) = self.rebuild() {
                        break End::Failed(error.to_string());
                    }
                }
                Some(Request::Off) => break End::Guest,
                Some(Request::Failed { error }) => break End::Failed(error),
            }
        };
        self.end(end);
    }

    /// Stops it; `why` is told unless it was asked for.
    fn pause(&self, why: Option<String>) {
        let mut state = self.state();
        if let State {
            machine: Some(machine),
            is_paused: false,
            ..
        } = &*state
        {
            machine.pause();
            state.is_paused = true;
            self.events.send(Event::Paused { why });
        }
    }

    fn resume(&self) {
        let mut state = self.state();
        if let State {
            machine: Some(machine),
            is_paused: true,
            ..
        } = &*state
        {
            // Before it can say that it is paused again.
            self.events.send(Event::Resumed);
            machine.resume();
            state.is_paused = false;
        }
    }

    /// Builds the machine anew: its memory, its devices, and its kernel, which may be another now.
    fn rebuild(&self) -> Result<()> {
        let mut state = self.state();
        drop(state.machine.take());
        self.signals.clear();
        if state.is_quitting {
            self.signals.ask(Request::Off);
            return Ok(());
        }
        let State {
            hardware: Some(hardware),
            ..
        } = &*state
        else {
            return Ok(());
        };
        let found = hardware.kernel()?;
        let machine = hardware.build(found.kernel, &self.port, &self.signals)?;
        self.events.send(Event::Reset);
        if !state.is_paused {
            machine.resume();
        }
        state.machine = Some(machine);
        Ok(())
    }

    /// Lets go of everything, and tells the end.
    fn end(&self, end: End) {
        let mut state = self.state();
        drop(state.machine.take());
        let hardware = state.hardware.take();
        let end = match hardware.as_ref().map(Hardware::flush) {
            Some(Err(error)) => End::Failed(format!("what the guest wrote is not safe: {error}")),
            _ if state.is_quitting => End::Quit,
            _ => end,
        };
        drop(hardware);
        self.events.send(Event::Off(end));
    }

    fn quit(&self) {
        self.state().is_quitting = true;
        self.signals.ask(Request::Off);
    }
}

impl Machine for Running {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn console(&mut self) -> Result<Option<UnixStream>> {
        Ok(self.console.take())
    }

    fn pause(&mut self) -> Result<()> {
        self.shared.pause(None);
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.shared.resume();
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.shared.signals.ask(Request::Reset);
        Ok(())
    }

    fn power_button(&mut self) -> Result<()> {
        if let Some(machine) = &self.shared.state().machine {
            machine.press_power_button();
        }
        Ok(())
    }

    fn quit(&mut self) -> Result<()> {
        self.shared.quit();
        Ok(())
    }

    fn io_stats(&mut self) -> Result<IoStats> {
        let state = self.shared.state();
        Ok(match &state.hardware {
            Some(hardware) => IoStats {
                disks: hardware.disks.iter().map(Drive::stats).collect(),
                nics: hardware.nics.iter().map(Plugged::stats).collect(),
            },
            None => IoStats::default(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.quit();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}
