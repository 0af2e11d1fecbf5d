//! `hako vm`: one file per verb.

mod clone;
mod create;
mod delete;
pub mod export;
mod guest_view;
pub mod home;
mod import;
mod info;
mod list;
mod machine_json;
mod register;
mod rename;
pub mod run;
mod set;
pub mod specs;
mod unregister;

use clap::Subcommand;
use hako_block::Result;

use crate::context::Context;
use crate::exit::Exit;
use crate::late::Late;

/// Work with virtual machines: what they are made of, and running them
///
/// A machine is named by its name in the inventory (its display name or the name of its folder),
/// or by the path of its .vmx. The inventory is in $HAKO_HOME, else in /var/lib/hako for root and
/// in ~/.local/share/hako for others. A machine that runs is locked: what would change or copy it is
/// refused.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Vm {
    Create(Late<create::Create>),
    List(Late<list::List>),
    Info(Late<info::Info>),
    Set(Late<set::Set>),
    Register(Late<register::Register>),
    Unregister(Late<unregister::Unregister>),
    Import(Late<import::Import>),
    Export(Late<export::Export>),
    Clone(Late<clone::Clone>),
    Rename(Late<rename::Rename>),
    Delete(Late<delete::Delete>),
    Start(Late<run::start::Start>),
    Stop(Late<run::stop::Stop>),
    Reset(Late<run::reset::Reset>),
    Pause(Late<run::pause::Pause>),
    Unpause(Late<run::unpause::Unpause>),
    Console(Late<run::console::Console>),
    Wait(Late<run::wait::Wait>),
    Stats(Late<run::stats::Stats>),
}

impl Vm {
    /// Runs the verb.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        match self {
            Vm::Create(verb) => verb.run(context),
            Vm::List(verb) => verb.run(context),
            Vm::Info(verb) => verb.run(context),
            Vm::Set(verb) => verb.run(context),
            Vm::Register(verb) => verb.run(context),
            Vm::Unregister(verb) => verb.run(context),
            Vm::Import(verb) => verb.run(context),
            Vm::Export(verb) => verb.run(context),
            Vm::Clone(verb) => verb.run(context),
            Vm::Rename(verb) => verb.run(context),
            Vm::Delete(verb) => verb.run(context),
            Vm::Start(verb) => verb.run(context),
            Vm::Stop(verb) => verb.run(context),
            Vm::Reset(verb) => verb.run(context),
            Vm::Pause(verb) => verb.run(context),
            Vm::Unpause(verb) => verb.run(context),
            Vm::Console(verb) => verb.run(context),
            Vm::Wait(verb) => verb.run(context),
            Vm::Stats(verb) => verb.run(context),
        }
    }
}
