use hako_block::ErrorKind;
use hako_block::testkit::Rng;

use super::*;

fn recorded(text: &str) -> Recording {
    from_text(text.as_bytes()).unwrap()
}

fn values(recording: &Recording, metric: Metric) -> Vec<f64> {
    let spans = recording.series.get(&metric);
    spans.map_or(Vec::new(), |spans| {
        spans.iter().map(|span| span.value).collect()
    })
}

/// A text of sadf with these intervals.
fn sadf(intervals: &str) -> String {
    format!(
        r#"{{"sysstat": {{"hosts": [{{"nodename": "web01", "number-of-cpus": 8, "statistics": [{intervals}]}}]}}}}"#
    )
}

const STAMP: &str =
    r#""timestamp": {"date": "2026-11-22", "time": "00:10:00", "utc": 1, "interval": 600}"#;

#[test]
fn sysstat_old_and_new_is_read() {
    let recording = recorded(&sadf(&format!(
        r#"{{{STAMP},
        "cpu-load": [{{"cpu": "0", "idle": 1.0}},
                     {{"cpu": "all", "user": 20.0, "iowait": 5.5, "steal": 1.0, "idle": 69.5}}],
        "swap-pages": {{"pswpin": 0.25, "pswpout": 9}},
        "memory": {{"memfree": 500, "memused": 1500, "memused-percent": 75.00, "buffers": 100,
                    "cached": 400, "commit": 7}},
        "disk": [{{"disk-device": "sda", "tps": 12.5, "rd_sec": 2.0, "wr_sec": 4.0}}],
        "network": {{"net-dev": [{{"iface": "eth0", "rxkB": 1.0, "txkB": 0.5}}], "net-edev": []}},
        "psi": {{"psi-cpu": {{"some_avg300": 4.5}}, "psi-mem": {{}}}}}},
        {{"timestamp": null}}, {{"comment": "COM"}}"#
    )));
    assert_eq!(
        (recording.kind, recording.host.as_str()),
        ("sysstat", "web01")
    );
    assert_eq!(
        (recording.n_cpus, recording.memory_bytes),
        (8, Some(2000 * 1024))
    );
    assert_eq!(values(&recording, Metric::BusyCores), [2.0]);
    // Without `avail`: all but what is free, buffers and cache.
    assert_eq!(values(&recording, Metric::MemoryUsed), [1000.0 * 1024.0]);
    assert_eq!(values(&recording, Metric::SwapIn), [0.25]);
    assert_eq!(values(&recording, Metric::CpuPressure), [4.5]);
    assert_eq!(
        values(&recording, Metric::DiskRequests("sda".to_owned())),
        [12.5]
    );
    assert_eq!(
        values(&recording, Metric::DiskBytes("sda".to_owned())),
        [3072.0]
    );
    assert_eq!(
        values(&recording, Metric::NicBytes("eth0".to_owned())),
        [1536.0]
    );
    let span = recording.series[&Metric::BusyCores][0];
    assert_eq!((span.start_ms, span.len_ms), (1_795_305_600_000, 600_000));
}

#[test]
fn sysstat_is_told_from_its_percentage_what_used_means() {
    // Since 11.7 cache is no use: 1000 KiB of 2000.
    let memory = |text: &str| recorded(&sadf(&format!("{{{STAMP}, \"memory\": {{{text}}}}}")));
    let new = memory(
        r#""memfree": 500, "avail": 1400, "memused": 600, "memused-percent": 30.0, "buffers": 100,
           "cached": 400, "slab": 400"#,
    );
    assert_eq!(new.memory_bytes, Some(2000 * 1024));
    assert_eq!(values(&new, Metric::MemoryUsed), [600.0 * 1024.0]);
    // Without the slab only the percentage tells.
    let bare = memory(
        r#""memfree": 500, "avail": 1400, "memused": 600, "memused-percent": 30.0, "buffers": 100,
           "cached": 400"#,
    );
    assert_eq!(values(&bare, Metric::MemoryUsed), [600.0 * 1024.0]);
}

#[test]
fn several_documents_of_sysstat_may_follow_each_other() {
    let one = sadf(&format!(
        r#"{{{STAMP}, "cpu-load": [{{"cpu": "all", "idle": 50.0}}]}}"#
    ));
    let two = one.replace("00:10:00", "00:20:00").replace("50.0", "75.0");
    let recording = recorded(&format!("{one}\n{two}\n"));
    assert_eq!(values(&recording, Metric::BusyCores), [4.0, 2.0]);
}

#[test]
fn atop_is_read_but_not_what_is_since_boot() {
    let recording = recorded(
        "RESET\nCPU web01 1795305600 2026/11/22 00:00:00 99 100 4 9 9 9 9 9 9 9 9 9\nSEP\n\
         CPU web01 1795306200 2026/11/22 00:10:00 600 100 4 100 200 300 1200 300 50 40 10 5 0 0\n\
         MEM web01 1795306200 2026/11/22 00:10:00 600 4096 1000 100 300 50 90 5 60 0 20 0\n\
         SWP web01 1795306200 2026/11/22 00:10:00 600 4096 500 400 0 700 900\n\
         PAG web01 1795306200 2026/11/22 00:10:00 600 4096 1 2 0 300 4 0\n\
         PSI web01 1795306200 2026/11/22 00:10:00 600 y 1 2 3.5 9 1 2 4.5 9 1 2 5.5 9 1 2 6.5 9 1 2 7.5 9\n\
         DSK web01 1795306200 2026/11/22 00:10:00 600 sda 9 600 1200 1200 2400 0 0\n\
         NET web01 1795306200 2026/11/22 00:10:00 600 upper 1 2 3\n\
         NET web01 1795306200 2026/11/22 00:10:00 600 eth0 1 6000 2 12000 1000 1\n\
         PRG web01 1795306200 2026/11/22 00:10:00 600 1 (a b) S\nSEP\n",
    );
    assert_eq!((recording.kind, recording.n_cpus), ("atop", 4));
    // 700 of 2200 ticks.
    assert_eq!(
        values(&recording, Metric::BusyCores),
        [700.0 / 2200.0 * 4.0]
    );
    let used = (1000 - 100 - 50 - 60 - 280) * 4096;
    assert_eq!(values(&recording, Metric::MemoryUsed), [f64::from(used)]);
    assert_eq!(recording.memory_bytes, Some(4_096_000));
    assert_eq!(values(&recording, Metric::SwapUsed), [409_600.0]);
    assert_eq!(values(&recording, Metric::SwapIn), [0.5]);
    let pressures = [
        Metric::CpuPressure,
        Metric::MemoryPressure,
        Metric::IoPressure,
    ];
    let pressures = pressures.map(|metric| values(&recording, metric)[0]);
    assert_eq!(pressures, [3.5, 4.5, 6.5]);
    assert_eq!(
        values(&recording, Metric::DiskRequests("sda".to_owned())),
        [3.0]
    );
    assert_eq!(
        values(&recording, Metric::DiskBytes("sda".to_owned())),
        [3072.0]
    );
    assert_eq!(
        values(&recording, Metric::NicBytes("eth0".to_owned())),
        [30.0]
    );
}

#[test]
fn collectl_is_read_with_any_separator() {
    let text = "################\n# Host:       web01  DaemonOpts: \n# Date: 20261122 TZ: +0100\n\
        # Options: Interval: 10 NumCPUs: 4  NumBud: 0\n\
        #Date Time [CPU]Wait% [CPU]Idle% [MEM]Tot [MEM]Free [MEM]Buf [MEM]Cached [MEM]Slab [MEM]SUnreclaim [MEM]SwapIn [DSK:sda]Name [DSK:sda]Reads [DSK:sda]RKBytes [DSK:sda]Writes [DSK:sda]WKBytes [NET:eth0]RxKB [NET:eth0]TxKB\n\
        20261122 01:00:10 10 40 1000 100 50 250 100 40 2 sda 3 30 4 40 5 6\n\
        20261122 01:00:20.001 0 50 1000 100 50 250 100 40 0 sda 0 0 0 0 0 0\n";
    for separator in [" ", ",", ";"] {
        let lines = text.lines().map(|line| match line.starts_with("# ") {
            true => line.to_owned(),
            false => line.replace(' ', separator),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let recording = recorded(&text);
        assert_eq!((recording.kind, recording.n_cpus), ("collectl", 4));
        assert_eq!(values(&recording, Metric::BusyCores), [2.0, 2.0]);
        let used = 1000.0 - 100.0 - 50.0 - 250.0 - 60.0;
        assert_eq!(values(&recording, Metric::MemoryUsed), [used * 1024.0; 2]);
        assert_eq!(values(&recording, Metric::SwapIn), [2.0, 0.0]);
        assert_eq!(
            values(&recording, Metric::DiskRequests("sda".to_owned())),
            [7.0, 0.0]
        );
        assert_eq!(
            values(&recording, Metric::NicBytes("eth0".to_owned())),
            [11264.0, 0.0]
        );
        // One o'clock there is midnight.
        let span = recording.series[&Metric::BusyCores][0];
        assert_eq!((span.start_ms, span.len_ms), (1_795_305_600_000, 10_000));
    }
}

#[test]
fn programs_own_files_are_refused_with_what_to_do() {
    for (head, hint) in [
        (&[0x96, 0xd5, 0, 0][..], "sadf -j"),
        (&[0xef, 0xbe, 0xed, 0xfe], "atop -r"),
        (&[0x1f, 0x8b, 8, 0], "collectl -p"),
        (b"\0\0\0\0", "hako p2v sample"),
        (b"", "hako p2v sample"),
        (b"CPUX 1", "hako p2v sample"),
    ] {
        let error = from_text(head).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains(hint), "{error}");
    }
}

#[test]
fn texts_without_values_or_sense_are_errors() {
    for text in [
        "{",
        "{}",
        "{\"sysstat\": {\"hosts\": [{\"statistics\": 7}]}}",
        &sadf(""),
        &sadf(r#"{"timestamp": {"date": "x", "time": "y", "interval": 1}}"#),
        &sadf(&format!(
            "{{{STAMP}, \"cpu-load\": [{{\"cpu\": \"all\", \"idle\": 1e999}}]}}"
        )),
        "CPU",
        "CPU web01 1795306200 2026/11/22 00:10:00",
        "CPU web01 x 2026/11/22 00:10:00 600 100 4 1 1 1 1 1",
        "CPU web01 1795306200 2026/11/22 00:10:00 600 100",
        "RESET\nCPU web01 1795306200 2026/11/22 00:10:00 600 100 4 1 1 1 1 1\n",
        "# nothing",
        "#Date Time [CPU]Idle%\nyesterday 00:00:00 5",
        "# x\n20261122 00:00:00 5",
    ] {
        let error = from_text(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}: {error}");
    }
}

#[test]
fn values_out_of_range_are_passed_over() {
    let line = |interval: &str, busy: &str| {
        format!("CPU h 1795306200 2026/11/22 00:10:00 {interval} 100 4 {busy} 0 0 50 0 0 0 0\n")
    };
    for (interval, busy) in [
        ("0", "50"),
        ("-5", "50"),
        ("99999999", "50"),
        ("1", "-60"),
        ("1", "nan"),
    ] {
        let text = line(interval, busy) + &line("1", "50");
        let values = values(&recorded(&text), Metric::BusyCores);
        assert_eq!(values, [2.0], "{interval} {busy}");
    }
}

#[test]
fn damaged_texts_end_in_order() {
    let sysstat = sadf(&format!(
        r#"{{{STAMP}, "cpu-load": [{{"cpu": "all", "idle": 50.0}}], "memory": {{"memfree": 1}}}}"#
    ));
    let atop = "CPU h 1795306200 2026/11/22 00:10:00 600 100 4 1 1 1 1 1 1 1 1 1\nSEP\n".repeat(3);
    let collectl = "# TZ: +0100 NumCPUs: 4\n#Date Time [CPU]Idle% [DSK:a]Reads\n\
        20261122 00:00:10 40 7\n20261122 00:00:20 41 8\n";
    let mut rng = Rng::new(6);
    for text in [sysstat.as_str(), atop.as_str(), collectl] {
        for _ in 0..3000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..rng.below(1..4) {
                let at = rng.below(0..bytes.len() as u64) as usize;
                match rng.below(0..3) {
                    0 => bytes[at] = rng.next_u64() as u8,
                    1 => bytes[at] = b"0-9e:/.{[\n "[rng.below(0..11) as usize],
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(recording) = from_text(bytes.as_slice()) {
                for span in recording.series.values().flatten() {
                    assert!(span.value.is_finite() && span.value >= 0.0 && span.len_ms > 0);
                }
            }
        }
    }
}

#[test]
fn a_line_without_an_end_is_refused() {
    let mut text = b"CPU ".to_vec();
    text.resize(3 << 20, b'x');
    let error = from_text(text.as_slice()).unwrap_err();
    assert!(error.to_string().contains("does not end"), "{error}");
}

/// A ring of samples at these times: milliseconds of the clock, and since the system's start.
fn ring_at(times: &[(u64, u64)]) -> Recording {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let header = sample::Header {
        slot_bytes: sample::Header::slot_bytes_for(0),
        n_slots: 100,
        interval_ms: 1000,
        window_ms: 99_000,
        host: "web01".to_owned(),
    };
    let mut ring = sample::Ring::create(&path, &header).unwrap();
    for (at, (time_ms, uptime_ms)) in (1..).zip(times) {
        let look = sample::Sample {
            time_ms: *time_ms,
            uptime_ms: *uptime_ms,
            n_cpus: 2,
            cpu: sample::CpuTicks::of([50 * at, 0, 0, 150 * at, 0, 0, 0, 0]),
            ..sample::Sample::default()
        };
        ring.append(&look).unwrap();
    }
    read(&path).unwrap()
}

#[test]
fn samples_of_our_own_leave_no_gaps_and_no_time_twice() {
    let n_busy = |times: &[(u64, u64)]| {
        let history = History::of(vec![ring_at(times)]);
        let spans = history.spans(&Metric::BusyCores).to_vec();
        assert!(spans.iter().all(|span| span.value == 0.5));
        (
            spans.len(),
            spans.iter().map(|span| span.len_ms).sum::<i64>(),
        )
    };
    // Read a little late, and rounded.
    let late = [(5000, 1000), (6004, 1990), (6998, 3000), (8000, 4010)];
    assert_eq!(n_busy(&late), (3, 3000));
    // The clock was set forward by an hour, and back.
    let set = [(5000, 1000), (3_606_000, 2000), (7000, 3000), (8000, 4000)];
    assert_eq!(n_busy(&set), (3, 3000));
    // Nobody looked for ten seconds.
    let gap = [
        (5000, 1000),
        (6000, 2000),
        (16_000, 12_000),
        (17_000, 13_000),
    ];
    assert_eq!(n_busy(&gap), (2, 2000));
}
