//! The configuration with which the library compressed-tensors decodes a plain file.
//!
//! It is the `quantization_config` in a model's `config.json`, for the matrices that the library knows.

use crate::codecs::quantize::blocks::Blocks;
use crate::codecs::quantize::fp8::{Container, E4m3};
use crate::codecs::quantize::symmetric::Symmetric;
use crate::codecs::{Coding, Vector};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The end of the name of a layer's matrix.
const WEIGHT: &str = ".weight";

/// The library's name of the format of a matrix, and the arguments of its quantizer; `None` if the library cannot
/// decode it.
fn arguments(coding: &Coding, vector: &Vector) -> Option<(&'static str, Value)> {
    let [_, columns] = vector.shape[..] else { return None };
    match *coding {
        Coding::Symmetric(Symmetric { bits, blocks }) => {
            let format = match bits {
                8 => "int-quantized",
                _ if columns % 8 == 0 => "pack-quantized",
                _ => return None,
            };
            Some((format, strategy(bits, "int", blocks, columns)?))
        }
        Coding::E4m3(E4m3 { blocks, container: Container::Native }) => {
            Some(("float-quantized", strategy(8, "float", blocks, columns)?))
        }
        _ => None,
    }
}

fn strategy(bits: u8, kind: &str, blocks: Blocks, columns: usize) -> Option<Value> {
    let (strategy, group) = match blocks {
        Blocks::Rows => ("channel", None),
        // Packed codes need rows of whole words, so a block must not cross rows.
        Blocks::Whole if bits == 8 => ("tensor", None),
        Blocks::Runs(len) if kind == "int" && columns.is_multiple_of(len as usize) => ("group", Some(len)),
        _ => return None,
    };
    Some(json!({
        "num_bits": bits, "type": kind, "symmetric": true, "strategy": strategy, "group_size": group,
        "dynamic": false,
    }))
}

/// The configuration for named matrices; `None` if the library can decode none of them.
pub fn config<'a>(matrices: impl Iterator<Item = (&'a str, &'a Coding, &'a Vector)>) -> Option<Value> {
    let mut groups: BTreeMap<(&str, String), (Value, Vec<&str>)> = BTreeMap::new();
    for (name, coding, vector) in matrices {
        let layer = name.strip_suffix(WEIGHT);
        if let (Some(layer), Some((format, arguments))) = (layer, arguments(coding, vector)) {
            let group = groups.entry((format, arguments.to_string()));
            group.or_insert((arguments, Vec::new())).1.push(layer);
        }
    }
    let format = match groups.keys().map(|(format, _)| *format).collect::<Vec<_>>()[..] {
        [] => return None,
        [first, ref rest @ ..] if rest.iter().all(|format| *format == first) => first,
        _ => "mixed-precision",
    };
    let group = |(i, ((format, _), (arguments, targets)))| {
        let group = json!({
            "targets": targets, "weights": arguments, "input_activations": null, "output_activations": null,
            "format": format,
        });
        (format!("group_{i}"), group)
    };
    let groups: serde_json::Map<String, Value> = groups.into_iter().enumerate().map(group).collect();
    Some(json!({
        "quant_method": "compressed-tensors", "quantization_status": "compressed", "format": format,
        "config_groups": groups, "ignore": [],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_the_library_are_named_by_layer() {
        let vector = |shape: &[usize]| Vector { len: shape.iter().product(), shape: shape.to_vec() };
        let coding = |bits, blocks| Coding::Symmetric(Symmetric { bits, blocks });
        let (wide, odd, flat) = (vector(&[4, 256]), vector(&[4, 27]), vector(&[1024]));
        let groups = coding(4, Blocks::Runs(128));
        let told = config(
            [
                ("a.weight", &groups, &wide),
                ("b.weight", &groups, &wide),
                ("odd.weight", &groups, &odd),
                ("flat.weight", &groups, &flat),
                ("a.table", &groups, &wide),
            ]
            .into_iter(),
        )
        .unwrap();
        assert_eq!(told["format"], "pack-quantized");
        assert_eq!(told["config_groups"]["group_0"]["targets"], json!(["a", "b"]));
        let weights = &told["config_groups"]["group_0"]["weights"];
        assert_eq!([&weights["num_bits"], &weights["group_size"]], [4, 128]);
        assert_eq!(weights["strategy"], "group");
        assert_eq!(told["config_groups"].as_object().unwrap().len(), 1);
        assert!(config([("odd.weight", &coding(3, Blocks::Rows), &odd)].into_iter()).is_none());
        let rows = coding(8, Blocks::Rows);
        let bytes = config([("odd.weight", &rows, &odd)].into_iter()).unwrap();
        assert_eq!(bytes["format"], "int-quantized");
        assert_eq!(bytes["config_groups"]["group_0"]["weights"]["strategy"], "channel");
    }

    #[test]
    fn groups_of_one_format_share_its_name() {
        let matrix = Vector { len: 1024, shape: vec![4, 256] };
        let coding = |bits, len| Coding::Symmetric(Symmetric { bits, blocks: Blocks::Runs(len) });
        let format = |codings: [&Coding; 2]| {
            let named = ["a.weight", "b.weight"].into_iter().zip(codings);
            config(named.map(|(name, coding)| (name, coding, &matrix))).unwrap()["format"].clone()
        };
        assert_eq!(format([&coding(4, 128), &coding(4, 64)]), "pack-quantized");
        assert_eq!(format([&coding(4, 128), &coding(8, 128)]), "mixed-precision");
    }
}
