use super::*;

#[test]
fn what_two_have_and_what_lies_outside_is_told() {
    let mut audit = Audit::default();
    for (node, range) in [(1, 0..100), (2, 50..60), (3, 100..200), (4, 190..301)] {
        audit.has(node, range);
    }
    let runs = std::mem::take(&mut audit.runs);
    let all = runs.sorted(300, &mut audit);
    assert_eq!(
        all.iter().collect::<Vec<_>>(),
        std::slice::from_ref(&(0..300))
    );
    let report = audit.into_report();
    assert_eq!(
        report.damage,
        [
            "node 2: has bytes 50..60, and so has node 1",
            "node 4: bytes 190..301 are past the end (300)",
            "node 4: has bytes 190..200, and so has node 3",
        ]
    );
}
