//! `fedmill clients select`: the clients of a round.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, RULE, print};
use super::state::{StateDirectory, parse_time};
use crate::fleet::select::{self, Constraints, Request, Strategy};
use crate::fleet::tables;
use crate::settings::{SpecError, lines};
use crate::telemetry::console;
use crate::telemetry::manual::Named;
use clap::Args;
use jiff::Timestamp;

/// Select the clients of a round, and say why each was chosen.
///
/// The same registry, options and --at give the same clients. Nothing is written. If too few clients may be selected, the
/// command says why and exits with status 1.
#[derive(Args, Debug)]
#[command(next_help_heading = RULE)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// How to select.
    #[arg(long, value_name = "NAME", default_value = "weighted", value_parser = strategy_parser(), hide_possible_values = true,
          long_help = strategy_help())]
    strategy: String,
    /// The number of clients whose updates the round wants.
    #[arg(long, value_name = "K")]
    count: usize,
    /// The number of the round.
    #[arg(long, value_name = "R")]
    round: u64,
    /// The seed of what is random. Under poisson it must stay secret.
    #[arg(long, value_name = "S")]
    seed: u64,
    /// The share of selected clients that is expected to drop out: K / (1 - SHARE) are selected.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    dropout: f64,
    /// The most clients to select [default: no bound].
    #[arg(long, value_name = "N")]
    max_clients: Option<usize>,
    /// The least number of clients that may be selected [default: K, or 1 with poisson].
    #[arg(long, value_name = "N")]
    min_clients: Option<usize>,
    /// Clients that waited for more than N rounds come first.
    #[arg(long, value_name = "N")]
    max_wait: Option<u64>,
    #[command(flatten)]
    constraints: ConstraintOptions,
    /// The time at which freshness is measured [default: now].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

/// Which clients may be selected.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
struct ConstraintOptions {
    /// Select clients of this tier. More than one tier may be given.
    #[arg(long, value_name = "NAME")]
    tier: Vec<String>,
    /// The epsilon that the federation may spend: clients with a smaller cap are excluded.
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// Updates are summed by secure aggregation: clients that demand it may be selected.
    #[arg(long)]
    secure_aggregation: bool,
    /// The threshold of secure aggregation: clients that demand a larger one are excluded.
    #[arg(long, value_name = "T", requires = "secure_aggregation")]
    secure_threshold: Option<f64>,
}

fn strategy_parser() -> Named<String> {
    Named::new(select::STRATEGIES.iter().map(|strategy| strategy.name), |text| {
        strategy_text(text).map_err(|why| why.to_string())
    })
}

fn strategy_text(text: &str) -> Result<String, SpecError> {
    select::parse(text).map(|_| text.to_owned())
}

fn strategy_help() -> String {
    format!("How to select:\n{}", lines(select::STRATEGIES))
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let registry = self.state.open()?;
        let strategy = select::parse(&self.strategy)?;
        let selection = select::select(&registry, &self.request(strategy)).map_err(Failure::of)?;
        if let Some(rate) = selection.rate.filter(|_| !common.quiet) {
            console::tell(&format!(
                "each client took part independently at rate {rate}: a privacy plan may use --sampling poisson \
                 --sampling-rate {rate}, if the seed stays secret"
            ));
        }
        let text = match self.json {
            true => serde_json::to_string(&selection)?,
            false => tables::selection(&selection),
        };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }

    fn request(&self, strategy: Box<dyn Strategy>) -> Request {
        let ConstraintOptions { tier, epsilon, secure_aggregation, secure_threshold } = &self.constraints;
        let most = self.max_clients.unwrap_or(usize::MAX);
        let least = if strategy.rate(1, 1).is_some() { 1 } else { self.count.min(most) };
        Request {
            strategy,
            count: self.count,
            dropout: self.dropout,
            most,
            round: self.round,
            seed: self.seed,
            max_wait: self.max_wait,
            constraints: Constraints {
                tiers: tier.clone(),
                epsilon: *epsilon,
                secure_aggregation: *secure_aggregation,
                secure_threshold: *secure_threshold,
                signing_keys: false,
            },
            now: self.at.unwrap_or_else(Timestamp::now),
            least: self.min_clients.unwrap_or(least),
        }
    }
}
