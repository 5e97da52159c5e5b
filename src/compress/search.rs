//! Searches for the step of `ecsq` whose file meets a goal best.
//!
//! The search starts where the estimates of the survey meet the goal, and corrects them by the costs of real files.
//! It stays between the last step that met the goal and the last step that missed it.

use crate::compress::goal::{Cost, Goal};
use crate::compress::survey::Survey;
use crate::kernels::dead_zone::DeadZone;

/// A search for the step whose file meets a goal best.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    survey: &'a Survey,
    goal: Goal,
    /// The logarithms of the last step that met the goal, and of the last that missed it.
    room: Option<f64>,
    missed: Option<f64>,
    /// The logarithm of measured over predicted cost.
    correction: f64,
    /// The length of the next stride, in logarithms of steps, where estimates do not help.
    stride: f64,
    /// The distance from the goal at which the search ends.
    near: f64,
}

/// Logarithms of steps that are closer are of one step, which has nine bits.
const STEP_APART: f64 = 1.0 / 512.0;

/// The first stride, in logarithms of steps, and the factor of each next one.
const FIRST_STRIDE: f64 = 1.5 * STEP_APART;
const LONGER: f64 = 4.0;

/// The distance from the goal within which estimates do not jump over it.
const ABOUT: f64 = 0.05;

/// The distance from the goal at which the search ends; the second for models of more than [`SMALL_MODEL`] values,
/// whose files take long to make.
const NEAR: f64 = 0.002;
const NEAR_OF_LARGE: f64 = 0.01;

/// Models of up to this many values get more tries than larger ones.
pub(crate) const SMALL_MODEL: usize = 1 << 24;

impl<'a> Search<'a> {
    /// Starts a search.
    pub(crate) fn new(survey: &'a Survey, goal: Goal) -> Self {
        let near = if survey.values() > SMALL_MODEL { NEAR_OF_LARGE } else { NEAR };
        Self { survey, goal, room: None, missed: None, correction: 0.0, stride: FIRST_STRIDE, near }
    }

    /// The survey with the dead zone whose estimates meet the goal best.
    pub(crate) fn best_zone(mut survey: Survey, goal: Goal) -> Survey {
        let mut best: Option<((bool, f64), DeadZone)> = None;
        for zone in Survey::zones() {
            survey = survey.with_zone(zone);
            let search = Search::new(&survey, goal);
            let found = survey.predict(search.aim().exp());
            // Estimates jump over the goal where vectors change codecs. Among zones without a jump, the cost that is
            // free decides.
            let jumps = goal.excess(&found).abs() > ABOUT;
            let rank = (jumps, if goal.bytes.is_some() { found.nmse } else { found.bytes as f64 });
            if best.as_ref().is_none_or(|(best, _)| rank < *best) {
                best = Some((rank, zone));
            }
        }
        match best {
            Some((_, zone)) => survey.with_zone(zone),
            None => survey,
        }
    }

    /// The next step to try; `None` when no try is left or no step can be better.
    pub(crate) fn next(&mut self, tries_left: u32) -> Option<f64> {
        if tries_left == 0 {
            return None;
        }
        let at = match (self.room, self.missed) {
            (Some(room), Some(missed)) if (room - missed).abs() < STEP_APART => return None,
            (Some(room), Some(missed)) => {
                let (from, to) = (room.min(missed), room.max(missed));
                let margin = (to - from) / 8.0;
                let at = self.aim();
                if (from + margin..to - margin).contains(&at) { at } else { f64::midpoint(from, to) }
            }
            (Some(room), None) => self.beyond(room, !self.falls()),
            (None, Some(missed)) => self.beyond(missed, self.falls()),
            (None, None) => self.aim(),
        };
        let is_known = |known: Option<f64>| known.is_some_and(|known| (known - at).abs() < 1e-9);
        (!is_known(self.room) && !is_known(self.missed)).then(|| at.exp())
    }

    /// Whether a larger step costs less. Bytes fall with the step; the error rises.
    fn falls(&self) -> bool {
        self.goal.bytes.is_some()
    }

    /// The logarithms of the smallest and the largest step.
    fn range(&self) -> (f64, f64) {
        let (low, high) = self.survey.range();
        (low.ln(), high.ln())
    }

    /// The logarithm of the step whose predicted and corrected cost meets the goal.
    fn aim(&self) -> f64 {
        let (mut a, mut b) = self.range();
        let predicted = |at: f64| self.goal.excess(&self.survey.predict(at.exp())) + self.correction;
        for _ in 0..40 {
            let middle = f64::midpoint(a, b);
            if (predicted(middle) > -self.near / 2.0) == self.falls() { a = middle } else { b = middle }
        }
        f64::midpoint(a, b)
    }

    /// The logarithm of a step above or below a known one. A stride longer each time is taken where estimates jump, for
    /// there no correction moves the predicted step.
    fn beyond(&mut self, known: f64, above: bool) -> f64 {
        let (low, high) = self.range();
        let (at, nearest) = (self.aim(), if above { known + STEP_APART } else { known - STEP_APART });
        let is_beyond = if above { at > nearest } else { at < nearest };
        if is_beyond {
            return at;
        }
        let stride = if above { known + self.stride } else { known - self.stride };
        self.stride *= LONGER;
        stride.clamp(low, high)
    }

    /// Forgets which steps met and missed the goal.
    pub(crate) fn forget(&mut self) {
        (self.room, self.missed) = (None, None);
    }

    /// Takes the cost of a step's file. Returns whether the search can end.
    pub(crate) fn learn(&mut self, step: f64, found: &Cost) -> bool {
        let excess = self.goal.excess(found);
        self.correction = excess - self.goal.excess(&self.survey.predict(step));
        let is_met = excess <= 0.0;
        *(if is_met { &mut self.room } else { &mut self.missed }) = Some(step.ln());
        is_met && excess > -self.near
    }
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{made, normal, survey};
    use super::*;

    /// The tries of a small model.
    const TRIES: u32 = 16;

    /// Vectors of different sizes and scales; one has a few outliers.
    fn vectors() -> [Vec<f32>; 4] {
        let mut spiked = normal(1e-4, 4000);
        spiked.iter_mut().step_by(97).for_each(|x| *x *= 300.0);
        [normal(1.0, 3000), normal(0.02, 12_000), spiked, normal(30.0, 300)]
    }

    /// Searches over the vectors' measured costs plus a header. Returns the steps and their costs.
    fn searched(goal: Goal) -> Vec<(f64, Cost)> {
        let vectors = vectors();
        let survey = survey(&vectors);
        let mut search = Search::new(&survey, goal);
        let mut tried = Vec::new();
        while let Some(step) = search.next(TRIES - tried.len() as u32) {
            let found = made(&survey.plan(step), &vectors);
            let found = Cost { bytes: found.bytes + 400, ..found };
            tried.push((step, found));
            if search.learn(step, &found) {
                break;
            }
        }
        tried
    }

    fn best(goal: &Goal, tried: &[(f64, Cost)]) -> Cost {
        let first = tried[0].1;
        tried.iter().fold(first, |best, (_, found)| if goal.prefers(found, &best) { *found } else { best })
    }

    #[test]
    fn bytes_are_met_from_below() {
        for bytes in [900, 1500, 3000, 6000, 12_000, 25_000] {
            let goal = Goal { bytes: Some(bytes), nmse: None };
            let tried = searched(goal);
            let best = best(&goal, &tried);
            assert!(goal.is_met(&best) && best.bytes as f64 >= 0.98 * bytes as f64, "{bytes}: {tried:?}");
        }
    }

    /// Where a whole vector becomes zero at one step, the best cost may be a quarter below the goal.
    #[test]
    fn an_error_is_met_from_below() {
        for nmse in [0.5, 0.1, 1e-2, 1e-4, 1e-6] {
            let goal = Goal { bytes: None, nmse: Some(nmse) };
            let tried = searched(goal);
            let best = best(&goal, &tried);
            assert!(goal.is_met(&best) && best.nmse >= 0.75 * nmse, "{nmse}: {tried:?}");
        }
    }

    /// Also for goals that no step meets, and goals that every step meets.
    #[test]
    fn no_step_is_tried_twice() {
        let bytes = [1, 401, 420, 600, 5000, 40_000, 1 << 30].map(|bytes| (Some(bytes), None));
        let errors = [0.0, 1e-30, 1e-9, 0.1, 0.3, 0.9, 2.0].map(|nmse| (None, Some(nmse)));
        for (bytes, nmse) in bytes.into_iter().chain(errors) {
            let tried = searched(Goal { bytes, nmse });
            assert!(!tried.is_empty() && tried.len() <= TRIES as usize);
            let mut steps: Vec<f64> = tried.iter().map(|(step, _)| *step).collect();
            steps.sort_by(f64::total_cmp);
            let apart = steps.windows(2).all(|pair| (pair[1] / pair[0]).ln() > 1e-9);
            assert!(apart, "{bytes:?} {nmse:?}: {tried:?}");
        }
    }

    #[test]
    fn no_try_is_left() {
        let survey = survey(&vectors());
        let mut search = Search::new(&survey, Goal { bytes: Some(3000), nmse: None });
        assert!(search.next(1).is_some() && search.next(0).is_none());
    }
}
