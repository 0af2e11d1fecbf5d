//! A convert that is killed leaves nothing under the final name, and the next one clears up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hako_block::testkit::Rng;
use hako_tests::{Variant, all, convert, disk, disk_verb, hako, names, variants};

/// Kills in all, over all variants.
const N_KILLS: u64 = 50;

fn command(source: &Path, target: &Path, variant: &Variant) -> Command {
    let mut command = Command::new(hako());
    command
        .args(["disk", "convert", "--force"])
        .args([source, target])
        .args(variant.options())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Starts a convert and kills it after `delay`.
fn killed(source: &Path, target: &Path, variant: &Variant, delay: Duration) {
    let mut child = command(source, target, variant).spawn().unwrap();
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_convert_leaves_no_file_under_the_final_name() {
    let world = tempfile::tempdir().unwrap();
    let source = world.path().join("source.raw");
    disk::make_dense(&source, if all() { 512 } else { 96 } << 20, 1);
    let variants = variants();
    let mut rng = Rng::new(50);
    let n_each = N_KILLS.div_ceil(variants.len() as u64);
    let mut n_unfinished = 0;
    for variant in &variants {
        let folder = world.path().join(variant.file_name("folder"));
        std::fs::create_dir(&folder).unwrap();
        let target = folder.join(variant.file_name("disk"));
        let start = Instant::now();
        convert(&source, &target, &variant.options());
        let whole = start.elapsed().as_micros() as u64;
        let final_names = names(&folder);
        for _ in 0..n_each {
            clear(&folder);
            let delay = Duration::from_micros(rng.below(1..whole));
            killed(&source, &target, variant, delay);
            if target.exists() {
                // It was through before the signal came: then it must be whole.
                same(&source, &target, variant);
            } else {
                n_unfinished += 1;
            }
        }
        convert(
            &source,
            &target,
            &[&variant.options()[..], &["--force"]].concat(),
        );
        assert_eq!(names(&folder), final_names, "debris of {variant:?}");
        same(&source, &target, variant);
        clear(&folder);
    }
    assert!(
        n_unfinished > N_KILLS / 4,
        "only {n_unfinished} were killed in time"
    );
}

/// With `--force` the old image, or the new one, and nothing between.
#[test]
fn killed_replacement_leaves_the_old_image_or_the_new_one() {
    let world = tempfile::tempdir().unwrap();
    let [old, new] = ["old.raw", "new.raw"].map(|name| world.path().join(name));
    disk::make_dense(&old, 8 << 20, 1);
    disk::make_dense(&new, 48 << 20, 2);
    let mut rng = Rng::new(7);
    let single: Vec<_> = variants()
        .into_iter()
        .filter(|variant| is_one_file(&old, variant))
        .collect();
    for variant in &single {
        let folder = tempfile::tempdir_in(world.path()).unwrap();
        let target = folder.path().join(variant.file_name("disk"));
        for _ in 0..5 {
            convert(
                &old,
                &target,
                &[&variant.options()[..], &["--force"]].concat(),
            );
            let delay = Duration::from_micros(rng.below(1000..120_000));
            killed(&new, &target, variant, delay);
            let options = ["--from", &variant.format, "--from-b", "raw"];
            let is = |raw: &PathBuf| {
                disk_verb(
                    "compare",
                    &[&target, raw],
                    &[&options[..], &["--strict"]].concat(),
                )
                .stdout
                .contains("sizes differ")
            };
            assert!(
                !is(&old) || !is(&new),
                "{variant:?}: neither the old image nor the new one"
            );
        }
    }
}

/// Returns whether the variant's image is one file.
fn is_one_file(source: &Path, variant: &Variant) -> bool {
    let folder = tempfile::tempdir().unwrap();
    convert(source, &folder.path().join("disk"), &variant.options());
    names(folder.path()).len() == 1
}

fn same(source: &Path, target: &Path, variant: &Variant) {
    let options = ["--from", "raw", "--from-b", &variant.format];
    disk_verb("compare", &[source, target], &options).ok();
}

fn clear(folder: &Path) {
    for name in names(folder) {
        if !name.ends_with(".hako-part") {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
    }
}
