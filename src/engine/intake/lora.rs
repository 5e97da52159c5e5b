//! LoRA adapters: pairs of factors whose products are the change of a weight.
//!
//! The mean of factors is not the factor of the mean: `mean(B) mean(A)` differs from `mean(B A)`. So factors of both
//! kinds are not merged unless the operator says that it is meant. One kind alone may be merged: clients that keep the
//! other one fixed send only that (FFA-LoRA).

use crate::model::layout::{Layout, TensorSpec};

const DOWN: [&str; 5] = ["lora_A", "lora_a", "lora_down", "lora_embedding_A", "down"];
const UP: [&str; 5] = ["lora_B", "lora_b", "lora_up", "lora_embedding_B", "up"];

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
        let is_kind = kinds.contains(&part) && (part.starts_with("lora_") || before == "lora");
        before = part;
        is_kind
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_told_by_their_names() {
        for name in ["q.lora_A.weight", "q.lora_B.default.weight", "q.lora.up.weight", "x.lora_down.weight"] {
            assert!(is_factor(name), "{name}");
        }
        for name in ["mlp.up.weight", "down.0.weight", "lora.weight", "flora_A.weight"] {
            assert!(!is_factor(name), "{name}");
        }
    }
}
