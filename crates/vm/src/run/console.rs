//! The guest's console: one thread between its serial port, whoever watches, and the log.
//!
//! Everybody sees what the guest writes, and may type. The guest never waits for a watcher: one
//! who does not read for long is hung up on. What is typed waits while the guest does not read.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hako_block::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::console_log::ConsoleLog;

/// Bytes that wait for a watcher before he is hung up on; the whole log fits.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// Bytes that wait for the guest before no more is taken from watchers.
const MAX_TYPED_BYTES: usize = 64 << 10;

/// Watchers at the same time.
const MAX_WATCHERS: usize = 64;

/// How long watchers may take for what is left when the machine is off.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a guest that writes is left alone: a serial port writes letter by letter, and to wake somebody
/// for each costs the guest more than the letter does. Nobody sees so short a time.
const BREATH: Duration = Duration::from_millis(5);

/// The console of a machine that runs. When it is dropped, watchers get what is left, and are hung
/// up on.
pub(super) struct Console {
    /// A byte wakes the thread; the end of it ends the thread.
    wake: Option<UnixStream>,
    newcomers: Newcomers,
    thread: Option<JoinHandle<()>>,
}

/// Watchers that the thread has not seen yet, and whether each wants to see the log first.
type Newcomers = Arc<Mutex<Vec<(UnixStream, bool)>>>;

impl Console {
    /// Begins: `guest` is the serial port; who connects to `listener` sees what comes from now on.
    pub(super) fn start(
        guest: UnixStream,
        listener: UnixListener,
        log: ConsoleLog,
    ) -> Result<Self> {
        let failed = |error| Error::io("start the console", error);
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        for result in [
            guest.set_nonblocking(true),
            listener.set_nonblocking(true),
            woken.set_nonblocking(true),
        ] {
            result.map_err(failed)?;
        }
        let newcomers = Newcomers::default();
        let hub = Hub {
            guest: Some(guest),
            listener,
            woken,
            newcomers: Arc::clone(&newcomers),
            watchers: Vec::new(),
            typed: VecDeque::new(),
            log,
        };
        let builder = std::thread::Builder::new().name("console".to_owned());
        let thread = builder.spawn(move || hub.run()).map_err(failed)?;
        Ok(Self {
            wake: Some(wake),
            newcomers,
            thread: Some(thread),
        })
    }

    /// Takes a watcher; with `replay` he sees first what the guest wrote before.
    pub(super) fn admit(&self, stream: UnixStream, replay: bool) {
        let mut newcomers = self
            .newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        newcomers.push((stream, replay));
        drop(newcomers);
        if let Some(mut wake) = self.wake.as_ref() {
            // A full pipe wakes, too.
            let _ = wake.write(&[0]);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Hub {
    /// None once it is gone.
    guest: Option<UnixStream>,
    listener: UnixListener,
    woken: UnixStream,
    newcomers: Newcomers,
    watchers: Vec<Watcher>,
    /// What was typed and the guest has not read yet.
    typed: VecDeque<u8>,
    log: ConsoleLog,
}

struct Watcher {
    stream: UnixStream,
    /// What he has not read yet.
    waiting: VecDeque<u8>,
    /// Whether he may send more; who has hung up one way may still watch.
    types: bool,
    gone: bool,
}

/// What poll(2) said.
struct Ready {
    guest: PollFlags,
    listener: bool,
    woken: bool,
    watchers: Vec<PollFlags>,
}

impl Hub {
    fn run(mut self) {
        let mut is_going_on = true;
        while is_going_on {
            let Ok(ready) = self.wait() else { return };
            is_going_on = self.turn(&ready);
            if !ready.guest.is_empty() {
                std::thread::sleep(BREATH);
            }
        }
        self.read_guest();
        self.part();
    }

    /// Waits until there is something to do.
    fn wait(&self) -> rustix::io::Result<Ready> {
        let none = PollFlags::empty();
        let room = self.typed.len() < MAX_TYPED_BYTES;
        let wanted = |reads: bool, writes: bool| {
            let read = if reads { PollFlags::IN } else { none };
            read | if writes { PollFlags::OUT } else { none }
        };
        let mut fds = vec![
            PollFd::new(&self.woken, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for watcher in &self.watchers {
            let events = wanted(room && watcher.types, !watcher.waiting.is_empty());
            fds.push(PollFd::new(&watcher.stream, events));
        }
        if let Some(guest) = &self.guest {
            fds.push(PollFd::new(guest, wanted(true, !self.typed.is_empty())));
        }
        retry(|| poll(&mut fds, None))?;
        let mut seen = fds.iter().map(PollFd::revents);
        Ok(Ready {
            woken: seen.next().is_some_and(|seen| !seen.is_empty()),
            listener: seen.next().is_some_and(|seen| !seen.is_empty()),
            watchers: seen.by_ref().take(self.watchers.len()).collect(),
            guest: seen.next().unwrap_or(none),
        })
    }

    /// Does what there is to do; says whether to go on.
    fn turn(&mut self, ready: &Ready) -> bool {
        if !ready.guest.is_empty() {
            self.read_guest();
            self.write_guest();
        }
        for (watcher, seen) in self.watchers.iter_mut().zip(&ready.watchers) {
            // What was typed before somebody hung up is still to be read.
            if seen.contains(PollFlags::IN) && self.typed.len() < MAX_TYPED_BYTES {
                watcher.read(&mut self.typed);
            } else if seen.intersects(PollFlags::ERR | PollFlags::NVAL | PollFlags::HUP) {
                watcher.gone = true;
            }
        }
        self.write_guest();
        for watcher in &mut self.watchers {
            watcher.write();
        }
        self.watchers.retain(|watcher| !watcher.gone);
        if ready.listener
            && let Ok((stream, _)) = self.listener.accept()
        {
            self.admit(stream, false);
        }
        if ready.woken {
            let mut bytes = [0; 64];
            match self.woken.read(&mut bytes) {
                Ok(0) => return false,
                _ => self.admit_newcomers(),
            }
        }
        true
    }

    fn admit_newcomers(&mut self) {
        let mut newcomers = self
            .newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let streams = std::mem::take(&mut *newcomers);
        drop(newcomers);
        for (stream, replay) in streams {
            self.admit(stream, replay);
        }
    }

    fn admit(&mut self, stream: UnixStream, replay: bool) {
        if self.watchers.len() >= MAX_WATCHERS || stream.set_nonblocking(true).is_err() {
            return;
        }
        let waiting = match replay {
            true => self.log.read().into(),
            false => VecDeque::new(),
        };
        self.watchers.push(Watcher {
            stream,
            waiting,
            types: true,
            gone: false,
        });
    }

    /// Takes what the guest has written.
    fn read_guest(&mut self) {
        let mut bytes = [0; 16 << 10];
        while let Some(guest) = &mut self.guest {
            match guest.read(&mut bytes) {
                Ok(0) => self.guest = None,
                Ok(n) => {
                    let written = bytes.get(..n).unwrap_or_default();
                    self.log.write(written);
                    for watcher in &mut self.watchers {
                        watcher.show(written);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.guest = None,
            }
        }
    }

    /// Hands the guest what was typed, as much as it takes.
    fn write_guest(&mut self) {
        match &mut self.guest {
            Some(guest) => {
                if !drain(&mut self.typed, guest) {
                    self.guest = None;
                }
            }
            None => self.typed.clear(),
        }
    }

    /// Lets watchers have what they have not read yet.
    fn part(mut self) {
        self.admit_newcomers();
        let end = Instant::now() + FAREWELL;
        loop {
            for watcher in &mut self.watchers {
                watcher.write();
            }
            self.watchers
                .retain(|watcher| !watcher.gone && !watcher.waiting.is_empty());
            let left = end.saturating_duration_since(Instant::now());
            if self.watchers.is_empty() || left.is_zero() {
                return;
            }
            let fds = self.watchers.iter().map(|watcher| watcher.stream.as_fd());
            if wait_writable(fds, left).is_err() {
                return;
            }
        }
    }
}

impl Watcher {
    fn show(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        if self.waiting.len() > MAX_WAITING_BYTES {
            self.gone = true;
        }
    }

    fn write(&mut self) {
        if !drain(&mut self.waiting, &mut self.stream) {
            self.gone = true;
        }
    }

    fn read(&mut self, typed: &mut VecDeque<u8>) {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.types = false,
            Ok(n) => typed.extend(bytes.get(..n).unwrap_or_default()),
            Err(error) if is_passing(&error) => (),
            Err(_) => self.gone = true,
        }
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Writes as much as goes without waiting; says whether somebody still reads.
fn drain(bytes: &mut VecDeque<u8>, stream: &mut UnixStream) -> bool {
    while !bytes.is_empty() {
        let (front, _) = bytes.as_slices();
        match stream.write(front) {
            Ok(0) => return false,
            Ok(n) => {
                bytes.drain(..n.min(bytes.len()));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

fn wait_writable<'a>(
    fds: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: Duration,
) -> rustix::io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = fds
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT))
        .collect();
    let timeout = Timespec::try_from(timeout).ok();
    retry(|| poll(&mut fds, timeout.as_ref())).map(|_| ())
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => (),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{RunFolder, RunHome};
    use std::path::Path;

    struct World {
        _temp: tempfile::TempDir,
        folder: RunFolder,
        guest: UnixStream,
        console: Console,
    }

    fn world() -> World {
        let temp = tempfile::tempdir().unwrap();
        let folder = RunHome::new(temp.path().join("run")).folder(Path::new("/a.vmx"));
        folder.create().unwrap();
        let listener = UnixListener::bind(folder.file("console.sock")).unwrap();
        let log = ConsoleLog::begin(&folder).unwrap();
        let (guest, port) = UnixStream::pair().unwrap();
        let console = Console::start(port, listener, log).unwrap();
        World {
            _temp: temp,
            folder,
            guest,
            console,
        }
    }

    impl World {
        fn watcher(&self) -> UnixStream {
            UnixStream::connect(self.folder.file("console.sock")).unwrap()
        }

        fn late_watcher(&self) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            self.console.admit(theirs, true);
            ours
        }
    }

    #[track_caller]
    fn expect(stream: &mut UnixStream, text: &[u8]) {
        let mut bytes = vec![0; text.len()];
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, text);
    }

    #[test]
    fn all_watchers_see_the_same_and_may_type() {
        let mut world = world();
        let mut first = world.watcher();
        first.write_all(b"one").unwrap();
        expect(&mut world.guest, b"one");
        world.guest.write_all(b"login: ").unwrap();
        expect(&mut first, b"login: ");
        let mut late = world.late_watcher();
        expect(&mut late, b"login: ");
        late.write_all(b"root\r").unwrap();
        expect(&mut world.guest, b"root\r");
        world.guest.write_all(b"# ").unwrap();
        for watcher in [&mut first, &mut late] {
            expect(watcher, b"# ");
        }
        // One who stops typing still sees, until the machine is off.
        first.shutdown(std::net::Shutdown::Write).unwrap();
        world.guest.write_all(b"bye").unwrap();
        expect(&mut first, b"bye");
        drop(world.console);
        for watcher in [&mut first, &mut late] {
            let mut rest = Vec::new();
            watcher.read_to_end(&mut rest).unwrap();
        }
    }

    #[test]
    fn a_watcher_who_does_not_read_stops_nobody() {
        let mut world = world();
        let mut lazy = world.late_watcher();
        let line = vec![b'x'; 64 << 10];
        for _ in 0..(MAX_WAITING_BYTES / line.len() + 20) {
            world.guest.write_all(&line).unwrap();
        }
        // He is hung up on, and the guest goes on.
        let mut watcher = world.watcher();
        watcher.write_all(b"?").unwrap();
        expect(&mut world.guest, b"?");
        world.guest.write_all(b"!").unwrap();
        // All of it has passed once somebody sees what came last.
        watcher
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut byte = [0];
        while byte != *b"!" {
            watcher.read_exact(&mut byte).unwrap();
        }
        let mut rest = Vec::new();
        lazy.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        lazy.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < MAX_WAITING_BYTES);
    }

    #[test]
    fn a_guest_that_does_not_read_makes_watchers_wait() {
        let world = world();
        let mut watcher = world.late_watcher();
        watcher.set_nonblocking(true).unwrap();
        let mut n_typed = 0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            match watcher.write(&[b'x'; 4096]) {
                Ok(n) => n_typed += n,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        assert!(n_typed < 4 << 20, "{n_typed} bytes are kept");
    }
}
