//! Runs: which clusters of the volume hold an attribute's value.

use hako_block::{Error, ErrorKind, Result};

/// Clusters that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first of them, as the attribute counts.
    pub first: u64,
    /// How many there are.
    pub len: u64,
    /// The first of them, as the volume counts; none for a hole.
    pub cluster: Option<u64>,
}

/// Decodes runs from cluster `first` of the attribute on. Each is a byte with the lengths of two
/// numbers, then these: how many clusters, and how far from the run before.
pub fn decode(bytes: &[u8], first: u64) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut rest = bytes;
    let (mut first, mut cluster) = (first, 0_i64);
    loop {
        let Some((&sizes, more)) = rest.split_first() else {
            return Err(bad("runs without end"));
        };
        if sizes == 0 {
            return Ok(runs);
        }
        let (len_size, step_size) = (usize::from(sizes & 15), usize::from(sizes >> 4));
        let parts = more
            .split_at_checked(len_size)
            .and_then(|(len, more)| more.split_at_checked(step_size).map(|parts| (len, parts)));
        let Some((len, (step, more))) = parts else {
            return Err(bad("runs without end"));
        };
        let len = signed(len).and_then(|len| u64::try_from(len).ok());
        let end = len.and_then(|len| first.checked_add(len));
        let (Some(len), Some(end)) = (len.filter(|len| *len > 0), end) else {
            return Err(bad("a run of no length"));
        };
        let start = match step_size {
            0 => None,
            _ => {
                let step = signed(step).and_then(|step| cluster.checked_add(step));
                cluster = step.ok_or_else(|| bad("a run that leads nowhere"))?;
                let start = u64::try_from(cluster).map_err(|_| bad("a run before the volume"))?;
                Some(start)
            }
        };
        runs.push(Run {
            first,
            len,
            cluster: start,
        });
        first = end;
        rest = more;
    }
}

/// Returns a little-endian number of up to 8 bytes; none if it has more, or none at all.
fn signed(bytes: &[u8]) -> Option<i64> {
    let last = *bytes.last()?;
    let mut all = if last & 0x80 != 0 { [0xff; 8] } else { [0; 8] };
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_count_from_the_one_before_and_may_be_holes() {
        let bytes = [0x21, 0x18, 0x34, 0x56, 0x01, 0x05, 0x11, 0x03, 0xf0, 0];
        let run = |first, len, cluster| Run {
            first,
            len,
            cluster,
        };
        let runs = [
            run(7, 0x18, Some(0x5634)),
            run(31, 5, None),
            run(36, 3, Some(0x5624)),
        ];
        assert_eq!(decode(&bytes, 7).unwrap(), runs);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], 7).is_err(), "{len}");
        }
        assert!(decode(&[0x11, 1, 0xff, 0], 0).is_err());
        assert!(decode(&[0x11, 0, 1, 0], 0).is_err());
        assert!(decode(&[0x11, 0x80, 1, 0], 0).is_err());
        assert!(decode(&[0x19, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0], 0).is_err());
        assert!(decode(&[0x11, 2, 1, 0], u64::MAX).is_err());
    }
}
