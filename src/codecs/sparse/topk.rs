//! `topk`: the k values of largest magnitude, and where they are. All others decode as zero.
//!
//! The choice is exact; ties go to the lowest index ([`select_largest`]). Zeros are never sent, however large k is.
//! Sources: Aji and Heafield, Sparse communication for distributed gradient descent, 2017; for `values=ternary`, one
//! magnitude for all, the mean over the sent values: Sattler et al., Robust and communication-efficient federated
//! learning from non-i.i.d. data, 2019.
//!
//! A chunk is three bytes with the number of its values and the m of the Rice code, then the indices (`rice`; none if
//! all values of the chunk are sent), then the values ([`KeptValues`]).

use crate::codecs::device::AT_ONCE;
use crate::codecs::packing::rice;
use crate::codecs::sparse::kept_values::{KeptValues, ValueCode};
use crate::codecs::sparse::portion::Portion;
use crate::codecs::{
    CHUNK, Codec, Coding, Device, Encoder, Extent, Family, Invalid, Scheme, Seeds, Stream, Tally, Vector,
};
use crate::kernels::lanes::Isa;
use crate::kernels::select_largest::{self, Beyond, Search, Threshold};
use crate::model::dtype::Dtype;
use crate::model::sparsity::Sparsity;
use crate::settings::{Settings, SpecError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "the values of largest magnitude",
    settings: &[
        ("fraction", &["0.01", "0.5"]),
        ("k", &["100"]),
        ("values", &["f32", "f16", "u8", "u4", "ternary"]),
    ],
    tried: &["fraction=0.01", "fraction=0.1"],
    codecs: &[("topk", parse)],
};

/// Bytes before the indices of a chunk.
const HEAD_BYTES: usize = 3;

/// Bits of the number of values in the head of a chunk; the other bits have m.
const COUNT_BITS: u32 = 17;

/// Vectors of this many values are sampled first. The sample shows where the k-th largest magnitude is, so that one
/// look at all values is enough.
const LONG: usize = 2 * SAMPLED_CHUNKS * CHUNK;

/// The fewest chunks of a sample; of longer vectors, one chunk in `SAMPLED` is sampled.
const SAMPLED_CHUNKS: usize = 4;
const SAMPLED: usize = 32;

/// Keys that a chunk may give. With more keys, the search goes digit by digit.
const MOST_KEYS: usize = CHUNK / 8;

/// The codec.
#[derive(Clone, Debug)]
pub struct TopK {
    portion: Portion,
    values: ValueCode,
    device: Option<Arc<dyn Device>>,
}

fn parse(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let portion = Portion::take(settings)?;
    Ok(Box::new(TopK { portion, values: settings.take("values")?.unwrap_or(ValueCode::F32), device: None }))
}

impl fmt::Display for TopK {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topk:{}", self.portion)?;
        match self.values {
            ValueCode::F32 => Ok(()),
            values => write!(f, ",values={values}"),
        }
    }
}

impl Codec for TopK {
    fn encoder(&self, isa: Isa, vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        let k = self.portion.of(vector.len as u64);
        let device = self.device.clone();
        let stage = match vector.len >= LONG && device.is_none() {
            true => Stage::Sampling,
            false => Stage::Searching(Search::new(k)),
        };
        Box::new(TopKEncoder { isa, device, len: vector.len, k, values: self.values, stage })
    }

    fn shrinks(&self) -> bool {
        true
    }

    fn has_shaders(&self) -> bool {
        true
    }

    fn on_device(&self, device: Arc<dyn Device>) -> Option<Arc<dyn Codec>> {
        Some(Arc::new(Self { device: Some(device), ..self.clone() }))
    }
}

/// The coding: the number of chosen values, and their form.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct TopKScheme {
    /// Chosen values of the whole vector, zeros included.
    pub k: u64,
    /// Their form.
    pub values: KeptValues,
}

#[derive(Debug)]
struct TopKEncoder {
    isa: Isa,
    device: Option<Arc<dyn Device>>,
    len: usize,
    k: u64,
    values: ValueCode,
    stage: Stage,
}

/// The state of the search for the k-th largest magnitude.
#[derive(Debug)]
enum Stage {
    /// A look at a sample of the chunks of a long vector.
    Sampling,
    /// A look at all magnitudes between two keys.
    Narrowing(Range<u32>),
    /// A look for the next digit of the key.
    Searching(Search),
    /// The key is known. A look counts the ties of each chunk, and sums the sent magnitudes.
    Counting(Threshold),
    Settled(Settled),
}

#[derive(Debug)]
struct Settled {
    key: u32,
    /// Values with the key that each chunk sends; `None` for all of them.
    ties: Option<Vec<u64>>,
    /// The mean magnitude of the sent values, for ternary values.
    mean: f32,
}

impl TopKEncoder {
    /// The counts of the search, from the GPU if there is one.
    fn count(&self, search: &Search, values: &[f32]) -> Vec<u64> {
        let on_device =
            self.device.as_ref().and_then(|device| device.histogram(values, search.next_digit()?));
        on_device.unwrap_or_else(|| search.count(self.isa, values))
    }

    /// The indices of the sent values of a chunk, from the GPU if there is one.
    fn take(&self, values: &[f32], key: u32, ties: u64) -> Vec<u32> {
        let on_device = self.device.as_ref().and_then(|device| device.take(values, key, ties));
        on_device.unwrap_or_else(|| select_largest::take(self.isa, values, key, ties))
    }

    /// Ends the search at a key between the two, or starts the search by digits if the key is not there.
    fn narrowed(&self, tally: &Tally) -> Stage {
        let [beyond, 0, of_chunks @ ..] = &tally.counts[..] else {
            return Stage::Searching(Search::new(self.k));
        };
        let found = select_largest::threshold_among(tally.keys.clone(), *beyond, self.k);
        let Some(threshold) = found else { return Stage::Searching(Search::new(self.k)) };
        match self.found(threshold) {
            // The chunks gave all tied keys, in order.
            Stage::Counting(_) if !matches!(self.values, ValueCode::Ternary) => {
                let mut keys = &tally.keys[..];
                let tied = of_chunks.iter().map(|count| {
                    let (of_chunk, rest) = keys.split_at(*count as usize);
                    keys = rest;
                    of_chunk.iter().filter(|key| **key == threshold.key).count() as u64
                });
                let counts = tied.collect();
                Stage::Settled(self.counted(threshold, &Tally { counts, ..Tally::default() }))
            }
            stage => stage,
        }
    }

    /// The state once the key is known: settled if no tie has to be shared out.
    fn found(&self, threshold: Threshold) -> Stage {
        let Threshold { key, ties, tied } = threshold;
        match (self.values, key) {
            (ValueCode::Ternary, _) => Stage::Counting(threshold),
            (_, 0) => Stage::Settled(Settled { key, ties: Some(Vec::new()), mean: 0.0 }),
            _ if ties == tied => Stage::Settled(Settled { key, ties: None, mean: 0.0 }),
            _ => Stage::Counting(threshold),
        }
    }

    /// Shares the sent ties out among the chunks, in order.
    fn counted(&self, threshold: Threshold, tally: &Tally) -> Settled {
        let key = threshold.key;
        let mut left = if key == 0 { 0 } else { threshold.ties };
        let magnitude = f64::from(f32::from_bits(key));
        let sum = tally.sums.first().copied().unwrap_or(0.0) + left as f64 * magnitude;
        // Zeros are not sent, so the mean leaves them out.
        let sent = if key == 0 { tally.counts.last().copied().unwrap_or(0) } else { self.k };
        let mean = (sum / sent.max(1) as f64) as f32;
        let chunks = self.len.div_ceil(CHUNK);
        let ties = tally.counts.iter().take(chunks).map(|tied| {
            let taken = left.min(*tied);
            left -= taken;
            taken
        });
        Settled { key, ties: Some(ties.collect()), mean }
    }
}

impl Encoder for TopKEncoder {
    fn wants_look(&self) -> bool {
        !matches!(self.stage, Stage::Settled(_))
    }

    fn look_at_each(&self) -> usize {
        match self.stage {
            Stage::Sampling => (self.len.div_ceil(CHUNK) / SAMPLED_CHUNKS).clamp(1, SAMPLED),
            _ => 1,
        }
    }

    fn look(&self, start: usize, values: &[f32]) -> Tally {
        match &self.stage {
            Stage::Sampling => Tally { counts: select_largest::count_sample(values), ..Tally::default() },
            Stage::Narrowing(range) => {
                let mut keys = Vec::new();
                let beyond = select_largest::narrow_down(self.isa, values, range, &mut keys, MOST_KEYS);
                let dropped = u64::from(keys.len() >= MOST_KEYS);
                if dropped > 0 {
                    keys.clear();
                }
                // After these two counts, the number of keys of each chunk.
                let mut counts = vec![0; 3 + start / CHUNK];
                counts[..2].copy_from_slice(&[beyond, dropped]);
                counts[2 + start / CHUNK] = keys.len() as u64;
                Tally { counts, keys, ..Tally::default() }
            }
            Stage::Searching(search) => Tally { counts: self.count(search, values), ..Tally::default() },
            Stage::Counting(threshold) => {
                let Beyond { tied, sum } = select_largest::beyond(self.isa, values, threshold.key);
                // The ties of each chunk, and after them the number of nonzero values in all.
                let mut counts = vec![0; self.len.div_ceil(CHUNK) + 1];
                counts[start / CHUNK] = tied;
                if let (0, Some(sent)) = (threshold.key, counts.last_mut()) {
                    *sent = values.len() as u64 - tied;
                }
                Tally { counts, sums: vec![sum], ..Tally::default() }
            }
            Stage::Settled(_) => Tally::default(),
        }
    }

    fn cut(&self, values: &[f32], decoded: &[f32]) -> u64 {
        self.values.cut(1.0, values, decoded)
    }

    fn learn(&mut self, tally: Tally) {
        self.stage = match &mut self.stage {
            Stage::Sampling => {
                Stage::Narrowing(select_largest::likely(&tally.counts, self.k, self.len as u64))
            }
            Stage::Narrowing(_) => self.narrowed(&tally),
            Stage::Searching(search) => {
                search.narrow(&tally.counts);
                match search.threshold() {
                    None => return,
                    Some(threshold) => self.found(threshold),
                }
            }
            Stage::Counting(threshold) => {
                let threshold = *threshold;
                Stage::Settled(self.counted(threshold, &tally))
            }
            Stage::Settled(_) => return,
        };
    }

    fn coding(&self) -> Coding {
        let mean = match &self.stage {
            Stage::Settled(settled) => settled.mean,
            _ => 0.0,
        };
        Coding::TopK(TopKScheme { k: self.k, values: self.values.with_magnitude(mean) })
    }

    fn expected_bytes(&self) -> u64 {
        let chunks = self.len.div_ceil(CHUNK) as u64;
        let bits = (self.len as f64 / self.k as f64).log2() + 2.0 + self.values.bits();
        (self.k as f64 * bits / 8.0) as u64 + chunks * (HEAD_BYTES as u64 + 8)
    }

    fn encode(&self, start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let Stage::Settled(settled) = &self.stage else { return vec![Vec::new()] };
        vec![self.chunk(values, &self.take(values, settled.key, settled.ties_of(start, values.len())))]
    }

    fn at_once(&self) -> usize {
        match self.stage {
            // A GPU does the work of these stages.
            Stage::Searching(_) | Stage::Settled(_) if self.device.is_some() => AT_ONCE,
            _ => CHUNK,
        }
    }

    fn encode_chunks(&self, start: usize, values: &[f32]) -> Vec<Vec<Vec<u8>>> {
        let Stage::Settled(settled) = &self.stage else { return vec![vec![Vec::new()]] };
        // The ties of a run of chunks are its first ones, as those of each chunk are.
        let taken = self.take(values, settled.key, settled.ties_of(start, values.len()));
        let mut rest = &taken[..];
        let chunk = |(place, values): (usize, &[f32])| {
            let first = place * CHUNK;
            let (own, behind) =
                rest.split_at(rest.partition_point(|index| (*index as usize) < first + CHUNK));
            rest = behind;
            let own: Vec<u32> = own.iter().map(|index| index - first as u32).collect();
            vec![self.chunk(values, &own)]
        };
        values.chunks(CHUNK).enumerate().map(chunk).collect()
    }
}

impl Settled {
    /// Values with the key that a run of chunks sends.
    fn ties_of(&self, start: usize, len: usize) -> u64 {
        let chunks = start / CHUNK..(start + len).div_ceil(CHUNK);
        match &self.ties {
            None => u64::MAX,
            Some(ties) => chunks.map(|chunk| ties.get(chunk).copied().unwrap_or(0)).sum(),
        }
    }
}

impl TopKEncoder {
    /// The bytes of a chunk that sends the values with these indices.
    fn chunk(&self, values: &[f32], taken: &[u32]) -> Vec<u8> {
        let is_full = taken.len() == values.len();
        let m = if is_full { 0 } else { rice::parameter(taken) };
        let head = taken.len() as u32 | m << COUNT_BITS;
        let mut bytes = head.to_le_bytes()[..HEAD_BYTES].to_vec();
        if !is_full {
            bytes = rice::encode(taken, m, bytes);
        }
        let kept: Vec<f32> = taken.iter().map(|index| values[*index as usize]).collect();
        self.values.encode(self.isa, &kept, &mut bytes);
        bytes
    }
}

impl Scheme for TopKScheme {
    fn streams(&self, vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        if !(1..=vector.len as u64).contains(&self.k) {
            return Err(Invalid(format!("topk sends {} values of {}", self.k, vector.len)));
        }
        self.values.check()?;
        Ok(vec![Stream { suffix: "_topk", dtype: Dtype::U8, extent: Extent::Chunks }])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        CHUNK
    }

    fn bytes(&self, _vector: &Vector, _stream: usize, _values: Range<usize>) -> Range<usize> {
        0..0
    }

    fn sparsity(&self, vector: &Vector) -> Sparsity {
        Sparsity::Own { codec: "topk", fraction: self.k as f64 / vector.len.max(1) as f64 }
    }

    fn decode(
        &self,
        isa: Isa,
        _vector: &Vector,
        _start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let (count, m, rest) = head(streams[0], out.len())?;
        if count == out.len() {
            return self.values.decode(isa, rest, out);
        }
        let (positions, rest) = rice::decode(rest, m, count, out.len())?;
        let mut kept = vec![0.0; count];
        self.values.decode(isa, rest, &mut kept)?;
        out.fill(0.0);
        positions.iter().zip(kept).for_each(|(position, x)| out[*position as usize] = x);
        Ok(())
    }
}

/// The number of values in a chunk of `len`, the m of its indices, and the bytes that follow.
fn head(bytes: &[u8], len: usize) -> Result<(usize, u32, &[u8]), Invalid> {
    let (head, rest) = bytes
        .split_at_checked(HEAD_BYTES)
        .ok_or_else(|| Invalid(format!("chunk has {} bytes, expected at least {HEAD_BYTES}", bytes.len())))?;
    let head = u32::from(head[0]) | u32::from(head[1]) << 8 | u32::from(head[2]) << 16;
    let (count, m) = ((head & ((1 << COUNT_BITS) - 1)) as usize, head >> COUNT_BITS);
    if count > len {
        return Err(Invalid(format!("chunk sends {count} values, expected at most {len}")));
    }
    if m > if count == len { 0 } else { rice::MOST_BITS } {
        return Err(Invalid(format!("indices have m = {m}, which no encoder writes")));
    }
    Ok((count, m, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codecs::quantize::sign::Magnitude;
    use crate::codecs::trial::{SIZES, encode, hard, normal};
    use crate::codecs::wire::Bits;

    fn topk(text: &str) -> Box<dyn Codec> {
        let codec = crate::codecs::parse(text).unwrap();
        assert_eq!(codec.to_string(), text);
        codec
    }

    /// The k values of largest magnitude, ties to the lowest index, by sorting.
    fn kept(values: &[f32], k: usize) -> Vec<f32> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)));
        let mut out = vec![0.0; values.len()];
        order[..k].iter().for_each(|i| out[*i] = values[*i]);
        out
    }

    #[test]
    fn the_k_largest_are_decoded_exactly_and_all_others_are_zero() {
        for len in SIZES {
            let codec = topk("topk:fraction=0.01");
            let k = len.div_ceil(100);
            let values = normal(len, 1);
            assert_eq!(encode(&*codec, &[len], &values).decode(), kept(&values, k), "{len}");
            for (_, values) in hard(len) {
                assert_eq!(encode(&*codec, &[len], &values).decode(), kept(&values, k), "{len}");
            }
        }
    }

    #[test]
    fn a_long_vector_is_sampled_and_searched_again_where_the_sample_misleads() {
        let k = LONG.div_ceil(100);
        let mut values = normal(LONG, 5);
        for case in ["random", "tied", "misleading"] {
            match case {
                "tied" => values.iter_mut().for_each(|x| *x = (*x * 16.0).round() / 16.0),
                // The sampled chunks are much smaller than all others.
                "misleading" => {
                    let sampled = values.chunks_mut(CHUNK).step_by(LONG / CHUNK / SAMPLED_CHUNKS).flatten();
                    sampled.for_each(|x| *x *= 1e-3);
                }
                _ => {}
            }
            let decoded = encode(&*topk("topk:fraction=0.01"), &[LONG], &values).decode();
            let mut magnitudes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
            let least = *magnitudes.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
            assert!(values.iter().zip(&decoded).all(|(x, y)| *y == if x.abs() > least { *x } else { *y }));
            assert!(decoded.iter().all(|x| *x == 0.0 || x.abs() >= least));
            assert_eq!(decoded.iter().filter(|x| **x != 0.0).count(), k);
            let tied = values.iter().zip(&decoded).filter(|(x, _)| x.abs() == least);
            assert!(tied.map(|(_, y)| *y == 0.0).is_sorted(), "the first of those that tie are sent");
        }
    }

    #[test]
    fn ties_go_to_the_lowest_index_across_chunks() {
        let len = 2 * CHUNK + 77;
        let values: Vec<f32> = (0..len).map(|i| [0.5, -2.0, 1.0][i % 3]).collect();
        for k in [1, 30_000, 43_716, 43_717, 60_000, len - 1, len, len + 5] {
            let encoded = encode(&*topk(&format!("topk:k={k}")), &[len], &values);
            assert_eq!(encoded.decode(), kept(&values, k.min(len)), "{k}");
        }
    }

    #[test]
    fn every_form_of_values_is_near() {
        let values = normal(200_003, 5);
        let exact = encode(&*topk("topk:fraction=0.05"), &[values.len()], &values).nmse(&values);
        for (form, more) in [("f16", 1e-6), ("u8", 1e-4), ("u4", 0.006), ("ternary", 0.06)] {
            let encoded =
                encode(&*topk(&format!("topk:fraction=0.05,values={form}")), &[values.len()], &values);
            let found = encoded.nmse(&values);
            assert!(found >= exact && found < exact + more, "{form}: {found}, exact {exact}");
        }
        for form in ["f16", "u8", "u4", "ternary"] {
            for len in [1usize, 2, 65, 257, CHUNK + 1] {
                for (_, values) in hard(len) {
                    let codec = topk(&format!("topk:fraction=0.5,values={form}"));
                    assert!(encode(&*codec, &[len], &values).decode().iter().all(|x| x.is_finite()));
                }
            }
        }
    }

    #[test]
    fn energy_of_what_is_kept_is_that_of_the_tail_of_a_normal_distribution() {
        let values = normal(1 << 18, 9);
        for (fraction, energy) in [(0.1, 0.4393), (0.05, 0.2791), (0.01, 0.0845), (0.001, 0.0127)] {
            let codec = topk(&format!("topk:fraction={fraction}"));
            let found = 1.0 - encode(&*codec, &[values.len()], &values).nmse(&values);
            assert!((found / energy - 1.0).abs() < 0.03, "{fraction}: {found}, expected {energy}");
        }
    }

    #[test]
    fn indices_cost_what_their_entropy_says_within_a_fiftieth() {
        let values = normal(1 << 18, 2);
        let f = 0.01f64;
        let encoded = encode(&*topk("topk:fraction=0.01"), &[values.len()], &values);
        let k = (f * values.len() as f64).ceil();
        let bytes: usize = encoded.chunks.iter().map(|streams| streams[0].len()).sum();
        let bits = 8.0 * bytes as f64 / k - 32.0;
        let entropy = -(f * f.log2() + (1.0 - f) * (1.0 - f).log2()) / f;
        assert!(bits / entropy < 1.02, "{bits} bits an index, entropy {entropy}");
    }

    // OpenFL's STC divides by all values, zeros included, so its magnitude is too small by the sent fraction.
    #[test]
    fn the_magnitude_of_ternary_values_is_the_mean_over_those_sent() {
        let values = [0.0, 4.0, -2.0, 1.0, 0.5, -1.0, 0.0, 0.0f32];
        for (k, expected) in [(1, 4.0f32), (2, 3.0), (3, 7.0 / 3.0), (4, 2.0), (8, 8.5 / 5.0)] {
            let decoded = encode(&*topk(&format!("topk:k={k},values=ternary")), &[8], &values).decode();
            assert_eq!(decoded[1], expected, "k = {k}");
            assert_eq!(decoded.iter().filter(|x| **x != 0.0).count(), k.min(5));
        }
    }

    // GRACE's threshold takes max(x) instead of max|x|, and keeps all values where all are negative.
    #[test]
    fn negative_values_are_no_other_than_positive_ones() {
        let values: Vec<f32> = (0..1000).map(|i| -(i as f32) - 1.0).collect();
        let decoded = encode(&*topk("topk:k=10"), &[1000], &values).decode();
        assert_eq!(decoded.iter().filter(|x| **x != 0.0).count(), 10);
        assert_eq!(decoded[990..], values[990..]);
    }

    #[test]
    fn zeros_are_not_sent() {
        let encoded = encode(&*topk("topk:fraction=0.5"), &[CHUNK], &vec![0.0; CHUNK]);
        assert_eq!(encoded.chunks[0][0].len(), HEAD_BYTES);
    }

    #[test]
    fn broken_streams_are_refused() {
        let values = normal(CHUNK + 300, 4);
        for form in ["f32", "f16", "u8", "u4", "ternary"] {
            let codec = crate::codecs::parse(&format!("topk:fraction=0.01,values={form}")).unwrap();
            let encoded = encode(&*codec, &[values.len()], &values);
            encoded.assert_total(0);
            encoded.assert_total(1);
            let longer: Vec<Vec<u8>> =
                encoded.chunks[1].iter().map(|bytes| [&bytes[..], &[0]].concat()).collect();
            assert!(encoded.decode_chunk(1, &longer).is_err());
        }
        let vector = Vector { len: 10, shape: vec![10] };
        for (k, values) in
            [(0, KeptValues::F32), (11, KeptValues::F32), (1, KeptValues::Ternary(Magnitude(Bits(-1.0))))]
        {
            assert!(TopKScheme { k, values }.streams(&vector).is_err());
        }
        let too_many = TopKScheme { k: 1, values: KeptValues::F32 };
        let head = [0xff, 0xff, 0x00];
        assert!(too_many.decode(Isa::detect(), &vector, 0, &[&head], &mut [0.0; 10]).is_err());
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for text in
            ["topk:fraction=0", "topk:fraction=1.5", "topk:k=0", "topk:k=1,fraction=0.5", "topk:values=u5"]
        {
            assert!(crate::codecs::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_of_a_chunk_are_kept_only_if_they_are_all() {
        let look = |values: &[f32]| {
            let stage = Stage::Narrowing(1..0x7fff_ffff);
            let (isa, values_as) = (Isa::detect(), ValueCode::F32);
            TopKEncoder { isa, device: None, len: CHUNK, k: 10, values: values_as, stage }.look(0, values)
        };
        let mut values = vec![0.0; CHUNK];
        values[..3].fill(1.0);
        let few = look(&values);
        assert_eq!((few.counts, few.keys.len()), (vec![0, 0, 3], 3));
        // Reading stops at this number, so more may follow.
        for many in [MOST_KEYS, CHUNK] {
            values[..many].fill(1.0);
            let found = look(&values);
            assert_eq!((found.counts, found.keys.len()), (vec![0, 1, 0], 0));
        }
    }
}
