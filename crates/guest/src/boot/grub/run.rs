//! Runs GRUB's scripts as far as they decide what is booted: in a bounded number of steps, with
//! bounded texts.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::files::{Files, folder};
use super::super::{Entry, Image, Loader, MOST_ENTRIES};
use super::parse::{Command, List, Piece, Word, parse};
use super::{Item, ItemKind, device};
use crate::volumes::FoundVolume;

/// Commands that are run at most: some hundred times what a long configuration needs.
const MOST_STEPS: u32 = 200_000;
/// Bytes of words that are made at most, and how long one word may get.
const MOST_BYTES: usize = 32 << 20;
const LONGEST_WORD: usize = 64 << 10;
/// How deep functions, files and blocks may call one another.
const DEEPEST_CALL: u32 = 48;
/// How deep menus may stand in one another.
pub(super) const DEEPEST_MENU: usize = 8;
/// Files that are read at most.
const MOST_FILES: u32 = 64;
/// Remarks that are kept.
const MOST_REMARKS: usize = 50;

/// What a script sees.
pub(super) struct Machine<'v> {
    pub files: &'v Files<'v>,
    variables: BTreeMap<String, String>,
    exported: BTreeSet<String>,
    functions: BTreeMap<String, List>,
    /// `$1` and so on.
    arguments: Vec<String>,
    /// Items that were defined and not yet looked into.
    pub pending: Vec<Pending>,
    /// What the entry that is running has said.
    pub loaded: Loaded,
    /// The file that is running, as `VOLUME:PATH`.
    source: String,
    n_items: usize,
    steps: u32,
    bytes: usize,
    n_files: u32,
    depth: u32,
    remarks: Vec<String>,
    is_over: bool,
}

/// An item of a menu as its command left it.
pub(super) enum Pending {
    /// An entry or, if so said, a submenu, whose block is not run yet.
    Block {
        title: String,
        id: String,
        arguments: Vec<String>,
        block: List,
        is_submenu: bool,
        source: String,
    },
    /// An entry of the Boot Loader Specification.
    Ready(Box<Entry>),
}

/// What an entry's commands say.
#[derive(Default)]
pub(super) struct Loaded {
    pub kernel: Option<Image>,
    pub initrds: Vec<Image>,
    pub options: String,
    pub trouble: Option<String>,
}

/// Variables that say what this GRUB can do.
const FEATURES: &[&str] = &[
    "feature_default_font_path",
    "feature_menuentry_id",
    "feature_menuentry_options",
    "feature_200_final",
    "feature_platform_search_hint",
    "feature_timeout_style",
    "feature_all_video_module",
    "feature_chainloader_bpb",
    "feature_ntldr",
    "feature_nativedisk_cmd",
];

/// Variables that submenus see without `export`.
const ALWAYS: &[&str] = &[
    "root",
    "prefix",
    "default",
    "chosen",
    "timeout",
    "grub_platform",
    "grub_cpu",
    "pager",
    "lang",
    "gfxmode",
    "gfxpayload",
    "theme",
    "cmdpath",
    "config_file",
    "config_directory",
];

impl<'v> Machine<'v> {
    pub fn new(files: &'v Files<'v>, volume: &FoundVolume, config: &str) -> Self {
        let root = device::name(files, volume);
        let prefix = format!("({root}){}", folder(config));
        let is_efi = !files.boot_volumes().is_empty()
            && files.boot_volumes().iter().any(|found| {
                found
                    .partition()
                    .is_some_and(|part| part.kind.is_efi_system())
            });
        let mut variables: BTreeMap<String, String> = FEATURES
            .iter()
            .map(|name| ((*name).to_owned(), "y".to_owned()))
            .collect();
        for (name, value) in [
            ("root", &*root),
            ("prefix", &*prefix),
            ("config_directory", &*prefix),
            ("grub_platform", if is_efi { "efi" } else { "pc" }),
            ("grub_cpu", if is_efi { "x86_64" } else { "i386" }),
        ] {
            variables.insert(name.into(), value.into());
        }
        Self {
            files,
            variables,
            exported: ALWAYS.iter().map(|name| (*name).to_owned()).collect(),
            functions: BTreeMap::new(),
            arguments: Vec::new(),
            pending: Vec::new(),
            loaded: Loaded::default(),
            source: String::new(),
            n_items: 0,
            steps: 0,
            bytes: 0,
            n_files: 0,
            depth: 0,
            remarks: Vec::new(),
            is_over: false,
        }
    }

    /// Runs a configuration and all its entries.
    pub fn menu(&mut self, config: &str) -> Vec<Item> {
        self.run_file(config);
        let pending = std::mem::take(&mut self.pending);
        self.items(pending, 0)
    }

    pub fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    pub fn remark(&mut self, remark: String) {
        if self.remarks.len() < MOST_REMARKS && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    /// Returns a variable; empty if it is not set.
    pub fn value(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    pub fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    pub fn export(&mut self, name: &str) {
        self.exported.insert(name.to_owned());
    }

    /// Returns all variables, sorted.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Returns the volume and the path that `(device)/path` or `/path` means.
    pub fn locate<'p>(&self, path: &'p str) -> Option<(&'v FoundVolume, &'p str)> {
        let (name, path) = match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((name, path)) => (name, path),
            None => (self.value("root").trim_matches(['(', ')']), path),
        };
        Some((device::volume(self.files, name)?, path))
    }

    /// Runs another file; false if it is not there.
    pub fn run_file(&mut self, path: &str) -> bool {
        let located = self.locate(path);
        let Some(text) = located.and_then(|(volume, path)| self.files.text(volume, path)) else {
            return false;
        };
        self.n_files += 1;
        if self.n_files > MOST_FILES {
            self.stop("it reads too many files");
            return false;
        }
        let (list, problem) = parse(&text.text);
        if let Some(problem) = problem {
            self.remark(format!(
                "{}: {problem}: what follows is not read",
                text.source
            ));
        }
        let before = std::mem::replace(&mut self.source, text.source);
        self.run(&list);
        self.source = before;
        true
    }

    /// Adds an item to the menu.
    pub fn add(&mut self, pending: Pending) {
        self.n_items += 1;
        if self.n_items <= MOST_ENTRIES {
            self.pending.push(pending);
        }
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    fn items(&mut self, pending: Vec<Pending>, depth: usize) -> Vec<Item> {
        let mut items = Vec::new();
        for one in pending {
            let (title, id, kind) = match one {
                Pending::Ready(entry) => {
                    let (title, id) = (entry.title.clone(), entry.id.clone());
                    (title, id, ItemKind::Entry(entry))
                }
                Pending::Block {
                    title,
                    id,
                    arguments,
                    block,
                    is_submenu,
                    source,
                } => {
                    let before = self.enter(&title, arguments, is_submenu, &source);
                    let kind = if is_submenu {
                        ItemKind::Submenu(self.submenu(&block, depth))
                    } else {
                        ItemKind::Entry(Box::new(self.entry(&title, &id, &block)))
                    };
                    self.variables = before.0;
                    self.arguments = before.1;
                    (title, id, kind)
                }
            };
            items.push(Item { title, id, kind });
        }
        items
    }

    /// Prepares for the block of an item, and returns what is to be put back after it.
    fn enter(
        &mut self,
        title: &str,
        arguments: Vec<String>,
        is_submenu: bool,
        source: &str,
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let before = self.variables.clone();
        // So that many entries with large variables do not take forever.
        let len: usize = before.values().map(String::len).sum();
        self.bytes = self.bytes.saturating_add(len);
        if is_submenu {
            let exported = &self.exported;
            self.variables
                .retain(|name, _| exported.contains(name) || name.starts_with("feature_"));
        }
        self.set("chosen", title);
        self.source = source.to_owned();
        (before, std::mem::replace(&mut self.arguments, arguments))
    }

    fn submenu(&mut self, block: &List, depth: usize) -> Vec<Item> {
        if depth + 1 >= DEEPEST_MENU {
            self.remark("menus are nested too deep".into());
            return Vec::new();
        }
        let outer = std::mem::take(&mut self.pending);
        self.run(block);
        let inner = std::mem::replace(&mut self.pending, outer);
        self.items(inner, depth + 1)
    }

    fn entry(&mut self, title: &str, id: &str, block: &List) -> Entry {
        self.loaded = Loaded::default();
        self.run(block);
        let loaded = std::mem::take(&mut self.loaded);
        let nothing = loaded.kernel.is_none() && loaded.trouble.is_none();
        let trouble = nothing.then(|| "it starts no Linux kernel".to_owned());
        Entry {
            title: title.to_owned(),
            id: id.to_owned(),
            loader: Loader::Grub,
            source: self.source.clone(),
            kernel: loaded.kernel,
            initrds: loaded.initrds,
            options: loaded.options,
            trouble: loaded.trouble.or(trouble),
        }
    }

    /// Runs commands, and returns whether the last one succeeded.
    pub fn run(&mut self, list: &List) -> bool {
        if self.depth >= DEEPEST_CALL {
            self.stop("it is nested too deep");
            return false;
        }
        self.depth += 1;
        let mut is_good = true;
        for command in list.iter() {
            self.steps += 1;
            if self.steps > MOST_STEPS || self.bytes > MOST_BYTES {
                self.stop("it takes too long");
            }
            if self.is_over {
                break;
            }
            is_good = self.command(command);
        }
        self.depth -= 1;
        is_good
    }

    fn stop(&mut self, why: &str) {
        if !self.is_over {
            self.remark(format!("{}: given up: {why}", self.source));
        }
        self.is_over = true;
    }

    fn command(&mut self, command: &Command) -> bool {
        match command {
            Command::Simple(words, block) => {
                let words = self.expand(words);
                self.simple(words, block.as_ref())
            }
            Command::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.run(condition) {
                        return self.run(body);
                    }
                }
                self.run(otherwise)
            }
            Command::For(name, words, body) => {
                let mut is_good = true;
                for value in self.expand(words) {
                    self.set(name, &value);
                    is_good = self.run(body);
                }
                is_good
            }
            Command::While(condition, is_until, body) => {
                // Each round is at least one step.
                while !self.is_over && self.run(condition) != *is_until {
                    self.steps += 1;
                    self.run(body);
                }
                true
            }
            Command::Function(name, body) => {
                self.functions.insert(name.clone(), Rc::clone(body));
                true
            }
        }
    }

    fn simple(&mut self, mut words: Vec<String>, block: Option<&List>) -> bool {
        if words.is_empty() {
            return block.is_none_or(|block| self.run(block));
        }
        let name = words.remove(0);
        if name == "!" {
            return !self.simple(words, block);
        }
        if let Some(body) = self.functions.get(&name).cloned() {
            let before = std::mem::replace(&mut self.arguments, words);
            let is_good = self.run(&body);
            self.arguments = before;
            return is_good;
        }
        super::commands::run(self, &name, words, block)
    }

    fn expand(&mut self, words: &[Word]) -> Vec<String> {
        let mut all = Vec::new();
        for word in words {
            self.expand_word(word, &mut all);
        }
        // A short word takes memory, too.
        let made: usize = all.iter().map(|word| word.len() + 64).sum();
        self.bytes = self.bytes.saturating_add(made);
        all
    }

    fn expand_word(&self, word: &Word, all: &mut Vec<String>) {
        let mut text = String::new();
        let mut is_word = false;
        for piece in word {
            match piece {
                Piece::Text(more) | Piece::Quoted(more) => {
                    text.push_str(more);
                    is_word = true;
                }
                Piece::Variable(name, is_quoted) => {
                    let value = self.expanded(name);
                    if *is_quoted {
                        text.push_str(&value);
                        is_word = true;
                        continue;
                    }
                    // Without quotes its blanks part words.
                    let mut parts = value.split_ascii_whitespace();
                    if let Some(first) = parts.next() {
                        text.push_str(first);
                        is_word = true;
                    }
                    for part in parts {
                        all.push(std::mem::replace(&mut text, part.to_owned()));
                    }
                }
            }
            if text.len() > LONGEST_WORD {
                let mut len = LONGEST_WORD;
                while !text.is_char_boundary(len) {
                    len -= 1;
                }
                text.truncate(len);
            }
        }
        if is_word {
            all.push(text);
        }
    }

    fn expanded(&self, name: &str) -> String {
        match name {
            "*" | "@" => self.arguments.join(" "),
            "#" => self.arguments.len().to_string(),
            "?" => "0".to_owned(),
            name => match name.parse::<usize>() {
                Ok(0) => String::new(),
                Ok(at) => self.arguments.get(at - 1).cloned().unwrap_or_default(),
                Err(_) => self.value(name).to_owned(),
            },
        }
    }
}
