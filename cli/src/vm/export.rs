//! `hako vm export`: a machine as an OVA, an OVF, or a folder for other products.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use hako_block::{Error, Result};
use hako_formats::digest::{Algorithm, hex};
use hako_vm::{ExportReport, ExportRequest, ExportTarget, ExportedDisk, Product, Vm};
use serde_json::{Value, json};

use crate::context::{Context, standard};
use crate::disk::options::{OpenFlags, Threads, rate};
use crate::exit::Exit;
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  hako vm export web web.ova
  hako vm export web - | ssh backup 'cat > web.ova'
  hako vm export --manifest sha1 web /srv/export/web-ovf
  hako vm export --for esxi web /vmfs/volumes/datastore1/web
  hako vm export --for libvirt web /srv/kvm/web
  hako vm export --snapshot before-update --verify web web.ova

Exit status:
  0    done
  1    failed
  2    wrong usage
  4    a disk is corrupt, or what was written did not verify
  5    locked or in use: the machine runs or is suspended
  6    no such virtual machine
  8    no space left
  129, 130, 143    ended by SIGHUP, SIGINT, SIGTERM
  141    the reader of standard output went away";

/// Export a machine as an OVA, an OVF, or a folder for another product
///
/// A TARGET that ends in .ova, or -, becomes an OVA; any other a new folder with an .ovf and its
/// disks, or what --for says. Chains of disks are flattened. Images in CD drives go along into a
/// folder of --for, if they are in the machine's own; an OVA or OVF leaves them behind. What is
/// written appears under its name only when it is whole. Into a pipe the disks are compressed
/// twice: a tar needs their sizes first.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Export {
    /// The machine: a name, or the path of its .vmx
    vm: PathBuf,

    /// The new file or folder; - for standard output
    target: PathBuf,

    /// Make a folder as this product keeps its machines
    #[arg(long = "for", value_name = "PRODUCT")]
    product: Option<Kind>,

    #[command(flatten)]
    how: HowToExport,
}

/// How a machine is exported, whatever for.
#[derive(Debug, Args)]
pub struct HowToExport {
    /// Take this snapshot, by name or number, even while the machine runs
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,

    /// Read what was written back before it gets its name
    #[arg(long)]
    pub verify: bool,

    /// Digest of the files in the manifest of an OVA or OVF
    #[arg(long, value_name = "HOW", default_value = "sha256", value_parser = manifests())]
    manifest: Manifest,

    /// Compression level of the disks of an OVA or OVF: 0 to 12
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=12))]
    level: Option<u32>,

    /// Replace an existing file
    #[arg(long)]
    force: bool,

    /// Write at most this many bytes of data per second
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    open: OpenFlags,
}

impl HowToExport {
    /// Opens the machine and returns what to export of it, and how; `is_pipe` if it is for a pipe.
    pub fn request(
        &self,
        vm: &Path,
        is_pipe: bool,
        context: &Context,
    ) -> Result<(Vm, ExportRequest)> {
        if is_pipe && self.verify {
            return Err(Error::invalid(
                "what went through a pipe cannot be verified",
            ));
        }
        let mut open = self.open.options();
        let vm = Vm::open(&super::home::home()?, vm, &open.rules.allow_paths)?;
        open.rules.allow_paths = vm.rules(false).allow_paths;
        let request = ExportRequest {
            snapshot: self.snapshot.clone(),
            manifest: self.manifest.0,
            level: self.level,
            record_contents: false,
            verify: self.verify,
            force: self.force,
            open,
            time: context.time(),
            threads: self.threads.number(),
            rate: self.rate,
        };
        Ok((vm, request))
    }
}

/// Whose folder to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Workstation and Fusion: a .vmx and sparse disks
    Workstation,
    /// ESXi: a .vmx and flat disks
    Esxi,
    /// libvirt: a domain's XML and qcow2 disks
    Libvirt,
}

/// How files are digested, if at all.
#[derive(Debug, Clone, Copy)]
struct Manifest(Option<Algorithm>);

/// Parses the value of `--manifest`.
fn manifests() -> impl TypedValueParser<Value = Manifest> {
    PossibleValuesParser::new(["sha1", "sha256", "sha512", "none"])
        .map(|name| Manifest(name.parse().ok()))
}

impl Export {
    /// Exports.
    pub fn run(&self, context: &Context) -> Result<Exit> {
        let target = self.target()?;
        let is_pipe = matches!(target, ExportTarget::Pipe(_));
        let (vm, request) = self.how.request(&self.vm, is_pipe, context)?;
        let cancel = context.cancel_on_signals()?;
        let progress = context.progress();
        let report = hako_vm::export(&vm, target, &request, &*progress, &cancel)?;
        drop(progress);
        context.tell(&report.cleared, &report.warnings);
        if context.json && !is_pipe {
            let mut out = Out::new();
            let mut object = report_json(&report);
            object["target"] = json!(self.target.to_string_lossy());
            out.json(&object)?;
            out.finish()?;
        }
        context.summary(&format!("{}: exported", self.target.display()));
        Ok(Exit::Done)
    }

    fn target(&self) -> Result<ExportTarget> {
        let path = self.target.clone();
        let is_ova = path
            .extension()
            .is_some_and(|found| found.eq_ignore_ascii_case("ova"));
        if let Some(product) = self.product {
            if is_ova || path == Path::new("-") {
                return Err(Error::invalid("--for makes a folder, and this is none").in_file(path));
            }
            let vmx = |product| ExportTarget::Vmx {
                folder: path.clone(),
                product,
            };
            return Ok(match product {
                Kind::Workstation => vmx(Product::Workstation),
                Kind::Esxi => vmx(Product::Esxi),
                Kind::Libvirt => ExportTarget::Libvirt(path),
            });
        }
        match path == Path::new("-") {
            true => Ok(ExportTarget::Pipe(stdout()?)),
            false if is_ova => Ok(ExportTarget::Ova(path)),
            false => Ok(ExportTarget::Ovf(path)),
        }
    }
}

/// Returns standard output for an OVA; never a terminal.
pub fn stdout() -> Result<Box<dyn std::io::Write + Send>> {
    if std::io::stdout().is_terminal() {
        return Err(Error::invalid("standard output is a terminal")
            .hint("pipe it into a program or a file"));
    }
    Ok(Box::new(standard(std::io::stdout())?))
}

/// Returns what an export tells.
pub fn report_json(report: &ExportReport) -> Value {
    json!({
        "disks": report.disks.iter().map(disk_json).collect::<Vec<_>>(),
        "verified": report.verified,
        "cleared": report.cleared,
        "warnings": report.warnings,
    })
}

fn disk_json(disk: &ExportedDisk) -> Value {
    json!({
        "node": disk.node.to_string(),
        "file": disk.file,
        "virtual_size": disk.virtual_size,
        "data_bytes": disk.data_bytes,
        "sha256": disk.sha256.map(|digest| hex(&digest)),
    })
}
