//! The leading eigenpair of a large symmetric matrix, from products with vectors alone.
//!
//! Lanczos' iteration with full reorthogonalisation (Golub and Van Loan, Matrix computations, 4th edition, section 10.3).
//! It stops when the residual is below [`TOLERANCE`] of the eigenvalue. No step is random and none depends on threads:
//! the same matrix and start give the same bits. A start that is orthogonal to the leading eigenvector would miss it, so
//! the start should be one that no client can choose: see [`start`].

use crate::parallel;
use crate::rules::geometry::dot;
use crate::rules::numeric::eigen::leading_pair_of_tridiagonal;

/// The largest length of `A u - theta u` over `theta`, for the pair that is found. Inner products of updates are exact
/// to 4e-6 at worst, so further digits of the pair would show their rounding alone.
pub(in crate::rules) const TOLERANCE: f64 = 1e-9;

/// The most vectors of a basis. Then the iteration starts again from the best vector so far.
const MOST_VECTORS: usize = 600;

/// The most starts.
const MOST_STARTS: usize = 20;

/// Vectors between two looks at the eigenvalues of the small matrix.
const STEP: usize = 6;

/// Columns that one thread takes at once.
const COLUMNS: usize = 1024;

/// The largest eigenvalue of a matrix that is not negative, and its unit eigenvector. `times` multiplies the matrix with
/// a vector.
pub(in crate::rules) fn leading_pair(start: Vec<f64>, times: impl Fn(&[f64]) -> Vec<f64>) -> (f64, Vec<f64>) {
    let mut pair = (0.0, start);
    for _ in 0..MOST_STARTS {
        let (value, vector, is_found) = search(&pair.1, &times);
        pair = (value, vector);
        if is_found {
            break;
        }
    }
    pair
}

/// Extends a basis from one vector until it holds the leading pair, or has too many vectors.
fn search(start: &[f64], times: &impl Fn(&[f64]) -> Vec<f64>) -> (f64, Vec<f64>, bool) {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let (mut diagonal, mut beside): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut next = divided(start, norm(start));
    loop {
        let mut product = times(&next);
        diagonal.push(dot(&product, &next));
        basis.push(next);
        // Once leaves what the first pass rounds.
        orthogonalise(&mut product, &basis);
        orthogonalise(&mut product, &basis);
        let (length, count) = (norm(&product), basis.len());
        let size = diagonal.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        let is_whole = count == start.len() || length <= f64::EPSILON * size;
        if is_whole || count.is_multiple_of(STEP) || count == MOST_VECTORS {
            let (value, parts) = leading_pair_of_tridiagonal(&diagonal, &beside);
            let residual = length * parts[count - 1].abs();
            let is_found = is_whole || residual <= TOLERANCE * value;
            if is_found || count == MOST_VECTORS {
                return (value, combined(&basis, &parts), is_found);
            }
        }
        next = divided(&product, length);
        beside.push(length);
    }
}

/// Takes from a vector its parts along the vectors of a basis.
fn orthogonalise(vector: &mut [f64], basis: &[Vec<f64>]) {
    let parts = parallel::map(basis.len(), 4 * vector.len(), |k| dot(&basis[k], vector));
    parallel::for_each_part(vector, COLUMNS, COLUMNS * basis.len(), |at, vector| {
        for (other, part) in basis.iter().zip(&parts) {
            vector.iter_mut().zip(&other[at..]).for_each(|(x, other)| *x -= part * other);
        }
    });
}

fn combined(basis: &[Vec<f64>], parts: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; basis[0].len()];
    for (vector, part) in basis.iter().zip(parts) {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += part * x);
    }
    let length = norm(&sum);
    divided(&sum, length)
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

fn divided(vector: &[f64], by: f64) -> Vec<f64> {
    vector.iter().map(|x| x / by).collect()
}

/// A start for a matrix with this diagonal: signs from a hash of all its bits. A client that changes its update changes
/// all signs, so no client can make the start orthogonal to a direction of its choice.
pub(in crate::rules) fn start(diagonal: &[f64]) -> Vec<f64> {
    let mut state = diagonal.iter().fold(0, |state, x| mixed(state ^ x.to_bits()));
    let mut sign = || {
        state = mixed(state);
        if state >> 63 == 0 { 1.0 } else { -1.0 }
    };
    diagonal.iter().map(|_| sign()).collect()
}

/// A step of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014).
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::numeric::eigen;
    use crate::rules::numeric::triangle::Triangle;

    /// The products of rows of pseudo-random numbers.
    fn gram(n: usize, columns: usize, scale: impl Fn(usize) -> f64) -> Triangle {
        let mut state = n as u64;
        let mut number = || {
            state = mixed(state);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        let rows: Vec<Vec<f64>> =
            (0..n).map(|i| (0..columns).map(|_| scale(i) * number()).collect()).collect();
        Triangle::new(n, |i, j| dot(&rows[i], &rows[j]))
    }

    fn check(matrix: &Triangle) {
        let (value, vector) = leading_pair(start(&matrix.diagonal()), |x| matrix.times(x));
        let (want, of) = eigen::leading_pair(matrix.clone());
        assert!((value - want).abs() <= 1e-12 * want, "{value} {want}");
        let off: Vec<f64> = matrix.times(&vector).iter().zip(&vector).map(|(y, x)| y - value * x).collect();
        assert!(norm(&off) <= 4.0 * TOLERANCE * value, "{:e}", norm(&off) / value);
        // The vectors may differ by the residual over the gap between the eigenvalues.
        assert!((dot(&vector, &of).abs() - 1.0).abs() < 1e-9, "{}", dot(&vector, &of));
    }

    #[test]
    fn the_leading_pair_is_that_of_the_whole_spectrum() {
        for n in [2, 3, 20, 150, 300] {
            check(&gram(n, n + 5, |_| 1.0));
            check(&gram(n, n / 3 + 1, |_| 1.0));
            check(&gram(n, 4, |i| if i < n / 10 { 100.0 } else { 1.0 }));
            check(&gram(n, n, |i| if i == 1 { 1e30 } else { 1.0 }));
        }
    }

    #[test]
    fn closed_cases() {
        let (value, vector) = leading_pair(start(&[0.0; 5]), |_| vec![0.0; 5]);
        assert!(value == 0.0 && (norm(&vector) - 1.0).abs() < 1e-15);
        let (value, _) = leading_pair(start(&[2.0; 300]), |x| x.iter().map(|x| 2.0 * x).collect());
        assert!((value - 2.0).abs() < 1e-14);
        assert_eq!(start(&[1.0, 2.0]), start(&[1.0, 2.0]));
    }
}
