//! Which noise rounds have, as users name it.

use crate::cli::Failure;
use crate::privacy::correlated::error::{Error, best_bands};
use crate::privacy::correlated::{Factor, MOST_ROUNDS, Schedule};
use crate::privacy::ledger::plan::Correlated;
use clap::Args;

/// Noise for each round, or for a whole run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    /// New noise each round.
    Gaussian,
    /// Noise that is correlated across rounds, by this matrix or the best one.
    DpFtrl(Option<Factor>),
}

fn parse(text: &str) -> Result<Name, String> {
    match (text, text.strip_prefix("dp-ftrl:")) {
        ("gaussian", _) => Ok(Name::Gaussian),
        ("dp-ftrl", _) => Ok(Name::DpFtrl(None)),
        (_, Some(factor)) => factor.parse().map(|factor| Name::DpFtrl(Some(factor))),
        _ => Err("expected gaussian, dp-ftrl, dp-ftrl:tree or dp-ftrl:bands=N".to_owned()),
    }
}

/// Which noise rounds have.
#[derive(Args, Debug)]
pub(super) struct Mechanism {
    /// Noise of its own for each round, `gaussian`; or `dp-ftrl`, noise that is correlated across all rounds, paid for once,
    /// with nothing assumed of who is drawn: `dp-ftrl:bands=N`, or `dp-ftrl:tree` [default: with dp-ftrl, the bands that
    /// leave the least noise].
    #[arg(long, value_name = "WHICH", default_value = "gaussian", value_parser = parse)]
    mechanism: Name,
    /// With dp-ftrl, rounds that a client counts in at most [default: 1, or as many as --min-separation leaves room for].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    participations: Option<u64>,
    /// With dp-ftrl, rounds from one that a client counts in to the next, at least [default: 1].
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..))]
    min_separation: Option<u64>,
}

impl Mechanism {
    /// How noise is correlated over so many rounds; none if it is not.
    pub(super) fn correlated(&self, rounds: Option<u64>) -> Result<Option<Correlated>, Failure> {
        let wrong = |why: &str| Err(anyhow::anyhow!("{why}").into());
        let Name::DpFtrl(factor) = self.mechanism else {
            let given = self.participations.or(self.min_separation);
            let why =
                "found --participations or --min-separation, expected them with --mechanism dp-ftrl alone";
            return if given.is_none() { Ok(None) } else { wrong(why) };
        };
        let Some(rounds) = rounds.filter(|rounds| (1..=MOST_ROUNDS).contains(rounds)) else {
            return wrong(
                "--mechanism dp-ftrl: expected --rounds from 1 to 1048576, which all pay for together",
            );
        };
        let separation = self.min_separation.unwrap_or(1);
        let room = self.min_separation.map_or(1, |separation| rounds.div_ceil(separation));
        let participations = self.participations.unwrap_or(room);
        let schedule = Schedule { rounds, participations, separation };
        let factor = factor.unwrap_or_else(|| Factor::Banded { bands: best_bands(&schedule) });
        Ok(Some(Correlated { factor, participations, separation }))
    }
}

/// What correlated noise comes to, for whoever chooses it.
pub(super) fn told(correlated: &Correlated, rounds: u64) -> String {
    let schedule = correlated.schedule(rounds);
    let found = Error::of(correlated.factor, &schedule).root_mean_square;
    let alone = Error::of(Factor::Banded { bands: 1 }, &schedule).root_mean_square;
    format!(
        "{correlated}; sums over rounds have {:.3} of the noise that independent rounds would have",
        found / alone
    )
}
