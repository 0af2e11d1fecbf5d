//! The walls around a machine that runs: what its threads may ask of the host's kernel, should a guest
//! ever get hold of one. They start no program, join no namespace, trace no process, open no network
//! connection, and get at no files but the machine's own. What the host's kernel does not know of
//! Landlock is left out.
//!
//! All that is needed was opened before: disks, links, helpers that run. A reset opens /dev/kvm.
//!
//! Two kinds of threads stay outside, for they begin before and no byte of a guest's reaches them: the
//! runner's, which waits for signals and says so to its main loop, and one for each passt, which waits
//! for its end. (That one has to start the program, which ends with the thread that started it.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hako_block::{Error, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What threads of a machine have no use for, and who has broken out of a guest would have.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS_capset,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// Shuts this thread in, and all that it starts from now on; it keeps what it has open, and may read
/// and write files below `folders`. Errors: a kernel without seccomp, or that builds no walls.
pub(super) fn shut(folders: &[PathBuf]) -> Result<()> {
    restrict_files(folders).map_err(failed)?;
    seccompiler::apply_filter(&filter().map_err(failed)?).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::unsupported(format!("the machine cannot be shut in: {error}"))
}

fn restrict_files(folders: &[PathBuf]) -> std::result::Result<(), RulesetError> {
    let all = AccessFs::from_all(ABI::V5);
    let devices = ["/dev/kvm", "/dev/null", "/dev/urandom"].map(Path::new);
    let read = ["/proc", "/sys"].map(Path::new);
    Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .create()?
        .add_rules(path_beneath_rules(folders, all & !AccessFs::Execute))?
        .add_rules(path_beneath_rules(devices, all & !AccessFs::Execute))?
        .add_rules(path_beneath_rules(
            read,
            AccessFs::ReadFile | AccessFs::ReadDir,
        ))?
        .restrict_self()?;
    Ok(())
}

fn filter() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, _> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_is_shut_in_starts_nothing_and_keeps_to_its_folders() {
        let inside = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let (own, other) = (inside.path().join("own"), outside.path().join("other"));
        std::fs::write(&other, "secret").unwrap();
        let folders = [inside.path().to_owned()];
        let (here, there) = (own.clone(), other.clone());
        // A thread of its own: it never gets out again.
        let shut_in = std::thread::spawn(move || {
            shut(&folders).unwrap();
            let inherits = std::thread::spawn(|| Command::new("true").status().is_err());
            assert!(inherits.join().unwrap(), "a program was started");
            std::fs::write(&here, "mine").unwrap();
            std::fs::rename(&here, here.with_extension("new")).unwrap();
            (
                std::fs::read(&there).is_ok(),
                std::fs::read("/proc/self/stat").is_ok(),
            )
        });
        let (reads_other, reads_own_state) = shut_in.join().unwrap();
        assert!(reads_own_state);
        let has_landlock = std::fs::read_to_string("/sys/kernel/security/lsm")
            .is_ok_and(|names| names.contains("landlock"));
        assert!(!(has_landlock && reads_other), "it read another's file");
        assert_eq!(std::fs::read(own.with_extension("new")).unwrap(), b"mine");
    }
}
