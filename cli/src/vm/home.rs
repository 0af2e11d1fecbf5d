//! Where virtual machines live: what the environment says.

use std::path::PathBuf;

use hako_block::{Error, Result};
use hako_vm::Home;

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
