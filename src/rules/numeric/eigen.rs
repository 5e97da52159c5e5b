//! Eigenvalues and eigenvectors of small symmetric matrices, with a row for each client.
//!
//! Householder's tridiagonal form, then implicit QL steps with Wilkinson's shift (Golub and Van Loan, Matrix
//! computations, 4th edition, algorithms 8.3.1 and 8.3.3). Eigenvalues without eigenvectors have a faster way,
//! `tridiagonal`. There is no random start and no early stop: the same matrix gives the same result to the last bit.

use crate::rules::geometry::dot;
use crate::rules::numeric::triangle::Triangle;
use crate::rules::numeric::tridiagonal;

/// The spectrum of a symmetric matrix.
#[derive(Debug)]
pub struct Eigen {
    /// Eigenvalues, in no particular order.
    pub values: Vec<f64>,
    /// Unit eigenvectors in the order of the values; empty if the caller needs values only.
    pub vectors: Vec<Vec<f64>>,
}

/// The most QL steps for one eigenvalue. Two or three are usual.
pub(super) const MOST_STEPS: usize = 60;

/// The eigenvalues of a symmetric matrix, in no particular order.
pub fn eigenvalues(mut matrix: Triangle) -> Vec<f64> {
    let scale = power_of_two_above(matrix.largest());
    matrix.rows_mut(0).iter_mut().for_each(|x| *x /= scale);
    tridiagonal::eigenvalues(matrix).into_iter().map(|value| value * scale).collect()
}

/// The largest eigenvalue; zero for an empty matrix.
pub fn largest_eigenvalue(matrix: Triangle) -> f64 {
    spectrum(matrix, false).values.into_iter().fold(0.0, f64::max)
}

/// The largest eigenvalue and its unit eigenvector.
pub fn leading_pair(matrix: Triangle) -> (f64, Vec<f64>) {
    let Eigen { values, vectors } = spectrum(matrix, true);
    let pairs = values.into_iter().zip(vectors);
    pairs.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, Vec::new()))
}

/// The largest value whose sums over rows surely fit f64.
const LARGEST: f64 = 1e270;

/// The spectrum of a symmetric matrix. Scales large values first, so that no sum overflows.
fn spectrum(mut matrix: Triangle, with_vectors: bool) -> Eigen {
    let largest = matrix.largest();
    if largest <= LARGEST {
        return Tridiagonal::of(matrix, with_vectors).solve();
    }
    let scale = power_of_two_above(largest);
    matrix.for_each_tail(0, |_, tail| tail.iter_mut().for_each(|x| *x /= scale));
    let Eigen { values, vectors } = Tridiagonal::of(matrix, with_vectors).solve();
    Eigen { values: values.iter().map(|value| value * scale).collect(), vectors }
}

/// The leading pair of the tridiagonal matrix with these diagonals, whose values fit f64 with their sums.
pub(super) fn leading_pair_of_tridiagonal(diagonal: &[f64], beside: &[f64]) -> (f64, Vec<f64>) {
    let n = diagonal.len();
    let vectors = (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect();
    let mut off = beside.to_vec();
    off.resize(n, 0.0);
    let Eigen { values, vectors } = Tridiagonal { diagonal: diagonal.to_vec(), off, vectors }.solve();
    let pairs = values.into_iter().zip(vectors);
    pairs.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, Vec::new()))
}

/// The power of two at `x` or above, within a factor of two. `x` is finite and above zero.
pub fn power_of_two_above(x: f64) -> f64 {
    x.log2().ceil().clamp(-1022.0, 1023.0).exp2()
}

/// A tridiagonal matrix, and the rotations that lead to it: row `i` of `vectors` belongs to diagonal value `i`.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// The values beside the diagonal, and a zero at the end.
    off: Vec<f64>,
    vectors: Vec<Vec<f64>>,
}

impl Tridiagonal {
    /// The form of a matrix whose sums fit f64.
    fn of(mut a: Triangle, with_vectors: bool) -> Self {
        let n = a.size();
        let mut vectors: Vec<Vec<f64>> = Vec::new();
        if with_vectors {
            vectors = (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect();
        }
        let mut off = vec![0.0; n];
        for (k, off) in off.iter_mut().enumerate().take(n.saturating_sub(1)) {
            let (v, length) = reflector(&a.tail(k)[1..]);
            *off = length;
            if !v.is_empty() {
                reflect_both_sides(&mut a, k + 1, &v);
                reflect_rows(&mut vectors, k + 1, &v);
            }
        }
        Self { diagonal: a.diagonal(), off, vectors }
    }

    fn solve(mut self) -> Eigen {
        for low in 0..self.diagonal.len() {
            for _ in 0..MOST_STEPS {
                let high = self.unreduced_end(low);
                if high == low {
                    break;
                }
                self.step(low, high);
            }
        }
        Eigen { values: self.diagonal, vectors: self.vectors }
    }

    /// The last row that is coupled to row `low`.
    fn unreduced_end(&self, low: usize) -> usize {
        let coupled = |i: usize| {
            let size = self.diagonal[i].abs() + self.diagonal[i + 1].abs();
            self.off[i].abs() > f64::EPSILON * size
        };
        (low..self.diagonal.len() - 1).find(|i| !coupled(*i)).unwrap_or(self.diagonal.len() - 1)
    }

    /// One implicit QL step on rows `low..=high`, shifted to bring `low` to its eigenvalue.
    fn step(&mut self, low: usize, high: usize) {
        let (d, e) = (&mut self.diagonal, &mut self.off);
        let half = (d[low + 1] - d[low]) / (2.0 * e[low]);
        let shift = d[low] - e[low] / (half + half.hypot(1.0).copysign(half));
        let (mut sine, mut cosine, mut carried) = (1.0, 1.0, 0.0);
        let mut bulge = d[high] - shift;
        for i in (low..high).rev() {
            let (f, b) = (sine * e[i], cosine * e[i]);
            let length = f.hypot(bulge);
            e[i + 1] = length;
            if length == 0.0 {
                // The matrix splits here. The next step does the rest.
                d[i + 1] -= carried;
                e[high] = 0.0;
                return;
            }
            (sine, cosine) = (f / length, bulge / length);
            bulge = d[i + 1] - carried;
            let twist = (d[i] - bulge) * sine + 2.0 * cosine * b;
            carried = sine * twist;
            d[i + 1] = bulge + carried;
            bulge = cosine * twist - b;
            rotate(&mut self.vectors, i, sine, cosine);
        }
        d[low] -= carried;
        e[low] = bulge;
        e[high] = 0.0;
    }
}

/// The vector whose reflection turns `column` into a multiple of its first axis, and that multiple. The vector is empty
/// if `column` is such a multiple already.
pub(super) fn reflector(column: &[f64]) -> (Vec<f64>, f64) {
    let scale = column.iter().fold(0.0f64, |scale, x| scale.max(x.abs()));
    if column[1..].iter().all(|x| *x == 0.0) {
        return (Vec::new(), column[0]);
    }
    let mut v: Vec<f64> = column.iter().map(|x| x / scale).collect();
    let length = -dot(&v, &v).sqrt().copysign(v[0]);
    v[0] -= length;
    (v, length * scale)
}

/// Reflects rows and columns from `first` on.
fn reflect_both_sides(a: &mut Triangle, first: usize, v: &[f64]) {
    let norm = dot(v, v);
    let p: Vec<f64> = a.times_from(first, v).into_iter().map(|sum| 2.0 * sum / norm).collect();
    let half = dot(&p, v) / norm;
    let w: Vec<f64> = p.iter().zip(v).map(|(p, v)| p - half * v).collect();
    a.for_each_tail(first, |i, tail| {
        let own = i - first;
        for (x, (v_j, w_j)) in tail.iter_mut().zip(v[own..].iter().zip(&w[own..])) {
            *x -= v[own] * w_j + w[own] * v_j;
        }
    });
}

/// Reflects the rows from `first` on: each column of these rows is one vector.
fn reflect_rows(rows: &mut [Vec<f64>], first: usize, v: &[f64]) {
    let Some(rows) = rows.get_mut(first..) else { return };
    let norm = dot(v, v);
    let mut sums = vec![0.0; rows.first().map_or(0, Vec::len)];
    for (row, v) in rows.iter().zip(v) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += v * x;
        }
    }
    for (row, v) in rows.iter_mut().zip(v) {
        for (x, sum) in row.iter_mut().zip(&sums) {
            *x -= 2.0 * v / norm * sum;
        }
    }
}

/// Rotates rows `i` and `i + 1` into each other.
fn rotate(rows: &mut [Vec<f64>], i: usize, sine: f64, cosine: f64) {
    let Some([low, high]) = rows.get_mut(i..i + 2) else { return };
    for (low, high) in low.iter_mut().zip(high) {
        let (a, b) = (*low, *high);
        *high = sine * a + cosine * b;
        *low = cosine * a - sine * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(matrix: Triangle) {
        let n = matrix.size();
        let Eigen { values, vectors } = Tridiagonal::of(matrix.clone(), true).solve();
        let size = (0..n * n).map(|k| matrix.at(k / n, k % n).powi(2)).sum::<f64>().sqrt();
        for (value, vector) in values.iter().zip(&vectors) {
            assert!((dot(vector, vector) - 1.0).abs() < 1e-12);
            for (i, product) in matrix.times(vector).into_iter().enumerate() {
                let residue = product - value * vector[i];
                assert!(residue.abs() <= 1e-13 * (n as f64 + 1.0) * size, "{n}: {residue:e} of {size:e}");
            }
        }
        let trace: f64 = (0..n).map(|i| matrix.at(i, i)).sum();
        assert!((values.iter().sum::<f64>() - trace).abs() <= 1e-12 * size.max(1.0));
        let mut alone = eigenvalues(matrix.clone());
        let mut values = values;
        alone.sort_by(f64::total_cmp);
        values.sort_by(f64::total_cmp);
        for (a, b) in alone.iter().zip(&values) {
            assert!((a - b).abs() <= 1e-12 * size, "{n}: {a} {b} of {size}");
        }
        let (top, _) = leading_pair(matrix.clone());
        assert_eq!(Some(&top), values.last());
        assert!((largest_eigenvalue(matrix) - top.max(0.0)).abs() <= 1e-13 * size);
    }

    #[test]
    fn pairs_satisfy_their_equation() {
        for n in [1, 2, 3, 4, 7, 20, 41] {
            check(Triangle::new(n, |i, j| ((i * j + i + j) as f64).sin()));
            check(Triangle::new(n, |i, j| f64::from(i == j) * (i as f64 - 2.0)));
            check(Triangle::new(n, |_, _| 1.0));
            check(Triangle::new(n, |_, _| 0.0));
            check(Triangle::new(n, |i, j| 1e-8f64.powi((i + j) as i32 % 5)));
        }
        check(Triangle::new(101, |i, j| ((i * j + i + j) as f64).sin()));
    }

    #[test]
    fn no_thread_changes_a_bit_and_no_size_overflows() {
        let matrix = |size: f64| Triangle::new(700, |i, j| ((i * j + i + j) as f64).sin() * size);
        let of = |threads: usize, size: f64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| eigenvalues(matrix(size)))
        };
        let alone = of(1, 1.0);
        assert_eq!(of(3, 1.0), alone);
        for power in [1000, -900] {
            let factor = 2.0f64.powi(power);
            let apart: Vec<f64> = of(2, factor).iter().map(|value| value / factor).collect();
            assert_eq!(apart, alone);
        }
    }

    #[test]
    fn closed_cases() {
        let (value, vector) = leading_pair(Triangle::new(2, |i, j| if i == j { 2.0 } else { 1.0 }));
        assert!((value - 3.0).abs() < 1e-14 && (vector[0] - vector[1]).abs() < 1e-14);
        assert!((largest_eigenvalue(Triangle::new(5, |_, _| 2.0)) - 10.0).abs() < 1e-13);
        assert_eq!(largest_eigenvalue(Triangle::new(0, |_, _| 2.0)), 0.0);
    }
}
