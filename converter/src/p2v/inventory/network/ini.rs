//! Texts in sections (`[Match]`, `Name=eth0`), as systemd and NetworkManager have them.

/// Lines that are read of one file.
const MOST_LINES: usize = 10_000;

/// A section: its name and what is assigned in it, in order.
pub(super) struct Section {
    pub(super) name: String,
    values: Vec<(String, String)>,
}

impl Section {
    /// Returns the last value of a key; empty if there is none.
    pub(super) fn value(&self, key: &str) -> &str {
        let mut of_key = self.values.iter().filter(|(known, _)| known == key);
        of_key.next_back().map_or("", |(_, value)| value)
    }

    /// Returns all values of a key.
    pub(super) fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let of_key = self.values.iter().filter(move |(known, _)| known == key);
        of_key.map(|(_, value)| value.as_str())
    }

    /// Returns the values of all keys that begin so (`address1`, `address2`).
    pub(super) fn numbered<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = &'a str> {
        let is_one = move |key: &str| {
            key.strip_prefix(begin)
                .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let found = self.values.iter().filter(move |(key, _)| is_one(key));
        found.map(|(_, value)| value.as_str())
    }
}

/// Returns the sections of a text. What stands before the first one, and what is no assignment, is
/// passed over.
pub(super) fn parse(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().take(MOST_LINES).map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let name = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(name) = name {
            sections.push(Section {
                name: name.to_owned(),
                values: Vec::new(),
            });
        } else if let (Some(section), Some((key, value))) =
            (sections.last_mut(), line.split_once('='))
        {
            let pair = (key.trim().to_owned(), value.trim().to_owned());
            section.values.push(pair);
        }
    }
    sections
}

/// Returns the value of a key in the first section of a name that has it; empty if none has.
pub(super) fn value<'a>(sections: &'a [Section], name: &str, key: &str) -> &'a str {
    let of_name = sections.iter().filter(|section| section.name == name);
    let mut values = of_name.map(|section| section.value(key));
    values.find(|value| !value.is_empty()).unwrap_or_default()
}
