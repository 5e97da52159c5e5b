//! The classes of a model's tensors: parameters, statistics, and opaque bytes.
//!
//! A tensor's name tells its class, by the naming of PyTorch, Keras and Flax, and of bitsandbytes, compressed-tensors,
//! GPTQ, AWQ, Quanto, HQQ and MXFP4. Only this file knows such names.

use crate::model::dtype::{Dtype, Kind};
use crate::model::layout::TensorSpec;
use std::collections::HashMap;
use std::fmt;

/// The class of a tensor, which decides how the server merges it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TensorClass {
    /// A float tensor that gradients step. The server steps it by the strategy.
    Parameter,
    /// A running mean or variance, a counter, or another tensor of integers or bools. It takes the merged value.
    Statistic,
    /// A part of a packed quantised weight. The server copies its bytes and cannot merge them.
    Opaque,
}

impl TensorClass {
    /// The class of a tensor with an unknown name.
    pub fn of_dtype(dtype: Dtype) -> Self {
        match dtype.kind() {
            Kind::Float => Self::Parameter,
            Kind::Integer | Kind::Bool => Self::Statistic,
        }
    }
}

impl fmt::Display for TensorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parameter => "parameter",
            Self::Statistic => "statistic",
            Self::Opaque => "opaque",
        })
    }
}

/// Names of the running statistics of a module of batch normalisation, in PyTorch and in Keras.
const RUNNING: [&str; 4] = ["running_mean", "running_var", "moving_mean", "moving_variance"];

/// Names of other statistics, wherever they are: counters of PyTorch and Keras.
const COUNTERS: [&str; 2] = ["num_batches_tracked", "seed_generator_state"];

/// Names of the statistics of a module of normalisation, in Flax and in Keras.
const OF_NORMS: [&str; 3] = ["mean", "var", "variance"];

/// The collection of running statistics in Flax.
const FLAX_STATISTICS: &str = "batch_stats";

/// Names of modules of batch normalisation, in lower case and without digits and underscores.
const BATCH_NORMS: [&str; 4] = ["bn", "batchnorm", "batchnormd", "batchnormalization"];

/// The module of Keras that normalises inputs by their mean and variance.
const INPUT_NORM: &str = "normalization";

/// Separators between module names, in PyTorch and in Keras.
const SEPARATORS: [char; 2] = ['.', '/'];

/// The module of a tensor; `None` for a tensor outside all modules.
pub fn module_of(name: &str) -> Option<&str> {
    name.rfind(SEPARATORS).map(|end| &name[..end])
}

/// The name of a tensor within its module. Keras numbers variables: `moving_mean:0`.
fn leaf(name: &str) -> &str {
    let leaf = module_of(name).map_or(name, |module| &name[module.len() + 1..]);
    leaf.strip_suffix(":0").unwrap_or(leaf)
}

/// The last part of a module's name, in lower case and without digits and underscores.
fn plain_name(module: &str) -> String {
    let last = module.rsplit(SEPARATORS).next().unwrap_or(module).to_lowercase();
    last.chars().filter(|c| !c.is_ascii_digit() && *c != '_').collect()
}

/// Whether a module has the name of batch normalisation. Clients may send its parameters alone.
pub fn is_batch_norm(module: &str) -> bool {
    BATCH_NORMS.contains(&plain_name(module).as_str())
}

/// The module whose running statistics a tensor holds; `None` for other tensors.
pub fn running_module(name: &str) -> Option<&str> {
    let module = module_of(name)?;
    RUNNING.contains(&leaf(name)).then_some(module)
}

/// Whether a name is that of a running statistic or a counter.
pub fn is_statistic(name: &str) -> bool {
    let leaf = leaf(name);
    let module = module_of(name);
    RUNNING.contains(&leaf)
        || COUNTERS.contains(&leaf)
        || module.is_some_and(|module| module.split(SEPARATORS).any(|part| part == FLAX_STATISTICS))
        || OF_NORMS.contains(&leaf)
            && module.is_some_and(|module| is_batch_norm(module) || plain_name(module) == INPUT_NORM)
}

/// Whether a name is that of a running variance or of a counter, which no error may make negative.
pub fn is_variance_or_counter(name: &str) -> bool {
    is_statistic(name) && (COUNTERS.contains(&leaf(name)) || leaf(name).contains("var"))
}

/// The names that mark opaque tensors, among all tensors of a model.
///
/// A scale alone is not opaque: it must be beside the weight that it belongs to.
#[derive(Debug)]
pub struct PackedWeights<'t> {
    dtypes: HashMap<&'t str, Dtype>,
}

/// What bitsandbytes keeps beside a weight of four bits. Further names start with [`QUANT_STATE`].
const OF_FOUR_BITS: [&str; 4] = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"];
const QUANT_STATE: &str = "quant_state.";

/// What a module holds in the formats of packed weights: the marks, all of which it must have, and the other tensors.
const FORMATS: [(&[&str], &[&str]); 6] = [
    // bitsandbytes, eight bits.
    (&["weight", "SCB"], &["weight_format"]),
    // compressed-tensors.
    (
        &["weight_packed", "weight_scale"],
        &["weight_zero_point", "weight_shape", "weight_g_idx", "weight_global_scale", "input_global_scale"],
    ),
    // GPTQ, and AWQ, which has no `g_idx`.
    (&["qweight", "scales"], &["qzeros", "g_idx"]),
    (&["qweight", "qzeros"], &["scales", "g_idx"]),
    // Quanto, which has these beneath the weight's own name.
    (&["_data", "_scale"], &["_shift"]),
    // HQQ.
    (&["W_q", "scale"], &["zero"]),
];

/// What the names of an MXFP4 weight end in: blocks of values, and the scale of each block.
const OF_BLOCKS: [&str; 2] = ["_blocks", "_scales"];

/// The scales beside a weight of eight bits that is not packed, and the other tensors of its module.
const OF_EIGHT_BITS: [&str; 6] = [
    "weight_scale",
    "weight_scale_inv",
    "weight_zero_point",
    "input_scale",
    "input_zero_point",
    "output_scale",
];

impl<'t> PackedWeights<'t> {
    /// The packed weights among these tensors.
    pub fn among(tensors: impl IntoIterator<Item = &'t TensorSpec>) -> Self {
        Self { dtypes: tensors.into_iter().map(|spec| (spec.name.as_str(), spec.dtype)).collect() }
    }

    /// Whether a tensor is a packed weight, or belongs to one.
    pub fn hold(&self, name: &str) -> bool {
        self.is_of_four_bits(name) || self.is_of_module(name) || self.is_of_blocks(name)
    }

    fn has(&self, name: &str) -> bool {
        self.dtypes.contains_key(name)
    }

    /// Whether the weight is there with the scales that bitsandbytes keeps beside it.
    fn is_of_four_bits(&self, name: &str) -> bool {
        let is_packed = |weight: &str| self.has(weight) && self.has(&format!("{weight}.absmax"));
        let weight = match name.rfind(QUANT_STATE) {
            Some(start) => name[..start].strip_suffix('.'),
            None => OF_FOUR_BITS.iter().find_map(|part| name.strip_suffix(part)?.strip_suffix('.')),
        };
        is_packed(name) || weight.is_some_and(is_packed)
    }

    /// Whether blocks of bytes and their scales are both there.
    fn is_of_blocks(&self, name: &str) -> bool {
        let is_bytes = |name: String| self.dtypes.get(name.as_str()) == Some(&Dtype::U8);
        OF_BLOCKS
            .iter()
            .filter_map(|end| name.strip_suffix(end))
            .any(|weight| OF_BLOCKS.iter().all(|end| is_bytes(format!("{weight}{end}"))))
    }

    /// Whether a module with a packed weight holds the tensor.
    fn is_of_module(&self, name: &str) -> bool {
        let Some(module) = module_of(name) else { return false };
        let leaf = leaf(name);
        let there = |part: &str| self.has(&format!("{module}.{part}"));
        let is_part = |(marks, others): &(&[&str], &[&str])| {
            (marks.contains(&leaf) || others.contains(&leaf)) && marks.iter().all(|mark| there(mark))
        };
        FORMATS.iter().any(is_part) || self.is_of_eight_bits(module, leaf)
    }

    /// Whether the module holds a weight of eight bits with its scale. A float weight beside `weight_scale` is no
    /// packed weight.
    fn is_of_eight_bits(&self, module: &str, leaf: &str) -> bool {
        let is_part = leaf == "weight" || OF_EIGHT_BITS.contains(&leaf);
        let has_scale = ["weight_scale", "weight_scale_inv"];
        is_part
            && self.dtypes.get(format!("{module}.weight").as_str()).is_some_and(|dtype| dtype.bytes() == 1)
            && has_scale.iter().any(|scale| self.has(&format!("{module}.{scale}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_known_by_the_names_of_three_libraries() {
        for name in [
            "bn1.running_mean",
            "layer1.0.bn.running_var",
            "running_mean",
            "encoder.norm.num_batches_tracked",
            "batch_normalization_3/moving_mean:0",
            "block/thing/moving_variance",
            "dropout/seed_generator/seed_generator_state",
            "batch_stats/encoder/norm/mean",
            "batch_stats.BatchNorm_0.var",
            "model/BatchNorm_0/mean",
            "bn2.var",
            "normalization/variance",
        ] {
            assert!(is_statistic(name), "{name}");
        }
        for name in [
            "bn1.weight",
            "BatchNorm_0/scale",
            "layer_normalization/gamma",
            "head.mean",
            "policy.var.weight",
            "mean",
            "running_mean.weight",
            "my_batch_stats.weight",
        ] {
            assert!(!is_statistic(name), "{name}");
        }
    }

    fn spec(name: &str, dtype: Dtype) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype, shape: vec![1], len: 1 }
    }

    /// The opaque tensors among some.
    fn opaque<'n>(tensors: &[(&'n str, Dtype)]) -> Vec<&'n str> {
        let specs: Vec<TensorSpec> = tensors.iter().map(|(name, dtype)| spec(name, *dtype)).collect();
        let packed = PackedWeights::among(&specs);
        tensors.iter().map(|(name, _)| *name).filter(|name| packed.hold(name)).collect()
    }

    #[test]
    fn packed_weights_are_opaque_with_their_scales() {
        use Dtype::{F32, I8, I32, U8};
        for tensors in [
            &[
                ("l.weight", U8),
                ("l.weight.absmax", F32),
                ("l.weight.quant_map", F32),
                ("l.weight.nested_absmax", F32),
                ("l.weight.quant_state.bitsandbytes__nf4", U8),
            ][..],
            &[("l.weight", I8), ("l.SCB", F32), ("l.weight_format", U8)],
            &[("l.weight_packed", I32), ("l.weight_scale", F32), ("l.weight_shape", I32)],
            &[("l.weight", Dtype::F8E4M3), ("l.weight_scale", F32), ("l.input_scale", F32)],
            &[("l.qweight", I32), ("l.qzeros", I32), ("l.scales", F32), ("l.g_idx", I32)],
            &[("l.weight._data", I8), ("l.weight._scale", F32), ("l.weight._shift", F32)],
            &[("l.W_q", U8), ("l.scale", F32), ("l.zero", F32)],
            &[("l.up_proj_blocks", U8), ("l.up_proj_scales", U8)],
        ] {
            let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
            assert_eq!(opaque(tensors), names);
            let others = [tensors, &[("l.bias", F32), ("k.weight", F32), ("k.scales", F32)]].concat();
            assert_eq!(opaque(&others), names);
        }
    }

    #[test]
    fn a_scale_without_a_packed_weight_is_not_opaque() {
        use Dtype::F32;
        for name in
            ["l.absmax", "l.weight.absmax", "l.scales", "l.SCB", "l.weight_packed", "l.up_blocks", "l.scale"]
        {
            assert_eq!(opaque(&[(name, F32), ("l.bias", F32)]), Vec::<&str>::new());
        }
        assert_eq!(opaque(&[("l.weight", F32), ("l.weight_scale", F32)]), Vec::<&str>::new());
    }
}
