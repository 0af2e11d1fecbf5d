//! The backups of one machine in a folder: `NAME-2026-11-22T093000Z.ova`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::gate::{file_names, sync_folder_of};
use hako_block::staging::PART_SUFFIX;
use hako_block::{Access, Cancel, Error, ErrorKind, FileStorage, LockMode, Result};
use hako_formats::ova::Ova;

use crate::Vm;
use crate::export::portable_stem;
use crate::import::Package;
use crate::time::utc;

/// How the time is written: `-2026-11-22T093000Z`.
const TIME_PATTERN: &str = "-dddd-dd-ddTddddddZ";
const EXTENSION: &str = ".ova";

/// The backups of one machine in a folder.
pub(super) struct Generations {
    folder: PathBuf,
    stem: String,
    machine: String,
}

impl Generations {
    pub(super) fn new(folder: &Path, vm: &Vm) -> Self {
        Self {
            folder: folder.to_path_buf(),
            stem: portable_stem(&vm.name()),
            machine: vm.name(),
        }
    }

    /// Returns the path of the one of that time, in seconds since 1970.
    pub(super) fn path_at(&self, time: u64) -> PathBuf {
        let name = format!("{}{}{EXTENSION}", self.stem, time_text(time));
        self.folder.join(name)
    }

    /// Returns all there are, oldest first.
    pub(super) fn all(&self) -> Result<Vec<PathBuf>> {
        let names = file_names(&self.folder)?.into_iter();
        let mut names: Vec<_> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| self.is_one(name))
            .collect();
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| self.folder.join(name))
            .collect())
    }

    /// Removes what killed runs left behind, and returns the names. Errors: [`ErrorKind::Locked`]
    /// if another run is writing one.
    pub(super) fn clear_debris(&self) -> Result<Vec<String>> {
        let failed = |error| Error::io("list", error).in_file(&self.folder);
        let mut cleared = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let inner = name
                .strip_prefix('.')
                .and_then(|name| name.strip_suffix(PART_SUFFIX));
            if !inner.is_some_and(|inner| self.is_one(inner)) {
                continue;
            }
            let path = entry.path();
            let is_live = File::open(&path).is_ok_and(|file| file.try_lock().is_err());
            if is_live {
                return Err(Error::new(
                    ErrorKind::Locked,
                    "another run is writing a backup of this machine",
                )
                .in_file(path));
            }
            std::fs::remove_file(&path)
                .map_err(|error| Error::io("clear what a killed run left", error).in_file(&path))?;
            cleared.push(name);
        }
        Ok(cleared)
    }

    /// Removes all but the newest `keep` (the one at `new` always stays), and returns the names of
    /// those that are gone. One that is not of this machine, or is not to be read, stays.
    pub(super) fn keep_newest(
        &self,
        keep: usize,
        new: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<String>> {
        let mut ours = Vec::new();
        for path in self.all()? {
            match self.is_of_this_machine(&path) {
                Ok(true) => ours.push(path),
                Ok(false) => {
                    warnings.push(format!("{}: is of another machine: left", path.display()));
                }
                Err(error) => warnings.push(format!("left, for it cannot be read: {error}")),
            }
        }
        let n_old = ours.len().saturating_sub(keep.max(1));
        let mut removed = Vec::new();
        for path in ours.into_iter().filter(|path| path != new).take(n_old) {
            std::fs::remove_file(&path)
                .map_err(|error| Error::io("remove the old backup", error).in_file(&path))?;
            removed.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
        if !removed.is_empty() {
            sync_folder_of(new)?;
        }
        Ok(removed)
    }

    fn is_of_this_machine(&self, path: &Path) -> Result<bool> {
        let storage = FileStorage::open(path, Access::ReadOnly, LockMode::None)?;
        let package = Package::of_tar(Ova::open(Arc::new(storage))?, &Cancel::default())?;
        let mut systems = package.envelope.systems.iter();
        Ok(systems.any(|system| system.name == self.machine))
    }

    /// Returns whether a file's name is that of one of this machine's.
    fn is_one(&self, name: &str) -> bool {
        let time = name
            .strip_prefix(&self.stem)
            .and_then(|rest| rest.strip_suffix(EXTENSION));
        time.is_some_and(|time| {
            time.len() == TIME_PATTERN.len()
                && time
                    .bytes()
                    .zip(TIME_PATTERN.bytes())
                    .all(|(byte, like)| match like {
                        b'd' => byte.is_ascii_digit(),
                        _ => byte == like,
                    })
        })
    }
}

/// Writes a time, in seconds since 1970, in UTC.
fn time_text(time: u64) -> String {
    let [year, month, day, hour, minute, second] = utc(time);
    format!("-{year:04}-{month:02}-{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_date_does() {
        for (time, expected) in [
            (0, "-1970-01-01T000000Z"),
            (951_782_399, "-2000-02-28T235959Z"),
            (951_782_400, "-2000-02-29T000000Z"),
            (1_709_164_800, "-2024-02-29T000000Z"),
            (1_709_251_200, "-2024-03-01T000000Z"),
            (1_795_339_815, "-2026-11-22T093015Z"),
            (4_107_542_400, "-2100-03-01T000000Z"),
        ] {
            assert_eq!(time_text(time), expected, "{time}");
        }
    }

    #[test]
    fn only_names_of_that_machine_and_form_are_generations() {
        let generations = Generations {
            folder: PathBuf::from("."),
            stem: "web".to_owned(),
            machine: "web".to_owned(),
        };
        assert!(generations.is_one("web-2026-11-22T093015Z.ova"));
        for name in [
            "web.ova",
            "web2-2026-11-22T093015Z.ova",
            "web-x-2026-11-22T093015Z.ova",
            "web-2026-11-22T093015Z.ovf",
            "web-2026-11-22.ova",
            "xweb-2026-11-22T093015Z.ova",
        ] {
            assert!(!generations.is_one(name), "{name}");
        }
    }
}
