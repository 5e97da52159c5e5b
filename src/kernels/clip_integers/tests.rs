//! Sums and integers against wide arithmetic in this file, and on values that attack them.

use super::*;
use crate::kernels::lanes::Isa;
use half::{bf16, f16};

/// Values of tests are small multiples of two to the power of minus this.
const POINT: i32 = 48;

/// A value as a multiple of that unit.
fn fixed(x: f64) -> i128 {
    let scaled = x * 2f64.powi(POINT);
    assert!(scaled.fract() == 0.0 && scaled.abs() < 2f64.powi(62), "{x} is not one of them");
    scaled as i128
}

/// Multiples of 2^-40, of many magnitudes.
fn values(len: usize) -> Vec<f32> {
    let mut state = len as u64 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..len)
        .map(|_| {
            let (significand, shift) = (next() % (1 << 24), next() % 17);
            let sign = if next() % 2 == 0 { 1.0 } else { -1.0 };
            (sign * significand as f64 / 2f64.powi(24 + shift as i32)) as f32
        })
        .collect()
}

fn squares_of<E: Element>(row: &[E]) -> Squares {
    let mut squares = Squares::default();
    squares.add(row, &[]);
    squares
}

#[test]
fn norms_are_those_of_exact_sums() {
    for len in [1usize, 2, 3, 4, 5, 1000, 5001] {
        let values = values(len);
        let sum: i128 = values.iter().map(|x| fixed(f64::from(*x)).pow(2)).sum();
        let expected = (sum as f64).sqrt() / 2f64.powi(POINT);
        let found = squares_of(&values).norm();
        assert!((found - expected).abs() <= 2e-16 * expected, "{len}: {found} and {expected}");
        let base: Vec<f64> = values.iter().rev().map(|x| f64::from(*x) / 4.0).collect();
        let difference = |(x, base): (&f32, &f64)| (fixed(f64::from(*x)) - fixed(*base)).pow(2);
        let sum: i128 = values.iter().zip(&base).map(difference).sum();
        let mut squares = Squares::default();
        squares.add(&values, &base);
        let expected = (sum as f64).sqrt() / 2f64.powi(POINT);
        assert!((squares.norm() - expected).abs() <= 2e-16 * expected, "{len} with a base");
    }
}

#[test]
fn sums_of_squares_are_the_same_however_they_are_cut() {
    let mut values = values(3001);
    values.extend([f32::MAX, f32::MIN_POSITIVE, 1e-45, -0.0, 0.0]);
    let whole = squares_of(&values);
    for portion in [1, 7, 64, 3000] {
        let mut sum = Squares::default();
        values.rchunks(portion).for_each(|values| sum.merge(&squares_of(values)));
        assert_eq!(sum, whole, "by {portion}");
    }
    values[17] = values[17].next_up();
    assert_ne!(squares_of(&values), whole, "the smallest change shows");
}

#[test]
fn sums_of_squares_go_past_128_bits() {
    // The largest significand and alignment, whose squares are close to 2^120.
    let largest = f64::from_bits((1031 << 52) - 1);
    let found = squares_of(&vec![largest; 5000]).norm();
    assert!((found - largest * 5000f64.sqrt()).abs() <= 1e-14 * found, "{found}");
}

#[test]
fn floats_of_all_widths_have_their_norms() {
    assert_eq!(squares_of(&[f16::from_f32(3.0), f16::from_f32(-4.0)]).norm(), 5.0);
    assert_eq!(squares_of(&[bf16::from_f32(3.0), bf16::from_f32(-4.0)]).norm(), 5.0);
    assert_eq!(squares_of(&[3.0f32, -4.0]).norm(), 5.0);
    assert_eq!(squares_of(&[3.0f64, -4.0]).norm(), 5.0);
    // Updates have several tensors.
    let mut squares = squares_of(&[3.0f32]);
    squares.merge(&squares_of(&[4.0f64]));
    assert_eq!(squares.norm(), 5.0);
    for extreme in [f32::MAX, 1e-45, f32::MIN_POSITIVE] {
        assert_eq!(squares_of(&[extreme, 0.0]).norm(), f64::from(extreme));
    }
    for extreme in [1e308, 1e-307] {
        let norm = squares_of(&[extreme]).norm();
        assert!((norm / extreme - 1.0).abs() < 1e-15, "{norm:e}");
    }
    assert_eq!(squares_of::<f32>(&[]).norm(), 0.0);
    assert_eq!(squares_of(&[0.0f32, -0.0]).scale_to(5.0), None);
}

#[test]
fn what_is_not_finite_is_seen_anywhere() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 3, 65] {
            let mut values = values(66);
            assert!(squares_of(&values).is_finite());
            values[at] = bad;
            let mut sum = Squares::default();
            sum.merge(&squares_of(&values));
            assert!(!sum.is_finite(), "{bad} at {at}");
            let mut out = vec![1; 66];
            assert_eq!(quantize(Isa::detect(), &values, &[], Scale::ZERO, &mut out), 0);
            assert_eq!(out, [0; 66]);
        }
    }
    assert!(squares_of(&[f64::MAX]).is_finite() && !squares_of(&[f64::INFINITY]).is_finite());
}

#[test]
fn scales_are_rounded_down_and_in_order() {
    let numbers = [1e-30, 0.3, 1.0, 1.0 + 1e-9, 3.7, 1e30];
    let scales = numbers.map(|x| Scale::rounded_down(x, 0));
    assert!(scales.is_sorted() && scales.iter().all(|scale| *scale > Scale::ZERO));
    for (x, scale) in numbers.into_iter().zip(scales) {
        let number = 1.0 / scale.unit();
        assert!(number <= x * (1.0 + 1e-15) && number >= x * (1.0 - 2f64.powi(-31)), "{x} and {number}");
        let shrunk = 1.0 / scale.shrunk().unit() / number;
        assert!((shrunk - (1.0 - 2f64.powi(-12))).abs() < 1e-8, "{shrunk}");
        assert!(scale.shrunk().multiplier() >> 31 == 1 && scale.multiplier() >> 31 == 1);
        assert!(scale.weighted(0.5).unit() == 2.0 * scale.unit() && scale.weighted(1.0) == scale);
    }
    assert_eq!(Scale::rounded_down(2.0, -1), Scale::rounded_down(1.0, 0));
    assert_eq!(Scale::rounded_down(1.0, 0).weighted(0.0), Scale::ZERO);
    assert_eq!(Scale::ZERO.shrunk(), Scale::ZERO);
}

/// The definition: the full product, shifted.
fn plain(x: f64, scale: Scale) -> i64 {
    let product = fixed(x.abs()) as u128 * u128::from(scale.multiplier());
    let shift = POINT - scale.exponent();
    let magnitude = if shift > 127 { 0 } else { product >> shift } as i64;
    if x < 0.0 { -magnitude } else { magnitude }
}

#[test]
fn integers_are_products_rounded_toward_zero() {
    for isa in Isa::available() {
        for len in [0, 1, 7, 8, 9, 33, 1001] {
            let values = values(len);
            for (x, power) in [(1.0, 20), (1.7, 10), (1.999, 33), (1.3, -200), (1.0, 0)] {
                let scale = Scale::rounded_down(x, power);
                let mut found = vec![i64::MIN; len];
                let squares = quantize(isa, &values, &[], scale, &mut found);
                let expected: Vec<i64> = values.iter().map(|x| plain(f64::from(*x), scale)).collect();
                assert_eq!(found, expected, "{len} at {x} * 2^{power} on {isa}");
                let sum: u128 = expected.iter().map(|q| u128::from(q.unsigned_abs()).pow(2)).sum();
                assert_eq!(squares, sum, "{len} at {x} * 2^{power} on {isa}");
                // All 53 bits matter.
                let wide: Vec<f64> = values.iter().map(|x| f64::from(*x) + 2f64.powi(-46)).collect();
                let base: Vec<f64> = values.iter().rev().map(|x| f64::from(*x) / 8.0).collect();
                let differences = wide.iter().zip(&base).map(|(x, base)| x - base);
                let expected: Vec<i64> = differences.map(|x| plain(x, scale)).collect();
                quantize(isa, &wide, &base, scale, &mut found);
                assert_eq!(found, expected, "{len} with a base at {x} * 2^{power} on {isa}");
            }
        }
    }
}

#[test]
fn no_value_comes_to_more_than_it_is() {
    let scale = Scale::rounded_down(1.0, 0);
    for isa in Isa::available() {
        let values = [0.999_999_9f32, -0.999_999_9, 1.0, -1.999_999_9, 2.5, 1e-45, f32::MIN_POSITIVE, -0.0];
        let mut found = [9; 8];
        assert_eq!(quantize(isa, &values, &[], scale, &mut found), 6);
        assert_eq!(found, [0, 0, 1, -1, 2, 0, 0, 0]);
        // Subnormal f32 values count; subnormal f64 values do not.
        let far = Scale::rounded_down(1.0, 149);
        quantize(isa, &[1e-45f32, -3e-45], &[], far, &mut found[..2]);
        assert_eq!(found[..2], [1, -2]);
        let farther = Scale::rounded_down(1.0, 1074);
        quantize(isa, &[5e-324, f64::MIN_POSITIVE], &[], farther, &mut found[..2]);
        assert_eq!(found[0], 0);
        assert!(found[1] >= 1 << 51);
    }
}

#[test]
fn what_is_too_large_stays_too_large() {
    let scale = Scale::rounded_down(1.0, 40);
    for isa in Isa::available() {
        for huge in [f32::MAX, -f32::MAX, 1e20] {
            let mut found = [0; 3];
            let squares = quantize(isa, &[huge, 1.0, -1.0], &[], scale, &mut found);
            assert!(found[0].unsigned_abs() >= 1 << 51 && found[1] == 1 << 40, "{found:?}");
            assert!(squares >= 1 << 102);
        }
    }
}

/// Products that are whole numbers, or next to one. A product in f64 is rounded to that number from either side.
#[test]
fn products_next_to_whole_numbers_are_rounded_toward_zero() {
    let portable = Isa::named("portable").unwrap();
    let scales = [(1.7, 10), (1.000_000_000_3, 0), (1.999, 33), (1.0, 20), (1.3, -890), (1.7, 890)];
    for scale in scales.map(|(x, power)| Scale::rounded_down(x, power)) {
        let near = |whole: i32| {
            let x = f64::from(whole) * scale.unit();
            [x.next_down(), x, x.next_up(), -x, -x.next_down()]
        };
        let row: Vec<f64> = (1..700).flat_map(|i| near(i * i * i)).collect();
        let mut expected = vec![0; row.len()];
        let squares = quantize(portable, &row, &[], scale, &mut expected);
        for isa in Isa::available() {
            let mut found = vec![9; row.len()];
            assert_eq!(quantize(isa, &row, &[], scale, &mut found), squares, "{scale:?} on {isa}");
            assert_eq!(found, expected, "{scale:?} on {isa}");
        }
        assert!(
            row.iter().zip(&expected).all(|(x, q)| x.abs() / scale.unit() >= q.abs() as f64 * (1.0 - 1e-15))
        );
    }
}

#[test]
fn sums_get_what_quantize_makes() {
    for isa in Isa::available() {
        // Squares of small integers, of integers whose squares need 128 bits, and more values than one block.
        for (len, power) in [(33, 20), (33, 45), (5000, 20), (4097, 30)] {
            let row = values(len);
            let base: Vec<f64> = row.iter().rev().map(|x| f64::from(*x) / 8.0).collect();
            for base in [&[][..], &base] {
                let scale = Scale::rounded_down(1.7, power);
                let mut integers = vec![0; len];
                let squares = quantize(isa, &row, base, scale, &mut integers);
                let mut sums: Vec<i64> = (0..len as i64).collect();
                assert_eq!(add_quantized(isa, &row, base, scale, &mut sums), squares);
                let expected = integers.iter().enumerate().map(|(i, q)| i as i64 + q);
                assert!(sums.into_iter().eq(expected), "{len} at 2^{power} on {isa}");
                let sum: u128 = integers.iter().map(|q| u128::from(q.unsigned_abs()).pow(2)).sum();
                assert_eq!(squares, sum);
            }
        }
    }
}
