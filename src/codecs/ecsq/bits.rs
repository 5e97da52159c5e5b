//! Numbers of few bits, one behind the other, from the lowest bit of each byte up.

use crate::codecs::Invalid;

/// Puts numbers together.
#[derive(Default, Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    window: u64,
    held: u32,
}

impl Writer {
    /// Appends the lowest `count` bits of a number, at most 32.
    pub(super) fn put(&mut self, number: u32, count: u32) {
        self.window |= (u64::from(number) & ((1 << count) - 1)) << self.held;
        self.held += count;
        while self.held >= 8 {
            self.bytes.push(self.window as u8);
            self.window >>= 8;
            self.held -= 8;
        }
    }

    /// Appends a number as an exponential Golomb code of an order up to 15: few bits for those not far above `2^order`.
    pub(super) fn put_golomb(&mut self, number: u32, order: u32) {
        let above = (number >> order) + 1;
        let digits = above.ilog2();
        self.put(0, digits);
        self.put(1, 1);
        self.put(above, digits);
        self.put(number, order);
    }

    /// Appends a number that may be negative likewise.
    pub(super) fn put_signed(&mut self, number: i32, order: u32) {
        self.put_golomb((number << 1 ^ number >> 31) as u32, order);
    }

    /// The bytes, the last one filled up with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.put(0, 7);
        self.bytes
    }
}

/// Bits that [`Writer::put_golomb`] takes.
pub(super) fn golomb_bits(number: u32, order: u32) -> u32 {
    2 * ((number >> order) + 1).ilog2() + 1 + order
}

/// Bits that [`Writer::put_signed`] takes.
pub(super) fn signed_bits(number: i32, order: u32) -> u32 {
    golomb_bits((number << 1 ^ number >> 31) as u32, order)
}

/// Takes numbers apart again.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    window: u64,
    held: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, window: 0, held: 0 }
    }

    /// The next number of `count` bits, at most 32.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Invalid> {
        while self.held < count {
            let Some((byte, rest)) = self.bytes.split_first() else {
                return Err(Invalid::new("numbers of few bits end too early"));
            };
            self.window |= u64::from(*byte) << self.held;
            self.held += 8;
            self.bytes = rest;
        }
        let taken = self.window & ((1 << count) - 1);
        self.window >>= count;
        self.held -= count;
        Ok(taken as u32)
    }

    /// The next exponential Golomb code, of a number below 2^24.
    pub(super) fn take_golomb(&mut self, order: u32) -> Result<u32, Invalid> {
        let mut digits = 0;
        while self.take(1)? == 0 {
            digits += 1;
            if digits + order > 24 {
                return Err(Invalid::new("found a number of more than 24 bits, expected a smaller one"));
            }
        }
        let above = 1 << digits | self.take(digits)?;
        Ok((above - 1) << order | self.take(order)?)
    }

    /// The next number that may be negative.
    pub(super) fn take_signed(&mut self, order: u32) -> Result<i32, Invalid> {
        let number = self.take_golomb(order)?;
        Ok((number >> 1) as i32 ^ -((number & 1) as i32))
    }

    /// Checks that only zeros are left of the last byte, and no other byte.
    pub(super) fn finish(self) -> Result<(), Invalid> {
        match self.bytes.is_empty() && self.window == 0 && self.held < 8 {
            true => Ok(()),
            false => Err(Invalid::new("something follows where nothing is expected")),
        }
    }
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
