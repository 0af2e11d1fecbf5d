//! `/etc/fstab`, see fstab(5).

/// A line of fstab that mounts something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is mounted: `UUID=…`, `/dev/…`, a path for a bind.
    pub source: String,
    /// Where.
    pub target: String,
    /// The kind of file system; `auto` for any.
    pub kind: String,
    /// Its options.
    pub options: Vec<String>,
}

impl Line {
    /// Returns the value of an option (`subvol=@`).
    pub fn option(&self, key: &str) -> Option<&str> {
        let mut options = self.options.iter();
        options.find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }

    /// Returns whether an option is there.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|known| known == option)
    }
}

/// Lines that are read: more than any system has.
const MOST_LINES: usize = 1000;

/// Returns the lines that mount something at a path. What is no line of fstab is passed over.
pub fn parse(text: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(text);
    text.lines().filter_map(line).take(MOST_LINES).collect()
}

fn line(line: &str) -> Option<Line> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let mut fields = line.split_ascii_whitespace().map(unescaped);
    let (source, target) = (fields.next()?, fields.next()?);
    let kind = fields.next().unwrap_or_else(|| "auto".into());
    let options = fields.next().unwrap_or_default();
    target.starts_with('/').then(|| Line {
        source,
        target,
        kind,
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Returns a field with its octal escapes (`\040`) as what they mean.
pub fn unescaped(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = (first == b'\\').then(|| tail.get(..3)).flatten();
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    // A tag may be in quotes: UUID="…".
    String::from_utf8_lossy(&bytes).replace('"', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_is_mounted_where() {
        let text = b"# x\n\n  UUID=\"ab\" / ext4 defaults,errors=remount-ro 0 1\n\
            LABEL=a\\040b /mnt/my\\040disk btrfs subvol=@home,ro\n\
            UUID=s none swap sw 0 0\n/dev/sda1 /boot\nbroken\n\\777 /x\\\n";
        let lines = parse(text);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0].source, "UUID=ab");
        assert_eq!(lines[0].option("errors"), Some("remount-ro"));
        assert_eq!(lines[1].source, "LABEL=a b");
        assert_eq!(lines[1].target, "/mnt/my disk");
        assert_eq!(lines[1].option("subvol"), Some("@home"));
        assert!(lines[1].has("ro"));
        assert_eq!(lines[2].kind, "auto");
    }
}
