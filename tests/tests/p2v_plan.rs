//! Sizes that `hako p2v plan` makes of recordings, against python: what each program recorded, a week
//! that all of them tell of, and sysstat as it is installed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use hako_tests::{Run, all, hako, root, run, run_program, skip};
use serde_json::Value;

const CPUS: &str = "16";
const MEMORY_MIB: &str = "65536";

/// An inventory of a server that the recordings may be of.
fn inventory(folder: &Path, cpus: &str, memory_mib: &str) -> PathBuf {
    let bytes = memory_mib.parse::<u64>().unwrap() << 20;
    let text = format!(
        r#"{{"schema": 1, "firmware": {{"kind": "bios"}}, "cpu": {{"threads": {cpus}}},
        "memory": {{"total_bytes": {bytes}}}, "disks": [{{"name": "vda", "bytes": 1048576}}],
        "nics": [{{"name": "eth0"}}]}}"#
    );
    let path = folder.join("inventory.json");
    std::fs::write(&path, text).unwrap();
    path
}

fn planned(inventory: &Path, recordings: &[&Path]) -> Value {
    let mut args: Vec<&OsStr> = ["p2v", "plan", "--json", "--inventory"]
        .map(OsStr::new)
        .to_vec();
    args.push(inventory.as_os_str());
    for recording in recordings {
        args.extend([OsStr::new("--history"), recording.as_os_str()]);
    }
    run(&args).json()
}

fn python(args: &[&str]) -> Run {
    let script = root().join("tests/peers/p2v_sizes.py");
    let mut words = vec![script.to_str().unwrap()];
    words.extend(args);
    run_program("python3", &words)
}

/// Compares a plan with what python makes of the same files.
#[track_caller]
fn same_as_python(plan: &Value, cpus: &str, memory_mib: &str, recordings: &[&Path]) {
    let mut args = vec!["expect", cpus, memory_mib, "0"];
    args.extend(recordings.iter().map(|path| path.to_str().unwrap()));
    let expected = python(&args).json();
    for (key, value) in expected.as_object().unwrap() {
        let found = match key.as_str() {
            "cpus" => &plan["cpu"]["measured"],
            "memory_mib" => &plan["memory"]["measured_mib"],
            "disk vda" => &plan["disks"][0]["requests_p95"],
            "nic eth0" => &plan["nics"][0]["bytes_per_second_p95"],
            key if key.contains(' ') => continue,
            key => &plan["history"][key],
        };
        let near = match (value.as_f64(), found.as_f64()) {
            (Some(value), Some(found)) => (value - found).abs() <= 0.0006 + value * 1e-9,
            (value, found) => value == found,
        };
        assert!(near, "{recordings:?}: {key}: {found}, python says {value}");
    }
}

#[test]
fn what_each_program_recorded_comes_to_what_python_says() {
    let folder = tempfile::tempdir().unwrap();
    let (cpus, memory_mib) = ("2", "24320");
    let inventory = inventory(folder.path(), cpus, memory_mib);
    let recorded = |name: &str| root().join("tests/recordings").join(name);
    let [tab, dsk, net] = ["tab", "dsk", "net"].map(|kind| recorded(&format!("collectl.{kind}")));
    let (sysstat, atop) = (recorded("sysstat.json"), recorded("atop.txt"));
    for files in [vec![&*sysstat], vec![&*atop], vec![&*tab, &*dsk, &*net]] {
        let plan = planned(&inventory, &files);
        same_as_python(&plan, cpus, memory_mib, &files);
        assert_eq!(plan["history"]["confidence"], "low");
    }
}

#[test]
fn a_week_is_the_same_whoever_recorded_it() {
    let seeds = if all() { 40 } else { 4 };
    for seed in 0..seeds {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let inventory = inventory(folder.path(), CPUS, MEMORY_MIB);
        python(&["make", &seed.to_string(), folder.path().to_str().unwrap()]).ok();
        let files = ["sysstat.json", "atop.txt", "collectl.tab", "web01.samples"].map(path);
        let plans: Vec<Value> = files
            .iter()
            .map(|file| {
                let plan = planned(&inventory, &[file]);
                same_as_python(&plan, CPUS, MEMORY_MIB, &[file]);
                let history = &plan["history"];
                assert_eq!(history["samples"], 1008, "{file:?}");
                assert_eq!(history["confidence"], "high", "{file:?}");
                assert_eq!(history["coverage_percent"], 100.0, "{file:?}");
                plan
            })
            .collect();
        for plan in &plans {
            assert_eq!(plan["cpu"]["count"], plans[0]["cpu"]["count"]);
            assert_eq!(plan["memory"]["mib"], plans[0]["memory"]["mib"]);
        }
        // All of them together tell of the same week, once.
        let every: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let together = planned(&inventory, &every);
        assert_eq!(together["history"]["samples"], 1008);
        assert_eq!(together["cpu"]["count"], plans[0]["cpu"]["count"]);
    }
}

/// Returns sysstat's collector, which is in no folder of programs.
fn sadc() -> Option<PathBuf> {
    let places = [
        "/usr/lib/sysstat/sadc",
        "/usr/lib64/sa/sadc",
        "/usr/lib/sa/sadc",
    ];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    let sadf = std::process::Command::new("sadf").arg("-V").output();
    if found.is_none() || sadf.is_err() {
        skip("sysstat is not installed: tests/run does that");
        return None;
    }
    found
}

#[test]
fn sysstat_as_it_is_installed_and_our_own_sampler_agree() {
    let Some(sadc) = sadc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let binary = path("sa");
    // Both look at this machine, for the same ten seconds.
    let own = path("own.samples");
    let mut sampler = std::process::Command::new(hako())
        .args(["p2v", "sample", "--interval", "1s", "--for", "10s", "--out"])
        .arg(&own)
        .spawn()
        .unwrap();
    run_program(sadc, &["-S", "XALL", "1", "11", binary.to_str().unwrap()]).ok();
    assert!(sampler.wait().unwrap().success());
    let words = [
        "-j",
        binary.to_str().unwrap(),
        "--",
        "-u",
        "-r",
        "ALL",
        "-S",
        "-W",
        "-q",
        "ALL",
    ];
    let words = [&words[..], &["-d", "-n", "DEV"]].concat();
    let text = path("sa.json");
    std::fs::write(&text, run_program("sadf", &words).ok()).unwrap();
    let (cpus, memory_mib) = (n_cpus().to_string(), "1048576");
    let inventory = inventory(folder.path(), &cpus, memory_mib);
    let sysstat = planned(&inventory, &[&text]);
    same_as_python(&sysstat, &cpus, memory_mib, &[&text]);
    let own_plan = planned(&inventory, &[&own]);
    same_as_python(&own_plan, &cpus, memory_mib, &[&own]);
    // They looked at different moments of the same time.
    let of = |plan: &Value, key: &str| plan["history"][key].as_f64().unwrap();
    let key = "busy_cores_p95";
    let most = n_cpus() as f64;
    assert!((of(&sysstat, key) - of(&own_plan, key)).abs() < 0.5 * most);
    let key = "memory_used_max_mib";
    let (a, b) = (of(&sysstat, key), of(&own_plan, key));
    assert!(a / b < 1.5 && b / a < 1.5, "{a} {b}");
}

fn n_cpus() -> usize {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let is_cpu = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    stat.lines().filter(is_cpu).count()
}
