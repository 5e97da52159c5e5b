//! Personal layers: tensors that stay with each client, while the others are merged.
//!
//! - Papers: Arivazhagan et al., Federated learning with personalization layers (FedPer), 2019: the last layers are
//!   personal. Li et al., FedBN: federated learning on non-IID features via local batch normalization, 2021: the
//!   statistics and the affine parameters of batch normalisation are personal.
//!
//! The operator names them by patterns on tensor names, or by the name of a paper.

use crate::engine::intake::update::Update;
use crate::model::class::{is_batch_norm, module_of, running_module};
use crate::updates::set::Base;
use glob::Pattern;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The preset of FedBN.
const FEDBN: &str = "fedbn";

/// The preset of FedPer: patterns of the names of heads.
const FEDPER: &str = "fedper";
const HEADS: [&str; 9] = [
    "head.*",
    "*.head.*",
    "classifier.*",
    "*.classifier.*",
    "fc.*",
    "*.fc.*",
    "lm_head.*",
    "output.*",
    "score.*",
];

/// A pattern of tensor names, or a preset. Displays as the text that parses to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layers {
    text: String,
    which: Which,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Which {
    Named(Vec<Pattern>),
    BatchNorms,
}

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = |text: &str| Pattern::new(text).map_err(|why| why.to_string());
        let which = match text {
            FEDBN => Which::BatchNorms,
            FEDPER => Which::Named(HEADS.into_iter().map(pattern).collect::<Result<_, _>>()?),
            _ => Which::Named(vec![pattern(text)?]),
        };
        Ok(Self { text: text.to_owned(), which })
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Layers {
    fn holds(&self, name: &str, norms: &NormModules) -> bool {
        match &self.which {
            Which::Named(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
            Which::BatchNorms => module_of(name).is_some_and(|module| norms.has(module)),
        }
    }
}

/// Modules of batch normalisation: those with running statistics, and those with such a name, since clients may send
/// the parameters alone.
#[derive(Clone, Default, Debug)]
pub struct NormModules {
    with_statistics: BTreeSet<String>,
}

impl NormModules {
    fn has(&self, module: &str) -> bool {
        is_batch_norm(module) || self.with_statistics.contains(module)
    }

    /// Adds the modules of some tensors.
    pub(crate) fn extend<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.with_statistics.extend(with_statistics(names).map(str::to_owned));
    }

    /// The modules that more than half of the models have, so that one odd client cannot make a layer personal. Each
    /// model is given by its tensor names.
    pub(crate) fn of_most<'n>(models: Vec<impl Iterator<Item = &'n str>>) -> Self {
        let count = models.len();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for names in models {
            for module in with_statistics(names).collect::<BTreeSet<_>>() {
                *votes.entry(module).or_default() += 1;
            }
        }
        let most = votes.into_iter().filter(|(_, votes)| 2 * votes > count);
        Self { with_statistics: most.map(|(module, _)| module.to_owned()).collect() }
    }
}

fn with_statistics<'n>(names: impl Iterator<Item = &'n str>) -> impl Iterator<Item = &'n str> {
    names.filter_map(running_module)
}

/// The layers that stay with the clients.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Personal {
    /// The values of `--personal`, in order.
    pub layers: Vec<Layers>,
}

/// Why layers cannot be personal.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PersonalError {
    #[error("personal layers `{layers}`: no tensor matches, expected names such as {some}")]
    NoMatch { layers: String, some: String },
    #[error("personal layers {layers}: all {tensors} tensors are personal, expected some that clients share")]
    NothingShared { layers: String, tensors: usize },
}

impl PersonalError {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoMatch { .. } => Some(
                "a pattern matches the whole name of a tensor: `head.*` matches all tensors of the module `head`",
            ),
            Self::NothingShared { .. } => None,
        }
    }
}

/// The most names that a message lists. It counts the others.
const MOST_LISTED: usize = 6;

impl Personal {
    /// Whether no layer is personal.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The layers as the operator wrote them.
    pub fn texts(&self) -> Vec<String> {
        self.layers.iter().map(Layers::to_string).collect()
    }

    /// Whether a tensor is personal.
    pub fn holds(&self, name: &str, norms: &NormModules) -> bool {
        self.layers.iter().any(|layers| layers.holds(name, norms))
    }

    /// Checks that each pattern matches a tensor, and that clients share at least one tensor.
    ///
    /// # Errors
    ///
    /// When a pattern matches no tensor, or all tensors are personal.
    pub fn check<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Result<(), PersonalError> {
        let mut norms = NormModules::default();
        norms.extend(names.clone());
        let names: BTreeSet<&str> = names.collect();
        if self.is_empty() || names.is_empty() {
            return Ok(());
        }
        let unmatched = |layers: &&Layers| !names.iter().any(|name| layers.holds(name, &norms));
        if let Some(layers) = self.layers.iter().find(unmatched) {
            return Err(PersonalError::NoMatch { layers: layers.to_string(), some: some(&names) });
        }
        if names.iter().all(|name| self.holds(name, &norms)) {
            let layers = self.texts().iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
            return Err(PersonalError::NothingShared { layers, tensors: names.len() });
        }
        Ok(())
    }

    /// Runs [`check`](Self::check) on the tensors of the base and of all updates.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_round(&self, base: Option<&Base>, updates: &[Update]) -> Result<(), PersonalError> {
        let models = base.map(|base| &base.model).into_iter();
        let models = models.chain(updates.iter().filter_map(|update| update.model.as_ref()));
        self.check(models.flat_map(|model| model.table.iter().map(|place| place.spec.name.as_str())))
    }
}

/// Some of the names, for a message.
pub(super) fn some(names: &BTreeSet<&str>) -> String {
    let listed: Vec<String> = names.iter().take(MOST_LISTED).map(|name| format!("`{name}`")).collect();
    match names.len().checked_sub(MOST_LISTED) {
        None | Some(0) => listed.join(", "),
        Some(more) => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn personal(layers: &[&str]) -> Personal {
        Personal { layers: layers.iter().map(|text| text.parse().unwrap()).collect() }
    }

    /// The personal tensors among `names`.
    fn held<'n>(layers: &[&str], names: &[&'n str]) -> Vec<&'n str> {
        let mut norms = NormModules::default();
        norms.extend(names.iter().copied());
        let personal = personal(layers);
        names.iter().copied().filter(|name| personal.holds(name, &norms)).collect()
    }

    #[test]
    fn batch_normalisation_is_known_by_its_statistics_and_by_its_name() {
        let names = [
            "conv1.weight",
            "bn1.weight",
            "encoder.norm.running_var",
            "encoder.norm.weight",
            "encoder.norm.num_batches_tracked",
            "encoder.normal.weight",
            "encoder.ln.weight",
            "encoder.norm.inner.weight",
            "batch_normalization_3/gamma",
            "block/thing/moving_mean",
            "block/thing/beta",
            "stage.BatchNorm2d.bias",
            "running_mean",
        ];
        let expected = [
            "bn1.weight",
            "encoder.norm.running_var",
            "encoder.norm.weight",
            "encoder.norm.num_batches_tracked",
            "batch_normalization_3/gamma",
            "block/thing/moving_mean",
            "block/thing/beta",
            "stage.BatchNorm2d.bias",
        ];
        assert_eq!(held(&["fedbn"], &names), expected);
    }

    #[test]
    fn heads_are_found_by_their_names() {
        let names = [
            "head.weight",
            "model.head.bias",
            "fc.weight",
            "fc1.weight",
            "mlp.c_fc.weight",
            "net.classifier.0.weight",
            "lm_head.weight",
            "layer.0.output.dense.weight",
            "output.weight",
            "score.weight",
            "ahead.weight",
        ];
        let expected = [
            "head.weight",
            "model.head.bias",
            "fc.weight",
            "net.classifier.0.weight",
            "lm_head.weight",
            "output.weight",
            "score.weight",
        ];
        assert_eq!(held(&["fedper"], &names), expected);
    }

    #[test]
    fn patterns_are_globs_over_whole_names() {
        let names = ["a.weight", "a.b.weight", "ab.bias", "c[0].bias"];
        assert_eq!(held(&["a.*"], &names), ["a.weight", "a.b.weight"]);
        assert_eq!(held(&["a?.bias", "a.weight"], &names), ["a.weight", "ab.bias"]);
        assert_eq!(held(&["c[[]0].*"], &names), ["c[0].bias"]);
        assert!("a[".parse::<Layers>().is_err());
    }

    #[test]
    fn most_models_tell_which_modules_have_statistics() {
        let (with, without) = (["a.running_mean", "a.weight"], ["a.weight", "b.weight"]);
        for (models, is_personal) in [(vec![with, without], false), (vec![with, without, with], true)] {
            let models: Vec<_> = models.iter().map(|names| names.iter().copied()).collect();
            let norms = NormModules::of_most(models);
            assert_eq!(personal(&["fedbn"]).holds("a.weight", &norms), is_personal);
        }
    }

    #[test]
    fn patterns_have_to_match_something_and_not_all() {
        let check = |layers: &[&str], names: &[&str]| {
            personal(layers).check(names.iter().copied()).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["a", "b"], &["a", "b", "c"]), Ok(()));
        assert_eq!(check(&["x"], &[]), Ok(()));
        let nothing = "personal layers `x.*`: no tensor matches, expected names such as `a`, `b`";
        assert_eq!(check(&["a", "x.*"], &["b", "a"]).unwrap_err(), nothing);
        let many = check(&["x"], &["1", "2", "3", "4", "5", "6", "7", "8"]).unwrap_err();
        assert!(many.ends_with("`5`, `6` and 2 more"), "{many}");
        let all = "personal layers `a`, `?`: all 2 tensors are personal, expected some that clients share";
        assert_eq!(check(&["a", "?"], &["b", "a"]).unwrap_err(), all);
    }
}
