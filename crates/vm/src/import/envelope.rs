//! A machine out of a package.

use hako_block::{Error, Result};
use hako_formats::machine::{Machine, Medium, Network};
use hako_formats::ovf::{Capacity, Choices, Disk, Envelope, FileCompression, System};
use hako_formats::{OpenOptions, detect, open_chain_of};
use std::path::Path;
use std::sync::Arc;

use super::incoming::{Content, Incoming, NewDisk, NewFile, Text, UsedBy};
use super::package::Package;
use crate::guest::{DEFAULT_GUEST_OS, guest_defaults};

/// What the user chose of what a package offers.
#[derive(Debug, Clone, Default)]
pub struct PackageChoices {
    /// The machine, by its id in the package; needed if there are several.
    pub system: Option<String>,
    /// Deployment option and values of properties.
    pub ovf: Choices,
    /// Whether the user agrees to the licences.
    pub accept_eula: bool,
    /// Networks by their names in the package, and what is meant by each.
    pub networks: Vec<(String, Network)>,
}

/// Finds out what is to be written.
pub(super) fn incoming(mut package: Package, choices: &PackageChoices) -> Result<Incoming> {
    let envelope = package.envelope.clone();
    let (system, machine, lost) = chosen(&envelope, choices)?;
    let mut incoming = Incoming {
        text: Text::Machine(Box::default()),
        disks: Vec::new(),
        left_out: Vec::new(),
        files: Vec::new(),
        warnings: lost
            .into_iter()
            .map(|what| format!("not taken over: {what}"))
            .collect(),
        is_verified: package.has_manifest(),
        held: None,
    };
    for drive in &machine.drives {
        match &drive.medium {
            Medium::Disk(medium) => {
                let disk = envelope.disk(&medium.file).ok_or_else(|| {
                    Error::corrupt(format!("{}", drive.node), "its disk is not described")
                })?;
                let capacity = envelope.capacity_bytes(disk, system, &choices.ovf)?;
                let (content, checks) = content(&mut package, disk, capacity)?;
                incoming.disks.push(NewDisk {
                    node: drive.node,
                    content,
                    capacity: Some(capacity),
                    checks,
                    shape: None,
                });
            }
            Medium::CdImage { file } => {
                let file = envelope.file(file).ok_or_else(|| {
                    Error::corrupt(format!("{}", drive.node), "its image is not listed")
                })?;
                let stored = package.open(file)?;
                if stored.is_packed {
                    return Err(Error::unsupported("is a CD image packed with gzip")
                        .in_file(&file.href)
                        .hint("unpack it, and take the compression out of the .ovf"));
                }
                incoming.files.push(NewFile {
                    name: last_part(&stored.opened.name),
                    opened: stored.opened,
                    checks: stored.checks,
                    used_by: UsedBy::Drive(drive.node),
                });
            }
            _ => {}
        }
    }
    if let Some(file) = system.nvram(&envelope) {
        let stored = package.open(file)?;
        if stored.is_packed {
            incoming
                .warnings
                .push(format!("{} is packed: not taken over", file.href));
        } else {
            incoming.files.push(NewFile {
                name: last_part(&stored.opened.name),
                opened: stored.opened,
                checks: stored.checks,
                used_by: UsedBy::Key("nvram".to_owned()),
            });
        }
    }
    incoming.text = Text::Machine(Box::new(machine));
    incoming.warnings.append(&mut package.warnings);
    Ok(incoming)
}

/// Returns the machine that is meant, its parts as they are chosen, and what of it gets lost.
fn chosen<'a>(
    envelope: &'a Envelope,
    choices: &PackageChoices,
) -> Result<(&'a System, Machine, Vec<String>)> {
    let system = choose_system(envelope, choices.system.as_deref())?;
    refuse_unread_licences(envelope, system, choices.accept_eula)?;
    refuse_unknown_properties(envelope, system, &choices.ovf)?;
    let (mut machine, lost) = system.machine(envelope, &choices.ovf)?;
    complete(&mut machine);
    connect(&mut machine, &choices.networks)?;
    Ok((system, machine, lost))
}

/// A disk that may be written when it comes.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Its place among the machine's disks.
    pub(super) index: usize,
    /// Its file, as the description names it.
    pub(super) href: String,
    /// How many bytes that has, if the description says so.
    pub(super) size: Option<u64>,
    /// Its virtual size in bytes.
    pub(super) capacity: u64,
}

/// Returns the name of the machine that is meant, and those of its disks whose files are theirs
/// alone, not packed and not in pieces.
pub(super) fn expected(
    envelope: &Envelope,
    choices: &PackageChoices,
) -> Result<(String, Vec<Expected>)> {
    let (system, machine, _) = chosen(envelope, choices)?;
    let mut all = Vec::new();
    for (index, (_, medium)) in machine.disks().enumerate() {
        let Some(disk) = envelope.disk(&medium.file) else {
            continue;
        };
        let Some(file) = disk.file.as_ref().filter(|_| disk.parent.is_none()) else {
            continue;
        };
        all.push((
            Expected {
                index,
                href: file.href.clone(),
                size: file.size,
                capacity: envelope.capacity_bytes(disk, system, &choices.ovf)?,
            },
            file.compression == FileCompression::None && file.chunk_bytes.is_none(),
        ));
    }
    let is_alone = |href: &str| all.iter().filter(|(other, _)| other.href == href).count() == 1;
    let fit = all
        .iter()
        .filter(|(one, is_plain)| *is_plain && is_alone(&one.href));
    Ok((
        machine.name.clone(),
        fit.map(|(one, _)| one.clone()).collect(),
    ))
}

/// Returns the machine that is meant.
pub(super) fn choose_system<'a>(envelope: &'a Envelope, id: Option<&str>) -> Result<&'a System> {
    let all = &envelope.systems;
    let found = match id {
        Some(id) => all.iter().find(|system| system.id == id),
        None if all.len() == 1 => all.first(),
        None => None,
    };
    found.ok_or_else(|| {
        let ids: Vec<_> = all.iter().map(|system| system.id.as_str()).collect();
        let error = match id {
            Some(id) => Error::invalid(format!("the package has no machine {id:?}")),
            None => Error::invalid(format!("the package has {} machines", all.len())),
        };
        error.hint(format!("say which: --system {}", ids.join(", --system ")))
    })
}

fn refuse_unread_licences(envelope: &Envelope, system: &System, accepted: bool) -> Result<()> {
    if accepted || (envelope.licenses.is_empty() && system.licenses.is_empty()) {
        return Ok(());
    }
    Err(
        Error::invalid("comes with a licence that has to be accepted")
            .hint("read it with --list; if you agree, add --accept-eula"),
    )
}

fn refuse_unknown_properties(
    envelope: &Envelope,
    system: &System,
    choices: &Choices,
) -> Result<()> {
    let products = system.products.iter().chain(&envelope.products);
    let declared: Vec<_> = products.flat_map(|product| &product.properties).collect();
    // A disk may be as large as a property says that is declared nowhere.
    let is_asked_for = |wanted: &str| {
        let mut capacities = envelope.disks.iter().map(|disk| &disk.capacity);
        capacities
            .any(|capacity| matches!(capacity, Capacity::Property { key, .. } if key == wanted))
    };
    let is_known = |key: &str| {
        let mut all = declared.iter();
        all.any(|property| property.key == key || property.full_key == key) || is_asked_for(key)
    };
    match choices.properties.keys().find(|key| !is_known(key)) {
        None => Ok(()),
        Some(key) => {
            let keys: Vec<_> = declared.iter().map(|one| one.full_key.as_str()).collect();
            Err(Error::invalid(format!("has no property {key:?}"))
                .hint(format!("the properties are: {}", keys.join(", "))))
        }
    }
}

/// Fills in what a package need not say and a machine needs.
fn complete(machine: &mut Machine) {
    let guest = machine
        .guest_os
        .get_or_insert_with(|| DEFAULT_GUEST_OS.to_owned());
    if machine.memory_bytes == 0 {
        machine.memory_bytes = guest_defaults(guest).memory_bytes;
    }
    // No product starts a machine with another amount.
    let bytes = machine.memory_bytes.checked_next_multiple_of(4 << 20);
    machine.memory_bytes = bytes.unwrap_or(machine.memory_bytes);
}

/// Plugs network cards into what the user wants. Errors: a name that no card has.
fn connect(machine: &mut Machine, networks: &[(String, Network)]) -> Result<()> {
    for (from, to) in networks {
        let mut is_found = false;
        for nic in &mut machine.nics {
            if name_of(&nic.network).eq_ignore_ascii_case(from) {
                nic.network = to.clone();
                is_found = true;
            }
        }
        if !is_found {
            let names = machine.nics.iter().map(|nic| name_of(&nic.network));
            let names: Vec<_> = names.collect();
            return Err(
                Error::invalid(format!("no network card is in a network {from:?}"))
                    .hint(format!("the networks are: {}", names.join(", "))),
            );
        }
    }
    Ok(())
}

/// Returns what a package calls a network.
fn name_of(network: &Network) -> &str {
    match network {
        Network::PortGroup(name) | Network::Custom(name) => name,
        Network::Bridged => "bridged",
        Network::Nat => "nat",
        Network::HostOnly => "hostonly",
    }
}

/// Opens the content of a disk.
fn content(
    package: &mut Package,
    disk: &Disk,
    capacity: u64,
) -> Result<(Content, Vec<super::package::Check>)> {
    if disk.parent.is_some() {
        return Err(Error::unsupported(format!(
            "disk {:?} is a difference to another one (parentRef)",
            disk.id
        )));
    }
    let Some(file) = &disk.file else {
        return Ok((Content::Empty(capacity), Vec::new()));
    };
    let stored = package.open(file)?;
    if let Some(arrived) = stored.arrived {
        return Ok((Content::Arrived(arrived), Vec::new()));
    }
    if stored.is_packed {
        let content = Content::Packed {
            opened: stored.opened,
            size: stored.size,
            capacity,
        };
        return Ok((content, stored.checks));
    }
    Ok((open(stored.opened)?, stored.checks))
}

/// Opens an image of a package. It is raw only if it is named so.
pub(crate) fn open(opened: hako_block::Opened) -> Result<Content> {
    let format = detect(&*opened.storage, Path::new(&opened.name))?;
    let chain = open_chain_of(format, opened, &OpenOptions::default())?;
    Ok(Content::Image(Arc::new(chain.chain)))
}

fn last_part(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}
