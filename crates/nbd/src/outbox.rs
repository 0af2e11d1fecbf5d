//! What is sent to a client, by several threads, each message in one piece.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::socket::Socket;

/// The way to a client. A client that does not take what it is sent loses the connection; then
/// nothing more is sent, and the thread that reads from it learns that it is gone.
pub struct Outbox<'a> {
    socket: &'a Socket,
    is_open: AtomicBool,
    /// Held for as long as a message has parts.
    turn: Mutex<()>,
}

/// The right to send.
pub struct Line<'a> {
    outbox: &'a Outbox<'a>,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Outbox<'a> {
    /// Returns the way to the client at the other end of `socket`.
    pub fn new(socket: &'a Socket) -> Self {
        Self {
            socket,
            is_open: AtomicBool::new(true),
            turn: Mutex::new(()),
        }
    }

    /// Returns whether what is sent may still arrive.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Sends one message.
    pub fn send(&self, parts: &[&[u8]]) {
        self.line().send(parts);
    }

    /// Waits for the right to send a message bit by bit.
    pub fn line(&self) -> Line<'_> {
        Line {
            outbox: self,
            _turn: self.turn.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Line<'_> {
    /// Sends the next parts of the message.
    pub fn send(&mut self, parts: &[&[u8]]) {
        if !self.outbox.is_open() {
            return;
        }
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        if self.outbox.socket.write_all(&mut slices).is_err() {
            self.hang_up();
        }
    }

    /// Ends the connection: the message cannot be completed.
    pub fn hang_up(&mut self) {
        self.outbox.is_open.store(false, Ordering::Relaxed);
        self.outbox.socket.hang_up();
    }
}
