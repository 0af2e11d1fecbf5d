//! `hako vm import`, `hako vm export` and `hako backup export` killed at every system call that
//! changes a file: nothing half-made has a final name, and the next run clears up.

use std::process::Stdio;

use hako_tests::machines::{CHANGING_CALLS, Machines, has_strace};
use hako_tests::{hako, names};

const MIB: u64 = 1 << 20;

/// A home with the machine `web`.
fn world() -> Machines {
    let world = Machines::new(2 * MIB);
    world.run(&["vm", "create", "web", "--from-disk", "disk.raw"]);
    std::fs::create_dir(world.path("out")).unwrap();
    world
}

/// Kills `words` at the first call of each name, the second and so on, until it is through before
/// its turn. After each: what `folder` shows under a final name, `is_whole` looks at.
#[track_caller]
fn kill_everywhere(world: &Machines, words: &[&str], folder: &str, is_whole: impl Fn(&str, &str)) {
    if !has_strace() {
        return;
    }
    let folder = world.path(folder);
    let mut n_killed = 0;
    for call in CHANGING_CALLS {
        for n in 1.. {
            let ended = world.killed(words, call, n);
            let about = format!("{words:?} at {call} {n}");
            let all = names(&folder).into_iter();
            for name in all.filter(|name| !name.starts_with('.')) {
                is_whole(&name, &about);
                let path = folder.join(&name);
                let _ = std::fs::remove_dir_all(&path);
                let _ = std::fs::remove_file(&path);
            }
            if let Some(status) = ended {
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
    let world = world();
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
    let world = world();
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
    let world = world();
    let words = ["backup", "export", "web", "-o", "out", "--keep", "2"];
    kill_everywhere(&world, &words, "out", |name, about| {
        let path = world.path("out").join(name);
        let file = path.to_str().unwrap();
        world.run(&["vm", "import", "--to", "check", "--name", "c", file]);
        world.assert_same(&world.path("check/c.vmdk"), about);
        std::fs::remove_dir_all(world.path("check")).unwrap();
    });
}
