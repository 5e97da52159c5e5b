//! What a round prints and records names keys of `fedmill.toml`, and no option of another command.

use super::federation::{Federation, STATE};
use crate::harness::Update;
use fedmill::round::server::options;

const SIX: &str = "[coordination]\nmin_clients = 2\nclients = 6\nquorum = 0.5\nround_timeout = \"1h\"\n";

/// The names of a command's options.
fn names(command: &clap::Command) -> Vec<String> {
    command.get_arguments().filter_map(clap::Arg::get_long).map(|name| format!("--{name}")).collect()
}

#[test]
fn every_option_has_a_key_or_is_left_out() {
    let command = fedmill::cli::command();
    let of = |words: [&str; 2]| {
        let above = command.find_subcommand(words[0]).unwrap();
        names(above.find_subcommand(words[1]).unwrap_or(above))
    };
    let (run, shown) = (of(["round", "run"]), ["--json", "--test-seed", "--gpu-slots"]);
    let is_own = |option: &String| run.contains(option) && option != "--min-clients";
    let all = [of(["aggregate", ""]), of(["clients", "select"])].concat();
    for option in all.iter().filter(|option| !is_own(option) && !shown.contains(&option.as_str())) {
        let told = options::in_settings(&format!("pass {option} for it"));
        assert!(told.is_none_or(|told| !told.contains("--")), "{option}");
    }
}

/// What a run prints, and what it records of the round.
#[track_caller]
fn assert_says_no_option(federation: &Federation, expected: &str) {
    let run = federation.round("run", &[]);
    let history = federation.round("history", &["--json"]).stdout;
    let show = federation.round("show", &[]).stdout;
    let reasons = federation.dir.path(&format!("{STATE}/rounds/000001/quarantine/reasons.jsonl"));
    let reasons = std::fs::read_to_string(reasons).unwrap_or_default();
    let lines = [&run.stderr, &history, &show, &reasons];
    assert!(lines.iter().any(|text| text.contains(expected)), "no `{expected}` in {lines:#?}");
    for text in lines {
        assert!(!text.contains(" --") && !text.contains("\"--"), "{text}");
    }
}

#[test]
fn a_rule_that_tolerates_fewer_names_the_key() {
    let settings = format!("{SIX}[robustness]\nrule = \"krum\"\nbyzantine_tolerance = 0.17\n");
    let federation = Federation::new(6, &settings.replace("quorum = 0.5", "quorum = 1.0"));
    federation.advance();
    federation.deliver(1, 0);
    // Half of the clients send nothing that counts: the rule gets fewer than the settings promised.
    for client in federation.selected(1).into_iter().take(4) {
        let nan = Update::new("nan").f32("a", &[10], &[f32::NAN; 10]).f32("b", &[5, 6], &[0.0; 30]);
        let nan = nan.meta("kind", "delta").meta("num_examples", "3").meta("round", "1");
        federation.put(1, &format!("client-{client}.safetensors"), &nan.bytes());
    }
    assert_says_no_option(&federation, "refused");
}

#[test]
fn updates_without_examples_name_the_key() {
    let federation = Federation::new(
        6,
        &format!("{SIX}[robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\nweights = \"examples\"\n"),
    );
    federation.advance();
    for client in federation.selected(1) {
        let update = Update::new("u").f32("a", &[10], &[1.0; 10]).f32("b", &[5, 6], &[0.0; 30]);
        let update = update.meta("kind", "delta").meta("round", "1");
        federation.put(1, &format!("client-{client}.safetensors"), &update.bytes());
    }
    assert_says_no_option(&federation, "num_examples");
}

#[test]
fn a_private_round_without_updates_names_no_option() {
    let settings = "[coordination]\nmin_clients = 2\nclients = 6\nrounds = 3\nround_timeout = \"1s\"\n\
                    [robustness]\nrule = \"mean\"\nbyzantine_tolerance = 0.0\n\
                    [privacy]\nenabled = true\nepsilon = 20.0\ndelta = 1e-5\nnoise_multiplier = 2.0\nclip = 0.5\n";
    let federation = Federation::new(6, settings);
    federation.advance();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_says_no_option(&federation, "no update counts");
}
