//! The class of each tensor: by the operator's patterns, then by its name, then by its dtype.

use crate::engine::intake::personal::some;
use crate::engine::intake::update::Update;
use crate::model::class::{PackedWeights, TensorClass, is_statistic};
use crate::model::layout::TensorSpec;
use crate::updates::set::Base;
use glob::Pattern;
use std::collections::BTreeSet;

/// The operator's patterns of tensor names. A tensor that both match is opaque.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClassPatterns {
    /// The values of `--statistics`, in order.
    pub statistics: Vec<Pattern>,
    /// The values of `--opaque`, in order.
    pub opaque: Vec<Pattern>,
}

/// A pattern that matches no tensor.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[error("{option} `{pattern}`: no tensor matches, expected names such as {some}")]
pub struct NoTensor {
    option: &'static str,
    pattern: String,
    some: String,
}

impl ClassPatterns {
    /// The patterns as the operator wrote them: of statistics, then of opaque tensors.
    pub fn texts(&self) -> [Vec<String>; 2] {
        [&self.statistics, &self.opaque].map(|patterns| patterns.iter().map(Pattern::to_string).collect())
    }

    /// Tells the class of each tensor among `tensors`.
    pub fn among<'t>(&'t self, tensors: impl IntoIterator<Item = &'t TensorSpec>) -> Classes<'t> {
        Classes { patterns: self, packed: PackedWeights::among(tensors) }
    }

    /// Checks that each pattern matches a tensor of the base or of an update.
    ///
    /// # Errors
    ///
    /// The first pattern that matches none.
    pub fn check_round(&self, base: Option<&Base>, updates: &[Update]) -> Result<(), NoTensor> {
        let models = base.map(|base| &base.model).into_iter();
        let models = models.chain(updates.iter().filter_map(|update| update.model.as_ref()));
        let all =
            || models.clone().flat_map(|model| model.table.iter().map(|place| place.spec.name.as_str()));
        let of_option = |option, patterns: &[Pattern]| {
            let unmatched = patterns.iter().find(|pattern| !all().any(|name| pattern.matches(name)));
            match unmatched.filter(|_| all().next().is_some()) {
                None => Ok(()),
                Some(pattern) => {
                    let some = some(&all().collect::<BTreeSet<_>>());
                    Err(NoTensor { option, pattern: pattern.to_string(), some })
                }
            }
        };
        of_option("--statistics", &self.statistics)?;
        of_option("--opaque", &self.opaque)
    }
}

/// The classes of the tensors of one model.
#[derive(Debug)]
pub struct Classes<'t> {
    patterns: &'t ClassPatterns,
    packed: PackedWeights<'t>,
}

impl Classes<'_> {
    /// The class of a tensor.
    pub fn of(&self, spec: &TensorSpec) -> TensorClass {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(&spec.name));
        match &self.patterns {
            ClassPatterns { opaque, .. } if matches(opaque) => TensorClass::Opaque,
            ClassPatterns { statistics, .. } if matches(statistics) => TensorClass::Statistic,
            _ if self.packed.hold(&spec.name) => TensorClass::Opaque,
            _ if is_statistic(&spec.name) => TensorClass::Statistic,
            _ => TensorClass::of_dtype(spec.dtype),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dtype::Dtype;

    #[test]
    fn the_word_of_the_operator_comes_first() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text).unwrap()).collect();
        let patterns = ClassPatterns { statistics: patterns(&["*.ema"]), opaque: patterns(&["codes.*"]) };
        let spec = |name: &str, dtype| TensorSpec { name: name.to_owned(), dtype, shape: vec![1], len: 1 };
        let tensors = [
            (spec("w", Dtype::F32), TensorClass::Parameter),
            (spec("ids", Dtype::I64), TensorClass::Statistic),
            (spec("a.ema", Dtype::F32), TensorClass::Statistic),
            (spec("codes.ema", Dtype::F32), TensorClass::Opaque),
            (spec("a.running_var", Dtype::F32), TensorClass::Statistic),
            (spec("q", Dtype::U8), TensorClass::Opaque),
            (spec("q.absmax", Dtype::F32), TensorClass::Opaque),
        ];
        let classes = patterns.among(tensors.iter().map(|(spec, _)| spec));
        for (spec, class) in &tensors {
            assert_eq!(classes.of(spec), *class, "{}", spec.name);
        }
    }
}
