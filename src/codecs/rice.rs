//! Ascending positions as Rice-coded gaps.
//!
//! A gap, the number of positions passed over, is `q 2^m + r`: `q` zeros and a one, then the m bits of `r`, all from
//! the lowest bit up (Rice, 1979; Golomb, Run-length encodings, 1966). For positions drawn at random it is within 1 %
//! of their entropy, and with m = 0 it is a bit mask, so dense ones need no form of their own.

use super::Invalid;

/// The largest m.
pub(super) const MOST_BITS: u32 = 15;

/// The gaps before ascending positions.
fn gaps(positions: &[u32]) -> impl Iterator<Item = u32> {
    let mut next = 0;
    positions.iter().map(move |position| {
        let gap = position - next;
        next = position + 1;
        gap
    })
}

/// The m that takes the fewest bits, the lowest if several do.
pub(super) fn parameter(positions: &[u32]) -> u32 {
    let bits = |m: &u32| gaps(positions).map(|gap| u64::from((gap >> m) + 1 + m)).sum::<u64>();
    (0..=MOST_BITS).min_by_key(bits).unwrap_or(0)
}

/// Appends the gaps of ascending positions, filled up to whole bytes with zeros.
pub(super) fn encode(positions: &[u32], m: u32, out: &mut Vec<u8>) {
    let (mut window, mut held) = (0u64, 0u32);
    let mut put = |bits: u64, count: u32| {
        window |= bits << held;
        held += count;
        while held >= 8 {
            out.push(window as u8);
            window >>= 8;
            held -= 8;
        }
    };
    for gap in gaps(positions) {
        let mut zeros = gap >> m;
        while zeros >= 32 {
            put(0, 32);
            zeros -= 32;
        }
        put(1 << zeros, zeros + 1);
        put(u64::from(gap) & ((1 << m) - 1), m);
    }
    put(0, 7);
}

/// Reads `count` ascending positions, all below `end`. Also returns how many bytes they took.
///
/// # Errors
///
/// When the bytes end before, a position is not below `end`, or the last byte is not filled up with zeros.
pub(super) fn decode(bytes: &[u8], m: u32, count: usize, end: usize) -> Result<(Vec<u32>, usize), Invalid> {
    let mut reader = Reader { bytes, next: 0, window: 0, held: 0 };
    let mut positions = Vec::with_capacity(count.min(end));
    let mut next = 0u64;
    for _ in 0..count {
        let gap = (reader.zeros()? << m) + reader.take(m)?;
        let position = next + gap;
        if position >= end as u64 {
            return Err(Invalid(format!("index {position} is sent, expected one below {end}")));
        }
        positions.push(position as u32);
        next = position + 1;
    }
    Ok((positions, reader.finish()?))
}

/// Takes bits from bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    next: usize,
    /// The next bits; zeros beyond those held.
    window: u64,
    held: u32,
}

impl Reader<'_> {
    fn fill(&mut self) {
        while self.held <= 56 && self.next < self.bytes.len() {
            self.window |= u64::from(self.bytes[self.next]) << self.held;
            self.held += 8;
            self.next += 1;
        }
    }

    fn drop(&mut self, bits: u32) {
        self.window = self.window.checked_shr(bits).unwrap_or(0);
        self.held -= bits;
    }

    /// Zeros before a one.
    fn zeros(&mut self) -> Result<u64, Invalid> {
        let mut zeros = 0;
        loop {
            self.fill();
            if self.window != 0 {
                let more = self.window.trailing_zeros();
                self.drop(more + 1);
                return Ok(zeros + u64::from(more));
            }
            if self.held == 0 {
                return Err(ended());
            }
            zeros += u64::from(self.held);
            self.drop(self.held);
        }
    }

    fn take(&mut self, bits: u32) -> Result<u64, Invalid> {
        self.fill();
        if self.held < bits {
            return Err(ended());
        }
        let taken = self.window & ((1 << bits) - 1);
        self.drop(bits);
        Ok(taken)
    }

    /// How many bytes were begun; what is left of the last has to be zeros.
    fn finish(self) -> Result<usize, Invalid> {
        let rest = self.window & ((1 << (self.held % 8)) - 1);
        match rest {
            0 => Ok(self.next - self.held as usize / 8),
            _ => Err(Invalid::new("indices do not end in zeros")),
        }
    }
}

fn ended() -> Invalid {
    Invalid::new("indices end before their count is reached")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(positions: &[u32], m: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(positions, m, &mut bytes);
        bytes
    }

    #[test]
    fn positions_come_back() {
        let cases: [&[u32]; 6] =
            [&[], &[0], &[65_535], &[0, 1, 2, 3], &[5, 6, 1000, 65_535], &[31, 64, 160, 4000]];
        for positions in cases {
            for m in 0..=MOST_BITS {
                let bytes = coded(positions, m);
                let found = decode(&bytes, m, positions.len(), 65_536).unwrap();
                assert_eq!(found, (positions.to_vec(), bytes.len()), "m = {m}");
            }
        }
    }

    #[test]
    fn by_hand() {
        // Gaps 2 and 5 with m = 1: 1 zero, one, 0; 2 zeros, one, 1.
        assert_eq!(coded(&[2, 8], 1), [0b0110_0010]);
        assert_eq!(coded(&[0, 3], 0), [0b0000_1001]);
    }

    #[test]
    fn every_other_position_is_a_bit_mask() {
        let positions: Vec<u32> = (0..1000).map(|i| 2 * i).collect();
        assert_eq!((parameter(&positions), coded(&positions, 0).len()), (0, 250));
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let bytes = coded(&[10, 20, 900], 4);
        assert!(decode(&bytes[..bytes.len() - 1], 4, 3, 1000).is_err());
        assert!(decode(&bytes, 4, 3, 900).is_err());
        assert!(decode(&bytes, 4, 40, 1000).is_err());
        assert!(decode(&[0; 9], 0, 1, 1000).is_err());
        assert!(decode(&[0b1000_0001], 0, 1, 1000).is_err());
    }
}
