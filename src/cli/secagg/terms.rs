//! Options that are terms of a session.

use crate::modes::secure::groups::GroupTerms;
use crate::modes::secure::open::{Clips, CommitteeTerms, GridTerms, OpenOptions};
use crate::modes::secure::privacy::PrivacyRequest;
use crate::options::failure::Failure;
use crate::parties::journal::seconds_now;
use crate::parties::tensors::ClientWeights;
use crate::privacy::ledger::record::NoiseFrom;
use crate::settings::duration::Friendly;
use crate::settings::share::Share;
use clap::Args;
use std::path::PathBuf;

/// The group of options that are terms of a session.
pub(in crate::cli) const TERMS: &str = "Terms";

/// The terms of a session.
#[derive(Args, Debug)]
#[command(next_help_heading = TERMS)]
pub(super) struct TermOptions {
    /// The model that the clients started from.
    #[arg(long, value_name = "BASE", help_heading = super::super::INPUTS)]
    base: PathBuf,
    /// The number of the round.
    #[arg(long, value_name = "N")]
    round: Option<u64>,
    /// The number of helpers that suffice, above half of them [default: more than half]. Fewer learn nothing.
    #[arg(long, value_name = "T")]
    threshold: Option<usize>,
    /// Let helpers sign the set of clients, and answer once T of them signed the same one: a lying server then gets no
    /// second sum, even with T - 1 corrupt helpers. Each helper runs `help` twice.
    #[arg(long)]
    helpers_sign_set: bool,
    /// The largest change of a parameter: larger ones are clipped to it.
    #[arg(long, value_name = "C")]
    clip: Option<f64>,
    /// The largest change of a float statistic, such as a running mean [default: statistics stay as in the base].
    #[arg(long, value_name = "C")]
    statistics_clip: Option<f64>,
    /// The largest change of a control variate: clients send theirs too, for --strategy scaffold.
    #[arg(long, value_name = "C")]
    control_clip: Option<f64>,
    /// The largest integer that a change becomes [default: the finest grid that no sum overflows].
    #[arg(long, value_name = "N")]
    levels: Option<u32>,
    /// The number of values in 4 bytes: more make smaller files and a coarser grid.
    #[arg(long, value_name = "M", default_value_t = 1)]
    values_per_lane: u32,
    /// The part of the parameters' values that clients send: a fraction below 1 such as 0.1, or a count.
    ///
    /// The places are random, and the same for all clients. The mean has zeros elsewhere. Another session has other places.
    #[arg(long, value_name = "PART", value_parser = Share::part)]
    keep: Option<Share>,
    /// The weights of clients: uniform, or examples:cap=N for their examples, at most N.
    #[arg(long, value_name = "WEIGHTS", default_value = "uniform", value_parser = parse_weights)]
    weights: ClientWeights,
    /// Divide changes by local steps, at most N, and multiply the mean by the mean number of steps, as FedNova does.
    #[arg(long, value_name = "N")]
    steps_cap: Option<u32>,
    /// The number of random groups, each with a sum, for rules over the means of groups.
    #[arg(long, value_name = "G", default_value_t = 1)]
    groups: usize,
    /// Refuse groups of which half or more would have a hostile client, if this share of the clients is hostile.
    #[arg(long, value_name = "SHARE")]
    hostile: Option<f64>,
    /// The fewest clients of a sum [default: half of the smallest group, and at least 2].
    #[arg(long, value_name = "N")]
    min_survivors: Option<usize>,
    /// How long clients may mask: 45m, 2h, or 1d 12h [default: without end].
    #[arg(long, value_name = "TIME", value_parser = parse_deadline)]
    deadline: Option<Friendly>,
}

/// How the sum is private.
#[derive(Args, Debug)]
#[command(next_help_heading = super::super::PRIVACY)]
pub(super) struct PrivacyOptions {
    /// Open the session under the privacy budget in the state directory DIR: its plan fixes the clip norm and the noise.
    ///
    /// `fedmill privacy init` creates the directory, with --sampling all. `unmask --dp DIR` charges it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["weights", "steps_cap", "levels", "statistics_clip", "control_clip", "values_per_lane", "groups", "keep", "clip"])]
    dp: Option<PathBuf>,
    /// Who draws the noise: distributed, each client a share, or central, the server on the sum that it sees [default:
    /// distributed].
    #[arg(long, value_name = "WHO", hide_possible_values = true)]
    dp_noise: Option<NoiseFrom>,
    /// The number of clients of a sum that may tell the server their noise; distributed noise is so much larger [default:
    /// 0].
    #[arg(long, value_name = "N")]
    colluders: Option<usize>,
}

impl PrivacyOptions {
    /// How the sum is to be private; `None` for the exact sum.
    ///
    /// # Errors
    ///
    /// When there are options of a budget, and no budget. clap does not see this where `--dp` conflicts with an option that
    /// is there.
    pub(super) fn request(&self) -> Result<Option<PrivacyRequest>, Failure> {
        let Some(budget) = &self.dp else {
            let given = [("--dp-noise", self.dp_noise.is_some()), ("--colluders", self.colluders.is_some())];
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                Some((option, _)) => {
                    Err(anyhow::anyhow!("{option}: found no --dp, expected the budget of the noise").into())
                }
                None => Ok(None),
            };
        };
        Ok(Some(PrivacyRequest {
            budget: budget.clone(),
            mode: self.dp_noise.unwrap_or(NoiseFrom::Distributed),
            colluders: self.colluders.unwrap_or(0),
        }))
    }
}

/// Reads the weights of clients.
pub(in crate::cli) fn parse_weights(text: &str) -> Result<ClientWeights, String> {
    match text.split_once(':') {
        None if text == "uniform" => Ok(ClientWeights::Uniform),
        Some(("examples", cap)) => {
            let cap = cap.strip_prefix("cap=").and_then(|cap| cap.parse().ok()).filter(|cap| *cap > 0);
            let cap = cap.ok_or("expected examples:cap=N with a whole number above 0")?;
            Ok(ClientWeights::Examples { cap })
        }
        _ => Err("expected uniform or examples:cap=N".to_owned()),
    }
}

/// Reads how long clients may mask.
fn parse_deadline(text: &str) -> Result<Friendly, String> {
    let time: Friendly =
        text.parse().map_err(|why| format!("{why}; expected a time such as 45m, 2h or 1d"))?;
    if time.as_seconds() < 1.0 { Err("expected a second or more".to_owned()) } else { Ok(time) }
}

impl TermOptions {
    /// The options to open a session, without clients and helpers.
    ///
    /// # Errors
    ///
    /// When there is no clip, and no budget that fixes it.
    pub(super) fn options(&self, privacy: Option<PrivacyRequest>) -> Result<OpenOptions, Failure> {
        let missing = || anyhow::anyhow!("--clip: found none, expected the largest change of a parameter");
        let clip = if privacy.is_some() { 0.0 } else { self.clip.ok_or_else(missing)? };
        Ok(OpenOptions {
            base: self.base.clone(),
            round: self.round,
            clients: Vec::new(),
            committee: CommitteeTerms {
                helpers: Vec::new(),
                threshold: self.threshold,
                signs_set: self.helpers_sign_set,
            },
            clips: Clips { parameters: clip, statistics: self.statistics_clip, controls: self.control_clip },
            privacy,
            grid: GridTerms { levels: self.levels, per_lane: self.values_per_lane, keep: self.keep.clone() },
            weights: self.weights,
            steps_cap: self.steps_cap,
            groups: GroupTerms { count: self.groups, hostile: self.hostile },
            min_survivors: self.min_survivors,
            deadline: self.deadline.map(|deadline| seconds_now() + deadline.as_seconds() as u64),
        })
    }
}
