//! Stages without work that are open again, since one that they waited for is.

use super::{Group, LoopState, State};
use crate::language::graph::Graph;
use crate::plan::run::event::Outcome;
use crate::plan::run::key::Key;
use crate::schema::Plan;

impl State {
    /// Whether a stage waits for another one that it needs: that one, or the loop around it, is not over.
    pub(super) fn waits_for(&self, key: Key, need: usize) -> bool {
        match self.loop_of(need).filter(|looped| self.loop_of(key.stage) != Some(*looped)) {
            Some(looped) => !self.loops[looped].is_over,
            None => self.group(self.seen_from(need, key)).outcome.is_none(),
        }
    }

    /// Opens what a stage that is open again makes uncertain: the loop around it, and behind it the stages that were left
    /// out and the decisions. Work that is done stays done.
    pub(super) fn reconsider(&mut self, graph: &Graph, plan: &Plan) {
        loop {
            self.open_loops();
            let mut opened = false;
            for stage in &graph.order {
                let key = self.current(*stage);
                let group = self.group(key);
                let did_nothing = group.outcome.is_some_and(|outcome| {
                    outcome == Outcome::Skipped || outcome.is_fine() && plan.stages[*stage].decides()
                });
                if did_nothing && graph.needs[*stage].iter().any(|need| self.waits_for(key, *need)) {
                    let answers = group.answers;
                    *self.group_mut(key) = Group { answers, ..Group::default() };
                    opened = true;
                }
            }
            if !opened {
                return;
            }
        }
    }

    /// Opens each loop with a stage that is open.
    fn open_loops(&mut self) {
        for looped in 0..self.loops.len() {
            let mut members = (0..self.groups.len()).filter(|stage| self.loop_of[*stage] == Some(looped));
            if members.any(|stage| self.group(self.current(stage)).outcome.is_none()) {
                let iteration = self.loops[looped].iteration;
                self.loops[looped] = LoopState { iteration, ..LoopState::default() };
            }
        }
    }
}
