//! Changes of values without loss: integer differences of their bits, by magnitude, entropy-coded.
//!
//! A float's bits become a key that ascends with the float, so that near floats have near keys; integers are their own
//! keys. A magnitude `m` of a difference of keys is a symbol (0, 1, or its leading digit and the next one), a sign and
//! the digits after those (Elias, Universal codeword sets, 1975). rANS codes the symbols. Sign and digits are nearly
//! random, and go as they are. A step of training has about the same size for all weights of a tensor, so its
//! difference in keys depends on the exponent of the old value: each range of exponents has frequencies for itself.
//!
//! A block is up to [`CHUNK`](crate::codecs::CHUNK) values of one tensor, and is coded alone. No bytes mean no change.
//! Digits that are zero in all values of the block, old and new, are left out.

use crate::codecs::Invalid;
use crate::codecs::packing::bit_stream::{Reader, Writer, golomb_bits};
use crate::codecs::packing::floats::expect_bytes;
use crate::codecs::packing::rans::{Decoder, Encoder, Frequencies};
use crate::model::dtype::Dtype;

/// Ranges of exponents, from the largest exponent of the block's old values down. The last one has all that are lower.
const RANGES: usize = 16;
/// Bits that say how many ranges share frequencies, or that the block is stored.
const JOIN_BITS: u32 = 3;
/// Every range has its own frequencies at 0; all share them at this number.
const MOST_JOINED: u32 = 4;
/// The block is stored as it is.
const STORED: u32 = 7;
/// Bits of the number of digits left out.
const SHIFT_BITS: u32 = 6;
/// Bits of a symbol.
const SYMBOL_BITS: u32 = 7;
/// Symbols of differences of 64 bits.
const SYMBOLS: usize = 1 << SYMBOL_BITS;
/// Frequencies add up to two to this power.
const FREQUENCY_BITS: u32 = 12;
/// The order of the Golomb codes of frequencies.
const FREQUENCY_ORDER: u32 = 4;
/// The order of the Golomb codes of lengths in bytes.
const LENGTH_ORDER: u32 = 8;

/// The numbers that turn values of a dtype into keys and exponents.
#[derive(Clone, Copy, Debug)]
struct Keys {
    /// Bits of a value that are in use, without `shift`.
    width: u32,
    /// Digits left out.
    shift: u32,
    is_float: bool,
    /// Digits below the exponent in the whole value.
    mantissa: u32,
    /// Ones in place of the exponent's bits; zero without exponents.
    exponents: u64,
}

impl Keys {
    fn new(dtype: Dtype, shift: u32) -> Self {
        let (mantissa, exponent) = match dtype {
            Dtype::F64 => (52, 11),
            Dtype::F32 => (23, 8),
            Dtype::F16 => (10, 5),
            Dtype::BF16 => (7, 8),
            Dtype::F8E4M3 => (3, 4),
            Dtype::F8E5M2 => (2, 5),
            _ => (0, 0),
        };
        let bits = 8 * dtype.bytes() as u32;
        let is_float = exponent > 0;
        Self { width: bits - shift, shift, is_float, mantissa, exponents: (1 << exponent) - 1 }
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.width)
    }

    fn exponent(self, value: u64) -> u64 {
        value >> self.mantissa & self.exponents
    }

    /// A number that ascends with the value, without the digits left out.
    #[inline(always)]
    fn key(self, value: u64) -> u64 {
        let value = value >> self.shift;
        let sign = value >> (self.width - 1) & 1;
        // Negative floats descend with their bits.
        let flipped = sign.wrapping_neg() | 1 << (self.width - 1);
        if self.is_float { (value ^ flipped) & self.mask() } else { value }
    }

    /// The inverse of [`key`](Self::key).
    #[inline(always)]
    fn value(self, key: u64) -> u64 {
        let is_negative = (key >> (self.width - 1) & 1) ^ 1;
        let flipped = is_negative.wrapping_neg() | 1 << (self.width - 1);
        let value = if self.is_float { (key ^ flipped) & self.mask() } else { key };
        value << self.shift
    }

    /// The magnitude of the change of keys, and 1 if the key falls.
    #[inline(always)]
    fn change(self, old: u64, new: u64) -> (u64, u64) {
        let unused = 64 - self.width;
        let change = (self.key(new).wrapping_sub(self.key(old)) << unused).cast_signed() >> unused;
        (change.unsigned_abs(), u64::from(change < 0))
    }

    /// The new value that a change of the old one gives.
    #[inline(always)]
    fn changed(self, old: u64, magnitude: u64, falls: u64) -> u64 {
        let change = (magnitude ^ falls.wrapping_neg()).wrapping_add(falls);
        self.value(self.key(old).wrapping_add(change) & self.mask())
    }
}

/// The values of a block, as little-endian bytes.
fn values<const BYTES: usize>(block: &[u8]) -> impl Iterator<Item = u64> {
    block.as_chunks::<BYTES>().0.iter().map(|bytes| {
        let mut whole = [0; 8];
        whole[..BYTES].copy_from_slice(bytes);
        u64::from_le_bytes(whole)
    })
}

/// The symbol of a magnitude, and the number of digits after it.
#[inline(always)]
fn symbol(magnitude: u64) -> (u8, u32) {
    if magnitude < 2 {
        return (magnitude as u8, 0);
    }
    let digits = magnitude.ilog2();
    ((2 * digits as u8) | (magnitude >> (digits - 1) & 1) as u8, digits - 1)
}

/// The magnitude without the digits after its symbol, and their number.
#[inline(always)]
fn magnitude(symbol: u8) -> (u64, u32) {
    if symbol < 2 {
        return (u64::from(symbol), 0);
    }
    let digits = u32::from(symbol / 2) - 1;
    ((2 | u64::from(symbol & 1)) << digits, digits)
}

/// The range of exponents of each old value.
fn ranges<const BYTES: usize>(keys: Keys, old: &[u8]) -> Vec<u8> {
    let largest = values::<BYTES>(old).map(|value| keys.exponent(value)).max().unwrap_or(0);
    let range = |value: u64| (largest - keys.exponent(value)).min(RANGES as u64 - 1) as u8;
    values::<BYTES>(old).map(range).collect()
}

/// How often each symbol occurs.
type Counts = [u32; SYMBOLS];

/// The symbols and frequencies of a group of ranges.
#[derive(Debug)]
struct Table {
    /// The least symbol.
    least: u8,
    /// A weight for each symbol from the least to the largest.
    weights: Vec<u64>,
}

impl Table {
    /// The table for these counts; `None` if all are zero.
    fn of(counts: &Counts) -> Option<Self> {
        let least = counts.iter().position(|count| *count > 0)?;
        let largest = counts.iter().rposition(|count| *count > 0)?;
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let weight = |count: &u32| (u64::from(*count) << FREQUENCY_BITS).div_ceil(total);
        Some(Self { least: least as u8, weights: counts[least..=largest].iter().map(weight).collect() })
    }

    fn frequencies(&self) -> Frequencies {
        Frequencies::of(&self.weights, FREQUENCY_BITS)
    }

    /// Lanes for this many symbols. Each lane costs two bytes, which only many symbols that are not the most frequent one
    /// are worth.
    fn lanes(&self, symbols: usize) -> u32 {
        let most = self.weights.iter().copied().max().unwrap_or(0);
        let others = ((1u64 << FREQUENCY_BITS).saturating_sub(most) * symbols as u64) >> FREQUENCY_BITS;
        match others {
            0..256 => 1,
            256..2048 => 4,
            _ => 8,
        }
    }

    /// Bits of the table and of symbols with these counts, about.
    fn bits(&self, counts: &Counts) -> f64 {
        let table: u32 = self.weights.iter().map(|weight| golomb_bits(*weight as u32, FREQUENCY_ORDER)).sum();
        let counts = &counts[usize::from(self.least)..][..self.weights.len()];
        let total = f64::from(counts.iter().sum::<u32>());
        let of = |count: &u32| match count {
            0 => 0.0,
            count => f64::from(*count) * (total / f64::from(*count)).log2(),
        };
        f64::from(2 * SYMBOL_BITS + 32 + table) + counts.iter().map(of).sum::<f64>()
    }

    fn write(&self, writer: &mut Writer) {
        writer.put(u32::from(self.least), SYMBOL_BITS);
        writer.put(self.weights.len() as u32 - 1, SYMBOL_BITS);
        if self.weights.len() > 1 {
            self.weights.iter().for_each(|weight| writer.put_golomb(*weight as u32, FREQUENCY_ORDER));
        }
    }

    fn read(reader: &mut Reader, keys: Keys) -> Result<Self, Invalid> {
        let least = reader.take(SYMBOL_BITS)?;
        let others = reader.take(SYMBOL_BITS)?;
        if least + others >= 2 * keys.width {
            let most = 2 * keys.width - 1;
            return Err(Invalid(format!("found symbol {}, expected at most {most}", least + others)));
        }
        let weight = |_| reader.take_golomb(FREQUENCY_ORDER).map(u64::from);
        let weights = if others > 0 { (0..=others).map(weight).collect::<Result<_, _>>()? } else { vec![1] };
        Ok(Self { least: least as u8, weights })
    }
}

/// The counts of ranges joined two by two, `join` times.
fn joined(counts: &[Counts], join: u32) -> Vec<Counts> {
    let sum =
        |group: &[Counts]| std::array::from_fn(|symbol| group.iter().map(|counts| counts[symbol]).sum());
    counts.chunks(1 << join).map(sum).collect()
}

/// Encodes `new` values of a block against the `old` ones of the same dtype and number. Returns no bytes if they are
/// equal, and at most a byte more than `new` has.
pub(super) fn encode(dtype: Dtype, old: &[u8], new: &[u8]) -> Vec<u8> {
    if old == new {
        return Vec::new();
    }
    let survey = match dtype.bytes() {
        1 => Survey::of::<1>(dtype, old, new),
        2 => Survey::of::<2>(dtype, old, new),
        4 => Survey::of::<4>(dtype, old, new),
        _ => Survey::of::<8>(dtype, old, new),
    };
    let coded = survey.write();
    if coded.len() <= new.len() { coded } else { stored(new) }
}

/// The block of values that are stored as they are.
fn stored(new: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(STORED, JOIN_BITS);
    let mut bytes = writer.finish();
    bytes.extend_from_slice(new);
    bytes
}

/// What the encoder finds in a block.
struct Survey {
    keys: Keys,
    /// The range of exponents of each value.
    ranges: Vec<u8>,
    /// The symbol of each value.
    symbols: Vec<u8>,
    /// The symbols of each range, counted.
    counts: Vec<Counts>,
    /// Signs and digits after symbols.
    digits: Writer,
}

impl Survey {
    fn of<const BYTES: usize>(dtype: Dtype, old: &[u8], new: &[u8]) -> Self {
        let pairs = || values::<BYTES>(old).zip(values::<BYTES>(new));
        // Values that differ have a digit that is not zero.
        let shift = pairs().fold(0, |digits, (old, new)| digits | old | new).trailing_zeros();
        let keys = Keys::new(dtype, shift);
        let ranges = ranges::<BYTES>(keys, old);
        let mut survey = Self {
            keys,
            symbols: Vec::with_capacity(ranges.len()),
            counts: vec![[0; SYMBOLS]; RANGES],
            digits: Writer::default(),
            ranges,
        };
        for ((old, new), range) in pairs().zip(&survey.ranges) {
            let (magnitude, falls) = keys.change(old, new);
            let (symbol, after) = symbol(magnitude);
            survey.counts[usize::from(*range)][usize::from(symbol)] += 1;
            survey.symbols.push(symbol);
            if magnitude > 0 {
                put_digits(&mut survey.digits, magnitude, after, falls);
            }
        }
        survey
    }

    /// How often ranges are joined two by two for the fewest bytes, and the counts of the groups.
    fn best_groups(&self) -> (u32, Vec<Counts>) {
        let bits = |counts: &[Counts]| -> f64 {
            counts.iter().filter_map(|counts| Some(Table::of(counts)?.bits(counts))).sum()
        };
        let mut best = (0, self.counts.clone());
        let mut least = bits(&best.1);
        for join in 1..=MOST_JOINED {
            let counts = joined(&self.counts, join);
            let found = bits(&counts);
            if found <= least {
                (least, best) = (found, (join, counts));
            }
        }
        best
    }

    fn write(self) -> Vec<u8> {
        let (join, counts) = self.best_groups();
        let starts = starts(counts.iter().map(|counts| counts.iter().sum::<u32>() as usize));
        let mut next = starts.clone();
        let mut sorted = vec![0; self.symbols.len()];
        for (range, symbol) in self.ranges.iter().zip(&self.symbols) {
            let place = &mut next[usize::from(range >> join)];
            sorted[*place] = *symbol;
            *place += 1;
        }
        let mut writer = Writer::default();
        writer.put(join, JOIN_BITS);
        writer.put(self.keys.shift, SHIFT_BITS);
        let mut coded = Vec::new();
        for (group, counts) in counts.iter().enumerate() {
            let Some(table) = Table::of(counts) else { continue };
            table.write(&mut writer);
            if table.weights.len() > 1 {
                let symbols = &mut sorted[starts[group]..starts[group + 1]];
                symbols.iter_mut().for_each(|symbol| *symbol -= table.least);
                let lanes = table.lanes(symbols.len());
                let bytes = Encoder::new(&table.frequencies()).encode(lanes, symbols);
                writer.put_golomb(bytes.len() as u32, LENGTH_ORDER);
                coded.extend(bytes);
            }
        }
        [writer.finish(), coded, self.digits.finish()].concat()
    }
}

/// The first place of each group, and the end of the last.
fn starts(lens: impl Iterator<Item = usize>) -> Vec<usize> {
    let ends = lens.scan(0, |end, len| {
        *end += len;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Appends the sign and the `after` lowest digits of a magnitude.
#[inline(always)]
fn put_digits(writer: &mut Writer, magnitude: u64, after: u32, falls: u64) {
    let all = (magnitude & ((1 << after) - 1)) << 1 | falls;
    if after < 32 {
        writer.put(all as u32, after + 1);
    } else {
        writer.put(all as u32, 32);
        writer.put((all >> 32) as u32, after - 31);
    }
}

/// The inverse of [`put_digits`].
#[inline(always)]
fn take_digits(reader: &mut Reader, after: u32) -> Result<(u64, u64), Invalid> {
    let mut all = u64::from(reader.take(32.min(after + 1))?);
    if after >= 32 {
        all |= u64::from(reader.take(after - 31)?) << 32;
    }
    Ok((all >> 1, all & 1))
}

/// Decodes the new values of a block from the old ones.
///
/// # Errors
///
/// When no encoder writes these bytes for a block of this dtype and size. Other bytes may be a wrong block: only a
/// digest shows that.
pub(super) fn decode(dtype: Dtype, old: &[u8], coded: &[u8], new: &mut [u8]) -> Result<(), Invalid> {
    if coded.is_empty() {
        new.copy_from_slice(old);
        return Ok(());
    }
    match dtype.bytes() {
        1 => decode_block::<1>(dtype, old, coded, new),
        2 => decode_block::<2>(dtype, old, coded, new),
        4 => decode_block::<4>(dtype, old, coded, new),
        _ => decode_block::<8>(dtype, old, coded, new),
    }
}

fn decode_block<const BYTES: usize>(
    dtype: Dtype,
    old: &[u8],
    coded: &[u8],
    new: &mut [u8],
) -> Result<(), Invalid> {
    let mut reader = Reader::new(coded);
    let join = reader.take(JOIN_BITS)?;
    if join == STORED {
        let stored = reader.rest()?;
        expect_bytes(stored, new.len(), "stored values")?;
        new.copy_from_slice(stored);
        return Ok(());
    }
    let shift = reader.take(SHIFT_BITS)?;
    if join > MOST_JOINED || shift >= 8 * BYTES as u32 {
        return Err(Invalid(format!(
            "found a block joined {join} times and shifted by {shift}, expected less"
        )));
    }
    let keys = Keys::new(dtype, shift);
    let mut groups = ranges::<BYTES>(keys, old);
    groups.iter_mut().for_each(|range| *range >>= join);
    let Symbols { starts: mut next, all: symbols, rest } = decode_symbols(keys, &groups, reader)?;
    let mut digits = Reader::new(rest);
    let new = new.as_chunks_mut::<BYTES>().0.iter_mut();
    for ((old, new), group) in values::<BYTES>(old).zip(new).zip(&groups) {
        let place = &mut next[usize::from(*group)];
        let (mut magnitude, after) = magnitude(symbols[*place]);
        *place += 1;
        let mut falls = 0;
        if magnitude > 0 {
            let (low, sign) = take_digits(&mut digits, after)?;
            (magnitude, falls) = (magnitude | low, sign);
        }
        new.copy_from_slice(&keys.changed(old, magnitude, falls).to_le_bytes()[..BYTES]);
    }
    digits.finish()
}

/// The decoded symbols of a block.
struct Symbols<'a> {
    /// The place of the first symbol of each group.
    starts: Vec<usize>,
    /// The symbols, group by group.
    all: Vec<u8>,
    /// The bytes after them.
    rest: &'a [u8],
}

fn decode_symbols<'a>(keys: Keys, groups: &[u8], mut reader: Reader<'a>) -> Result<Symbols<'a>, Invalid> {
    let mut counts = [0; RANGES];
    groups.iter().for_each(|group| counts[usize::from(*group)] += 1);
    let starts = starts(counts.into_iter());
    let mut tables = Vec::new();
    for (group, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let table = Table::read(&mut reader, keys)?;
        let bytes = if table.weights.len() > 1 { reader.take_golomb(LENGTH_ORDER)? as usize } else { 0 };
        tables.push((table, bytes, starts[group]..starts[group] + count));
    }
    let mut rest = reader.rest()?;
    let mut symbols = vec![0; groups.len()];
    for (table, bytes, places) in tables {
        let (coded, after) = rest.split_at_checked(bytes).ok_or_else(|| {
            Invalid(format!("symbols have {bytes} bytes, but the block has only {} more", rest.len()))
        })?;
        rest = after;
        let symbols = &mut symbols[places];
        if bytes > 0 {
            let lanes = table.lanes(symbols.len());
            Decoder::new(&table.frequencies()).decode(lanes, coded, symbols)?;
        }
        symbols.iter_mut().for_each(|symbol| *symbol += table.least);
    }
    Ok(Symbols { starts, all: symbols, rest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::CHUNK;

    /// Pseudo-random numbers (splitmix64).
    fn random(seed: u64) -> impl Iterator<Item = u64> {
        (1..).map(move |i: u64| {
            let mut x = i.wrapping_add(seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        })
    }

    fn bytes(values: impl Iterator<Item = u64>, dtype: Dtype) -> Vec<u8> {
        values.flat_map(|x| x.to_le_bytes()[..dtype.bytes()].to_vec()).collect()
    }

    #[track_caller]
    fn check(dtype: Dtype, old: &[u8], new: &[u8]) -> usize {
        let coded = encode(dtype, old, new);
        assert!(coded.len() <= new.len() + 1);
        let mut found = vec![0xaa; new.len()];
        decode(dtype, old, &coded, &mut found).unwrap();
        assert_eq!(found, new, "{dtype}");
        coded.len()
    }

    #[test]
    fn any_bits_come_back() {
        for dtype in Dtype::ALL {
            for len in [0, 1, 7, 2500] {
                for digits in [3, 12, 64] {
                    let old = bytes(random(1).take(len), dtype);
                    let new = |(x, y): (u64, u64)| {
                        x ^ (y & (1u64.checked_shl(digits).unwrap_or(0).wrapping_sub(1)))
                    };
                    check(dtype, &old, &bytes(random(1).zip(random(2)).map(new).take(len), dtype));
                    // Multiples of a power of two, from or to zeros.
                    let few = bytes(random(3).map(|x| x << (digits % 32)).take(len), dtype);
                    check(dtype, &few, &vec![0; few.len()]);
                    check(dtype, &vec![0; few.len()], &few);
                    check(dtype, &few, &bytes(random(4).map(|x| x << (digits % 32)).take(len), dtype));
                }
            }
        }
    }

    #[test]
    fn every_pair_of_bytes_comes_back() {
        for dtype in [Dtype::U8, Dtype::I8, Dtype::Bool, Dtype::F8E4M3, Dtype::F8E5M2] {
            let old: Vec<u8> = (0..65_536).map(|i| (i >> 8) as u8).collect();
            let new: Vec<u8> = (0..65_536).map(|i| i as u8).collect();
            check(dtype, &old, &new);
            for i in (0..65_536).step_by(97) {
                check(dtype, &old[i..=i], &new[i..=i]);
            }
        }
    }

    #[test]
    fn keys_ascend_with_floats() {
        let ordered =
            [f32::NEG_INFINITY, -1.5, -1e-40, -0.0, 0.0, 1e-45, 1e-40, 1.0, f32::INFINITY, f32::NAN];
        let keys = Keys::new(Dtype::F32, 0);
        let all: Vec<u64> = ordered.map(|x| keys.key(u64::from(x.to_bits()))).to_vec();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        assert_eq!((all[4] - all[3], all[5] - all[4]), (1, 1));
    }

    #[test]
    fn symbols_and_digits_by_hand() {
        for (m, expected) in [
            (0, (0, 0)),
            (1, (1, 0)),
            (2, (2, 0)),
            (3, (3, 0)),
            (5, (4, 1)),
            (6, (5, 1)),
            (u64::MAX, (127, 62)),
        ] {
            assert_eq!(symbol(m), expected, "{m}");
            let (start, after) = magnitude(expected.0);
            assert_eq!((after, start | m & ((1 << after) - 1)), (expected.1, m));
        }
    }

    #[test]
    fn small_steps_take_few_bytes() {
        // Weights of very different size, all changed by about the same step.
        let weight = |(x, y): (u64, u64)| (x as f32 / u64::MAX as f32 - 0.5) * 0.5f32.powi((y % 8) as i32);
        let old: Vec<f32> = random(5).zip(random(6)).map(weight).take(CHUNK).collect();
        let step = |(x, y): (&f32, u64)| x + 1e-4 * (y as f32 / u64::MAX as f32 - 0.5);
        let new: Vec<f32> = old.iter().zip(random(7)).map(step).collect();
        let both =
            [&old, &new].map(|values| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        let per_value = check(Dtype::F32, &both[0], &both[1]) as f64 * 8.0 / CHUNK as f64;
        assert!((8.0..19.0).contains(&per_value), "{per_value} bits");
        // The same as bf16 in f32: the low half is zero and costs nothing.
        let cut = both.map(|bytes| bytes.chunks(4).flat_map(|x| [0, 0, x[2], x[3]]).collect::<Vec<u8>>());
        let per_value = check(Dtype::F32, &cut[0], &cut[1]) as f64 * 8.0 / CHUNK as f64;
        assert!(per_value < 3.0, "{per_value} bits");
    }

    #[test]
    fn few_changes_take_about_their_entropy() {
        let old = vec![7; 2 * CHUNK];
        for changes in [1, 10, 100, 1000] {
            let mut new = old.clone();
            (0..changes).for_each(|i| new[2 * (i * CHUNK / changes)] += 1);
            let portion = changes as f64 / CHUNK as f64;
            let entropy = -portion * portion.log2() - (1.0 - portion) * (1.0 - portion).log2();
            let least = (entropy * CHUNK as f64 + changes as f64) / 8.0;
            let found = check(Dtype::I16, &old, &new) as f64;
            assert!(found < 1.1 * least + 24.0, "{found} bytes for {changes} changes, least {least}");
        }
    }

    #[test]
    fn damaged_blocks_are_refused_or_decode_to_something() {
        let old = bytes(random(1).take(900), Dtype::F32);
        let new = bytes(random(1).zip(random(2)).map(|(x, y)| x ^ (y % 500)).take(900), Dtype::F32);
        let coded = encode(Dtype::F32, &old, &new);
        let mut out = vec![0; new.len()];
        for len in 1..coded.len() {
            assert!(decode(Dtype::F32, &old, &coded[..len], &mut out).is_err(), "{len} bytes");
        }
        assert!(decode(Dtype::F32, &old, &[&coded[..], &[0]].concat(), &mut out).is_err());
        for at in 0..coded.len() {
            for change in [1, 0x10, 0x80, 0xff] {
                let mut changed = coded.clone();
                changed[at] ^= change;
                let found = decode(Dtype::F32, &old, &changed, &mut out);
                assert!(found.is_err() || out != new, "byte {at}");
            }
        }
        for seed in 0..2000 {
            let len = random(seed).next().unwrap() as usize % 40;
            for dtype in [Dtype::F64, Dtype::BF16, Dtype::U8] {
                let _ =
                    decode(dtype, &old[..800], &bytes(random(seed).take(len), Dtype::U8), &mut out[..800]);
            }
        }
    }
}
