//! Each client takes part independently, at one rate.
//!
//! - Formula: a client takes part if its uniform number is below the rate, `K / n` or `rate`.
//! - Probability: the rate; any number of clients may come out. The only strategy with amplification by sampling, as
//!   long as the seed stays secret.

use crate::fleet::select::draw::Draw;
use crate::fleet::select::pool::{Column, Pool};
use crate::fleet::select::strategy::{Pick, Strategy};
use crate::settings::{RegistryEntry, Setting, spec_text, value};
use std::fmt::{self, Display};
use std::str::FromStr;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "poisson",
    summary: "Each client takes part independently of all others, at one rate.",
    settings: &[Setting::new("rate", "0.01", "the rate; K / n if missing")],
    parse: |settings| Ok(Box::new(Poisson { rate: settings.take("rate")? })),
};

/// Each client takes part independently, at one rate.
#[derive(Clone, Copy, Debug)]
pub struct Poisson {
    rate: Option<Rate>,
}

/// A probability above 0.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Rate(f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= 1.0);
        rate.map(Self).ok_or_else(|| format!("found `{text}`, expected a number above 0 and up to 1"))
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Poisson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("poisson", &[("rate", value(&self.rate))]))
    }
}

impl Strategy for Poisson {
    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn rate(&self, count: usize, eligible: usize) -> Option<f64> {
        let fair = (count as f64 / eligible.max(1) as f64).min(1.0);
        Some(self.rate.map_or(fair, |rate| rate.0))
    }

    fn choose(&self, pool: &Pool, draw: &Draw) -> Vec<Pick> {
        let rate = self.rate(draw.wanted, draw.eligible).unwrap_or(0.0);
        let chosen = draw.uniforms(pool, "key").filter(|(_, uniform)| *uniform < rate);
        let pick = |(client, _)| Pick {
            client,
            probability: Some(rate),
            score: None,
            why: format!("drawn independently, at rate {rate}"),
        };
        chosen.map(pick).collect()
    }
}
