use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use hako_block::testkit::MemoryImage;

use super::*;
use crate::virtio::testing::{Buffer, Driver};

const SIZE: u64 = 1 << 20;
const HEADER: u64 = 0x20_0000;
const DATA: u64 = 0x30_0000;
const STATUS: u64 = 0x20_1000;
/// No test waits longer.
const LIMIT: Duration = Duration::from_secs(60);

fn image() -> Arc<MemoryImage> {
    MemoryImage::new((0..SIZE).map(|at| (at / 512) as u8).collect())
}

fn disk(image: &Arc<MemoryImage>) -> Disk {
    Disk {
        image: Arc::clone(image) as Arc<dyn BlockImage>,
        read_only: false,
        serial: "a serial number that is long".into(),
        pause_when_full: true,
    }
}

fn driver(disk: Disk) -> (Driver, Signals) {
    let signals = Signals::default();
    (
        Driver::ready(Box::new(Block::new(disk, 2, signals.clone()))),
        signals,
    )
}

/// Sends a request and returns its status, or none if the device gave up.
fn request(
    driver: &mut Driver,
    queue: usize,
    kind: u32,
    sector: u64,
    data: &[Buffer],
) -> Option<u8> {
    driver.put(kind, HEADER);
    driver.put(0u32, HEADER + 4);
    driver.put(sector, HEADER + 8);
    driver.put(0xffu8, STATUS);
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend(data);
    buffers.push((STATUS, 1, true));
    driver.request(queue, &buffers)?;
    Some(driver.get(STATUS))
}

#[test]
fn reads_writes_and_flushes_reach_the_image() {
    let image = image();
    let (mut driver, _) = driver(disk(&image));
    for queue in 0..2 {
        let sector = 4 + queue as u64;
        assert_eq!(
            request(&mut driver, queue, READ, sector, &[(DATA, 512, true)]),
            Some(OK)
        );
        assert_eq!(driver.get::<u8>(DATA), sector as u8);
        driver.put([0xab_u8; 16], DATA + 1024);
        // Two buffers of odd sizes make a sector together.
        let halves = [(DATA + 1024, 100, false), (DATA + 1124, 412, false)];
        assert_eq!(
            request(&mut driver, queue, WRITE, 100 + sector, &halves),
            Some(OK)
        );
        let at = (100 + sector as usize) * 512;
        assert_eq!(image.bytes()[at..at + 16], [0xab; 16]);
    }
    assert_eq!(request(&mut driver, 0, FLUSH_REQUEST, 0, &[]), Some(OK));
    assert_eq!(image.log(), ["flush"]);
    assert_eq!(
        request(&mut driver, 0, GET_ID, 0, &[(DATA, 20, true)]),
        Some(OK)
    );
    assert_eq!(&driver.get::<[u8; 16]>(DATA), b"a serial number ");
}

#[test]
fn discards_and_zeros_are_ranges() {
    let image = image();
    let (mut driver, _) = driver(disk(&image));
    driver.put(8u64, DATA);
    driver.put(16u32, DATA + 8);
    driver.put(0u32, DATA + 12);
    let range = [(DATA, 16, false)];
    assert_eq!(
        request(&mut driver, 0, DISCARD_REQUEST, 0, &range),
        Some(OK)
    );
    assert_eq!(image.log(), ["discard 4096..12288"]);
    assert_eq!(
        request(&mut driver, 0, WRITE_ZEROES_REQUEST, 0, &range),
        Some(OK)
    );
    assert!(image.bytes()[4096..12288].iter().all(|byte| *byte == 0));
    assert_eq!(image.bytes()[12288], 24);
    // A range that is none: flags that there are not, past the end, half of one.
    driver.put(6u32, DATA + 12);
    assert_eq!(
        request(&mut driver, 0, WRITE_ZEROES_REQUEST, 0, &range),
        Some(UNSUPPORTED)
    );
    driver.put(u64::MAX / 512, DATA);
    driver.put(0u32, DATA + 12);
    assert_eq!(
        request(&mut driver, 0, DISCARD_REQUEST, 0, &range),
        Some(IO_ERROR)
    );
    assert_eq!(
        request(&mut driver, 0, DISCARD_REQUEST, 0, &[(DATA, 8, false)]),
        Some(UNSUPPORTED)
    );
}

#[test]
fn what_is_not_on_the_disk_is_an_error_that_the_guest_reads() {
    let image = image();
    let (mut driver, _) = driver(disk(&image));
    let buffer = [(DATA, 512, true)];
    for sector in [SIZE / 512, u64::MAX, u64::MAX / 512] {
        assert_eq!(
            request(&mut driver, 0, READ, sector, &buffer),
            Some(IO_ERROR)
        );
    }
    assert_eq!(
        request(&mut driver, 0, READ, 0, &[(DATA, 100, true)]),
        Some(IO_ERROR)
    );
    assert_eq!(request(&mut driver, 0, 99, 0, &buffer), Some(UNSUPPORTED));
    assert_eq!(
        request(&mut driver, 0, READ, 0, &buffer),
        Some(OK),
        "it goes on"
    );
}

#[test]
fn a_disk_that_is_read_only_is_not_written() {
    let image = image();
    let mut read_only = disk(&image);
    read_only.read_only = true;
    let (mut driver, _) = driver(read_only);
    assert_eq!(driver.offered() & (DISCARD | WRITE_ZEROES), 0);
    assert_ne!(driver.offered() & READ_ONLY, 0);
    let range = [(DATA, 512, false)];
    for kind in [WRITE, DISCARD_REQUEST, WRITE_ZEROES_REQUEST] {
        assert_eq!(request(&mut driver, 0, kind, 0, &range), Some(IO_ERROR));
    }
}

#[test]
fn no_space_asks_for_a_pause_and_the_write_is_not_lost() {
    let image = image();
    let (mut driver, signals) = driver(disk(&image));
    image.set_full(true);
    driver.put([0xcd_u8; 16], DATA);
    driver.put(WRITE, HEADER);
    driver.put(7u64, HEADER + 8);
    driver.descriptor(0, 0, (HEADER, 16), 1, 1);
    driver.descriptor(0, 1, (DATA, 512), 1, 2);
    driver.descriptor(0, 2, (STATUS, 1), 2, 0);
    driver.offer(0, 0);
    let asked = signals.wait(Duration::from_secs(60));
    assert!(matches!(asked, Some(Request::NoSpace { .. })));
    // The machine pauses; room is made; it goes on.
    driver.device.pause();
    image.set_full(false);
    driver.device.resume();
    assert!(driver.completion(0).is_some());
    assert_eq!(driver.get::<u8>(STATUS), OK);
    assert_eq!(image.bytes()[7 * 512], 0xcd);
}

#[test]
fn no_space_is_an_error_where_the_machine_is_not_to_pause() {
    let image = image();
    let mut goes_on = disk(&image);
    goes_on.pause_when_full = false;
    let (mut driver, signals) = driver(goes_on);
    image.set_full(true);
    assert_eq!(
        request(&mut driver, 0, WRITE, 0, &[(DATA, 512, false)]),
        Some(IO_ERROR)
    );
    assert_eq!(signals.wait(Duration::ZERO), None);
}

#[test]
fn what_a_driver_without_flushes_writes_is_durable_when_it_is_told() {
    let image = image();
    let (mut driver, _) = driver(disk(&image));
    driver.set_status(0);
    driver.start_with(driver.offered() & !FLUSH);
    let data = [(DATA, 512, false)];
    assert_eq!(request(&mut driver, 0, WRITE, 0, &data), Some(OK));
    assert_eq!(image.log(), ["flush"]);
    let buffer = [(DATA, 512, true)];
    assert_eq!(request(&mut driver, 0, READ, 0, &buffer), Some(OK));
    assert_eq!(image.log(), ["flush"], "a read needs none");
}

/// A disk whose reads take as long as the test wants.
struct Slow(Arc<MemoryImage>, Mutex<Receiver<()>>, AtomicBool);

impl BlockImage for Slow {
    fn info(&self) -> &hako_block::ImageInfo {
        self.0.info()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.2.store(true, Ordering::SeqCst);
        let _ = self.1.lock().unwrap().recv_timeout(LIMIT);
        self.0.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<hako_block::Extent> {
        self.0.next_extent(offset)
    }
}

#[test]
fn a_reset_in_the_middle_of_a_request_waits_for_it_and_leaves_memory_alone_afterwards() {
    let (go_on, held) = channel();
    let slow = Arc::new(Slow(image(), Mutex::new(held), AtomicBool::new(false)));
    let mut slow_disk = disk(&image());
    slow_disk.image = Arc::clone(&slow) as _;
    let (mut driver, _) = driver(slow_disk);
    driver.put([0xee_u8; 16], DATA);
    driver.put(READ, HEADER);
    driver.put(1u64, HEADER + 8);
    driver.descriptor(0, 0, (HEADER, 16), 1, 1);
    driver.descriptor(0, 1, (DATA, 512), 3, 2);
    driver.descriptor(0, 2, (STATUS, 1), 2, 0);
    driver.offer(0, 0);
    while !slow.2.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let device = Arc::clone(&driver.device);
    let reset = std::thread::spawn(move || {
        use crate::pci::bus::PciDevice;
        device.write(20, &[0]);
    });
    std::thread::sleep(Duration::from_millis(20));
    assert!(!reset.is_finished(), "the request is under way");
    go_on.send(()).unwrap();
    reset.join().unwrap();
    assert_eq!(driver.status(), 0);
    // Whatever the guest does with its memory now, nothing comes from an old request.
    driver.put([0x11_u8; 16], DATA);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.get::<[u8; 16]>(DATA), [0x11; 16]);
    drop(go_on);
    driver.start();
    let buffer = [(DATA, 512, true)];
    assert_eq!(request(&mut driver, 0, READ, 1, &buffer), Some(OK));
    assert_eq!(driver.get::<u8>(DATA), 1);
}

#[test]
fn nothing_is_served_while_paused_and_nothing_is_missed() {
    let image = image();
    let (mut driver, _) = driver(disk(&image));
    driver.device.pause();
    driver.put(READ, HEADER);
    driver.put(3u64, HEADER + 8);
    driver.descriptor(0, 0, (HEADER, 16), 1, 1);
    driver.descriptor(0, 1, (DATA, 512), 3, 2);
    driver.descriptor(0, 2, (STATUS, 1), 2, 0);
    driver.offer(0, 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.get::<u16>(Driver::rings(0)[2] + 2), 0);
    driver.device.resume();
    assert!(driver.completion(0).is_some());
    assert_eq!(driver.get::<u8>(DATA), 3);
}

#[test]
fn a_guest_that_lies_stops_its_device_and_nothing_else() {
    type Lie = fn(&mut Driver);
    let lies: [(&str, Lie); 14] = [
        ("a loop of descriptors", |driver| {
            driver.descriptor(0, 0, (HEADER, 16), 1, 1);
            driver.descriptor(0, 1, (DATA, 512), 3, 1);
            driver.offer(0, 0);
        }),
        ("a buffer outside of memory", |driver| {
            driver.put(READ, HEADER);
            driver.put(0u64, HEADER + 8);
            driver.descriptor(0, 0, (HEADER, 16), 1, 1);
            driver.descriptor(0, 1, (1 << 60, 512), 3, 2);
            driver.descriptor(0, 2, (STATUS, 1), 2, 0);
            driver.offer(0, 0);
        }),
        ("a buffer that wraps around", |driver| {
            driver.descriptor(0, 0, (u64::MAX - 4, 16), 0, 0);
            driver.offer(0, 0);
        }),
        ("a header that is too short", |driver| {
            driver.descriptor(0, 0, (HEADER, 4), 1, 1);
            driver.descriptor(0, 1, (STATUS, 1), 2, 0);
            driver.offer(0, 0);
        }),
        ("no place for the status", |driver| {
            driver.put(FLUSH_REQUEST, HEADER);
            driver.descriptor(0, 0, (HEADER, 16), 0, 0);
            driver.offer(0, 0);
        }),
        ("a descriptor that there is not", |driver| {
            driver.offer(0, 999)
        }),
        ("more requests than the ring holds", |driver| {
            driver.put(0x7fffu16, Driver::rings(0)[1] + 2);
            driver.ring(0);
        }),
        (
            "a chain that goes on where there is no descriptor",
            |driver| {
                driver.descriptor(0, 0, (HEADER, 16), 1, 999);
                driver.offer(0, 0);
            },
        ),
        ("rings that went backwards", |driver| {
            driver.put(0xffffu16, Driver::rings(0)[1] + 2);
            driver.ring(0);
        }),
        ("an indirect table outside of memory", |driver| {
            driver.descriptor(0, 0, (1 << 60, 32), 4, 0);
            driver.offer(0, 0);
        }),
        ("an indirect table in an indirect table", |driver| {
            driver.put([DATA + 0x1000, 32 | 4 << 32], DATA);
            driver.descriptor(0, 0, (DATA, 16), 4, 0);
            driver.offer(0, 0);
        }),
        ("a loop in an indirect table", |driver| {
            driver.put([HEADER, 16 | 1 << 32 | 1 << 48], DATA);
            driver.put([HEADER, 16 | 1 << 32], DATA + 16);
            driver.descriptor(0, 0, (DATA, 32), 4, 0);
            driver.offer(0, 0);
        }),
        ("buffers of more than 4 GiB together", |driver| {
            driver.descriptor(0, 0, (HEADER, 16), 1, 1);
            driver.descriptor(0, 1, (DATA, 0xffff_0000), 3, 2);
            driver.descriptor(0, 2, (DATA, 0xffff_0000), 2, 0);
            driver.offer(0, 0);
        }),
        ("an indirect table of odd size", |driver| {
            driver.descriptor(0, 0, (DATA, 17), 4, 0);
            driver.offer(0, 0);
        }),
    ];
    for (name, lie) in lies {
        let image = image();
        let (mut driver, _) = driver(disk(&image));
        lie(&mut driver);
        assert!(driver.gives_up(), "{name}");
        // The driver resets it, and it works again.
        driver.set_status(0);
        assert_eq!(driver.status(), 0, "{name}");
        driver.start();
        assert_eq!(
            request(&mut driver, 0, READ, 0, &[(DATA, 512, true)]),
            Some(OK),
            "{name}"
        );
    }
}
