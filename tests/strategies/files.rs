//! Strategies through files: ten processes against the oracle; with every rule; refusals.

use super::{ROUNDS, base, rounds};
use crate::harness::{Contents, Dir, Model, Update, fedmill, shortest};
use crate::reference::strategies::{
    Adaptive, Client, POPULATION, Server, Strategy as Oracle, cases, simulate,
};
use fedmill::model::state::StateTensor;
use fedmill::rules::{self, Needs, RULES};
use fedmill::settings::Definition;
use fedmill::strategies::{self, Strategy};

/// The end of the first tensor.
const CUT: usize = 20;

fn vector(name: &str, values: &[f64]) -> Update {
    Update::new(name).f64("a", &[5, 4], &values[..CUT]).f64("b", &[values.len() - CUT], &values[CUT..])
}

fn read(model: &Model, prefix: &str) -> Vec<f64> {
    ["a", "b"].iter().flat_map(|name| model.f64(&format!("{prefix}{name}"))).collect()
}

fn write_client(dir: &Dir, name: &str, client: &Client, with_controls: bool) {
    let mut update = vector(name, &client.delta).i64("n", &[1], &[client.local_steps as i64]);
    if with_controls {
        let (a, b) = client.delta_c.split_at(CUT);
        update = update.f64("scaffold.delta_c.a", &[5, 4], a).f64("scaffold.delta_c.b", &[b.len()], b);
    }
    let metadata = [
        ("kind", "delta".to_owned()),
        ("num_examples", client.weight.to_string()),
        ("local_steps", client.local_steps.to_string()),
        ("momentum", client.momentum.to_string()),
        ("proximal_mu", client.mu.to_string()),
        ("local_lr", client.lr.to_string()),
        ("loss", client.loss.to_string()),
        ("round", client.round.to_string()),
    ];
    metadata.iter().fold(update, |update, (key, value)| update.meta(key, value)).write(dir);
}

/// The output of the rounds.
struct Ran {
    /// The model after each round.
    models: Vec<Vec<f64>>,
    /// The state after the last round, by the prefix of its tensors.
    kept: Vec<(&'static str, Vec<f64>)>,
}

/// The prefixes of a strategy's state tensors.
fn prefixes(strategy: &dyn Strategy) -> Vec<&'static str> {
    let prefix = |slot| match slot {
        StateTensor::Momentum => "m.",
        StateTensor::SecondMoment => "v.",
        StateTensor::Control => "c.",
        StateTensor::Centre => panic!("a strategy keeps no centre"),
    };
    strategy.keeps().into_iter().map(|kept| prefix(kept.slot)).collect()
}

/// Runs ten rounds.
fn run(text: &str, definition: Definition) -> Ran {
    let dir = Dir::new();
    let strategy = strategies::parse(text, definition).unwrap();
    let kept = prefixes(strategy.as_ref());
    let with_controls = kept.contains(&"c.");
    vector("model-0", &base()).i64("n", &[1], &[3]).write(&dir);
    let mut models = Vec::new();
    for (round, clients) in rounds().iter().enumerate() {
        let (from, to) = (format!("model-{round}.safetensors"), format!("model-{}.safetensors", round + 1));
        let (folder, round) = (format!("in-{round}"), round.to_string());
        for (i, client) in clients.iter().enumerate() {
            write_client(&dir, &format!("{folder}/client-{i}"), client, with_controls);
        }
        let mut args = vec!["aggregate", "-q", &folder, "--base", &from, "--strategy", text, "-o", &to];
        let compat = definition.to_string();
        if definition != Definition::Paper {
            args.extend(["--compat", &compat]);
        }
        if !kept.is_empty() {
            args.extend(["--state", "state.safetensors"]);
        }
        let population = POPULATION.to_string();
        if with_controls {
            args.extend(["--population", &population]);
        }
        if strategy.takes_stale() {
            args.extend(["--round", &round]);
        }
        fedmill(&dir, &args).assert_merged(&to);
        models.push(read(&Model::read(&dir, &to), ""));
    }
    let state = |prefix: &&'static str| (*prefix, read(&Model::read(&dir, "state.safetensors"), prefix));
    Ran { models, kept: kept.iter().map(state).collect() }
}

#[track_caller]
fn assert_near(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{what}: {got} is not {want}");
    }
}

#[test]
fn ten_processes_are_the_rounds_of_the_oracle() {
    for (text, definition, oracle) in cases() {
        let want: Vec<Server> = simulate(&oracle, &base(), &rounds());
        // The sums of distances are in f32.
        let needs = strategies::parse(text, definition).unwrap().needs();
        let tolerance = if needs >= Needs::Geometry { 1e-5 } else { 1e-10 };
        let Ran { models, kept } = run(text, definition);
        for (round, (got, want)) in models.iter().zip(&want).enumerate() {
            assert_near(got, &want.x, tolerance, &format!("{text} by {definition}, round {round}"));
        }
        let last = &want[ROUNDS - 1];
        for (prefix, got) in kept {
            let mut want = match prefix {
                "m." => last.m.clone(),
                "v." => last.v.clone(),
                _ => last.c.clone(),
            };
            if let (Oracle::Adaptive(Adaptive { tau, tau_under_root: true, .. }), "v.") = (&oracle, prefix) {
                want.iter_mut().for_each(|v| *v += tau);
            }
            assert_near(&got, &want, 1e-10, &format!("{prefix} of {text} by {definition}"));
        }
    }
}

/// A round of seven clients as deltas of a base.
fn one_round() -> Dir {
    let dir = Dir::new();
    vector("base", &base()).i64("n", &[1], &[3]).write(&dir);
    for (i, client) in rounds()[0].iter().enumerate() {
        write_client(&dir, &format!("in/client-{i}"), client, false);
    }
    dir
}

const ARGS: [&str; 6] = ["aggregate", "in", "--base", "base.safetensors", "-o", "m.safetensors"];

fn merged(dir: &Dir, more: &[&str]) -> Model {
    fedmill(dir, &[&ARGS[..], &["-q"], more].concat()).assert_merged("m.safetensors");
    Model::read(dir, "m.safetensors")
}

/// Adam on the result of any rule: the step is computed by hand from the rule's merged delta. Integers have no step.
#[test]
fn a_strategy_follows_every_rule() {
    for rule in RULES.iter().map(|entry| shortest(entry, "client-0")) {
        let dir = one_round();
        let most = rules::parse(&rule, Definition::Paper).unwrap().tolerates(7);
        let with_rule = ["--rule", &rule, "--byzantine", if most > 0 { "1" } else { "0" }];
        let plain = merged(&dir, &with_rule);
        let adam = ["--strategy", "fedadam:lr=0.5,tau=0.1", "--state", "s.safetensors"];
        let stepped = merged(&dir, &[&with_rule[..], &adam].concat());
        let want: Vec<f64> = read(&plain, "")
            .iter()
            .zip(base())
            .map(|(merged, base)| {
                let delta = merged - base;
                base + 0.5 * (0.1 * delta) / ((0.99 * 0.01 + 0.01 * delta * delta).sqrt() + 0.1)
            })
            .collect();
        assert_near(&read(&stepped, ""), &want, 1e-9, &rule);
        assert_eq!(stepped.bytes("n"), plain.bytes("n"), "{rule}: integers are not stepped");
    }
}

/// A strategy that scales deltas before the rule: the median of the scaled deltas, computed by hand.
#[test]
fn deltas_are_scaled_before_the_rule() {
    let clients = &rounds()[0];
    let dir = one_round();
    let strategy = ["--strategy", "fednova:steps=5", "--rule", "median"];
    let got = merged(&dir, &strategy);
    let alone = |i: usize| {
        simulate(
            &Oracle::FedNova { lr: 1.0, gmf: 0.0, steps: Some(5.0) },
            &base(),
            &[vec![clients[i].clone()]],
        )
    };
    let rows: Vec<Vec<f64>> = (0..clients.len()).map(|i| alone(i)[0].x.clone()).collect();
    let median = |j: usize| {
        let mut column: Vec<f64> = rows.iter().map(|row| row[j]).collect();
        column.sort_by(f64::total_cmp);
        column[column.len() / 2]
    };
    assert_near(
        &read(&got, ""),
        &(0..base().len()).map(median).collect::<Vec<_>>(),
        1e-10,
        "median of fednova",
    );
}

/// One claim moves tau_eff, the mean of all claims, and with it every scaled delta. No rule bounds that: a warning says so.
#[test]
fn a_claim_of_many_steps_that_moves_tau_eff_is_a_warning() {
    let dir = Dir::new();
    Update::new("base").f64("w", &[1], &[0.0]).write(&dir);
    let client = |i: usize, steps: &str| {
        let update = Update::new(&format!("in/c{i}")).f64("w", &[1], &[1.0]).meta("kind", "delta");
        update.meta("num_examples", "1").meta("local_steps", steps).write(&dir);
    };
    (0..4).for_each(|i| client(i, "10"));
    let run = |strategy: &str, rule: &str| {
        let out = ["aggregate", "in", "--base", "base.safetensors", "-o", "out.safetensors"];
        let done = fedmill(&dir, &[&out[..], &["--strategy", strategy, "--rule", rule]].concat());
        done.assert_merged("out.safetensors");
        (Model::read(&dir, "out.safetensors").f64("w")[0], done.stderr)
    };
    for (most, is_far) in [("100", false), ("110", true)] {
        client(4, most);
        let effective = (40.0 + most.parse::<f64>().unwrap()) / 5.0;
        let (w, stderr) = run("fednova", "median");
        assert!((w - effective / 10.0).abs() < 1e-12, "{w}");
        let warning = format!(
            "client c4 claims {most} effective steps, over 10 times the 10 of most clients: its claim takes tau_eff, the \
             factor of all updates, to {effective:.1}; fednova:steps=N fixes tau_eff"
        );
        assert_eq!(stderr.contains(&warning), is_far, "{stderr}");
        assert!(stderr.contains("its claim moves tau_eff, the factor of all updates"), "{stderr}");
        assert_eq!(run("fednova", "mean").1.contains(&warning), is_far);
        let (w, stderr) = run("fednova:steps=10", "median");
        assert_eq!(w, 1.0);
        assert!(stderr.contains("a hostile client chooses its own factor\n"), "{stderr}");
        assert!(!stderr.contains("tau_eff"), "{stderr}");
    }
    // Factors are no protection.
    let mean = ["aggregate", "in", "--base", "base.safetensors", "-o", "m.safetensors", "--byzantine", "2"];
    let part = "mean tolerates at most 0 hostile of 5 clients, but --byzantine says 2";
    fedmill(&dir, &[&mean[..], &["--strategy", "fednova"]].concat()).assert_fails(2, &[part]);
}

#[track_caller]
fn assert_refused(dir: &Dir, more: &[&str], parts: &[&str]) {
    let before: Contents = dir.contents();
    fedmill(dir, &[&ARGS[..], more].concat()).assert_fails(2, parts);
    dir.assert_unchanged_since(&before);
}

/// A round in which one client's metadata is changed or missing.
fn round_with(key: &str, value: Option<&str>) -> Dir {
    let dir = one_round();
    let client = &rounds()[0][3];
    let known =
        [("kind", "delta"), ("num_examples", "5"), ("local_steps", "4"), ("loss", "1"), ("round", "0")];
    let metadata = known.iter().filter(|(known, _)| *known != key).map(|(key, value)| (*key, *value));
    let metadata = metadata.chain(value.map(|value| (key, value)));
    let update = vector("in/client-3", &client.delta).i64("n", &[1], &[1]);
    metadata.fold(update, |update, (key, value)| update.meta(key, value)).write(&dir);
    dir
}

#[test]
fn what_an_update_lacks_is_named_and_nothing_is_written() {
    let client = "in/client-3.safetensors: ";
    for (strategy, more, key, value, said) in [
        (
            "fednova",
            &[][..],
            "local_steps",
            None,
            "fednova needs metadata `local_steps`: found none, expected a whole",
        ),
        ("fednova", &[], "local_steps", Some("2.5"), "`local_steps`: found 2.5"),
        ("fednova", &[], "local_steps", Some("-2"), "metadata `local_steps` is `-2`, expected"),
        ("qfedavg:local-lr=0.1", &[], "loss", None, "qfedavg needs metadata `loss`: found none"),
        (
            "fedbuff",
            &["--round", "3"],
            "round",
            None,
            "fedbuff needs metadata `round`: found none, expected a round",
        ),
        ("fedbuff", &["--round", "3"], "round", Some("4"), "`round`: found 4, expected a round from 0 to 3"),
        (
            "fedbuff",
            &["--round", "3"],
            "round",
            Some("-1"),
            "metadata `round` is `-1`, expected a whole number",
        ),
        ("fedbuff:max-staleness=2", &["--round", "2"], "round", Some("9"), "`round`: found 9"),
        ("fedbuff", &["--round", "3"], "kind", Some("weights"), "expected"),
    ] {
        let dir = round_with(key, value);
        let args = [&["--strategy", strategy][..], more].concat();
        assert_refused(&dir, &args, &[client, said]);
        if !(strategy.starts_with("fedbuff") && key == "kind") {
            let skipped = [&args[..], &["--on-bad-update", "skip", "--report", "r.json"]].concat();
            fedmill(&dir, &[&ARGS[..], &skipped].concat()).assert_merged("m.safetensors");
            assert_eq!(dir.json("r.json")["rejected"][0]["id"], "client-3", "{strategy} {key}");
        }
    }
}

#[test]
fn what_a_run_lacks_is_named_and_nothing_is_written() {
    let dir = one_round();
    for (args, said) in [
        (&["--strategy", "fedadam"][..], "fedadam keeps state between rounds, expected --state FILE"),
        (&["--strategy", "fednova", "--state", "s"], "keep nothing between rounds"),
        (
            &["--strategy", "scaffold", "--state", "s", "--population", "20"],
            "in/client-0.safetensors: tensor `scaffold.delta_c.a` is missing",
        ),
        (&["--strategy", "fedbuff"], "--round is missing"),
        (&["--strategy", "fedexp", "--rule", "median"], "fedexp with median has no meaning: "),
        (
            &["--strategy", "fedbuff:normalize=weights", "--round", "1", "--rule", "median"],
            "fedbuff:normalize=weights with median has no meaning: ",
        ),
        (&["--strategy", "qfedavg:local-lr=1", "--weights", "examples"], "all clients weigh the same"),
        (&["--strategy", "fedsgd"], "found strategy `fedsgd`, expected one of fedavg, fedprox, "),
        (&["--strategy", "fedadam:beta1=1", "--state", "s"], "fedadam: beta1: "),
    ] {
        let before = dir.contents();
        let run = fedmill(&dir, &[&ARGS[..], args].concat());
        assert!(run.code == Some(2) && run.stderr.contains(said), "{args:?}: {run:#?}");
        dir.assert_unchanged_since(&before);
    }
    let run = fedmill(&dir, &["aggregate", "in", "-o", "m.safetensors", "--strategy", "fedavg:lr=0.5"]);
    run.assert_fails(2, &["fedavg:lr=0.5 moves the base, expected --base MODEL"]);
}

#[test]
fn a_population_is_required_and_large_enough() {
    let dir = Dir::new();
    vector("base", &base()).i64("n", &[1], &[3]).write(&dir);
    for (i, client) in rounds()[0].iter().enumerate() {
        write_client(&dir, &format!("in/client-{i}"), client, true);
    }
    let scaffold = ["--strategy", "scaffold", "--state", "s.safetensors"];
    assert_refused(&dir, &scaffold, &["scaffold: --population is missing"]);
    assert_refused(&dir, &[&scaffold[..], &["--population", "6"]].concat(), &["scaffold: --population is 6"]);
    assert_refused(
        &dir,
        &["--rule", "mean"],
        &["`scaffold.delta_c.a` is not expected", "--strategy scaffold"],
    );
    fedmill(&dir, &[&ARGS[..], &scaffold, &["--population", "7"]].concat()).assert_merged("m.safetensors");
}

#[test]
fn a_buffer_that_is_not_full_is_refused_by_policy() {
    let dir = one_round();
    let args = [&ARGS[..], &["--strategy", "fedbuff:buffer=8", "--round", "2"]].concat();
    fedmill(&dir, &args).assert_fails(1, &["7 usable updates (0 rejected), expected at least 8"]);
    assert!(!dir.exists("m.safetensors"));
}

#[test]
fn a_state_of_another_strategy_or_model_stays_as_it_is() {
    let dir = one_round();
    merged(&dir, &["--strategy", "fedadam", "--state", "s.safetensors"]);
    let state = ["--state", "s.safetensors"];
    let yogi = [&["--strategy", "fedyogi"][..], &state].concat();
    assert_refused(
        &dir,
        &yogi,
        &["s.safetensors: is not the state of this run: metadata `fedmill.state` is `fedadam`"],
    );
    let both = [&["--strategy", "fedadam", "--rule", "centered-clipping"][..], &state].concat();
    assert_refused(&dir, &both, &["expected `centered-clipping+fedadam`"]);
    vector("base", &vec![0.5; base().len()]).i64("n", &[1], &[3]).write(&dir);
    let adam = [&["--strategy", "fedadam"][..], &state].concat();
    assert_refused(
        &dir,
        &adam,
        &["s.safetensors: belongs to the model blake3:", "hint: pass the model of digest"],
    );
}

/// The metadata for clients of the next round, and the report's figures.
#[test]
fn clients_and_report_get_the_settings() {
    let dir = one_round();
    let model = merged(&dir, &["--strategy", "fedprox:mu=0.25"]);
    assert_eq!(model.metadata["proximal_mu"], "0.25");
    assert_eq!(read(&model, ""), read(&merged(&dir, &[]), ""), "the server's side of fedprox is the average");
    let flower =
        ["--strategy", "fedadam", "--state", "s.safetensors", "--compat", "flower", "--report", "r.json"];
    let model = merged(&dir, &flower);
    assert_eq!(model.metadata["fedmill.strategy"], "fedadam");
    assert_eq!(model.metadata["fedmill.definition"], "flower");
    assert_eq!(model.metadata["fedmill.steps"], "1");
    let figures = &dir.json("r.json")["strategy"];
    assert_eq!((figures["strategy"].as_str(), figures["steps"].as_u64()), (Some("fedadam"), Some(0)));
    assert!(
        figures["server_step"].as_str().unwrap().starts_with("m = 0.9 m + (1 - 0.9) delta; v = 0.99 v"),
        "{figures}"
    );
    merged(&dir, &["--strategy", "fedbuff:normalize=weights", "--round", "4", "--report", "r.json"]);
    let figures = dir.json("r.json")["strategy"].to_string();
    assert!(figures.contains("normaliz"), "{figures}");
}
