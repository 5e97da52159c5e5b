//! The records of a ledger: one per line, in kinds.
//!
//! Records hold events, so that any accountant can compose them again, now or later. The epsilons beside the events are
//! those computed at the time, rounded up. Readers refuse unknown kinds and fields: a charge that is not understood
//! might not be counted.

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::accountants::bridge::IntegerNoise;
use crate::privacy::event::{Adjacency, Event};
use crate::privacy::ledger::plan::{BudgetPlan, Contradiction, Unit};
use crate::record::{self, sha256::Sha256};
use serde::{Deserialize, Serialize};

/// Epsilons are multiples of one over this.
const MICRO: f64 = 1e6;

/// A line of a ledger.
pub type LedgerRecord = record::Record<LedgerEntry>;

/// The content of a record.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LedgerEntry {
    /// The ledger was started.
    Init(Box<Init>),
    /// A part of the budget was reserved for a later charge.
    Reserve(Reserve),
    /// Noise is about to be drawn, or a release is made without fedmill.
    Charge(Box<Charge>),
    /// The output of a charge was published.
    Release(Release),
    /// The operator attests that the output of a charge was never seen.
    Void(Void),
    /// A remark.
    Note(Note),
    /// The output of a charge was found, published without a record.
    Adopt(Adopt),
    /// The key of a series was drawn, and kept.
    Key(SeriesKey),
}

/// The start of a ledger.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// 32 random digits, which tell ledgers with the same plan apart.
    pub ledger_id: String,
    /// The frozen plan.
    pub plan: BudgetPlan,
    /// The digest of the plan.
    pub plan_sha256: Sha256,
}

/// A part of the budget that is reserved for a later charge.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The cost it is reserved for.
    pub event: Event,
    /// The user's description.
    pub text: String,
}

/// A charge: noise is about to be drawn, or a release is made without fedmill.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// The name of the release; unique in the ledger.
    pub release_id: String,
    /// The number of the round.
    pub round: Option<u64>,
    /// The cost.
    pub event: Event,
    /// The neighbouring data sets.
    pub adjacency: Adjacency,
    /// The unit that the guarantee protects.
    pub unit: Unit,
    /// The settings of the release, if fedmill makes it; `None` otherwise.
    pub mechanism: Option<Mechanism>,
    /// The delta of the epsilons.
    pub delta_target: f64,
    /// The digest of the frozen plan.
    pub plan_sha256: Sha256,
    /// Number of the reserve that it uses.
    pub reserve: Option<u64>,
    /// Epsilon spent by RDP, this charge included.
    pub eps_rdp: Epsilon,
    /// Epsilon spent by PLD, this charge included; `None` if PLD does not count.
    pub eps_pld: Option<Epsilon>,
    /// The part of the epsilons that comes from noise on a grid.
    pub slack: Option<Epsilon>,
    /// The source of the randomness.
    pub rng: Rng,
    /// The user's description.
    pub text: Option<String>,
    /// The number of clients, if it contradicts the plan's sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<Contradiction>,
    /// The secure sum that it pays for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<SecureSum>,
}

/// Who draws the noise of a secure sum.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseFrom {
    /// Each client adds a share before it masks its update: the server sees no sum without noise.
    Distributed,
    /// The server, on the sum that it sees.
    Central,
}

/// A sum of updates that the server does not see one by one.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SecureSum {
    /// Who draws the noise.
    pub noise: NoiseFrom,
    /// The digest that names the session.
    pub session: Sha256,
    /// Clients in the sum, n.
    pub clients: u64,
    /// Draws of noise in the sum that are counted on, m: the fewest clients of a sum, less those that may collude; 1 with
    /// central noise.
    pub draws: u64,
    /// Clients that may tell the server their noise.
    pub colluders: u64,
    /// Clip bound: the largest norm of an update.
    #[serde(rename = "S")]
    pub clip: f64,
    /// The largest norm of an update on the grid.
    pub norm_bound: u64,
    /// Width of one draw, in units of the grid.
    pub level: Level,
    /// Coordinates of an update.
    pub d: u64,
}

impl SecureSum {
    /// The noise of the sum that is counted on.
    pub fn integer_noise(&self) -> IntegerNoise {
        IntegerNoise::of_draws(self.level, self.draws, self.d)
    }
}

impl std::fmt::Display for NoiseFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Distributed => "distributed",
            Self::Central => "central",
        })
    }
}

/// The settings of a release that fedmill makes.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Mechanism {
    /// Noise multiplier: standard deviation of the noise, divided by the clip bound.
    pub z: f64,
    /// Sampling rate: the share of clients in a round.
    pub q: f64,
    /// Clip bound: the largest norm of an update.
    #[serde(rename = "S")]
    pub clip: f64,
    /// Divisor of the noised sum.
    pub n_pub: u64,
    /// Coordinates of an update.
    pub d: u64,
    /// Width of the noise, in units of the grid.
    pub level: Level,
    /// Digest of all that the sum depends on.
    pub inputs_sha256: Sha256,
    /// The path to publish the output at.
    pub output: String,
    /// Whether the key is kept until the output is published. False in records of older versions, and in a series.
    pub resumable: bool,
    /// Digest of the list of clients that count, in a series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients_sha256: Option<Sha256>,
}

/// The source of randomness.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Rng {
    /// The operating system.
    Os,
    /// A test seed: NOT private.
    TestSeed,
    /// Unknown: fedmill does not make the release.
    External,
}

/// The release of a charge's output.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Number of the charge.
    pub charge: u64,
    /// The name of the release.
    pub release_id: String,
    /// Digest over the bytes of all files of the output, in order.
    pub output_sha256: Sha256,
    /// The clip bound of the next round, if it follows the norms.
    pub next_clip: Option<f64>,
}

/// The release of a charge's output that was found, published without a record.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// The release.
    pub release: Release,
    /// The path the output was found at.
    pub output: String,
}

/// The key that the noise of every round of a series comes from.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SeriesKey {
    /// SHA-256 of the key; does not reveal it.
    pub key_sha256: Sha256,
    /// What the draws of a round come from. Ledgers of older versions do not say it.
    #[serde(default, skip_serializing_if = "DrawsFrom::is_round")]
    pub draws: DrawsFrom,
}

/// What the draws of a round of a series come from, besides the key.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum DrawsFrom {
    /// The number of the round. The same round on other inputs had the same draws.
    #[default]
    Round,
    /// The inputs of the round and of all rounds before it.
    Inputs,
}

impl DrawsFrom {
    fn is_round(&self) -> bool {
        *self == Self::Round
    }
}

/// The end of a charge or a reserve whose output was never seen.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Void {
    /// Number of the charge or the reserve.
    pub charge: u64,
    /// The operator's statement.
    pub attest: String,
}

/// A remark.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The remark.
    pub text: String,
}

/// The epsilons that a charge records.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ChargeEpsilons {
    /// Epsilon spent by RDP, the charge included.
    pub rdp: Epsilon,
    /// Epsilon spent by PLD, the charge included; `None` if PLD does not count.
    pub pld: Option<Epsilon>,
    /// The part of both that comes from noise on a grid.
    pub slack: Option<Epsilon>,
}

/// An epsilon, rounded up to six decimals.
#[derive(Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct Epsilon(f64);

impl Epsilon {
    /// Rounds up; `None` for NaN, infinity and numbers below zero, which no budget holds.
    pub fn up(epsilon: f64) -> Option<Self> {
        let micros = (epsilon * MICRO).ceil();
        // The division may round down.
        let candidates = [micros / MICRO, (micros + 1.0) / MICRO];
        let up = candidates.into_iter().find(|up| *up >= epsilon)?;
        (up.is_finite() && epsilon >= 0.0).then_some(Self(up))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Epsilon {
    type Error = String;

    fn try_from(epsilon: f64) -> Result<Self, String> {
        let fine = epsilon.is_finite() && epsilon >= 0.0;
        fine.then_some(Self(epsilon))
            .ok_or_else(|| format!("found epsilon {epsilon}, expected a finite number that is not negative"))
    }
}

impl From<Epsilon> for f64 {
    fn from(epsilon: Epsilon) -> Self {
        epsilon.0
    }
}

impl record::Entry for LedgerEntry {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Init(init) => init.check(),
            Self::Charge(charge) => charge.check(),
            Self::Release(release) | Self::Adopt(Adopt { release, .. }) => {
                release.next_clip.map_or(Ok(()), |clip| positive("next_clip", clip))
            }
            Self::Void(Void { attest, .. }) if attest.trim().is_empty() => {
                Err("attest: found nothing, expected words".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Init {
    fn check(&self) -> Result<(), String> {
        let found = self.plan.sha256();
        if found != self.plan_sha256 {
            return Err(format!(
                "plan_sha256: found {}, expected that of the plan, {found}",
                self.plan_sha256
            ));
        }
        self.plan.check().map_err(|why| format!("plan: {why}"))
    }
}

impl Charge {
    fn check(&self) -> Result<(), String> {
        if !(self.delta_target > 0.0 && self.delta_target < 1.0) {
            return Err(format!("delta_target: found {}, expected one between 0 and 1", self.delta_target));
        }
        let Some(mechanism) = &self.mechanism else {
            let fine = self.rng == Rng::External;
            return if fine { Ok(()) } else { Err("mechanism: found none, expected one".to_owned()) };
        };
        let Mechanism { z, q, clip, n_pub, d, .. } = mechanism;
        let numbers = [("z", *z), ("q", *q), ("S", *clip), ("n_pub", *n_pub as f64), ("d", *d as f64)];
        numbers.into_iter().try_for_each(|(what, found)| positive(what, found))
    }
}

fn positive(what: &str, found: f64) -> Result<(), String> {
    let fine = found.is_finite() && found > 0.0;
    if fine { Ok(()) } else { Err(format!("{what}: found {found}, expected a finite number above 0")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilons_are_rounded_up() {
        for (epsilon, up) in [(0.0, 0.0), (1e-9, 1e-6), (0.1, 0.1), (1.000_000_1, 1.000_001), (3.0, 3.0)] {
            assert_eq!(Epsilon::up(epsilon).unwrap().get(), up, "{epsilon}");
        }
        for k in 0..2000 {
            let epsilon = f64::from(k) * 0.001_234_567_891;
            let up = Epsilon::up(epsilon).unwrap().get();
            assert!((epsilon..epsilon + 1.000_001e-6).contains(&up), "{epsilon} to {up}");
        }
    }

    #[test]
    fn what_no_budget_holds_is_no_epsilon() {
        for epsilon in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-300, f64::MAX] {
            assert_eq!(Epsilon::up(epsilon), None, "{epsilon}");
        }
    }
}
