//! Which disk a path leads to, by what disks say of themselves: their names may change at every boot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hako_block::{BlockImage, Result};
use hako_converter::p2v::adapt::volumes_of;
use hako_converter::p2v::inventory::{model, of_running};
use hako_converter::p2v::plan::model::Disk;
use hako_formats::{OpenOptions, open_chain};
use hako_guest::{Keys, Role};

/// What a disk says of itself; empty where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    pub virtual_size: u64,
    pub wwn: String,
    pub serial: String,
    pub table_uuid: String,
}

impl Identity {
    /// Looks at each of some disks: images, or block devices of this system.
    pub fn of_each(paths: &[&Path], options: &OpenOptions) -> Result<Vec<Self>> {
        let is_device = |path: &&Path| path.starts_with("/dev");
        let here = match paths.iter().any(is_device) {
            true => of_running(Path::new("/"), false, 0).disks,
            false => Vec::new(),
        };
        let all = paths.iter().map(|path| Self::of(path, options, &here));
        all.collect()
    }

    fn of(path: &Path, options: &OpenOptions, here: &[model::Disk]) -> Result<Self> {
        let chain = open_chain(path, options)?.chain;
        let virtual_size = chain.info().virtual_size;
        let image: Arc<dyn BlockImage> = Arc::new(chain);
        let volumes =
            volumes_of(&[image], &Keys::default()).map_err(|error| error.in_file(path))?;
        let disk = volumes.list().first();
        let has_table = disk.filter(|disk| disk.content.role == Role::Partitions);
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        let device = here.iter().find(|disk| Path::new(&disk.path) == real);
        let told =
            |value: fn(&model::Disk) -> &String| device.map(value).cloned().unwrap_or_default();
        Ok(Self {
            virtual_size,
            wwn: told(|disk| &disk.wwn),
            serial: told(|disk| &disk.serial),
            table_uuid: has_table.map_or_else(String::new, |disk| disk.content.uuid.clone()),
        })
    }

    /// Returns what a plan keeps of a disk.
    pub fn of_planned(disk: &Disk) -> Self {
        Self {
            virtual_size: disk.as_is_bytes,
            wwn: disk.wwn.clone(),
            serial: disk.serial.clone(),
            table_uuid: disk.table_uuid.clone(),
        }
    }

    /// Returns what it may be told by, what says most first.
    fn all(&self) -> [(&'static str, &str); 3] {
        [
            ("wwn", &self.wwn),
            ("serial", &self.serial),
            ("table_uuid", &self.table_uuid),
        ]
    }

    /// Whether this is a disk of a plan, by the first thing that both say; none if there is none.
    pub fn is(&self, disk: &Disk) -> Option<bool> {
        let planned = Self::of_planned(disk);
        let pairs = self.all().into_iter().zip(planned.all());
        let mut values = pairs.map(|((_, here), (_, there))| (here, there));
        let said = values.find(|(here, there)| !here.is_empty() && !there.is_empty());
        said.map(|(here, there)| here.eq_ignore_ascii_case(there))
    }

    /// Returns what it is told by, for people.
    pub fn shown(&self) -> String {
        let said = self
            .all()
            .into_iter()
            .filter(|(_, value)| !value.is_empty());
        let said: Vec<String> = said.map(|(key, value)| format!("{key} {value}")).collect();
        said.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_both_say_decides() {
        let plan = |said: &[(&str, &str)]| -> Disk {
            let mut disk = serde_json::json!({
                "source": "sda", "about": "", "action": "keep", "bytes": 1, "as_is_bytes": 1,
                "least_bytes": 1, "thin": true, "controller": "sata", "node": "sata0:0",
            });
            for (key, value) in said {
                disk[key] = (*value).into();
            }
            serde_json::from_value(disk).unwrap()
        };
        let here = Identity {
            virtual_size: 1,
            wwn: "naa.5000C500".into(),
            serial: "S1".into(),
            table_uuid: "192a32ad".into(),
        };
        let (wwn, table) = (("wwn", "naa.5000c500"), ("table_uuid", "192A32AD"));
        let other = ("serial", "S2");
        assert_eq!(here.is(&plan(&[])), None);
        assert_eq!(here.is(&plan(&[table])), Some(true));
        assert_eq!(here.is(&plan(&[other, table])), Some(false));
        assert_eq!(here.is(&plan(&[wwn, other])), Some(true));
        let image = Identity {
            table_uuid: "192a32ad".into(),
            ..Identity::default()
        };
        assert_eq!(image.is(&plan(&[wwn, table])), Some(true));
        assert_eq!(image.shown(), "table_uuid 192a32ad");
    }
}
