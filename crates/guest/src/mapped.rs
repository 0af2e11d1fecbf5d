//! A volume put together from parts of others: end to end, or in turns (stripes).

use std::sync::Arc;

use hako_block::{Error, Result};

use crate::volume::{Place, Volume, check_long_range, check_range};

/// A run of a volume that is a part of another one: in one piece, or every so manieth stripe of it.
/// The opposite of [`Segment`], for those who look up from below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// Where the run begins in the volume below.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Where in the volume above its row of stripes begins, or the run itself.
    pub(crate) at: u64,
    /// How it is striped, if it is.
    pub(crate) stripes: Option<Stripes>,
}

/// How stripes lie in turns on several volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stripes {
    /// The length of one, at least 1.
    pub(crate) bytes: u64,
    /// On how many volumes.
    pub(crate) n: u64,
    /// The how-manieth of these the run is on, from 0.
    pub(crate) which: u64,
}

impl Share {
    /// Returns where the byte at `offset` of the volume below, which the run must hold, is above, and
    /// how many bytes follow it there as they do below.
    pub(crate) fn above(&self, offset: u64) -> Option<(u64, u64)> {
        let inside = offset.checked_sub(self.start)?;
        let left = self.len.checked_sub(inside).filter(|left| *left > 0)?;
        let Some(Stripes { bytes, n, which }) = self.stripes else {
            return Some((self.at.checked_add(inside)?, left));
        };
        let (row, rest) = (inside.checked_div(bytes)?, inside.checked_rem(bytes)?);
        let stripe = row.checked_mul(n)?.checked_add(which)?;
        let above = stripe.checked_mul(bytes)?.checked_add(rest)?;
        Some((self.at.checked_add(above)?, left.min(bytes - rest)))
    }
}

/// A run of the whole and where its bytes are.
pub(crate) struct Segment {
    len: u64,
    /// The stripes: each from a byte of a volume on. None of them: zeros.
    stripes: Vec<(Arc<dyn Volume>, u64)>,
    stripe_bytes: u64,
    /// The same bytes lie elsewhere besides.
    is_copied: bool,
}

impl Segment {
    /// Returns `len` zeros.
    pub(crate) fn zeros(len: u64) -> Self {
        Self {
            len,
            stripes: Vec::new(),
            stripe_bytes: len.max(1),
            is_copied: false,
        }
    }

    /// Returns it as what has copies that are not read: one side of a mirror.
    #[must_use]
    pub(crate) fn with_copies(self) -> Self {
        Self {
            is_copied: true,
            ..self
        }
    }

    /// Returns `len` bytes of a volume from `start` on. Errors: corrupt if it is shorter.
    pub(crate) fn linear(volume: Arc<dyn Volume>, start: u64, len: u64) -> Result<Self> {
        Self::striped(vec![(volume, start)], len, len.max(1))
    }

    /// Returns `len` bytes that lie in turns, `stripe_bytes` at a time, in these volumes. Errors:
    /// corrupt if one of them is shorter than its share, or stripes have no length.
    pub(crate) fn striped(
        stripes: Vec<(Arc<dyn Volume>, u64)>,
        len: u64,
        stripe_bytes: u64,
    ) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt("segment", what);
        let n_stripes = stripes.len() as u64;
        if n_stripes == 0 || stripe_bytes == 0 {
            return Err(corrupt("stripes without a length or a place"));
        }
        let rows = len.div_ceil(stripe_bytes).div_ceil(n_stripes);
        // The last row may be a short one; then it is the only row or a whole one in every volume.
        let share = match n_stripes {
            1 => len,
            _ => rows
                .checked_mul(stripe_bytes)
                .ok_or_else(|| corrupt("too long"))?,
        };
        for (volume, start) in &stripes {
            let end = start.checked_add(share);
            if end.is_none_or(|end| end > volume.len_bytes()) {
                let have = volume.len_bytes();
                let what = format!("{share} bytes from {start} of a volume of {have}");
                return Err(corrupt(&what));
            }
        }
        Ok(Self {
            len,
            stripes,
            stripe_bytes,
            is_copied: false,
        })
    }

    /// Reads from one stripe, as much as lies there in one piece; returns how much.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let left = self.stripe_bytes - offset % self.stripe_bytes;
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..len) else {
            return Ok(0);
        };
        match self.stripe(offset) {
            Some((volume, at)) => volume.read_at(at, buf)?,
            None => buf.fill(0),
        }
        Ok(len)
    }

    /// Returns the volume that a byte lies in, and where; none if it lies nowhere.
    fn stripe(&self, offset: u64) -> Option<(&Arc<dyn Volume>, u64)> {
        let n_stripes = self.stripes.len().max(1) as u64;
        let index = offset / self.stripe_bytes;
        let which = usize::try_from(index % n_stripes).unwrap_or(usize::MAX);
        let (volume, start) = self.stripes.get(which)?;
        let within = index / n_stripes * self.stripe_bytes + offset % self.stripe_bytes;
        Some((volume, start + within))
    }

    /// Adds where bytes from `offset` on lie, as many as do in one piece; returns how many.
    fn add_places(&self, offset: u64, len: u64, places: &mut Vec<Place>) -> Result<u64> {
        let len = len.min(self.stripe_bytes - offset % self.stripe_bytes);
        match self.stripe(offset) {
            Some((volume, at)) if !self.is_copied => places.extend(volume.places(at, len)?),
            Some(_) => return Err(Error::unsupported("it is mirrored")),
            None => return Err(Error::unsupported("a part of it lies nowhere")),
        }
        Ok(len)
    }
}

/// Segments, one after the other.
pub(crate) struct Mapped {
    /// Each with the byte at which it begins.
    segments: Vec<(u64, Segment)>,
    len: u64,
    sector_bytes: u32,
}

impl Mapped {
    /// Returns what these segments make. Errors: corrupt if that is more than 64 bits can count.
    pub(crate) fn new(parts: Vec<Segment>) -> Result<Self> {
        let mut len: u64 = 0;
        let mut segments = Vec::new();
        let mut sector_bytes = 512;
        for part in parts {
            let start = len;
            let end = start.checked_add(part.len);
            len = end.ok_or_else(|| Error::corrupt("segment", "the whole is too long"))?;
            for (volume, _) in &part.stripes {
                sector_bytes = sector_bytes.max(volume.sector_bytes());
            }
            if part.len > 0 {
                segments.push((start, part));
            }
        }
        Ok(Self {
            segments,
            len,
            sector_bytes,
        })
    }

    /// Returns the segment with a byte, and which of its bytes that is.
    fn segment(&self, at: u64) -> Result<(u64, &Segment)> {
        let next = self.segments.partition_point(|(start, _)| *start <= at);
        match next.checked_sub(1).and_then(|i| self.segments.get(i)) {
            Some((start, segment)) => Ok((at - start, segment)),
            None => Err(Error::corrupt("segment", "nothing is there").at_byte(at)),
        }
    }
}

impl Volume for Mapped {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (within, segment) = self.segment(at)?;
            let most = usize::try_from(segment.len - within).unwrap_or(usize::MAX);
            let (now, _) = rest.split_at_mut(most.min(rest.len()));
            let have = segment.read(within, now)?;
            at += have as u64;
            rest = rest.get_mut(have..).unwrap_or_default();
        }
        Ok(())
    }

    fn places(&self, offset: u64, len: u64) -> Result<Vec<Place>> {
        check_long_range(offset, len, self.len)?;
        let mut places = Vec::new();
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let (within, segment) = self.segment(at)?;
            let most = (segment.len - within).min(end - at);
            at += segment.add_places(within, most, &mut places)?;
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::read_vec;

    #[test]
    fn shares_are_the_opposite_of_segments() {
        let above = |share: &Share, offset| share.above(offset);
        let whole = Share {
            start: 10,
            len: 20,
            at: 100,
            stripes: None,
        };
        assert_eq!(above(&whole, 9), None);
        assert_eq!(above(&whole, 10), Some((100, 20)));
        assert_eq!(above(&whole, 29), Some((119, 1)));
        assert_eq!(above(&whole, 30), None);
        let stripes = Stripes {
            bytes: 4,
            n: 3,
            which: 2,
        };
        let share = Share {
            stripes: Some(stripes),
            ..whole
        };
        assert_eq!(above(&share, 10), Some((108, 4)));
        assert_eq!(above(&share, 15), Some((121, 3)));
        assert_eq!(above(&share, 28), Some((158, 2)));
    }

    #[test]
    fn stripes_and_runs_are_read_in_their_order() {
        let volume = |first: u8| Arc::new((first..first + 40).collect::<Vec<u8>>()) as Arc<_>;
        let stripes = vec![(volume(0), 1), (volume(100), 2)];
        let mapped = Mapped::new(vec![
            Segment::striped(stripes, 20, 4).unwrap(),
            Segment::zeros(3),
            Segment::linear(volume(200), 0, 5).unwrap(),
        ])
        .unwrap();
        let expected = [
            1, 2, 3, 4, 102, 103, 104, 105, 5, 6, 7, 8, 106, 107, 108, 109, 9, 10, 11, 12, 0, 0, 0,
            200, 201, 202, 203, 204,
        ];
        assert_eq!(mapped.len_bytes(), 28);
        for from in 0..28 {
            for len in 0..=28 - from {
                let read = read_vec(&mapped, from as u64, len).unwrap();
                assert_eq!(read, expected[from..from + len]);
            }
        }
        assert!(read_vec(&mapped, 27, 2).is_err());
        assert!(Segment::linear(volume(0), 36, 5).is_err());
        assert!(Segment::linear(volume(0), u64::MAX, 5).is_err());
        assert!(Segment::striped(vec![(volume(0), 0), (volume(0), 30)], 24, 4).is_err());
        assert!(Segment::striped(vec![], 24, 4).is_err());
    }
}
