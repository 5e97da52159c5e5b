//! What a selection strategy is.

use crate::fleet::select::draw::Draw;
use crate::fleet::select::pool::{Column, Pool};
use std::fmt;

/// A way to select clients, with its settings. Displays as the text that parses to it.
pub trait Strategy: fmt::Debug + fmt::Display + Send + Sync {
    /// The columns that it reads.
    fn columns(&self) -> &'static [Column];

    /// Whether it reads how useful the rounds so far were.
    fn reads_rounds(&self) -> bool {
        false
    }

    /// The probability with which each of `eligible` clients takes part, independent of all others; `None` for a
    /// strategy that selects a fixed number.
    fn rate(&self, _count: usize, _eligible: usize) -> Option<f64> {
        None
    }

    /// Chooses among the open clients of a pool: `draw.count` of them, or all if there are fewer. The best first.
    fn choose(&self, pool: &Pool, draw: &Draw) -> Vec<Pick>;
}

/// A client that a strategy chose.
#[derive(Clone, PartialEq, Debug)]
pub struct Pick {
    /// Its place in the pool.
    pub client: usize,
    /// The probability that the strategy would choose it, where that is known.
    pub probability: Option<f64>,
    /// What the strategy ranks clients by.
    pub score: Option<f64>,
    /// Why the strategy chose it.
    pub why: String,
}
