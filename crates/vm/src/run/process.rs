//! A program that runs for a machine: it ends with this process, and what it says is kept.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hako_block::{Cancel, Error, ErrorKind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Most of what a program said that is shown, in bytes.
const MAX_TOLD_BYTES: u64 = 4096;
/// How often is looked whether it has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A running program.
pub(super) struct Process {
    name: &'static str,
    pid: u32,
    handle: OwnedFd,
    over: Arc<Over>,
    keeper: Option<JoinHandle<()>>,
    log: PathBuf,
}

/// Says when everything is over.
#[derive(Default)]
struct Over {
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl Over {
    fn set(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration) -> bool {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(is_over, patience, |is_over| !*is_over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Process {
    /// Starts a program, which people know as `name`; what it says goes into `log`. When it has ended, `after` is called with
    /// how. (The thread that does it is the one that started the program: where the launcher binds
    /// the program's life to that thread, it lives as long.)
    pub fn start(
        name: &'static str,
        mut command: Command,
        log: &Path,
        after: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> Result<Self> {
        let failed = |error| Error::io("write", error).in_file(log);
        let file = File::create(log).map_err(failed)?;
        command.stdin(Stdio::null());
        command
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file);
        let over = Arc::new(Over::default());
        let is_over = Arc::clone(&over);
        let (send, started) = channel();
        let keep = move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = send.send(Err(error));
                    return is_over.set();
                }
            };
            // Nobody else waits for it: the number is its own until it is waited for here.
            let handle = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let handle = handle.ok_or(rustix::io::Errno::SRCH);
            let handle = handle.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
            if handle.is_err() {
                let _ = child.kill();
            }
            let _ = send.send(
                handle
                    .map(|handle| (child.id(), handle))
                    .map_err(Into::into),
            );
            let status = child.wait();
            after(status.unwrap_or_else(|_| ExitStatus::from_raw(0x7f00)));
            is_over.set();
        };
        let builder = std::thread::Builder::new().name(format!("hako-{}", name.to_lowercase()));
        let keeper = builder
            .spawn(keep)
            .map_err(|error| Error::io("start a thread", error))?;
        let started = started
            .recv()
            .map_err(|_| Error::new(ErrorKind::Io, format!("{name} was not started")))?;
        let (pid, handle) = started.map_err(|error| Error::io(format!("start {name}"), error))?;
        Ok(Self {
            name,
            pid,
            handle,
            over,
            keeper: Some(keeper),
            log: log.to_owned(),
        })
    }

    /// Returns its process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for it to connect. Errors: what it has said, if it ends before;
    /// [`ErrorKind::Cancelled`].
    pub fn accept(
        &self,
        listener: &UnixListener,
        cancel: &Cancel,
        patience: Duration,
    ) -> Result<UnixStream> {
        let failed = |error| Error::io(format!("wait for {}", self.name), error);
        listener.set_nonblocking(true).map_err(failed)?;
        let stream = self.until(cancel, patience, || match listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(failed(error)),
        })?;
        stream.set_nonblocking(false).map_err(failed)?;
        Ok(stream)
    }

    /// Connects to the socket that it listens on, once it does. Errors: as of [`Process::accept`].
    pub fn connect(&self, path: &Path, cancel: &Cancel, patience: Duration) -> Result<UnixStream> {
        // Before it listens there is no socket, or one that nobody answers.
        self.until(cancel, patience, || Ok(UnixStream::connect(path).ok()))
    }

    fn until<T>(
        &self,
        cancel: &Cancel,
        patience: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            cancel.check()?;
            if self.over.wait(LOOK_INTERVAL) {
                return Err(self.failure(&format!("{} has ended", self.name)));
            }
            if Instant::now() > deadline {
                return Err(self.failure(&format!("{} does not answer", self.name)));
            }
        }
    }

    /// Returns an error with what it has said.
    pub fn failure(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Io,
            match told(&self.log) {
                said if said.is_empty() => what.to_owned(),
                said => format!("{what}: {said}"),
            },
        )
    }

    /// Returns whether everything is over, after waiting for it so long at most.
    pub fn is_over(&self, patience: Duration) -> bool {
        self.over.wait(patience)
    }

    /// Ends it at once.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_over(Duration::ZERO) {
            self.kill();
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Returns the end of what a program has said, in one line.
pub(super) fn told(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(MAX_TOLD_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(MAX_TOLD_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix("qemu-system-x86_64: ").unwrap_or(line))
        .collect();
    lines
        .join("; ")
        .chars()
        .filter(|letter| !letter.is_control())
        .collect()
}
