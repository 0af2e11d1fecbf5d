//! The tables of the README are true: hako's part of them against the binary, qemu-img's against
//! a qemu-img 10.

use std::path::{Path, PathBuf};

use hako_block::testkit::qemu_name;
use hako_tests::peers::QemuImg;
use hako_tests::{convert, disk, disk_verb, hash, root, run, skip};
use serde_json::Value;

/// Virtual size of the images that are tried.
const SIZE: u64 = 4 << 20;

/// The tools of "Beside other tools", by their letters and in the order of the columns.
const TOOLS: [char; 4] = ['H', 'Q', 'B', 'V'];
const HAKO: usize = 0;
const QEMU: usize = 1;

/// The columns of its first table.
const OPERATIONS: [&str; 8] = [
    "read", "create", "write", "pipe", "check", "repair", "resize", "compact",
];

/// Its rows, and the variants of the registry that a row stands for. In the rows that
/// [`is_overlay`] picks they are made on a parent.
const ROWS: &[(&str, &[(&str, &str)])] = &[
    (
        "vmdk sparse",
        &[
            ("vmdk", "monolithicSparse"),
            ("vmdk", "twoGbMaxExtentSparse"),
        ],
    ),
    (
        "vmdk flat",
        &[
            ("vmdk", "monolithicFlat"),
            ("vmdk", "twoGbMaxExtentFlat"),
            ("vmdk", "vmfs"),
        ],
    ),
    ("vmdk streamOptimized", &[("vmdk", "streamOptimized")]),
    ("vmdk vmfsSparse", &[("vmdk", "vmfsSparse")]),
    ("vmdk seSparse", &[("vmdk", "seSparse")]),
    ("qcow2", &[("qcow2", "v3")]),
    ("vhd dynamic", &[("vhd", "dynamic")]),
    ("vhd fixed", &[("vhd", "fixed")]),
    ("vhd differencing", &[("vhd", "differencing")]),
    ("vhdx", &[("vhdx", "dynamic"), ("vhdx", "fixed")]),
    ("vhdx differencing", &[("vhdx", "dynamic")]),
    ("vdi dynamic", &[("vdi", "dynamic")]),
    ("vdi fixed", &[("vdi", "fixed")]),
    ("vdi diff", &[("vdi", "diff")]),
    ("raw", &[("raw", "")]),
];

fn is_overlay(label: &str) -> bool {
    label.ends_with(" differencing") || label.ends_with(" diff")
}

/// Returns the tables (indented by four) of a section, line by line.
fn tables(heading: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("README.md has no section {heading:?}"));
    let section = rest.split("\n## ").next().unwrap();
    let mut tables = vec![Vec::new()];
    for line in section.lines() {
        match line.strip_prefix("    ") {
            Some(row) => tables.last_mut().unwrap().push(row.trim_end().to_owned()),
            None => tables.push(Vec::new()),
        }
    }
    tables.retain(|table| !table.is_empty());
    tables
}

/// Returns the cells of a row: at least two spaces lie between them.
fn cells(row: &str) -> Vec<&str> {
    row.split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect()
}

/// Returns what a table of "Beside other tools" says in one row, by column.
fn row(table: usize, label: &str) -> Vec<String> {
    let tables = tables("Beside other tools");
    let found = tables[table].iter().find(|row| cells(row)[0] == label);
    let found = found.unwrap_or_else(|| panic!("README.md has no row {label:?}"));
    let cells: Vec<String> = cells(found)[1..].iter().map(ToString::to_string).collect();
    assert_eq!(cells.len() + 1, self::cells(&tables[table][0]).len());
    cells
}

fn registry() -> Vec<Value> {
    let table = run(&["disk", "formats", "--json"]).json();
    table["formats"].as_array().unwrap().clone()
}

/// Returns the row of `hako disk formats` for a variant; null if there is none.
fn registered(format: &str, subformat: &str) -> Value {
    let is_it = |row: &Value| {
        row["format"] == format && row["subformat"].as_str().unwrap_or("") == subformat
    };
    registry().into_iter().find(is_it).unwrap_or(Value::Null)
}

#[test]
fn table_of_formats_is_what_the_binary_prints() {
    let printed = run(&["disk", "formats"]).ok();
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    assert!(
        tables("Formats")[0] == printed,
        "the table in README.md, section Formats, should be:\n\n    {}\n",
        printed.join("\n    ")
    );
}

#[test]
fn cells_have_a_mark_for_every_tool() {
    let table = &tables("Beside other tools")[0];
    assert_eq!(cells(&table[0])[1..], OPERATIONS);
    assert_eq!(table.len(), ROWS.len() + 1, "a row that is not known here");
    for (label, _) in ROWS {
        for cell in row(0, label) {
            let marks: Vec<char> = cell.chars().collect();
            assert_eq!(marks.len(), TOOLS.len(), "{label}: {cell}");
            for (mark, tool) in marks.into_iter().zip(TOOLS) {
                let known = ['-', '?'].contains(&mark) || mark.to_ascii_uppercase() == tool;
                assert!(known, "{label}: {cell}");
            }
        }
    }
}

/// Returns the mark of one tool in one cell.
fn mark(label: &str, operation: &str, tool: usize) -> char {
    let column = OPERATIONS.iter().position(|known| *known == operation);
    row(0, label)[column.unwrap()].chars().nth(tool).unwrap()
}

#[test]
fn hako_does_what_its_marks_say_and_no_more() {
    for (label, variants) in ROWS {
        for operation in OPERATIONS {
            let can = |(format, subformat): &(&str, &str)| match operation {
                "check" => hako_checks(label, format, subformat),
                _ => registered(format, subformat)[operation] == true,
            };
            let able = variants.iter().filter(|variant| can(variant)).count();
            let should = match able {
                0 => '-',
                n if n == variants.len() => 'H',
                _ => 'h',
            };
            assert_eq!(mark(label, operation, HAKO), should, "{label}, {operation}");
        }
    }
}

fn hako_checks(label: &str, format: &str, subformat: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let Some(image) = sample(folder.path(), label, format, subformat) else {
        return false;
    };
    let report = disk_verb("check", &[&image], &["--json"]).json();
    report["layers"][0]["has_structure"] == true
}

/// Makes an image with data in it, by hako or from a seed of the fuzz targets; `None` if hako
/// does not read the variant. An overlay stores nothing itself: its content is its parent's.
fn sample(folder: &Path, label: &str, format: &str, subformat: &str) -> Option<PathBuf> {
    let registered = registered(format, subformat);
    let extension = registered["extensions"][0].as_str()?;
    let path = folder.join(format!("sample.{extension}"));
    let mut options = vec!["--to", format];
    match subformat {
        "vmfsSparse" => esx_delta(&path, subformat, "VMFSSPARSE", "vmdk_cowd"),
        "seSparse" => esx_delta(&path, subformat, "SESPARSE", "vmdk_sesparse"),
        _ if is_overlay(label) => {
            let parent = folder.join("parent").with_extension(format);
            convert(&raw(folder, "data", 0x5a, SIZE), &parent, &options);
            options.extend(["--parent", parent.to_str().unwrap()]);
            disk_verb("create", &[&path], &options).ok();
        }
        _ => {
            if !subformat.is_empty() {
                options.extend(["--subformat", subformat]);
            }
            convert(&raw(folder, "data", 0x5a, SIZE), &path, &options);
        }
    }
    Some(path)
}

fn raw(folder: &Path, stem: &str, byte: u8, size: u64) -> PathBuf {
    let path = folder.join(format!("{stem}.raw"));
    std::fs::write(&path, vec![byte; size as usize]).unwrap();
    path
}

fn esx_delta(path: &Path, create_type: &str, kind: &str, seed: &str) {
    let extent = root().join("tests/fuzz/seeds").join(seed).join("small");
    std::fs::copy(extent, path.with_file_name("extent")).unwrap();
    let sectors = hako_tests::fuzz::EXTENT_SECTORS;
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\nRW {sectors} {kind} \"extent\"\n"
    );
    std::fs::write(path, text).unwrap();
}

fn qemu_img_10() -> Option<QemuImg> {
    let found = QemuImg::every()
        .into_iter()
        .find(|qemu| qemu.version.starts_with("10."));
    if found.is_none() {
        skip("the comparison in the README is with a qemu-img 10: tests/run unpacks one");
    }
    found
}

#[test]
fn qemu_img_does_what_its_marks_say_and_no_more() {
    let Some(qemu) = qemu_img_10() else { return };
    for (label, variants) in ROWS {
        // What hako does not make yet cannot be put before qemu-img.
        if variants.iter().any(|(a, b)| registered(a, b).is_null()) {
            skip(&format!("{label}: hako makes none"));
            continue;
        }
        for operation in OPERATIONS {
            let mark = mark(label, operation, QEMU);
            let able = variants
                .iter()
                .filter(|(format, subformat)| qemu_can(&qemu, operation, label, format, subformat))
                .count();
            let agrees = match mark {
                'Q' => able == variants.len(),
                'q' => able > 0,
                _ => able == 0,
            };
            assert!(
                agrees,
                "{label}, {operation}: {mark}, but {able} of {variants:?}"
            );
        }
    }
}

fn qemu_can(qemu: &QemuImg, operation: &str, label: &str, format: &str, subformat: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = sample(folder, label, format, subformat).unwrap();
    let info = disk_verb("info", &[&image], &["--from", format, "--json"]).json();
    let other = raw(
        folder,
        "other",
        0xa5,
        info["virtual_size"].as_u64().unwrap(),
    );
    let reads = || qemu_reads(qemu, folder, &image, format);
    let make = match is_overlay(label) {
        true => {
            let parent = image.with_file_name("parent").with_extension(format);
            vec![
                "-b".to_owned(),
                parent.display().to_string(),
                "-F".to_owned(),
                qemu_name(format).to_owned(),
            ]
        }
        false => qemu_options(format, subformat),
    };
    let make: Vec<&str> = make.iter().map(String::as_str).collect();
    let theirs = qemu_name(format);
    let done = |args: &[&str]| qemu.run(args).code == Some(0);
    let (image_name, other_name) = (image.to_str().unwrap(), other.to_str().unwrap());
    match operation {
        "read" => reads(),
        "create" => {
            let made = folder.join("made");
            done(
                &[
                    &["create", "-f", theirs],
                    &make[..],
                    &[made.to_str().unwrap(), "4M"],
                ]
                .concat(),
            )
        }
        // Every byte becomes another one.
        "write" => {
            reads()
                && done(&[
                    "convert", "-n", "-f", "raw", "-O", theirs, other_name, image_name,
                ])
                && hash(&image, &["--from", format]) == disk::sha256(&other)
        }
        "pipe" => {
            let convert = ["convert", "-f", "raw", "-O", theirs];
            done(&[&convert, &make[..], &[other_name, "/dev/stdout"]].concat())
        }
        "check" => done(&["check", "-f", theirs, image_name]),
        "repair" => done(&["check", "-r", "all", "-f", theirs, image_name]),
        "resize" => done(&["resize", "-f", theirs, image_name, "8M"]),
        "compact" => qemu.ok(&["--help"]).contains("\n  compact "),
        _ => unreachable!("{operation}"),
    }
}

/// Returns whether qemu-img reads an image, and the same content as hako.
fn qemu_reads(qemu: &QemuImg, folder: &Path, image: &Path, format: &str) -> bool {
    let read = folder.join("read.raw");
    let (from, to) = (image.to_str().unwrap(), read.to_str().unwrap());
    let run = qemu.run(&["convert", "-f", qemu_name(format), "-O", "raw", from, to]);
    run.code == Some(0) && disk::sha256(&read) == hash(image, &["--from", format])
}

/// Returns the options with which qemu-img would make a variant.
fn qemu_options(format: &str, subformat: &str) -> Vec<String> {
    let option = match (format, subformat) {
        ("raw", _) | ("qcow2", "v3") | ("vdi", "dynamic") => return Vec::new(),
        ("vdi", "fixed") => "static=on".to_owned(),
        _ => format!("subformat={subformat}"),
    };
    vec!["-o".to_owned(), option]
}

/// Returns what the second table says of one tool in one row.
fn word(label: &str, tool: usize) -> String {
    row(1, label)[tool].clone()
}

#[test]
fn hako_has_the_verbs_that_the_table_says() {
    for (label, verb, option) in [
        ("check every byte stored", "check", "--data"),
        ("rename with every reference", "rename", ""),
        ("delete with every file", "delete", ""),
        ("serve over NBD", "serve", "--writable"),
    ] {
        let help = run(&["disk", verb, "--help"]);
        let has = help.code == Some(0) && help.stdout.contains(option);
        let should = if has { "yes" } else { "-" };
        assert_eq!(word(label, HAKO), should, "{label}");
    }
}

/// Formats for which something works, as the second table names them.
fn named(able: impl Fn(&str) -> bool) -> String {
    let mut formats: Vec<String> = registry()
        .iter()
        .map(|row| row["format"].as_str().unwrap().to_owned())
        .collect();
    formats.dedup();
    let able: Vec<&str> = formats
        .iter()
        .map(String::as_str)
        .filter(|name| able(name))
        .collect();
    match able.len() {
        0 => "-".to_owned(),
        n if n + 1 == formats.len() && !able.contains(&"raw") => "all but raw".to_owned(),
        _ => able.join(" "),
    }
}

/// Makes two images of the same content and an overlay on the first, tries `then` on the overlay
/// and the second.
fn on_an_overlay(
    format: &str,
    overlay: impl Fn(&Path, &Path) -> bool,
    then: impl Fn(&Path, &Path) -> bool,
) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let file = |stem: &str| folder.path().join(format!("{stem}.{format}"));
    let data = raw(folder.path(), "data", 0x5a, SIZE);
    for stem in ["parent", "other"] {
        convert(&data, &file(stem), &["--to", format]);
    }
    overlay(&file("overlay"), &file("parent")) && then(&file("overlay"), &file("other"))
}

#[test]
fn hako_knows_the_overlays_that_the_table_says() {
    let done =
        |verb, paths: &[&Path], options: &[&str]| disk_verb(verb, paths, options).code == Some(0);
    let able = |then: &dyn Fn(&Path, &Path) -> bool| {
        named(|format| {
            let overlay = |overlay: &Path, parent: &Path| {
                let parent = parent.to_str().unwrap();
                done("create", &[overlay], &["--to", format, "--parent", parent])
            };
            on_an_overlay(format, overlay, then)
        })
    };
    let rebase = |overlay: &Path, parent: &Path| {
        done(
            "rebase",
            &[overlay],
            &["--parent", parent.to_str().unwrap()],
        )
    };
    assert_eq!(word("make an overlay", HAKO), able(&|_, _| true));
    let commit = |overlay: &Path, _: &Path| done("commit", &[overlay], &[]);
    assert_eq!(word("commit an overlay", HAKO), able(&commit));
    assert_eq!(word("rebase an overlay", HAKO), able(&rebase));
}

#[test]
fn qemu_img_knows_the_overlays_that_the_table_says() {
    let Some(qemu) = qemu_img_10() else { return };
    let done = |args: &[&str]| qemu.run(args).code == Some(0);
    let able = |then: &dyn Fn(&str, &str, &str) -> bool| {
        named(|format| {
            let format_name = qemu_name(format);
            on_an_overlay(
                format,
                |overlay, parent| {
                    let (overlay, parent) = (overlay.to_str().unwrap(), parent.to_str().unwrap());
                    let on = ["-b", parent, "-F", format_name];
                    done(&[&["create", "-f", format_name, overlay], &on[..]].concat())
                },
                |overlay, parent| {
                    let (overlay, parent) = (overlay.to_str().unwrap(), parent.to_str().unwrap());
                    then(format_name, overlay, parent)
                },
            )
        })
    };
    assert_eq!(word("make an overlay", QEMU), able(&|_, _, _| true));
    let commit = |format: &str, overlay: &str, _: &str| done(&["commit", "-f", format, overlay]);
    assert_eq!(word("commit an overlay", QEMU), able(&commit));
    let rebase = |format: &str, overlay: &str, parent: &str| {
        done(&["rebase", "-f", format, "-b", parent, "-F", format, overlay])
    };
    assert_eq!(word("rebase an overlay", QEMU), able(&rebase));
}
