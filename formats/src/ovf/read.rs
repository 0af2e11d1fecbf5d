//! Reads an envelope: its references, disks, networks and options, and which machines it has.

use std::collections::BTreeMap;

use hako_block::{Error, Result};

use super::machine::{DISK, LOGICAL_DISK, STORAGE_EXTENT};
use super::names::Space;
use super::units::{self, Base};
use super::xml::{self, Element};
use super::{
    Capacity, DeploymentOption, Disk, Envelope, File, FileCompression, Item, Network, Version,
    check, product, readable, system,
};

impl Envelope {
    /// Reads an envelope. Errors: [`hako_block::ErrorKind::Corrupt`] with the line for what is no
    /// envelope or contradicts itself; [`hako_block::ErrorKind::Unsupported`] for what a reader
    /// must know and this one does not, a document type definition, or an unknown encoding.
    pub fn parse(xml: &[u8]) -> Result<Envelope> {
        let root = xml::parse(xml)?;
        let mut envelope = Envelope {
            version: version(&root)?,
            files: Vec::new(),
            disks: Vec::new(),
            networks: Vec::new(),
            deployment_options: Vec::new(),
            licenses: Vec::new(),
            products: Vec::new(),
            systems: Vec::new(),
            oddities: Vec::new(),
        };
        let reader = Reader {
            strings: strings(&root),
            is_ovirt: root.space == Space::Ovf1 && envelope.version == Version::V09,
        };
        reader.sections(&root, &mut envelope)?;
        reader.content(&root, &mut envelope)?;
        check::envelope(&envelope)?;
        envelope.oddities = readable(std::mem::take(&mut envelope.oddities));
        Ok(envelope)
    }
}

/// What is needed to read any part of an envelope.
pub(super) struct Reader {
    /// Texts by their message ids.
    strings: BTreeMap<String, String>,
    /// Whether it is oVirt's dialect, which adds parts to CIM's namespace without saying that they
    /// may be passed over.
    pub(super) is_ovirt: bool,
}

impl Reader {
    /// Returns the text of a child, or the message that it refers to instead; without blanks
    /// around it.
    pub(super) fn text(&self, element: &Element, name: &str) -> String {
        element
            .named(name)
            .next()
            .map(|child| self.message(child))
            .unwrap_or_default()
    }

    /// Returns an element's own text, or the message that it refers to instead.
    pub(super) fn message(&self, element: &Element) -> String {
        let text = element.text.trim();
        let message = element
            .ovf("msgid")
            .filter(|_| text.is_empty())
            .and_then(|id| self.strings.get(id));
        message.map_or(text, |message| message.trim()).to_owned()
    }

    /// Reads what concerns all machines.
    fn sections(&self, root: &Element, envelope: &mut Envelope) -> Result<()> {
        let mut references = None;
        for child in &root.children {
            match child.section() {
                "References" => references = Some(child),
                "NetworkSection" => {
                    envelope.networks.extend(self.networks(child)?);
                }
                "DeploymentOptionSection" => {
                    envelope.deployment_options.extend(self.options(child)?);
                }
                "EulaSection" => envelope.licenses.push(self.text(child, "License")),
                "ProductSection" => envelope.products.push(product::read(self, child)?),
                "AnnotationSection"
                | "VirtualHardwareSection"
                | "OperatingSystemSection"
                | "ResourceAllocationSection" => {
                    return Err(child.wrong("belongs into a machine, not beside it"));
                }
                "DiskSection" | "VirtualSystem" | "VirtualSystemCollection" | "Strings" => {}
                other => envelope.oddities.push(child.not_read(other)),
            }
        }
        let references = references.ok_or_else(|| root.wrong("has no References"))?;
        for file in references.named("File") {
            envelope
                .files
                .push(read_file(file, &mut envelope.oddities)?);
        }
        for section in &root.children {
            if section.section() == "DiskSection" {
                self.disks(section, envelope)?;
            }
        }
        Ok(())
    }

    fn networks(&self, section: &Element) -> Result<Vec<Network>> {
        let read = |network: &Element| {
            Ok(Network {
                name: network.required("name")?,
                description: self.text(network, "Description"),
            })
        };
        section.named("Network").map(read).collect()
    }

    fn options(&self, section: &Element) -> Result<Vec<DeploymentOption>> {
        let read = |option: &Element| {
            Ok(DeploymentOption {
                id: option.required("id")?,
                label: self.text(option, "Label"),
                description: self.text(option, "Description"),
                is_default: option.ovf("default").is_some_and(is_true),
            })
        };
        section.named("Configuration").map(read).collect()
    }

    fn disks(&self, section: &Element, envelope: &mut Envelope) -> Result<()> {
        for child in &section.children {
            match child.name.as_str() {
                "Disk" => {
                    let disk = read_disk(child, envelope)?;
                    envelope.disks.push(disk);
                }
                "Info" => {}
                other => envelope.oddities.push(child.may_be_ignored(other)?),
            }
        }
        Ok(())
    }

    /// Reads the machines, alone or in collections of collections.
    fn content(&self, root: &Element, envelope: &mut Envelope) -> Result<()> {
        for child in &root.children {
            match child.section() {
                "VirtualSystem" => self.system(child, envelope)?,
                "VirtualSystemCollection" => self.collection(child, envelope)?,
                _ => {}
            }
        }
        let is_content = |child: &Element| {
            matches!(child.section(), "VirtualSystem" | "VirtualSystemCollection")
        };
        match root
            .children
            .iter()
            .filter(|child| is_content(child))
            .count()
        {
            0 => Err(root.wrong("describes no machine (VirtualSystem)")),
            1 => Ok(()),
            n => Err(root.wrong(&format!(
                "has {n} machines side by side, and they are in no VirtualSystemCollection"
            ))),
        }
    }

    fn system(&self, element: &Element, envelope: &mut Envelope) -> Result<()> {
        let mut system = system::read(self, element, &mut envelope.oddities)?;
        for item in system
            .hardware
            .iter_mut()
            .flat_map(|hardware| &mut hardware.items)
        {
            empty_disk(item, &mut envelope.disks)?;
        }
        envelope.systems.push(system);
        Ok(())
    }

    /// Collections nest no deeper than the text's elements may.
    fn collection(&self, element: &Element, envelope: &mut Envelope) -> Result<()> {
        element.required("id")?;
        for child in &element.children {
            match child.section() {
                "VirtualSystem" => self.system(child, envelope)?,
                "VirtualSystemCollection" => self.collection(child, envelope)?,
                "EulaSection" => envelope.licenses.push(self.text(child, "License")),
                "ProductSection" => envelope.products.push(product::read(self, child)?),
                "DiskSection" | "NetworkSection" => {
                    return Err(child.wrong("belongs into the Envelope, not into a collection"));
                }
                "Info" | "Name" | "AnnotationSection" => {}
                other => envelope.oddities.push(child.not_read(other)),
            }
        }
        Ok(())
    }
}

/// Says which OVF the root is, if it is one.
fn version(root: &Element) -> Result<Version> {
    if root.name != "Envelope" {
        return Err(root.wrong("is no OVF envelope"));
    }
    let version = match root.space {
        Space::Ovf09 => Version::V09,
        Space::Ovf1 if root.children.iter().any(|child| child.name == "Content") => Version::V09,
        // Some products forget to say what names without a prefix are.
        Space::Ovf1 | Space::None => Version::V1,
        Space::Ovf2 => Version::V2,
        _ => return Err(root.wrong("is in no namespace of OVF")),
    };
    if root.space == Space::Ovf09 {
        match root.ovf("version") {
            Some("0.9") => {}
            Some(other) => {
                let what =
                    format!("is of OVF 0.9 by its namespace, and of {other:?} by its version");
                return Err(root.wrong(&what));
            }
            None => return Err(root.wrong("does not say its version, as OVF 0.9 must")),
        }
    }
    Ok(version)
}

fn read_file(element: &Element, oddities: &mut Vec<String>) -> Result<File> {
    let compression = match element.ovf("compression").unwrap_or_default() {
        "" | "identity" => FileCompression::None,
        "gzip" => FileCompression::Gzip,
        other => {
            let what = format!("a file compressed with {other:?} cannot be read");
            return Err(Error::unsupported(what).place(element.place()));
        }
    };
    let chunk_bytes = element.number("chunkSize")?;
    if chunk_bytes == Some(0) {
        return Err(element.wrong("has pieces of 0 bytes"));
    }
    // Products write a negative size for one that they do not know.
    let is_unknown = |text: &str| text.strip_prefix('-').and_then(parse_number).is_some();
    let size = match element.ovf("size").is_some_and(is_unknown) {
        true => {
            oddities.push(format!("{} has a negative size", element.place()));
            None
        }
        false => element.number("size")?,
    };
    Ok(File {
        id: element.required("id")?,
        href: element.required("href")?,
        size,
        compression,
        chunk_bytes,
    })
}

fn read_disk(element: &Element, envelope: &Envelope) -> Result<Disk> {
    let id = element.required("diskId")?;
    let file = match element.ovf("fileRef").filter(|id| !id.is_empty()) {
        None => None,
        Some(wanted) => Some(find_file(element, wanted, envelope)?),
    };
    let disk = Disk {
        id,
        capacity: capacity(element)?,
        file,
        format: element.ovf("format").unwrap_or_default().to_owned(),
        populated_bytes: element.number("populatedSize")?,
        parent: element
            .ovf("parentRef")
            .filter(|parent| !parent.is_empty())
            .map(str::to_owned),
    };
    if let (Capacity::Bytes(capacity), Some(populated)) = (&disk.capacity, disk.populated_bytes)
        && populated > *capacity
    {
        let what = format!("has {populated} bytes in use of a capacity of {capacity}");
        return Err(element.wrong(&what));
    }
    Ok(disk)
}

/// An item may say the size of an empty disk instead of naming one of DiskSection (DSP0243, 8.3):
/// it gets a disk there.
fn empty_disk(item: &mut Item, disks: &mut Vec<Disk>) -> Result<()> {
    let is_disk = matches!(item.resource_type, DISK | STORAGE_EXTENT | LOGICAL_DISK);
    let (Some(quantity), true, true) = (item.quantity, is_disk, item.host_resources.is_empty())
    else {
        return Ok(());
    };
    let bytes = units::amount(quantity, &item.units, Base::Byte)
        .map_err(|error| error.place(item.place()))?;
    if !(1..=i64::MAX as u64).contains(&bytes) {
        return Err(item.wrong(&format!("is a disk of {bytes} bytes")));
    }
    let id = format!("empty-disk-{}", disks.len());
    item.host_resources.push(format!("ovf:/disk/{id}"));
    disks.push(Disk {
        id,
        capacity: Capacity::Bytes(bytes),
        file: None,
        format: String::new(),
        populated_bytes: None,
        parent: None,
    });
    Ok(())
}

/// A disk's file is named by its id; oVirt names it by its href.
fn find_file(element: &Element, wanted: &str, envelope: &Envelope) -> Result<File> {
    let by_href = || envelope.files.iter().find(|file| file.href == wanted);
    let found = envelope.file(wanted).or_else(by_href);
    found.cloned().ok_or_else(|| {
        element.wrong(&format!(
            "refers to the file {wanted:?}, which References lacks"
        ))
    })
}

/// Reads `capacity` and its units; oVirt has a `size` in GiB instead.
fn capacity(element: &Element) -> Result<Capacity> {
    let units = element.ovf("capacityAllocationUnits").unwrap_or_default();
    let unit_bytes =
        units::factor(units, Base::Byte).map_err(|error| error.place(element.place()))?;
    let (text, unit_bytes) = match (element.ovf("capacity"), element.ovf("size")) {
        (Some(text), _) => (text.trim(), unit_bytes),
        (None, Some(text)) => (text.trim(), 1 << 30),
        (None, None) => return Err(element.wrong("has no capacity")),
    };
    let key = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'));
    if let Some(key) = key {
        return Ok(Capacity::Property {
            key: key.to_owned(),
            unit_bytes,
        });
    }
    let number = parse_number(text)
        .ok_or_else(|| element.wrong(&format!("has a capacity of {text:?}, which is no number")))?;
    match number.checked_mul(unit_bytes) {
        Some(0) => Err(element.wrong("has a capacity of 0")),
        Some(bytes) if bytes <= i64::MAX as u64 => Ok(Capacity::Bytes(bytes)),
        _ => Err(element.wrong(&format!(
            "has a capacity of {text} {units}: more than 2^63 bytes"
        ))),
    }
}

/// Collects the messages of the text itself: English ones, where there are several languages.
/// Messages in files beside it are not read.
fn strings(root: &Element) -> BTreeMap<String, String> {
    let mut strings = BTreeMap::new();
    let is_english = |element: &Element| {
        let language = element.attribute(Space::Xml, "lang").unwrap_or("en");
        language.to_ascii_lowercase().starts_with("en")
    };
    let (english, others): (Vec<_>, Vec<_>) =
        root.named("Strings").partition(|bundle| is_english(bundle));
    for message in english
        .into_iter()
        .chain(others)
        .flat_map(|bundle| bundle.named("Msg"))
    {
        if let Some(id) = message.ovf("msgid") {
            strings
                .entry(id.to_owned())
                .or_insert_with(|| message.text.clone());
        }
    }
    strings
}

/// Reads a number without sign.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Reads `xs:boolean`, in any case.
pub(super) fn is_true(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("true") || text.trim() == "1"
}

impl Element {
    /// Returns which section it is. OVF 0.9 says it with `xsi:type`, whose prefix nobody binds
    /// rightly.
    pub(super) fn section(&self) -> &str {
        let name = self.name.as_str();
        if !self.space.is_ovf() {
            return match (name, self.space) {
                ("BootOrderSection", Space::Vmware) => name,
                ("Strings", _) => name,
                _ => "",
            };
        }
        if name != "Section" && name != "Content" {
            return name;
        }
        let kind = self.attribute(Space::Instance, "type").unwrap_or_default();
        let kind = kind.rsplit(':').next().unwrap_or_default();
        kind.strip_suffix("_Type").unwrap_or(kind)
    }

    /// Returns the value of an attribute of OVF's, of whatever version.
    pub(super) fn ovf(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|attribute| attribute.space.is_ovf() && attribute.name == name)
            .map(|attribute| attribute.value.as_str())
    }

    /// Returns the value of an attribute that must be there and not empty.
    pub(super) fn required(&self, name: &str) -> Result<String> {
        match self.ovf(name) {
            Some(value) if !value.trim().is_empty() => Ok(value.to_owned()),
            _ => Err(self.wrong(&format!("has no {name}"))),
        }
    }

    /// Returns an attribute that counts something, if it is there.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self
            .ovf(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        match parse_number(text) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(&format!("has a {name} of {text:?}, which is no number"))),
        }
    }

    /// Returns whether it says for people what it is, as every section must.
    pub(super) fn has_info(&self) -> bool {
        self.named("Info").next().is_some()
    }

    /// Returns where it is, for an error.
    pub(super) fn place(&self) -> String {
        format!("line {}: {}", self.line, self.shown_name())
    }

    /// Returns an error about it.
    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::corrupt(self.place(), what)
    }

    /// Says that a section is not read.
    pub(super) fn not_read(&self, section: &str) -> String {
        let name = match section {
            "" => self.shown_name(),
            name => xml::shorten(name),
        };
        format!("{name} (line {}) is not read", self.line)
    }

    /// Says that an element is not read, unless a reader must know it: of OVF's and CIM's own
    /// namespaces it may be passed over only if it says so itself (DSP0243, 8.1).
    pub(super) fn may_be_ignored(&self, name: &str) -> Result<String> {
        let own = self.space.is_ovf() || self.space == Space::Resource;
        let required = match self.ovf("required") {
            Some(value) => is_true(value),
            None => own,
        };
        match required {
            true => Err(Error::unsupported(format!(
                "{} must be known to the reader, and is not",
                xml::shorten(name)
            ))
            .place(self.place())),
            false => Ok(self.not_read(name)),
        }
    }

    fn shown_name(&self) -> String {
        match self.section() {
            "" => xml::shorten(&self.name),
            section => xml::shorten(section),
        }
    }
}
