//! What is said over a runner's `control.sock`: JSON, one object a line, in both directions.
//!
//! A request names the version of the protocol and what is to be done; each is answered by one line
//! in turn:
//!
//! ```text
//! {"v":1,"do":"status"}
//! {"v":1,"ok":{"state":"running",…}}
//! {"v":1,"do":"fly"}
//! {"v":1,"error":{"kind":"unsupported","message":"no such request: \"fly\"","hint":null}}
//! ```
//!
//! | `do` | what happens | `ok` |
//! |---|---|---|
//! | `status` | | [`Status`](super::Status) |
//! | `stats` | | [`Stats`](super::Stats) |
//! | `pause`, `resume` | the virtual CPUs are stopped, and go on | `{}` |
//! | `reset` | as the button of that name | `{}` |
//! | `power-button` | the guest is asked to shut down | `{}` |
//! | `quit` | the guest is switched off | `{}` |
//! | `watch` | events follow until the machine is off; the connection takes no more requests | `Status` |
//! | `console` | the connection is the guest's serial port from then on; with `"replay":true` what it wrote before in this run comes first | `{}` |
//!
//! Events are lines, too. After `off` the runner has let go of the machine, and hangs up.
//!
//! ```text
//! {"v":1,"event":"paused","text":"no space left for scsi0:0"}
//! {"v":1,"event":"resumed"}
//! {"v":1,"event":"reset"}
//! {"v":1,"event":"address","node":"ethernet0","address":"10.0.2.15"}
//! {"v":1,"event":"note","text":"…"}
//! {"v":1,"event":"off","how":"guest"}       or "quit", or "failed" with a "text"
//! ```
//!
//! Fields and requests may be added within a version. A runner refuses requests of another version
//! than its own with the kind `unsupported`: it may be older or newer than the program that asks.

use hako_block::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::{End, Event};

/// The version of the protocol.
const VERSION: u64 = 1;

/// Bytes that a request may have.
pub(super) const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// Bytes that an answer or an event may have.
pub(super) const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// What a runner may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Status,
    Stats,
    Pause,
    Resume,
    Reset,
    PowerButton,
    Quit,
    Watch,
    Console { replay: bool },
}

impl Request {
    /// Each with its word; `Console` without what is wanted of it.
    const NAMES: [(Request, &str); 9] = [
        (Request::Status, "status"),
        (Request::Stats, "stats"),
        (Request::Pause, "pause"),
        (Request::Resume, "resume"),
        (Request::Reset, "reset"),
        (Request::PowerButton, "power-button"),
        (Request::Quit, "quit"),
        (Request::Watch, "watch"),
        (Request::Console { replay: false }, "console"),
    ];

    /// Returns its word.
    pub(super) fn name(self) -> &'static str {
        let is_same = |other: &Request| match self {
            Request::Console { .. } => matches!(other, Request::Console { .. }),
            _ => *other == self,
        };
        let mut names = Self::NAMES.iter();
        let found = names.find(|(other, _)| is_same(other));
        found.map_or("", |(_, name)| name)
    }

    /// Returns the line that asks for it.
    pub(super) fn line(self) -> String {
        let mut value = json!({"v": VERSION, "do": self.name()});
        if let Request::Console { replay } = self {
            value["replay"] = replay.into();
        }
        format!("{value}\n")
    }

    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> Result<Self> {
        let value = checked(line)?;
        let name = value["do"].as_str().unwrap_or_default();
        let mut names = Self::NAMES.iter();
        match names.find(|(_, known)| *known == name) {
            Some((Request::Console { .. }, _)) => Ok(Request::Console {
                replay: value["replay"].as_bool().unwrap_or(false),
            }),
            Some((request, _)) => Ok(*request),
            None => Err(Error::unsupported(format!("no such request: {name:?}"))),
        }
    }
}

/// Reads a line, and looks whether it is of our version.
fn checked(line: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| Error::invalid(format!("not a line of the protocol: {error}")))?;
    match value["v"].as_u64() {
        Some(VERSION) => Ok(value),
        Some(other) => Err(Error::unsupported(format!(
            "the other side speaks version {other} of the protocol, this one version {VERSION}"
        ))
        .hint("the machine was started by another version of hako: stop it with that one")),
        None => Err(Error::invalid("a line of the protocol has no version")),
    }
}

/// Returns the line that answers a request. A runner says the same way on its standard output
/// whether its machine runs (`ok` is its status).
pub fn answer(result: std::result::Result<Value, &Error>) -> String {
    let value = match result {
        Ok(value) => json!({"v": VERSION, "ok": value}),
        Err(error) => json!({"v": VERSION, "error": error_json(error)}),
    };
    format!("{value}\n")
}

/// Returns an error as the protocol has it.
fn error_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().name(),
        "message": error.to_string(),
        "hint": error.hint_text(),
    })
}

/// Reads the line that answers a request. Errors: the one that it holds.
pub fn parse_answer(line: &[u8]) -> Result<Value> {
    let mut value = checked(line)?;
    let error = &value["error"];
    if error.is_object() {
        let text = |key: &str| error[key].as_str();
        let kind = ErrorKind::named(text("kind").unwrap_or_default());
        let said = Error::new(kind, text("message").unwrap_or("refused"));
        return Err(match text("hint") {
            Some(hint) => said.hint(hint),
            None => said,
        });
    }
    Ok(value["ok"].take())
}

/// Returns the line that tells of an event.
pub(super) fn event_line(event: &Event) -> String {
    let value = match event {
        Event::Paused { why } => json!({"v": VERSION, "event": "paused", "text": why}),
        Event::Resumed => json!({"v": VERSION, "event": "resumed"}),
        Event::Reset => json!({"v": VERSION, "event": "reset"}),
        Event::Address { node, address } => {
            json!({"v": VERSION, "event": "address", "node": node, "address": address.to_string()})
        }
        Event::Note(text) => json!({"v": VERSION, "event": "note", "text": text}),
        Event::Off(End::Guest) => json!({"v": VERSION, "event": "off", "how": "guest"}),
        Event::Off(End::Quit) => json!({"v": VERSION, "event": "off", "how": "quit"}),
        Event::Off(End::Failed(text)) => {
            json!({"v": VERSION, "event": "off", "how": "failed", "text": text})
        }
    };
    format!("{value}\n")
}

/// Reads the line that tells of an event; `None` for one that is unknown.
pub(super) fn parse_event(line: &[u8]) -> Result<Option<Event>> {
    let value = checked(line)?;
    let text = || value["text"].as_str().map(str::to_owned);
    Ok(Some(match value["event"].as_str().unwrap_or_default() {
        "paused" => Event::Paused { why: text() },
        "resumed" => Event::Resumed,
        "reset" => Event::Reset,
        "address" => {
            let word = |key: &str| value[key].as_str().unwrap_or_default();
            match word("address").parse() {
                Ok(address) => Event::Address {
                    node: word("node").to_owned(),
                    address,
                },
                Err(_) => return Ok(None),
            }
        }
        "note" => Event::Note(text().unwrap_or_default()),
        "off" => Event::Off(match value["how"].as_str() {
            Some("guest") => End::Guest,
            Some("quit") => End::Quit,
            _ => End::Failed(text().unwrap_or_default()),
        }),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_as_they_were() {
        for (request, name) in Request::NAMES {
            assert!(request.line().contains(&format!("\"{name}\"")));
            assert_eq!(Request::parse(request.line().as_bytes()).unwrap(), request);
        }
        let replay = Request::Console { replay: true };
        assert_eq!(Request::parse(replay.line().as_bytes()).unwrap(), replay);
    }

    #[test]
    fn answers_and_events_come_back_as_they_were() {
        let value = json!({"a": 1});
        let line = answer(Ok(value.clone()));
        assert_eq!(parse_answer(line.as_bytes()).unwrap(), value);
        let error = Error::new(ErrorKind::Locked, "in use")
            .in_file("web")
            .hint("wait");
        let error = parse_answer(answer(Err(&error)).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert_eq!(error.to_string(), "web: in use");
        assert_eq!(error.hint_text(), Some("wait"));
        for event in [
            Event::Paused { why: None },
            Event::Resumed,
            Event::Reset,
            Event::Address {
                node: "ethernet0".to_owned(),
                address: "2001:db8::1".parse().unwrap(),
            },
            Event::Note("slow".to_owned()),
            Event::Off(End::Guest),
            Event::Off(End::Quit),
            Event::Off(End::Failed("killed".to_owned())),
        ] {
            let line = event_line(&event);
            assert_eq!(parse_event(line.as_bytes()).unwrap(), Some(event));
        }
        let line = event_line(&Event::Reset).replace("reset", "news");
        assert_eq!(parse_event(line.as_bytes()).unwrap(), None);
    }

    #[test]
    fn another_version_and_nonsense_are_told() {
        for (line, kind) in [
            (&b"{\"v\":2,\"do\":\"status\"}"[..], ErrorKind::Unsupported),
            (b"{\"v\":1,\"do\":\"fly\"}", ErrorKind::Unsupported),
            (b"{\"v\":1}", ErrorKind::Unsupported),
            (b"{\"do\":\"status\"}", ErrorKind::Invalid),
            (b"\xff\x00", ErrorKind::Invalid),
            (b"[]", ErrorKind::Invalid),
            (b"", ErrorKind::Invalid),
        ] {
            assert_eq!(Request::parse(line).unwrap_err().kind(), kind, "{line:?}");
        }
        let error = parse_answer(b"{\"v\":2,\"ok\":{}}").unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
    }
}
