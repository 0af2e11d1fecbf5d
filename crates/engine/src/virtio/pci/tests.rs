use hako_block::testkit::Rng as Random;

use super::*;
use crate::bus::BusDevice;
use crate::memory::{self, Pages};
use crate::pci::bus::{PciBus, Windows};
use crate::pci::msix::tests::Remembered;
use crate::virtio::rng::Rng;
use crate::virtio::testing::{ACKNOWLEDGE, DRIVER, Driver};

/// Doorbells that remember where they are.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<Vec<u64>>>);

impl Doorbells for Known {
    fn add(&self, _: &EventFd, address: u64) -> Result<()> {
        self.0.lock().unwrap().push(address);
        Ok(())
    }

    fn remove(&self, _: &EventFd, address: u64) {
        self.0.lock().unwrap().retain(|known| *known != address);
    }
}

#[test]
fn features_that_were_not_offered_are_not_agreed_to() {
    for (features, agreed) in [
        (VERSION_1, true),
        (VERSION_1 | RING_FEATURES, true),
        (RING_FEATURES, false),
        (VERSION_1 | 1 << 5, false),
        (u64::MAX, false),
    ] {
        let driver = Driver::new(Box::new(Rng::default()));
        driver.negotiate(features);
        assert_eq!(driver.status() & FEATURES_OK != 0, agreed, "{features:#x}");
        // Once agreed they stay.
        driver.write(8, 0, 4);
        driver.write(12, 0xffff_ffff, 4);
        driver.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(driver.status() & FEATURES_OK != 0, agreed, "{features:#x}");
    }
}

#[test]
fn nothing_of_a_status_is_taken_back_but_by_a_reset() {
    let driver = Driver::ready(Box::new(Rng::default()));
    let ready = driver.status();
    driver.set_status(ACKNOWLEDGE);
    assert_eq!(driver.status(), ready);
    driver.set_status(0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn queues_that_cannot_be_are_refused() {
    for rings in [
        [1 << 40, 0x20_0000, 0x30_0000],
        [0x10_0000, !1, 0x30_0000],
        [0x10_0000, 0x20_0000, (16 << 20) - 4],
        [!0xf, 0x20_0000, 0x30_0000],
        // Not aligned as the specification asks.
        [0x10_0008, 0x20_0000, 0x30_0000],
        [0x10_0000, 0x20_0001, 0x30_0000],
        [0x10_0000, 0x20_0000, 0x30_0002],
    ] {
        let driver = Driver::new(Box::new(Rng::default()));
        driver.negotiate(VERSION_1);
        driver.set_up_queue(0, rings);
        driver.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert!(driver.gives_up(), "{rings:x?}");
    }
    let driver = Driver::new(Box::new(Rng::default()));
    driver.negotiate(VERSION_1);
    for size in [3, 0, 0x8000, 0xffff] {
        driver.write(24, size, 2);
        assert_eq!(driver.read(24, 2), 64, "{size}");
    }
    // A queue that there is not reads as none, and takes nothing.
    driver.write(22, 9, 2);
    driver.write(28, 1, 2);
    assert_eq!(
        [24, 28, 32].map(|register| driver.read(register, 2)),
        [0; 3]
    );
}

#[test]
fn doorbells_move_with_the_window() {
    let doorbells = Known::default();
    let memory = memory::map(16 << 20, Pages::Normal).unwrap();
    let routes = Arc::new(Remembered::default());
    let known = Box::new(doorbells.clone());
    let device =
        VirtioPci::new(Box::new(Rng::default()), memory, 0xc000_0000, routes, known).unwrap();
    let places = || doorbells.0.lock().unwrap().clone();
    let write =
        |offset: u64, value: u64, len: usize| device.write(offset, &value.to_le_bytes()[..len]);
    write(8, 1, 4);
    write(12, 1, 4);
    write(20, 11, 1);
    write(20, 15, 1);
    assert_eq!(places(), [0xc000_3000]);
    device.write_config(0x10, &0xd000_0000u32.to_le_bytes());
    assert_eq!(places(), [0xd000_3000]);
    device.write_config(4, &[0, 0]);
    assert_eq!(places(), [0; 0], "the window is closed");
    device.write_config(4, &[6, 0]);
    assert_eq!(places(), [0xd000_3000]);
    write(20, 0, 1);
    assert_eq!(places(), [0; 0], "reset");
}

#[test]
fn windows_over_each_other_or_over_memory_are_one_device_s_or_nobody_s() {
    let memory = memory::map(16 << 20, Pages::Normal).unwrap();
    let doorbells = Known::default();
    let device = |address| {
        let routes = Arc::new(Remembered::default());
        let rng = Box::new(Rng::default());
        VirtioPci::new(
            rng,
            memory.clone(),
            address,
            routes,
            Box::new(doorbells.clone()),
        )
        .unwrap()
    };
    let devices = [device(0xc000_0000), device(0xc001_0000)];
    let on_bus = devices.iter().map(|device| Arc::clone(device) as _);
    let windows = Windows(PciBus::new(on_bus.collect()));
    let status = |place: u64| {
        let mut byte = [0];
        windows.read(place + 20, &mut byte);
        byte[0]
    };
    let move_second = |to: u32| devices[1].write_config(0x10, &to.to_le_bytes());
    devices[0].write(20, &[1]);
    devices[1].write(20, &[3]);
    assert_eq!((status(0), status(0x1_0000)), (1, 3));
    move_second(0xc000_0000);
    assert_eq!((status(0), status(0x1_0000)), (1, 0xff), "the first has it");
    // An access that leaves a window is nobody's, even where the next one begins.
    move_second(0xc001_0000);
    let mut bytes = [7; 8];
    windows.read(0xfffc, &mut bytes);
    assert_eq!(bytes, [0xff; 8]);
    // Over memory, over the interrupt controllers, to the end of addresses: out of reach.
    for to in [0, 0xfee0_0000, 0xffff_0000] {
        move_second(to);
        assert_eq!((status(0), status(0x1_0000)), (1, 0xff), "{to:#x}");
    }
    move_second(0xc001_0000);
    assert_eq!(status(0x1_0000), 3);
}

#[test]
fn registers_are_reached_through_the_configuration_too() {
    let driver = Driver::new(Box::new(Rng::default()));
    let at = driver.device.access_at;
    let config =
        |offset: usize, value: u32| driver.device.write_config(offset, &value.to_le_bytes());
    config(at + 8, 18);
    config(at + 12, 2);
    let mut value = [0; 4];
    driver.device.read_config(at + 16, &mut value);
    assert_eq!(value, [1, 0, 0, 0], "it has one queue");
    config(at + 8, 20);
    config(at + 12, 1);
    config(at + 16, 3);
    assert_eq!(driver.status(), 3);
    // Where nothing may be reached so.
    for (offset, len) in [(0xffff_fffc, 4), (0xfffe, 4), (0, 3), (1, 4), (0, 0)] {
        config(at + 8, offset);
        config(at + 12, len);
        driver.device.read_config(at + 16, &mut value);
        config(at + 16, 0);
    }
    assert_eq!(driver.status(), 3);
}

#[test]
fn whatever_is_written_into_registers_nothing_breaks() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let driver = Driver::ready(Box::new(Rng::default()));
        for _ in 0..2000 {
            let bytes = random.next_u64().to_le_bytes();
            let len = [1, 2, 4, 8][random.below(0..4) as usize];
            let offset = match random.below(0..3) {
                0 => random.below(0..0x40),
                1 => random.below(0..u64::from(WINDOW)),
                _ => random.below(0x8000..0x8040),
            };
            let place = random.below(0..256) as usize;
            let mut read = [0; 8];
            match random.below(0..4) {
                0 => driver.device.write(offset, &bytes[..len]),
                1 => driver.device.read(offset, &mut read[..len]),
                2 => driver.device.write_config(place, &bytes[..len.min(4)]),
                _ => driver.device.read_config(place, &mut read[..len.min(4)]),
            }
        }
        driver.device.stop();
    }
}
