//! The clients of a round: constraints, a floor for long waits, and a strategy for the rest.
//!
//! A selection depends on the registry, the request and nothing else: not on the order in which clients registered, and
//! not on a clock. It reads the columns that the strategy needs, in one pass.
//!
//! - [`request`]: what is asked, with its [`constraints`]. [`selection`]: what came out, with the reason for each choice.
//! - [`pool`]: the clients that may be selected, column by column. [`draw`]: random numbers from the seed.
//! - `tier_names`: tiers that no client has. [`strategy`]: what a strategy is. [`ranking`]: the largest of many keys. [`error`]: why no clients are selected.
//! - The strategies, one file each: [`uniform`], [`weighted`], [`poisson`], [`oort`], [`power_of_choice`].

pub mod constraints;
pub mod draw;
pub mod error;
pub mod oort;
pub mod poisson;
pub mod pool;
pub mod power_of_choice;
pub mod ranking;
pub mod request;
pub mod selection;
pub mod strategy;
mod tier_names;
pub mod uniform;
pub mod weighted;

use crate::fleet::registry::Registry;
use crate::settings::{self, Definition, RegistryEntry, SpecError};
pub use constraints::Constraints;
use draw::Draw;
pub use error::SelectError;
use pool::{Column, Pool};
pub use request::Request;
pub use selection::{Choice, Selection};
use strategy::Pick;
pub use strategy::Strategy;

/// Every strategy.
pub const STRATEGIES: &[RegistryEntry<Box<dyn Strategy>>] =
    &[uniform::ENTRY, weighted::ENTRY, poisson::ENTRY, oort::ENTRY, power_of_choice::ENTRY];

/// Reads a strategy as an operator writes it: `name` or `name:key=value,key=value`.
///
/// # Errors
///
/// When there is no such strategy, or it has no such setting or value.
pub fn parse(text: &str) -> Result<Box<dyn Strategy>, SpecError> {
    settings::parse_as("selection strategy", text, Definition::Paper, STRATEGIES)
}

/// Selects the clients of a round.
///
/// # Errors
///
/// When too few clients may be selected, the request makes no sense, or the registry cannot be read.
pub fn select(registry: &Registry, request: &Request) -> Result<Selection, SelectError> {
    request.check()?;
    let _view = registry.view()?;
    let unknown_tiers = tier_names::unknown(registry, &request.constraints.tiers)?;
    let strategy = request.strategy.as_ref();
    let mut columns = strategy.columns().to_vec();
    columns.extend(request.max_wait.map(|_| Column::LastRound));
    let mut pool = Pool::read(registry, &request.constraints, &columns)?;
    if strategy.reads_rounds() {
        pool.utilities = registry.utilities(request.round)?;
    }
    let eligible = pool.len();
    let rate = strategy.rate(request.count, eligible);
    let needed = request.least.max(1);
    if eligible < needed {
        return Err(SelectError::TooFew { eligible, needed, excluded: pool.excluded, unknown_tiers });
    }
    if let Some(unknown) = unknown_tiers {
        tracing::warn!("{unknown}");
    }
    let asked = request.asked().min(eligible);
    let mut picks = waiting(&mut pool, request, asked);
    let Request { round, seed, now, count: wanted, .. } = *request;
    let (count, name) = (asked - picks.len(), strategy.to_string());
    let draw = Draw { count, eligible, wanted, round, now, seed, name };
    picks.extend(strategy.choose(&pool, &draw));
    Ok(Selection {
        strategy: strategy.to_string(),
        round: request.round,
        seed: request.seed,
        asked: if rate.is_some() { request.count } else { request.asked() },
        eligible,
        excluded: std::mem::take(&mut pool.excluded),
        rate,
        choices: selection::choices(registry, &pool, picks)?,
    })
}

/// Takes the clients that waited for too long from the pool: they are chosen before the strategy chooses.
fn waiting(pool: &mut Pool, request: &Request, count: usize) -> Vec<Pick> {
    let Some(most) = request.max_wait else { return Vec::new() };
    let pick = |(waited, client)| Pick {
        client,
        probability: Some(1.0),
        score: None,
        why: format!("waited {waited} rounds, the floor is {most}"),
    };
    pool.take_waiting(request.round, most, count).into_iter().map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_is_written_as_it_is_read() {
        settings::tests::check_registry(STRATEGIES, parse);
    }
}
