//! Tests of blocks, levels and rotations. `tests/quality/eden.rs` tests the error.

use super::*;
use crate::codecs::trial::{assert_refuses_damage, back, nmse, normal, shapes, trial_values};
use crate::kernels::norms::squared_norm;

fn eden(bits: u8, block: u32) -> Eden {
    Eden { bits, block, seed: 11 }
}

/// The density of the standard Gaussian.
fn density(t: f64) -> f64 {
    (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// Mass and first moment of the standard Gaussian between two places, by Simpson's rule.
fn mass_and_moment(a: f64, b: f64) -> (f64, f64) {
    let parts = 2000;
    let step = (b - a) / f64::from(parts);
    let mut sums = (0.0, 0.0);
    for i in 0..=parts {
        let weight = if i == 0 || i == parts { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
        let t = a + f64::from(i) * step;
        sums.0 += weight * density(t) * step / 3.0;
        sums.1 += weight * density(t) * t * step / 3.0;
    }
    sums
}

#[test]
fn each_level_is_the_mean_of_its_bin() {
    for bits in 1..=8u8 {
        let code = Code::of(bits);
        let count = 1usize << (bits - 1);
        assert_eq!((code.levels.len(), code.thresholds.len()), (2 * count, count - 1));
        for i in 0..count {
            let below = if i == 0 { 0.0 } else { f64::from(code.thresholds[i - 1]) };
            let above = code.thresholds.get(i).map_or(12.0, |t| f64::from(*t));
            let (mass, moment) = mass_and_moment(below, above);
            let error = f64::from(code.levels[i]) - moment / mass;
            assert!(error.abs() < 2e-6, "level {i} of {bits} bits is off by {error}");
            assert_eq!(code.levels[i + count], -code.levels[i]);
        }
    }
    let published = [0.24509, 0.75601, 1.34391, 2.15195];
    assert!(LEVELS[2].iter().zip(published).all(|(level, known)| (level - known).abs() < 1e-5));
}

#[test]
fn tails_are_padded_by_a_tenth_at_most() {
    let sizes = |len: usize| -> Vec<usize> {
        eden(1, 4096).tail(len).iter().map(|block| block.codes.len()).collect()
    };
    assert!(sizes(8192).is_empty());
    assert_eq!(sizes(200_003), [4096]);
    assert_eq!(sizes(250), [256]);
    assert_eq!(sizes(300), [256, 64]);
    assert_eq!(sizes(44), [32, 16]);
    assert_eq!(sizes(4096 + 5), [256]);
    assert_eq!(sizes(1), [1]);
    for len in (1..6000).step_by(7) {
        let tail = eden(1, 4096).tail(len);
        let (mut value, mut code) = (len / 4096 * 4096, len / 4096 * 4096);
        for block in &tail {
            assert_eq!((block.values.start, block.codes.start), (value, code));
            assert!(block.codes.len().is_power_of_two() && block.codes.len() >= block.values.len());
            // The signs of a block shorter than a word are in one word.
            assert_eq!(block.codes.start % block.codes.len().min(32), 0, "{len}");
            (value, code) = (block.values.end, block.codes.end);
        }
        assert_eq!(value, len);
        assert!(code - len <= len / 10, "{len} values become {code}");
    }
}

#[test]
fn rotations_turn_back_and_keep_norms() {
    let isa = Isa::detect();
    for len in [1, 2, 16, 256, 4096] {
        let block = Block { values: 4096..4096 + len, codes: 4096..4096 + len };
        let values = normal(len, 1);
        let mut rotated = values.clone();
        eden(1, 4096).rotate(isa, &PURPOSES, &block, &mut rotated);
        let norms = [&values, &rotated].map(|values| squared_norm(isa, values, &[]));
        assert!((norms[1] / norms[0] / (len * len) as f64 - 1.0).abs() < 1e-5);
        assert!(len < 256 || nmse(&values, &rotated) > 0.5);
        let mut back = vec![0.0; len];
        eden(1, 4096).rotate_back(isa, &block, 1.0 / len as f32, &mut rotated, &mut back);
        assert!(nmse(&values, &back) < 1e-12, "{len}");
    }
}

/// The NMSE of one bit a value with the scale for a mean, after these rounds.
fn one_bit_error(purposes: &[u32], values: &[f32], seed: u64) -> f64 {
    let (isa, len) = (Isa::detect(), values.len());
    let block = Block { values: 0..len, codes: 0..len };
    let mut rotated = values.to_vec();
    Eden { bits: 1, block: 4096, seed }.rotate(isa, purposes, &block, &mut rotated);
    let square: f64 = rotated.iter().map(|y| f64::from(*y).powi(2)).sum();
    let magnitudes: f64 = rotated.iter().map(|y| f64::from(y.abs())).sum();
    let scale = square / magnitudes;
    let error: f64 = rotated.iter().map(|y| (f64::from(y.abs()) - scale).powi(2)).sum();
    error / square
}

#[test]
fn one_round_does_not_do_for_sparse_vectors() {
    let mut values = vec![0.0; 4096];
    (values[17], values[2900]) = (1.0, 1.0);
    let mean =
        |purposes: &[u32]| (0..8).map(|seed| one_bit_error(purposes, &values, seed)).sum::<f64>() / 8.0;
    let (one, two) = (mean(&PURPOSES[..1]), mean(&PURPOSES));
    assert!((one - 1.0).abs() < 0.02, "one round: {one}");
    assert!((two - 0.572).abs() < 0.03, "two rounds: {two}");
}

#[test]
fn values_come_back_about_as_near_as_gaussian_ones() {
    for (what, values) in trial_values() {
        for text in ["eden1", "eden4:scale=min-error", "eden3:block=256,scale=norm", "eden8"] {
            let (_, decoded) = back(text, &shapes(values.len())[0], &values);
            let squares: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
            match what.as_str() {
                "zeros" => assert_eq!(decoded, values),
                // Their scales are subnormal, or end at the largest f32.
                "least" | "subnormal" | "the largest" | "3e38" => {}
                _ => {
                    let error = nmse(&values, &decoded);
                    assert!(squares == 0.0 || error < 0.9, "{text}, {what}: {error}");
                }
            }
        }
    }
}

#[test]
fn damage_is_refused() {
    for text in ["eden1", "eden3", "eden8:block=256"] {
        assert_refuses_damage(text);
    }
    let vector = &shapes(256)[0];
    let decode = |scale: f32| {
        let streams: [&[u8]; 2] = [&scale.to_le_bytes(), &[0x55; 32]];
        eden(1, 256).decode(Isa::detect(), vector, 0, &streams, &mut [0.0; 256])
    };
    decode(1.0).unwrap();
    assert!(decode(f32::NAN).unwrap_err().0.contains("as a scale"));
    for scheme in [eden(0, 256), eden(9, 256), eden(1, 0), eden(1, 128), eden(1, 300), eden(1, 1 << 17)] {
        assert!(scheme.streams(vector).is_err());
    }
}

/// Shaders have the bits of the CPU for levels from 2^-14 on.
#[test]
fn no_level_is_too_small_for_shaders() {
    let all = LEVELS.iter().flat_map(|levels| levels.iter());
    assert!(all.copied().fold(f32::INFINITY, f32::min) >= 1.0 / f32::from(1u16 << 14));
}
