//! `hako snapshot` killed at every system call that changes a file: once the doctor has repaired,
//! the machine is as it was before or as it shall be after, every other state has its content, and
//! the same command goes through.

use std::collections::BTreeMap;

use hako_tests::machines::{Machines, has_strace};
use hako_tests::states::{Content, Files};
use hako_tests::{all, hako, names};

const MIB: u64 = 1 << 20;

/// What a machine and its snapshots show.
#[derive(PartialEq, Eq)]
struct States {
    present: Content,
    snapshots: BTreeMap<u32, Content>,
    current: Option<u32>,
    /// Settings of the firmware: those of now, and those that snapshots keep.
    firmware: (Option<Vec<u8>>, BTreeMap<u32, Vec<u8>>),
}

impl States {
    fn of(world: &Machines, name: &str) -> Self {
        let files = Files::of(&world.path("home"), name);
        let folder = world.path("home/vms").join(name);
        let read = |file: &str| std::fs::read(folder.join(file)).ok();
        let snapshots = files.vmsd.iter().flat_map(|vmsd| vmsd.snapshots());
        let kept = snapshots.filter_map(|one| Some((one.uid, read(&one.firmware.first()?.file)?)));
        Self {
            firmware: (read(&format!("{name}.nvram")), kept.collect()),
            present: files.present(),
            snapshots: files.snapshots(),
            current: files.vmsd.as_ref().and_then(|vmsd| vmsd.current()),
        }
    }

    fn told(&self) -> String {
        format!("{:?}, current {:?}", self.snapshots.keys(), self.current)
    }
}

/// Returns a home with the machine `web`: two disks of formats that link differently, three
/// snapshots of which the third is beside the second, a linked clone of the first, and something
/// written in every state.
fn world(formats: [&str; 2]) -> Machines {
    let world = Machines::new(MIB);
    let [first, second] = formats.map(|format| format!("disk.raw,format={format}"));
    world.run(&[
        "vm",
        "create",
        "web",
        "--from-disk",
        &first,
        "--from-disk",
        &second,
    ]);
    let vmx = world.path("home/vms/web/web.vmx");
    let text = std::fs::read_to_string(&vmx).unwrap();
    std::fs::write(&vmx, format!("{text}nvram = \"web.nvram\"\n")).unwrap();
    write(&world, 0);
    for (number, words) in [
        &["create", "web", "one"][..],
        &["create", "web", "two"],
        &["revert", "web", "one", "--yes"],
        &["create", "web", "three"],
    ]
    .into_iter()
    .enumerate()
    {
        world.run(&[&["snapshot"], words].concat());
        write(&world, number as u64 + 1);
    }
    world.run(&[
        "vm",
        "clone",
        "web",
        "linked",
        "--linked",
        "--snapshot",
        "one",
    ]);
    world.copy("home", "template");
    world
}

fn write(world: &Machines, number: u64) {
    let settings = format!("settings {number}");
    std::fs::write(world.path("home/vms/web/web.nvram"), settings).unwrap();
    let files = Files::of(&world.path("home"), "web");
    for disk in files.disks().values() {
        files.write(disk, number * 150_016, &vec![number as u8; 70_144]);
    }
}

/// Kills a command everywhere and looks at what is left.
fn kill(world: &Machines, words: &[&str]) {
    world.copy("template", "home");
    let before = States::of(world, "web");
    let clone = States::of(world, "linked");
    world.run(words);
    let after = States::of(world, "web");
    let kept = names(&world.path("home/vms/web"));
    let every = if all() { 1 } else { 2 };
    let n_killed = world.kill_everywhere(words, every, |about| {
        let mut doctor = world.command(hako());
        let doctor = doctor.args(["snapshot", "doctor", "web", "--repair"]);
        let found = doctor.status().unwrap().code();
        // What is to be consolidated is a finding until it is.
        let is_left = words.contains(&"consolidate") && found == Some(1);
        assert!(found == Some(0) || is_left, "{about}: {found:?}");
        let left = States::of(world, "web");
        let is_saved = words.contains(&"--save-first")
            && left.present == before.present
            && left.snapshots == after.snapshots;
        assert!(
            left == before || left == after || is_saved,
            "{about}: {}, before {}, after {}",
            left.told(),
            before.told(),
            after.told()
        );
        assert!(States::of(world, "linked") == clone, "{about}");
        if left != after || is_left {
            world.run(words);
        }
        assert!(States::of(world, "web") == after, "{about}, again");
        assert_eq!(names(&world.path("home/vms/web")), kept, "{about}");
    });
    assert!(n_killed > 5, "{words:?}: {n_killed} kills");
}

fn kill_all(formats: [&str; 2], verbs: &[&[&str]]) {
    if !has_strace() {
        return;
    }
    let world = world(formats);
    for words in verbs {
        kill(&world, &[&["snapshot"], *words].concat());
    }
}

#[test]
fn creation_and_reverting_killed_anywhere_have_happened_or_not() {
    let verbs: [&[&str]; 3] = [
        &["create", "web", "four"],
        &["revert", "web", "two", "--yes"],
        &["revert", "web", "one", "--save-first"],
    ];
    kill_all(["vmdk", "qcow2"], &verbs[..]);
    if all() {
        kill_all(["vhdx", "raw"], &verbs[..]);
    }
}

#[test]
fn deletion_killed_anywhere_loses_nothing_but_what_goes() {
    let verbs: [&[&str]; 4] = [
        &["delete", "web", "three", "--yes"],
        &["delete", "web", "two", "--yes"],
        &["delete", "web", "one", "--children", "--yes"],
        &["delete", "web", "--all", "--yes"],
    ];
    let n_short = if all() { verbs.len() } else { 3 };
    kill_all(
        ["vmdk,subformat=twoGbMaxExtentSparse", "qcow2"],
        &verbs[..n_short],
    );
    if all() {
        kill_all(["vhdx", "raw"], &verbs[..]);
        kill_all(["vhd", "vmdk,subformat=monolithicFlat"], &verbs[..]);
    }
}

#[test]
fn consolidation_killed_anywhere_is_completed() {
    if !has_strace() {
        return;
    }
    let world = world(["vmdk", "qcow2"]);
    // What a product leaves behind that could not merge: the entry is gone, its disks are there.
    let path = world.path("template/vms/web/web.vmsd");
    std::fs::remove_file(path.with_file_name("web-Snapshot3.vmx")).unwrap();
    let mut vmsd = Files::of(&world.path("template"), "web").vmsd.unwrap();
    vmsd.remove(&[3].into()).unwrap();
    vmsd.set_needs_consolidation(true).unwrap();
    std::fs::write(path, vmsd.to_bytes()).unwrap();
    kill(&world, &["snapshot", "consolidate", "web"]);
}
