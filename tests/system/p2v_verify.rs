//! `hako p2v verify` with Debian's own kernel, initrd, GRUB and systemd: what is good passes, what does
//! not boot is named, and nothing of a boot is left or gets out.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hako_tests::disk::{self, copy_sparse, sha256};
use hako_tests::guests::{Site, disk};
use hako_tests::{Run, all, run_program};
use serde_json::{Value, json};

const MAC: &str = "00:50:56:12:34:56";

/// Returns a copy of a guest's disk, to be changed.
fn copy_of(site: &Site, name: &str) -> Option<PathBuf> {
    let path = site.path("server.raw");
    let from = disk(name)?;
    copy_sparse(&from, &path);
    Some(path)
}

/// Returns where a volume of the disk begins: `p2`, or the root, which is behind 64 MiB of swap.
fn start_of(site: &Site, disk: &Path, volume: &str) -> u64 {
    let inventory = site.hako(&["p2v", "inventory", disk.to_str().unwrap(), "--json"]);
    let inventory: Value = serde_json::from_str(&inventory.stdout).unwrap();
    let partition = if volume == "vg0/root" { "p3" } else { volume };
    let mut volumes = inventory["volumes"].as_array().unwrap().iter();
    let found = volumes.find(|found| found["name"] == partition).unwrap();
    let start = found["partition"]["start"].as_u64().unwrap();
    match volume {
        "vg0/root" => start + (65 << 20),
        _ => start,
    }
}

/// Changes a file system in the disk by e2fsprogs' own means.
fn debugfs(site: &Site, disk: &Path, volume: &str, commands: &str) {
    disk::debugfs(disk, start_of(site, disk, volume), commands);
}

fn verify(site: &Site, words: &[&str]) -> (Run, Value) {
    let all = ["p2v", "verify", "web", "--json", "--timeout", "1800"];
    let run = site.hako(&[&all[..], words].concat());
    let report = serde_json::from_str(&run.stdout);
    let report = report.unwrap_or_else(|_| panic!("{} {}", run.stdout, run.stderr));
    (run, report)
}

/// Returns the checks about something: name, outcome, first note.
fn checks<'a>(report: &'a Value, about: &str) -> Vec<[&'a str; 3]> {
    let all = report["checks"].as_array().unwrap().iter();
    all.filter(|check| check["about"] == about)
        .map(|check| {
            let text = |value: &'a Value| value.as_str().unwrap();
            let note = check["notes"]
                .get(0)
                .map_or("", |note| note.as_str().unwrap());
            [text(&check["name"]), text(&check["outcome"]), note]
        })
        .collect()
}

fn files_of(site: &Site) -> Vec<(String, String)> {
    let folder = site.path("home/vms/web");
    let names = hako_tests::names(&folder).into_iter();
    let files = names.filter(|name| folder.join(name).is_file());
    files
        .map(|name| (sha256(&folder.join(&name)), name))
        .collect()
}

#[test]
fn debian_is_verified_and_neither_gets_out_nor_leaves_anything() {
    let Some(site) = Site::new() else { return };
    let Some(raw) = copy_of(&site, "debian-bios") else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_reached = Arc::new(AtomicBool::new(false));
    let reached = Arc::clone(&is_reached);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            reached.store(true, Ordering::SeqCst);
        }
    });
    // The guest tries, as soon as it has an address.
    let unit = site.path("reach.service");
    let script = format!(
        "until ip -4 address | grep -q 10.0.2; do sleep 1; done; busybox timeout 5 busybox wget -q \
         -O - http://10.0.2.2:{port}/; echo REACHED $? >/dev/console"
    );
    let text = format!(
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c '{}'\n",
        script.replace('$', "$$")
    );
    std::fs::write(&unit, text).unwrap();
    let commands = format!(
        "cd /etc/systemd/system\nwrite {} reach.service\ncd multi-user.target.wants\n\
         symlink reach.service /etc/systemd/system/reach.service\n",
        unit.display()
    );
    debugfs(&site, &raw, "vg0/root", &commands);
    site.create(&raw, &["--nic", &format!("nat,model=vmxnet3,mac={MAC}")]);
    let before = files_of(&site);
    let (run, report) = verify(&site, &[]);
    assert_eq!(run.code, Some(0), "{report:#} {}", run.stderr);
    assert_eq!(report["verdict"], "verified");
    assert_eq!(files_of(&site), before);
    let file_systems = checks(&report, "file-system");
    assert_eq!(file_systems.len(), 2, "{file_systems:?}");
    for about in ["file-system", "boot", "login", "mount", "swap", "services"] {
        let found = checks(&report, about);
        assert!(!found.is_empty(), "{about}: {report:#}");
        assert!(found.iter().all(|check| check[1] == "passed"), "{found:?}");
    }
    let mounts: Vec<&str> = checks(&report, "mount").iter().map(|one| one[0]).collect();
    assert_eq!(mounts, ["/", "/boot"]);

    let folder = site.path("home/vms/web/web.hako-verify");
    let console = std::fs::read_to_string(folder.join("console.log")).unwrap();
    assert!(console.contains("guest login:"), "{console}");
    assert!(console.contains("REACHED 1"), "{console}");
    assert!(!is_reached.load(Ordering::SeqCst));
    let said = std::fs::read_to_string(folder.join("guest.log")).unwrap();
    let nic = format!(" {MAC} vmxnet3");
    assert!(
        said.contains(&nic) && said.contains(" 10.0.2.15/24"),
        "{said}"
    );
    let kept = std::fs::read_to_string(folder.join("report.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), report);
    // The machine is as it was: it can be used at once.
    site.hako(&["vm", "info", "web"]).ok();
}

#[test]
fn what_differs_from_the_inventory_is_told() {
    if !all() {
        return;
    }
    let (Some(disk), Some(site)) = (disk("debian-bios"), Site::new()) else {
        return;
    };
    let taken = site.hako(&["p2v", "inventory", disk.to_str().unwrap(), "--json"]);
    let mut inventory: Value = serde_json::from_str(&taken.stdout).unwrap();
    inventory["nics"] = json!([{
        "name": "eno1", "permanent_mac": MAC, "method": "static", "addresses": ["192.0.2.5/24"],
    }]);
    let mounts = inventory["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"path": "/srv", "volume": "p9", "kind": "xfs", "fstab": "UUID=1"}));
    let path = site.path("server.json");
    std::fs::write(&path, inventory.to_string()).unwrap();
    site.create(&disk, &["--nic", &format!("nat,model=vmxnet3,mac={MAC}")]);
    let out = site.path("report");
    let words = [
        "--inventory",
        path.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let (run, report) = verify(&site, &words);
    assert_eq!(run.code, Some(3), "{report:#} {}", run.stderr);
    let nic = checks(&report, "nic");
    assert!(
        nic[0][1] == "failed" && nic[0][2].contains("is called en"),
        "{nic:?}"
    );
    assert_eq!(checks(&report, "address")[0][1], "failed");
    let mounts = checks(&report, "mount");
    let srv = mounts.iter().find(|mount| mount[0] == "/srv").unwrap();
    assert_eq!(srv[1], "failed");
    assert!(out.join("console.log").exists());
    assert!(!site.path("home/vms/web/web.hako-verify").exists());
}

#[test]
fn an_initrd_without_the_driver_of_its_disk_is_named() {
    let Some(site) = Site::new() else { return };
    let Some(raw) = copy_of(&site, "debian-bios") else {
        return;
    };
    // An archive behind the initrd has empty files in place of the drivers. Kernels take it where its
    // place is a multiple of four bytes.
    let of_boot = format!("{}:p2", raw.display());
    let listed = site.hako(&["disk", "ls", &of_boot, "/"]).ok();
    let name = listed
        .split_whitespace()
        .find(|word| word.starts_with("initrd.img-"))
        .unwrap()
        .to_owned();
    let version = name.strip_prefix("initrd.img-").unwrap();
    let folder = site.path("cpio");
    for top in ["lib", "usr/lib"] {
        let scsi = folder.join(format!("{top}/modules/{version}/kernel/drivers/scsi"));
        std::fs::create_dir_all(&scsi).unwrap();
        File::create(scsi.join("vmw_pvscsi.ko")).unwrap();
    }
    let initrd = site.path("initrd");
    let script = format!(
        "set -e; '{}' disk cat '{of_boot}' /{name} >'{initrd}'; \
         truncate -s %4 '{initrd}'; cd '{}'; \
         find usr/lib -name '*.ko' -o -type d -path 'usr/lib/*' | cpio -o -H newc --quiet >>'{initrd}'",
        hako_tests::hako().display(),
        folder.display(),
        initrd = initrd.display(),
    );
    run_program("sh", &["-c", &script]).ok();
    let commands = format!("rm /{name}\nwrite {} {name}\n", initrd.display());
    debugfs(&site, &raw, "p2", &commands);
    site.create(&raw, &[]);
    let (run, report) = verify(&site, &[]);
    assert_eq!(run.code, Some(1), "{report:#} {}", run.stderr);
    assert_eq!(report["verdict"], "does-not-boot");
    let notes = report["checks"].as_array().unwrap();
    let boot = notes.iter().find(|check| check["about"] == "boot").unwrap();
    let notes = boot["notes"].to_string();
    for told in [
        "initramfs-tools",
        "/dev/mapper/vg0-root does not exist",
        "p2v adapt",
    ] {
        assert!(notes.contains(told), "{notes}");
    }
    assert!(run.stderr.is_empty() || !run.stderr.contains("panicked"));
}

#[test]
fn a_damaged_file_system_is_told_without_a_boot() {
    let Some(raw) = disk("debian-bios") else {
        return;
    };
    let Some(site) = Site::new() else { return };
    site.create(&raw, &[]);
    let clean = ["p2v", "verify", "web", "--no-boot"];
    let run = site.hako(&clean).expect_code(0);
    assert!(run.stdout.contains("web: verified"), "{}", run.stdout);
    site.hako(&["vm", "delete", "web", "--yes"]);

    let copy = copy_of(&site, "debian-bios").unwrap();
    let at = start_of(&site, &copy, "p2");
    let file = File::options().write(true).open(&copy).unwrap();
    // A descriptor: where the inodes of the sixth group are.
    let descriptor = at + 2048 + 5 * 64;
    file.write_all_at(&[0x5a; 4], descriptor + 8).unwrap();
    drop(file);
    let words = [
        "vm",
        "create",
        "bad",
        "--guest-os",
        "debian12-64",
        "--from-disk",
    ];
    site.hako(&[&words[..], &[copy.to_str().unwrap()]].concat())
        .ok();
    let run = site.hako(&["p2v", "verify", "bad", "--no-boot", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(run.code, Some(4), "{report:#}");
    let found = checks(&report, "file-system");
    let damaged = found.iter().find(|check| check[1] == "failed").unwrap();
    assert_eq!(damaged[0], "p2", "{found:?}");
}

#[test]
fn a_root_that_is_not_written_to_is_asked_by_its_initrd() {
    if !all() {
        return;
    }
    for (name, kind) in [("fedora-like", "xfs"), ("debian-bios", "ext4")] {
        let (Some(raw), Some(site)) = (disk(name), Site::new()) else {
            return;
        };
        site.create(&raw, &[]);
        let (run, report) = verify(&site, &["--boot", "direct"]);
        assert_eq!(run.code, Some(0), "{report:#} {}", run.stderr);
        assert_eq!(checks(&report, "login")[0][1], "passed");
        let mounts = checks(&report, "mount");
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        let is_right = |mount: &[&str; 3]| mount[1] == "passed" && mount[2].starts_with(kind);
        assert!(mounts.iter().all(is_right), "{mounts:?}");
    }
}
