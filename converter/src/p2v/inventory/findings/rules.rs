//! What there is to say: how bad it is, what programs call it, and what to do about it.

use super::super::model::{Finding, Level};

/// Something to say: its level, code and advice.
pub(super) struct Rule {
    level: Level,
    code: &'static str,
    advice: &'static str,
}

impl Rule {
    pub(super) fn found(&self, about: &str, what: impl Into<String>) -> Finding {
        Finding {
            level: self.level,
            code: self.code.to_owned(),
            about: about.to_owned(),
            what: what.into(),
            advice: self.advice.to_owned(),
        }
    }
}

const fn rule(level: Level, code: &'static str, advice: &'static str) -> Rule {
    Rule {
        level,
        code,
        advice,
    }
}

pub(super) const SECTORS: Rule = rule(
    Level::Blocker,
    "sectors-4096",
    "VMDK has sectors of 512 bytes, and the partition table counts in larger ones: move the files to a disk of \
     512-byte sectors first",
);
pub(super) const HIBERNATED: Rule = rule(
    Level::Blocker,
    "hibernated",
    "start it once more and shut it down; a resume on other hardware loses what was in memory",
);
pub(super) const TPM: Rule = rule(
    Level::Blocker,
    "tpm-bound-luks",
    "add a passphrase (cryptsetup luksAddKey) before the move: the TPM stays behind",
);
pub(super) const NETWORK_KEY: Rule = rule(
    Level::Warning,
    "token-bound-luks",
    "see that a passphrase opens it too, in case what the token needs is not there after the move",
);
pub(super) const LUKS: Rule = rule(
    Level::Note,
    "luks",
    "it is copied as a whole; the passphrase is asked for on the machine's console",
);
pub(super) const BITLOCKER: Rule = rule(
    Level::Blocker,
    "bitlocker",
    "suspend or remove BitLocker before the move, and keep the recovery key",
);
pub(super) const ZFS: Rule = rule(
    Level::Blocker,
    "zfs",
    "hako reads no ZFS: it is copied as a whole, and what boots from it has to be adapted by hand",
);
pub(super) const STACKED: Rule = rule(
    Level::Blocker,
    "stacked-storage",
    "take it apart before the move: hako does not read it, and the copy needs all of its devices",
);
pub(super) const CACHED: Rule = rule(
    Level::Warning,
    "lvm-cache",
    "detach the cache before the move (lvconvert --uncache), or copy the fast device too",
);
pub(super) const MULTIPATH: Rule = rule(
    Level::Warning,
    "multipath",
    "the machine sees one disk: switch multipathd off there if no volume needs it any more",
);
pub(super) const SAN: Rule = rule(
    Level::Warning,
    "network-disk",
    "copy it to a disk of the machine, or give the machine its own way to it (iSCSI in the guest, raw mapping)",
);
pub(super) const SAN_ROOT: Rule = rule(
    Level::Blocker,
    "root-on-network-disk",
    "copy the disk to one of the machine, and take the network boot (iBFT, rd.iscsi) off the command line",
);
pub(super) const DEGRADED: Rule = rule(
    Level::Warning,
    "array-degraded",
    "repair the array first, or move the disk that is in sync",
);
pub(super) const UNREAD_ARRAY: Rule = rule(
    Level::Note,
    "array-copied-whole",
    "all its members are copied with all their blocks",
);
pub(super) const NO_FALLBACK: Rule = rule(
    Level::Warning,
    "no-efi-fallback",
    "the machine has no boot entry: hako p2v adapt writes \\EFI\\BOOT\\BOOTX64.EFI",
);
pub(super) const TWO_FIRMWARES: Rule = rule(
    Level::Note,
    "two-firmwares",
    "the plan takes that one; its line `firmware` changes it",
);
pub(super) const SECURE_BOOT: Rule = rule(
    Level::Note,
    "secure-boot",
    "switch it on in the machine too, or leave it off: a signed kernel starts either way",
);
pub(super) const HAS_TPM: Rule = rule(
    Level::Note,
    "tpm",
    "what is sealed to the TPM (keys, BitLocker, measured boot) is not in the copy",
);
pub(super) const KERNEL_NAMES: Rule = rule(
    Level::Warning,
    "kernel-names",
    "the name may be another disk's in the machine: hako p2v adapt writes its UUID instead",
);
pub(super) const REMOTE: Rule = rule(
    Level::Note,
    "remote-mount",
    "see that the machine reaches the server from its network",
);
pub(super) const ROOT_REMOTE: Rule = rule(
    Level::Blocker,
    "root-on-network",
    "there is no disk to copy: make the machine boot from the network as the server does",
);
pub(super) const VIRTUAL: Rule = rule(
    Level::Note,
    "virtual-already",
    "its own hypervisor's export is a shorter way (hako vm import)",
);
pub(super) const DATABASE: Rule = rule(
    Level::Note,
    "database",
    "stop it before the copy, or it recovers at its first start as after a power failure",
);
pub(super) const AGENT: Rule = rule(
    Level::Note,
    "hardware-agent",
    "it has nothing to watch in a machine: hako p2v adapt can mask it",
);
pub(super) const GUEST_AGENT: Rule = rule(
    Level::Note,
    "guest-agent",
    "it belongs to the hypervisor that is left: remove it after the move",
);
pub(super) const CLUSTER: Rule = rule(
    Level::Warning,
    "cluster",
    "take the node out of its cluster while it moves, and see to fencing, multicast and the shared address",
);
pub(super) const NESTED: Rule = rule(
    Level::Warning,
    "virtualization",
    "machines inside need nested virtualization; containers move as they are",
);
pub(super) const EXPORTS: Rule = rule(
    Level::Note,
    "exports",
    "clients see it vanish during the move; its address has to stay",
);
pub(super) const DONGLE: Rule = rule(
    Level::Warning,
    "usb-dongle",
    "a licence dongle has to be passed through, or put on the network",
);
pub(super) const GPU: Rule = rule(
    Level::Warning,
    "gpu",
    "it stays behind, unless the machine is given one",
);
pub(super) const SRIOV: Rule = rule(
    Level::Note,
    "sriov",
    "its virtual functions stay behind: what uses them needs another card",
);
pub(super) const WATCHDOG: Rule = rule(
    Level::Note,
    "hardware-watchdog",
    "see that nothing in the system waits for it",
);
pub(super) const IPMI: Rule = rule(
    Level::Note,
    "ipmi",
    "the management controller stays behind with its address and its log",
);
pub(super) const DHCP: Rule = rule(
    Level::Note,
    "dhcp",
    "it gets the same address if the machine keeps the MAC address, or the server is told the new one",
);
pub(super) const WINDOWS: Rule = rule(
    Level::Note,
    "windows",
    "keep the controller (SATA, NVMe) and card (e1000e) of the plan, whose drivers it has; others need theirs installed once it runs",
);
pub(super) const NO_SYSTEM: Rule = rule(
    Level::Warning,
    "no-system",
    "see that all disks of the machine are given, in its order",
);
pub(super) const REMARK: Rule = rule(Level::Note, "remark", "");
