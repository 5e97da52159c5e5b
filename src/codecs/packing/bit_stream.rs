//! Numbers of any few bits, from the lowest bit of each byte up, and codes of variable length.
//!
//! A unary code is `n` zeros, then a one. An exponential Golomb code of order `m` (Teuhola, A compression method for
//! clustered bit-vectors, 1978) has three parts: the length of `n / 2^m + 1` in unary, all digits of that number but
//! the first, and the m lowest bits of `n`. For codes of equal length see [`bits`](super::bits).

use crate::codecs::Invalid;

/// Writes numbers as bits.
#[derive(Default, Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    window: u64,
    held: u32,
}

impl Writer {
    /// Appends to these bytes.
    pub(crate) fn behind(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Appends the lowest `count` bits of a number, at most 32.
    pub(crate) fn put(&mut self, number: u32, count: u32) {
        self.window |= (u64::from(number) & ((1 << count) - 1)) << self.held;
        self.held += count;
        if self.held >= 32 {
            self.bytes.extend_from_slice(&(self.window as u32).to_le_bytes());
            self.window >>= 32;
            self.held -= 32;
        }
    }

    /// Appends this number of zeros, and a one.
    pub(crate) fn put_unary(&mut self, mut zeros: u32) {
        while zeros >= 32 {
            self.put(0, 32);
            zeros -= 32;
        }
        self.put(1 << zeros, zeros + 1);
    }

    /// Appends a number as a Rice code: the part above its `m` lowest bits in unary, then these bits.
    pub(crate) fn put_rice(&mut self, number: u32, m: u32) {
        let zeros = number >> m;
        if zeros + 1 + m <= 32 {
            let low = number & ((1 << m) - 1);
            return self.put((low << 1 | 1) << zeros, zeros + 1 + m);
        }
        self.put_unary(zeros);
        self.put(number, m);
    }

    /// Appends a number as an exponential Golomb code of an order up to 15. Numbers up to about `2^order` take few
    /// bits.
    pub(crate) fn put_golomb(&mut self, number: u32, order: u32) {
        let above = (number >> order) + 1;
        let digits = above.ilog2();
        self.put_unary(digits);
        self.put(above, digits);
        self.put(number, order);
    }

    /// Appends a number of either sign as an exponential Golomb code.
    pub(crate) fn put_signed(&mut self, number: i32, order: u32) {
        self.put_golomb(folded(number), order);
    }

    /// The bytes. Zeros fill up the last one.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let left = self.held.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.window.to_le_bytes()[..left]);
        self.bytes
    }
}

/// A number of either sign as one without: 0, -1, 1, -2 become 0, 1, 2, 3.
pub(crate) fn folded(number: i32) -> u32 {
    (number << 1 ^ number >> 31) as u32
}

/// The inverse of [`folded`].
pub(crate) fn unfolded(number: u32) -> i32 {
    (number >> 1) as i32 ^ -((number & 1) as i32)
}

/// Bits of [`Writer::put_golomb`].
pub(crate) fn golomb_bits(number: u32, order: u32) -> u32 {
    2 * ((number >> order) + 1).ilog2() + 1 + order
}

/// Bits of [`Writer::put_signed`].
pub(crate) fn signed_bits(number: i32, order: u32) -> u32 {
    golomb_bits(folded(number), order)
}

/// Reads numbers from bits.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// Bytes taken into the window.
    next: usize,
    /// The next bits; zeros after the held ones.
    window: u64,
    held: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, window: 0, held: 0 }
    }

    fn fill(&mut self) {
        if let (0..32, Some(word)) = (self.held, self.bytes[self.next..].first_chunk()) {
            self.window |= u64::from(u32::from_le_bytes(*word)) << self.held;
            self.held += 32;
            self.next += 4;
            return;
        }
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

    /// The next number of `count` bits, at most 32.
    ///
    /// # Errors
    ///
    /// When fewer bits are left.
    pub(crate) fn take(&mut self, count: u32) -> Result<u32, Invalid> {
        self.fill();
        if self.held < count {
            return Err(ended());
        }
        let taken = self.window & ((1 << count) - 1);
        self.drop(count);
        Ok(taken as u32)
    }

    /// The number of zeros before the next one.
    pub(crate) fn take_unary(&mut self) -> Result<u64, Invalid> {
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

    /// The next Rice code of `m` bits, at most 32.
    pub(crate) fn take_rice(&mut self, m: u32) -> Result<u64, Invalid> {
        self.fill();
        let zeros = self.window.trailing_zeros();
        if zeros + 1 + m > self.held {
            return Ok((self.take_unary()? << m) + u64::from(self.take(m)?));
        }
        let low = self.window >> (zeros + 1) & ((1 << m) - 1);
        self.drop(zeros + 1 + m);
        Ok((u64::from(zeros) << m) + low)
    }

    /// The next exponential Golomb code, of a number below about 2^24.
    pub(crate) fn take_golomb(&mut self, order: u32) -> Result<u32, Invalid> {
        let digits = self.take_unary()?;
        if digits + u64::from(order) > 24 {
            return Err(Invalid::new("found a number of more than 24 bits, expected a smaller one"));
        }
        let above = 1 << digits | self.take(digits as u32)?;
        Ok((above - 1) << order | self.take(order)?)
    }

    /// The next number of either sign.
    pub(crate) fn take_signed(&mut self, order: u32) -> Result<i32, Invalid> {
        self.take_golomb(order).map(unfolded)
    }

    /// The bytes after the current one, whose remaining bits must be zero.
    pub(crate) fn rest(self) -> Result<&'a [u8], Invalid> {
        match self.window & ((1 << (self.held % 8)) - 1) {
            0 => Ok(&self.bytes[self.next - self.held as usize / 8..]),
            _ => Err(Invalid::new("numbers of few bits do not end in zeros")),
        }
    }

    /// Checks that only zeros are left of the last byte, and no other byte.
    pub(crate) fn finish(self) -> Result<(), Invalid> {
        match self.rest()? {
            [] => Ok(()),
            more => Err(Invalid(format!("{} bytes follow where none is expected", more.len()))),
        }
    }
}

fn ended() -> Invalid {
    Invalid::new("numbers of few bits end before their count is reached")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 2, 3, 7, 8, 100, 65_535, 1 << 23];
        for order in [0, 1, 5, 15] {
            let mut writer = Writer::default();
            let mut bits = 0;
            for number in numbers {
                writer.put_golomb(number, order);
                writer.put_signed(-(number as i32) / 2, order);
                writer.put(number, 24);
                bits += golomb_bits(number, order) + signed_bits(-(number as i32) / 2, order) + 24;
            }
            let bytes = writer.finish();
            assert_eq!(bytes.len(), bits.div_ceil(8) as usize);
            let mut reader = Reader::new(&bytes);
            for number in numbers {
                assert_eq!(reader.take_golomb(order).unwrap(), number);
                assert_eq!(reader.take_signed(order).unwrap(), -(number as i32) / 2);
                assert_eq!(reader.take(24).unwrap(), number);
            }
            reader.finish().unwrap();
        }
    }

    #[test]
    fn by_hand() {
        // 4 of order 1: above = 3, one digit: 0 1 1, and the lowest bit 0; from the lowest bit up.
        let mut writer = Writer::default();
        writer.put_golomb(4, 1);
        assert_eq!(writer.finish(), [0b0110]);
    }

    #[test]
    fn what_no_writer_makes_is_refused() {
        assert!(Reader::new(&[0, 0, 0, 0, 0, 0, 0, 0]).take_golomb(0).is_err());
        assert!(Reader::new(&[1]).take(9).is_err());
        for bytes in [&[1, 2][..], &[3], &[3, 0], &[1, 0, 0]] {
            let mut reader = Reader::new(bytes);
            reader.take(1).unwrap();
            assert!(reader.finish().is_err(), "{bytes:?}");
        }
        let mut reader = Reader::new(&[1]);
        reader.take(1).unwrap();
        reader.finish().unwrap();
    }
}
