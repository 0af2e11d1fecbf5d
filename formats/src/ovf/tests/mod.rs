//! Envelopes in small: what is read, what is refused and how it is said.

mod hardware;
mod refused;
mod written;
mod xml;

use super::{Choices, Envelope};
use crate::machine::Machine;

/// The namespaces of OVF 1.x as its own products declare them.
const NAMESPACES: &str = r#"xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf""#;

/// Returns an envelope of one machine: what stands before it, and its items.
fn envelope(before: &str, items: &str) -> String {
    envelope_of(before, &hardware_section(items))
}

fn hardware_section(items: &str) -> String {
    format!(
        "<VirtualHardwareSection><Info/><System><vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>{items}</VirtualHardwareSection>"
    )
}

/// Returns an envelope of one machine with these sections.
fn envelope_of(before: &str, sections: &str) -> String {
    let references = match before.contains("<References") {
        true => "",
        false => "<References/>",
    };
    format!(
        "<Envelope {NAMESPACES}>{references}{before}<VirtualSystem ovf:id=\"vm\"><Info/>{sections}</VirtualSystem></Envelope>"
    )
}

/// Returns an item: its id, its kind and its other parts.
fn item(id: u32, resource_type: u16, parts: &str) -> String {
    format!(
        "<Item><rasd:InstanceID>{id}</rasd:InstanceID><rasd:ResourceType>{resource_type}</rasd:ResourceType>{}</Item>",
        parts
            .replace("</", "</rasd:")
            .replace("<", "<rasd:")
            .replace("<rasd:/rasd:", "</rasd:")
    )
}

fn read(text: &str) -> Envelope {
    Envelope::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn machine(text: &str) -> (Machine, Vec<String>) {
    machine_with(text, &Choices::default())
}

fn machine_with(text: &str, choices: &Choices) -> (Machine, Vec<String>) {
    let envelope = read(text);
    envelope.systems[0].machine(&envelope, choices).unwrap()
}

/// Returns why a text is refused.
fn refusal(text: &str) -> String {
    match Envelope::parse(text.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("not refused: {text}"),
    }
}
