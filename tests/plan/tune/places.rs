//! What is never tuned, and where a tuned value may stand: the runner and the linter agree.

use super::{Toy, noise, plan, setup};
use crate::harness::fedmill;
use crate::rng::Rng;
use fedmill::plan::read;
use fedmill::plan::run::drive::drive;
use fedmill::plan::run::machine::Machine;
use fedmill::plan::run::world::Job;
use fedmill::schema::Plan;
use fedmill::schema::looped::Policy;
use fedmill::schema::value::Scalar;
use fedmill::tuning::Step;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn what_is_frozen_or_protects_clients_never_changes() {
    let names = ["x", "y", "f", "eps", "delta", "quorum", "min_clients", "clip", "noise_multiplier"];
    let mut rng = Rng::new(99);
    let (mut refused, mut ran) = (0, 0);
    for round in 0..400 {
        let pick = |rng: &mut Rng| names[rng.below(names.len() as u64) as usize];
        let (tuned, frozen) = (if rng.chance(60) { "x" } else { pick(&mut rng) }, pick(&mut rng));
        let policy = ["climb", "random", "fedexp", "asha", "pbt"][rng.below(5) as usize];
        let ratio = 1.05 + rng.below(100) as f64 / 50.0;
        let tune = json!({"param": format!("/params/{tuned}"), "policy": policy, "max_ratio": ratio, "seed": round,
            "bounds": [0.25, 4.0], "validate": {"gain": 0.0, "replay_rounds": 2}, "rollback": {"tabu": rng.below(3)}});
        let mut plan = plan(12, &tune);
        for name in names {
            plan.params.entry(name.parse().unwrap()).or_insert(Scalar::Real(1.0));
        }
        let argument =
            ["--lr={params.x}", "--clip={params.x}", "krum:f={params.x}", "--rate={params.x}", "{params.x}"];
        let argument = argument[rng.below(5) as usize];
        plan.stages[0].argv.push(argument.to_owned());
        plan.safety.frozen = vec![format!("/params/{frozen}")];
        let measure = |job: &Job| {
            let step = noise(job, round);
            vec![("loss", 10.0 + step), ("cost", 1.0), ("fedexp", 10f64.powf(step))]
        };
        let mut toy = Toy::new(&measure);
        let may = ["x", "y"].contains(&tuned)
            && tuned != frozen
            && (tuned != "x" || ["--lr={params.x}", "--rate={params.x}"].contains(&argument));
        let machine = Machine::new(setup(&plan), &[], &mut toy);
        assert_eq!(machine.is_ok(), may, "{tuned}, {frozen}, {argument}");
        let Ok(mut machine) = machine else {
            refused += 1;
            continue;
        };
        ran += 1;
        let before: BTreeMap<String, fedmill::language::condition::Value> =
            plan.params.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        drive(&mut machine, BTreeMap::new(), &mut toy).unwrap();
        let after = machine.state.params(machine.state.current(0));
        for (name, value) in &before {
            assert!(name == tuned || after[name] == *value, "{name} changed while {tuned} was tuned");
        }
        let mut used = plan.params[tuned].number().unwrap();
        for (_, step) in &machine.state.tuned.loops[&0].history {
            if let Step::Try { candidate, .. } = step {
                let candidate = candidate.number().unwrap();
                let by = candidate / used;
                assert!((0.25..=4.0).contains(&candidate), "{candidate}");
                assert!(by <= ratio * (1.0 + 1e-12) && by >= (1.0 - 1e-12) / ratio, "{by}, {ratio}");
            }
            match step {
                Step::Judge { trial, verdict } if verdict.accepted => {
                    let mut tries =
                        machine.state.tuned.loops[&0].history.iter().filter_map(|(_, step)| match step {
                            Step::Try { trial: number, candidate, .. } if number == trial => {
                                candidate.number()
                            }
                            _ => None,
                        });
                    used = tries.next_back().unwrap();
                }
                Step::Back { to, .. } => used = to.number().unwrap(),
                _ => {}
            }
        }
    }
    assert!(refused > 100 && ran > 50, "{refused} refused, {ran} ran");
}

/// A plan whose loop tunes `x`, in a stage with these fields and these first arguments of its command.
fn tuned(agent: &[&str], stage: &Value, sink: &[&str]) -> Plan {
    let mut step = json!({"id": "step", "agent": "tool", "metrics": ["loss"],
        "out": [{"name": "m", "path": "-", "metrics": true}]});
    step.as_object_mut().unwrap().extend(stage.as_object().unwrap().clone());
    let plan = json!({"schema": "fedmill.plan/1", "id": "p", "params": {"x": 0.4, "b": 1},
        "agents": {"tool": {"kind": "command", "argv": agent},
            "web": {"kind": "http", "url": "http://127.0.0.1:1/"}},
        "limits": {"hosts": ["127.0.0.1"]}, "stages": [step],
        "loops": [{"id": "l", "over": ["step"], "max_iters": 4, "tune": {"param": "/params/x", "bounds": [0.1, 10.0],
            "every": 2, "sink": sink, "validate": {"shadow": ["step"], "metric": "loss", "replay_rounds": 2}}}]});
    read::parse(&plan.to_string(), Path::new("plan.json")).unwrap()
}

/// Whether the runner takes a plan; the linter must agree.
fn is_taken(plan: &Plan) -> bool {
    let found = fedmill::review::lint::lint(plan);
    let refused = found.iter().any(|finding| finding.rule == "never-tuned");
    let toy = |_: &Job| Vec::new();
    let taken = Machine::new(setup(plan), &[], &mut Toy::new(&toy)).is_ok();
    assert_eq!(taken, !refused, "{found:?}");
    taken
}

#[test]
fn a_tuned_value_stands_only_where_it_is_known_to_be_harmless() {
    let argv = |words: &[&str]| json!({"argv": words});
    for stage in [
        argv(&["--lr", "{params.x}"]),
        argv(&["--server-lr={params.x}"]),
        argv(&["--localSteps", "{params.x}"]),
        json!({"argv": ["train"], "env": {"LEARNING_RATE": "{params.x}"}}),
        json!({"argv": ["train"], "when": "params.x > 0.1"}),
        json!({"agent": "web", "body": {"train": {"lr": "{params.x}"}}}),
        json!({"agent": "web", "body": {"lr": ["{params.x}"]}}),
    ] {
        assert!(is_taken(&tuned(&["train"], &stage, &[])), "{stage}");
    }
    for stage in [
        argv(&["--eps", "{params.x}"]),
        argv(&["--eps", "{params.x|params.x}"]),
        argv(&["--lr", "{params.x|params.b}"]),
        argv(&["--eps=0{params.x}"]),
        argv(&["--eps= {params.x}"]),
        argv(&["--lr=0{params.x}"]),
        argv(&["--lr", "0{params.x}"]),
        argv(&["--rule", "krum:f=0{params.x}"]),
        argv(&["--EPS", "{params.x}"]),
        argv(&["-eps", "{params.x}"]),
        argv(&["--minClients", "{params.x}"]),
        argv(&["--minclients", "{params.x}"]),
        argv(&["--dp-eps", "{params.x}"]),
        argv(&["--max-norm", "{params.x}"]),
        argv(&["--sampling-rate", "{params.x}"]),
        argv(&["--unheard-of", "{params.x}"]),
        argv(&["{params.x}"]),
        argv(&["lr", "{params.x}"]),
        argv(&["lr={params.x}"]),
        json!({"argv": ["x"], "stdin": "lr = {params.x}"}),
        json!({"argv": ["x"], "stdin": "min_clients = {params.x}"}),
        json!({"argv": ["x"], "env": {"FEDMILL_EPS": "{params.x}"}}),
        json!({"argv": ["x"], "env": {"FEDMILL_LR": "{params.x}"}}),
        json!({"argv": ["x"], "env": {"ARGS": "--eps {params.x}"}}),
        json!({"argv": ["x"], "env": {"LR": "--eps {params.x}"}}),
        json!({"argv": ["x"], "out": [{"name": "m", "path": "m-{params.x}", "metrics": true}]}),
        json!({"agent": "web", "body": {"eps": ["{params.x}"]}}),
        json!({"agent": "web", "body": {"eps": {"value": "{params.x}"}}}),
        json!({"agent": "web", "body": {"eps": {"rate": "{params.x}"}}}),
        json!({"agent": "web", "body": [{"name": "eps", "rate": "{params.x}"}]}),
        json!({"agent": "web", "body": {"minClients": "{params.x}"}}),
        json!({"agent": "web", "body": {"lr": "eps={params.x}"}}),
    ] {
        assert!(!is_taken(&tuned(&["train"], &stage, &[])), "{stage}");
        // No list of the plan permits what protects clients, nor a value inside of a longer text.
        let sink = [
            "--eps",
            "--EPS",
            "-eps",
            "--minClients",
            "--dp-eps",
            "eps",
            "minClients",
            "ARGS",
            "FEDMILL_EPS",
        ];
        assert!(!is_taken(&tuned(&["train"], &stage, &sink)), "{stage}");
    }
    // Parsers of options take abbreviations, and names may stand together without a mark.
    for name in [
        "--epsi",
        "--byz",
        "--quor",
        "--thresh",
        "--gradnorm",
        "--dpeps",
        "--trimmed",
        "--ε",
        "--lτ",
        "--e_p_s",
        "--e.p.s",
        "--d-p",
        "--my-e-p-s",
        "--ep-s",
        "epsil",
    ] {
        let stage = argv(&[name, "{params.x}"]);
        assert!(!is_taken(&tuned(&["train"], &stage, &[name])), "{name}");
        let stage = json!({"agent": "web", "body": {"train": {name: {"lr": "{params.x}"}}}});
        assert!(!is_taken(&tuned(&["train"], &stage, &[])), "{name} around");
    }
    for stage in [
        json!({"agent": "web", "body": {"lr": ["epsilon", "{params.x}"]}}),
        json!({"agent": "web", "body": {"lr": [{"name": "epsilon"}, "{params.x}"]}}),
    ] {
        assert!(!is_taken(&tuned(&["train"], &stage, &["lr"])), "{stage}");
    }
    for name in ["--localsteps", "--minibatch", "--num-steps"] {
        assert!(is_taken(&tuned(&["train"], &argv(&[name, "{params.x}"]), &[name])), "{name}");
    }
    let unheard = argv(&["--unheard-of", "{params.x}"]);
    assert!(is_taken(&tuned(&["train"], &unheard, &["--unheard-of"])));
}

#[test]
fn values_of_rules_are_names_alone() {
    for (agent, values, expected) in [
        (&["fedmill", "aggregate"][..], ["median", "krum"], true),
        (&["fedmill", "aggregate"], ["median", "centered-clipping:tau=1e12"], false),
        (&["sh", "merge.sh"], ["median", "centered-clipping:tau=1e12"], false),
    ] {
        let mut plan = tuned(agent, &json!({"argv": ["--rule", "{params.x}"]}), &[]);
        plan.params.insert("x".parse().unwrap(), Scalar::Text(values[0].to_owned()));
        let tune = plan.loops[0].tune.as_mut().unwrap();
        tune.values = values.iter().map(|value| Scalar::Text((*value).to_owned())).collect();
        tune.policy = Policy::Ucb;
        tune.bounds = None;
        assert_eq!(is_taken(&plan), expected, "{agent:?} {values:?}");
    }
}

#[test]
fn the_program_decides_where_a_tuned_value_may_stand() {
    let argv = |words: &[&str]| json!({"argv": words});
    for (agent, words, expected) in [
        (&["fedmill", "aggregate", "--eps"][..], &["{params.x}"][..], false),
        (&["fedmill", "aggregate"], &["--strategy", "fedadam:lr={params.x}"], true),
        (&["fedmill", "aggregate"], &["--strategy=fedadam:lr={params.x},beta1=0.9"], true),
        (&["fedmill", "aggregate"], &["--strategy", "fedexp:eps={params.x}"], false),
        (&["fedmill", "aggregate"], &["--strategy", "fedadam:lr=0{params.x}"], false),
        (&["fedmill", "aggregate"], &["--strategy", "fedadam:lr={params.x}0"], false),
        (&["fedmill", "aggregate"], &["--rule", "krum:lr={params.x}"], false),
        (&["fedmill", "aggregate"], &["--rule", "{params.x}"], false),
        (&["fedmill", "aggregate"], &["--lr", "{params.x}"], false),
        (&["fedmill", "compress"], &["--target", "{params.x}"], true),
        (&["/usr/bin/fedmill", "compress"], &["--min-clients", "{params.x}"], false),
        (&["sh", "-c"], &["fedmill aggregate --eps {params.x}"], false),
        (&["sh", "-c", "train $0 $1"], &["--lr", "{params.x}"], false),
        (&["/bin/bash", "-ec", "train $0 $1"], &["--lr", "{params.x}"], false),
        (&["python3", "-c", "print()"], &["--lr", "{params.x}"], false),
        (&["python3", "train.py"], &["--lr", "{params.x}"], true),
        (&["sh", "train.sh"], &["--lr", "{params.x}"], true),
        // The options that take a text to run have no end.
        (&["bash", "-eufc", "train $0"], &["--lr", "{params.x}"], false),
        (&["python3.12", "-IEbuc", "f"], &["--lr", "{params.x}"], false),
        (&["perl", "-E", "f"], &["--lr", "{params.x}"], false),
        (&["perl", "-lane", "f"], &["--lr", "{params.x}"], false),
        (&["node", "-p", "f"], &["--lr", "{params.x}"], false),
        (&["pypy3", "-c", "f"], &["--lr", "{params.x}"], false),
        (&["/opt/php8.1", "-r", "f"], &["--lr", "{params.x}"], false),
        (&["fish", "--command", "f"], &["--lr", "{params.x}"], false),
        (&["sh"], &["-c", "f", "--lr", "{params.x}"], false),
        (&["unheard-of", "--run", "train $1"], &["--lr", "{params.x}"], false),
        (&["perl", "train.pl", "--name", "first run"], &["--lr", "{params.x}", "--in=a/b.txt"], true),
        (&["env", "A=1", "train"], &["--lr", "{params.x}"], false),
        (&["xargs", "train"], &["--lr", "{params.x}"], false),
    ] {
        let plan = tuned(agent, &argv(words), &[]);
        assert_eq!(is_taken(&plan), expected, "{agent:?} {words:?}");
    }
}

#[test]
fn options_and_settings_that_may_be_tuned_exist() {
    let dir = crate::harness::Dir::new();
    let help = |command: &str| fedmill(&dir, &[command, "--help"]).stdout;
    let all = [help("aggregate"), help("compress"), help("personalize")].concat();
    for option in fedmill::language::tunable::OPTIONS {
        assert!(all.contains(&format!("{option} <")), "{option}");
    }
    let known = fedmill::strategies::STRATEGIES.iter().flat_map(|entry| entry.settings.iter());
    let known: Vec<&str> = known.map(|setting| setting.key).collect();
    for key in fedmill::language::tunable::SETTINGS {
        assert!(known.contains(&key), "{key} is none of {known:?}");
    }
}
