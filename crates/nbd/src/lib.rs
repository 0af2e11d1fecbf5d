//! A server of disk images over NBD, the network block device: fixed newstyle negotiation,
//! structured replies, block status, trim and zeroes, several clients with many requests each.
//!
//! The protocol is that of `doc/proto.md` of NetworkBlockDevice/nbd, whose sections are cited.
//! TLS is not offered: whoever reaches the socket may use the export.
//!
//! Every client has a thread that reads its requests and a few that work on them, over buffers
//! whose number and size are fixed: a client that asks for more waits, and what it asks for by a
//! number is never allocated. This crate prints nothing; an [`Event`] tells what happens.

#![forbid(unsafe_code)]

mod connection;
mod export;
mod handshake;
mod incoming;
mod listener;
mod option;
mod outbox;
mod protocol;
mod reply;
mod server;
mod socket;
mod stop;
mod work;

#[cfg(test)]
mod tests;

pub use export::Export;
pub use listener::Listener;
pub use server::{Event, Limits, Parting, Server};
pub use socket::Socket;
