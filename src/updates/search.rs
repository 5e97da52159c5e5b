//! The search for the step of `ecsq` whose file meets a goal best: where the estimates of the survey say it is, corrected
//! by what files came to, and always between a step that had room left and one that missed.

use super::auto::{Found, Goal};
use super::survey::Survey;

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
    pub(super) fn forget(&mut self) {
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
