//! The handshake phase: fixed newstyle negotiation ("Handshake").

use crate::export::Export;
use crate::incoming::Incoming;
use crate::option::{ClientOption, InfoQuery, MetaQuery, decode};
use crate::outbox::Outbox;
use crate::protocol::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, Fields, INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    handshake, info, option, option_reply as reply,
};
use crate::server::Parting;

/// Longest data of an option, in bytes: names and queries of the greatest length, several of them.
const MAX_OPTION_DATA: u32 = 64 << 10;

/// What was agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Session {
    /// Replies to reads are structured.
    pub structured: bool,
    /// Block status may be asked for.
    pub block_status: bool,
}

/// Haggles with a client until it enters the transmission phase, or parts.
pub fn shake_hands(
    incoming: &mut Incoming<'_>,
    outbox: &Outbox<'_>,
    export: &Export,
) -> Result<Session, Parting> {
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    outbox.send(&[
        &INIT_MAGIC.to_be_bytes(),
        &OPTION_MAGIC.to_be_bytes(),
        &flags.to_be_bytes(),
    ]);
    let client_flags = u32::from_be_bytes(incoming.array()?);
    if client_flags & !u32::from(flags) != 0 {
        return Err(Parting::Violation("unknown client flags"));
    }
    let has = |flag: u16| client_flags & u32::from(flag) != 0;
    let mut haggling = Haggling {
        outbox,
        export,
        is_fixed: has(handshake::FIXED_NEWSTYLE),
        no_zeroes: has(handshake::NO_ZEROES),
        session: Session::default(),
    };
    let mut data = Vec::new();
    loop {
        let kind = next_option(incoming, outbox, &mut data)?;
        if haggling.answer(kind, &data)? {
            return Ok(haggling.session);
        }
    }
}

/// Reads an option into `data` and returns its type.
fn next_option(
    incoming: &mut Incoming<'_>,
    outbox: &Outbox<'_>,
    data: &mut Vec<u8>,
) -> Result<u32, Parting> {
    let header: [u8; 16] = incoming.array()?;
    let mut fields = Fields(&header);
    let (Some(magic), Some(kind), Some(len)) = (fields.u64(), fields.u32(), fields.u32()) else {
        return Err(Parting::Left);
    };
    if magic != OPTION_MAGIC {
        return Err(Parting::Violation("an option without its magic number"));
    }
    if len > MAX_OPTION_DATA {
        answer(
            outbox,
            kind,
            reply::ERR_TOO_BIG,
            &[b"the option is too long"],
        );
        return Err(Parting::Violation("an option that is too long"));
    }
    data.clear();
    data.resize(len as usize, 0);
    incoming.read(data)?;
    Ok(kind)
}

/// Sends one reply to an option.
fn answer(outbox: &Outbox<'_>, kind: u32, reply: u32, data: &[&[u8]]) {
    let len: usize = data.iter().map(|part| part.len()).sum();
    let mut header = Vec::with_capacity(20);
    header.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    header.extend(kind.to_be_bytes());
    header.extend(reply.to_be_bytes());
    // What is sent is short: names and sentences.
    header.extend((len as u32).to_be_bytes());
    let parts: Vec<&[u8]> = std::iter::once(&header[..])
        .chain(data.iter().copied())
        .collect();
    outbox.send(&parts);
}

struct Haggling<'a> {
    outbox: &'a Outbox<'a>,
    export: &'a Export,
    is_fixed: bool,
    no_zeroes: bool,
    session: Session,
}

impl Haggling<'_> {
    /// Answers an option. Returns whether the transmission phase begins.
    fn answer(&mut self, kind: u32, data: &[u8]) -> Result<bool, Parting> {
        if kind == option::EXPORT_NAME {
            return self.export_name(data).map(|()| true);
        }
        if !self.is_fixed {
            return Err(Parting::Violation("an option that newstyle does not have"));
        }
        if kind == option::SET_META_CONTEXT {
            // A choice replaces the one before, even if it fails.
            self.session.block_status = false;
        }
        let say = |reply, text: &str| answer(self.outbox, kind, reply, &[text.as_bytes()]);
        match decode(kind, data) {
            Err(malformed) => say(reply::ERR_INVALID, malformed),
            Ok(ClientOption::ExportName(_) | ClientOption::Unknown) => {
                say(reply::ERR_UNSUP, "the option is not known here");
            }
            Ok(ClientOption::StartTls) => say(reply::ERR_POLICY, "there is no TLS here"),
            Ok(ClientOption::Abort) => {
                say(reply::ACK, "");
                return Err(Parting::Left);
            }
            Ok(ClientOption::List) => {
                let name = self.export.name();
                let len = (name.len() as u32).to_be_bytes();
                answer(self.outbox, kind, reply::SERVER, &[&len, name.as_bytes()]);
                say(reply::ACK, "");
            }
            Ok(ClientOption::StructuredReply) => {
                say(reply::ACK, "");
                self.session.structured = true;
            }
            Ok(ClientOption::Info(query)) => {
                self.info(kind, &query);
            }
            Ok(ClientOption::Go(query)) => return Ok(self.info(kind, &query)),
            Ok(ClientOption::ListMetaContext(query)) => {
                let listed = query.names_allocation || query.lists_allocation;
                self.meta_context(kind, &query, listed, 0);
            }
            Ok(ClientOption::SetMetaContext(query)) => {
                let wanted = query.names_allocation;
                self.session.block_status =
                    self.meta_context(kind, &query, wanted, BASE_ALLOCATION_ID) && wanted;
            }
        }
        Ok(false)
    }

    fn export_name(&self, data: &[u8]) -> Result<(), Parting> {
        match decode(option::EXPORT_NAME, data) {
            Ok(ClientOption::ExportName(name)) if self.export.is_named(name) => (),
            _ => return Err(Parting::Violation("an export that does not exist")),
        }
        let zeros: &[u8] = if self.no_zeroes { &[] } else { &[0; 124] };
        let flags = self.export.transmission_flags(self.session.structured);
        self.outbox.send(&[
            &self.export.size_bytes().to_be_bytes(),
            &flags.to_be_bytes(),
            zeros,
        ]);
        Ok(())
    }

    /// Tells what the export is like. Returns whether it is the right one.
    fn info(&self, kind: u32, query: &InfoQuery<'_>) -> bool {
        if !self.export.is_named(query.name) {
            self.unknown_export(kind);
            return false;
        }
        let say = |item: u16, data: &[&[u8]]| {
            let item = item.to_be_bytes();
            let parts: Vec<&[u8]> = std::iter::once(&item[..])
                .chain(data.iter().copied())
                .collect();
            answer(self.outbox, kind, reply::INFO, &parts);
        };
        let flags = self.export.transmission_flags(self.session.structured);
        let size = self.export.size_bytes().to_be_bytes();
        say(info::EXPORT, &[&size, &flags.to_be_bytes()]);
        if query.wants_name {
            say(info::NAME, &[self.export.name().as_bytes()]);
        }
        if query.wants_block_size {
            let [smallest, preferred, largest] = self.export.block_sizes().map(u32::to_be_bytes);
            say(info::BLOCK_SIZE, &[&smallest, &preferred, &largest]);
        }
        answer(self.outbox, kind, reply::ACK, &[]);
        true
    }

    /// Names the context, if it is `wanted`. Returns whether the query was right.
    fn meta_context(&self, kind: u32, query: &MetaQuery<'_>, wanted: bool, id: u32) -> bool {
        if !self.session.structured {
            let text = b"structured replies come first";
            answer(self.outbox, kind, reply::ERR_INVALID, &[text]);
            return false;
        }
        if !self.export.is_named(query.name) {
            self.unknown_export(kind);
            return false;
        }
        if wanted {
            let parts: [&[u8]; 2] = [&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()];
            answer(self.outbox, kind, reply::META_CONTEXT, &parts);
        }
        answer(self.outbox, kind, reply::ACK, &[]);
        true
    }

    fn unknown_export(&self, kind: u32) {
        let text = b"there is no such export";
        answer(self.outbox, kind, reply::ERR_UNKNOWN, &[text]);
    }
}
