use super::*;

fn new(kind: Kind) -> Header {
    let new = NewHeader {
        kind,
        disk_size: 10 << 20,
        block: 1 << 20,
    };
    Header::new(&new, 1 << 20).unwrap()
}

#[test]
fn new_header_comes_back_as_it_was() {
    let mut header = new(Kind::Diff);
    header.parent = Uuid::random();
    header.parent_modification = Uuid::random();
    header.comment = b"a disk".to_vec();
    header.n_stored = 3;
    let again = Header::decode(&header.encode()).unwrap();
    assert_eq!(again.encode(), header.encode());
    assert_eq!(again.parent, header.parent);
    assert_eq!(again.comment, header.comment);
    assert_eq!((again.map_offset, again.data_offset), (1 << 20, 2 << 20));
    assert!(again.oddities().is_empty());
}

#[test]
fn old_header_is_read_and_its_map_is_left_alone() {
    let mut bytes = vec![0; 512];
    put_u32(&mut bytes, SIGNATURE_OFFSET, SIGNATURE);
    put_u32(&mut bytes, 0x44, OLD_VERSION);
    put_u32(&mut bytes, OLD_LAYOUT.kind, 1);
    put(&mut bytes, OLD_LAYOUT.comment, b"old");
    put_u32(&mut bytes, OLD_LAYOUT.disk_size, 5 << 20);
    put_u32(&mut bytes, OLD_LAYOUT.block, 1 << 20);
    put_u32(&mut bytes, OLD_LAYOUT.n_blocks, 5);
    let header = Header::decode(&bytes).unwrap();
    assert_eq!(header.map_offset, 0x1a4);
    assert_eq!(header.data_offset, 0x1a4 + 20);
    assert_eq!(header.virtual_size(), 5 << 20);
    assert_eq!(header.comment, b"old");
    assert_eq!(header.encode(), bytes[..0x1a4]);
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let good = new(Kind::Dynamic).encode();
    for (at, value) in [
        (0x40, 1),
        (0x44, 0x0002_0000),
        (0x48, 0x17f),
        (0x4c, 0),
        (0x4c, 5),
        (0x154, 0x100),
        (0x158, 0x10_0000),
        (0x168, 4096),
        (0x174, 1),
        (0x178, 0),
        (0x178, 0x18_0000),
        (0x178, 1 << 31),
        (0x17c, 3),
        (0x180, 0),
        (0x180, 9),
        (0x180, u32::MAX),
    ] {
        let mut bytes = good.clone();
        put_u32(&mut bytes, at, value);
        assert!(Header::decode(&bytes).is_err(), "{value:#x} at {at:#x}");
    }
    for len in [0, 63, 0x48, 0x1c7] {
        assert!(Header::decode(&good[..len]).is_err(), "{len} bytes");
    }
}
