//! What is spent of a budget and what is left, as numbers to be told.

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::event::Adjacency;
use crate::privacy::ledger::budget::{self, Spent, VerdictError};
use crate::privacy::ledger::plan::{Accountant, ClipBound, Correlated, Sampling, Unit};
use crate::privacy::ledger::record::Epsilon;
use crate::privacy::ledger::replay::{Charged, State};
use crate::record::sha256::Sha256;
use serde::Serialize;

/// What is spent and what is left. Epsilons are rounded up, what remains down; none is infinitely many.
#[derive(Clone, Serialize, Debug)]
pub struct Status {
    /// By the number that decides.
    pub epsilon_spent: Option<f64>,
    /// By RDP.
    pub epsilon_rdp: Option<f64>,
    /// The order that it was found at.
    pub rdp_order: Option<f64>,
    /// By PLD; none where it does not count.
    pub epsilon_pld: Option<f64>,
    /// What of both comes from noise on a grid.
    pub slack: Option<f64>,
    /// What may be spent.
    pub epsilon_budget: f64,
    /// What is left of it.
    pub epsilon_remaining: f64,
    /// The delta that all of them are at.
    pub delta: f64,
    /// Which number decides.
    pub accountant: Accountant,
    /// Whether everything charged is the plan's, so that PLD counts.
    pub follows_plan: bool,
    /// Charges that count.
    pub charges: usize,
    /// Releases that they are.
    pub releases: u64,
    /// Rounds that are planned.
    pub rounds_planned: u64,
    /// Rounds of the plan that the budget still holds.
    pub rounds_left: u64,
    /// Charges whose release was not recorded.
    pub open: Vec<u64>,
    /// Reserves that are left.
    pub reserved: Vec<u64>,
    /// Charges that were taken back.
    pub voided: usize,
    /// Whether every release has noise that nobody knows.
    pub private: bool,
    /// Releases with noise that somebody chose.
    pub test_releases: usize,
    /// What is assumed: how clients were drawn.
    pub sampling: Sampling,
    /// With which probability.
    pub sampling_rate: f64,
    /// Clients that could take part.
    pub population: u64,
    /// Which data sets count as neighbours.
    pub adjacency: Adjacency,
    /// Whose data the guarantee is about.
    pub unit: Unit,
    /// Standard deviation of the noise on the sum over the clip bound.
    pub noise_multiplier: f64,
    /// The clip bound of the next round.
    pub clip: f64,
    /// Whether it follows the norms.
    pub clip_is_adaptive: bool,
    /// What the sum is divided by.
    pub denominator: u64,
    /// Coordinates of an update, if the plan says.
    pub dimension: Option<u64>,
    /// How fine the noise is, if the plan says.
    pub level: Option<Level>,
    /// How noise is correlated across rounds, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlated: Option<Correlated>,
    /// The digest of the plan.
    pub plan_sha256: Sha256,
    /// Where the ledger ends.
    pub head: String,
}

impl Status {
    /// What is spent of a budget and what is left.
    ///
    /// # Errors
    ///
    /// When the cost of an event is not known.
    pub fn of(state: &State) -> Result<Self, VerdictError> {
        let plan = state.plan();
        let spent = budget::spent(state)?;
        let told = |epsilon: f64| Epsilon::up(epsilon).map(Epsilon::get);
        let epsilon_spent = told(spent.epsilon(plan.accountant));
        let Spent { rdp, order, pld, slack } = spent;
        let left = epsilon_spent.map_or(0.0, |spent| (plan.epsilon - spent).max(0.0));
        Ok(Self {
            epsilon_spent,
            epsilon_rdp: told(rdp),
            rdp_order: order,
            epsilon_pld: pld.and_then(told),
            slack: slack.and_then(told),
            epsilon_budget: plan.epsilon,
            epsilon_remaining: (left * 1e6).floor() / 1e6,
            delta: plan.delta,
            accountant: plan.accountant,
            follows_plan: state.follows_plan(),
            charges: state.counted().count(),
            releases: state.releases(),
            rounds_planned: plan.rounds,
            rounds_left: budget::rounds_left(state)?,
            open: state.orphans().map(|charged| charged.head.seq).collect(),
            reserved: state.reserves.iter().map(|reserved| reserved.seq).collect(),
            voided: state.charges.len() - state.counted().count(),
            private: state.tests() == 0,
            test_releases: state.tests(),
            sampling: plan.sampling,
            sampling_rate: plan.sampling_rate,
            population: plan.population,
            adjacency: plan.adjacency,
            unit: plan.unit,
            noise_multiplier: plan.noise_multiplier,
            clip: state.clip,
            clip_is_adaptive: matches!(plan.clip, ClipBound::Adaptive(_)),
            denominator: plan.denominator,
            dimension: plan.dimension,
            level: plan.level,
            correlated: plan.correlated,
            plan_sha256: state.init.plan_sha256,
            head: state.head.to_string(),
        })
    }

    /// A line for each thing worth telling: what it is, and how it stands.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let number = |epsilon: Option<f64>| epsilon.map_or("infinitely many".to_owned(), |x| x.to_string());
        let counts = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let mut lines = Vec::new();
        if !self.private {
            lines
                .push(("NOT PRIVATE", format!("{} releases were made with a test seed", self.test_releases)));
        }
        let unit = "one client's data";
        lines.extend([
            (
                "budget",
                format!(
                    "epsilon {} at delta {}, for {unit}, {}",
                    self.epsilon_budget, self.delta, self.adjacency
                ),
            ),
            ("spent", number(self.epsilon_spent)),
            ("  by RDP", format!("{}{}", number(self.epsilon_rdp), at_order(self.rdp_order))),
            ("  by PLD", self.pld_told()),
            ("  of it slack", number(self.slack.or(Some(0.0)))),
            ("remaining", self.epsilon_remaining.to_string()),
            (
                "rounds",
                format!(
                    "{} charged, {} left; {} were planned",
                    self.releases, self.rounds_left, self.rounds_planned
                ),
            ),
            (
                "noise",
                format!(
                    "multiplier {}, clip bound {}{}, sum divided by {}",
                    self.noise_multiplier,
                    self.clip,
                    if self.clip_is_adaptive { " that follows the norms" } else { "" },
                    self.denominator
                ),
            ),
            ("assumed", self.assumed()),
        ]);
        lines.extend(self.correlated.map(|how| ("  correlated", format!("{how}; paid for once"))));
        if !self.open.is_empty() {
            let open = counts(&self.open);
            lines.push(("open", format!("charges {open}: `fedmill privacy recover` explains them")));
        }
        if !self.reserved.is_empty() {
            lines.push(("set aside", format!("records {}", counts(&self.reserved))));
        }
        if self.voided > 0 {
            lines.push(("taken back", format!("{} charges", self.voided)));
        }
        lines.push(("plan", self.plan_sha256.to_string()));
        lines
    }

    fn pld_told(&self) -> String {
        match (self.epsilon_pld, self.accountant, self.follows_plan) {
            (Some(pld), _, _) => format!("{pld}, valid for plan {}", self.plan_sha256.short()),
            (None, Accountant::Rdp, _) => "not asked for".to_owned(),
            (None, _, false) => "does not count: not everything charged is the plan's".to_owned(),
            (None, _, true) => "not known for these events, or at this delta".to_owned(),
        }
    }

    /// How clients were drawn, which nobody here can check.
    pub fn assumed(&self) -> String {
        let Self { sampling_rate, population, .. } = self;
        match self.sampling {
            Sampling::Poisson => format!(
                "each of {population} clients is drawn by itself, with probability {sampling_rate}, in every round"
            ),
            Sampling::Fixed => format!(
                "in every round so many of {population} clients that each takes part with probability {sampling_rate}, \
                 every choice as likely as another"
            ),
            Sampling::All => self.correlated.map_or("nothing of who takes part".to_owned(), |how| {
                format!(
                    "nothing of who takes part but that ids tell clients apart: each counts {}",
                    how.limits()
                )
            }),
        }
    }
}

fn at_order(order: Option<f64>) -> String {
    order.map_or(String::new(), |order| format!(" at order {order}"))
}

/// A charge as others may know it: neither what went in nor when.
pub(super) fn round_told(charged: &Charged) -> String {
    charged.charge.round.map_or(String::new(), |round| round.to_string())
}
