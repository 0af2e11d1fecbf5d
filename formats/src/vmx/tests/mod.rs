//! Tests of the typed view of VMX.

mod create;
mod edit;
mod read;
mod real;

use super::*;
use crate::machine::{DiskMedium, Drive, Medium, Network, Nic, Node};

fn parsed(text: &str) -> Vmx {
    Vmx::parse(text.as_bytes()).unwrap()
}

fn node(text: &str) -> Node {
    text.parse().unwrap()
}

fn disk(at: &str, file: &str) -> Drive {
    Drive {
        node: node(at),
        medium: Medium::Disk(DiskMedium {
            file: file.to_owned(),
            ..DiskMedium::default()
        }),
        connected: true,
    }
}

fn cd(at: &str, medium: Medium) -> Drive {
    Drive {
        node: node(at),
        medium,
        connected: false,
    }
}

fn nic(number: u8, network: Network) -> Nic {
    Nic {
        number,
        model: Some("vmxnet3".to_owned()),
        network,
        mac: None,
        mac_is_static: false,
        connected: true,
    }
}
