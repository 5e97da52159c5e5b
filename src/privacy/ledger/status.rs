//! The state of a budget for its operator: epsilon spent and left.

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::event::Adjacency;
use crate::privacy::ledger::budget::{self, Spent, VerdictError};
use crate::privacy::ledger::plan::{Accountant, ClipBound, Correlated, Sampling, Unit};
use crate::privacy::ledger::record::{Charge, Epsilon, NoiseFrom};
use crate::privacy::ledger::replay::State;
use crate::record::sha256::Sha256;
use serde::Serialize;

/// Epsilon spent and left, with the settings. Epsilons are rounded up, the remainder down; `None` is an infinite
/// epsilon.
#[derive(Clone, Serialize, Debug)]
pub struct Status {
    /// Epsilon spent, by the accountant that decides.
    pub epsilon_spent: Option<f64>,
    /// Epsilon spent after one more round of the plan.
    pub epsilon_next: Option<f64>,
    /// Epsilon spent, by RDP.
    pub epsilon_rdp: Option<f64>,
    /// The Renyi order that gives it.
    pub rdp_order: Option<f64>,
    /// Epsilon spent, by PLD; `None` also if PLD does not count.
    pub epsilon_pld: Option<f64>,
    /// The part of both that comes from noise on a grid.
    pub slack: Option<f64>,
    /// Epsilon that may be spent.
    pub epsilon_budget: f64,
    /// Epsilon that is left.
    pub epsilon_remaining: f64,
    /// The delta of all epsilons.
    pub delta: f64,
    /// The accountant that decides.
    pub accountant: Accountant,
    /// Whether every charge follows the plan, so that PLD counts.
    pub follows_plan: bool,
    /// Number of charges that count.
    pub charges: usize,
    /// Number of releases that those charges pay for.
    pub releases: u64,
    /// Number of rounds of the plan.
    pub rounds_planned: u64,
    /// Number of further rounds of the plan that the budget holds.
    pub rounds_left: u64,
    /// Secure sums in which clients added the noise.
    #[serde(skip_serializing_if = "is_zero")]
    pub distributed_sums: usize,
    /// Secure sums that the server saw before it added the noise.
    #[serde(skip_serializing_if = "is_zero")]
    pub central_sums: usize,
    /// Numbers of the charges whose release was not recorded.
    pub open: Vec<u64>,
    /// Numbers of the reserves that no charge has used.
    pub reserved: Vec<u64>,
    /// Number of charges that were voided.
    pub voided: usize,
    /// Numbers of the charges whose number of clients contradicts the plan's sampling.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contradicting: Vec<u64>,
    /// Whether no release has noise from a test seed.
    pub private: bool,
    /// Number of releases with noise from a test seed.
    pub test_releases: usize,
    /// How clients are drawn, as the plan assumes.
    pub sampling: Sampling,
    /// Share of clients in a round.
    pub sampling_rate: f64,
    /// Number of clients that could take part.
    pub population: u64,
    /// The neighbouring data sets.
    pub adjacency: Adjacency,
    /// The unit that the guarantee protects.
    pub unit: Unit,
    /// Standard deviation of the noise on the sum, divided by the clip bound.
    pub noise_multiplier: f64,
    /// The clip bound of the next round.
    pub clip: f64,
    /// Whether the clip bound follows the norms.
    pub clip_is_adaptive: bool,
    /// Divisor of the noised sum.
    pub denominator: u64,
    /// Coordinates of an update, if the plan names them.
    pub dimension: Option<u64>,
    /// Width of the noise in units of the grid, if the plan names it.
    pub level: Option<Level>,
    /// How noise is correlated across rounds; `None` if each round has independent noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlated: Option<Correlated>,
    /// The digest of the plan.
    pub plan_sha256: Sha256,
    /// Number and digest of the last record.
    pub head: String,
}

/// The number of charges for secure sums with this noise.
fn secure_sums(state: &State, noise: NoiseFrom) -> usize {
    let sums = state.counted().filter_map(|charge| charge.charge.secure.as_ref());
    sums.filter(|sum| sum.noise == noise).count()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Status {
    /// The status of a ledger.
    ///
    /// # Errors
    ///
    /// When the cost of an event is not known.
    pub fn of(state: &State) -> Result<Self, VerdictError> {
        let plan = state.plan();
        let spent = budget::spent(state)?;
        let rounded = |epsilon: f64| Epsilon::up(epsilon).map(Epsilon::get);
        let epsilon_spent = rounded(spent.epsilon(plan.accountant));
        let Spent { rdp, order, pld, slack } = spent;
        // Once correlated noise began, its charge pays for all rounds.
        let is_paid = plan.correlated.is_some() && state.last_round().is_some();
        let epsilon_next = if is_paid {
            epsilon_spent
        } else {
            let next = budget::would(state, &plan.event()?, Some(plan.noise()), None)?.after;
            rounded(next.epsilon(plan.accountant))
        };
        let left = epsilon_spent.map_or(0.0, |spent| (plan.epsilon - spent).max(0.0));
        Ok(Self {
            epsilon_spent,
            epsilon_next,
            epsilon_rdp: rounded(rdp),
            rdp_order: order,
            epsilon_pld: pld.and_then(rounded),
            slack: slack.and_then(rounded),
            epsilon_budget: plan.epsilon,
            epsilon_remaining: (left * 1e6).floor() / 1e6,
            delta: plan.delta,
            accountant: plan.accountant,
            follows_plan: state.follows_plan(),
            charges: state.counted().count(),
            releases: state.releases(),
            rounds_planned: plan.rounds,
            rounds_left: budget::rounds_left(state)?,
            distributed_sums: secure_sums(state, NoiseFrom::Distributed),
            central_sums: secure_sums(state, NoiseFrom::Central),
            open: state.orphans().map(|charge| charge.head.seq).collect(),
            reserved: state.reserves.iter().map(|reserve| reserve.seq).collect(),
            voided: state.charges.len() - state.counted().count(),
            contradicting: state.contradictions().map(|(seq, _)| seq).collect(),
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

    /// The lines of the table that `status` prints: label and value.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let number = |epsilon: Option<f64>| epsilon.map_or("infinite".to_owned(), |x| x.to_string());
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
            ("  by PLD", self.pld_text()),
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
        lines.extend(
            self.correlated
                .map(|correlated| ("  correlated", format!("{correlated}; one charge pays for all rounds"))),
        );
        if self.distributed_sums + self.central_sums > 0 {
            let Self { distributed_sums, central_sums, .. } = self;
            let text =
                format!("{distributed_sums} with distributed noise, {central_sums} with central noise");
            lines.push(("secure sums", text));
        }
        lines.extend(self.open_lines());
        if self.voided > 0 {
            lines.push(("voided", format!("{} charges", self.voided)));
        }
        lines.push(("plan", self.plan_sha256.to_string()));
        lines
    }

    /// The lines about single charges and reserves.
    fn open_lines(&self) -> Vec<(&'static str, String)> {
        let counts = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let mut lines = Vec::new();
        if !self.contradicting.is_empty() {
            let charges = counts(&self.contradicting);
            let why = "their numbers of clients contradict it; `fedmill privacy verify` shows them";
            lines.push(("  but", format!("charges {charges}: {why}")));
        }
        if !self.open.is_empty() {
            let open = counts(&self.open);
            lines.push(("open", format!("charges {open}: `fedmill privacy recover` explains them")));
        }
        if !self.reserved.is_empty() {
            lines.push(("reserved", format!("records {}", counts(&self.reserved))));
        }
        lines
    }

    fn pld_text(&self) -> String {
        match (self.epsilon_pld, self.accountant, self.follows_plan) {
            (Some(pld), _, _) => format!("{pld}, valid for plan {}", self.plan_sha256.short()),
            (None, Accountant::Rdp, _) => "not asked for".to_owned(),
            (None, _, false) => "does not count: a charge does not follow the plan".to_owned(),
            (None, _, true) => "not known for these events, or at this delta".to_owned(),
        }
    }

    /// How clients are drawn, as text. fedmill cannot check it.
    pub fn assumed(&self) -> String {
        let Self { sampling_rate, population, .. } = self;
        match self.sampling {
            Sampling::Poisson => format!(
                "each of {population} clients is drawn independently, with probability {sampling_rate}, in every round"
            ),
            Sampling::Fixed => format!(
                "in every round a fixed number of {population} clients takes part, a share of {sampling_rate}, all \
                 sets equally likely"
            ),
            Sampling::All => {
                let anyone = "nothing about which clients take part";
                self.correlated.map_or(anyone.to_owned(), |correlated| {
                    format!(
                        "{anyone}, except that each client has one id: each counts {}",
                        correlated.limits()
                    )
                })
            }
        }
    }
}

fn at_order(order: Option<f64>) -> String {
    order.map_or(String::new(), |order| format!(" at order {order}"))
}

/// The round of a charge as text; empty if there is none.
pub(super) fn round_text(charge: &Charge) -> String {
    charge.round.map_or(String::new(), |round| round.to_string())
}
