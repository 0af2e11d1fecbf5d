//! Global options, messages, signals, manual pages and completions.

mod common;

use common::World;

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new();
    let version = world.hako(["--version"]);
    assert_eq!(
        version.stdout,
        format!("hako {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = world.hako(["disk", "--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("formats"));
}

#[test]
fn wrong_usage_is_exit_2() {
    let world = World::new();
    for words in ["", "info", "nonsense", "info --nonsense d.raw", "info a b"] {
        assert_eq!(world.disk(words).code, 2, "{words}");
    }
    assert_eq!(world.hako(["-q", "-v", "disk", "formats"]).code, 2);
}

#[test]
fn global_options_stand_before_or_after_the_verb() {
    let world = World::new();
    let after = world.hako(["disk", "formats", "--json"]).stdout;
    assert!(after.starts_with('{'));
    assert_eq!(world.hako(["--json", "disk", "formats"]).stdout, after);
    assert_eq!(world.hako(["disk", "--json", "formats"]).stdout, after);
}

#[test]
fn progress_as_json_has_the_documented_keys() {
    let world = World::new();
    world.raw("d.raw", 1 << 20, &[(0, &[1; 4096])]);
    let run = world.disk("hash d.raw --progress json");
    assert_eq!(run.code, 0);
    for line in run.stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let keys: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "phase",
                "bytes",
                "total",
                "bytes_per_second",
                "seconds_left"
            ]
        );
        assert_eq!(line["phase"], "hash");
        assert_eq!(line["total"], 1 << 20);
    }
    assert!(!run.stderr.is_empty());
}

#[test]
fn progress_in_a_log_is_lines_and_by_default_nothing() {
    let world = World::new();
    world.raw("d.raw", 1 << 20, &[(0, &[1; 4096])]);
    let run = world.disk("hash d.raw --progress plain");
    assert!(
        run.stderr.starts_with("hash: 100 % of 1 MiB, 1 MiB, "),
        "{}",
        run.stderr
    );
    for words in [
        "hash d.raw",
        "hash d.raw --progress auto",
        "hash d.raw --progress none",
    ] {
        world.done(words);
    }
}

#[test]
fn bar_is_shown_on_a_terminal_only_and_not_when_quiet() {
    let world = World::new();
    world.raw("d.raw", 64 << 20, &[(0, &common::noise(1, 1 << 20))]);
    let hako = common::binary().display();
    let shown = world.on_terminal(&format!("{hako} disk hash d.raw"));
    assert!(
        shown.contains(" % of 64.00 MiB") && shown.contains("left"),
        "{shown:?}"
    );
    for quiet in ["-q", "--quiet", "--progress none"] {
        let shown = world.on_terminal(&format!("{hako} disk hash {quiet} d.raw"));
        assert_eq!(shown.lines().count(), 1, "{shown:?}");
    }
}

#[test]
fn colour_is_for_terminals_and_no_color_turns_it_off() {
    let world = World::new();
    let hako = common::binary().display();
    let shown = world.on_terminal(&format!("{hako} disk info nope.raw"));
    assert!(
        shown.contains("\x1b[1;31mhako:\x1b[0m nope.raw"),
        "{shown:?}"
    );
    let shown = world.on_terminal(&format!("NO_COLOR=1 {hako} disk info nope.raw"));
    assert!(shown.starts_with("hako: nope.raw"), "{shown:?}");
    assert!(
        world
            .disk("info nope.raw")
            .stderr
            .starts_with("hako: nope.raw")
    );
}

#[test]
fn committed_pages_and_completions_are_what_the_binary_generates() {
    let world = World::new();
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../man");
    assert_eq!(world.hako(["man", "pages"]).code, 0);
    let generated = pages_below(&world.path("pages"));
    assert_eq!(
        pages_below(&committed).keys().collect::<Vec<_>>(),
        generated.keys().collect::<Vec<_>>(),
        "other pages than committed; run man/update"
    );
    for (name, page) in &generated {
        let same = std::fs::read_to_string(committed.join(name)).unwrap() == *page;
        assert!(same, "man/{name} is out of date; run man/update");
    }
    for (shell, name) in [
        ("bash", "hako.bash"),
        ("zsh", "_hako"),
        ("fish", "hako.fish"),
    ] {
        let script = world.hako(["completions", shell]).stdout;
        let file = committed.join("completions").join(name);
        let same = std::fs::read_to_string(file).unwrap() == script;
        assert!(
            same,
            "man/completions/{name} is out of date; run man/update"
        );
    }
}

#[allow(clippy::unwrap_used)] // A test helper panics to fail the test.
fn pages_below(folder: &std::path::Path) -> std::collections::BTreeMap<String, String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "1"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}
