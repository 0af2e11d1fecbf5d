//! The server as clients see it, over socket pairs, without a client that we did not write here:
//! those are in `tests/tests/nbd.rs`.

mod client;
mod disk;
mod handshake;
mod hostile;
mod server;
mod transmission;
