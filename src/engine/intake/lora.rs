//! Adapters (LoRA, LoHa, LoKr, VeRA): pairs of factors whose products are the change of a weight.
//!
//! The mean of factors is not the factor of the mean: `mean(B) mean(A)` differs from `mean(B A)`. So factors of both
//! kinds are not merged unless the operator says that it is meant. One kind alone may be merged: clients that keep the
//! other one fixed send only that (FFA-LoRA).

use crate::model::layout::{Layout, TensorSpec};

/// Names of the factors on one side: LoRA, LoHa, LoKr and VeRA, as PEFT, LyCORIS and Diffusers call them.
const DOWN: [&str; 10] = [
    "lora_A",
    "lora_a",
    "lora_down",
    "lora_embedding_A",
    "down",
    "hada_w1_a",
    "hada_w2_a",
    "lokr_w1",
    "lokr_w1_a",
    "vera_lambda_d",
];
/// Names of the factors on the other side.
const UP: [&str; 12] = [
    "lora_B",
    "lora_b",
    "lora_up",
    "lora_embedding_B",
    "up",
    "hada_w1_b",
    "hada_w2_b",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "vera_lambda_b",
];

/// Whether a tensor is a factor of an adapter, by its name.
pub fn is_factor(name: &str) -> bool {
    is_one_of(&DOWN, name) || is_one_of(&UP, name)
}

/// Two factors of different kinds in a layout; `None` if it has not both.
pub fn factors(layout: &Layout) -> Option<(&str, &str)> {
    let first = |kinds: &[&str]| {
        let of_kind = |spec: &&TensorSpec| is_one_of(kinds, &spec.name);
        layout.tensors().iter().find(of_kind).map(|spec| spec.name.as_str())
    };
    first(&DOWN).zip(first(&UP))
}

fn is_one_of(kinds: &[&str], name: &str) -> bool {
    let mut before = "";
    name.split('.').any(|part| {
        // `up` and `down` alone are layers of many models.
        let is_layer = ["up", "down"].contains(&part) && before != "lora" && !before.ends_with("_lora");
        let is_kind = kinds.contains(&part) && !is_layer;
        before = part;
        is_kind
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_told_by_their_names() {
        for name in [
            "q.lora_A.weight",
            "q.lora_B.default.weight",
            "q.lora.up.weight",
            "x.lora_down.weight",
            "p.to_q_lora.down.weight",
            "a.hada_w1_a",
            "a.lokr_w2",
            "a.vera_lambda_b",
        ] {
            assert!(is_factor(name), "{name}");
        }
        for name in ["mlp.up.weight", "down.0.weight", "lora.weight", "flora_A.weight", "flora.up.weight"] {
            assert!(!is_factor(name), "{name}");
        }
    }
}
