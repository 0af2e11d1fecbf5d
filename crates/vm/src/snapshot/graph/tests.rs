use super::*;
use crate::snapshot::testing::World;

fn graph(world: &World) -> Graph {
    let vm = world.vm();
    let snapshots = vm.vmsd().unwrap().map(|vmsd| vmsd.snapshots());
    Graph::of(&world.home, &vm, &snapshots.unwrap_or_default()).unwrap()
}

/// Returns the names of the images with those of their parents, sorted.
fn edges(graph: &Graph) -> Vec<(String, Option<String>)> {
    let name = |image: &Image| {
        let parent = image.parent().map(|parent| graph.images[parent].name());
        (image.name(), parent)
    };
    let mut edges: Vec<_> = graph.images.iter().map(name).collect();
    edges.sort();
    edges
}

fn place(graph: &Graph, name: &str) -> usize {
    let mut images = graph.images.iter();
    images.position(|image| image.name() == name).unwrap()
}

#[test]
fn images_of_every_format_are_found_with_what_they_stand_on() {
    for extension in ["vmdk", "qcow2", "vhdx", "vhd"] {
        let name = |stem: &str| format!("{stem}.{extension}");
        let (base, one) = (name("web"), name("web-000001"));
        let (live, orphan) = (name("web-000002"), name("web-000003"));
        let world = World::new();
        world.chain(&[&base, &one, &live]);
        world.image(&orphan, Some(&one));
        world.vmx(&[&live]);
        world.vmsd(2, &[(1, 0, &base), (2, 1, &one)]);
        let graph = graph(&world);
        let on = |name: &String, parent: &String| (name.clone(), Some(parent.clone()));
        let mut expected = [
            (base.clone(), None),
            on(&one, &base),
            on(&live, &one),
            on(&orphan, &one),
        ];
        expected.sort();
        assert_eq!(edges(&graph), expected);
        let tree = graph.tree(&[2]);
        let image = |name: &str| &tree[place(&graph, name)];
        assert_eq!(image(&base).used_by, Use::Machine);
        assert_eq!(
            (image(&one).used_by, image(&one).was_held),
            (Use::Nobody, true)
        );
        assert_eq!(image(&live).used_by, Use::Machine);
        assert_eq!(
            (image(&orphan).used_by, image(&orphan).was_held),
            (Use::Nobody, false)
        );
        assert!(image(&orphan).is_delta && !image(&base).is_delta);
        let shown: Vec<String> = graph
            .shown()
            .iter()
            .map(|i| graph.images[*i].name())
            .collect();
        assert!(!shown.contains(&orphan) && shown.len() == 3, "{shown:?}");
    }
}

#[test]
fn a_raw_base_has_overlays_of_another_format() {
    let world = World::new();
    world.chain(&["web.raw", "web-000001.qcow2"]);
    world.vmx(&["web-000001.qcow2"]);
    world.vmsd(1, &[(1, 0, "web.raw")]);
    let graph = graph(&world);
    assert_eq!(graph.images.len(), 2);
    assert_eq!(graph.images[place(&graph, "web.raw")].format, "raw");
    assert!(
        graph
            .references
            .iter()
            .all(|reference| reference.image.is_ok())
    );
}

#[test]
fn other_machines_hold_the_image_that_they_stand_on() {
    let world = World::new();
    world.chain(&["web.vmdk", "web-000001.vmdk", "clone.vmdk"]);
    world.vmx(&["web-000001.vmdk"]);
    let clone = "displayName = \"clone\"\nscsi0.present = \"TRUE\"\n\
                 scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"clone.vmdk\"\n";
    std::fs::write(world.at("other.vmx"), clone).unwrap();
    // What a snapshot keeps of the configuration is no machine.
    std::fs::copy(world.at("web.vmx"), world.at("web-Snapshot1.vmx")).unwrap();
    let graph = graph(&world);
    let tree = graph.tree(&[]);
    assert_eq!(tree[place(&graph, "clone.vmdk")].used_by, Use::Others);
    assert_eq!(tree[place(&graph, "web-000001.vmdk")].used_by, Use::Machine);
}

#[test]
fn what_is_broken_is_told_and_left_alone() {
    let world = World::new();
    world.chain(&["web.vmdk", "web-000001.vmdk", "web-000002.vmdk"]);
    world.vmx(&["web-000002.vmdk"]);
    world.vmsd(1, &[(1, 0, "gone.vmdk")]);
    std::fs::rename(world.at("web.vmdk"), world.at("moved.vmdk")).unwrap();
    std::fs::write(world.at("bad-000001.vmdk"), b"KDMVbroken").unwrap();
    let graph = graph(&world);
    let image = &graph.images[place(&graph, "web-000001.vmdk")];
    assert!(matches!(image.below, Below::Lost(_)));
    assert!(!graph.tree(&[])[place(&graph, "web-000001.vmdk")].is_own);
    let gone = graph.references.iter().find(|r| r.file == "gone.vmdk");
    let error = gone.unwrap().image.as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(graph.unreadable.len(), 1);
}

#[test]
fn what_is_named_by_lines_that_are_not_in_force_is_nobodys_to_change() {
    let world = World::new();
    world.chain(&["web.vmdk", "web-000001.vmdk", "web-000002.vmdk"]);
    world.vmx(&["web-000002.vmdk"]);
    let mut text = std::fs::read_to_string(world.at("web.vmx")).unwrap();
    text += "scsi0:1.present = \"FALSE\"\nscsi0:1.fileName = \"web.vmdk\"\n\
             sata0:0.fileName = \"some.iso\"\n";
    std::fs::write(world.at("web.vmx"), text).unwrap();
    std::fs::write(world.at("some.iso"), b"x").unwrap();
    let entry = "snapshot0.uid = \"x\"\nsnapshot0.disk0.fileName = \"web-000001.vmdk\"\n";
    std::fs::write(world.at("web.vmsd"), entry).unwrap();
    let graph = graph(&world);
    let tree = graph.tree(&[]);
    for name in ["web.vmdk", "web-000001.vmdk"] {
        assert_eq!(tree[place(&graph, name)].used_by, Use::Others, "{name}");
    }
    assert_eq!(graph.references.len(), 3);
}

#[test]
fn names_of_snapshots_overlays_are_told_apart() {
    for name in ["web-000001.vmdk", "a-b-123456.qcow2"] {
        assert!(is_delta(Path::new(name)), "{name}");
    }
    for name in [
        "web.vmdk",
        "web-00001.vmdk",
        "-000001.vmdk",
        "web-00000x.vmdk",
    ] {
        assert!(!is_delta(Path::new(name)), "{name}");
    }
}

#[test]
fn clones_that_only_the_list_tells_of_keep_what_they_stand_on() {
    let world = World::new();
    world.chain(&["web.vmdk", "web-000001.vmdk", "web-000002.vmdk"]);
    world.vmx(&["web-000002.vmdk"]);
    world.vmsd(2, &[(1, 0, "web.vmdk"), (2, 1, "web-000001.vmdk")]);
    let path = world.at("web.vmsd");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "snapshot1.clone0 = \"/elsewhere/c.vmx\"\n").unwrap();
    let graph = graph(&world);
    let tree = graph.tree(&[1]);
    let used_by = |name: &str| tree[place(&graph, name)].used_by;
    assert_eq!(used_by("web-000001.vmdk"), Use::Others);
    assert_eq!(used_by("web.vmdk"), Use::Nobody);
    let vm = world.vm();
    assert!(vm.refuse_unlisted_clones(&world.home, Some(&[1])).is_ok());
    for uids in [Some(&[2][..]), None] {
        let refused = vm.refuse_unlisted_clones(&world.home, uids).unwrap_err();
        assert!(
            refused.to_string().contains("/elsewhere/c.vmx"),
            "{refused}"
        );
    }
}
