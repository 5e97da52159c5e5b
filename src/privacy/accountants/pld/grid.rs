//! Losses on a grid: a distribution whose curve connects points of a mechanism's curve.
//!
//! Paper: Doroshenko et al. 2022, arXiv 2207.04380. The curve is convex, so chords between points lie above it, and no
//! delta is understated.

use super::hockey_stick::Pair;

/// A distribution of losses at multiples of a step.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Losses {
    /// Distance between losses.
    pub(super) step: f64,
    /// The first loss, in steps.
    pub(super) first: i64,
    /// Probability of each loss, from the first on.
    pub(super) masses: Vec<f64>,
    /// Probability of an infinite loss.
    pub(super) infinite: f64,
    /// Probability of an infinite loss with the neighbours exchanged.
    infinite_reversed: f64,
}

/// Largest distance of a grid point from zero, in steps.
const FARTHEST: f64 = 1e15;

impl Losses {
    /// The losses of a pair. Losses beyond the point where a tail is below `tail` count as infinite.
    pub(super) fn of(pair: &Pair, step: f64, tail: f64) -> Option<Self> {
        let last = outermost(step, |loss| pair.above(loss) <= tail)?;
        let first = -outermost(step, |loss| pair.above_reversed(loss) <= tail)?;
        Some(Self::between(pair, step, first, last))
    }

    fn between(pair: &Pair, step: f64, first: i64, last: i64) -> Self {
        let below: Vec<f64> = (first..=0).map(|i| pair.below(i as f64 * step)).collect();
        let above: Vec<f64> = (0..=last).map(|i| pair.above(i as f64 * step)).collect();
        // 1 - e^-h and e^h - 1.
        let (down, up) = (-libm::expm1(-step), libm::expm1(step));
        // The curve less a straight line in e^loss has the same second differences.
        let mass = |dots: &[f64]| (dots[0] - dots[1]) / down - (dots[1] - dots[2]) / up;
        let mut masses = Vec::with_capacity(below.len() + above.len());
        masses.push((below[1] - below[0]) / up - below[0]);
        masses.extend(below.windows(3).map(mass));
        masses.push(1.0 + (below[below.len() - 2] - above[0]) / down - (above[0] - above[1]) / up);
        masses.extend(above.windows(3).map(mass));
        masses.push((above[above.len() - 2] - above[above.len() - 1]) / down);
        for mass in &mut masses {
            // Rounding may leave a mass slightly below zero.
            *mass = mass.max(0.0);
        }
        let infinite_reversed = pair.above_reversed(-(first as f64) * step);
        Self { step, first, masses, infinite: above[above.len() - 1], infinite_reversed }
    }

    /// The losses with the neighbours exchanged: signs change, and probabilities are divided by e^loss.
    #[must_use]
    pub(super) fn reversed(&self) -> Self {
        let masses = self.losses().zip(&self.masses).map(|(loss, mass)| mass * libm::exp(-loss));
        let mut masses: Vec<f64> = masses.collect();
        masses.reverse();
        Self {
            step: self.step,
            first: 1 - self.first - self.masses.len() as i64,
            masses,
            infinite: self.infinite_reversed,
            infinite_reversed: self.infinite,
        }
    }

    /// All losses of the grid.
    fn losses(&self) -> impl Iterator<Item = f64> {
        (self.first..).map(|i| i as f64 * self.step).take(self.masses.len())
    }
}

/// The least number of steps, at least 1, at which `holds` is true. It must be true from some point on.
fn outermost(step: f64, holds: impl Fn(f64) -> bool) -> Option<i64> {
    let holds = |i: i64| holds(i as f64 * step);
    let (mut before, mut at) = (0, 1);
    while !holds(at) {
        (before, at) = (at, at * 2);
        if at as f64 > FARTHEST {
            return None;
        }
    }
    while at - before > 1 {
        let middle = before + (at - before) / 2;
        if holds(middle) { at = middle } else { before = middle }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delta at a loss, by the grid.
    fn delta(losses: &Losses, epsilon: f64) -> f64 {
        let above = losses.losses().zip(&losses.masses).filter(|(loss, _)| *loss > epsilon);
        losses.infinite + above.map(|(loss, mass)| mass * -(epsilon - loss).exp_m1()).sum::<f64>()
    }

    #[test]
    fn points_lie_on_the_curve_and_chords_above_it() {
        for pair in [Pair::sampled(0.1, 0.7), Pair::sampled(1.0, 2.0), Pair::replaced(0.1, 0.7)] {
            let losses = Losses::of(&pair, 0.05, 1e-18).unwrap();
            for steps in [1, 7, 20, 60] {
                let dot = f64::from(steps) * 0.05;
                assert!((delta(&losses, dot) - pair.above(dot)).abs() < 1e-13, "{pair:?} {dot}");
                let between = dot + 0.025;
                assert!(delta(&losses, between) > pair.above(between) - 1e-15, "{pair:?} {dot}");
            }
            let total: f64 = losses.masses.iter().sum::<f64>() + losses.infinite;
            assert!((total - 1.0).abs() < 1e-12, "{pair:?} {total}");
        }
    }

    #[test]
    fn exchanged_twice_is_the_same() {
        let losses = Losses::of(&Pair::sampled(0.1, 0.7), 0.05, 1e-18).unwrap();
        let total: f64 = losses.reversed().masses.iter().sum();
        assert!((total - 1.0).abs() < 1e-12);
        let twice = losses.reversed().reversed();
        assert_eq!(twice.first, losses.first);
        for (a, b) in twice.masses.iter().zip(&losses.masses) {
            assert!((a - b).abs() <= 1e-14 * b);
        }
    }
}
