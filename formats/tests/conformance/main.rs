//! Every creatable variant of every format in the registry passes the conformance suite. A new
//! format enlists itself by being in [`FORMATS`].
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod foreign;
mod upkeep;
mod variant;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hako_block::testkit::{Effort, conformance};
use hako_formats::{Compression, CreateOptions, FORMATS};

use variant::Variant;

/// Returns how long to try: `tests/run --all` sets the variable.
fn effort() -> Effort {
    if std::env::var_os("HAKO_ALL").is_some() {
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
            let plain = Variant::new(format, subformat);
            // One that only makes overlays is tried as an overlay by its siblings.
            if !plain.creates(None) {
                continue;
            }
            variants.push(plain);
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
    vec![
        ("zlib", compression(Compression::Zlib)),
        ("zstd", compression(Compression::Zstd)),
        ("units of 4 KiB", unit(4096)),
    ]
}

/// `HAKO_SUBJECT=part-of-a-name` runs only the variants so named.
#[test]
fn every_creatable_variant_conforms() {
    let wanted = std::env::var("HAKO_SUBJECT").unwrap_or_default();
    let variants: Vec<_> = variants()
        .into_iter()
        .filter(|variant| variant.label.contains(&wanted))
        .collect();
    assert!(!variants.is_empty(), "no variant is named {wanted:?}");
    run_each(
        &variants,
        |variant| variant.label.clone(),
        |variant| conformance(variant, effort()),
    );
}

/// Runs a test on each item, two at a time, and names all that failed.
fn run_each<T: Sync>(items: &[T], name: fn(&T) -> String, test: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if catch_unwind(AssertUnwindSafe(|| test(item))).is_err() {
                failed.lock().unwrap().push(name(item));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "do not conform: {failed:?}");
}
