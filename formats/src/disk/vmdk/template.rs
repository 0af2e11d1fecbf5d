//! The text of a new descriptor, as VMware's products write it.

use std::fmt::Write;

use hako_block::identity::random_u64;
use hako_block::{ContentId, ParentLink, SECTOR_BYTES, Uuid};

use super::content_id::content_id_from;
use super::descriptor::NO_PARENT;
use crate::disk::Adapter;

/// Virtual hardware that every product of the last ten years takes.
pub const DEFAULT_HW_VERSION: u32 = 10;
/// toolsVersion when nothing is known of the guest.
const TOOLS_UNKNOWN: u32 = 2_147_483_647;
/// How VMware's own UUIDs begin; its products write this part in capitals.
const VMWARE_PREFIX: &str = "60 00 c2";
const GIB: u64 = 1 << 30;

/// What a new descriptor says.
pub struct Template<'a> {
    /// The value of createType.
    pub create_type: &'a str,
    /// Extent lines, in disk order.
    pub extent_lines: &'a [String],
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// The parent of an overlay.
    pub parent: Option<&'a ParentLink>,
    /// The controller.
    pub adapter: Adapter,
    /// Virtual hardware version.
    pub hw_version: u32,
    /// Whether to say that a flat file is thin, as ESXi does.
    pub thin_provisioned: bool,
    /// What identities are made from, instead of chance.
    pub seed: Option<u64>,
}

impl Template<'_> {
    /// Returns the text, with a content ID and UUID of its own.
    pub fn text(&self) -> String {
        let mut next = numbers(self.seed);
        let cid = content_id_from(&mut next, None, 8);
        let parent_cid = self.parent.and_then(|parent| match parent.content_id {
            Some(ContentId::Cid(id)) => Some(id),
            _ => None,
        });
        let mut text = format!(
            "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={cid:08x}\nparentCID={:08x}\ncreateType=\"{}\"\n",
            parent_cid.unwrap_or(NO_PARENT),
            self.create_type
        );
        if let Some(parent) = self.parent {
            line(
                &mut text,
                &format!("parentFileNameHint=\"{}\"", parent.name),
            );
        }
        line(&mut text, "\n# Extent description");
        for extent in self.extent_lines {
            line(&mut text, extent);
        }
        line(&mut text, "\n# The Disk Data Base\n#DDB\n");
        for (key, value) in self.disk_database(cid, next) {
            line(&mut text, &format!("ddb.{key} = \"{value}\""));
        }
        text
    }

    fn disk_database(
        &self,
        cid: u32,
        mut next: impl FnMut() -> u64,
    ) -> Vec<(&'static str, String)> {
        let (cylinders, heads, sectors) = geometry(self.adapter, self.virtual_size);
        let (high, low) = (next(), next() as u32);
        let mut database = vec![
            ("adapterType", self.adapter.name().to_owned()),
            ("geometry.cylinders", cylinders.to_string()),
            ("geometry.heads", heads.to_string()),
            ("geometry.sectors", sectors.to_string()),
            ("longContentID", format!("{high:016x}{low:08x}{cid:08x}")),
            ("toolsVersion", TOOLS_UNKNOWN.to_string()),
            ("uuid", uuid_text(new_uuid(next))),
            ("virtualHWVersion", self.hw_version.to_string()),
        ];
        if self.thin_provisioned {
            database.insert(5, ("thinProvisioned", "1".to_owned()));
        }
        database
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Returns cylinders, heads and sectors as VMware counts them: by adapter, and for SCSI by size.
pub fn geometry(adapter: Adapter, virtual_size: u64) -> (u64, u64, u64) {
    let (heads, sectors) = match adapter {
        Adapter::Ide => (16, 63),
        _ if virtual_size < GIB => (64, 32),
        _ if virtual_size < 2 * GIB => (128, 32),
        _ => (255, 63),
    };
    let cylinders = (virtual_size / SECTOR_BYTES / (heads * sectors)).max(1);
    let most = if adapter == Adapter::Ide {
        16383
    } else {
        u64::MAX
    };
    (cylinders.min(most), heads, sectors)
}

/// Returns numbers by chance, or those that follow from a seed (SplitMix64).
fn numbers(seed: Option<u64>) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        let Some(state) = &mut state else {
            return random_u64();
        };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Returns a new UUID, with VMware's own prefix.
fn new_uuid(mut next: impl FnMut() -> u64) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&next().to_le_bytes());
    bytes[8..].copy_from_slice(&next().to_le_bytes());
    bytes[..3].copy_from_slice(&[0x60, 0x00, 0xc2]);
    bytes[3] = 0x90 | (bytes[3] & 0x0f);
    Uuid(bytes)
}

/// Returns a UUID in VMware's form: blanks, one dash.
pub fn uuid_text(Uuid(bytes): Uuid) -> String {
    let half = |bytes: &[u8]| {
        let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        words.join(" ")
    };
    let text = format!("{}-{}", half(&bytes[..8]), half(&bytes[8..]));
    match text.strip_prefix(VMWARE_PREFIX) {
        Some(rest) => format!("{}{rest}", VMWARE_PREFIX.to_uppercase()),
        None => text,
    }
}
