//! `fedmill.toml`: its keys, its faults, and findings about settings that do not fit together.

mod lint;

use crate::harness::{Dir, fedmill};
use fedmill::config::sections::{Mode, OnBad};
use fedmill::config::{Config, keys, template};
use fedmill::telemetry::explain::Explain;
use jiff::SignedDuration;
use std::path::Path;

/// The settings of a text.
fn config(text: &str) -> Config {
    Config::parse(Path::new("fedmill.toml"), text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

/// The lines of the error of a text.
fn faults(text: &str) -> Vec<String> {
    Config::parse(Path::new("f.toml"), text).unwrap_err().lines()
}

#[test]
fn an_empty_file_has_the_defaults_of_the_sources() {
    let config = config("");
    assert_eq!(config, Config::default());
    let coordination = &config.coordination;
    assert_eq!((coordination.min_clients, coordination.max_clients), (10, 1000));
    assert_eq!((coordination.selection.as_str(), coordination.round_timeout.as_secs()), ("weighted", 300));
    let privacy = &config.privacy;
    assert_eq!((privacy.epsilon, privacy.delta, privacy.noise_multiplier), (10.0, 1e-5, 1.0));
    assert_eq!((config.secure.groups, config.secure.clip, config.compression.target), (1, 1.0, 0.01));
    assert_eq!((config.robustness.byzantine_tolerance, config.strategy.mu), (0.3, 0.1));
}

#[test]
fn keys_are_read() {
    let config = config(
        "robustness.on_bad_update = 'fail'\n[coordination]\nround_timeout = '1h 30m'\nmode = 'async'\n\
         dropout = 0\n[adaptation]\nround_timeout = ['1m', '2h']\nclients = [1, 5]\n",
    );
    assert_eq!(config.coordination.round_timeout, SignedDuration::from_secs(5400));
    assert_eq!((config.coordination.mode, config.robustness.on_bad_update), (Mode::Async, OnBad::Fail));
    let bounds = [SignedDuration::from_secs(60), SignedDuration::from_secs(7200)];
    assert_eq!((config.adaptation.round_timeout, config.adaptation.clients), (Some(bounds), Some([1, 5])));
}

#[test]
fn unknown_keys_are_named_with_the_nearest_all_at_once() {
    let text =
        "[coordination]\nmin_client = 3\nepsilon = 1\n\n[privcy]\ndelta = 1e-6\n\n[privacy]\nNoise = 2\n";
    let found = faults(text);
    assert_eq!(
        found,
        [
            "f.toml:2: unknown key `coordination.min_client`, the nearest is `coordination.min_clients`",
            "f.toml:3: unknown key `coordination.epsilon`, the nearest is `privacy.epsilon`",
            "f.toml:5: unknown section or key `privcy`, the nearest is `privacy`",
            "f.toml:9: unknown key `privacy.Noise`, the nearest is `privacy.noise_multiplier`",
        ]
    );
    assert_eq!(
        faults("epsilon = 1\n"),
        ["f.toml:1: unknown section or key `epsilon`, the nearest is `privacy.epsilon`"]
    );
}

#[test]
fn wrong_types_are_named_all_at_once() {
    let text = "[coordination]\nmin_clients = '3'\nmax_clients = -1\nround_timeout = 300\nmode = 'later'\n\
                [privacy]\nenabled = 1\nepsilon = 'x'\n[evaluation]\ncommand = 'run'\ntimeout = 'soon'\n\
                [adaptation]\nquorum = [0.1]\nround_timeout = ['1m', 'x']\n";
    assert_eq!(
        faults(text),
        [
            "f.toml:2: coordination.min_clients: found string \"3\", expected a whole number that is not negative",
            "f.toml:3: coordination.max_clients: found integer `-1`, expected a whole number that is not negative",
            "f.toml:4: coordination.round_timeout: found integer `300`, expected a duration such as \"300s\" or \"1h 30m\"",
            "f.toml:5: coordination.mode: found `later`, expected `sync` or `async`",
            "f.toml:7: privacy.enabled: found integer `1`, expected true or false",
            "f.toml:8: privacy.epsilon: found string \"x\", expected a number",
            "f.toml:10: evaluation.command: found string \"run\", expected a list",
            "f.toml:11: evaluation.timeout: found string \"soon\", expected a duration such as \"300s\" or \"1h 30m\"",
            "f.toml:13: adaptation.quorum: found a list of length 1, expected two values",
            "f.toml:14: adaptation.round_timeout: found string \"x\", expected a duration such as \"300s\" or \"1h 30m\"",
        ]
    );
}

#[test]
fn bad_values_are_named_all_at_once() {
    let share = "a share above 0 and at most 1";
    for (text, expected) in [
        ("coordination.min_clients = 0", "coordination.min_clients: found 0, expected a count above 0"),
        (
            "coordination.min_clients = 1001",
            "coordination.min_clients: found 1001, expected at most max_clients, 1000",
        ),
        (
            "coordination.clients = 1001",
            "coordination.clients: found 1001, expected at most max_clients, 1000",
        ),
        ("coordination.dropout = 1.0", "coordination.dropout: found 1, expected a share from 0 to below 1"),
        ("coordination.dropout = nan", "coordination.dropout: found NaN, expected a share from 0 to below 1"),
        ("coordination.quorum = 0", &format!("coordination.quorum: found 0, expected {share}")),
        (
            "coordination.round_timeout = '0s'",
            "coordination.round_timeout: found 0s, expected a time above 0",
        ),
        ("coordination.buffer = 0", "coordination.buffer: found 0, expected a count above 0"),
        ("coordination.max_wait = 0", "coordination.max_wait: found 0, expected a count above 0"),
        ("coordination.rounds = 0", "coordination.rounds: found 0, expected a count above 0"),
        (
            "robustness.byzantine_tolerance = 0.5",
            "robustness.byzantine_tolerance: found 0.5, expected a share from 0 to below 0.5",
        ),
        (
            "robustness.max_examples = inf",
            "robustness.max_examples: found inf, expected a finite number above 0",
        ),
        ("strategy.mu = -1", "strategy.mu: found -1, expected a finite number that is not negative"),
        ("strategy.local_steps = 0", "strategy.local_steps: found 0, expected a count above 0"),
        ("privacy.epsilon = 0", "privacy.epsilon: found 0, expected a finite number above 0"),
        ("privacy.delta = 1", "privacy.delta: found 1, expected a number between 0 and 1"),
        (
            "privacy.noise_multiplier = 0",
            "privacy.noise_multiplier: found 0, expected a finite number above 0",
        ),
        ("privacy.clip = -1", "privacy.clip: found -1, expected a finite number above 0"),
        ("secure.clip = 0", "secure.clip: found 0, expected a finite number above 0"),
        (
            "secure.statistics_clip = nan",
            "secure.statistics_clip: found NaN, expected a finite number above 0",
        ),
        ("secure.groups = 0", "secure.groups: found 0, expected a count above 0"),
        ("secure.threshold = 0", "secure.threshold: found 0, expected a count above 0"),
        ("secure.values_per_lane = 9", "secure.values_per_lane: found 9, expected 1 to 8"),
        ("secure.keep = \"many\"", "secure.keep: found many, expected a fraction such as 0.1, or a count"),
        ("secure.min_survivors = 1", "secure.min_survivors: found 1, expected at least 2 clients"),
        (
            "secure.weights = 'examples:cap=0'",
            "secure.weights: found examples:cap=0, expected uniform or examples:cap=N",
        ),
        ("compression.target = 0", &format!("compression.target: found 0, expected {share}")),
        (
            "compression.bytes_per_update = 0",
            "compression.bytes_per_update: found 0, expected a count above 0",
        ),
        ("evaluation.timeout = '-1s'", "evaluation.timeout: found -1s, expected a time above 0"),
        (
            "evaluation.max_regression = -0.1",
            "evaluation.max_regression: found -0.1, expected a finite number that is not negative",
        ),
        ("publish.keep_last = 0", "publish.keep_last: found 0, expected a count above 0"),
        (
            "adaptation.quorum = [0.9, 0.5]",
            "adaptation.quorum: found [0.9, 0.5], expected the lower bound first",
        ),
        ("adaptation.quorum = [0, 1]", &format!("adaptation.quorum: found 0, expected {share}")),
        ("adaptation.clients = [0, 1]", "adaptation.clients: found 0, expected a count above 0"),
        (
            "adaptation.local_steps = [3, 1]",
            "adaptation.local_steps: found [3, 1], expected the lower bound first",
        ),
        (
            "adaptation.round_timeout = ['1h', '1m']",
            "adaptation.round_timeout: found [1h, 1m], expected the lower bound first",
        ),
        (
            "adaptation.server_learning_rate = [0, 1]",
            "adaptation.server_learning_rate: found 0, expected a number above 0",
        ),
        (
            "adaptation.compression_target = [0.1, 2]",
            &format!("adaptation.compression_target: found 2, expected {share}"),
        ),
        ("adaptation.bytes_per_round = 0", "adaptation.bytes_per_round: found 0, expected a count above 0"),
        ("monitoring.window = 1", "monitoring.window: found 1, expected at least 2 rounds"),
    ] {
        assert_eq!(faults(text), [format!("f.toml:1: {expected}")]);
    }
    for (text, start) in [
        (
            "robustness.rule = 'kurm'",
            "robustness.rule: `kurm` is not understood: found rule `kurm`, expected one of mean,",
        ),
        (
            "robustness.pre = ['nmm']",
            "robustness.pre: `nmm` is not understood: found step `nmm`, expected one of nnm,",
        ),
        ("strategy.name = 'fedadan'", "strategy.name: `fedadan` is not understood: found strategy `fedadan`"),
        (
            "compression.methods = ['u8', 'zip']",
            "compression.methods: `zip` is not understood: found codec `zip`",
        ),
        ("personalization.layers = ['head.[']", "personalization.layers: `head.[` is not understood"),
        (
            "coordination.selection = 'best'",
            "coordination.selection: `best` is not understood: found selection strategy `best`",
        ),
        (
            "robustness.weights = 'metadata:'",
            "robustness.weights: found metadata:, expected examples, uniform, metadata:KEY or a file",
        ),
    ] {
        let found = faults(text);
        assert!(found.len() == 1 && found[0].starts_with(&format!("f.toml:1: {start}")), "{found:?}");
    }
    let two = faults("[privacy]\ndelta = 1\nbogus = 1\nclip = 'x'\n");
    assert_eq!(two.len(), 3, "{two:?}");
    // A default that does not suit another value has no line.
    assert_eq!(
        faults("coordination.max_clients = 5"),
        [
            "f.toml: coordination.clients: found 10, expected at most max_clients, 5",
            "f.toml: coordination.min_clients: found 10, expected at most max_clients, 5",
        ]
    );
}

#[test]
fn what_is_not_toml_is_named() {
    assert_eq!(
        faults("[coordination\nmin_clients = 3\n"),
        ["f.toml:1: not TOML: unclosed table, expected `]`"]
    );
    assert_eq!(faults("[privacy]\ndelta = 1\ndelta = 2\n"), ["f.toml:3: not TOML: duplicate key"]);
    assert_eq!(
        faults("privacy = 3\n"),
        ["f.toml:1: privacy: found integer `3`, expected a section with keys"]
    );
}

#[test]
fn the_template_parses_to_the_defaults_as_it_is_and_with_every_key() {
    let seeded = template(7);
    assert_eq!(config(&seeded).coordination.seed, 7, "the one key that is set");
    let text = seeded.replace("\nseed = 7\n", "\n#seed = 0\n");
    assert_eq!(config(&text), Config::default());
    let keys: usize = keys::sections().iter().map(|section| section.keys.len()).sum();
    let is_key = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    let live = text.lines().map(|line| if is_key(&line) { &line[1..] } else { line });
    let live = live.collect::<Vec<_>>().join("\n");
    assert_eq!(config(&live), Config::default());
    let examples = text.lines().filter(|line| line.starts_with("# For example: ")).count();
    assert_eq!(text.lines().filter(is_key).count() + examples, keys, "{text}");
    // The examples are valid too.
    let live = text.replace("# For example: ", "");
    config(&live);
}

#[test]
fn a_missing_file_is_an_error_with_a_hint() {
    let dir = Dir::new();
    let run = fedmill(&dir, &["round", "check", "."]);
    run.assert_fails(2, &["./fedmill.toml: is missing", "fedmill round init ."]);
}
