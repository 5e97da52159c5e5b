//! `fedmill secagg params`: costs and bounds before a session.

use super::super::{Common, Failure, OUTPUT, Outcome, print};
use super::keygen::SuiteOption;
use super::terms::TERMS;
use crate::modes::secure::keys::sharing::Committee;
use crate::modes::secure::params::{Costs, costs};
use clap::Args;

/// Print the costs and bounds of a session before you open it.
#[derive(Args, Debug)]
#[command(next_help_heading = TERMS)]
pub(in crate::cli) struct Arguments {
    /// The number of clients that may take part.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    clients: u64,
    /// The number of values of the model.
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u64).range(1..))]
    values: u64,
    /// The number of helpers.
    #[arg(long, value_name = "K", default_value_t = 5)]
    helpers: usize,
    /// The number of helpers that suffice [default: more than half].
    #[arg(long, value_name = "T")]
    threshold: Option<usize>,
    /// How clients seal seeds: x25519 or x-wing.
    #[arg(long, value_name = "SUITE", default_value = "x25519", hide_possible_values = true)]
    suite: SuiteOption,
    /// The number of values in 4 bytes.
    #[arg(long, value_name = "M", default_value_t = 1)]
    values_per_lane: u32,
    /// Print JSON.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let committee = Committee::new(self.helpers, self.threshold.unwrap_or(self.helpers / 2 + 1))?;
        let costs = costs(self.clients, self.values, committee, self.suite.into(), self.values_per_lane)?;
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string(&costs)?))?,
            false => print(&lines(&costs))?,
        }
        Ok(Outcome::Done)
    }
}

fn lines(costs: &Costs) -> String {
    let rows = [
        (
            "helpers",
            format!(
                "{}, of whom {} suffice and {} may vanish",
                costs.helpers, costs.threshold, costs.may_vanish
            ),
        ),
        (
            "corrupt helpers",
            format!(
                "{} learn nothing with an honest server; {} get no second sum with a lying one",
                costs.learn_nothing, costs.tolerates_corrupt
            ),
        ),
        (
            "grid",
            format!(
                "{} levels ({:.1} bits), rounding at most {:.1e} of the clip",
                costs.levels, costs.bits_per_value, costs.rounding_of_clip
            ),
        ),
        (
            "seeds",
            format!(
                "{} drawn by a client, {} held by a helper for each client",
                costs.seeds_drawn, costs.seeds_held
            ),
        ),
        ("upload", format!("about {} bytes a client", costs.upload_bytes)),
        ("answer", format!("about {} bytes a helper", costs.answer_bytes)),
        ("mask", format!("about {:.2} s of one core", costs.mask_core_seconds)),
        ("help", format!("about {:.2} s of one core", costs.help_core_seconds)),
        ("sum", format!("at least {:.2} s of one core", costs.sum_core_seconds)),
    ];
    rows.map(|(name, text)| format!("{name:<16} {text}\n")).concat()
}
