//! Candidates that are judged together: successive halving, a population, and arms of a bandit.
//!
//! `asha` is the asynchronous successive halving of Li et al., A system for massively parallel hyperparameter tuning,
//! 2020, one trial at a time; the resource is the number of iterations that a trial repeats. `pbt` is the population of
//! Jaderberg et al., Population based training of neural networks, 2017, without their weights: a member is a value.
//! `ucb` is UCB1 of Auer et al., Finite-time analysis of the multiarmed bandit problem, 2002; the reward of a trial is
//! the share of its iterations in which the candidate was better than the value in use.
//!
//! Each of these looks at many candidates and takes the best, so [`confidence`] asks more of each one.

use super::propose::{Proposal, Range, draws, uniform};
use super::{Tuning, is_same};
use crate::schema::looped::{Policy, Tune};
use crate::schema::value::Scalar;

/// The candidates of a rung of `asha` for one that goes on, and the factor from a rung to the next.
const REDUCTION: u32 = 4;

/// The members of a population for one that is replaced.
const FIFTH: usize = 5;

/// The factors by which a copied member differs from the best.
const FACTORS: [f64; 2] = [0.8, 1.2];

/// A trial that is over, since the value in use changed or the bracket or generation began.
#[derive(Clone, PartialEq, Debug)]
pub struct Tried {
    /// The value that it tried.
    pub candidate: Scalar,
    /// The number of iterations that it repeated.
    pub rounds: u32,
    /// The relative gain; `None` if a shadow run failed or measured no finite number.
    pub gain: Option<f64>,
    /// The share of its iterations in which the candidate was better.
    pub wins: f64,
}

/// The confidence of one judgement. Candidates that are judged together share the chance of a false one: each has the
/// part of one in their number (Bonferroni).
pub fn confidence(tune: &Tune) -> f64 {
    let together = match tune.policy {
        Policy::Asha => bracket(tune),
        Policy::Pbt => tune.population,
        Policy::Ucb => tune.values.len().saturating_sub(1) as u32,
        Policy::Climb | Policy::Random | Policy::Fedexp => 1,
    };
    1.0 - (1.0 - tune.validate.ci) / f64::from(together.max(1))
}

/// The numbers of iterations of the rungs of `asha`, fewest first.
fn rungs(tune: &Tune) -> Vec<u32> {
    let mut rungs = vec![tune.validate.replay_rounds];
    while let Some(fewer) = rungs.last().map(|last| last / REDUCTION).filter(|fewer| *fewer > 0) {
        rungs.push(fewer);
    }
    rungs.reverse();
    rungs
}

/// The number of candidates on the lowest rung of a bracket: one of them may reach the highest.
fn bracket(tune: &Tune) -> u32 {
    REDUCTION.saturating_pow(rungs(tune).len().saturating_sub(1) as u32)
}

/// The next trial of `asha`: of the best quarter of a rung one that has not gone on, from the highest rung down, else a
/// new candidate. `None` if no new one is left.
pub(super) fn asha(tune: &Tune, tuning: &Tuning) -> Option<Proposal> {
    let rungs = rungs(tune);
    let promoted = promoted(&rungs, &tuning.tried);
    promoted.or_else(|| {
        let is_new = |value: &Scalar| !tuning.tried.iter().any(|tried| is_same(&tried.candidate, value));
        let candidate =
            draws(tune, tuning).into_iter().find(|value| tuning.may_try(value) && is_new(value))?;
        Some(Proposal { candidate, rounds: *rungs.first()? })
    })
}

fn promoted(rungs: &[u32], tried: &[Tried]) -> Option<Proposal> {
    rungs.windows(2).rev().find_map(|pair| {
        let on = |rounds: u32| tried.iter().filter(move |tried| tried.rounds == rounds);
        let mut ranked: Vec<(f64, &Tried)> =
            on(pair[0]).filter_map(|tried| Some((tried.gain?, tried))).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let best = ranked.into_iter().take(on(pair[0]).count() / REDUCTION as usize);
        let waits = |tried: &&Tried| !on(pair[1]).any(|above| is_same(&above.candidate, &tried.candidate));
        let found = best.map(|(_, tried)| tried).find(waits)?;
        Some(Proposal { candidate: found.candidate.clone(), rounds: pair[1] })
    })
}

/// The first members of a population: the value in use, and random ones near it.
pub(super) fn first_members(tune: &Tune, value: &Scalar) -> Vec<Scalar> {
    if tune.policy != Policy::Pbt {
        return Vec::new();
    }
    let (range, like) = (Range::of(tune, value), Tuning::plain(value.clone()));
    let drawn = (1..tune.population).map(|draw| like.like(range.at(uniform(tune.seed, 0, draw))));
    std::iter::once(value.clone()).chain(drawn).collect()
}

/// The next trial of `pbt`: the first member of the generation that has not been tried.
pub(super) fn pbt(tune: &Tune, tuning: &Tuning) -> Option<Proposal> {
    let waiting = tuning.members.iter().filter(|member| tuning.may_try(member)).nth(tuning.tried.len())?;
    Some(Proposal { candidate: waiting.clone(), rounds: tune.validate.replay_rounds })
}

/// Ends a bracket or a generation whose trials are over.
pub(super) fn settle(tune: &Tune, tuning: &mut Tuning) {
    let lowest =
        |rungs: &[u32]| tuning.tried.iter().filter(|tried| Some(&tried.rounds) == rungs.first()).count();
    match tune.policy {
        Policy::Asha => {
            let rungs = rungs(tune);
            if lowest(&rungs) >= bracket(tune) as usize && promoted(&rungs, &tuning.tried).is_none() {
                tuning.tried.clear();
            }
        }
        Policy::Pbt if pbt(tune, tuning).is_none() => evolve(tune, tuning),
        _ => {}
    }
}

/// Ends a bracket or a generation that has no candidate left.
pub(super) fn give_up(tune: &Tune, tuning: &mut Tuning) {
    match tune.policy {
        Policy::Asha => tuning.tried.clear(),
        _ => settle(tune, tuning),
    }
}

/// Replaces the worst fifth of a population by the best fifth, each times 0.8 or 1.2. A member without a gain is worse
/// than all others; that in use has the gain 0, and one that was taken back has none.
fn evolve(tune: &Tune, tuning: &mut Tuning) {
    let mut gains = tuning.tried.iter().map(|tried| tried.gain);
    let gain = |(place, member): (usize, &Scalar)| {
        let gain = match tuning.may_try(member) {
            true => gains.next().flatten(),
            false => is_same(member, &tuning.value).then_some(0.0),
        };
        (gain.unwrap_or(f64::NEG_INFINITY), place)
    };
    let mut ranked: Vec<(f64, usize)> = tuning.members.iter().enumerate().map(gain).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let range = Range::of(tune, &tuning.value);
    let replaced = ranked.len() / FIFTH;
    for ((_, best), (_, worst)) in ranked.iter().take(replaced).zip(ranked.iter().rev()) {
        let side = usize::from(uniform(tune.seed, tuning.trials, *worst as u32) < 0.5);
        let number = tuning.members[*best].number().unwrap_or(f64::NAN) * FACTORS[side];
        tuning.members[*worst] = tuning.like(range.nearest(number));
    }
    tuning.tried.clear();
}

/// Moves all members near a new value in use, and forgets the gains over the old one.
pub(super) fn start_again(tune: &Tune, tuning: &mut Tuning) {
    let range = Range::of(tune, &tuning.value);
    let moved = |member: &Scalar| tuning.like(range.nearest(member.number().unwrap_or(f64::NAN)));
    tuning.members = tuning.members.iter().map(moved).collect();
    tuning.tried.clear();
}

/// The values for the next trial of `ucb`, best first: those that were never tried, then by the mean reward plus
/// sqrt(2 ln t / n), for t trials of which n tried the value.
pub(super) fn ucb(tune: &Tune, tuning: &Tuning) -> Vec<Scalar> {
    let all = tuning.tried.len() as f64;
    let bound = |value: &Scalar| {
        let mine = tuning.tried.iter().filter(|tried| is_same(&tried.candidate, value));
        let (count, sum) = mine.fold((0.0, 0.0), |(count, sum), tried| (count + 1.0, sum + tried.wins));
        if count > 0.0 { sum / count + (2.0 * f64::ln(all) / count).sqrt() } else { f64::INFINITY }
    };
    let mut ranked: Vec<(f64, &Scalar)> = tune.values.iter().map(|value| (bound(value), value)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked.into_iter().map(|(_, value)| value.clone()).collect()
}
