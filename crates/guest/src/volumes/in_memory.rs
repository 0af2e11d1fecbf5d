//! Volumes that are made of file systems in memory, for tests.

use std::sync::Arc;

use hako_block::Uuid;

use super::identify::Inside;
use super::{Content, FoundVolume, Origin, Role, Volumes};
use crate::fs::FileSystem;
use crate::partitions::{Partition, PartitionKind, TableKind};

/// The type of a partition for any file system of Linux.
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

impl Volumes {
    /// Returns volumes without any disk.
    pub fn in_memory() -> Self {
        Self::none()
    }

    /// Adds a disk with a GPT whose partitions hold these file systems. A partition's PARTUUID is
    /// `DISK-NUMBER`, both as digits; its type is given, or that of any Linux file system.
    #[must_use]
    pub fn disk(mut self, parts: Vec<(Option<&str>, Arc<dyn FileSystem>)>) -> Self {
        let origins = self.found.iter().map(|found| &found.origin);
        let index = origins
            .filter(|origin| matches!(origin, Origin::Disk(_)))
            .count();
        let of = self.found.len();
        self.push(Origin::Disk(index), "disk", None);
        for (number, (kind, fs)) in (1..).zip(parts) {
            let kind = kind.unwrap_or(LINUX);
            let partition = Partition {
                number,
                start: u64::from(number) << 30,
                len: 1 << 30,
                kind: Uuid::parse(kind).map_or(PartitionKind::Mbr(0x83), PartitionKind::Gpt),
                uuid: format!("{index}-{number}"),
                label: String::new(),
                bootable: false,
            };
            let table = TableKind::Gpt;
            let origin = Origin::Partition {
                of,
                table,
                partition,
            };
            self.push(origin, "p", Some(fs));
        }
        self
    }

    /// Adds a logical volume `vg0/NAME` with that identity.
    #[must_use]
    pub fn logical(mut self, name: &str, uuid: &str, fs: Arc<dyn FileSystem>) -> Self {
        let origin = Origin::Logical {
            group: "vg0".into(),
            name: name.into(),
            uuid: uuid.into(),
            kind: "linear".into(),
        };
        self.push(origin, "", Some(fs));
        self.rename(format!("vg0/{name}"));
        self
    }

    /// Adds an array `mdN` with that identity.
    #[must_use]
    pub fn array(mut self, number: u32, uuid: &str, fs: Arc<dyn FileSystem>) -> Self {
        let origin = Origin::Array {
            level: "raid1".into(),
            uuid: uuid.into(),
            metadata: "1.2",
            n_members: 2,
            n_missing: 0,
        };
        self.push(origin, "", Some(fs));
        self.rename(format!("md{number}"));
        self
    }

    fn rename(&mut self, name: String) {
        if let Some(last) = self.found.last_mut() {
            last.name = name;
        }
    }

    fn push(&mut self, origin: Origin, name: &str, fs: Option<Arc<dyn FileSystem>>) {
        let info = fs.as_ref().map(|fs| fs.info().clone());
        let content = Content {
            role: match fs {
                Some(_) => Role::FileSystem,
                None => Role::Partitions,
            },
            kind: info.as_ref().map_or("gpt", |info| info.kind),
            label: info
                .as_ref()
                .map(|info| info.label.clone())
                .unwrap_or_default(),
            uuid: info.map(|info| info.uuid).unwrap_or_default(),
            file_system: fs,
            inside: Inside::Nothing,
            ..Content::default()
        };
        self.found.push(FoundVolume {
            name: format!("{name}{}", self.found.len()),
            origin,
            volume: None,
            len_bytes: 1 << 30,
            content,
            remarks: Vec::new(),
            below: Vec::new(),
            depth: 0,
        });
    }
}
