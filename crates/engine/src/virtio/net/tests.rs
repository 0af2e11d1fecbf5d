use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::*;
use crate::link::socket::DatagramLink;
use crate::virtio::testing::Driver;

const BUFFER: u64 = 0x30_0000;
const FRAME: u64 = 0x40_0000;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

struct World {
    driver: Driver,
    peer: UnixDatagram,
    counters: Arc<Counters>,
}

fn world() -> World {
    let (ours, peer) = UnixDatagram::pair().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let counters = Arc::new(Counters::default());
    let link = Box::new(DatagramLink::new(ours).unwrap());
    let card = Net::new([2, 0, 0, 0, 0, 1], Some(link), Arc::clone(&counters));
    World {
        driver: Driver::ready(Box::new(card)),
        peer,
        counters,
    }
}

impl World {
    fn make_room(&mut self, index: u16, len: u32) {
        let address = BUFFER + u64::from(index) * 0x1000;
        self.driver.descriptor(RECEIVE, index, (address, len), 2, 0);
        self.driver.offer(RECEIVE, index);
    }

    fn send(&mut self, content: [u8; 16], len: u32) -> Option<u32> {
        self.driver.put([0u8; HEADER], FRAME);
        self.driver.put(content, FRAME + HEADER as u64);
        self.driver
            .request(TRANSMIT, &[(FRAME, HEADER as u32 + len, false)])
    }
}

#[test]
fn frames_pass_both_ways_and_are_counted() {
    let mut world = world();
    assert!(world.send([7; 16], 16).is_some());
    let mut frame = [0; 100];
    assert_eq!(world.peer.recv(&mut frame).unwrap(), 16);
    assert_eq!(frame[..16], [7; 16]);
    world.make_room(0, 2048);
    world.peer.send(&[9; 60]).unwrap();
    assert_eq!(world.driver.completion(RECEIVE), Some(HEADER as u32 + 60));
    assert_eq!(world.driver.get::<u16>(BUFFER + 10), 1, "of one buffer");
    assert_eq!(
        world.driver.get::<[u8; 16]>(BUFFER + HEADER as u64),
        [9; 16]
    );
    assert_eq!(world.counters.sent.load(Ordering::SeqCst), 16);
    assert_eq!(world.counters.received.load(Ordering::SeqCst), 60);
}

#[test]
fn a_frame_waits_for_room_and_one_that_is_too_long_is_lost() {
    let mut world = world();
    world.peer.send(&[1; 60]).unwrap();
    world.peer.send(&[2; 600]).unwrap();
    world.peer.send(&[3; 60]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    for index in 0..3 {
        world.make_room(index, 100);
    }
    let lens: Vec<_> = (0..3).map(|_| world.driver.completion(RECEIVE)).collect();
    assert_eq!(lens, [Some(72), Some(0), Some(72)]);
    assert_eq!(world.driver.get::<u8>(BUFFER + HEADER as u64), 1);
    assert_eq!(world.driver.get::<u8>(BUFFER + 0x2000 + HEADER as u64), 3);
}

#[test]
fn frames_that_are_none_are_lost_and_the_card_goes_on() {
    let mut world = world();
    for len in [0, 4] {
        let short = [(FRAME, len, false)];
        assert!(world.driver.request(TRANSMIT, &short[..]).is_some());
    }
    assert!(
        world
            .driver
            .request(TRANSMIT, &[(0x10_0000, 0x8_0000, false)])
            .is_some()
    );
    assert!(world.send([5; 16], 16).is_some());
    let mut frame = [0; 100];
    assert_eq!(world.peer.recv(&mut frame).unwrap(), 16);
    assert_eq!(world.counters.sent.load(Ordering::SeqCst), 16);
}

#[test]
fn a_peer_that_leaves_stops_neither_card_nor_guest() {
    let mut world = world();
    let World { driver, peer, .. } = &mut world;
    drop(std::mem::replace(peer, UnixDatagram::unbound().unwrap()));
    let begun = Instant::now();
    for _ in 0..3 {
        driver.put([0u8; HEADER], FRAME);
        assert!(driver.request(TRANSMIT, &[(FRAME, 60, false)]).is_some());
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_guest_that_lies_stops_the_card_and_a_reset_brings_it_back() {
    let mut world = world();
    // A frame outside of memory; then, after the reset, the same link again.
    world.driver.descriptor(TRANSMIT, 0, (1 << 50, 100), 0, 0);
    world.driver.offer(TRANSMIT, 0);
    assert!(world.driver.gives_up());
    world.driver.set_status(0);
    assert_eq!(world.driver.status(), 0);
    world.driver.start();
    assert!(world.send([8; 16], 16).is_some());
    let mut frame = [0; 100];
    assert_eq!(world.peer.recv(&mut frame).unwrap(), 16);
}

#[test]
fn a_card_without_a_cable_says_so_and_loses_what_is_sent() {
    let status = |card: &Net| {
        let mut bytes = [9; 2];
        card.read_config(6, &mut bytes);
        u16::from_le_bytes(bytes)
    };
    let card = Net::new([2, 0, 0, 0, 0, 1], None, Arc::default());
    assert_eq!(status(&card), 0);
    let mut driver = Driver::ready(Box::new(card));
    assert!(driver.request(TRANSMIT, &[(FRAME, 100, false)]).is_some());
    let (ours, _peer) = UnixDatagram::pair().unwrap();
    let link = Box::new(DatagramLink::new(ours).unwrap());
    assert_eq!(
        status(&Net::new([0; 6], Some(link), Arc::default())),
        LINK_UP
    );
}
