//! The machines of the inventory, at a glance; taking one in and out.

use std::path::{Path, PathBuf};

use hako_block::{Error, ErrorKind, Result};
use hako_formats::machine::Machine;

use crate::check::check_name;
use crate::files::the_one;
use crate::vm::{absolute, find_entry};
use crate::{Entry, Home, Inventory, State, Vm};

/// A machine of the inventory.
pub struct Listed {
    /// Its name; of one that cannot be read that of its .vmx.
    pub name: String,
    /// Its .vmx.
    pub vmx: PathBuf,
    /// What it is made of and does. Errors: [`ErrorKind::VmNotFound`] for one that is missing.
    pub machine: Result<(Machine, State)>,
}

/// Returns the machines of the inventory, by name.
pub fn list(home: &Home) -> Result<Vec<Listed>> {
    let entries = Inventory::read(home)?.entries;
    let mut machines: Vec<Listed> = entries.iter().map(look).collect();
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(machines)
}

fn look(entry: &Entry) -> Listed {
    let path = entry.current();
    match Vm::at(&path, &entry.allow) {
        Ok(vm) => Listed {
            name: vm.name(),
            vmx: path,
            machine: Ok((vm.vmx.machine(), vm.state())),
        },
        Err(error) => Listed {
            name: entry.name(),
            vmx: path,
            machine: Err(error),
        },
    }
}

/// Lists a machine in the inventory: that of a .vmx, or the only one in a folder. With `name` it
/// gets another display name; what it may name beyond its folder is in `allow`. Returns it.
pub fn register(home: &Home, path: &Path, name: Option<&str>, allow: &[PathBuf]) -> Result<Vm> {
    let path = absolute(&vmx_in(path)?)?;
    let mut vm = Vm::at(&path, allow)?;
    let allow = allow
        .iter()
        .map(|path| {
            std::fs::canonicalize(path).map_err(|error| Error::io("open", error).in_file(path))
        })
        .collect::<Result<Vec<_>>>()?;
    let called = name.map_or_else(|| vm.name(), str::to_owned);
    Inventory::change(home, |inventory| {
        inventory
            .refuse_taken(&called, &path)
            .map_err(|error| error.hint("give it another display name: --name NAME"))?;
        if let Some(name) = name {
            check_name(name)?;
            let _held = vm.hold()?;
            vm.vmx.set("displayName", name)?;
            vm.save()?;
        }
        inventory.entries.retain(|entry| entry.vmx != path);
        let base = vm.base_in(inventory);
        inventory.entries.push(Entry {
            vmx: path.clone(),
            allow,
            base,
            to: None,
        });
        Ok(())
    })?;
    Ok(vm)
}

/// Takes a machine out of the inventory, by its name or the path of its .vmx, which may be gone;
/// no file is touched. Returns what was known of it.
pub fn unregister(home: &Home, what: &Path) -> Result<Entry> {
    Inventory::change(home, |inventory| {
        let entry = find_entry(inventory, what)?.clone();
        inventory.entries.retain(|other| other.vmx != entry.vmx);
        Ok(entry)
    })
}

/// Returns the .vmx that the user means: the path itself, or the only one in that folder.
pub fn vmx_in(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    the_one(path, "vmx")?
        .ok_or_else(|| Error::new(ErrorKind::VmNotFound, "holds no .vmx").in_file(path))
}
