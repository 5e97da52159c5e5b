//! Whether the privacy budget allows a round, and whether its ledger has all charges.
//!
//! A ledger that is lost would start anew with the whole budget. So the journals say which rounds were charged, and no
//! round opens without their ledger.

use crate::config::Config;
use crate::round::error::RoundError;
use crate::round::fates::rounds_text;
use crate::round::layout;
use crate::round::state::{State, round_folders};
use crate::round::world::{BudgetFacts, Files, Work};

/// Why no further round opens; `None` if one may.
pub fn over(config: &Config, round: u64, budget: Option<&BudgetFacts>) -> Option<String> {
    if config.coordination.rounds.is_some_and(|planned| round > planned) {
        return Some("all planned rounds are over".to_owned());
    }
    let budget = budget.filter(|budget| budget.rounds_left == 0)?;
    let spent = budget.epsilon_spent.map_or("infinite".to_owned(), |spent| format!("{spent:.3}"));
    let epsilon = budget.epsilon_budget;
    Some(format!("the privacy budget is spent: epsilon {spent} of {epsilon}, too little is left for a round"))
}

/// Refuses a ledger that is missing, or has fewer releases than the journals have private rounds. `published` is the
/// number of all rounds that published a model: a ledger with as many releases needs no look at the journals.
///
/// # Errors
///
/// When the ledger is such a one, or a file cannot be read.
pub fn check_ledger(world: &mut (impl Files + Work), published: u64) -> Result<(), RoundError> {
    let found = world.releases()?;
    if found.is_some_and(|releases| releases >= published) {
        return Ok(());
    }
    let charged = charged(world)?;
    let (Some(first), Some(last)) = (charged.first(), charged.last()) else { return Ok(()) };
    if found.is_some_and(|releases| releases >= charged.len() as u64) {
        return Ok(());
    }
    Err(RoundError::Torn {
        path: layout::BUDGET.to_owned(),
        found: found.map_or("no ledger".to_owned(), |releases| format!("a ledger of {releases} releases")),
        expected: format!(
            "the ledger that {} charged, {} in all",
            rounds_text([*first, *last]),
            charged.len()
        ),
        remedy: format!(
            "restore the folder {}/ from the newest backup. A new ledger would forget what these rounds spent",
            layout::BUDGET
        ),
    })
}

/// Refuses to open a round without privacy while the ledger of private rounds is there: settings that were lost must not
/// end the protection of clients in silence.
///
/// # Errors
///
/// When the ledger charged a release, or cannot be read.
pub fn check_stays(world: &mut impl Work) -> Result<(), RoundError> {
    match world.releases()? {
        None | Some(0) => Ok(()),
        Some(releases) => Err(RoundError::Torn {
            path: layout::CONFIG.to_owned(),
            found: "privacy.enabled = false".to_owned(),
            expected: format!(
                "true, since {}/ holds a ledger that charged rounds ({releases} in all)",
                layout::BUDGET
            ),
            remedy: format!(
                "restore fedmill.toml from a backup; or, to go on without privacy, move the folder {}/ away: from then \
                 on no model protects its clients",
                layout::BUDGET
            ),
        }),
    }
}

/// Refuses to open a round whose charges the ledger could not hold: [`check_ledger`] with privacy, [`check_stays`]
/// without.
///
/// # Errors
///
/// As they have.
pub fn check(config: &Config, world: &mut (impl Files + Work), published: u64) -> Result<(), RoundError> {
    match config.privacy.enabled {
        true => check_ledger(world, published),
        false => check_stays(world),
    }
}

/// The private rounds whose merge made a model: each was charged.
fn charged(files: &impl Files) -> Result<Vec<u64>, RoundError> {
    let mut charged = Vec::new();
    for round in round_folders(files, layout::ROUNDS)? {
        let state = State::alone(files, round)?;
        let is_private = state.opening().is_some_and(|opening| opening.budget.is_some());
        let is_merged = state.merged().is_some_and(|merged| merged.refused.is_none());
        if is_private && is_merged {
            charged.push(round);
        }
    }
    Ok(charged)
}
