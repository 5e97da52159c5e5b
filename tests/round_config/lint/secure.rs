//! Findings about secure rounds.

use super::{config, facts};
use fedmill::lint::{Finding, Level, lint};

/// A secure round of one group.
const SECURE: &str = "secure.enabled = true\nrobustness = { rule = 'mean', byzantine_tolerance = 0 }\n";

fn errors(text: &str) -> Vec<Finding> {
    let found = lint(&config(text), &facts());
    found.into_iter().filter(|finding| finding.level == Level::Error).collect()
}

#[test]
fn a_secure_round_of_one_group_has_the_mean() {
    assert_eq!(errors(SECURE), []);
    for (key, settings) in [
        ("robustness.rule", "rule = 'krum', byzantine_tolerance = 0"),
        ("robustness.pre", "rule = 'mean', pre = ['nnm'], byzantine_tolerance = 0"),
        ("robustness.byzantine_tolerance", "rule = 'mean', byzantine_tolerance = 0.2"),
    ] {
        let found = errors(&format!("secure.enabled = true\nrobustness = {{ {settings} }}"));
        let [finding] = found.as_slice() else { panic!("{key}: {found:#?}") };
        assert_eq!(finding.key, key);
        assert!(finding.remedy.contains("secure.groups = 5 or more"), "{finding:#?}");
        assert!(errors(&format!("robustness = {{ {settings} }}")).iter().all(|other| other != finding));
    }
}

#[test]
fn a_rule_judges_groups_as_it_judges_clients() {
    let grouped = |groups: u64, rule: &str| {
        let least = 2 * groups.max(5);
        errors(&format!(
            "secure = {{ enabled = true, groups = {groups} }}\ncoordination = {{ min_clients = {least}, clients = {least} }}\n\
             robustness = {{ rule = '{rule}', byzantine_tolerance = 0.3 }}"
        ))
    };
    assert_eq!(grouped(5, "median"), []);
    let found = grouped(4, "krum");
    let [finding] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(finding.key, "robustness.rule");
    assert!(finding.remedy.contains("raise secure.groups to"), "{finding:#?}");
}

#[test]
fn what_needs_single_updates_is_an_error_in_secure_rounds_alone() {
    let cases = [
        ("secure.groups", "coordination = { min_clients = 9, clients = 9 }\nsecure.groups = 5"),
        ("secure.groups", "coordination = { min_clients = 9, clients = 9 }\nsecure.min_survivors = 10"),
        ("secure.values_per_lane", "secure.values_per_lane = 8"),
        ("secure.keep", "secure.keep = '0.5'\nsecure.values_per_lane = 2"),
        ("strategy.name", "strategy.name = 'fednova'"),
        ("strategy.name", "strategy.name = 'fedbuff'\ncoordination.mode = 'async'"),
        ("coordination.mode", "strategy.name = 'fedbuff'\ncoordination.mode = 'async'"),
        ("privacy.enabled", "privacy = { enabled = true, epsilon = 1000 }\ncoordination.rounds = 1"),
        ("tiers.file", "tiers.file = 't.json'"),
        ("personalization.layers", "personalization.layers = ['head.*']"),
        ("compression.methods", "compression.methods = ['topk']"),
        ("robustness.weights", "robustness.max_examples = 5"),
        ("coordination.selection", "coordination.selection = 'oort'"),
        ("coordination.selection", "coordination.selection = 'poisson'"),
    ];
    for (key, settings) in cases {
        let secure = "secure.enabled = true\nrobustness.rule = 'mean'\nrobustness.byzantine_tolerance = 0\n";
        let has = |text: &str| errors(text).iter().any(|finding| finding.key == key);
        assert!(has(&format!("{secure}{settings}")), "{key}: {settings}");
        let clear = secure.replace("secure.enabled = true", "secure.enabled = false");
        assert!(!has(&format!("{clear}{settings}")), "{key}: {settings}");
    }
}
