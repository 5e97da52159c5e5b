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

/// The most parts that a product with a vector is summed in. They depend on the size alone, so the sums have the same
/// bits on any number of threads.
const MOST_PARTS: usize = 32;

/// Values of the triangle that make a part worth its sums.
const PART: usize = 1 << 15;

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

    /// Calls `of` with each row from `from` on and its values from the diagonal on, on several threads.
    pub fn for_each_tail(&mut self, from: usize, of: impl Fn(usize, &mut [T]) + Sync) {
        let mut values = &mut self.values[start(self.size, from)..];
        let mut tails = Vec::with_capacity(self.size - from);
        for row in from..self.size {
            let (tail, rest) = values.split_at_mut(self.size - row);
            tails.push(tail);
            values = rest;
        }
        parallel::for_each(tails, (self.size - from) / 2, |row, tail| of(from + row, tail));
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

    /// The product with a vector.
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        self.times_from(0, x)
    }

    /// The product of the rows and columns from `from` on with a vector. Reads each value once.
    pub fn times_from(&self, from: usize, x: &[f64]) -> Vec<f64> {
        let n = self.size - from;
        assert_eq!(x.len(), n, "a factor for each column");
        let bounds = bounds(n);
        let parts = bounds.len() - 1;
        let each = parallel::map(parts, n * n / (2 * parts), |k| {
            let mut sums = vec![0.0; n - bounds[k]];
            for row in bounds[k]..bounds[k + 1] {
                let own = add_row(self.tail(from + row), &x[row..], &mut sums[row - bounds[k]..]);
                sums[row - bounds[k]] += own;
            }
            sums
        });
        let mut each = each.into_iter();
        let mut sums = each.next().unwrap_or_default();
        for (part, first) in each.zip(&bounds[1..]) {
            sums[*first..].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        sums
    }
}

/// The rows at which the parts of a triangle begin, and the number of rows. All parts hold about as many values.
fn bounds(size: usize) -> Vec<usize> {
    let parts = (len(size) / PART).clamp(1, MOST_PARTS);
    // The rows from `row` on hold the share `(1 - row / size)^2` of all values.
    let first = |k: usize| size - (size as f64 * (1.0 - k as f64 / parts as f64).sqrt()).round() as usize;
    (0..=parts).map(first).collect()
}

/// The product of a row, from the diagonal on, with its part of `x`. Adds what the row gives to the sums of the columns
/// right of the diagonal.
fn add_row(row: &[f64], x: &[f64], sums: &mut [f64]) -> f64 {
    let (factor, diagonal) = (x[0], row[0] * x[0]);
    let (eights, rest) = row[1..].as_chunks::<8>();
    let (x_eights, x_rest) = x[1..].as_chunks::<8>();
    let (sum_eights, sum_rest) = sums[1..].as_chunks_mut::<8>();
    // Eight sums side by side: a sum alone waits for each of its additions.
    let mut own = [0.0; 8];
    for ((a, x), sums) in eights.iter().zip(x_eights).zip(sum_eights) {
        for k in 0..8 {
            sums[k] += a[k] * factor;
            own[k] += a[k] * x[k];
        }
    }
    let mut last = 0.0;
    for ((a, x), sum) in rest.iter().zip(x_rest).zip(sum_rest) {
        *sum += a * factor;
        last += a * x;
    }
    diagonal + own.iter().sum::<f64>() + last
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
    fn a_product_is_that_of_whole_rows_on_any_threads() {
        for n in [1, 2, 7, 8, 9, 63, 64, 65, 150, 700, 1100] {
            let (triangle, x) = (sample(n), (0..n).map(|i| (i as f64 * 1.7).cos()).collect::<Vec<f64>>());
            let products = triangle.times(&x);
            for (i, got) in products.iter().enumerate() {
                let terms: Vec<f64> = (0..n).map(|j| triangle.at(i, j) * x[j]).collect();
                let size = terms.iter().map(|term| term.abs()).sum::<f64>();
                let want = terms.iter().sum::<f64>();
                assert!((got - want).abs() <= 1e-15 * size, "row {i} of {n}: {got} {want}");
            }
            let bits = |products: &[f64]| products.iter().map(|y| y.to_bits()).collect::<Vec<u64>>();
            let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(bits(&products), bits(&one.install(|| triangle.times(&x))), "{n} rows");
            let from = n / 3;
            let below = Triangle::new(n - from, |i, j| triangle.at(from + i, from + j));
            assert_eq!(bits(&triangle.times_from(from, &x[from..])), bits(&below.times(&x[from..])));
        }
    }

    #[test]
    fn parts_cover_all_rows_and_hold_about_as_many_values() {
        for n in [0, 1, 255, 256, 1000, 3000, 10_000] {
            let bounds = bounds(n);
            assert_eq!((bounds[0], bounds[bounds.len() - 1]), (0, n));
            for part in bounds.windows(2) {
                let values = len(n - part[0]) - len(n - part[1]);
                let even = len(n) / (bounds.len() - 1);
                assert!(values.abs_diff(even) <= 2 * n, "{part:?} of {n}: {values}, {even} is even");
            }
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
