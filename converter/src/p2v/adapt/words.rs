//! Words of texts that are changed, and everything around them that is not.

/// Replaces the field (counted from 0) of a line whose fields are separated by blanks.
pub(super) fn with_field(line: &str, index: usize, new: &str) -> String {
    let Some((start, end)) = fields(line).nth(index) else {
        return line.to_owned();
    };
    let (head, tail) = (line.get(..start), line.get(end..));
    [head.unwrap_or_default(), new, tail.unwrap_or_default()].concat()
}

/// Returns where the fields of a line begin and end.
fn fields(line: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = line.get(at..)?;
        let start = at + rest.find(|c: char| !c.is_ascii_whitespace())?;
        let word = line.get(start..)?;
        let len = word.find(|c: char| c.is_ascii_whitespace());
        at = start + len.unwrap_or(word.len());
        Some((start, at))
    })
}

/// Returns the fields of a line.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    fields(line).filter_map(|(from, to)| line.get(from..to))
}

/// Calls `change` for the value of each `KEY=VALUE` in a text, quoted or not, where KEY begins a word;
/// what it returns takes the value's place.
pub(super) fn with_values(
    text: &str,
    key: &str,
    mut change: impl FnMut(&str) -> Option<String>,
) -> String {
    let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, '"' | '\'' | ';' | ',');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let (before, found) = rest.split_at(at);
        let last = before.chars().next_back().or(out.chars().next_back());
        let is_word = last.is_none_or(|c| is_end(c) || c == '=');
        let value = found.get(key.len()..).unwrap_or_default();
        let len = value.find(is_end).unwrap_or(value.len());
        let (value, tail) = value.split_at(len);
        out.push_str(before);
        out.push_str(key);
        match is_word.then(|| change(value)).flatten() {
            Some(new) => out.push_str(&new),
            None => out.push_str(value),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Replaces the values of some options of a list with commas.
pub(super) fn with_options(
    options: &str,
    keys: &[&str],
    mut change: impl FnMut(&str) -> Option<String>,
) -> String {
    let mut with_value = |option: &str| {
        let (key, value) = option.split_once('=')?;
        let new = keys.contains(&key).then(|| change(value)).flatten()?;
        Some(format!("{key}={new}"))
    };
    let options = options.split(',');
    let options = options.map(|option| with_value(option).unwrap_or_else(|| option.to_owned()));
    options.collect::<Vec<_>>().join(",")
}

/// Changes the lines of a text one by one; their ends stay.
pub(super) fn with_lines(text: &str, mut change: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let body = line.trim_end_matches(['\n', '\r']);
        let end = line.get(body.len()..).unwrap_or_default();
        match change(body) {
            Some(new) => out.push_str(&new),
            None => out.push_str(body),
        }
        out.push_str(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_field_or_value_that_is_meant_changes() {
        assert_eq!(
            with_field("  /dev/sda1\t/  ext4 x", 0, "UUID=a"),
            "  UUID=a\t/  ext4 x"
        );
        assert_eq!(with_field("a b", 5, "x"), "a b");
        let text = "linux /v root=/dev/sda1 ro\nX=\"root=/dev/sda1 noroot=/dev/sda1\"\n";
        let new = with_values(text, "root=", |_| Some("UUID=a".to_owned()));
        assert_eq!(
            new,
            "linux /v root=UUID=a ro\nX=\"root=UUID=a noroot=/dev/sda1\"\n"
        );
        let options = with_options(
            "ro,device=/dev/sdb,x,device=/dev/sdc",
            &["device"],
            |value| (value == "/dev/sdb").then(|| "a".to_owned()),
        );
        assert_eq!(options, "ro,device=a,x,device=/dev/sdc");
        let lines = with_lines("a\r\nb\nc", |line| (line == "b").then(|| "x".to_owned()));
        assert_eq!(lines, "a\r\nx\nc");
    }
}
