//! Surveys the vectors of an update before a file is made: the plan for each step of `ecsq`.
//!
//! One look at every tensor gives the histogram of its magnitudes, and with it the bits and the error of `ecsq` at
//! every step. One step for the whole model splits the bits between tensors almost as well as can be. Another codec,
//! tried on a sample, may have less error for its bytes at the slope of a step; then that tensor takes it (Lagrangian
//! rate allocation; Shoham and Gersho, 1988).

use crate::codecs::ecsq::{Ecsq, ZONES};
use crate::codecs::integers::{self, Integers};
use crate::codecs::{self, CHUNK, Codec, Seeds, Vector};
use crate::compress::encode::{self, EncodeError};
use crate::compress::goal::Cost;
use crate::compress::parts::{PartPlan, is_variance};
use crate::compress::quality::Quality;
use crate::compress::values::Values;
use crate::kernels::dead_zone::DeadZone;
use crate::kernels::lanes::Isa;
use crate::kernels::magnitudes::Magnitudes;
use crate::kernels::magnitudes::cells::BIT_IN_SQUARED_STEPS;
use crate::model::dtype::Kind;
use crate::model::layout::TensorSpec;
use std::sync::Arc;

/// Tensors of fewer values share a vector, which costs less than a vector each.
const SMALL: usize = 4096;

/// Codecs that are tried on a sample of each tensor, besides `ecsq`.
const TRIED: [&str; 5] =
    ["f16", "u8:block=128", "u4:block=64", "eden4:scale=min-error", "eden2:scale=min-error"];

/// Chunks of a sample.
const SAMPLED: usize = 3;

/// A vector, and what its survey found.
#[derive(Debug)]
pub(crate) struct VectorSurvey {
    plan: PartPlan,
    magnitudes: Arc<Magnitudes>,
    /// The trials of other codecs.
    tried: Vec<Trial>,
}

#[derive(Clone, Debug)]
struct Trial {
    codec: Arc<dyn Codec>,
    bytes: f64,
    error: f64,
}

/// How running variances are sent. A variance must never become negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variances {
    /// Encoded as all other tensors, and checked afterwards.
    Checked,
    /// Without loss.
    AsTheyAre,
}

impl Variances {
    /// Without the base, nothing shows whether a variance stays positive.
    pub(crate) fn of(values: &Values) -> Self {
        if values.can_check_variances() { Self::Checked } else { Self::AsTheyAre }
    }
}

/// Everything that determines a plan.
#[derive(Debug)]
pub(crate) struct Survey {
    pieces: Vec<VectorSurvey>,
    /// The dead zone of all vectors by `ecsq`. With one zone, the cost of a file changes steadily with the step.
    zone: DeadZone,
    /// Vectors whose codec is fixed.
    fixed: Vec<PartPlan>,
    /// Sum of squares of all values that may be encoded.
    energy: f64,
}

/// The float tensors that may be encoded, in a list for each vector, and the plans of all other tensors.
fn groups(
    values: &Values,
    tensors: &[TensorSpec],
    as_one: bool,
    variances: Variances,
) -> Result<(Vec<Vec<usize>>, Vec<PartPlan>), EncodeError> {
    let (mut large, mut small, mut fixed, mut counters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, spec) in tensors.iter().enumerate() {
        let is_safe = variances == Variances::Checked || !is_variance(spec);
        match spec.dtype.kind() {
            _ if spec.len == 0 => fixed.push(number),
            Kind::Float if !is_safe => fixed.push(number),
            Kind::Float if as_one || spec.len < SMALL => small.push(number),
            Kind::Float => large.push(vec![number]),
            Kind::Integer if spec.len < SMALL && are_few_digits(values, number, spec)? => {
                counters.push(number)
            }
            _ => fixed.push(number),
        }
    }
    large.extend((!small.is_empty()).then_some(small));
    let raw = |number| PartPlan::new(vec![number], tensors, None);
    let mut fixed: Vec<PartPlan> = fixed.into_iter().map(raw).collect();
    if !counters.is_empty() {
        fixed.push(PartPlan::new(counters, tensors, Some(Arc::new(Integers {}))));
    }
    Ok((large, fixed))
}

fn are_few_digits(values: &Values, number: usize, spec: &TensorSpec) -> Result<bool, EncodeError> {
    let sent = values.read_exact(number, 0, spec.len)?;
    Ok(sent.iter().all(|x| x.abs() <= f64::from(integers::LARGEST)))
}

impl Survey {
    /// Surveys all tensors that may be encoded.
    ///
    /// # Errors
    ///
    /// When values cannot be read.
    pub(crate) fn new(
        values: &Values,
        tensors: &[TensorSpec],
        as_one: bool,
        variances: Variances,
    ) -> Result<Self, EncodeError> {
        let (groups, fixed) = groups(values, tensors, as_one, variances)?;
        let plans: Vec<PartPlan> =
            groups.into_iter().map(|group| PartPlan::new(group, tensors, None)).collect();
        let found = Self::magnitudes(values, &plans)?;
        let mut pieces = Vec::with_capacity(plans.len());
        for (plan, magnitudes) in plans.into_iter().zip(found) {
            let tried = try_codecs(values.isa, &sample(values, &plan)?, plan.vector.len, magnitudes.energy());
            pieces.push(VectorSurvey { plan, magnitudes, tried });
        }
        let energy = pieces.iter().map(|piece| piece.magnitudes.energy()).sum();
        Ok(Self { pieces, zone: ZONES[1], fixed, energy })
    }

    /// Surveys vectors that have a codec, of which only the step is open.
    pub(crate) fn of_vectors(values: &Values, plans: &[PartPlan]) -> Result<Self, EncodeError> {
        let (encoded, fixed): (Vec<PartPlan>, _) =
            plans.iter().cloned().partition(|part| part.codec.is_some());
        let found = Self::magnitudes(values, &encoded)?;
        let piece = |(plan, magnitudes)| VectorSurvey { plan, magnitudes, tried: Vec::new() };
        let pieces: Vec<VectorSurvey> = encoded.into_iter().zip(found).map(piece).collect();
        let energy = pieces.iter().map(|piece| piece.magnitudes.energy()).sum();
        Ok(Self { pieces, zone: ZONES[1], fixed, energy })
    }

    fn magnitudes(values: &Values, plans: &[PartPlan]) -> Result<Vec<Arc<Magnitudes>>, EncodeError> {
        let mut found: Vec<Magnitudes> = plans.iter().map(|_| Magnitudes::default()).collect();
        let look = |_, chunk: &[f32]| Magnitudes::of(values.isa, chunk);
        encode::gather(values, plans, look, |part, more| found[part].add(&more))?;
        Ok(found.into_iter().map(Arc::new).collect())
    }

    /// The plan for a step.
    pub(crate) fn plan(&self, step: f64) -> Vec<PartPlan> {
        let slope = byte_at(step);
        let choose = |piece: &VectorSurvey| PartPlan {
            codec: Some(piece.choose(step, self.zone, slope).codec),
            ..piece.plan.clone()
        };
        self.pieces.iter().map(choose).chain(self.fixed.iter().cloned()).collect()
    }

    /// The dead zones to choose from.
    pub(crate) fn zones() -> impl Iterator<Item = DeadZone> {
        ZONES.into_iter()
    }

    /// The survey with another dead zone.
    pub(crate) fn with_zone(mut self, zone: DeadZone) -> Self {
        self.zone = zone;
        self
    }

    /// Estimates the bytes of the vectors and the NMSE at a step.
    pub(crate) fn predict(&self, step: f64) -> Cost {
        let slope = byte_at(step);
        let chosen: Vec<Trial> =
            self.pieces.iter().map(|piece| piece.choose(step, self.zone, slope)).collect();
        let bytes: f64 = chosen.iter().map(|tried| tried.bytes).sum();
        let error: f64 = chosen.iter().map(|tried| tried.error).sum();
        Cost { bytes: bytes as u64, nmse: if error == 0.0 { 0.0 } else { error / self.energy } }
    }

    /// Values of all vectors whose codec is open.
    pub(crate) fn values(&self) -> usize {
        self.pieces.iter().map(|piece| piece.plan.vector.len).sum()
    }

    /// The smallest and the largest step worth trying.
    pub(crate) fn range(&self) -> (f64, f64) {
        let largest = self.pieces.iter().map(|piece| piece.magnitudes.largest()).fold(0.0, f64::max);
        let top = (4.0 * largest).clamp(f64::from(f32::MIN_POSITIVE) * 1e6, f64::from(f32::MAX) / 2.0);
        ((top / 2f64.powi(40)).max(f64::from(f32::MIN_POSITIVE)), top)
    }
}

/// The squared error that a byte is worth at a step.
fn byte_at(step: f64) -> f64 {
    8.0 * BIT_IN_SQUARED_STEPS * step * step
}

/// About the bytes of a vector besides its codes.
const VECTOR_BYTES: f64 = 24.0;

impl VectorSurvey {
    /// The codec of least error plus bytes, where `slope` is the squared error that a byte is worth.
    fn choose(&self, step: f64, zone: DeadZone, slope: f64) -> Trial {
        let (bits, error) = self.magnitudes.entropy_and_error(step, zone);
        let ecsq = Trial {
            codec: Arc::new(Ecsq::with_zone(step as f32, zone, &self.magnitudes)),
            bytes: bits / 8.0 + VECTOR_BYTES,
            error,
        };
        let cost = |tried: &Trial| tried.error + slope * tried.bytes;
        let best = self.tried.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        best.filter(|best| cost(best) < cost(&ecsq)).cloned().unwrap_or(ecsq)
    }
}

/// Chunks spread over a vector.
fn sample(values: &Values, plan: &PartPlan) -> Result<Vec<f32>, EncodeError> {
    let chunks = plan.vector.len.div_ceil(CHUNK);
    let mut sample = Vec::new();
    for k in 0..SAMPLED.min(chunks) {
        let start = k * chunks / SAMPLED.min(chunks) * CHUNK;
        let first = sample.len();
        sample.resize(first + CHUNK.min(plan.vector.len - start), 0.0);
        values.read(plan, start, &mut sample[first..])?;
    }
    Ok(sample)
}

/// Trials on a sample, scaled to all `len` values with squared norm `energy`.
fn try_codecs(isa: Isa, sample: &[f32], len: usize, energy: f64) -> Vec<Trial> {
    let sampled: f64 = sample.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let scale = len as f64 / sample.len().max(1) as f64;
    let tried = TRIED.iter().filter_map(|text| {
        let codec: Arc<dyn Codec> = Arc::from(codecs::parse(text).ok()?);
        let (bytes, error) = try_codec(isa, &*codec, sample)?;
        let error = if sampled == 0.0 { 0.0 } else { error / sampled * energy };
        Some(Trial { codec, bytes: bytes as f64 * scale, error })
    });
    tried.collect()
}

/// Bytes and squared error of a codec on some values.
fn try_codec(isa: Isa, codec: &dyn Codec, sample: &[f32]) -> Option<(usize, f64)> {
    let vector = Vector { len: sample.len(), shape: vec![sample.len()] };
    let mut encoder = codec.encoder(isa, &vector, Seeds { own: 0, shared: 0 });
    codecs::settle(encoder.as_mut(), sample);
    let coding = encoder.coding();
    let scheme = coding.scheme()?;
    let (mut bytes, mut quality) = (0, Quality::default());
    for (start, chunk) in codecs::chunks(sample) {
        let streams = encoder.encode(start, chunk);
        bytes += streams.iter().map(Vec::len).sum::<usize>();
        let mut decoded = vec![0.0; chunk.len()];
        let streams: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        scheme.decode(isa, &vector, start, &streams, &mut decoded).ok()?;
        quality.add(&Quality::of(isa, chunk, &decoded));
    }
    Some((bytes, quality.errors))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Normal values, the same every time.
    pub(in crate::compress) fn normal(scale: f64, len: usize) -> Vec<f32> {
        let mut state = len as u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / f64::from(1 << 24) + 1e-9
        };
        let mut next = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        (0..len).map(|_| (scale * next()) as f32).collect()
    }

    /// The survey of vectors in memory.
    pub(in crate::compress) fn survey(vectors: &[Vec<f32>]) -> Survey {
        let isa = Isa::detect();
        let piece = |(number, values): (usize, &Vec<f32>)| {
            let magnitudes = Arc::new(Magnitudes::of(isa, values));
            let tried = try_codecs(isa, values, values.len(), magnitudes.energy());
            let vector = Vector { len: values.len(), shape: vec![values.len()] };
            VectorSurvey { plan: PartPlan { tensors: vec![number], vector, codec: None }, magnitudes, tried }
        };
        let pieces: Vec<VectorSurvey> = vectors.iter().enumerate().map(piece).collect();
        let energy = pieces.iter().map(|piece| piece.magnitudes.energy()).sum();
        Survey { pieces, zone: ZONES[1], fixed: Vec::new(), energy }
    }

    /// The measured cost of a plan: the vectors encoded and decoded.
    pub(in crate::compress) fn made(plan: &[PartPlan], vectors: &[Vec<f32>]) -> Cost {
        let (mut bytes, mut errors, mut squares) = (0, 0.0, 0.0);
        for (part, values) in plan.iter().zip(vectors) {
            let (more, error) = try_codec(Isa::detect(), &**part.codec.as_ref().unwrap(), values).unwrap();
            (bytes, errors) = (bytes + more as u64, errors + error);
            squares += values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        }
        Cost { bytes, nmse: errors / squares }
    }

    /// Vectors of two scales, and one whose values are exact in f16.
    fn vectors() -> [Vec<f32>; 3] {
        let halves = normal(1.0, 6000).iter().map(|x| half::f16::from_f32(*x).to_f32()).collect();
        [normal(1.0, 8000), normal(1e-3, 5000), halves]
    }

    fn codecs(plan: &[PartPlan]) -> Vec<String> {
        plan.iter().map(|part| part.codec.as_ref().unwrap().to_string()).collect()
    }

    #[test]
    fn the_largest_step_leaves_nothing() {
        let vectors = vectors();
        let survey = survey(&vectors);
        let plan = survey.plan(survey.range().1);
        assert!(codecs(&plan).iter().all(|codec| codec.starts_with("ecsq:")), "{plan:?}");
        let found = made(&plan, &vectors);
        assert!(found.bytes <= 16 && (found.nmse - 1.0).abs() < 1e-9, "{found:?}");
    }

    /// A vector of f16 values goes as f16 where `ecsq` needs more bytes.
    #[test]
    fn small_steps_take_wider_codecs() {
        let vectors = vectors();
        let survey = survey(&vectors);
        for (k, last) in [(5, "ecsq:"), (10, "ecsq:"), (20, "f16"), (30, "f16")] {
            let step = survey.range().1 / 2f64.powi(k);
            let codecs = codecs(&survey.plan(step));
            assert!(codecs[..2].iter().all(|codec| codec.starts_with("ecsq:")), "{step}: {codecs:?}");
            assert!(codecs[2].starts_with(last), "{step}: {codecs:?}");
        }
    }

    /// The search starts from the estimates.
    #[test]
    fn estimates_are_near() {
        let vectors = vectors();
        let survey = survey(&vectors);
        for k in 4..12 {
            let step = survey.range().1 / 2f64.powi(k);
            let (expected, found) = (survey.predict(step), made(&survey.plan(step), &vectors));
            let (bytes, nmse) = (expected.bytes as f64 / found.bytes as f64, expected.nmse / found.nmse);
            assert!(
                (0.9..1.1).contains(&bytes) && (0.75..1.3).contains(&nmse),
                "{step}: {expected:?} {found:?}"
            );
        }
    }
}
