//! The registry that has a name which an operator looked for in another one.

use super::STRATEGIES;
use crate::rules::RULES;
use crate::rules::pre::STEPS;
use crate::settings::{RegistryEntry, SpecError};

/// The message for a text that names no rule, step or strategy. A name of another kind gets the option that takes it.
pub fn message(why: &SpecError) -> String {
    let SpecError::UnknownName { found, .. } = why else { return why.to_string() };
    match elsewhere(found) {
        Some(kind) => kind,
        None => why.to_string(),
    }
}

fn elsewhere(name: &str) -> Option<String> {
    if has(STRATEGIES, name) {
        return Some(format!("`{name}` is a strategy, expected --strategy {name}; its rule is `mean`"));
    }
    if has(RULES, name) {
        return Some(format!("`{name}` is a rule, expected --rule {name}"));
    }
    has(STEPS, name).then(|| format!("`{name}` is a step before the rule, expected --pre {name}"))
}

fn has<T>(registry: &[RegistryEntry<T>], name: &str) -> bool {
    registry.iter().any(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules;
    use crate::settings::Definition;

    #[test]
    fn names_of_other_kinds_get_their_option() {
        let rule = |text| message(&rules::parse(text, Definition::Paper).unwrap_err());
        assert_eq!(rule("fedavg"), "`fedavg` is a strategy, expected --strategy fedavg; its rule is `mean`");
        assert_eq!(rule("nnm"), "`nnm` is a step before the rule, expected --pre nnm");
        assert!(rule("medain").ends_with("; did you mean `median`?"), "{}", rule("medain"));
        let strategy = message(&super::super::parse("krum", Definition::Paper).unwrap_err());
        assert_eq!(strategy, "`krum` is a rule, expected --rule krum");
    }
}
