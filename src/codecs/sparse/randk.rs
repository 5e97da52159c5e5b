//! `randk`: random values, at the same places for all clients of a round; the others become zero.
//!
//! The places follow from the round's seed, so no index is sent. Rules that work by coordinate then see the same
//! clients at every coordinate (RoSDHB, arXiv 2508.17129). Places are drawn without replacement, in runs of 32 values
//! so that memory access stays whole. `scale=inverse` multiplies the values by the inverse of the sent fraction, which
//! makes the mean over seeds right (Konečný et al., Federated learning: strategies for improving communication
//! efficiency, 2016, and [`Scale`]).
//!
//! Each chunk has its share of the runs, rounded up or down, so that a chunk is decoded alone. With K of R runs and a
//! random u below R, `c(e) = floor((K e + u) / R)`, and chunk [a, b) has `c(b) - c(a)` runs (systematic sampling: every
//! run is equally likely). Within a chunk the runs are drawn one by one (Knuth, algorithm S, 3.4.2).

use crate::codecs::sparse::kept_values::{KeptValues, ValueCode};
use crate::codecs::sparse::portion::Portion;
use crate::codecs::{CHUNK, Codec, Coding, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Vector};
use crate::kernels::lanes::Isa;
use crate::kernels::philox::random_words;
use crate::model::dtype::Dtype;
use crate::model::sparsity::Sparsity;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "runs of 32 values that the round's seed chooses",
    settings: &[
        ("fraction", &["0.01", "0.3"]),
        ("k", &["100"]),
        ("scale", &["none", "inverse"]),
        ("values", &["f32", "f16"]),
    ],
    tried: &["fraction=0.01", "fraction=0.1"],
    codecs: &[("randk", parse)],
};

/// Values of a run.
const RUN: usize = 32;

/// Runs of a chunk.
const CHUNK_RUNS: usize = CHUNK / RUN;

/// The purposes of random words: the runs of a chunk, and the shares of chunks.
const RUNS_OF_CHUNK: u32 = 0;
const SHARES: u32 = 1;

/// The codec.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RandK {
    portion: Portion,
    scale: Scale,
    values: ValueCode,
}

/// The factor of the values that are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// One: sent values are exact. For use with a residual.
    None,
    /// The inverse of the sent fraction: unbiased, with a variance of `1 / fraction - 1` times the squared norm.
    Inverse,
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "inverse" => Ok(Self::Inverse),
            _ => Err(format!("found `{text}`, expected none or inverse")),
        }
    }
}

fn parse(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let portion = Portion::take(settings)?;
    let scale = settings.take("scale")?.unwrap_or(Scale::None);
    let values = settings.take("values")?.unwrap_or(ValueCode::F32);
    match values {
        ValueCode::F32 | ValueCode::F16 => Ok(Box::new(RandK { portion, scale, values })),
        other => Err(settings.bad("values", format!("found `{other}`, expected f32 or f16"))),
    }
}

impl fmt::Display for RandK {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "randk:{}", self.portion)?;
        if self.scale == Scale::Inverse {
            f.write_str(",scale=inverse")?;
        }
        match self.values {
            ValueCode::F32 => Ok(()),
            values => write!(f, ",values={values}"),
        }
    }
}

impl Codec for RandK {
    fn encoder(&self, isa: Isa, vector: &Vector, seeds: Seeds) -> Box<dyn Encoder> {
        let all = runs(vector);
        let runs = self.sent_runs(vector);
        let drawn = RandKScheme { runs, seed: seeds.shared, values: self.values.with_magnitude(0.0) };
        let factor = match self.scale {
            Scale::None => 1.0,
            Scale::Inverse => all as f64 / runs as f64,
        };
        Box::new(RandKEncoder { isa, vector: vector.clone(), drawn, factor, values: self.values })
    }

    fn is_unbiased(&self) -> bool {
        self.scale == Scale::Inverse
    }

    fn shrinks(&self) -> bool {
        self.scale == Scale::None
    }

    fn expected_nmse(&self, vector: &Vector) -> Option<f64> {
        // Each value is sent with probability runs / all, and then too large by the inverse.
        (self.scale == Scale::Inverse).then(|| runs(vector) as f64 / self.sent_runs(vector) as f64 - 1.0)
    }

    fn contracting(&self) -> Option<String> {
        (self.scale == Scale::Inverse).then(|| Self { scale: Scale::None, ..*self }.to_string())
    }
}

impl RandK {
    /// Runs of a vector that are sent.
    fn sent_runs(&self, vector: &Vector) -> u64 {
        self.portion.of(vector.len as u64).div_ceil(RUN as u64).max(least_runs(vector))
    }
}

/// Runs of a vector.
fn runs(vector: &Vector) -> u64 {
    vector.len.div_ceil(RUN) as u64
}

/// The fewest runs that are sent: one a chunk on average. So a few bytes cannot claim a vector without end.
fn least_runs(vector: &Vector) -> u64 {
    vector.len.div_ceil(CHUNK) as u64
}

/// The coding: the drawn runs, and the form of their values.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct RandKScheme {
    /// Number of drawn runs.
    pub runs: u64,
    /// The seed of the draw.
    pub seed: u64,
    /// The form of their values, `f32` or `f16`.
    pub values: KeptValues,
}

/// The drawn runs of a chunk.
struct Mask {
    /// Drawn runs of the chunks before.
    before: u64,
    drawn: [u64; CHUNK_RUNS / 64],
}

impl Mask {
    fn has(&self, run: usize) -> bool {
        self.drawn[run / 64] >> (run % 64) & 1 == 1
    }

    /// Drawn runs of the vector before a run of this chunk.
    fn rank(&self, run: usize) -> u64 {
        let whole: u32 = self.drawn[..run / 64].iter().map(|word| word.count_ones()).sum();
        let part = self.drawn.get(run / 64).map_or(0, |word| (word & ((1 << (run % 64)) - 1)).count_ones());
        self.before + u64::from(whole + part)
    }
}

impl RandKScheme {
    /// Drawn runs among those before run number `end`.
    fn before(&self, vector: &Vector, end: u64) -> u64 {
        let all = runs(vector);
        let mut random = [0; 2];
        random_words(Isa::detect(), self.seed, SHARES, 0, &mut random);
        let random = u64::from(random[0]) | (u64::from(random[1]) << 32);
        let offset = (u128::from(random) * u128::from(all)) >> 64;
        ((u128::from(self.runs) * u128::from(end) + offset) / u128::from(all)) as u64
    }

    fn mask(&self, vector: &Vector, chunk: usize) -> Mask {
        let start = (chunk * CHUNK_RUNS) as u64;
        let len = (runs(vector) - start).min(CHUNK_RUNS as u64);
        let before = self.before(vector, start);
        let mut wanted = self.before(vector, start + len) - before;
        let mut random = [0; CHUNK_RUNS];
        random_words(Isa::detect(), self.seed, RUNS_OF_CHUNK, start, &mut random);
        let mut drawn = [0; CHUNK_RUNS / 64];
        for (run, random) in (0..len).zip(random) {
            // A number below the runs left, close enough to uniform.
            if (u64::from(random) * (len - run)) >> 32 < wanted {
                drawn[run as usize / 64] |= 1 << (run % 64);
                wanted -= 1;
            }
        }
        Mask { before, drawn }
    }

    /// Values in the first `drawn` drawn runs; the last run of the vector may be short.
    fn sent(&self, vector: &Vector, drawn: u64) -> usize {
        let full = drawn as usize * RUN;
        let lacking = vector.len.next_multiple_of(RUN) - vector.len;
        let last = (runs(vector) - 1) as usize;
        let has_last = || self.mask(vector, last / CHUNK_RUNS).has(last % CHUNK_RUNS);
        if drawn == self.runs && lacking > 0 && has_last() { full - lacking } else { full }
    }

    fn value_bytes(&self) -> usize {
        if self.values == KeptValues::F16 { 2 } else { 4 }
    }
}

#[derive(Debug)]
struct RandKEncoder {
    isa: Isa,
    vector: Vector,
    drawn: RandKScheme,
    factor: f64,
    values: ValueCode,
}

impl Encoder for RandKEncoder {
    fn coding(&self) -> Coding {
        Coding::RandK(self.drawn.clone())
    }

    fn cut(&self, values: &[f32], decoded: &[f32]) -> u64 {
        self.values.cut(self.factor, values, decoded)
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let mask = self.drawn.mask(&self.vector, start / CHUNK);
        let runs = values.chunks(RUN).enumerate().filter(|(run, _)| mask.has(*run));
        let limit = f64::from(f32::MAX);
        let scaled = |x: &f32| (f64::from(*x) * self.factor).clamp(-limit, limit) as f32;
        let sent: Vec<f32> = runs.flat_map(|(_, values)| values.iter().map(scaled)).collect();
        let mut bytes = Vec::new();
        self.values.encode(self.isa, &sent, &mut bytes);
        vec![bytes]
    }
}

impl Scheme for RandKScheme {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        let (least, all) = (least_runs(vector), runs(vector));
        if !(least..=all).contains(&self.runs) {
            return Err(Invalid(format!("randk sends {} runs, expected {least} to {all}", self.runs)));
        }
        let dtype = match self.values {
            KeptValues::F32 => Dtype::F32,
            KeptValues::F16 => Dtype::F16,
            other => return Err(Invalid(format!("randk sends values as {other:?}, expected f32 or f16"))),
        };
        let extent = Extent::Known(vec![self.sent(vector, self.runs)]);
        Ok(vec![Stream { suffix: "_randk", dtype, extent }])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        RUN
    }

    fn bytes(&self, vector: &Vector, _stream: usize, values: Range<usize>) -> Range<usize> {
        let chunk = values.start / CHUNK;
        let mask = self.mask(vector, chunk);
        let bytes = |run: usize| self.value_bytes() * self.sent(vector, mask.rank(run - chunk * CHUNK_RUNS));
        bytes(values.start / RUN)..bytes(values.end.div_ceil(RUN))
    }

    fn sparsity(&self, _vector: &Vector) -> Sparsity {
        Sparsity::shared("randk", (self.seed, self.runs))
    }

    fn decode(
        &self,
        isa: Isa,
        vector: &Vector,
        start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let mask = self.mask(vector, start / CHUNK);
        let first = start % CHUNK / RUN;
        let drawn = |run: &usize| mask.has(first + run);
        let len = out.len();
        let sent: usize = (0..len.div_ceil(RUN)).filter(drawn).map(|run| RUN.min(len - run * RUN)).sum();
        let mut kept = vec![0.0; sent];
        self.values.decode(isa, streams[0], &mut kept)?;
        let mut rest = &kept[..];
        for (run, out) in out.chunks_mut(RUN).enumerate() {
            if drawn(&run) {
                let (values, behind) = rest.split_at(out.len());
                out.copy_from_slice(values);
                rest = behind;
            } else {
                out.fill(0.0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::trial::{SIZES, encode, hard, normal};
    use std::iter;

    fn randk(text: &str) -> Box<dyn Codec> {
        let codec = crate::codecs::parse(text).unwrap();
        assert_eq!(codec.to_string(), text);
        codec
    }

    #[test]
    fn whole_runs_are_exact_and_have_the_set_number() {
        for len in SIZES {
            for fraction in [0.01, 0.3, 1.0] {
                let codec = randk(&format!("randk:fraction={fraction}"));
                for values in iter::once(normal(len, 1)).chain(hard(len).map(|(_, values)| values)) {
                    let decoded = encode(&*codec, &[len], &values).decode();
                    let runs = values.chunks(RUN).zip(decoded.chunks(RUN));
                    for (sent, found) in runs {
                        assert!(sent == found || found.iter().all(|x| *x == 0.0), "{len}");
                    }
                }
                let ones: Vec<f32> = (0..len).map(|i| 1.0 + i as f32).collect();
                let decoded = encode(&*codec, &[len], &ones).decode();
                let drawn = decoded.chunks(RUN).filter(|run| run[0] != 0.0).count();
                let expected = ((fraction * len as f64).ceil() as usize).div_ceil(RUN);
                assert_eq!(drawn, expected, "{fraction} of {len}");
            }
        }
    }

    #[test]
    fn every_chunk_has_its_share() {
        let values = vec![1.0; 5 * CHUNK];
        let encoded = encode(&*randk("randk:fraction=0.1"), &[values.len()], &values);
        for chunk in &encoded.chunks {
            let runs = chunk[0].len() / (4 * RUN);
            assert!((204..=206).contains(&runs), "{runs} of 2048");
        }
    }

    #[test]
    fn any_run_of_units_is_decoded_alone() {
        let values = normal(CHUNK + 1000, 3);
        let encoded = encode(&*randk("randk:fraction=0.2,values=f16"), &[values.len()], &values);
        let whole = encoded.decode();
        let scheme = encoded.coding.scheme().unwrap();
        let bytes: Vec<u8> = encoded.chunks.iter().flat_map(|streams| streams[0].clone()).collect();
        assert_eq!(Extent::Known(vec![bytes.len() / 2]), scheme.streams(&encoded.vector).unwrap()[0].extent);
        for run in [0..32, 320..6400, CHUNK - 64..CHUNK, CHUNK..CHUNK + 1000, CHUNK + 992..CHUNK + 1000] {
            let mut out = vec![f32::NAN; run.len()];
            let bytes = &bytes[scheme.bytes(&encoded.vector, 0, run.clone())];
            scheme.decode(Isa::detect(), &encoded.vector, run.start, &[bytes], &mut out).unwrap();
            assert_eq!(out, whole[run]);
        }
    }

    // GRACE draws with replacement and does not rescale, so its mean is another one.
    #[test]
    fn with_the_inverse_scale_the_mean_over_seeds_is_what_was_encoded() {
        let vector = Vector { len: 320, shape: vec![320] };
        let values = normal(320, 8);
        let codec = randk("randk:fraction=0.25,scale=inverse");
        assert!(codec.is_unbiased() && !randk("randk:fraction=0.25").is_unbiased());
        let trials = 4000;
        let mut mean = vec![0.0f64; 320];
        for shared in 0..trials {
            let encoder = codec.encoder(Isa::detect(), &vector, Seeds { own: 0, shared });
            let (bytes, coding) = (encoder.encode(0, &values), encoder.coding());
            let mut out = vec![0.0; 320];
            coding.scheme().unwrap().decode(Isa::detect(), &vector, 0, &[&bytes[0]], &mut out).unwrap();
            mean.iter_mut().zip(out).for_each(|(mean, x)| *mean += f64::from(x) / trials as f64);
        }
        // Variance 1 / fraction - 1 = 7/3 (3 of 10 runs), over all trials.
        let off: f64 = mean.iter().zip(&values).map(|(mean, x)| (mean - f64::from(*x)).powi(2)).sum();
        let norm: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
        let expected = 7.0 / 3.0 / trials as f64;
        assert!(off / norm < 2.0 * expected, "{} against {expected}", off / norm);
    }

    #[test]
    fn all_clients_of_a_round_send_the_same_coordinates() {
        let vector = Vector { len: 5000, shape: vec![5000] };
        let codec = randk("randk:fraction=0.1");
        let coding = |own, shared| codec.encoder(Isa::detect(), &vector, Seeds { own, shared }).coding();
        assert_eq!(coding(1, 7), coding(2, 7));
        assert_ne!(coding(1, 7), coding(1, 8));
    }

    #[test]
    fn broken_streams_are_refused() {
        let values = normal(CHUNK + 300, 4);
        let encoded = encode(&*randk("randk:fraction=0.3"), &[values.len()], &values);
        encoded.assert_total(0);
        encoded.assert_total(1);
        let vector = Vector { len: 100, shape: vec![100] };
        for (runs, values) in [(0, KeptValues::F32), (5, KeptValues::F32), (1, KeptValues::U8)] {
            assert!(RandKScheme { runs, seed: 1, values }.streams(&vector).is_err());
        }
        let endless = Vector { len: 1 << 40, shape: vec![1 << 40] };
        assert!(RandKScheme { runs: 1000, seed: 1, values: KeptValues::F32 }.streams(&endless).is_err());
        assert!(crate::codecs::parse("randk:values=u8").is_err());
        assert!(crate::codecs::parse("randk:scale=half").is_err());
    }
}
