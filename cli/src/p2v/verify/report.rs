//! What is kept and shown of a verification.

use std::path::Path;

use hako_block::gate::replace_file;
use hako_block::{Error, Result};
use hako_converter::p2v::verify::{Check, Verdict};
use hako_vm::Vm;
use serde_json::{Value, json};

use super::boot::Booted;
use crate::context::Context;
use crate::output::Out;

/// All that there is to say.
pub struct Report<'a> {
    pub vm: &'a Vm,
    pub folder: &'a Path,
    pub verdict: Verdict,
    pub checks: &'a [Check],
    pub booted: Option<&'a Booted>,
}

impl Report<'_> {
    /// Writes it into its folder, over that of an earlier run.
    pub fn keep(&self) -> Result<()> {
        let failed = |error| Error::io("make", error).in_file(self.folder);
        std::fs::create_dir_all(self.folder).map_err(failed)?;
        let json = format!("{:#}\n", self.json());
        let heard = self.booted.map(|booted| &booted.heard);
        let files = [
            ("report.json", Some(json.as_bytes())),
            ("console.log", heard.map(|heard| heard.console.as_slice())),
            ("guest.log", heard.map(|heard| heard.report.as_slice())),
            ("screen.txt", heard.map(|heard| heard.screen.as_bytes())),
        ];
        for (name, bytes) in files {
            let path = self.folder.join(name);
            match bytes {
                Some(bytes) => replace_file(&path, bytes)?,
                // Of an earlier run.
                None => drop(std::fs::remove_file(&path)),
            }
        }
        Ok(())
    }

    /// Prints it.
    pub fn show(&self, context: &Context) -> Result<()> {
        let mut out = Out::new();
        if context.json {
            out.json(&self.json())?;
            return out.finish();
        }
        for check in self.checks {
            let (outcome, about) = (check.outcome.name(), check.about.name());
            out.line(&format!("{outcome:12}{about:12} {}", check.name))?;
            for note in &check.notes {
                out.line(&format!("    {note}"))?;
            }
        }
        let name = self.vm.name();
        out.line(&format!("{name}: {}", self.verdict.name()))?;
        out.line(&format!("kept in {}", self.folder.display()))?;
        out.finish()
    }

    fn json(&self) -> Value {
        let boot = self.booted.map(|booted| {
            json!({
                "seconds": booted.heard.took.as_secs_f64(),
                "resets": booted.heard.n_resets,
                "addresses": booted.heard.addresses.iter().map(|(node, address)| {
                    json!({"node": node, "address": address.to_string()})
                }).collect::<Vec<_>>(),
                "notes": booted.heard.notes,
            })
        });
        json!({
            "vm": self.vm.name(),
            "vmx": self.vm.path().to_string_lossy(),
            "verdict": self.verdict.name(),
            "folder": self.folder.to_string_lossy(),
            "boot": boot,
            "checks": self.checks.iter().map(check_json).collect::<Vec<_>>(),
        })
    }
}

fn check_json(check: &Check) -> Value {
    json!({
        "about": check.about.name(),
        "name": check.name,
        "outcome": check.outcome.name(),
        "notes": check.notes,
    })
}
