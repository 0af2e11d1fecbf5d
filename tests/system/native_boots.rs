//! The native engine boots what Debian's own tools made, with a real KVM: `hako vm start --engine kvm`
//! within the outer machine of the test bed. No kernel is handed over: it comes out of the guest's disk.

use hako_tests::all;
use hako_tests::nested::{bed, has_in_order, put_script};

#[test]
fn what_a_guest_synced_outlives_its_runner_and_is_there_on_a_chain_of_deltas() {
    if !all() {
        return;
    }
    let guest = "
        echo \"GUEST cpus $(nproc)\"
        echo \"GUEST disks $(cd /sys/block && echo vd*)\"
        e2fsck -fn /dev/mapper/vg0-root >/run/fsck 2>&1; echo \"GUEST fsck $?\"
        if [ -e /root/written ]; then
            cd /root && sha256sum -c sum && echo 'GUEST finds what it wrote'
            echo \"GUEST errors $(dmesg | grep -c -e 'EXT4-fs error' -e 'I/O error')\"
            echo 'GUEST listens'
            read -r line; echo \"GUEST heard $line\"
        else
            mount -o remount,rw /
            cd /root && dd if=/dev/urandom of=written bs=64k count=50 2>/dev/null
            sha256sum written >sum; sync written sum .
            echo 'GUEST synced'
            sleep 1000
        fi";
    let script = "
        create --cpus 4,2 --from-disk vm/disk.vmdk --from-disk vm/disk.script,from=raw
        vm start web --engine kvm 2>&1
        line 'GUEST synced'
        guest
        kill -9 $(cat /run/hako/*/pid)
        hako snapshot create web one; hako snapshot create web two
        vm start web --engine kvm 2>&1
        line 'GUEST listens'
        vm pause web; vm list | grep -c paused
        vm unpause web
        printf 'the host\\n' | vm console web >/dev/null &
        line 'GUEST heard the host'
        vm wait web --timeout 900
        guest
        tail -1 /run/hako/*/runner.log";
    let Some(bed) = bed("debian-bios", "disk.vmdk", &[], script) else {
        return;
    };
    put_script(&bed, guest, &[]);
    let said = bed.run().expect_code(0).stdout;
    has_in_order(
        &said,
        &[
            "seen: GUEST synced",
            "GUEST cpus 4",
            "GUEST disks vda vdb",
            "GUEST fsck 0",
            "seen: GUEST listens",
            "1",
            "seen: GUEST heard the host",
            "stopped",
            "GUEST cpus 4",
            "GUEST fsck 0",
            "GUEST finds what it wrote",
            "GUEST errors 0",
            "GUEST heard the host",
            "GUEST ends 0",
        ],
    );
    assert!(
        said.trim_end().ends_with("the guest has shut down"),
        "{said}"
    );
}

/// What guests do whose disk is of a format of its own: they read much, and write.
const READS_AND_WRITES: &str = "
    mount -o remount,rw /
    cat /usr/bin/* >/dev/null && echo \"GUEST reads\"
    dd if=/dev/urandom of=/root/written bs=1M count=4 conv=fsync 2>/dev/null && echo \"GUEST writes\"";

#[test]
fn disks_that_cannot_be_written_to_run_with_discarded_writes() {
    if !all() {
        return;
    }
    let script = "
        sum=$(sha256sum <vm/disk.vmdk)
        create --from-disk vm/disk.vmdk --from-disk vm/disk.script,from=raw
        vm start web --engine kvm 2>&1 || echo refused
        vm start web --engine kvm --discard-writes 2>&1
        vm wait web --timeout 900
        guest
        [ \"$sum\" = \"$(sha256sum <vm/disk.vmdk)\" ] && echo unchanged";
    let options = ["--subformat", "streamOptimized"];
    let Some(bed) = bed("debian-uefi", "disk.vmdk", &options, script) else {
        return;
    };
    put_script(&bed, READS_AND_WRITES, &[]);
    let said = bed.run().expect_code(0).stdout;
    let lines = [
        "refused",
        "stopped",
        "GUEST reads",
        "GUEST writes",
        "GUEST ends 0",
        "unchanged",
    ];
    has_in_order(&said, &lines);
}

#[test]
fn one_as_fedoras_runs_on_a_qcow2() {
    if !all() {
        return;
    }
    let script = "
        create --from-disk vm/disk.qcow2 --from-disk vm/disk.script,from=raw
        vm start web --engine kvm 2>&1
        vm wait web --timeout 900
        guest
        hako disk check vm/disk.qcow2 && echo sound";
    let Some(bed) = bed("fedora-like", "disk.qcow2", &[], script) else {
        return;
    };
    put_script(&bed, READS_AND_WRITES, &[]);
    let said = bed.run().expect_code(0).stdout;
    has_in_order(
        &said,
        &[
            "stopped",
            "GUEST reads",
            "GUEST writes",
            "GUEST ends 0",
            "sound",
        ],
    );
}

#[test]
fn a_whole_debian_comes_to_its_login_is_reset_and_shuts_down() {
    if !all() {
        return;
    }
    let script = "
        create --from-disk vm/disk.vmdk
        vm start web --engine auto 2>&1
        line 'login:'
        vm reset web
        until [ $(vm console --log web | grep -c login:) = 2 ]; do sleep 2; done
        vm stop web --timeout 900
        cat /run/hako/*/runner.log";
    let Some(bed) = bed("debian-bios", "disk.vmdk", &[], script) else {
        return;
    };
    let said = bed.run().expect_code(0).stdout;
    for part in [
        "seen: login:",
        "runs: kvm",
        " reset",
        "the guest has shut down",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// Brings a guest to its login from its disk in a format, by its own kernel and initrd; `set_up` comes
/// before, and says with which flags it starts.
fn log_in(guest: &str, format: &[&str], set_up: &str) {
    if !all() {
        return;
    }
    let script = format!(
        "
        create --from-disk vm/disk.image
        {set_up}
        vm start web --engine kvm $flags 2>&1
        line 'login:'
        vm stop web --timeout 900
        tail -1 /run/hako/*/runner.log"
    );
    let Some(bed) = bed(guest, "disk.image", format, &script) else {
        return;
    };
    let said = bed.run().expect_code(0).stdout;
    assert!(said.contains("seen: login:"), "{said}");
    assert!(
        said.trim_end().ends_with("the guest has shut down"),
        "{said}"
    );
}

#[test]
fn a_login_is_reached_from_monolithic_sparse() {
    log_in("debian-bios", &["--to", "vmdk"], "flags=");
}

#[test]
fn a_login_is_reached_from_two_deltas() {
    let snapshots = "hako snapshot create web one; hako snapshot create web two; flags=";
    log_in("debian-bios", &["--to", "vmdk"], snapshots);
}

#[test]
fn a_login_is_reached_from_stream_optimized_with_what_is_written_discarded() {
    let format = ["--to", "vmdk", "--subformat", "streamOptimized"];
    log_in("debian-uefi", &format, "flags=--discard-writes");
}

#[test]
fn a_login_is_reached_from_qcow2_and_a_disk_as_fedoras() {
    // dracut goes back to its initrd at the end, which it unpacks in /run: a fifth of the memory.
    let set_up = "hako vm set web --memory 512M; flags=";
    log_in("fedora-like", &["--to", "qcow2"], set_up);
}

/// A guest that brings up its card, pings the host and fetches a file from it, whose digest it says.
fn network_guest(set_up: &str, host: &str) -> String {
    format!(
        "
        modprobe virtio_net; modprobe af_packet || true
        card=$(ls /sys/class/net | grep -v -x lo | head -1)
        echo \"GUEST slot $(cd /sys/bus/pci/slots && grep -H . */address)\"
        ip link set $card up
        {set_up}
        ip -4 addr show $card
        ping=0; busybox ping -c 3 {host} >/dev/null && ping=1; echo \"GUEST pings $ping\"
        echo \"GUEST fetched $(busybox wget -q -O - http://{host}:8000/file | sha256sum | cut -c -64)\""
    )
}

/// What the outer machine serves to guests.
const SERVER: &str = "
    mkdir www && head -c $((100 << 20)) /dev/urandom >www/file
    busybox httpd -p 8000 -h www
    ip link set lo up
    expected=$(sha256sum <www/file | cut -c -64)
    modprobe tun";

#[test]
fn a_guest_is_on_a_tap_and_on_a_user_network_behind_the_host() {
    if !all() {
        return;
    }
    let common = "
        create() { vm create web --guest-os debian12-64 --memory 384M --folder vm \"$@\"; }
        run() {
            vm start web --engine kvm 2>&1
            vm wait web --timeout 1800
            guest
            guest | grep -q \"fetched $expected\" && echo \"whole\"
            grep ' uses ' /run/hako/*/runner.log || true
        }";
    let script = "
        ip tuntap add tap0 mode tap
        ip addr add 10.77.0.1/24 dev tap0; ip link set tap0 up
        create --nic bridged --from-disk vm/disk.vmdk --from-disk vm/disk.script,from=raw
        vm set web hako.ethernet0.tap=tap0
        run
        # Behind the host, which has an address of its own beside the one that the guest gets.
        echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
        modprobe dummy; ip link add up0 type dummy; ip addr add 10.88.0.2/24 dev up0; ip link set up0 up
        ip route add default via 10.88.0.1 dev up0; ip addr add 10.99.0.1/32 dev lo
        vm set web --unset hako.ethernet0.tap
        cp vm/disk.user vm/disk.script
        run";
    let script = format!("{SERVER}\n{common}\n{script}");
    let Some(bed) = bed("debian-bios", "disk.vmdk", &[], &script) else {
        return;
    };
    let user = "ip addr add 10.88.0.2/24 dev $card; ip route add default via 10.88.0.1";
    put_script(&bed, &network_guest(user, "10.99.0.1"), &[]);
    std::fs::rename(bed.path("disk.script"), bed.path("disk.user")).unwrap();
    put_script(
        &bed,
        &network_guest("ip addr add 10.77.0.2/24 dev $card", "10.77.0.1"),
        &[],
    );
    let said = bed.run().expect_code(0).stdout;
    // By that number Linux calls its card ens192.
    let slot = "GUEST slot 192/address:0000:00:03";
    has_in_order(
        &said,
        &[slot, "GUEST pings 1", "whole", "GUEST pings 1", "whole"],
    );
    assert!(said.contains("ethernet0 uses 10.77.0.2"), "{said}");
}
