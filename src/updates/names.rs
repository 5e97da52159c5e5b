//! What tensor names tell of an update that does not fit: wrappers of a model, tied weights.

use crate::model::layout::TensorSpec;

/// What wrappers of PyTorch put before every name: DataParallel, torch.compile, FSDP.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "_fsdp_wrapped_module."];

/// Names of output layers that models tie to their embedding.
const HEADS: [&str; 4] =
    ["lm_head.weight", "embed_out.weight", "output_projection.weight", "predictions.decoder.weight"];

/// Names of embeddings.
const EMBEDDINGS: [&str; 6] = [
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "shared.weight",
];

/// The prefix of a wrapper that all of these names have and none of the others has, though the rest of a name is the
/// same.
pub(crate) fn wrapper<'n>(
    names: impl Iterator<Item = &'n str> + Clone,
    others: impl Iterator<Item = &'n str> + Clone,
) -> Option<&'static str> {
    WRAPPERS.into_iter().find(|prefix| {
        let bare = |name: &'n str| name.strip_prefix(prefix);
        names.clone().all(|name| bare(name).is_some())
            && others.clone().all(|name| bare(name).is_none())
            && names.clone().filter_map(bare).any(|name| others.clone().any(|other| other == name))
    })
}

/// The embedding that an output layer may be tied to: one of its shape among these tensors.
pub(crate) fn tied<'t>(
    name: &str,
    shape: &[usize],
    among: impl IntoIterator<Item = &'t TensorSpec>,
) -> Option<&'t str> {
    if !HEADS.iter().any(|head| name.ends_with(head)) {
        return None;
    }
    let is_embedding =
        |spec: &&TensorSpec| spec.shape == shape && EMBEDDINGS.iter().any(|end| spec.name.ends_with(end));
    among.into_iter().find(is_embedding).map(|spec| spec.name.as_str())
}

#[cfg(test)]
mod tests {
    #[test]
    fn wrappers_are_told_by_every_name() {
        let wrapper =
            |a: &[&'static str], b: &[&'static str]| super::wrapper(a.iter().copied(), b.iter().copied());
        assert_eq!(wrapper(&["module.a", "module.b"], &["a", "b"]), Some("module."));
        assert_eq!(wrapper(&["_orig_mod.a"], &["a", "b"]), Some("_orig_mod."));
        assert_eq!(wrapper(&["module.a", "b"], &["a", "b"]), None);
        assert_eq!(wrapper(&["module.a"], &["module.b"]), None);
        assert_eq!(wrapper(&["module.x"], &["a"]), None);
    }
}
