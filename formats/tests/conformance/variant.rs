//! What the suite needs to know of a variant of a format, from the registry.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hako_block::testkit::{CheckReport, FaultFolder, Subject, Traits, qemu_checks, qemu_name};
use hako_block::{
    Access, BlockImage, ContentId, ErrorKind, Outputs, ParentLink, Resolver, Result, SECTOR_BYTES,
    Sink, Uuid,
};
use hako_formats::{CreateArgs, CreateOptions, DiskFormat, OpenArgs, Severity, Subformat};

/// How often `qemu-img check` looks too where the suite has an image checked: it might see what
/// our own check, written with the same eyes as the driver, does not.
const QEMU_CHECKS_ONE_IN: usize = 20;

/// What QEMU says of a VDI that is none the worse for it: blocks that are not 1 MiB, a parent, a
/// number of stored blocks that a cut left too large (that is a leak).
const QEMU_ON_VDI: [&str; 3] = [
    "unsupported VDI image (block size",
    "unsupported VDI image (non-NULL",
    "allocated blocks mismatch",
];

/// One variant of a format in the registry, as the suite sees it.
pub struct Variant {
    pub format: &'static dyn DiskFormat,
    pub subformat: &'static Subformat,
    pub options: CreateOptions,
    /// What the options are, for messages.
    pub label: String,
    n_checks: AtomicUsize,
}

impl Variant {
    pub fn new(format: &'static dyn DiskFormat, subformat: &'static Subformat) -> Self {
        let options = CreateOptions {
            subformat: (!subformat.name.is_empty()).then(|| subformat.name.to_owned()),
            ..CreateOptions::default()
        };
        let label = format!("{} {}", format.name(), subformat.name)
            .trim_end()
            .to_owned();
        Self {
            format,
            subformat,
            options,
            label,
            n_checks: AtomicUsize::new(0),
        }
    }

    pub fn open_args(folder: &FaultFolder, name: &str, access: Access) -> Result<OpenArgs> {
        let opened = folder.open(name, access)?;
        Ok(OpenArgs {
            storage: opened.storage,
            name: opened.name,
            resolver: opened.resolver,
            access,
            salvage: false,
            snapshot: None,
        })
    }

    /// Asks the format whether it creates this variant.
    pub fn creates(&self, parent: Option<ParentLink>) -> bool {
        let folder = FaultFolder::default();
        self.create(&folder, "disk", 1 << 20, parent).is_ok()
    }

    /// Returns whether qemu-img can check an image: it knows no overlays in VHDX.
    fn qemu_knows(&self, folder: &FaultFolder, name: &str) -> Result<bool> {
        if self.format.name() != "vhdx" {
            return Ok(qemu_checks(self.format.name()));
        }
        let image = self.open(folder, name, Access::ReadOnly)?;
        Ok(image.info().parent.is_none())
    }

    fn takes_parent(&self) -> bool {
        let ids = [ContentId::Cid(0x1234_5678), ContentId::Uuid(Uuid([5; 16]))];
        ids.into_iter().any(|content_id| {
            self.creates(Some(ParentLink {
                name: format!("parent.{}", self.extension()),
                format: Some(self.format.name().to_owned()),
                identity: Some(Uuid([7; 16])),
                content_id: Some(content_id),
                ..ParentLink::default()
            }))
        })
    }
}

impl Subject for Variant {
    fn name(&self) -> String {
        self.label.clone()
    }

    fn traits(&self) -> Traits {
        Traits {
            writable: self.subformat.write,
            overlay: self.takes_parent(),
            may_refuse_after_cut: false,
        }
    }

    fn extension(&self) -> &str {
        self.format.extensions()[0]
    }

    fn create(
        &self,
        folder: &FaultFolder,
        name: &str,
        size: u64,
        parent: Option<ParentLink>,
    ) -> Result<Box<dyn Sink>> {
        assert!(size.is_multiple_of(SECTOR_BYTES));
        self.format.stream(CreateArgs {
            storage: folder.create(name)?,
            name: name.to_owned(),
            outputs: folder,
            virtual_size: size,
            parent,
            options: self.options.clone(),
        })
    }

    fn open(
        &self,
        folder: &FaultFolder,
        name: &str,
        access: Access,
    ) -> Result<Arc<dyn BlockImage>> {
        let args = Self::open_args(folder, name, access)?;
        self.format.open(args).map(Arc::from)
    }

    fn check(&self, folder: &FaultFolder, name: &str) -> Result<Option<CheckReport>> {
        let args = Self::open_args(folder, name, Access::ReadOnly)?;
        let findings = match self.format.check(args) {
            Ok(findings) => findings,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut corruptions: Vec<_> = findings
            .list
            .iter()
            .filter(|finding| finding.severity == Severity::Corruption)
            .map(|finding| format!("{}: {}", finding.file, finding.text))
            .collect();
        let nth = self.n_checks.fetch_add(1, Ordering::Relaxed);
        if nth.is_multiple_of(QEMU_CHECKS_ONE_IN) && self.qemu_knows(folder, name)? {
            corruptions.extend(qemu_finds(self.format.name(), folder, name));
        }
        Ok(Some(CheckReport {
            corruptions,
            n_leaks: findings.n_leaks,
        }))
    }
}

/// Returns what `qemu-img check` says is corrupt. Leaks are none of it.
fn qemu_finds(format: &str, folder: &FaultFolder, name: &str) -> Option<String> {
    const LEAKS_ONLY: i32 = 3;
    let scratch = tempfile::tempdir().unwrap();
    folder.save(scratch.path());
    // qemu-img does not even look at a VHDX whose log must be replayed unless it may write that.
    let repair: &[&str] = if format == "vhdx" {
        &["-r", "all"]
    } else {
        &[]
    };
    let output = Command::new("qemu-img")
        .current_dir(&scratch)
        .args(["check", "-f", qemu_name(format)])
        .args(repair)
        .arg(name)
        .output()
        .expect("qemu-img is installed (tests/run does that)");
    let code = output.status.code().unwrap_or(-1);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let is_known = |line: &str| QEMU_ON_VDI.iter().any(|known| line.contains(known));
    let mut errors = text
        .lines()
        .filter(|line| line.contains("ERROR") || is_known(line));
    if format == "vdi" && code > 0 && errors.all(is_known) {
        return None;
    }
    (code != 0 && code != LEAKS_ONLY).then(|| format!("qemu-img check, exit code {code}: {text}"))
}
