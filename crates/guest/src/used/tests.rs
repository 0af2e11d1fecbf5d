//! Maps of made-up volumes.

use std::ops::Range;

use super::graph::{Node, Part, What};
use super::*;
use crate::mapped::{Share, Stripes};

fn node(name: &str, len: u64, what: What) -> Node {
    Node {
        name: name.to_owned(),
        kind: String::new(),
        len,
        what,
        scratch: Ranges::default(),
        note: None,
    }
}

fn parts(parts: Vec<(Range<u64>, usize, u64, Option<Stripes>)>, free: Range<u64>) -> What {
    let parts = parts.into_iter().map(|(range, node, at, stripes)| Part {
        share: Share {
            start: range.start,
            len: range.end - range.start,
            at,
            stripes,
        },
        node,
        unit: 1,
    });
    What::Parts {
        parts: parts.collect(),
        free,
    }
}

fn map(nodes: Vec<Node>) -> UsedMap {
    UsedMap {
        nodes,
        disks: vec![0],
        notes: Mutex::default(),
    }
}

const MIB: u64 = 1 << 20;

/// What of the disk is in use but for its ends.
fn inner(map: &UsedMap, len: u64) -> Vec<Range<u64>> {
    let used = map.used(0, &(0..len)).unwrap();
    used.within(&(MIB..len - MIB)).iter().collect()
}

#[test]
fn of_what_is_encrypted_whole_units_are_in_use() {
    // A disk's 32 MiB, where questions are cut, lie inside of a unit, whose last sector is in use.
    const START: u64 = 63 * 512;
    let edge = 32 * MIB - START;
    let unit = edge - edge % 4096;
    let part = Part {
        share: Share {
            start: START,
            len: 40 * MIB,
            at: 0,
            stripes: None,
        },
        node: 1,
        unit: 4096,
    };
    let disk = What::Parts {
        parts: vec![part],
        free: 0..0,
    };
    let opened = parts(vec![], 0..unit + 4096 - 512);
    let map = map(vec![
        node("disk", 64 * MIB, disk),
        node("luks", 40 * MIB, opened),
    ]);
    for (window, expected) in [
        (2 * MIB..32 * MIB, START + unit..32 * MIB),
        (2 * MIB..62 * MIB, START + unit..62 * MIB),
    ] {
        let used = map.used(0, &window).unwrap();
        assert_eq!(used.iter().collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn stripes_and_pieces_are_found_from_below() {
    let stripes = Stripes {
        bytes: MIB,
        n: 2,
        which: 1,
    };
    // A swap area of which every second MiB is here: the header is elsewhere.
    let striped = map(vec![
        node(
            "disk",
            64 * MIB,
            parts(vec![(8 * MIB..40 * MIB, 1, 0, Some(stripes))], 0..0),
        ),
        node("lv", 64 * MIB, What::Swap(4096)),
    ]);
    assert_eq!(
        inner(&striped, 64 * MIB),
        [MIB..8 * MIB, 40 * MIB..63 * MIB]
    );
    // Two pieces in the wrong order; between them free extents, around them LVM's own.
    let pieces = map(vec![
        node(
            "disk",
            64 * MIB,
            parts(
                vec![
                    (10 * MIB..20 * MIB, 1, 10 * MIB, None),
                    (30 * MIB..40 * MIB, 1, 0, None),
                ],
                2 * MIB..50 * MIB,
            ),
        ),
        node("lv", 20 * MIB, What::Swap(12 * MIB)),
    ]);
    let expected = [
        MIB..2 * MIB,
        10 * MIB..12 * MIB,
        30 * MIB..40 * MIB,
        50 * MIB..63 * MIB,
    ];
    assert_eq!(inner(&pieces, 64 * MIB), expected);
    let survey = pieces.survey(0, &mut |_| Ok(())).unwrap();
    assert_eq!(
        (survey[0].bytes, survey[0].used_bytes),
        (44 * MIB, 16 * MIB)
    );
    assert_eq!(
        (survey[1].bytes, survey[1].used_bytes),
        (20 * MIB, 12 * MIB)
    );
}

#[test]
fn what_lies_on_itself_or_in_too_many_ways_is_in_use() {
    let circle = map(vec![
        node(
            "disk",
            64 * MIB,
            parts(vec![(0..64 * MIB, 1, 0, None)], 0..0),
        ),
        node("a", 64 * MIB, parts(vec![(0..64 * MIB, 1, 0, None)], 0..0)),
    ]);
    assert_eq!(
        inner(&circle, 64 * MIB),
        std::slice::from_ref(&(MIB..63 * MIB))
    );
    // Each is hundred times on the next one: no question may ask that often.
    let mut nodes = Vec::new();
    for index in 0..20 {
        let many = (0..100).map(|_| (0..64 * MIB, index + 1, 0, None));
        nodes.push(node("n", 64 * MIB, parts(many.collect(), 0..0)));
    }
    nodes.push(node("last", 64 * MIB, What::Swap(4096)));
    assert_eq!(
        inner(&map(nodes), 64 * MIB),
        std::slice::from_ref(&(MIB..63 * MIB))
    );
    // A part that is not there, and one behind the end of what it is a part of.
    let wrong = map(vec![
        node(
            "disk",
            64 * MIB,
            parts(
                vec![
                    (8 * MIB..9 * MIB, 7, 0, None),
                    (16 * MIB..32 * MIB, 1, 0, None),
                ],
                0..64 * MIB,
            ),
        ),
        node("short", 8 * MIB, What::Swap(4096)),
    ]);
    let expected = [
        8 * MIB..9 * MIB,
        16 * MIB..16 * MIB + 4096,
        24 * MIB..32 * MIB,
    ];
    assert_eq!(inner(&wrong, 64 * MIB), expected);
}
