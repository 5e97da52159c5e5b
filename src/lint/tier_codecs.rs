//! What a tier asks of its clients, and the codec that meets its budget of bytes.
//!
//! - The budget of a client is `upload_bytes` of its tier, or else its share of the round's budget. Both end at
//!   `compression.bytes_per_update`.
//! - The codec is the first of `compression.methods` whose expected bytes meet the budget, so the least lossy one. What
//!   was accepted corrects the forecasts: if half of the updates are twice as large as forecast, every codec is expected
//!   to be. One large file is not half of them, and a file in quarantine is no update.
//! - A codec before the one in use must leave a fifth of the budget free. So small changes do not make a tier alternate.

use crate::config::Config;

/// The part of a budget that a less lossy codec may fill.
const ROOM: f64 = 0.8;

/// A codec of the configuration, and the bytes that an update by it is expected to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodecForecast {
    /// The codec.
    pub codec: String,
    /// Bytes.
    pub bytes: u64,
}

/// What the file of tiers asks of the clients of a tier, and what they may send.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TierTask {
    /// Local steps; `None` for those of all clients.
    pub local_steps: Option<u64>,
    /// The codec; `None` for those of all clients.
    pub codec: Option<String>,
    /// The bytes that one client may send in a round; `None` for its share of the round's budget.
    pub upload_bytes: Option<u64>,
    /// The codecs of the configuration that the rule of the tier takes, in their order.
    pub codecs: Vec<CodecForecast>,
    /// The other codecs of the configuration, each with the reason.
    pub unfit: Vec<(String, String)>,
}

/// The bytes that one client of a tier may send; `None` without a budget.
pub fn budget(config: &Config, task: &TierTask, left: Option<(u64, u64)>) -> Option<u64> {
    let share = left.and_then(|(left, clients)| left.checked_div(clients));
    let budget = task.upload_bytes.or(share)?;
    Some(config.compression.bytes_per_update.map_or(budget, |most| budget.min(most)))
}

/// A codec chosen for a budget.
#[derive(Clone, PartialEq, Debug)]
pub struct Chosen {
    /// The codec.
    pub codec: String,
    /// The bytes that an update by it is expected to have.
    pub expected: u64,
    /// Whether they meet the budget.
    pub is_met: bool,
}

/// Chooses the first codec that meets a budget; if none does, the one of the fewest bytes. `median` has the
/// bytes of the updates by the codec in use. `None` without codecs.
pub fn choose(
    codecs: &[CodecForecast],
    current: Option<&str>,
    median: Option<u64>,
    budget: u64,
) -> Option<Chosen> {
    let place = codecs.iter().position(|one| Some(one.codec.as_str()) == current);
    let ratio = |place: usize| Some(median? as f64 / codecs[place].bytes.max(1) as f64);
    let correction = place.and_then(ratio).unwrap_or(1.0);
    let chosen = |one: &CodecForecast, is_met| Chosen {
        codec: one.codec.clone(),
        expected: (one.bytes as f64 * correction).round() as u64,
        is_met,
    };
    let meets = |(number, one): &(usize, &CodecForecast)| {
        let room = if place.is_some_and(|place| *number < place) { ROOM } else { 1.0 };
        one.bytes as f64 * correction <= room * budget as f64
    };
    let first = codecs.iter().enumerate().find(meets).map(|(_, one)| chosen(one, true));
    first.or_else(|| codecs.iter().min_by_key(|one| one.bytes).map(|one| chosen(one, false)))
}
