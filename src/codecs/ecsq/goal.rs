//! What a step is chosen by: itself, bits a value, or an error.

use super::model::Step;
use crate::kernels::dead_zone::DeadZone;
use crate::kernels::magnitudes::Magnitudes;

/// What a vector's step is chosen by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Goal {
    /// The step itself.
    Step(f32),
    /// Bits for each value, all that the vector needs among them.
    Bits(f64),
    /// The squared error over the squared norm.
    Nmse(f64),
}

/// A step, how values are rounded to multiples of it, and what the histogram lets expect of that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) step: Step,
    pub(super) zone: DeadZone,
    /// Bits a value, or the squared error over the squared norm if that is the goal.
    pub(super) expected: f64,
}

/// How often the interval that the step lies in is halved, to find where about it is.
const HALVINGS: usize = 10;

/// Steps that are compared around there, in eighths of an octave: with the best zone, neither bits nor error go one way.
const AROUND: std::ops::RangeInclusive<i32> = -10..=10;

/// How often what is compared is brought nearer to the best one.
const REFINEMENTS: i32 = 6;

/// What is aimed at, of what is allowed.
const AIM: f64 = 0.995;

/// What is left as it is, of what is allowed.
const NEAR: f64 = 0.985;

impl Goal {
    /// What is allowed.
    fn most(self) -> f64 {
        match self {
            Self::Step(_) => f64::INFINITY,
            Self::Bits(most) | Self::Nmse(most) => most,
        }
    }

    /// What is held against that.
    pub(super) fn measure(self, bits: f64, nmse: f64) -> f64 {
        match self {
            Self::Step(_) => 0.0,
            Self::Bits(_) => bits,
            Self::Nmse(_) => nmse,
        }
    }

    /// Whether what came of a step will do.
    pub(super) fn is_met(self, found: f64) -> bool {
        let is_near = (NEAR..=1.0).contains(&(found / self.most()));
        is_near || matches!(self, Self::Step(_))
    }

    /// Whether one is nearer to the goal than another: the most of what is allowed, or else the least.
    pub(super) fn is_nearer(self, found: f64, other: f64) -> bool {
        let most = self.most();
        if found <= most { other > most || found > other } else { found < other }
    }

    /// The best step that leads to what is allowed, its zone, and what the histogram lets expect of it, if it lets expect
    /// `correction` times less than comes of steps.
    pub(super) fn choose(self, magnitudes: &Magnitudes, rounding: Option<f32>, correction: f64) -> Choice {
        let compared = |octaves: f64| {
            let step = Step::nearest(octaves.exp2() as f32);
            let exact = f64::from(step.value());
            let zone = rounding.map_or_else(|| magnitudes.best_zone(exact), DeadZone::of);
            let (bits, nmse) = ratios(magnitudes, zone, exact);
            let (expected, other) = match self {
                Self::Nmse(_) => (nmse, bits),
                _ => (bits, nmse),
            };
            let excess = expected * correction / (self.most() * AIM);
            // What is not allowed is worse than all that is.
            let rank = if excess <= 1.0 { (false, other) } else { (true, excess) };
            (rank, octaves, Choice { step, zone, expected })
        };
        if let Self::Step(step) = self {
            return compared(f64::from(step).log2()).2;
        }
        let about = self.about(magnitudes, correction);
        let mut best = compared(about);
        let mut try_at = |octaves: f64| {
            let next = compared(octaves);
            if next.0 < best.0 {
                best = next;
            }
            best.1
        };
        let mut centre =
            AROUND.map(|eighths| try_at(about + f64::from(eighths) / 8.0)).last().unwrap_or(about);
        for refinement in 1..=REFINEMENTS {
            let width = f64::from(-3 - refinement).exp2();
            try_at(centre - width);
            centre = try_at(centre + width);
        }
        best.2
    }

    /// The logarithm of the step that leads to what is allowed with a zone that is always the same: from one coarser than
    /// all values to one finer than f32 is.
    fn about(self, magnitudes: &Magnitudes, correction: f64) -> f64 {
        let largest = magnitudes.largest().max(f64::from(f32::MIN_POSITIVE));
        let (mut fine, mut coarse) = (largest.log2() - 24.0, largest.log2() + 1.0);
        for _ in 0..HALVINGS {
            let middle = (fine + coarse) / 2.0;
            let (bits, nmse) = ratios(magnitudes, DeadZone::of(0.4), middle.exp2());
            let is_more = self.measure(bits, nmse) * correction > self.most();
            let is_too_coarse = is_more == matches!(self, Self::Nmse(_));
            *(if is_too_coarse { &mut coarse } else { &mut fine }) = middle;
        }
        (fine + coarse) / 2.0
    }
}

/// Bits a value, and the squared error over the squared norm, that the histogram lets expect.
fn ratios(magnitudes: &Magnitudes, zone: DeadZone, step: f64) -> (f64, f64) {
    let (bits, error) = magnitudes.entropy_and_error(step, zone);
    (bits / magnitudes.len() as f64, error / magnitudes.energy())
}
