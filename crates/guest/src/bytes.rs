//! Numbers at fixed places of a record. Past its end there are zeros: callers check lengths.

/// Returns the `N` bytes at `at`.
pub fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Returns the text in a field of fixed length: it ends at the first NUL.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// Little-endian numbers.
pub mod le {
    use super::array_at;

    /// Returns the 16-bit number at `at`.
    pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes(array_at(bytes, at))
    }

    /// Returns the 32-bit number at `at`.
    pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(array_at(bytes, at))
    }

    /// Returns the 64-bit number at `at`.
    pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(array_at(bytes, at))
    }
}

/// Big-endian numbers.
pub mod be {
    use super::array_at;

    /// Returns the 16-bit number at `at`.
    pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(array_at(bytes, at))
    }

    /// Returns the 32-bit number at `at`.
    pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(array_at(bytes, at))
    }

    /// Returns the 64-bit number at `at`.
    pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(array_at(bytes, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_past_the_end_of_a_record_are_zeros() {
        assert_eq!(le::u16_at(&[1, 2, 3], 1), 0x0302);
        assert_eq!(be::u16_at(&[1, 2, 3], 1), 0x0203);
        assert_eq!(le::u64_at(&[1; 7], 0), 0);
        assert_eq!(be::u32_at(&[1; 4], usize::MAX), 0);
    }
}
