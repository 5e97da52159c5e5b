//! The options that describe sampling, neighbours and the model, without a state directory.

use crate::cli::Failure;
use crate::kernels::discrete_gaussian::Level;
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::calibrate::ClientSampling;
use crate::privacy::event::Adjacency;
use crate::settings::numbers;
use clap::{Args, ValueEnum};

/// How the clients of a round are drawn, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum SamplingName {
    /// Each client independently, with the probability of --sampling-rate.
    Poisson,
    /// A fixed number of clients, --sampling-rate times --population. For --adjacency replace-one.
    WithoutReplacement,
    /// Any clients: sampling does not lower epsilon.
    None,
}

/// The settings of a plan besides its noise and its rounds.
#[derive(Args, Debug)]
pub(super) struct PlanOptions {
    /// How the clients of a round are drawn [default: poisson with a --sampling-rate, else none].
    #[arg(long, value_name = "HOW")]
    sampling: Option<SamplingName>,
    /// The probability that a client is drawn in a round, or the share of clients that are drawn.
    #[arg(long, value_name = "Q", value_parser = numbers::share)]
    sampling_rate: Option<f64>,
    /// The number of all clients, for sampling without replacement.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    population: Option<u64>,
    /// The neighbouring data sets: add-remove, replace-special or replace-one [default: add-remove, or replace-one for
    /// sampling without replacement].
    #[arg(long, value_name = "WHICH", value_parser = parse_adjacency)]
    adjacency: Option<Adjacency>,
    /// The number of coordinates of the model. Adds what discrete noise costs more than continuous noise.
    #[arg(long, value_name = "D")]
    dimension: Option<u64>,
    /// The level of the discrete noise: 2 for a standard deviation of 2^21 grid steps, 3 for 2^31.
    #[arg(long, value_name = "L", default_value_t = 2, requires = "dimension",
          value_parser = clap::value_parser!(u8).range(2..=3))]
    level: u8,
}

/// Parses the name of an adjacency.
pub(super) fn parse_adjacency(text: &str) -> Result<Adjacency, String> {
    match text {
        "add-remove" | "add-or-remove-one" => Ok(Adjacency::AddOrRemoveOne),
        "replace-one" => Ok(Adjacency::ReplaceOne),
        "replace-special" => Ok(Adjacency::ReplaceSpecial),
        _ => Err("expected add-remove, replace-special or replace-one".to_owned()),
    }
}

impl PlanOptions {
    /// How clients are drawn.
    pub(super) fn sampling(&self) -> Result<ClientSampling, Failure> {
        let named = self.sampling.or(self.sampling_rate.map(|_| SamplingName::Poisson));
        let rate = || self.sampling_rate.ok_or_else(|| missing("--sampling-rate"));
        match named.unwrap_or(SamplingName::None) {
            SamplingName::None => Ok(ClientSampling::All),
            SamplingName::Poisson => Ok(ClientSampling::Poisson(rate()?)),
            SamplingName::WithoutReplacement => {
                let of = self.population.ok_or_else(|| missing("--population"))?;
                // Rounds up, since more clients never cost less.
                let sample = ((rate()? * of as f64).ceil() as u64).min(of);
                Ok(ClientSampling::Fixed { sample, of })
            }
        }
    }

    /// The neighbouring data sets.
    pub(super) fn adjacency(&self) -> Result<Adjacency, Failure> {
        let usual = self.sampling()?.adjacency();
        Ok(self.adjacency.unwrap_or(usual))
    }

    /// The integer noise; `None` for continuous noise.
    pub(super) fn noise(&self) -> Option<IntegerNoise> {
        let level = if self.level == 2 { Level::L2 } else { Level::L3 };
        self.dimension.map(|coordinates| IntegerNoise { coordinates, variance: level.variance() as f64 })
    }

    /// The assumptions that the results hold under, as sentences.
    pub(super) fn assumptions(&self) -> Result<Vec<String>, Failure> {
        let drawn = match self.sampling()? {
            ClientSampling::All => "Sampling: none; the result holds for any choice of clients.",
            ClientSampling::Poisson(_) => {
                "Sampling: each client is drawn independently in every round; a fixed number is another case."
            }
            ClientSampling::Fixed { .. } => {
                "Sampling: a fixed number of clients in every round, all sets equally likely."
            }
        };
        self.assumptions_of(drawn)
    }

    /// The assumptions for events, which say how clients were drawn.
    pub(super) fn assumptions_of_events(&self) -> Result<Vec<String>, Failure> {
        self.assumptions_of("Sampling: as in the events.")
    }

    fn assumptions_of(&self, drawn: &str) -> Result<Vec<String>, Failure> {
        let neighbours = match self.adjacency()? {
            Adjacency::AddOrRemoveOne => "Neighbours: with and without one client.",
            Adjacency::ReplaceOne => {
                "Neighbours: one client sends another update; the sum moves by up to twice the clip bound."
            }
            Adjacency::ReplaceSpecial => "Neighbours: one client sends zeros.",
        };
        let noise = match self.dimension {
            Some(_) => "Noise: discrete; add the slack to the epsilons of continuous noise.",
            None => "Noise: continuous; --dimension adds the cost of discrete noise.",
        };
        let plan = "epsilon_pld: the plan is fixed before the first release, and does not change.";
        Ok([neighbours, drawn, noise, plan].map(str::to_owned).to_vec())
    }
}

fn missing(flag: &str) -> Failure {
    anyhow::anyhow!("{flag} is missing: this --sampling needs it").into()
}
