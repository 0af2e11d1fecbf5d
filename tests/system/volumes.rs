//! Volumes and file systems that a kernel has made and written, read by `hako disk cp`: every file has
//! the content that it had there.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use hako_tests::bed::Bed;
use hako_tests::disk::sha256;
use hako_tests::{run, run_program};

/// Ages the file system at a mount point, and writes down what is in it: `fill NAME FOLDER` leaves the
/// sums of all files in /work/NAME.sums. Then it is unmounted.
const FILL: &str = r#"
fill() {
    local at=$2 n long odd=() block=/tmp/block
    mkdir -p "$at/deep/er/est" "$at/many"
    cp -rL /etc "$at" 2>/dev/null || true
    printf -v long %90s ''
    long=${long// /x}
    for n in {1..600}; do
        echo "file $n of $1" >"$at/many/$n-${long:0:$((n % 90))}"
        ((n % 2 == 0)) || odd+=("$at/many/$n-${long:0:$((n % 90))}")
    done
    # Two files that grow in turns, in holes that others left.
    rm "${odd[@]}"
    head -c 70000 /dev/urandom >$block
    for n in {1..30}; do
        cat $block >>"$at/deep/one"
        cat $block >>"$at/deep/er/two"
        ((n % 10 != 0)) || sync -f "$at"
    done
    echo far | dd of="$at/deep/er/est/sparse" bs=1M seek=20 2>/dev/null
    head -c 3000000 /dev/urandom >"$at/random"
    : >"$at/empty"
    (cd "$at" && find . -xdev -type f -exec sha256sum {} +) >"/work/$1.sums"
    umount "$at"
}
"#;

fn disks(folder: &Path, n: usize, len: u64) -> Vec<PathBuf> {
    let paths = (0..n).map(|number| folder.join(format!("disk{number}.raw")));
    paths
        .inspect(|path| File::create(path).unwrap().set_len(len).unwrap())
        .collect()
}

/// Runs a script that fills volumes of these disks.
fn made(script: &str, disks: &[PathBuf]) -> Option<Bed> {
    let bed = Bed::new(&format!("{FILL}{script}"))?;
    let bed = disks.iter().fold(bed, |bed, disk| bed.disk(disk));
    bed.run().ok();
    Some(bed)
}

/// Captures each disk, what is free in it left out. Returns the copies, all that is read of which has to
/// be as it was.
#[track_caller]
fn captured(disks: &[PathBuf]) -> Vec<PathBuf> {
    captured_by(disks, &[])
}

/// Like [`captured`], with more words for the capture.
#[track_caller]
fn captured_by(disks: &[PathBuf], more: &[&str]) -> Vec<PathBuf> {
    let mut copies = Vec::new();
    for (at, disk) in disks.iter().enumerate() {
        let copy = disk.with_extension("qcow2");
        let mut words = ["p2v", "capture", "--json", "-o", copy.to_str().unwrap()].to_vec();
        words.extend(more);
        for (other, path) in disks.iter().enumerate() {
            if other != at {
                words.extend(["--with", path.to_str().unwrap()]);
            }
        }
        words.push(disk.to_str().unwrap());
        let report = run(&words).expect_code(0).json();
        let number = |key: &str| report[key].as_u64().unwrap();
        assert_eq!(report["verified"], true);
        assert!(
            number("skipped_bytes") > number("virtual_size") / 5,
            "{report:#}"
        );
        copies.push(copy);
    }
    copies
}

/// Compares a volume with what the guest wrote down of it, file by file.
#[track_caller]
fn assert_read(bed: &Bed, name: &str, volume: &str, disks: &[PathBuf]) {
    assert_read_by(bed, name, volume, disks, &[]);
}

/// Like [`assert_read`], with more words for reading.
#[track_caller]
fn assert_read_by(bed: &Bed, name: &str, volume: &str, disks: &[PathBuf], more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let image = format!("{}:{volume}", disks[0].display());
    let mut words = ["disk", "cp", "-r", &image, "/", copy.to_str().unwrap()].to_vec();
    for disk in &disks[1..] {
        words.extend(["--with", disk.to_str().unwrap()]);
    }
    words.extend(more);
    run(&words).ok();
    let listed = std::fs::read_to_string(bed.path(&format!("{name}.sums"))).unwrap();
    let expected: BTreeMap<&str, &str> = listed
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(sum, path)| (path.trim_start_matches("./"), sum))
        .collect();
    assert!(expected.len() > 300, "{name}: {} files", expected.len());
    let mut read = Vec::new();
    collect(&copy, &copy, &mut read);
    read.sort();
    assert!(
        read.iter().map(String::as_str).eq(expected.keys().copied()),
        "{name}: other names"
    );
    for (path, sum) in expected {
        assert_eq!(sha256(&copy.join(path)), sum, "{name}: {path}");
    }
}

/// Adds the files below a folder, from `top` on.
fn collect(top: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(top, &entry.path(), files);
        } else if kind.is_file() {
            let path = entry.path();
            files.push(path.strip_prefix(top).unwrap().display().to_string());
        }
    }
}

#[test]
fn every_kind_of_logical_volume_that_device_mapper_wrote_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks(folder.path(), 3, 160 << 20);
    let script = r#"
        pvcreate -q /dev/disk0 /dev/disk1 /dev/disk2
        vgcreate -q vg0 /dev/disk0 /dev/disk1 /dev/disk2
        lvcreate -q -y -n raid --type raid1 -m 1 -L 60M vg0
        lvcreate -q -y -n mirror --type mirror -m 1 --mirrorlog core -L 60M vg0
        lvcreate -q -y -n striped -i 3 -I 16 -L 60M vg0
        lvcreate -q -y -n linear -l 50%FREE vg0
        # A second piece, behind what others have.
        lvextend -q -l +100%FREE vg0/linear
        for name in raid mirror striped linear; do
            mkfs.ext4 -q /dev/vg0/$name
            mkdir /mnt/$name
            mount /dev/vg0/$name /mnt/$name
            fill $name /mnt/$name
        done
        for name in raid mirror; do
            until lvs --noheadings -o copy_percent vg0/$name | grep -q 100; do sleep 0.2; done
        done
        lvs -a -o name,segtype,seg_pe_ranges vg0
        vgchange -q -an vg0"#;
    let Some(bed) = made(script, &disks) else {
        return;
    };
    for disks in [&captured(&disks), &disks] {
        for name in ["raid", "mirror", "striped", "linear"] {
            assert_read(&bed, name, &format!("vg0/{name}"), disks);
        }
    }
}

#[test]
fn arrays_of_every_version_that_the_kernel_wrote_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks(folder.path(), 2, 400 << 20);
    let script = r#"
        for disk in /dev/disk0 /dev/disk1; do
            printf 'label: gpt\n%b' "$(printf 'size=70M, type=raid\\n%.0s' 1 2 3 4 5)" |
                sfdisk -q "$(readlink $disk)"
        done
        one=$(readlink /dev/disk0) two=$(readlink /dev/disk1) number=0
        for version in 0.90 1.0 1.1 1.2 linear; do
            number=$((number + 1))
            options="--level=1 --metadata=$version"
            [ $version != linear ] || options="--level=linear --metadata=1.2"
            mdadm --quiet --create /dev/md$number --run --homehost=any $options \
                --raid-devices=2 $one$number $two$number
            mkfs.ext4 -q -L "v$version" /dev/md$number
            mkdir /mnt/$number
            mount /dev/md$number /mnt/$number
            fill "v$version" /mnt/$number
            mdadm --wait /dev/md$number || true
            mdadm --stop --quiet /dev/md$number
        done"#;
    let Some(bed) = made(script, &disks) else {
        return;
    };
    for disks in [&captured(&disks), &disks] {
        for name in ["v0.90", "v1.0", "v1.1", "v1.2", "vlinear"] {
            assert_read(&bed, name, &format!("LABEL={name}"), disks);
        }
    }
}

#[test]
fn luks_that_cryptsetup_made_is_read_by_its_key_and_its_copy_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks(folder.path(), 3, 300 << 20);
    let script = r#"
        key=/work/key
        printf 'open sesame' >$key
        format() {
            local disk=$(readlink $1) name=$2
            shift 2
            cryptsetup luksFormat -q --key-file $key "$@" "$disk"
            cryptsetup open --key-file $key "$disk" "$name"
        }
        format /dev/disk0 wide --type luks2 --sector-size 4096 --pbkdf argon2id \
            --pbkdf-memory 65536 --pbkdf-force-iterations 4 --pbkdf-parallel 2
        format /dev/disk1 old --type luks1 --cipher aes-cbc-essiv:sha256 --key-size 128 \
            --hash sha1 --pbkdf-force-iterations 1000
        format /dev/disk2 new --type luks2 --sector-size 512 --cipher aes-xts-plain64 --key-size 256 \
            --hash sha512 --pbkdf pbkdf2 --pbkdf-force-iterations 1000
        pvcreate -q /dev/mapper/wide
        vgcreate -q vg0 /dev/mapper/wide
        lvcreate -q -y -n root -L 120M vg0
        mkfs.ext4 -q /dev/vg0/root
        mkfs.ext4 -q -L old -b 1024 /dev/mapper/old
        mkfs.btrfs -q -L new /dev/mapper/new
        for name in wide old new; do
            mkdir /mnt/$name
            device=/dev/mapper/$name
            [ $name != wide ] || device=/dev/vg0/root
            mount $device /mnt/$name
            fill $name /mnt/$name
        done
        vgchange -q -an vg0
        for name in wide old new; do cryptsetup close $name; done"#;
    let Some(bed) = made(script, &disks) else {
        return;
    };
    let key = bed.path("key");
    let key = ["--key", key.to_str().unwrap()];
    for (disk, (name, volume)) in disks.iter().zip([
        ("wide", "vg0/root"),
        ("old", "LABEL=old"),
        ("new", "LABEL=new"),
    ]) {
        let disk = std::slice::from_ref(disk);
        let copies = captured_by(disk, &key);
        assert_read_by(&bed, name, volume, disk, &key);
        assert_read_by(&bed, name, volume, &copies, &key);
        hako_tests::convert(&copies[0], &disk[0].with_extension("copy.raw"), &[]);
    }
    opened_by_cryptsetup(&bed, &disks);
}

/// The copies, opened by cryptsetup and read by the kernel: sound, and with the same files.
fn opened_by_cryptsetup(made: &Bed, disks: &[PathBuf]) {
    let script = r#"
        printf 'open sesame' >/work/key
        for pair in disk0:wide disk1:old disk2:new; do
            name=${pair#*:}
            cryptsetup open --key-file /work/key "$(readlink /dev/${pair%:*})" $name
            device=/dev/mapper/$name
            case $name in
            wide) vgchange -q -ay vg0; device=/dev/vg0/root; e2fsck -fn $device;;
            old) e2fsck -fn $device;;
            new) btrfs check $device;;
            esac
            mount -o ro $device /mnt
            (cd /mnt && sha256sum --quiet -c /work/$name.sums)
            umount /mnt
        done"#;
    let Some(bed) = Bed::new(script) else {
        return;
    };
    for name in ["wide", "old", "new"] {
        let sums = format!("{name}.sums");
        std::fs::copy(made.path(&sums), bed.path(&sums)).unwrap();
    }
    let copies = disks.iter().map(|disk| disk.with_extension("copy.raw"));
    copies.fold(bed, |bed, copy| bed.disk(&copy)).run().ok();
}

#[test]
fn file_systems_that_the_kernel_wrote_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks(folder.path(), 1, 1200 << 20);
    let script = r#"
        disk=$(readlink /dev/disk0)
        printf 'label: gpt\n%b' "$(printf 'size=%s\\n' 400M 300M 120M 120M 120M)" | sfdisk -q $disk
        mkfs.xfs -q -L xfs ${disk}1
        mkfs.btrfs -q -L btrfs ${disk}2
        mkfs.ext4 -q -L ext4 -O inline_data ${disk}3
        mkfs.ext3 -q -L ext3 ${disk}4
        mkfs.vfat -n VFAT ${disk}5 >/dev/null
        mount -o compress=zstd ${disk}2 /mnt
        fill btrfs /mnt
        for name in xfs ext4 ext3; do
            mount -t $name $(blkid -L $name) /mnt
            fill $name /mnt
        done
        mount -t vfat -o utf8 ${disk}5 /mnt
        fill VFAT /mnt"#;
    let Some(bed) = made(script, &disks) else {
        return;
    };
    let copies = captured(&disks);
    for disks in [&copies, &disks] {
        for name in ["xfs", "btrfs", "ext4", "ext3", "VFAT"] {
            assert_read(&bed, name, &format!("LABEL={name}"), disks);
        }
    }
    let copy = folder.path().join("copy.raw");
    hako_tests::convert(&copies[0], &copy, &[]);
    assert_sound(
        &copy,
        &[
            &["xfs_repair", "-n"],
            &["btrfs", "check"],
            &["e2fsck", "-fn"],
            &["e2fsck", "-fn"],
            &["fsck.vfat", "-n"],
        ],
    );
}

/// Asserts that what is in the partitions of a disk, one after the other, is sound.
#[track_caller]
fn assert_sound(disk: &Path, checks: &[&[&str]]) {
    let path = disk.to_str().unwrap();
    let table = run_program("sfdisk", &["-J", path]).expect_code(0).json();
    let parts = table["partitiontable"]["partitions"].as_array().unwrap();
    assert_eq!(parts.len(), checks.len());
    for (part, check) in parts.iter().zip(checks) {
        let file = disk.with_extension("part");
        let skip = format!("skip={}", part["start"]);
        let count = format!("count={}", part["size"]);
        let (from, to) = (format!("if={path}"), format!("of={}", file.display()));
        let words = [
            from.as_str(),
            &to,
            &skip,
            &count,
            "conv=sparse",
            "status=none",
        ];
        run_program("dd", &words).ok();
        let words = [&check[1..], &[file.to_str().unwrap()]].concat();
        run_program(check[0], &words).expect_code(0);
        std::fs::remove_file(&file).unwrap();
    }
}

/// The Debian that the disks of guests were made of, but for what lies on other volumes.
#[test]
fn a_whole_debian_is_read_as_it_was_made() {
    for (name, volume) in [("debian-bios", "vg0/root"), ("fedora-like", "LABEL=root")] {
        let Some(disk) = hako_tests::guests::disk(name) else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let [made, read] = ["made", "read"].map(|name| folder.path().join(name));
        std::fs::create_dir(&made).unwrap();
        let tree = hako_tests::root().join(".peers/bed/tree/tree.tar");
        let (made, read) = (made.to_str().unwrap(), read.to_str().unwrap());
        let tar = ["-x", "-C", made, "-f", tree.to_str().unwrap()];
        run_program(
            "tar",
            &[&tar[..], &["--exclude=./boot/*", "--exclude=./dev/*"]].concat(),
        )
        .ok();
        let image = format!("{}:{volume}", disk.display());
        let copied = run(&["disk", "cp", "-r", &image, "/", read]).expect_code(3);
        assert!(
            copied.stderr.contains("dev/null: not copied: a device"),
            "{}",
            copied.stderr
        );
        let differences = run_program("diff", &["-rq", "--no-dereference", made, read]).stdout;
        for line in differences
            .lines()
            .map(|line| line.replace(read, "READ").replace(made, "MADE"))
        {
            // What setting it up has added or changed; nothing is missing.
            let expected = [
                "Only in READ/dev: ",
                "Only in READ/etc",
                "Only in READ: lost+found",
                "Only in READ/usr/local/sbin: init",
                "Only in READ/usr/sbin: init.systemd",
                "Only in READ/var/lib/dpkg: diversions-old",
                "Files MADE/var/lib/dpkg/diversions ",
                "Files MADE/etc/fstab ",
                "Files MADE/etc/hostname ",
                "Files MADE/etc/machine-id ",
                "Files MADE/etc/shadow ",
                "Symbolic links MADE/usr/sbin/init ",
            ];
            assert!(
                expected.iter().any(|beginning| line.starts_with(beginning)),
                "{name}: {line}"
            );
        }
    }
}
