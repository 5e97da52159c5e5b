//! Tiers of clients by their devices, and the file of tiers for `aggregate --tiers`.
//!
//! - Score: compute * c + memory * m + bandwidth * b, each scaled to [0, 1] over the registry, divided by the sum of the
//!   weights. What a client does not state is left out of its score and its divisor. Without any of it, the score is 0.
//! - Tiers: `high` above the upper threshold, `medium` above the lower one, else `low`.

use crate::fleet::error::FleetError;
use crate::fleet::registry::Registry;
use crate::io::collision;
use glob::Pattern;
use serde::Serialize;
use std::path::Path;

/// The tiers, from the strongest devices down.
pub const TIERS: [&str; 3] = ["high", "medium", "low"];

/// The schema of a file of tiers, as `aggregate --tiers` reads it.
const SCHEMA: &str = "fedmill.tiers/1";

/// How clients are sorted into tiers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scale {
    /// The weights of compute capability, memory and bandwidth. Their sum is above zero.
    pub weights: [f64; 3],
    /// The lower and the upper threshold, from 0 to 1.
    pub thresholds: [f64; 2],
    /// Whether the thresholds are quantiles of the scores, else scores.
    pub by_quantile: bool,
}

impl Default for Scale {
    fn default() -> Self {
        Self { weights: [0.4, 0.3, 0.3], thresholds: [0.3, 0.7], by_quantile: false }
    }
}

impl Scale {
    /// Checks that weights and thresholds make a score.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub fn check(&self) -> Result<(), FleetError> {
        let Self { weights, thresholds: [low, high], .. } = self;
        let is_weight = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        if !(weights.iter().all(is_weight) && weights.iter().sum::<f64>() > 0.0) {
            let why = format!("the weights are {weights:?}, expected numbers from 0 on, one above 0");
            return Err(FleetError::Scale(why));
        }
        if !(0.0 <= *low && low <= high && *high <= 1.0) {
            let why = format!("LOW is {low} and HIGH {high}, expected 0 <= LOW <= HIGH <= 1");
            return Err(FleetError::Scale(why));
        }
        Ok(())
    }
}

/// What the file says of a tier beside its clients.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct TierPlan {
    /// The rule, as `aggregate --rule` takes it; `None` for that of the round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Local steps of its clients; `None` for those of the round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_steps: Option<u64>,
    /// The codec of its updates, as `compress --codec` takes it; `None` for that of the round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// The bytes that one of its clients may send in a round; `None` for its share of the round's budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_bytes: Option<u64>,
}

/// Clients by tier.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Assignment {
    /// The ids of the clients of each of [`TIERS`], in order.
    pub members: [Vec<String>; 3],
    /// Clients that state neither memory nor bandwidth.
    pub without_devices: usize,
}

/// The numbers of a client that its score depends on; NaN for what it does not state.
type Devices = [f64; 3];

/// Sorts the clients that are not retired into tiers. Writes nothing.
///
/// # Errors
///
/// When the registry cannot be read.
pub fn assign(registry: &Registry, scale: &Scale) -> Result<Assignment, FleetError> {
    let (ids, devices) = read(registry)?;
    let scores = scores(&devices, scale.weights);
    let [lower, upper] = match scale.by_quantile {
        true => quantiles(&scores, scale.thresholds),
        false => scale.thresholds,
    };
    let mut assigned = Assignment {
        without_devices: devices
            .iter()
            .filter(|[_, memory, bandwidth]| memory.is_nan() && bandwidth.is_nan())
            .count(),
        ..Assignment::default()
    };
    for (id, score) in ids.into_iter().zip(scores) {
        let tier = usize::from(score <= upper) + usize::from(score <= lower);
        assigned.members[tier].push(id);
    }
    Ok(assigned)
}

fn read(registry: &Registry) -> Result<(Vec<String>, Vec<Devices>), FleetError> {
    let sql_error = || FleetError::sql(registry.path());
    let sql =
        "SELECT id, compute_capability, memory, bandwidth FROM clients WHERE retired_at IS NULL ORDER BY id";
    let mut query = registry.connection().prepare(sql).map_err(sql_error())?;
    let rows = query.query_map([], |row| {
        let number = |column| row.get::<_, Option<f64>>(column).map(|number| number.unwrap_or(f64::NAN));
        Ok((row.get::<_, String>(0)?, [number(1)?, number(2)?, number(3)?]))
    });
    let (mut ids, mut devices) = (Vec::new(), Vec::new());
    for row in rows.map_err(sql_error())? {
        let (id, numbers) = row.map_err(sql_error())?;
        ids.push(id);
        devices.push(numbers);
    }
    Ok((ids, devices))
}

/// The score of each client, from 0 to 1.
fn scores(devices: &[Devices], weights: [f64; 3]) -> Vec<f64> {
    let least = |part: usize| devices.iter().map(|numbers| numbers[part]).fold(f64::INFINITY, f64::min);
    let most = |part: usize| devices.iter().map(|numbers| numbers[part]).fold(f64::NEG_INFINITY, f64::max);
    let ranges = [0, 1, 2].map(|part| (least(part), most(part)));
    let score = |numbers: &Devices| {
        let (mut sum, mut divisor) = (0.0, 0.0);
        for part in (0..3).filter(|part| !numbers[*part].is_nan()) {
            let (least, most) = ranges[part];
            sum += weights[part] * if most > least { (numbers[part] - least) / (most - least) } else { 1.0 };
            divisor += weights[part];
        }
        if divisor > 0.0 { sum / divisor } else { 0.0 }
    };
    devices.iter().map(score).collect()
}

/// The scores below which these parts of all scores lie.
fn quantiles(scores: &[f64], parts: [f64; 2]) -> [f64; 2] {
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    parts.map(|part| {
        let below = (part * sorted.len() as f64).round() as usize;
        below.checked_sub(1).and_then(|last| sorted.get(last)).copied().unwrap_or(f64::NEG_INFINITY)
    })
}

impl Assignment {
    /// Writes the tiers into the registry. Returns how many clients changed.
    ///
    /// # Errors
    ///
    /// When the registry cannot be changed.
    pub fn record(&self, registry: &mut Registry) -> Result<u64, FleetError> {
        let tiers = self.members.iter().zip(TIERS);
        registry.set_tiers(tiers.flat_map(|(ids, tier)| ids.iter().map(move |id| (id.as_str(), tier))))
    }

    /// Writes the file of tiers, whole or not at all. A tier without clients is left out, and the last tier takes
    /// clients that no other has.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &Path, plans: &[TierPlan; 3]) -> Result<(), FleetError> {
        let tier = |place: usize| TierJson {
            name: TIERS[place],
            clients: match place == TIERS.len() - 1 {
                true => vec!["*".to_owned()],
                false => self.members[place].iter().map(|id| Pattern::escape(id)).collect(),
            },
            optional: true,
            plan: &plans[place],
        };
        let file = FileJson {
            schema: SCHEMA,
            tiers: (0..TIERS.len()).map(tier).filter(|tier| !tier.clients.is_empty()).collect(),
        };
        let text = serde_json::to_string_pretty(&file).map_err(std::io::Error::from);
        let text = text.map_err(FleetError::io(path))? + "\n";
        collision::check_target(path)?;
        collision::check_earlier(path, &text[..text.find(SCHEMA).unwrap_or(0)], "earlier tiers")?;
        Ok(collision::write_output(path, text.as_bytes())?)
    }
}

#[derive(Serialize)]
struct FileJson<'t> {
    schema: &'static str,
    tiers: Vec<TierJson<'t>>,
}

#[derive(Serialize)]
struct TierJson<'t> {
    name: &'static str,
    clients: Vec<String>,
    #[serde(flatten)]
    plan: &'t TierPlan,
    optional: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f64 = f64::NAN;

    #[test]
    fn a_score_is_a_weighted_sum_of_what_is_stated() {
        let devices = [[0.0, 10.0, 5.0], [10.0, 20.0, NONE], [5.0, NONE, NONE]];
        let found = scores(&devices, [0.4, 0.3, 0.3]);
        // All stated bandwidths are equal.
        let exact = [0.3, (0.4 + 0.3) / 0.7, 0.5];
        assert!(found.iter().zip(exact).all(|(found, exact)| (found - exact).abs() < 1e-15), "{found:?}");
        assert_eq!(scores(&[[1.0, NONE, NONE]], [0.0, 1.0, 1.0]), [0.0]);
    }

    #[test]
    fn quantiles_leave_their_part_below() {
        let scores: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(quantiles(&scores, [0.3, 0.7]), [3.0, 7.0]);
        assert_eq!(quantiles(&scores, [0.0, 1.0]), [f64::NEG_INFINITY, 10.0]);
        assert_eq!(quantiles(&[], [0.3, 0.7]), [f64::NEG_INFINITY; 2]);
    }
}
