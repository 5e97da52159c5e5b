//! Shuffles the updates and replaces them by the means of small buckets.
//!
//! - Paper: Karimireddy, He and Jaggi, Byzantine-robust learning on heterogeneous datasets via bucketing, 2022,
//!   algorithm 1.
//! - Cost: none.
//! - Tolerates: any number.
//! - Leaves: F, of fewer updates: each hostile client may spoil another bucket, so the rule must tolerate F of n / s.
//! - Details: if clients cannot guess `--seed`, they cannot choose their bucket.

use crate::rules::mixing::Mixing;
use crate::rules::pre::{Step, StepOutput};
use crate::rules::{RuleError, Statistics};
use crate::settings::{RegistryEntry, Setting};
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;

pub(super) const ENTRY: RegistryEntry<Box<dyn Step>> = RegistryEntry {
    name: "bucketing",
    summary: "Updates are shuffled by `--seed` and become the plain means of buckets of `s`; the last may \
              be smaller.",
    settings: &[Setting::required("s", "2", "updates in a bucket")],
    parse: |settings| Ok(Box::new(Bucketing { size: settings.require("s")? })),
};

/// Bucketing.
#[derive(Clone, Copy, Debug)]
pub struct Bucketing {
    size: NonZeroUsize,
}

impl fmt::Display for Bucketing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucketing:s={}", self.size)
    }
}

impl Step for Bucketing {
    fn bounds(&self) -> bool {
        false
    }

    fn uses_byzantine(&self) -> bool {
        false
    }

    fn tolerates(&self, clients: usize) -> usize {
        clients
    }

    fn compares_clients(&self) -> bool {
        false
    }

    fn take(&self, statistics: &Statistics) -> Result<StepOutput, RuleError> {
        let n = statistics.clients();
        let order = shuffled(n, statistics.seed);
        let mut place = vec![None; n];
        let mut rows = Vec::new();
        for (bucket, members) in order.chunks(self.size.get()).enumerate() {
            let mut row = vec![0.0; n];
            for member in members {
                row[*member] = 1.0 / members.len() as f64;
                place[*member] = Some(bucket);
            }
            rows.push(row);
        }
        let found = place.iter().flatten().map(|bucket| BTreeMap::from([("bucket", *bucket as f64)]));
        let found = found.collect();
        let note = format!(
            "{self} made {} updates of {n}, of which as many as before may be hostile: {}",
            rows.len(),
            statistics.hostile()
        );
        let warnings =
            if statistics.hostile() > 0 && rows.len() < n { vec![note.into()] } else { Vec::new() };
        Ok(StepOutput { mixing: Mixing::new(n, rows), place, found, warnings })
    }
}

/// The numbers below `n` in an order that the seed decides; all orders are equally likely (Fisher and Yates).
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = seed;
    for i in (1..n).rev() {
        order.swap(i, below(i + 1, &mut state));
    }
    order
}

/// A number below `bound`; all are equally likely. It draws again when a value would make some numbers likelier.
fn below(bound: usize, state: &mut u64) -> usize {
    let bound = bound as u64;
    let even = u64::MAX - u64::MAX % bound;
    loop {
        let number = split_mix(state);
        if number < even {
            return (number % bound) as usize;
        }
    }
}

/// The next number of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_comes_up_as_often() {
        let mut counts = BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(shuffled(3, seed)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_seed_gives_one_order() {
        assert_eq!(shuffled(20, 7), shuffled(20, 7));
        assert_ne!(shuffled(20, 7), shuffled(20, 8));
        // The reference's first output for seed 0.
        assert_eq!(split_mix(&mut 0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_number_above_the_last_whole_multiple_is_drawn_again() {
        // The state before the largest number. Below 3 it would be a fourth chance for 0.
        let before = 0x3162_8af6_7b21_31ab;
        assert_eq!(split_mix(&mut before.clone()), u64::MAX);
        let (mut state, mut next) = (before, before);
        split_mix(&mut next);
        let second = split_mix(&mut next);
        assert_eq!((below(3, &mut state), state), ((second % 3) as usize, next));
    }
}
