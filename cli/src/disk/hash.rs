//! `hako disk hash`: SHA-256 of what the guest sees.

use std::path::PathBuf;

use clap::Args;
use hako_block::{BlockImage, Result};
use hako_formats::open_chain;
use serde_json::json;

use super::options::{ReadFlags, Threads};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako disk hash web.vmdk
  hako disk hash --json web.qcow2

Exit status:
  0    done
  1    failed
  2    wrong usage
  3    incomplete: what --salvage could not read was hashed as zeros
  4    the image is corrupt
  5    locked or in use";

/// Print the SHA-256 of the content of a disk
///
/// The content is what the guest sees, whatever the format: the same as sha256sum of the raw
/// disk. The output is that of sha256sum.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Hash {
    /// The image
    image: PathBuf,

    #[command(flatten)]
    read: ReadFlags,

    #[command(flatten)]
    threads: Threads,
}

impl Hash {
    /// Prints it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let opened = open_chain(&self.image, &self.read.options())?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        progress.phase("hash");
        let options = self.threads.copy_options(&*progress, &cancel);
        let digest = hako_pipeline::sha256(&opened.chain, &options)?;
        drop(progress);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = self.image.to_string_lossy();
        let mut out = Out::new();
        if context.json {
            out.json(&json!({
                "file": name,
                "virtual_size": opened.chain.info().virtual_size,
                "sha256": digest,
            }))?;
        } else {
            out.text(&line(&digest, &name))?;
        }
        out.finish()?;
        Ok(super::salvaged(context, &self.read, &opened))
    }
}

/// Returns the line as sha256sum writes it: a name with a newline or backslash is escaped, and the
/// line says so by a backslash in front.
fn line(digest: &str, name: &str) -> String {
    let escaped = name
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{digest}  {escaped}\n")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn names_are_escaped_as_sha256sum_does() {
        assert_eq!(line("00", "a b"), "00  a b\n");
        assert_eq!(line("00", "a\nb\\"), "\\00  a\\nb\\\\\n");
    }
}
