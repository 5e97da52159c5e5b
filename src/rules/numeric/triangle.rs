//! Symmetric matrices, of which only the upper triangle is stored.
//!
//! With ten thousand clients a square of their products takes 800 MB, and the triangle half of that.

use crate::parallel;

/// A symmetric matrix: its upper triangle, row by row from the diagonal on.
#[derive(Clone, PartialEq, Debug)]
pub struct Triangle<T = f64> {
    size: usize,
    values: Vec<T>,
}

/// Rows whose products with a vector are added at once: they stay in the cache for both halves of the square.
const ROWS: usize = 64;

/// Rows that are summed side by side, since each sum waits for its last addition.
const ABREAST: usize = 8;

/// Columns that one thread takes at once.
const COLUMNS: usize = 512;

/// Sums of a product that one thread adds to, from some rows: one wait for the threads serves both kinds.
enum Part<'a> {
    /// Those of some of the rows themselves, and the place of the first.
    Own(usize, &'a mut [f64]),
    /// Those of columns behind all of the rows, and the place of the first.
    Behind(usize, &'a mut [f64]),
}

impl<T: Copy + Default + Send> Triangle<T> {
    /// The matrix whose value at row `i` and column `j`, and at row `j` and column `i`, is `at(i, j)` for `i <= j`. The
    /// rows are filled on several threads.
    pub fn new(size: usize, at: impl Fn(usize, usize) -> T + Sync) -> Self {
        let mut made = Self { size, values: vec![T::default(); len(size)] };
        made.for_each_tail(0, |i, tail| {
            tail.iter_mut().enumerate().for_each(|(k, value)| *value = at(i, i + k));
        });
        made
    }

    /// Keeps some rows and their columns, in place. `kept` is in ascending order.
    pub fn keep(&mut self, kept: &[usize]) {
        let (mut end, size) = (0, self.size);
        for (k, i) in kept.iter().enumerate() {
            let start = start(size, *i) - i;
            for j in &kept[k..] {
                self.values[end] = self.values[start + j];
                end += 1;
            }
        }
        self.values.truncate(end);
        self.size = kept.len();
    }

    /// Number of rows.
    pub fn size(&self) -> usize {
        self.size
    }

    /// One value.
    pub fn at(&self, row: usize, column: usize) -> T {
        let (low, high) = (row.min(column), row.max(column));
        self.values[start(self.size, low) + high - low]
    }

    /// One value, to change it at both of its places.
    pub fn at_mut(&mut self, row: usize, column: usize) -> &mut T {
        let (low, high) = (row.min(column), row.max(column));
        &mut self.values[start(self.size, low) + high - low]
    }

    /// One row from the diagonal on.
    pub fn tail(&self, row: usize) -> &[T] {
        &self.values[start(self.size, row)..][..self.size - row]
    }

    /// The rows from `from` on, one after the other, each from the diagonal on.
    pub fn rows_mut(&mut self, from: usize) -> &mut [T] {
        &mut self.values[start(self.size, from)..]
    }

    /// Calls `of` with each row from `from` on and its values from the diagonal on, on several threads.
    pub fn for_each_tail(&mut self, from: usize, of: impl Fn(usize, &mut [T]) + Sync) {
        let size = self.size;
        let mut values = self.rows_mut(from);
        let mut tails = Vec::with_capacity(size - from);
        for row in from..size {
            let (tail, rest) = values.split_at_mut(size - row);
            tails.push(tail);
            values = rest;
        }
        parallel::for_each(tails, (size - from) / 2, |row, tail| of(from + row, tail));
    }
}

impl Triangle {
    /// The matrix with these values: its upper triangle, row by row from the diagonal on.
    pub fn of_values(size: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), len(size), "a triangle");
        Self { size, values }
    }

    /// The sum with a matrix of the same size.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        assert_eq!(self.size, other.size, "one size");
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a + b).collect();
        Self { size: self.size, values }
    }

    /// The matrix with its rows and columns multiplied by `factors`.
    #[must_use]
    pub fn scaled(mut self, factors: &[f64]) -> Self {
        self.for_each_tail(0, |i, tail| {
            tail.iter_mut().zip(&factors[i..]).for_each(|(x, factor)| *x *= factors[i] * factor);
        });
        self
    }

    /// The largest magnitude.
    pub fn largest(&self) -> f64 {
        self.values.iter().fold(0.0f64, |most, x| most.max(x.abs()))
    }

    /// The values on the diagonal.
    pub fn diagonal(&self) -> Vec<f64> {
        (0..self.size).map(|i| self.at(i, i)).collect()
    }

    /// Writes the first `columns` values of the rows from `first` on, one after the other, to `out`.
    pub fn copy_rows(&self, first: usize, columns: usize, out: &mut [f64]) {
        let rows = out.len() / columns;
        for i in 0..first.min(columns) {
            let tail = &self.tail(i)[first - i..][..rows];
            tail.iter().enumerate().for_each(|(r, x)| out[r * columns + i] = *x);
        }
        for r in 0..rows {
            let i = first + r;
            (first..i.min(columns)).for_each(|j| out[r * columns + j] = self.at(j, i));
            if i < columns {
                out[r * columns + i..][..columns - i].copy_from_slice(&self.tail(i)[..columns - i]);
            }
        }
    }

    /// The product with a vector. Each sum adds its terms in the order of columns, on any number of threads.
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        self.times_from(0, x)
    }

    /// The product of the rows and columns from `from` on with a vector.
    pub fn times_from(&self, from: usize, x: &[f64]) -> Vec<f64> {
        let n = self.size;
        assert_eq!(x.len(), n - from, "a factor for each column");
        let mut sums = vec![-0.0; n - from];
        for first in (from..n).step_by(ROWS) {
            let end = (first + ROWS).min(n);
            let (_, rest) = sums.split_at_mut(first - from);
            let (own, rest) = rest.split_at_mut(end - first);
            // Below the diagonal of these rows' own square.
            for i in first..end {
                add_times(&self.tail(i)[1..end - i], x[i - from], &mut own[i + 1 - first..]);
            }
            let own = own.chunks_mut(ABREAST).enumerate().map(|(k, sums)| Part::Own(k * ABREAST, sums));
            let rest = rest.chunks_mut(COLUMNS).enumerate().map(|(k, sums)| Part::Behind(k * COLUMNS, sums));
            parallel::for_each(own.chain(rest).collect(), ABREAST * (n - first), |_, part| match part {
                Part::Own(at, sums) => self.add_tails(first + at, &x[first + at - from..], sums),
                Part::Behind(at, sums) => {
                    for i in first..end {
                        add_times(&self.tail(i)[end + at - i..][..sums.len()], x[i - from], sums);
                    }
                }
            });
        }
        sums
    }

    /// Adds the products of the rows from `first` on, from their diagonals on, to their sums; `x` starts there.
    fn add_tails(&self, first: usize, x: &[f64], sums: &mut [f64]) {
        let count = sums.len();
        for (r, sum) in sums.iter_mut().enumerate() {
            self.tail(first + r)[..count - r].iter().zip(&x[r..]).for_each(|(a, x)| *sum += a * x);
        }
        let x = &x[count..];
        let tail = |r: usize| &self.tail(first + r)[count - r..][..x.len()];
        if let Ok(sums) = <&mut [f64; ABREAST]>::try_from(&mut *sums) {
            let tails: [&[f64]; ABREAST] = std::array::from_fn(tail);
            let mut own = *sums;
            for (k, x) in x.iter().enumerate() {
                for r in 0..ABREAST {
                    own[r] += tails[r][k] * x;
                }
            }
            *sums = own;
        } else {
            for (r, sum) in sums.iter_mut().enumerate() {
                tail(r).iter().zip(x).for_each(|(a, x)| *sum += a * x);
            }
        }
    }
}

/// Adds `factor` times a row to the sums.
fn add_times(row: &[f64], factor: f64, sums: &mut [f64]) {
    for (sum, a) in sums.iter_mut().zip(row) {
        *sum += a * factor;
    }
}

/// The number of values of a triangle with `size` rows.
pub fn len(size: usize) -> usize {
    size * (size + 1) / 2
}

/// The place of a row's first value, which is on the diagonal.
pub fn start(size: usize, row: usize) -> usize {
    row * (2 * size - row + 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: usize) -> Triangle {
        Triangle::new(n, |i, j| ((i * 7 + j * 13) as f64 * 0.37).sin() + f64::from(i == j))
    }

    #[test]
    fn a_product_has_the_bits_of_sums_over_whole_rows() {
        for n in [1, 2, 7, 8, 9, 63, 64, 65, 150, 700, 1100] {
            let (triangle, x) = (sample(n), (0..n).map(|i| (i as f64 * 1.7).cos()).collect::<Vec<f64>>());
            let plain: Vec<u64> =
                (0..n).map(|i| (0..n).map(|j| triangle.at(i, j) * x[j]).sum::<f64>().to_bits()).collect();
            let got: Vec<u64> = triangle.times(&x).iter().map(|y| y.to_bits()).collect();
            assert_eq!(got, plain, "{n} rows");
        }
    }

    #[test]
    fn rows_are_copied_and_kept() {
        let triangle = sample(20);
        for (first, rows, columns) in [(0, 20, 20), (5, 3, 20), (16, 4, 17), (18, 2, 17)] {
            let mut out = vec![f64::NAN; rows * columns];
            triangle.copy_rows(first, columns, &mut out);
            for (k, x) in out.iter().enumerate() {
                assert_eq!(*x, triangle.at(first + k / columns, k % columns), "{first} {k}");
            }
        }
        let (mut some, kept) = (triangle.clone(), [0, 3, 4, 11, 19]);
        some.keep(&kept);
        assert_eq!(some, Triangle::new(5, |i, j| triangle.at(kept[i], kept[j])));
    }
}
