//! mdadm.conf(5): which disks mdadm looks at for arrays.

use super::texts::Rewritten;

/// Takes out lists of the server's disks: arrays are found by their own UUIDs, and the lists only stand
/// in the way.
pub(super) fn without_disks(path: &str, old: &str) -> Rewritten {
    let mut new = Rewritten::default();
    for entry in entries(old) {
        let all = words(&entry);
        let keyword = all.first().map(|word| word.to_ascii_uppercase());
        let is = |known: &str| {
            let keyword = keyword.as_deref().unwrap_or_default();
            keyword.len() > 2 && known.starts_with(keyword)
        };
        let has_list = all.iter().any(|word| is_list(word));
        let has_identity = all.iter().any(|word| is_identity(word));
        match () {
            () if is("DEVICE") && all.iter().any(|word| word.starts_with("/dev/")) => {
                new.text += &of_partitions(&entry, &all);
            }
            () if is("ARRAY") && has_list && has_identity => new.text += &without_list(&entry),
            () => {
                if is("ARRAY") && has_list {
                    let name = all.get(1).copied().unwrap_or_default();
                    new.remarks.push(format!(
                        "{path}: {name} is found by the names of its disks only: give it its UUID"
                    ));
                }
                new.text += &entry;
            }
        }
    }
    new.why = vec!["arrays are found by their UUIDs, on whatever disks they are".into()];
    new
}

/// Returns the entries: a line, and those after it that begin with a blank.
fn entries(text: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        let goes_on = line.starts_with([' ', '\t']) && !line.trim().is_empty();
        match entries.last_mut() {
            Some(entry) if goes_on => entry.push_str(line),
            _ => entries.push(line.to_owned()),
        }
    }
    entries
}

/// Returns the words of an entry, without comments.
fn words(entry: &str) -> Vec<&str> {
    let lines = entry.lines();
    let words = lines.flat_map(|line| {
        let words = line.split_ascii_whitespace();
        words.take_while(|word| !word.starts_with('#'))
    });
    words.collect()
}

fn is_list(word: &str) -> bool {
    word.to_ascii_lowercase().starts_with("devices=/dev/")
}

fn is_identity(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    ["uuid=", "name=", "super-minor="]
        .iter()
        .any(|key| word.starts_with(key))
}

/// Returns `DEVICE partitions`, and what else was looked at but disks.
fn of_partitions(entry: &str, words: &[&str]) -> String {
    let others = words.iter().skip(1);
    let others = others.filter(|word| !word.starts_with("/dev/") && **word != "partitions");
    let words: Vec<&str> = ["DEVICE", "partitions"]
        .iter()
        .chain(others)
        .copied()
        .collect();
    let body = entry.trim_end_matches(['\n', '\r']);
    words.join(" ") + entry.get(body.len()..).unwrap_or_default()
}

/// Returns an entry without its list of disks, and without a line that had nothing else.
fn without_list(entry: &str) -> String {
    let lines = entry.split_inclusive('\n').filter_map(|line| {
        let is_list = |word: &&str| is_list(word);
        let Some(list) = line.split_ascii_whitespace().find(is_list) else {
            return Some(line.to_owned());
        };
        let (before, after) = line.split_once(list)?;
        let is_rest = !(before.trim().is_empty() && after.trim().is_empty());
        is_rest.then(|| before.trim_end().to_owned() + after)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_disks_go_and_what_else_is_said_stays() {
        let array = "ARRAY /dev/md0 level=raid1 num-devices=2 UUID=63ac7ea7:4d5e9a5f";
        let old = format!(
            "# DEVICE /dev/sda\nDEVICE /dev/sd* containers\n{array}\n   devices=/dev/sda2,/dev/sdb2\n\
             array /dev/md1 devices=/dev/sda3 uuid=2 # own\n\tspares=1 Devices=/dev/sdb3\n\
             DEVICE /dev/sda1\n\t/dev/sdb1\r\nMAILADDR root\n"
        );
        let new = without_disks("/etc/mdadm.conf", &old);
        assert_eq!(
            new.text,
            format!(
                "# DEVICE /dev/sda\nDEVICE partitions containers\n{array}\n\
                 array /dev/md1 uuid=2 # own\n\tspares=1\nDEVICE partitions\r\nMAILADDR root\n"
            )
        );
        assert!(new.remarks.is_empty(), "{:?}", new.remarks);
    }

    #[test]
    fn an_array_that_has_only_a_list_keeps_it() {
        let old = "ARRAY /dev/md0 devices=/dev/sda2,/dev/sdb2\nDEVICE partitions\n";
        let new = without_disks("/etc/mdadm.conf", old);
        assert_eq!(new.text, old);
        assert!(new.remarks[0].contains("/dev/md0 is found by the names of its disks"));
    }
}
