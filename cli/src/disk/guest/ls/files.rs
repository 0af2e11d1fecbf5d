//! Files as lines and as JSON, printed while they are found.

use std::sync::Arc;

use hako_block::{Cancel, Error, ErrorKind, Result};
use hako_guest::tree::shown;
use hako_guest::{Entry, FileSystem, NodeId, NodeKind, Stat};
use hako_vm::utc;
use serde_json::{Value, json};

use super::super::walk::Walk;
use crate::context::Context;
use crate::output::Out;

/// Files that are being listed.
pub struct Listing<'a> {
    fs: &'a Arc<dyn FileSystem>,
    context: &'a Context,
    out: Out,
    long: bool,
    recursive: bool,
    n_entries: u64,
    is_whole: bool,
}

impl<'a> Listing<'a> {
    /// Returns a list of nothing yet.
    pub fn new(
        fs: &'a Arc<dyn FileSystem>,
        context: &'a Context,
        long: bool,
        recursive: bool,
    ) -> Self {
        Self {
            fs,
            context,
            out: Out::new(),
            long,
            recursive,
            n_entries: 0,
            is_whole: true,
        }
    }

    /// Prints what stands before the first entry.
    pub fn begin(&mut self, volume: &str, path: &[u8]) -> Result<()> {
        if !self.context.json {
            return Ok(());
        }
        let head = json!({"volume": volume, "path": String::from_utf8_lossy(path)}).to_string();
        self.out.text(head.trim_end_matches('}'))?;
        self.out.text(",\"entries\":[")
    }

    /// Prints what stands after the last. Returns whether everything could be read.
    pub fn end(mut self) -> Result<bool> {
        if self.context.json {
            self.out.text("]}\n")?;
        }
        self.out.finish()?;
        Ok(self.is_whole)
    }

    /// Lists what is in a directory.
    pub fn tree(&mut self, directory: NodeId) -> Result<()> {
        let cancel = Cancel::default();
        self.directory(&mut Walk::new(self.fs, &cancel), directory, b"")
    }

    /// Lists a directory, whose path from the one that was asked for is `path`.
    fn directory(&mut self, walk: &mut Walk, directory: NodeId, path: &[u8]) -> Result<()> {
        walk.enter(directory, &mut |walk, entry| {
            let name = match path {
                b"" => entry.name.clone(),
                path => [path, b"/", &entry.name].concat(),
            };
            let is_directory = self.line(&name, &entry)?;
            if self.recursive && is_directory {
                let below = self.directory(walk, entry.node, &name);
                return self.or_told(&name, below);
            }
            Ok(())
        })
    }

    /// Lists a name, and returns whether it is a directory's.
    fn line(&mut self, name: &[u8], entry: &Entry) -> Result<bool> {
        let needs_stat = self.long || self.context.json;
        let stat = match (needs_stat, entry.kind) {
            (false, Some(kind)) => {
                self.name(name)?;
                return Ok(kind == NodeKind::Directory);
            }
            (false, None) if !self.recursive => {
                self.name(name)?;
                return Ok(false);
            }
            _ => self.fs.stat(entry.node),
        };
        match stat {
            Ok(stat) => {
                let is_directory = stat.kind == NodeKind::Directory;
                self.entry(name, entry.node, Some(stat))?;
                Ok(is_directory)
            }
            Err(error) => {
                self.or_told(name, Err(error))?;
                self.entry(name, entry.node, None)?;
                Ok(false)
            }
        }
    }

    /// Lets an error of one entry be a warning, and the list incomplete.
    fn or_told(&mut self, name: &[u8], result: Result<()>) -> Result<()> {
        match result {
            Err(error) if is_of_guest(&error) => {
                self.is_whole = false;
                let text = format!("{}: {error}", shown(name));
                self.context.messages.warn(&text);
                Ok(())
            }
            result => result,
        }
    }

    fn name(&mut self, name: &[u8]) -> Result<()> {
        self.out.line(&String::from_utf8_lossy(name))
    }

    /// Lists one entry; without a stat only its name is known.
    pub fn entry(&mut self, name: &[u8], node: NodeId, stat: Option<Stat>) -> Result<()> {
        let target = match &stat {
            Some(stat) if stat.kind == NodeKind::Link => self.fs.read_link(node).ok(),
            _ => None,
        };
        let separator = if self.n_entries == 0 { "\n" } else { ",\n" };
        self.n_entries += 1;
        if self.context.json {
            self.out.text(separator)?;
            let entry = entry_json(name, stat.as_ref(), target.as_deref());
            return self.out.text(&entry.to_string());
        }
        let name = String::from_utf8_lossy(name);
        if !self.long {
            return self.out.line(&name);
        }
        let target = target.map(|target| format!(" -> {}", String::from_utf8_lossy(&target)));
        let line = format!(
            "{} {name}{}",
            long(stat.as_ref()),
            target.unwrap_or_default()
        );
        self.out.line(&line)
    }
}

/// Returns whether an error is about what is in the image, not about our output.
pub fn is_of_guest(error: &Error) -> bool {
    use ErrorKind::{Corrupt, Invalid, NotFound, Unsupported};
    matches!(error.kind(), Corrupt | Invalid | NotFound | Unsupported)
}

/// Everything of a line of `ls -l` but the name.
fn long(stat: Option<&Stat>) -> String {
    let Some(stat) = stat else {
        return "?????????? ? ? ? ? ?".to_owned();
    };
    let size = match stat.device {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => stat.len_bytes.to_string(),
    };
    format!(
        "{} {:>2} {:>5} {:>5} {size:>10} {}",
        mode_text(stat),
        stat.links,
        stat.uid,
        stat.gid,
        time_text(stat.modified.seconds)
    )
}

/// `drwxr-xr-x`.
fn mode_text(stat: &Stat) -> String {
    let mut text = String::from(match stat.kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Link => 'l',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = stat.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, stat.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `2024-02-29 12:34:56`, in UTC.
fn time_text(seconds: i64) -> String {
    let Ok(seconds) = u64::try_from(seconds) else {
        return "before 1970        ".to_owned();
    };
    let [year, month, day, hour, minute, second] = utc(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn entry_json(name: &[u8], stat: Option<&Stat>, target: Option<&[u8]>) -> Value {
    let mut value = json!({"name": String::from_utf8_lossy(name)});
    if std::str::from_utf8(name).is_err() {
        let digits: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        value["name_hex"] = digits.into();
    }
    let Some(stat) = stat else {
        return value;
    };
    value["type"] = kind_name(stat.kind).into();
    value["length"] = stat.len_bytes.into();
    value["mode"] = format!("{:04o}", stat.mode).into();
    value["uid"] = stat.uid.into();
    value["gid"] = stat.gid.into();
    value["links"] = stat.links.into();
    let nanoseconds = stat.modified.nanoseconds;
    value["modified"] = json!({"seconds": stat.modified.seconds, "nanoseconds": nanoseconds});
    if let Some((major, minor)) = stat.device {
        value["device"] = json!([major, minor]);
    }
    if let Some(target) = target {
        value["target"] = String::from_utf8_lossy(target).into();
    }
    value
}

fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Link => "link",
        NodeKind::CharDevice => "char-device",
        NodeKind::BlockDevice => "block-device",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
    }
}
