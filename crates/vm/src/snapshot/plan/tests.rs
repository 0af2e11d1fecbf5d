use std::collections::BTreeMap;

use hako_block::testkit::Rng;

use super::*;

/// An overlay of the machine's, called as snapshots call theirs.
fn image(parent: Option<usize>, used_by: Use) -> TreeImage {
    TreeImage {
        parent,
        used_by,
        is_own: true,
        is_delta: parent.is_some(),
        was_held: used_by == Use::Nobody,
    }
}

/// Images that stand on each other in this order, used so.
fn chain(uses: &[Use]) -> Vec<TreeImage> {
    let parents = (0..uses.len()).map(|index| index.checked_sub(1));
    let images = parents.zip(uses);
    images.map(|(parent, used)| image(parent, *used)).collect()
}

fn plan_all(tree: &[TreeImage]) -> Plan {
    plan(tree, 0..tree.len())
}

#[test]
fn a_snapshot_in_the_middle_takes_its_overlay_in() {
    let tree = chain(&[Use::Machine, Use::Nobody, Use::Machine, Use::Machine]);
    let plan = plan_all(&tree);
    assert_eq!(plan.merges, [(2, 1)]);
    assert_eq!(plan.relinks, [(3, 1)]);
    assert_eq!(plan.moved, [(2, 1)]);
    assert_eq!(plan.removed, [2]);
    assert_eq!(plan.kept, []);
}

#[test]
fn all_snapshots_at_once_are_merged_into_the_base_from_below() {
    let tree = chain(&[Use::Nobody, Use::Nobody, Use::Nobody, Use::Machine]);
    let plan = plan_all(&tree);
    assert_eq!(plan.merges, [(1, 0), (2, 0), (3, 0)]);
    assert_eq!(plan.relinks, []);
    assert_eq!(plan.moved, [(3, 0)]);
    assert_eq!(plan.removed, [3, 2, 1]);
}

#[test]
fn a_branch_that_goes_lets_the_fork_be_merged() {
    let mut tree = chain(&[Use::Nobody, Use::Machine, Use::Nobody]);
    tree[2].parent = Some(0);
    tree[0].was_held = false;
    let plan = plan_all(&tree);
    assert_eq!(plan.merges, [(1, 0)]);
    assert_eq!(plan.removed, [2, 1]);
}

#[test]
fn what_two_stand_on_stays() {
    let mut tree = chain(&[Use::Nobody, Use::Machine, Use::Machine]);
    tree[2].parent = Some(0);
    let plan = plan_all(&tree);
    assert!(plan.is_empty());
    assert_eq!(plan.kept, [(0, Stays::Branches(2))]);
}

#[test]
fn what_another_machine_stands_on_keeps_its_file_and_content() {
    let tree = chain(&[Use::Nobody, Use::Others, Use::Nobody, Use::Machine]);
    let plan = plan_all(&tree);
    assert_eq!(plan.merges, [(3, 2)]);
    assert_eq!(plan.kept, [(0, Stays::UsedByOthers(1))]);

    // An overlay in a folder of another machine cannot be told a new parent.
    let mut tree = chain(&[Use::Nobody, Use::Machine, Use::Others]);
    tree[2].is_own = false;
    assert_eq!(plan_all(&tree).kept, [(0, Stays::UsedByOthers(1))]);
}

#[test]
fn a_template_that_a_user_made_an_overlay_of_is_not_written_to() {
    let mut tree = chain(&[Use::Nobody, Use::Machine]);
    (tree[0].was_held, tree[1].is_delta) = (false, false);
    let plan = plan_all(&tree);
    assert!(plan.is_empty());
    assert_eq!(plan.kept, [(0, Stays::NoSnapshot(1))]);
}

#[test]
fn an_overlay_that_nothing_refers_to_is_not_merged_but_left_to_be_looked_at() {
    let mut tree = chain(&[Use::Nobody, Use::Nobody]);
    tree[1].was_held = false;
    let plan = plan(&tree, [0]);
    assert!(plan.is_empty());
    assert_eq!(plan.kept, [(0, Stays::Unreferenced(1))]);
}

#[test]
fn what_is_no_candidate_stays() {
    let tree = chain(&[Use::Machine, Use::Nobody]);
    assert!(plan(&tree, []).is_empty());
    assert_eq!(plan(&tree, [1]).removed, [1]);
}

#[test]
fn trees_that_no_files_make_do_no_harm() {
    let mut tree = chain(&[Use::Nobody, Use::Nobody, Use::Nobody]);
    tree[0].parent = Some(1);
    tree[2].parent = Some(99);
    let plan = plan(&tree, [0, 1, 2, 7]);
    assert_eq!(plan.removed, [2]);
    assert_eq!(plan.merges, []);
}

type Content = BTreeMap<u64, u64>;

/// What is in the files: by image its parent, and what it stores by place.
#[derive(Clone, PartialEq, Debug)]
struct Files(BTreeMap<usize, (Option<usize>, Content)>);

/// One write.
#[derive(Clone, Copy, Debug)]
enum Step {
    Relink(usize, usize),
    Copy(usize, usize, u64),
    Remove(usize),
}

impl Files {
    /// Every image of the tree with some content of its own.
    fn of(tree: &[TreeImage], rng: &mut Rng) -> Self {
        let images = tree.iter().enumerate();
        let files = images.map(|(index, image)| {
            let n_places = rng.below(0..5);
            let places = (0..n_places).map(|_| (rng.below(0..6), rng.next_u64()));
            (index, (image.parent, places.collect()))
        });
        Self(files.collect())
    }

    /// What is seen through an image.
    fn shown(&self, index: usize) -> Content {
        let (parent, own) = &self.0[&index];
        let mut shown = parent.map_or_else(Content::new, |parent| self.shown(parent));
        shown.extend(own);
        shown
    }

    /// The writes by which a plan is carried out, up to where the texts name other files, and
    /// those behind that.
    fn steps(&self, plan: &Plan) -> (Vec<Step>, Vec<Step>) {
        let mut steps = Vec::new();
        for (overlay, into) in &plan.merges {
            steps.push(Step::Relink(*overlay, *into));
            let places = self.0[overlay].1.keys();
            steps.extend(places.map(|place| Step::Copy(*overlay, *into, *place)));
        }
        let relinks = plan.relinks.iter();
        steps.extend(relinks.map(|(overlay, parent)| Step::Relink(*overlay, *parent)));
        let removed = plan.removed.iter().map(|index| Step::Remove(*index));
        (steps, removed.collect())
    }

    fn write(&mut self, step: Step) {
        match step {
            Step::Relink(overlay, parent) => self.0.get_mut(&overlay).unwrap().0 = Some(parent),
            Step::Copy(overlay, into, place) => {
                let value = self.0[&overlay].1[&place];
                self.0.get_mut(&into).unwrap().1.insert(place, value);
            }
            Step::Remove(index) => {
                let stands_on_it = |file: &(Option<usize>, _)| file.0 == Some(index);
                assert!(!self.0.values().any(stands_on_it), "{index} is stood on");
                self.0.remove(&index).expect("removed twice");
            }
        }
    }
}

fn random_tree(rng: &mut Rng) -> Vec<TreeImage> {
    let len = rng.below(1..12) as usize;
    let images = (0..len).map(|index| {
        let parent = (index > 0 && !rng.one_in(6)).then(|| match rng.one_in(2) {
            true => index - 1,
            false => rng.below(0..index as u64) as usize,
        });
        let used_by = match rng.below(0..8) {
            0..3 => Use::Machine,
            3 => Use::Others,
            _ => Use::Nobody,
        };
        TreeImage {
            parent,
            used_by,
            is_own: !rng.one_in(8),
            is_delta: !rng.one_in(6),
            was_held: used_by == Use::Nobody && rng.one_in(2),
        }
    });
    images.collect()
}

/// A tree, what is in its files, a plan for it, and the images whose content somebody needs.
fn random_case(seed: u64) -> (Vec<TreeImage>, Files, Vec<usize>, Plan) {
    let mut rng = Rng::new(seed);
    let tree = random_tree(&mut rng);
    let files = Files::of(&tree, &mut rng);
    let all = rng.one_in(2);
    let candidates: Vec<usize> = (0..tree.len()).filter(|_| all || rng.one_in(2)).collect();
    let plan = plan(&tree, candidates.iter().copied());
    (tree, files, candidates, plan)
}

const N_CASES: u64 = 3000;

#[test]
fn whatever_is_needed_shows_the_same_before_and_after_and_wherever_it_is_cut() {
    for seed in 0..N_CASES {
        let (tree, before, _, plan) = random_case(seed);
        let needed: Vec<usize> = (0..tree.len())
            .filter(|index| !plan.removed.contains(index) || tree[*index].used_by != Use::Nobody)
            .filter(|index| !plan.merges.iter().any(|(_, into)| into == index))
            .collect();
        let (steps, removals) = before.steps(&plan);
        let mut files = before.clone();
        for n_done in 0..=steps.len() {
            for index in &needed {
                let shown = files.shown(*index);
                assert_eq!(
                    shown,
                    before.shown(*index),
                    "{seed}: {index}, step {n_done}"
                );
            }
            // Cut off here and begun anew, it comes to the same.
            let mut again = files.clone();
            steps.iter().for_each(|step| again.write(*step));
            let mut through = files.clone();
            steps[n_done..].iter().for_each(|step| through.write(*step));
            assert_eq!(again, through, "{seed}: cut at {n_done}");
            if let Some(step) = steps.get(n_done) {
                files.write(*step);
            }
        }
        removals.iter().for_each(|step| files.write(*step));
        let now = |index: usize| {
            let moved = plan.moved.iter().find(|(from, _)| *from == index);
            moved.map_or(index, |(_, to)| *to)
        };
        for index in needed {
            let (shown, was) = (files.shown(now(index)), before.shown(index));
            assert_eq!(shown, was, "{seed}: {index}");
        }
    }
}

#[test]
fn nothing_of_others_is_touched() {
    for seed in 0..N_CASES {
        let (tree, before, _, plan) = random_case(seed);
        let mut files = before.clone();
        let (steps, removals) = before.steps(&plan);
        steps.iter().for_each(|step| files.write(*step));
        removals.iter().for_each(|step| files.write(*step));
        for (index, image) in tree.iter().enumerate() {
            if !image.is_own {
                assert_eq!(files.0.get(&index), before.0.get(&index), "{seed}: {index}");
            }
            if image.used_by == Use::Others {
                assert_eq!(files.shown(index), before.shown(index), "{seed}: {index}");
            }
        }
    }
}

#[test]
fn no_image_stays_that_could_go() {
    for seed in 0..N_CASES {
        let (tree, before, candidates, plan) = random_case(seed);
        let mut after = before.clone();
        let (steps, removals) = before.steps(&plan);
        steps.iter().for_each(|step| after.write(*step));
        removals.iter().for_each(|step| after.write(*step));
        // What is left, as a tree: nothing is to be done there.
        let place: BTreeMap<usize, usize> = after.0.keys().copied().zip(0..).collect();
        let left = after.0.iter().map(|(index, (parent, _))| {
            let was = plan.moved.iter().find(|(_, to)| to == index);
            let heir_of = plan.merges.iter().rfind(|(_, into)| into == index);
            let shows = was.map_or(
                heir_of.map_or(*index, |(overlay, _)| *overlay),
                |(of, _)| *of,
            );
            TreeImage {
                parent: parent.map(|parent| place[&parent]),
                used_by: tree[shows].used_by,
                was_held: tree[shows].was_held,
                ..tree[*index].clone()
            }
        });
        let left: Vec<TreeImage> = left.collect();
        if candidates.len() == tree.len() {
            assert!(plan_all(&left).is_empty(), "{seed}: {tree:?} {plan:?}");
        }
        // Nothing is moved twice.
        let mut merged: Vec<usize> = plan.merges.iter().map(|(overlay, _)| *overlay).collect();
        merged.sort_unstable();
        merged.dedup();
        assert_eq!(merged.len(), plan.merges.len(), "{seed}");
    }
}
