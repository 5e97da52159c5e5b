//! The search for the step of `ecsq` whose file meets a goal best: where the estimates of the survey say it is, corrected
//! by what files came to, and always between a step that had room left and one that missed.

use crate::compress::goal::{Cost, Goal};
use crate::compress::survey::Survey;
use crate::kernels::dead_zone::DeadZone;

/// Looks for the step whose file meets a goal best, file by file.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    survey: &'a Survey,
    goal: Goal,
    /// The log of a step that had room left, and of one that missed.
    room: Option<f64>,
    missed: Option<f64>,
    /// What files are larger, or worse, than predicted, as a factor.
    correction: f64,
    /// How far the next step is where estimates do not say.
    stride: f64,
    /// How near to the goal is near enough.
    near: f64,
}

/// Logs of steps that are so near are those of one step: nine bits of it are kept.
const STEP_APART: f64 = 1.0 / 512.0;

/// How far, in logs of steps, the next step is where estimates do not say; every time, so many times as far.
const FIRST_STRIDE: f64 = 1.5 * STEP_APART;
const LONGER: f64 = 4.0;

/// How near to the goal an estimate is where it does not jump over it.
const ABOUT: f64 = 0.05;

/// How near to the goal is near enough, of it; and of models of more than [`SMALL_MODEL`] values, of which every file on
/// the way takes its time.
const NEAR: f64 = 0.002;
const NEAR_OF_LARGE: f64 = 0.01;

/// Models of up to so many values are made into more files on the way to a goal than larger ones.
pub(crate) const SMALL_MODEL: usize = 1 << 24;

impl<'a> Search<'a> {
    /// Begins.
    pub(crate) fn new(survey: &'a Survey, goal: Goal) -> Self {
        let near = if survey.values() > SMALL_MODEL { NEAR_OF_LARGE } else { NEAR };
        Self { survey, goal, room: None, missed: None, correction: 0.0, stride: FIRST_STRIDE, near }
    }

    /// Of a survey, with the dead zone that the estimates prefer where they meet the goal.
    pub(crate) fn best_zone(mut survey: Survey, goal: Goal) -> Survey {
        let mut best: Option<((bool, f64), DeadZone)> = None;
        for zone in Survey::zones() {
            survey = survey.with_zone(zone);
            let search = Search::new(&survey, goal);
            let found = survey.predict(search.aim().exp());
            // Where vectors take other codecs estimates jump over the goal. Of those that do not, what is left free decides.
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

    /// The next step to try; none once there is nothing to gain, or so many tries are left as zero.
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

    /// Whether what is aimed at falls with the step, as bytes do. An error rises.
    fn falls(&self) -> bool {
        self.goal.bytes.is_some()
    }

    /// The logs of the steps between which all choices lie.
    fn range(&self) -> (f64, f64) {
        let (low, high) = self.survey.range();
        (low.ln(), high.ln())
    }

    /// The log of the step that should meet the goal.
    fn aim(&self) -> f64 {
        let (mut a, mut b) = self.range();
        let predicted = |at: f64| self.goal.excess(&self.survey.predict(at.exp())) + self.correction;
        for _ in 0..40 {
            let middle = f64::midpoint(a, b);
            if (predicted(middle) > -self.near / 2.0) == self.falls() { a = middle } else { b = middle }
        }
        f64::midpoint(a, b)
    }

    /// The log of a step above, or below, a known one. Where estimates jump, as when a vector takes another codec, no
    /// correction moves the step that should meet the goal: then it is a stride away, a longer one each time.
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

    /// Forgets which steps had room left and which missed.
    pub(crate) fn forget(&mut self) {
        (self.room, self.missed) = (None, None);
    }

    /// Learns what the file of a step came to. Returns whether it is as near as makes sense.
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

    /// Tries that small models get.
    const TRIES: u32 = 16;

    /// Vectors of different sizes and scales, one of a few values that stick out.
    fn vectors() -> [Vec<f32>; 4] {
        let mut spiked = normal(1e-4, 4000);
        spiked.iter_mut().step_by(97).for_each(|x| *x *= 300.0);
        [normal(1.0, 3000), normal(0.02, 12_000), spiked, normal(30.0, 300)]
    }

    /// Searches with files that come to what the vectors do, and a header. Returns the steps and what they came to.
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

    /// Where a whole vector goes to zero at once, what is just within the goal is a quarter away from it.
    #[test]
    fn an_error_is_met_from_below() {
        for nmse in [0.5, 0.1, 1e-2, 1e-4, 1e-6] {
            let goal = Goal { bytes: None, nmse: Some(nmse) };
            let tried = searched(goal);
            let best = best(&goal, &tried);
            assert!(goal.is_met(&best) && best.nmse >= 0.75 * nmse, "{nmse}: {tried:?}");
        }
    }

    /// Also where nothing can meet the goal, or everything does.
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
