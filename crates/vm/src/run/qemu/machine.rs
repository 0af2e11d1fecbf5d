//! A machine that QEMU runs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hako_block::Result;
use hako_formats::machine::Node;
use serde_json::{Value, json};

use super::super::disks::no_room;
use super::super::process::{Process, told};
use super::super::{DiskStats, End, Event, Events, Facts, IoStats, Machine};

use super::qmp::Qmp;
use super::served::Served;

/// How long QEMU may take to write out what it has and go.
const QUIT_PATIENCE: Duration = Duration::from_secs(30);

/// A machine that QEMU runs.
pub(super) struct Running {
    pub facts: Facts,
    pub console: Option<UnixStream>,
    pub qmp: Qmp,
    pub process: Process,
    /// Nodes in the VMX by QEMU's names of the media.
    pub drives: BTreeMap<String, Node>,
    pub watch: Watch,
}

/// What is told of a machine, from its events to its end.
#[derive(Clone)]
pub(super) struct Watch(Arc<Mutex<Watching>>);

struct Watching {
    events: Events,
    /// Events before the guest is let go are QEMU's own affair.
    has_begun: bool,
    /// Whether the guest runs: it was let go.
    is_let_go: bool,
    is_told: bool,
    /// Why the guest stands still, until that is told.
    why: Option<String>,
    end: Option<End>,
    /// Failures that were told.
    failures: BTreeSet<String>,
}

impl Watch {
    pub fn new(events: Events) -> Self {
        Self(Arc::new(Mutex::new(Watching {
            events,
            has_begun: false,
            is_let_go: false,
            is_told: true,
            why: None,
            end: None,
            failures: BTreeSet::new(),
        })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Watching) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that the guest is about to be let go.
    pub fn begin(&self) {
        self.with(|watching| watching.has_begun = true);
    }

    /// Notes that the start has failed: whoever started it hears of it by an error.
    pub fn give_up(&self) {
        self.with(|watching| watching.is_told = false);
    }

    /// Notes that the end is wanted.
    pub fn expect_quit(&self) {
        self.with(|watching| {
            watching.end.get_or_insert(End::Quit);
        });
    }

    /// Takes an event of QEMU's.
    pub fn take(&self, message: &Value) {
        self.with(|watching| {
            if let Some(event) = watching.event(message) {
                watching.events.send(event);
            }
        });
    }

    /// Tells the end: QEMU and everything that it used is gone.
    pub fn over(&self, status: ExitStatus, served: Result<()>, said: &str) {
        self.with(|watching| {
            if !watching.is_told {
                return;
            }
            let end = match (&watching.end, served) {
                (_, Err(error)) => {
                    End::Failed(format!("what the guest wrote is not safe: {error}"))
                }
                (Some(end), Ok(())) if status.success() || *end == End::Quit => end.clone(),
                (_, Ok(())) if said.is_empty() => End::Failed(format!("QEMU ended: {status}")),
                (_, Ok(())) => End::Failed(format!("QEMU ended: {status}: {said}")),
            };
            watching.events.send(Event::Off(end));
        });
    }
}

impl Watching {
    fn event(&mut self, message: &Value) -> Option<Event> {
        let data = &message["data"];
        match message["event"].as_str()? {
            "SHUTDOWN" => {
                let end = match data["guest"].as_bool() {
                    Some(true) => End::Guest,
                    _ => End::Quit,
                };
                self.end.get_or_insert(end);
                None
            }
            "STOP" if self.has_begun && self.end.is_none() => Some(Event::Paused {
                why: self.why.take(),
            }),
            "RESUME" if self.is_let_go => Some(Event::Resumed),
            "RESUME" => {
                self.is_let_go = self.has_begun;
                None
            }
            "RESET" if self.has_begun => Some(Event::Reset),
            "GUEST_PANICKED" => Some(Event::Note("the guest's kernel has given up".to_owned())),
            "BLOCK_IO_ERROR" => self.block_error(data),
            _ => None,
        }
    }

    fn block_error(&mut self, data: &Value) -> Option<Event> {
        let word = |key: &str| data[key].as_str().unwrap_or_default();
        let drive = word("node-name").replacen('-', ":", 1);
        let what = match data["nospace"].as_bool() {
            Some(true) if word("action") == "stop" => {
                no_room(&format!("no space left for {drive}"))
            }
            Some(true) => format!("no space left for {drive}"),
            _ => format!(
                "{drive}: a {} failed: {}",
                word("operation"),
                word("reason")
            ),
        };
        if word("action") == "stop" {
            self.why = Some(what);
            return None;
        }
        // A guest may try again and again.
        let is_new = self.failures.len() < 100 && self.failures.insert(what.clone());
        is_new.then_some(Event::Note(what))
    }
}

impl Running {
    fn is_running(&mut self) -> Result<bool> {
        let status = self.qmp.execute("query-status", json!({}))?;
        Ok(status["running"] == true)
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
        if self.is_running()? {
            self.qmp.execute("stop", json!({}))?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if !self.is_running()? {
            self.qmp.execute("cont", json!({}))?;
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.qmp.execute("system_reset", json!({})).map(drop)
    }

    fn power_button(&mut self) -> Result<()> {
        self.qmp.execute("system_powerdown", json!({})).map(drop)
    }

    fn quit(&mut self) -> Result<()> {
        self.watch.expect_quit();
        if self.qmp.execute("quit", json!({})).is_err() && !self.process.is_over(Duration::ZERO) {
            self.process.kill();
        }
        Ok(())
    }

    fn io_stats(&mut self) -> Result<IoStats> {
        let answer = self
            .qmp
            .execute("query-blockstats", json!({"query-nodes": false}))?;
        let devices = answer.as_array().into_iter().flatten();
        let disks = devices.filter_map(|device| {
            let name = device["node-name"].as_str()?;
            let node = self.drives.get(name)?;
            let stats = &device["stats"];
            let number = |key: &str| stats[key].as_u64().unwrap_or(0);
            Some(DiskStats {
                node: node.to_string(),
                reads: number("rd_operations"),
                read_bytes: number("rd_bytes"),
                writes: number("wr_operations"),
                written_bytes: number("wr_bytes"),
                flushes: number("flush_operations"),
            })
        });
        Ok(IoStats {
            disks: disks.collect(),
            // QEMU does not count what its network cards do.
            nics: Vec::new(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.process.is_over(Duration::ZERO) {
            let _ = self.quit();
            let _ = self.process.is_over(QUIT_PATIENCE);
        }
        // The process kills what is left.
    }
}

/// What happens once QEMU is gone.
pub(super) fn after(
    watch: Watch,
    served: Served,
    log: std::path::PathBuf,
) -> impl FnOnce(ExitStatus) + Send + 'static {
    move |status| {
        let served = served.end();
        watch.over(status, served, &told(&log));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn watch() -> (Watch, Receiver<Event>) {
        let (send, events) = channel();
        let send = Mutex::new(send);
        let watch = Watch::new(Events::new(move |event| {
            let _ = send.lock().unwrap().send(event);
        }));
        (watch, events)
    }

    fn all(events: &Receiver<Event>) -> Vec<Event> {
        events.try_iter().collect()
    }

    #[test]
    fn events_are_told_in_our_words() {
        let (watch, events) = watch();
        let take = |name: &str, data: Value| watch.take(&json!({"event": name, "data": data}));
        take("STOP", json!({}));
        watch.begin();
        take("RESUME", json!({}));
        assert_eq!(all(&events), []);
        let failed = |action: &str, nospace: bool| {
            json!({"node-name": "scsi0-1", "action": action, "operation": "write",
                   "nospace": nospace, "reason": "Input/output error"})
        };
        take("BLOCK_IO_ERROR", failed("stop", true));
        take("STOP", json!({}));
        take("RESUME", json!({}));
        take("STOP", json!({}));
        take("RESET", json!({"guest": true}));
        take("BLOCK_IO_ERROR", failed("report", false));
        take("BLOCK_IO_ERROR", failed("report", false));
        take("UNKNOWN", json!(7));
        let why = Some(no_room("no space left for scsi0:1"));
        let note = "scsi0:1: a write failed: Input/output error".to_owned();
        assert_eq!(
            all(&events),
            [
                Event::Paused { why },
                Event::Resumed,
                Event::Paused { why: None },
                Event::Reset,
                Event::Note(note),
            ]
        );
    }

    #[test]
    fn the_end_is_told_once_all_is_closed() {
        let shutdown = |guest: bool| json!({"event": "SHUTDOWN", "data": {"guest": guest}});
        let success = ExitStatus::from_raw(0);
        let killed = ExitStatus::from_raw(9);
        type Happening<'a> = &'a dyn Fn(&Watch);
        let cases: [(Happening<'_>, ExitStatus, &str, End); 5] = [
            (
                &|watch| watch.take(&shutdown(true)),
                success,
                "a warning",
                End::Guest,
            ),
            (
                &|watch| watch.take(&shutdown(false)),
                success,
                "",
                End::Quit,
            ),
            (&|watch| watch.expect_quit(), killed, "", End::Quit),
            (
                &|_| {},
                killed,
                "",
                End::Failed("QEMU ended: signal: 9 (SIGKILL)".to_owned()),
            ),
            (
                &|_| {},
                ExitStatus::from_raw(256),
                "no disk",
                End::Failed("QEMU ended: exit status: 1: no disk".to_owned()),
            ),
        ];
        for (happen, status, said, end) in cases {
            let (watch, events) = watch();
            happen(&watch);
            watch.over(status, Ok(()), said);
            assert_eq!(all(&events), [Event::Off(end)]);
        }
        let (watch, events) = watch();
        watch.take(&shutdown(true));
        watch.over(success, Err(hako_block::Error::read_only()), "");
        assert!(matches!(&all(&events)[..], [Event::Off(End::Failed(_))]));
        let (watch, events) = self::watch();
        watch.give_up();
        watch.over(killed, Ok(()), "");
        assert_eq!(all(&events), []);
    }
}
