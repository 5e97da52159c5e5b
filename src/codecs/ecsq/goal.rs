//! The goal of a vector's step: the step itself, bits per value, or an error.

use super::model::Step;
use crate::kernels::dead_zone::DeadZone;
use crate::kernels::magnitudes::Magnitudes;

/// The goal of a vector's step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Goal {
    /// The step itself.
    Step(f32),
    /// Bits a value, with all bytes of the vector.
    Bits(f64),
    /// Squared error over squared norm.
    Nmse(f64),
}

/// A step, a dead zone, and their expected bits or error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) step: Step,
    pub(super) zone: DeadZone,
    /// Expected bits per value, or the expected NMSE if that is the goal.
    pub(super) expected: f64,
}

/// Octaves of steps to search: from coarser than all values to finer than f32.
const OCTAVES: f64 = 25.0;

/// Halvings of these octaves, with one zone, for a first estimate of the step.
const HALVINGS: usize = 9;

/// The octaves around the first estimate for other zones, and their halvings.
const AROUND: (f64, usize) = (0.7, 9);

/// Zones that are compared with the best one by rate and distortion. Their bits change steadily with the step, and for
/// short vectors and few bits one of them is better.
pub const ZONES: [DeadZone; 5] = [
    DeadZone { zero_below: 0.5, rounding: 0.5 },
    DeadZone { zero_below: 0.58, rounding: 0.42 },
    DeadZone { zero_below: 0.65, rounding: 0.4 },
    DeadZone { zero_below: 0.8, rounding: 0.27 },
    DeadZone { zero_below: 1.0, rounding: 0.2 },
];

/// The part of the limit to aim at.
const AIM: f64 = 0.9985;

/// The part of the limit from which on a result is good enough.
const NEAR: f64 = 0.995;

impl Goal {
    /// The limit.
    fn most(self) -> f64 {
        match self {
            Self::Step(_) => f64::INFINITY,
            Self::Bits(most) | Self::Nmse(most) => most,
        }
    }

    /// The value to compare with the limit.
    pub(super) fn measure(self, bits: f64, nmse: f64) -> f64 {
        match self {
            Self::Step(_) => 0.0,
            Self::Bits(_) => bits,
            Self::Nmse(_) => nmse,
        }
    }

    /// Whether a result is good enough.
    pub(super) fn is_met(self, found: f64) -> bool {
        let is_near = (NEAR..=1.0).contains(&(found / self.most()));
        is_near || matches!(self, Self::Step(_))
    }

    /// Whether a result is better than another: the largest within the limit, otherwise the smallest.
    pub(super) fn is_nearer(self, found: f64, other: f64) -> bool {
        let most = self.most();
        if found <= most { other > most || found > other } else { found < other }
    }

    /// The step and the zone that use the limit best. `correction` is the ratio of measured to expected bits or error.
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

/// A search for a step.
struct Search<'a> {
    goal: Goal,
    magnitudes: &'a Magnitudes,
    correction: f64,
}

/// A step that the search tried.
#[derive(Clone, Copy)]
struct Trial {
    /// A step beyond the limit is worse than any within it. Then the free quantity decides, or the excess over the
    /// limit.
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
        let bits = bits / self.magnitudes.count() as f64;
        let nmse = error / self.magnitudes.energy();
        let (expected, other) = match self.goal {
            Goal::Nmse(_) => (nmse, bits),
            _ => (bits, nmse),
        };
        let excess = expected * self.correction / (self.goal.most() * AIM);
        let rank = if excess <= 1.0 { (false, other) } else { (true, excess) };
        Trial { rank, octaves, choice: Choice { step, zone, expected } }
    }

    /// Halves `around` octaves on each side of a middle, `halvings` times. Returns the best step that it tried.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_result_is_the_largest_within_the_limit_or_else_the_smallest() {
        let goal = Goal::Bits(2.0);
        for (found, other, expected) in [
            (2.0, 1.0, true),
            (1.5, 1.0, true),
            (1.0, 1.5, false),
            (1.0, 1.0, false),
            (1.0, 3.0, true),
            (3.0, 1.0, false),
            (3.0, 4.0, true),
            (4.0, 3.0, false),
            (3.0, 3.0, false),
        ] {
            assert_eq!(goal.is_nearer(found, other), expected, "{found} and {other}");
        }
    }
}
