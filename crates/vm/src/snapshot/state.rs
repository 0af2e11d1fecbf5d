//! What a snapshot keeps besides disks: the machine's configuration, and memory.

use hako_block::{Access, ErrorKind, Result};
use hako_formats::vmsd::Snapshot;
use hako_formats::vmsn::Vmsn;
use hako_formats::vmx::{Encryption, Vmx};

use crate::Vm;
use crate::vm::read_text;

/// Returns whether a snapshot has the memory of a machine that ran: beside its state, or in it.
pub(super) fn has_memory(vm: &Vm, snapshot: &Snapshot) -> bool {
    let Some(file) = &snapshot.state_file else {
        return false;
    };
    let beside = file
        .rsplit_once('.')
        .map(|(stem, _)| format!("{stem}.vmem"));
    let is_there = |name: String| {
        let opened = vm.open_file(&name, Access::ReadOnly, &vm.rules(true));
        opened.is_ok_and(|opened| opened.storage.len_bytes().is_ok_and(|len| len > 0))
    };
    beside.is_some_and(is_there)
        || matches!(read_state(vm, snapshot), Ok(Some(state)) if state.has_memory)
}

/// Returns the machine's configuration at a snapshot: what was kept with it, else what is in the
/// state of a VMware product; none if neither has it.
pub(crate) fn config(vm: &Vm, snapshot: &Snapshot) -> Result<Option<Vmx>> {
    let kept = match &snapshot.config {
        Some(file) => match vm.open_file(file, Access::ReadOnly, &vm.rules(true)) {
            Ok(opened) => read_text(opened.storage.name().as_ref())?,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    let text = match kept {
        Some(text) => Some(text),
        None => read_state(vm, snapshot)?.and_then(|state| state.config),
    };
    let Some(text) = text else { return Ok(None) };
    let vmx = Vmx::parse(&text)?;
    Ok(Some(vmx).filter(|vmx| vmx.encryption() != Encryption::Full))
}

/// Reads the state of a VMware product; none if there is none that is understood.
fn read_state(vm: &Vm, snapshot: &Snapshot) -> Result<Option<Vmsn>> {
    let Some(file) = &snapshot.state_file else {
        return Ok(None);
    };
    let opened = match vm.open_file(file, Access::ReadOnly, &vm.rules(true)) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match Vmsn::read(&*opened.storage) {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error.in_file(opened.storage.name())),
    }
}
