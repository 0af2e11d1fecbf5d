//! LZNT1, the compression of files: MS-XCA, section 2.5.

/// Bytes that each chunk gives; the last may give fewer.
const CHUNK_BYTES: usize = 4096;

/// Decompresses chunks until `len` bytes are there or the chunks end; what is missing then is zeros.
/// None if they are not sound.
pub fn unpack(mut packed: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(len);
    while plain.len() < len {
        let Some((header, rest)) = packed.split_first_chunk() else {
            break;
        };
        let header = u16::from_le_bytes(*header);
        if header == 0 {
            break;
        }
        let (chunk, rest) = rest.split_at_checked(usize::from(header & 0xfff) + 1)?;
        // A chunk that gave less than it should is filled up with zeros.
        plain.resize(plain.len().next_multiple_of(CHUNK_BYTES), 0);
        match header & 0x8000 {
            0 => plain.extend_from_slice(chunk.get(..chunk.len().min(CHUNK_BYTES))?),
            _ => unpack_chunk(chunk, &mut plain)?,
        }
        packed = rest;
    }
    plain.resize(len, 0);
    Some(plain)
}

/// A chunk is of groups: a byte whose bits say of eight things which they are, a byte or a repeat.
fn unpack_chunk(mut chunk: &[u8], plain: &mut Vec<u8>) -> Option<()> {
    let start = plain.len();
    while let Some((&kinds, rest)) = chunk.split_first() {
        chunk = rest;
        for bit in 0..8 {
            if chunk.is_empty() {
                return Some(());
            }
            if kinds & 1 << bit == 0 {
                let (&byte, rest) = chunk.split_first()?;
                chunk = rest;
                (plain.len() - start < CHUNK_BYTES).then(|| plain.push(byte))?;
            } else {
                let (repeat, rest) = chunk.split_first_chunk()?;
                chunk = rest;
                repeat_bytes(u16::from_le_bytes(*repeat), plain, start)?;
            }
        }
    }
    Some(())
}

/// The further into the chunk, the more bits of a repeat are its distance and the fewer its length.
fn repeat_bytes(repeat: u16, plain: &mut Vec<u8>, start: usize) -> Option<()> {
    let done = plain.len() - start;
    let mut distance_bits = 4;
    while done > 1 << distance_bits {
        distance_bits += 1;
    }
    let len_bits = 16_u32.checked_sub(distance_bits)?;
    let distance = usize::from(repeat >> len_bits) + 1;
    let len = usize::from(repeat & ((1 << len_bits) - 1)) + 3;
    if distance > done || done + len > CHUNK_BYTES {
        return None;
    }
    let from = plain.len() - distance;
    for at in from..from + len {
        plain.push(*plain.get(at)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_unpacked() {
        // MS-XCA, section 3.3.
        let packed = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2,
            0x47, 0x01, 0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58,
            0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let plain = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E \
            F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        assert_eq!(unpack(&packed, plain.len()).unwrap(), plain);
    }

    #[test]
    fn what_leads_out_of_a_chunk_is_not_sound() {
        assert_eq!(unpack(&[], 3), Some(vec![0; 3]));
        assert_eq!(unpack(&[0x01, 0xb0, 1, 0], 3), None);
        assert_eq!(unpack(&[0xff, 0xbf, 1, 0], 3), None);
        assert_eq!(unpack(&[0x03, 0xb0, 2, b'a', 0xff, 0x0f], 5000), None);
    }
}
