//! Weighted sums, mixtures and squared norms, within the bounds that their shaders state.

use super::sample::{ADDED, Kind, STORED, Sample, rounded};
use super::{Combiner, FLUSHED, UNIT, devices, first_other_bits, first_wrong, job, ways};
use fedmill::gpu::job::{CombineJob, Options, Reduction};
use fedmill::model::dtype::Working;

/// Row counts around a part of a sum.
const ROWS: [usize; 12] = [1, 2, 3, 5, 8, 31, 63, 64, 65, 128, 129, 1000];
/// Column counts around a workgroup, and around a chunk of norms.
const COLUMNS: [usize; 9] = [1, 63, 255, 256, 257, 1031, 4095, 4096, 4097];
/// Values of a tile: few enough that the whole suite takes seconds on a software adapter.
const MOST_VALUES: usize = 100_000;

fn all(sample: &Sample) -> Vec<u32> {
    (0..sample.rows.len() as u32).collect()
}

/// At every column a combination of the chosen rows, and of the base if it has a coefficient. Each value takes part in
/// `additions` roundings.
fn combination(sample: &Sample, chosen: &[u32], coefficients: &[f64], additions: usize) -> Vec<(f64, f64)> {
    let n = chosen.len();
    (0..sample.columns)
        .map(|j| {
            let mut values = sample.column(chosen, j);
            values.extend(sample.references.first().map(|base| f64::from(base[j])));
            let terms: Vec<f64> = values.iter().zip(coefficients).map(|(x, c)| x * c).collect();
            let magnitude: f64 = terms.iter().map(|term| term.abs()).sum();
            let weight: f64 = coefficients.iter().map(|c| c.abs()).sum();
            // A value, a product or a sum that a device flushes to zero.
            let flushed = FLUSHED * (2 * n + 2) as f64 * weight.max(1.0);
            (terms.iter().sum(), additions as f64 * UNIT * magnitude + flushed)
        })
        .collect()
}

/// Weights like those of clients: example counts, or fractions.
fn weights(n: usize, are_counts: bool) -> Vec<f64> {
    let weight = |i: usize| if are_counts { (i * 37 % 101 + 1) as f64 } else { 0.1 + 1.0 / (i + 3) as f64 };
    (0..n).map(weight).collect()
}

#[test]
fn weighted_sums() {
    for gpu in devices(&Options::default()) {
        for (place, n) in ROWS.into_iter().enumerate() {
            for (turn, stored) in STORED.into_iter().enumerate() {
                let columns = COLUMNS[(place + turn) % COLUMNS.len()].min(MOST_VALUES / n);
                for kind in ADDED {
                    let sample = Sample::new(stored, kind, n, columns);
                    let mut job = job(sample.shape(), Reduction::WeightedSum);
                    job.weights = weights(n, turn % 2 == 0);
                    let mut combiner = Combiner::new(&gpu, &job);
                    let (merged, found) = combiner.run(&sample);
                    let want = combination(&sample, &job.chosen, &job.weights, 64 + n / 64 + 2);
                    let what = format!("{n} x {columns} {stored:?} {kind:?} on {gpu:?}");
                    assert_eq!(first_wrong(merged, &want), None, "{what}");
                    assert_eq!(found.largest, sample.largest(&job.chosen), "{what}");
                    assert!(found.squared_norms.is_empty());
                }
            }
        }
    }
}

/// The negative control: the check notices weights that are off by a hundred-thousandth, and a missing row.
#[test]
fn wrong_sums_are_noticed() {
    for gpu in devices(&Options::default()) {
        let sample = Sample::new(Working::F32, Kind::AllEqual, 9, 65);
        let mut job = job(sample.shape(), Reduction::WeightedSum);
        job.weights = weights(9, true);
        let mut combiner = Combiner::new(&gpu, &job);
        let (merged, _) = combiner.run(&sample);
        let wrong = |weights: &[f64]| {
            first_wrong(merged, &combination(&sample, &job.chosen, weights, 64 + 2)).is_some()
        };
        let off: Vec<f64> = job.weights.iter().map(|weight| weight * (1.0 + 1e-5)).collect();
        assert!(!wrong(&job.weights) && wrong(&job.weights[..8]) && wrong(&off));
    }
}

/// Coefficients of mixtures of `n` rows and the base, with either sign.
fn mixtures(count: usize, n: usize) -> Vec<Vec<f64>> {
    let coefficient = |m: usize, i: usize| ((m * 31 + i * 17) % 23) as f64 / 23.0 - 0.4;
    (0..count).map(|m| (0..=n).map(|i| f64::from(coefficient(m, i) as f32)).collect()).collect()
}

/// A job that returns one of its mixtures.
fn mixture_job(sample: &Sample, chosen: &[u32], mixing: &[Vec<f64>], wanted: usize) -> CombineJob {
    let mut job = job(sample.shape(), Reduction::WeightedSum);
    job.chosen = chosen.to_vec();
    job.mixing = Some(mixing.to_vec());
    job.weights = (0..mixing.len()).map(|m| f64::from(m == wanted)).collect();
    job
}

#[test]
fn mixtures_of_rows() {
    for gpu in devices(&Options::default()) {
        for (place, n) in [1, 2, 5, 33, 64, 65, 130].into_iter().enumerate() {
            for stored in STORED {
                let columns = COLUMNS[place].min(MOST_VALUES / n);
                let kind = [Kind::Smooth, Kind::Ties, Kind::Subnormals][place % 3];
                let sample = Sample::new(stored, kind, n, columns).with_references(place % 3);
                let chosen: Vec<u32> = (0..n as u32).rev().filter(|i| n < 5 || i % 4 != 1).collect();
                let mixing = mixtures(3, chosen.len());
                for (wanted, coefficients) in mixing.iter().enumerate() {
                    let mut combiner = Combiner::new(&gpu, &mixture_job(&sample, &chosen, &mixing, wanted));
                    let (merged, found) = combiner.run(&sample);
                    let want = combination(&sample, &chosen, coefficients, 64 + n / 64 + 3);
                    let what = format!("mixture {wanted} of {n} x {columns} {stored:?} {kind:?} on {gpu:?}");
                    assert_eq!(first_wrong(merged, &want), None, "{what}");
                    // The rows as sent count, and also the mixtures.
                    assert!(found.largest >= sample.largest(&chosen), "{what}");
                }
                let mut combiner = Combiner::new(&gpu, &mixture_job(&sample, &chosen, &mixing, 0));
                let (merged, _) = combiner.run(&sample);
                let other = combination(&sample, &chosen, &mixing[1], 64 + n / 64 + 3);
                assert!(kind == Kind::Subnormals || first_wrong(merged, &other).is_some());
            }
        }
    }
}

/// Steps after a mixture take it as rows: a mixture that copies the rows has the rows' median.
#[test]
fn order_statistics_of_mixtures() {
    for gpu in devices(&Options::default()) {
        for n in [5, 40, 70] {
            for stored in STORED {
                let sample = Sample::new(stored, Kind::Smooth, n, 257);
                let mut job = job(sample.shape(), Reduction::Median);
                let unit = |m: usize| (0..=n).map(|i| f64::from(m == i)).collect();
                job.mixing = Some((0..n).map(unit).collect());
                let mut combiner = Combiner::new(&gpu, &job);
                let (merged, _) = combiner.run(&sample);
                let wrong = first_other_bits(merged, &sample.median(&job.chosen));
                assert_eq!(wrong, None, "{n} {stored:?} on {gpu:?}");
            }
        }
    }
}

/// Squared norms of the chosen rows' deltas.
fn squared_norms(sample: &Sample, chosen: &[u32], less_base: &[bool]) -> Vec<(f64, f64)> {
    let of = |(i, less): (&u32, &bool)| {
        let base = |j: usize| match less {
            true => f64::from(sample.references[0][j]),
            false => 0.0,
        };
        let row = &sample.rows[*i as usize];
        let square: f64 = (0..sample.columns).map(|j| (f64::from(row[j]) - base(j)).powi(2)).sum();
        (square, f64::from(16 + 8 + 3) * UNIT * square + FLUSHED * sample.columns as f64)
    };
    chosen.iter().zip(less_base).map(of).collect()
}

#[test]
fn norms() {
    for options in ways() {
        for gpu in devices(&options) {
            for (place, columns) in COLUMNS.into_iter().chain([20_000]).enumerate() {
                for stored in STORED {
                    let n = [3, 1, 65, 7][place % 4];
                    let kind = [Kind::Smooth, Kind::Ties, Kind::AllEqual][place % 3];
                    let sample = Sample::new(stored, kind, n, columns).with_references(place % 3);
                    let mut job = job(sample.shape(), Reduction::WeightedSum);
                    job.chosen = all(&sample).into_iter().rev().filter(|i| n < 5 || i % 3 != 1).collect();
                    job.weights = vec![1.0; job.chosen.len()];
                    let has_base = place % 3 > 0;
                    let less_base: Vec<bool> = job.chosen.iter().map(|i| has_base && i % 2 == 0).collect();
                    job.norms = Some(less_base.clone());
                    let mut combiner = Combiner::new(&gpu, &job);
                    let got = combiner.run(&sample).1.squared_norms;
                    let want = squared_norms(&sample, &job.chosen, &less_base);
                    let what = format!("{n} x {columns} {stored:?} {kind:?} on {gpu:?}");
                    assert_eq!(first_wrong(&got, &want), None, "{what}");
                    let others: Vec<bool> = less_base.iter().map(|less| has_base && !less).collect();
                    let other = squared_norms(&sample, &job.chosen, &others);
                    assert!(!has_base || first_wrong(&got, &other).is_some(), "{what}");
                }
            }
        }
    }
}

/// Narrow values are widened exactly, subnormals and the largest too. Each is the only value of its row.
#[test]
fn every_narrow_float_is_widened() {
    for gpu in devices(&Options::default()) {
        for stored in [Working::BF16, Working::F16] {
            let finite = |bits: &u16| {
                let exponent = if stored == Working::F16 { 0x7c00 } else { 0x7f80 };
                bits & exponent != exponent
            };
            let wide = |bits: u16| match stored {
                Working::F16 => half::f16::from_bits(bits).to_f32(),
                _ => half::bf16::from_bits(bits).to_f32(),
            };
            let mut sample = Sample::new(stored, Kind::AllEqual, 1, 1);
            sample.rows = vec![(0..=u16::MAX).filter(finite).map(wide).collect()];
            sample.columns = sample.rows[0].len();
            assert!(sample.rows[0].iter().all(|x| rounded(stored, *x).to_bits() == x.to_bits()));
            let mut combiner = Combiner::new(&gpu, &job(sample.shape(), Reduction::Median));
            let (merged, _) = combiner.run(&sample);
            let want: Vec<f64> = sample.rows[0].iter().map(|x| f64::from(*x)).collect();
            assert_eq!(first_other_bits(merged, &want), None, "{stored:?} on {gpu:?}");
        }
    }
}
