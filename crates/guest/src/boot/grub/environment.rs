//! GRUB's environment block, the file `grubenv`: a first line, `KEY=VALUE` lines, `#` up to its end.

/// The line that a block begins with.
const BEGIN: &[u8] = b"# GRUB Environment Block\n";

/// Longest block that is read; GRUB makes 1024 bytes.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// Returns the variables of a block; none if it is none. A `\` takes the next byte as it is, also a
/// newline.
pub(super) fn parse(block: &[u8]) -> Vec<(String, String)> {
    let Some(mut rest) = block.strip_prefix(BEGIN) else {
        return Vec::new();
    };
    let mut variables = Vec::new();
    while let Some(first) = rest.first() {
        let (line, after) = line(rest);
        rest = after;
        if *first == b'#' {
            continue;
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some((key, value)) = line.split_once('=') {
            variables.push((key.to_owned(), value.to_owned()));
        }
    }
    variables
}

fn line(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut line = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'\n' => return (line, text.get(at + 1..).unwrap_or_default()),
            b'\\' => line.extend(bytes.next().map(|(_, byte)| byte)),
            byte => line.push(byte),
        }
    }
    (line, &[])
}
