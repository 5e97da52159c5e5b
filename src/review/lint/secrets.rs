//! Secrets in plain text. A finding shows only the first characters of one.

use super::finding::Lint;
use super::rules;
use crate::language::template::each_text;
use crate::schema::agent::Agent;

/// Headers that carry a secret.
const HEADERS: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-auth-token",
    "cookie",
    "x-access-token",
    "private-token",
];

/// The beginnings of keys, and how many letters and digits follow at least.
const KEYS: [(&str, usize); 10] = [
    ("sk-", 20),
    ("sk_live_", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 30),
    ("github_pat_", 30),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("hf_", 30),
    ("AIza", 30),
];

/// The last words of names that hold a secret.
const NAMES: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "credential",
];

pub(super) fn check(lint: &mut Lint) {
    let plan = lint.plan;
    for (name, agent) in &plan.agents {
        let at = format!("$.agents.{name}");
        match agent {
            Agent::Command(agent) => check_arguments(lint, &format!("{at}.argv"), &agent.argv),
            Agent::Http(agent) => {
                for (header, value) in &agent.headers {
                    check_header(lint, &format!("{at}.headers.{header}"), header, value);
                }
            }
            Agent::Ollama(_) => {}
        }
    }
    for (place, stage) in plan.stages.iter().enumerate() {
        let at = format!("$.stages[{place}]");
        check_arguments(lint, &format!("{at}.argv"), &stage.argv);
        for (name, value) in &stage.env {
            check_named(lint, format!("{at}.env.{name}"), name, value);
        }
    }
    for (name, value) in &plan.params {
        check_named(lint, format!("$.params.{name}"), name.as_str(), &value.to_string());
    }
    check_keys(lint);
}

/// Every text of the plan that looks like a key.
fn check_keys(lint: &mut Lint) {
    let value = serde_json::to_value(lint.plan).unwrap_or_default();
    let mut found = Vec::new();
    each_text(&value, "$", &mut |at, text| {
        if let Some(what) = key_in(text) {
            found.push((at, what));
        }
    });
    for (at, what) in found {
        let why = format!(
            "found {what}, expected `env:NAME` in a header, or the name of a variable in `env` of the agent"
        );
        lint.add(&rules::SECRET, at, why);
    }
}

/// What a text holds that is a secret.
fn key_in(text: &str) -> Option<String> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("a private key".to_owned());
    }
    KEYS.iter().find_map(|(start, least)| {
        text.match_indices(start).find_map(|(at, _)| {
            // A key begins a word.
            if text[..at].ends_with(|c: char| c.is_ascii_alphanumeric()) {
                return None;
            }
            let rest = &text[at + start.len()..];
            let length =
                rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).count();
            let has_digit = rest.chars().take(length).any(|c| c.is_ascii_digit());
            (length >= *least && has_digit).then(|| format!("a text that begins with `{start}` like a key"))
        })
    })
}

fn check_header(lint: &mut Lint, at: &str, header: &str, value: &str) {
    let is_secret = HEADERS.contains(&header.to_ascii_lowercase().as_str());
    let is_read = value.starts_with("env:");
    if is_secret && !is_read && !value.is_empty() {
        let why = format!("found a value of `{header}` in plain text, expected `env:NAME`");
        lint.add(&rules::SECRET, at, why);
    }
}

fn check_arguments(lint: &mut Lint, at: &str, argv: &[String]) {
    for (place, argument) in argv.iter().enumerate() {
        let at = format!("{at}[{place}]");
        match argument.split_once('=') {
            Some((name, value)) => check_named(lint, at, name, value),
            None => {
                let before = place.checked_sub(1).map(|before| argv[before].as_str());
                if let Some(name) = before.filter(|name| name.starts_with('-') && !name.contains('=')) {
                    check_named(lint, at, name, argument);
                }
            }
        }
    }
}

/// A value beside a name that is that of a secret.
fn check_named(lint: &mut Lint, at: String, name: &str, value: &str) {
    let plain = name.trim_start_matches('-').to_ascii_lowercase().replace('-', "_");
    let is_secret = NAMES.iter().any(|secret| {
        plain.strip_suffix(secret).is_some_and(|before| before.is_empty() || before.ends_with('_'))
    });
    let is_value = value.len() >= 4
        && !value.contains(['{', '/', ' '])
        && !value.starts_with(['-', '$'])
        && !value.starts_with("env:")
        && value.parse::<f64>().is_err();
    if is_secret && is_value {
        let why = format!(
            "found a value of `{name}` in plain text, expected a variable of the runner that `env` of the agent lists"
        );
        lint.add(&rules::LIKELY_SECRET, at, why);
    }
}
