//! Disks that QEMU gets from us: over NBD, on sockets in the folder of the run.

use std::sync::Arc;
use std::thread::JoinHandle;

use hako_block::{BlockImage, Cancel, Error, ErrorKind, Result};
use hako_nbd::{Event as NbdEvent, Export, Limits, Listener, Server};

use super::super::{Event, Events, RunFolder};

/// Troubles that are told of one disk.
const MAX_NOTES: u32 = 20;

/// A disk to serve.
pub(super) struct Serving {
    /// What it is called, and its socket.
    pub name: String,
    /// The disk.
    pub image: Arc<dyn BlockImage>,
    /// Whether QEMU may write.
    pub writable: bool,
}

/// Disks that are served until [`Served::end`], or until it is dropped.
#[derive(Default)]
pub(super) struct Served {
    cancel: Cancel,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Served {
    /// Serves disks, each on a socket of its name in `folder`.
    pub fn begin(disks: Vec<Serving>, folder: &RunFolder, events: &Events) -> Result<Self> {
        let mut served = Served::default();
        for disk in disks {
            served.add(disk, folder, events)?;
        }
        Ok(served)
    }

    fn add(&mut self, disk: Serving, folder: &RunFolder, events: &Events) -> Result<()> {
        let listener = Listener::unix(&folder.socket(&socket_name(&disk.name))?)?;
        let export = Export::new(disk.image, "", disk.writable)?;
        let (cancel, events, name) = (self.cancel.clone(), events.clone(), disk.name);
        let serve = move || {
            let n_notes = std::sync::atomic::AtomicU32::new(0);
            let watch = |event: &NbdEvent<'_>| {
                let n = n_notes.load(std::sync::atomic::Ordering::Relaxed);
                if let Some(note) = note(&name, event).filter(|_| n < MAX_NOTES) {
                    n_notes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    events.send(Event::Note(note));
                }
            };
            let limits = Limits {
                max_clients: 2,
                ..Limits::default()
            };
            Server::new(export, limits, &watch)?.run(listener, &cancel)
        };
        let builder = std::thread::Builder::new().name("hako-disk".to_owned());
        let thread = builder
            .spawn(serve)
            .map_err(|error| Error::io("start a thread", error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends it: what was written is on stable storage then, and the images are closed.
    pub fn end(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        self.cancel.cancel();
        let mut ended = Ok(());
        for thread in self.threads.drain(..) {
            let died = || Err(Error::new(ErrorKind::Io, "a disk's server has died"));
            let served = thread.join().unwrap_or_else(|_| died());
            ended = ended.and(served);
        }
        ended
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Who wants to know how it ended has asked.
        let _ = self.stop();
    }
}

/// Returns the name of a disk's socket.
pub(super) fn socket_name(name: &str) -> String {
    format!("{name}.sock")
}

/// Returns what the user should know of what happens.
fn note(name: &str, event: &NbdEvent<'_>) -> Option<String> {
    match event {
        NbdEvent::Failed {
            doing,
            offset,
            len,
            error,
        } => Some(format!(
            "{name}: {doing} of {len} bytes at guest offset {offset:#x}: {error}"
        )),
        NbdEvent::Gone { parting, .. } => match parting {
            hako_nbd::Parting::Left | hako_nbd::Parting::Stopped => None,
            other => Some(format!("{name}: QEMU {other}")),
        },
        _ => None,
    }
}
