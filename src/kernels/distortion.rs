//! The distance of decoded values from the originals: squares, squared errors, products.
//!
//! Sums run in f64, in sixteen parts that are added in one order at the end: the same bits on every processor.
//! Agreement: bits on the CPU.

use crate::kernels::dispatch;
use crate::kernels::lanes::{Doubles, FLOATS, Floats};

/// Sums over pairs of a value and its decoded value.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Distortion {
    /// Squares of the values.
    pub squares: f64,
    /// Squared differences.
    pub errors: f64,
    /// Squares of the decoded values.
    pub decoded: f64,
    /// Products of both.
    pub products: f64,
}

dispatch! {
    /// The sums over values and their decoded values, in slices of equal length.
    pub fn distortion<A: Arch>(values: &[f32], decoded: &[f32]) -> Distortion {
        let [squares, errors, decoded, products] = over_pairs::<A::Floats, 4>(values, decoded, |sums, x, y| {
            sums[0] = sums[0].plus_exact(x, x);
            sums[1] = sums[1].plus_square(x.minus(y));
            sums[2] = sums[2].plus_exact(y, y);
            sums[3] = sums[3].plus_exact(x, y);
        });
        Distortion { squares, errors, decoded, products }
    }
}

dispatch! {
    /// The squares of values, and their products with others, as in [`distortion`].
    pub fn products<A: Arch>(values: &[f32], others: &[f32]) -> [f64; 2] {
        over_pairs::<A::Floats, 2>(values, others, |sums, x, y| {
            sums[0] = sums[0].plus_exact(x, x);
            sums[1] = sums[1].plus_exact(x, y);
        })
    }
}

dispatch! {
    /// The sum of the squares of values, as in [`distortion`].
    pub fn squares<A: Arch>(values: &[f32]) -> f64 {
        let mut sum = <A::Floats as Floats>::Doubles::zero();
        let (blocks, rest) = values.as_chunks::<FLOATS>();
        let mut last = [0.0; FLOATS];
        last[..rest.len()].copy_from_slice(rest);
        for x in blocks.iter().chain([&last]) {
            // SAFETY: the array has the length of the load.
            let x = unsafe { A::Floats::load(x.as_ptr()) }.widen();
            sum = sum.plus_exact(x, x);
        }
        sum.lanes().iter().sum()
    }
}

/// `N` sums over pairs, sixteen pairs at a time. Zeros beside the rest add nothing.
#[inline(always)]
fn over_pairs<F: Floats, const N: usize>(
    values: &[f32],
    others: &[f32],
    add: impl Fn(&mut [F::Doubles; N], F::Doubles, F::Doubles),
) -> [f64; N] {
    let mut sums = [F::Doubles::zero(); N];
    let (blocks, rest) = values.as_chunks::<FLOATS>();
    let (other_blocks, other_rest) = others[..values.len()].as_chunks::<FLOATS>();
    let (mut x, mut y) = ([0.0; FLOATS], [0.0; FLOATS]);
    x[..rest.len()].copy_from_slice(rest);
    y[..rest.len()].copy_from_slice(other_rest);
    for (x, y) in blocks.iter().zip(other_blocks).chain([(&x, &y)]) {
        // SAFETY: both arrays have the length of the load.
        let (x, y) = unsafe { (F::load(x.as_ptr()).widen(), F::load(y.as_ptr()).widen()) };
        add(&mut sums, x, y);
    }
    sums.map(|sum| sum.lanes().iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn sums_are_those_of_the_values_on_every_isa() {
        for len in [0usize, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..len).map(|i| (i as f32 - 7.5) / 3.0).collect();
            let y: Vec<f32> = (0..len).map(|i| (i as f32 - 7.0) / 4.0).collect();
            let pairs = || x.iter().zip(&y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
            let sums: Vec<Distortion> =
                Isa::available().into_iter().map(|isa| distortion(isa, &x, &y)).collect();
            for found in &sums {
                assert_eq!(found, &sums[0]);
                let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} {b}");
                let parts = [found.squares, found.products];
                for isa in Isa::available() {
                    assert_eq!((squares(isa, &x), products(isa, &x, &y)), (found.squares, parts));
                }
                near(found.squares, pairs().map(|(x, _)| x * x).sum());
                near(found.errors, pairs().map(|(x, y)| (x - y) * (x - y)).sum());
                near(found.decoded, pairs().map(|(_, y)| y * y).sum());
                near(found.products, pairs().map(|(x, y)| x * y).sum());
            }
        }
    }
}
