//! The values nearest to a median, chosen with integers, so that near ties are decided exactly.

use std::cmp::Ordering;

/// Bits per digit of the numbers below.
const DIGIT: usize = 32;
/// Digits that hold the sum of a few f64, in units of the smallest.
const DIGITS: usize = 68;

/// The comparison of the exact sum of floats with zero.
pub(crate) fn sign_of_sum(terms: &[f64]) -> Ordering {
    let mut digits = [0i64; DIGITS];
    for term in terms {
        assert!(term.is_finite(), "{term} has no place among numbers");
        let bits = term.to_bits();
        let exponent = (bits >> 52) as usize & 0x7ff;
        let integer = bits & ((1 << 52) - 1) | u64::from(exponent > 0) << 52;
        let place = exponent.max(1) - 1;
        let shifted = u128::from(integer) << (place % DIGIT);
        let sign = if term.is_sign_negative() { -1 } else { 1 };
        for i in 0..3 {
            digits[place / DIGIT + i] += sign * (shifted >> (DIGIT * i) & 0xffff_ffff) as i64;
        }
    }
    for i in 1..DIGITS {
        let over = digits[i - 1].div_euclid(1 << DIGIT);
        digits[i - 1] -= over << DIGIT;
        digits[i] += over;
    }
    // All but the top digit are not negative by now.
    match digits[DIGITS - 1] {
        0.. => digits.iter().any(|digit| *digit != 0).cmp(&false),
        _ => Ordering::Less,
    }
}

/// The `kept` values nearest to the median, in ascending order. Of two equally near values, the smaller one comes
/// first.
pub(crate) fn nearest_to_median(values: &[f64], kept: usize) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let (below, above) = (sorted[(n - 1) / 2], sorted[n / 2]);
    let is_farther =
        |i: usize| sign_of_sum(&[below, above, -sorted[i], -sorted[i + kept]]) == Ordering::Greater;
    let first = (0..n - kept).take_while(|i| is_farther(*i)).count();
    sorted[first..first + kept].to_vec()
}

#[test]
fn by_hand() {
    assert_eq!(sign_of_sum(&[]), Ordering::Equal);
    assert_eq!(sign_of_sum(&[1e300, 1.0, -1e300, -1.0]), Ordering::Equal);
    assert_eq!(sign_of_sum(&[1e300, 5e-324, -1e300, -0.0]), Ordering::Greater);
    assert_eq!(sign_of_sum(&[1e300, -5e-324, -1e300, 0.0]), Ordering::Less);
    assert_eq!(sign_of_sum(&[f64::MAX, f64::MAX, -f64::MAX, 1.0]), Ordering::Greater);
    assert_eq!(sign_of_sum(&[-f64::MAX, -f64::MAX, f64::MAX, 5e-324]), Ordering::Less);
    assert_eq!(sign_of_sum(&[0.1, 0.2, -0.3]), Ordering::Greater);
    assert_eq!(nearest_to_median(&[1.0, 9.0, 5.0, 2.0, 7.0], 3), [2.0, 5.0, 7.0]);
    assert_eq!(nearest_to_median(&[3.0, 1.0], 1), [1.0]);
    assert_eq!(nearest_to_median(&[0.0, 1e30, 1.0, 1e30], 3), [1.0, 1e30, 1e30]);
}
