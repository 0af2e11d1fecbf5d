//! Runners with an engine that only pretends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hako_block::{Error, ErrorKind, Result};

use super::*;
use crate::{Held, Home, State, Vm};

const PATIENCE: Duration = Duration::from_secs(30);

/// What the pretended machine was told to do, and its serial port's other end.
#[derive(Default)]
struct Seen {
    calls: Vec<&'static str>,
    guest: Option<UnixStream>,
    events: Option<Events>,
}

/// An engine that pretends.
#[derive(Clone, Default)]
struct Fake {
    seen: Arc<Mutex<Seen>>,
    /// Why it does not start.
    fails: bool,
    /// Whether the guest shuts down when the power button is pressed.
    obeys: bool,
    has_serial_port: bool,
}

struct FakeMachine {
    fake: Fake,
    facts: Facts,
    events: Events,
}

impl Engine for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn start(&self, start: Start<'_>) -> Result<Box<dyn Machine>> {
        if self.fails {
            return Err(Error::unsupported("the fake has no wings").hint("walk"));
        }
        self.seen.lock().unwrap().events = Some(start.events.clone());
        Ok(Box::new(FakeMachine {
            fake: self.clone(),
            facts: Facts {
                engine: self.name().to_owned(),
                accelerator: "none".to_owned(),
                pid: std::process::id(),
                vnc: None,
                direct_boot: false,
                notes: vec!["is a fake".to_owned()],
            },
            events: start.events,
        }))
    }
}

impl FakeMachine {
    fn called(&self, call: &'static str) {
        self.fake.seen.lock().unwrap().calls.push(call);
    }
}

impl Machine for FakeMachine {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn console(&mut self) -> Result<Option<UnixStream>> {
        if !self.fake.has_serial_port {
            return Ok(None);
        }
        let (guest, port) = UnixStream::pair().unwrap();
        self.fake.seen.lock().unwrap().guest = Some(guest);
        Ok(Some(port))
    }

    fn pause(&mut self) -> Result<()> {
        self.called("pause");
        self.events.send(Event::Paused { why: None });
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.called("resume");
        self.events.send(Event::Resumed);
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.called("reset");
        self.events.send(Event::Reset);
        Ok(())
    }

    fn power_button(&mut self) -> Result<()> {
        self.called("power button");
        if self.fake.obeys {
            self.events.send(Event::Off(End::Guest));
        }
        Ok(())
    }

    fn quit(&mut self) -> Result<()> {
        self.called("quit");
        self.events.send(Event::Off(End::Quit));
        Ok(())
    }

    fn io_stats(&mut self) -> Result<IoStats> {
        Ok(IoStats {
            disks: vec![DiskStats {
                node: "scsi0:0".to_owned(),
                reads: 7,
                ..DiskStats::default()
            }],
            nics: Vec::new(),
        })
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        self.called("drop");
    }
}

struct World {
    temp: tempfile::TempDir,
    home: Home,
    run: RunHome,
}

/// A runner in a thread of its own.
struct Runs {
    thread: JoinHandle<End>,
    stopper: Stopper,
    fake: Fake,
    log: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::new(temp.path().join("home"));
        let run = RunHome::new(temp.path().join("run"));
        let world = Self { temp, home, run };
        std::fs::create_dir(world.temp.path().join("web")).unwrap();
        let text = "config.version = \"8\"\ndisplayName = \"web\"\n";
        std::fs::write(world.vmx(), text).unwrap();
        world
    }

    fn vmx(&self) -> PathBuf {
        self.temp.path().join("web/web.vmx")
    }

    fn vm(&self) -> Vm {
        Vm::open(&self.home, &self.vmx(), &[]).unwrap()
    }

    fn folder(&self) -> RunFolder {
        self.run.folder(self.vm().path())
    }

    fn try_start(&self, fake: &Fake, options: StartOptions) -> Result<Runs> {
        let (told, result): (Sender<Result<Stopper>>, Receiver<_>) = channel();
        let (home, run, engine) = (self.home.clone(), self.run.clone(), fake.clone());
        let vmx = self.vmx();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let thread = std::thread::spawn(move || {
            let runner = Runner::default();
            let stopper = runner.stopper();
            let request = RunRequest {
                site: RunSite {
                    home: &home,
                    run: &run,
                    machine: &vmx,
                    allow: &[],
                    launcher: &Launcher::new(Vec::new()),
                },
                options: &options,
            };
            let running = runner.start(&request, |_| Box::new(engine));
            match running {
                Ok(running) => {
                    told.send(Ok(stopper)).unwrap();
                    let log = |line: &str| lines.lock().unwrap().push(line.to_owned());
                    running.run(&log)
                }
                Err(error) => {
                    told.send(Err(error)).unwrap();
                    End::Failed(String::new())
                }
            }
        });
        let stopper = result.recv().unwrap()?;
        Ok(Runs {
            thread,
            stopper,
            fake: fake.clone(),
            log,
        })
    }

    fn start(&self, fake: &Fake) -> Runs {
        self.try_start(fake, StartOptions::default()).unwrap()
    }

    fn client(&self) -> Client {
        self.folder().connect().unwrap().unwrap()
    }
}

impl Fake {
    fn obedient() -> Self {
        Self {
            obeys: true,
            has_serial_port: true,
            ..Self::default()
        }
    }

    fn calls(&self) -> Vec<&'static str> {
        self.seen.lock().unwrap().calls.clone()
    }

    fn happens(&self, event: Event) {
        let events = self.seen.lock().unwrap().events.clone();
        events.unwrap().send(event);
    }
}

#[test]
fn a_machine_that_runs_is_locked_until_its_guest_is_off() {
    let world = World::new();
    assert!(world.folder().connect().unwrap().is_none());
    assert_eq!(world.folder().status(), None);
    let runs = world.start(&Fake::obedient());
    assert!(matches!(world.vm().state(), State::Running { .. }));
    assert_eq!(world.vm().hold().unwrap_err().kind(), ErrorKind::Locked);
    let again = world.try_start(&Fake::obedient(), StartOptions::default());
    assert_eq!(again.err().unwrap().kind(), ErrorKind::Locked);
    let (status, mut watch) = world.client().watch().unwrap();
    assert_eq!(status.state, RunState::Running);
    assert_eq!(status.facts.engine, "fake");
    assert_eq!(status.runner_pid, std::process::id());
    world.client().power_button().unwrap();
    let off = watch.next(PATIENCE).unwrap();
    assert_eq!(off, Some(Event::Off(End::Guest)));
    // Who is told may go on at once.
    let _held = Held::alone(world.vm().folder()).unwrap();
    assert!(!world.folder().is_in_use());
    assert!(world.folder().connect().unwrap().is_none());
    assert_eq!(runs.thread.join().unwrap(), End::Guest);
    assert_eq!(runs.fake.calls(), ["power button", "drop"]);
}

#[test]
fn what_clients_ask_is_done_and_told() {
    let world = World::new();
    let runs = world.start(&Fake::obedient());
    let (_, mut watch) = world.client().watch().unwrap();
    let mut client = world.client();
    client.pause().unwrap();
    let paused = watch.next(PATIENCE).unwrap();
    assert_eq!(paused, Some(Event::Paused { why: None }));
    assert_eq!(client.status().unwrap().state, RunState::Paused);
    // One that is paused would not hear the button.
    client.resume().unwrap();
    client.reset().unwrap();
    for event in [Event::Resumed, Event::Reset] {
        assert_eq!(watch.next(PATIENCE).unwrap(), Some(event));
    }
    runs.fake.happens(Event::Paused {
        why: Some("no space left".to_owned()),
    });
    watch.next(PATIENCE).unwrap();
    let status = world.folder().status().unwrap();
    assert_eq!(status.why.as_deref(), Some("no space left"));
    let stats = client.stats().unwrap();
    assert_eq!(stats.io.disks[0].reads, 7);
    assert!(stats.resident_bytes > 0);
    assert_eq!(watch.next(Duration::from_millis(1)).unwrap(), None);
    client.power_button().unwrap();
    assert_eq!(runs.thread.join().unwrap(), End::Guest);
    let calls = runs.fake.calls();
    assert_eq!(
        calls,
        ["pause", "resume", "reset", "resume", "power button", "drop"]
    );
    let log = runs.log.lock().unwrap().join("\n");
    assert!(log.contains("paused: no space left"), "{log}");
    assert!(log.contains("the guest has shut down"), "{log}");
    let gone = client.status().unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
}

#[test]
fn a_start_that_fails_leaves_nothing_but_logs() {
    let world = World::new();
    let fake = Fake {
        fails: true,
        ..Fake::default()
    };
    let error = world
        .try_start(&fake, StartOptions::default())
        .err()
        .unwrap();
    assert_eq!(error.hint_text(), Some("walk"));
    assert!(!world.folder().is_in_use());
    assert_eq!(world.vm().state(), State::Stopped);
    let entries = std::fs::read_dir(world.folder().path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["console.log", "lock", "vmx"]);
    let runs = world.start(&Fake::obedient());
    world.client().quit().unwrap();
    assert_eq!(runs.thread.join().unwrap(), End::Quit);
}

#[test]
fn a_runner_that_is_asked_to_end_lets_the_guest_shut_down() {
    let world = World::new();
    let runs = world.start(&Fake::obedient());
    runs.stopper.stop();
    assert_eq!(runs.thread.join().unwrap(), End::Guest);
    // One that does not obey is switched off when that is asked again.
    let stubborn = Fake::default();
    let runs = world.start(&stubborn);
    world.client().pause().unwrap();
    runs.stopper.stop();
    runs.stopper.stop();
    assert_eq!(runs.thread.join().unwrap(), End::Quit);
    let calls = runs.fake.calls();
    assert_eq!(calls, ["pause", "resume", "power button", "quit", "drop"]);
}

#[test]
fn the_console_is_a_connection_and_its_log_is_kept() {
    let world = World::new();
    let runs = world.start(&Fake::obedient());
    let guest = runs.fake.seen.lock().unwrap().guest.take();
    let mut guest = guest.unwrap();
    guest.write_all(b"Welcome\r\n").unwrap();
    // What is written is in the log once somebody has seen it.
    let (mut seen, mut stream) = world.client().console(true).unwrap();
    while seen.len() < 9 {
        let mut bytes = [0; 64];
        let n = stream.read(&mut bytes).unwrap();
        seen.extend_from_slice(&bytes[..n]);
    }
    assert_eq!(seen, b"Welcome\r\n");
    assert_eq!(world.folder().console_log(), b"Welcome\r\n");
    stream.write_all(b"root\r").unwrap();
    let mut typed = [0; 5];
    guest.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"root\r");
    guest.write_all(b"bye").unwrap();
    world.client().power_button().unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    runs.thread.join().unwrap();
    assert_eq!(world.folder().console_log(), b"Welcome\r\nbye");
}

#[test]
fn a_machine_without_serial_port_has_no_console() {
    let world = World::new();
    let runs = world.start(&Fake::default());
    let error = world.client().console(true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(world.client().status().unwrap().console, None);
    runs.fake
        .happens(Event::Off(End::Failed("killed".to_owned())));
    assert_eq!(
        runs.thread.join().unwrap(),
        End::Failed("killed".to_owned())
    );
}

#[test]
fn nonsense_and_other_versions_are_refused_and_the_machine_runs_on() {
    let world = World::new();
    let runs = world.start(&Fake::obedient());
    let path = world.folder().file("control.sock");
    let said = |line: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // On a line that is too long it is hung up before all of it is written.
        let _ = stream.write_all(line);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    assert!(said(b"{\"v\":2,\"do\":\"quit\"}\n").contains("version 2"));
    assert!(said(b"{\"v\":1,\"do\":\"fly\"}\n").contains("unsupported"));
    assert!(said(b"\xff\n{\"v\":1,\"do\":\"status\"}\n").contains("\"running\""));
    assert!(said(b"{\"v\":1,\"do\":\"qui").contains("cut off"));
    said(&vec![b'['; 1 << 20]);
    assert_eq!(said(b""), "");
    assert_eq!(world.client().status().unwrap().state, RunState::Running);
    world.client().quit().unwrap();
    assert_eq!(runs.thread.join().unwrap(), End::Quit);
}
