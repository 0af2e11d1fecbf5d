//! `hako vm import`: a machine out of an OVA, an OVF, another product's folder, or a disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use hako_block::Result;
use hako_formats::ovf::{Choices, Product};
use hako_formats::{CreateOptions, format_named};
use hako_vm::{ImportReport, ImportRequest, ImportSource, ListedSystem, Listing, PackageChoices};
use serde_json::{Value, json};

use crate::context::Context;
use crate::disk::options::{OpenFlags, Threads, format_names, rate, subformat_names};
use crate::exit::Exit;
use crate::output::Out;
use crate::size;
use crate::vm::specs;

const EXAMPLES: &str = "\
Examples:
  hako vm import web.ova
  hako vm import --list appliance.ova
  hako vm import --name web2 --network 'VM Network=nat' --accept-eula appliance.ova
  ssh backup cat web.ova | hako vm import --name web -
  hako vm import /vmfs/volumes/datastore1/web
  hako vm import --name old --guest-os windows7-64 old-server.vhdx

Exit status:
  0    done
  1    failed
  2    wrong usage, or a choice is needed
  4    what is imported is corrupt, or not what its manifest says
  5    locked or in use
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM";

/// Import a machine: an OVA, an OVF, another product's folder, or a disk
///
/// The machine gets a folder of its own, which appears under its name only when all of it is
/// whole, and is listed in the inventory. Chains of disks are flattened. Files are compared with
/// the manifest while they are read; disks in an OVA are read where they lie. A disk that is smaller
/// than its description says grows to that, a larger one is refused. Of an OVA that comes through a
/// pipe or out of a gzip, disks are converted while they pass by if they are streamOptimized, with their
/// directory at the end, and come after the .ovf; all else is kept in a temporary file meanwhile.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Import {
    /// An .ova (or that in a gzip), an .ovf, a .vmx, a folder with one of these, a disk; - for an
    /// OVA on standard input
    source: PathBuf,

    /// Show what there is to choose from, and import nothing
    #[arg(long)]
    list: bool,

    /// Name of the new machine; by default the one it has
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Its folder; by default one of its name where machines live
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    to: Option<PathBuf>,

    /// Which machine of a package with several, by its id
    #[arg(long, value_name = "ID")]
    system: Option<String>,

    /// Which of the sizes that a package offers
    #[arg(long, value_name = "ID")]
    deployment: Option<String>,

    /// Value of a property that decides the size of a disk (repeatable)
    #[arg(long = "prop", value_name = "KEY=VALUE", value_parser = pair)]
    properties: Vec<(String, String)>,

    /// Agree to the licences of a package
    #[arg(long)]
    accept_eula: bool,

    /// Plug what is in a package's network into another (repeatable)
    ///
    /// TO is nat, bridged, hostonly, a virtual network like VMnet3, or the name of a port group.
    #[arg(long = "network", value_name = "FROM=TO", value_parser = pair)]
    networks: Vec<(String, String)>,

    /// The guest system of a disk by itself, by its VMX name
    #[arg(long, value_name = "NAME")]
    guest_os: Option<String>,

    /// Format of the new disks
    #[arg(long, value_name = "FORMAT", default_value = "vmdk", value_parser = format_names(|format| format.subformats().iter().any(|form| form.create)))]
    format: String,

    /// Variant of the format; `hako disk formats` lists them
    #[arg(long, value_name = "NAME", value_parser = subformat_names(), ignore_case = true)]
    subformat: Option<String>,

    /// Read each new disk back and compare before anything gets its name
    #[arg(long)]
    verify: bool,

    /// Write at most this many bytes of data per second
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    open: OpenFlags,
}

impl Import {
    /// Imports, or lists.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        if self.list {
            let temp_folder = context.temp_folder();
            let open = self.open.options();
            let listing =
                hako_vm::list_import(self.source()?, &open, &temp_folder, &*progress, &cancel)?;
            drop(progress);
            context.tell(&[], &listing.warnings);
            let mut out = Out::new();
            match context.json {
                true => out.json(&listing_json(&listing))?,
                false => print(&listing, &mut out)?,
            }
            out.finish()?;
            return Ok(Exit::Done);
        }
        let report = hako_vm::import(
            &super::home::home()?,
            self.request(context)?,
            &*progress,
            &cancel,
        )?;
        drop(progress);
        context.tell(&report.cleared, &report.warnings);
        if context.json {
            let mut out = Out::new();
            out.json(&report_json(&report))?;
            out.finish()?;
        }
        context.summary(&format!("{}: imported", report.vmx.display()));
        Ok(Exit::Done)
    }

    fn source(&self) -> Result<ImportSource> {
        Ok(match self.source == Path::new("-") {
            true => ImportSource::Stdin(crate::context::standard(std::io::stdin())?),
            false => ImportSource::Path(self.source.clone()),
        })
    }

    fn request(&self, context: &Context) -> Result<ImportRequest> {
        let networks = self
            .networks
            .iter()
            .map(|(from, to)| (from.clone(), specs::network(to)));
        Ok(ImportRequest {
            source: self.source()?,
            open: self.open.options(),
            choices: PackageChoices {
                system: self.system.clone(),
                ovf: Choices {
                    deployment: self.deployment.clone(),
                    properties: BTreeMap::from_iter(self.properties.iter().cloned()),
                },
                accept_eula: self.accept_eula,
                networks: networks.collect(),
            },
            guest_os: self.guest_os.clone(),
            name: self.name.clone(),
            to: self.to.clone(),
            format: format_named(&self.format)?,
            create: CreateOptions {
                subformat: self.subformat.clone(),
                ..CreateOptions::default()
            },
            verify: self.verify,
            threads: self.threads.number(),
            rate: self.rate,
            temp_folder: context.temp_folder(),
        })
    }
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like NAME=VALUE".to_owned()),
    }
}

fn report_json(report: &ImportReport) -> Value {
    let disks = report.disks.iter().map(|disk| {
        json!({
            "node": disk.node.to_string(),
            "file": disk.file,
            "virtual_size": disk.virtual_size,
            "data_bytes": disk.data_bytes,
        })
    });
    json!({
        "name": report.name,
        "vmx": report.vmx.to_string_lossy(),
        "disks": disks.collect::<Vec<_>>(),
        "manifest_verified": report.verified,
        "cleared": report.cleared,
        "warnings": report.warnings,
    })
}

fn listing_json(listing: &Listing) -> Value {
    let networks = listing.networks.iter();
    let options = listing.deployment_options.iter();
    let disks = listing.disks.iter();
    json!({
        "kind": listing.kind,
        "systems": listing.systems.iter().map(system_json).collect::<Vec<_>>(),
        "networks": networks
            .map(|network| json!({"name": network.name, "description": network.description}))
            .collect::<Vec<_>>(),
        "deployment_options": options
            .map(|option| json!({
                "id": option.id,
                "label": option.label,
                "description": option.description,
                "default": option.is_default,
            }))
            .collect::<Vec<_>>(),
        "disks": disks
            .map(|disk| json!({
                "id": disk.id,
                "virtual_size": disk.capacity_bytes,
                "file": disk.file,
                "file_bytes": disk.file_bytes,
            }))
            .collect::<Vec<_>>(),
        "products": listing.products.iter().map(product_json).collect::<Vec<_>>(),
        "licenses": listing.licenses,
        "manifest": listing.has_manifest,
        "warnings": listing.warnings,
    })
}

fn system_json(system: &ListedSystem) -> Value {
    let machine = &system.machine;
    json!({
        "id": system.id,
        "name": machine.name,
        "guest_os": machine.guest_os,
        "cpus": machine.cpu.count,
        "memory_bytes": machine.memory_bytes,
        "firmware": machine.firmware.name(),
        "disks": machine.disks().count(),
        "nics": machine.nics.len(),
        "products": system.products.iter().map(product_json).collect::<Vec<_>>(),
        "licenses": system.licenses,
    })
}

fn product_json(product: &Product) -> Value {
    let properties = product.properties.iter().map(|property| {
        json!({
            "key": property.full_key,
            "type": property.kind,
            "value": property.value,
            "label": property.label,
            "description": property.description,
            "configurable": property.user_configurable,
        })
    });
    json!({
        "name": product.name,
        "vendor": product.vendor,
        "version": product.version,
        "properties": properties.collect::<Vec<_>>(),
    })
}

fn print(listing: &Listing, out: &mut Out) -> Result<()> {
    for system in &listing.systems {
        let machine = &system.machine;
        out.line(&format!("machine: {}", system.id))?;
        out.line(&format!("  name: {}", machine.name))?;
        out.line(&format!(
            "  guest system: {}",
            machine.guest_os.as_deref().unwrap_or("not said")
        ))?;
        out.line(&format!(
            "  hardware: {} CPUs, {} memory, {} disks, {} network cards, {}",
            machine.cpu.count,
            size::human(machine.memory_bytes),
            machine.disks().count(),
            machine.nics.len(),
            machine.firmware.name(),
        ))?;
        print_products(&system.products, out)?;
        print_licenses(&system.licenses, out)?;
    }
    for disk in &listing.disks {
        let capacity = match disk.capacity_bytes {
            Some(bytes) => size::human(bytes),
            None => "a property says how large".to_owned(),
        };
        let file = disk.file.as_deref().unwrap_or("empty");
        out.line(&format!("disk: {}: {capacity}, {file}", disk.id))?;
    }
    for network in &listing.networks {
        out.line(&format!("network: {}", network.name))?;
    }
    for option in &listing.deployment_options {
        let default = if option.is_default { " (default)" } else { "" };
        out.line(&format!(
            "deployment: {}{default}: {}",
            option.id, option.label
        ))?;
    }
    print_products(&listing.products, out)?;
    print_licenses(&listing.licenses, out)?;
    if listing.kind == "package" {
        let manifest = if listing.has_manifest { "yes" } else { "no" };
        out.line(&format!("manifest: {manifest}"))?;
    }
    Ok(())
}

fn print_products(products: &[Product], out: &mut Out) -> Result<()> {
    for product in products {
        if !product.name.is_empty() {
            out.line(&format!("  product: {} {}", product.name, product.version))?;
        }
        for property in &product.properties {
            let value = property.value.as_deref().unwrap_or_default();
            out.line(&format!(
                "  property: {} ({}) = {value:?}: {}",
                property.full_key, property.kind, property.label
            ))?;
        }
    }
    Ok(())
}

fn print_licenses(licenses: &[String], out: &mut Out) -> Result<()> {
    for license in licenses {
        out.line("licence:")?;
        for line in license.lines() {
            out.line(&format!("  {line}"))?;
        }
    }
    Ok(())
}
