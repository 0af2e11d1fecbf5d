//! `hako disk cp`: files of a guest, copied out to the host.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueHint};
use hako_block::{Cancel, Error, ErrorKind, Result, StagedTree, is_zero};
use hako_guest::tree::{Found, shown};
use hako_guest::{Entry, FileSystem, NodeId, NodeKind, Stat, Tree};
use serde_json::json;

use super::cat::{each_chunk, regular};
use super::host::{Folder, Kept, Making, make_removable};
use super::ls::is_of_guest;
use super::walk::Walk;
use super::{Inside, guest_path};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use crate::size;

const EXAMPLES: &str = "\
Examples:
  hako disk cp web.vmdk /etc/fstab .
  hako disk cp web.vmdk:vg0/root /etc/hostname -
  hako disk cp -r web.qcow2:p2 /var/www www-of-web

Exit status:
  0    done
  1    failed; there is no such file, or the target exists
  2    wrong usage; several file systems, and no volume named
  3    incomplete: what could not be copied was told
  4    the image or its file system is corrupt
  5    locked or in use
  7    a key opens nothing
  8    no space left";

/// Files whose further names become hard links; those past them are copied.
const MOST_HARD_LINKS: usize = 1 << 18;

/// Runs of zeros of this length are left out of files.
const HOLE_BYTES: usize = 64 << 10;

/// Copy a file or a tree out of a guest
///
/// Modes and times are kept, holes stay holes. Links are copied as links; none is followed on the
/// host. Devices, pipes and sockets are left out and told. A tree gets its name when it is whole,
/// every file when it is.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Cp {
    #[command(flatten)]
    inside: Inside,

    /// The file or directory, from the root of the volume on
    path: PathBuf,

    /// Where to: a folder that is there, or the new name; `-` is standard output
    #[arg(value_hint = ValueHint::AnyPath)]
    target: PathBuf,

    /// Copy a directory with all that is in it
    #[arg(short, long)]
    recursive: bool,

    /// Keep owner and group, and with them the set-id bits; needs root
    #[arg(long)]
    owner: bool,

    /// Replace files that exist; into a directory that exists a tree is merged
    #[arg(long)]
    force: bool,
}

impl Cp {
    /// Copies.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let opened = self.inside.open(context)?;
        let (_, fs) = opened.file_system()?;
        let path = guest_path(&self.path);
        let in_image = |error: Error| error.in_file(&opened.image);
        let found = Tree::new(Arc::clone(fs)).find(path).map_err(in_image)?;
        let stat = found.stat().map_err(in_image)?;
        if self.target.as_os_str() == "-" {
            return self
                .to_stdout(&found)
                .map_err(in_image)
                .map(|()| opened.exit);
        }
        let cancel = context.cancel_on_signals()?;
        let mut copy = Copy {
            fs,
            context,
            cancel: &cancel,
            owner: self.owner,
            making: if self.force {
                Making::Replacing
            } else {
                Making::New
            },
            root: None,
            first_names: HashMap::new(),
            done: Done::default(),
        };
        let target = self.final_name()?;
        if stat.kind == NodeKind::Directory {
            self.tree(&mut copy, &found, &stat, &target)
                .map_err(in_image)?;
        } else {
            let file = regular(found, path).map_err(in_image)?;
            let folder = Folder::open(hako_block::gate::folder_of(&target))?;
            let name = target.file_name().ok_or_else(|| no_name(&target))?;
            copy.file(&folder, name.as_bytes(), &file, &stat)
                .map_err(in_image)?;
        }
        copy.done.tell(context)?;
        Ok(match copy.done.left_out {
            0 => opened.exit,
            _ => Exit::Incomplete,
        })
    }

    fn to_stdout(&self, found: &Found) -> Result<()> {
        let file = regular(found.clone(), guest_path(&self.path))?;
        let mut out = Out::new();
        each_chunk(&file, &mut |bytes| out.bytes(bytes))?;
        out.finish()
    }

    /// Returns the name that the copy is to have: in a folder that is there that of the original.
    fn final_name(&self) -> Result<PathBuf> {
        if !self.target.is_dir() {
            return Ok(self.target.clone());
        }
        match self.path.file_name() {
            Some(name) => Ok(self.target.join(name)),
            None if self.force => Ok(self.target.clone()),
            None => Err(Error::new(ErrorKind::Exists, "exists already")
                .in_file(&self.target)
                .hint("the root of a volume has no name of its own: give the new folder one")),
        }
    }

    fn tree(&self, copy: &mut Copy, top: &Found, stat: &Stat, target: &Path) -> Result<()> {
        if !self.recursive {
            let what = format!("{}: a directory", shown(guest_path(&self.path)));
            return Err(Error::invalid(what).hint("--recursive copies it with all that is in it"));
        }
        let kept = Kept::of(stat, self.owner);
        if self.force && target.is_dir() {
            let folder = Folder::open(target)?;
            copy.directory(
                &mut Walk::new(copy.fs, copy.cancel),
                &folder,
                top.node(),
                Path::new(""),
            )?;
            folder.finish(&kept)?;
            return folder.sync();
        }
        let staged = StagedTree::new(target)?;
        copy.context.tell(staged.cleared(), &[]);
        copy.making = Making::Hidden;
        let copied = copy.hidden(staged.path(), top.node(), &kept);
        if copied.is_err() {
            make_removable(staged.path());
        }
        copied?;
        staged.commit()
    }
}

fn no_name(target: &Path) -> Error {
    Error::invalid("no name for the copy").in_file(target)
}

/// A copy that is being made.
struct Copy<'a> {
    fs: &'a Arc<dyn FileSystem>,
    context: &'a Context,
    cancel: &'a Cancel,
    owner: bool,
    making: Making,
    /// The hidden folder that the tree is made in.
    root: Option<Folder>,
    /// Where in it files with several names are.
    first_names: HashMap<NodeId, PathBuf>,
    done: Done,
}

/// What was copied.
#[derive(Default)]
struct Done {
    files: u64,
    directories: u64,
    links: u64,
    bytes: u64,
    left_out: u64,
}

impl Done {
    fn tell(&self, context: &Context) -> Result<()> {
        if context.json {
            let mut out = Out::new();
            out.json(&json!({
                "files": self.files,
                "directories": self.directories,
                "links": self.links,
                "bytes": self.bytes,
                "left_out": self.left_out,
            }))?;
            return out.finish();
        }
        let Done { files, links, .. } = self;
        let bytes = size::human(self.bytes);
        context.summary(&format!("copied {files} files ({bytes}) and {links} links"));
        Ok(())
    }
}

impl Copy<'_> {
    /// Copies a tree into a folder whose name is not final.
    fn hidden(&mut self, root: &Path, top: NodeId, kept: &Kept) -> Result<()> {
        let folder = Folder::open(root)?;
        self.root = Some(Folder::open(root)?);
        let mut walk = Walk::new(self.fs, self.cancel);
        self.directory(&mut walk, &folder, top, Path::new(""))?;
        folder.finish(kept)?;
        folder.sync()
    }

    /// Copies what is in a directory; `path` is the way to it from the top of the copy.
    fn directory(
        &mut self,
        walk: &mut Walk,
        folder: &Folder,
        directory: NodeId,
        path: &Path,
    ) -> Result<()> {
        self.done.directories += 1;
        walk.enter(directory, &mut |walk, entry| {
            let below = path.join(std::ffi::OsStr::from_bytes(&entry.name));
            match self.entry(walk, folder, &entry, &below) {
                Err(error) if is_of_guest(&error) || is_of_name(&error) => {
                    self.leave_out(&below, &error.to_string());
                    Ok(())
                }
                result => result,
            }
        })
    }

    fn entry(
        &mut self,
        walk: &mut Walk,
        folder: &Folder,
        entry: &Entry,
        path: &Path,
    ) -> Result<()> {
        let name = entry.name.as_slice();
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Error::corrupt("directory", "a name that no file can have"));
        }
        let stat = self.fs.stat(entry.node)?;
        let kept = Kept::of(&stat, self.owner);
        match stat.kind {
            NodeKind::Directory => {
                let inner = folder.folder(name, self.making)?;
                // What could be read of it stays, and keeps its mode.
                let copied = self.directory(walk, &inner, entry.node, path);
                inner.finish(&kept)?;
                copied
            }
            NodeKind::Link => {
                let target = self.fs.read_link(entry.node)?;
                folder.symlink(name, &target, &kept, self.making)?;
                self.done.links += 1;
                Ok(())
            }
            NodeKind::File if self.is_linked(folder, name, entry.node, &stat)? => Ok(()),
            NodeKind::File => {
                let file = Found::new(Arc::clone(self.fs), entry.node);
                self.file(folder, name, &file, &stat)?;
                if stat.links > 1 && self.first_names.len() < MOST_HARD_LINKS {
                    self.first_names.insert(entry.node, path.to_path_buf());
                }
                Ok(())
            }
            _ => {
                self.leave_out(path, "a device, pipe or socket");
                Ok(())
            }
        }
    }

    /// Makes a hard link to what was copied by another name; says whether it did.
    fn is_linked(
        &mut self,
        folder: &Folder,
        name: &[u8],
        node: NodeId,
        stat: &Stat,
    ) -> Result<bool> {
        let first = self.first_names.get(&node).filter(|_| stat.links > 1);
        let (Some(root), Some(first)) = (&self.root, first) else {
            return Ok(false);
        };
        folder.hard_link(name, root, first)?;
        self.done.files += 1;
        Ok(true)
    }

    /// Copies a file.
    fn file(&mut self, folder: &Folder, name: &[u8], file: &Found, stat: &Stat) -> Result<()> {
        let new = folder.file(name, self.making)?;
        let write_failed = |error| new.failed("write", error);
        new.file().set_len(stat.len_bytes).map_err(write_failed)?;
        let mut offset = 0;
        each_chunk(file, &mut |bytes| {
            self.cancel.check()?;
            for piece in bytes.chunks(HOLE_BYTES) {
                if !is_zero(piece) {
                    new.file()
                        .write_all_at(piece, offset)
                        .map_err(write_failed)?;
                }
                offset += piece.len() as u64;
            }
            Ok(())
        })?;
        if offset != stat.len_bytes {
            return Err(Error::corrupt(
                "file",
                format!("{offset} bytes, not {}", stat.len_bytes),
            ));
        }
        new.commit(&Kept::of(stat, self.owner))?;
        self.done.files += 1;
        self.done.bytes += stat.len_bytes;
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, why: &str) {
        self.done.left_out += 1;
        let path = shown(path.as_os_str().as_bytes());
        self.context
            .messages
            .warn(&format!("{path}: not copied: {why}"));
    }
}

/// Returns whether the host refused a name, not the whole copy.
fn is_of_name(error: &Error) -> bool {
    use rustix::io::Errno;
    let source = std::error::Error::source(error);
    let code = source
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(Errno::from_io_error);
    let of_name = [
        Errno::NAMETOOLONG,
        Errno::ILSEQ,
        Errno::INVAL,
        Errno::FBIG,
        Errno::ISDIR,
    ];
    error.kind() == ErrorKind::Exists || code.is_some_and(|code| of_name.contains(&code))
}
