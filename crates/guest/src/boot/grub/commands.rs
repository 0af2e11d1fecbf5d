//! The commands that matter: those that set variables, find volumes, add entries and say what is
//! loaded. Others are taken for done.

use super::super::files::Blob;
use super::super::{Loader, bls};
use super::environment;
use super::parse::{List, parse};
use super::run::{Machine, Pending};
use super::search::{probe, search};
use super::test::{self, test};
use crate::fs::NodeKind;

/// Runs a command, and returns whether it succeeds.
pub(super) fn run(
    machine: &mut Machine<'_>,
    name: &str,
    words: Vec<String>,
    block: Option<&List>,
) -> bool {
    match name {
        "set" => assign(machine, &words),
        "unset" => words.iter().for_each(|name| machine.unset(name)),
        "export" => {
            assign(machine, &words);
            for word in &words {
                let name = word.split('=').next().unwrap_or_default();
                machine.export(name);
            }
        }
        "[" => {
            let words = words.strip_suffix(&["]".to_owned()]).unwrap_or(&words);
            return test(words, &*machine);
        }
        "test" => return test(&words, &*machine),
        "false" | "cmostest" | "keystatus" | "smbios" | "regexp" | "background_image"
        | "cryptomount" | "loopback" => return false,
        "menuentry" | "submenu" => add_item(machine, words, block, name == "submenu"),
        "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => {
            let search = search(machine.files, name, &words);
            let is_found = search.device.is_some();
            if let (Some(variable), Some(device)) = (search.variable, search.device) {
                machine.set(&variable, &device);
            }
            return is_found;
        }
        "probe" => match probe(machine.files, &words) {
            Some((variable, value)) => machine.set(&variable, &value),
            None => return false,
        },
        "load_env" => return load_env(machine, &words),
        "increment" => count(machine, &words, 1),
        "decrement" => count(machine, &words, -1),
        "configfile" | "source" | "." | "extract_entries_source" => {
            return words.first().is_some_and(|path| machine.run_file(path));
        }
        "normal" => {
            let prefix = format!("{}/grub.cfg", machine.value("prefix"));
            return machine.run_file(words.first().unwrap_or(&prefix));
        }
        "eval" => {
            let (list, _) = parse(&words.join(" "));
            return machine.run(&list);
        }
        "blscfg" => bls_entries(machine),
        "linux" | "linux16" | "linuxefi" => return load_kernel(machine, &words),
        "initrd" | "initrd16" | "initrdefi" => return load_initrds(machine, &words),
        "chainloader" | "multiboot" | "multiboot2" | "xen_hypervisor" | "kfreebsd" | "knetbsd"
        | "kopenbsd" | "ntldr" | "fwsetup" | "reboot" | "halt" | "exit" => {
            let what = format!("it starts something else: {name} {}", words.join(" "));
            machine.loaded.trouble = Some(what.trim_end().to_owned());
        }
        // `name=value` is `set`.
        _ if words.is_empty() && name.contains('=') => assign(machine, &[name.to_owned()]),
        _ => (),
    }
    true
}

fn assign(machine: &mut Machine<'_>, words: &[String]) {
    for word in words {
        if let Some((name, value)) = word.split_once('=') {
            machine.set(name, value);
        }
    }
}

fn count(machine: &mut Machine<'_>, words: &[String], by: i64) {
    if let Some(name) = words.first() {
        let value = machine.value(name).parse::<i64>().unwrap_or(0);
        machine.set(name, &value.saturating_add(by).to_string());
    }
}

fn add_item(machine: &mut Machine<'_>, words: Vec<String>, block: Option<&List>, is_submenu: bool) {
    let mut title = None;
    let mut id = String::new();
    let mut arguments = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--id" => id = words.next().unwrap_or_default(),
            "--class" | "--users" | "--hotkey" | "--source" => drop(words.next()),
            "--unrestricted" => (),
            option if option.starts_with("--") && title.is_some() => {
                if let Some(value) = option.strip_prefix("--id=") {
                    value.clone_into(&mut id);
                }
            }
            _ if title.is_none() => title = Some(word),
            _ => arguments.push(word),
        }
    }
    let (Some(title), Some(block)) = (title, block) else {
        return;
    };
    // What follows `$menuentry_id_option` where that is not set.
    arguments.insert(0, title.clone());
    let source = machine.source().to_owned();
    machine.add(Pending::Block {
        title,
        id,
        arguments,
        block: block.clone(),
        is_submenu,
        source,
    });
}

fn load_env(machine: &mut Machine<'_>, words: &[String]) -> bool {
    let mut path = format!("{}/grubenv", machine.value("prefix"));
    let mut wanted = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-f" | "--file" => path = words.next().cloned().unwrap_or_default(),
            word if word.starts_with("--file=") => path = word["--file=".len()..].to_owned(),
            word if word.starts_with('-') => (),
            word => wanted.push(word),
        }
    }
    let Some((volume, path)) = machine.locate(&path) else {
        return false;
    };
    let file = machine.files.find(volume, path);
    let block = file.and_then(|file| Blob::of(file).ok()?.read(environment::MOST_BYTES).ok());
    let Some(block) = block else { return false };
    for (name, value) in environment::parse(&block) {
        if wanted.is_empty() || wanted.contains(&name.as_str()) {
            machine.set(&name, &value);
            if name == "next_entry" && !value.is_empty() {
                machine.set("next_entry_taken", &value);
            }
        }
    }
    true
}

fn load_kernel(machine: &mut Machine<'_>, words: &[String]) -> bool {
    let Some((path, options)) = words.split_first() else {
        return false;
    };
    match image(machine, path) {
        Ok(kernel) => machine.loaded.kernel = Some(kernel),
        Err(trouble) => {
            machine.loaded.trouble = Some(trouble);
            return false;
        }
    }
    machine.loaded.options = options.join(" ");
    machine.loaded.initrds.clear();
    true
}

fn load_initrds(machine: &mut Machine<'_>, words: &[String]) -> bool {
    machine.loaded.initrds.clear();
    // `newc:NAME:FILE` puts a file into an archive that GRUB makes.
    for path in words.iter().filter(|word| !word.starts_with('-')) {
        if path.starts_with("newc:") {
            let trouble = format!("its initrd is made by GRUB: {path}");
            machine.loaded.trouble = Some(trouble);
            return false;
        }
        match image(machine, path) {
            Ok(initrd) => machine.loaded.initrds.push(initrd),
            Err(trouble) => {
                machine.loaded.trouble = Some(trouble);
                return false;
            }
        }
    }
    true
}

fn image(machine: &Machine<'_>, path: &str) -> Result<super::super::Image, String> {
    match machine.locate(path) {
        Some((volume, path)) => machine.files.image(volume, path),
        None => Err(format!(
            "{path}: no volume {}",
            machine.value("root").escape_default()
        )),
    }
}

/// `blscfg`, as Fedora's GRUB has it: the entries of `$blsdir`, else of `/loader/entries` on `$boot`
/// or `$root`.
fn bls_entries(machine: &mut Machine<'_>) {
    let device = ["boot", "root"].map(|name| machine.value(name).to_owned());
    let device = device.into_iter().find(|device| !device.is_empty());
    let device = device.unwrap_or_default();
    let folders = [
        machine.value("blsdir").to_owned(),
        "/loader/entries".into(),
        "/boot/loader/entries".into(),
    ];
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        let path = match folder.starts_with('(') {
            true => folder.clone(),
            false => format!("({device}){folder}"),
        };
        let Some((volume, path)) = machine.locate(&path) else {
            continue;
        };
        let mut entries = bls::read(machine.files, volume, path);
        if entries.is_empty() {
            continue;
        }
        bls::sort_as_grub(&mut entries);
        for entry in entries {
            let entry = entry.resolved(machine.files, Loader::GrubBls, machine.variables());
            machine.add(Pending::Ready(Box::new(entry)));
        }
        return;
    }
}

impl test::Files for Machine<'_> {
    fn look(&self, path: &str) -> Option<(bool, u64)> {
        let (volume, path) = self.locate(path)?;
        let stat = self.files.find(volume, path)?.stat().ok()?;
        Some((stat.kind == NodeKind::Directory, stat.len_bytes))
    }
}
