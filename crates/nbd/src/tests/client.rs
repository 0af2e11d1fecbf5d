//! A server with one client of ours, which says exactly what a test wants it to.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hako_block::testkit::Rng;

use super::disk::Disk;
use crate::protocol::*;
use crate::server::{Event, Limits, Parting, Server};
use crate::{Export, Socket};

/// Size of the disk: no whole number of sectors.
pub const SIZE: u64 = (4 << 20) + 100;

/// Returns content with data, zeros in data, and long runs of zeros.
pub fn content() -> Vec<u8> {
    let mut bytes = Rng::new(1).bytes(SIZE as usize);
    for hole in [
        0..65536,
        100_000..101_000,
        1 << 20..2 << 20,
        3_000_000..3_050_000,
    ] {
        bytes[hole].fill(0);
    }
    bytes
}

pub fn no_watch(_: &Event) {}

/// Runs `act` as a client of `disk`, and returns how the server saw it end.
pub fn serve(disk: &Arc<Disk>, writable: bool, act: impl FnOnce(&mut Client) + Send) -> Parting {
    let image: Arc<dyn hako_block::BlockImage> = Arc::clone(disk) as _;
    let export = Export::new(image, "disk", writable).unwrap();
    let server = Server::new(export, quick(), &no_watch).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || act(&mut Client::new(ours)));
        server.attend(&Socket::Unix(theirs))
    })
}

/// Limits that a test can wait for.
pub fn quick() -> Limits {
    Limits {
        handshake: Duration::from_millis(400),
        stall: Duration::from_millis(400),
        farewell: Duration::from_millis(400),
        ..Limits::default()
    }
}

pub fn disk(writable: bool) -> Arc<Disk> {
    Arc::new(Disk::new(content(), writable))
}

/// The client's side.
pub struct Client {
    pub stream: UnixStream,
    cookie: u64,
}

/// A reply to an option.
#[derive(Debug, PartialEq, Eq)]
pub struct OptionReply {
    pub option: u32,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// A reply of the transmission phase.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    Simple {
        cookie: u64,
        errno: u32,
    },
    Chunk {
        cookie: u64,
        flags: u16,
        kind: u16,
        payload: Vec<u8>,
    },
}

impl Client {
    pub fn new(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self { stream, cookie: 0 }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The server may have hung up, which the test then sees by what it reads.
        let _ = self.stream.write_all(bytes);
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes(8).try_into().unwrap())
    }

    /// Returns whether the server hung up: nothing more comes.
    pub fn is_cut_off(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }

    /// Takes the server's greeting and answers it.
    pub fn greet(&mut self, flags: u32) {
        assert_eq!(self.u64(), INIT_MAGIC);
        assert_eq!(self.u64(), OPTION_MAGIC);
        assert_eq!(self.u16(), 3);
        self.send(&flags.to_be_bytes());
    }

    pub fn option(&mut self, kind: u32, data: &[u8]) {
        self.send(&option_bytes(kind, data));
    }

    pub fn option_reply(&mut self) -> OptionReply {
        assert_eq!(self.u64(), OPTION_REPLY_MAGIC);
        let (option, kind, len) = (self.u32(), self.u32(), self.u32());
        OptionReply {
            option,
            kind,
            data: self.bytes(len as usize),
        }
    }

    /// Sends an option whose only reply is of this kind.
    pub fn option_gets(&mut self, option: u32, data: &[u8], kind: u32) {
        self.option(option, data);
        let reply = self.option_reply();
        assert_eq!((reply.option, reply.kind), (option, kind), "{reply:?}");
    }

    /// Shakes hands; `structured` with block status too.
    pub fn enter(&mut self, structured: bool) {
        self.greet(3);
        if structured {
            self.option_gets(option::STRUCTURED_REPLY, &[], option_reply::ACK);
            self.option(option::SET_META_CONTEXT, &meta_data("", &[BASE_ALLOCATION]));
            let context = self.option_reply();
            assert_eq!(context.kind, option_reply::META_CONTEXT);
            assert_eq!(context.data[4..], *BASE_ALLOCATION.as_bytes());
            assert_eq!(self.option_reply().kind, option_reply::ACK);
        }
        self.option(option::GO, &info_data("", &[]));
        assert_eq!(self.option_reply().kind, option_reply::INFO);
        assert_eq!(self.option_reply().kind, option_reply::ACK);
    }

    /// Sends a request without payload and returns its cookie.
    pub fn request(&mut self, kind: u16, flags: u16, offset: u64, len: u32) -> u64 {
        self.cookie += 1;
        let request = Request {
            flags,
            kind,
            cookie: self.cookie,
            offset,
            len,
        };
        self.send(&request_bytes(&request));
        self.cookie
    }

    pub fn reply(&mut self) -> Reply {
        match self.u32() {
            SIMPLE_REPLY_MAGIC => Reply::Simple {
                errno: self.u32(),
                cookie: self.u64(),
            },
            STRUCTURED_REPLY_MAGIC => {
                let (flags, kind, cookie) = (self.u16(), self.u16(), self.u64());
                let len = self.u32() as usize;
                Reply::Chunk {
                    cookie,
                    flags,
                    kind,
                    payload: self.bytes(len),
                }
            }
            magic => panic!("magic {magic:#x}"),
        }
    }

    /// Sends a request without payload; returns the error value of its reply, 0 if there is none.
    pub fn errno(&mut self, kind: u16, flags: u16, offset: u64, len: u32) -> u32 {
        let sent = self.request(kind, flags, offset, len);
        self.errno_of(sent)
    }

    pub fn errno_of(&mut self, sent: u64) -> u32 {
        match self.reply() {
            Reply::Simple { cookie, errno } => {
                assert_eq!(cookie, sent);
                errno
            }
            Reply::Chunk {
                cookie,
                flags,
                kind,
                payload,
            } => {
                assert_eq!((cookie, flags), (sent, chunk::DONE));
                assert!(
                    kind == chunk::ERROR || kind == chunk::ERROR_OFFSET,
                    "{kind}"
                );
                let text = String::from_utf8_lossy(&payload);
                assert!(!text.contains("secret"), "a host name reached the client");
                u32::from_be_bytes(payload[..4].try_into().unwrap())
            }
        }
    }

    pub fn write(&mut self, flags: u16, offset: u64, bytes: &[u8]) -> u32 {
        let sent = self.request(command::WRITE, flags, offset, bytes.len() as u32);
        self.send(bytes);
        self.errno_of(sent)
    }

    /// Reads with structured replies and puts the chunks together. Returns also how many there
    /// were of data and of holes.
    pub fn read(&mut self, flags: u16, offset: u64, len: u32) -> (Vec<u8>, usize, usize) {
        let sent = self.request(command::READ, flags, offset, len);
        let mut bytes = vec![0xee; len as usize];
        let mut covered = 0;
        let (mut n_data, mut n_holes) = (0, 0);
        loop {
            let Reply::Chunk {
                cookie,
                flags,
                kind,
                payload,
            } = self.reply()
            else {
                panic!("a simple reply to a read");
            };
            assert_eq!(cookie, sent);
            let at = || u64::from_be_bytes(payload[..8].try_into().unwrap());
            let range = match kind {
                chunk::NONE => 0..0,
                chunk::OFFSET_DATA => {
                    n_data += 1;
                    let start = (at() - offset) as usize;
                    start..start + payload.len() - 8
                }
                chunk::OFFSET_HOLE => {
                    n_holes += 1;
                    let start = (at() - offset) as usize;
                    let hole = u32::from_be_bytes(payload[8..].try_into().unwrap());
                    start..start + hole as usize
                }
                _ => panic!("chunk type {kind}"),
            };
            covered += range.len();
            match kind {
                chunk::OFFSET_DATA => bytes[range].copy_from_slice(&payload[8..]),
                _ => bytes[range].fill(0),
            }
            if flags == chunk::DONE {
                assert_eq!(covered, len as usize);
                return (bytes, n_data, n_holes);
            }
        }
    }

    /// Asks for block status: runs of a length and flags.
    pub fn status(&mut self, flags: u16, offset: u64, len: u32) -> Vec<(u32, u32)> {
        self.request(command::BLOCK_STATUS, flags, offset, len);
        let Reply::Chunk { kind, payload, .. } = self.reply() else {
            panic!("a simple reply to block status");
        };
        assert_eq!(kind, chunk::BLOCK_STATUS);
        let mut fields = Fields(&payload);
        assert_eq!(fields.u32(), Some(BASE_ALLOCATION_ID));
        std::iter::from_fn(|| Some((fields.u32()?, fields.u32()?))).collect()
    }
}

pub fn option_bytes(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

pub fn request_bytes(request: &Request) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(request.flags.to_be_bytes());
    bytes.extend(request.kind.to_be_bytes());
    bytes.extend(request.cookie.to_be_bytes());
    bytes.extend(request.offset.to_be_bytes());
    bytes.extend(request.len.to_be_bytes());
    bytes
}

pub fn info_data(name: &str, requests: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.bytes());
    data.extend((requests.len() as u16).to_be_bytes());
    data.extend(requests.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

pub fn meta_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.bytes());
    }
    data
}
