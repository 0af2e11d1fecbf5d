//! What is on the disks of a machine, and what its hardware asks of its guest's kernel.

use std::sync::Arc;

use hako_block::{BlockImage, Error, ErrorKind, Result};
use hako_formats::machine::{Bus, Machine, Medium};
use hako_guest::boot::Menu;
use hako_guest::direct::{DirectBoot, Request};
use hako_guest::drivers::Hardware;
use hako_guest::root::{Installation, Root, installation_of, installations};
use hako_guest::{Disk, Keys, Volume, Volumes};

use crate::{Held, State, Vm};

/// Bytes of a sector of a machine's disks.
const SECTOR_BYTES: u32 = 512;

/// A look into the disks of a machine that is off. It stays off as long as this lives.
pub struct Inside {
    /// What is on its disks.
    pub volumes: Volumes,
    /// Disks that could not be opened, and why.
    pub remarks: Vec<String>,
    _held: Held,
}

/// A guest's system and what boots it.
pub struct Guest {
    /// The systems that are installed.
    pub installations: Vec<Installation>,
    /// The one that boots if nobody chooses, with all that it mounts; none if none is Linux.
    pub root: Option<Root>,
    /// What the boot loaders offer.
    pub menu: Menu,
}

impl Vm {
    /// Looks into its disks; `keys` open what is encrypted, and a key that opens nothing is an error
    /// ([`ErrorKind::WrongKey`]). Errors: [`ErrorKind::Locked`] if it runs or is suspended: its files are
    /// not what is on its disks then.
    pub fn look_inside(&self, keys: &Keys) -> Result<Inside> {
        let refuse = |what: String| {
            let error = Error::new(ErrorKind::Locked, what).in_file(self.path());
            Err(error.hint("shut it down first"))
        };
        let held = Held::reading(self.folder()).map_err(|error| error.in_file(self.path()))?;
        match self.state_apart_from_us() {
            State::Stopped => (),
            State::Running { by } => return refuse(format!("runs: {by}")),
            State::Suspended { file } => return refuse(format!("is suspended ({file})")),
        }
        let (volumes, remarks) = self.volumes(keys)?;
        Ok(Inside {
            volumes,
            remarks,
            _held: held,
        })
    }

    /// Returns what is on its disks, and which of them could not be opened. Whoever calls holds the
    /// machine. Errors: that of the first disk if none can be opened.
    pub fn volumes(&self, keys: &Keys) -> Result<(Volumes, Vec<String>)> {
        let mut disks: Vec<Arc<dyn Volume>> = Vec::new();
        let mut failed = Vec::new();
        for (node, disk) in self.vmx.machine().disks() {
            match self.look_at(disk) {
                Ok(opened) => disks.push(volume_of(Arc::new(opened.chain))),
                Err(error) => failed.push((node, error)),
            }
        }
        let remarks = failed
            .iter()
            .map(|(node, error)| format!("{node}: {error}"));
        let remarks = remarks.collect();
        match failed.into_iter().next() {
            Some((_, error)) if disks.is_empty() => Err(error),
            _ => Ok((Volumes::opened(disks, keys.clone())?, remarks)),
        }
    }

    /// Says how to boot one of its guest's entries without firmware: the one at this place of the
    /// menu, else the default. Whoever calls holds the machine. Errors: as of [`DirectBoot::plan`].
    pub fn plan_direct_boot(&self, request: &Request<'_>) -> Result<DirectBoot> {
        let (volumes, remarks) = self.volumes(&Keys::default())?;
        let guest = Guest::of(&volumes, request.entry);
        let plan = guest
            .plan(request)
            .map_err(|error| error.in_file(self.path()));
        let mut plan = plan?;
        plan.messages.splice(..0, remarks);
        Ok(plan)
    }
}

impl Guest {
    /// Says how to boot the entry that the request is about without firmware; it is the one that
    /// this was made for. Errors: as of [`DirectBoot::plan`].
    pub fn plan(&self, request: &Request<'_>) -> Result<DirectBoot> {
        DirectBoot::plan(self.root.as_ref(), &self.menu, request)
    }

    /// Looks at the systems on some disks. The root is that of the entry at this place of the menu,
    /// else of the default one.
    pub fn of(volumes: &Volumes, entry: Option<usize>) -> Self {
        let installations = installations(volumes);
        let mount = |one: &Installation| Root::mount(volumes, one).ok();
        let first = installation_of(&installations, volumes, "");
        let mut root = first.and_then(mount);
        let menu = Menu::read(volumes, root.as_ref());
        let entry = match entry {
            Some(at) => menu.entries.get(at),
            None => menu.default_entry(),
        };
        let options = entry.map_or("", |entry| entry.options.as_str());
        let own = installation_of(&installations, volumes, options);
        if let (Some(own), Some(first)) = (own, first)
            && !std::ptr::eq(own, first)
        {
            root = mount(own);
        }
        Self {
            installations,
            root,
            menu,
        }
    }
}

/// Returns a disk as what partitions and file systems are looked for on.
pub(crate) fn volume_of(image: Arc<dyn BlockImage>) -> Arc<dyn Volume> {
    Arc::new(Disk::new(image, SECTOR_BYTES))
}

/// Returns the hardware of a machine that a Linux guest needs drivers for, each once.
pub fn hardware_of(machine: &Machine) -> Vec<Hardware> {
    let mut all = Vec::new();
    for drive in &machine.drives {
        let is_disk = matches!(drive.medium, Medium::Disk(_));
        let model = machine
            .controllers
            .iter()
            .find(|one| (one.bus, one.number) == (drive.node.bus, drive.node.controller))
            .and_then(|one| one.model.as_deref());
        match (drive.node.bus, model) {
            (Bus::Nvme, _) => all.push(Hardware::Nvme),
            (Bus::Ide, _) => all.push(Hardware::AtaPiix),
            (Bus::Sata, _) => all.push(Hardware::Ahci),
            (Bus::Scsi, Some("pvscsi")) => all.push(Hardware::Pvscsi),
            (Bus::Scsi, Some("lsisas1068")) => all.push(Hardware::Mptsas),
            (Bus::Scsi, Some("lsilogic") | None) => all.push(Hardware::Mptspi),
            (Bus::Scsi, Some(_)) => (),
        }
        match drive.node.bus {
            Bus::Nvme => (),
            _ if is_disk => all.push(Hardware::SdMod),
            _ => all.push(Hardware::SrMod),
        }
    }
    for nic in &machine.nics {
        match nic.model.as_deref() {
            Some("vmxnet3") => all.push(Hardware::Vmxnet3),
            Some("e1000") => all.push(Hardware::E1000),
            Some("e1000e") => all.push(Hardware::E1000e),
            _ => (),
        }
    }
    all.sort();
    all.dedup();
    all
}
