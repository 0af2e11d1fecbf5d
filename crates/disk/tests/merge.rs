//! Merging the layers of a chain from the lowest up, as deleting snapshots does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use common::{About, Stack, Variant, content, subject};
use hako_block::testkit::Rng;
use hako_block::{Cancel, ErrorKind, NoProgress};
use hako_disk::{
    MergeRequest, NewSize, RebaseRequest, ResizeRequest, check_merge, merge, rebase, resize,
};

const SIZE: u64 = (5 << 20) + 512;

fn request(child: &Path, parent: &Path) -> MergeRequest {
    MergeRequest {
        child: subject(child),
        parent: subject(parent),
        threads: None,
    }
}

#[track_caller]
fn run(child: &Path, parent: &Path) {
    let request = request(child, parent);
    check_merge(&request).unwrap();
    merge(&request, &NoProgress, &Cancel::default()).unwrap();
}

fn set_size(path: &Path, size: u64) -> hako_block::Result<()> {
    let request = ResizeRequest {
        subject: subject(path),
        size: NewSize::To(size),
        shrink: true,
        cut_data: true,
        force: true,
    };
    resize(&request, &NoProgress, &Cancel::default()).map(drop)
}

#[test]
fn layers_are_merged_from_the_lowest_up_and_every_one_shows_what_it_showed() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 4, SIZE, &mut Rng::new(11));
        let [base, first, second, top] = &stack.layers[..] else {
            unreachable!()
        };
        for (child, contents) in [(first, 1), (second, 2)] {
            // Again: a run that was cut off is redone.
            for _ in 0..2 {
                run(child, base);
                assert!(content(base) == stack.contents[contents]);
            }
            for above in contents..4 {
                assert!(
                    content(&stack.layers[above]) == stack.contents[above],
                    "{above}"
                );
            }
        }
        if variant.relinks() {
            let request = RebaseRequest {
                subject: subject(top),
                parent: Some(base.clone()),
                parent_from: None,
                link_only: true,
                threads: None,
            };
            rebase(&request, &NoProgress, &Cancel::default()).unwrap();
            std::fs::remove_file(first).unwrap();
            assert!(content(top) == stack.contents[3]);
        }
    }
}

#[test]
fn a_layer_in_the_middle_is_merged_into() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 4, SIZE, &mut Rng::new(12));
        run(&stack.layers[3], &stack.layers[2]);
        assert!(content(&stack.layers[2]) == stack.contents[3]);
        assert!(content(&stack.layers[1]) == stack.contents[1]);
        assert!(content(&stack.layers[3]) == stack.contents[3]);
    }
}

#[test]
fn the_image_gets_the_size_of_its_overlay() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        for size in [SIZE + (2 << 20), SIZE - (2 << 20)] {
            let stack = Stack::new(&variant, 2, SIZE, &mut Rng::new(13));
            let [base, top] = &stack.layers[..] else {
                unreachable!()
            };
            if set_size(top, size).is_err() {
                continue;
            }
            let wanted = content(top);
            for _ in 0..2 {
                run(top, base);
                assert!(content(base) == wanted);
            }
        }
    }
}

#[test]
fn what_cannot_be_merged_is_refused_before() {
    let variant = &Variant::overlays()[0];
    let stack = Stack::new(variant, 3, SIZE, &mut Rng::new(14));
    // The overlay below the image.
    let wrong = request(&stack.layers[0], &stack.layers[2]);
    let error = check_merge(&wrong).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Locked),
        "{error}"
    );
    assert!(merge(&wrong, &NoProgress, &Cancel::default()).is_err());
    // More of its parent would show.
    set_size(&stack.layers[1], SIZE - (1 << 20)).unwrap();
    let error = check_merge(&request(&stack.layers[2], &stack.layers[1])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
