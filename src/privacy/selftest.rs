//! Checks random words, noise and clipping on this machine against known values.
//!
//! A failed check reports what it found and what it expected. The noise comes from a fixed public key, so a check that
//! passes once always passes.

use crate::kernels::chacha20::{self, Stream, WORDS};
use crate::kernels::clip_integers::{Squares, quantize};
use crate::kernels::discrete_gaussian::{Level, noise};
use crate::kernels::lanes::Isa;
use crate::privacy::clipping::Grid;

/// The found and the expected value of a failed check; `None` if the check passed.
pub type Difference = Option<String>;

/// Largest distance of a moment from its expected value, in standard deviations. Good noise exceeds it once in two
/// million.
const FAR: f64 = 5.0;
/// The first words of the block of RFC 8439, section 2.3.2.
const KNOWN: [u32; 4] = [0xe4e7_f110, 0x1559_3bd1, 0x1fdd_0f50, 0xc471_20a3];

/// The stream of random words that the checks use.
pub fn stream(level: Level) -> Stream<'static> {
    Stream { key: b"this key is known to all readers", domain: u32::MAX, segment: level.blocks() as u32 }
}

/// Compares a block of random words with the published one.
pub fn known_block(isa: Isa) -> Difference {
    let key = std::array::from_fn(|i| i as u8);
    let stream = Stream { key: &key, domain: 0x4a00_0000, segment: 0 };
    let mut block = [[0; WORDS]];
    chacha20::blocks(isa, stream, 0x0900_0000_0000_0001, &mut block);
    let found = &block[0][..KNOWN.len()];
    (found != KNOWN).then(|| format!("found {found:08x?}, expected {KNOWN:08x?}"))
}

/// The noise of the first `coordinates` coordinates.
pub fn noise_of(isa: Isa, level: Level, coordinates: usize) -> Vec<i64> {
    let mut found = vec![0; coordinates];
    noise(isa, stream(level), level, 0, &mut found);
    found
}

/// Compares noise with expected noise.
pub fn compare(found: &[i64], expected: &[i64]) -> Difference {
    let place = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    Some(format!("coordinate {place}: found {}, expected {}", found[place], expected[place]))
}

/// Compares mean, variance, skewness and kurtosis of noise with those of a Gaussian.
pub fn moments(isa: Isa, level: Level, coordinates: usize) -> Difference {
    moments_of(&noise_of(isa, level, coordinates), level.sigma())
}

fn moments_of(noise: &[i64], sigma: f64) -> Difference {
    let count = noise.len() as f64;
    let moment = |power: i32| noise.iter().map(|x| (*x as f64 / sigma).powi(power)).sum::<f64>() / count;
    // Moments of a standard Gaussian, and the variances of the averaged powers.
    let known = [
        ("mean", 1, 0.0, 1.0),
        ("variance", 2, 1.0, 2.0),
        ("skewness", 3, 0.0, 15.0),
        ("kurtosis", 4, 3.0, 96.0),
    ];
    known.into_iter().find_map(|(name, power, expected, variance): (&str, i32, f64, f64)| {
        let (found, within) = (moment(power), FAR * (variance / count).sqrt());
        let is_off = (found - expected).abs() > within;
        is_off.then(|| format!("{name} {found:.5}, expected {expected} to {within:.5}"))
    })
}

/// Compares the norm of the integers with the bound, for updates made to break it.
pub fn sensitivity(isa: Isa) -> Difference {
    let grid = Grid::at(Level::L2, 1.0, 1.0).ok()?;
    let updates = [
        [f32::MAX; 9],
        [-1e-45; 9],
        [0.333_333_34; 9],
        [f32::NAN, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [3e38, 1e-38, -7.0, 0.1, 0.0, -0.0, 1e-45, -3e38, 1.0],
    ];
    updates.iter().find_map(|update| {
        let (mut squares, mut integers) = (Squares::default(), [0; 9]);
        squares.add(update, &[]);
        let sum = quantize(isa, update, &[], grid.clip(&squares, 1.0).scale, &mut integers);
        (!grid.admits(sum))
            .then(|| format!("{update:?}: squares add up to {sum}, expected {}^2 at most", grid.bound()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_passes() {
        for isa in Isa::available() {
            assert_eq!((known_block(isa), sensitivity(isa)), (None, None), "{isa}");
            for level in [Level::L2, Level::L3] {
                assert_eq!(moments(isa, level, 10_000), None, "{isa}");
                let expected = noise_of(Isa::detect(), level, 100);
                assert_eq!(compare(&noise_of(isa, level, 100), &expected), None, "{isa}");
            }
        }
    }

    #[test]
    fn bad_noise_is_noticed() {
        let good = noise_of(Isa::detect(), Level::L2, 10_000);
        let sigma = Level::L2.sigma();
        assert_eq!(moments_of(&good, sigma), None);
        let changed = |change: fn(f64) -> f64| {
            let noise: Vec<i64> = good.iter().map(|x| (change(*x as f64 / sigma) * sigma) as i64).collect();
            moments_of(&noise, sigma).unwrap()
        };
        assert!(changed(|x| x + 0.1).starts_with("mean"));
        assert!(changed(|x| 1.1 * x).starts_with("variance"));
        assert!(changed(|x| x + 0.05 * (x * x - 1.0)).starts_with("skewness"));
        assert!(changed(|x| 1.1335 * x.clamp(-1.5, 1.5)).starts_with("kurtosis"));
        let mut other_noise = good.clone();
        other_noise[77] += 1;
        assert!(compare(&other_noise, &good).unwrap().starts_with("coordinate 77: "));
    }
}
