//! Disks of the native engine under load, with a real KVM: what a guest reads is what it wrote, and so is
//! what is there afterwards.

use std::path::{Path, PathBuf};

use hako_tests::bed::Bed;
use hako_tests::nested::{bed, has_in_order, put_script};
use hako_tests::{all, hako, root, run_program};

/// How long the guest reads and writes, in seconds, half of it after a snapshot. For a shorter try:
/// HAKO_SCRIBBLE_SECONDS.
fn seconds() -> u64 {
    let said = std::env::var("HAKO_SCRIBBLE_SECONDS").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(1800)
}

/// The content of the sectors is made of it.
const SEED: &str = "20261122";

/// Builds `tests/bed/scribble.c`.
fn scribble(folder: &Path) -> PathBuf {
    let program = folder.join("scribble");
    let source = root().join("tests/bed/scribble.c");
    let flags = ["-static", "-O2", "-o"].map(Path::new);
    run_program("cc", &[&flags[..], &[&program, &source]].concat()).ok();
    program
}

/// Returns the image at a node of the machine, as its text has it.
fn image(bed: &Bed, node: &str) -> PathBuf {
    let text = std::fs::read_to_string(bed.path("vm/web.vmx")).unwrap();
    let key = format!("{node}.fileName = ");
    let name = text.lines().find_map(|line| line.strip_prefix(&key));
    bed.path("vm").join(name.unwrap().trim_matches('"'))
}

/// Returns what the guest said the disk's SHA-256 is at the end.
fn digest(said: &str, disk: &str) -> String {
    let mut lines = said.lines().rev();
    let start = format!("GUEST digest {disk} ");
    let digest = lines.find_map(|line| line.trim().strip_prefix(&start));
    digest
        .unwrap_or_else(|| panic!("no digest of {disk}: {said}"))
        .to_owned()
}

#[test]
fn random_writes_over_two_queues_are_all_there_after_half_an_hour() {
    if !all() {
        return;
    }
    let half = seconds() / 2;
    let guest = format!(
        "
        # No program is started from /run.
        mount -t tmpfs tmpfs /mnt && cp /run/hako-guest/scribble /mnt/ && cd /mnt
        echo \"GUEST queues $(ls /sys/block/vdc/mq | wc -l)\"
        for disk in vdc vdd vde; do ./scribble run /dev/$disk {SEED} {half} & jobs=\"$jobs $!\"; done
        for job in $jobs; do wait $job || echo 'GUEST lost something'; done
        for disk in vdc vdd vde; do
            digest=$(dd if=/dev/$disk bs=1M iflag=direct 2>/dev/null | sha256sum | cut -c -64)
            echo \"GUEST digest $disk $digest\"
        done"
    );
    // A sparse VMDK, a qcow2 and a raw disk; then a delta over each.
    let script = "
        create --cpus 2 --from-disk vm/disk.vmdk --from-disk vm/disk.script,from=raw \\
            --disk 24M --disk 24M,format=qcow2 --disk 24M,format=raw
        run() {
            vm start web --engine kvm 2>&1
            vm wait web --timeout 3000
            guest
        }
        run
        hako snapshot create web one
        run
        for disk in $(sed -n 's/^scsi0:[234].fileName = //p' vm/web.vmx | tr -d '\"'); do
            hako disk check vm/$disk && echo sound
        done";
    let Some(bed) = bed("debian-bios", "disk.vmdk", &[], script) else {
        return;
    };
    let program = scribble(&bed.path("."));
    put_script(&bed, &guest, &[&program]);
    let said = bed.run().expect_code(0).stdout;
    assert!(!said.contains("GUEST lost"), "{said}");
    let one_run = ["GUEST queues 2", "GUEST ends 0"];
    has_in_order(&said, &[&one_run[..], &one_run, &["sound"; 3]].concat());
    // Three disks, four processes each, twice.
    assert_eq!(said.matches(" zeroings, ").count(), 24, "{said}");
    println!("{said}");
    for (node, disk) in [("scsi0:2", "vdc"), ("scsi0:3", "vdd"), ("scsi0:4", "vde")] {
        let (image, raw) = (image(&bed, node), bed.path(disk).with_extension("raw"));
        run_program(
            hako(),
            &["disk".as_ref(), "convert".as_ref(), &*image, &*raw],
        )
        .ok();
        let found = run_program("sha256sum", &[&raw]).ok();
        assert!(found.starts_with(&digest(&said, disk)), "{disk}: {found}");
        run_program(&program, &[Path::new("look"), &raw, Path::new(SEED)]).ok();
        // Another reader of the same chain.
        let compare = ["compare", "-f"].map(Path::new);
        let format = image.extension().map(Path::new).unwrap();
        let rest = [format, Path::new("-F"), Path::new("raw"), &image, &raw];
        run_program("qemu-img", &[&compare[..], &rest].concat()).ok();
    }
}
