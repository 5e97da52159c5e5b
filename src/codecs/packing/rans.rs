//! rANS: an entropy coder for symbols of one byte with a static table of frequencies.
//!
//! Duda, Asymmetric numeral systems (2013), in the range form. A state `x` takes up a symbol of frequency `f` and start
//! `c`, out of `2^n`, as `x' = floor(x / f) 2^n + c + x mod f`; `x' mod 2^n` gives the symbol back. States have 32
//! bits; 16 bits move out before a state would exceed them. Several lanes with a state each take turns, so that a
//! processor works on them at the same time (Giesen, Interleaved entropy coders, 2014).
//!
//! A single lane starts from 1 and costs about two bytes. Several lanes start from `2^16` and cost about two bytes
//! each. The decoder checks that all states end where they started, and that no byte is left. A sequence of symbols 0
//! takes no bytes.

use crate::codecs::Invalid;

/// The number of different symbols.
pub(crate) const SYMBOLS: usize = 256;

/// The least state of several lanes between symbols.
const LEAST: u32 = 1 << 16;

/// Frequencies of symbols. They add up to a power of two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frequencies {
    bits: u32,
    all: Vec<u32>,
}

impl Frequencies {
    /// Frequencies in proportion to weights. They add up to `2^bits`, and none is zero. Takes at most 256 weights below
    /// 2^53, and 9 to 16 bits.
    pub(crate) fn of(weights: &[u64], bits: u32) -> Self {
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum::<u128>().max(1);
        let share = |weight: &u64| ((u128::from(*weight) << bits) / total).max(1) as u32;
        let mut all: Vec<u32> = weights.iter().map(share).collect();
        let mut sum: u32 = all.iter().sum();
        // The most frequent symbol takes the rounding error.
        while sum != 1 << bits {
            let Some(most) = all.iter_mut().max() else { break };
            let changed = (*most + (1 << bits)).saturating_sub(sum).max(*most - *most / 2);
            sum = sum - *most + changed;
            *most = changed;
        }
        Self { bits, all }
    }

    /// Bits that a symbol takes.
    pub(crate) fn cost(&self, symbol: usize) -> f64 {
        f64::from(self.bits) - f64::from(self.all[symbol]).log2()
    }

    /// The start and the frequency of each symbol.
    fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        self.all.iter().scan(0, |next, frequency| {
            let start = *next;
            *next += frequency;
            Some((start, *frequency))
        })
    }
}

/// The numbers that encode a symbol without a division.
#[derive(Clone, Copy, Default, Debug)]
struct Step {
    /// States from here on move 16 bits out first.
    limit: u64,
    /// `2^64 / f`, rounded up.
    inverse: u64,
    /// `2^n - f`.
    rest: u32,
    bias: u32,
}

impl Step {
    fn new(start: u32, frequency: u32, bits: u32) -> Self {
        let all = 1u32 << bits;
        // For a frequency of one the quotient is x - 1; the bias corrects it.
        let (inverse, bias) = match frequency {
            1 => (u64::MAX, start + all - 1),
            _ => (u64::MAX / u64::from(frequency) + 1, start),
        };
        Self { limit: u64::from(frequency) << (32 - bits), inverse, rest: all - frequency, bias }
    }

    #[inline(always)]
    fn next(&self, state: u32) -> u32 {
        let quotient = ((u128::from(state) * u128::from(self.inverse)) >> 64) as u32;
        state.wrapping_add(self.bias).wrapping_add(quotient.wrapping_mul(self.rest))
    }
}

/// Encodes symbols.
#[derive(Debug)]
pub(crate) struct Encoder(Box<[Step; SYMBOLS]>);

impl Encoder {
    /// An encoder for these frequencies.
    pub(crate) fn new(frequencies: &Frequencies) -> Self {
        let mut steps = Box::new([Step::default(); SYMBOLS]);
        for (step, (start, frequency)) in steps.iter_mut().zip(frequencies.ranges()) {
            *step = Step::new(start, frequency, frequencies.bits);
        }
        Self(steps)
    }

    /// The bytes of symbols in 1, 2, 4 or 8 lanes. Every symbol must have a frequency.
    pub(crate) fn encode(&self, lanes: u32, symbols: &[u8]) -> Vec<u8> {
        if symbols.iter().all(|symbol| *symbol == 0) {
            return Vec::new();
        }
        match lanes {
            1 => self.encode_lanes::<1>(symbols),
            2 => self.encode_lanes::<2>(symbols),
            4 => self.encode_lanes::<4>(symbols),
            _ => self.encode_lanes::<8>(symbols),
        }
    }

    fn encode_lanes<const LANES: usize>(&self, symbols: &[u8]) -> Vec<u8> {
        let mut states = [first_state(LANES); LANES];
        // A symbol moves out at most one word. Words fill up from the back, since the decoder goes the other way.
        let mut words = vec![0u16; symbols.len() + 1];
        let mut next = symbols.len();
        let mut take = |state: &mut u32, symbol: u8| {
            let step = &self.0[usize::from(symbol)];
            words[next] = *state as u16;
            let is_full = u64::from(*state) >= step.limit;
            next -= usize::from(is_full);
            *state = step.next(if is_full { *state >> 16 } else { *state });
        };
        let (turns, rest) = symbols.as_chunks::<LANES>();
        for lane in (0..rest.len()).rev() {
            take(&mut states[lane], rest[lane]);
        }
        for turn in turns.iter().rev() {
            for lane in (0..LANES).rev() {
                take(&mut states[lane], turn[lane]);
            }
        }
        let words = &words[next + 1..];
        let mut bytes = Vec::with_capacity(4 * LANES + 2 * words.len());
        states.iter().for_each(|state| bytes.extend(state.to_le_bytes()));
        if LANES == 1 {
            bytes.truncate(4 - states[0].leading_zeros() as usize / 8);
        }
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }
}

fn first_state(lanes: usize) -> u32 {
    if lanes == 1 { 1 } else { LEAST }
}

/// Decodes symbols.
#[derive(Debug)]
pub(crate) struct Decoder {
    bits: u32,
    /// The symbol of each remainder.
    symbols: Vec<u8>,
    ranges: [(u32, u32); SYMBOLS],
}

impl Decoder {
    /// A decoder for these frequencies.
    pub(crate) fn new(frequencies: &Frequencies) -> Self {
        let mut symbols = vec![0; 1 << frequencies.bits];
        let mut ranges = [(0, 1); SYMBOLS];
        for (symbol, (start, frequency)) in frequencies.ranges().enumerate() {
            ranges[symbol] = (start, frequency);
            symbols[start as usize..(start + frequency) as usize].fill(symbol as u8);
        }
        Self { bits: frequencies.bits, symbols, ranges }
    }

    /// Fills `out` with decoded symbols.
    ///
    /// # Errors
    ///
    /// When `bytes` do not encode this number of symbols.
    pub(crate) fn decode(&self, lanes: u32, bytes: &[u8], out: &mut [u8]) -> Result<(), Invalid> {
        if bytes.is_empty() {
            out.fill(0);
            return Ok(());
        }
        match lanes {
            1 => self.decode_lanes::<1>(bytes, out),
            2 => self.decode_lanes::<2>(bytes, out),
            4 => self.decode_lanes::<4>(bytes, out),
            _ => self.decode_lanes::<8>(bytes, out),
        }
    }

    fn decode_lanes<const LANES: usize>(&self, bytes: &[u8], out: &mut [u8]) -> Result<(), Invalid> {
        let (mut states, words) = split::<LANES>(bytes)?;
        let mut next = 0;
        let mask = (1 << self.bits) - 1;
        let mut give = |state: &mut u32, symbol: &mut u8| {
            let remainder = *state & mask;
            *symbol = self.symbols[remainder as usize];
            let (start, frequency) = self.ranges[usize::from(*symbol)];
            // Below 2^32 for every state in a file: f (x >> n) + remainder - start < f 2^(32 - n) <= 2^32.
            let taken = frequency * (*state >> self.bits) + (remainder - start);
            let word = words.get(next).copied();
            let is_low = taken < LEAST && word.is_some();
            next += usize::from(is_low);
            let refilled = taken << 16 | u32::from(u16::from_le_bytes(word.unwrap_or([0; 2])));
            *state = if is_low { refilled } else { taken };
        };
        let (turns, rest) = out.as_chunks_mut::<LANES>();
        for turn in turns {
            for lane in 0..LANES {
                give(&mut states[lane], &mut turn[lane]);
            }
        }
        for (lane, symbol) in rest.iter_mut().enumerate() {
            give(&mut states[lane], symbol);
        }
        match states == [first_state(LANES); LANES] && next == words.len() {
            true => Ok(()),
            false => Err(Invalid(format!("{} bytes are not the codes of {} values", bytes.len(), out.len()))),
        }
    }
}

/// The states, and the words after them. A single state has no leading zero bytes. If words follow, it has at least 17
/// bits, and the number of bytes shows whether it has three bytes or four.
fn split<const LANES: usize>(bytes: &[u8]) -> Result<([u32; LANES], &[[u8; 2]]), Invalid> {
    let length = match LANES {
        1 if bytes.len() <= 4 => bytes.len(),
        1 => 4 - bytes.len() % 2,
        lanes => 4 * lanes,
    };
    let (states, words) = bytes.split_at_checked(length).unwrap_or((&[], bytes));
    let (words, odd) = words.as_chunks::<2>();
    if states.is_empty() || !odd.is_empty() {
        return Err(Invalid(format!("{} bytes are not the codes of {LANES} lanes", bytes.len())));
    }
    let mut padded = [[0; 4]; LANES];
    padded.as_flattened_mut()[..length].copy_from_slice(states);
    Ok((padded.map(u32::from_le_bytes), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symbols drawn by the weights.
    fn draw(weights: &[u64], len: usize) -> Vec<u8> {
        let mut state = 9u64;
        let total: u64 = weights.iter().sum();
        let mut one = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut left = (state >> 33) % total;
            weights
                .iter()
                .position(|weight| left.checked_sub(*weight).map(|rest| left = rest).is_none())
                .unwrap()
        };
        (0..len).map(|_| one() as u8).collect()
    }

    const TABLES: [&[u64]; 5] =
        [&[1], &[1000, 1, 1], &[50, 20, 20, 5, 5, 1], &[1, 1, 1, 1], &[1 << 40, 1, 1, 1 << 20]];

    #[test]
    fn symbols_come_back_and_take_what_they_should() {
        for weights in TABLES {
            for bits in [12, 13, 15] {
                let frequencies = Frequencies::of(weights, bits);
                assert_eq!(frequencies.all.iter().sum::<u32>(), 1 << bits);
                let (encoder, decoder) = (Encoder::new(&frequencies), Decoder::new(&frequencies));
                for (lanes, len) in
                    [(1, 0), (1, 1), (1, 7), (1, 2000), (2, 1), (2, 2001), (4, 3), (4, 2000), (8, 2003)]
                {
                    let symbols = draw(weights, len);
                    let bytes = encoder.encode(lanes, &symbols);
                    let mut back = vec![99; len];
                    decoder.decode(lanes, &bytes, &mut back).unwrap();
                    assert_eq!(back, symbols);
                    let bits: f64 = symbols.iter().map(|symbol| frequencies.cost(usize::from(*symbol))).sum();
                    let most = bits / 8.0 + if lanes == 1 { 3.1 } else { f64::from(4 * lanes) };
                    assert!(bytes.len() as f64 <= most, "{} bytes for {bits} bits", bytes.len());
                }
            }
        }
    }

    #[test]
    fn all_256_symbols_can_be_rare_but_one() {
        let mut weights = vec![1; 256];
        weights[255] = 1 << 50;
        for weights in [weights, (0..256u64).map(|i| if i < 200 { 1 } else { 1 << 40 }).collect()] {
            let frequencies = Frequencies::of(&weights, 12);
            assert_eq!(frequencies.all.iter().sum::<u32>(), 4096);
            assert!(frequencies.all.iter().all(|frequency| *frequency > 0));
            let symbols: Vec<u8> = (0..=255).cycle().take(3000).collect();
            let bytes = Encoder::new(&frequencies).encode(4, &symbols);
            let mut back = vec![0; 3000];
            Decoder::new(&frequencies).decode(4, &bytes, &mut back).unwrap();
            assert_eq!(back, symbols);
        }
    }

    #[test]
    fn by_hand() {
        // f = (3, 1) of 4 would be n = 2; with n = 9, f = (384, 128): symbol 1 first (from behind), 1 -> 385; then
        // symbol 0: floor(385 / 384) 512 + 1 = 513.
        let frequencies = Frequencies::of(&[3, 1], 9);
        assert_eq!(Encoder::new(&frequencies).encode(1, &[0, 1]), [1, 2]);
        assert!(Encoder::new(&frequencies).encode(1, &[0; 900]).is_empty());
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let weights = TABLES[2];
        let frequencies = Frequencies::of(weights, 12);
        let (encoder, decoder) = (Encoder::new(&frequencies), Decoder::new(&frequencies));
        let symbols = draw(weights, 500);
        for lanes in [1, 2, 4, 8] {
            let bytes = encoder.encode(lanes, &symbols);
            let mut out = vec![0; 500];
            for len in 1..bytes.len() {
                assert!(
                    decoder.decode(lanes, &bytes[..len], &mut out).is_err(),
                    "{len} bytes, {lanes} lanes"
                );
            }
            for more in [vec![0], vec![0, 0], vec![1; 40]] {
                let longer = [bytes.clone(), more].concat();
                assert!(decoder.decode(lanes, &longer, &mut out).is_err());
            }
            for at in 0..bytes.len() {
                let mut broken = bytes.clone();
                broken[at] ^= 0x55;
                // A single lane has no byte to spare: damaged bytes may encode other symbols.
                let found = decoder.decode(lanes, &broken, &mut out);
                assert!(found.is_err() || lanes == 1, "byte {at}, {lanes} lanes");
            }
            assert!(decoder.decode(lanes, &bytes, &mut out[..499]).is_err() || lanes == 1);
        }
    }
}
