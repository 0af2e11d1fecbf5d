//! Clients that lie, stop in the middle, or say nothing that makes sense.

use std::io::Read;
use std::net::Shutdown;
use std::time::Instant;

use hako_block::testkit::Rng;

use super::client::{
    Client, content, disk, info_data, meta_data, option_bytes, quick, request_bytes, serve,
};
use crate::protocol::*;
use crate::server::Parting;

#[test]
fn a_request_without_magic_ends_the_conversation() {
    let parting = serve(&disk(true), true, |client| {
        client.enter(true);
        client.send(&[0; 28]);
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Violation(_)), "{parting}");
}

#[test]
fn a_write_of_four_gigabytes_is_refused_without_reading_it() {
    let disk = disk(true);
    let parting = serve(&disk, true, |client| {
        client.enter(true);
        let sent = client.request(command::WRITE, 0, 0, u32::MAX);
        assert_eq!(client.errno_of(sent), 28);
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Violation(_)), "{parting}");
    assert!(disk.bytes.to_vec() == content());
}

#[test]
fn half_a_request_and_half_a_payload_time_out() {
    for part in [0, 1] {
        let start = Instant::now();
        let parting = serve(&disk(true), true, |client| {
            client.enter(true);
            if part == 0 {
                client.send(&REQUEST_MAGIC.to_be_bytes());
            } else {
                client.request(command::WRITE, 0, 0, 1 << 20);
                client.send(&[1; 1000]);
            }
            assert!(client.is_cut_off());
        });
        assert!(matches!(parting, Parting::Stalled), "{parting}");
        assert!(start.elapsed() >= quick().stall);
    }
}

#[test]
fn a_client_may_say_nothing_between_requests() {
    serve(&disk(true), true, |client| {
        client.enter(true);
        std::thread::sleep(2 * quick().stall);
        assert_eq!(client.errno(command::FLUSH, 0, 0, 0), 0);
    });
}

#[test]
fn a_client_that_does_not_read_loses_the_connection() {
    let parting = serve(&disk(true), true, |client| {
        client.enter(true);
        for _ in 0..100 {
            client.request(command::READ, 0, 110_000, 800_000);
        }
        std::thread::sleep(3 * quick().stall);
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        assert!(rest.len() < 100 * 800_000);
    });
    assert!(!matches!(parting, Parting::Stopped), "{parting}");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_write_changes_no_more_than_that() {
    let disk = disk(true);
    serve(&disk, true, |client| {
        client.enter(true);
        client.request(command::WRITE, 0, 1 << 20, 1 << 20);
        client.send(&[9; 600_000]);
        client.stream.shutdown(Shutdown::Both).unwrap();
    });
    let (got, was) = (disk.bytes.to_vec(), content());
    for (offset, (got, was)) in got.iter().zip(&was).enumerate() {
        let may_be_new = (1 << 20..(1 << 20) + 600_000).contains(&offset);
        assert!(got == was || (may_be_new && *got == 9), "byte {offset}");
    }
}

/// A conversation that makes sense, as bytes: what the mutations below begin with.
fn conversation(rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut messages = vec![3u32.to_be_bytes().to_vec()];
    messages.push(option_bytes(option::LIST, &[]));
    messages.push(option_bytes(option::STRUCTURED_REPLY, &[]));
    for kind in [option::LIST_META_CONTEXT, option::SET_META_CONTEXT] {
        let data = meta_data("disk", &["base:allocation", "x-a:b"]);
        messages.push(option_bytes(kind, &data));
    }
    messages.push(option_bytes(option::INFO, &info_data("disk", &[1, 3])));
    messages.push(option_bytes(option::GO, &info_data("", &[3])));
    for cookie in 0..rng.below(1..20) {
        let request = Request {
            flags: [0, 0, 0, 1, 2, 4, 8][rng.below(0..7) as usize],
            kind: rng.below(0..9) as u16,
            cookie,
            offset: rng.below(0..super::client::SIZE),
            len: rng.below(0..100_000) as u32,
        };
        let mut message = request_bytes(&request);
        if request.kind == command::WRITE {
            message.extend(rng.bytes(request.len as usize));
        }
        messages.push(message);
    }
    messages
}

/// Cuts, swaps, repeats and changes messages.
fn mutate(messages: &mut Vec<Vec<u8>>, rng: &mut Rng) {
    for _ in 0..rng.below(0..6) {
        let index = rng.below(0..messages.len() as u64) as usize;
        match rng.below(0..6) {
            0 => drop(messages.remove(index)),
            1 => messages.insert(index, messages[index].clone()),
            2 => {
                let len = rng.below(0..messages[index].len() as u64 + 1);
                messages[index].truncate(len as usize);
            }
            3 => messages[index] = rng.bytes(40),
            _ => {
                let header_len = messages[index].len().min(40) as u64;
                for _ in 0..rng.below(1..4) {
                    if header_len > 0 {
                        let at = rng.below(0..header_len) as usize;
                        messages[index][at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(0..5) as usize];
                    }
                }
            }
        }
        if messages.is_empty() {
            return;
        }
    }
}

#[test]
fn mutated_conversations_end_and_leave_the_server_sound() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut messages = conversation(&mut rng);
        mutate(&mut messages, &mut rng);
        let disk = disk(true);
        serve(&disk, true, |client| {
            let mut answers = client.stream.try_clone().unwrap();
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                let _ = answers.read_to_end(&mut all);
            });
            messages.iter().for_each(|message| client.send(message));
            let _ = client.stream.shutdown(Shutdown::Write);
            reader.join().unwrap();
        });
        serve(&disk, true, |client: &mut Client| {
            client.enter(true);
            let expected = disk.bytes.to_vec();
            assert!(client.read(0, 0, expected.len() as u32).0 == expected);
        });
    }
}
