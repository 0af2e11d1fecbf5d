//! Which snapshot the user means: its name, the names on the way to it, or its number (uid).

use hako_block::{Error, ErrorKind, Result};
use hako_formats::vmsd::Snapshot;

/// What says that the number alone is meant.
pub(super) const UID: &str = "uid:";

/// Returns the snapshot that the user called so: by its name, by the names on the way to it
/// (`clean/patched`), or by its uid; by `uid:3` if that alone is meant. Errors: [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for
/// what several are called.
pub fn find<'a>(snapshots: &'a [Snapshot], what: &str) -> Result<&'a Snapshot> {
    let number = what.strip_prefix(UID);
    let uid: Option<u32> = number.unwrap_or(what).parse().ok();
    let is_meant = |snapshot: &&Snapshot| {
        (snapshot.name == what && number.is_none())
            || Some(snapshot.uid) == uid
            || (what.contains('/') && path_of(snapshots, snapshot).ends_with_path(what))
    };
    let matching: Vec<&Snapshot> = snapshots.iter().filter(is_meant).collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => Err(
            Error::new(ErrorKind::NotFound, format!("no snapshot {what:?}"))
                .hint("`hako snapshot list VM` shows those that there are"),
        ),
        several => {
            let all = several
                .iter()
                .map(|one| format!("{UID}{} ({})", one.uid, path_of(snapshots, one).0));
            let all: Vec<String> = all.collect();
            let what = format!("{what:?} is what {} snapshots are called", several.len());
            Err(Error::invalid(what).hint(format!(
                "say which by its uid or its path: {}",
                all.join(", ")
            )))
        }
    }
}

/// Returns the names on the way to each snapshot, with `/` between; by their place in the list.
pub(super) fn paths(snapshots: &[Snapshot]) -> Vec<String> {
    let paths = snapshots.iter().map(|one| path_of(snapshots, one).0);
    paths.collect()
}

/// The names from the first snapshot to one, with `/` between.
struct NamePath(String);

impl NamePath {
    /// Returns whether the path is this one, or its end from a whole name on.
    fn ends_with_path(&self, what: &str) -> bool {
        let before = self.0.strip_suffix(what);
        before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    }
}

fn path_of(snapshots: &[Snapshot], snapshot: &Snapshot) -> NamePath {
    let mut names = vec![snapshot.name.as_str()];
    let mut parent = snapshot.parent;
    // As many steps as there are snapshots: a damaged list may be a ring.
    for _ in 0..snapshots.len() {
        let above = snapshots.iter().find(|other| Some(other.uid) == parent);
        let Some(above) = above else { break };
        names.push(&above.name);
        parent = above.parent;
    }
    names.reverse();
    NamePath(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(uid: u32, parent: u32, name: &str) -> Snapshot {
        Snapshot {
            uid,
            parent: Some(parent).filter(|uid| *uid != 0),
            name: name.to_owned(),
            index: uid,
            description: String::new(),
            created_us: None,
            state_file: None,
            config: None,
            firmware: Vec::new(),
            disks: Vec::new(),
        }
    }

    fn found(what: &str) -> std::result::Result<u32, ErrorKind> {
        let snapshots = [
            snapshot(1, 0, "clean"),
            snapshot(4, 1, "patched"),
            snapshot(5, 1, "tried"),
            snapshot(6, 5, "patched"),
            snapshot(7, 6, "4"),
            snapshot(8, 6, "a/b"),
        ];
        let found = find(&snapshots, what).map(|snapshot| snapshot.uid);
        found.map_err(|error| error.kind())
    }

    #[test]
    fn snapshots_are_found_by_name_uid_and_path() {
        assert_eq!(found("clean"), Ok(1));
        assert_eq!(found("6"), Ok(6));
        assert_eq!(found("uid:4"), Ok(4));
        assert_eq!(found("clean/patched"), Ok(4));
        assert_eq!(found("tried/patched"), Ok(6));
        assert_eq!(found("clean/tried/patched"), Ok(6));
        assert_eq!(found("a/b"), Ok(8));
        assert_eq!(found("patched/a/b"), Ok(8));
    }

    #[test]
    fn what_several_are_called_is_asked_for() {
        // A uid of one and the name of another: nothing is guessed.
        for what in ["patched", "4"] {
            assert_eq!(found(what), Err(ErrorKind::Invalid), "{what}");
        }
        for what in [
            "",
            "uid:9",
            "uid:",
            "lean/patched",
            "clean/",
            "9",
            "clean/a",
        ] {
            assert_eq!(found(what), Err(ErrorKind::NotFound), "{what}");
        }
    }

    #[test]
    fn a_ring_of_snapshots_has_an_end() {
        let ring = [snapshot(1, 2, "a"), snapshot(2, 1, "b")];
        assert!(find(&ring, "b/a").is_ok());
    }
}
