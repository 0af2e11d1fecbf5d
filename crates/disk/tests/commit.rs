//! Committing an overlay into its parent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{About, Stack, Variant, content, scribble, subject};
use hako_block::testkit::Rng;
use hako_block::{Cancel, ErrorKind, NoProgress};
use hako_disk::{Afterwards, CommitRequest, NewSize, ResizeRequest, commit, resize};

const SIZE: u64 = (5 << 20) + 512;

fn request(path: &std::path::Path, afterwards: Afterwards) -> CommitRequest {
    CommitRequest {
        subject: subject(path),
        afterwards,
        force: false,
        threads: None,
    }
}

fn run(request: &CommitRequest) -> hako_block::Result<hako_disk::CommitReport> {
    commit(request, &NoProgress, &Cancel::default())
}

#[test]
fn content_moves_down_and_the_overlay_shows_the_same() {
    for variant in Variant::overlays() {
        for afterwards in [Afterwards::Empty, Afterwards::Keep, Afterwards::Delete] {
            if afterwards == Afterwards::Keep && !variant.relinks() {
                continue;
            }
            let _about = About(format!("{} {afterwards:?}", variant.label()));
            let stack = Stack::new(&variant, 3, SIZE, &mut Rng::new(3));
            let report = run(&request(&stack.layers[2], afterwards)).unwrap();
            assert!(report.data_bytes > 0);
            assert!(content(&stack.layers[1]) == stack.contents[2], "the parent");
            assert!(content(&stack.layers[0]) == stack.contents[0], "its parent");
            if afterwards == Afterwards::Delete {
                assert!(!stack.layers[2].exists());
            } else {
                assert!(
                    content(&stack.layers[2]) == stack.contents[2],
                    "the overlay"
                );
            }
            let debris = stack
                .names()
                .into_iter()
                .filter(|name| name.starts_with('.'));
            assert_eq!(debris.count(), 0);
        }
    }
}

#[test]
fn parent_with_another_overlay_is_refused_unless_forced() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        let mut rng = Rng::new(5);
        let stack = Stack::new(&variant, 2, SIZE, &mut rng);
        let other = stack.path(&format!("other.{}", variant.extension()));
        variant
            .overlay_form()
            .create(&other, Some(SIZE), Some(&stack.layers[0]));
        let mut request = request(&stack.layers[1], Afterwards::Empty);
        let error = run(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("other."), "{error}");
        assert!(content(&stack.layers[0]) == stack.contents[0]);
        request.force = true;
        run(&request).unwrap();
        assert!(content(&stack.layers[0]) == stack.contents[1]);
    }
}

#[test]
fn parent_that_was_changed_is_refused() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        let mut rng = Rng::new(6);
        let mut stack = Stack::new(&variant, 2, SIZE, &mut rng);
        let has_content_id = hako_formats::open_chain(&stack.layers[0], &Default::default())
            .unwrap()
            .layers[0]
            .image
            .info()
            .content_id
            .is_some();
        if !has_content_id {
            continue;
        }
        scribble(&stack.layers[0], &mut stack.contents[0], &mut rng);
        let error = run(&request(&stack.layers[1], Afterwards::Empty)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(content(&stack.layers[0]) == stack.contents[0]);
    }
}

#[test]
fn overlay_in_the_middle_keeps_those_above_it() {
    for variant in Variant::overlays().into_iter().filter(Variant::relinks) {
        for afterwards in [Afterwards::Empty, Afterwards::Keep] {
            let _about = About(format!("{} {afterwards:?}", variant.label()));
            let stack = Stack::new(&variant, 3, SIZE, &mut Rng::new(7));
            run(&request(&stack.layers[1], afterwards)).unwrap();
            assert!(content(&stack.layers[0]) == stack.contents[1]);
            assert!(content(&stack.layers[1]) == stack.contents[1]);
            assert!(content(&stack.layers[2]) == stack.contents[2]);
        }
        let stack = Stack::new(&variant, 3, SIZE, &mut Rng::new(7));
        let error = run(&request(&stack.layers[1], Afterwards::Delete)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn commit_that_was_stopped_is_completed_by_the_next() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 2, SIZE, &mut Rng::new(8));
        let request = request(&stack.layers[1], Afterwards::Empty);
        // Stops after the first piece was written into the parent.
        let cancel = Cancel::default();
        let progress = StopAtOnce(cancel.clone());
        commit(&request, &progress, &cancel).unwrap_err();
        run(&request).unwrap();
        assert!(content(&stack.layers[0]) == stack.contents[1]);
        assert!(content(&stack.layers[1]) == stack.contents[1]);
    }
}

struct StopAtOnce(Cancel);

impl hako_block::Progress for StopAtOnce {
    fn total(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {
        self.0.cancel();
    }
    fn phase(&self, _name: &str) {}
}

#[test]
fn parent_grows_with_a_larger_overlay() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        let mut rng = Rng::new(9);
        let stack = Stack::new(&variant, 2, SIZE, &mut rng);
        let larger = ResizeRequest {
            subject: subject(&stack.layers[1]),
            size: NewSize::By(3 << 20),
            shrink: false,
            cut_data: false,
            force: false,
        };
        resize(&larger, &NoProgress, &Cancel::default()).unwrap();
        let mut wanted = stack.contents[1].clone();
        wanted.resize(wanted.len() + (3 << 20), 0);
        assert!(content(&stack.layers[1]) == wanted, "after the resize");
        scribble(&stack.layers[1], &mut wanted, &mut rng);
        run(&request(&stack.layers[1], Afterwards::Empty)).unwrap();
        assert!(content(&stack.layers[0]) == wanted, "the parent");
        assert!(content(&stack.layers[1]) == wanted, "the overlay");
    }
}
