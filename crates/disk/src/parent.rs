//! The parent of a new overlay: looked up by opening it.

use std::path::{Component, Path, PathBuf};

use hako_block::gate::folder_of;
use hako_block::{BlockImage, Error, ParentLink, Result};
use hako_formats::{OpenOptions, OpenedChain, open_chain};

/// A parent for a new overlay.
pub struct Parent {
    /// What the overlay records.
    pub link: ParentLink,
    /// Its virtual size in bytes.
    pub virtual_size: u64,
    /// What the user should know about it.
    pub warnings: Vec<String>,
    /// Held open, and thereby locked, while the overlay is made.
    pub chain: OpenedChain,
}

impl Parent {
    /// Opens the parent at `path` for a new image at `overlay`.
    pub fn open(path: &Path, overlay: &Path, options: &OpenOptions) -> Result<Self> {
        let chain = open_chain(path, options)?;
        let info = chain.chain.info();
        let name = recorded_name(path, overlay)?;
        let mut warnings = Vec::new();
        if Path::new(&name).is_absolute() || name.starts_with("..") {
            warnings.push(format!(
                "{name}: lies outside the overlay's folder, so opening the overlay needs \
                 --allow-path"
            ));
        }
        Ok(Self {
            link: ParentLink {
                name,
                format: Some(info.format.to_owned()),
                identity: info.identity,
                content_id: info.content_id,
                ..ParentLink::default()
            },
            virtual_size: info.virtual_size,
            warnings,
            chain,
        })
    }
}

/// Returns the name to record: relative to the overlay's folder, unless the parent lies outside
/// and the user gave an absolute path.
fn recorded_name(parent: &Path, overlay: &Path) -> Result<String> {
    let real = |path: &Path| {
        std::fs::canonicalize(path).map_err(|error| Error::io("resolve", error).in_file(path))
    };
    let folder = real(folder_of(overlay))?;
    let file = parent
        .file_name()
        .ok_or_else(|| Error::invalid("is no file name").in_file(parent))?;
    let real_parent = real(folder_of(parent))?.join(file);
    let name = if parent.is_absolute() && !real_parent.starts_with(&folder) {
        parent.to_path_buf()
    } else {
        relative(&real_parent, &folder)
    };
    name.into_os_string().into_string().map_err(|_| {
        Error::invalid("its name is not UTF-8, so no image can record it").in_file(parent)
    })
}

/// Returns `path` as seen from `folder`; both absolute and canonical.
fn relative(path: &Path, folder: &Path) -> PathBuf {
    let n_common = path
        .components()
        .zip(folder.components())
        .take_while(|(a, b)| a == b)
        .count();
    let ups = folder
        .components()
        .skip(n_common)
        .map(|_| Component::ParentDir);
    ups.chain(path.components().skip(n_common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_relative_to_the_folder_of_the_overlay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("vm/sub")).unwrap();
        for name in ["vm/base", "vm/sub/base"] {
            std::fs::write(at(name), b"").unwrap();
        }
        let name = |parent: &str, overlay: &str| recorded_name(&at(parent), &at(overlay)).unwrap();
        assert_eq!(name("vm/base", "vm/new"), "base");
        assert_eq!(name("vm/sub/base", "vm/new"), "sub/base");
        assert_eq!(
            name("vm/base", "vm/sub/new"),
            at("vm/base").to_str().unwrap()
        );
        let (base, sub) = (Path::new("/a/b/base"), Path::new("/a/c/d"));
        assert_eq!(relative(base, sub), Path::new("../../b/base"));
    }
}
