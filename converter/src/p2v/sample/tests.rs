use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hako_block::testkit::Rng;
use hako_block::{MemoryStorage, Storage};

use super::*;

/// A made-up system; `n` changes what it did.
fn write_proc(root: &Path, n: u64) {
    let put = |name: &str, text: String| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("proc/sys/kernel/hostname", "web01\n".to_owned());
    put(
        "proc/sys/kernel/random/boot_id",
        "01020304-0506-0708-090a-0b0c0d0e0f10\n".to_owned(),
    );
    put("proc/uptime", format!("{}.25 1.00\n", 1000 + n));
    put(
        "proc/stat",
        format!(
            "cpu  {} 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 5 6\nctxt 7\n",
            100 + n
        ),
    );
    put(
        "proc/meminfo",
        "MemTotal:       1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nBuffers: 11 kB\n\
         Cached: 22 kB\nSwapCached: 999 kB\nShmem: 33 kB\nSReclaimable: 44 kB\nAnonPages: 55 kB\n\
         Committed_AS: 66 kB\nSwapTotal: 77 kB\nSwapFree: 70 kB\nHugePages_Total: 3\n\
         HugePages_Free: 1\nHugepagesize: 2048 kB\n"
            .to_owned(),
    );
    put(
        "proc/vmstat",
        "nr_free_pages 1\npswpin 21\npswpout 22\npgmajfault 23\noom_kill 24\n".to_owned(),
    );
    for (name, share) in [("cpu", "4.73"), ("memory", "0.00"), ("io", "100.00")] {
        put(
            &format!("proc/pressure/{name}"),
            format!(
                "some avg10=1.00 avg60=2.00 avg300={share} total=9\n\
                 full avg10=0.00 avg60=0.00 avg300=0.50 total=8\n"
            ),
        );
    }
    put(
        "proc/diskstats",
        "   8 0 sda 1 0 16 0 2 0 32 0 0 70 80 0 0 0 0 0 0\n   8 1 sda1 1 0 16 0 2 0 32 0 0 70 80\n\
         253 0 dm-0 1 0 16 0 2 0 32 0 0 70 80\n104 0 cciss/c0d0 1 0 8 0 0 0 0 0 0 0 0\n\
         259 0 mdx 1 0 8 0 0 0 0 0 0 0 0\n"
            .to_owned(),
    );
    put(
        "proc/net/dev",
        "Inter-|   Receive\n face |bytes\n  eth0:5000 6 1 2 0 0 0 0 7000 8 3 4 0 0 0 0\n\
            lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
            .to_owned(),
    );
    for name in [
        "block/sda",
        "block/dm-0",
        "block/cciss!c0d0",
        "block/mdx",
        "class/net/eth0/device",
        "class/net/lo",
    ] {
        std::fs::create_dir_all(root.join("sys").join(name)).unwrap();
    }
}

fn request(folder: &Path) -> SampleRequest {
    SampleRequest {
        root: folder.join("root"),
        file: folder.join("web01.samples"),
        interval: Some(Duration::from_secs(1)),
        window: Some(Duration::from_secs(9)),
        endless: true,
    }
}

/// Takes `n` samples, the system doing more between two.
fn take(request: &SampleRequest, n: u64) -> SampleReport {
    let mut taken = 0;
    write_proc(&request.root, 0);
    let report = sample(request, &mut |_| {
        taken += 1;
        write_proc(&request.root, taken);
        Ok(taken < n)
    });
    report.unwrap()
}

fn held(file: &Path) -> Vec<Sample> {
    let ring = Ring::read(file).unwrap();
    ring.samples().map(Result::unwrap).collect()
}

#[test]
fn a_look_finds_what_the_kernel_says() {
    let folder = tempfile::tempdir().unwrap();
    write_proc(folder.path(), 0);
    let sample = System::below(folder.path()).look().unwrap();
    assert_eq!((sample.uptime_ms, sample.n_cpus), (1_000_250, 2));
    assert_eq!(sample.boot_id, std::array::from_fn(|at| at as u8 + 1));
    assert_eq!(sample.cpu, CpuTicks::of([100, 2, 3, 4, 5, 6, 7, 8]));
    let memory = MemoryKib {
        total: 1000,
        free: 100,
        available: Some(400),
        buffers: 11,
        cached: 22,
        reclaimable: 44,
        shared: 33,
        anonymous: 55,
        committed: 66,
        swap: 77,
        swap_free: 70,
        huge: 6144,
        huge_free: 2048,
    };
    assert_eq!(sample.memory, memory);
    let paging = sample.paging;
    assert_eq!((paging.swapped_in, paging.swapped_out), (21, 22));
    assert_eq!((paging.major_faults, paging.killed), (23, 24));
    let pressure = sample.pressure.unwrap();
    assert_eq!(pressure.cpu_some.avg300, 473);
    assert_eq!(pressure.io_some.avg300, 10000);
    assert_eq!(
        (pressure.io_full.avg300, pressure.io_full.total_us),
        (50, 8)
    );
    let device = |name: &str, kind, numbers: [u64; 6]| {
        let [reads, read_bytes, writes, written_bytes, busy, waited] = numbers;
        Device {
            kind,
            name: name.to_owned(),
            reads,
            read_bytes,
            writes,
            written_bytes,
            busy,
            waited,
        }
    };
    let expected = [
        device("sda", DeviceKind::Disk, [1, 8192, 2, 16384, 70, 80]),
        device("cciss/c0d0", DeviceKind::Disk, [1, 4096, 0, 0, 0, 0]),
        device("mdx", DeviceKind::Disk, [1, 4096, 0, 0, 0, 0]),
        device("eth0", DeviceKind::Nic, [6, 5000, 8, 7000, 10, 0]),
    ];
    assert_eq!(sample.devices, expected);
}

#[test]
fn a_system_without_newer_files_is_looked_at_too() {
    let folder = tempfile::tempdir().unwrap();
    write_proc(folder.path(), 0);
    for name in ["pressure", "vmstat", "diskstats"] {
        let path = folder.path().join("proc").join(name);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    std::fs::write(
        folder.path().join("proc/meminfo"),
        "MemTotal: 9 kB\nMemFree: 1 kB\n",
    )
    .unwrap();
    let sample = System::below(folder.path()).look().unwrap();
    assert_eq!((sample.pressure, sample.memory.available), (None, None));
    assert_eq!(sample.devices.len(), 1);
}

#[test]
fn what_is_no_system_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = System::below(folder.path()).look().unwrap_err();
    assert!(error.to_string().contains("proc/uptime"), "{error}");
    write_proc(folder.path(), 0);
    for (name, text) in [
        ("proc/uptime", "soon"),
        ("proc/stat", "intr 1"),
        ("proc/meminfo", "MemFree: 1 kB"),
    ] {
        let path = folder.path().join(name);
        let before = std::fs::read(&path).unwrap();
        for text in [text.as_bytes(), b"", &[0xff; 40]] {
            std::fs::write(&path, text).unwrap();
            assert!(System::below(folder.path()).look().is_err(), "{name}");
        }
        std::fs::write(&path, before).unwrap();
    }
}

#[test]
fn a_record_is_what_was_encoded() {
    let folder = tempfile::tempdir().unwrap();
    write_proc(folder.path(), 0);
    let mut sample = System::below(folder.path()).look().unwrap();
    sample.number = 7;
    for known in [true, false] {
        if !known {
            (sample.pressure, sample.memory.available) = (None, None);
        }
        let bytes = sample.encode(1024);
        assert_eq!(bytes.len(), 1024);
        assert_eq!(Sample::decode(&bytes), Some(sample.clone()));
    }
    let mut fitted = sample.clone();
    assert_eq!(fitted.fit(512), 1);
    let decoded = Sample::decode(&fitted.encode(512)).unwrap();
    assert_eq!((decoded.devices.len(), decoded.n_left_out), (3, 1));
}

#[test]
fn a_ring_keeps_the_latest_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path());
    let report = take(&request, 4);
    assert_eq!((report.n_new, report.n_held, report.n_before), (4, 4, 0));
    let len = std::fs::metadata(&request.file).unwrap().len();
    // Made for 9 s, a sample a second: 10 of them.
    let report = take(&request, 9);
    assert_eq!((report.n_new, report.n_held, report.n_before), (9, 10, 4));
    let held = held(&request.file);
    let numbers: Vec<u64> = held.iter().map(|sample| sample.number).collect();
    assert_eq!(numbers, (3..13).collect::<Vec<_>>());
    assert_eq!(std::fs::metadata(&request.file).unwrap().len(), len);
    let other = SampleRequest {
        interval: Some(Duration::from_secs(2)),
        ..request
    };
    let error = sample(&other, &mut |_| Ok(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn a_ring_whose_time_is_over_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let request = SampleRequest {
        interval: Some(Duration::from_millis(100)),
        window: Some(Duration::from_millis(500)),
        endless: false,
        ..request(folder.path())
    };
    write_proc(&request.root, 0);
    let mut sleep = |time| {
        std::thread::sleep(time);
        Ok(true)
    };
    let report = sample(&request, &mut sleep).unwrap();
    assert!(report.is_complete && report.n_new <= 6, "{report:?}");
    std::thread::sleep(Duration::from_millis(100));
    let again = sample(&request, &mut sleep).unwrap();
    assert_eq!((again.n_new, again.is_complete), (0, true));
}

#[test]
fn two_do_not_write_to_one_ring() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path());
    take(&request, 1);
    let _held = Ring::resume(&request.file).unwrap();
    let error = sample(&request, &mut |_| Ok(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    // Who only reads is not in the way.
    assert_eq!(held(&request.file).len(), 1);
}

#[test]
fn nothing_else_is_taken_for_a_ring() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path());
    std::fs::create_dir(&request.root).unwrap();
    for content in [&b"precious"[..], &[7; 8192]] {
        std::fs::write(&request.file, content).unwrap();
        let error = sample(&request, &mut |_| Ok(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(std::fs::read(&request.file).unwrap(), content);
    }
}

#[test]
fn times_that_make_no_ring_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path());
    write_proc(&request.root, 0);
    for (interval_ms, window_ms) in [(0, 9000), (50, 9000), (4_000_000, 9_000_000), (1000, 500)] {
        let request = SampleRequest {
            interval: Some(Duration::from_millis(interval_ms)),
            window: Some(Duration::from_millis(window_ms)),
            ..request.clone()
        };
        let error = sample(&request, &mut |_| Ok(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!request.file.exists());
    }
}

/// A ring of 10 slots in which 13 records were written, in memory.
fn ring_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path());
    take(&request, 13);
    std::fs::read(&request.file).unwrap()
}

#[test]
fn a_record_that_was_cut_anywhere_costs_no_other() {
    let bytes = ring_bytes();
    let ring = |bytes: Vec<u8>| Ring::open(Arc::new(MemoryStorage::new("ring", bytes))).unwrap();
    let before: Vec<Sample> = ring(bytes.clone()).samples().map(Result::unwrap).collect();
    assert_eq!(before.len(), 10);
    let slot_bytes = ring(bytes.clone()).header().slot_bytes as usize;
    let mut next = before[9].clone();
    (next.number, next.uptime_ms) = (13, 99);
    next.fit(slot_bytes);
    let record = next.encode(slot_bytes);
    let at = 4096 + 3 * slot_bytes;
    for cut in 0..=slot_bytes {
        let mut torn = bytes.clone();
        torn[at..at + cut].copy_from_slice(&record[..cut]);
        let ring = ring(torn);
        let held: Vec<Sample> = ring.samples().map(Result::unwrap).collect();
        // All but the oldest, in whose place the new one is: that is there once it is whole.
        assert!(
            held == before || held == before[1..] || held[9..] == [next.clone()],
            "cut at {cut}: {:?}",
            held.iter().map(|sample| sample.number).collect::<Vec<_>>()
        );
        assert_eq!(held.len() + ring.n_damaged() as usize, 10);
    }
}

#[test]
fn damage_is_left_out_or_an_error_and_never_a_wrong_number() {
    let bytes = ring_bytes();
    let whole: Vec<Sample> = {
        let ring = Ring::open(Arc::new(MemoryStorage::new("ring", bytes.clone()))).unwrap();
        ring.samples().map(Result::unwrap).collect()
    };
    let mut rng = Rng::new(5);
    for round in 0..2000 {
        let mut damaged = bytes.clone();
        // Every byte of the header, then anywhere.
        let at = match round {
            0..108 => round,
            _ => rng.below(0..bytes.len() as u64) as usize,
        };
        damaged[at] ^= 1 << rng.below(0..8);
        if rng.one_in(10) {
            damaged.truncate(rng.below(0..bytes.len() as u64) as usize);
        }
        match Ring::open(Arc::new(MemoryStorage::new("ring", damaged))) {
            Ok(ring) => {
                for sample in ring.samples() {
                    assert!(whole.contains(&sample.unwrap()), "byte {at}");
                }
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                "{error}"
            ),
        }
    }
}

#[test]
fn numbers_out_of_any_range_do_no_harm() {
    let mut bytes = ring_bytes();
    let storage = Arc::new(MemoryStorage::new("ring", bytes.clone()));
    let mut sample = Ring::open(storage)
        .unwrap()
        .samples()
        .last()
        .unwrap()
        .unwrap();
    let slot_bytes = (bytes.len() - 4096) / 10;
    sample.number = u64::MAX;
    let at = 4096 + (u64::MAX % 10) as usize * slot_bytes;
    bytes[at..at + slot_bytes].copy_from_slice(&sample.encode(slot_bytes));
    let storage = Arc::new(MemoryStorage::new("ring", bytes.clone()));
    let mut ring = Ring::open(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    assert!(ring.samples().count() <= 10);
    ring.append(&sample).unwrap();
    assert_eq!(storage.len_bytes().unwrap(), bytes.len() as u64);
}
