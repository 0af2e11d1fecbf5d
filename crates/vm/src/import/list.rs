//! What a source offers, for people to choose from.

use std::path::Path;

use hako_block::Result;
use hako_formats::OpenOptions;
use hako_formats::machine::Machine;
use hako_formats::ovf::{Capacity, Choices, DeploymentOption, Envelope, Network, Product, System};

use super::bare;
use super::incoming::Text;
use super::package::Package;
use crate::Vm;

/// What a source offers.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// What it is: "package", "vmx" or "disk".
    pub kind: &'static str,
    /// Its machines.
    pub systems: Vec<ListedSystem>,
    /// The networks that a package's machines are plugged into.
    pub networks: Vec<Network>,
    /// The sizes that a package offers.
    pub deployment_options: Vec<DeploymentOption>,
    /// A package's disks.
    pub disks: Vec<ListedDisk>,
    /// Licences that hold for all of a package.
    pub licenses: Vec<String>,
    /// Software that all of a package is.
    pub products: Vec<Product>,
    /// Whether there is a manifest; its digests are compared at the import.
    pub has_manifest: bool,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// A machine that a source offers.
#[derive(Debug, Clone)]
pub struct ListedSystem {
    /// What `--system` calls it.
    pub id: String,
    /// Its parts, as they are where nobody chooses.
    pub machine: Machine,
    /// The software in it, with what one may set.
    pub products: Vec<Product>,
    /// Its licences.
    pub licenses: Vec<String>,
}

/// A disk of a package.
#[derive(Debug, Clone)]
pub struct ListedDisk {
    /// Its id.
    pub id: String,
    /// Its virtual size in bytes; `None` where a property says it.
    pub capacity_bytes: Option<u64>,
    /// Its file; `None` for an empty disk.
    pub file: Option<String>,
    /// How many bytes that has, if the package says so.
    pub file_bytes: Option<u64>,
}

impl Listing {
    pub(super) fn of_package(package: &Package) -> Self {
        let envelope = &package.envelope;
        let mut warnings = package.warnings.clone();
        let systems = envelope
            .systems
            .iter()
            .map(|system| listed(envelope, system, &mut warnings))
            .collect();
        let disks = envelope.disks.iter().map(|disk| ListedDisk {
            id: disk.id.clone(),
            capacity_bytes: match disk.capacity {
                Capacity::Bytes(bytes) => Some(bytes),
                Capacity::Property { .. } => None,
            },
            file: disk.file.as_ref().map(|file| file.href.clone()),
            file_bytes: disk.file.as_ref().and_then(|file| file.size),
        });
        Self {
            kind: "package",
            systems,
            networks: envelope.networks.clone(),
            deployment_options: envelope.deployment_options.clone(),
            disks: disks.collect(),
            licenses: envelope.licenses.clone(),
            products: envelope.products.clone(),
            has_manifest: package.has_manifest(),
            warnings,
        }
    }

    pub(super) fn of_vmx(path: &Path, open: &OpenOptions) -> Result<Self> {
        let vm = Vm::at(path, &open.rules.allow_paths)?;
        let warnings = vm.vmx.oddities().to_vec();
        Ok(Self::of_machine("vmx", vm.vmx.machine(), warnings))
    }

    pub(super) fn of_disk(path: &Path, guest_os: Option<&str>, open: &OpenOptions) -> Result<Self> {
        let incoming = bare::incoming(path, guest_os, open)?;
        let machine = match incoming.text {
            Text::Machine(machine) => *machine,
            Text::Vmx(vmx) => vmx.machine(),
        };
        Ok(Self::of_machine("disk", machine, incoming.warnings))
    }

    fn of_machine(kind: &'static str, machine: Machine, warnings: Vec<String>) -> Self {
        let system = ListedSystem {
            id: machine.name.clone(),
            machine,
            products: Vec::new(),
            licenses: Vec::new(),
        };
        Self {
            kind,
            systems: vec![system],
            warnings,
            ..Self::default()
        }
    }
}

fn listed(envelope: &Envelope, system: &System, warnings: &mut Vec<String>) -> ListedSystem {
    let machine = match system.machine(envelope, &Choices::default()) {
        Ok((machine, lost)) => {
            let lost = lost.into_iter();
            warnings
                .extend(lost.map(|what| format!("{}: would not be taken over: {what}", system.id)));
            machine
        }
        Err(error) => {
            warnings.push(format!("{}: {error}", system.id));
            Machine {
                name: system.name.clone(),
                ..Machine::default()
            }
        }
    };
    ListedSystem {
        id: system.id.clone(),
        machine,
        products: system.products.clone(),
        licenses: system.licenses.clone(),
    }
}
