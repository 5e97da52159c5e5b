//! Names of options, variables and fields: whether what they set protects clients.

use crate::schema::value::Scalar;

/// Words of names that protect clients. No name with such a word is tuned.
pub const NEVER_TUNED: [&str; 30] = [
    "adversaries",
    "adversary",
    "budget",
    "byzantine",
    "clip",
    "clipping",
    "delta",
    "dp",
    "eps",
    "epsilon",
    "f",
    "frozen",
    "hostile",
    "limit",
    "limits",
    "min",
    "minimum",
    "noise",
    "norm",
    "privacy",
    "private",
    "quorum",
    "sampling",
    "sensitivity",
    "sigma",
    "threshold",
    "trim",
    "z",
    "clients",
    "updates",
];

/// Parts of words of names that protect clients, for names without marks between their words.
const NEVER_TUNED_PARTS: [&str; 12] = [
    "byzantine",
    "clip",
    "delta",
    "epsilon",
    "minclient",
    "minupdate",
    "noise",
    "privacy",
    "quorum",
    "sampl",
    "sensitiv",
    "threshold",
];

/// Words of names that a value may follow which changes: rates and counts of training, of the server and of compression.
pub const KNOWN: [&str; 29] = [
    "batch",
    "beta",
    "compression",
    "decay",
    "dropout",
    "epoch",
    "epochs",
    "gmf",
    "iterations",
    "learning",
    "local",
    "lr",
    "mix",
    "momentum",
    "mu",
    "patience",
    "q",
    "rate",
    "ratio",
    "rule",
    "server",
    "size",
    "step",
    "steps",
    "tau",
    "temperature",
    "v",
    "warmup",
    "weight",
];
/// The words of a name, in lower case and without digits: of `--minClients`, `min_clients` and `MIN-CLIENTS` the same.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for character in name.chars() {
        let begins = character.is_ascii_uppercase() && before.is_ascii_lowercase();
        if begins || !character.is_alphabetic() {
            words.push(String::new());
        }
        if character.is_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.extend(character.to_lowercase());
        }
        before = character;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a name says that its value protects clients.
pub(super) fn protects(name: &str) -> bool {
    let words = words(name);
    let joined = words.concat();
    // `--e_p_s` and `--d-p` spell such words too.
    let is_spelled = || {
        let runs = (0..words.len()).flat_map(|from| (from + 1..words.len()).map(move |to| from..=to));
        runs.into_iter().any(|run| NEVER_TUNED.contains(&words[run].concat().as_str()))
    };
    words.iter().any(|word| protects_as_word(word))
        || is_spelled()
        || NEVER_TUNED_PARTS.iter().any(|part| joined.contains(part))
}

/// The fewest letters with which a word counts as the beginning of another: parsers of options take abbreviations.
const LEAST_LETTERS: usize = 3;

/// Whether a word protects clients, is the beginning of such a word, or begins or ends with one, as `dpeps` does.
fn protects_as_word(word: &str) -> bool {
    let is_long = |word: &str| word.len() >= LEAST_LETTERS;
    let holds = |part: &str| {
        // `localsteps` ends with the letters of `eps`.
        let ends = word.ends_with(part) && !(part == "eps" && word.ends_with("steps"));
        // `minibatch` begins with those of `min`.
        is_long(part) && part != "min" && (word.starts_with(part) || ends)
    };
    let mut never = NEVER_TUNED.iter().chain(&NEVER_TUNED_PARTS);
    NEVER_TUNED.contains(&word)
        || !KNOWN.contains(&word)
            && never.any(|never| is_long(word) && never.starts_with(word) || holds(never))
}

/// The first of the declared values that is more than the name of a rule.
pub(super) fn with_settings(values: &[Scalar]) -> Option<&str> {
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    values.iter().find_map(|value| match value {
        Scalar::Text(text) if !is_name(text) => Some(text.as_str()),
        _ => None,
    })
}

/// What of the settings that protect clients a declared value sets, as in `krum:f=1`.
pub(super) fn set_by(value: &Scalar) -> Option<String> {
    let Scalar::Text(text) = value else { return None };
    let is_setting = |key: &&str| {
        let words = words(key);
        let whole = words.join("_");
        matches!(words.as_slice(), [word] if NEVER_TUNED.contains(&word.as_str()))
            || ["min_clients", "clip_norm", "noise_multiplier"].contains(&whole.as_str())
    };
    let keys = text.split([':', ',', ' ']).filter_map(|part| part.split('=').next());
    keys.into_iter().find(is_setting).map(|key| format!("{key} by the value `{text}`"))
}

/// Whether all words of a name are known to be harmless.
pub(super) fn is_known(name: &str) -> bool {
    let words = words(name);
    !words.is_empty() && words.iter().all(|word| KNOWN.contains(&word.as_str()))
}

/// Whether a name is one for rules.
pub(super) fn is_of_rules(name: &str) -> bool {
    words(name).iter().any(|word| word == "rule")
}
