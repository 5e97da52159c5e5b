//! `fedmill he open`: the server opens a round.

use super::super::secagg::terms::{TERMS, parse_weights};
use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use super::party::{KeyOption, PARTY, PublicOption};
use crate::modes::he::open::{self, RoundOptions};
use crate::parties::identity::read_identities;
use crate::parties::tensors::ClientWeights;
use crate::telemetry::console;
use clap::Args;
use std::path::PathBuf;

/// Open a round: write and sign its terms, as the server.
///
/// Prints the path of the terms. Publish their digest where clients can compare it, since a server that shows each client
/// another base can learn their updates.
#[derive(Args, Debug)]
#[command(next_help_heading = TERMS)]
pub(in crate::cli) struct Arguments {
    /// The model that the clients started from.
    #[arg(long, value_name = "BASE", help_heading = INPUTS)]
    base: PathBuf,
    #[command(flatten)]
    public: PublicOption,
    #[command(flatten)]
    key: KeyOption,
    /// Your name, as in your public key of signatures.
    #[arg(long, value_name = "ID", default_value = "server", help_heading = PARTY)]
    id: String,
    /// Public keys of the clients that may take part: files, or folders of files that end in .pub.
    #[arg(long, value_name = "PUB", num_args = 1.., required = true, help_heading = PARTY)]
    clients: Vec<PathBuf>,
    /// The number of the round.
    #[arg(long, value_name = "N")]
    number: Option<u64>,
    /// The largest change of a parameter: larger ones are clipped to it.
    #[arg(long, value_name = "C")]
    clip: f64,
    /// The largest change of a float statistic, such as a running mean [default: statistics stay as in the base].
    #[arg(long, value_name = "C")]
    statistics_clip: Option<f64>,
    /// The weights of clients: uniform, or examples:cap=N for their examples, at most N.
    #[arg(long, value_name = "WEIGHTS", default_value = "uniform", value_parser = parse_weights)]
    weights: ClientWeights,
    /// The fewest clients of a sum [default: half of the clients, and at least 2].
    #[arg(long, value_name = "N")]
    min_clients: Option<usize>,
    /// Write the terms to this path.
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let identity = self.key.identity()?;
        let options = RoundOptions {
            base: self.base.clone(),
            round: self.number,
            public: self.public.public.clone(),
            clients: read_identities(&self.clients).map_err(Failure::of)?,
            clip: self.clip,
            statistics_clip: self.statistics_clip,
            weights: self.weights,
            min_clients: self.min_clients,
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        let opened = open::run(&self.output, &options, (&identity, &self.id), machine);
        let round = opened.map_err(Failure::of)?;
        if !common.quiet {
            let terms = &round.terms;
            console::tell(&format!(
                "round {}: {} clients, sums of at least {}, {:.2} bytes per value",
                round.digest,
                terms.clients.len(),
                terms.min_clients,
                terms.params.bytes_per_value(),
            ));
        }
        print_path(&self.output);
        Ok(Outcome::Done)
    }
}
