//! Windows: that it is there, and the version that its kernel gives in its resources.

use super::Os;
use crate::tree::Tree;

/// The longest kernel that is looked through for its version.
const KERNEL_BYTES: usize = 32 << 20;

pub(super) fn look_at(tree: &Tree) -> Option<Os> {
    let config = tree.find(b"Windows/System32/config").is_ok();
    let kernel = "Windows/System32/ntoskrnl.exe";
    let image = tree.read(kernel.as_bytes(), KERNEL_BYTES).ok();
    if !config && image.is_none() {
        return None;
    }
    let is_64_bit = tree.find(b"Windows/SysWOW64").is_ok();
    let version = image.as_deref().and_then(product_version);
    let name = match &version {
        Some(version) => format!("Windows {version}"),
        None => "Windows".to_owned(),
    };
    Some(Os {
        family: "windows",
        id: "windows".into(),
        version: version.unwrap_or_default(),
        name,
        architecture: if is_64_bit { "x86_64" } else { "" },
        ..Os::default()
    })
}

/// Returns the string `ProductVersion` of a program's version resource (`VS_VERSIONINFO`): the key
/// in UTF-16, zeros up to a multiple of 4 bytes, the value, a zero.
fn product_version(image: &[u8]) -> Option<String> {
    let key: Vec<u8> = "ProductVersion"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let at = image.windows(key.len()).rposition(|window| window == key)?;
    let words = image.get(at + key.len()..)?.chunks_exact(2);
    let words = words.map(|word| u16::from_le_bytes([word[0], word[1]]));
    let value = words.skip_while(|word| *word == 0).take(32);
    let value: Vec<u16> = value.take_while(|word| *word != 0).collect();
    let value = String::from_utf16(&value).ok()?;
    let is_version = |c: char| c.is_ascii_digit() || c == '.';
    (!value.is_empty() && value.chars().all(is_version)).then_some(value)
}
