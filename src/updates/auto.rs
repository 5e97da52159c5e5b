//! Chooses codecs and steps to meet a number of bytes or an error.
//!
//! One look at every tensor gives the histogram of its magnitudes, which tells the bits and the error of `ecsq` at every
//! step. One step for the whole model is close to the best split of bits between tensors; where another codec, tried on
//! a sample, gives less error for its bytes at the slope that the step stands for, that tensor takes it (Lagrangian rate
//! allocation; Shoham and Gersho, 1988). Then the file is made and measured, and the step corrected by what was found:
//! what is reported is never an estimate.

use super::encode::{self, EncodeError, Running};
use super::plan::{self, PartPlan, is_variance};
use super::quality::Quality;
use super::values::Values;
use crate::codecs::ecsq::Ecsq;
use crate::codecs::integers::{self, Integers};
use crate::codecs::{self, CHUNK, Codec, ModelGoal, Seeds, Vector};
use crate::kernels::cells::BIT_IN_SQUARED_STEPS;
use crate::kernels::dead_zone::DeadZone;
use crate::kernels::lanes::Isa;
use crate::kernels::magnitudes::Magnitudes;
use crate::model::dtype::Kind;
use crate::model::layout::TensorSpec;
use std::sync::Arc;

/// Tensors of fewer values share a vector: what each would cost by itself is more than sharing does.
const SMALL: usize = 4096;

/// Models of up to so many values are also tried as one vector.
pub const TINY_MODEL: usize = 1 << 18;

/// Codecs that are tried on a sample of each tensor beside `ecsq`.
const TRIED: [&str; 5] =
    ["f16", "u8:block=128", "u4:block=64", "eden4:scale=min-error", "eden2:scale=min-error"];

/// Chunks of a sample.
const SAMPLED: usize = 3;

/// What has to be met.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Goal {
    /// The most bytes that the file may have.
    pub bytes: Option<u64>,
    /// The largest NMSE.
    pub nmse: Option<f64>,
}

/// What a file came to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Found {
    /// Its bytes.
    pub bytes: u64,
    /// Its NMSE.
    pub nmse: f64,
}

impl Goal {
    /// Whether a file meets it.
    pub fn is_met(&self, found: &Found) -> bool {
        self.bytes.is_none_or(|most| found.bytes <= most) && self.nmse.is_none_or(|most| found.nmse <= most)
    }

    /// How far a file is from it: above zero if it misses, below if there is room. Of a goal of both, bytes are what is
    /// aimed at: the least error that they allow is the best answer to both.
    fn excess(&self, found: &Found) -> f64 {
        match (self.bytes, self.nmse) {
            (Some(most), _) => (found.bytes as f64 / most.max(1) as f64).ln(),
            (None, Some(most)) => (found.nmse.max(f64::MIN_POSITIVE) / most.max(f64::MIN_POSITIVE)).ln(),
            (None, None) => 0.0,
        }
    }

    /// Whether one file that meets it, or misses it, is better than another.
    pub fn prefers(&self, one: &Found, other: &Found) -> bool {
        match (self.is_met(one), self.is_met(other)) {
            (true, false) => true,
            (false, true) => false,
            (false, false) => self.excess(one) < self.excess(other),
            (true, true) if self.bytes.is_some() => (one.nmse, one.bytes) < (other.nmse, other.bytes),
            (true, true) => (one.bytes as f64, one.nmse) < (other.bytes as f64, other.nmse),
        }
    }
}

/// A vector, and what is known of it.
#[derive(Debug)]
pub struct Piece {
    plan: PartPlan,
    magnitudes: Arc<Magnitudes>,
    /// What other codecs came to.
    tried: Vec<Tried>,
}

#[derive(Clone, Debug)]
struct Tried {
    codec: Arc<dyn Codec>,
    bytes: f64,
    error: f64,
}

/// What becomes of running variances, which must never become negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variances {
    /// They are encoded as all else is, and looked at afterwards.
    Checked,
    /// They are sent as they are.
    AsTheyAre,
}

impl Variances {
    /// Without a base nobody can tell whether a variance stays one.
    pub fn of(values: &Values) -> Self {
        if values.can_check_variances() { Self::Checked } else { Self::AsTheyAre }
    }
}

/// Everything that a plan is made from.
#[derive(Debug)]
pub struct Survey {
    pieces: Vec<Piece>,
    /// Vectors that nothing is chosen for.
    fixed: Vec<PartPlan>,
    /// The sum of squares of all that may be encoded.
    energy: f64,
}

/// The float tensors that may be encoded, those that go together in one list. Also returns what else there is.
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
    /// Looks at all that may be encoded.
    ///
    /// # Errors
    ///
    /// When values cannot be read.
    pub fn new(
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
            let tried = try_codecs(values, &plan, magnitudes.energy())?;
            pieces.push(Piece { plan, magnitudes, tried });
        }
        let energy = pieces.iter().map(|piece| piece.magnitudes.energy()).sum();
        Ok(Self { pieces, fixed, energy })
    }

    /// Looks at vectors that have a codec, for which nothing but the step is to be found.
    fn of_vectors(values: &Values, plans: &[PartPlan]) -> Result<Self, EncodeError> {
        let (encoded, fixed): (Vec<PartPlan>, _) =
            plans.iter().cloned().partition(|part| part.codec.is_some());
        let found = Self::magnitudes(values, &encoded)?;
        let piece = |(plan, magnitudes)| Piece { plan, magnitudes, tried: Vec::new() };
        let pieces: Vec<Piece> = encoded.into_iter().zip(found).map(piece).collect();
        let energy = pieces.iter().map(|piece| piece.magnitudes.energy()).sum();
        Ok(Self { pieces, fixed, energy })
    }

    fn magnitudes(values: &Values, plans: &[PartPlan]) -> Result<Vec<Arc<Magnitudes>>, EncodeError> {
        let mut found: Vec<Magnitudes> = plans.iter().map(|_| Magnitudes::default()).collect();
        let look = |_, chunk: &[f32]| Magnitudes::of(values.isa, chunk);
        encode::gather(values, plans, look, |part, more| found[part].add(&more))?;
        Ok(found.into_iter().map(Arc::new).collect())
    }

    /// The plan that a step stands for.
    pub fn plan(&self, step: f64) -> Vec<PartPlan> {
        let slope = byte_at(step);
        let choose =
            |piece: &Piece| PartPlan { codec: Some(piece.choose(step, slope).codec), ..piece.plan.clone() };
        self.pieces.iter().map(choose).chain(self.fixed.iter().cloned()).collect()
    }

    /// Bytes of the vectors and NMSE that the plan of a step will come to, about.
    fn predict(&self, step: f64) -> Found {
        let slope = byte_at(step);
        let chosen: Vec<Tried> = self.pieces.iter().map(|piece| piece.choose(step, slope)).collect();
        let bytes: f64 = chosen.iter().map(|tried| tried.bytes).sum();
        let error: f64 = chosen.iter().map(|tried| tried.error).sum();
        Found { bytes: bytes as u64, nmse: if error == 0.0 { 0.0 } else { error / self.energy } }
    }

    /// The steps between which all choices lie.
    fn range(&self) -> (f64, f64) {
        let largest = self.pieces.iter().map(|piece| piece.magnitudes.largest()).fold(0.0, f64::max);
        let top = (4.0 * largest).clamp(f64::from(f32::MIN_POSITIVE) * 1e6, f64::from(f32::MAX) / 2.0);
        ((top / 2f64.powi(40)).max(f64::from(f32::MIN_POSITIVE)), top)
    }
}

/// The zone that estimates go by.
const ZONE: DeadZone = DeadZone { zero_below: 0.62, rounding: 0.4 };

/// The error that a byte more or less is worth at a step.
fn byte_at(step: f64) -> f64 {
    8.0 * BIT_IN_SQUARED_STEPS * step * step
}

/// Bytes that a vector costs besides its codes, about.
const VECTOR_BYTES: f64 = 24.0;

impl Piece {
    /// The least error for its bytes, at so much error a byte.
    fn choose(&self, step: f64, slope: f64) -> Tried {
        let (bits, error) = self.magnitudes.entropy_and_error(step, ZONE);
        let ecsq = Tried {
            codec: Arc::new(Ecsq::with_step_of(step as f32, &self.magnitudes)),
            bytes: bits / 8.0 + VECTOR_BYTES,
            error,
        };
        let cost = |tried: &Tried| tried.error + slope * tried.bytes;
        let best = self.tried.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        best.filter(|best| cost(best) < cost(&ecsq)).cloned().unwrap_or(ecsq)
    }
}

/// What codecs make of a sample of a vector, as of all of it.
fn try_codecs(values: &Values, plan: &PartPlan, energy: f64) -> Result<Vec<Tried>, EncodeError> {
    let chunks = plan.vector.len.div_ceil(CHUNK);
    let mut sample = Vec::new();
    for k in 0..SAMPLED.min(chunks) {
        let start = k * chunks / SAMPLED.min(chunks) * CHUNK;
        let first = sample.len();
        sample.resize(first + CHUNK.min(plan.vector.len - start), 0.0);
        values.read(plan, start, &mut sample[first..])?;
    }
    let sampled: f64 = sample.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let scale = plan.vector.len as f64 / sample.len().max(1) as f64;
    let tried = TRIED.iter().filter_map(|text| {
        let codec: Arc<dyn Codec> = Arc::from(codecs::parse(text).ok()?);
        let (bytes, error) = try_codec(values.isa, &*codec, &sample)?;
        let error = if sampled == 0.0 { 0.0 } else { error / sampled * energy };
        Some(Tried { codec, bytes: bytes as f64 * scale, error })
    });
    Ok(tried.collect())
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

/// What is sought, and among which plans.
#[derive(Debug)]
pub struct Sought {
    goal: Goal,
    /// Vectors that share one step of `ecsq`; all plans there are if none.
    vectors: Option<Vec<PartPlan>>,
}

impl Sought {
    /// A file that meets a goal.
    pub fn of_file(goal: Goal) -> Self {
        Self { goal, vectors: None }
    }

    /// Vectors by `ecsq` of one step, which come to a goal together.
    pub fn of_vectors(plans: Vec<PartPlan>, goal: &ModelGoal) -> Self {
        let encoded = plans.iter().filter(|part| part.codec.is_some());
        let values: usize = encoded.map(|part| part.vector.len).sum();
        let goal = match goal {
            ModelGoal::Bits(bits) => Goal { bytes: Some((bits * values as f64 / 8.0) as u64), nmse: None },
            ModelGoal::Nmse(nmse) => Goal { bytes: None, nmse: Some(*nmse) },
        };
        Self { goal, vectors: Some(plans) }
    }

    /// Whether all of a tiny model may also go into one vector.
    fn groupings(&self, tensors: &[TensorSpec]) -> Vec<bool> {
        if self.vectors.is_none() && is_tiny(tensors) { vec![true, false] } else { vec![false] }
    }

    fn survey(
        &self,
        values: &Values,
        tensors: &[TensorSpec],
        as_one: bool,
        variances: Variances,
    ) -> Result<Survey, EncodeError> {
        match &self.vectors {
            None => Survey::new(values, tensors, as_one, variances),
            Some(plans) => Survey::of_vectors(values, plans),
        }
    }
}

fn is_tiny(tensors: &[TensorSpec]) -> bool {
    tensors.iter().map(|spec| spec.len).sum::<usize>() <= TINY_MODEL
}

/// A file that was made by a plan.
pub trait Made {
    /// What it came to.
    fn found(&self) -> Found;
    /// Bytes of its encoded vectors.
    fn vector_bytes(&self) -> u64;
    /// Variances that it would make negative.
    fn negative_variances(&self) -> u64;
}

/// Makes file after file until one meets a goal as well as it can be met. Of large models, vectors are only settled as
/// long as the bytes that they will have miss the goal.
///
/// # Errors
///
/// When values cannot be read, or files not be made.
pub fn meet<T: Made, E>(
    sought: &Sought,
    values: &Values,
    tensors: &[TensorSpec],
    settle: impl Fn(Vec<PartPlan>) -> Result<Vec<Running>, E>,
    make: impl Fn(Vec<Running>) -> Result<T, E>,
    failed: impl Fn(EncodeError) -> E,
) -> Result<T, E> {
    let mut best: Option<(Found, T)> = None;
    let mut variances = Variances::of(values);
    let mut groupings = sought.groupings(tensors);
    while let Some(as_one) = groupings.pop() {
        let survey = sought.survey(values, tensors, as_one, variances).map_err(&failed)?;
        let mut search = Search::new(&survey, sought.goal);
        let mut effort = Effort::of(sought, tensors);
        while let Some(step) = search.next(effort.files + effort.settlings) {
            let parts = settle(survey.plan(step))?;
            if effort.settlings > 0 {
                effort.settlings -= 1;
                if !search.learn(step, &sought.expected(&parts)) && effort.settlings > 0 {
                    continue;
                }
                // From here on only what files came to counts.
                effort.settlings = 0;
                search.forget();
            }
            effort.files -= 1;
            let made = make(parts)?;
            if made.negative_variances() > 0 && variances == Variances::Checked {
                // Rounded so, a variance would not be one: they are sent as they are.
                variances = Variances::AsTheyAre;
                groupings.push(as_one);
                break;
            }
            let found = sought.found(&made);
            tracing::info!("step {step:e}: {} bytes, NMSE {:.4e}", found.bytes, found.nmse);
            if best.as_ref().is_none_or(|(best, _)| sought.goal.prefers(&found, best)) {
                best = Some((found, made));
            }
            if search.learn(step, &found) {
                break;
            }
        }
    }
    best.map_or_else(|| make(settle(plan::raw(tensors))?), |(_, made)| Ok(made))
}

/// How often is tried what.
struct Effort {
    /// Settling vectors, which tells what bytes they will have.
    settlings: u32,
    /// Making files.
    files: u32,
}

impl Effort {
    fn of(sought: &Sought, tensors: &[TensorSpec]) -> Self {
        let values: usize = tensors.iter().map(|spec| spec.len).sum();
        match (values, sought.goal.bytes) {
            (..=TINY_MODEL, _) => Self { settlings: 0, files: 16 },
            (_, Some(_)) => Self { settlings: 4, files: 3 },
            (_, None) => Self { settlings: 0, files: 5 },
        }
    }
}

impl Sought {
    /// What settled vectors will come to. Nothing is known of their error.
    fn expected(&self, parts: &[Running]) -> Found {
        let counted = parts.iter().filter(|part| self.vectors.is_none() || part.plan.codec.is_some());
        let bytes: u64 = counted.map(|part| part.bytes(&[]) + part.expected_bytes()).sum();
        let beside = if self.vectors.is_none() { HEADER_BYTES + PART_BYTES * parts.len() as u64 } else { 0 };
        Found { bytes: bytes + beside, nmse: 0.0 }
    }

    fn found(&self, made: &impl Made) -> Found {
        let found = made.found();
        let bytes = if self.vectors.is_some() { made.vector_bytes() } else { found.bytes };
        Found { bytes, ..found }
    }
}

/// Bytes of a header, and of what it says of a part, about.
const HEADER_BYTES: u64 = 256;
const PART_BYTES: u64 = 32;

/// Looks for the step whose file meets a goal best, file by file.
#[derive(Debug)]
pub struct Search<'a> {
    survey: &'a Survey,
    goal: Goal,
    /// The log of a step that had room left, and of one that missed.
    room: Option<f64>,
    missed: Option<f64>,
    /// What files are larger, or worse, than predicted, as a factor.
    correction: f64,
}

/// Logs of steps that are so near are those of one step: nine bits of it are kept.
const STEP_APART: f64 = 1.0 / 512.0;

/// How near to the goal is near enough, of it.
const NEAR: f64 = 0.002;

impl<'a> Search<'a> {
    /// Begins.
    pub fn new(survey: &'a Survey, goal: Goal) -> Self {
        Self { survey, goal, room: None, missed: None, correction: 0.0 }
    }

    /// The next step to try; none once there is nothing to gain, or so many tries are left as zero.
    pub fn next(&self, tries_left: u32) -> Option<f64> {
        if tries_left == 0 {
            return None;
        }
        let (low, high) = self.survey.range();
        let (low, high) = (low.ln(), high.ln());
        let predicted = |at: f64| self.goal.excess(&self.survey.predict(at.exp())) + self.correction;
        // Bytes fall with the step, the error rises.
        let falls = self.goal.bytes.is_some();
        let (mut a, mut b) = (low, high);
        for _ in 0..40 {
            let middle = f64::midpoint(a, b);
            if (predicted(middle) > -NEAR / 2.0) == falls { a = middle } else { b = middle }
        }
        let at = f64::midpoint(a, b);
        let at = match (self.room, self.missed) {
            (Some(room), Some(missed)) => {
                if (room - missed).abs() < STEP_APART {
                    return None;
                }
                let (from, to) = (room.min(missed), room.max(missed));
                let margin = (to - from) / 8.0;
                if (from + margin..to - margin).contains(&at) { at } else { f64::midpoint(from, to) }
            }
            _ => at,
        };
        let is_known = |known: Option<f64>| known.is_some_and(|known| (known - at).abs() < 1e-9);
        (!is_known(self.room) && !is_known(self.missed)).then(|| at.exp())
    }

    /// Forgets which steps had room left and which missed.
    fn forget(&mut self) {
        (self.room, self.missed) = (None, None);
    }

    /// Learns what the file of a step came to. Returns whether it is as near as makes sense.
    pub fn learn(&mut self, step: f64, found: &Found) -> bool {
        let excess = self.goal.excess(found);
        self.correction = excess - self.goal.excess(&self.survey.predict(step));
        let is_met = excess <= 0.0;
        *(if is_met { &mut self.room } else { &mut self.missed }) = Some(step.ln());
        is_met && excess > -NEAR
    }
}
