//! The privacy budget of a federation: made at its first round from `[privacy]`, and frozen then.

use crate::budget::account::Account;
use crate::budget::books::Books;
use crate::budget::directory::Directory;
use crate::engine::intake::admit;
use crate::engine::intake::policy::{Policy, TensorPolicy};
use crate::engine::intake::update::open_base;
use crate::io::folder;
use crate::io::model_file::TablePool;
use crate::io::source::OpenFiles;
use crate::modes::dp::error::DpError;
use crate::modes::dp::statistics::DpStatistics;
use crate::privacy::ledger::budget::{epsilon_text, most_rounds, planned};
use crate::privacy::ledger::plan::BudgetPlan;
use crate::round::budget_plan::budget_plan;
use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::server::Server;
use crate::round::world::BudgetFacts;
use std::sync::Arc;

impl Server {
    /// The frozen plan of the budget; `None` if there is no budget yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn plan(&self) -> Result<Option<BudgetPlan>, RoundError> {
        Ok(self.books()?.map(|books| books.state.plan().clone()))
    }

    fn books(&self) -> Result<Option<Books>, RoundError> {
        let directory = self.path(layout::BUDGET);
        if !folder::exists(&Directory::new(&directory).ledger()) {
            return Ok(None);
        }
        Books::read(&directory).map(Some).map_err(|why| RoundError::work(DpError::from(why)))
    }

    /// The state of the budget; `None` without privacy, and before the first round.
    pub(super) fn budget_facts(&self) -> Result<Option<BudgetFacts>, RoundError> {
        let Some(books) = self.books()?.filter(|_| self.config.privacy.enabled) else { return Ok(None) };
        let status = books.status().map_err(|why| RoundError::work(DpError::from(why)))?;
        Ok(Some(BudgetFacts {
            epsilon_spent: status.epsilon_spent,
            epsilon_budget: status.epsilon_budget,
            delta: status.delta,
            rounds_left: status.rounds_left,
            clip: status.clip,
        }))
    }

    /// Makes the budget, if rounds are private and there is none.
    pub(super) fn make_budget(&self, population: u64) -> Result<(), RoundError> {
        if !self.config.privacy.enabled || self.books()?.is_some() {
            return Ok(());
        }
        let plan = self.new_plan(population)?;
        let bad = |why: &dyn std::fmt::Display| RoundError::Setting { key: "privacy", why: why.to_string() };
        plan.check().map_err(|why| bad(&why))?;
        let spent = planned(&plan).map_err(|why| bad(&why))?.epsilon(plan.accountant);
        if spent > plan.epsilon {
            let (rounds, epsilon) = (plan.rounds, plan.epsilon);
            let spent = epsilon_text(spent);
            return Err(RoundError::Refused(format!(
                "privacy: {rounds} rounds cost epsilon {spent}, and the budget is {epsilon}"
            )));
        }
        plan.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let made = Account::init(&self.path(layout::BUDGET), &plan);
        made.map(drop).map_err(|why| RoundError::work(DpError::from(why)))
    }

    /// The plan for this many clients and the current model.
    fn new_plan(&self, population: u64) -> Result<BudgetPlan, RoundError> {
        let path = self.path(layout::CURRENT);
        let base = open_base(&path, &OpenFiles::raise_limit(), &TablePool::default());
        let base = base.map_err(|why| RoundError::Unexpected {
            path: layout::CURRENT.to_owned(),
            found: why.faults.to_string(),
            expected: "a model".to_owned(),
        })?;
        let tensors = TensorPolicy { personal: self.personal()?, ..TensorPolicy::default() };
        let policy = Policy { tensors, ..Policy::default() };
        let admitted = admit::admit(Vec::new(), Some(Arc::new(base)), &policy);
        let (set, _) = admitted.map_err(RoundError::reading(layout::CURRENT))?;
        let statistics = DpStatistics::default();
        let plan = budget_plan(&self.config, population, Some(statistics.dimension(&set)));
        let rounds = match self.config.coordination.rounds {
            Some(rounds) => rounds,
            // Rounds without an end go on until the budget does.
            None => most_rounds(&plan)
                .map_err(|why| RoundError::Setting { key: "privacy", why: why.to_string() })?,
        };
        Ok(BudgetPlan { rounds, tensors_sha256: Some(statistics.names(&set)), ..plan })
    }
}
