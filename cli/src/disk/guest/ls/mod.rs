//! `hako disk ls`: the volumes of a disk, and the files in one.

mod files;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use hako_block::{Error, Result};
use hako_guest::{NodeKind, Tree};
use serde_json::json;

use files::Listing;
pub use files::is_of_guest;

use super::{Inside, Opened, guest_path};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk ls web.vmdk
  hako disk ls web.vmdk /etc
  hako disk ls -l web.qcow2:vg0/root /var/log
  hako disk ls -R --json web.vmdk:p1 /

Exit status:
  0    done
  1    failed; there is no such file
  2    wrong usage; several file systems, and no volume named
  3    incomplete: a directory could not be read, or --salvage found something missing
  4    the image or its file system is corrupt
  5    locked or in use
  7    a key opens nothing";

/// List the volumes of a disk, or the files in one
///
/// Without a volume and a path: partitions, logical volumes and arrays, what they hold, their
/// labels and UUIDs. With one of them: the names in a directory. A volume has the first name of
/// its row; UUID=…, LABEL=…, PARTUUID=…, PARTLABEL=… and /dev/sda1 mean one, too.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Ls {
    #[command(flatten)]
    inside: Inside,

    /// The directory or file, from the root of the volume on
    path: Option<PathBuf>,

    /// Show type and mode, links, owner, group, length, time, and where links lead
    #[arg(short, long)]
    long: bool,

    /// List what is in directories below, too, by their paths
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Ls {
    /// Prints it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let opened = self.inside.open(context)?;
        let path = match &self.path {
            Some(path) => path.clone(),
            None if opened.wanted.is_some() => PathBuf::from("/"),
            None => return self.volumes(context, &opened),
        };
        let (volume, fs) = opened.file_system()?;
        let tree = Tree::new(Arc::clone(fs));
        let path = guest_path(&path);
        let in_image = |error: Error| error.in_file(&opened.image);
        let found = tree.find(path).map_err(in_image)?;
        let stat = found.stat().map_err(in_image)?;
        let mut listing = Listing::new(fs, context, self.long, self.recursive);
        listing.begin(&volume.name, path)?;
        if stat.kind == NodeKind::Directory {
            listing.tree(found.node())
        } else {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
            listing.entry(name, found.node(), Some(stat))
        }
        .map_err(in_image)?;
        Ok(match listing.end()? {
            true => opened.exit,
            false => Exit::Incomplete,
        })
    }

    fn volumes(&self, context: &Context, opened: &Opened) -> Result<Exit> {
        if self.long || self.recursive {
            return Err(Error::invalid(
                "--long and --recursive are for files: name a path",
            ));
        }
        let list = opened.volumes.list();
        let mut out = Out::new();
        if context.json {
            out.json(&json!({
                "volumes": volumes::json(list),
                "remarks": opened.volumes.remarks(),
            }))?;
        } else {
            volumes::print(&mut out, list)?;
            for found in list {
                context.warn_oddities(&found.name, &found.remarks);
            }
            for remark in opened.volumes.remarks() {
                context.messages.warn(remark);
            }
        }
        out.finish()?;
        Ok(opened.exit)
    }
}
