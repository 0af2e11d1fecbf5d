use std::io::Read;

use super::*;
use crate::initrd::tests::through;

fn sample() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.directory(b"etc").unwrap();
    writer.file(b"etc/name", 0o644, b"host\n").unwrap();
    writer.link(b"lib", b"usr/lib").unwrap();
    writer.file(b"empty", 0o755, b"").unwrap();
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> hako_block::Result<Vec<(Header, Vec<u8>)>> {
    let mut archive = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(header) = archive.next_entry()? {
        let mut content = Vec::new();
        archive.read_to_end(&mut content).unwrap();
        entries.push((header, content));
    }
    Ok(entries)
}

#[test]
fn what_is_written_reads_back_and_is_the_same_each_time() {
    let bytes = sample();
    assert_eq!(bytes, sample());
    assert_eq!(bytes.len() % 4, 0);
    let entries = read(&bytes).unwrap();
    let paths: Vec<_> = entries.iter().map(|(header, _)| &header.path[..]).collect();
    assert_eq!(paths, [&b"etc"[..], b"etc/name", b"lib", b"empty"]);
    assert!(entries[0].0.is_directory() && entries[2].0.is_link() && entries[3].0.is_file());
    assert_eq!(entries[1].1, b"host\n");
    assert_eq!(entries[2].1, b"usr/lib");
}

fn cpio(arguments: &[&str], folder: &std::path::Path, input: &[u8]) -> Option<Vec<u8>> {
    let folder = folder.to_str().unwrap();
    through("cpio", &[&["-D", folder][..], arguments].concat(), input)
}

#[test]
fn the_program_cpio_reads_what_is_written_and_writes_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    if cpio(&["-id"], folder.path(), &sample()).is_none() {
        return;
    }
    let name = std::fs::read(folder.path().join("etc/name")).unwrap();
    assert_eq!(name, b"host\n");
    let link = std::fs::read_link(folder.path().join("lib")).unwrap();
    assert_eq!(link, std::path::Path::new("usr/lib"));
    let listed = b".\n./etc\n./etc/name\nlib\nempty\n";
    for form in ["newc", "crc"] {
        let bytes = cpio(&["-o", "-H", form], folder.path(), listed).unwrap();
        let entries = read(&bytes).unwrap();
        assert_eq!(entries.len(), 5, "{form}");
        assert!(entries[0].0.path.is_empty());
        assert_eq!(entries[2].0.path, b"etc/name");
        assert_eq!(entries[2].1, b"host\n");
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let bytes = sample();
    for len in 0..bytes.len() - 4 {
        assert!(read(&bytes[..len]).is_err(), "{len}");
    }
    for at in 0..bytes.len() {
        for value in [0, b'0', b'F', b'g', 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let _ = read(&bytes);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x"), b"content").unwrap();
    let Some(mut summed) = cpio(&["-o", "-H", "crc"], folder.path(), b"x\n") else {
        return;
    };
    let at = summed.windows(7).position(|w| w == b"content").unwrap();
    summed[at] ^= 1;
    assert!(read(&summed).unwrap_err().to_string().contains("checksum"));
}
