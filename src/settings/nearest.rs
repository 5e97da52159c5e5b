//! The known name that is nearest to an unknown one.

/// The name, in lower-case letters, that is most like another one, if any is much like it.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Jaro and Winkler miss letters that changed places in a short name.
    let found = found.to_lowercase();
    let likeness = |name: &str| {
        strsim::jaro_winkler(&found, name).max(strsim::normalized_damerau_levenshtein(&found, name))
    };
    let alike = known.into_iter().map(|name| (likeness(name), name));
    let best = alike.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
    (best.0 > 0.65).then_some(best.1)
}
