//! The sum of weighted rows: in f64 and in row order, or exactly.
//!
//! McMahan et al., Communication-efficient learning of deep networks from decentralized data, 2017, algorithm 1.
//! Product and sum are rounded separately, so every instruction set gives the same bits. A multiply-add is fused only
//! if that cannot change the result. The exact sum uses two f64, see [`exact_sum`](crate::kernels::exact_sum), or one
//! if that is enough. Agreement: bits on the CPU.

use crate::kernels::dispatch;
use crate::kernels::element::Element;
use crate::kernels::exact_sum::{Rounding, TRIED, exact_sum};
use crate::kernels::lanes::Arch;
use crate::model::tile::Rows;

/// Columns of a block, whose sums stay in the first-level cache.
const CHUNK: usize = 1024;

dispatch! {
    /// Adds `weights[i] * rows[i]` to `sums` for every row in order, with one weight per row. A value that is not
    /// finite makes a sum that is not finite.
    pub fn add_weighted<A: Arch, E: Element>(rows: &Rows<E>, weights: &[f64], sums: &mut [f64]) {
        assert_eq!(rows.len(), weights.len(), "one weight a row");
        if A::FUSES && weights.iter().all(|weight| product_is_exact::<E>(*weight)) {
            add_rows(rows, weights, sums, f64::mul_add);
        } else {
            add_rows(rows, weights, sums, |x, weight, sum| sum + x * weight);
        }
    }
}

dispatch! {
    /// Adds `weights[i] * rows[i]` to `sums` for every row, with one weight per row, and the rounding errors to
    /// `errors`. Both together do not depend on the order of rows. A value that is not finite makes sums that are not
    /// finite.
    pub fn add_weighted_exactly<A: Arch, E: Element>(
        rows: &Rows<E>,
        weights: &[f64],
        sums: &mut [f64],
        errors: &mut [f64],
    ) {
        assert_eq!(rows.len(), weights.len(), "one weight a row");
        let products_are_exact = weights.iter().all(|weight| product_is_exact::<E>(*weight));
        let mut before = [0.0; TRIED];
        for (chunk, (sums, errors)) in sums.chunks_mut(TRIED).zip(errors.chunks_mut(TRIED)).enumerate() {
            let before = &mut before[..sums.len()];
            for (group, weights) in weights.chunks(4).enumerate() {
                let four = Four::new(rows, 4 * group, weights, chunk * TRIED, sums.len());
                if products_are_exact && Rounding::IS_SEEN {
                    Rounding::start(sums);
                    four.add::<A>(sums, before);
                    if !Rounding::end(sums) {
                        continue;
                    }
                    sums.copy_from_slice(before);
                }
                match (products_are_exact, A::FUSES) {
                    (true, true) => four.add_exactly(sums, errors, exact_product_fused),
                    (true, false) => four.add_exactly(sums, errors, exact_product),
                    (false, _) => four.add_exactly(sums, errors, rounded_product),
                }
            }
        }
    }
}

/// Some columns of four weighted rows. Missing rows are repeated with weight zero.
struct Four<'a, E> {
    rows: [&'a [E]; 4],
    weights: [f64; 4],
}

impl<'a, E: Element> Four<'a, E> {
    fn new(rows: &Rows<'a, E>, first: usize, weights: &[f64], column: usize, columns: usize) -> Self {
        let last = weights.len() - 1;
        Self {
            rows: std::array::from_fn(|i| &rows.row(first + i.min(last))[column..][..columns]),
            weights: std::array::from_fn(|i| weights.get(i).copied().unwrap_or(0.0)),
        }
    }

    /// Adds to sums whose products are exact, and stores the old sums in `before`.
    #[inline(always)]
    fn add<A: Arch>(&self, sums: &mut [f64], before: &mut [f64]) {
        let ([a, b, c, d], [u, v, w, x]) = (self.rows, self.weights);
        let add = |value: E, weight: f64, sum: f64| {
            if A::FUSES { value.widen().mul_add(weight, sum) } else { sum + value.widen() * weight }
        };
        for (((((sum, before), a), b), c), d) in sums.iter_mut().zip(before).zip(a).zip(b).zip(c).zip(d) {
            *before = *sum;
            *sum = add(*d, x, add(*c, w, add(*b, v, add(*a, u, *sum))));
        }
    }

    /// Adds to sums and errors. `add` returns the sum with a weighted value, and the rounding error.
    #[inline(always)]
    fn add_exactly(
        &self,
        sums: &mut [f64],
        errors: &mut [f64],
        add: impl Fn(f64, f64, f64) -> (f64, f64) + Copy,
    ) {
        let ([a, b, c, d], [u, v, w, x]) = (self.rows, self.weights);
        for (((((sum, error), a), b), c), d) in sums.iter_mut().zip(errors).zip(a).zip(b).zip(c).zip(d) {
            let (one, first) = add(a.widen(), u, *sum);
            let (two, second) = add(b.widen(), v, one);
            let (three, third) = add(c.widen(), w, two);
            let (four, fourth) = add(d.widen(), x, three);
            *sum = four;
            *error = *error + first + second + third + fourth;
        }
    }
}

/// The sum with an exact product, and its rounding error.
#[inline(always)]
fn exact_product(value: f64, weight: f64, sum: f64) -> (f64, f64) {
    exact_sum(sum, value * weight)
}

/// The same by fused multiply-adds, which do not change the result.
#[inline(always)]
fn exact_product_fused(value: f64, weight: f64, sum: f64) -> (f64, f64) {
    let total = value.mul_add(weight, sum);
    let from_product = total - sum;
    (total, (sum - (total - from_product)) + value.mul_add(weight, -from_product))
}

/// The sum with a rounded product, and the rounding errors of both.
#[inline(always)]
fn rounded_product(value: f64, weight: f64, sum: f64) -> (f64, f64) {
    let product = value * weight;
    let (total, rest) = exact_sum(sum, product);
    (total, rest + value.mul_add(weight, -product))
}

/// Whether the product of the weight and any float of this type is exact in f64. Fusing it with the sum then changes
/// nothing. Example counts are small integers, so the answer for them is yes.
fn product_is_exact<E: Element>(weight: f64) -> bool {
    let spare_bits = f64::SIGNIFICAND_BITS.saturating_sub(E::SIGNIFICAND_BITS);
    let unused = f64::SIGNIFICAND_BITS - spare_bits;
    let fits = weight.to_bits().trailing_zeros() >= unused;
    weight == 0.0 || fits && (1e-9..1e15).contains(&weight.abs()) && E::SIGNIFICAND_BITS < 53
}

/// Takes four rows at a time. Each sum is loaded and stored once for all four, and added to in their order.
#[inline(always)]
fn add_rows<E: Element>(
    rows: &Rows<E>,
    weights: &[f64],
    sums: &mut [f64],
    add: impl Fn(f64, f64, f64) -> f64 + Copy,
) {
    for (chunk, sums) in sums.chunks_mut(CHUNK).enumerate() {
        let len = sums.len();
        let row = |row: usize| &rows.row(row)[chunk * CHUNK..][..len];
        let mut first = 0;
        for weights in weights.chunks(4) {
            if let [u, v, w, x] = *weights {
                let (a, b) = (row(first), row(first + 1));
                let (c, d) = (row(first + 2), row(first + 3));
                for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    let two = add(b.widen(), v, add(a.widen(), u, *sum));
                    *sum = add(d.widen(), x, add(c.widen(), w, two));
                }
            } else {
                for (i, weight) in weights.iter().enumerate() {
                    for (sum, a) in sums.iter_mut().zip(row(first + i)) {
                        *sum = add(a.widen(), *weight, *sum);
                    }
                }
            }
            first += 4;
        }
    }
}
