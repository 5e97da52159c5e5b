//! What is written down of a budget: one record a line, each of a kind of its own.
//!
//! Records hold events, not epsilons: what was done can be composed again by any accountant, now or later. The epsilons
//! beside them are what was told at the time, rounded up. Kinds and fields that are not known are refused: a charge that
//! is not understood might be one that is not counted.

use crate::kernels::discrete_gaussian::Level;
use crate::privacy::event::{Adjacency, Event};
use crate::privacy::ledger::plan::{BudgetPlan, Unit};
use crate::record::{self, sha256::Sha256};
use serde::{Deserialize, Serialize};

/// The digits of epsilons are cut behind so many.
const MICRO: f64 = 1e6;

/// A line of a ledger.
pub type Record = record::Record<Entry>;

/// What happened.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// The ledger was started.
    Init(Box<Init>),
    /// A part of the budget was set aside for a charge to come.
    Reserve(Reserve),
    /// Noise is about to be drawn, or something was spent elsewhere.
    Charge(Box<Charge>),
    /// What a charge was for was published.
    Release(Release),
    /// Somebody swears that nothing of a charge was seen.
    Void(Void),
    /// Something worth knowing.
    Note(Note),
    /// What a charge was for was published before a run could say so; found later.
    Adopt(Adopt),
    /// The key of all rounds to come was drawn, and kept.
    Key(RunKey),
}

/// The ledger was started.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Tells ledgers of the same plan apart: 32 random digits.
    pub ledger_id: String,
    /// What was fixed.
    pub plan: BudgetPlan,
    /// Its digest.
    pub plan_sha256: Sha256,
}

/// A part of the budget was set aside.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// What may be done with it.
    pub event: Event,
    /// What for.
    pub text: String,
}

/// Noise is about to be drawn, or something was spent elsewhere.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// Names what is released; not told twice.
    pub release_id: String,
    /// The round that it is of.
    pub round: Option<u64>,
    /// What it costs.
    pub event: Event,
    /// Which data sets count as neighbours.
    pub adjacency: Adjacency,
    /// Whose data the guarantee is about.
    pub unit: Unit,
    /// The mechanism, if fedmill runs it; none for what was spent elsewhere.
    pub mechanism: Option<Mechanism>,
    /// The delta that epsilons are told at.
    pub delta_target: f64,
    /// The plan that was frozen.
    pub plan_sha256: Sha256,
    /// The reserve that it takes, by number.
    pub reserve: Option<u64>,
    /// What is spent with it, by RDP.
    pub eps_rdp: Epsilon,
    /// What is spent with it, by PLD, if that counts.
    pub eps_pld: Option<Epsilon>,
    /// What of that comes from noise on a grid.
    pub slack: Option<Epsilon>,
    /// Where the randomness comes from.
    pub rng: Rng,
    /// What it was for, as a user says.
    pub text: Option<String>,
}

/// How a release is made.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Mechanism {
    /// Noise multiplier.
    pub z: f64,
    /// Sampling rate.
    pub q: f64,
    /// Clip bound.
    #[serde(rename = "S")]
    pub clip: f64,
    /// Denominator.
    pub n_pub: u64,
    /// Coordinates.
    pub d: u64,
    /// How fine the noise is.
    pub level: Level,
    /// Of all that the sum depends on.
    pub inputs_sha256: Sha256,
    /// Where it is to be published.
    pub output: String,
    /// Whether its key is kept until it is.
    pub resumable: bool,
    /// Of the list of clients that count, where that depends on who came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients_sha256: Option<Sha256>,
}

/// Where randomness comes from.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Rng {
    /// The operating system.
    Os,
    /// A number that somebody chose: a test, NOT private.
    TestSeed,
    /// Not ours: spent elsewhere.
    External,
}

/// What a charge was for was published.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The charge, by number.
    pub charge: u64,
    /// What the charge calls it.
    pub release_id: String,
    /// Of its files, one behind the other.
    pub output_sha256: Sha256,
    /// The clip bound of the next round, if it follows the norms.
    pub next_clip: Option<f64>,
}

/// What a charge was for was published before a run could say so.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// What would have been said.
    pub release: Release,
    /// Where it was found.
    pub output: String,
}

/// The key that the noise of all rounds of a run comes from was drawn, and kept.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct RunKey {
    /// Of the key; from it nobody finds the key.
    pub key_sha256: Sha256,
}

/// Somebody swears that nothing of a charge was seen.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Void {
    /// The charge or reserve, by number.
    pub charge: u64,
    /// In which words.
    pub attest: String,
}

/// Something worth knowing.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// What.
    pub text: String,
}

/// An epsilon as it is told: rounded up to six decimals.
#[derive(Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, Debug)]
#[serde(try_from = "f64", into = "f64")]
pub struct Epsilon(f64);

impl Epsilon {
    /// Rounds up; none for what no budget holds: NaN, infinity, numbers below zero.
    pub fn up(epsilon: f64) -> Option<Self> {
        let micros = (epsilon * MICRO).ceil();
        // Dividing may round down.
        let candidates = [micros / MICRO, (micros + 1.0) / MICRO];
        let up = candidates.into_iter().find(|up| *up >= epsilon)?;
        (up.is_finite() && epsilon >= 0.0).then_some(Self(up))
    }

    /// As a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Epsilon {
    type Error = String;

    fn try_from(epsilon: f64) -> Result<Self, String> {
        let fine = epsilon.is_finite() && epsilon >= 0.0;
        fine.then_some(Self(epsilon)).ok_or_else(|| format!("found epsilon {epsilon}, expected none below 0"))
    }
}

impl From<Epsilon> for f64 {
    fn from(epsilon: Epsilon) -> Self {
        epsilon.0
    }
}

impl record::Entry for Entry {
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
