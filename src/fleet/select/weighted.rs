//! Clients by a weighted sum of what they can do and when they were last seen.
//!
//! - Formula: weight = compute * c + data * ln(1 + d) + quality * q + freshness * 2^(-age / half-life), each term scaled
//!   to [0, 1] over the registry; the clients with the largest ln(u) / weight.
//! - Probability: that of drawing one client after the other in proportion to the weights, exactly K clients. A client of
//!   weight 0 is chosen only if the others do not suffice.

use crate::fleet::age::Age;
use crate::fleet::select::draw::{Draw, exponential_key};
use crate::fleet::select::pool::{Column, Pool};
use crate::fleet::select::ranking::largest;
use crate::fleet::select::strategy::{Pick, Strategy};
use crate::settings::numbers::NotNegative;
use crate::settings::{RegistryEntry, Setting, spec_text, value};
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "weighted",
    summary: "Clients in proportion to speed, data, connection and freshness, without replacement.",
    settings: &[
        Setting::new("compute", "0.3", "the weight of compute capability"),
        Setting::new("data", "0.3", "the weight of the logarithm of the data size"),
        Setting::new("quality", "0.2", "the weight of connection quality"),
        Setting::new("freshness", "0.2", "the weight of freshness"),
        Setting::new("half-life", "1d", "the time after which freshness has halved"),
    ],
    parse: |settings| {
        let weighted = Weighted {
            compute: settings.take("compute")?,
            data: settings.take("data")?,
            quality: settings.take("quality")?,
            freshness: settings.take("freshness")?,
            half_life: settings.take("half-life")?,
        };
        match weighted.weights().iter().sum::<f64>() > 0.0 {
            true => Ok(Box::new(weighted)),
            false => Err(settings.bad("compute", "all weights are 0, expected one above 0")),
        }
    },
};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Clients by a weighted sum.
#[derive(Clone, Debug)]
pub struct Weighted {
    compute: Option<NotNegative>,
    data: Option<NotNegative>,
    quality: Option<NotNegative>,
    freshness: Option<NotNegative>,
    half_life: Option<Age>,
}

impl Weighted {
    /// The weights of compute, data, quality and freshness.
    fn weights(&self) -> [f64; 4] {
        let or = |weight: Option<NotNegative>, default| weight.map_or(default, |weight| weight.0);
        [or(self.compute, 0.3), or(self.data, 0.3), or(self.quality, 0.2), or(self.freshness, 0.2)]
    }
}

impl fmt::Display for Weighted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            ("compute", value(&self.compute)),
            ("data", value(&self.data)),
            ("quality", value(&self.quality)),
            ("freshness", value(&self.freshness)),
            ("half-life", value(&self.half_life)),
        ];
        f.write_str(&spec_text("weighted", &settings))
    }
}

impl Strategy for Weighted {
    fn columns(&self) -> &'static [Column] {
        &[Column::Compute, Column::DataSize, Column::Quality, Column::Seen]
    }

    fn choose(&self, pool: &Pool, draw: &Draw) -> Vec<Pick> {
        let half_life = self.half_life.as_ref().map_or(DAY, Age::seconds) as f64;
        let now = draw.now.as_second() as f64;
        // A clock that went back makes no client fresher than one seen now.
        let freshness = |seen: f64| libm::exp2(-((now - seen).max(0.0) / half_life));
        let terms = [
            pool.scaled(Column::Compute, |compute| compute),
            pool.scaled(Column::DataSize, libm::log1p),
            pool.scaled(Column::Quality, |quality| quality),
            pool.scaled(Column::Seen, freshness),
        ];
        let weights = self.weights();
        let weight = |client: usize| (0..4).map(|term| weights[term] * terms[term][client]).sum::<f64>();
        let key = |(client, uniform)| (exponential_key(uniform, weight(client)), client);
        let chosen = largest(draw.uniforms(pool, "key").map(key).collect(), draw.count);
        let pick = |(_, client): (f64, usize)| {
            let parts = ["compute", "data", "quality", "freshness"];
            let part =
                |term: usize| format!("{} {} x {:.3}", parts[term], weights[term], terms[term][client]);
            let why = (0..4).map(part).collect::<Vec<_>>().join(" + ");
            Pick { client, probability: None, score: Some(weight(client)), why }
        };
        chosen.into_iter().map(pick).collect()
    }
}
