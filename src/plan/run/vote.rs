//! Counts a vote: weights, their cap, shares, quorum, and the winner.
//!
//! The share of an option is the weight of the voters who chose it, by the weight of all voters: an abstention counts
//! against every option. The result does not depend on the order of the voters, to the last bit.

use crate::language::reply_schema::violation;
use crate::schema::json::strict;
use crate::schema::vote::{Consensus, Weight};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The difference up to which two shares count as equal, so that seven of ten equal voters reach 0.7.
pub const TOLERANCE: f64 = 1e-9;

/// The score above which the log-odds grow no more: those of 1 are infinite.
const HIGHEST_SCORE: f64 = 0.999_999;

/// A voter, and what came from it.
#[derive(Clone, PartialEq, Debug)]
pub struct Voter {
    /// The score of the agent, from 0 to 1.
    pub score: f64,
    /// The option that it chose; `None` if it abstained.
    pub option: Option<String>,
}

/// What a vote comes to.
#[derive(Clone, PartialEq, Debug)]
pub struct Tally {
    /// The weight of each voter after the cap, in their order; together 1, or 0 if no voter has weight.
    pub weights: Vec<f64>,
    /// The share of each option.
    pub shares: BTreeMap<String, f64>,
    /// The weight of the voters who did not abstain.
    pub answered: f64,
    /// The option that won; otherwise the reason why none did.
    pub winner: Result<String, String>,
}

/// The weights of voters with these scores, after the cap.
pub fn weights(vote: &Consensus, scores: &[f64]) -> Vec<f64> {
    let weights: Vec<f64> = scores.iter().map(|score| weight(vote.weight, *score)).collect();
    capped(&weights, vote.weight_cap)
}

/// Counts a vote; `threshold` is the share that wins.
pub fn count(vote: &Consensus, threshold: f64, voters: &[Voter]) -> Tally {
    let weights = weights(vote, &voters.iter().map(|voter| voter.score).collect::<Vec<_>>());
    let of = |chose: &dyn Fn(&str) -> bool| {
        let chosen =
            voters.iter().zip(&weights).filter(|(voter, _)| voter.option.as_deref().is_some_and(chose));
        sum(chosen.map(|(_, weight)| *weight))
    };
    let share = |option: &str| (option.to_owned(), of(&|chosen| chosen == option));
    let shares: BTreeMap<String, f64> = vote.options.iter().map(|option| share(option.as_str())).collect();
    let answered = of(&|chosen| shares.contains_key(chosen));
    let winner = winner(vote, threshold, &shares, answered);
    Tally { weights, shares, answered, winner }
}

fn winner(
    vote: &Consensus,
    threshold: f64,
    shares: &BTreeMap<String, f64>,
    answered: f64,
) -> Result<String, String> {
    let rounded = |share: f64| (share * 1000.0).round() / 1000.0;
    if answered <= 0.0 {
        return Err("no voter with weight answered".to_owned());
    }
    if answered < vote.quorum - TOLERANCE {
        return Err(format!(
            "those who answered carry {} of all weight, and the quorum is {}",
            rounded(answered),
            rounded(vote.quorum)
        ));
    }
    let most = shares.values().copied().fold(0.0, f64::max);
    let first: Vec<&str> = shares
        .iter()
        .filter(|(_, share)| **share >= most - TOLERANCE)
        .map(|(option, _)| option.as_str())
        .collect();
    match first.as_slice() {
        [_] if most < threshold - TOLERANCE => {
            let each: Vec<String> =
                shares.iter().map(|(option, share)| format!("{option} {}", rounded(*share))).collect();
            Err(format!("no option has {} of all weight: {}", rounded(threshold), each.join(", ")))
        }
        [option] => Ok((*option).to_owned()),
        tied => Err(format!("a tie: {} have {} of all weight each", tied.join(" and "), rounded(most))),
    }
}

/// The option with the greatest share of those that are left; of several, the first in the order of the plan.
pub fn leader(left: &[String], tally: &Tally) -> Option<String> {
    let share = |option: &String| tally.shares.get(option).copied().unwrap_or(0.0);
    let most = left.iter().map(share).fold(0.0, f64::max);
    left.iter().find(|option| share(option) >= most - TOLERANCE).cloned()
}

/// The weight of a voter before the cap.
fn weight(by: Weight, score: f64) -> f64 {
    let score = if score.is_finite() { score.clamp(0.0, 1.0) } else { 0.0 };
    match by {
        Weight::Score => score,
        Weight::Equal => 1.0,
        Weight::LogOdds => {
            let score = score.min(HIGHEST_SCORE);
            if score > 0.5 { (score / (1.0 - score)).ln() } else { 0.0 }
        }
    }
}

/// Weights that add up to 1 and of which none is above the cap, by filling up: `min(cap, t * weight)` with the `t` for
/// which the sum is 1. Voters that are too few to keep the cap get equal weights.
fn capped(weights: &[f64], cap: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..weights.len()).filter(|voter| weights[*voter] > 0.0).collect();
    let mut capped = vec![0.0; weights.len()];
    if order.is_empty() {
        return capped;
    }
    if cap * order.len() as f64 <= 1.0 {
        order.iter().for_each(|voter| capped[*voter] = 1.0 / order.len() as f64);
        return capped;
    }
    order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    let mut at_cap = 0;
    loop {
        let left = 1.0 - cap * at_cap as f64;
        let rest = sum(order[at_cap..].iter().map(|voter| weights[*voter]));
        let largest = weights[order[at_cap]];
        if largest / rest * left <= cap || at_cap + 1 == order.len() {
            order[..at_cap].iter().for_each(|voter| capped[*voter] = cap);
            order[at_cap..].iter().for_each(|voter| capped[*voter] = weights[*voter] / rest * left);
            return capped;
        }
        at_cap += 1;
    }
}

/// The sum, from the smallest on, so that it does not depend on the order.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.into_iter().fold(0.0, |sum, value| sum + value)
}

/// What a ballot must be, as a JSON Schema.
pub fn ballot_schema(options: &[String]) -> Value {
    json!({"type": "object", "properties": {"option": {"enum": options}}, "required": ["option"]})
}

/// The option that a ballot chooses.
///
/// # Errors
///
/// When it is no JSON object, or chooses none of the options.
pub fn read_ballot(ballot: &[u8], options: &[String]) -> Result<String, String> {
    let value: Value = strict(ballot)?;
    if let Some(why) = violation(&ballot_schema(options), &value) {
        return Err(why);
    }
    let option = value["option"].as_str().map(str::to_owned);
    option.ok_or_else(|| "$.option: expected a text".to_owned())
}
