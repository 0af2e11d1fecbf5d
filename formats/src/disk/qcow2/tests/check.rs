//! Checking, and damaged files.

use super::*;

/// Changes bytes of a file in memory and checks it.
fn check_changed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Findings {
    let mut changed = bytes.to_vec();
    change(&mut changed);
    Qcow2
        .check(OpenArgs {
            storage: Arc::new(MemoryStorage::new("disk.qcow2", changed)),
            name: "disk.qcow2".into(),
            resolver: Arc::new(MemoryFolder::default()),
            access: Access::ReadOnly,
            salvage: false,
            snapshot: None,
        })
        .unwrap()
}

#[test]
fn check_counts_what_is_stored_and_finds_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(71).disk(4_000_768);
    let path = make_with_qemu(folder.path(), &disk, "cluster_size=4k", &["-c"]);
    let findings = check_file(&path);
    let json = qemu_img(folder.path(), &["check", "--output=json", "disk.qcow2"]);
    for (key, number) in [
        ("total-clusters", findings.n_units),
        ("allocated-clusters", findings.n_allocated_units),
        ("compressed-clusters", findings.n_compressed_units),
    ] {
        assert!(
            json.contains(&format!("\"{key}\": {number},")),
            "{key} {number}: {json}"
        );
    }
    assert!(findings.n_compressed_units > 0);

    let path = make_with_qemu(folder.path(), &disk, "cluster_size=4k", &[]);
    let bytes = std::fs::read(&path).unwrap();
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let block = number(number(48));
    let l1 = number(40);
    let l2 = number(l1) & 0xff_ffff_fe00;
    let entry = (0..512)
        .map(|index| l2 + index * 8)
        .find(|at| number(*at) != 0)
        .unwrap();
    let host = (number(entry) & 0xff_ffff_fe00) >> 12;

    let too_low = check_changed(&bytes, |bytes| bytes[block + host * 2 + 1] = 0);
    assert_eq!(too_low.worst(), Some(Severity::Corruption), "{too_low:?}");
    let too_high = check_changed(&bytes, |bytes| bytes[block + host * 2 + 1] = 2);
    assert_eq!(too_high.n_leaks, 1);
    let lost = check_changed(&bytes, |bytes| bytes[entry..entry + 8].fill(0));
    assert_eq!(
        (lost.worst(), lost.leaked_bytes),
        (Some(Severity::Leak), 4096),
        "{lost:?}"
    );
    let unaligned = check_changed(&bytes, |bytes| bytes[entry + 6] |= 2);
    assert_eq!(unaligned.worst(), Some(Severity::Corruption));
    let far = check_changed(&bytes, |bytes| bytes[entry + 2] = 0x70);
    assert!(
        far.list
            .iter()
            .any(|finding| finding.text.contains("past the end")),
        "{far:?}"
    );
    let crossed = check_changed(&bytes, |bytes| {
        bytes.copy_within(entry..entry + 8, entry + 8)
    });
    assert_eq!(crossed.worst(), Some(Severity::Corruption), "{crossed:?}");
    let marked = check_changed(&bytes, |bytes| bytes[79] |= 1);
    assert_eq!(marked.worst(), Some(Severity::Oddity));
}

#[test]
fn damaged_files_are_refused_or_read_but_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(73).disk(600_064);
    let mut random = Random::new(74);
    for (options, flags) in [
        ("cluster_size=512", &[] as &[&str]),
        ("cluster_size=1k", &["-c"]),
        ("extended_l2=on,cluster_size=16k", &[]),
    ] {
        let path = make_with_qemu(folder.path(), &disk, options, flags);
        qemu_img(folder.path(), &["snapshot", "-c", "one", "disk.qcow2"]);
        let bytes = std::fs::read(&path).unwrap();
        for round in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(4) {
                let at = if round % 2 == 0 {
                    random.below(112)
                } else {
                    random.below(bytes.len() as u64)
                };
                let at = at as usize;
                damaged[at] =
                    [0, 1, 0x40, 0x80, 0xff, random.below(256) as u8][random.below(6) as usize];
            }
            if round % 5 == 0 {
                damaged.truncate(random.below(bytes.len() as u64) as usize);
            }
            exercise(damaged, &mut random);
        }
    }
}

/// Opens, maps, reads, writes and checks whatever it is.
fn exercise(bytes: Vec<u8>, random: &mut Random) {
    let storage = Arc::new(MemoryStorage::new("disk.qcow2", bytes));
    let args = OpenArgs {
        storage: storage.clone(),
        name: "disk.qcow2".into(),
        resolver: Arc::new(MemoryFolder::default()),
        access: Access::ReadOnly,
        salvage: false,
        snapshot: None,
    };
    let _ = Qcow2.check(args.clone());
    let _ = Qcow2.open(OpenArgs {
        snapshot: Some("one".into()),
        ..args.clone()
    });
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let Ok(image) = Qcow2.open(OpenArgs {
            access,
            ..args.clone()
        }) else {
            continue;
        };
        let size = image.info().virtual_size;
        let mut buf = vec![0; 3000];
        for _ in 0..20 {
            let at = random.below(size.saturating_sub(3000));
            if size > at {
                let _ = image.next_extent(at);
            }
            let _ = image.read_at(at, &mut buf);
            let _ = image.write_at(at, &buf);
            let _ = image.write_zeroes(at..at + 2000);
            let _ = image.discard(at..at + 3000);
        }
        let _ = image.flush();
    }
    assert!(storage.len_bytes().unwrap() < 1 << 30);
}

#[test]
fn dirty_and_corrupt_images_are_read_but_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Random::new(81).disk(600_064);
    for (bit, word) in [(1, "cleanly"), (2, "corrupt")] {
        let path = make_with_qemu(folder.path(), &disk, "cluster_size=4k", &[]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[79] |= bit;
        std::fs::write(&path, bytes).unwrap();
        let image = open_file(&path, Access::ReadOnly);
        assert!(image.info().oddities.iter().any(|text| text.contains(word)));
        assert!(read_all(&*image) == disk);
        drop(image);
        let error = try_open(&path, Access::ReadWrite, None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error
                .hint_text()
                .unwrap()
                .contains("hako disk check --repair all")
        );
    }
}
