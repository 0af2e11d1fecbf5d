//! OVF: the envelope that describes machines and the files they come with (DSP0243 1.x and 2.x, and
//! VMware's 0.9 before it), its manifest, and the way to and from a [`Machine`](crate::machine).
//!
//! [`Envelope::parse`] reads one and refuses what contradicts itself; [`System::machine`] says which
//! machine it is. Nothing here opens a file: names of files are what the text says, and whoever
//! opens them does it through the gate. Extensions of products (`vbox:Machine`, vCloud's sections)
//! are told of and not read. Certificates (`.cert`) are not checked.

mod check;
mod guest;
mod hardware;
mod machine;
pub mod manifest;
mod names;
mod product;
mod read;
mod system;
#[cfg(test)]
mod tests;
pub mod units;
mod write;
mod xml;

use std::collections::BTreeMap;

use crate::oddities::Oddities;

pub use manifest::{Manifest, ManifestEntry};
pub use write::{STREAM_OPTIMIZED, WrittenDisk, WrittenFile, not_written, write, write_with_nvram};
pub use xml::MAX_BYTES;
#[cfg(test)]
pub(crate) use xml::parse as check_well_formed;

/// Returns as many sentences as anybody will read.
fn readable(sentences: Vec<String>) -> Vec<String> {
    let mut oddities = Oddities::default();
    for sentence in sentences {
        oddities.push(sentence);
    }
    oddities.into_sentences()
}

/// Which OVF an envelope is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// VMware's draft, and oVirt's dialect of it.
    V09,
    /// DSP0243 1.x.
    V1,
    /// DSP0243 2.x.
    V2,
}

/// What an envelope says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its version.
    pub version: Version,
    /// The files it comes with, in the order of the text.
    pub files: Vec<File>,
    /// The disks it describes, in the order of the text.
    pub disks: Vec<Disk>,
    /// The networks that its machines are plugged into.
    pub networks: Vec<Network>,
    /// The sizes among which one may choose.
    pub deployment_options: Vec<DeploymentOption>,
    /// Licences that hold for the whole, or for a collection.
    pub licenses: Vec<String>,
    /// What is said of the software as a whole, or of a collection.
    pub products: Vec<Product>,
    /// Its machines, in the order of the text; none in an empty collection.
    pub systems: Vec<System>,
    /// What is odd about it but harms nobody, for people.
    pub oddities: Vec<String>,
}

impl Envelope {
    /// Returns the disk of this id.
    pub fn disk(&self, id: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.id == id)
    }

    /// Returns the file of this id.
    pub fn file(&self, id: &str) -> Option<&File> {
        self.files.iter().find(|file| file.id == id)
    }
}

/// A file that comes with the envelope (`References`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What the rest of the text calls it.
    pub id: String,
    /// Its name: relative to the envelope, or a URL. Percent signs are as the text has them.
    pub href: String,
    /// Its length in bytes, if the text says it.
    pub size: Option<u64>,
    /// How it is compressed.
    pub compression: FileCompression,
    /// If it is cut to pieces: bytes of each but the last. The pieces are called like the file,
    /// with `.000000000` and so on behind.
    pub chunk_bytes: Option<u64>,
}

/// How a file is compressed, whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileCompression {
    /// Not at all.
    #[default]
    None,
    /// With gzip.
    Gzip,
}

/// A disk (`DiskSection`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What the machines call it.
    pub id: String,
    /// What the guest sees.
    pub capacity: Capacity,
    /// Its content; none for an empty disk.
    pub file: Option<File>,
    /// A URI that says what kind of file that is; empty where nobody said.
    pub format: String,
    /// Bytes in use, if the text says it.
    pub populated_bytes: Option<u64>,
    /// The disk that it is a delta of.
    pub parent: Option<String>,
}

/// The virtual size of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capacity {
    /// In bytes.
    Bytes(u64),
    /// What a property's value says (`${key}`), counted in units of so many bytes.
    Property {
        /// The property's key.
        key: String,
        /// Bytes of one.
        unit_bytes: u64,
    },
}

/// A network that machines are plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// A size that one may choose (`DeploymentOptionSection`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentOption {
    /// Its name in the text.
    pub id: String,
    /// Its name for people.
    pub label: String,
    /// What it is good for.
    pub description: String,
    /// Whether it is meant where nobody chooses.
    pub is_default: bool,
}

/// What is said of the software inside (`ProductSection`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Product {
    /// `class`: what its properties' keys begin with.
    pub class: String,
    /// `instance`: what its properties' keys end with.
    pub instance: String,
    /// The product's name.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// What one may set.
    pub properties: Vec<Property>,
}

/// Something that one may set before the first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its key in the section.
    pub key: String,
    /// Its key in the whole text: class, key and instance with dots between (DSP0243, 9.5.1).
    pub full_key: String,
    /// Its type by the text's name.
    pub kind: String,
    /// Its value, where nobody sets another.
    pub value: Option<String>,
    /// Values for one deployment option each, by its id.
    pub values: BTreeMap<String, String>,
    /// The deployment options that it exists in; empty for all.
    pub configurations: Vec<String>,
    /// Whether people are meant to set it.
    pub user_configurable: bool,
    /// Whether it should not be shown.
    pub is_password: bool,
    /// The heading it stands under.
    pub category: String,
    /// Its name for people.
    pub label: String,
    /// What it is for.
    pub description: String,
}

/// A machine (`VirtualSystem`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// What the text calls it.
    pub id: String,
    /// Its name for people; the id where it has none.
    pub name: String,
    /// The note that people keep with it.
    pub annotation: String,
    /// The guest system.
    pub guest: Option<Guest>,
    /// What is said of the software inside.
    pub products: Vec<Product>,
    /// Licences.
    pub licenses: Vec<String>,
    /// Its hardware, one for each family of products that may run it; at least one.
    pub hardware: Vec<Hardware>,
    /// What to start from, first to last: VMware's kind of device and the item's id.
    pub boot_order: Vec<BootEntry>,
    /// Names of sections that this reader does not know.
    pub unknown_sections: Vec<String>,
}

/// The guest system (`OperatingSystemSection`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// CIM's number for it (`CIM_OperatingSystem.OsType`).
    pub id: Option<u16>,
    /// VMware's name for it ("ubuntu64Guest").
    pub vmware: Option<String>,
    /// What it is called.
    pub description: String,
}

/// One device to start from (`vmw:BootOrderSection`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// "disk", "cdrom", "net" or "floppy".
    pub kind: String,
    /// The item's id.
    pub item: String,
}

/// The hardware of a machine (`VirtualHardwareSection`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Families of products that it is for: "vmx-13", "virtualbox-2.2".
    pub families: Vec<String>,
    /// Its parts.
    pub items: Vec<Item>,
    /// Settings of VMware's products (`vmw:Config`), key and value.
    pub config: Vec<(String, String)>,
    /// Lines for the VMX (`vmw:ExtraConfig`), key and value.
    pub extra_config: Vec<(String, String)>,
    /// How the guest is to be told of its properties ("com.vmware.guestInfo", "iso").
    pub transports: Vec<String>,
}

/// A part of the hardware (`Item`, `StorageItem`, `EthernetPortItem`). Texts are without blanks
/// around them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Its id in the section (`InstanceID`).
    pub id: String,
    /// CIM's number of its kind: 3 processors, 4 memory, 10 Ethernet, 17 disk.
    pub resource_type: u16,
    /// Its models, best first.
    pub models: Vec<String>,
    /// Its name for people.
    pub name: String,
    /// Where it is, for a controller or network card.
    pub address: Option<String>,
    /// Where it is on its parent.
    pub address_on_parent: Option<String>,
    /// The item it hangs on.
    pub parent: Option<String>,
    /// What of the host's or the package's it uses.
    pub host_resources: Vec<String>,
    /// The networks it is plugged into.
    pub connections: Vec<String>,
    /// How much of it.
    pub quantity: Option<u64>,
    /// What is counted.
    pub units: String,
    /// How much is kept for it, in `units`.
    pub reservation: Option<u64>,
    /// How much it never gets more than, in `units`.
    pub limit: Option<u64>,
    /// Its weight against others.
    pub weight: Option<u32>,
    /// Whether it is connected when the machine starts, where the text says.
    pub is_connected: Option<bool>,
    /// Whether it gives the least or the most that the machine works with.
    pub bound: Option<Bound>,
    /// The deployment options that it is for; empty for all.
    pub configurations: Vec<String>,
    /// Settings of VMware's products.
    pub config: Vec<(String, String)>,
    /// VMware's cores that share a socket; 0 for all of them.
    pub cores_per_socket: Option<u32>,
    /// The line of the text that it begins on.
    pub line: u32,
}

/// An item's place in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The least.
    Min,
    /// The most.
    Max,
}

/// What somebody chose of what an envelope offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choices {
    /// A deployment option's id; none for the one that the text prefers.
    pub deployment: Option<String>,
    /// Values of properties by key, the short or the full one.
    pub properties: BTreeMap<String, String>,
}
