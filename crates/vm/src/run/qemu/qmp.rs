//! QMP, by which QEMU is driven: a JSON object a line, commands with an `id` and their answers, and
//! events in between (QEMU's `docs/interop/qmp-spec.rst`).

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use hako_block::{Error, ErrorKind, Result};
use serde_json::{Value, json};

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line that is taken, in bytes.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// A connection to QEMU.
pub(super) struct Qmp {
    stream: UnixStream,
    answers: Receiver<Value>,
    next_id: u64,
    patience: Duration,
}

impl Qmp {
    /// Greets QEMU over a connection that it has made; `event` is told what happens from then on,
    /// by a thread that ends with the connection. Returns QEMU's version, too.
    pub fn greet(
        stream: UnixStream,
        event: impl FnMut(&Value) + Send + 'static,
    ) -> Result<(Self, (u64, u64))> {
        Self::greet_within(stream, event, PATIENCE)
    }

    fn greet_within(
        stream: UnixStream,
        mut event: impl FnMut(&Value) + Send + 'static,
        patience: Duration,
    ) -> Result<(Self, (u64, u64))> {
        let failed = |error| Error::io("talk to QEMU", error);
        stream.set_write_timeout(Some(patience)).map_err(failed)?;
        let reading = stream.try_clone().map_err(failed)?;
        let (send, answers) = channel();
        let reader = move || {
            let mut reader = BufReader::new(reading);
            while let Some(message) = read_message(&mut reader) {
                if message.get("event").is_some() {
                    event(&message);
                } else if send.send(message).is_err() {
                    return;
                }
            }
        };
        let builder = std::thread::Builder::new().name("hako-qmp".to_owned());
        builder.spawn(reader).map_err(failed)?;
        let mut qmp = Self {
            stream,
            answers,
            next_id: 0,
            patience,
        };
        let greeting = qmp.answer(Instant::now() + patience)?;
        let version = |part: &str| {
            greeting
                .pointer(&format!("/QMP/version/qemu/{part}"))?
                .as_u64()
        };
        let version = version("major").zip(version("minor"));
        let version = version.ok_or_else(|| Error::unsupported("does not greet like QEMU"))?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok((qmp, version))
    }

    /// Has QEMU carry out a command and returns what it answers. Errors: what QEMU says, and
    /// [`ErrorKind::Io`] if it says nothing for half a minute or is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        let sent = self.stream.write_all(line.as_bytes());
        sent.map_err(|error| Error::io("talk to QEMU", error))?;
        let deadline = Instant::now() + self.patience;
        loop {
            let mut answer = self.answer(deadline)?;
            // An answer that came too late for whoever asked.
            if answer.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            let what = answer.pointer("/error/desc").and_then(Value::as_str);
            let what = what.unwrap_or("no answer that makes sense");
            return Err(Error::new(
                ErrorKind::Io,
                format!("QEMU: {command}: {what}"),
            ));
        }
    }

    fn answer(&self, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left).map_err(|error| {
            Error::new(
                ErrorKind::Io,
                match error {
                    RecvTimeoutError::Timeout => "QEMU does not answer",
                    RecvTimeoutError::Disconnected => "QEMU is gone",
                },
            )
        })
    }
}

impl Drop for Qmp {
    /// Lets the reader go.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Returns the next message; none when the connection is over, or makes no sense any more.
fn read_message(reader: &mut impl BufRead) -> Option<Value> {
    let mut line = Vec::new();
    let n = reader
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .ok()?;
    if n == 0 {
        return None;
    }
    serde_json::from_slice(&line).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}}}}"#;

    /// Names of events.
    type Seen = Arc<Mutex<Vec<String>>>;

    /// A QEMU that answers each command by what `answer` makes of it.
    fn with_peer(
        answer: impl Fn(&Value) -> String + Send + 'static,
    ) -> Result<(Qmp, (u64, u64), Seen)> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(theirs.try_clone().unwrap());
            theirs
                .write_all(format!("{GREETING}\r\n").as_bytes())
                .unwrap();
            while let Some(command) = read_message(&mut reader) {
                let answer = match command["execute"].as_str() {
                    Some("qmp_capabilities") => {
                        json!({"return": {}, "id": command["id"]}).to_string()
                    }
                    _ => answer(&command),
                };
                if theirs.write_all(format!("{answer}\n").as_bytes()).is_err() {
                    return;
                }
            }
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let event = move |event: &Value| {
            let name = event["event"].as_str().unwrap().to_owned();
            log.lock().unwrap().push(name);
        };
        let (qmp, version) = Qmp::greet_within(ours, event, Duration::from_millis(500))?;
        Ok((qmp, version, seen))
    }

    #[test]
    fn commands_get_their_answers_and_events_their_own_way() {
        let (mut qmp, version, events) = with_peer(|command| {
            let id = &command["id"];
            let stale = json!({"return": "stale", "id": 9999});
            let event = json!({"event": "STOP", "timestamp": {}});
            let answer = json!({"return": {"running": true}, "id": id});
            format!("{stale}\n{event}\n{answer}")
        })
        .unwrap();
        assert_eq!(version, (7, 2));
        let answer = qmp.execute("query-status", json!({})).unwrap();
        assert_eq!(answer, json!({"running": true}));
        assert_eq!(*events.lock().unwrap(), ["STOP"]);
    }

    #[test]
    fn what_qemu_refuses_is_told() {
        let (mut qmp, ..) = with_peer(|command| {
            json!({"error": {"class": "GenericError", "desc": "no such thing"},
                   "id": command["id"]})
            .to_string()
        })
        .unwrap();
        let error = qmp.execute("eject", json!({})).unwrap_err();
        assert!(
            error.to_string().contains("QEMU: eject: no such thing"),
            "{error}"
        );
    }

    #[test]
    fn silence_nonsense_and_parting_are_errors() {
        for (answer, told) in [
            (r#"{"timestamp":1}"#, "does not answer"),
            ("nonsense", "is gone"),
            (r#"{"return":{}}"#, "does not answer"),
        ] {
            let (mut qmp, ..) = with_peer(move |_| answer.to_owned()).unwrap();
            let error = qmp.execute("query-status", json!({})).unwrap_err();
            assert!(error.to_string().contains(told), "{answer}: {error}");
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"QMP\":{}}\n").unwrap();
        assert!(Qmp::greet(ours, |_| {}).is_err());
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Qmp::greet(ours, |_| {}).is_err());
    }
}
