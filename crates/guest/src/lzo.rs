//! LZO1X, as it is decompressed. There is no specification; the kernel's
//! `Documentation/staging/lzo.rst` tells what its decoder takes.

/// Decompresses one block behind what `plain` holds, at most `most` bytes; none if the block is not
/// sound.
pub fn unpack(block: &[u8], plain: &mut Vec<u8>, most: usize) -> Option<()> {
    let start = plain.len();
    let mut decoder = Decoder {
        input: block,
        end: start.checked_add(most)?,
        start,
        plain,
    };
    decoder.run()
}

struct Decoder<'a> {
    /// What is still to be read.
    input: &'a [u8],
    /// Where the block's content begins and must end in `plain`.
    start: usize,
    end: usize,
    plain: &'a mut Vec<u8>,
}

impl Decoder<'_> {
    fn run(&mut self) -> Option<()> {
        // How many literals came before: 0, 1–3 that a match brought along, or 4 for more. Small
        // instructions mean other things after each.
        let mut state = 0;
        let first = *self.input.first()?;
        if first > 17 {
            self.byte()?;
            let n_literals = usize::from(first - 17);
            self.literals(n_literals)?;
            state = n_literals.min(4);
        }
        loop {
            let instruction = usize::from(self.byte()?);
            state = match instruction {
                0..=15 if state == 0 => {
                    let n_literals = self.length(instruction, 15)?.checked_add(3)?;
                    self.literals(n_literals)?;
                    4
                }
                0..=15 => {
                    let (base, len) = if state == 4 { (2049, 3) } else { (1, 2) };
                    let high = usize::from(self.byte()?);
                    let distance = (high << 2) + (instruction >> 2) + base;
                    self.copy(distance, len, instruction & 3)?
                }
                16..=31 => {
                    let len = self.length(instruction & 7, 7)?.checked_add(2)?;
                    let low = self.number()?;
                    let distance = ((instruction & 8) << 11) + (low >> 2);
                    if distance == 0 {
                        // The end: nothing may be left.
                        return (len == 3 && self.input.is_empty()).then_some(());
                    }
                    self.copy(distance + 0x4000, len, low & 3)?
                }
                32..=63 => {
                    let len = self.length(instruction & 31, 31)?.checked_add(2)?;
                    let low = self.number()?;
                    self.copy((low >> 2) + 1, len, low & 3)?
                }
                _ => {
                    let high = usize::from(self.byte()?);
                    let distance = (high << 3) + ((instruction >> 2) & 7) + 1;
                    self.copy(distance, (instruction >> 5) + 1, instruction & 3)?
                }
            };
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*byte)
    }

    /// Reads 16 bits, little-endian.
    fn number(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    /// Returns a length whose bits in the instruction are `bits`; none set means `mask` and more in
    /// the bytes that follow, each 0 worth 255.
    fn length(&mut self, bits: usize, mask: usize) -> Option<usize> {
        if bits > 0 {
            return Some(bits);
        }
        let mut len = mask;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255)?,
                last => return len.checked_add(usize::from(last)),
            }
        }
    }

    fn literals(&mut self, n_bytes: usize) -> Option<()> {
        let (bytes, rest) = self.input.split_at_checked(n_bytes)?;
        self.check_room(n_bytes)?;
        self.plain.extend_from_slice(bytes);
        self.input = rest;
        Some(())
    }

    /// Repeats what was `distance` bytes ago, then takes literals. Returns how many.
    fn copy(&mut self, distance: usize, len: usize, n_literals: usize) -> Option<usize> {
        self.check_room(len)?;
        let from = self.plain.len().checked_sub(distance)?;
        if from < self.start {
            return None;
        }
        for at in from..from + len {
            self.plain.push(*self.plain.get(at)?);
        }
        self.literals(n_literals)?;
        Some(n_literals)
    }

    fn check_room(&self, n_bytes: usize) -> Option<()> {
        (n_bytes <= self.end.checked_sub(self.plain.len())?).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(block: &[u8], most: usize) -> Option<Vec<u8>> {
        let mut plain = b"before".to_vec();
        unpack(block, &mut plain, most).map(|()| plain.split_off(6))
    }

    #[test]
    fn literals_and_repeats_are_unpacked() {
        // "abcd" as first literals, 5 bytes from 4 ago by the long form, the end.
        let block = [21, b'a', b'b', b'c', b'd', 32 | 3, 3 << 2, 0, 17, 0, 0];
        assert_eq!(unpacked(&block, 9).unwrap(), b"abcdabcda");
        assert_eq!(unpacked(&block, 8), None);
    }

    #[test]
    fn nothing_before_the_block_is_repeated_and_no_cut_block_is_taken() {
        let block = [21, b'a', b'b', b'c', b'd', 32 | 3, 4 << 2, 0, 17, 0, 0];
        assert_eq!(unpacked(&block, 100), None);
        let block = [21, b'a', b'b', b'c', b'd', 17, 0, 0];
        assert!(unpacked(&block, 100).is_some());
        for len in 0..block.len() {
            assert_eq!(unpacked(&block[..len], 100), None);
        }
        assert_eq!(unpacked(&[block.as_slice(), &[0]].concat(), 100), None);
    }
}
