//! NTFS: its own bitmap and partclone, and what Windows swaps to.

use super::*;

fn make_ntfs(args: &str, bytes: u64) -> Image {
    let image = Image::empty(bytes);
    let mut all: Vec<&str> = args.split_whitespace().collect();
    all.extend(["-q", "-F", "-Q", image.text()]);
    run("mkntfs", &all);
    image
}

#[test]
fn the_map_of_ntfs_is_its_bitmap_but_for_what_windows_swaps_to() {
    if !have(&["mkntfs", "ntfs-3g", "ntfscat", "ntfsfix", "partclone.ntfs"]) {
        return;
    }
    for (args, cluster, seed) in [
        ("", 4096_u64, 1),
        ("-c 512", 512, 2),
        ("-c 65536", 65536, 3),
    ] {
        for how in lives(seed) {
            let image = make_ntfs(args, 128 * MIB);
            let Some(mounted) = image.mount_ntfs("") else {
                return;
            };
            live(mounted.path(), seed, how);
            drop(mounted);
            let what = format!("{args}, {how}");
            let bitmap = std::process::Command::new("ntfscat")
                .args(["-i", "6", image.text()])
                .output()
                .unwrap();
            let mut theirs = Ranges::default();
            theirs.add_bits(&bitmap.stdout, len_of(&image) / cluster, 0, cluster);
            let ours = used(&image);
            assert_agrees(&ours, &theirs.within(&(0..len_of(&image))), &what);
            assert_agrees(&ours, &partclone("ntfs", &image), &what);
            // What is free may lie in the ends of the volume alone, which are copied always.
            if *how == "full" && ours.gaps(&(0..len_of(&image))).is_empty() {
                continue;
            }
            let copy = noisy(&image, &ours);
            run("ntfsfix", &["-n", copy.text()]);
            // Against the image itself: of clusters of 512 bytes, aged, ntfs-3g (2022.10.3) shows two
            // files otherwise once it is mounted anew.
            let there = listing(image.mount_ntfs("ro").unwrap().path());
            assert_listed(&there, copy.mount_ntfs("ro").unwrap().path());
        }
    }
}

#[test]
fn page_files_are_passed_over_unless_windows_is_hibernated() {
    if !have(&["mkntfs", "ntfs-3g"]) {
        return;
    }
    for (begins, hiberfil_is_kept) in [("wake", false), ("hibr", true)] {
        let image = make_ntfs("", 128 * MIB);
        let Some(mounted) = image.mount_ntfs("") else {
            return;
        };
        let at = mounted.path();
        fs::write(at.join("pagefile.sys"), vec![1; 20 << 20]).unwrap();
        let hiberfil = [begins.as_bytes(), &vec![2; 10 << 20]].concat();
        fs::write(at.join("hiberfil.sys"), hiberfil).unwrap();
        fs::create_dir(at.join("folder")).unwrap();
        fs::write(at.join("folder/pagefile.sys"), vec![3; 5 << 20]).unwrap();
        drop(mounted);
        let all = used_of(&map_of(&[&image], true), 0, len_of(&image));
        let map = map_of(&[&image], false);
        let less = used_of(&map, 0, len_of(&image));
        let survey = map.survey(0, &mut |_| Ok(())).unwrap();
        let skipped = all.n_bytes() - less.n_bytes();
        assert_eq!(skipped, survey[0].scratch_bytes);
        match hiberfil_is_kept {
            true => assert_eq!(skipped, 0),
            false => assert!((30 << 20..31 << 20).contains(&skipped), "{skipped}"),
        }
    }
}

#[test]
fn a_dirty_ntfs_is_in_use_as_a_whole() {
    if !have(&["mkntfs", "ntfs-3g"]) {
        return;
    }
    let image = make_ntfs("", 64 * MIB);
    // The flags of the volume are in its record; mkntfs writes that to the copy of the table, too.
    let bytes = fs::read(image.path()).unwrap();
    let file = File::options().write(true).open(image.path()).unwrap();
    let mark = [3_u8, 1, 0, 0];
    let mut found = 0;
    for record in (0..bytes.len() - 1024).step_by(1024) {
        let number = u32::from_le_bytes(bytes[record + 0x2c..record + 0x30].try_into().unwrap());
        if bytes[record..].starts_with(b"FILE") && number == 3 {
            let place = bytes[record..record + 1024]
                .windows(4)
                .position(|at| at == mark);
            file.write_all_at(&[1], (record + place.unwrap() + 2) as u64)
                .unwrap();
            found += 1;
        }
    }
    assert!(found > 0);
    let map = map_of(&[&image], false);
    let whole = map.used(0, &(0..len_of(&image))).unwrap();
    assert_eq!(whole.n_bytes(), len_of(&image));
    let survey = map.survey(0, &mut |_| Ok(())).unwrap();
    assert!(survey[0].notes[0].contains("dirty"), "{survey:?}");
}
