//! The server: who may come, and how everybody is seen off at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use hako_block::{Cancel, Error, Result};

use crate::connection::Connection;
use crate::export::Export;
use crate::handshake::shake_hands;
use crate::incoming::Incoming;
use crate::listener::Listener;
use crate::outbox::Outbox;
use crate::socket::Socket;
use crate::stop::Stop;

/// How often a server looks whether it was asked to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What clients are granted.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Clients at the same time; one more is turned away.
    pub max_clients: usize,
    /// End when the last client is gone, once one has used the export.
    pub once: bool,
    /// Within which the handshake must be over.
    pub handshake: Duration,
    /// How long a client may take nothing of what it is sent, or send nothing of what it began.
    pub stall: Duration,
    /// How long clients may take to leave once the server ends.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 16,
            once: false,
            handshake: Duration::from_secs(30),
            stall: Duration::from_secs(120),
            farewell: Duration::from_secs(10),
        }
    }
}

/// Why a conversation ended.
#[derive(Debug)]
pub enum Parting {
    /// The client left.
    Left,
    /// The client stopped in the middle, or was too slow.
    Stalled,
    /// The client broke the protocol.
    Violation(&'static str),
    /// The server ends.
    Stopped,
    /// The connection failed.
    Broken(io::Error),
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parting::Left => f.write_str("left"),
            Parting::Stalled => f.write_str("was too slow"),
            Parting::Violation(what) => write!(f, "broke the protocol: {what}"),
            Parting::Stopped => f.write_str("was sent away: the server ends"),
            Parting::Broken(error) => write!(f, "was lost: {error}"),
        }
    }
}

/// What happens while serving.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A client connected.
    Came {
        /// Its address.
        peer: &'a str,
    },
    /// A client was turned away: there were as many as there may be.
    Refused {
        /// Its address.
        peer: &'a str,
    },
    /// A client is gone.
    Gone {
        /// Its address.
        peer: &'a str,
        /// Why.
        parting: &'a Parting,
    },
    /// The image failed at a client's request.
    Failed {
        /// The request ("read").
        doing: &'static str,
        /// Guest offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u32,
        /// The error.
        error: &'a Error,
    },
    /// A client could not be let in.
    NotAccepted {
        /// Why.
        error: &'a io::Error,
    },
}

/// Serves one export to any number of clients.
pub struct Server<'a> {
    export: Export,
    limits: Limits,
    watch: &'a (dyn Fn(&Event) + Sync),
    stop: Stop,
    guests: Mutex<Guests>,
    one_is_gone: Condvar,
}

/// Who is here.
#[derive(Default)]
struct Guests {
    sockets: BTreeMap<u64, Arc<Socket>>,
    n_ever: u64,
    /// Somebody has used the export.
    any_served: bool,
}

impl<'a> Server<'a> {
    /// Returns a server of `export`; `watch` is told what happens, by any thread.
    pub fn new(export: Export, limits: Limits, watch: &'a (dyn Fn(&Event) + Sync)) -> Result<Self> {
        Ok(Self {
            export,
            limits,
            watch,
            stop: Stop::new()?,
            guests: Mutex::default(),
            one_is_gone: Condvar::new(),
        })
    }

    /// Serves until `cancel` asks to end, or (with [`Limits::once`]) the last client is gone. Then
    /// it stops listening, finishes what was asked for, and flushes the image.
    pub fn run(&self, listener: Listener, cancel: &Cancel) -> Result<()> {
        let served = thread::scope(|scope| {
            let accepted = self.accept(scope, &listener, cancel);
            drop(listener);
            self.stop.set();
            self.see_off();
            accepted
        });
        let flushed = match self.export.is_writable() {
            true => self.export.image().flush(),
            false => Ok(()),
        };
        served.and(flushed)
    }

    fn accept<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        listener: &Listener,
        cancel: &Cancel,
    ) -> Result<()> {
        while cancel.check().is_ok() && !self.is_over() {
            match listener.accept(LOOK_INTERVAL) {
                Ok(None) => (),
                Ok(Some(socket)) => {
                    if let Err(error) = self.admit(scope, socket) {
                        (self.watch)(&Event::NotAccepted { error: &error });
                    }
                }
                // Too many open files, for one: clients that leave make room.
                Err(error) => {
                    (self.watch)(&Event::NotAccepted { error: &error });
                    thread::sleep(LOOK_INTERVAL);
                }
            }
        }
        Ok(())
    }

    /// Returns whether the last client is gone, if that is to be the end.
    fn is_over(&self) -> bool {
        let guests = self.guests();
        self.limits.once && guests.any_served && guests.sockets.is_empty()
    }

    fn admit<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        socket: Socket,
    ) -> io::Result<()> {
        let socket = Arc::new(socket);
        let peer = socket.peer();
        let Some(number) = self.register(&socket) else {
            (self.watch)(&Event::Refused { peer: &peer });
            return Ok(());
        };
        let started = thread::Builder::new()
            .name("hako-nbd-client".to_owned())
            .spawn_scoped(scope, move || {
                (self.watch)(&Event::Came { peer: &peer });
                let parting = self.attend(&socket);
                self.unregister(number);
                (self.watch)(&Event::Gone {
                    peer: &peer,
                    parting: &parting,
                });
            });
        if started.is_err() {
            self.unregister(number);
        }
        started.map(|_| ())
    }

    /// Serves one client until it is gone.
    pub fn attend(&self, socket: &Socket) -> Parting {
        if let Err(error) = socket.prepare(self.limits.stall) {
            return Parting::Broken(error);
        }
        let outbox = Outbox::new(socket);
        let mut incoming =
            Incoming::new(socket, &self.stop, self.limits.handshake, self.limits.stall);
        let session = match shake_hands(&mut incoming, &outbox, &self.export) {
            Ok(session) => session,
            Err(parting) => return parting,
        };
        incoming.handshake_is_over();
        self.guests().any_served = true;
        let connection = Connection {
            export: &self.export,
            session,
            outbox: &outbox,
            stop: &self.stop,
            watch: self.watch,
        };
        connection.serve(&mut incoming)
    }

    /// Waits until everybody is gone; who stays too long is sent away.
    fn see_off(&self) {
        let deadline = Instant::now() + self.limits.farewell;
        let mut guests = self.guests();
        while !guests.sockets.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                guests.sockets.values().for_each(|socket| socket.hang_up());
                return;
            }
            (guests, _) = self
                .one_is_gone
                .wait_timeout(guests, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn register(&self, socket: &Arc<Socket>) -> Option<u64> {
        let mut guests = self.guests();
        if guests.sockets.len() >= self.limits.max_clients {
            return None;
        }
        guests.n_ever += 1;
        let number = guests.n_ever;
        guests.sockets.insert(number, Arc::clone(socket));
        Some(number)
    }

    fn unregister(&self, number: u64) {
        self.guests().sockets.remove(&number);
        self.one_is_gone.notify_all();
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
