//! The privacy budgets of a run: `limits.eps` and `limits.delta`.

use super::Machine;
use crate::plan::run::error::RunError;
use crate::plan::run::event::Event;
use crate::plan::run::key::Key;
use crate::plan::run::ledger;
use crate::plan::run::world::{Job, World};

impl Machine<'_> {
    /// The directory of the ledger that a job charges, if the plan limits epsilon.
    pub(super) fn ledger_of(&self, job: &Result<Job, String>) -> Option<String> {
        self.flow.plan.limits.eps?;
        job.as_ref().ok().and_then(|job| ledger::of(&job.task))
    }

    /// Why the budgets of the run hold no charge of a job, if they hold none. Notes which ledger it charges.
    pub(super) fn over_budget(
        &mut self,
        key: Key,
        job: &Result<Job, String>,
        world: &mut impl World,
    ) -> Option<String> {
        let ledger = self.ledger_of(job)?;
        let name = key.name(self.flow.plan);
        let why = match world.account(&ledger) {
            Ok(None) => None,
            Ok(Some(account)) => {
                let (directory, epsilon, delta) = (ledger.clone(), account.epsilon_spent, account.delta);
                self.record(&[Event::Ledger { directory, epsilon, delta }]);
                let with = self.state.spent(Some((&ledger, account.epsilon_next, delta)));
                self.passed(with).map(|why| format!("{why} with stage `{name}`"))
            }
            Err(why) => Some(format!("limits.eps: the ledger {ledger} of stage `{name}`: {why}")),
        };
        if why.is_none() {
            self.queues.charging.insert(key, ledger);
        }
        why
    }

    /// Reads the ledger again that an instance charged; stops the run if its limit is passed.
    pub(super) fn charged(&mut self, key: Key, world: &mut impl World) -> Result<(), RunError> {
        if self.flow.plan.limits.eps.is_none() {
            return Ok(());
        }
        let mut why = None;
        if let Some(ledger) = self.queues.charging.remove(&key) {
            match world.account(&ledger) {
                Ok(None) => {}
                Ok(Some(account)) => {
                    let (epsilon, delta) = (account.epsilon_spent, account.delta);
                    self.record(&[Event::Ledger { directory: ledger, epsilon, delta }]);
                }
                Err(fault) => why = Some(format!("limits.eps: the ledger {ledger}: {fault}")),
            }
        }
        match world.charged() {
            Ok(notes) => {
                notes.ledgers.into_iter().for_each(|(ledger, spent)| self.note(ledger, spent));
                let refused = notes.refused.map(|what| format!("the ledgers of the run come to {what},"));
                let name = key.name(self.flow.plan);
                why = why.or(refused.map(|refused| format!("{refused} with stage `{name}`")));
            }
            Err(fault) => why = Some(format!("limits.eps: {fault}")),
        }
        match why.or_else(|| self.passed(self.state.spent(None))) {
            Some(why) => self.stop(why, true, false, world),
            None => Ok(()),
        }
    }

    /// Records what a command charged to a ledger that its arguments do not name.
    fn note(&mut self, directory: String, (epsilon, delta): (f64, f64)) {
        let epsilon = Some(epsilon).filter(|epsilon| epsilon.is_finite());
        if self.state.ledgers.get(&directory).is_none_or(|(known, _)| known.is_some() && *known < epsilon) {
            self.record(&[Event::Ledger { directory, epsilon, delta }]);
        }
    }

    /// The limit that an epsilon and a delta pass.
    fn passed(&self, (epsilon, delta): (f64, f64)) -> Option<String> {
        let limits = &self.flow.plan.limits;
        if let Some(most) = limits.eps.filter(|most| epsilon > *most) {
            return Some(format!(
                "the ledgers of the run come to epsilon {epsilon:.6}, past limits.eps, {most},"
            ));
        }
        let most = limits.delta.filter(|most| delta > *most * (1.0 + 1e-12))?;
        Some(format!("the ledgers of the run come to delta {delta:e}, past limits.delta, {most:e},"))
    }
}
