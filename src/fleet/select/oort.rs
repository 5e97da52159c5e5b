//! Clients whose data still teaches the model most, and that are fast enough; the rest to explore.
//!
//! - Source: Lai et al., Oort: efficient federated learning via guided participant selection, 2021.
//! - Formula: U = data size * last loss, clipped at a quantile, scaled to [0, 1], plus sqrt(0.1 ln R / R_last); times
//!   (T / t)^alpha if the client's t seconds are above T. Of the K best, those at or above `cut` times the K-th are drawn
//!   in proportion. A share of K goes to clients without a loss, in proportion to their data.
//! - Pacer: T is a percentile of the durations. After every `window` rounds it rises by `step` if the utility of these
//!   rounds is within 10 % of the rounds before, and falls by `step` if it changed by five times or more.
//! - Probability: not known in closed form, exactly K clients.

use crate::fleet::select::draw::{Draw, exponential_key};
use crate::fleet::select::pool::{Column, Pool};
use crate::fleet::select::ranking::largest;
use crate::fleet::select::strategy::{Pick, Strategy};
use crate::settings::numbers::{Decay, NotNegative};
use crate::settings::{RegistryEntry, Setting, spec_text, value};
use std::fmt;
use std::num::NonZeroUsize;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "oort",
    summary: "Clients with much to teach and little delay, and a share of clients that are new.",
    settings: &[
        Setting::new("explore", "0.9", "the share of new clients in the first round"),
        Setting::new("decay", "0.98", "what the share of new clients is multiplied by each round"),
        Setting::new("floor", "0.2", "the least share of new clients"),
        Setting::new("cut", "0.95", "candidates reach this part of the score of the last of the best"),
        Setting::new("clip", "0.95", "the quantile at which utilities are clipped"),
        Setting::new("alpha", "2", "the power of the penalty on slow clients"),
        Setting::new("percentile", "30", "the percentile of durations that is the first T"),
        Setting::new("step", "5", "by how much the pacer moves that percentile"),
        Setting::new("window", "20", "rounds between two moves of the pacer"),
        Setting::new("picks", "50", "clients selected more often come last; no bound if missing"),
    ],
    parse: |settings| {
        Ok(Box::new(Oort {
            explore: settings.take("explore")?,
            decay: settings.take("decay")?,
            floor: settings.take("floor")?,
            cut: settings.take("cut")?,
            clip: settings.take("clip")?,
            alpha: settings.take("alpha")?,
            percentile: settings.take("percentile")?,
            step: settings.take("step")?,
            window: settings.take("window")?,
            picks: settings.take("picks")?,
        }))
    },
};

/// Clients by utility and speed.
#[derive(Clone, Debug)]
pub struct Oort {
    explore: Option<Decay>,
    decay: Option<Decay>,
    floor: Option<Decay>,
    cut: Option<Decay>,
    clip: Option<Decay>,
    alpha: Option<NotNegative>,
    percentile: Option<NotNegative>,
    step: Option<NotNegative>,
    window: Option<NonZeroUsize>,
    picks: Option<u64>,
}

/// The weight of the bonus of clients that took part long ago.
const BONUS: f64 = 0.1;

/// A change of utility below this part of it is none.
const FLAT: f64 = 0.1;

/// A change of utility of this many times it is sharp.
const SHARP: f64 = 5.0;

impl fmt::Display for Oort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            ("explore", value(&self.explore)),
            ("decay", value(&self.decay)),
            ("floor", value(&self.floor)),
            ("cut", value(&self.cut)),
            ("clip", value(&self.clip)),
            ("alpha", value(&self.alpha)),
            ("percentile", value(&self.percentile)),
            ("step", value(&self.step)),
            ("window", value(&self.window)),
            ("picks", value(&self.picks)),
        ];
        f.write_str(&spec_text("oort", &settings))
    }
}

fn or(part: Option<Decay>, default: f64) -> f64 {
    part.map_or(default, |part| part.0)
}

/// The value below which a part of sorted values lies.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = (sorted.len() as f64 * part) as usize;
    sorted.get(place.min(sorted.len().checked_sub(1)?)).copied()
}

impl Oort {
    /// The share of new clients in a round.
    fn share(&self, round: u64) -> f64 {
        let past = round.saturating_sub(1) as f64;
        (or(self.explore, 0.9) * libm::pow(or(self.decay, 0.98), past)).max(or(self.floor, 0.2))
    }

    /// The percentile of durations that is T, after the rounds with these utilities.
    fn percentile(&self, utilities: &[f64]) -> f64 {
        let window = self.window.map_or(20, NonZeroUsize::get);
        let step = self.step.map_or(5.0, |step| step.0);
        let mut percentile = self.percentile.map_or(30.0, |percentile| percentile.0);
        for (before, after) in utilities.chunks_exact(window).zip(utilities.chunks_exact(window).skip(1)) {
            let [before, after]: [f64; 2] = [before.iter().sum(), after.iter().sum()];
            let change = (after - before).abs();
            if change <= FLAT * before {
                percentile = (percentile + step).min(100.0);
            } else if change >= SHARP * before {
                percentile = (percentile - step).max(step);
            }
        }
        percentile
    }

    /// The seconds above which a client is slow.
    fn preferred_duration(&self, pool: &Pool) -> f64 {
        let percentile = self.percentile(&pool.utilities);
        let mut known: Vec<f64> =
            pool.column(Column::Duration).iter().copied().filter(|seconds| !seconds.is_nan()).collect();
        known.sort_unstable_by(f64::total_cmp);
        match percentile < 100.0 {
            true => quantile(&known, percentile / 100.0).unwrap_or(f64::INFINITY),
            false => f64::INFINITY,
        }
    }

    /// The score of each of these clients, which have a loss.
    fn scores(&self, pool: &Pool, explored: &[usize], round: u64) -> Vec<f64> {
        let (sizes, losses) = (pool.column(Column::DataSize), pool.column(Column::Loss));
        let (rounds, durations) = (pool.column(Column::LossRound), pool.column(Column::Duration));
        let utilities: Vec<f64> =
            explored.iter().map(|client| sizes[*client] * losses[*client].abs()).collect();
        let mut sorted = utilities.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let least = sorted.first().copied().unwrap_or(0.0);
        let most = quantile(&sorted, or(self.clip, 0.95)).unwrap_or(0.0);
        let (preferred, alpha) = (self.preferred_duration(pool), self.alpha.map_or(2.0, |alpha| alpha.0));
        let bonus = |last: f64| libm::sqrt(BONUS * libm::log(round.max(1) as f64) / last.max(1.0));
        let score = |(client, utility): (&usize, f64)| {
            let scaled = if most > least { (utility.min(most) - least) / (most - least) } else { 1.0 };
            let score = scaled + bonus(rounds[*client]);
            // An unknown duration, NaN, is not slow.
            let is_slow = durations[*client] > preferred;
            if is_slow { score * libm::pow(preferred / durations[*client], alpha) } else { score }
        };
        explored.iter().zip(utilities).map(score).collect()
    }

    /// The clients that a strategy may choose: those not yet selected too often, if they suffice.
    fn allowed(&self, pool: &Pool, count: usize) -> Vec<bool> {
        let mut allowed = vec![true; pool.len()];
        if let Some(picks) = self.picks {
            let selected = pool.column(Column::Selected);
            let is_fresh = |client: &&usize| selected[**client] <= picks as f64;
            if pool.open().iter().filter(is_fresh).count() >= count {
                allowed = selected.iter().map(|selected| *selected <= picks as f64).collect();
            }
        }
        allowed
    }
}

impl Strategy for Oort {
    fn columns(&self) -> &'static [Column] {
        &[Column::DataSize, Column::Loss, Column::LossRound, Column::Duration, Column::Selected]
    }

    fn reads_rounds(&self) -> bool {
        true
    }

    fn choose(&self, pool: &Pool, draw: &Draw) -> Vec<Pick> {
        let allowed = self.allowed(pool, draw.count);
        let losses = pool.column(Column::Loss);
        let (mut fresh, mut explored) = (Vec::new(), Vec::new());
        for (client, uniform) in draw.uniforms(pool, "key").filter(|(client, _)| allowed[*client]) {
            if losses[client].is_nan() { &mut fresh } else { &mut explored }.push((client, uniform));
        }
        let wanted = ((draw.count as f64 * self.share(draw.round)) as usize).min(fresh.len());
        let known = (draw.count - wanted).min(explored.len());
        let new = (draw.count - known).min(fresh.len());
        let mut picks = self.exploit(pool, &explored, known, draw.round);
        picks.extend(explore(pool, &fresh, new));
        picks
    }
}

impl Oort {
    /// Draws among the best of the clients that have a loss.
    fn exploit(&self, pool: &Pool, explored: &[(usize, f64)], count: usize, round: u64) -> Vec<Pick> {
        let clients: Vec<usize> = explored.iter().map(|(client, _)| *client).collect();
        let scores = self.scores(pool, &clients, round);
        let best = largest(scores.iter().copied().zip(0..).collect(), count);
        let cutoff = or(self.cut, 0.95) * best.last().map_or(0.0, |(score, _)| *score);
        let candidates = (0..clients.len()).filter(|place| scores[*place] >= cutoff);
        let keys: Vec<(f64, usize)> =
            candidates.map(|place| (exponential_key(explored[place].1, scores[place]), place)).collect();
        let among = keys.len();
        let pick = |(_, place): (f64, usize)| Pick {
            client: clients[place],
            probability: None,
            score: Some(scores[place]),
            why: format!("score {:.4}, drawn from {among} at or above {cutoff:.4}", scores[place]),
        };
        largest(keys, count).into_iter().map(pick).collect()
    }
}

/// Draws among the clients without a loss, in proportion to their data.
fn explore(pool: &Pool, fresh: &[(usize, f64)], count: usize) -> Vec<Pick> {
    let sizes = pool.column(Column::DataSize);
    let keys = fresh.iter().map(|(client, uniform)| (exponential_key(*uniform, sizes[*client]), *client));
    let pick = |(_, client): (f64, usize)| Pick {
        client,
        probability: None,
        score: None,
        why: format!("new, drawn from {} in proportion to data size", fresh.len()),
    };
    largest(keys.collect(), count).into_iter().map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oort(text: &str) -> Oort {
        let number = |key: &str| text.split(',').find_map(|part| part.strip_prefix(key)?.parse().ok());
        let part = |key| number(key).map(Decay);
        Oort {
            explore: part("explore="),
            decay: part("decay="),
            floor: part("floor="),
            cut: None,
            clip: None,
            alpha: None,
            percentile: number("percentile=").map(NotNegative),
            step: number("step=").map(NotNegative),
            window: NonZeroUsize::new(number("window=").unwrap_or(20.0) as usize),
            picks: None,
        }
    }

    #[test]
    fn the_share_of_new_clients_decays_to_its_floor() {
        let oort = oort("explore=0.8,decay=0.5,floor=0.3");
        assert_eq!([1, 2, 3, 99].map(|round| oort.share(round)), [0.8, 0.4, 0.3, 0.3]);
    }

    #[test]
    fn the_pacer_follows_the_utility() {
        let oort = oort("percentile=30,step=5,window=2");
        for (utilities, percentile) in [
            (&[][..], 30.0),
            (&[1.0, 1.0, 1.0], 30.0),
            (&[1.0, 1.0, 1.0, 1.05], 35.0),
            (&[1.0, 1.0, 1.0, 1.5], 30.0),
            (&[1.0, 1.0, 6.0, 6.0], 25.0),
            (&[1.0, 1.0, 6.0, 6.0, 6.0, 6.0], 30.0),
        ] {
            assert_eq!(oort.percentile(utilities), percentile, "{utilities:?}");
        }
        assert_eq!(oort.percentile(&[1.0; 400]), 100.0);
    }

    #[test]
    fn a_quantile_is_a_value() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0], 1.0), Some(2.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
