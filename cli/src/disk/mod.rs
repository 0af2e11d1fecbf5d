//! `hako disk`: one file per verb.

mod check;
mod commit;
mod compact;
mod compare;
mod convert;
mod create;
mod delete;
mod formats;
mod guest;
mod hash;
mod info;
pub mod keys;
mod map;
pub mod options;
mod rebase;
mod rename;
mod resize;
mod serve;
mod set;

use std::path::Path;

use clap::Subcommand;
use hako_block::Result;
use hako_formats::OpenedChain;

use crate::context::Context;
use crate::exit::Exit;
use crate::late::Late;
use crate::vm::home::home;
use options::ReadFlags;

/// Work with disk images
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Disk {
    Formats(Late<formats::Formats>),
    Info(Late<info::Info>),
    Create(Late<create::Create>),
    Convert(Late<convert::Convert>),
    Check(Late<check::Check>),
    Compare(Late<compare::Compare>),
    Map(Late<map::Map>),
    Hash(Late<hash::Hash>),
    Ls(Late<guest::ls::Ls>),
    Cat(Late<guest::cat::Cat>),
    Cp(Late<guest::cp::Cp>),
    Set(Late<set::Set>),
    Resize(Late<resize::Resize>),
    Compact(Late<compact::Compact>),
    Commit(Late<commit::Commit>),
    Rebase(Late<rebase::Rebase>),
    Rename(Late<rename::Rename>),
    Delete(Late<delete::Delete>),
    Serve(Late<serve::Serve>),
}

impl Disk {
    /// Runs the verb.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        match self {
            Disk::Formats(verb) => verb.run(context),
            Disk::Info(verb) => verb.run(context),
            Disk::Create(verb) => verb.run(context),
            Disk::Convert(verb) => verb.run(context),
            Disk::Check(verb) => verb.run(context),
            Disk::Compare(verb) => verb.run(context),
            Disk::Map(verb) => verb.run(context),
            Disk::Hash(verb) => verb.run(context),
            Disk::Ls(verb) => verb.run(context),
            Disk::Cat(verb) => verb.run(context),
            Disk::Cp(verb) => verb.run(context),
            Disk::Set(verb) => verb.run(context),
            Disk::Resize(verb) => verb.run(context),
            Disk::Compact(verb) => verb.run(context),
            Disk::Commit(verb) => verb.run(context),
            Disk::Rebase(verb) => verb.run(context),
            Disk::Rename(verb) => verb.run(context),
            Disk::Delete(verb) => verb.run(context),
            Disk::Serve(verb) => verb.run(context),
        }
    }

    /// Returns whether this is `compare`, whose exit codes are those of cmp.
    pub fn is_compare(&self) -> bool {
        matches!(self, Disk::Compare(_))
    }
}

/// Refuses to change an image that a linked clone of the inventory stands on, or a snapshot of a
/// machine.
pub fn refuse_needed(image: &Path) -> Result<()> {
    match home() {
        Ok(home) => hako_vm::refuse_needed(&home, image),
        // Who has no home has no machines.
        Err(_) => Ok(()),
    }
}

/// Refuses to put another image in the place of one that something stands on.
pub fn refuse_to_replace(target: &Path) -> Result<()> {
    match target.is_file() {
        true => refuse_needed(target).and_then(|()| hako_disk::refuse_to_replace(target)),
        false => Ok(()),
    }
}

/// Refuses to change an image that a linked clone of the inventory stands on, wherever that is:
/// overlays beside an image are found by looking, those of clones are known.
fn refuse_clones(image: &Path) -> Result<()> {
    match home() {
        Ok(home) => hako_vm::refuse_clones(&home, image),
        // Who has no home has no machines.
        Err(_) => Ok(()),
    }
}

/// Says what is odd about an opened chain, and returns how a command ends that read it: if the
/// user asked for salvage and something was found missing, incomplete.
pub fn salvaged(context: &Context, read: &ReadFlags, opened: &OpenedChain) -> Exit {
    let mut any = false;
    for layer in &opened.layers {
        let info = layer.image.info();
        any |= !info.oddities.is_empty();
        context.warn_oddities(layer.args.storage.name(), &info.oddities);
    }
    if any && read.salvage() {
        Exit::Incomplete
    } else {
        Exit::Done
    }
}
