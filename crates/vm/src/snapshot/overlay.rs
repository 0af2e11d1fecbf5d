//! New overlays for a machine's disks: which form they have, and what they are called.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hako_block::gate::file_names;
use hako_block::{Error, Result};
use hako_disk::CreateRequest;
use hako_formats::machine::Node;
use hako_formats::vmx::Vmx;
use hako_formats::{OpenedChain, Task, open_chain};

use super::name::ImageName;
use crate::Vm;
use crate::copy::Shape;
use crate::overlay::overlay_on;

/// The highest number in a name.
const MAX_NUMBER: u32 = 999_999;
/// VMware's products run no disk with more overlays.
const MAX_OVERLAYS: usize = 255;
/// VMware advises against more.
const ADVISED_OVERLAYS: usize = 32;

/// An overlay that is to be made.
pub(crate) struct NewOverlay {
    /// Where the disk is.
    pub node: Node,
    /// The overlay, in the machine's folder.
    pub image: ImageName,
    /// What it stands on.
    pub parent: ImageName,
    parent_path: PathBuf,
    shape: Shape,
}

impl NewOverlay {
    /// Plans an overlay on each of these images, and returns what the user should know. The images
    /// are opened as whoever runs the machine would. Errors: a chain that cannot be opened, and one
    /// that is too long.
    pub(crate) fn plan(
        vm: &Vm,
        parents: Vec<(Node, ImageName)>,
    ) -> Result<(Vec<NewOverlay>, Vec<String>)> {
        let mut names = Names::of(vm)?;
        let mut warnings = Vec::new();
        let mut found = Vec::new();
        for (node, parent) in parents {
            let opened = open(vm, &parent).map_err(|error| error.place(node.to_string()))?;
            warnings.extend(check_length(&opened, node)?);
            let top = &opened.layers[0];
            let main = PathBuf::from(top.args.storage.name());
            let shape = overlay_on(top).map_err(|error| error.in_file(&main))?;
            found.push((node, parent, main, shape));
        }
        let bases: Vec<String> = found.iter().map(|(_, _, main, _)| base_of(main)).collect();
        let number = names.common(&bases)?;
        let mut overlays = Vec::new();
        for ((node, parent, parent_path, shape), base) in found.into_iter().zip(bases) {
            let number = names.take(&base, number)?;
            let extensions = shape.format.extensions();
            let extension = extensions.first().copied().unwrap_or("img");
            overlays.push(NewOverlay {
                node,
                image: ImageName {
                    file: format!("{base}-{number:06}.{extension}"),
                    format: shape.format.name().to_owned(),
                },
                parent,
                parent_path,
                shape,
            });
        }
        Ok((overlays, warnings))
    }

    /// Makes a text name it for its disk.
    pub(crate) fn name_in(&self, vmx: &mut Vmx) -> Result<()> {
        self.image.name_in(vmx, self.node)
    }

    /// Makes it, with nothing in it.
    pub(crate) fn make(&self, vm: &Vm, task: Task<'_>) -> Result<()> {
        let mut rules = vm.rules(false);
        rules.allow_paths.push(vm.folder().to_path_buf());
        let request = CreateRequest {
            path: vm.folder().join(&self.image.file),
            to: self.shape.format,
            virtual_size: None,
            create: self.shape.create.clone(),
            parent: Some(self.parent_path.clone()),
            parent_from: Some(self.parent.format.clone()),
            rules,
            force: false,
        };
        hako_disk::create(request, task.progress, task.cancel).map(drop)
    }
}

fn open(vm: &Vm, image: &ImageName) -> Result<OpenedChain> {
    let subject = image.subject(vm)?;
    open_chain(&subject.path, &subject.open)
}

fn check_length(opened: &OpenedChain, node: Node) -> Result<Option<String>> {
    // With the new one; the base is none.
    let n_overlays = opened.layers.len();
    if n_overlays > MAX_OVERLAYS {
        let what = format!("{node} has {} overlays already", n_overlays - 1);
        return Err(Error::unsupported(what).hint(format!(
            "no product runs more than {MAX_OVERLAYS}: delete snapshots first"
        )));
    }
    Ok((n_overlays > ADVISED_OVERLAYS).then(|| {
        format!(
            "{node} has {n_overlays} overlays now; VMware advises at most {ADVISED_OVERLAYS}, \
             for each makes it slower"
        )
    }))
}

/// Returns what names of a disk's overlays begin with: its own name without extension and number.
fn base_of(main: &Path) -> String {
    let stem = main.file_stem().unwrap_or_default().to_string_lossy();
    match numbered(&stem) {
        Some((base, _)) => base.to_owned(),
        None => stem.into_owned(),
    }
}

/// Splits `web-000001` at the number.
pub(crate) fn numbered(stem: &str) -> Option<(&str, u32)> {
    let (base, number) = stem.rsplit_once('-')?;
    let is_number = number.len() == 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !base.is_empty()).then(|| number.parse().ok().map(|number| (base, number)))?
}

/// Which names for overlays are taken: by files, and by what the texts name, be it there or not.
struct Names(BTreeSet<(String, u32)>);

impl Names {
    fn of(vm: &Vm) -> Result<Self> {
        let files = file_names(vm.folder())?.into_iter();
        let files = files.map(|name| name.to_string_lossy().into_owned());
        let named = vm.all_disks()?.into_iter().map(|disk| disk.file);
        let taken = files.chain(named).filter_map(|name| {
            let name = Path::new(&name).file_name()?.to_str()?;
            taken_by(name).map(|(base, number)| (base.to_owned(), number))
        });
        Ok(Self(taken.collect()))
    }

    /// Returns the lowest number that is free for every one of these, so that the overlays of one
    /// snapshot have the same.
    fn common(&self, bases: &[String]) -> Result<u32> {
        let is_free = |number: &u32| {
            let mut keys = bases.iter().map(|base| (base.clone(), *number));
            keys.all(|key| !self.0.contains(&key))
        };
        (1..=MAX_NUMBER).find(is_free).ok_or_else(no_name)
    }

    /// Takes the lowest number from `number` on that is free.
    fn take(&mut self, base: &str, number: u32) -> Result<u32> {
        let mut numbers = number..=MAX_NUMBER;
        let free = numbers.find(|number| self.0.insert((base.to_owned(), *number)));
        free.ok_or_else(no_name)
    }
}

/// Returns the base and number that a file's name takes: `web-000001.vmdk`, and its extent files
/// `web-000001-s001.vmdk`.
fn taken_by(name: &str) -> Option<(&str, u32)> {
    let (stem, _) = name.rsplit_once('.')?;
    numbered(stem).or_else(|| numbered(stem.rsplit_once('-')?.0))
}

fn no_name() -> Error {
    Error::invalid("no name is left for a new overlay")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlays_are_called_by_their_base_with_the_next_free_number() {
        for (main, base) in [
            ("/vms/web.vmdk", "web"),
            ("web-000012.vmdk", "web"),
            ("web-12.vmdk", "web-12"),
            ("web-0000012.vmdk", "web-0000012"),
            ("-000001.vmdk", "-000001"),
            ("a.b-000001.c.raw", "a.b-000001.c"),
        ] {
            assert_eq!(base_of(Path::new(main)), base, "{main}");
        }
        let files = [
            "web.vmdk",
            "web-000001.vmdk",
            "web-000002-s003.vmdk",
            "data-000003.qcow2",
            "web-000005.vmdk",
        ];
        let taken = files.iter().filter_map(|name| taken_by(name));
        let mut names = Names(taken.map(|(base, n)| (base.to_owned(), n)).collect());
        let bases = ["web", "data", "web"].map(str::to_owned);
        assert_eq!(names.common(&bases[..1]).unwrap(), 3);
        let number = names.common(&bases).unwrap();
        let taken = bases.map(|base| names.take(&base, number).unwrap());
        assert_eq!(taken, [4, 4, 6]);
    }
}
