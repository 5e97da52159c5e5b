//! Sums over every pair of rows: products, which make a Gram matrix, or squared differences.
//!
//! One read of the rows gives everything for rules that judge clients by distance. Products cost one multiply-add per
//! pair and coordinate, and lose the part that two rows share, so the caller centres the rows first. Squared
//! differences cost one subtraction more and lose nothing. The kernel takes rows in blocks of [`BLOCK`] coordinates.
//! Within a block, sums run in f32, in sixteen interleaved parts that are added as a tree. Blocks are added in f64. The
//! order of additions in a pair's sum depends on nothing else, and every multiply-add is fused. So every instruction
//! set gives the same bits. Agreement: bits on the CPU. To the true sum: [`RELATIVE_ERROR`] of the sum of magnitudes.

use crate::kernels::dispatch;
use crate::kernels::element::{Element, Merged};
use crate::kernels::lanes::{Arch, FLOATS, Floats};
use crate::model::tile::Rows;
use std::ops::Range;

/// Coordinates whose products are summed in f32.
pub const BLOCK: usize = 1024;

/// The largest error of a sum over one block, relative to the sum of its terms' magnitudes. Each of the sixteen parts
/// adds `BLOCK / 16` terms, the tree adds four times, and a term carries the rounding of its inputs.
pub const RELATIVE_ERROR: f64 = (BLOCK / FLOATS + 8) as f64 * (f32::EPSILON / 2.0) as f64;

/// Rows of a group. A group and `GROUPS` others stay in the second-level cache.
pub const GROUP: usize = 32;

/// Groups that are paired with each group at once.
const GROUPS: usize = 4;

/// The place of a row's first sum in a triangle of sums over the pairs of `n` rows.
#[inline(always)]
fn place(n: usize, row: usize) -> usize {
    row * (2 * n - row + 1) / 2
}

/// The term to sum over a pair of rows.
pub trait Term: Copy {
    /// Adds the terms of sixteen coordinates.
    fn add<F: Floats>(a: F, b: F, sum: F) -> F;
    /// The term of one coordinate.
    fn of(a: f64, b: f64) -> f64;
}

/// `a * b`.
#[derive(Clone, Copy, Debug)]
pub struct Product;

impl Term for Product {
    #[inline(always)]
    fn add<F: Floats>(a: F, b: F, sum: F) -> F {
        a.times_plus(b, sum)
    }
    #[inline(always)]
    fn of(a: f64, b: f64) -> f64 {
        a * b
    }
}

/// `(a - b)^2`.
#[derive(Clone, Copy, Debug)]
pub struct SquaredDifference;

impl Term for SquaredDifference {
    #[inline(always)]
    fn add<F: Floats>(a: F, b: F, sum: F) -> F {
        let difference = a.minus(b);
        difference.times_plus(difference, sum)
    }
    #[inline(always)]
    fn of(a: f64, b: f64) -> f64 {
        (a - b) * (a - b)
    }
}

dispatch! {
    /// Adds the sum over all columns of each pair of rows `i <= j`, where `i` is in `part`, to the sums of a triangle:
    /// those of these rows, row by row, each from `j = i` on. Rows have at most [`BLOCK`] columns. The columns after the
    /// last one, up to a whole vector, must be zeros. A part starts at a multiple of [`GROUP`].
    pub fn add_pair_sums<A: Arch, T: Term>(rows: &Rows<f32>, part: Range<usize>, sums: &mut [f64]) {
        let n = rows.len();
        assert!(rows.columns() <= BLOCK && part.start.is_multiple_of(GROUP), "one block, whole groups");
        assert!(part.end <= n && sums.len() == place(n, part.end) - place(n, part.start), "a sum for each pair");
        for group in part.clone().step_by(GROUPS * GROUP) {
            for other in (group..n).step_by(GROUP) {
                for first in (group..(group + GROUPS * GROUP).min(part.end)).step_by(A::SQUARE) {
                    for second in (other.max(first)..(other + GROUP).min(n)).step_by(A::SQUARE) {
                        let sums = (part.start, &mut *sums);
                        // The bits do not depend on the number of rows computed together.
                        match (A::SQUARE, first == second, n - second) {
                            (4, false, 4..) => add_rectangle::<A, T, 4, 4, 16>(rows, first, second, sums),
                            (4, false, 1) => add_rectangle::<A, T, 4, 1, 4>(rows, first, second, sums),
                            (4, false, 2) => add_rectangle::<A, T, 4, 2, 8>(rows, first, second, sums),
                            (4, false, _) => add_rectangle::<A, T, 4, 3, 12>(rows, first, second, sums),
                            (2, false, 2..) => add_rectangle::<A, T, 2, 2, 4>(rows, first, second, sums),
                            (2, false, _) => add_rectangle::<A, T, 2, 1, 2>(rows, first, second, sums),
                            (4, true, 4..) => add_triangle::<A, T, 4, 16>(rows, first, sums),
                            (2.., true, 2..) => {
                                let (start, sums) = sums;
                                add_triangle::<A, T, 2, 4>(rows, first, (start, sums));
                                if n - second == 3 && A::SQUARE == 4 {
                                    add_rectangle::<A, T, 2, 1, 2>(rows, first, first + 2, (start, sums));
                                    add_triangle::<A, T, 1, 1>(rows, first + 2, (start, sums));
                                }
                            }
                            _ => add_triangle::<A, T, 1, 1>(rows, first, sums),
                        }
                    }
                }
            }
        }
    }
}

/// Adds the sums of `R` rows from `first` on with `C` rows from `second` on: `N` pairs.
#[inline(always)]
fn add_rectangle<A: Arch, T: Term, const R: usize, const C: usize, const N: usize>(
    rows: &Rows<f32>,
    first: usize,
    second: usize,
    (start, sums): (usize, &mut [f64]),
) {
    let (a, b) = (starts::<R>(rows, first), starts::<C>(rows, second));
    let mut parts = [A::Floats::zero(); N];
    for column in (0..rows.whole_columns()).step_by(FLOATS) {
        let mut x = [A::Floats::zero(); R];
        for r in 0..R {
            // SAFETY: the length of a whole row is a multiple of the vector's, and `column` is one too.
            x[r] = unsafe { A::Floats::load(a[r].add(column)) };
        }
        for c in 0..C {
            // SAFETY: as above.
            let y = unsafe { A::Floats::load(b[c].add(column)) };
            for r in 0..R {
                parts[r * C + c] = T::add(x[r], y, parts[r * C + c]);
            }
        }
    }
    let parts = A::Floats::sums_of(parts);
    for r in 0..R {
        let place = place(rows.len(), first + r) - place(rows.len(), start) + second - (first + r);
        let sums = &mut sums[place..][..C];
        for c in 0..C {
            sums[c] += f64::from(parts[r * C + c]);
        }
    }
}

/// Adds the sums of `R` rows from `first` on with each other; `N` is `R * R`.
#[inline(always)]
fn add_triangle<A: Arch, T: Term, const R: usize, const N: usize>(
    rows: &Rows<f32>,
    first: usize,
    (start, sums): (usize, &mut [f64]),
) {
    let a = starts::<R>(rows, first);
    let mut parts = [A::Floats::zero(); N];
    for column in (0..rows.whole_columns()).step_by(FLOATS) {
        let mut x = [A::Floats::zero(); R];
        for r in 0..R {
            // SAFETY: the length of a whole row is a multiple of the vector's, and `column` is one too.
            x[r] = unsafe { A::Floats::load(a[r].add(column)) };
        }
        for r in 0..R {
            for c in r..R {
                parts[r * R + c] = T::add(x[r], x[c], parts[r * R + c]);
            }
        }
    }
    let parts = A::Floats::sums_of(parts);
    for r in 0..R {
        let place = place(rows.len(), first + r) - place(rows.len(), start);
        for c in r..R {
            sums[place + c - r] += f64::from(parts[r * R + c]);
        }
    }
}

/// Pointers to the starts of `R` rows.
#[inline(always)]
fn starts<const R: usize>(rows: &Rows<f32>, first: usize) -> [*const f32; R] {
    let mut starts = [std::ptr::null(); R];
    for (r, start) in starts.iter_mut().enumerate() {
        *start = rows.whole_row(first + r).as_ptr();
    }
    starts
}

/// Partial sums of a pair in f64.
const WIDE_PARTS: usize = 8;

/// Rows that one row is paired with at once in f64, so that their sums are independent.
const WIDE_ROWS: usize = 4;

dispatch! {
    /// The sums of [`add_pair_sums`] in f64 throughout. For f64 rows, for values whose squares overflow f32, and for
    /// choices that depend on less than the error of sums in f32.
    pub fn add_wide_pair_sums<A: Arch, T: Term>(rows: &Rows<f64>, part: Range<usize>, sums: &mut [f64]) {
        let n = rows.len();
        assert!(part.end <= n && sums.len() == place(n, part.end) - place(n, part.start), "a sum for each pair");
        for i in part.clone() {
            let sums = &mut sums[place(n, i) - place(n, part.start)..][..n - i];
            for j in (i..n).step_by(WIDE_ROWS) {
                if n - j >= WIDE_ROWS {
                    add_wide_sums::<T, WIDE_ROWS>(rows, i, j, sums);
                } else {
                    (j..n).for_each(|j| add_wide_sums::<T, 1>(rows, i, j, sums));
                }
            }
        }
    }
}

/// Adds the sums of row `i` with `C` rows from `j` on to the sums of row `i`. The order of additions does not depend on
/// `C`.
#[inline(always)]
fn add_wide_sums<T: Term, const C: usize>(rows: &Rows<f64>, i: usize, j: usize, sums: &mut [f64]) {
    let (a, a_rest) = rows.row(i).as_chunks::<WIDE_PARTS>();
    let mut parts = [[0.0; WIDE_PARTS]; C];
    let others: [(&[[f64; WIDE_PARTS]], &[f64]); C] = std::array::from_fn(|c| rows.row(j + c).as_chunks());
    for k in 0..a.len() {
        for c in 0..C {
            let b = &others[c].0[..a.len()][k];
            for lane in 0..WIDE_PARTS {
                parts[c][lane] += T::of(a[k][lane], b[lane]);
            }
        }
    }
    for c in 0..C {
        for (lane, (a, b)) in a_rest.iter().zip(others[c].1).enumerate() {
            parts[c][lane] += T::of(*a, *b);
        }
        sums[j - i + c] += parts[c].iter().sum::<f64>();
    }
}

dispatch! {
    /// Writes `row - centre` to `out`, rounded to f32; an empty centre is zero. Returns the bits of the largest
    /// magnitude written. They are at least those of infinity if a value is not finite or does not fit.
    pub fn centre<A: Arch, E: Element, C: Merged>(row: &[E], centre: &[C], out: &mut [f32]) -> u32 {
        let out = &mut out[..row.len()];
        let mut largest = 0;
        if centre.is_empty() {
            for (out, x) in out.iter_mut().zip(row) {
                *out = x.narrow();
                largest = largest.max(out.to_bits() & 0x7fff_ffff);
            }
        } else {
            for ((out, x), centre) in out.iter_mut().zip(row).zip(&centre[..row.len()]) {
                *out = centre.less_from(*x);
                largest = largest.max(out.to_bits() & 0x7fff_ffff);
            }
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use crate::model::tile::TileBuffer;

    fn filled(n: usize, columns: usize) -> TileBuffer {
        let mut tile = TileBuffer::new(n, BLOCK * 4);
        for i in 0..n {
            let row: &mut [f32] = bytemuck::cast_slice_mut(tile.row_mut(i));
            for (j, x) in row[..columns].iter_mut().enumerate() {
                *x = ((i * 37 + j * 11) as f32 * 0.731).sin();
            }
        }
        tile
    }

    fn check<T: Term>(n: usize, columns: usize) {
        let tile = filled(n, columns);
        let rows = tile.rows::<f32>(n, columns);
        let mut portable = vec![1.0; place(n, n)];
        add_pair_sums::<T>(Isa::named("portable").unwrap(), &rows, 0..n, &mut portable);
        for isa in Isa::available() {
            let mut sums = vec![1.0; place(n, n)];
            add_pair_sums::<T>(isa, &rows, 0..n, &mut sums);
            assert_eq!(sums, portable, "{n} rows of {columns} on {isa}");
            let (mut parts, middle) = (vec![1.0; place(n, n)], n / 2 / GROUP * GROUP);
            let (low, high) = parts.split_at_mut(place(n, middle));
            add_pair_sums::<T>(isa, &rows, middle..n, high);
            add_pair_sums::<T>(isa, &rows, 0..middle, low);
            assert_eq!(parts, portable, "{n} rows of {columns} in parts");
        }
        for i in 0..n {
            for j in i..n {
                let terms =
                    || rows.row(i).iter().zip(rows.row(j)).map(|(a, b)| T::of(f64::from(*a), f64::from(*b)));
                let (sum, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                let sum_at = portable[place(n, i) + j - i];
                let got = sum_at - 1.0;
                assert!((got - sum).abs() <= RELATIVE_ERROR * size + 1e-15, "{i} {j}: {got} {sum}");
                assert_ne!(sum_at, if columns > 0 && sum.abs() > 1e-9 { 1.0 } else { -1.0 });
            }
        }
    }

    #[test]
    fn pairs_sum_on_every_isa() {
        for n in [1, 2, 3, 4, 5, 31, 32, 33, 70] {
            for columns in [0, 1, 15, 16, 17, 1023, 1024] {
                if n < 8 || columns > 1000 {
                    check::<Product>(n, columns);
                    check::<SquaredDifference>(n, columns);
                }
            }
        }
    }

    #[test]
    fn wide_sums_are_the_plain_ones() {
        let mut tile = TileBuffer::new(3, 8 * 21);
        for i in 0..3 {
            let row: &mut [f64] = bytemuck::cast_slice_mut(tile.row_mut(i));
            for (j, x) in row[..21].iter_mut().enumerate() {
                *x = 1e100 * ((i * 5 + j) as f64).cos();
            }
        }
        let rows = tile.rows::<f64>(3, 21);
        for isa in Isa::available() {
            let mut sums = vec![0.0; 6];
            add_wide_pair_sums::<SquaredDifference>(isa, &rows, 0..3, &mut sums);
            let want: f64 = rows.row(0).iter().zip(rows.row(2)).map(|(a, b)| (a - b).powi(2)).sum();
            assert!((sums[2] - want).abs() <= 1e-14 * want);
            assert_eq!(sums[0], 0.0);
        }
    }

    #[test]
    fn centring_sees_what_does_not_fit() {
        for isa in Isa::available() {
            let mut out = [9.0f32; 4];
            let largest = centre(isa, &[1.0f32, -3.0, 0.5], &[1.0f32, 1.0, 1.0], &mut out);
            assert_eq!(out, [0.0, -4.0, -0.5, 9.0]);
            assert_eq!(f32::from_bits(largest), 4.0);
            assert!(f32::from_bits(centre(isa, &[3e38f32], &[-3e38f32], &mut out)).is_infinite());
            assert!(f32::from_bits(centre::<f32, f32>(isa, &[1.0, f32::NAN], &[], &mut out)).is_nan());
        }
    }
}
