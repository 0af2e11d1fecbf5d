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

/// Work with virtual machines: what they are made of, and running them
///
/// A machine is named by its name in the inventory (its display name or the name of its folder),
/// or by the path of its .vmx. The inventory is in $HAKO_HOME, else in /var/lib/hako for root and
/// in ~/.local/share/hako for others. A machine that runs is locked: what would change or copy it is
/// refused.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Vm {
    Create(Box<create::Create>),
    List(list::List),
    Info(info::Info),
    Set(Box<set::Set>),
    Register(register::Register),
    Unregister(unregister::Unregister),
    Import(Box<import::Import>),
    Export(Box<export::Export>),
    Clone(Box<clone::Clone>),
    Rename(rename::Rename),
    Delete(delete::Delete),
    Start(run::start::Start),
    Stop(run::stop::Stop),
    Reset(run::reset::Reset),
    Pause(run::pause::Pause),
    Unpause(run::unpause::Unpause),
    Console(run::console::Console),
    Wait(run::wait::Wait),
    Stats(run::stats::Stats),
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
