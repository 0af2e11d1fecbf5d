//! `hako disk check` and `compare`: verdicts and their exit codes.

mod common;

use common::{World, noise};

#[test]
fn check_of_raw_says_that_there_is_no_structure() {
    let world = World::new();
    world.raw("d.raw", 1 << 20, &[(0, &noise(1, 65536))]);
    let text = "d.raw: raw, the format has no structure to check\n";
    for words in [
        "check d.raw",
        "check --data d.raw",
        "check --chain --threads 1 d.raw",
    ] {
        assert_eq!(world.done(words), text);
    }
    let report = world.json("check d.raw");
    assert_eq!(report["layers"][0]["has_structure"], false);
    assert_eq!(report["layers"][0]["corruptions"], 0);
}

#[test]
fn check_that_cannot_be_done_is_exit_1() {
    let world = World::new();
    world.fails("check nope.raw", 1, "nope.raw: open: no such file");
}

#[test]
fn compare_says_identical_or_where_the_first_difference_is() {
    let world = World::new();
    let data = noise(1, 65536);
    let mut other = data.clone();
    other[1000] ^= 1;
    world.raw("a.raw", 1 << 20, &[(65536, &data)]);
    world.raw("b.raw", 1 << 20, &[(0, &[0; 65536]), (65536, &data)]);
    world.raw("c.raw", 1 << 20, &[(65536, &other)]);
    for words in [
        "compare a.raw a.raw",
        "compare a.raw b.raw",
        "compare --threads 1 a.raw b.raw",
    ] {
        assert_eq!(world.done(words), "Images are identical.\n");
    }
    let run = world.disk("compare a.raw c.raw");
    assert_eq!(run.code, 1);
    assert_eq!(
        run.stdout,
        "Content differs first at guest offset 66536 (0x103e8).\n"
    );
    let run = world.disk("compare a.raw c.raw --json");
    let found: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(run.code, 1);
    assert_eq!(found["identical"], false);
    assert_eq!(found["difference"], "content");
    assert_eq!(found["offset"], 66536);
    assert_eq!(world.json("compare a.raw b.raw")["identical"], true);
}

#[test]
fn strict_compares_sizes_and_allocation_too() {
    let world = World::new();
    world.raw("a.raw", 1 << 20, &[(0, &[7; 65536])]);
    world.raw(
        "zeros.raw",
        1 << 20,
        &[(0, &[7; 65536]), (131_072, &[0; 65536])],
    );
    world.raw("large.raw", 2 << 20, &[(0, &[7; 65536])]);
    assert_eq!(world.disk("compare --strict a.raw a.raw").code, 0);
    assert_eq!(world.disk("compare a.raw zeros.raw").code, 0);
    let run = world.disk("compare --strict a.raw zeros.raw");
    assert_eq!(run.code, 1);
    assert_eq!(
        run.stdout,
        "Allocation differs first at guest offset 131072 (0x20000): stored only in zeros.raw.\n"
    );
    let run = world.disk("compare a.raw large.raw");
    assert_eq!(run.code, 0);
    assert!(
        run.stdout
            .contains("but for their virtual sizes: 1048576 and 2097152 bytes")
    );
    let run = world.disk("compare --strict a.raw large.raw");
    assert_eq!(run.code, 1);
    assert_eq!(
        run.stdout,
        "Virtual sizes differ: 1048576 and 2097152 bytes.\n"
    );
}

#[test]
fn any_trouble_of_compare_is_exit_2() {
    let world = World::new();
    world.raw("a.raw", 512, &[]);
    world.raw("b.bin", 512, &[]);
    std::fs::create_dir(world.path("a.raw.lck")).unwrap();
    world.write("a.raw.lck/M1.lck", b"");
    world.fails("compare a.raw nope.raw", 2, "locked");
    world.fails("compare nope.raw a.raw", 2, "nope.raw: open");
    world.fails("compare -U a.raw b.bin", 2, "no format that hako knows");
}

#[test]
fn compare_takes_the_formats_from_options() {
    let world = World::new();
    world.raw("a.raw", 512, &[]);
    world.raw("b.bin", 512, &[]);
    world.done("compare a.raw b.bin --from-b raw");
    world.done("compare b.bin b.bin --from raw");
    world.fails(
        "compare a.raw b.bin --from raw --from-b floppy",
        2,
        "possible values",
    );
}
