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
use crate::lint::budget_plan::{budget_plan, is_poisson, poisson_at};
use crate::modes::dp::error::DpError;
use crate::modes::dp::statistics::DpStatistics;
use crate::privacy::ledger::budget::{epsilon_text, most_rounds, planned};
use crate::privacy::ledger::plan::{BudgetPlan, Sampling};
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

    /// The plan that the sampling of private rounds must follow: the frozen one, else that of the settings. `None`
    /// without privacy.
    pub(super) fn sampling_plan(&self) -> Result<Option<BudgetPlan>, RoundError> {
        if !self.config.privacy.enabled {
            return Ok(None);
        }
        match self.plan()? {
            Some(plan) => Ok(Some(plan)),
            None => Ok(self.active()?.map(|population| budget_plan(&self.config, population, None))),
        }
    }

    fn books(&self) -> Result<Option<Books>, RoundError> {
        let directory = self.path(layout::BUDGET);
        if !folder::exists(&Directory::new(&directory).ledger()) {
            return Ok(None);
        }
        Books::read(&directory).map(Some).map_err(|why| RoundError::work(DpError::from(why)))
    }

    /// The number of releases that the ledger charged; `None` without a ledger.
    pub(super) fn charged_releases(&self) -> Result<Option<u64>, RoundError> {
        Ok(self.books()?.map(|books| books.state.releases()))
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

/// The selection of a round as it is drawn. Poisson sampling takes the rate of the plan: the share of the clients that
/// may be selected is larger than that of all clients, for which the budget pays.
pub(super) fn drawn_selection(selection: &str, plan: Option<&BudgetPlan>) -> String {
    match plan {
        Some(plan) if plan.sampling == Sampling::Poisson && is_poisson(selection) => {
            poisson_at(plan.sampling_rate)
        }
        _ => selection.to_owned(),
    }
}

/// Refuses a round whose clients took part with a larger probability than the budget charges for.
///
/// # Errors
///
/// When they did, or no promise of independence was made.
pub(super) fn check_rate(plan: Option<&BudgetPlan>, drawn: Option<f64>) -> Result<(), RoundError> {
    let Some(plan) = plan.filter(|plan| !plan.covers(drawn)) else { return Ok(()) };
    let found = drawn.map_or("not independently of each other".to_owned(), |rate| {
        format!("independently at a rate of {rate}")
    });
    let sampling = match plan.sampling {
        Sampling::Fixed => "fixed",
        Sampling::Poisson | Sampling::All => "poisson",
    };
    let rate = plan.sampling_rate;
    Err(RoundError::Refused(format!(
        "privacy: the clients of the round were drawn {found}, and the budget pays for {sampling} sampling at a rate of {rate}"
    )))
}
