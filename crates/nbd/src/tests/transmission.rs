//! The transmission phase.

use std::sync::atomic::Ordering;

use hako_block::ErrorKind;
use hako_block::testkit::Rng;

use super::client::{Client, Reply, SIZE, content, disk, serve};
use crate::protocol::{chunk, command, command_flag as flag, state};
use crate::server::Parting;

const PERM: u32 = 1;
const IO: u32 = 5;
const INVAL: u32 = 22;
const NOSPC: u32 = 28;
const OVERFLOW: u32 = 75;

fn structured(act: impl FnOnce(&mut Client) + Send) {
    let parting = serve(&disk(true), true, |client| {
        client.enter(true);
        act(client);
        client.request(command::DISC, 0, 0, 0);
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Left), "{parting}");
}

#[test]
fn reads_come_in_chunks_with_holes() {
    structured(|client| {
        let content = content();
        let (bytes, n_data, n_holes) = client.read(0, 0, SIZE as u32);
        assert!(bytes == content);
        assert!(n_data < 12 && n_holes > 2, "{n_data} data, {n_holes} holes");
        let mut rng = Rng::new(3);
        for _ in 0..200 {
            let offset = rng.below(0..SIZE);
            let len = rng.below(1..(SIZE - offset).min(200_000) + 1);
            let (bytes, ..) = client.read(0, offset, len as u32);
            assert!(bytes == content[offset as usize..(offset + len) as usize]);
        }
        assert_eq!(client.read(0, 10, 0).0, []);
        assert_eq!(
            client.read(0, 4096, 512).2,
            1,
            "zeros alone are a hole however few"
        );
    });
}

#[test]
fn reads_that_may_not_be_fragmented_are_one_chunk() {
    structured(|client| {
        let (bytes, n_data, n_holes) = client.read(flag::DF, 60_000, 400_000);
        assert!(bytes == content()[60_000..460_000]);
        assert_eq!((n_data, n_holes), (1, 0));
        assert_eq!(client.errno(command::READ, flag::DF, 0, 1 << 20), OVERFLOW);
    });
}

#[test]
fn simple_replies_have_their_data_behind_them() {
    serve(&disk(false), false, |client| {
        client.enter(false);
        for (offset, len) in [(0, 1), (99_999, 70_000), (5, 4 << 20)] {
            let sent = client.request(command::READ, 0, offset, len);
            let ok = Reply::Simple {
                cookie: sent,
                errno: 0,
            };
            assert_eq!(client.reply(), ok);
            let start = offset as usize;
            assert!(client.bytes(len as usize) == content()[start..start + len as usize]);
        }
        assert_eq!(client.errno(command::READ, 0, 0, 0), 0);
        assert_eq!(client.errno(command::READ, 0, SIZE, 1), INVAL);
        assert_eq!(client.errno(command::READ, flag::DF, 0, u32::MAX), INVAL);
        assert_eq!(client.errno(command::BLOCK_STATUS, 0, 0, 512), INVAL);
    });
}

#[test]
fn writes_of_any_length_and_place_arrive() {
    let disk = disk(true);
    let mut expected = content();
    serve(&disk, true, |client| {
        client.enter(true);
        let mut rng = Rng::new(4);
        for round in 0..60 {
            let offset = rng.below(0..SIZE);
            let max = if round % 10 == 0 { 3 << 20 } else { 9000 };
            let len = rng.below(0..(SIZE - offset).min(max) + 1) as usize;
            let bytes = rng.bytes(len);
            assert_eq!(client.write(0, offset, &bytes), 0);
            expected[offset as usize..offset as usize + len].copy_from_slice(&bytes);
        }
        let (bytes, ..) = client.read(0, 0, SIZE as u32);
        assert!(bytes == expected);
    });
    assert!(disk.bytes.to_vec() == expected);
    assert_eq!(
        disk.n_flushes.load(Ordering::SeqCst),
        1,
        "once the client is gone"
    );
}

#[test]
fn many_requests_in_flight_are_all_answered() {
    structured(|client| {
        let mut waiting = std::collections::BTreeSet::new();
        for round in 0..200u64 {
            let bytes = vec![round as u8; 700];
            let sent = client.request(command::WRITE, 0, round * 700, 700);
            client.send(&bytes);
            waiting.insert(sent);
            waiting.insert(client.request(command::CACHE, 0, 0, 512));
        }
        while !waiting.is_empty() {
            match client.reply() {
                Reply::Simple { cookie, errno: 0 } => assert!(waiting.remove(&cookie)),
                other => panic!("{other:?}"),
            }
        }
        let (bytes, ..) = client.read(0, 0, 140_000);
        assert!(
            bytes
                .chunks(700)
                .zip(0u64..)
                .all(|(part, round)| part == [round as u8; 700])
        );
    });
}

#[test]
fn flush_and_fua_reach_the_image() {
    let disk = disk(true);
    serve(&disk, true, |client| {
        client.enter(false);
        let n_flushes = || disk.n_flushes.load(Ordering::SeqCst);
        assert_eq!(client.write(0, 0, b"x"), 0);
        assert_eq!(n_flushes(), 0);
        assert_eq!(client.errno(command::FLUSH, 0, 0, 0), 0);
        assert_eq!(n_flushes(), 1);
        assert_eq!(client.write(flag::FUA, 0, &[7; 2 << 20]), 0);
        assert_eq!(n_flushes(), 2);
        assert_eq!(client.errno(command::WRITE_ZEROES, flag::FUA, 0, 10), 0);
        assert_eq!(client.errno(command::TRIM, flag::FUA, 0, 10), 0);
        assert_eq!(n_flushes(), 4);
        assert_eq!(client.errno(command::READ, flag::FUA, 0, 0), 0);
        assert_eq!(client.errno(command::FLUSH, 0, 0, 1), INVAL);
    });
    assert_eq!(
        disk.n_flushes.load(Ordering::SeqCst),
        4,
        "nothing was left to flush"
    );
}

#[test]
fn zeroes_and_trim_change_what_they_may() {
    let disk = disk(true);
    let mut expected = content();
    serve(&disk, true, |client| {
        client.enter(true);
        for (flags, range) in [(0, 70_001..99_999), (flag::NO_HOLE, 200_001..1_900_000)] {
            let len = (range.end - range.start) as u32;
            let zero = client.errno(command::WRITE_ZEROES, flags, range.start as u64, len);
            assert_eq!(zero, 0);
            expected[range].fill(0);
        }
        assert_eq!(client.errno(command::TRIM, 0, 0, SIZE as u32), 0);
        assert_eq!(disk.n_discards.load(Ordering::SeqCst), 1);
        const FAST_ZERO: u16 = 1 << 4;
        assert_eq!(client.errno(command::WRITE_ZEROES, FAST_ZERO, 0, 10), INVAL);
        assert_eq!(client.errno(command::WRITE_ZEROES, 0, 0, 0), 0);
    });
    assert!(disk.bytes.to_vec() == expected);
}

#[test]
fn ranges_past_the_end_are_refused() {
    structured(|client| {
        use command::{BLOCK_STATUS, CACHE, READ, TRIM, WRITE_ZEROES};
        for (offset, len) in [
            (SIZE, 1),
            (0, SIZE as u32 + 1),
            (u64::MAX, 1),
            (1, u32::MAX),
        ] {
            for kind in [READ, TRIM, CACHE, BLOCK_STATUS] {
                assert_eq!(client.errno(kind, 0, offset, len), INVAL);
            }
            assert_eq!(client.errno(WRITE_ZEROES, 0, offset, len), NOSPC);
        }
        assert_eq!(client.write(0, SIZE - 1, b"xy"), NOSPC);
        assert_eq!(client.errno(BLOCK_STATUS, 0, 5, 0), INVAL);
        assert!(client.read(0, 0, SIZE as u32).0 == content());
    });
}

#[test]
fn unknown_commands_and_flags_are_refused_and_the_stream_stays_in_step() {
    structured(|client| {
        assert_eq!(client.errno(8, 0, 0, 512), INVAL);
        assert_eq!(client.errno(0xffff, 0, 0, u32::MAX), INVAL);
        assert_eq!(client.errno(command::READ, flag::NO_HOLE, 0, 512), INVAL);
        assert_eq!(client.errno(command::CACHE, 1 << 15, 0, 512), INVAL);
        assert_eq!(client.write(flag::DF, 0, &[9; 100_000]), INVAL);
        assert!(client.read(0, 0, SIZE as u32).0 == content());
    });
}

#[test]
fn read_only_exports_refuse_every_change() {
    let disk = disk(true);
    serve(&disk, false, |client| {
        client.enter(true);
        assert_eq!(client.write(0, 0, &[9; 600_000]), PERM);
        assert_eq!(client.errno(command::TRIM, 0, 0, 512), PERM);
        assert_eq!(client.errno(command::WRITE_ZEROES, 0, 0, 512), PERM);
        assert_eq!(client.errno(command::FLUSH, 0, 0, 0), 0);
        assert!(client.read(0, 0, SIZE as u32).0 == content());
    });
    assert!(disk.bytes.to_vec() == content());
}

#[test]
fn images_that_may_not_be_written_are_not_exported_for_writing() {
    let image: std::sync::Arc<dyn hako_block::BlockImage> = disk(false);
    assert!(crate::Export::new(std::sync::Arc::clone(&image), "", true).is_err());
    assert!(crate::Export::new(image, "a\0", false).is_err());
}

#[test]
fn block_status_tells_zeros_from_data() {
    structured(|client| {
        let zeros = state::HOLE | state::ZERO;
        let runs = client.status(0, 0, SIZE as u32);
        let total: u64 = runs.iter().map(|(len, _)| u64::from(*len)).sum();
        assert_eq!(total, SIZE);
        assert!(
            runs.windows(2).all(|pair| pair[0].1 != pair[1].1),
            "{runs:?}"
        );
        assert_eq!(runs[0], (65536, zeros));
        let content = content();
        let mut at = 0;
        for (len, flags) in runs {
            let part = &content[at..at + len as usize];
            assert!(flags == 0 || part.iter().all(|byte| *byte == 0));
            at += len as usize;
        }
        assert_eq!(client.status(flag::REQ_ONE, 0, 1000), [(1000, zeros)]);
        assert_eq!(client.status(flag::REQ_ONE, 0, 1 << 20), [(65536, zeros)]);
        let further = client.status(0, 1 << 20, 1000);
        assert_eq!(further, [(65536, zeros)], "as far as is known anyway");
    });
}

#[test]
fn errors_of_the_image_become_error_values() {
    let disk = disk(true);
    serve(&disk, true, |client| {
        client.enter(true);
        for (kind, errno) in [
            (ErrorKind::Io, IO),
            (ErrorKind::Corrupt, IO),
            (ErrorKind::NoSpace, NOSPC),
            (ErrorKind::ReadOnly, PERM),
            (ErrorKind::Unsupported, INVAL),
        ] {
            *disk.bad.lock().unwrap() = Some((700_000, kind));
            assert_eq!(client.write(0, 0, &[1; 1 << 20]), errno);
            assert_eq!(client.write(flag::FUA, 700_000, b"x"), errno);
            assert_eq!(client.errno(command::TRIM, 0, 700_000, 5), errno);
            assert_eq!(client.errno(command::WRITE_ZEROES, 0, 0, 1 << 20), errno);
            assert_eq!(client.errno(command::BLOCK_STATUS, 0, 700_000, 5), errno);
            assert_eq!(client.errno(command::READ, flag::DF, 700_000, 5), errno);
        }
    });
}

#[test]
fn reads_tell_where_the_image_fails() {
    let disk = disk(false);
    *disk.bad.lock().unwrap() = Some((700_000, ErrorKind::Io));
    serve(&disk, false, |client| {
        client.enter(true);
        client.request(command::READ, 0, 110_000, 1 << 20);
        let (mut good, mut failed_at) = (110_000, 0);
        while failed_at == 0 {
            let Reply::Chunk { kind, payload, .. } = client.reply() else {
                panic!("a simple reply to a read");
            };
            match kind {
                chunk::OFFSET_DATA => {
                    let start = u64::from_be_bytes(payload[..8].try_into().unwrap());
                    assert_eq!(start, good);
                    good += payload.len() as u64 - 8;
                    assert!(payload[8..] == content()[start as usize..good as usize]);
                }
                chunk::ERROR_OFFSET => {
                    let tail = payload[payload.len() - 8..].try_into().unwrap();
                    failed_at = u64::from_be_bytes(tail);
                }
                other => panic!("chunk type {other}"),
            }
        }
        assert_eq!(failed_at, good);
        assert!((110_000 + 512 * 1024..=700_000).contains(&failed_at));
        assert_eq!(client.errno(command::CACHE, 0, 0, 512), 0, "and goes on");
    });
}

#[test]
fn a_simple_read_that_fails_too_late_is_cut_off() {
    let disk = disk(false);
    *disk.bad.lock().unwrap() = Some((700_000, ErrorKind::Io));
    serve(&disk, false, |client| {
        client.enter(false);
        assert_eq!(client.errno(command::READ, 0, 699_000, 4096), IO);
        client.request(command::READ, 0, 0, 1 << 20);
        client.reply();
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
        assert!(rest.len() < 1 << 20, "the failed bytes did not come");
    });
}
