//! The screen, what is typed and pointed with, sound, and what QEMU has nothing for.

use std::net::IpAddr;

use hako_block::Result;
use serde_json::json;

use super::{Chipset, CommandLine, Wanted, slot, text, value};

/// The port of VNC's display 0.
const FIRST_PORT: u16 = 5900;

pub(super) fn add(line: &mut CommandLine, wanted: &Wanted<'_>, chipset: Chipset) -> Result<()> {
    let address = |slot: u8| format!("{slot:x}.0");
    line.arg("-display", "none");
    // VMware's own card is old in QEMU: today's Linux drivers refuse it.
    line.device(
        &json!({"driver": "VGA", "id": "screen", "bus": chipset.bus(),
                        "addr": address(slot::SCREEN)}),
    );
    add_vnc(line, wanted)?;
    let is_on = |device: &str| wanted.keys.is_true(&format!("{device}.present"));
    if is_on("usb") || is_on("ehci") || is_on("usb_xhci") {
        let driver = match is_on("usb_xhci") {
            true => "qemu-xhci",
            false => "piix3-usb-uhci",
        };
        line.device(&json!({"driver": driver, "id": "usb", "bus": chipset.bus(),
                            "addr": address(slot::USB)}));
        // It says where it points, so that the pointer is where the viewer's is.
        line.device(&json!({"driver": "usb-tablet", "id": "tablet", "bus": "usb.0"}));
    }
    if is_on("sound") {
        add_sound(line, wanted, chipset, &address(slot::SOUND));
    }
    warn_of_others(line, wanted);
    Ok(())
}

fn add_vnc(line: &mut CommandLine, wanted: &Wanted<'_>) -> Result<()> {
    let socket = text(&wanted.sockets.vnc)?;
    line.vnc = format!("unix:{socket}");
    let key = |name: &str| wanted.keys.value(&format!("RemoteDisplay.vnc.{name}"));
    if wanted.is_isolated || !wanted.keys.is_true("RemoteDisplay.vnc.enabled") {
        line.arg("-vnc", format!("unix:{}", value(socket)));
        return Ok(());
    }
    let port = key("port").map_or(Some(FIRST_PORT), |text| text.trim().parse().ok());
    let display = port.and_then(|port: u16| port.checked_sub(FIRST_PORT));
    let password = key("password").filter(|word| !word.is_empty());
    let has_unknown_password =
        key("key").is_some_and(|word| !word.is_empty()) && password.is_none();
    let Some(display) = display.filter(|_| !has_unknown_password) else {
        line.warn(match has_unknown_password {
            true => "the screen is on a socket only: its password is kept in a way that only \
                     VMware knows (RemoteDisplay.vnc.key)"
                .to_owned(),
            false => format!(
                "the screen is on a socket only: RemoteDisplay.vnc.port is no number from \
                 {FIRST_PORT} on"
            ),
        });
        line.arg("-vnc", format!("unix:{}", value(socket)));
        return Ok(());
    };
    let ip = key("ip").and_then(|text| text.trim().parse::<IpAddr>().ok());
    if ip.is_some_and(|ip| !ip.is_loopback()) || password.is_none() {
        let who = match password {
            Some(_) => "",
            None => ", and there is no password",
        };
        line.warn(format!("the screen is at 127.0.0.1 only{who}"));
    }
    let option = if password.is_some() {
        ",password=on"
    } else {
        ""
    };
    line.vnc = format!("127.0.0.1:{display}");
    line.arg("-vnc", format!("127.0.0.1:{display}{option}"));
    line.vnc_password = password;
    Ok(())
}

/// A guest finds its card, but nobody hears it: there is no way for sound from here.
fn add_sound(line: &mut CommandLine, wanted: &Wanted<'_>, chipset: Chipset, address: &str) {
    let model = wanted.keys.value("sound.virtualDev").unwrap_or_default();
    let driver = match model.trim().to_ascii_lowercase().as_str() {
        "hdaudio" => "intel-hda",
        "es1371" | "" => "ES1370",
        other => {
            let other: String = other.chars().take(40).collect();
            line.warn(format!("sound is left out: QEMU gets no {other:?}"));
            return;
        }
    };
    line.arg("-audiodev", "none,id=sound");
    let mut device = json!({"driver": driver, "id": "sound", "bus": chipset.bus(),
                            "addr": address});
    if driver == "ES1370" {
        device["audiodev"] = json!("sound");
    }
    line.device(&device);
    if driver == "intel-hda" {
        line.device(&json!({"driver": "hda-duplex", "bus": "sound.0", "audiodev": "sound"}));
    }
}

/// Devices that QEMU gets nothing for, by how their keys begin, and what is missing then.
const LEFT_OUT: [(&str, &str); 6] = [
    ("vtpm", "a TPM"),
    ("parallel", "a parallel port"),
    ("pcipassthru", "a PCI device of the host"),
    ("nvdimm", "a persistent memory"),
    ("sharedfolder", "a shared folder"),
    ("vwdt", "a watchdog"),
];

fn warn_of_others(line: &mut CommandLine, wanted: &Wanted<'_>) {
    let mut told: Vec<String> = Vec::new();
    for (key, _) in wanted.keys.entries() {
        let Some(device) = key
            .to_ascii_lowercase()
            .strip_suffix(".present")
            .map(str::to_owned)
        else {
            continue;
        };
        let kind = LEFT_OUT.iter().find(|(begin, _)| {
            let rest = device.strip_prefix(begin);
            rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if let Some((_, what)) = kind
            && wanted.keys.is_true(key)
            && !told.contains(&device)
        {
            line.warn(format!(
                "{device} is left out: the guest has not got {what}"
            ));
            told.push(device);
        }
    }
}
