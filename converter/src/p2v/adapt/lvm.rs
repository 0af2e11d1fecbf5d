//! Filters of LVM, see lvm.conf(5): which disks it looks at.

use super::texts::Rewritten;

/// Names of disks that change with the hardware. A filter that leaves out other things stays.
const BY_PLACE: &[&str] = &[
    "/dev/sd",
    "/dev/hd",
    "/dev/[sh]d",
    "/dev/[hs]d",
    "/dev/nvme",
    "/dev/cciss",
    "/dev/disk/by-",
    "sda",
    "nvme",
];
/// And such that hide nothing by being left out.
const BY_DRIVER: &[&str] = &[
    "mpath", "emcpower", "sddlm", "vpath", "3600", "[sh]d", "[hs]d", "sd[", "hd[", "vd", "cciss",
    "ida/", "rd/", "dasd",
];
/// What is made of disks is there whatever they are.
const MADE: &[&str] = &["/dev/md", "/dev/mapper/", "/dev/dm-", "/dev/drbd", "md"];

/// Takes out the filters that let LVM look at the server's disks only: they stay as comments.
pub(super) fn without_filters(path: &str, old: &str) -> Rewritten {
    let mut new = Rewritten::default();
    let mut rest = old;
    while let Some((before, filter, tail)) = next_filter(rest) {
        let (before, filter, tail) = match verdict(filter) {
            Verdict::Goes => {
                new.why = vec!["the filter lets LVM look at disks by their old names only".into()];
                commented(before, filter, tail)
            }
            Verdict::Unclear => {
                new.remarks.push(format!(
                    "{path}: the filter {:?} hides most disks from LVM: see whether it lets it look at \
                     those of the machine",
                    one_line(filter)
                ));
                (before.to_owned(), filter.to_owned(), tail)
            }
            Verdict::Stays => (before.to_owned(), filter.to_owned(), tail),
        };
        new.text += &before;
        new.text += &filter;
        rest = tail;
    }
    new.text += rest;
    new
}

/// Finds the next `filter = …` that counts: what is before it, the whole of it, and what follows.
fn next_filter(text: &str) -> Option<(&str, &str, &str)> {
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '/'));
        let word = rest.get(..word.unwrap_or(rest.len()))?;
        let key = word.strip_prefix("devices/").unwrap_or(word);
        if let Some(len) = matches!(key, "filter" | "global_filter")
            .then(|| value_end(rest.get(word.len()..)?))
            .flatten()
        {
            let (before, rest) = text.split_at(at);
            let (filter, tail) = rest.split_at(word.len() + len);
            return Some((before, filter, tail));
        }
        at += match word.len() {
            0 => token_len(rest),
            len => len,
        };
    }
    None
}

/// Returns the length of a comment, of a string, or of the one character at the beginning of a text.
fn token_len(text: &str) -> usize {
    let end = match text.chars().next() {
        Some('#') => text.find('\n'),
        Some(quote @ ('"' | '\'')) => string_end(text, quote),
        first => first.map(char::len_utf8),
    };
    end.unwrap_or(text.len())
}

fn string_end(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    let mut inner = text.char_indices().skip(1);
    let (at, _) = inner.find(|(_, c)| {
        let is_end = *c == quote && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    })?;
    Some(at + 1)
}

/// Returns where the value of an assignment ends: after a string, or the `]` of a list.
fn value_end(text: &str) -> Option<usize> {
    let value = text.trim_start().strip_prefix('=')?.trim_start();
    let start = text.len() - value.len();
    if !value.starts_with('[') {
        let is_string = value.starts_with(['"', '\'']);
        return is_string.then(|| start + token_len(value));
    }
    let mut at = 1;
    while let Some(rest) = value.get(at..).filter(|rest| !rest.is_empty()) {
        at += token_len(rest);
        if rest.starts_with(']') {
            return Some(start + at);
        }
    }
    None
}

/// What becomes of a filter.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    Goes,
    Unclear,
}

fn verdict(filter: &str) -> Verdict {
    let patterns = patterns(filter);
    let has = |names: &[&str], pattern: &str| names.iter().any(|name| pattern.contains(name));
    let rejects_all = patterns.iter().any(|(accepts, pattern)| {
        let plain = pattern.trim_start_matches('^').trim_end_matches('$');
        !accepts && matches!(plain, "" | "." | ".*" | "/dev/.*" | "/dev/")
    });
    let accepted = || patterns.iter().filter(|(accepts, _)| *accepts);
    match () {
        () if patterns.iter().any(|(_, pattern)| has(BY_PLACE, pattern)) => Verdict::Goes,
        () if !rejects_all => Verdict::Stays,
        () if accepted().any(|(_, pattern)| has(BY_DRIVER, pattern)) => Verdict::Goes,
        () if accepted().all(|(_, pattern)| has(MADE, pattern)) => Verdict::Stays,
        () if accepted().any(|(_, pattern)| matches!(pattern.as_str(), ".*" | "." | "")) => {
            Verdict::Stays
        }
        () => Verdict::Unclear,
    }
}

/// Returns the patterns of a filter, and whether each accepts: `a|PATTERN|`, `r/PATTERN/`.
fn patterns(filter: &str) -> Vec<(bool, String)> {
    let mut patterns = Vec::new();
    let mut rest = filter;
    while !rest.is_empty() {
        let (token, tail) = rest.split_at(token_len(rest));
        rest = tail;
        let inner = token.strip_prefix(['"', '\'']);
        let mut inner = inner.unwrap_or_default().chars();
        let (kind, Some(end)) = (inner.next(), inner.next()) else {
            continue;
        };
        let pattern: String = inner.take_while(|c| *c != end).collect();
        if let Some(kind @ ('a' | 'r')) = kind {
            patterns.push((kind == 'a', pattern));
        }
    }
    patterns
}

/// Makes a comment of a filter: of its lines, or of itself alone where others share them.
fn commented<'t>(before: &str, filter: &str, tail: &'t str) -> (String, String, &'t str) {
    const MARK: &str = "# by hako: ";
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let (above, indent) = before.split_at(start);
    let (line, below) = tail.split_at(tail.find('\n').unwrap_or(tail.len()));
    let after = line.split('#').next().unwrap_or_default();
    if indent.trim().is_empty() && after.trim().is_empty() {
        let lines = [indent, filter, line].concat();
        let lines = lines.replace('\n', &format!("\n{MARK}"));
        return (above.to_owned(), format!("{MARK}{lines}"), below);
    }
    let comment = format!("{above}{MARK}{}\n{indent}", one_line(filter));
    (comment, String::new(), tail)
}

fn one_line(filter: &str) -> String {
    let words: Vec<&str> = filter.split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(old: &str, new: &str) {
        let rewritten = without_filters("/etc/lvm/lvm.conf", old);
        assert_eq!(rewritten.text, new);
        assert!(rewritten.remarks.is_empty(), "{:?}", rewritten.remarks);
        assert_eq!(rewritten.why.len(), usize::from(old != new));
    }

    #[test]
    fn filters_by_the_names_of_old_disks_become_comments() {
        becomes(
            "devices {\n  filter = [ \"a|^/dev/mapper/mpath.*|\", \"r|.*|\" ] # own\n}\n",
            "devices {\n# by hako:   filter = [ \"a|^/dev/mapper/mpath.*|\", \"r|.*|\" ] # own\n}\n",
        );
        becomes(
            "devices {\r\n  global_filter = [\r\n    \"a|^/dev/sd[a-c][0-9]*$|\", # ]\r\n    \
             \"r|.*|\"\r\n  ]\r\n  x = 1\r\n}\r\n",
            "devices {\r\n# by hako:   global_filter = [\r\n# by hako:     \
             \"a|^/dev/sd[a-c][0-9]*$|\", # ]\r\n# by hako:     \"r|.*|\"\r\n# by hako:   ]\r\n  \
             x = 1\r\n}\r\n",
        );
        becomes(
            "a\ndevices { filter = [ \"a|/dev/sda|\",\n \"r|.*|\" ] x=1 }\n",
            "a\n# by hako: filter = [ \"a|/dev/sda|\", \"r|.*|\" ]\ndevices {  x=1 }\n",
        );
        for filter in [
            "[\"a|/dev/emcpower.*|\",\"r|.*|\"]",
            "[ \"a|^/dev/[sh]d.*|\", \"r|.*|\" ]",
            "[ \"a/mpath/\", \"r/.*/\" ]",
            "\"r|/dev/sd[b-z]|\"",
        ] {
            let line = format!("devices/filter={filter}\n");
            becomes(&line, &format!("# by hako: {line}"));
        }
    }

    #[test]
    fn filters_of_other_things_stay() {
        for text in [
            "filter = [ \"a/.*/\" ]\n",
            "# filter = [ \"a|/dev/sda|\", \"r|.*|\" ]\n",
            "filter = [ \"r|/dev/cdrom|\", \"r|/dev/drbd.*|\", \"r|/dev/mapper/mpath.*|\" ]\n",
            "filter = [ \"a|/dev/md.*|\", \"r|.*|\" ]\n",
            "x = \"filter = [ /dev/sda ]\"\nuse_filter = [ \"a|/dev/sda|\" ]\n",
            "filter = [ \"a|/dev/sda|\",\n",
        ] {
            becomes(text, text);
        }
    }

    #[test]
    fn a_filter_that_is_not_understood_is_told() {
        let text = "filter = [ \"a|/dev/storage/.*|\",\n \"r|.*|\" ]\n";
        let rewritten = without_filters("/etc/lvm/lvmlocal.conf", text);
        assert_eq!(rewritten.text, text);
        let [remark] = &rewritten.remarks[..] else {
            panic!("{:?}", rewritten.remarks)
        };
        assert!(
            remark.contains("/etc/lvm/lvmlocal.conf: the filter"),
            "{remark}"
        );
    }
}
