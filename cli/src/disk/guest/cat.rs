//! `hako disk cat`: the content of a file in a guest.

use std::path::PathBuf;

use clap::Args;
use hako_block::{Error, Result};
use hako_guest::tree::{Found, shown};
use hako_guest::{NodeKind, Tree};

use super::{Inside, guest_path};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk cat web.vmdk /etc/fstab
  hako disk cat web.qcow2:vg0/root /var/log/syslog | less

Exit status:
  0    done
  1    failed; there is no such file
  2    wrong usage; several file systems, and no volume named
  3    incomplete: --salvage found something missing
  4    the image or its file system is corrupt
  5    locked or in use
  7    a key opens nothing";

/// Print the content of a file in a guest
///
/// Links are followed inside the file system, and never out of it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Cat {
    #[command(flatten)]
    inside: Inside,

    /// The file, from the root of the volume on
    path: PathBuf,
}

impl Cat {
    /// Prints it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let opened = self.inside.open(context)?;
        let (_, fs) = opened.file_system()?;
        let path = guest_path(&self.path);
        let file = Tree::new(fs.clone())
            .find(path)
            .and_then(|file| regular(file, path))
            .map_err(|error| error.in_file(&opened.image))?;
        let mut out = Out::new();
        each_chunk(&file, &mut |bytes| out.bytes(bytes))
            .map_err(|error| error.place(shown(path)).in_file(&opened.image))?;
        out.finish()?;
        Ok(opened.exit)
    }
}

/// Returns the node if it is a file.
pub fn regular(file: Found, path: &[u8]) -> Result<Found> {
    match file.stat()?.kind {
        NodeKind::File => Ok(file),
        _ => Err(Error::invalid(format!("{}: no file", shown(path)))),
    }
}

/// Calls `each` with the content of a file, piece by piece. Errors: corrupt if it ends before the
/// length that the file system told.
pub fn each_chunk(file: &Found, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let len = file.stat()?.len_bytes;
    let mut chunk = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let have = file.read_at(offset, &mut chunk)?;
        let Some(bytes) = chunk.get(..have).filter(|bytes| !bytes.is_empty()) else {
            let what = format!("content ends at {offset} of {len} bytes");
            return Err(Error::corrupt("file", what));
        };
        each(bytes)?;
        offset += have as u64;
    }
    Ok(())
}
