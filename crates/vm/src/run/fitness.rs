//! Whether a machine may be started: not where what it writes would spoil what others stand on.

use hako_block::{Error, ErrorKind, Result};
use hako_formats::vmx::Encryption;

use super::StartOptions;
use crate::snapshot::{Trouble, findings};
use crate::{Home, Vm};

/// Refuses a machine whose disks would be written to below a snapshot or another machine. One whose
/// writes are discarded spoils nothing.
pub(super) fn refuse_unfit(home: &Home, vm: &Vm, options: &StartOptions) -> Result<()> {
    if options.discard_writes {
        return Ok(());
    }
    let spoils = [Trouble::HeldDisk, Trouble::SharedDisk, Trouble::HalfMerged];
    let mut found = findings(home, vm)?.into_iter();
    match found.find(|finding| spoils.contains(&finding.trouble)) {
        None => Ok(()),
        Some(finding) => Err(Error::new(ErrorKind::Invalid, finding.what)
            .place(finding.file)
            .in_file(vm.path())
            .hint(finding.advice)),
    }
}

/// Refuses a machine whose hardware nobody knows. What is encrypted beside that is told.
pub(super) fn refuse_encrypted(vm: &Vm, notes: &mut Vec<String>) -> Result<()> {
    match vm.vmx.encryption() {
        Encryption::Full => Err(Error::unsupported("the configuration is encrypted")
            .in_file(vm.path())
            .hint("remove the encryption with the product that encrypted it")),
        Encryption::Partial => {
            notes
                .push("what is encrypted in the VMX, like a TPM's secrets, is not used".to_owned());
            Ok(())
        }
        Encryption::None => Ok(()),
    }
}
