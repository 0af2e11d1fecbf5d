//! What to call devices by whose names change with the hardware.

use hako_guest::root::{Place as Where, fstab};
use hako_guest::{FoundVolume, Origin, Role, Volumes};

use super::Guest;
use super::places::{MULTIPATH, Place, is_number};
use super::words::{with_values, words};

/// What a device that a text names is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Device {
    /// Named by what it is, or not a device of this machine: the name stays.
    Stays,
    /// Better called so.
    By(String),
    /// It is on none of the disks.
    Missing,
    /// Nobody can tell which it is.
    Unclear(String),
}

/// Where a system is mounted that says for certain which disk a name means.
const CERTAIN: &[&str] = &["/", "/boot", "/boot/efi"];

/// Names of devices as the server knew them, next to what is on the disks that are here.
pub(super) struct Names<'a> {
    volumes: &'a Volumes,
    /// What the system was found in.
    root: Option<&'a FoundVolume>,
    /// What its texts name, and where they mount it, if they do.
    named: Vec<(String, String)>,
    /// Names that crypttab gives.
    opened: Vec<String>,
}

impl<'a> Names<'a> {
    /// Reads the names that the system's texts have.
    pub(super) fn of(guest: &Guest<'a>) -> Self {
        let mut names = Self {
            volumes: guest.volumes,
            root: guest.root.volume(guest.volumes),
            named: Vec::new(),
            opened: Vec::new(),
        };
        let table = guest.bytes("/etc/fstab");
        let lines = fstab::parse(&table.unwrap_or_default()).into_iter();
        // A drive for disks that are put in and out is not counted with those that stay.
        let is_disk = |line: &fstab::Line| {
            let is_optical = line.kind.contains("iso9660") || line.target.contains("cdrom");
            Where::of(&line.kind) == Where::Disk && !is_optical
        };
        let lines = lines.filter(is_disk);
        names.named = lines.map(|line| (line.source, line.target)).collect();
        let has_root = names
            .anchors()
            .any(|(name, _)| Place::of(name).is_some_and(|place| place.is_counted()));
        if let Some(entry) = guest.menu.default_entry().filter(|_| !has_root) {
            with_values(&entry.options, "root=", |value| {
                names.named.push((value.to_owned(), "/".to_owned()));
                None
            });
        }
        for line in guest.text("/etc/crypttab").unwrap_or_default().lines() {
            let mut words = words(line);
            if let (Some(name), Some(source)) = (words.next(), words.next()) {
                names.opened.push(name.to_owned());
                names.named.push((source.to_owned(), String::new()));
            }
        }
        names
    }

    /// Says what to call a device by. `kind`: the file system that is said to be in it; empty or `auto`
    /// if nothing is said. `target`: where it is mounted; empty if nothing is said.
    pub(super) fn resolve(&self, name: &str, kind: &str, target: &str) -> Device {
        let volume = match self.find(name, target) {
            Ok(volume) => volume,
            Err(device) => return device,
        };
        let there = volume.content.kind;
        let is_other = !matches!(kind, "" | "auto") && !same_kind(kind, there);
        if is_other {
            let but = match there {
                "" => "does not".to_owned(),
                _ => format!("holds {there}"),
            };
            let what = format!("{name} is said to hold {kind}, and {} {but}", volume.name);
            return Device::Unclear(what);
        }
        if let Some(what) = self.clash(name, volume, target) {
            return Device::Unclear(what);
        }
        match identity(self.volumes, volume) {
            Some(identity) => Device::By(identity),
            None => Device::Unclear(format!("{name} has no UUID to be called by")),
        }
    }

    /// Returns what the kernel itself, without an initrd, can find a device by: its partition's UUID.
    pub(super) fn by_partition(&self, name: &str, target: &str) -> Option<String> {
        let uuid = &self.find(name, target).ok()?.partition()?.uuid;
        (!uuid.is_empty()).then(|| format!("PARTUUID={uuid}"))
    }

    /// Returns the volume that is called by its place; what else it is, if it is not.
    fn find(&self, name: &str, target: &str) -> Result<&'a FoundVolume, Device> {
        let wanted = match Place::of(name) {
            Some(place) => match self.doubt(name, &place, target) {
                Some(what) => return Err(Device::Unclear(what)),
                None => place.wanted(),
            },
            None if is_array(name) => {
                let number = name.strip_prefix("/dev/md/").filter(|rest| is_number(rest));
                Some(number.map_or(name.to_owned(), |number| format!("/dev/md{number}")))
            }
            None if name.starts_with("/dev/dm-") => None,
            None => return Err(self.by_name(name)),
        };
        let Some(wanted) = wanted else {
            let what = format!("{name} cannot be told from the disks alone");
            return Err(Device::Unclear(what));
        };
        let found = self.volumes.find(&wanted);
        found.into_iter().next().ok_or(Device::Missing)
    }

    /// Says why nobody can tell which disk here is that of a place.
    fn doubt(&self, name: &str, place: &Place<'_>, target: &str) -> Option<String> {
        let is_same = |other: &Place<'_>| {
            other.family == place.family && (place.is_counted() || other.disk == place.disk)
        };
        let own = self.anchors().filter_map(|(name, _)| Place::of(name));
        let own: Vec<Place<'_>> = own.filter(is_same).collect();
        if own.iter().any(|anchor| !self.is_root(anchor)) {
            return Some(format!(
                "{name} cannot be told: the system's own volume is not where it was, so the disks are \
                 in another order than the server's, or not all of them are here"
            ));
        }
        let is_certain = match place.is_counted() {
            true => self.is_only_family(place) || own.iter().any(|own| own.disk == place.disk),
            false => self.is_only_disk() && (CERTAIN.contains(&target) || self.is_known(place)),
        };
        (!is_certain).then(|| match place.is_counted() {
            true => format!("{name} cannot be told: the server had disks of other kinds besides"),
            false => format!("{name} cannot be told from the disks alone"),
        })
    }

    /// Returns what is mounted at `/`.
    fn anchors(&self) -> impl Iterator<Item = &(String, String)> {
        self.named.iter().filter(|(_, target)| target == "/")
    }

    fn is_root(&self, place: &Place<'_>) -> bool {
        let found = place.wanted().map(|wanted| self.volumes.find(&wanted));
        let found = found.unwrap_or_default();
        found.first().is_some_and(|volume| self.holds_root(volume))
    }

    /// Returns whether the system is in a volume; btrfs may be in several.
    fn holds_root(&self, volume: &FoundVolume) -> bool {
        let (there, is_shared) = (&volume.content, volume.content.kind == "btrfs");
        self.root.is_some_and(|root| {
            root.name == volume.name || (is_shared && root.content.uuid == there.uuid)
        })
    }

    fn places(&self) -> impl Iterator<Item = (Place<'_>, &str)> {
        let named = self.named.iter();
        named.filter_map(|(name, target)| Some((Place::of(name)?, target.as_str())))
    }

    /// Returns whether the server's texts count no other disks than those of this place.
    fn is_only_family(&self, place: &Place<'_>) -> bool {
        let mut others = self.places();
        !others.any(|(other, _)| other.is_counted() && other.family != place.family)
    }

    fn is_only_disk(&self) -> bool {
        let disks = self.volumes.list().iter();
        let is_disk = |found: &&FoundVolume| matches!(found.origin, Origin::Disk(_));
        disks.filter(is_disk).count() == 1
    }

    /// Returns whether it is known that a disk that is not counted is that of the system.
    fn is_known(&self, place: &Place<'_>) -> bool {
        let same = |other: &Place<'_>| other.family == place.family && other.disk == place.disk;
        let mut places = self.places();
        let is_own = places.any(|(other, target)| CERTAIN.contains(&target) && same(&other));
        // All disks of a server are multipath's, or none: a single one is that of the system.
        let is_single = place.family == MULTIPATH
            && self.places().all(|(other, _)| {
                other.family == place.family && (other.disk == place.disk || is_wwid(&other, place))
            });
        is_own || is_single
    }

    /// Says what is wrong with where a volume is mounted.
    fn clash(&self, name: &str, volume: &FoundVolume, target: &str) -> Option<String> {
        let root = self.root?;
        let here = &volume.name;
        let is_shared = volume.content.kind == "btrfs";
        match (target, self.holds_root(volume)) {
            ("/", false) => Some(format!(
                "{name} would be {here}, and the system is in {}",
                root.name
            )),
            (other, true) if !is_shared && other.len() > 1 && other.starts_with('/') => Some(
                format!("{name} would be {here}, where the system itself is"),
            ),
            _ => None,
        }
    }

    /// Says whether what is called by what it is, is there.
    fn by_name(&self, name: &str) -> Device {
        let mapped = name.strip_prefix("/dev/mapper/").unwrap_or_default();
        let is_opened = self.opened.iter().any(|opened| opened == mapped);
        let is_there = || !self.volumes.find(name).is_empty();
        let group = group_of(name);
        let has_group = |found: &FoundVolume| match &found.origin {
            Origin::Logical { group: own, .. } => group.as_ref() == Some(own),
            _ => false,
        };
        if !(is_tag(name) || group.is_some()) || is_opened || is_there() {
            return Device::Stays;
        }
        if self.volumes.list().iter().any(has_group) {
            return Device::Stays;
        }
        match self.unread() {
            Some(found) => Device::Unclear(format!(
                "{name} was not found, and may be in {}, which was not read",
                found.name
            )),
            None => Device::Missing,
        }
    }

    /// Returns a volume that may hold what was not seen: locked, incomplete or unknown.
    fn unread(&self) -> Option<&FoundVolume> {
        /// What is shorter holds no file system: a gap, or what a loader keeps for itself.
        const SHORT_BYTES: u64 = 16 << 20;
        let list = self.volumes.list();
        let lies_on = |at: usize| list.iter().any(|above| above.below.contains(&at));
        let mut all = list.iter().enumerate();
        let is_unread = |at: usize, found: &FoundVolume| match found.content.role {
            Role::Encrypted | Role::Member => !lies_on(at),
            Role::FileSystem => found.content.uuid.is_empty(),
            Role::Unknown => found.len_bytes > SHORT_BYTES,
            Role::Partitions | Role::Swap => false,
        };
        all.find(|(at, found)| is_unread(*at, found))
            .map(|(_, found)| found)
    }
}

/// Returns whether one of two names is a WWID, so that they may mean the same disk.
fn is_wwid(one: &Place<'_>, other: &Place<'_>) -> bool {
    one.disk.starts_with("mpath") != other.disk.starts_with("mpath")
}

/// Returns whether a name is a tag of what is in a volume or of a partition.
fn is_tag(name: &str) -> bool {
    const TAGS: &[&str] = &["UUID", "LABEL", "PARTUUID", "PARTLABEL"];
    let by = name.strip_prefix("/dev/disk/by-");
    let tag = match by {
        Some(by) => by.split_once('/'),
        None => name.split_once('='),
    };
    // A shell or a loader fills in what begins with `$`.
    tag.is_some_and(|(key, value)| {
        let key = match by {
            Some(_) => key.to_ascii_uppercase(),
            None => key.to_owned(),
        };
        TAGS.contains(&key.as_str()) && !value.is_empty() && !value.contains('$')
    })
}

/// Returns the volume group of a name that LVM gives: `/dev/mapper/GROUP-NAME`, `/dev/GROUP/NAME`.
fn group_of(name: &str) -> Option<String> {
    /// Folders that are not of LVM.
    const OTHERS: &[&str] = &[
        "ataraid", "block", "bus", "cciss", "char", "disk", "drbd", "etherd", "evms", "fd", "ida",
        "input", "loop", "mapper", "md", "net", "rbd", "rd", "shm", "stratis", "vx", "zvol",
    ];
    let device = name.strip_prefix("/dev/")?;
    if let Some(mapped) = device.strip_prefix("mapper/") {
        // A dash in a name is doubled; what is opened at boot is often called luks-UUID.
        let single = mapped.replace("--", "\0");
        let (group, volume) = single.split_once('-')?;
        let is_one = group != "luks" && !volume.contains('-');
        return is_one.then(|| group.replace('\0', "-"));
    }
    let (group, volume) = device.split_once('/')?;
    let is_one = !OTHERS.contains(&group) && !volume.contains('/');
    is_one.then(|| group.to_owned())
}

/// Returns whether a name is one that changes with the hardware.
pub(super) fn is_by_place(name: &str) -> bool {
    Place::of(name).is_some() || is_array(name) || name.starts_with("/dev/dm-")
}

/// Returns whether a name is that of an array of MD.
fn is_array(name: &str) -> bool {
    let array = name.strip_prefix("/dev/md");
    array.is_some_and(|rest| rest.starts_with(|c: char| c == '/' || c.is_ascii_digit()))
}

fn same_kind(said: &str, there: &str) -> bool {
    let family = |kind: &str| match kind {
        "ext2" | "ext3" | "ext4" => "ext",
        "msdos" | "vfat" | "fat" => "vfat",
        "ntfs" | "ntfs3" | "ntfs-3g" | "fuseblk" => "ntfs",
        _ => "",
    };
    said == there || (!family(said).is_empty() && family(said) == family(there))
}

/// Returns what only this volume is called by: its content's UUID, else its partition's.
fn identity(volumes: &Volumes, volume: &FoundVolume) -> Option<String> {
    let partition = volume
        .partition()
        .map(|part| part.uuid.as_str())
        .unwrap_or_default();
    let names = [
        ("UUID", volume.content.uuid.as_str()),
        ("PARTUUID", partition),
    ];
    names.into_iter().find_map(|(key, value)| {
        let name = format!("{key}={value}");
        (!value.is_empty() && volumes.find(&name).len() == 1).then_some(name)
    })
}
