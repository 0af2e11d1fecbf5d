//! The header of LUKS2: twice a record of 4096 bytes with numbers that are big-endian, and JSON behind it.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic (`SKUL` in the second), version |
//! | 8, 16 | 8 each | length with the JSON, number of the change |
//! | 72 | 32 | name of the sum |
//! | 448 | 64 | sum of the record, itself as zeros, and the JSON |

use hako_block::{Error, Result};
use serde_json::{Map, Value};

use super::derive::{Hash, Kdf};
use super::{Digest, Header, Segment, Slot, base64};
use crate::bytes::{self, array_at, be};
use crate::volume::{Volume, check_range, read_vec};

const RECORD_BYTES: usize = 4096;
/// Where the second one may be: behind the first one, which has one of these lengths.
const LENGTHS: [u64; 9] = [
    0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000,
];
const SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";

pub(super) fn read(volume: &dyn Volume) -> Result<Header> {
    let first = json_at(volume, 0, super::MAGIC);
    let others = LENGTHS
        .iter()
        .filter_map(|at| json_at(volume, *at, SECOND_MAGIC).ok());
    // The one that was changed last; a cut while it was written leaves the other.
    let second = others.max_by_key(|(change, _)| *change);
    let (_, json) = match (first, second) {
        (Ok(first), Some(second)) if second.0 > first.0 => second,
        (Ok(first), _) => first,
        (Err(_), Some(second)) => second,
        (Err(error), None) => return Err(error),
    };
    let all: Value = serde_json::from_slice(&json)
        .map_err(|error| corrupt(&format!("its JSON cannot be read: {error}")))?;
    decode(&all)
}

fn corrupt(what: &str) -> Error {
    Error::corrupt("LUKS2 header", what)
}

/// Reads the record at a place: the number of its change, and its JSON.
fn json_at(volume: &dyn Volume, at: u64, magic: &[u8]) -> Result<(u64, Vec<u8>)> {
    check_range(at, RECORD_BYTES, volume.len_bytes())?;
    let head = read_vec(volume, at, 16)?;
    let len = be::u64_at(&head, 8);
    if !head.starts_with(magic) || be::u16_at(&head, 6) != 2 || !LENGTHS.contains(&len) {
        return Err(corrupt("it has no such magic, version or length").at_byte(at));
    }
    let mut record = read_vec(volume, at, usize::try_from(len).unwrap_or(usize::MAX))?;
    let name = bytes::text(&array_at::<32>(&record, 72));
    let sum: [u8; 64] = array_at(&record, 448);
    if let Some(own) = record.get_mut(448..512) {
        own.fill(0);
    }
    let found = Hash::named(&name)?.of(&[&record]);
    if !sum.starts_with(found.as_ref()) {
        return Err(corrupt("its sum is wrong").at_byte(at));
    }
    let json = record.split_off(RECORD_BYTES);
    let end = json
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(json.len());
    let json = json.get(..end).unwrap_or_default().to_vec();
    Ok((be::u64_at(&record, 16), json))
}

/// Reads the JSON.
fn decode(all: &Value) -> Result<Header> {
    let required = all.pointer("/config/requirements/mandatory");
    if let Some(Value::Array(required)) = required
        && !required.is_empty()
    {
        let names: Vec<&str> = required.iter().filter_map(Value::as_str).collect();
        let what = format!("LUKS2 header: it requires {}", names.join(", "));
        return Err(Error::unsupported(what));
    }
    let segments = object(all, "segments")?;
    let (number, segment) = match segments.iter().collect::<Vec<_>>()[..] {
        [one] => one,
        [] => return Err(Error::unsupported("LUKS2 header: its data lies elsewhere")),
        _ => {
            let what = "LUKS2 header: several segments: it is being re-encrypted";
            return Err(Error::unsupported(what));
        }
    };
    let digests = object(all, "digests")?;
    let digest_of = |slot: &str| {
        let lists = |digest: &Value, key: &str, name: &str| {
            let list = digest.get(key).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(|one| one.as_str() == Some(name)))
        };
        digests
            .values()
            .find(|digest| lists(digest, "keyslots", slot) && lists(digest, "segments", number))
    };
    let mut slots = Vec::new();
    for (name, value) in object(all, "keyslots")? {
        // Slots that are not bound to the data hold something else, and of priority 0 are only for
        // those who name them.
        let is_ignored = value.get("priority").and_then(Value::as_u64) == Some(0);
        if let Some(digest) = digest_of(name).filter(|_| !is_ignored) {
            slots.push(slot(value, digest)?);
        }
    }
    Ok(Header {
        slots,
        segment: self::segment(segment)?,
    })
}

fn segment(value: &Value) -> Result<Segment> {
    let kind = text(value, "type")?;
    if kind != "crypt" || value.get("integrity").is_some() {
        let what =
            format!("LUKS2 header: a segment of type {kind}, or with integrity, is not read");
        return Err(Error::unsupported(what));
    }
    let sector_bytes = number(value, "sector_size")?;
    let len = match text(value, "size")? {
        "dynamic" => None,
        _ => Some(number(value, "size")?),
    };
    match sector_bytes {
        512 | 1024 | 2048 | 4096 => Ok(Segment {
            start: number(value, "offset")?,
            len,
            cipher: text(value, "encryption")?.to_owned(),
            sector_bytes,
            first_sector: number(value, "iv_tweak")?,
        }),
        _ => Err(corrupt(&format!("sectors of {sector_bytes} bytes"))),
    }
}

fn slot(value: &Value, digest: &Value) -> Result<Slot> {
    let (area, af) = (inner(value, "area")?, inner(value, "af")?);
    let kind = text(value, "type")?;
    if (kind, text(area, "type")?, text(af, "type")?) != ("luks2", "raw", "luks1") {
        let what = format!("LUKS2 header: a keyslot of type {kind} is not read");
        return Err(Error::unsupported(what));
    }
    Ok(Slot {
        kdf: kdf(inner(value, "kdf")?)?,
        area: number(area, "offset")?,
        area_cipher: text(area, "encryption")?.to_owned(),
        area_key_bytes: number(area, "key_size")?,
        key_bytes: number(value, "key_size")?,
        stripes: number(af, "stripes")?,
        hash: Hash::named(text(af, "hash")?)?,
        digest: Digest {
            kdf: kdf(digest)?,
            value: binary(digest, "digest")?,
        },
    })
}

fn kdf(value: &Value) -> Result<Kdf> {
    let salt = binary(value, "salt")?;
    Ok(match text(value, "type")? {
        "pbkdf2" => Kdf::Pbkdf2 {
            hash: Hash::named(text(value, "hash")?)?,
            salt,
            iterations: number(value, "iterations")?,
        },
        kind @ ("argon2i" | "argon2id") => Kdf::Argon2 {
            is_id: kind == "argon2id",
            salt,
            passes: number(value, "time")?,
            memory_kib: number(value, "memory")?,
            lanes: number(value, "cpus")?,
        },
        kind => {
            let what = format!("LUKS2 header: keys made by {kind} are not read");
            return Err(Error::unsupported(what));
        }
    })
}

fn missing(key: &str, value: Option<&Value>) -> Error {
    match value {
        None => corrupt(&format!("there is no {key} where one has to be")),
        Some(value) => corrupt(&format!("{key} is {value}")),
    }
}

fn inner<'a>(value: &'a Value, key: &str) -> Result<&'a Value> {
    value.get(key).ok_or_else(|| missing(key, None))
}

fn object<'a>(value: &'a Value, key: &str) -> Result<&'a Map<String, Value>> {
    let found = value.get(key);
    let object = found.and_then(Value::as_object);
    object.ok_or_else(|| missing(key, found))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    let found = value.get(key);
    let text = found.and_then(Value::as_str);
    text.ok_or_else(|| missing(key, found))
}

/// A number: small ones are numbers of JSON, those of 64 bits texts.
fn number<N: TryFrom<u64>>(value: &Value, key: &str) -> Result<N> {
    let found = value.get(key);
    let number = match found {
        Some(Value::String(text)) => text.parse().ok(),
        other => other.and_then(Value::as_u64),
    };
    let number = number.and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| missing(key, found))
}

fn binary(value: &Value, key: &str) -> Result<Vec<u8>> {
    base64::decode(text(value, key)?).ok_or_else(|| missing(key, value.get(key)))
}
