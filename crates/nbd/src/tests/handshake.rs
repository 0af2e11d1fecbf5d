//! The handshake phase.

use std::io::Write;

use super::client::{Client, SIZE, disk, info_data, meta_data, option_bytes, quick, serve};
use crate::protocol::{BASE_ALLOCATION, info, option, option_reply as reply, transmission};
use crate::server::Parting;

fn haggle(act: impl FnOnce(&mut Client) + Send) -> Parting {
    serve(&disk(true), true, |client| {
        client.greet(3);
        act(client);
    })
}

#[test]
fn export_name_enters_the_transmission_phase() {
    for (flags, n_zeros) in [(0, 124), (1, 124), (2, 0), (3, 0)] {
        let parting = serve(&disk(false), false, |client| {
            client.greet(flags);
            client.option(option::EXPORT_NAME, b"disk");
            assert_eq!(client.u64(), SIZE);
            let flags = u16::from_be_bytes(client.bytes(2).try_into().unwrap());
            assert_ne!(flags & transmission::READ_ONLY, 0);
            assert_eq!(flags & transmission::SEND_TRIM, 0);
            assert_eq!(client.bytes(n_zeros), vec![0; n_zeros]);
            assert_eq!(client.errno(3, 0, 0, 0), 0);
        });
        assert!(matches!(parting, Parting::Left), "{parting}");
    }
}

#[test]
fn wrong_names_and_flags_end_the_conversation() {
    let parting = haggle(|client| {
        client.option(option::EXPORT_NAME, b"other");
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Violation(_)), "{parting}");
    let parting = serve(&disk(true), true, |client| {
        client.greet(4);
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Violation(_)), "{parting}");
}

#[test]
fn newstyle_that_is_not_fixed_has_one_option_only() {
    let parting = serve(&disk(true), true, |client| {
        client.greet(0);
        client.option(option::LIST, &[]);
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Violation(_)), "{parting}");
}

#[test]
fn exports_are_listed() {
    haggle(|client| {
        client.option(option::LIST, &[]);
        let listed = client.option_reply();
        assert_eq!(
            (listed.kind, &listed.data[..]),
            (reply::SERVER, &b"\0\0\0\x04disk"[..])
        );
        assert_eq!(client.option_reply().kind, reply::ACK);
        client.option_gets(option::LIST, b"x", reply::ERR_INVALID);
    });
}

#[test]
fn info_tells_size_flags_blocks_and_the_name() {
    haggle(|client| {
        let data = info_data("", &[info::NAME, info::BLOCK_SIZE, 77]);
        client.option(option::INFO, &data);
        let export = client.option_reply().data;
        assert_eq!(export[..2], info::EXPORT.to_be_bytes());
        assert_eq!(export[2..10], SIZE.to_be_bytes());
        let name = client.option_reply().data;
        assert_eq!(name, [&info::NAME.to_be_bytes()[..], b"disk"].concat());
        let blocks = client.option_reply().data;
        let sizes = [1u32, 65536, 32 << 20].map(u32::to_be_bytes).concat();
        assert_eq!(
            blocks,
            [&info::BLOCK_SIZE.to_be_bytes()[..], &sizes].concat()
        );
        assert_eq!(client.option_reply().kind, reply::ACK);
        client.option_gets(option::GO, &info_data("other", &[]), reply::ERR_UNKNOWN);
        client.option_gets(option::GO, &data[1..], reply::ERR_INVALID);
    });
}

#[test]
fn what_is_not_offered_is_refused_and_haggling_goes_on() {
    let parting = haggle(|client| {
        client.option_gets(4711, b"anything", reply::ERR_UNSUP);
        client.option_gets(11, &[], reply::ERR_UNSUP);
        client.option_gets(option::STARTTLS, &[], reply::ERR_POLICY);
        client.option_gets(option::STARTTLS, b"x", reply::ERR_INVALID);
        client.option_gets(option::ABORT, b"x", reply::ACK);
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Left), "{parting}");
}

#[test]
fn contexts_need_structured_replies_first() {
    haggle(|client| {
        let data = meta_data("disk", &[BASE_ALLOCATION]);
        client.option_gets(option::SET_META_CONTEXT, &data, reply::ERR_INVALID);
        client.option_gets(option::STRUCTURED_REPLY, &[], reply::ACK);
        let other = meta_data("other", &[BASE_ALLOCATION]);
        client.option_gets(option::SET_META_CONTEXT, &other, reply::ERR_UNKNOWN);
        for data in [meta_data("", &[]), meta_data("", &["base:", "x-y:z"])] {
            client.option_gets(option::SET_META_CONTEXT, &data, reply::ACK);
            client.option(option::LIST_META_CONTEXT, &data);
            assert_eq!(client.option_reply().kind, reply::META_CONTEXT);
            assert_eq!(client.option_reply().kind, reply::ACK);
        }
    });
}

#[test]
fn contexts_that_were_chosen_are_forgotten_by_a_failed_choice() {
    serve(&disk(false), false, |client| {
        client.greet(3);
        client.option_gets(option::STRUCTURED_REPLY, &[], reply::ACK);
        client.option(option::SET_META_CONTEXT, &meta_data("", &[BASE_ALLOCATION]));
        assert_eq!(client.option_reply().kind, reply::META_CONTEXT);
        assert_eq!(client.option_reply().kind, reply::ACK);
        client.option_gets(option::SET_META_CONTEXT, b"x", reply::ERR_INVALID);
        client.option(option::GO, &info_data("", &[]));
        assert_eq!(client.option_reply().kind, reply::INFO);
        assert_eq!(client.option_reply().kind, reply::ACK);
        assert_eq!(client.errno(7, 0, 0, 512), 22);
    });
}

#[test]
fn data_of_options_is_bounded() {
    let parting = haggle(|client| {
        client.send(&crate::protocol::OPTION_MAGIC.to_be_bytes());
        client.send(&option::GO.to_be_bytes());
        client.send(&u32::MAX.to_be_bytes());
        assert_eq!(client.option_reply().kind, reply::ERR_TOO_BIG);
        assert!(client.is_cut_off());
    });
    assert!(matches!(parting, Parting::Violation(_)), "{parting}");
}

#[test]
fn handshake_is_over_in_time_however_it_trickles() {
    let parting = haggle(|client| {
        // Sensible options for ever, a byte at a time; the server hangs up at some point.
        let option = option_bytes(4711, &[]);
        for byte in option.iter().cycle() {
            std::thread::sleep(quick().handshake / 20);
            if client.stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
    });
    assert!(matches!(parting, Parting::Stalled), "{parting}");
}
