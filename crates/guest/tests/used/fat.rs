//! FAT and exFAT: partclone.

use super::*;

#[test]
fn the_map_of_fat_is_what_partclone_says() {
    if !have(&["mkfs.vfat", "mcopy", "fsck.vfat", "partclone.vfat"]) {
        return;
    }
    for (args, mib) in [
        ("-F 12", 3),
        ("-F 16 -s 4", 64),
        ("-F 32 -s 1", 64),
        ("-F 32 -f 1", 300),
    ] {
        let image = Image::empty(mib * MIB);
        let mut words: Vec<&str> = args.split_whitespace().collect();
        words.push(image.text());
        run("mkfs.vfat", &words);
        let from = aged::folder();
        let mut rng = Rng::new(mib);
        let file = |n: u64| format!("file{n}");
        for n in 0..60 {
            let len = rng.below(0..mib * MIB / 120) as usize;
            fs::write(from.path().join(file(n)), rng.bytes(len)).unwrap();
        }
        let disk = ["-i", image.text()];
        for n in 0..60 {
            let path = from.path().join(file(n));
            run("mcopy", &[disk[0], disk[1], path.to_str().unwrap(), "::"]);
            if n % 3 == 2 {
                run("mdel", &[disk[0], disk[1], &format!("::{}", file(n - 1))]);
            }
        }
        let ours = used(&image);
        assert_agrees(&ours, &partclone("vfat", &image), args);
        if args.contains("12") {
            continue;
        }
        let copy = noisy(&image, &ours);
        run("fsck.vfat", &["-n", copy.text()]);
        let (there, here) = (aged::folder(), aged::folder());
        for (image, to) in [(&image, &there), (&copy, &here)] {
            run(
                "mcopy",
                &[
                    "-i",
                    image.text(),
                    "-s",
                    "-n",
                    "::",
                    to.path().to_str().unwrap(),
                ],
            );
        }
        assert_listed(&listing(there.path()), here.path());
    }
}

#[test]
fn the_map_of_exfat_is_what_partclone_says() {
    if !have(&[
        "mkfs.exfat",
        "mount.exfat-fuse",
        "fsck.exfat",
        "partclone.exfat",
    ]) {
        return;
    }
    for args in ["", "-c 512", "-c 131072"] {
        let image = Image::empty(96 * MIB);
        let mut words: Vec<&str> = args.split_whitespace().collect();
        words.push(image.text());
        run("mkfs.exfat", &words);
        let at = image.folder().join("mounted");
        fs::create_dir_all(&at).unwrap();
        let device = run("losetup", &["-f", "--show", image.text()]);
        run("mount.exfat-fuse", &[device.trim(), at.to_str().unwrap()]);
        for n in 0..200 {
            fs::write(at.join(format!("file{n}")), vec![7; n * 997]).unwrap();
            if n % 3 == 2 {
                fs::remove_file(at.join(format!("file{}", n - 1))).unwrap();
            }
        }
        run("umount", &[at.to_str().unwrap()]);
        run("losetup", &["-d", device.trim()]);
        let ours = used(&image);
        assert_agrees(&ours, &partclone("exfat", &image), args);
        let copy = noisy(&image, &ours);
        run("fsck.exfat", &["-n", copy.text()]);
    }
}
