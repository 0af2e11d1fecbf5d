//! os-release(5), and what told the same before it: lsb-release, redhat-release, debian_version.

use super::{TEXT_BYTES, Variables};
use crate::tree::Tree;

/// Returns what a guest says of itself, by the keys of os-release.
pub(super) fn read(tree: &Tree) -> Variables {
    let text = |path: &str| tree.read(path.as_bytes(), TEXT_BYTES).ok();
    let mut known = Variables::new();
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if let Some(text) = text(path) {
            known = variables(&text);
            break;
        }
    }
    let mut add = |key: &str, value: &str| {
        let value = value.trim();
        if !value.is_empty() {
            known.entry(key.into()).or_insert_with(|| value.into());
        }
    };
    if let Some(text) = text("etc/lsb-release") {
        let lsb = variables(&text);
        for (from, to) in [
            ("DISTRIB_ID", "ID"),
            ("DISTRIB_RELEASE", "VERSION_ID"),
            ("DISTRIB_DESCRIPTION", "PRETTY_NAME"),
        ] {
            let value = lsb.get(from).map(String::as_str).unwrap_or_default();
            match to {
                "ID" => add(to, &value.to_lowercase()),
                _ => add(to, value),
            }
        }
    }
    let releases = [
        "etc/redhat-release",
        "etc/centos-release",
        "etc/SuSE-release",
    ];
    for path in releases {
        let Some(text) = text(path) else { continue };
        let line = String::from_utf8_lossy(&text);
        let line = line.lines().next().unwrap_or_default();
        add("ID", id_of(line));
        add("PRETTY_NAME", line);
        let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        add(
            "VERSION_ID",
            line.split_whitespace().find(is_number).unwrap_or_default(),
        );
    }
    if let Some(text) = text("etc/debian_version") {
        let version = String::from_utf8_lossy(&text);
        add("ID", "debian");
        add("VERSION_ID", &version);
        add(
            "PRETTY_NAME",
            &format!("Debian GNU/Linux {}", version.trim()),
        );
    }
    if let Some(text) = text("etc/alpine-release") {
        add("ID", "alpine");
        add("VERSION_ID", &String::from_utf8_lossy(&text));
    }
    known
}

/// Returns the `ID` that a line like "CentOS release 6.10 (Final)" stands for.
fn id_of(line: &str) -> &'static str {
    const IDS: &[(&str, &str)] = &[
        ("Red Hat Enterprise Linux", "rhel"),
        ("CentOS", "centos"),
        ("Fedora", "fedora"),
        ("AlmaLinux", "almalinux"),
        ("Rocky", "rocky"),
        ("Oracle", "ol"),
        ("Scientific", "scientific"),
        ("openSUSE", "opensuse"),
        ("SUSE Linux Enterprise", "sles"),
    ];
    let mut ids = IDS.iter();
    ids.find(|(begin, _)| line.starts_with(begin))
        .map_or("", |(_, id)| id)
}

/// Returns the assignments of a file in the shell's syntax: `KEY="value"`, without expansion.
pub fn variables(text: &[u8]) -> Variables {
    let text = String::from_utf8_lossy(text);
    let pairs = text.lines().filter_map(|line| {
        let (key, value) = line.trim().split_once('=')?;
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let value = unquoted(value.trim());
        key.chars().all(is_key).then(|| (key.to_owned(), value))
    });
    pairs.collect()
}

fn unquoted(value: &str) -> String {
    let mut chars = value.chars();
    let mut quote = None;
    let mut text = String::new();
    while let Some(next) = chars.next() {
        match (next, quote) {
            ('\\', None | Some('"')) => text.extend(chars.next()),
            ('"' | '\'', None) => quote = Some(next),
            (_, Some(open)) if open == next => quote = None,
            ('#' | ';', None) if text.ends_with(' ') || next == ';' => break,
            _ => text.push(next),
        }
    }
    text.trim_end().to_owned()
}
