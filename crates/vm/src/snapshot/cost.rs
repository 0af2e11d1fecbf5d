//! What merging an overlay will take.

use hako_block::{BlockImage, ExtentKind, Result, extents};
use hako_disk::stored_at;

use super::journal::Merge;
use super::name::ImageName;
use crate::Vm;

/// What a merge takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Bytes that the overlay stores, which are moved.
    pub data_bytes: u64,
    /// Bytes by which the image below may grow, at most about that.
    pub growth_bytes: u64,
}

impl Merge {
    /// Finds out what it will take. No file is locked for that.
    pub(crate) fn cost(&self, vm: &Vm) -> Result<Cost> {
        let layer = |image: &ImageName| {
            let mut subject = image.subject(vm)?;
            subject.open.rules.no_lock = true;
            subject.open_layer()
        };
        let (overlay, into) = (layer(&self.child)?, layer(&self.parent)?);
        measure(&*overlay.image, &*into.image)
    }
}

/// Images grow by units; what is larger than this is a sparse place in the file.
const LARGEST_UNIT: u64 = 64 << 10;

fn measure(overlay: &dyn BlockImage, into: &dyn BlockImage) -> Result<Cost> {
    let unit = into.info().unit_bytes.clamp(512, LARGEST_UNIT);
    let mut cost = Cost::default();
    let mut counted = 0;
    for extent in extents(overlay) {
        let extent = extent?;
        if extent.kind == ExtentKind::Data {
            cost.data_bytes += extent.len;
            let mut inside = extent.offset;
            while inside < extent.end() {
                let (end, is_stored) = stored_at(into, inside, extent.end())?;
                if !is_stored {
                    let start = (inside / unit * unit).max(counted);
                    counted = end.next_multiple_of(unit).max(counted);
                    cost.growth_bytes += counted.saturating_sub(start);
                }
                inside = end;
            }
        }
    }
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::World;

    #[test]
    fn what_the_image_below_stores_already_does_not_make_it_grow() {
        const PIECE: u64 = 64 << 10;
        let world = World::new();
        world.image("web.qcow2", None);
        world.write("web.qcow2", &[0, 1], 1);
        world.image("web-000001.qcow2", Some("web.qcow2"));
        world.write("web-000001.qcow2", &[1, 2, 9], 2);
        world.vmx(&["web-000001.qcow2"]);
        let image = |file: &str| ImageName {
            file: file.to_owned(),
            format: "qcow2".to_owned(),
        };
        let merge = Merge {
            child: image("web-000001.qcow2"),
            parent: image("web.qcow2"),
        };
        let cost = merge.cost(&world.vm()).unwrap();
        let expected = Cost {
            data_bytes: 3 * PIECE,
            growth_bytes: 2 * PIECE,
        };
        assert_eq!(cost, expected);
    }
}
