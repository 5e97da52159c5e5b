//! Tests of the table, of the search in it, and of the distribution of noise.

use super::*;
use crate::kernels::chacha20::{WORDS, blocks};
use crate::kernels::lanes::Isa;

const KEY: [u8; 32] = *b"a key for tests, and no private ";

fn stream(domain: u32) -> Stream<'static> {
    Stream { key: &KEY, domain, segment: 7 }
}

/// A fixed-point number to compute the table: limbs of 32 bits, the lowest first, eight of them after the point.
mod fixed {
    const BEHIND: usize = 8;
    const LIMBS: usize = 14;
    pub(super) type Fixed = [u32; LIMBS];

    pub(super) fn one() -> Fixed {
        let mut one = [0; LIMBS];
        one[BEHIND] = 1;
        one
    }

    /// The limbs of the full product, from `from` on.
    fn product(a: &[u32], b: &[u32], from: usize) -> Fixed {
        let mut full = [0u32; 2 * LIMBS];
        for (i, x) in a.iter().enumerate() {
            let mut carry = 0;
            for (j, y) in b.iter().enumerate() {
                let sum = u64::from(*x) * u64::from(*y) + u64::from(full[i + j]) + carry;
                (full[i + j], carry) = (sum as u32, sum >> 32);
            }
            full[i + b.len()] = carry as u32;
        }
        std::array::from_fn(|i| full[i + from])
    }

    pub(super) fn times(a: &Fixed, b: &Fixed) -> Fixed {
        product(a, b, BEHIND)
    }

    /// The product with a whole number of 128 bits.
    pub(super) fn scaled(a: &Fixed, factor: u128) -> Fixed {
        let limbs = [0, 32, 64, 96].map(|shift| (factor >> shift) as u32);
        product(a, &limbs, 0)
    }

    pub(super) fn over(a: &Fixed, divisor: u32) -> Fixed {
        let (mut quotient, mut rest) = ([0; LIMBS], 0);
        for i in (0..LIMBS).rev() {
            let part = rest << 32 | u64::from(a[i]);
            (quotient[i], rest) = ((part / u64::from(divisor)) as u32, part % u64::from(divisor));
        }
        quotient
    }

    pub(super) fn plus(a: &Fixed, b: &Fixed) -> Fixed {
        let mut carry = 0;
        std::array::from_fn(|i| {
            let sum = u64::from(a[i]) + u64::from(b[i]) + carry;
            carry = sum >> 32;
            sum as u32
        })
    }

    /// `a - b`, which is not negative.
    pub(super) fn minus(a: &Fixed, b: &Fixed) -> Fixed {
        let mut borrow = 0;
        std::array::from_fn(|i| {
            let difference = i64::from(a[i]) - i64::from(b[i]) - borrow;
            borrow = i64::from(difference < 0);
            difference as u32
        })
    }

    pub(super) fn is_below(a: &Fixed, b: &Fixed) -> bool {
        a.iter().rev().lt(b.iter().rev())
    }
}

/// The weights exp(-x^2 / 8192) of 0, 1, 2 and so on, each within 2^-240.
fn weights(count: usize) -> Vec<fixed::Fixed> {
    // exp(-1/8192) by its series.
    let (mut root, mut term) = (fixed::one(), fixed::one());
    for k in 1..=24 {
        term = fixed::over(&term, 8192 * k);
        root = if k % 2 == 1 { fixed::minus(&root, &term) } else { fixed::plus(&root, &term) };
    }
    let square = fixed::times(&root, &root);
    // From x^2 to (x + 1)^2 the difference is 2x + 1.
    let (mut weight, mut ratio) = (fixed::one(), root);
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(weight);
        weight = fixed::times(&weight, &ratio);
        ratio = fixed::times(&ratio, &square);
    }
    all
}

/// Every threshold is 2^127 times the probability of its magnitude and all smaller ones, rounded down.
#[test]
fn thresholds_are_those_of_exact_arithmetic() {
    let weights = weights(1200);
    let sums: Vec<fixed::Fixed> = weights
        .iter()
        .enumerate()
        .scan([0; 14], |sum, (x, weight)| {
            *sum = fixed::plus(sum, weight);
            if x > 0 {
                *sum = fixed::plus(sum, weight);
            }
            Some(*sum)
        })
        .collect();
    let total = sums.last().unwrap();
    let is_floor = |threshold: u128, sum: &fixed::Fixed| {
        let scaled = fixed::scaled(sum, 1 << 127);
        !fixed::is_below(&scaled, &fixed::scaled(total, threshold))
            && fixed::is_below(&scaled, &fixed::scaled(total, threshold + 1))
    };
    for (magnitude, threshold) in THRESHOLDS[..MAGNITUDES - 1].iter().enumerate() {
        assert!(is_floor(*threshold, &sums[magnitude]), "threshold {magnitude}");
        assert!(!is_floor(threshold + 1, &sums[magnitude]) && !is_floor(threshold - 1, &sums[magnitude]));
    }
    assert_eq!(THRESHOLDS[MAGNITUDES - 1], 1 << 127);
    assert_eq!(THRESHOLDS[0], 0x00cc_4229_9ea1_b284_687e_59e2_805d_5c71);
    assert_eq!(THRESHOLDS[1], 0x0264_b9b8_ec5b_2fae_ae38_9425_18b8_36ab);
    assert_eq!(THRESHOLDS[64], 0x57dd_ef87_59e0_3a11_6d0a_2770_0985_2ef0);
}

/// The definition.
fn counted(uniform: u128) -> usize {
    THRESHOLDS.partition_point(|threshold| *threshold <= uniform)
}

#[test]
fn magnitudes_count_the_thresholds_passed() {
    let about = |x: u128| [x.wrapping_sub(1), x, x + 1];
    let mut tried: Vec<u128> = THRESHOLDS.iter().copied().flat_map(about).collect();
    tried.extend((0..CELLS).map(first_of).flat_map(about));
    tried.extend((0..127).map(|bit| UNIFORM - (1 << bit)).flat_map(about));
    tried.extend(random_draws(3, 2000).into_iter().map(|bits| bits & UNIFORM));
    for uniform in tried.into_iter().filter(|uniform| *uniform <= UNIFORM) {
        assert_eq!(magnitude(uniform), counted(uniform), "{uniform:#x}");
    }
    assert_eq!((magnitude(0), magnitude(UNIFORM)), (0, 860));
}

/// The reason why a fixed number of comparisons is enough: no more thresholds lie between the first draws of
/// neighbouring cells.
#[test]
fn no_cell_holds_more_thresholds_than_are_compared() {
    let within = |cell: usize| {
        let last = (cell + 1..CELLS).map(first_of).find(|next| *next > first_of(cell));
        counted(last.map_or(UNIFORM, |next| next - 1)) - counted(first_of(cell))
    };
    let most = (0..CELLS).map(within).max();
    assert_eq!(most, Some(COMPARED));
    // The cells are in order. Each draw is in the last cell whose first number is not above it.
    assert!((1..CELLS).all(|cell| first_of(cell - 1) <= first_of(cell)));
    for number in (0..CELLS).filter(|number| cell(first_of(*number)) != *number) {
        assert!(number >> FRACTION >= 127 - FRACTION as usize, "cell {number} is not empty");
    }
}

#[test]
fn the_highest_bit_is_the_sign_and_zero_has_none() {
    let second = THRESHOLDS[0];
    assert_eq!((value(0), value(1 << 127)), (0, 0));
    assert_eq!((value(second), value(1 << 127 | second)), (1, -1));
    assert_eq!((value(UNIFORM), value(u128::MAX)), (860, -860));
}

/// Draws of 128 bits: the four of each block.
fn random_draws(domain: u32, count: usize) -> Vec<u128> {
    let mut words = vec![[0; WORDS]; count.div_ceil(DRAWS)];
    blocks(Isa::detect(), stream(domain), 0, &mut words);
    let draw = |words: &[u32; 4]| words.iter().rev().fold(0, |bits, word| bits << 32 | u128::from(*word));
    words.iter().flat_map(|block| block.as_chunks().0).map(draw).take(count).collect()
}

/// Noise by its definition: whole blocks, a search for each draw, products.
fn plain(level: Level, first: u64, count: usize) -> Vec<i64> {
    let each = level.blocks();
    let mut words = vec![[0; WORDS]; count * each];
    blocks(Isa::named("portable").unwrap(), stream(1), first * each as u64, &mut words);
    let draw = |words: &[u32]| {
        let bits = (0..4).map(|i| u128::from(words[i]) << (32 * i)).sum::<u128>();
        let magnitude = counted(bits % (1 << 127)) as i64;
        if bits >> 127 == 1 { -magnitude } else { magnitude }
    };
    let of_block = |words: &[u32; WORDS]| {
        let [a, b, c, d] = [0, 4, 8, 12].map(|place| draw(&words[place..]));
        let last = if level == Level::L1 { 0 } else { d };
        (a + 32 * b) + 1024 * (c + 32 * last)
    };
    match level {
        Level::L1 => words.iter().map(of_block).collect(),
        Level::L2 => words.iter().map(of_block).collect(),
        Level::L3 => words.chunks(2).map(|two| of_block(&two[0]) + 1024 * of_block(&two[1])).collect(),
    }
}

#[test]
fn noise_is_as_defined_however_it_is_cut() {
    for level in [Level::L1, Level::L2, Level::L3] {
        for first in [0, 3, (1 << 32) - 9] {
            let expected = plain(level, first, 70);
            for isa in Isa::available() {
                for portion in [1, 7, 8, 15, 16, 17, 70] {
                    let mut found = vec![i64::MIN; 70];
                    for (number, found) in found.chunks_mut(portion).enumerate() {
                        noise(isa, stream(1), level, first + (number * portion) as u64, found);
                    }
                    assert_eq!(found, expected, "{level:?} from {first} by {portion} on {isa}");
                }
            }
        }
    }
    noise(Isa::detect(), stream(1), Level::L2, 0, &mut []);
}

#[test]
fn levels_are_what_their_draws_add_up_to() {
    let variances = |factors: &[u64]| 4096 * factors.iter().map(|factor| factor * factor).sum::<u64>();
    let block = [1, 32, 1024, 1 << 15];
    assert_eq!(Level::L1.variance(), variances(&block[..3]));
    assert_eq!(Level::L1.largest(), 860 * block[..3].iter().sum::<u64>() as i64);
    assert_eq!(Level::L2.variance(), variances(&block));
    let second = block.map(|factor| 1024 * factor);
    assert_eq!(Level::L3.variance(), variances(&block) + variances(&second));
    assert_eq!(Level::L2.largest(), 860 * block.iter().sum::<u64>() as i64);
    assert_eq!(Level::L3.largest(), 1025 * Level::L2.largest());
    assert!((Level::L2.sigma() - 2_098_176.750_6).abs() < 1e-4);
    assert!((Level::L3.sigma() - 2_148_534_017.125).abs() < 1e-3);
}

/// Pearson's statistic of draws against the table, minus its mean, over its standard deviation. Magnitudes from 240 on
/// share one bin.
fn chi_square(draws: &[i64]) -> f64 {
    const BINS: usize = 240;
    let mut counts = [0.0; 2 * BINS + 1];
    for draw in draws {
        counts[(BINS as i64 + draw.clamp(&-(BINS as i64), &(BINS as i64))) as usize] += 1.0;
    }
    let share = |below: usize| THRESHOLDS[below] as f64 / 2f64.powi(127);
    let expected = |magnitude: usize| {
        let mass = match magnitude {
            0 => return share(0),
            BINS => 1.0 - share(BINS - 1),
            _ => share(magnitude) - share(magnitude - 1),
        };
        mass / 2.0
    };
    let statistic: f64 = counts
        .iter()
        .enumerate()
        .map(|(bin, count)| {
            let expected = draws.len() as f64 * expected(bin.abs_diff(BINS));
            (count - expected) * (count - expected) / expected
        })
        .sum();
    let freedom = 2.0 * BINS as f64;
    (statistic - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn draws_are_of_the_discrete_gaussian() {
    let draws: Vec<i64> = random_draws(11, 1_000_000).into_iter().map(value).collect();
    let off = chi_square(&draws);
    assert!(off.abs() < 4.0, "off by {off} standard deviations");
    // The negative controls: one draw in 150 is replaced by zero, or all draws are larger by two.
    let mut zeros = draws.clone();
    zeros.iter_mut().step_by(150).for_each(|draw| *draw = 0);
    assert!(chi_square(&zeros) > 8.0);
    assert!(chi_square(&draws.iter().map(|draw| draw + 2).collect::<Vec<_>>()) > 8.0);
}

/// The probability that a standard Gaussian is below `x`: the density times x + x^3/3 + x^5/15 and so on.
fn below(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (0.0, x, 1.0);
    while term.abs() > 1e-18 {
        sum += term;
        k += 2.0;
        term *= x * x / k;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// The differences of samples from a standard Gaussian, in units of their standard deviation. Each figure is divided by
/// its random error.
struct Fit {
    mean: f64,
    variance: f64,
    skewness: f64,
    kurtosis: f64,
    /// Kolmogorov and Smirnov's largest distance between the distributions, times the root of the number of samples.
    distance: f64,
    /// The numbers of samples beyond 2, 3 and 4.
    tails: [f64; 3],
}

impl Fit {
    fn of(mut samples: Vec<f64>) -> Self {
        let count = samples.len() as f64;
        let moment = |power: i32| samples.iter().map(|x| x.powi(power)).sum::<f64>() / count;
        let off = |found: f64, expected: f64, variance: f64| (found - expected) * (count / variance).sqrt();
        let [mean, variance] = [off(moment(1), 0.0, 1.0), off(moment(2), 1.0, 2.0)];
        let [skewness, kurtosis] = [off(moment(3), 0.0, 15.0), off(moment(4), 3.0, 96.0)];
        let tails = [2.0, 3.0, 4.0].map(|bound| {
            let beyond = samples.iter().filter(|x| x.abs() > bound).count() as f64 / count;
            let expected = 2.0 * below(-bound);
            off(beyond, expected, expected)
        });
        samples.sort_by(f64::total_cmp);
        let gap = |(i, x): (usize, &f64)| {
            let share = below(*x);
            (share - i as f64 / count).abs().max((share - (i + 1) as f64 / count).abs())
        };
        let distance = samples.iter().enumerate().map(gap).fold(0.0, f64::max) * count.sqrt();
        Self { mean, variance, skewness, kurtosis, distance, tails }
    }

    /// A bound that one run in ten thousand exceeds.
    fn is_good(&self) -> bool {
        let moments = [self.mean, self.variance, self.skewness, self.kurtosis];
        moments.iter().chain(&self.tails).all(|off| off.abs() < 3.9) && self.distance < 2.2
    }
}

fn samples(level: Level, count: usize) -> Vec<f64> {
    let mut noise_of = vec![0; count];
    noise(Isa::detect(), stream(5), level, 0, &mut noise_of);
    assert!(noise_of.iter().all(|x| x.abs() <= level.largest()));
    noise_of.iter().map(|x| *x as f64 / level.sigma()).collect()
}

#[test]
fn noise_is_gaussian_at_all_levels() {
    for level in [Level::L1, Level::L2, Level::L3] {
        let samples = samples(level, 200_000);
        assert!(Fit::of(samples.clone()).is_good(), "{level:?}");
        // The negative controls: 2 % wider, shifted by as much, one-sided, and cut off at three.
        let changed =
            |change: fn(f64) -> f64| Fit::of(samples.iter().map(|x| change(*x)).collect()).is_good();
        assert!(!changed(|x| 1.02 * x) && !changed(|x| x + 0.02) && !changed(f64::abs));
        assert!(!changed(|x| x.clamp(-3.0, 3.0)));
    }
}

/// The lowest bits are uniform too. Otherwise the precision of floats would reveal the values under the noise.
#[test]
fn the_lowest_bits_are_even() {
    for level in [Level::L1, Level::L2, Level::L3] {
        let mut found = vec![0; 40_000];
        noise(Isa::detect(), stream(6), level, 0, &mut found);
        for bit in 0..6 {
            let ones = found.iter().filter(|x| **x >> bit & 1 == 1).count() as f64;
            assert!((ones - 20_000.0).abs() < 4.0 * 100.0, "bit {bit} of {level:?}: {ones} ones");
        }
    }
}

#[test]
fn coordinates_are_independent() {
    let samples = samples(Level::L2, 100_000);
    for apart in [1, 2, 4, 8, 16] {
        let products: f64 = samples.iter().zip(&samples[apart..]).map(|(a, b)| a * b).sum();
        assert!((products / 316.2).abs() < 4.0, "{apart} apart: {products}");
    }
}
