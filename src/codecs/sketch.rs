//! `sketch`: a count sketch, whose sum over clients is the sketch of their sum.
//!
//! Each value is added, with a random sign, to one random cell of each row. The estimate of a value is the median over
//! rows of its cells times its signs. The decoder keeps the k largest estimates (Charikar, Chen and Farach-Colton,
//! Finding frequent items in data streams, 2002; Rothchild et al., FetchSGD, 2020).
//!
//! Each chunk has its own table, so that a chunk is encoded and decoded alone. Indices within a chunk have 16
//! bits, for which multiply-shift hashes in 32-bit arithmetic are strongly universal (Dietzfelbinger, Universal hashing
//! and k-wise independent random variables via integer arithmetic without primes, 1996, theorem 3: `((a i + b) mod
//! 2^32) >> 16`).
//!
//! The tables travel as f32 tensors under the names of the sketched tensors. The server adds the tables of clients with
//! the same seed and settings.

use crate::codecs::packing::floats::finite;
use crate::codecs::{CHUNK, Codec, Coding, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Vector};
use crate::kernels::lanes::Isa;
use crate::kernels::philox::random_words;
use crate::kernels::select_largest::{Search, take};
use crate::model::dtype::Dtype;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "a count sketch, which the server adds before it decodes",
    settings: &[("rows", &["5", "3"]), ("columns", &["1311", "100"]), ("k", &["50"])],
    tried: &[],
    codecs: &[("sketch", parse)],
};

/// The most rows. More rows hardly improve the median, and slow decoding down.
const MAX_ROWS: u32 = 31;

/// The codec. `None` in `k` means one value for fifty cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountSketch {
    rows: u32,
    columns: u32,
    k: Option<u32>,
}

fn parse(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let rows = within(settings, "rows", MAX_ROWS)?.unwrap_or(5);
    // Cells for a tenth of the values.
    let columns = within(settings, "columns", CHUNK as u32)?.unwrap_or((CHUNK as u32).div_ceil(10 * rows));
    let k = within(settings, "k", CHUNK as u32)?;
    Ok(Box::new(CountSketch { rows, columns, k }))
}

fn within(settings: &mut Settings, key: &'static str, most: u32) -> Result<Option<u32>, SpecError> {
    match settings.take(key)? {
        Some(found) if !(1..=most).contains(&found) => {
            Err(settings.bad(key, format!("found `{found}`, expected 1 to {most}")))
        }
        found => Ok(found),
    }
}

impl fmt::Display for CountSketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sketch:rows={},columns={}", self.rows, self.columns)?;
        self.k.map_or(Ok(()), |k| write!(f, ",k={k}"))
    }
}

impl Codec for CountSketch {
    fn encoder(&self, _isa: Isa, _vector: &Vector, seeds: Seeds) -> Box<dyn Encoder> {
        let Self { rows, columns, .. } = *self;
        // One value for fifty cells, as in FetchSGD.
        let k = self.k.unwrap_or((rows * columns).div_ceil(50).min(CHUNK as u32));
        let tables = Tables { rows, columns, k, seed: seeds.shared };
        Box::new(SketchEncoder(tables))
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn shrinks(&self) -> bool {
        true
    }
}

/// The coding: the size of the tables, and the seed of the hashes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Tables {
    /// Rows of a table.
    pub rows: u32,
    /// Columns of the table of a whole chunk; a shorter chunk has fewer in proportion.
    pub columns: u32,
    /// Values of a whole chunk that the decoder keeps; of a shorter chunk fewer in proportion.
    pub k: u32,
    /// The seed of signs and cells.
    pub seed: u64,
}

/// The hashes of a row, which give the cell and the sign of each index of a chunk.
#[derive(Clone, Copy)]
struct RowHash {
    cell: [u32; 2],
    sign: [u32; 2],
}

impl RowHash {
    #[inline(always)]
    fn cell(&self, i: usize, columns: usize) -> usize {
        ((hashed(self.cell, i) >> 16) as usize * columns) >> 16
    }

    #[inline(always)]
    fn signed(&self, i: usize, x: f32) -> f32 {
        f32::from_bits(x.to_bits() ^ (hashed(self.sign, i) & 0x8000_0000))
    }
}

#[inline(always)]
fn hashed([a, b]: [u32; 2], i: usize) -> u32 {
    a.wrapping_mul(i as u32).wrapping_add(b)
}

impl Tables {
    /// The share of `values` in what a whole chunk has, rounded up; at least one.
    fn share(whole: u32, values: usize) -> usize {
        (whole as usize * values).div_ceil(CHUNK).max(1)
    }

    fn columns_of(&self, values: usize) -> usize {
        Self::share(self.columns, values)
    }

    /// Cells of the tables before a value at which a chunk starts, or the vector ends.
    fn cells_before(&self, values: usize) -> usize {
        let rest = values % CHUNK;
        let of_rest = if rest == 0 { 0 } else { self.columns_of(rest) };
        self.rows as usize * (values / CHUNK * self.columns as usize + of_rest)
    }

    fn hashes(&self, chunk: usize) -> Vec<RowHash> {
        let rows = self.rows as usize;
        let mut words = vec![0; 4 * rows];
        random_words(Isa::detect(), self.seed, 0, (chunk * 4 * rows) as u64, &mut words);
        words.chunks(4).map(|row| RowHash { cell: [row[0], row[1]], sign: [row[2], row[3]] }).collect()
    }
}

#[derive(Debug)]
struct SketchEncoder(Tables);

impl Encoder for SketchEncoder {
    fn coding(&self) -> Coding {
        Coding::Sketch(self.0)
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let columns = self.0.columns_of(values.len());
        let mut table = vec![0.0f64; self.0.rows as usize * columns];
        for (row, hash) in table.chunks_mut(columns).zip(self.0.hashes(start / CHUNK)) {
            for (i, x) in values.iter().enumerate() {
                row[hash.cell(i, columns)] += f64::from(hash.signed(i, *x));
            }
        }
        let limit = f64::from(f32::MAX);
        let cells: Vec<f32> = table.iter().map(|x| x.clamp(-limit, limit) as f32).collect();
        vec![bytemuck::cast_slice(&cells).to_vec()]
    }
}

impl Scheme for Tables {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        let Self { rows, columns, k, .. } = *self;
        let (most_rows, most) = (1..=MAX_ROWS, 1..=CHUNK as u32);
        if !most_rows.contains(&rows) || !most.contains(&columns) || !most.contains(&k) {
            return Err(Invalid(format!("sketch has {rows} rows of {columns} columns for {k} values")));
        }
        let whole = (vector.len / CHUNK + 1).checked_mul((rows * columns) as usize);
        whole.ok_or_else(|| Invalid::new("sketch has too many cells"))?;
        let extent = Extent::Known(vec![self.cells_before(vector.len)]);
        Ok(vec![Stream { suffix: "", dtype: Dtype::F32, extent }])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        CHUNK
    }

    fn bytes(&self, _vector: &Vector, _stream: usize, values: Range<usize>) -> Range<usize> {
        4 * self.cells_before(values.start)..4 * self.cells_before(values.end)
    }

    fn decode(
        &self,
        isa: Isa,
        _vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let columns = self.columns_of(out.len());
        let table = finite(streams[0], columns * self.rows as usize, "cells")?;
        estimate(&table, &self.hashes(start / CHUNK), out);
        keep_largest(isa, Self::share(self.k, out.len()).min(out.len()), out);
        Ok(())
    }
}

/// Estimates each value: the median over rows, or the mean of the middle two.
fn estimate(table: &[f32], hashes: &[RowHash], out: &mut [f32]) {
    let columns = table.len() / hashes.len();
    let mut said = vec![0.0f32; hashes.len()];
    for (i, x) in out.iter_mut().enumerate() {
        for ((said, row), hash) in said.iter_mut().zip(table.chunks(columns)).zip(hashes) {
            *said = hash.signed(i, row[hash.cell(i, columns)]);
        }
        said.sort_unstable_by(f32::total_cmp);
        let (low, high) = (said[(said.len() - 1) / 2], said[said.len() / 2]);
        // The halves cannot overflow, and plus zero makes no minus zero.
        *x = if low == high { low + 0.0 } else { 0.5 * low + 0.5 * high + 0.0 };
    }
}

/// Sets all values except the k largest to zero.
fn keep_largest(isa: Isa, k: usize, values: &mut [f32]) {
    let mut search = Search::new(k as u64);
    let threshold = loop {
        match search.threshold() {
            Some(threshold) => break threshold,
            None => search.narrow(&search.count(isa, values)),
        }
    };
    let kept: Vec<(u32, f32)> = take(isa, values, threshold.key, threshold.ties)
        .into_iter()
        .map(|i| (i, values[i as usize]))
        .collect();
    values.fill(0.0);
    kept.into_iter().for_each(|(i, x)| values[i as usize] = x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::trial::{Encoded, SIZES, encode, hard, normal};

    fn sketch(text: &str) -> Box<dyn Codec> {
        let codec = crate::codecs::parse(text).unwrap();
        assert_eq!(codec.to_string(), text);
        codec
    }

    #[test]
    fn heavy_values_come_back() {
        let codec = sketch("sketch:rows=5,columns=2000,k=40");
        for len in [CHUNK, CHUNK + 30_000] {
            let mut values: Vec<f32> = normal(len, 3).iter().map(|x| x * 0.01).collect();
            let heavy: Vec<usize> = (0..20).map(|i| i * len / 20 + 7 * i).collect();
            heavy.iter().for_each(|i| values[*i] = if i % 2 == 0 { 5.0 } else { -4.0 });
            let decoded = encode(&*codec, &[len], &values).decode();
            // The noise of a cell comes from the other values in it, 33 in the mean.
            assert!(heavy.iter().all(|i| (decoded[*i] - values[*i]).abs() < 0.2), "{len}");
            let kept = decoded.iter().filter(|x| **x != 0.0).count();
            assert_eq!(kept, if len == CHUNK { 40 } else { 40 + 19 });
        }
    }

    #[test]
    fn the_mean_of_sketches_is_the_sketch_of_the_mean() {
        let len = 3000;
        let codec = sketch("sketch:rows=3,columns=20000");
        let (a, b) = (normal(len, 1), normal(len, 2));
        let mean: Vec<f32> = a.iter().zip(&b).map(|(a, b)| 0.5 * (a + b)).collect();
        let cells = |values: &[f32]| -> Vec<f32> {
            let Encoded { chunks, .. } = encode(&*codec, &[len], values);
            bytemuck::pod_collect_to_vec(&chunks[0][0])
        };
        let (a, b, mean) = (cells(&a), cells(&b), cells(&mean));
        assert!(a.iter().zip(&b).zip(&mean).all(|((a, b), mean)| (0.5 * (a + b) - mean).abs() < 1e-4));
        assert!(a.iter().any(|x| *x != 0.0));
    }

    /// The error of a value's estimate by one row has mean zero and variance `|x|^2 / columns`.
    #[test]
    fn cells_are_as_noisy_as_they_should_be() {
        let len = CHUNK;
        let values = normal(len, 4);
        let codec = sketch(&format!("sketch:rows=1,columns=1000,k={len}"));
        let decoded = encode(&*codec, &[len], &values).decode();
        let off: Vec<f64> = decoded.iter().zip(&values).map(|(y, x)| f64::from(*y) - f64::from(*x)).collect();
        let variance = off.iter().map(|x| x * x).sum::<f64>() / len as f64;
        let expected = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 1000.0;
        assert!((variance / expected - 1.0).abs() < 0.15, "{variance}, expected {expected}");
        let mean = off.iter().sum::<f64>() / len as f64;
        assert!(mean.abs() < 5.0 * (expected / 1000.0).sqrt(), "{mean}");
    }

    #[test]
    fn every_size_has_its_share_of_cells_and_hard_values_stay_finite() {
        let codec = sketch("sketch:rows=5,columns=1311");
        for len in SIZES {
            let encoded = encode(&*codec, &[len], &normal(len, 1));
            let cells: usize = encoded.chunks.iter().map(|streams| streams[0].len() / 4).sum();
            let streams = encoded.coding.scheme().unwrap().streams(&encoded.vector).unwrap();
            assert_eq!(streams[0].extent, Extent::Known(vec![cells]));
            assert!(cells <= len / 10 + 20, "{cells} of {len}");
        }
        for len in [1, 65, 257, CHUNK + 1] {
            for (_, values) in hard(len) {
                assert!(encode(&*codec, &[len], &values).decode().iter().all(|x| x.is_finite()));
            }
        }
        assert_eq!(encode(&*codec, &[300], &[0.0; 300]).decode(), [0.0; 300]);
    }

    #[test]
    fn broken_streams_are_refused() {
        encode(&*sketch("sketch:rows=4,columns=5000"), &[3000], &normal(3000, 4)).assert_total(0);
        let vector = Vector { len: 100, shape: vec![100] };
        for (rows, columns, k) in [(0, 1, 1), (32, 1, 1), (1, 0, 1), (1, 65_537, 1), (1, 1, 0)] {
            assert!(Tables { rows, columns, k, seed: 0 }.streams(&vector).is_err());
        }
        assert!(crate::codecs::parse("sketch:rows=0").is_err());
        assert!(crate::codecs::parse("sketch:columns=70000").is_err());
    }
}
