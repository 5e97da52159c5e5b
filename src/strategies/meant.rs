//! The registry that has a name which an operator looked for in another one.

use super::STRATEGIES;
use crate::rules::RULES;
use crate::rules::pre::STEPS;
use crate::settings::{RegistryEntry, SpecError};

/// The message for a text that names no rule, step or strategy. A name of another kind gets the option that takes it.
pub fn message(why: &SpecError) -> String {
    let SpecError::UnknownName { found, known, .. } = why else { return why.to_string() };
    let is_known = known.split(", ").any(|name| name.eq_ignore_ascii_case(found));
    match elsewhere(found) {
        Some(kind) if !is_known => kind,
        _ => why.to_string(),
    }
}

fn elsewhere(name: &str) -> Option<String> {
    if let Some(name) = of(STRATEGIES, name) {
        return Some(format!("`{name}` is a strategy, expected --strategy {name}; its rule is `mean`"));
    }
    if let Some(name) = of(RULES, name) {
        return Some(format!("`{name}` is a rule, expected --rule {name}"));
    }
    of(STEPS, name).map(|name| format!("`{name}` is a step before the rule, expected --pre {name}"))
}

fn of<T>(registry: &[RegistryEntry<T>], name: &str) -> Option<&'static str> {
    registry.iter().map(|entry| entry.name).find(|known| known.eq_ignore_ascii_case(name))
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
        assert_eq!(rule("FedAvg"), rule("fedavg"));
        assert!(rule("Krum").ends_with("; did you mean `krum`?"), "{}", rule("Krum"));
        assert_eq!(rule("nnm"), "`nnm` is a step before the rule, expected --pre nnm");
        assert!(rule("medain").ends_with("; did you mean `median`?"), "{}", rule("medain"));
        let strategy = message(&super::super::parse("krum", Definition::Paper).unwrap_err());
        assert_eq!(strategy, "`krum` is a rule, expected --rule krum");
    }
}
