//! `ecsq`: entropy-coded scalar quantization, of all codecs here the least error for its bytes.
//!
//! Integers of a uniform quantizer with a dead zone, as in ISO/IEC 15938-17 (neural network coding; Wiedemann et al.,
//! DeepCABAC, 2020), written by rANS with a static table. The dead zone is the best one for the vector by rate and
//! distortion, or follows from the setting `rounding`. A code decodes to the mean of its values, with one mean each for
//! the magnitudes 1, 2, and above. The codec is biased towards zero.
//!
//! A chunk of zeros has no bytes. Any other chunk has its codes. If the table has an escape, a section for escapes
//! comes first: its length in bytes (LEB128), then for each escape the magnitude as an exponential Golomb code, and the
//! sign. From 2^23 on the magnitude is followed by the value itself.
//!
//! `goal` searches for the step, `model` holds the step, the centres and the table (`table`), and `fit` fits a table to
//! counted codes.

mod fit;
mod goal;
mod model;
mod table;
#[cfg(test)]
mod tests;

pub use model::Step;

use crate::codecs::packing::bit_stream::{Reader, Writer};
use crate::codecs::packing::rans;
use crate::codecs::wire::Packed;
use crate::codecs::{
    CHUNK, Codec, Coding, Encoder, Extent, Family, Invalid, ModelGoal, Scheme, Seeds, Stream, Tally, Vector,
};
use crate::kernels::dead_zone::{self, DeadZone, ESCAPE, LARGEST, MOST, Quantizer};
use crate::kernels::lanes::Isa;
use crate::kernels::magnitudes::Magnitudes;
use crate::model::dtype::Dtype;
use crate::settings::{Positive, Settings, SpecError, spec_text};
use fit::{Counts, DIGITS};
pub use goal::ZONES;
use goal::{Choice, Goal};
use model::Model;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The codecs of this file, for the registry.
pub(crate) const FAMILY: Family = Family {
    summary: "integers with one step for the whole update, entropy-coded",
    settings: &[
        ("bits", &["2", "0.32"]),
        ("nmse", &["0.01"]),
        ("step", &["0.001"]),
        ("rounding", &["0.4", "0.5"]),
    ],
    tried: &["bits=0.32", "bits=1", "bits=2", "bits=4"],
    codecs: &[("ecsq", parse)],
};

/// The most looks that count codes. The first step is within a few per cent of its goal, and each look brings it
/// nearer.
const MOST_COUNTS: u32 = 5;

/// Bytes of a coding besides its model: the variant, the step, the length of the model.
const BESIDE_MODEL: usize = 4;

/// The factor by which each look aims lower than the one before. Small vectors, whose cost jumps, then get below the
/// goal.
const CAUTION: f64 = 1.01;

/// The codec.
#[derive(Clone, PartialEq, Debug)]
pub struct Ecsq {
    goal: Goal,
    rounding: Option<f32>,
    /// The magnitudes of the vector, if a survey has them.
    known: Option<Arc<Magnitudes>>,
    /// The dead zone, if a survey chose it.
    zone: Option<DeadZone>,
}

impl Ecsq {
    /// The codec with this step and the best dead zone. The step is rounded to nine significant bits.
    pub fn with_step(step: f32) -> Self {
        Self { goal: Goal::Step(step), rounding: None, known: None, zone: None }
    }

    /// The codec with this step and zone, for a vector of known magnitudes, which saves a look.
    pub fn with_zone(step: f32, zone: DeadZone, magnitudes: &Arc<Magnitudes>) -> Self {
        Self { known: Some(Arc::clone(magnitudes)), zone: Some(zone), ..Self::with_step(step) }
    }
}

/// Bits a value without a setting.
const DEFAULT_BITS: f64 = 2.0;

fn parse(settings: &mut Settings) -> Result<Box<dyn Codec>, SpecError> {
    let step = settings.take::<Positive>("step")?.map(|step| Goal::Step(step.0 as f32));
    let bits = settings.take::<Positive>("bits")?.map(|bits| Goal::Bits(bits.0));
    let nmse = settings.take::<Positive>("nmse")?.map(|nmse| Goal::Nmse(nmse.0));
    let rounding = settings.take::<f32>("rounding")?;
    let bad = |key: &str, why: &str| SpecError::BadValue {
        rule: "ecsq".to_owned(),
        key: key.to_owned(),
        why: why.to_owned(),
    };
    if rounding.is_some_and(|rounding| !(0.0..=0.95).contains(&rounding)) {
        return Err(bad("rounding", "expected a number from 0 to 0.95; plain rounding is 0.5"));
    }
    match [step, bits, nmse].into_iter().flatten().collect::<Vec<_>>()[..] {
        [] => Ok(Box::new(Ecsq { goal: Goal::Bits(DEFAULT_BITS), rounding, known: None, zone: None })),
        [goal] => Ok(Box::new(Ecsq { goal, rounding, known: None, zone: None })),
        _ => Err(bad("step", "expected one of step, bits and nmse alone")),
    }
}

impl fmt::Display for Ecsq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, goal): (_, &dyn fmt::Display) = match &self.goal {
            Goal::Step(step) => ("step", step),
            Goal::Bits(bits) => ("bits", bits),
            Goal::Nmse(nmse) => ("nmse", nmse),
        };
        let rounding = self.rounding.as_ref().map(|rounding| -> &dyn fmt::Display { rounding });
        f.write_str(&spec_text("ecsq", &[(key, Some(goal)), ("rounding", rounding)]))
    }
}

impl Codec for Ecsq {
    fn shrinks(&self) -> bool {
        true
    }

    fn model_goal(&self) -> Option<ModelGoal> {
        match self.goal {
            Goal::Step(_) => None,
            Goal::Bits(bits) => Some(ModelGoal::Bits(bits)),
            Goal::Nmse(nmse) => Some(ModelGoal::Nmse(nmse)),
        }
    }

    fn encoder(&self, isa: Isa, _vector: &Vector, _seeds: Seeds) -> Box<dyn Encoder> {
        let magnitudes = self.known.clone();
        let (looks, tried, best, settled) = (0, None, None, None);
        let mut encoder = EcsqEncoder { isa, ecsq: self.clone(), magnitudes, looks, tried, best, settled };
        encoder.try_step(1.0);
        Box::new(encoder)
    }
}

/// The encoder. The first look measures magnitudes; each further look counts the codes of a step, until a step is good
/// enough.
#[derive(Debug)]
struct EcsqEncoder {
    isa: Isa,
    ecsq: Ecsq,
    magnitudes: Option<Arc<Magnitudes>>,
    looks: u32,
    tried: Option<(Choice, Quantizer)>,
    /// The result nearest to the goal, and its settled step.
    best: Option<(f64, Settled)>,
    settled: Option<Settled>,
}

/// What encoding needs.
#[derive(Debug)]
struct Settled {
    step: Step,
    quantizer: Quantizer,
    model: Model,
    encoder: rans::Encoder,
    chunk_bytes: f64,
}

impl EcsqEncoder {
    /// Sets the next step to try. `correction` is the ratio of measured to expected bits or error.
    fn try_step(&mut self, correction: f64) {
        let Some(magnitudes) = &self.magnitudes else { return };
        let mut choice = self.ecsq.goal.choose(magnitudes, self.ecsq.rounding, correction);
        choice.zone = self.ecsq.zone.unwrap_or(choice.zone);
        self.tried = Some((choice, Quantizer::new(choice.step.value(), choice.zone)));
    }

    /// Fits a model to the counted codes, and settles if the goal is met.
    fn judge(&mut self, tally: &Tally) {
        let (Some((choice, quantizer)), Some(magnitudes)) = (self.tried, &self.magnitudes) else {
            return;
        };
        let (counts, deviations) = from_tally(tally);
        let fitted = Model::fit(&counts, &deviations);
        let model = fitted.model;
        let values = magnitudes.count() as f64;
        let bytes = model.to_bytes().len() + BESIDE_MODEL;
        let bits = 8.0 * (fitted.chunk_bytes + bytes as f64) / values;
        let nmse = fitted.error * f64::from(choice.step.value()).powi(2) / magnitudes.energy();
        let found = self.ecsq.goal.measure(bits, nmse);
        self.looks += 1;
        if self.best.as_ref().is_none_or(|(best, _)| self.ecsq.goal.is_nearer(found, *best)) {
            let encoder = rans::Encoder::new(&model.table.frequencies());
            let chunk_bytes = fitted.chunk_bytes;
            self.best = Some((found, Settled { step: choice.step, quantizer, model, encoder, chunk_bytes }));
        }
        let correction = found / choice.expected * CAUTION.powi(self.looks as i32 - 1);
        if self.ecsq.goal.is_met(found) || self.looks == MOST_COUNTS || !correction.is_normal() {
            self.settled = self.best.take().map(|(_, settled)| settled);
        } else {
            self.try_step(correction);
        }
    }
}

/// Counts and deviations as the tally of a look.
fn to_tally(codes: &[u32; 256], large: &[u64; DIGITS], deviations: &dead_zone::Deviations) -> Tally {
    let counts = codes.iter().map(|n| u64::from(*n)).chain(large.iter().copied()).collect();
    Tally { counts, sums: [deviations.sums, deviations.squares].concat(), ..Tally::default() }
}

fn from_tally(tally: &Tally) -> (Counts, dead_zone::Deviations) {
    let (codes, large) = tally.counts.split_at(256);
    let mut deviations = dead_zone::Deviations::default();
    deviations.sums.copy_from_slice(&tally.sums[..4]);
    deviations.squares.copy_from_slice(&tally.sums[4..]);
    (Counts { codes: codes.to_vec(), large: large.to_vec() }, deviations)
}

impl From<Magnitudes> for Tally {
    fn from(magnitudes: Magnitudes) -> Self {
        let sums = [magnitudes.sums, magnitudes.squares].concat();
        Self { counts: magnitudes.counts, sums, ..Self::default() }
    }
}

impl From<Tally> for Magnitudes {
    fn from(mut tally: Tally) -> Self {
        let squares = tally.sums.split_off(tally.counts.len());
        Self { counts: tally.counts, sums: tally.sums, squares }
    }
}

impl Encoder for EcsqEncoder {
    fn wants_look(&self) -> bool {
        self.settled.is_none()
    }

    fn look(&self, _start: usize, values: &[f32]) -> Tally {
        let Some((_, quantizer)) = self.tried else { return Magnitudes::of(self.isa, values).into() };
        let mut codes = vec![0; values.len()];
        dead_zone::codes(self.isa, values, quantizer, MOST, &mut codes);
        let counts = dead_zone::count(&codes);
        let mut large = [0; DIGITS];
        if counts[usize::from(ESCAPE)] > 0 {
            for (x, _) in values.iter().zip(&codes).filter(|(_, code)| **code == ESCAPE) {
                large[quantizer.magnitude(*x).ilog2() as usize + 1] += 1;
            }
        }
        to_tally(&counts, &large, &dead_zone::deviations(self.isa, values, quantizer))
    }

    fn learn(&mut self, tally: Tally) {
        if self.tried.is_some() {
            self.judge(&tally);
        } else {
            self.magnitudes = Some(Arc::new(tally.into()));
            self.try_step(1.0);
        }
    }

    fn coding(&self) -> Coding {
        match &self.settled {
            Some(settled) => {
                Coding::Ecsq(EcsqScheme { step: settled.step, model: Packed(settled.model.to_bytes()) })
            }
            None => Coding::Raw,
        }
    }

    fn expected_bytes(&self) -> u64 {
        self.settled.as_ref().map_or(0, |settled| settled.chunk_bytes as u64)
    }

    fn encode(&self, _start: usize, values: &[f32]) -> Vec<Vec<u8>> {
        let Some(settled) = &self.settled else { return Vec::new() };
        vec![settled.encode(self.isa, values)]
    }
}

impl Settled {
    fn encode(&self, isa: Isa, values: &[f32]) -> Vec<u8> {
        let most = self.model.table.most();
        let mut codes = vec![0; values.len()];
        dead_zone::codes(isa, values, self.quantizer, most, &mut codes);
        let coded = self.encoder.encode(self.model.lanes, &codes);
        let Some((_, order)) = self.model.table.escape.filter(|_| !coded.is_empty()) else { return coded };
        let mut writer = Writer::default();
        for (x, _) in values.iter().zip(&codes).filter(|(_, code)| **code == 2 * most + 1) {
            let magnitude = self.quantizer.magnitude(*x);
            writer.put_golomb(magnitude - u32::from(most) - 1, order);
            match magnitude {
                LARGEST => writer.put(x.to_bits(), 32),
                _ => writer.put(u32::from(*x < 0.0), 1),
            }
        }
        let escaped = writer.finish();
        [leb128(escaped.len()), escaped, coded].concat()
    }
}

/// A length in as few bytes as possible: seven bits a byte, the lowest first; the highest bit marks that more follow.
fn leb128(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length >= 128 {
        bytes.push(length as u8 | 128);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes
}

/// Splits off a section: its length in at most four bytes, and its bytes.
fn take_section(bytes: &[u8]) -> Result<(&[u8], &[u8]), Invalid> {
    let digits = bytes.iter().take(4).position(|byte| *byte < 128);
    let digits =
        digits.ok_or_else(|| Invalid::new("a chunk ends within a length, or has an endless one"))? + 1;
    let length = bytes[..digits].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 127));
    let found = bytes.len() - digits;
    bytes[digits..].split_at_checked(length).ok_or_else(|| {
        Invalid(format!("a chunk claims {length} bytes for large values, but has {found} in all"))
    })
}

/// The coding: the step, and the model of the codes.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct EcsqScheme {
    /// The step, of which codes are multiples.
    pub step: Step,
    /// The model, packed.
    pub model: Packed,
}

impl Scheme for EcsqScheme {
    fn streams(&self, _vector: &Vector) -> Result<Vec<Stream>, Invalid> {
        Model::from_bytes(&self.model.0)?;
        Ok(vec![Stream { suffix: "_codes", dtype: Dtype::U8, extent: Extent::Chunks }])
    }

    fn unit(&self, _vector: &Vector) -> usize {
        CHUNK
    }

    fn bytes(&self, _vector: &Vector, _stream: usize, _values: Range<usize>) -> Range<usize> {
        0..0
    }

    fn decode(
        &self,
        _isa: Isa,
        _vector: &Vector,
        _start: usize,
        streams: &[&[u8]],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        if streams[0].is_empty() {
            out.fill(0.0);
            return Ok(());
        }
        let model = Model::from_bytes(&self.model.0)?;
        let (escaped, coded) = match model.table.escape {
            Some(_) => take_section(streams[0])?,
            None => (&[][..], streams[0]),
        };
        let mut codes = vec![0; out.len()];
        rans::Decoder::new(&model.table.frequencies()).decode(model.lanes, coded, &mut codes)?;
        let values = self.values(&model);
        out.iter_mut().zip(&codes).for_each(|(x, code)| *x = values[usize::from(*code)]);
        self.decode_escaped(&model, escaped, &codes, out)
    }
}

impl EcsqScheme {
    /// The value of each code.
    fn values(&self, model: &Model) -> [f32; 256] {
        std::array::from_fn(|code| {
            let value = model.value(code.div_ceil(2) as u32, self.step.value());
            if code % 2 == 1 { value } else { 0.0 - value }
        })
    }

    /// Puts the values of escapes in their places.
    fn decode_escaped(
        &self,
        model: &Model,
        escaped: &[u8],
        codes: &[u8],
        out: &mut [f32],
    ) -> Result<(), Invalid> {
        let Some((_, order)) = model.table.escape else { return Ok(()) };
        let most = model.table.most();
        let mut reader = Reader::new(escaped);
        for (x, _) in out.iter_mut().zip(codes).filter(|(_, code)| **code == 2 * most + 1) {
            let magnitude = reader.take_golomb(order)? + u32::from(most) + 1;
            *x = match magnitude {
                0..LARGEST if reader.take(1)? == 1 => -model.value(magnitude, self.step.value()),
                0..LARGEST => model.value(magnitude, self.step.value()),
                LARGEST => f32::from_bits(reader.take(32)?),
                _ => return Err(Invalid(format!("found a code of {magnitude}, expected at most {LARGEST}"))),
            };
            if !x.is_finite() {
                return Err(Invalid(format!("found {x}, expected a finite number")));
            }
        }
        reader.finish()
    }
}
