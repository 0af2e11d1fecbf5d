//! Headers as they may be damaged, and known answers; what cryptsetup writes is read by the suite's
//! `volumes`.

use hako_block::ErrorKind;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::*;

const LEN: usize = 0x4000;

/// The JSON of a header with one keyslot.
fn sound() -> Value {
    json!({
        "keyslots": {"0": {
            "type": "luks2", "key_size": 64,
            "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
            "area": {"type": "raw", "offset": "32768", "size": "258048",
                     "encryption": "aes-xts-plain64", "key_size": 64},
            "kdf": {"type": "argon2id", "time": 4, "memory": 1024, "cpus": 1, "salt": "c2FsdHNhbHQ="},
        }},
        "tokens": {},
        "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
                           "encryption": "aes-xts-plain64", "sector_size": 4096}},
        "digests": {"0": {"type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256",
                          "iterations": 1000, "salt": "c2FsdA==", "digest": "ZGlnZXN0"}},
        "config": {"json_size": "12288", "keyslots_size": "16744448"},
    })
}

/// A record with its JSON, the so manieth change.
fn record(magic: &[u8], change: u64, json: &str) -> Vec<u8> {
    let mut record = vec![0; LEN];
    record[..6].copy_from_slice(magic);
    record[6..8].copy_from_slice(&[0, 2]);
    record[8..16].copy_from_slice(&(LEN as u64).to_be_bytes());
    record[16..24].copy_from_slice(&change.to_be_bytes());
    record[72..78].copy_from_slice(b"sha256");
    record[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
    let sum = digest(&SHA256, &record);
    record[448..480].copy_from_slice(sum.as_ref());
    record
}

/// Both records.
fn header(json: &Value) -> Vec<u8> {
    let text = json.to_string();
    [record(MAGIC, 3, &text), record(b"SKUL\xba\xbe", 3, &text)].concat()
}

fn refused(json: &Value) -> (ErrorKind, String) {
    let error = read(&header(json)).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn the_header_that_was_changed_last_counts_and_a_damaged_one_does_not() {
    let mut other = sound();
    other["segments"]["0"]["offset"] = json!("32768");
    let start = |bytes: &Vec<u8>| read(bytes).unwrap().segment.start;
    let mut bytes = header(&sound());
    assert_eq!(
        (start(&bytes), read(&bytes).unwrap().slots.len()),
        (16_777_216, 1)
    );
    let newer = record(b"SKUL\xba\xbe", 4, &other.to_string());
    bytes[LEN..].copy_from_slice(&newer);
    assert_eq!(start(&bytes), 32768);
    bytes[LEN + 5000] ^= 1;
    assert_eq!(start(&bytes), 16_777_216);
    bytes[LEN + 5000] ^= 1;
    bytes[5000] ^= 1;
    assert_eq!(start(&bytes), 32768);
    bytes[LEN + 5000] ^= 1;
    let error = read(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("its sum is wrong"), "{error}");
    assert!(read(&bytes[..100].to_vec()).is_err());
}

#[test]
fn what_is_not_read_is_refused_with_its_name() {
    let with = |pointer: &str, value: Value| {
        let mut json = sound();
        *json.pointer_mut(pointer).unwrap() = value;
        refused(&json)
    };
    let crypt = sound()["segments"]["0"].clone();
    for (pointer, value, what) in [
        (
            "/config",
            json!({"requirements": {"mandatory": ["online-reencrypt-v2"]}}),
            "online-reencrypt-v2",
        ),
        ("/segments", json!({"0": crypt, "1": crypt}), "re-encrypted"),
        ("/segments", json!({}), "elsewhere"),
        ("/segments/0/type", json!("hw-opal"), "hw-opal"),
        ("/keyslots/0/type", json!("reencrypt"), "reencrypt"),
        ("/keyslots/0/kdf/type", json!("scrypt"), "scrypt"),
        ("/keyslots/0/af/hash", json!("whirlpool"), "whirlpool"),
    ] {
        let (kind, text) = with(pointer, value);
        assert_eq!(kind, ErrorKind::Unsupported, "{text}");
        assert!(text.contains(what), "{text}");
    }
    for (pointer, value) in [
        ("/segments/0/sector_size", json!(100)),
        ("/segments/0/offset", json!(-1)),
        ("/keyslots/0/kdf/time", json!(5_000_000_000_u64)),
        ("/keyslots/0/kdf/salt", json!("%")),
        ("/digests", json!(7)),
    ] {
        assert_eq!(with(pointer, value).0, ErrorKind::Corrupt, "{pointer}");
    }
    // A slot that is not bound to the data is none.
    let mut unbound = sound();
    unbound["digests"]["0"]["segments"] = json!([]);
    assert!(read(&header(&unbound)).unwrap().slots.is_empty());
}

#[test]
fn a_hostile_header_asks_for_neither_much_memory_nor_hours() {
    let opened = |pointer: &str, value: Value| {
        let mut json = sound();
        *json.pointer_mut(pointer).unwrap() = value;
        let mut bytes = header(&json);
        bytes.resize(17 << 20, 0);
        let volume: Arc<dyn Volume> = Arc::new(bytes);
        open(&volume, &Keys::new(vec![b"x".to_vec()]))
            .err()
            .map(|error| error.kind())
    };
    assert_eq!(opened("/segments/0/iv_tweak", json!("0")), None);
    for (pointer, value) in [
        ("/keyslots/0/kdf/memory", json!(4_000_000_000_u32)),
        ("/keyslots/0/kdf/time", json!(4_000_000_000_u32)),
        ("/keyslots/0/af/stripes", json!(4_000_000_000_u32)),
        ("/keyslots/0/key_size", json!(1_u64 << 40)),
        ("/keyslots/0/area/offset", json!("18446744073709551615")),
        ("/segments/0/offset", json!("18446744073709551615")),
        ("/segments/0/size", json!("18446744073709551104")),
    ] {
        assert_eq!(
            opened(pointer, value),
            Some(ErrorKind::Corrupt),
            "{pointer}"
        );
    }
}

#[test]
fn xts_has_the_answers_of_ieee_1619() {
    // Vector 1 of its annex B.
    let mut zeros = [
        0x91, 0x7c, 0xf6, 0x9e, 0xbd, 0x68, 0xb2, 0xec, 0x9b, 0x9f, 0xe9, 0xa3, 0xea, 0xdd, 0xa6,
        0x92, 0xcd, 0x43, 0xd2, 0xf5, 0x95, 0x98, 0xed, 0x85, 0x8c, 0x02, 0xc2, 0x65, 0x2f, 0xbf,
        0x92, 0x2e,
    ];
    let cipher = Cipher::new("aes-xts-plain64", &[0; 32]).unwrap();
    cipher.decrypt(&mut zeros, 32, 0);
    assert_eq!(zeros, [0; 32]);
    assert!(Cipher::new("serpent-xts-plain64", &[0; 64]).is_err());
    assert!(Cipher::new("aes-xts-plain64", &[0; 63]).is_err());
    assert!(Cipher::new("aes-cbc-essiv:sha256", &[]).is_err());
}
