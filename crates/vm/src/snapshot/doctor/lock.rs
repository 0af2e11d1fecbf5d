//! Locks of VMware's hosted products: a folder `NAME.lck` beside the file, and in it a file
//! `Mnnnnn.lck` for each holder. Its text begins with the host (an identity, or the name) and the
//! process: `PID-STARTED(name)`, the time of the start in ticks since boot as /proc says it (facts
//! from open-vm-tools, lib/file/fileLockPosix.c).

use std::path::{Path, PathBuf};

use hako_block::{Error, Result};

/// No lock is longer.
const MAX_BYTES: u64 = 4096;

/// A lock.
pub(super) struct VmwareLock {
    /// The folder `NAME.lck`.
    pub folder: PathBuf,
    /// Its files that say this.
    pub files: Vec<PathBuf>,
    /// Whether somebody holds it.
    pub holds: Holds,
}

/// Whether somebody holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holds {
    /// A process of this host does.
    Yes {
        /// The process.
        pid: u32,
    },
    /// A process of this host did, which is gone.
    No {
        /// The process.
        pid: u32,
    },
    /// It cannot be told from here.
    Unknown {
        /// Who made it, as far as that is known.
        by: String,
    },
}

/// Returns the locks in a folder, one for each file; sorted.
pub(super) fn locks_in(folder: &Path) -> Result<Vec<VmwareLock>> {
    let failed = |error| Error::io("list", error).in_file(folder);
    let mut locks = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_lock = |path: &Path| path.extension().is_some_and(|extension| extension == "lck");
        if !is_lock(&path) || !path.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            let file = entry.path();
            if is_lock(&file) {
                locks.push(VmwareLock {
                    folder: path.clone(),
                    holds: holds(&file),
                    files: vec![file],
                });
            }
        }
    }
    locks.sort_by(|a, b| a.files.cmp(&b.files));
    Ok(locks)
}

fn holds(file: &Path) -> Holds {
    let is_small = std::fs::symlink_metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_BYTES);
    let text = match is_small {
        true => std::fs::read(file).unwrap_or_default(),
        false => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text).replace('\0', " ");
    judge(&text, &host_name(), started)
}

/// Judges by the text of a lock; `started` returns when a process of this host started, 0 if that
/// is not known, none if there is no such process.
fn judge(text: &str, host: &str, started: impl Fn(u32) -> Option<u64>) -> Holds {
    let mut words = text.split_whitespace();
    let (Some(by), Some(process)) = (words.next(), words.next()) else {
        let by = "it does not say who".to_owned();
        return Holds::Unknown { by };
    };
    let (pid, since) = process.split_once('-').unwrap_or((process, ""));
    let digits: String = since.chars().take_while(char::is_ascii_digit).collect();
    let since: u64 = digits.parse().unwrap_or(0);
    let Ok(pid) = pid.parse::<u32>() else {
        let by = format!("host {by:?}");
        return Holds::Unknown { by };
    };
    if !is_host(by, host) {
        let by = format!("process {pid} of the host {by:?}");
        return Holds::Unknown { by };
    }
    match started(pid) {
        None => Holds::No { pid },
        // The number was given to another process since.
        Some(now) if now != 0 && since != 0 && now != since => Holds::No { pid },
        Some(_) => Holds::Yes { pid },
    }
}

/// Returns whether a lock names this host: by its name, with or without domain.
fn is_host(by: &str, host: &str) -> bool {
    let by = by.strip_prefix("host=").unwrap_or(by);
    let short = |name: &str| {
        let short = name.split('.').next().unwrap_or_default();
        short.to_ascii_lowercase()
    };
    let is_same = by.eq_ignore_ascii_case(host);
    let has_domains = by.contains('.') && host.contains('.');
    !host.is_empty() && (is_same || (!has_domains && short(by) == short(host)))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.unwrap_or_default().trim().to_owned()
}

/// Returns when a process started, in ticks since boot; 0 if that cannot be read.
fn started(pid: u32) -> Option<u64> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    if !folder.exists() {
        return None;
    }
    let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
    // The name in parentheses may have anything in it; the start is the 20th field behind it.
    let behind = stat.rsplit_once(')').map(|(_, rest)| rest);
    let field = behind.and_then(|rest| rest.split_whitespace().nth(19));
    Some(field.and_then(|field| field.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_stale_only_if_its_process_of_this_host_is_gone() {
        let started = |pid: u32| match pid {
            7 => Some(1000),
            8 => Some(0),
            _ => None,
        };
        let judged = |text: &str| judge(text, "vmhost.example.org", started);
        assert_eq!(
            judged("vmhost 7-1000(vmware-vmx) 12 X"),
            Holds::Yes { pid: 7 }
        );
        assert_eq!(
            judged("VMHOST.example.org 8-5(vmware-vmx)"),
            Holds::Yes { pid: 8 }
        );
        assert_eq!(judged("vmhost 7"), Holds::Yes { pid: 7 });
        assert_eq!(judged("vmhost 7-999(vmware-vmx)"), Holds::No { pid: 7 });
        assert_eq!(judged("vmhost 9-5(vmware-vmx)"), Holds::No { pid: 9 });
        for text in [
            "",
            "vmhost",
            "vmhost x-1",
            "vmhost.other.org 9-5",
            "elsewhere 9-5",
            "q6xYAAAAAAA 9-5(vmware-vmx)",
        ] {
            assert!(matches!(judged(text), Holds::Unknown { .. }), "{text:?}");
        }
        let nameless = judge(" 9-5", "", started);
        assert!(matches!(nameless, Holds::Unknown { .. }));
    }

    #[test]
    fn this_process_has_started() {
        assert!(started(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(started(u32::MAX), None);
    }
}
