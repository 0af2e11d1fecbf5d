//! Renaming and deleting images with all their files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{About, Stack, Variant, content, scribble, subject};
use hako_block::ErrorKind;
use hako_block::testkit::Rng;
use hako_disk::{delete, rename};

const SIZE: u64 = (5 << 20) + 512;

#[test]
fn every_file_and_reference_gets_the_new_name() {
    for variant in Variant::writable() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 1, SIZE, &mut Rng::new(1));
        let to = stack.path(&format!("new name.{}", variant.extension()));
        let n_files = stack.names().len();
        rename(&subject(&stack.layers[0]), &to).unwrap();
        assert!(content(&to) == stack.contents[0]);
        let names = stack.names();
        assert_eq!(names.len(), n_files, "{names:?}");
        assert!(
            names.iter().all(|name| name.starts_with("new name")),
            "{names:?}"
        );
        let mut changed = stack.contents[0].clone();
        scribble(&to, &mut changed, &mut Rng::new(2));
        assert!(content(&to) == changed);
    }
}

#[test]
fn overlays_follow() {
    for variant in Variant::overlays().into_iter().filter(Variant::relinks) {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 3, SIZE, &mut Rng::new(1));
        for index in 0..2 {
            let to = stack.path(&format!("new{index}.{}", variant.extension()));
            let report = rename(&subject(&stack.layers[index]), &to).unwrap();
            assert_eq!(report.overlays, [stack.layers[index + 1].clone()]);
            assert!(content(&stack.layers[2]) == stack.contents[2]);
        }
    }
}

#[test]
fn taken_name_is_refused_and_nothing_changes() {
    for variant in Variant::writable() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 1, SIZE, &mut Rng::new(1));
        let to = stack.path(&format!("taken.{}", variant.extension()));
        std::fs::write(&to, b"something else").unwrap();
        let before = stack.names();
        let error = rename(&subject(&stack.layers[0]), &to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        assert_eq!(stack.names(), before);
        assert!(content(&stack.layers[0]) == stack.contents[0]);
    }
}

#[test]
fn deleting_leaves_nothing_behind() {
    for variant in Variant::writable() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 1, SIZE, &mut Rng::new(1));
        delete(&subject(&stack.layers[0]), false).unwrap();
        assert!(stack.names().is_empty(), "{:?}", stack.names());
    }
}

#[test]
fn what_others_stand_on_is_not_deleted() {
    for variant in Variant::overlays() {
        let _about = About(variant.label());
        let stack = Stack::new(&variant, 2, SIZE, &mut Rng::new(1));
        let error = delete(&subject(&stack.layers[0]), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(content(&stack.layers[1]) == stack.contents[1]);
        delete(&subject(&stack.layers[1]), false).unwrap();
        delete(&subject(&stack.layers[0]), false).unwrap();
        assert!(stack.names().is_empty());
    }
}
