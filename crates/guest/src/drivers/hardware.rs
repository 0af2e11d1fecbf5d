//! Virtual hardware that a kernel may need a driver for.

/// Virtual hardware, by the driver that Linux has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hardware {
    /// The bus of all virtio devices.
    VirtioPci,
    /// virtio's disks.
    VirtioBlk,
    /// virtio's SCSI controller.
    VirtioScsi,
    /// virtio's network card.
    VirtioNet,
    /// VMware's SCSI controller.
    Pvscsi,
    /// VMware's network card.
    Vmxnet3,
    /// SATA.
    Ahci,
    /// IDE of Intel's PIIX.
    AtaPiix,
    /// NVMe.
    Nvme,
    /// LSI Logic parallel SCSI.
    Mptspi,
    /// LSI Logic SAS.
    Mptsas,
    /// Intel's network card 8254x.
    E1000,
    /// Intel's network card 82574.
    E1000e,
    /// Disks of anything that speaks SCSI, SATA among them.
    SdMod,
    /// CD drives of the same.
    SrMod,
}

impl Hardware {
    /// All of it.
    pub const ALL: &[Self] = &[
        Self::VirtioPci,
        Self::VirtioBlk,
        Self::VirtioScsi,
        Self::VirtioNet,
        Self::Pvscsi,
        Self::Vmxnet3,
        Self::Ahci,
        Self::AtaPiix,
        Self::Nvme,
        Self::Mptspi,
        Self::Mptsas,
        Self::E1000,
        Self::E1000e,
        Self::SdMod,
        Self::SrMod,
    ];

    /// Returns its name, for JSON and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtioPci => "virtio-pci",
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
            Self::VirtioNet => "virtio-net",
            Self::Pvscsi => "pvscsi",
            Self::Vmxnet3 => "vmxnet3",
            Self::Ahci => "ahci",
            Self::AtaPiix => "ata_piix",
            Self::Nvme => "nvme",
            Self::Mptspi => "mptspi",
            Self::Mptsas => "mptsas",
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::SdMod => "sd_mod",
            Self::SrMod => "sr_mod",
        }
    }

    /// Returns the name of its module in Linux.
    pub fn module(self) -> &'static str {
        match self {
            Self::VirtioPci => "virtio_pci",
            Self::VirtioBlk => "virtio_blk",
            Self::VirtioScsi => "virtio_scsi",
            Self::VirtioNet => "virtio_net",
            Self::Pvscsi => "vmw_pvscsi",
            _ => self.name(),
        }
    }

    /// Returns what the kernel calls the device by, for `modules.alias`: vendor and device of PCI
    /// or virtio, the class where the driver goes by that.
    pub(super) fn modalias(self) -> &'static str {
        match self {
            Self::VirtioPci => "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00",
            Self::VirtioBlk => "virtio:d00000002v00001AF4",
            Self::VirtioScsi => "virtio:d00000008v00001AF4",
            Self::VirtioNet => "virtio:d00000001v00001AF4",
            Self::Pvscsi => "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00",
            Self::Vmxnet3 => "pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00",
            Self::Ahci => "pci:v000015ADd000007E0sv000015ADsd000007E0bc01sc06i01",
            Self::AtaPiix => "pci:v00008086d00007111sv000015ADsd00001976bc01sc01i8a",
            Self::Nvme => "pci:v000015ADd000007F0sv000015ADsd000007F0bc01sc08i02",
            Self::Mptspi => "pci:v00001000d00000030sv000015ADsd00001976bc01sc00i00",
            Self::Mptsas => "pci:v00001000d00000054sv000015ADsd00001976bc01sc07i00",
            Self::E1000 => "pci:v00008086d0000100Fsv000015ADsd00000750bc02sc00i00",
            Self::E1000e => "pci:v00008086d000010D3sv000015ADsd000007D0bc02sc00i00",
            Self::SdMod => "scsi:t-0x00",
            Self::SrMod => "scsi:t-0x05",
        }
    }

    /// Returns whether the root file system may hang on it, so that its driver must be there before
    /// that is mounted.
    pub fn is_for_root(self) -> bool {
        !matches!(
            self,
            Self::VirtioNet | Self::Vmxnet3 | Self::E1000 | Self::E1000e | Self::SrMod
        )
    }
}
