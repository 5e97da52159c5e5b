//! `lowrank`: a matrix as the product of two thin ones.
//!
//! A tensor is the matrix M of its first axis against all others. From a Q, a step computes `P = orthonormalise(M Q)`
//! and `Q = transpose(M) P`; the decoder computes `P transpose(Q)` (Vogels et al., PowerSGD: practical low-rank
//! gradient compression for distributed optimization, 2019, algorithm 1). The first Q is random, and two steps follow.
//! Two kinds of tensors go as `f16`: those without two axes, and those whose factors would have more than half of the
//! values.

use crate::codecs::packing::floats::{expect_finite, finite};
use crate::codecs::quantize::half::Half;
use crate::codecs::{Codec, Coding, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Tally, Vector};
use crate::kernels::lanes::Isa;
use crate::kernels::low_rank::{add_row_times, add_transposed, orthonormalise, product_row};
use crate::kernels::philox::random_words;
use crate::model::dtype::Dtype;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "the product of two thin matrices",
    settings: &[("rank", &["4", "1"])],
    tried: &[],
    codecs: &[("lowrank", parse)],
};

/// The largest rank. Beyond it other codecs are better, and decoding is slow.
const MAX_RANK: u32 = 256;

/// Steps from a random Q; a second step brings the factors near to the best ones.
const STEPS: usize = 2;

/// The codec, and its coding.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct LowRank {
    /// Columns of both factors.
    pub rank: u32,
}

fn parse(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let rank = settings.take("rank")?.unwrap_or(4);
    match (1..=MAX_RANK).contains(&rank) {
        true => Ok(Box::new(LowRank { rank })),
        false => Err(settings.bad("rank", format!("found `{rank}`, expected 1 to {MAX_RANK}"))),
    }
}

impl fmt::Display for LowRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lowrank:rank={}", self.rank)
    }
}

/// The rows and columns of a matrix, and the columns of its factors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct View {
    rows: usize,
    columns: usize,
    rank: usize,
}

impl LowRank {
    /// The matrix of a vector; `None` if its factors are not worth it.
    fn view(self, vector: &Vector) -> Option<View> {
        let (rows, rank) = (*vector.shape.first()?, self.rank as usize);
        let columns = vector.len.checked_div(rows)?;
        let factors = (rows as u128 + columns as u128) * rank as u128;
        let is_worth_it = vector.shape.len() >= 2 && 2 * factors <= vector.len as u128;
        is_worth_it.then_some(View { rows, columns, rank })
    }
}

/// Random numbers from -1 to 1.
fn random(isa: Isa, seed: u64, len: usize) -> Vec<f64> {
    let mut words = vec![0; len];
    random_words(isa, seed, 0, 0, &mut words);
    words.into_iter().map(|word| f64::from(word.cast_signed()) / f64::from(1u32 << 31)).collect()
}

impl Codec for LowRank {
    fn shrinks(&self) -> bool {
        true
    }

    fn encoder(&self, isa: Isa, vector: &Vector, seeds: Seeds) -> Box<dyn Encoder> {
        let Some(view) = self.view(vector) else { return Half::F16.encoder(isa, vector, seeds) };
        let q = random(isa, seeds.shared, view.columns * view.rank);
        Box::new(LowRankEncoder { isa, codec: *self, view, steps: STEPS, stage: Stage::Left { q } })
    }
}

impl View {
    /// The parts of rows in a run of values: row, first column, and the values of the part.
    fn parts(self, start: usize, len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (row, column) = ((start + done) / self.columns, (start + done) % self.columns);
            let part = done..len.min(done + self.columns - column);
            done = part.end;
            (!part.is_empty()).then_some((row, column, part))
        })
    }

    /// The rows of both factors that a run of values needs.
    fn needs(self, values: Range<usize>) -> [Range<usize>; 2] {
        if values.is_empty() {
            return [0..0, 0..0];
        }
        let (first, last) = (values.start, values.end - 1);
        let rows = first / self.columns..last / self.columns + 1;
        let columns =
            if rows.len() == 1 { first % self.columns..last % self.columns + 1 } else { 0..self.columns };
        [rows, columns]
    }
}

#[derive(Debug)]
struct LowRankEncoder {
    isa: Isa,
    codec: LowRank,
    view: View,
    /// Steps left, with the one under way.
    steps: usize,
    stage: Stage,
}

/// The factor to compute next.
#[derive(Debug)]
enum Stage {
    /// P, from this Q.
    Left { q: Vec<f64> },
    /// Q, from this P.
    Right { p: Vec<f64> },
    /// None: both factors are known and rounded to f32.
    Settled { p: Vec<f32>, q: Vec<f32> },
}

impl Encoder for LowRankEncoder {
    fn wants_look(&self) -> bool {
        !matches!(self.stage, Stage::Settled { .. })
    }

    fn look(&self, start: usize, values: &[f32]) -> Tally {
        let View { rows, columns, rank } = self.view;
        let parts = self.view.parts(start, values.len());
        let sums = match &self.stage {
            Stage::Left { q } => {
                let mut sums = vec![0.0; rows * rank];
                for (row, column, part) in parts {
                    let sums = &mut sums[row * rank..(row + 1) * rank];
                    add_row_times(self.isa, &values[part], &q[column * rank..], sums);
                }
                sums
            }
            Stage::Right { p } => {
                let mut sums = vec![0.0; columns * rank];
                for (row, column, part) in parts {
                    let p = &p[row * rank..(row + 1) * rank];
                    add_transposed(self.isa, &values[part], p, &mut sums[column * rank..]);
                }
                sums
            }
            Stage::Settled { .. } => Vec::new(),
        };
        Tally { sums, ..Tally::default() }
    }

    fn learn(&mut self, tally: Tally) {
        let mut sums = tally.sums;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Right { p: Vec::new() }) {
            Stage::Left { .. } => {
                orthonormalise(&mut sums, self.view.rank);
                Stage::Right { p: sums }
            }
            Stage::Right { .. } if self.steps > 1 => {
                self.steps -= 1;
                Stage::Left { q: sums }
            }
            Stage::Right { p } => {
                // No sum of products with columns of length one then leaves f32.
                let limit = f64::from(f32::MAX) / (2.0 * self.view.rank as f64);
                let q = sums.iter().map(|x| x.clamp(-limit, limit) as f32).collect();
                Stage::Settled { p: p.iter().map(|x| *x as f32).collect(), q }
            }
            settled @ Stage::Settled { .. } => settled,
        };
    }

    fn coding(&self) -> Coding {
        Coding::LowRank(self.codec)
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let Stage::Settled { p, q } = &self.stage else { return vec![Vec::new(); 2] };
        let rank = self.view.rank;
        let needs = self.view.needs(start..start + values.len());
        let bytes = |(factor, rows): (&Vec<f32>, Range<usize>)| {
            bytemuck::cast_slice(&factor[rows.start * rank..rows.end * rank]).to_vec()
        };
        [p, q].into_iter().zip(needs).map(bytes).collect()
    }
}

/// Several chunks need the same rows of a factor. Each of them writes those rows, the same bytes to the same place.
impl Scheme for LowRank {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        let (rank, shape) = (self.rank, &vector.shape);
        let view = self.view(vector).filter(|_| (1..=MAX_RANK).contains(&rank));
        let why =
            || Invalid(format!("shape {shape:?} is sent by factors of rank {rank}, which are not worth it"));
        let View { rows, columns, rank } = view.ok_or_else(why)?;
        let stream =
            |suffix, rows| Stream { suffix, dtype: Dtype::F32, extent: Extent::Known(vec![rows, rank]) };
        Ok(vec![stream("_p", rows), stream("_q", columns)])
    }

    fn bytes(&self, vector: &Vector, stream: usize, values: Range<usize>) -> Range<usize> {
        let Some(view) = self.view(vector) else { return 0..0 };
        let [rows, columns] = view.needs(values);
        let needed = if stream == 0 { rows } else { columns };
        4 * view.rank * needed.start..4 * view.rank * needed.end
    }

    fn decode(
        &self,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let view = self.view(vector).ok_or_else(|| Invalid::new("factors of a vector without two axes"))?;
        let rank = view.rank;
        let [rows, columns] = view.needs(start..start + out.len());
        let p = finite(streams[0], rows.len() * rank, "factors")?;
        let q = finite(streams[1], columns.len() * rank, "factors")?;
        for (row, column, part) in view.parts(start, out.len()) {
            let p = &p[(row - rows.start) * rank..][..rank];
            product_row(isa, p, &q[(column - columns.start) * rank..], &mut out[part]);
        }
        expect_finite(out, "products of factors")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::CHUNK;
    use crate::codecs::trial::{encode, hard, normal};

    /// A matrix of `directions` directions, each half as strong as the one before, plus noise.
    fn matrix(rows: usize, columns: usize, directions: usize, noise: f32) -> Vec<f32> {
        let mut values: Vec<f32> = normal(rows * columns, 7).iter().map(|x| x * noise).collect();
        for direction in 0..directions {
            let strength = 0.5f32.powi(direction as i32);
            let (left, right) =
                (normal(rows, 100 + direction as u64), normal(columns, 200 + direction as u64));
            for (row, left) in values.chunks_mut(columns).zip(left) {
                row.iter_mut().zip(&right).for_each(|(x, right)| *x += strength * left * right);
            }
        }
        values
    }

    #[test]
    fn matrices_of_few_directions_come_back() {
        for shape in [&[64usize, 64][..], &[40, 9, 9], &[300, 301], &[3, 70_000], &[70_000, 3]] {
            let (rows, columns) = (shape[0], shape[1..].iter().product());
            for directions in 1..=(rows.min(columns) / 2).min(3) {
                let values = matrix(rows, columns, directions, 0.0);
                let codec = LowRank { rank: directions as u32 };
                let encoded = encode(&codec, shape, &values);
                assert_eq!(encoded.coding, Coding::LowRank(codec), "{shape:?}");
                let nmse = encoded.nmse(&values);
                assert!(nmse < 1e-11, "{shape:?} {directions}: {nmse}");
            }
        }
    }

    /// The best approximation of rank 3 leaves the noise; two steps come near it.
    #[test]
    fn noise_is_left_out() {
        let values = matrix(200, 300, 3, 0.05);
        let nmse = encode(&LowRank { rank: 3 }, &[200, 300], &values).nmse(&values);
        let (all, noise): (f64, f64) =
            (values.iter().map(|x| f64::from(*x).powi(2)).sum(), 0.05 * 0.05 * 60_000.0);
        assert!(nmse < 1.05 * noise / all && nmse > 0.9 * noise / all, "{nmse} of {}", noise / all);
    }

    #[test]
    fn what_is_not_worth_it_goes_as_f16() {
        for shape in [&[1000usize][..], &[10, 10], &[2, 500], &[1, 1000]] {
            let values = normal(shape.iter().product(), 1);
            let encoded = encode(&LowRank { rank: 4 }, shape, &values);
            assert_eq!(encoded.coding, Coding::Half(Half::F16), "{shape:?}");
        }
    }

    #[test]
    fn hard_values_stay_finite() {
        for (rows, columns) in [(16, 16), (257, 256), (40, 1639)] {
            for (_, values) in hard(rows * columns) {
                let encoded = encode(&LowRank { rank: 4 }, &[rows, columns], &values);
                assert!(encoded.decode().iter().all(|x| x.is_finite()));
            }
            let zeros = vec![0.0; rows * columns];
            assert_eq!(encode(&LowRank { rank: 4 }, &[rows, columns], &zeros).decode(), zeros);
        }
    }

    #[test]
    fn any_run_of_values_is_decoded_alone() {
        let (rows, columns) = (300, 301);
        let values = matrix(rows, columns, 2, 0.1);
        let encoded = encode(&LowRank { rank: 2 }, &[rows, columns], &values);
        let whole = encoded.decode();
        let scheme = encoded.coding.scheme().unwrap();
        // The streams as a file holds them.
        let mut streams = [vec![0u8; rows * 8], vec![0u8; columns * 8]];
        for (chunk, bytes) in encoded.chunks.iter().enumerate() {
            for (number, stream) in streams.iter_mut().enumerate() {
                let run = chunk * CHUNK..values.len().min((chunk + 1) * CHUNK);
                stream[scheme.bytes(&encoded.vector, number, run)].copy_from_slice(&bytes[number]);
            }
        }
        for run in [0..1, 300..302, 5000..5010, CHUNK..CHUNK + 900, 90_299..90_300] {
            let bytes =
                [0, 1].map(|number| &streams[number][scheme.bytes(&encoded.vector, number, run.clone())]);
            let mut out = vec![f32::NAN; run.len()];
            scheme.decode(Isa::detect(), &encoded.vector, run.start, &bytes, &mut out).unwrap();
            assert_eq!(out, whole[run]);
        }
    }

    #[test]
    fn broken_streams_are_refused() {
        let values = matrix(100, 100, 2, 0.1);
        let encoded = encode(&LowRank { rank: 2 }, &[100, 100], &values);
        encoded.assert_total(0);
        for (rank, shape) in
            [(0, vec![100, 100]), (26, vec![100, 100]), (257, vec![2000, 2000]), (1, vec![10_000])]
        {
            let vector = Vector { len: shape.iter().product(), shape };
            assert!(LowRank { rank }.streams(&vector).is_err(), "{rank} of {:?}", vector.shape);
        }
        let huge = vec![[f32::MAX.to_le_bytes(); 2]; 100].concat().concat();
        assert!(encoded.decode_chunk(0, &[huge.clone(), huge]).is_err());
        assert!(crate::codecs::parse("lowrank:rank=0").is_err());
    }
}
