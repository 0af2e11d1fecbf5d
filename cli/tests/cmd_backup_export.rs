//! `hako backup export`: options, exit codes, JSON.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Run, World, noise};
use serde_json::Value;

const NIGHT: u64 = 1_795_339_815;

struct Vms(World);

impl Vms {
    fn new() -> Self {
        let world = World::new();
        world.raw("web.raw", 2 << 20, &[(0, &noise(1, 300_000))]);
        std::fs::create_dir(world.path("backups")).unwrap();
        let vms = Self(world);
        assert_eq!(
            vms.run(0, &["vm", "create", "web", "--from-disk", "web.raw"])
                .code,
            0
        );
        vms
    }

    /// Runs the binary so many days after the first night.
    fn run(&self, day: u64, words: &[&str]) -> Run {
        let mut command = self.0.command();
        command.env("SOURCE_DATE_EPOCH", (NIGHT + day * 86_400).to_string());
        command.args(words).output().unwrap().into()
    }

    fn backup(&self, day: u64, words: &[&str]) -> Run {
        self.run(day, &[&["backup", "export", "web"], words].concat())
    }

    fn backups(&self) -> Vec<String> {
        self.0.names_in("backups")
    }
}

#[test]
fn generations_are_kept_in_silence() {
    let vms = Vms::new();
    for day in 0..4 {
        let run = vms.backup(day, &["-o", "backups", "--keep", "2"]);
        assert_eq!(
            (run.code, run.stdout.as_str(), run.stderr.as_str()),
            (0, "", "")
        );
    }
    assert_eq!(
        vms.backups(),
        ["web-2026-11-24T093015Z.ova", "web-2026-11-25T093015Z.ova"]
    );
    let run = vms.backup(4, &["-o", "backups", "--keep", "2", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["verified"], true);
    assert_eq!(report["removed"][0], "web-2026-11-24T093015Z.ova");
    assert_eq!(report["disks"][0]["sha256"].as_str().unwrap().len(), 64);
    let file = report["file"].as_str().unwrap();
    assert_eq!(
        vms.run(4, &["vm", "import", "--name", "back", file]).code,
        0
    );
    let run = vms.0.disk("compare web.raw home/vms/back/back.vmdk");
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn a_file_or_a_pipe_will_do_too() {
    let vms = Vms::new();
    assert_eq!(vms.backup(0, &["-o", "web.ova", "--verify"]).code, 0);
    let run = vms.backup(0, &["-o", "web.ova"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(vms.backup(0, &["-o", "web.ova", "--force"]).code, 0);
    let mut command = vms.0.command();
    command.env("HAKO_HOME", vms.0.path("home"));
    let piped = command
        .args(["backup", "export", "web", "-o", "-"])
        .output()
        .unwrap();
    assert!(piped.status.success());
    vms.0.write("piped.ova", &piped.stdout);
    assert_eq!(
        vms.run(0, &["vm", "import", "--name", "piped", "piped.ova"])
            .code,
        0
    );
    for words in [
        &["-o", "x.ova", "--keep", "2"][..],
        &["-o", "-", "--verify"],
    ] {
        let run = vms.backup(0, words);
        assert_eq!(run.code, 2, "{words:?}: {}", run.stderr);
    }
    let run = vms.run(0, &["backup", "export", "nobody", "-o", "backups"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
}

/// The examples of the help are what cron and systemd would run.
#[test]
fn the_examples_of_the_help_are_commands_that_there_are() {
    let vms = Vms::new();
    let help = vms.run(0, &["backup", "export", "--help"]).stdout;
    let cron = help
        .lines()
        .find(|line| line.contains("30 1 * * * root"))
        .unwrap();
    let words = cron
        .split_once("hako ")
        .unwrap()
        .1
        .replace("/srv/backup", "backups");
    let words: Vec<_> = words.split_whitespace().collect();
    assert_eq!(vms.run(0, &words).code, 0);
    let unit = help
        .lines()
        .find(|line| line.contains("ExecStart="))
        .unwrap();
    let words = unit.split_once("hako ").unwrap().1.replace("%i", "web");
    let words = words.replace("/srv/backup", "backups");
    let words: Vec<_> = words.split_whitespace().collect();
    assert_eq!(vms.run(1, &words).code, 0);
    assert_eq!(vms.backups().len(), 2);
}
