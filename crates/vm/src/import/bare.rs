//! A machine around a disk.

use std::path::Path;
use std::sync::Arc;

use hako_block::Result;
use hako_formats::machine::{
    Bus, Controller, DiskMedium, Drive, Machine, Medium, Network, Nic, Node,
};
use hako_formats::{OpenOptions, open_chain};

use super::incoming::{Content, Incoming, NewDisk, Text};
use crate::guest::{DEFAULT_GUEST_OS, guest_defaults};

/// Finds out what is to be written: hardware that the guest system has drivers for, with the disk
/// at `path`.
pub(super) fn incoming(
    path: &Path,
    guest_os: Option<&str>,
    open: &OpenOptions,
) -> Result<Incoming> {
    let chain = open_chain(path, open)?;
    let guest_os = guest_os.unwrap_or(DEFAULT_GUEST_OS);
    let defaults = guest_defaults(guest_os);
    let node = Node {
        bus: defaults.disk_bus,
        controller: 0,
        unit: 0,
    };
    let machine = Machine {
        name: stem(path),
        guest_os: Some(guest_os.to_owned()),
        firmware: defaults.firmware,
        cpu: defaults.cpu,
        memory_bytes: defaults.memory_bytes,
        controllers: vec![Controller {
            bus: node.bus,
            number: 0,
            model: (node.bus == Bus::Scsi).then(|| defaults.scsi_model.to_owned()),
        }],
        drives: vec![Drive {
            node,
            medium: Medium::Disk(DiskMedium::default()),
            connected: true,
        }],
        nics: vec![Nic {
            number: 0,
            model: Some(defaults.nic_model.to_owned()),
            network: Network::Nat,
            mac: None,
            mac_is_static: false,
            connected: true,
        }],
        ..Machine::default()
    };
    Ok(Incoming {
        text: Text::Machine(Box::new(machine)),
        disks: vec![NewDisk {
            node,
            content: Content::Image(Arc::new(chain.chain)),
            capacity: None,
            checks: Vec::new(),
            shape: None,
        }],
        left_out: Vec::new(),
        files: Vec::new(),
        warnings: Vec::new(),
        is_verified: false,
        held: None,
    })
}

/// Returns a file's name without its extension.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}
