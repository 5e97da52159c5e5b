//! How clients are drawn and who is a neighbour, as users name it.

use super::parse_adjacency;
use crate::cli::Failure;
use crate::kernels::discrete_gaussian::Level;
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::calibrate::Sampling;
use crate::privacy::event::Adjacency;
use clap::{Args, ValueEnum};

/// How clients of a round are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum SamplingName {
    /// Each by itself, with the probability of --sampling-rate.
    Poisson,
    /// So many of --population clients, at --sampling-rate; for adjacency replace-one.
    WithoutReplacement,
    /// All of them, or those that the server likes: nothing is gained.
    None,
}

/// What a plan is besides its noise and rounds.
#[derive(Args, Debug)]
pub(super) struct Plan {
    /// How clients of a round are drawn [default: poisson if there is a --sampling-rate, else none].
    #[arg(long, value_name = "HOW")]
    sampling: Option<SamplingName>,
    /// How likely a client is drawn in a round, or the share of clients that is.
    #[arg(long, value_name = "Q", value_parser = probability)]
    sampling_rate: Option<f64>,
    /// Clients there are; for sampling without replacement.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    population: Option<u64>,
    /// Which data sets count as neighbours: add-remove, replace-special, replace-one [default: add-remove; replace-one
    /// without replacement].
    #[arg(long, value_name = "WHICH", value_parser = parse_adjacency)]
    adjacency: Option<Adjacency>,
    /// Coordinates of the model: what discrete noise costs beyond continuous noise is counted.
    #[arg(long, value_name = "D")]
    dimension: Option<u64>,
    /// The level of the discrete noise: 2, of standard deviation 2^21 on its grid, or 3, of 2^31.
    #[arg(long, value_name = "L", default_value_t = 2, requires = "dimension",
          value_parser = clap::value_parser!(u8).range(2..=3))]
    level: u8,
}

fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    number.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// A number above zero.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

/// A number that is not negative.
pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number >= 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number that is not negative".to_owned())
}

/// A number between zero and one.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|delta: &f64| *delta > 0.0 && *delta < 1.0);
    number.ok_or_else(|| "expected a number above 0 and below 1".to_owned())
}

impl Plan {
    /// How clients are drawn.
    pub(super) fn sampling(&self) -> Result<Sampling, Failure> {
        let named = self.sampling.or(self.sampling_rate.map(|_| SamplingName::Poisson));
        let rate = || self.sampling_rate.ok_or_else(|| missing("--sampling-rate"));
        match named.unwrap_or(SamplingName::None) {
            SamplingName::None => Ok(Sampling::All),
            SamplingName::Poisson => Ok(Sampling::Poisson(rate()?)),
            SamplingName::WithoutReplacement => {
                let of = self.population.ok_or_else(|| missing("--population"))?;
                // Up: more clients drawn are never less cost.
                let sample = ((rate()? * of as f64).ceil() as u64).min(of);
                Ok(Sampling::Fixed { sample, of })
            }
        }
    }

    /// Which data sets are neighbours.
    pub(super) fn adjacency(&self) -> Result<Adjacency, Failure> {
        let usual = self.sampling()?.adjacency();
        Ok(self.adjacency.unwrap_or(usual))
    }

    /// The noise's grid, if its cost is to be counted.
    pub(super) fn noise(&self) -> Option<IntegerNoise> {
        let level = if self.level == 2 { Level::L2 } else { Level::L3 };
        self.dimension.map(|coordinates| IntegerNoise { coordinates, variance: level.variance() as f64 })
    }

    /// What numbers hold under, in sentences.
    pub(super) fn assumptions(&self) -> Result<Vec<String>, Failure> {
        let drawn = match self.sampling()? {
            Sampling::All => "Sampling: none; any choice of clients is covered.",
            Sampling::Poisson(_) => {
                "Sampling: each client is drawn by itself, anew each round; a fixed number is not."
            }
            Sampling::Fixed { .. } => {
                "Sampling: a fixed number of clients, all sets equally likely, anew each round."
            }
        };
        self.assumptions_of(drawn)
    }

    /// The same of events, which say themselves how clients were drawn.
    pub(super) fn assumptions_of_events(&self) -> Result<Vec<String>, Failure> {
        self.assumptions_of("Sampling: as the events have it.")
    }

    fn assumptions_of(&self, drawn: &str) -> Result<Vec<String>, Failure> {
        let neighbours = match self.adjacency()? {
            Adjacency::AddOrRemoveOne => "Neighbours: one client is there or not.",
            Adjacency::ReplaceOne => {
                "Neighbours: one client sends something else; the sum moves by up to twice the clip bound."
            }
            Adjacency::ReplaceSpecial => "Neighbours: one client sends nothing in its place.",
        };
        let noise = match self.dimension {
            Some(_) => "Noise: discrete; slack is to be added to the epsilons of continuous noise.",
            None => "Noise: continuous; --dimension counts what discrete noise adds.",
        };
        let plan = "epsilon_pld: the plan is fixed before the first release, and kept to.";
        Ok([neighbours, drawn, noise, plan].map(str::to_owned).to_vec())
    }
}

fn missing(flag: &str) -> Failure {
    anyhow::anyhow!("{flag}: found none, expected one with this --sampling").into()
}
