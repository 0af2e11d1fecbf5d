//! `hako disk set`: what an image says of itself.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use hako_block::{Result, Uuid};
use hako_formats::{Adapter, Settings};

use super::options::{GateFlags, adapters};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  hako disk set web.vmdk --adapter lsilogic --hw-version 19
  hako disk set web.vdi --uuid 6000c290-1234-4321-8765-0123456789ab
  hako disk set web.vmdk --comment 'copied from rack 7'

Exit status:
  0    done
  1    failed, or the format does not record it
  2    wrong usage, or something stands on the image and knows it by its UUID
  4    the image is corrupt
  5    locked or in use";

/// Change what an image says of itself
///
/// The content stays, and with it the content ID that overlays know it by.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[command(group = ArgGroup::new("settings").required(true).multiple(true)
    .args(["adapter", "hw_version", "tools_version", "uuid", "comment"]))]
pub struct Set {
    /// The image
    image: PathBuf,

    /// Disk controller that a VMDK names
    #[arg(long, value_name = "NAME", value_parser = adapters(), ignore_case = true)]
    adapter: Option<Adapter>,

    /// Virtual hardware version that a VMDK names
    #[arg(long, value_name = "N")]
    hw_version: Option<u32>,

    /// Version of VMware Tools that a VMDK names
    #[arg(long, value_name = "N")]
    tools_version: Option<u32>,

    /// What the disk is known by
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    uuid: Option<Uuid>,

    /// A comment; empty removes it
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,

    /// Change the UUID though an overlay or a linked clone knows the image by it: VHD and VDI
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    gate: GateFlags,
}

impl Set {
    /// Sets.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let settings = Settings {
            adapter: self.adapter,
            hw_version: self.hw_version,
            tools_version: self.tools_version,
            uuid: self.uuid,
            comment: self.comment.clone(),
        };
        let subject = self.gate.subject(&self.image);
        if !self.force && self.uuid.is_some() && hako_disk::is_known_by_uuid(&subject)? {
            super::refuse_needed(&self.image)?;
        }
        hako_disk::set(&subject, &settings, self.force)?;
        context.summary(&format!("{}: set", self.image.display()));
        Ok(Exit::Done)
    }
}

fn parse_uuid(text: &str) -> std::result::Result<Uuid, String> {
    Uuid::parse(text).ok_or_else(|| "write it as 32 hexadecimal digits".to_owned())
}
