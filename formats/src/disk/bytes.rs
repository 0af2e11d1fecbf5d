//! Fields at fixed places of a record.

use hako_block::Uuid;

/// Returns the `N` bytes at `at`, zeros where the record ends before: callers check lengths.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Returns the UUID at `at`, as Microsoft's formats and VDI store it.
pub(crate) fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_mixed_endian(array_at(bytes, at))
}

/// Puts `value` at `at`, if the record has room for all of it.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
