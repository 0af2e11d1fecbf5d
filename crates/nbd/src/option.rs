//! Decoding the options of the handshake ("Option types"): bytes in, a checked option out.

use crate::protocol::{BASE_ALLOCATION, Fields, MAX_STRING, info, option};

/// An option of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientOption<'a> {
    /// Chooses an export and ends the handshake; cannot be refused but by hanging up.
    ExportName(&'a str),
    /// Ends the conversation.
    Abort,
    /// Asks for the names of the exports.
    List,
    /// Asks for TLS.
    StartTls,
    /// Asks what an export is like.
    Info(InfoQuery<'a>),
    /// Asks that too, and then ends the handshake.
    Go(InfoQuery<'a>),
    /// Wants structured replies.
    StructuredReply,
    /// Asks which metadata contexts there are.
    ListMetaContext(MetaQuery<'a>),
    /// Chooses metadata contexts.
    SetMetaContext(MetaQuery<'a>),
    /// Something this server does not know.
    Unknown,
}

/// The data of INFO and GO.
#[derive(Debug, PartialEq, Eq)]
pub struct InfoQuery<'a> {
    /// Name of the export.
    pub name: &'a str,
    /// Whether its own name is asked for.
    pub wants_name: bool,
    /// Whether the block sizes are asked for.
    pub wants_block_size: bool,
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT, with what its queries come to.
#[derive(Debug, PartialEq, Eq)]
pub struct MetaQuery<'a> {
    /// Name of the export.
    pub name: &'a str,
    /// Whether `base:allocation` is asked for by its name.
    pub names_allocation: bool,
    /// Whether it is meant by what may stand in a list: no query at all, or `base:`.
    pub lists_allocation: bool,
}

/// What is wrong with an option's data, for a person.
pub type Malformed = &'static str;

/// Decodes the data of the option `kind`.
pub fn decode(kind: u32, data: &[u8]) -> Result<ClientOption<'_>, Malformed> {
    let bare = |option| match data {
        [] => Ok(option),
        _ => Err("the option takes no data"),
    };
    match kind {
        option::EXPORT_NAME => string(data).map(ClientOption::ExportName),
        option::ABORT => Ok(ClientOption::Abort),
        option::LIST => bare(ClientOption::List),
        option::STARTTLS => bare(ClientOption::StartTls),
        option::INFO => info_query(data).map(ClientOption::Info),
        option::GO => info_query(data).map(ClientOption::Go),
        option::STRUCTURED_REPLY => bare(ClientOption::StructuredReply),
        option::LIST_META_CONTEXT => meta_query(data).map(ClientOption::ListMetaContext),
        option::SET_META_CONTEXT => meta_query(data).map(ClientOption::SetMetaContext),
        _ => Ok(ClientOption::Unknown),
    }
}

const CUT_OFF: Malformed = "the data ends too early";
const TOO_LONG: Malformed = "there is data after the end";

fn info_query(data: &[u8]) -> Result<InfoQuery<'_>, Malformed> {
    let mut fields = Fields(data);
    let name = counted_string(&mut fields)?;
    let n_requests = fields.u16().ok_or(CUT_OFF)?;
    let mut query = InfoQuery {
        name,
        wants_name: false,
        wants_block_size: false,
    };
    for _ in 0..n_requests {
        match fields.u16().ok_or(CUT_OFF)? {
            info::NAME => query.wants_name = true,
            info::BLOCK_SIZE => query.wants_block_size = true,
            _ => (),
        }
    }
    at_end(&fields)?;
    Ok(query)
}

fn meta_query(data: &[u8]) -> Result<MetaQuery<'_>, Malformed> {
    let mut fields = Fields(data);
    let name = counted_string(&mut fields)?;
    let n_queries = fields.u32().ok_or(CUT_OFF)?;
    let mut query = MetaQuery {
        name,
        names_allocation: false,
        lists_allocation: n_queries == 0,
    };
    for _ in 0..n_queries {
        match counted_string(&mut fields)? {
            BASE_ALLOCATION => query.names_allocation = true,
            "base:" => query.lists_allocation = true,
            _ => (),
        }
    }
    at_end(&fields)?;
    Ok(query)
}

fn counted_string<'a>(fields: &mut Fields<'a>) -> Result<&'a str, Malformed> {
    let len = fields.u32().ok_or(CUT_OFF)?;
    let bytes = usize::try_from(len)
        .ok()
        .and_then(|len| fields.bytes(len))
        .ok_or(CUT_OFF)?;
    string(bytes)
}

fn string(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.len() > MAX_STRING {
        return Err("a string is too long");
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err("a string is no text"),
    }
}

fn at_end(fields: &Fields<'_>) -> Result<(), Malformed> {
    if fields.0.is_empty() {
        Ok(())
    } else {
        Err(TOO_LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info_data(name: &[u8], requests: &[u16]) -> Vec<u8> {
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend(name);
        data.extend((requests.len() as u16).to_be_bytes());
        data.extend(requests.iter().flat_map(|kind| kind.to_be_bytes()));
        data
    }

    fn meta_data(name: &str, queries: &[&str]) -> Vec<u8> {
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend(name.bytes());
        data.extend((queries.len() as u32).to_be_bytes());
        for query in queries {
            data.extend((query.len() as u32).to_be_bytes());
            data.extend(query.bytes());
        }
        data
    }

    #[test]
    fn info_and_go_carry_a_name_and_wishes() {
        let data = info_data(b"disk", &[info::BLOCK_SIZE, 99]);
        let query = InfoQuery {
            name: "disk",
            wants_name: false,
            wants_block_size: true,
        };
        assert_eq!(decode(option::GO, &data), Ok(ClientOption::Go(query)));
        for len in 0..data.len() {
            assert_eq!(decode(option::INFO, &data[..len]), Err(CUT_OFF), "{len}");
        }
        let longer = [&data[..], &[0]].concat();
        assert_eq!(decode(option::INFO, &longer), Err(TOO_LONG));
    }

    #[test]
    fn contexts_are_chosen_by_name_and_listed_by_namespace() {
        let query = |queries: &[&str]| {
            let data = meta_data("", queries);
            match decode(option::SET_META_CONTEXT, &data) {
                Ok(ClientOption::SetMetaContext(query)) => {
                    (query.names_allocation, query.lists_allocation)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(query(&[]), (false, true));
        assert_eq!(query(&["base:"]), (false, true));
        assert_eq!(query(&["x-y:z", "base:allocation"]), (true, false));
        assert_eq!(query(&["base:other", "allocation", ""]), (false, false));
        let data = meta_data("disk", &["base:allocation"]);
        for len in 0..data.len() {
            assert!(decode(option::LIST_META_CONTEXT, &data[..len]).is_err());
        }
    }

    #[test]
    fn lengths_beyond_the_data_are_refused() {
        let huge = [&u32::MAX.to_be_bytes()[..], b"disk\0\0"].concat();
        assert_eq!(decode(option::GO, &huge), Err(CUT_OFF));
        let many = [&[0; 4][..], &u32::MAX.to_be_bytes()].concat();
        assert_eq!(decode(option::SET_META_CONTEXT, &many), Err(CUT_OFF));
    }

    #[test]
    fn strings_are_short_text() {
        assert_eq!(
            decode(option::EXPORT_NAME, "dísk".as_bytes()),
            Ok(ClientOption::ExportName("dísk"))
        );
        for bad in [&b"a\0"[..], &[0xff], &[b'a'; MAX_STRING + 1]] {
            assert!(decode(option::EXPORT_NAME, bad).is_err());
            assert!(decode(option::GO, &info_data(bad, &[])).is_err());
        }
    }

    #[test]
    fn options_without_data_have_none() {
        for kind in [option::LIST, option::STARTTLS, option::STRUCTURED_REPLY] {
            assert!(decode(kind, b"").is_ok());
            assert!(decode(kind, b"x").is_err());
        }
        assert_eq!(decode(option::ABORT, b"x"), Ok(ClientOption::Abort));
        assert_eq!(decode(4711, b"x"), Ok(ClientOption::Unknown));
    }
}
