//! GRUB 2: `grub.cfg`, the environment block beside it, and the entries that they make.

mod commands;
mod device;
mod environment;
mod parse;
mod run;
mod search;
mod test;

use super::files::Files;
use super::{Entry, Menu};
use run::Machine;

/// Where a configuration is in the installed system, the one that is used first.
const CONFIGS: &[&str] = &["/boot/grub2/grub.cfg", "/boot/grub/grub.cfg"];

/// Where one is on a partition for boot loaders, if the system cannot be told.
const ON_BOOT: &[&str] = &["/grub2/grub.cfg", "/grub/grub.cfg", "/boot/grub/grub.cfg"];

/// An item of a menu: an entry, or a submenu with what is in it.
pub(super) struct Item {
    title: String,
    id: String,
    kind: ItemKind,
}

pub(super) enum ItemKind {
    Entry(Box<Entry>),
    Submenu(Vec<Item>),
}

/// Reads GRUB's menu. Without a configuration it is empty.
pub(super) fn read(files: &Files<'_>) -> Menu {
    let Some((volume, path)) = config(files) else {
        return Menu::default();
    };
    let mut machine = Machine::new(files, volume, &path);
    let items = machine.menu(&path);
    let wanted = machine.value("default").to_owned();
    let mut menu = Menu {
        remarks: machine.remarks(),
        ..Menu::default()
    };
    let (place, reason) = default_of(&items, &wanted, &machine);
    let mut way = Vec::new();
    flatten(items, "", &mut way, &place, &mut menu);
    menu.reason = reason;
    menu
}

fn config<'v>(files: &Files<'v>) -> Option<(&'v crate::volumes::FoundVolume, String)> {
    // What is only a stub, which leads to the other one, is the shorter one.
    let found = CONFIGS.iter().filter_map(|path| files.place(path));
    let longest = found.max_by_key(|(volume, path)| {
        let file = files.find(volume, path);
        file.and_then(|file| file.stat().ok())
            .map_or(0, |stat| stat.len_bytes)
    });
    if longest.is_some() {
        return longest;
    }
    // A /boot or an EFI system partition without the system that it starts.
    let on_boot = files.boot_volumes().into_iter().find_map(|volume| {
        let is_there = |path: &&&str| files.find(volume, path).is_some();
        let path = ON_BOOT.iter().find(is_there)?;
        Some((volume, (*path).to_owned()))
    });
    on_boot.or_else(|| on_esp(files))
}

/// Returns the configuration in a vendor's folder of an EFI system partition.
fn on_esp<'v>(files: &Files<'v>) -> Option<(&'v crate::volumes::FoundVolume, String)> {
    files.boot_volumes().into_iter().find_map(|volume| {
        let vendors = files.names(volume, "/EFI").into_iter();
        let mut paths = vendors.map(|vendor| format!("/EFI/{vendor}/grub.cfg"));
        let path = paths.find(|path| files.find(volume, path).is_some())?;
        Some((volume, path))
    })
}

/// Finds the item that the variable `default` means: by number, identity or title, `>` leading into
/// submenus. Returns the way to it, and why it is it.
fn default_of(items: &[Item], wanted: &str, machine: &Machine<'_>) -> (Vec<usize>, String) {
    let mut way = Vec::new();
    let mut reason = match wanted {
        "" => "the first one: nothing says otherwise".to_owned(),
        wanted if machine.value("next_entry_taken") == wanted => {
            format!("next_entry={wanted} in grubenv, once")
        }
        wanted if machine.value("saved_entry") == wanted => {
            format!("saved_entry={wanted} in grubenv")
        }
        wanted => format!("default={wanted}"),
    };
    let mut here = items;
    let mut steps = wanted.split('>').take(run::DEEPEST_MENU);
    loop {
        let step = steps.next().filter(|step| !step.is_empty());
        let found = match step {
            Some(step) => here
                .iter()
                .position(|item| item.id == step || item.title == step)
                .or_else(|| step.trim().parse().ok().filter(|at| *at < here.len())),
            None => Some(0),
        };
        if found.is_none() {
            reason = format!("the first one: {wanted:?}, the default, is no entry");
        }
        let at = found.unwrap_or(0);
        way.push(at);
        match here.get(at).map(|item| &item.kind) {
            Some(ItemKind::Submenu(inner)) if !inner.is_empty() => here = inner,
            _ => return (way, reason),
        }
    }
}

fn flatten(
    items: Vec<Item>,
    above: &str,
    way: &mut Vec<usize>,
    default: &[usize],
    menu: &mut Menu,
) {
    for (at, item) in items.into_iter().enumerate() {
        way.push(at);
        let title = match above {
            "" => item.title,
            above => format!("{above} > {}", item.title),
        };
        match item.kind {
            ItemKind::Entry(mut entry) => {
                if way == default {
                    menu.default = Some(menu.entries.len());
                }
                entry.title = title;
                menu.entries.push(*entry);
            }
            ItemKind::Submenu(inner) => flatten(inner, &title, way, default, menu),
        }
        way.pop();
    }
}
