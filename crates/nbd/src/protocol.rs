//! The numbers of the protocol ("Values"), and the request message ("Request message"). All are
//! big-endian on the wire.

use hako_block::{Error, ErrorKind};

/// `NBDMAGIC`, the first thing a server says.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, before every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before each chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Bytes of a request without its payload.
pub const REQUEST_BYTES: usize = 28;
/// Largest payload of one request or reply chunk, in bytes ("Size constraints").
pub const MAX_PAYLOAD: u32 = 32 << 20;
/// Longest string, in bytes ("Conventions").
pub const MAX_STRING: usize = 4096;

/// Handshake flags, of the server and (the same bits) of the client.
pub mod handshake {
    /// Options other than EXPORT_NAME are understood.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// The 124 zeros after EXPORT_NAME are left out.
    pub const NO_ZEROES: u16 = 2;
}

/// Transmission flags.
pub mod transmission {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
}

/// Option types.
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Option reply types.
pub mod option_reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub const ERR_POLICY: u32 = (1 << 31) + 2;
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Information types of INFO and GO.
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Request types.
pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Command flags.
pub mod command_flag {
    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
}

/// Structured reply types, and the flag of the last chunk.
pub mod chunk {
    pub const DONE: u16 = 1;
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = (1 << 15) + 1;
    pub const ERROR_OFFSET: u16 = (1 << 15) + 2;
}

/// The metadata context that is offered.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Its ID on every connection.
pub const BASE_ALLOCATION_ID: u32 = 1;

/// Block status flags of `base:allocation`.
pub mod state {
    pub const HOLE: u32 = 1;
    pub const ZERO: u32 = 2;
}

/// Error values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// Not permitted: a write to a read-only export.
    Perm = 1,
    /// The image failed.
    Io = 5,
    /// A request that makes no sense.
    Inval = 22,
    /// A write past the end, or no space is left on the host.
    NoSpc = 28,
    /// A read that is too long.
    Overflow = 75,
    /// The server ends.
    Shutdown = 108,
}

/// Why a request fails. The text goes to the client, so it names nothing of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The error value.
    pub errno: Errno,
    /// For a person.
    pub text: &'static str,
}

impl Failure {
    /// Returns a failure.
    pub fn new(errno: Errno, text: &'static str) -> Self {
        Self { errno, text }
    }

    /// Returns what a client is told of an error of the image.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::ReadOnly | ErrorKind::PermissionDenied => {
                Self::new(Errno::Perm, "the image may not be written")
            }
            ErrorKind::NoSpace => Self::new(Errno::NoSpc, "no space is left on the server"),
            ErrorKind::Cancelled => SHUTTING_DOWN,
            ErrorKind::Invalid | ErrorKind::Unsupported => {
                Self::new(Errno::Inval, "the image cannot do that")
            }
            ErrorKind::Corrupt => Self::new(Errno::Io, "the image is damaged here"),
            _ => Self::new(Errno::Io, "the server failed to access the image"),
        }
    }
}

/// What requests are told once the server ends.
pub const SHUTTING_DOWN: Failure = Failure {
    errno: Errno::Shutdown,
    text: "the server is shutting down",
};

/// A request message without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Command flags.
    pub flags: u16,
    /// Request type.
    pub kind: u16,
    /// What the client knows the request by.
    pub cookie: u64,
    /// Guest offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
}

impl Request {
    /// Decodes a request; `None` if the magic is wrong: then nothing that follows makes sense.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            kind: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: fields.u32()?,
        })
    }

    /// Returns the guest offset just past the range; ranges are checked before this is asked.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }

    /// Returns whether what is written must be on stable storage before the reply.
    pub fn is_fua(&self) -> bool {
        self.flags & command_flag::FUA != 0
    }
}

/// Takes big-endian fields off the front of bytes; `None` where they end too early.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Takes `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    /// Takes a number of 16 bits.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes a number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Takes a number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_decoded_field_by_field() {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&[0, 1, 0, 6]);
        bytes[8..16].copy_from_slice(&7u64.to_be_bytes());
        bytes[16..24].copy_from_slice(&u64::MAX.to_be_bytes());
        bytes[24..].copy_from_slice(&2u32.to_be_bytes());
        let request = Request {
            flags: command_flag::FUA,
            kind: command::WRITE_ZEROES,
            cookie: 7,
            offset: u64::MAX,
            len: 2,
        };
        assert_eq!(Request::decode(&bytes), Some(request));
        assert_eq!(request.end(), u64::MAX);
        bytes[3] ^= 1;
        assert_eq!(Request::decode(&bytes), None);
    }

    #[test]
    fn fields_end_where_the_bytes_end() {
        let mut fields = Fields(&[0, 1, 2]);
        assert_eq!(fields.u16(), Some(1));
        assert_eq!(fields.u16(), None);
        assert_eq!(fields.bytes(1), Some(&[2][..]));
        assert_eq!(fields.bytes(1), None);
    }
}
