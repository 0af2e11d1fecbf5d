//! The outer machine of the test bed is what tests on it rely on.

use std::fs::File;

use hako_tests::bed::Bed;

#[test]
fn a_script_has_a_real_kernel_its_disks_and_its_folder() {
    let disks = tempfile::tempdir().unwrap();
    let [small, large] = ["small.raw", "large.raw"].map(|name| disks.path().join(name));
    for (path, len) in [(&small, 16 << 20), (&large, 24 << 20)] {
        File::create(path).unwrap().set_len(len).unwrap();
    }
    let script = "
        cat /sys/module/kvm_amd/parameters/npt question
        for disk in /dev/disk0 /dev/disk1; do blockdev --getss --getsize64 $disk; done
        dmsetup version | sed -n 's/^Driver version: *[0-9].*/device-mapper/p'
        printf 'of the guest' | dd of=/dev/disk1 bs=1 seek=5000 conv=notrunc 2>/dev/null
        echo answer >answer
        exit 9";
    let Some(bed) = Bed::new(script) else {
        return;
    };
    let bed = bed.disk(&small).disk_with_sectors_of(4096, &large);
    std::fs::write(bed.path("question"), "question\n").unwrap();
    let said = bed.run().expect_code(9).stdout;
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "Y",
            "question",
            "512",
            "16777216",
            "4096",
            "25165824",
            "device-mapper"
        ]
    );
    assert_eq!(
        std::fs::read_to_string(bed.path("answer")).unwrap(),
        "answer\n"
    );
    let written = std::fs::read(&large).unwrap();
    assert_eq!(&written[5000..5012], b"of the guest");
    assert!(written[5012..].iter().all(|&byte| byte == 0));
}
