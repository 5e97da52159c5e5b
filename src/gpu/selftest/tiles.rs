//! The self-tests of the kernels that run on tiles.

use super::compare::{DeviceKernel, Difference, HALF_ULP, difference, value};
use crate::gpu::device::{CombineProgram, Gpu, PairsProgram, RingSlot};
use crate::gpu::job::{
    CombineJob, Combined, GpuError, PAIRS_RELATIVE_ERROR, PairSums, PairsJob, Reduction, TileShape,
};
use crate::gpu::step::StepJob;
use crate::gpu::variants;
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::mean_near_median::mean_near_median;
use crate::kernels::server_step::{SecondMoment, ServerStep};
use crate::kernels::signs::add_signs;
use crate::kernels::trimmed_mean::trimmed_mean;
use crate::kernels::weighted_sum::add_weighted;
use crate::model::dtype::Working;
use crate::model::tile::TileBuffer;
use half::{bf16, f16};

/// Kernels, their variants and their self-tests.
pub(super) const KERNELS: &[DeviceKernel] = &[
    DeviceKernel {
        kernel: "convert",
        // Every kernel decodes the rows that it reads.
        variants: Vec::new,
        cases: &[
            ("every f16", |gpu| median(gpu, &every::<f16>(Working::F16))),
            ("every bf16", |gpu| median(gpu, &every::<bf16>(Working::BF16))),
        ],
    },
    DeviceKernel {
        kernel: "weighted_sum",
        variants: variants::weighted_sums,
        cases: &[
            ("5 rows", |gpu| weighted_sum(gpu, 5)),
            ("33 rows", |gpu| weighted_sum(gpu, 33)),
            ("200 rows", |gpu| weighted_sum(gpu, 200)),
            ("3 mixtures of 33 rows", mixing),
        ],
    },
    DeviceKernel {
        kernel: "coordinate_median",
        variants: || variants::order_statistics(&variants::COORDINATE_MEDIAN),
        cases: &[
            ("5 rows", |gpu| median(gpu, &Sample::of_f32(5, COLUMNS))),
            ("33 rows", |gpu| median(gpu, &Sample::of_f32(33, COLUMNS))),
            ("200 rows", |gpu| median(gpu, &Sample::of_f32(200, COLUMNS))),
        ],
    },
    DeviceKernel {
        kernel: "trimmed_mean",
        variants: || variants::order_statistics(&variants::TRIMMED_MEAN),
        cases: &[
            ("5 rows", |gpu| trimmed(gpu, 5)),
            ("33 rows", |gpu| trimmed(gpu, 33)),
            ("200 rows", |gpu| trimmed(gpu, 200)),
        ],
    },
    DeviceKernel {
        kernel: "mean_near_median",
        variants: || variants::order_statistics(&variants::MEAN_NEAR_MEDIAN),
        cases: &[
            ("5 rows", |gpu| near_median(gpu, 5)),
            ("33 rows", |gpu| near_median(gpu, 33)),
            ("200 rows", |gpu| near_median(gpu, 200)),
        ],
    },
    DeviceKernel { kernel: "signs", variants: variants::all_signs, cases: &[("33 rows", signs)] },
    DeviceKernel {
        kernel: "gram",
        variants: variants::grams,
        cases: &[
            ("5 rows", |gpu| pairs(gpu, 5)),
            ("40 rows", |gpu| pairs(gpu, 40)),
            ("100 rows", |gpu| pairs(gpu, 100)),
        ],
    },
    DeviceKernel { kernel: "norms", variants: variants::all_norms, cases: &[("33 rows", norms)] },
    DeviceKernel {
        kernel: "server_step",
        variants: variants::server_steps,
        cases: &[
            ("Adam after a mean", |gpu| server_step(gpu, SecondMoment::Adam)),
            ("Yogi after a mean", |gpu| server_step(gpu, SecondMoment::Yogi)),
            ("Adagrad after a mean", |gpu| server_step(gpu, SecondMoment::Adagrad)),
        ],
    },
];

/// Columns of most tiles: not whole workgroups.
const COLUMNS: usize = 1_031;
/// Columns of the tiles of pairs: several chunks of the larger squares.
const PAIR_COLUMNS: usize = 2_500;

/// Rows to send, and references behind them: a base, then moments.
struct Sample<E> {
    stored: Working,
    rows: Vec<Vec<E>>,
    references: Vec<Vec<f32>>,
}

impl Sample<f32> {
    fn of_f32(rows: usize, columns: usize) -> Self {
        let row = |row| (0..columns).map(|column| value(row, column)).collect();
        Self { stored: Working::F32, rows: (0..rows).map(row).collect(), references: Vec::new() }
    }

    fn with_base(mut self) -> Self {
        self.references = vec![(0..self.columns()).map(|column| value(77, column) / 2.0).collect()];
        self
    }

    /// With a base, and a first and a second moment.
    fn with_moments(self) -> Self {
        let mut with = self.with_base();
        let moment = |of: fn(f32) -> f32| (0..with.columns()).map(|column| of(value(78, column))).collect();
        with.references.extend([moment(|x| x / 4.0), moment(|x| x * x)]);
        with
    }
}

/// One row with every finite value of a 16-bit dtype, subnormals too.
fn every<E: Element>(stored: Working) -> Sample<E> {
    let all = (0..=u16::MAX).map(bytemuck::cast::<u16, E>);
    Sample { stored, rows: vec![all.filter(|x| x.widen().is_finite()).collect()], references: Vec::new() }
}

impl<E: Element> Sample<E> {
    fn columns(&self) -> usize {
        self.rows[0].len()
    }

    fn shape(&self) -> TileShape {
        TileShape {
            rows: self.rows.len(),
            stored: self.stored,
            references: self.references.len(),
            columns: self.columns(),
        }
    }

    fn tile(&self) -> TileBuffer {
        let mut tile = TileBuffer::new(self.rows.len(), self.columns() * size_of::<E>());
        for (place, row) in self.rows.iter().enumerate() {
            let bytes: &[u8] = bytemuck::cast_slice(row);
            tile.row_mut(place)[..bytes.len()].copy_from_slice(bytes);
            tile.clear_behind(place, bytes.len());
        }
        tile
    }

    fn fill(&self, slot: &mut RingSlot) -> Result<(), GpuError> {
        slot.fill(self.columns(), |row, out| {
            match self.rows.get(row) {
                Some(row) => out.copy_from_slice(bytemuck::cast_slice(row)),
                None => out.copy_from_slice(bytemuck::cast_slice(&self.references[row - self.rows.len()])),
            }
            Ok(())
        })
    }

    fn job(&self, reduction: Reduction) -> CombineJob {
        let shape = self.shape();
        CombineJob {
            shape,
            chosen: (0..shape.rows).map(|row| row as u32).collect(),
            weights: (0..shape.rows).map(weight).collect(),
            mixing: None,
            reduction,
            norms: None,
            step: None,
        }
    }

    fn combine(&self, gpu: &Gpu, job: &CombineJob) -> Result<(Vec<f64>, Combined), GpuError> {
        let program = CombineProgram::new(gpu, job)?;
        let mut slot = RingSlot::for_combine(gpu, &program)?;
        self.fill(&mut slot)?;
        let mut merged = Vec::new();
        let combined = slot.combine(&program, None, &mut merged)?;
        Ok((merged, combined))
    }

    fn pairs(&self, gpu: &Gpu, job: &PairsJob) -> Result<PairSums, GpuError> {
        let program = PairsProgram::new(gpu, job)?;
        let mut slot = RingSlot::for_pairs(gpu, &program)?;
        self.fill(&mut slot)?;
        slot.pairs(&program, None)
    }

    /// The sum of weighted magnitudes of every column.
    fn magnitudes(&self, weight: impl Fn(usize) -> f64) -> Vec<f64> {
        let sum = |column: usize| {
            let value = |row: &Vec<E>| Element::widen(row[column]);
            let term = |(place, row): (usize, &Vec<E>)| (weight(place) * value(row)).abs();
            self.rows.iter().enumerate().map(term).sum()
        };
        (0..self.columns()).map(sum).collect()
    }
}

fn weight(row: usize) -> f64 {
    (row % 9 + 1) as f64 * 100.0
}

fn weighted_sum(gpu: &Gpu, rows: usize) -> Result<Difference, GpuError> {
    let sample = Sample::of_f32(rows, COLUMNS);
    let (found, combined) = sample.combine(gpu, &sample.job(Reduction::WeightedSum))?;
    let mut expected = vec![0.0; COLUMNS];
    let weights: Vec<f64> = (0..rows).map(weight).collect();
    add_weighted(Isa::detect(), &sample.tile().rows::<f32>(rows, COLUMNS), &weights, &mut expected);
    let (terms, magnitudes) = (64.0 + rows as f64 / 64.0 + 2.0, sample.magnitudes(weight));
    let largest = sample.rows.iter().flatten().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let of_values = difference("column", &found, &expected, |column| terms * HALF_ULP * magnitudes[column]);
    Ok(of_values
        .or_else(|| difference("largest magnitude", &[combined.largest.into()], &[largest.into()], |_| 0.0)))
}

fn median<E: Element>(gpu: &Gpu, sample: &Sample<E>) -> Result<Difference, GpuError> {
    let (found, _) = sample.combine(gpu, &sample.job(Reduction::Median))?;
    let mut expected = vec![0.0f64; sample.columns()];
    let (tile, rows) = (sample.tile(), sample.rows.len());
    coordinate_median(Isa::detect(), &tile.rows::<E>(rows, sample.columns()), &mut expected);
    // Bits, so zeros keep their sign.
    let is_other = |(found, expected): (&f64, &f64)| found.to_bits() != expected.to_bits();
    let place = found.iter().zip(&expected).position(is_other);
    let bits = place.map(|place| {
        format!("column {place}: found {:e}, expected the bits of {:e}", found[place], expected[place])
    });
    Ok(bits.or_else(|| difference("column", &found, &expected, |_| 0.0)))
}

/// The bound of a mean over some of each column's values, from the magnitudes of all of them.
fn of_kept(sample: &Sample<f32>, kept: usize) -> impl Fn(usize) -> f64 {
    let terms = 64.0 + sample.rows.len() as f64 / 64.0 + 2.0;
    let magnitudes = sample.magnitudes(|_| 1.0);
    move |column| terms * HALF_ULP * magnitudes[column] / kept as f64
}

fn trimmed(gpu: &Gpu, rows: usize) -> Result<Difference, GpuError> {
    let (sample, cut) = (Sample::of_f32(rows, COLUMNS), rows / 5);
    let (found, _) = sample.combine(gpu, &sample.job(Reduction::TrimmedMean { cut }))?;
    let mut expected = vec![0.0; COLUMNS];
    trimmed_mean(Isa::detect(), &sample.tile().rows::<f32>(rows, COLUMNS), cut, &mut expected);
    Ok(difference("column", &found, &expected, of_kept(&sample, rows - 2 * cut)))
}

fn near_median(gpu: &Gpu, rows: usize) -> Result<Difference, GpuError> {
    let (sample, kept) = (Sample::of_f32(rows, COLUMNS), rows - rows / 5);
    let (found, _) = sample.combine(gpu, &sample.job(Reduction::MeanNearMedian { kept }))?;
    let mut expected = vec![0.0; COLUMNS];
    mean_near_median(Isa::detect(), &sample.tile().rows::<f32>(rows, COLUMNS), kept, &mut expected);
    Ok(difference("column", &found, &expected, of_kept(&sample, kept)))
}

/// Mixtures of rows and the base, then their sum with a different weight for each.
fn mixing(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (rows, weights) = (33, [1.0, 2.0, 4.0]);
    let sample = Sample::of_f32(rows, COLUMNS).with_base();
    let coefficient = |mixture: usize, row: usize| f64::from(value(mixture + 11, row));
    let mixture = |mixture| (0..=rows).map(|row| coefficient(mixture, row)).collect();
    let matrix: Vec<Vec<f64>> = (0..weights.len()).map(mixture).collect();
    let job = CombineJob {
        mixing: Some(matrix.clone()),
        weights: weights.to_vec(),
        ..sample.job(Reduction::WeightedSum)
    };
    let (found, _) = sample.combine(gpu, &job)?;
    let base = &sample.references[0];
    let sum = |column: usize, of: fn(f64) -> f64| -> f64 {
        let row = |row: usize| sample.rows.get(row).map_or(base[column], |row| row[column]);
        let mixed = |coefficients: &Vec<f64>| -> f64 {
            (0..=rows).map(|place| of(coefficients[place] * f64::from(row(place)))).sum()
        };
        matrix.iter().zip(weights).map(|(coefficients, weight)| weight * mixed(coefficients)).sum()
    };
    let expected: Vec<f64> = (0..COLUMNS).map(|column| sum(column, |term| term)).collect();
    // The terms of the mixtures, then those of their sum.
    let terms = 2.0 * (64.0 + 1.0 + 3.0);
    Ok(difference("column", &found, &expected, |column| terms * HALF_ULP * sum(column, f64::abs)))
}

fn norms(gpu: &Gpu) -> Result<Difference, GpuError> {
    // More than a chunk of columns.
    let sample = Sample::of_f32(33, 5_000).with_base();
    let less_base: Vec<bool> = (0..sample.rows.len()).map(|row| row % 2 == 0).collect();
    let job = CombineJob { norms: Some(less_base.clone()), ..sample.job(Reduction::WeightedSum) };
    let (_, combined) = sample.combine(gpu, &job)?;
    let base = &sample.references[0];
    let squared = |(row, less): (&Vec<f32>, &bool)| -> f64 {
        let delta = |(x, base): (&f32, &f32)| f64::from(*x) - if *less { f64::from(*base) } else { 0.0 };
        row.iter().zip(base).map(delta).map(|delta| delta * delta).sum()
    };
    let expected: Vec<f64> = sample.rows.iter().zip(&less_base).map(squared).collect();
    let bound = |row: usize| 27.0 * HALF_ULP * expected[row];
    Ok(difference("row", &combined.squared_norms, &expected, bound))
}

/// A step along the mean of weights less the base.
fn server_step(gpu: &Gpu, second: SecondMoment) -> Result<Difference, GpuError> {
    let sample = Sample::of_f32(5, COLUMNS).with_moments();
    let step = ServerStep::Adaptive { lr: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3, second };
    let total: f64 = (0..sample.rows.len()).map(weight).sum();
    let step = StepJob { step, scale: total.recip(), less_base: 1.0 };
    let job = CombineJob { step: Some(step), ..sample.job(Reduction::WeightedSum) };
    let (merged, combined) = sample.combine(gpu, &job)?;
    let reference = |row: usize, column: usize| f64::from(sample.references[row][column]);
    let known = |column: usize| {
        let kept = [reference(1, column), reference(2, column)];
        step.expected(merged[column], reference(0, column), &kept)
    };
    let known: Vec<_> = (0..COLUMNS).map(known).collect();
    let differs = |(row, what): (usize, &str)| {
        let found: Vec<f64> = combined.stepped.get(row)?.iter().map(|x| f64::from(*x)).collect();
        let expected: Vec<f64> = known.iter().map(|known| known[row].value).collect();
        difference(what, &found, &expected, |column| known[column][row].within)
    };
    if combined.stepped.len() != 3 {
        return Ok(Some(format!("{} rows were left, expected 3", combined.stepped.len())));
    }
    Ok(["column", "first moment", "second moment"].into_iter().enumerate().find_map(differs))
}

/// The points of a tile less the lower middle of each column, as on the device; the last point is the zero delta.
fn centred(sample: &Sample<f32>) -> Vec<Vec<f32>> {
    let middle = |column: usize| {
        let mut values: Vec<f32> = sample.rows.iter().map(|row| row[column]).collect();
        values.sort_by(f32::total_cmp);
        values[(values.len() - 1) / 2]
    };
    let middle: Vec<f32> = (0..sample.columns()).map(middle).collect();
    let zeros = vec![0.0; sample.columns()];
    let points = sample.rows.iter().chain([&zeros]);
    points.map(|row| row.iter().zip(&middle).map(|(x, middle)| x - middle).collect()).collect()
}

fn pairs(gpu: &Gpu, rows: usize) -> Result<Difference, GpuError> {
    let sample = Sample::of_f32(rows, PAIR_COLUMNS);
    let found = sample.pairs(gpu, &PairsJob { differences: true, ..PairsJob::of_rows(sample.shape()) })?;
    let points = centred(&sample);
    let of_products = upper(&found.products, &points, "product", |a, b| a * b);
    Ok(of_products.or_else(|| upper(&found.squares, &points[..rows], "square", |a, b| (a - b) * (a - b))))
}

/// Compares the upper triangle of a matrix of sums over pairs with f64.
fn upper(found: &[f64], points: &[Vec<f32>], what: &str, term: fn(f64, f64) -> f64) -> Difference {
    let n = points.len();
    if found.len() != n * n {
        return Some(format!("{} {what}s were found, expected {}", found.len(), n * n));
    }
    let pairs = (0..n).flat_map(|i| (i..n).map(move |j| (i, j)));
    for (i, j) in pairs {
        let terms = || points[i].iter().zip(&points[j]).map(|(a, b)| term((*a).into(), (*b).into()));
        let (sum, magnitude): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
        let what = format!("{what} of {i} and {j}, of");
        let bound = |_| PAIRS_RELATIVE_ERROR * magnitude;
        let other = difference(&what, &[found[i * n + j]], &[sum], bound);
        if other.is_some() {
            return other;
        }
    }
    None
}

fn signs(gpu: &Gpu) -> Result<Difference, GpuError> {
    let sample = Sample::of_f32(33, PAIR_COLUMNS).with_base();
    let less_base: Vec<bool> = (0..sample.rows.len()).map(|row| row % 2 == 0).collect();
    let job = PairsJob { signs: Some(less_base.clone()), ..PairsJob::of_rows(sample.shape()) };
    let found = sample.pairs(gpu, &job)?.signs;
    let base: Vec<f64> = sample.references[0].iter().map(|x| f64::from(*x)).collect();
    let mut counts = vec![0; PAIR_COLUMNS];
    for (row, less) in sample.rows.iter().zip(less_base) {
        add_signs(Isa::detect(), row, if less { &base } else { &[] }, &mut counts);
    }
    let expected: u64 = counts.iter().map(|count| u64::from(count.unsigned_abs())).sum();
    Ok((found != expected).then(|| format!("the sum over columns is {found}, expected {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_pairs_are_noticed() {
        let points = [vec![1.0, 2.0], vec![3.0, -1.0]];
        let products = |last| upper(&[5.0, 1.0, f64::NAN, last], &points, "product", |a, b| a * b);
        assert_eq!(products(10.0), None);
        assert!(products(10.1).is_some_and(|text| text.contains("product of 1 and 1")));
    }

    #[test]
    fn samples_have_ties_and_both_signs() {
        let sample = Sample::of_f32(200, 64);
        for column in 0..64 {
            let mut values: Vec<f32> = sample.rows.iter().map(|row| row[column]).collect();
            values.sort_by(f32::total_cmp);
            assert!(values[0] < 0.0 && values[199] > 0.0, "column {column}");
        }
        assert_eq!(every::<f16>(Working::F16).columns(), 2 * 0x7c00);
        assert_eq!(every::<bf16>(Working::BF16).columns(), 2 * 0x7f80);
    }
}
