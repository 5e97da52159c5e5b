//! Finds a grid that is fine enough, and a tilt that fits.
//!
//! On a grid of step h the loss of a release has up to h^2 / 6 too much variance. So epsilon is too large by about
//! T (lambda + 1) h^2 / 12 for T releases and the tilt lambda. This gives the first step. The step is then halved until
//! epsilon hardly changes. Epsilon is never too small, so any step is safe.

use super::compose::{BelowWindow, Composition, Runs, Window};
use super::grid::Losses;
use super::hockey_stick::Pair;
use crate::privacy::accountants::rdp::orders::OrderList;
use crate::privacy::accountants::rdp::{Curve, conversion};
use crate::privacy::accountants::steps::{StepMechanism, Steps};

/// Least delta with an epsilon.
pub const LEAST_DELTA: f64 = 1e-12;

/// Relative error that an answer may have.
const FINE: f64 = 3e-4;

/// Share of delta that cutting off each end of the distribution may cost.
const CUT: f64 = 1e-7;

/// Share of delta that rounding may cost.
const ROUNDING: f64 = 1e-6;

/// Factor by which the first step is coarser than the estimate.
const COARSER: f64 = 4.0;

/// Least and largest factor by which halving the step lowers the error: 4 once the step is far below the spread of
/// losses.
const GAIN: (f64, f64) = (2.0, 4.0);

/// Least delta in the scale of the tilted masses, where rounding is about 1e-10.
const LEAST_SEEN: f64 = 1e-4;

/// Range of tilts to search, as logarithms.
const TILTS: (f64, f64) = (-7.0, 12.0);

/// A question to a distribution.
#[derive(Clone, Copy, Debug)]
enum Question {
    /// The least epsilon at this delta.
    Epsilon { delta: f64 },
    /// The least delta at this epsilon.
    Delta { epsilon: f64 },
}

/// The least epsilon at this delta; `None` if the losses are not known, or delta is below [`LEAST_DELTA`].
pub fn epsilon(steps: &Steps, delta: f64, effort: Effort) -> Option<f64> {
    (delta >= LEAST_DELTA).then(|| answer(steps, Question::Epsilon { delta }, effort))?
}

/// The least delta at this epsilon; `None` if the losses are not known.
pub fn delta(steps: &Steps, epsilon: f64) -> Option<f64> {
    answer(steps, Question::Delta { epsilon }, Effort::Full).map(|delta| delta.min(1.0))
}

/// How far to refine the grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// The first grid only: some percent too large, in a tenth of the time.
    Least,
    /// Until the answer hardly changes.
    Full,
}

fn answer(steps: &Steps, question: Question, effort: Effort) -> Option<f64> {
    let parts = parts(steps)?;
    match (&parts[..], question) {
        _ if steps.non_private => Some(question.worst()),
        ([], _) => Some(0.0),
        ([(pair, 1)], Question::Epsilon { delta }) => Some(epsilon_of_one(pair, delta)),
        ([(pair, 1)], Question::Delta { epsilon }) => Some(delta_of_one(pair, epsilon)),
        _ => {
            let directions = begun(&parts, question, estimate(steps, question)?)?;
            match effort {
                Effort::Least => directions.iter().map(|direction| direction.answer).max_by(f64::total_cmp),
                Effort::Full => refined(directions),
            }
        }
    }
}

impl Question {
    fn worst(self) -> f64 {
        match self {
            Self::Epsilon { .. } => f64::INFINITY,
            Self::Delta { .. } => 1.0,
        }
    }

    /// The bound of the answer by the Renyi divergence at order tilt + 1; for delta, its logarithm.
    fn bound(self, composition: &Composition, tilt: f64) -> f64 {
        let log_moment = composition.log_moment(tilt) - libm::log1p(tilt);
        let log_part = libm::log(tilt) - libm::log1p(tilt);
        match self {
            Self::Epsilon { delta } => (log_moment - libm::log(delta)) / tilt + log_part,
            Self::Delta { epsilon } => log_moment + tilt * (log_part - epsilon),
        }
    }

    /// The least tilt that keeps rounding small. A stronger tilt puts mass on losses far above those that matter.
    fn tilt(self, composition: &Composition) -> f64 {
        let best = least(TILTS, |log| self.bound(composition, libm::exp(log)));
        let highest = libm::exp(best);
        let bound = self.bound(composition, highest);
        let (epsilon, log_delta) = match self {
            Self::Epsilon { delta } => (bound, libm::log(delta)),
            Self::Delta { epsilon } => (epsilon, bound),
        };
        // The logarithm of delta in the scale of the tilted masses.
        let seen = |tilt: f64| log_delta - composition.log_moment(tilt) + tilt * epsilon;
        let (mut low, mut high) = (0.0, highest);
        for _ in 0..12 {
            let middle = 0.5 * (low + high);
            if seen(middle) < LEAST_SEEN.ln() { low = middle } else { high = middle }
        }
        high
    }

    fn read(self, window: &Window) -> Result<f64, BelowWindow> {
        match self {
            Self::Epsilon { delta } => {
                window.epsilon(delta * (1.0 - ROUNDING)).map(|epsilon| epsilon.max(0.0))
            }
            Self::Delta { epsilon } => window.delta(epsilon).map(|delta| delta * (1.0 + ROUNDING)),
        }
    }
}

/// Pairs that bound the mechanisms, with their counts; `None` if a mechanism has no pair.
fn parts(steps: &Steps) -> Option<Vec<(Pair, u64)>> {
    let pair = |mechanism: StepMechanism| match mechanism {
        StepMechanism::Gaussian { noise } => Some(Pair::sampled(1.0, noise)),
        StepMechanism::Poisson { rate, noise } => Some(Pair::sampled(rate, noise)),
        StepMechanism::WithoutReplacement { rate, noise } => Some(Pair::replaced(rate, noise)),
        StepMechanism::ZeroConcentrated { .. } => None,
    };
    steps.list.iter().map(|step| Some((pair(step.mechanism)?, step.count))).collect()
}

/// Delta of a single release, from the curve itself (Balle & Wang 2018, arXiv 1805.06530, for Gaussian noise).
fn delta_of_one(pair: &Pair, epsilon: f64) -> f64 {
    pair.above(epsilon).max(pair.above_reversed(epsilon))
}

fn epsilon_of_one(pair: &Pair, delta: f64) -> f64 {
    if delta_of_one(pair, 0.0) <= delta {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while delta_of_one(pair, high) > delta && high < 1e300 {
        (low, high) = (high, high * 2.0);
    }
    while high - low > 1e-12 * high {
        let middle = 0.5 * (low + high);
        if delta_of_one(pair, middle) > delta { low = middle } else { high = middle }
    }
    high
}

/// The start of a search.
struct Estimate {
    /// Distance between losses.
    step: f64,
    /// Rough value of delta, or less.
    delta: f64,
}

/// An estimate by Renyi divergences; `None` if they give no finite bound.
fn estimate(steps: &Steps, question: Question) -> Option<Estimate> {
    let curve = Curve::of(steps, &OrderList::DpAccounting.orders());
    let (epsilon, delta, order) = match question {
        Question::Epsilon { delta } => {
            let best = conversion::epsilon(&curve, delta);
            (best.value, delta, best.order)
        }
        Question::Delta { epsilon } => {
            let best = conversion::delta(&curve, epsilon);
            // The bound is seldom further off than this factor.
            (epsilon, best.value * 1e-3, best.order)
        }
    };
    let runs: f64 = steps.list.iter().map(|step| step.count as f64).sum();
    let known = epsilon.is_finite() && order.is_finite();
    let step = COARSER * (12.0 * FINE * epsilon.max(1e-6) / (runs * order)).sqrt();
    known.then_some(Estimate { step, delta: delta.max(1e-250) })
}

/// The answer in one direction, on an ever finer grid.
struct Direction<'a> {
    parts: &'a [(Pair, u64)],
    question: Question,
    reversed: bool,
    step: f64,
    tail: f64,
    tilt: Option<f64>,
    answer: f64,
    /// Amount by which the last halving lowered the answer.
    change: Option<f64>,
    fine: bool,
}

impl Direction<'_> {
    /// The answer on a grid with the current step; `None` if it needs too many points.
    fn compute(&mut self) -> Option<f64> {
        let runs = self.parts.iter().map(|(pair, count)| {
            let losses = Losses::of(pair, self.step, self.tail)?;
            Some(Runs::new(if self.reversed { losses.reversed() } else { losses }, *count))
        });
        let composition = Composition::new(runs.collect::<Option<_>>()?);
        let question = self.question;
        // In one direction losses are bounded. Above their sum only infinite losses count, and no tilt is the best one.
        if let Question::Delta { epsilon } = question
            && composition.highest() <= epsilon
        {
            return Some(composition.infinite());
        }
        let mut tilt = *self.tilt.get_or_insert_with(|| question.tilt(&composition));
        loop {
            // Just below that sum the best tilt is so strong that no window may fit it.
            if let Some(window) = composition.window(tilt) {
                match question.read(&window) {
                    Ok(answer) => return Some(answer),
                    Err(BelowWindow) if window.reaches_zero() => return Some(0.0),
                    Err(BelowWindow) => {}
                }
            }
            if tilt < 1e-9 {
                return None;
            }
            tilt *= 0.5;
            self.tilt = Some(tilt);
        }
    }

    fn refine(&mut self) {
        self.step *= 0.5;
        match self.compute() {
            Some(answer) => {
                let change = self.answer - answer;
                // Assumes that errors fall as fast as the changes.
                let gain = self.change.map_or(GAIN.0, |before| (before / change).clamp(GAIN.0, GAIN.1));
                self.fine = change <= FINE * answer * (gain - 1.0);
                self.change = Some(change);
                // The answer of any grid is safe.
                self.answer = self.answer.min(answer);
            }
            None => self.fine = true,
        }
    }
}

/// The answers in both directions on the first grid; only one direction if they are equal.
fn begun(parts: &[(Pair, u64)], question: Question, estimate: Estimate) -> Option<Vec<Direction<'_>>> {
    let runs: f64 = parts.iter().map(|(_, count)| *count as f64).sum();
    let (step, tail) = (estimate.step, CUT * estimate.delta / runs);
    let symmetric = parts.iter().all(|(pair, _)| pair.is_symmetric());
    let begin = |reversed: bool| {
        let (answer, tilt, change, fine) = (question.worst(), None, None, false);
        let mut direction = Direction { parts, question, reversed, step, tail, tilt, answer, change, fine };
        direction.answer = direction.compute()?;
        Some(direction)
    };
    let directions = [Some(false), (!symmetric).then_some(true)];
    directions.into_iter().flatten().map(begin).collect()
}

/// The larger answer of both directions. Refines only the direction with the larger answer.
fn refined(mut directions: Vec<Direction<'_>>) -> Option<f64> {
    loop {
        let larger = directions.iter_mut().max_by(|a, b| a.answer.total_cmp(&b.answer))?;
        if larger.fine || larger.answer == 0.0 {
            return Some(larger.answer);
        }
        larger.refine();
    }
}

/// The place of the minimum of a function with one minimum, to some hundredths.
fn least((mut low, mut high): (f64, f64), value: impl Fn(f64) -> f64) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let at = |x: f64| {
        let value = value(x);
        if value.is_nan() { f64::INFINITY } else { value }
    };
    let mut inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)];
    let mut values = inner.map(at);
    while high - low > 0.05 {
        if values[0] <= values[1] {
            high = inner[1];
            inner = [high - GOLDEN * (high - low), inner[0]];
            values = [at(inner[0]), values[0]];
        } else {
            low = inner[0];
            inner = [inner[1], low + GOLDEN * (high - low)];
            values = [values[1], at(inner[1])];
        }
    }
    0.5 * (low + high)
}
