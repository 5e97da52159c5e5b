//! Votes that no option can win, and votes without a declared end.

use super::finding::Lint;
use super::rules;
use crate::plan::run::vote::{TOLERANCE, Voter, count};
use crate::schema::stage::Stage;
use crate::schema::vote::{Consensus, NoConsensus, Weight};

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (place, stage) in plan.stages.iter().enumerate() {
        if let Some(vote) = &stage.consensus {
            check_vote(lint, &format!("$.stages[{place}].consensus"), stage, vote);
        }
    }
}

fn check_vote(lint: &mut Lint, at: &str, stage: &Stage, vote: &Consensus) {
    if vote.options.len() < 2 {
        let why = format!("found {} options, expected at least 2", vote.options.len());
        lint.add(&rules::VOTE, format!("{at}.options"), why);
    }
    if let Some(threshold) = vote.threshold {
        check_threshold(lint, &format!("{at}.threshold"), threshold);
    }
    if !(0.0..=1.0).contains(&vote.quorum) {
        let why = format!("found {}, expected a share from 0 to 1 of all weight", vote.quorum);
        lint.add(&rules::VOTE, format!("{at}.quorum"), why);
    }
    if !(vote.weight_cap > 0.0 && vote.weight_cap <= 1.0) {
        let why = format!("found {}, expected a share above 0 and up to 1 of all weight", vote.weight_cap);
        lint.add(&rules::VOTE, format!("{at}.weight_cap"), why);
    }
    for option in vote.candidates.keys().filter(|option| !vote.options.contains(option)) {
        let known = vote.options.iter().map(|option| option.as_str());
        let at = format!("{at}.candidates.{option}");
        lint.add_unknown(&rules::UNKNOWN, at, (option.as_str(), "an option of the vote"), known);
    }
    if !(1..=vote.options.len()).contains(&(vote.min_options as usize)) {
        let why = format!(
            "found {}, expected 1 to {}, the number of options",
            vote.min_options,
            vote.options.len()
        );
        lint.add(&rules::VOTE, format!("{at}.min_options"), why);
    }
    check_voters(lint, at, vote);
    check_unanimity(lint, at, vote);
    let at_no_winner = format!("{at}.on_no_consensus");
    match (vote.on_no_consensus, &vote.fallback) {
        (NoConsensus::Fallback, None) => {
            let why = "found no `fallback`, expected the option that holds if none wins";
            lint.add(&rules::FALLBACK, at, why);
        }
        (NoConsensus::Fallback, Some(option)) if !vote.options.contains(option) => {
            let known = vote.options.iter().map(|option| option.as_str());
            lint.add_unknown(
                &rules::FALLBACK,
                format!("{at}.fallback"),
                (option.as_str(), "an option of the vote"),
                known,
            );
        }
        (NoConsensus::Gate, _) if stage.gate.is_none() => {
            let why = "found `gate` in a stage without one, expected `gate` beside `consensus`";
            lint.add(&rules::FALLBACK, at_no_winner, why);
        }
        (NoConsensus::Fail | NoConsensus::Gate, Some(_)) => {
            let why = "found a `fallback` that never holds, expected `on_no_consensus: fallback` beside it";
            lint.add(&rules::IDLE, format!("{at}.fallback"), why);
        }
        _ => {}
    }
}

pub(super) fn check_threshold(lint: &mut Lint, at: &str, threshold: f64) {
    if !(threshold > 0.0 && threshold <= 1.0) {
        let why = format!("found {threshold}, expected a share above 0 and up to 1 of all weight");
        lint.add(&rules::VOTE, at, why);
    }
}

/// Looks for votes that each voter with weight can prevent, by the count of the runner.
fn check_unanimity(lint: &mut Lint, at: &str, vote: &Consensus) {
    let threshold = vote.threshold.unwrap_or(lint.plan.limits.consensus_threshold);
    let (Some(option), true) = (vote.options.first(), threshold < 1.0) else { return };
    let names = lint.index.able(&vote.capability);
    let scores = names.iter().filter_map(|name| lint.plan.agents.get(*name));
    let scores: Vec<f64> = scores.map(|agent| agent.skills().score).collect();
    let without = |absent: usize| {
        let voters = scores.iter().enumerate().map(|(place, score)| Voter {
            score: *score,
            option: (place != absent).then(|| option.to_string()),
        });
        count(vote, threshold, &voters.collect::<Vec<_>>())
    };
    let shares: Vec<f64> = (0..scores.len())
        .map(without)
        .map(|tally| tally.shares.get(option.as_str()).copied().unwrap_or(0.0))
        .filter(|share| *share < 1.0 - TOLERANCE)
        .collect();
    let most = shares.iter().copied().fold(0.0, f64::max);
    if shares.len() > 1 && most < threshold - TOLERANCE {
        let why = format!(
            "found {threshold} for {} voters with weight, of which all but one carry {most:.3} at most: an option wins \
             only if all agree; expected a threshold of at most {most:.3}, or more voters",
            shares.len()
        );
        lint.add(&rules::UNANIMOUS, format!("{at}.threshold"), why);
    }
}

fn check_voters(lint: &mut Lint, at: &str, vote: &Consensus) {
    let voters = lint.index.able(&vote.capability);
    let scores =
        voters.iter().filter_map(|name| lint.plan.agents.get(*name)).map(|agent| agent.skills().score);
    let has_weight = |score: &f64| match vote.weight {
        Weight::Equal => true,
        Weight::Score => *score > 0.0,
        // The log-odds of a voter that is right in half of all cases are 0.
        Weight::LogOdds => *score > 0.5,
    };
    let (all, weighty) = (voters.len(), scores.filter(has_weight).count());
    let at_voters = format!("{at}.capability");
    match (all, weighty) {
        // That no agent has the capability is a finding about its name.
        (0, _) => {}
        (1, _) => lint.add(&rules::VOTE, at_voters, "found 1 voter, expected at least 2"),
        (_, 0) => {
            let why = format!(
                "found {all} voters, and by their scores none has weight, expected at least 2 that have"
            );
            lint.add(&rules::VOTE, at_voters, why);
        }
        (_, 1) => {
            let why = format!(
                "found {all} voters, and only 1 has weight by its score, expected at least 2 that have"
            );
            lint.add(&rules::VOTE, at_voters, why);
        }
        (_, weighty)
            if vote.weight_cap > 0.0
                && vote.weight_cap * (weighty as f64) < 1.0 + 1e-9
                && vote.weight != Weight::Equal =>
        {
            let why = format!(
                "found {} for {weighty} voters, expected more than {:.3}: up to it all weights are equal, whatever the \
                 scores",
                (vote.weight_cap * 1000.0).round() / 1000.0,
                1.0 / weighty as f64
            );
            lint.add(&rules::IDLE, format!("{at}.weight_cap"), why);
        }
        _ => {}
    }
}
