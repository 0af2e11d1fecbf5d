//! `hako vm register`: a machine that is there already.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hako_block::Result;
use serde_json::json;

use super::home::home;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm register ~/vmware/web/web.vmx
  hako vm register /srv/vms/mail --name post --allow-path /srv/images

Exit status:
  0    done
  1    failed, or it is listed already
  2    wrong usage
  4    the VMX is corrupt
  5    it runs or is suspended, and --name would change it
  6    there is no such .vmx";

/// List a machine that exists in the inventory
///
/// Nothing is copied or moved, and without --name nothing is changed.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Register {
    /// Its .vmx, or the folder with it
    #[arg(value_hint = ValueHint::AnyPath)]
    path: PathBuf,

    /// Give it this display name
    #[arg(long)]
    name: Option<String>,

    /// Let the machine and its images name files below DIR, now and later (repeatable)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    allow_path: Vec<PathBuf>,
}

impl Register {
    /// Registers it.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let name = self.name.as_deref();
        let vm = hako_vm::register(&home()?, &self.path, name, &self.allow_path)?;
        if context.json {
            let mut out = Out::new();
            out.json(&json!({"name": vm.name(), "vmx": vm.path().to_string_lossy()}))?;
            out.finish()?;
        }
        context.summary(&format!(
            "{}: registered as {}",
            vm.path().display(),
            vm.name()
        ));
        Ok(Exit::Done)
    }
}
