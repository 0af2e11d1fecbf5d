//! Verbs that change an image in place, killed at random moments: the content stays, and the next
//! run completes what was begun.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hako_block::testkit::Rng;
use hako_tests::{all, convert, disk, disk_verb, hako, names, run};

const MIB: u64 = 1 << 20;

/// Formats that can have overlays, and the options that create one.
const FORMATS: &[(&str, &[&str])] = &[
    ("vmdk", &[]),
    ("qcow2", &[]),
    ("vhd", &["--subformat", "differencing"]),
    ("vhdx", &["--subformat", "differencing"]),
    ("vdi", &[]),
];

/// A folder with a base, an overlay with data of its own, and another base to rebase onto.
struct World {
    folder: tempfile::TempDir,
    extension: &'static str,
    wanted: PathBuf,
}

impl World {
    fn new(extension: &'static str, scratch: &Path) -> Self {
        let world = Self {
            folder: tempfile::tempdir_in(scratch).unwrap(),
            extension,
            wanted: scratch.join("top.raw"),
        };
        for name in ["base", "other"] {
            convert(&scratch.join(format!("{name}.raw")), &world.path(name), &[]);
        }
        // The overlay's layer comes from a qcow2 overlay that qemu-io wrote into.
        let options = FORMATS
            .iter()
            .find(|(name, _)| *name == extension)
            .unwrap()
            .1;
        let base = world.path("base");
        let layer = [
            &["--layer", "0", "--parent", base.to_str().unwrap()],
            options,
        ]
        .concat();
        convert(&scratch.join("top.qcow2"), &world.path("top"), &layer);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder
            .path()
            .join(format!("{name}.{}", self.extension))
    }

    fn copy(&self) -> Self {
        let copy = Self {
            folder: tempfile::tempdir_in(self.folder.path().parent().unwrap()).unwrap(),
            extension: self.extension,
            wanted: self.wanted.clone(),
        };
        for name in names(self.folder.path()) {
            std::fs::copy(
                self.folder.path().join(&name),
                copy.folder.path().join(&name),
            )
            .unwrap();
        }
        copy
    }

    #[track_caller]
    fn assert_same(&self, name: &str, about: &str) {
        let run = disk_verb("compare", &[&self.wanted, &self.path(name)], &[]);
        assert_eq!(run.code, Some(0), "{about}: {}{}", run.stdout, run.stderr);
    }
}

/// Makes the raw disks that every format starts from.
fn make_sources(scratch: &Path) {
    let size = if all() { 256 } else { 48 } * MIB;
    disk::make_dense(&scratch.join("base.raw"), size, 1);
    disk::make_dense(&scratch.join("other.raw"), size, 2);
    let [base, top, raw] = ["base.qcow2", "top.qcow2", "top.raw"].map(|name| scratch.join(name));
    convert(&scratch.join("base.raw"), &base, &[]);
    run(&[
        "disk".as_ref(),
        "create".as_ref(),
        top.as_os_str(),
        "--parent".as_ref(),
        base.as_os_str(),
    ])
    .ok();
    for offset in (0..size / MIB).step_by(3) {
        let command = if offset % 2 == 0 {
            format!("write -P {} {offset}M 700k", 1 + offset % 200)
        } else {
            format!("write -z {offset}M 900k")
        };
        let status = Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", &command])
            .arg(&top)
            .stdout(Stdio::null())
            .status()
            .expect("qemu-io is installed (tests/run does that)");
        assert!(status.success());
    }
    convert(&top, &raw, &[]);
}

fn verb(world: &World, words: &[&str]) -> Command {
    let mut command = Command::new(hako());
    command
        .arg("disk")
        .args(words)
        .current_dir(world.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Kills the verb at random moments; `shows` names images of which at least one must show the
/// content then (or, for a commit, be refused), and running it again completes it.
fn kill_at_random(world: &World, words: &[&str], shows: &str, rng: &mut Rng) {
    let trial = world.copy();
    let start = Instant::now();
    let status = verb(&trial, words).status().unwrap();
    assert!(status.success(), "{words:?}");
    let whole = start.elapsed().as_micros() as u64;
    for _ in 0..if all() { 20 } else { 4 } {
        let trial = world.copy();
        let mut child = verb(&trial, words).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(rng.below(1..whole + 1000)));
        child.kill().unwrap();
        let killed = !child.wait().unwrap().success();
        let about = format!("{} {words:?}, killed: {killed}", world.extension);
        if words[0] == "commit" {
            // Until it is run again the overlay may be refused, never show something else.
            let run = disk_verb("compare", &[&trial.wanted, &trial.path(shows)], &[]);
            assert_ne!(run.code, Some(1), "{about}: {}", run.stdout);
        } else if trial.path(shows).exists() {
            trial.assert_same(shows, &about);
        }
        let again = verb(&trial, words).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&again.stderr);
        let done_already = words[0] == "rename" && !trial.path(shows).exists();
        assert!(
            again.status.success() || !killed || done_already,
            "{about}: again: {stderr}"
        );
        let shown = if words[0] == "rename" {
            "renamed"
        } else {
            shows
        };
        trial.assert_same(shown, &about);
    }
}

#[test]
fn image_keeps_its_content_when_a_verb_is_killed() {
    let scratch = tempfile::tempdir().unwrap();
    make_sources(scratch.path());
    let mut rng = Rng::new(11);
    for (extension, _) in FORMATS {
        let world = World::new(extension, scratch.path());
        world.assert_same("top", extension);
        let file = |name: &str| format!("{name}.{extension}");
        let (top, other) = (file("top"), file("other"));
        for words in [
            vec!["compact", &top],
            vec!["rebase", &top, "--parent", &other],
            vec!["rename", &top, &file("renamed")],
            vec!["commit", &top],
        ] {
            kill_at_random(&world, &words, "top", &mut rng);
        }
    }
}
