//! Of some candidates, those with the highest loss.
//!
//! - Formula: d candidates in proportion to their data size, without replacement; of these the K with the highest last
//!   loss. A client without a loss comes before all others.
//! - Probability: not known in closed form, exactly K clients.

use crate::fleet::select::draw::{Draw, exponential_key};
use crate::fleet::select::pool::{Column, Pool};
use crate::fleet::select::ranking::largest;
use crate::fleet::select::strategy::{Pick, Strategy};
use crate::settings::{RegistryEntry, Setting, spec_text, value};
use std::fmt;
use std::num::NonZeroUsize;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "power-of-choice",
    summary: "Of some candidates, drawn in proportion to their data, those with the highest loss.",
    settings: &[Setting::new(
        "candidates",
        "20",
        "the number of candidates; twice those to select if missing",
    )],
    parse: |settings| Ok(Box::new(PowerOfChoice { candidates: settings.take("candidates")? })),
};

/// Of some candidates, those with the highest loss.
#[derive(Clone, Copy, Debug)]
pub struct PowerOfChoice {
    candidates: Option<NonZeroUsize>,
}

impl fmt::Display for PowerOfChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spec_text("power-of-choice", &[("candidates", value(&self.candidates))]))
    }
}

impl Strategy for PowerOfChoice {
    fn columns(&self) -> &'static [Column] {
        &[Column::DataSize, Column::Loss]
    }

    fn choose(&self, pool: &Pool, draw: &Draw) -> Vec<Pick> {
        let (sizes, losses) = (pool.column(Column::DataSize), pool.column(Column::Loss));
        let candidates = self.candidates.map_or(2 * draw.count, NonZeroUsize::get).max(draw.count);
        let key = |(client, uniform): (usize, f64)| (exponential_key(uniform, sizes[client]), client);
        let drawn = largest(draw.uniforms(pool, "candidates").map(key).collect(), candidates);
        let count = drawn.len();
        // Clients without a loss in the order of the draw, then the others by their loss.
        let mut ranked: Vec<usize> = drawn.into_iter().map(|(_, client)| client).collect();
        let rank = |client: &usize| if losses[*client].is_nan() { f64::INFINITY } else { losses[*client] };
        ranked.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
        ranked.truncate(draw.count);
        let pick = |client: usize| {
            let score = Some(losses[client]).filter(|loss| !loss.is_nan());
            let why = match score {
                Some(loss) => format!("loss {loss}, among the highest of {count} candidates"),
                None => format!("no loss on record, so before the others of {count} candidates"),
            };
            Pick { client, probability: None, score, why }
        };
        ranked.into_iter().map(pick).collect()
    }
}
