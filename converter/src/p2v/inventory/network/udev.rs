//! Rules of udev, see udev(7): `KEY=="value", …, NAME="name"` a line.

use hako_guest::Tree;

use super::files;

/// Returns the rules of a system, and the files that they are in.
pub(super) fn rules(tree: &Tree) -> Vec<(String, String)> {
    let files = files(tree, "/etc/udev/rules.d", ".rules");
    let rules = files.flat_map(|(file, text)| {
        let lines = text.lines().map(str::trim);
        let rules = lines.filter(|line| !line.starts_with('#'));
        let rules: Vec<String> = rules.map(str::to_owned).collect();
        rules.into_iter().map(move |rule| (file.clone(), rule))
    });
    rules.collect()
}

/// Returns the value of a key of a rule; the key with what stands between both: `KERNELS==`, `NAME=`.
pub(super) fn value<'a>(rule: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = rule;
    while let Some((known, more)) = rest.split_once('"') {
        let (value, more) = more.split_once('"')?;
        if known.trim_matches([' ', '\t', ',']) == key {
            return Some(value);
        }
        rest = more;
    }
    None
}
