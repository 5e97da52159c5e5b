//! The eigenvalues of a symmetric matrix alone, as the effective rank needs them.
//!
//! Householder's tridiagonal form, then QL steps on the squares of the values beside the diagonal, which need no square
//! root (the variant of Pal, Walker and Kahan: Parlett, The symmetric eigenvalue problem, 1998, section 8.15; LAPACK's
//! `dsterf`).
//!
//! A step of the form changes all rows behind it, and needs their product with the next vector. Both happen in one look
//! at the rows, so the matrix passes through the caches once a step. The rows are dealt out to a fixed number of parts,
//! and the sums of the parts are added in order: no thread changes a bit.

use crate::parallel;
use crate::rules::geometry::dot;
use crate::rules::numeric::eigen::{MOST_STEPS, reflector};
use crate::rules::numeric::triangle::{self, Triangle};

/// Rows that are changed side by side, since each of them needs the same values of the vectors.
const ROWS: usize = 4;

/// Sums of a row side by side.
const LANES: usize = 8;

/// Parts to which the rows are dealt out.
const PARTS: usize = 4;

/// The eigenvalues of a symmetric matrix with magnitudes of at most one, in no particular order.
pub(super) fn eigenvalues(mut matrix: Triangle) -> Vec<f64> {
    let n = matrix.size();
    let mut beside = vec![0.0; n];
    // The change of the step before, `v w' + w v'`, from the row of this step on.
    let (mut v, mut w) = (vec![0.0; n], vec![0.0; n]);
    for (k, beside) in beside.iter_mut().enumerate() {
        let row = &mut matrix.rows_mut(k)[..n - k];
        subtract(row, [v[0], w[0]], &v, &w);
        if k + 1 == n {
            break;
        }
        let (mut x, length) = reflector(&row[1..]);
        *beside = length;
        // Without a reflection the change is zero.
        x.resize(n - k - 1, 0.0);
        let sums = change_and_multiply(&mut matrix, k + 1, [&v[1..], &w[1..], &x]);
        let norm = Some(dot(&x, &x)).filter(|norm| *norm > 0.0).unwrap_or(1.0);
        let p: Vec<f64> = sums.into_iter().map(|sum| 2.0 * sum / norm).collect();
        let half = dot(&p, &x) / norm;
        w = p.iter().zip(&x).map(|(p, x)| p - half * x).collect();
        v = x;
    }
    of_tridiagonal(matrix.diagonal(), &beside)
}

/// Subtracts from a row its part of `v w' + w v'`; `own` has the row's own values of `v` and `w`.
fn subtract(row: &mut [f64], own: [f64; 2], v: &[f64], w: &[f64]) {
    for (a, (v, w)) in row.iter_mut().zip(v.iter().zip(w)) {
        *a -= own[0] * w + own[1] * v;
    }
}

/// Rows that one thread changes, and its sums.
struct Part<'a> {
    /// Up to [`ROWS`] rows each, with the place of the first.
    blocks: Vec<(usize, &'a mut [f64])>,
    sums: Vec<f64>,
}

/// Subtracts `v w' + w v'` from the rows and columns from `first` on, and returns the product of the result with `x`.
fn change_and_multiply(matrix: &mut Triangle, first: usize, vectors: [&[f64]; 3]) -> Vec<f64> {
    let n = matrix.size() - first;
    let part = |_| Part { blocks: Vec::with_capacity(n / (ROWS * PARTS) + 1), sums: vec![0.0; n] };
    let mut parts: Vec<Part> = (0..PARTS).map(part).collect();
    let mut rest = matrix.rows_mut(first);
    for (number, at) in (0..n).step_by(ROWS).enumerate() {
        let behind = n.saturating_sub(at + ROWS);
        let (rows, next) = rest.split_at_mut(triangle::len(n - at) - triangle::len(behind));
        parts[number % PARTS].blocks.push((at, rows));
        rest = next;
    }
    let work = triangle::len(n) / PARTS * 2;
    parallel::for_each(parts.iter_mut().collect(), work, |_, part: &mut Part| {
        part.blocks.iter_mut().for_each(|(at, rows)| block(rows, *at, vectors, &mut part.sums));
    });
    let mut sums = vec![0.0; n];
    for part in &parts {
        sums.iter_mut().zip(&part.sums).for_each(|(sum, part)| *sum += part);
    }
    sums
}

/// [`change_and_multiply`] for up to [`ROWS`] rows from `at` on. `rows` has their values, each from its diagonal on.
fn block(rows: &mut [f64], at: usize, vectors: [&[f64]; 3], sums: &mut [f64]) {
    let [v, w, x] = vectors;
    let end = v.len().min(at + ROWS);
    let (mut rest, mut behind) = (rows, Vec::with_capacity(ROWS));
    for i in at..end {
        let (row, next) = rest.split_at_mut(v.len() - i);
        let (square, row) = row.split_at_mut(end - i);
        subtract(square, [v[i], w[i]], &v[i..], &w[i..]);
        sums[i] += square[0] * x[i];
        for (k, a) in square.iter().enumerate().skip(1) {
            sums[i] += a * x[i + k];
            sums[i + k] += a * x[i];
        }
        behind.push(row);
        rest = next;
    }
    // Only the last rows are fewer, and nothing is behind them.
    let Ok(behind) = <[&mut [f64]; ROWS]>::try_from(behind) else { return };
    let own = std::array::from_fn(|r| [v[at + r], w[at + r], x[at + r]]);
    let (before, sums) = sums.split_at_mut(end);
    let products = four_rows(behind, own, [&v[end..], &w[end..], &x[end..]], sums);
    before[at..].iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
}

/// [`change_and_multiply`] for four rows behind their own square. Adds to the sums of the columns, and returns the sums
/// of the rows. `own` has the values of the vectors at each row.
fn four_rows(
    rows: [&mut [f64]; ROWS],
    own: [[f64; 3]; ROWS],
    vectors: [&[f64]; 3],
    sums: &mut [f64],
) -> [f64; ROWS] {
    let [(v, v_rest), (w, w_rest), (x, x_rest)] = vectors.map(|vector| vector.as_chunks::<LANES>());
    let (sums, sums_rest) = sums.as_chunks_mut::<LANES>();
    let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = rows.map(|row| row.as_chunks_mut::<LANES>());
    let [mut of_a, mut of_b, mut of_c, mut of_d] = [[0.0; LANES]; ROWS];
    // One length for all lets the compiler leave out its checks.
    let count = sums.len();
    let [v, w, x] = [v, w, x].map(|vector| &vector[..count]);
    let [a, b, c, d] = [a, b, c, d].map(|row| &mut row[..count]);
    for i in 0..count {
        let (vectors, sums) = ([&v[i], &w[i], &x[i]], &mut sums[i]);
        lanes(&mut a[i], own[0], vectors, &mut of_a, sums);
        lanes(&mut b[i], own[1], vectors, &mut of_b, sums);
        lanes(&mut c[i], own[2], vectors, &mut of_c, sums);
        lanes(&mut d[i], own[3], vectors, &mut of_d, sums);
    }
    let mut products = [of_a, of_b, of_c, of_d].map(|sums| sums.iter().sum());
    let rows = [a_rest, b_rest, c_rest, d_rest].into_iter().zip(own);
    for ((row, own), product) in rows.zip(&mut products) {
        subtract(row, [own[0], own[1]], v_rest, w_rest);
        *product += row.iter().zip(x_rest).map(|(a, x)| a * x).sum::<f64>();
        row.iter().zip(&mut *sums_rest).for_each(|(a, sum)| *sum += a * own[2]);
    }
    products
}

/// [`change_and_multiply`] for a few values of one row.
#[inline(always)]
fn lanes(
    row: &mut [f64; LANES],
    own: [f64; 3],
    [v, w, x]: [&[f64; LANES]; 3],
    product: &mut [f64; LANES],
    sums: &mut [f64; LANES],
) {
    for k in 0..LANES {
        row[k] -= own[0] * w[k] + own[1] * v[k];
    }
    for k in 0..LANES {
        product[k] += row[k] * x[k];
    }
    for k in 0..LANES {
        sums[k] += row[k] * own[2];
    }
}

/// The eigenvalues of a tridiagonal matrix: its diagonal, and the values beside it with a zero at the end.
fn of_tridiagonal(mut diagonal: Vec<f64>, beside: &[f64]) -> Vec<f64> {
    let (d, mut squares) = (&mut diagonal, beside.iter().map(|x| x * x).collect::<Vec<f64>>());
    for low in 0..d.len() {
        for _ in 0..MOST_STEPS {
            let is_split = |i: &usize| {
                let least = f64::EPSILON * (d[*i].abs() + d[i + 1].abs());
                squares[*i] <= least * least
            };
            let high = (low..d.len() - 1).find(is_split).unwrap_or(d.len() - 1);
            if high == low {
                break;
            }
            step(d, &mut squares, low, high);
        }
    }
    diagonal
}

/// One QL step on rows `low..=high`, none of whose squares is zero, shifted to bring `low` to its eigenvalue.
fn step(d: &mut [f64], squares: &mut [f64], low: usize, high: usize) {
    let root = squares[low].sqrt();
    let half = (d[low + 1] - d[low]) / (2.0 * root);
    let shift = d[low] - root / (half + half.hypot(1.0).copysign(half));
    let (mut cosine, mut sine) = (1.0, 0.0);
    let mut gamma = d[high] - shift;
    let mut p = gamma * gamma;
    for i in (low..high).rev() {
        let square = squares[i];
        let sum = p + square;
        // The row behind the last one is none of these.
        if i + 1 < high {
            squares[i + 1] = sine * sum;
        }
        let (cosine_before, gamma_before) = (cosine, gamma);
        (cosine, sine) = (p / sum, square / sum);
        gamma = cosine * (d[i] - shift) - sine * gamma_before;
        d[i + 1] = gamma_before + (d[i] - gamma);
        p = if cosine == 0.0 { cosine_before * square } else { gamma * gamma / cosine };
    }
    squares[low] = sine * p;
    d[low] = shift + gamma;
}
