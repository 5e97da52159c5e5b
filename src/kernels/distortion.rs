//! How far decoded values are from what they were: squares, squared errors, products.
//!
//! In f64, in sixteen sums that are added in one order at the end: the same bits on every processor. Agreement: bits on
//! the CPU.

use crate::kernels::dispatch;

/// Sums that are kept side by side.
const LANES: usize = 16;

/// Sums over pairs of a value and what it was decoded to.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Distortion {
    /// Squares of the values.
    pub squares: f64,
    /// Squared differences.
    pub errors: f64,
    /// Squares of what was decoded.
    pub decoded: f64,
    /// Products of both.
    pub products: f64,
}

dispatch! {
    /// The sums over values and as many decoded ones.
    pub fn distortion<A: Arch>(values: &[f32], decoded: &[f32]) -> Distortion {
        let mut sums = [[0.0f64; LANES]; 4];
        let (blocks, rest) = values.as_chunks::<LANES>();
        let (decoded_blocks, decoded_rest) = decoded[..values.len()].as_chunks::<LANES>();
        for (x, y) in blocks.iter().zip(decoded_blocks) {
            for lane in 0..LANES {
                add(&mut sums, lane, x[lane], y[lane]);
            }
        }
        for (lane, (x, y)) in rest.iter().zip(decoded_rest).enumerate() {
            add(&mut sums, lane, *x, *y);
        }
        let [squares, errors, decoded, products] = sums.map(|lanes| lanes.iter().sum());
        Distortion { squares, errors, decoded, products }
    }
}

#[inline(always)]
fn add(sums: &mut [[f64; LANES]; 4], lane: usize, x: f32, y: f32) {
    let (x, y) = (f64::from(x), f64::from(y));
    sums[0][lane] += x * x;
    sums[1][lane] += (x - y) * (x - y);
    sums[2][lane] += y * y;
    sums[3][lane] += x * y;
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
                near(found.squares, pairs().map(|(x, _)| x * x).sum());
                near(found.errors, pairs().map(|(x, y)| (x - y) * (x - y)).sum());
                near(found.decoded, pairs().map(|(_, y)| y * y).sum());
                near(found.products, pairs().map(|(x, y)| x * y).sum());
            }
        }
    }
}
