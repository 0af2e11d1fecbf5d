//! The release binary is one static file: it runs where there is nothing else.

use std::path::Path;

use hako_tests::{Run, disk, hash, run_program, skip};

/// Runs `hako` in a bare folder as its root, as root or in a user namespace.
fn in_chroot(root: &Path, args: &[&str]) -> Run {
    let mut all = vec!["chroot", root.to_str().unwrap(), "/hako"];
    all.extend(args);
    if rustix::process::geteuid().is_root() {
        return run_program(all[0], &all[1..]);
    }
    all.insert(0, "-r");
    run_program("unshare", &all)
}

#[test]
fn static_binary_converts_in_a_bare_chroot() {
    let Some(binary) = std::env::var_os("HAKO_BIN") else {
        skip("HAKO_BIN names no static binary: tests/run builds it");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(binary, root.path().join("hako")).unwrap();
    disk::make_raw(&root.path().join("disk.raw"), 8 << 20, 3);
    in_chroot(root.path(), &["--version"]).ok();
    in_chroot(root.path(), &["disk", "info", "/disk.raw"]).ok();
    for (name, subformat) in [
        ("a.vmdk", "monolithicSparse"),
        ("b.vmdk", "streamOptimized"),
    ] {
        let options = ["--subformat", subformat, "--verify"];
        let args = [&["disk", "convert", "/disk.raw", name][..], &options].concat();
        in_chroot(root.path(), &args).ok();
        let content = disk::sha256(&root.path().join("disk.raw"));
        assert_eq!(hash(&root.path().join(name), &[]), content);
    }
}
