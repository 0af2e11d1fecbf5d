//! Overlays and their parents.

use super::*;

#[test]
fn overlays_show_their_parent_and_hide_it_where_they_say_zero() {
    let folder = tempfile::tempdir().unwrap();
    let base = Random::new(41).disk(2_000_384);
    make_with_qemu(folder.path(), &base, "compat=1.1", &[]);
    std::fs::rename(
        folder.path().join("disk.qcow2"),
        folder.path().join("base.qcow2"),
    )
    .unwrap();
    for (options, format) in [
        ("compat=0.10", "qcow2"),
        ("compat=1.1", "qcow2"),
        ("extended_l2=on,cluster_size=32k", "qcow2"),
    ] {
        let path = folder.path().join("top.qcow2");
        qemu_img(
            folder.path(),
            &[
                "create",
                "-f",
                "qcow2",
                "-o",
                options,
                "-b",
                "base.qcow2",
                "-F",
                format,
                "top.qcow2",
            ],
        );
        let mut model = base.clone();
        let open_options = OpenOptions {
            access: Access::ReadWrite,
            rules: no_lock(),
            ..OpenOptions::default()
        };
        for round in 0..2 {
            let opened = open_chain(&path, &open_options).unwrap();
            hammer(&opened.chain, &mut model, 50 + round, 50);
            assert!(read_all(&opened.chain) == model, "{options}");
            opened.chain.flush().unwrap();
            drop(opened);
            check_both(&path);
            assert!(qemu_content(&path) == model, "{options}: qemu-img");
        }
    }
}

#[test]
fn overlays_that_we_create_name_their_parent_and_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let base = Random::new(43).disk(2_000_384);
    make_with_qemu(folder.path(), &base, "compat=1.1", &[]);
    std::fs::rename(
        folder.path().join("disk.qcow2"),
        folder.path().join("ba:se.qcow2"),
    )
    .unwrap();
    let path = folder.path().join("top.qcow2");
    let staged = StagedFolder::new(&path, false).unwrap();
    let mut sink = Qcow2
        .stream(CreateArgs {
            storage: staged.create_main().unwrap(),
            name: "top.qcow2".into(),
            outputs: &staged,
            virtual_size: base.len() as u64,
            parent: Some(ParentLink {
                name: "ba:se.qcow2".into(),
                format: Some("qcow2".into()),
                ..ParentLink::default()
            }),
            options: CreateOptions::default(),
        })
        .unwrap();
    sink.data(65536, &[7; 65536]).unwrap();
    sink.zero(196_608..327_680).unwrap();
    sink.finish().unwrap();
    staged.commit().unwrap();
    let mut model = base;
    model[65536..131_072].fill(7);
    model[196_608..327_680].fill(0);
    check_both(&path);
    assert!(qemu_content(&path) == model);
    let opened = open_chain(
        &path,
        &OpenOptions {
            rules: no_lock(),
            ..OpenOptions::default()
        },
    )
    .unwrap();
    assert!(read_all(&opened.chain) == model);
}

#[test]
fn parents_behind_a_protocol_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "nbd://localhost/x",
        "json:{\"driver\":\"null-co\"}",
        "nbd:unix:/tmp/x",
    ] {
        let path = folder.path().join("top.qcow2");
        qemu_img(
            folder.path(),
            &[
                "create",
                "-f",
                "qcow2",
                "-u",
                "-b",
                name,
                "-F",
                "raw",
                "top.qcow2",
                "1M",
            ],
        );
        let error = open_chain(
            &path,
            &OpenOptions {
                rules: no_lock(),
                ..OpenOptions::default()
            },
        )
        .err()
        .unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("protocol"), "{error}");
    }
}
