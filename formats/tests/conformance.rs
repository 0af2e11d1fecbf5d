//! Every creatable variant of every format in the registry passes the conformance suite. A new
//! format enlists itself by being in [`FORMATS`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hako_block::testkit::{CheckReport, Effort, FaultFolder, Subject, Traits, conformance};
use hako_block::{
    Access, BlockImage, ErrorKind, Outputs, ParentLink, Resolver, Result, SECTOR_BYTES, Sink,
};
use hako_formats::{
    Compression, CreateArgs, CreateOptions, DiskFormat, FORMATS, OpenArgs, Severity, Subformat,
};

struct Variant {
    format: &'static dyn DiskFormat,
    subformat: &'static Subformat,
    options: CreateOptions,
    /// What the options are, for messages.
    label: String,
}

impl Variant {
    fn new(format: &'static dyn DiskFormat, subformat: &'static Subformat) -> Self {
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
        }
    }

    fn open_args(folder: &FaultFolder, name: &str, access: Access) -> Result<OpenArgs> {
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
    fn creates(&self, parent: Option<ParentLink>) -> bool {
        let folder = FaultFolder::default();
        self.create(&folder, "disk", 1 << 20, parent).is_ok()
    }

    fn takes_parent(&self) -> bool {
        let link = ParentLink {
            name: format!("parent.{}", self.extension()),
            format: Some(self.format.name().to_owned()),
            content_id: Some(0x1234_5678),
        };
        self.creates(Some(link))
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
        let corruptions = findings
            .list
            .iter()
            .filter(|finding| finding.severity == Severity::Corruption)
            .map(|finding| format!("{}: {}", finding.file, finding.text))
            .collect();
        Ok(Some(CheckReport {
            corruptions,
            n_leaks: findings.n_leaks,
        }))
    }
}

/// Returns whether the long matrices run (`tests/run --all`).
fn is_long() -> bool {
    std::env::var_os("HAKO_ALL").is_some()
}

fn effort() -> Effort {
    if is_long() {
        Effort::LONG
    } else {
        Effort::QUICK
    }
}

/// Returns every creatable variant: each subformat as it is by default, and with each option that
/// changes how it stores data and that it takes.
fn variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    for format in FORMATS.iter().copied() {
        for subformat in format.subformats().iter().filter(|form| form.create) {
            variants.push(Variant::new(format, subformat));
            for (label, options) in storing_options() {
                let mut variant = Variant::new(format, subformat);
                variant.options = CreateOptions {
                    subformat: variant.options.subformat,
                    ..options
                };
                variant.label = format!("{} {label}", variant.label);
                if variant.creates(None) {
                    variants.push(variant);
                }
            }
        }
    }
    variants
}

fn storing_options() -> Vec<(&'static str, CreateOptions)> {
    let compression = |kind| CreateOptions {
        compression: Some(kind),
        ..CreateOptions::default()
    };
    let unit = |unit_bytes| CreateOptions {
        unit_bytes: Some(unit_bytes),
        ..CreateOptions::default()
    };
    let mut options = vec![
        ("zlib", compression(Compression::Zlib)),
        ("zstd", compression(Compression::Zstd)),
        ("units of 4 KiB", unit(4096)),
    ];
    if is_long() {
        options.push(("units of 1 MiB", unit(1 << 20)));
    }
    options
}

/// `HAKO_SUBJECT=part-of-a-name` runs only the variants so named.
#[test]
fn every_creatable_variant_conforms() {
    let wanted = std::env::var("HAKO_SUBJECT").unwrap_or_default();
    let variants: Vec<_> = variants()
        .into_iter()
        .filter(|variant| variant.label.contains(&wanted))
        .collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(variant) = variants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = catch_unwind(AssertUnwindSafe(|| conformance(variant, effort())));
            if run.is_err() {
                failed.lock().unwrap().push(variant.label.clone());
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "do not conform: {failed:?}");
    assert!(!variants.is_empty(), "no variant is named {wanted:?}");
}
