//! Giving an overlay another parent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use common::{About, Stack, Variant, content, scribble, subject};
use hako_block::testkit::Rng;
use hako_block::{Cancel, ErrorKind, NoProgress};
use hako_disk::{RebaseReport, RebaseRequest, rebase};
use hako_formats::{OpenOptions, open_chain};

const SIZE: u64 = (5 << 20) + 512;

fn run(overlay: &Path, parent: Option<&Path>, link_only: bool) -> hako_block::Result<RebaseReport> {
    let request = RebaseRequest {
        subject: subject(overlay),
        parent: parent.map(Path::to_path_buf),
        parent_from: None,
        link_only,
        threads: None,
    };
    rebase(&request, &NoProgress, &Cancel::default())
}

fn n_layers(path: &Path) -> usize {
    open_chain(path, &OpenOptions::default())
        .unwrap()
        .chain
        .layers()
        .len()
}

fn variants() -> impl Iterator<Item = Variant> {
    Variant::overlays().into_iter().filter(Variant::relinks)
}

#[test]
fn content_stays_whatever_the_new_parent_is() {
    for variant in variants() {
        let _about = About(variant.label());
        // Skips a layer.
        let stack = Stack::new(&variant, 3, SIZE, &mut Rng::new(1));
        run(&stack.layers[2], Some(&stack.layers[0]), false).unwrap();
        assert_eq!(n_layers(&stack.layers[2]), 2);
        assert!(content(&stack.layers[2]) == stack.contents[2]);
        assert!(content(&stack.layers[1]) == stack.contents[1]);
        // Stands alone.
        run(&stack.layers[2], None, false).unwrap();
        assert_eq!(n_layers(&stack.layers[2]), 1);
        assert!(content(&stack.layers[2]) == stack.contents[2]);
        // Stands on something with other content, and back again.
        let other = stack.path(&format!("other.{}", variant.extension()));
        variant.create(&other, Some(SIZE), None);
        scribble(&other, &mut vec![0; SIZE as usize], &mut Rng::new(2));
        run(&stack.layers[1], Some(&other), false).unwrap();
        assert!(content(&stack.layers[1]) == stack.contents[1]);
        assert_eq!(n_layers(&stack.layers[1]), 2);
    }
}

#[test]
fn parent_of_another_size_changes_nothing() {
    for variant in variants() {
        let _about = About(variant.label());
        for size in [SIZE / 2 / 512 * 512, SIZE + (2 << 20)] {
            let stack = Stack::new(&variant, 2, SIZE, &mut Rng::new(4));
            let other = stack.path(&format!("other.{}", variant.extension()));
            variant.create(&other, Some(size), None);
            scribble(&other, &mut vec![0; size as usize], &mut Rng::new(2));
            match run(&stack.layers[1], Some(&other), false) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
            }
            assert!(content(&stack.layers[1]) == stack.contents[1]);
        }
    }
}

#[test]
fn link_alone_is_rewritten_when_the_user_says_so() {
    for variant in variants() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 2, SIZE, &mut Rng::new(9));
        let moved = stack.path(&format!("moved.{}", variant.extension()));
        hako_disk::rename(&subject(&stack.layers[0]), &moved).unwrap();
        std::fs::create_dir(stack.path("sub")).unwrap();
        let report = run(&stack.layers[1], Some(&moved), true).unwrap();
        assert_eq!(report.data_bytes, 0);
        assert!(content(&stack.layers[1]) == stack.contents[1]);
    }
}

#[test]
fn loop_is_refused() {
    for variant in variants() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 3, SIZE, &mut Rng::new(9));
        for parent in [&stack.layers[1], &stack.layers[2]] {
            run(&stack.layers[1], Some(parent), true).unwrap_err();
        }
        assert!(content(&stack.layers[2]) == stack.contents[2]);
    }
}
