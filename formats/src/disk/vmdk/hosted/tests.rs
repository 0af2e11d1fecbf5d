//! Extents in memory and on disk, against the conformance suite and qemu-img.

use std::ops::Range;
use std::sync::Arc;

use hako_block::testkit::{CheckReport, Effort, FaultFolder, Subject, Traits, conformance};
use hako_block::{
    Access, BlockImage, ImageInfo, Outputs, ParentLink, Resolver, Result, Sink, Storage,
};

use super::{HostedArgs, HostedCreate, HostedSink, check, open};
use crate::disk::vmdk::header::{HEADER_BYTES, SparseHeader};
use crate::disk::{Allocation, Findings, Severity};

pub(super) const GRAIN: u64 = 65536;

fn header_of(storage: &dyn Storage) -> Result<SparseHeader> {
    let mut bytes = [0; HEADER_BYTES];
    storage.read_at(0, &mut bytes)?;
    SparseHeader::decode(&bytes, "header")
}

pub(super) fn args(
    storage: Arc<dyn Storage>,
    access: Access,
    has_parent: bool,
) -> Result<HostedArgs> {
    Ok(HostedArgs {
        header: header_of(&*storage)?,
        storage,
        access,
        has_parent,
    })
}

pub(super) fn create(storage: Arc<dyn Storage>, capacity: u64) -> HostedCreate {
    HostedCreate {
        storage,
        capacity_bytes: capacity,
        grain_bytes: GRAIN,
        descriptor: Some(descriptor(capacity)),
        zeroed_grains: false,
        allocation: Allocation::Thin,
    }
}

/// The least that readers want of an embedded descriptor.
pub(super) fn descriptor(capacity: u64) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"monolithicSparse\"\n\n# Extent description\n\
         RW {} SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
         ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"20\"\n\
         ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n",
        capacity / 512
    )
    .into_bytes()
}

fn texts(findings: &Findings, severity: Severity) -> Vec<String> {
    let found = findings.list.iter();
    found
        .filter(|finding| finding.severity == severity)
        .map(|finding| finding.text.clone())
        .collect()
}

/// An extent as the suite sees it.
struct Extent {
    zeroed_grains: bool,
    grain: u64,
    allocation: Allocation,
}

impl Subject for Extent {
    fn name(&self) -> String {
        format!(
            "hosted extent, grain {}, zeroed {}, {:?}",
            self.grain, self.zeroed_grains, self.allocation
        )
    }

    fn traits(&self) -> Traits {
        Traits {
            writable: true,
            overlay: self.zeroed_grains,
            may_refuse_after_cut: false,
        }
    }

    fn extension(&self) -> &str {
        "vmdk"
    }

    fn create(
        &self,
        folder: &FaultFolder,
        name: &str,
        size: u64,
        parent: Option<ParentLink>,
    ) -> Result<Box<dyn Sink>> {
        let has_parent = parent.is_some();
        Ok(Box::new(HostedSink::new(HostedCreate {
            grain_bytes: self.grain,
            zeroed_grains: self.zeroed_grains && has_parent,
            allocation: self.allocation,
            ..create(folder.create(name)?, size)
        })?))
    }

    fn open(
        &self,
        folder: &FaultFolder,
        name: &str,
        access: Access,
    ) -> Result<Arc<dyn BlockImage>> {
        let storage = folder.open(name, access)?.storage;
        let is_overlay = header_of(&*storage)?.has_zeroed_grains();
        let extent = open(args(storage, access, is_overlay)?)?;
        let mut info = extent.info().clone();
        info.parent = is_overlay.then(|| ParentLink {
            name: "parent".to_owned(),
            format: None,
            ..ParentLink::default()
        });
        Ok(Arc::new(Described { extent, info }))
    }

    fn check(&self, folder: &FaultFolder, name: &str) -> Result<Option<CheckReport>> {
        let storage = folder.open(name, Access::ReadOnly)?.storage;
        let mut findings = Findings::default();
        check(args(storage, Access::ReadOnly, false)?, &mut findings)?;
        Ok(Some(CheckReport {
            corruptions: texts(&findings, Severity::Corruption),
            n_leaks: findings.n_leaks,
        }))
    }
}

/// An extent with what its descriptor would say.
struct Described {
    extent: Box<dyn BlockImage>,
    info: ImageInfo,
}

impl BlockImage for Described {
    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.extent.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<hako_block::Extent> {
        self.extent.next_extent(offset)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.extent.write_at(offset, buf)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.extent.write_zeroes(range)
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.extent.discard(range)
    }

    fn flush(&self) -> Result<()> {
        self.extent.flush()
    }
}

#[test]
fn thin_extent_conforms() {
    conformance(
        &Extent {
            zeroed_grains: true,
            grain: GRAIN,
            allocation: Allocation::Thin,
        },
        // Every state of these large grains is checked byte by byte; small ones have their turn
        // below.
        Effort {
            n_steps: 20,
            n_cut_variants: 2,
            n_faults: 10,
            ..Effort::QUICK
        },
    );
}

#[test]
fn extent_of_small_grains_conforms() {
    conformance(
        &Extent {
            zeroed_grains: true,
            grain: 4096,
            allocation: Allocation::Thin,
        },
        Effort::QUICK,
    );
}
