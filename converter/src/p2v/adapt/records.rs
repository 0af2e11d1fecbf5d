//! What was changed, as it is written down in the guest: `/var/lib/hako/adapt/changes.json`, and the
//! files that it names beside it.

use hako_block::{Crc32c, Error, Result};
use serde::{Deserialize, Serialize};

use super::{Change, FOLDER, Guest, Plan, What};

const LIST: &str = "changes.json";
/// The longest list that is read, and the most changes in it.
const LIST_BYTES: usize = 16 << 20;
const MOST_RECORDS: usize = 10_000;
/// The longest file that is kept.
pub(super) const KEPT_BYTES: usize = 512 << 20;

/// All changes of all runs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Records {
    /// 1.
    pub(super) version: u32,
    pub(super) changes: Vec<Record>,
}

/// A path that was changed, and what it was before the first change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) path: String,
    #[serde(flatten)]
    pub(super) was: Was,
    /// The length and CRC-32C of what hako wrote there; of what it appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) wrote: Option<(u64, u32)>,
}

/// What was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "lowercase")]
pub(super) enum Was {
    /// A file, which is kept under this name.
    File {
        kept: String,
        /// Its permissions, to make it again if it was removed.
        mode: u16,
    },
    /// The beginning of the file.
    Shorter { len: u64 },
    /// Nothing.
    Nothing,
}

/// Returns the length and sum of bytes that are written down.
pub(super) fn sum_of(bytes: &[u8]) -> (u64, u32) {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    (bytes.len() as u64, crc.value())
}

fn list_path() -> String {
    format!("{FOLDER}/{LIST}")
}

/// Returns the path of a file that is kept. Errors: corrupt if the name leads elsewhere.
pub(super) fn kept_path(name: &str) -> Result<String> {
    let number = name.strip_prefix("kept-").unwrap_or_default();
    let is_ours = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    match is_ours {
        true => Ok(format!("{FOLDER}/{name}")),
        false => Err(Error::corrupt(
            list_path(),
            format!("{name:?} is no file of hako's"),
        )),
    }
}

impl Records {
    /// Reads the list in a guest, and its text; none if nothing was changed.
    pub(super) fn read(guest: &Guest<'_>) -> Result<Option<(Self, Vec<u8>)>> {
        let path = list_path();
        if guest.tree().look_for(path.as_bytes())?.is_none() {
            return Ok(None);
        }
        let bytes = guest.tree().read(path.as_bytes(), LIST_BYTES)?;
        let damaged = |what: String| Error::corrupt(path.clone(), what);
        let records: Self =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        match records.version {
            1 if records.changes.len() <= MOST_RECORDS => Ok(Some((records, bytes))),
            1 => Err(damaged("too many changes".into())),
            version => Err(Error::unsupported(format!(
                "{path}: version {version}, of a newer hako"
            ))),
        }
    }

    /// Adds a record, or puts it in the place of that of the same path.
    fn put(&mut self, record: Record) {
        let mut all = self.changes.iter_mut();
        match all.find(|known| known.path == record.path) {
            Some(known) => *known = record,
            None => self.changes.push(record),
        }
    }
}

/// Returns the changes that write down what a plan changes: they go with it, and come last, but for
/// the folder.
pub(super) fn of_plan(guest: &Guest<'_>, plan: &Plan) -> Result<Vec<Change>> {
    let (mut records, old_list) = match Records::read(guest)? {
        Some((records, bytes)) => (records, Some(bytes)),
        None => (
            Records {
                version: 1,
                changes: Vec::new(),
            },
            None,
        ),
    };
    let mut own = Plan::default();
    make_folders(guest, &mut records, &mut own)?;
    for change in &plan.changes {
        let mut all = records.changes.iter();
        let known = all.find(|record| record.path == change.path);
        let record = match known {
            Some(record) if is_ours(guest, change, record)? => Record {
                wrote: wrote(guest, change, &record.was)?,
                ..record.clone()
            },
            _ => first(guest, change, &records, known, &mut own)?,
        };
        records.put(record);
    }
    let text = serde_json::to_vec_pretty(&records)
        .map_err(|error| Error::invalid(format!("a list of changes: {error}")))?;
    let why = vec!["what was changed is written down".to_owned()];
    own.changes.push(Change {
        path: list_path(),
        what: match old_list {
            Some(old) => What::Replace { old, new: text },
            None => What::Create {
                bytes: text,
                mode: 0o600,
            },
        },
        why,
    });
    Ok(own.changes)
}

/// Returns whether what a change finds is what hako left there in an earlier run. What it is not, the
/// guest has made since, and that is what `--undo` has to lead back to.
fn is_ours(guest: &Guest<'_>, change: &Change, record: &Record) -> Result<bool> {
    let now = match (&change.what, &record.was) {
        (What::Append { len, .. }, Was::Shorter { len: first }) if len >= first => {
            behind(guest, &change.path, *first, *len)?
        }
        (What::Replace { old, .. } | What::Remove { old: Some(old) }, _) => old.clone(),
        (What::Append { .. }, _) => return Ok(false),
        _ => return Ok(true),
    };
    Ok(record.wrote == Some(sum_of(&now)))
}

/// Writes a path down that is changed, as it is now. `old`: what was written down of it, and is no more.
fn first(
    guest: &Guest<'_>,
    change: &Change,
    records: &Records,
    old: Option<&Record>,
    own: &mut Plan,
) -> Result<Record> {
    let was = match &change.what {
        What::Replace { old: bytes, .. } | What::Remove { old: Some(bytes) } => {
            let kept = keep(guest, bytes, records, old, own)?;
            let stat = guest.tree().stat(change.path.as_bytes())?;
            let mode = u16::try_from(stat.mode & 0o7777).unwrap_or(0o600);
            Was::File { kept, mode }
        }
        What::Append { len, .. } => Was::Shorter { len: *len },
        _ => Was::Nothing,
    };
    Ok(Record {
        path: change.path.clone(),
        wrote: wrote(guest, change, &was)?,
        was,
    })
}

/// Keeps a file's content: in the place of what was kept of it, if something was. Returns its name.
fn keep(
    guest: &Guest<'_>,
    bytes: &[u8],
    records: &Records,
    old: Option<&Record>,
    own: &mut Plan,
) -> Result<String> {
    const WHY: &str = "what was there is kept";
    let new = bytes.to_vec();
    if let Some(Was::File { kept, .. }) = old.map(|record| &record.was) {
        let path = kept_path(kept)?;
        let old = guest.tree().read(path.as_bytes(), KEPT_BYTES)?;
        if old != new {
            own.add(path, What::Replace { old, new }, WHY);
        }
        return Ok(kept.clone());
    }
    let files = records.changes.iter();
    let n_kept = files.filter(|record| matches!(record.was, Was::File { .. }));
    let kept = format!("kept-{}", n_kept.count());
    let (bytes, mode) = (new, 0o600);
    own.add(kept_path(&kept)?, What::Create { bytes, mode }, WHY);
    Ok(kept)
}

/// Returns the length and sum of what a change leaves there; of what is appended, all that is behind the
/// end that the file once had.
fn wrote(guest: &Guest<'_>, change: &Change, was: &Was) -> Result<Option<(u64, u32)>> {
    Ok(match (&change.what, was) {
        (What::Append { len, bytes }, Was::Shorter { len: first }) => {
            let before = behind(guest, &change.path, *first, *len)?;
            Some(sum_of(&[&before, &bytes[..]].concat()))
        }
        (What::Replace { new: bytes, .. } | What::Create { bytes, .. }, _) => Some(sum_of(bytes)),
        _ => None,
    })
}

/// Reads a file from `first` to `end`.
pub(super) fn behind(guest: &Guest<'_>, path: &str, first: u64, end: u64) -> Result<Vec<u8>> {
    const MOST_BYTES: u64 = 512 << 20;
    let len = end.saturating_sub(first);
    if len > MOST_BYTES {
        return Err(Error::unsupported(format!("{path}: too much was appended")));
    }
    let file = guest.tree().find(path.as_bytes())?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let n = file.read_at(first, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Adds the folders that are missing for what is kept.
fn make_folders(guest: &Guest<'_>, records: &mut Records, own: &mut Plan) -> Result<()> {
    let ends = FOLDER.match_indices('/').map(|(at, _)| at).skip(1);
    for end in ends.chain([FOLDER.len()]) {
        let path = FOLDER.get(..end).unwrap_or(FOLDER);
        if guest.tree().look_for(path.as_bytes())?.is_some() {
            continue;
        }
        own.add(
            path,
            What::Folder { mode: 0o700 },
            "what was there is kept in it",
        );
        records.changes.push(Record {
            path: path.to_owned(),
            was: Was::Nothing,
            wrote: None,
        });
    }
    Ok(())
}
