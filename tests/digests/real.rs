//! Merges of the real round in `data/mnist-round` by every rule and step.

use super::rules::{REPORTING, WAYS};
use super::{Digests, merge};
use crate::harness::{Dir, source_tree};
use std::fs;

/// Copies of the round's files.
fn copied() -> Option<Dir> {
    let round = source_tree()?.join("data/mnist-round");
    let dir = Dir::new();
    dir.write("base.safetensors", fs::read(round.join("base.safetensors")).unwrap());
    let mut weights = String::new();
    for client in 0..20 {
        let id = format!("client-{client:02}");
        let update = fs::read(round.join(format!("updates/{id}.safetensors"))).unwrap();
        dir.write(&format!("in/{id}.safetensors"), update);
        weights.push_str(&format!("{id} {}\n", client % 5 + 1));
    }
    dir.write("weights.txt", weights);
    Some(dir)
}

#[test]
fn real_round() {
    let Some(dir) = copied() else { return };
    let mut digests = Digests::new("real");
    for (name, way) in WAYS {
        let args = [&["in", "--base=base.safetensors"], way, &REPORTING].concat();
        merge(&mut digests, name, &dir, &args);
    }
    digests.check(include_str!("recorded/real.txt"));
}
