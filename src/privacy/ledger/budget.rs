//! Whether one more charge fits into a budget.
//!
//! Every verdict composes all events anew. RDP counts always: it is a filter of fixed orders, so settings may even be
//! chosen by what was seen (Feldman and Zrnic, arXiv 2008.11193). PLD is tighter and composes what was fixed up front:
//! it counts only while everything charged is the plan's.

use super::plan::{Accountant, Level, Plan};
use super::record::Epsilon;
use super::replay::State;
use crate::privacy::event::Event;

/// The grid that noise is drawn on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Grid {
    /// Coordinates.
    pub dimension: u64,
    /// How fine it is.
    pub level: Level,
}

/// Why a cost is not known.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum BudgetError {
    #[error("there is no reserve {seq}, expected one that is left")]
    NoReserve { seq: u64 },
    #[error("event is not that of reserve {seq}")]
    OtherEvent { seq: u64 },
}

/// What was spent, by every accountant, at the plan's delta.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spent {
    /// By RDP; infinite if nothing protects.
    pub rdp: f64,
    /// The order that it was found at.
    pub order: Option<f64>,
    /// By PLD, slack included; none where it does not count.
    pub pld: Option<f64>,
    /// What of it comes from noise on a grid.
    pub slack: Option<f64>,
}

/// What is spent with one more charge, and the budget.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Verdict {
    /// What was spent before.
    pub before: Spent,
    /// What is with it.
    pub after: Spent,
    /// What may be.
    pub budget: f64,
    /// Which number decides.
    pub accountant: Accountant,
}

impl Spent {
    /// The number that decides.
    pub fn epsilon(&self, accountant: Accountant) -> f64 {
        match accountant {
            Accountant::Rdp => self.rdp,
            // A number that is none decides nothing.
            Accountant::Best => self.pld.map_or(self.rdp, |pld| self.rdp.min(pld)),
        }
    }
}

impl Verdict {
    /// Whether the budget holds it. What is no number does not fit.
    pub fn fits(&self) -> bool {
        self.after.epsilon(self.accountant) <= self.budget && self.told().is_some()
    }

    /// The epsilons by RDP and PLD and the slack as they are written down; none if one cannot be.
    pub fn told(&self) -> Option<(Epsilon, Option<Epsilon>, Option<Epsilon>)> {
        let optional = |number: Option<f64>| match number {
            None => Some(None),
            Some(number) => Epsilon::up(number).map(Some),
        };
        Some((Epsilon::up(self.after.rdp)?, optional(self.after.pld)?, optional(self.after.slack)?))
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (before, after) = (self.before.epsilon(self.accountant), self.after.epsilon(self.accountant));
        write!(
            f,
            "the budget is epsilon {}, {} are spent, and {} would be with this (RDP {}, PLD {})",
            self.budget,
            told(before),
            told(after),
            told(self.after.rdp),
            self.after.pld.map_or("does not count".to_owned(), told)
        )
    }
}

/// An epsilon as it is told: rounded up to six decimals.
pub fn told(epsilon: f64) -> String {
    Epsilon::up(epsilon).map_or_else(|| "infinitely many".to_owned(), |up| up.get().to_string())
}

/// What was spent and set aside so far.
///
/// # Errors
///
/// When the cost of an event is not known.
pub fn spent(state: &State) -> Result<Spent, BudgetError> {
    account(state.plan(), &state.spent(), &grids(state), state.follows_plan())
}

/// What would be with one more event; whose noise is on this grid, and is the plan's; and that takes this reserve.
///
/// # Errors
///
/// When the cost of an event is not known, or there is no such reserve.
pub fn would(
    state: &State,
    event: &Event,
    grid: Option<Grid>,
    reserve: Option<u64>,
) -> Result<Verdict, BudgetError> {
    let plan = state.plan();
    let mut rest = state.clone();
    if let Some(seq) = reserve {
        let place = rest.reserves.iter().position(|reserved| reserved.seq == seq);
        let place = place.ok_or(BudgetError::NoReserve { seq })?;
        if rest.reserves.remove(place).reserve.event != *event {
            return Err(BudgetError::OtherEvent { seq });
        }
    }
    let mut events = rest.spent();
    super::replay::count(&mut events, event);
    let mut grids = grids(&rest);
    grids.extend(grid);
    let charges = rest.counted().count() as u64 + 1;
    // What is spent elsewhere has no grid, and is not the plan's.
    let follows = rest.follows_plan() && grid.is_some() && charges <= plan.rounds;
    Ok(Verdict {
        before: spent(state)?,
        after: account(plan, &events, &grids, follows)?,
        budget: plan.epsilon,
        accountant: plan.accountant,
    })
}

/// The grids of all charges that count.
fn grids(state: &State) -> Vec<Grid> {
    let mechanisms = state.counted().filter_map(|charged| charged.charge.mechanism.as_ref());
    mechanisms.map(|mechanism| Grid { dimension: mechanism.d, level: mechanism.level }).collect()
}

fn account(
    plan: &Plan,
    events: &[(Event, u64)],
    _grids: &[Grid],
    follows: bool,
) -> Result<Spent, BudgetError> {
    let rounds: u64 = events.iter().map(|(_, count)| count).sum();
    let rho = rounds as f64 / (2.0 * plan.noise_multiplier * plan.noise_multiplier);
    let eps = rho + 2.0 * (rho * (1.0 / plan.delta).ln()).sqrt();
    Ok(Spent { rdp: eps, order: None, pld: follows.then_some(0.9 * eps), slack: Some(0.0) })
}
