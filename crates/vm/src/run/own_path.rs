//! Files and sockets of the machine's own that its VMX names, and that disks' gate does not open.

use std::path::{Component, Path, PathBuf};

use hako_block::{Error, ErrorKind, Result};

use crate::Vm;

/// Returns where a file lies that may not be there yet: in the machine's folder, or below what the
/// user allowed.
pub(super) fn own_path(vm: &Vm, name: &str) -> Result<PathBuf> {
    let refused = || {
        Error::new(
            ErrorKind::Gate,
            format!("{name:?} is not in the machine's folder"),
        )
    };
    let path = vm.folder().join(name);
    let has_dots = Path::new(name)
        .components()
        .any(|part| part == Component::ParentDir);
    let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(refused());
    };
    let folder =
        std::fs::canonicalize(folder).map_err(|error| Error::io("find", error).in_file(&path))?;
    let own = std::fs::canonicalize(vm.folder()).unwrap_or_else(|_| vm.folder().to_owned());
    let allowed = vm.rules(true).allow_paths;
    let is_allowed = allowed.iter().any(|allowed| {
        std::fs::canonicalize(allowed).is_ok_and(|allowed| folder.starts_with(allowed))
    });
    if name.contains('\0') || !is_allowed && (has_dots || !folder.starts_with(own)) {
        return Err(refused());
    }
    Ok(folder.join(file))
}
