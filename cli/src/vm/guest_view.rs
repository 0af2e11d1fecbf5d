//! What `hako vm info --guest` shows of what is on a machine's disks.

use hako_block::Result;
use hako_guest::boot::{Entry, Image};
use hako_guest::direct::{EntryDrivers, drivers_of};
use hako_guest::os::{Kernel, Os};
use hako_guest::{FoundVolume, Keys, Volumes};
use hako_vm::{Guest, Inside, Vm, hardware_of};
use serde_json::{Value, json};

use crate::size;

/// What is on a machine's disks.
pub struct GuestView {
    inside: Inside,
    guest: Guest,
    /// The system that boots, or the first of those that there are.
    os: Option<Os>,
    /// Where the kernel of the default entry finds drivers.
    drivers: Option<Result<EntryDrivers>>,
}

impl GuestView {
    /// Looks at the disks of a machine. Errors: as of [`Vm::look_inside`].
    pub fn of(vm: &Vm) -> Result<Self> {
        let inside = vm.look_inside(&Keys::default())?;
        let guest = Guest::of(&inside.volumes, None);
        let os = match &guest.root {
            Some(root) => Some(Os::of(&root.tree)),
            None => guest.installations.first().map(|one| Os::of(&one.tree())),
        };
        let hardware = hardware_of(&vm.vmx.machine());
        let drivers = match (&guest.root, guest.menu.default_entry()) {
            (Some(root), Some(entry)) => Some(drivers_of(root, entry, &hardware)),
            _ => None,
        };
        Ok(Self {
            inside,
            guest,
            os,
            drivers,
        })
    }

    /// Returns it for people: keys and values, several of one key below each other.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |key: &str, value: String| {
            if !value.is_empty() {
                rows.push((key.to_owned(), value));
            }
        };
        match &self.os {
            Some(os) => {
                row("system", os.name.clone());
                row("host name", os.hostname.clone());
                row("architecture", os.architecture.to_owned());
                row("packages", os.packages.to_owned());
                row("init", os.init.to_owned());
                for kernel in &os.kernels {
                    row("kernel", kernel_text(kernel));
                }
            }
            None => row("system", "none that is known".to_owned()),
        }
        for volume in volumes(&self.inside.volumes) {
            row("volume", self.volume_text(volume));
        }
        for (at, entry) in self.guest.menu.entries.iter().enumerate() {
            let is_default = self.guest.menu.default == Some(at);
            row("boot entry", entry_text(at, entry, is_default));
        }
        row("boots", self.guest.menu.reason.clone());
        match &self.drivers {
            Some(Ok(known)) => {
                for (hardware, place) in &known.drivers {
                    row("driver", format!("{}: {}", hardware.name(), place.name()));
                }
            }
            Some(Err(error)) => row("drivers", error.to_string()),
            None => (),
        }
        for remark in self.remarks() {
            row("odd on disk", remark);
        }
        rows
    }

    /// Returns it for programs.
    pub fn json(&self) -> Value {
        let os = self.os.as_ref();
        let installations = self.guest.installations.iter().map(|one| {
            json!({
                "volume": one.volume,
                "subvolume": one.subvolume,
                "name": Os::of(&one.tree()).name,
            })
        });
        let menu = &self.guest.menu;
        let entries: Vec<Value> = menu.entries.iter().map(entry_json).collect();
        let volumes = volumes(&self.inside.volumes);
        let volumes = volumes.into_iter().map(|volume| self.volume_json(volume));
        json!({
            "os": os.map(os_json),
            "installations": installations.collect::<Vec<_>>(),
            "volumes": volumes.collect::<Vec<_>>(),
            "kernels": os.map(|os| os.kernels.iter().map(kernel_json).collect::<Vec<_>>()),
            "boot_entries": entries,
            "default_boot_entry": menu.default,
            "default_reason": menu.reason,
            "drivers": self.drivers_json(),
            "remarks": self.remarks(),
        })
    }

    fn drivers_json(&self) -> Value {
        match &self.drivers {
            None => Value::Null,
            Some(Err(error)) => json!({"error": error.to_string()}),
            Some(Ok(known)) => {
                let hardware = known.drivers.iter().map(|(hardware, place)| {
                    json!({
                        "hardware": hardware.name(),
                        "module": hardware.module(),
                        "found": place.name(),
                        "needed_for_root": hardware.is_for_root(),
                    })
                });
                json!({
                    "kernel": known.version,
                    "initrd_tool": known.tool.map(|tool| tool.name()),
                    "hardware": hardware.collect::<Vec<_>>(),
                })
            }
        }
    }

    /// Returns where a volume is mounted.
    fn mounts(&self, volume: &FoundVolume) -> Vec<String> {
        let mounts = self.guest.root.iter().flat_map(|root| &root.mounts);
        let own = mounts.filter(|mount| mount.volume == volume.name);
        own.map(|mount| mount.path.clone()).collect()
    }

    fn volume_text(&self, volume: &FoundVolume) -> String {
        let content = &volume.content;
        let mut text = format!("{} {}", volume.name, size::human(volume.len_bytes));
        for (what, value) in [
            ("", content.kind),
            ("LABEL=", &content.label),
            ("UUID=", &content.uuid),
        ] {
            if !value.is_empty() {
                text = format!("{text}, {what}{value}");
            }
        }
        match &self.mounts(volume)[..] {
            [] => text,
            paths => format!("{text}, at {}", paths.join(" ")),
        }
    }

    fn volume_json(&self, volume: &FoundVolume) -> Value {
        let content = &volume.content;
        json!({
            "name": volume.name,
            "len_bytes": volume.len_bytes,
            "kind": content.kind,
            "label": content.label,
            "uuid": content.uuid,
            "mounts": self.mounts(volume),
            "remarks": volume.remarks,
        })
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = self.inside.remarks.clone();
        remarks.extend_from_slice(self.inside.volumes.remarks());
        for volume in self.inside.volumes.list() {
            let own = volume.remarks.iter();
            remarks.extend(own.map(|remark| format!("{}: {remark}", volume.name)));
        }
        remarks.extend(self.guest.root.iter().flat_map(|root| root.remarks.clone()));
        remarks.extend_from_slice(&self.guest.menu.remarks);
        remarks
    }
}

/// Returns the volumes that hold something themselves.
fn volumes(volumes: &Volumes) -> Vec<&FoundVolume> {
    let list = volumes.list().iter();
    list.filter(|volume| !volume.content.kind.is_empty())
        .collect()
}

fn kernel_text(kernel: &Kernel) -> String {
    let mut text = kernel.version.clone();
    for (what, path) in [("image", &kernel.image), ("initrd", &kernel.initrd)] {
        match path {
            Some(path) => text = format!("{text}, {path}"),
            None => text = format!("{text}, no {what}"),
        }
    }
    match kernel.has_modules {
        true => text,
        false => format!("{text}, no modules"),
    }
}

fn kernel_json(kernel: &Kernel) -> Value {
    json!({
        "version": kernel.version,
        "image": kernel.image,
        "initrd": kernel.initrd,
        "has_modules": kernel.has_modules,
    })
}

fn os_json(os: &Os) -> Value {
    json!({
        "family": os.family,
        "id": os.id,
        "id_like": os.like,
        "version": os.version,
        "name": os.name,
        "hostname": os.hostname,
        "architecture": os.architecture,
        "packages": os.packages,
        "init": os.init,
    })
}

fn entry_text(at: usize, entry: &Entry, is_default: bool) -> String {
    let default = if is_default { " (default)" } else { "" };
    let what = match (&entry.kernel, &entry.trouble) {
        (_, Some(trouble)) => trouble.clone(),
        (Some(kernel), None) => format!("{} {}", kernel.path, entry.options),
        (None, None) => String::new(),
    };
    let text = format!("{at}{default} {}: {what}", entry.title);
    text.trim_end().to_owned()
}

fn entry_json(entry: &Entry) -> Value {
    let path = |image: &Image| image.path.clone();
    json!({
        "title": entry.title,
        "id": entry.id,
        "loader": entry.loader.name(),
        "source": entry.source,
        "kernel": entry.kernel.as_ref().map(path),
        "initrds": entry.initrds.iter().map(path).collect::<Vec<_>>(),
        "options": entry.options,
        "trouble": entry.trouble,
    })
}
