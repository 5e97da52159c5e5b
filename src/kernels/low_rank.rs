//! Products of one row of a matrix with a factor of few columns, for low-rank approximations.
//!
//! Factors are stored row by row, `rank` numbers each. Sums run in index order in f64, so every instruction set gives
//! the same bits. Agreement: bits on the CPU; decoded values are rounded to f32 after each term.

use crate::kernels::dispatch;

dispatch! {
    /// Adds a part of a row of M, times the same number of rows of Q: `sums[k] += sum_j row[j] q[j][k]`.
    pub fn add_row_times<A: Arch>(row: &[f32], q: &[f64], sums: &mut [f64]) {
        for (x, q) in row.iter().zip(q.chunks_exact(sums.len())) {
            let x = f64::from(*x);
            for (sum, q) in sums.iter_mut().zip(q) {
                *sum += x * q;
            }
        }
    }
}

dispatch! {
    /// Adds the share of a part of a row of M in the product of the transpose of M and P: `sums[j][k] += row[j] p[k]`.
    pub fn add_transposed<A: Arch>(row: &[f32], p: &[f64], sums: &mut [f64]) {
        for (x, sums) in row.iter().zip(sums.chunks_exact_mut(p.len())) {
            let x = f64::from(*x);
            for (sum, p) in sums.iter_mut().zip(p) {
                *sum += x * p;
            }
        }
    }
}

dispatch! {
    /// A part of a row of the transpose of P times Q, `out[j] = sum_k p[k] q[j][k]`.
    pub fn product_row<A: Arch>(p: &[f32], q: &[f32], out: &mut [f32]) {
        for (x, q) in out.iter_mut().zip(q.chunks_exact(p.len())) {
            let mut sum = 0.0;
            for (p, q) in p.iter().zip(q) {
                sum += p * q;
            }
            *x = sum;
        }
    }
}

/// Makes the columns of a matrix orthonormal in order, by the modified Gram-Schmidt process run twice (Björck, Numerics
/// of Gram-Schmidt orthogonalization, 1994). If only rounding errors are left of a column, it becomes zero: its
/// direction would be noise.
pub fn orthonormalise(matrix: &mut [f64], rank: usize) {
    let dot = |matrix: &[f64], a: usize, b: usize| -> f64 {
        matrix.chunks_exact(rank).map(|row| row[a] * row[b]).sum()
    };
    for column in 0..rank {
        let before = dot(matrix, column, column).sqrt();
        for earlier in (0..column).chain(0..column) {
            let along = dot(matrix, earlier, column);
            matrix.chunks_exact_mut(rank).for_each(|row| row[column] -= along * row[earlier]);
        }
        let after = dot(matrix, column, column).sqrt();
        let factor = if after > 1e-12 * before { 1.0 / after } else { 0.0 };
        matrix.chunks_exact_mut(rank).for_each(|row| row[column] *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    fn matrix(rows: usize, columns: usize) -> Vec<f64> {
        (0..rows * columns).map(|i| ((i * i + 3 * i) % 17) as f64 - 8.0).collect()
    }

    #[test]
    fn products_are_the_plain_ones() {
        let (n, rank) = (37, 3);
        let row: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
        let (q, p) = (matrix(n, rank), [0.5, -2.0, 0.25]);
        for isa in Isa::available() {
            let (mut times, mut transposed) = (vec![1.0; rank], vec![1.0; n * rank]);
            add_row_times(isa, &row, &q, &mut times);
            add_transposed(isa, &row, &p, &mut transposed);
            for k in 0..rank {
                let expected: f64 = (0..n).map(|j| f64::from(row[j]) * q[j * rank + k]).sum();
                assert!((times[k] - 1.0 - expected).abs() < 1e-12);
                assert!((0..n).all(|j| transposed[j * rank + k] == 1.0 + f64::from(row[j]) * p[k]));
            }
            let mut out = vec![f32::NAN; n];
            let narrow: Vec<f32> = q.iter().map(|x| *x as f32).collect();
            product_row(isa, &[0.5, -2.0, 0.25], &narrow, &mut out);
            for (j, x) in out.iter().enumerate() {
                let expected: f64 = (0..rank).map(|k| p[k] * q[j * rank + k]).sum();
                assert!((f64::from(*x) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn columns_become_orthonormal_or_zero() {
        for scale in [1.0, 1e-90, 1e80] {
            let rank = 4;
            let mut found: Vec<f64> = matrix(50, rank).iter().map(|x| x * scale).collect();
            // The last column is the sum of the first two.
            found.chunks_exact_mut(rank).for_each(|row| row[3] = row[0] + row[1]);
            orthonormalise(&mut found, rank);
            for a in 0..rank {
                for b in 0..rank {
                    let product: f64 = found.chunks_exact(rank).map(|row| row[a] * row[b]).sum();
                    let expected = if a == b && a < 3 { 1.0 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-12, "columns {a} and {b}: {product}");
                }
            }
        }
    }
}
