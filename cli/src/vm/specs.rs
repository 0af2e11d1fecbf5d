//! Texts that stand for a part of a machine: `20G,bus=nvme`, `nat,model=e1000e`, `4,2`.

use std::path::PathBuf;

use hako_formats::format_named;
use hako_formats::machine::{Bus, DiskMode, Network, Weight};
use hako_vm::{CpuChange, DiskContent, ImageFile, NewDisk, NewNic};

use crate::size;

/// Reads `N` or `N,CORES_PER_SOCKET`.
pub fn cpus(text: &str) -> Result<CpuChange, String> {
    let number = |text: &str| match text.trim().parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{text:?} is no number of processors")),
    };
    let (count, cores) = match text.split_once(',') {
        Some((count, cores)) => (count, Some(cores)),
        None => (text, None),
    };
    Ok(CpuChange {
        count: number(count)?,
        cores_per_socket: cores.map(number).transpose()?,
    })
}

/// Reads `SIZE[,KEY=VALUE]…`: an empty disk.
pub fn empty_disk(text: &str) -> Result<NewDisk, String> {
    let (size, keys) = split(text, &DISK_KEYS)?;
    let virtual_size = size::parse(size)?;
    disk(DiskContent::Empty { virtual_size }, &keys)
}

/// Reads `FILE[,KEY=VALUE]…`: a copy of an image.
pub fn copied_disk(text: &str) -> Result<NewDisk, String> {
    let (image, keys) = image(text)?;
    disk(DiskContent::CopyOf(image), &keys)
}

/// Reads `FILE[,KEY=VALUE]…`: an image where it is.
pub fn attached_disk(text: &str) -> Result<NewDisk, String> {
    let (image, keys) = image(text)?;
    disk(DiskContent::InPlace(image), &keys)
}

/// Reads `none`, or `[bridged|nat|hostonly|network=NAME][,model=NAME][,mac=ADDRESS]`.
pub fn nic(text: &str) -> Result<Option<NewNic>, String> {
    if text == "none" {
        return Ok(None);
    }
    let mut nic = NewNic::default();
    for part in text.split(',') {
        match part.split_once('=').unwrap_or(("network", part)) {
            ("network", "") => return Err("a network without a name".to_owned()),
            ("network", name) => nic.network = network(name),
            ("model", model) => nic.model = Some(model.to_owned()),
            ("mac", address) => {
                nic.mac = Some(address.parse().map_err(|error| format!("{error}"))?);
            }
            (key, _) => return Err(format!("no key {key:?}: one of network, model, mac")),
        }
    }
    Ok(Some(nic))
}

/// Reads a weight against other machines.
pub fn weight(text: &str) -> Result<Weight, String> {
    match text.parse() {
        Ok(Weight::Custom(0)) | Err(_) => Err("low, normal, high or a number".to_owned()),
        Ok(weight) => Ok(weight),
    }
}

/// Reads `none` or what `parse` reads.
pub fn or_none<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match text {
        "none" => Ok(None),
        text => parse(text).map(Some),
    }
}

/// Returns the network of that name: VMware's own words, its virtual networks, a port group.
pub fn network(name: &str) -> Network {
    match name.to_ascii_lowercase().as_str() {
        "bridged" => Network::Bridged,
        "nat" => Network::Nat,
        "hostonly" => Network::HostOnly,
        lower if lower.starts_with("vmnet") => Network::Custom(name.to_owned()),
        _ => Network::PortGroup(name.to_owned()),
    }
}

/// Keys with their values.
type Keys<'a> = Vec<(&'a str, &'a str)>;

const DISK_KEYS: [&str; 7] = [
    "bus",
    "node",
    "controller",
    "mode",
    "format",
    "subformat",
    "file",
];
const IMAGE_KEYS: [&str; 8] = [
    "from",
    "bus",
    "node",
    "controller",
    "mode",
    "format",
    "subformat",
    "file",
];

fn image(text: &str) -> Result<(ImageFile, Keys<'_>), String> {
    let (path, keys) = split(text, &IMAGE_KEYS)?;
    let from = keys.iter().find(|(key, _)| *key == "from");
    let image = ImageFile {
        path: PathBuf::from(path),
        from: from.map(|(_, value)| (*value).to_owned()),
    };
    if let Some(format) = &image.from {
        format_named(format).map_err(|error| error.to_string())?;
    }
    Ok((image, keys))
}

fn disk(content: DiskContent, keys: &[(&str, &str)]) -> Result<NewDisk, String> {
    let mut disk = NewDisk::new(content);
    for (key, value) in keys {
        let text = (*value).to_owned();
        match *key {
            "bus" => disk.bus = Some(one_of(value, Bus::ALL, Bus::name)?),
            "node" => disk.node = Some(value.parse().map_err(|error| format!("{error}"))?),
            "controller" => disk.controller = Some(text),
            "mode" => disk.mode = one_of(value, DiskMode::ALL, DiskMode::name)?,
            "format" => {
                format_named(value).map_err(|error| error.to_string())?;
                disk.format = Some(text);
            }
            "subformat" => disk.subformat = Some(text),
            "file" => disk.file = Some(text),
            _ => (),
        }
    }
    Ok(disk)
}

/// Splits the keys off the end: what comes first may have commas in it, if it is a path.
fn split<'a>(text: &'a str, known: &[&str]) -> Result<(&'a str, Keys<'a>), String> {
    let mut keys: Keys<'_> = Vec::new();
    let mut rest = text;
    while let Some((before, part)) = rest.rsplit_once(',') {
        let Some((key, value)) = part.split_once('=').filter(|(key, _)| known.contains(key)) else {
            break;
        };
        if keys.iter().any(|(other, _)| *other == key) {
            return Err(format!("{key} is said twice"));
        }
        keys.push((key, value));
        rest = before;
    }
    if let Some((_, part)) = rest.rsplit_once(',')
        && part.contains('=')
    {
        return Err(format!("{part:?}: keys are {}", known.join(", ")));
    }
    if rest.is_empty() {
        return Err("begins with a comma".to_owned());
    }
    Ok((rest, keys))
}

fn one_of<T: Copy, const N: usize>(
    text: &str,
    all: [T; N],
    name: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    all.into_iter()
        .find(|value| name(*value).eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("{text:?}: one of {}", all.map(name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_a_size_or_a_file_and_keys() {
        let disk = empty_disk("20G,bus=nvme,mode=independent-persistent,file=data.vmdk").unwrap();
        assert_eq!(disk.bus, Some(Bus::Nvme));
        assert_eq!(disk.mode, DiskMode::IndependentPersistent);
        assert_eq!(disk.file.as_deref(), Some("data.vmdk"));
        let DiskContent::Empty { virtual_size } = disk.content else {
            panic!("{disk:?}");
        };
        assert_eq!(virtual_size, 20 << 30);
        let disk = copied_disk("a,b.img,from=raw,node=scsi0:3").unwrap();
        let DiskContent::CopyOf(image) = disk.content else {
            panic!("{disk:?}");
        };
        assert_eq!(image.path, PathBuf::from("a,b.img"));
        assert_eq!(image.from.as_deref(), Some("raw"));
        for wrong in [
            "",
            "x",
            "20G,bus=usb",
            "20G,speed=7",
            "20G,bus=ide,bus=sata",
            "20G,format=doc",
            "20G,node=scsi0:7",
            "20G,x",
            ",bus=ide",
        ] {
            assert!(empty_disk(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn cards_are_a_network_a_model_and_an_address() {
        let parsed = nic("network=VMnet3,model=e1000e,mac=00:50:56:00:00:01").unwrap();
        let card = parsed.unwrap();
        assert_eq!(card.network, Network::Custom("VMnet3".to_owned()));
        assert_eq!(card.model.as_deref(), Some("e1000e"));
        assert!(card.mac.is_some());
        for (text, network) in [
            ("nat", Network::Nat),
            ("hostonly,model=vlance", Network::HostOnly),
            ("VM Network", Network::PortGroup("VM Network".to_owned())),
        ] {
            assert_eq!(nic(text).unwrap().unwrap().network, network);
        }
        assert_eq!(nic("none").unwrap(), None);
        for wrong in ["", "nat,mac=1", "nat,colour=red"] {
            assert!(nic(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn processors_may_share_sockets() {
        assert_eq!(cpus("4").unwrap().cores_per_socket, None);
        assert_eq!(cpus("4,2").unwrap().cores_per_socket, Some(2));
        for wrong in ["", "0", "4,0", "4,", "-1", "four"] {
            assert!(cpus(wrong).is_err(), "{wrong:?}");
        }
    }
}
