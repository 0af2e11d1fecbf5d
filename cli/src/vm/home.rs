//! Where virtual machines live: what the environment says.

use std::path::PathBuf;

use hako_block::{Error, Result};
use hako_vm::Home;
use hako_vm::run::RunHome;

/// Returns the home of this user's machines: `$HAKO_HOME`, else `/var/lib/hako` for root, else
/// `~/.local/share/hako`.
pub fn home() -> Result<Home> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let root = match (set("HAKO_HOME"), set("HOME")) {
        (Some(root), _) => PathBuf::from(root),
        (None, _) if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/hako"),
        (None, Some(home)) => PathBuf::from(home).join(".local/share/hako"),
        (None, None) => {
            return Err(Error::invalid("neither HAKO_HOME nor HOME is set")
                .hint("set HAKO_HOME to the folder where machines are to live"));
        }
    };
    let root =
        std::path::absolute(&root).map_err(|error| Error::io("find", error).in_file(&root))?;
    Ok(Home::new(root))
}

/// Returns where the state of this user's running machines is: `$HAKO_RUN`, else `/run/hako` for
/// root; for others `hako` in `$XDG_RUNTIME_DIR` or `/run/user/UID`, else `run` in the home of
/// machines, so that whoever has neither (cron) finds the same place each time.
pub fn run_home() -> Result<RunHome> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let user = rustix::process::geteuid();
    let of_user = PathBuf::from(format!("/run/user/{}", user.as_raw()));
    let root = match (set("HAKO_RUN"), set("XDG_RUNTIME_DIR")) {
        (Some(root), _) => PathBuf::from(root),
        (None, _) if user.is_root() => PathBuf::from("/run/hako"),
        (None, Some(folder)) => PathBuf::from(folder).join("hako"),
        (None, None) if of_user.is_dir() => of_user.join("hako"),
        (None, None) => home()?.root.join("run"),
    };
    let root =
        std::path::absolute(&root).map_err(|error| Error::io("find", error).in_file(&root))?;
    Ok(RunHome::new(root))
}
