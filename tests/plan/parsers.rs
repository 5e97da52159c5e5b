//! Plans and conditions changed at random: no panic, no long wait, and each error names its place.
//!
//! `FEDMILL_MUTATIONS` sets the number of changed plans, and of changed conditions.

use super::lint::sound;
use crate::fuzz_seeds::{check_condition, check_plan};
use crate::harness::{Dir, fedmill};
use crate::rng::Rng;
use fedmill::language::condition::Condition;
use fedmill::plan::read::{self, MOST_BYTES};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Changed plans, and conditions.
const MUTATIONS: u64 = 1500;

/// The longest time for one of them, on the slowest machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Reads, checks and draws a text. Returns whether it is a plan.
fn check(text: &str) -> bool {
    let began = Instant::now();
    let is_plan = check_plan::check(text.as_bytes());
    assert!(began.elapsed() < LONGEST, "{text}");
    is_plan
}

/// Parses and evaluates a text. Returns whether it is a condition.
fn judge(text: &str) -> bool {
    let began = Instant::now();
    let is_condition = check_condition::check(text.as_bytes());
    assert!(began.elapsed() < LONGEST, "{text}");
    is_condition
}

fn mutations() -> u64 {
    std::env::var("FEDMILL_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS)
}

/// Values that no field expects.
const HOSTILE: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "-0.0",
    "1e308",
    "18446744073709551616",
    "9223372036854775808",
    "0.1",
    "4294967296",
    "\"\"",
    "\"{\"",
    "\"{in.updates|}\"",
    "\"{a.b.c}\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"../x\"",
    "[]",
    "[null]",
    "{}",
    "[[]]",
    "{\"a\":1,\"a\":2}",
    "\"9999999999999999999 s\"",
    "\"-1s\"",
    "{\"x-\":{\"x-\":[]}}",
];

/// The pointers to all values below a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(object) => {
            object
                .iter()
                .for_each(|(key, value)| pointers(value, &format!("{at}/{}", key.replace('/', "~1")), found));
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(place, value)| pointers(value, &format!("{at}/{place}"), found));
        }
        _ => {}
    }
}

/// A text with bytes taken out, put in, or exchanged, at places where a character ends.
fn edited(text: &str, words: &[&str], rng: &mut Rng) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..=rng.below(3) {
        let at = rng.below(letters.len() as u64 + 1) as usize;
        let end = (at + rng.below(6) as usize).min(letters.len());
        let word: Vec<char> = words[rng.below(words.len() as u64) as usize].chars().collect();
        match rng.below(3) {
            0 => drop(letters.drain(at..end)),
            1 => drop(letters.splice(at..at, word)),
            _ => drop(letters.splice(at..end, word)),
        }
    }
    letters.into_iter().collect()
}

#[test]
fn changed_plans_are_read_or_refused_at_a_place() {
    let plan = sound();
    let mut places = Vec::new();
    pointers(&plan, "", &mut places);
    let (mut read, mut refused) = (0, 0);
    for seed in 0..mutations() {
        let mut rng = Rng::new(seed);
        let text = if rng.chance(70) {
            // A hostile value at a place, which stands in the text as itself: some are no value of `serde_json`.
            let mut plan = plan.clone();
            let place = &places[rng.below(places.len() as u64) as usize];
            *plan.pointer_mut(place).unwrap() = Value::String("HERE".to_owned());
            plan.to_string().replace("\"HERE\"", HOSTILE[rng.below(HOSTILE.len() as u64) as usize])
        } else {
            edited(
                &plan.to_string(),
                &["\"", "{", "}", "[", "]", ",", ":", "\\", "1e9", "\u{fffd}", "x-"],
                &mut rng,
            )
        };
        if check(&text) { read += 1 } else { refused += 1 }
    }
    assert!(read > 0 && refused > read, "{read} {refused}");
}

#[test]
fn plans_of_hostile_shapes_are_refused_at_a_place() {
    let with = |body: &str| {
        sound().to_string().replacen("\"goal\":\"everything once\"", &format!("\"x-pad\":{body}"), 1)
    };
    assert!(check(&with("0")), "the place takes a value");
    for (deep, is_read) in [(100, true), (200, false), (200_000, false)] {
        let nested = with(&("[".repeat(deep) + &"]".repeat(deep)));
        assert_eq!(check(&nested), is_read, "{deep} lists");
        let nested = with(&("{\"a\":".repeat(deep) + "0" + &"}".repeat(deep)));
        assert_eq!(check(&nested), is_read, "{deep} objects");
    }
    assert!(!check(&with("{\"a\":0,\"a\":1}")) && !check(&with("\"\\ud800\"")) && !check(&with("1e999")));
    let twice = sound().to_string().replacen("\"id\":\"all\"", "\"id\":\"all\",\"id\":\"all\"", 1);
    let why = read::parse(&twice, Path::new("p.json")).unwrap_err().to_string();
    assert!(why.contains("`id`"), "{why}");
    let deep = sound().to_string().replacen("\"{carry.model}\"", "\"{carry.model}\",7", 1);
    let why = read::parse(&deep, Path::new("p.json")).unwrap_err().to_string();
    assert!(why.starts_with("p.json:1:") && why.contains(": $.stages[1].argv[3]: "), "{why}");
}

#[test]
fn a_plan_has_a_largest_size() {
    let dir = Dir::new();
    let plan = |bytes: u64| {
        let agents = json!({"a": {"kind": "command", "argv": ["true"]}});
        let stages = json!([{"id": "s", "agent": "a", "timeout": {"run": "1m"}}]);
        let plan =
            json!({"schema": "fedmill.plan/1", "id": "p", "agents": agents, "stages": stages}).to_string();
        let pad = bytes as usize - plan.len() - "\"x-pad\":\"\",".len();
        plan.replacen('{', &format!("{{\"x-pad\":\"{}\",", "p".repeat(pad)), 1)
    };
    dir.write("fits.json", plan(MOST_BYTES));
    let run = fedmill(&dir, &["plan", "lint", "fits.json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    dir.write("large.json", plan(MOST_BYTES + 1));
    let run = fedmill(&dir, &["plan", "lint", "large.json"]);
    run.assert_fails(2, &["large.json: found 67108865 bytes, expected at most 67108864"]);
}

/// Conditions with each operator and function.
const CONDITIONS: &[&str] = &[
    "metrics.loss < 0.5 && !(stages.a.ok || stages.b.failed)",
    "history.loss.all(x, x > 0.1) || history.loss.exists(x, x * 2.0 == 1.0)",
    "size(history.loss) >= 3 && slope(history.loss) < -1e-3 && last(history.loss) != 0.0",
    "has(metrics.loss) ? min(params.n, 3) == 3 : params.n % 2 == 0",
    "choices.vote in ['a', \"b\"] && iteration.k + 1 <= iteration.max",
    "abs(mean(history.loss) - median(history.loss)) / 2.0 > 1e-9 && page_hinkley(history.loss, 0.1, 1.0) == 0",
    "history.loss.filter(x, x > 0.0).map(x, int(x) - 1).exists_one(x, x == 0)",
];

const WORDS: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "&&",
    "||",
    "!",
    "-",
    "?",
    ":",
    ".",
    "..",
    "9223372036854775808",
    "1e999",
    "0x",
    "'",
    "\"",
    "\\",
    "\u{0}",
    "\u{1f600}",
    "in",
    "null",
    "/ 0",
    "%",
    "metrics",
    ".all(x, ",
    "history.loss",
    "-9223372036854775808",
    "'a' * 3",
    "{",
    "}",
];

#[test]
fn changed_conditions_are_evaluated_or_refused() {
    let known = check_condition::known();
    for text in CONDITIONS {
        assert!(Condition::parse(text).unwrap().evaluate(&known).is_ok(), "{text}");
    }
    let (mut good, mut bad) = (0, 0);
    for seed in 0..mutations() {
        let mut rng = Rng::new(seed);
        let text = CONDITIONS[rng.below(CONDITIONS.len() as u64) as usize];
        if judge(&edited(text, WORDS, &mut rng)) { good += 1 } else { bad += 1 }
    }
    assert!(good > 0 && bad > 0, "{good} {bad}");
    for part in ["(", "-", "!", "[", "a.", "a?b:", "a||", "x.all(x,", "'", "1+"] {
        for count in [10, 60, 1000, 100_000] {
            judge(&part.repeat(count));
            judge(&(part.repeat(count) + "true" + &")".repeat(count)));
        }
    }
}
