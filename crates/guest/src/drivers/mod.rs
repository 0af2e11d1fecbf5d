//! The drivers of a guest's kernels: what is built in, what is in the initrd, and what lies beside
//! as a module, by the index files that depmod(8) writes to `/lib/modules/VERSION`.

mod hardware;
mod index;

pub use hardware::Hardware;
pub use index::Index;

use crate::initrd::Contents;

/// Where a kernel finds a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the kernel itself.
    Builtin,
    /// In the initrd.
    Initrd,
    /// In `/lib/modules`, which the kernel sees once its root is mounted.
    Modules,
    /// Nowhere.
    Nowhere,
}

impl Whereabouts {
    /// Returns its name, for JSON and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Initrd => "initrd",
            Self::Modules => "modules",
            Self::Nowhere => "nowhere",
        }
    }
}

/// Says where the kernel that `index` is of finds the driver of some hardware.
pub fn find(index: &Index, initrd: Option<&Contents>, hardware: Hardware) -> Whereabouts {
    let modules = index.modules_for(hardware);
    if modules.iter().any(|name| index.is_builtin(name)) {
        return Whereabouts::Builtin;
    }
    let is_in = |contents: &Contents| {
        let mut in_it = contents.modules(index.version());
        in_it.any(|path| module_name(path).is_some_and(|name| modules.contains(&name)))
    };
    match initrd {
        Some(contents) if is_in(contents) => Whereabouts::Initrd,
        _ if modules.iter().any(|name| index.path(name).is_some()) => Whereabouts::Modules,
        _ => Whereabouts::Nowhere,
    }
}

/// Returns the name of the module in a file (`virtio_blk` of
/// `kernel/drivers/block/virtio-blk.ko.xz`), with `_` for `-` as the kernel has it; none if it is
/// no module.
pub fn module_name(path: &[u8]) -> Option<String> {
    let name = path.rsplit(|&byte| byte == b'/').next()?;
    let name = std::str::from_utf8(name).ok()?;
    let (name, rest) = name.rsplit_once(".ko")?;
    let is_known = matches!(rest, "" | ".gz" | ".xz" | ".zst");
    (is_known && !name.is_empty()).then(|| name.replace('-', "_"))
}

#[cfg(test)]
mod tests;
