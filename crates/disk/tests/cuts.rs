//! A commit that the machine's end cuts off at any write: the overlay keeps its content.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::{About, Variant};
use hako_block::testkit::{FaultFolder, Rng, cut_images};
use hako_block::{
    Access, BlockImage, Cancel, Chain, LayerView, NoProgress, Outputs, ParentLink, Resolver,
};
use hako_formats::{CreateArgs, CreateOptions, OpenArgs};
use hako_pipeline::{CopyOptions, InPlace, copy};

const SIZE: u64 = (3 << 20) + 512;

fn create(folder: &FaultFolder, variant: &Variant, name: &str, parent: Option<ParentLink>) {
    let sink = variant.format.stream(CreateArgs {
        storage: folder.create(name).unwrap(),
        name: name.to_owned(),
        outputs: folder,
        virtual_size: SIZE,
        parent,
        options: CreateOptions {
            subformat: (!variant.subformat.is_empty()).then(|| variant.subformat.to_owned()),
            ..CreateOptions::default()
        },
    });
    sink.unwrap().finish().unwrap();
}

fn open(
    folder: &FaultFolder,
    variant: &Variant,
    name: &str,
    access: Access,
) -> hako_block::Result<Arc<dyn BlockImage>> {
    let opened = folder.open(name, access)?;
    let image = variant.format.open(OpenArgs {
        storage: opened.storage,
        name: opened.name,
        resolver: opened.resolver,
        access,
        salvage: false,
        snapshot: None,
    });
    image.map(Arc::from)
}

fn open_chain(folder: &FaultFolder, variant: &Variant, names: [&str; 2], access: Access) -> Chain {
    let layers = names.map(|name| open(folder, variant, name, access).unwrap());
    Chain::new(layers.to_vec()).unwrap()
}

fn read(chain: &Chain) -> Vec<u8> {
    let mut bytes = vec![0x55; SIZE as usize];
    chain.read_at(0, &mut bytes).unwrap();
    bytes
}

fn scribble(image: &dyn BlockImage, content: &mut [u8], rng: &mut Rng) {
    for _ in 0..6 {
        let start = rng.below(0..SIZE);
        let end = (start + 1 + rng.below(0..150_000)).min(SIZE);
        let range = start as usize..end as usize;
        if rng.one_in(3) {
            image.write_zeroes(start..end).unwrap();
            content[range].fill(0);
        } else {
            let bytes = rng.bytes((end - start) as usize);
            image.write_at(start, &bytes).unwrap();
            content[range].copy_from_slice(&bytes);
        }
    }
    image.flush().unwrap();
}

#[test]
fn overlay_keeps_its_content_wherever_a_commit_is_cut_off() {
    let n_seeds = if n_all() { 5 } else { 1 };
    for variant in Variant::overlays() {
        for seed in 0..n_seeds {
            let _about = About(format!("{} seed {seed}", variant.label()));
            commit_with_cuts(&variant, seed);
        }
    }
}

fn commit_with_cuts(variant: &Variant, seed: u64) {
    let mut rng = Rng::new(seed);
    let base = format!("base.{}", variant.extension());
    let top = format!("top.{}", variant.extension());
    let names = [top.as_str(), base.as_str()];
    let folder = FaultFolder::default();
    create(&folder, variant, &base, None);
    let mut content = vec![0; SIZE as usize];
    let image = open(&folder, variant, &base, Access::ReadWrite).unwrap();
    scribble(&*image, &mut content, &mut rng);
    drop(image);
    let info = open(&folder, variant, &base, Access::ReadOnly)
        .unwrap()
        .info()
        .clone();
    let link = ParentLink {
        name: base.clone(),
        format: Some(info.format.to_owned()),
        identity: info.identity,
        content_id: info.content_id,
        ..ParentLink::default()
    };
    create(&folder, &variant.overlay_form(), &top, Some(link));
    let chain = open_chain(&folder, variant, names, Access::ReadWrite);
    scribble(&chain, &mut content, &mut rng);
    drop(chain);

    folder.take_log();
    let (before, numbers) = (folder.files(), folder.numbers());
    let layers = names.map(|name| open(&folder, variant, name, Access::ReadWrite).unwrap());
    let whole = Chain::new(layers.to_vec()).unwrap();
    let below = Chain::new(layers[1..].to_vec()).unwrap();
    let cancel = Cancel::default();
    let options = CopyOptions {
        keep_holes: true,
        ..CopyOptions::new(&NoProgress, &cancel)
    };
    let source = LayerView::new(Arc::clone(&layers[0]), Arc::new(whole));
    copy(&source, Box::new(InPlace(&below)), SIZE, &options).unwrap();
    assert!(read(&below) == content, "the parent has it all");

    let log = folder.take_log();
    assert!(!log.is_empty());
    let n_variants = if n_all() { 12 } else { 3 };
    cut_images(&before, &numbers, &log, n_variants, &mut rng, |cut| {
        let chain = open_chain(&cut.folder, variant, names, Access::ReadOnly);
        let same = read(&chain) == content;
        assert!(same, "after {} operations, lost {}", cut.n_ops, cut.lost);
    });
}

fn n_all() -> bool {
    std::env::var_os("HAKO_ALL").is_some()
}
