//! Each client as likely as any other.
//!
//! - Formula: the clients with the smallest of independent uniform numbers.
//! - Probability: K / n, exactly K clients.

use crate::fleet::select::draw::Draw;
use crate::fleet::select::pool::{Column, Pool};
use crate::fleet::select::ranking::largest;
use crate::fleet::select::strategy::{Pick, Strategy};
use crate::settings::RegistryEntry;
use std::fmt;

pub(super) const ENTRY: RegistryEntry<Box<dyn Strategy>> = RegistryEntry {
    name: "uniform",
    summary: "Each client as likely as any other, without replacement.",
    settings: &[],
    parse: |_| Ok(Box::new(Uniform)),
};

/// Each client as likely as any other.
#[derive(Clone, Copy, Debug)]
pub struct Uniform;

impl fmt::Display for Uniform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("uniform")
    }
}

impl Strategy for Uniform {
    fn columns(&self) -> &'static [Column] {
        &[]
    }

    fn choose(&self, pool: &Pool, draw: &Draw) -> Vec<Pick> {
        let open = pool.open().len();
        let probability = draw.count.min(open) as f64 / open.max(1) as f64;
        let keys = draw.uniforms(pool, "key").map(|(client, uniform)| (-uniform, client)).collect();
        let pick = |(_, client)| Pick {
            client,
            probability: Some(probability),
            score: None,
            why: format!("drawn from {open} equally likely clients"),
        };
        largest(keys, draw.count).into_iter().map(pick).collect()
    }
}
