use hako_block::{Cancel, NoProgress};

use super::*;
use crate::snapshot::testing::World;

fn with_task<T>(use_it: impl FnOnce(Task<'_>) -> T) -> T {
    use_it(Task {
        progress: &NoProgress,
        cancel: &Cancel::default(),
    })
}

fn planned(world: &World) -> Result<Consolidation> {
    with_task(|task| Consolidation::plan(&world.home, world.vm(), task))
}

/// Consolidates, and returns what stays that one might expect to go.
fn consolidate(world: &World) -> Vec<String> {
    let consolidation = planned(world).unwrap();
    let kept = consolidation.kept().to_vec();
    let warnings = with_task(|task| consolidation.run(task)).unwrap();
    assert_eq!(warnings, [""; 0]);
    kept
}

fn layers(world: &World, names: &[&str]) {
    for (index, name) in names.iter().enumerate() {
        world.image(name, index.checked_sub(1).map(|below| names[below]));
        world.write(name, &[index as u64, 20], 1 + index as u8);
    }
}

#[test]
fn deltas_without_entries_are_merged_into_the_base() {
    let world = World::new();
    layers(&world, &["web.vmdk", "web-000001.vmdk", "web-000002.vmdk"]);
    world.vmx(&["web-000002.vmdk"]);
    // As VMware leaves it when a deletion failed half way.
    let text = "snapshot.lastUID = \"2\"\nsnapshot.needConsolidate = \"TRUE\"\n";
    std::fs::write(world.at("web.vmsd"), text).unwrap();
    let shown = world.shown("web-000002.vmdk");
    assert_eq!(consolidate(&world), [""; 0]);
    assert_eq!(world.names(), ["web.vmdk", "web.vmsd", "web.vmx"]);
    assert_eq!(world.shown("web.vmdk"), shown);
    assert_eq!(world.vm().disks()[0].1.file, "web.vmdk");
    assert!(!world.vm().vmsd().unwrap().unwrap().needs_consolidation());
}

#[test]
fn a_machine_without_a_list_of_snapshots_is_consolidated() {
    let world = World::new();
    layers(&world, &["web.qcow2", "web-000001.qcow2"]);
    world.vmx(&["web-000001.qcow2"]);
    let shown = world.shown("web-000001.qcow2");
    consolidate(&world);
    assert_eq!(world.shown("web.qcow2"), shown);
    assert_eq!(world.vm().disks()[0].1.file, "web.qcow2");
}

#[test]
fn snapshots_keep_what_they_hold() {
    let world = World::new();
    let names = [
        "web.vmdk",
        "web-000001.vmdk",
        "web-000002.vmdk",
        "web-000003.vmdk",
    ];
    layers(&world, &names);
    world.vmx(&["web-000003.vmdk"]);
    world.vmsd(2, &[(1, 0, "web.vmdk"), (2, 1, "web-000002.vmdk")]);
    let shown = names.map(|name| world.shown(name));
    consolidate(&world);
    assert_eq!(world.shown("web.vmdk"), shown[0]);
    assert_eq!(world.shown("web-000001.vmdk"), shown[2]);
    assert_eq!(world.shown("web-000003.vmdk"), shown[3]);
    let snapshots = world.vm().vmsd().unwrap().unwrap().snapshots();
    assert_eq!(snapshots[1].disks[0].file, "web-000001.vmdk");
}

#[test]
fn templates_and_independent_disks_are_left_alone() {
    let world = World::new();
    layers(&world, &["template.vmdk", "web.vmdk"]);
    layers(&world, &["data.vmdk", "data-000001.vmdk"]);
    world.vmx(&["web.vmdk", "data-000001.vmdk"]);
    let mut text = std::fs::read_to_string(world.at("web.vmx")).unwrap();
    text += "scsi0:1.mode = \"independent-persistent\"\n";
    std::fs::write(world.at("web.vmx"), text).unwrap();
    let before = world.names();
    let kept = consolidate(&world);
    assert!(kept[0].contains("which no snapshot has made"), "{kept:?}");
    assert_eq!(kept.len(), 1);
    let after: Vec<String> = world
        .names()
        .into_iter()
        .filter(|name| name != "web.vmsd")
        .collect();
    assert_eq!(after, before);
}

#[test]
fn merges_that_no_text_tells_of_are_not_done_again_without_their_files() {
    let world = World::new();
    layers(
        &world,
        &[
            "web.vmdk",
            "web-000001.vmdk",
            "web-000002.vmdk",
            "web-000003.vmdk",
        ],
    );
    world.image("web-000004.vmdk", Some("web-000003.vmdk"));
    world.image("web-000005.vmdk", Some("web-000003.vmdk"));
    world.vmx(&["web-000004.vmdk"]);
    world.vmsd(2, &[(1, 0, "web.vmdk"), (2, 1, "web-000005.vmdk")]);
    let shown = world.shown("web-000004.vmdk");
    let consolidation = planned(&world).unwrap();
    let journal = consolidation.journal().unwrap();
    assert_eq!(journal.merges.len(), 2);
    drop(consolidation);
    let mut vm = world.vm();
    journal.write(&vm).unwrap();
    with_task(|task| journal.carry_out_up_to_removal(&mut vm, task)).unwrap();
    // Cut off here.
    std::fs::remove_file(world.at(&journal.remove[0])).unwrap();
    with_task(|task| Journal::recover(&mut vm, task)).unwrap();
    assert_eq!(world.shown("web-000004.vmdk"), shown);
    assert_eq!(world.shown("web-000005.vmdk"), shown);
    assert!(!world.at("web-000002.vmdk").exists() && !world.at("web-000003.vmdk").exists());
}

#[test]
fn a_list_that_cannot_be_read_is_no_empty_list() {
    let world = World::new();
    layers(&world, &["web.vmdk", "web-000001.vmdk"]);
    world.vmx(&["web-000001.vmdk"]);
    std::fs::write(world.at("web.vmsd"), "encryption.data = \"y\"\n").unwrap();
    let error = planned(&world).err().unwrap();
    assert_eq!(error.kind(), hako_block::ErrorKind::Unsupported);
}
