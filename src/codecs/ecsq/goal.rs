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

/// Octaves that the step is searched in: from coarser than all values to finer than f32 is.
const OCTAVES: f64 = 25.0;

/// How often they are halved with one zone, to find where about the step is.
const HALVINGS: usize = 9;

/// How far from there it may lie with another zone, in octaves, and how often these are halved.
const AROUND: (f64, usize) = (0.7, 9);

/// Zones that are compared with the one that is best by rate and distortion: what comes of these goes steadily with the
/// step, and for short vectors and few bits one of them is better.
pub const ZONES: [DeadZone; 5] = [
    DeadZone { zero_below: 0.5, rounding: 0.5 },
    DeadZone { zero_below: 0.58, rounding: 0.42 },
    DeadZone { zero_below: 0.65, rounding: 0.4 },
    DeadZone { zero_below: 0.8, rounding: 0.27 },
    DeadZone { zero_below: 1.0, rounding: 0.2 },
];

/// What is aimed at, of what is allowed.
const AIM: f64 = 0.9985;

/// What is left as it is, of what is allowed.
const NEAR: f64 = 0.995;

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
        let best_zone = |step: f64| rounding.map_or_else(|| magnitudes.best_zone(step), DeadZone::of);
        if let Self::Step(step) = self {
            let step = Step::nearest(step);
            return Choice { step, zone: best_zone(f64::from(step.value())), expected: 1.0 };
        }
        let search = Search { goal: self, magnitudes, correction };
        let largest = magnitudes.largest().max(f64::from(f32::MIN_POSITIVE)).log2();
        let middle = largest + 1.0 - OCTAVES / 2.0;
        let about = search.halve(middle, (OCTAVES / 2.0, HALVINGS), |_| DeadZone::of(0.4)).octaves;
        let mut best = search.halve(about, AROUND, best_zone);
        for zone in ZONES.iter().filter(|_| rounding.is_none()) {
            let other = search.halve(about, AROUND, |_| *zone);
            if other.rank < best.rank {
                best = other;
            }
        }
        best.choice
    }
}

/// Looks for a step.
struct Search<'a> {
    goal: Goal,
    magnitudes: &'a Magnitudes,
    correction: f64,
}

/// A step that was tried.
#[derive(Clone, Copy)]
struct Trial {
    /// What is not allowed is worse than all that is; then by what is not bounded, or by how far it is off.
    rank: (bool, f64),
    octaves: f64,
    choice: Choice,
}

impl Search<'_> {
    fn judge(&self, octaves: f64, zone: impl Fn(f64) -> DeadZone) -> Trial {
        let step = Step::nearest(octaves.exp2() as f32);
        let exact = f64::from(step.value());
        let zone = zone(exact);
        let (bits, error) = self.magnitudes.entropy_and_error(exact, zone);
        let bits = bits / self.magnitudes.len() as f64;
        let nmse = error / self.magnitudes.energy();
        let (expected, other) = match self.goal {
            Goal::Nmse(_) => (nmse, bits),
            _ => (bits, nmse),
        };
        let excess = expected * self.correction / (self.goal.most() * AIM);
        let rank = if excess <= 1.0 { (false, other) } else { (true, excess) };
        Trial { rank, octaves, choice: Choice { step, zone, expected } }
    }

    /// Halves the steps within so many octaves of a middle, so often. Returns the best that was tried.
    fn halve(&self, middle: f64, (around, halvings): (f64, usize), zone: impl Fn(f64) -> DeadZone) -> Trial {
        let mut best = self.judge(middle, &zone);
        let (mut last, mut width) = (best, around);
        for _ in 0..halvings {
            width /= 2.0;
            let (is_excess, _) = last.rank;
            let is_too_coarse = is_excess == matches!(self.goal, Goal::Nmse(_));
            let next = if is_too_coarse { last.octaves - width } else { last.octaves + width };
            last = self.judge(next, &zone);
            if last.rank < best.rank {
                best = last;
            }
        }
        best
    }
}
