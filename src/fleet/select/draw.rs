//! Random numbers of a selection, from the seed, the round, the strategy and a client's id alone.

use crate::fleet::select::pool::Pool;
use jiff::Timestamp;

/// What a strategy draws with.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The number of clients to choose.
    pub count: usize,
    /// The number of clients that may be selected, those included that were chosen because they waited.
    pub eligible: usize,
    /// The number of clients whose updates the round wants.
    pub wanted: usize,
    /// The number of the round.
    pub round: u64,
    /// The time at which freshness is measured.
    pub now: Timestamp,
    /// The seed.
    pub seed: u64,
    /// The strategy with its settings.
    pub name: String,
}

/// What the keys of selections are derived for.
const CONTEXT: &str = "fedmill selection of clients, version 1";

impl Draw {
    /// A uniform number above 0 and below 1 for each open client of a pool, in order: 52 bits of a keyed BLAKE3 digest
    /// of its id. Each `stream` has other numbers.
    pub fn uniforms(&self, pool: &Pool, stream: &str) -> impl Iterator<Item = (usize, f64)> {
        let name = self.name.split(':').next().unwrap_or_default();
        let words = [&self.seed.to_le_bytes()[..], &self.round.to_le_bytes(), name.as_bytes(), &[0]];
        let key = blake3::derive_key(CONTEXT, &[words.concat().as_slice(), stream.as_bytes()].concat());
        pool.open().iter().map(move |client| {
            let digest = blake3::keyed_hash(&key, pool.id(*client).as_bytes());
            let mut word = [0; 8];
            word.copy_from_slice(&digest.as_bytes()[..8]);
            (*client, uniform(u64::from_le_bytes(word)))
        })
    }
}

/// A number above 0 and below 1, from the upper 52 bits of a word.
fn uniform(word: u64) -> f64 {
    ((word >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// Keys whose largest are a sample without replacement: `ln(u) / weight` (Efraimidis and Spirakis 2006). A client of
/// weight 0 has a key below all others, by its number.
pub fn exponential_key(uniform: f64, weight: f64) -> f64 {
    let key = libm::log(uniform) / weight;
    if weight > 0.0 && key.is_finite() { key } else { -f64::MAX * (1.0 - uniform) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_strictly_between_0_and_1() {
        assert!(uniform(0) > 0.0 && uniform(u64::MAX) < 1.0);
    }

    #[test]
    fn no_weight_comes_after_every_weight() {
        let least = exponential_key(1e-16, 1e-290);
        assert!(exponential_key(0.999, 0.0) < least && least < exponential_key(0.5, 1.0));
        assert!(exponential_key(0.2, 0.0) < exponential_key(0.3, 0.0));
    }
}
