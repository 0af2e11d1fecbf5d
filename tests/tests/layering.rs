//! The layering of the workspace (ARCHITECTURE.md): who may use whom, and which outside crates
//! stay where they belong.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// For each package the packages of the workspace that it may use. A package that is not listed
/// may not exist; one that is listed need not yet.
const MAY_USE: &[(&str, &[&str])] = &[
    ("hako-block", &[]),
    ("hako-formats", &["hako-block"]),
    ("hako-pipeline", &["hako-block"]),
    (
        "hako-disk",
        &["hako-block", "hako-formats", "hako-pipeline"],
    ),
    ("hako-nbd", &["hako-block"]),
    ("hako-guest", &["hako-block"]),
    ("hako-edit", &["hako-block", "hako-guest"]),
    ("hako-net", &[]),
    ("hako-engine", &["hako-block", "hako-net"]),
    (
        "hako-vm",
        &[
            "hako-block",
            "hako-formats",
            "hako-pipeline",
            "hako-disk",
            "hako-nbd",
            "hako-guest",
            "hako-engine",
            "hako-net",
        ],
    ),
    ("hako-backup", &["hako-block", "hako-pipeline", "hako-nbd"]),
    (
        "hako-converter",
        &[
            "hako-block",
            "hako-formats",
            "hako-pipeline",
            "hako-disk",
            "hako-guest",
            "hako-edit",
            "hako-vm",
        ],
    ),
    (
        "hako",
        &[
            "hako-block",
            "hako-formats",
            "hako-pipeline",
            "hako-disk",
            "hako-nbd",
            "hako-guest",
            "hako-edit",
            "hako-net",
            "hako-engine",
            "hako-vm",
            "hako-backup",
            "hako-converter",
        ],
    ),
    // The fuzz targets call the decoders; everything else here runs the binary.
    (
        "hako-tests",
        &[
            "hako-block",
            "hako-converter",
            "hako-edit",
            "hako-engine",
            "hako-formats",
            "hako-guest",
            "hako-nbd",
        ],
    ),
    ("hako-system-tests", &[]),
];

/// Outside crates that only these packages may use.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("clap", &["hako"]),
    ("clap_complete", &["hako"]),
    ("clap_mangen", &["hako"]),
    ("indicatif", &["hako"]),
    ("anyhow", &["hako"]),
];

/// Packages that may use only these outside crates.
const USES_ONLY: &[(&str, &[&str])] = &[("hako-block", &["thiserror", "rustix"])];

/// Returns each package's dependencies, those for tests left out.
fn edges() -> BTreeMap<String, Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(hako_tests::root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata");
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let uses = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .map(|dependency| dependency.name.to_string())
                .collect();
            (package.name.to_string(), uses)
        })
        .collect()
}

fn listed<'a>(table: &'a [(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table
        .iter()
        .find(|(listed, _)| *listed == name)
        .map(|(_, names)| *names)
}

#[test]
fn packages_use_only_what_is_below_them() {
    for (package, uses) in edges() {
        let Some(allowed) = listed(MAY_USE, &package) else {
            panic!("{package} is not in the table of ARCHITECTURE.md and of this test");
        };
        for used in uses.iter().filter(|name| listed(MAY_USE, name).is_some()) {
            assert!(
                allowed.contains(&used.as_str()),
                "{package} may not use {used}"
            );
        }
    }
}

#[test]
fn outside_crates_stay_where_they_belong() {
    for (package, uses) in edges() {
        for used in &uses {
            if let Some(homes) = listed(ONLY_IN, used) {
                assert!(
                    homes.contains(&package.as_str()),
                    "{package} may not use {used}"
                );
            }
            if let Some(allowed) = listed(USES_ONLY, &package) {
                assert!(
                    allowed.contains(&used.as_str()),
                    "{package} may not use {used}"
                );
            }
        }
    }
}
