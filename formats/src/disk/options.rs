//! What a user can choose when an image is created.

use hako_block::{Error, Result};

/// How much space a new image takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocation {
    /// Only what is written: holes stay holes.
    #[default]
    Thin,
    /// Space is reserved, zeros are not written.
    Lazy,
    /// Space is reserved and zeros are written.
    Eager,
}

/// How data is compressed in formats that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zlib / deflate.
    Zlib,
    /// zstd.
    Zstd,
}

/// The virtual disk controller that a VMDK descriptor names (ddb.adapterType).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adapter {
    /// IDE: 16 heads.
    Ide,
    /// BusLogic SCSI.
    BusLogic,
    /// LSI Logic SCSI: what VMware uses for SCSI, SAS and SATA alike.
    #[default]
    LsiLogic,
    /// ESX's own old SCSI.
    LegacyEsx,
    /// Paravirtual SCSI, as some descriptors in the wild have it.
    PvScsi,
}

impl Adapter {
    /// Every adapter, in the order to show them.
    pub const ALL: [Adapter; 5] = [
        Adapter::LsiLogic,
        Adapter::BusLogic,
        Adapter::Ide,
        Adapter::LegacyEsx,
        Adapter::PvScsi,
    ];

    /// Returns the word that descriptors use.
    pub fn name(self) -> &'static str {
        match self {
            Adapter::Ide => "ide",
            Adapter::BusLogic => "buslogic",
            Adapter::LsiLogic => "lsilogic",
            Adapter::LegacyEsx => "legacyESX",
            Adapter::PvScsi => "pvscsi",
        }
    }
}

/// What the user chose; `None` is the format's default. A driver refuses a choice it does not
/// have with [`CreateOptions::refuse_others`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// The variant, by its name in the registry (any case).
    pub subformat: Option<String>,
    /// How much space to take at once.
    pub allocation: Allocation,
    /// Allocation unit in bytes: qcow2's cluster, VMDK's grain.
    pub unit_bytes: Option<u64>,
    /// How to compress.
    pub compression: Option<Compression>,
    /// Compression level, in the codec's own scale.
    pub level: Option<u32>,
    /// Size of a sector as the guest sees it, in bytes: 512 or 4096.
    pub sector_bytes: Option<u32>,
    /// The controller named in a VMDK descriptor.
    pub adapter: Option<Adapter>,
    /// The virtual hardware version named in a VMDK descriptor.
    pub hw_version: Option<u32>,
    /// Most bytes of the disk in one extent file of a split sparse VMDK, a multiple of 1 MiB; as
    /// VMware splits if not said. Others have no use for it.
    pub extent_bytes: Option<u64>,
    /// What a VMDK's identities are made from instead of chance, for one that must come out twice
    /// the same. Others have no use for it.
    pub seed: Option<u64>,
}

impl CreateOptions {
    /// Refuses every choice whose option name is not in `known`, so that none is ignored silently.
    /// Names: "allocation", "unit", "compression", "level", "sector-size",
    /// "adapter", "hw-version".
    pub fn refuse_others(&self, format: &str, known: &[&str]) -> Result<()> {
        let chosen = [
            ("allocation", self.allocation != Allocation::Thin),
            ("unit", self.unit_bytes.is_some()),
            (
                "compression",
                self.compression
                    .is_some_and(|kind| kind != Compression::None),
            ),
            ("level", self.level.is_some()),
            ("sector-size", self.sector_bytes.is_some()),
            ("adapter", self.adapter.is_some()),
            ("hw-version", self.hw_version.is_some()),
        ];
        match chosen
            .iter()
            .find(|(name, chosen)| *chosen && !known.contains(name))
        {
            Some((name, _)) => Err(Error::invalid(format!("{format} has no option --{name}"))),
            None => Ok(()),
        }
    }
}
