//! Squared norm, dot product and largest magnitude of one row.
//!
//! Sums run in f64 in sixteen interleaved parts of fixed order, so every instruction set gives the
//! same bits. Agreement: bits on the CPU.

use crate::kernels::dispatch;
use crate::kernels::element::Element;

/// Partial sums of a row. The number is fixed, so that the order of additions is the same on every machine.
const PARTS: usize = 16;

dispatch! {
    /// The sum of `(row - base)^2`. `base` is as long as `row`, or empty for zero.
    pub fn squared_norm<A: Arch, E: Element>(row: &[E], base: &[f64]) -> f64 {
        sum_over(row, base, &[], |x, _| x * x)
    }
}

dispatch! {
    /// The sum of `(row - base) * other`. `base` is as long as `row`, or empty for zero.
    pub fn dot<A: Arch, E: Element>(row: &[E], base: &[f64], other: &[f64]) -> f64 {
        sum_over(row, base, &other[..row.len()], |x, y| x * y)
    }
}

dispatch! {
    /// The largest magnitude of the row, as f64; zero for an empty row.
    pub fn largest_magnitude<A: Arch, E: Element>(row: &[E]) -> f64 {
        let mut largest = 0.0f64;
        for x in row {
            largest = largest.max(x.widen().abs());
        }
        largest
    }
}

/// The sum of terms of `row - base` and `other`. An empty slice counts as zeros. Works in whole blocks, so that it
/// vectorises.
#[inline(always)]
fn sum_over<E: Element>(row: &[E], base: &[f64], other: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut parts = [0.0; PARTS];
    let (blocks, rest) = row.as_chunks::<PARTS>();
    let (base_blocks, base_rest) = base[..row.len().min(base.len())].as_chunks::<PARTS>();
    let (other_blocks, other_rest) = other.as_chunks::<PARTS>();
    for (number, block) in blocks.iter().enumerate() {
        let base = base_blocks.get(number).unwrap_or(&ZEROS);
        let other = other_blocks.get(number).unwrap_or(&ZEROS);
        for lane in 0..PARTS {
            parts[lane] += term(block[lane].widen() - base[lane], other[lane]);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        let beside = |values: &[f64]| values.get(lane).copied().unwrap_or(0.0);
        parts[lane] += term(x.widen() - beside(base_rest), beside(other_rest));
    }
    parts.iter().sum()
}

static ZEROS: [f64; PARTS] = [0.0; PARTS];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn sums_match_the_plain_ones_on_every_isa() {
        for len in [0usize, 1, 15, 16, 17, 1001] {
            let row: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin()).collect();
            let base: Vec<f64> = (0..len).map(|i| (i as f64 * 0.3).cos()).collect();
            let other: Vec<f64> = (0..len).map(|i| i as f64 - 5.0).collect();
            let deltas = || row.iter().zip(&base).map(|(x, b)| f64::from(*x) - b);
            let norm: f64 = deltas().map(|d| d * d).sum();
            let product: f64 = deltas().zip(&other).map(|(d, o)| d * o).sum();
            let portable = Isa::named("portable").unwrap();
            for isa in Isa::available() {
                let got = squared_norm(isa, &row, &base);
                assert!((got - norm).abs() <= 1e-13 * norm, "len {len} on {isa}");
                assert_eq!(got.to_bits(), squared_norm(portable, &row, &base).to_bits());
                let got = dot(isa, &row, &base, &other);
                assert!((got - product).abs() <= 1e-9, "len {len} on {isa}");
                assert_eq!(got.to_bits(), dot(portable, &row, &base, &other).to_bits());
                let plain: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
                assert!((squared_norm(isa, &row, &[]) - plain).abs() <= 1e-13 * plain);
            }
        }
    }

    #[test]
    fn largest_magnitude_takes_signs_off() {
        for isa in Isa::available() {
            assert_eq!(largest_magnitude::<f32>(isa, &[]), 0.0);
            assert_eq!(largest_magnitude(isa, &[1.0f32, -3.0, 2.0]), 3.0);
        }
    }
}
