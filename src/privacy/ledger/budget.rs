//! Whether one more charge fits into a budget.
//!
//! Every verdict composes all events again. RDP always counts: it is a filter with fixed orders, so the operator may
//! choose later settings by earlier releases (Feldman and Zrnic, arXiv 2008.11193). PLD is tighter and needs settings
//! that were fixed before the first round: it counts only while every charge follows the plan.

use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::accountants::{self, CostTerms};
use crate::privacy::calibrate::CalibrateError;
use crate::privacy::event::Event;
use crate::privacy::ledger::plan::{Accountant, BudgetPlan, PlanError};
use crate::privacy::ledger::record::{Charge, ChargeEpsilons, Epsilon, SecureSum};
use crate::privacy::ledger::replay::{self, State};

/// Why a cost is not known.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum VerdictError {
    #[error("record {seq} is not an open reserve; name one that is")]
    NoReserve { seq: u64 },
    #[error("the event differs from that of reserve {seq}")]
    OtherEvent { seq: u64 },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Account(#[from] accountants::CostError),
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
}

/// Epsilon spent, by each accountant, at the plan's delta.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spent {
    /// By RDP; infinite if there is no protection.
    pub rdp: f64,
    /// The Renyi order that gives it.
    pub order: Option<f64>,
    /// By PLD, with the slack: what noise on a grid adds to epsilon. `None` if PLD does not count.
    pub pld: Option<f64>,
    /// The slack.
    pub slack: Option<f64>,
}

/// Epsilon spent before and after one more charge, and the budget.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Verdict {
    /// Epsilon spent before the charge.
    pub before: Spent,
    /// Epsilon spent with the charge.
    pub after: Spent,
    /// The epsilon that may be spent.
    pub budget: f64,
    /// The accountant that decides.
    pub accountant: Accountant,
}

impl Spent {
    /// The epsilon of the accountant that decides.
    pub fn epsilon(&self, accountant: Accountant) -> f64 {
        match accountant {
            Accountant::Rdp => self.rdp,
            // `min` ignores NaN.
            Accountant::Best => self.pld.map_or(self.rdp, |pld| self.rdp.min(pld)),
        }
    }
}

impl Verdict {
    /// Whether the budget holds the charge. NaN never fits.
    pub fn fits(&self) -> bool {
        self.epsilons().is_some()
    }

    /// The epsilons that the charge records; `None` if the budget does not hold it.
    pub fn epsilons(&self) -> Option<ChargeEpsilons> {
        let optional = |number: Option<f64>| match number {
            None => Some(None),
            Some(number) => Epsilon::up(number).map(Some),
        };
        let fits = self.after.epsilon(self.accountant) <= self.budget;
        let Spent { rdp, pld, slack, .. } = self.after;
        fits.then_some(ChargeEpsilons {
            rdp: Epsilon::up(rdp)?,
            pld: optional(pld)?,
            slack: optional(slack)?,
        })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (before, after) = (self.before.epsilon(self.accountant), self.after.epsilon(self.accountant));
        write!(
            f,
            "the budget is epsilon {}; {} is spent, and {} would be spent with this (RDP {}, PLD {})",
            self.budget,
            epsilon_text(before),
            epsilon_text(after),
            epsilon_text(self.after.rdp),
            self.after.pld.map_or("does not count".to_owned(), epsilon_text)
        )
    }
}

/// An epsilon as text, rounded up to six decimals.
pub fn epsilon_text(epsilon: f64) -> String {
    Epsilon::up(epsilon).map_or_else(|| "infinite".to_owned(), |up| up.get().to_string())
}

/// Epsilon spent and reserved so far.
///
/// # Errors
///
/// When the cost of an event is not known.
pub fn spent(state: &State) -> Result<Spent, VerdictError> {
    account(state.plan(), &state.spent(), coarsest(noises(state)), state.follows_plan())
}

/// Epsilon spent by a plan when all rounds are charged.
///
/// # Errors
///
/// When the cost of its event is not known.
pub fn planned(plan: &BudgetPlan) -> Result<Spent, VerdictError> {
    account(plan, &[(plan.event()?, plan.charges())], Some(plan.noise()), true)
}

/// Epsilon spent by a plan after each of some rounds; the last round is one of them.
///
/// # Errors
///
/// When the cost of its event is not known.
pub fn course(plan: &BudgetPlan) -> Result<Vec<(u64, Spent)>, VerdictError> {
    if plan.correlated.is_some() {
        let all = planned(plan)?;
        return Ok(vec![(1, all), (plan.rounds, all)]);
    }
    let last = plan.rounds as f64;
    let rounds = (0..=COURSE).map(|point| last.powf(f64::from(point) / f64::from(COURSE)).round() as u64);
    let mut rounds: Vec<u64> = rounds.collect();
    rounds.dedup();
    let event = plan.event()?;
    let at = |rounds| Ok((rounds, account(plan, &[(event.clone(), rounds)], Some(plan.noise()), true)?));
    rounds.into_iter().map(at).collect()
}

/// Steps between the computed rounds; [`course`] computes one more point than this, or fewer if points coincide.
const COURSE: u32 = 16;

/// The verdict on one more event. `noise` is the noise that fedmill makes for it; `reserve` the reserve that it uses.
///
/// # Errors
///
/// When the cost of an event is not known, or there is no such reserve.
pub fn would(
    state: &State,
    event: &Event,
    noise: Option<IntegerNoise>,
    reserve: Option<u64>,
) -> Result<Verdict, VerdictError> {
    let plan = state.plan();
    let mut rest = state.clone();
    if let Some(seq) = reserve {
        let place = rest.reserves.iter().position(|reserve| reserve.seq == seq);
        let place = place.ok_or(VerdictError::NoReserve { seq })?;
        if rest.reserves.remove(place).reserve.event != *event {
            return Err(VerdictError::OtherEvent { seq });
        }
    }
    let mut events = rest.spent();
    replay::count(&mut events, event);
    let rounds = rest.planned_rounds().zip(replay::rounds_of_event(plan, event));
    let follows = rounds.is_some_and(|(before, more)| before.saturating_add(more) <= plan.charges());
    Ok(Verdict {
        before: spent(state)?,
        after: account(plan, &events, coarsest(noises(&rest).chain(noise)), follows)?,
        budget: plan.epsilon,
        accountant: plan.accountant,
    })
}

/// Number of further rounds of the plan that the budget holds. It is the larger of two: the number that RDP allows, and
/// all remaining rounds of the plan while every charge follows the plan.
///
/// # Errors
///
/// When the cost of an event is not known.
pub fn rounds_left(state: &State) -> Result<u64, VerdictError> {
    let plan = state.plan();
    if plan.correlated.is_some() {
        return rounds_left_of_series(state);
    }
    let planned = match (plan.accountant, state.planned_rounds()) {
        (Accountant::Best, Some(rounds)) => plan.rounds.saturating_sub(rounds),
        _ => 0,
    };
    let (event, events) = (plan.event()?, state.spent());
    let noise = coarsest(noises(state).chain([plan.noise()]));
    let fits = |rounds: u64| {
        let mut events = events.clone();
        replay::count(&mut events, &event.clone().times(rounds));
        Ok(account(plan, &events, noise, false)?.rdp <= plan.epsilon)
    };
    Ok(largest(fits)?.max(planned))
}

/// Number of further rounds of a series; 0 if the budget does not hold the charge that pays for them.
fn rounds_left_of_series(state: &State) -> Result<u64, VerdictError> {
    let plan = state.plan();
    let last = state.last_round();
    if last.is_none() && !would(state, &plan.event()?, Some(plan.noise()), None)?.fits() {
        return Ok(0);
    }
    Ok(plan.rounds.saturating_sub(last.unwrap_or(0)))
}

/// The largest number of rounds that the budget of a plan holds; 1 if it holds none.
///
/// # Errors
///
/// When the cost of its event is not known.
pub fn most_rounds(plan: &BudgetPlan) -> Result<u64, VerdictError> {
    Ok(plan.calibration().rounds(plan.noise_multiplier)?.max(1))
}

/// The least noise with which all rounds of a plan fit into its budget, rounded up to six decimals.
///
/// # Errors
///
/// When the cost of its event is not known, or no noise is enough.
pub fn least_noise(plan: &BudgetPlan) -> Result<f64, VerdictError> {
    let noise = plan.calibration().noise_multiplier(plan.charges())?;
    Ok((noise * 1e6).ceil() / 1e6)
}

/// The largest number of rounds that [`rounds_left`] tries.
const MOST_ROUNDS: u64 = 1 << 30;

/// The largest count that fits. If a count does not fit, no larger one may fit.
fn largest(fits: impl Fn(u64) -> Result<bool, VerdictError>) -> Result<u64, VerdictError> {
    let mut high = 1;
    while high < MOST_ROUNDS && fits(high)? {
        high *= 2;
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match fits(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(low)
}

/// The noise of all charges that count.
fn noises(state: &State) -> impl Iterator<Item = IntegerNoise> {
    let noise = |charge: &Charge| match (&charge.mechanism, &charge.secure) {
        (Some(mechanism), _) => Some(state.plan().noise_of(mechanism.level, mechanism.d)),
        (None, sum) => sum.as_ref().map(SecureSum::integer_noise),
    };
    state.counted().filter_map(move |charge| noise(&charge.charge))
}

/// Noise that costs at least as much as each of these.
fn coarsest(noises: impl Iterator<Item = IntegerNoise>) -> Option<IntegerNoise> {
    noises.reduce(|one, other| IntegerNoise {
        coordinates: one.coordinates.max(other.coordinates),
        variance: one.variance.min(other.variance),
    })
}

/// Epsilon spent by events with their counts.
fn account(
    plan: &BudgetPlan,
    events: &[(Event, u64)],
    noise: Option<IntegerNoise>,
    follows: bool,
) -> Result<Spent, VerdictError> {
    let events: Vec<Event> = events.iter().map(|(event, count)| event.clone().times(*count)).collect();
    let distribution = follows && plan.accountant == Accountant::Best;
    let terms = CostTerms { adjacency: plan.adjacency, distribution, noise, ..CostTerms::at(plan.delta) };
    let cost = accountants::cost(&events, &terms)?;
    let slack = cost.slack.unwrap_or(0.0);
    let rdp = cost.certified(false);
    let order = match rdp {
        rdp if rdp == cost.epsilon_rdp_integer => Some(cost.integer_order),
        rdp if rdp == cost.epsilon_rdp + slack => Some(cost.order),
        _ => None,
    };
    Ok(Spent { rdp, order, pld: cost.epsilon_pld.map(|pld| pld + slack), slack: cost.slack })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::ledger::record::{LedgerEntry, Reserve};
    use crate::privacy::ledger::trial::{charge, init, plan, state};

    fn after(rounds: u64) -> State {
        let plan = plan();
        let charges = (1..=rounds).map(|round| LedgerEntry::Charge(Box::new(charge(&plan, round))));
        state(&[init(&plan)].into_iter().chain(charges).collect::<Vec<_>>())
    }

    fn one_more(state: &State) -> Verdict {
        let plan = state.plan();
        would(state, &plan.event().unwrap(), Some(plan.noise()), None).unwrap()
    }

    #[test]
    fn what_would_be_spent_is_what_is_spent_then() {
        let (none, four, five) = (after(0), after(4), after(5));
        assert_eq!(spent(&none).unwrap().rdp, 0.0);
        let verdict = one_more(&four);
        assert_eq!((verdict.before, verdict.after), (spent(&four).unwrap(), spent(&five).unwrap()));
        assert!(verdict.fits());
        let Spent { rdp, pld, .. } = verdict.after;
        assert!(pld.unwrap() < rdp, "the tight number is smaller");
    }

    #[test]
    fn all_planned_rounds_fit_and_what_is_past_them_has_no_tight_number() {
        let plan = plan();
        let all = planned(&plan).unwrap();
        assert_eq!(spent(&after(plan.rounds)).unwrap(), all);
        assert!(one_more(&after(plan.rounds - 1)).after.pld.is_some());
        assert!(one_more(&after(plan.rounds)).after.pld.is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut tight = plan();
        tight.epsilon = planned(&plan()).unwrap().epsilon(Accountant::Best);
        tight.level = tight.dimension.map(|dimension| tight.level_for(dimension));
        let charges = (1..tight.rounds).map(|round| LedgerEntry::Charge(Box::new(charge(&tight, round))));
        let almost = state(&[init(&tight)].into_iter().chain(charges).collect::<Vec<_>>());
        assert!(one_more(&almost).fits(), "{}", one_more(&almost));
        let mut full = almost.clone();
        full.init.plan.epsilon *= 0.999_99;
        assert!(!one_more(&full).fits());
        let nothing = Event::gaussian(0.0).unwrap();
        assert!(
            !would(&almost, &nothing, None, None).unwrap().fits(),
            "without noise there is no protection"
        );
        full.init.plan.epsilon = f64::NAN;
        assert!(!one_more(&full).fits());
    }

    #[test]
    fn a_reserve_is_not_counted_twice() {
        let plan = plan();
        let event = plan.event().unwrap();
        let reserve = LedgerEntry::Reserve(Reserve { event: event.clone(), text: String::new() });
        let state = state(&[init(&plan), reserve]);
        let taken = would(&state, &event, None, Some(1)).unwrap();
        assert_eq!(taken.after.rdp, taken.before.rdp);
        assert!(would(&state, &event, None, None).unwrap().after.rdp > taken.after.rdp);
        assert!(matches!(would(&state, &event, None, Some(2)), Err(VerdictError::NoReserve { seq: 2 })));
        let other = Event::gaussian(9.0).unwrap();
        assert!(matches!(would(&state, &other, None, Some(1)), Err(VerdictError::OtherEvent { seq: 1 })));
    }

    #[test]
    fn rounds_left_are_those_that_fit() {
        let plan = plan();
        let left = rounds_left(&after(3)).unwrap();
        assert!(left >= plan.rounds - 3);
        let state = after(3);
        let count = |rounds| {
            let mut events = state.spent();
            replay::count(&mut events, &plan.event().unwrap().times(rounds));
            account(&plan, &events, Some(plan.noise()), false).unwrap().rdp
        };
        assert!(count(left) <= plan.epsilon && count(left + 1) > plan.epsilon, "{left}");
    }

    #[test]
    fn the_least_noise_and_the_most_rounds_meet_the_budget() {
        for accountant in [Accountant::Rdp, Accountant::Best] {
            for dimension in [None, Some(1000), Some(10_000_000)] {
                let plan = BudgetPlan { accountant, dimension, ..plan() };
                let part = |plan: &BudgetPlan| {
                    let level = plan.dimension.map(|dimension| plan.level_for(dimension));
                    planned(&BudgetPlan { level, ..plan.clone() }).unwrap().epsilon(accountant) / plan.epsilon
                };
                let noise_multiplier = least_noise(&plan).unwrap();
                let least = part(&BudgetPlan { noise_multiplier, ..plan.clone() });
                assert!((0.995..=1.0).contains(&least), "{accountant:?}, {dimension:?}: {least}");
                let rounds = most_rounds(&plan).unwrap();
                let most = part(&BudgetPlan { rounds, ..plan.clone() });
                assert!(
                    (0.98..=1.0).contains(&most),
                    "{accountant:?}, {dimension:?}: {most}, {rounds} rounds"
                );
            }
        }
    }
}
