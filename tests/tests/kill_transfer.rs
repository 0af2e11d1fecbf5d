//! `hako vm import`, `hako vm export` and `hako backup export` killed at every system call that
//! changes a file: nothing half-made has a final name, and the next run clears up.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use hako_tests::{CHANGING_CALLS, disk, disk_verb, hako, killing, names, skip};

const MIB: u64 = 1 << 20;

/// A home with the machine `web`.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        disk::make_dense(&world.path("disk.raw"), 2 * MIB, 7);
        world.run(&["vm", "create", "web", "--from-disk", "disk.raw"]);
        std::fs::create_dir(world.path("out")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(self.folder.path())
            .env("HAKO_HOME", self.path("home"))
            .env("SOURCE_DATE_EPOCH", "1795339815")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) {
        let output = self
            .command(hako())
            .args(words)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {stderr}");
    }

    /// Runs the verb and kills it at its `n`th `call`; returns how it ended.
    fn killed(&self, words: &[&str], call: &str, n: usize) -> ExitStatus {
        let mut command = self.command("strace");
        let command = command.args(killing(call, n)).arg(hako()).args(words);
        command.stderr(Stdio::null()).status().unwrap()
    }

    #[track_caller]
    fn assert_same(&self, disk: &Path, about: &str) {
        let run = disk_verb("compare", &[&self.path("disk.raw"), disk], &[]);
        assert_eq!(run.code, Some(0), "{about}: {}{}", run.stdout, run.stderr);
    }
}

/// Kills `words` at the first call of each name, the second and so on, until it is through before
/// its turn. After each: what `folder` shows under a final name, `is_whole` looks at.
#[track_caller]
fn kill_everywhere(world: &World, words: &[&str], folder: &str, is_whole: impl Fn(&str, &str)) {
    let strace = Command::new("strace").arg("--version").output();
    if strace.is_err() {
        skip("strace is not installed: tests/run does that");
        return;
    }
    let folder = world.path(folder);
    let mut n_killed = 0;
    for call in CHANGING_CALLS {
        for n in 1.. {
            let status = world.killed(words, call, n);
            let about = format!("{words:?} at {call} {n}");
            let all = names(&folder).into_iter();
            for name in all.filter(|name| !name.starts_with('.')) {
                is_whole(&name, &about);
                let path = folder.join(&name);
                let _ = std::fs::remove_dir_all(&path);
                let _ = std::fs::remove_file(&path);
            }
            if status.signal().is_none() && status.code() != Some(137) {
                assert!(status.success(), "{about}: {status}");
                break;
            }
            n_killed += 1;
        }
    }
    assert!(n_killed > 4, "{words:?}: killed {n_killed} times only");
    world.run(words);
    let hidden: Vec<_> = names(&folder)
        .into_iter()
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(hidden, [""; 0], "{words:?}: debris");
}

#[test]
fn a_killed_export_leaves_nothing_or_all_of_it() {
    let world = World::new();
    let import = |name: &str, about: &str| {
        let run = world
            .command(hako())
            .args(["vm", "import", "--to", "check", "--name", "c"])
            .arg(world.path("out").join(name))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{about}: {stderr}");
        world.assert_same(&world.path("check/c.vmdk"), about);
        std::fs::remove_dir_all(world.path("check")).unwrap();
    };
    kill_everywhere(
        &world,
        &["vm", "export", "web", "out/web.ova"],
        "out",
        import,
    );
    std::fs::remove_file(world.path("out/web.ova")).unwrap();
    kill_everywhere(&world, &["vm", "export", "web", "out/ovf"], "out", import);
    std::fs::remove_dir_all(world.path("out/ovf")).unwrap();
    kill_everywhere(
        &world,
        &["vm", "export", "--for", "esxi", "web", "out/esxi"],
        "out",
        import,
    );
}

#[test]
fn a_killed_import_leaves_no_machine_or_all_of_it() {
    let world = World::new();
    world.run(&["vm", "export", "web", "web.ova"]);
    std::fs::rename(world.path("home/vms/web"), world.path("web")).unwrap();
    for source in ["web.ova", "web"] {
        let words = ["vm", "import", "--name", "new", source];
        kill_everywhere(&world, &words, "home/vms", |name, about| {
            assert_eq!(name, "new", "{about}");
            world.run(&["vm", "info", "new"]);
            world.assert_same(&world.path("home/vms/new/new.vmdk"), about);
        });
        world.run(&["vm", "info", "new"]);
        std::fs::remove_dir_all(world.path("home/vms/new")).unwrap();
    }
}

#[test]
fn a_killed_backup_leaves_the_generations_that_there_were() {
    let world = World::new();
    let words = ["backup", "export", "web", "-o", "out", "--keep", "2"];
    kill_everywhere(&world, &words, "out", |name, about| {
        let path = world.path("out").join(name);
        let file = path.to_str().unwrap();
        world.run(&["vm", "import", "--to", "check", "--name", "c", file]);
        world.assert_same(&world.path("check/c.vmdk"), about);
        std::fs::remove_dir_all(world.path("check")).unwrap();
    });
}
