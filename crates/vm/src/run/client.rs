//! Talking to the runner of a machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hako_block::{Error, ErrorKind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::protocol::{MAX_ANSWER_BYTES, Request, parse_answer, parse_event};
use super::{End, Event, RunFolder, Stats, Status, console_log};

/// How long a runner may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// How long it may take when somebody only looks.
const LOOK: Duration = Duration::from_secs(2);

impl RunFolder {
    /// Connects to the runner; `None` if there is none.
    pub fn connect(&self) -> Result<Option<Client>> {
        self.connect_within(ANSWER)
    }

    /// Returns what the runner says of its machine; `None` if there is none, or if it does not
    /// answer for some seconds.
    pub fn status(&self) -> Option<Status> {
        self.connect_within(LOOK).ok()??.status().ok()
    }

    /// Returns what the guest wrote to its console in this run, or in the last one if it is off, as
    /// far as it is kept.
    pub fn console_log(&self) -> Vec<u8> {
        console_log::read(self)
    }

    /// Connects to the runner, which may take so long for each answer; `None` if there is none.
    pub fn connect_within(&self, patience: Duration) -> Result<Option<Client>> {
        let path = self.socket("control.sock")?;
        match UnixStream::connect(&path) {
            Ok(stream) => Client::new(stream, patience).map(Some),
            Err(error) => match error.kind() {
                // A socket that nobody listens at is what a killed runner left.
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(Error::io("connect", error).in_file(&path)),
            },
        }
    }
}

/// A connection to a runner.
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    fn new(stream: UnixStream, patience: Duration) -> Result<Self> {
        let set = stream.set_read_timeout(Some(patience));
        set.and_then(|()| stream.set_write_timeout(Some(patience)))
            .map_err(|error| Error::io("connect", error))?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    /// Returns what the runner says of its machine.
    pub fn status(&mut self) -> Result<Status> {
        let value = self.ask(Request::Status)?;
        Status::from_json(&value).ok_or_else(|| incomplete("status"))
    }

    /// Returns what the machine has used.
    pub fn stats(&mut self) -> Result<Stats> {
        let value = self.ask(Request::Stats)?;
        Stats::from_json(&value).ok_or_else(|| incomplete("stats"))
    }

    /// Stops the virtual CPUs.
    pub fn pause(&mut self) -> Result<()> {
        self.ask(Request::Pause).map(drop)
    }

    /// Lets them go on.
    pub fn resume(&mut self) -> Result<()> {
        self.ask(Request::Resume).map(drop)
    }

    /// Resets the machine.
    pub fn reset(&mut self) -> Result<()> {
        self.ask(Request::Reset).map(drop)
    }

    /// Asks the guest to shut down.
    pub fn power_button(&mut self) -> Result<()> {
        self.ask(Request::PowerButton).map(drop)
    }

    /// Switches the guest off.
    pub fn quit(&mut self) -> Result<()> {
        self.ask(Request::Quit).map(drop)
    }

    /// Makes it a stream of events. Returns what the runner said before the first of them.
    pub fn watch(mut self) -> Result<(Status, Watch)> {
        let value = self.ask(Request::Watch)?;
        let status = Status::from_json(&value).ok_or_else(|| incomplete("watch"))?;
        let reader = self.reader;
        let line = Vec::new();
        Ok((status, Watch { reader, line }))
    }

    /// Makes it the guest's serial port; with `replay` what was written before in this run comes
    /// first. Returns what was read of it already, and the connection.
    pub fn console(mut self, replay: bool) -> Result<(Vec<u8>, UnixStream)> {
        self.ask(Request::Console { replay })?;
        let read = self.reader.buffer().to_vec();
        let stream = self.reader.into_inner();
        let set = stream.set_read_timeout(None);
        set.and_then(|()| stream.set_write_timeout(None))
            .map_err(|error| Error::io("connect", error))?;
        Ok((read, stream))
    }

    /// Kills the runner, which does not answer. Its engine goes with it.
    pub fn kill(self) -> Result<()> {
        let failed = |error| Error::io("kill the runner", std::io::Error::from(error));
        let stream = self.reader.get_ref();
        let peer = rustix::net::sockopt::socket_peercred(stream).map_err(failed)?;
        let pid: Pid = peer.pid;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        // While the connection lives, so does the process that has that number.
        if has_hung_up(stream) {
            return Ok(());
        }
        pidfd_send_signal(&process, Signal::KILL).map_err(failed)
    }

    fn ask(&mut self, request: Request) -> Result<Value> {
        let sent = self.reader.get_ref().write_all(request.line().as_bytes());
        sent.map_err(talk_failed)?;
        let mut line = Vec::new();
        let mut bounded = self.reader.by_ref().take(MAX_ANSWER_BYTES);
        bounded.read_until(b'\n', &mut line).map_err(talk_failed)?;
        if line.is_empty() {
            return Err(went_off());
        }
        parse_answer(&line)
    }
}

/// What happens to a machine, as its runner tells.
pub struct Watch {
    reader: BufReader<UnixStream>,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Watch {
    /// Waits for the next event; `None` if it takes longer. When the runner has hung up without a
    /// word, the machine is off: it was killed.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Event>> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let set = self.reader.get_ref().set_read_timeout(Some(left));
            set.map_err(talk_failed)?;
            match self.read_line() {
                Ok(true) => {
                    let line = std::mem::take(&mut self.line);
                    if let Some(event) = parse_event(&line)? {
                        return Ok(Some(event));
                    }
                }
                Ok(false) => {
                    let what = "its runner was killed".to_owned();
                    return Ok(Some(Event::Off(End::Failed(what))));
                }
                Err(error) if is_timeout(&error) => (),
                Err(error) => return Err(talk_failed(error)),
            }
        }
    }

    /// Reads on; says whether there is a whole line rather than the end.
    fn read_line(&mut self) -> std::io::Result<bool> {
        let mut bounded = self.reader.by_ref().take(MAX_ANSWER_BYTES);
        bounded.read_until(b'\n', &mut self.line)?;
        Ok(self.line.last() == Some(&b'\n'))
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

fn talk_failed(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => went_off(),
        _ if is_timeout(&error) => Error::new(ErrorKind::Io, "the runner does not answer"),
        _ => Error::io("talk to the runner", error),
    }
}

fn went_off() -> Error {
    Error::new(ErrorKind::NotFound, "the machine went off")
}

fn incomplete(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("the runner's {what} is incomplete"))
}

/// Returns whether nobody is at the other end any more.
fn has_hung_up(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)) != Ok(0)
}
