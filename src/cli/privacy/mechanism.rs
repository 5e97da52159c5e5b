//! The options that choose the noise of rounds.

use crate::cli::Failure;
use crate::privacy::correlated::error::{PrefixError, best_bands};
use crate::privacy::correlated::factor::Factor;
use crate::privacy::correlated::{MOST_ROUNDS, Schedule};
use crate::privacy::ledger::plan::Correlated;
use clap::Args;

/// The noise of rounds, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MechanismName {
    /// Independent noise in each round.
    Gaussian,
    /// Noise that is correlated across rounds, by this matrix, or by the best one for `None`.
    DpFtrl(Option<Factor>),
}

fn parse(text: &str) -> Result<MechanismName, String> {
    match (text, text.strip_prefix("dp-ftrl:")) {
        ("gaussian", _) => Ok(MechanismName::Gaussian),
        ("dp-ftrl", _) => Ok(MechanismName::DpFtrl(None)),
        (_, Some(factor)) => factor.parse().map(|factor| MechanismName::DpFtrl(Some(factor))),
        _ => Err("expected gaussian, dp-ftrl, dp-ftrl:tree or dp-ftrl:bands=N".to_owned()),
    }
}

/// The options that choose the noise of rounds.
#[derive(Args, Debug)]
pub(super) struct MechanismOptions {
    /// The noise of rounds: gaussian, dp-ftrl, dp-ftrl:bands=N or dp-ftrl:tree.
    ///
    /// gaussian is independent noise in each round. dp-ftrl is correlated across all rounds. One charge pays for them,
    /// and the guarantee does not depend on which clients are drawn. dp-ftrl alone chooses the number of bands with the
    /// least noise.
    #[arg(long, value_name = "WHICH", default_value = "gaussian", value_parser = parse)]
    mechanism: MechanismName,
    /// With dp-ftrl, the largest number of rounds in which one client takes part [default: 1, or the most that
    /// --min-separation allows].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    participations: Option<u64>,
    /// With dp-ftrl, the least difference between the numbers of two rounds of one client [default: 1].
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..))]
    min_separation: Option<u64>,
}

impl MechanismOptions {
    /// How noise is correlated over `rounds` rounds; `None` for independent noise.
    pub(super) fn correlated(&self, rounds: Option<u64>) -> Result<Option<Correlated>, Failure> {
        let wrong = |why: &str| Err(anyhow::anyhow!("{why}").into());
        let MechanismName::DpFtrl(factor) = self.mechanism else {
            let given = self.participations.or(self.min_separation);
            let why =
                "found --participations or --min-separation, expected them only with --mechanism dp-ftrl";
            return if given.is_none() { Ok(None) } else { wrong(why) };
        };
        let Some(rounds) = rounds.filter(|rounds| (1..=MOST_ROUNDS).contains(rounds)) else {
            return wrong(
                "--mechanism dp-ftrl: expected --rounds from 1 to 1048576, because one charge pays for all rounds",
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

/// The noise of sums over rounds relative to independent noise, as text.
pub(super) fn gain_text(correlated: &Correlated, rounds: u64) -> String {
    let schedule = correlated.schedule(rounds);
    let error = PrefixError::of(correlated.factor, &schedule).root_mean_square;
    let independent = PrefixError::of(Factor::Banded { bands: 1 }, &schedule).root_mean_square;
    format!(
        "{correlated}; sums over rounds have {:.3} times the noise of independent rounds",
        error / independent
    )
}
