//! What the host has: QEMU, and what runs the guest's code.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hako_block::{Error, ErrorKind, Result};

use super::super::host::kvm_lacks;
use super::plan::{Accelerator, MachineTypes};

/// Machines as of this version of QEMU, the oldest that is driven: a guest sees the same hardware
/// whichever QEMU runs it.
const PC: &str = "pc-i440fx-7.2";
const Q35: &str = "pc-q35-7.2";

/// Returns the program to use and its machines. Errors: [`ErrorKind::NotFound`] with the package
/// that has it.
pub(super) fn qemu(programs: &[PathBuf]) -> Result<(PathBuf, MachineTypes)> {
    for program in programs {
        let mut command = Command::new(program);
        command.args(["-machine", "help"]).stdin(Stdio::null());
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("start", error).in_file(program)),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                return Ok((program.clone(), machine_types(&text)));
            }
        }
    }
    Err(Error::new(ErrorKind::NotFound, "QEMU is not installed")
        .hint("install the package qemu-system-x86 (Debian, Ubuntu, Fedora) or qemu-base (Arch)"))
}

/// Distributions may have machines of their own instead of QEMU's.
fn machine_types(help: &str) -> MachineTypes {
    let has = |name: &str| {
        let mut names = help
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        names.any(|found| found == name)
    };
    let choose = |name: &str, plain: &str| match has(name) {
        true => name.to_owned(),
        false => plain.to_owned(),
    };
    MachineTypes {
        pc: choose(PC, "pc"),
        q35: choose(Q35, "q35"),
    }
}

/// Returns what can run a guest's code here, and why it is not the processor.
pub(super) fn accelerator() -> (Accelerator, Option<String>) {
    match kvm_lacks() {
        None => (Accelerator::Kvm, None),
        Some(why) => {
            let slow = format!("the guest runs without KVM, many times slower: {why}");
            (Accelerator::Tcg, Some(slow))
        }
    }
}

/// Returns the programs that QEMU is looked for as, the usual first.
pub(super) fn usual_programs() -> Vec<PathBuf> {
    ["qemu-system-x86_64", "/usr/libexec/qemu-kvm"]
        .map(PathBuf::from)
        .to_vec()
}

/// Returns where descriptions of firmware are, the administrator's first.
pub(super) fn usual_firmware_folders() -> Vec<PathBuf> {
    let folders = [
        "/etc/qemu/firmware",
        "/usr/share/qemu/firmware",
        "/usr/local/share/qemu/firmware",
    ];
    folders.map(|folder| Path::new(folder).to_owned()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_of_one_version_where_they_are_there() {
        let help = "Supported machines are:\npc  Standard PC (alias of pc-i440fx-10.0)\n\
                    pc-i440fx-7.2  Standard PC\nq35  Standard PC\n";
        let types = machine_types(help);
        assert_eq!(
            (types.pc.as_str(), types.q35.as_str()),
            ("pc-i440fx-7.2", "q35")
        );
    }
}
