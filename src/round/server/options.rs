//! Messages of other rooms name options of `aggregate`; an operator of rounds has keys.

/// The options that have a key of `fedmill.toml`.
const KEYS: [(&str, &str); 22] = [
    ("--byzantine", "robustness.byzantine_tolerance"),
    ("--count", "coordination.clients"),
    ("--dp", "privacy.enabled"),
    ("--dropout", "coordination.dropout"),
    ("--epsilon", "privacy.epsilon"),
    ("--groups", "secure.groups"),
    ("--helpers", "secure.helpers"),
    ("--kind", "strategy.update_kind"),
    ("--max-clients", "coordination.max_clients"),
    ("--max-examples", "robustness.max_examples"),
    ("--max-wait", "coordination.max_wait"),
    ("--min-clients", "coordination.min_clients"),
    ("--on-bad-update", "robustness.on_bad_update"),
    ("--personal", "personalization.layers"),
    ("--pre", "robustness.pre"),
    ("--rule", "robustness.rule"),
    ("--secure-aggregation", "secure.enabled"),
    ("--seed", "coordination.seed"),
    ("--strategy", "strategy.name"),
    ("--tier", "coordination.tiers"),
    ("--tiers", "tiers.file"),
    ("--weights", "robustness.weights"),
];

/// The options that rounds have nothing for: an operator of rounds can do nothing with what a message says of them.
const WITHOUT_KEY: [&str; 35] = [
    "--allow-empty",
    "--allow-lora-factors",
    "--allow-sparse-robust",
    "--allow-unprotected",
    "--at",
    "--base",
    "--client-id-from",
    "--compat",
    "--distances",
    "--dp-statistics",
    "--dtype",
    "--explain",
    "--files-from",
    "--max-shard-size",
    "--metrics",
    "--missing",
    "--on-duplicate-content",
    "--opaque",
    "--output",
    "--overlap",
    "--partial",
    "--partials",
    "--plan-out",
    "--plot",
    "--population",
    "--release-again",
    "--report",
    "--report-clients",
    "--resumable",
    "--round",
    "--secure-threshold",
    "--shadow-rules",
    "--state",
    "--statistics",
    "--state-init",
];

/// A message with keys in place of options. A part behind a semicolon that needs an option which rounds lack is left out;
/// `None` if nothing is left.
pub fn in_settings(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split("; ").filter(|part| !needs_option(part)).collect();
    (!parts.is_empty()).then(|| with_keys(&parts.join("; ")))
}

/// A message with keys in place of options, as a whole.
pub fn with_keys(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("--") {
        let (before, option) = (&rest[..at], option_at(&rest[at..]));
        told.push_str(before);
        let key = KEYS.iter().find(|(name, _)| *name == option && is_named(before));
        told.push_str(key.map_or(option, |(_, key)| key));
        rest = &rest[at + option.len()..];
    }
    told + rest
}

fn needs_option(part: &str) -> bool {
    let named = part.match_indices("--").filter(|(at, _)| is_named(&part[..*at]));
    named.into_iter().any(|(at, _)| WITHOUT_KEY.contains(&option_at(&part[at..])))
}

/// Whether the text before an option leads to one. Names of clients and tensors stand between backticks.
fn is_named(before: &str) -> bool {
    before.is_empty() || before.ends_with([' ', '(', '"'])
}

/// The option that a text begins with.
fn option_at(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_lowercase() && letter != '-');
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_keys_and_names_of_clients_do_not() {
        let told = |text: &str| in_settings(text).unwrap();
        assert_eq!(
            told("krum tolerates at most 1 hostile of 5 clients, but --byzantine says 3"),
            "krum tolerates at most 1 hostile of 5 clients, but robustness.byzantine_tolerance says 3"
        );
        assert_eq!(
            told("a round is refused; --allow-empty makes the round nevertheless"),
            "a round is refused"
        );
        assert_eq!(in_settings("pass --dtype for a model of a wider dtype"), None);
        for name in ["tensor `--weights` is missing", "client `a--rule` is late", "--unknown is 3"] {
            assert_eq!(told(name), name);
        }
    }
}
