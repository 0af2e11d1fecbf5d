//! What the native engine needs of the host, with a tiny guest in the test bed: huge pages, room on its
//! disks, sockets. No Linux has to come up.

#[path = "../../crates/engine/tests/tiny/mod.rs"]
mod tiny;

use hako_tests::bed::Bed;
use hako_tests::nested::{bare, has_in_order};

/// What the scripts have in common: a machine of the tiny guest, without disks.
const MACHINE: &str = "
    mkdir vm
    vm create web --memory 32M --nic none --folder vm --cpus 1
    start() { vm start web --engine kvm --kernel tiny --cmdline \"$@\"; }
    free() { cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages; }
    paused() { until vm list | grep paused >/dev/null; do sleep 1; done; }";

fn bed(script: &str) -> Option<Bed> {
    let bed = bare(&format!("{MACHINE}\n{script}"))?;
    std::fs::write(bed.path("tiny"), tiny::guest()).unwrap();
    Some(bed)
}

#[test]
fn a_guest_s_memory_is_in_huge_pages_where_they_are_set_aside_and_their_want_is_said() {
    let script = "
        vm set web hako.hugePages=TRUE
        echo 10 >/proc/sys/vm/nr_hugepages
        start echo 2>&1 || echo refused
        echo \"free $(free)\"
        echo 20 >/proc/sys/vm/nr_hugepages
        start echo 2>&1
        line echo
        echo \"free $(free)\"
        printf 'hako.' | vm console web >/dev/null
        vm wait web
        echo \"free $(free)\"";
    let Some(bed) = bed(script) else { return };
    let said = bed.run().expect_code(0).stdout;
    let lines = [
        "refused",
        "free 10",
        "seen: echo",
        "free 4",
        "stopped",
        "free 20",
    ];
    has_in_order(&said, &lines);
    assert!(said.contains("vm.nr_hugepages"), "{said}");
}

#[test]
fn a_machine_waits_for_room_on_a_full_file_system_or_its_guest_reads_an_error() {
    let script = "
        mkdir small; mount -t tmpfs -o size=64k tmpfs small
        truncate -s 1M small/disk.raw
        vm set web --attach-disk small/disk.raw,from=raw
        fill() { cat /dev/zero >small/fill 2>/dev/null || true; }
        # It writes 4096 bytes, which nobody has room for.
        fill
        start block 2>&1
        vm wait web --timeout 300 --for-line 'sum' >/dev/null
        paused
        vm info web | grep -o 'paused (.*)'
        vm unpause web
        paused
        echo 'paused again'
        rm small/fill
        vm unpause web
        vm wait web
        vm console --log web | tr -d '\\r' | grep -e write -e flush
        cmp -n 4096 -i 4608:4608 small/disk.raw <(head -c 8704 /dev/zero) >/dev/null || echo written
        grep -c 'paused: ' /run/hako/*/runner.log
        # A hole again: without room the guest is told, if that is wished for.
        vm set web hako.onNoSpace=report
        rm small/disk.raw; truncate -s 1M small/disk.raw; fill
        start block 2>&1
        vm wait web
        vm console --log web | tr -d '\\r' | grep -e write
        grep 'a write of 4096 bytes' /run/hako/*/runner.log >/dev/null && echo told";
    let Some(bed) = bed(script) else { return };
    let said = bed.run().expect_code(0).stdout;
    let lines = [
        "paused again",
        "stopped",
        "write 0",
        "flush 0",
        "written",
        "2",
        "stopped",
        "write 1",
        "told",
    ];
    has_in_order(&said, &lines);
    let why = "free some space, then: hako vm unpause)";
    assert!(said.contains(why), "{said}");
}
