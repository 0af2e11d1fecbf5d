//! Entries of the Boot Loader Specification (UAPI.1), type 1: one text for each, `KEY VALUE` lines.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::files::{Files, source};
use super::{Entry, Loader};
use crate::os::Version;
use crate::volumes::FoundVolume;

/// An entry as its text has it.
pub(super) struct BlsEntry<'v> {
    volume: &'v FoundVolume,
    /// The name of its file without `.conf` and the count of tries.
    pub id: String,
    /// Whether all its tries are used up.
    pub is_bad: bool,
    source: String,
    /// Values by key, in their order.
    fields: Vec<(String, String)>,
}

/// Lines of one entry that are read.
const MOST_LINES: usize = 1000;

/// Returns the entries in a directory of a volume. What cannot be read is none.
pub(super) fn read<'v>(
    files: &Files<'v>,
    volume: &'v FoundVolume,
    path: &str,
) -> Vec<BlsEntry<'v>> {
    let names = files.names(volume, path).into_iter();
    let entries = names.filter_map(|name| {
        let stem = name.strip_suffix(".conf")?;
        let path = format!("{}/{name}", path.trim_end_matches('/'));
        let text = files.text(volume, &path)?;
        let (id, is_bad) = without_tries(stem);
        Some(BlsEntry {
            volume,
            id: id.to_owned(),
            is_bad,
            source: source(volume, &path),
            fields: fields(&text.text),
        })
    });
    entries.collect()
}

/// Splits the count of tries from a name (`arch+3-1`, left and done); says whether none is left.
pub(super) fn without_tries(stem: &str) -> (&str, bool) {
    let Some((name, tries)) = stem.rsplit_once('+') else {
        return (stem, false);
    };
    let (left, done) = tries.split_once('-').unwrap_or((tries, "0"));
    match (left.parse::<u32>(), done.parse::<u32>()) {
        (Ok(left), Ok(_)) => (name, left == 0),
        _ => (stem, false),
    }
}

fn fields(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).take(MOST_LINES);
    let fields = lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (key, value) = line.split_once([' ', '\t'])?;
            Some((key.to_owned(), value.trim().to_owned()))
        });
    fields.collect()
}

impl<'v> BlsEntry<'v> {
    /// Returns the value of a key; empty if it has none.
    pub fn value(&self, key: &str) -> &str {
        self.values(key).first().copied().unwrap_or_default()
    }

    fn values(&self, key: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(known, _)| known == key);
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// Returns what the entry boots. `variables` are those of GRUB, which replaces `$NAME` in it.
    pub fn resolved(
        &self,
        files: &Files<'v>,
        loader: Loader,
        variables: &BTreeMap<String, String>,
    ) -> Entry {
        let expanded = |value: &str| match loader {
            Loader::GrubBls => expand(value, variables),
            _ => value.to_owned(),
        };
        let mut trouble = None;
        let mut image = |path: &str| match files.image(self.volume, path) {
            Ok(image) => Some(image),
            Err(what) => {
                trouble.get_or_insert(what);
                None
            }
        };
        let kernel = match self.value("linux") {
            "" => None,
            path => image(&expanded(path)),
        };
        let initrds: Vec<String> = self.values("initrd").into_iter().map(expanded).collect();
        let words = initrds
            .iter()
            .flat_map(|line| line.split_ascii_whitespace());
        let initrds = words.filter_map(&mut image).collect();
        let options: Vec<String> = self.values("options").into_iter().map(expanded).collect();
        if kernel.is_none() && trouble.is_none() {
            trouble = Some("it starts no Linux kernel".into());
        }
        Entry {
            title: self.title(),
            id: self.id.clone(),
            loader,
            source: self.source.clone(),
            kernel,
            initrds,
            options: options.join(" ").trim().to_owned(),
            trouble,
        }
    }

    fn title(&self) -> String {
        match (self.value("title"), self.value("version")) {
            ("", "") => self.id.clone(),
            ("", version) => version.to_owned(),
            (title, _) => title.to_owned(),
        }
    }
}

/// Replaces `$NAME` and `${NAME}`. Fedora's `$kernelopts` without a value is what its
/// `default_kernelopts` says.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    const LONGEST: usize = 64 << 10;
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        done.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, more) = match after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some(both) => both,
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        let default = match name {
            "kernelopts" => variables.get("default_kernelopts"),
            _ => None,
        };
        if let Some(value) = variables.get(name).or(default) {
            done.push_str(value);
        }
        rest = more;
        if done.len() > LONGEST {
            break;
        }
    }
    done.push_str(rest);
    done
}

/// Sorts entries as Fedora's GRUB does: by the versions in their files' names, the newest first.
pub(super) fn sort_as_grub(entries: &mut [BlsEntry<'_>]) {
    entries.sort_by_cached_key(|entry| std::cmp::Reverse(Version(entry.id.clone())));
}

/// What systemd-boot and the specification sort by.
pub(super) struct SortKey<'e> {
    pub is_bad: bool,
    pub sort_key: &'e str,
    pub machine_id: &'e str,
    pub version: &'e str,
    pub id: &'e str,
}

impl SortKey<'_> {
    /// Compares as the specification has it: what failed goes last; what has a sort key goes first, by
    /// that, the machine and the version, the newest first; then names, the newest first.
    pub fn compare(&self, other: &Self) -> Ordering {
        let newest = |a: &str, b: &str| Version(b.to_owned()).cmp(&Version(a.to_owned()));
        let by_key = || match (self.sort_key, other.sort_key) {
            ("", "") => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (a, b) => a
                .cmp(b)
                .then_with(|| self.machine_id.cmp(other.machine_id))
                .then_with(|| newest(self.version, other.version)),
        };
        self.is_bad
            .cmp(&other.is_bad)
            .then_with(by_key)
            .then_with(|| newest(self.id, other.id))
    }
}
