//! A machine as JSON: everything that its text says of it.

use hako_formats::machine::{
    Controller, DiskMode, Drive, Machine, Medium, Network, Nic, SerialPort, Share, Weight,
};
use serde_json::{Value, json};

/// Returns the whole machine.
pub fn machine_json(machine: &Machine) -> Value {
    json!({
        "name": machine.name,
        "hardware_version": machine.hardware_version,
        "guest_os": machine.guest_os,
        "firmware": machine.firmware.name(),
        "secure_boot": machine.secure_boot,
        "cpus": machine.cpu.count,
        "cores_per_socket": machine.cpu.cores_per_socket,
        "memory": machine.memory_bytes,
        "controllers": machine.controllers.iter().map(controller_json).collect::<Vec<_>>(),
        "drives": machine.drives.iter().map(drive_json).collect::<Vec<_>>(),
        "nics": machine.nics.iter().map(nic_json).collect::<Vec<_>>(),
        "serial_ports": machine.serial_ports.iter().map(serial_json).collect::<Vec<_>>(),
        "annotation": machine.annotation,
        "bios_uuid": machine.bios_uuid.map(|uuid| uuid.to_string()),
        "boot_order": machine.boot_order.iter().map(|device| device.name()).collect::<Vec<_>>(),
        "cpu_share": share_json(machine.cpu_share, "mhz"),
        "memory_share": share_json(machine.memory_share, "mib"),
        "direct_boot": machine.direct_boot.as_ref().map(|boot| json!({
            "kernel": boot.kernel,
            "initrd": boot.initrd,
            "cmdline": boot.cmdline,
        })),
    })
}

fn controller_json(controller: &Controller) -> Value {
    json!({
        "bus": controller.bus.name(),
        "number": controller.number,
        "model": controller.model,
    })
}

fn drive_json(drive: &Drive) -> Value {
    let (kind, file) = match &drive.medium {
        Medium::Disk(disk) => ("disk", disk.file.as_str()),
        Medium::CdImage { file } => ("cd-image", file.as_str()),
        Medium::CdDevice { device } => ("cd-device", device.as_str()),
        Medium::CdEmpty => ("cd-empty", ""),
        Medium::Other { kind, file } => (kind.as_str(), file.as_str()),
    };
    let mut value = json!({
        "node": drive.node.to_string(),
        "kind": kind,
        "file": file,
        "connected": drive.connected,
    });
    if let Medium::Disk(disk) = &drive.medium {
        value["recorded_format"] = json!(disk.format);
        value["mode"] = json!(DiskMode::name(disk.mode));
        value["physical"] = json!(disk.physical);
    }
    value
}

fn nic_json(nic: &Nic) -> Value {
    let (network, name) = match &nic.network {
        Network::Bridged => ("bridged", None),
        Network::Nat => ("nat", None),
        Network::HostOnly => ("hostonly", None),
        Network::Custom(name) => ("custom", Some(name)),
        Network::PortGroup(name) => ("port-group", Some(name)),
    };
    json!({
        "number": nic.number,
        "model": nic.model,
        "network": network,
        "network_name": name,
        "mac": nic.mac.map(|mac| mac.to_string()),
        "mac_is_static": nic.mac_is_static,
        "connected": nic.connected,
    })
}

fn serial_json(port: &SerialPort) -> Value {
    json!({"number": port.number, "kind": port.kind, "target": port.target})
}

/// A share, its unit in the names.
fn share_json(share: Share, unit: &str) -> Value {
    let mut value = json!({});
    value[format!("reservation_{unit}")] = json!(share.reservation);
    value[format!("limit_{unit}")] = json!(share.limit);
    value["shares"] = match share.weight {
        None => Value::Null,
        Some(Weight::Custom(number)) => number.into(),
        Some(named) => named.to_string().into(),
    };
    value
}
