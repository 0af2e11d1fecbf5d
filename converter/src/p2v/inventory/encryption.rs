//! How a volume is encrypted, and what its header says of what opens it besides a passphrase.

use hako_guest::Volume;
use serde_json::Value;

use super::model::Encryption;

/// Where a LUKS2 header has its JSON: behind 4096 bytes, and its length is in the first ones.
const JSON_AT: u64 = 4096;
/// The longest header of LUKS2.
const MOST_BYTES: u64 = 4 << 20;

/// Returns how a volume is encrypted, by what blkid calls it; none if it is not.
pub(super) fn of(kind: &str, volume: &dyn Volume) -> Option<Encryption> {
    match kind {
        "BitLocker" => Some(Encryption {
            kind: kind.to_owned(),
            ..Encryption::default()
        }),
        "crypto_LUKS" => Some(luks(volume)),
        _ => None,
    }
}

fn luks(volume: &dyn Volume) -> Encryption {
    let mut head = [0; 16];
    let is_2 = volume.len_bytes() >= JSON_AT
        && volume.read_at(0, &mut head).is_ok()
        && matches!(head, [_, _, _, _, _, _, 0, 2, ..]);
    Encryption {
        kind: if is_2 { "LUKS2" } else { "LUKS1" }.to_owned(),
        tokens: match is_2 {
            true => tokens(volume, &head).unwrap_or_default(),
            false => Vec::new(),
        },
        is_open: false,
    }
}

/// Returns what the tokens of a LUKS2 header are, each kind once.
fn tokens(volume: &dyn Volume, head: &[u8; 16]) -> Option<Vec<String>> {
    let len = u64::from_be_bytes(*head.last_chunk()?)
        .min(MOST_BYTES)
        .min(volume.len_bytes());
    let mut json = vec![0; usize::try_from(len.checked_sub(JSON_AT)?).ok()?];
    volume.read_at(JSON_AT, &mut json).ok()?;
    let end = json
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(json.len());
    let header: Value = serde_json::from_slice(json.get(..end)?).ok()?;
    let mut tokens: Vec<String> = Vec::new();
    for token in header.get("tokens")?.as_object()?.values() {
        let kind = token
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let name = match kind {
            // What clevis binds to is inside: its JWE names the pin.
            "clevis" => clevis_pin(token),
            kind => kind.strip_prefix("systemd-").unwrap_or(kind),
        };
        if !name.is_empty() && !tokens.iter().any(|known| known == name) {
            tokens.push(name.to_owned());
        }
    }
    Some(tokens)
}

/// Returns `tpm2` of a token of clevis that a TPM opens, else `clevis`.
fn clevis_pin(token: &Value) -> &'static str {
    let protected = token
        .pointer("/jwe/protected")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // base64 of JSON with "pin":"tpm2", at each of the three ways it can lie.
    const PINS: [&str; 3] = ["InRwbTIi", "J0cG0yI", "idHBtMi"];
    match PINS.iter().any(|pin| protected.contains(pin)) {
        true => "tpm2",
        false => "clevis",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_what_opens_it() {
        let json = r#"{"keyslots":{},"tokens":{"0":{"type":"systemd-tpm2"},"1":{"type":"clevis","jwe":{"protected":"x"}},
            "2":{"type":"systemd-tpm2"}}}"#;
        let mut header = vec![0; 16384];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        header[8..16].copy_from_slice(&16384_u64.to_be_bytes());
        header[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        let found = of("crypto_LUKS", &header).unwrap();
        assert_eq!(
            (found.kind.as_str(), &found.tokens[..]),
            ("LUKS2", &["tpm2".to_owned(), "clevis".to_owned()][..])
        );
        header[4096] = b'x';
        assert!(of("crypto_LUKS", &header).unwrap().tokens.is_empty());
        header[8..16].fill(0xff);
        assert!(of("crypto_LUKS", &header).unwrap().tokens.is_empty());
        header[7] = 1;
        assert_eq!(of("crypto_LUKS", &header).unwrap().kind, "LUKS1");
        assert_eq!(
            of("crypto_LUKS", &header[..100].to_vec()).unwrap().kind,
            "LUKS1"
        );
        assert_eq!(of("ext4", &header), None);
    }
}
