//! The kernel inside a bzImage (Linux' Documentation/arch/x86/boot.rst): unpacked here, it starts
//! seconds sooner than where it unpacks itself.

use hako_block::{Error, Result};

use crate::bytes::le;
use crate::initrd::{Compression, unpack_stream};

/// The largest kernel, unpacked: distributions' have some 60 MiB.
const MOST_BYTES: u64 = 1 << 30;
/// Where in the setup header: its size in sectors, magic, version, and where the payload is.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first version of the protocol that says where the payload is.
const WITH_PAYLOAD: u16 = 0x0208;

/// Returns the ELF file inside a bzImage. Errors: [`hako_block::ErrorKind::Corrupt`] if it is none,
/// [`hako_block::ErrorKind::Unsupported`] if it is compressed in a way that is not known, or does not
/// say where its payload is.
pub fn unpacked(image: &[u8]) -> Result<Vec<u8>> {
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(Error::corrupt("kernel", "no bzImage").at_byte(MAGIC as u64));
    }
    let cut = || Error::corrupt("kernel", "a bzImage that ends early");
    if image.len() < PAYLOAD_LENGTH + 4 {
        return Err(cut());
    }
    let place = |at| usize::try_from(le::u32_at(image, at)).map_err(|_| cut());
    if le::u16_at(image, VERSION) < WITH_PAYLOAD {
        return Err(Error::unsupported("a kernel from before 2008"));
    }
    let sectors = match image.get(SETUP_SECTORS).copied().unwrap_or(0) {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + place(PAYLOAD_OFFSET)?;
    let len = place(PAYLOAD_LENGTH)?;
    let mut payload = image
        .get(start..)
        .and_then(|rest| rest.get(..len))
        .ok_or_else(cut)?;
    if Compression::of(payload) == Some(Compression::Lz4Legacy) {
        // The Makefile adds the size, which the other compressions end before.
        payload = payload.get(..payload.len() - 4).ok_or_else(cut)?;
    }
    let kernel = unpack_stream(&mut payload, MOST_BYTES).map_err(|error| error.place("kernel"))?;
    match kernel.starts_with(b"\x7fELF") {
        true => Ok(kernel),
        false => Err(Error::unsupported("what a kernel holds is no ELF file")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// A bzImage with this payload, after two sectors of setup.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512 + 16];
        image[SETUP_SECTORS] = 2;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16u32.to_le_bytes());
        let len = payload.len() as u32;
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&len.to_le_bytes());
        image.extend(payload);
        image.extend([7; 100]);
        image
    }

    /// Compresses with a program, as the kernel's Makefile does, and adds the size as it does.
    fn compressed(program: &str, arguments: &[&str], content: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let bytes = content.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
        let mut output = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        output.extend((content.len() as u32).to_le_bytes());
        output
    }

    #[test]
    fn kernels_of_every_compression_are_unpacked() {
        let mut kernel = b"\x7fELF".to_vec();
        kernel.extend((0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()));
        let ways: [(&str, &[&str]); 6] = [
            ("gzip", &["-n", "-9"]),
            ("bzip2", &["-9"]),
            ("xz", &["--check=crc32", "--x86", "--lzma2=dict=32MiB"]),
            ("lzma", &["-9"]),
            ("lz4", &["-l", "-9", "-", "-"]),
            ("zstd", &["-19"]),
        ];
        for (program, arguments) in ways {
            let image = image(&compressed(program, arguments, &kernel));
            assert!(unpacked(&image).unwrap() == kernel, "{program}");
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let payload = compressed("gzip", &[], b"no ELF file");
        let good = image(&payload);
        assert!(
            unpacked(&good)
                .unwrap_err()
                .to_string()
                .contains("no ELF file")
        );
        for len in [0, 100, 0x250, good.len() - 120] {
            assert!(unpacked(&good[..len]).is_err(), "{len}");
        }
        let mut far = good.clone();
        far[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].fill(0xff);
        assert!(unpacked(&far).is_err());
        assert!(unpacked(&image(b"nothing that is known")).is_err());
    }
}
