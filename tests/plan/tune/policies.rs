//! How candidates are made: brackets, populations, declared values, and the share of random ones.

use super::{Toy, noise, plan, run, run_to, setup, value};
use fedmill::plan::run::machine::Machine;
use fedmill::plan::run::world::{Job, Task};
use fedmill::schema::Plan;
use fedmill::schema::value::Scalar;
use fedmill::tuning::propose::propose;
use fedmill::tuning::{Step, Tuning};
use serde_json::{Value, json};

/// The trials of a run: the value, the number of iterations, and the gain.
fn trials(steps: &[Step]) -> Vec<(f64, usize, Option<f64>)> {
    let mut found: Vec<(f64, usize, Option<f64>)> = Vec::new();
    for step in steps {
        match step {
            Step::Try { candidate, replayed, .. } => {
                found.push((candidate.number().unwrap(), replayed.len(), None));
            }
            Step::Judge { verdict, .. } => found.last_mut().unwrap().2 = verdict.gain,
            _ => {}
        }
    }
    found
}

#[test]
fn the_best_quarter_goes_on_to_four_times_as_many_iterations() {
    // Candidates above 0.45 fail, and all others are worse than the value in use.
    let measure = |job: &Job| match value(job) {
        x if x > 0.45 => Vec::new(),
        x => vec![("loss", 1.0 + (x - 0.4).abs()), ("cost", 1.0), ("fedexp", 1.0)],
    };
    let tune = json!({"policy": "asha", "seed": 2, "validate": {"replay_rounds": 16}});
    let (steps, end) = run(&plan(60, &tune), &mut Toy::new(&measure));
    // The first bracket: later ones know nothing of it.
    let found = &trials(&steps)[..21];
    assert_eq!(end, 0.4);
    let rounds = |rounds: usize| found.iter().enumerate().filter(move |(_, trial)| trial.1 == rounds);
    assert_eq!([1, 4, 16].map(|count| rounds(count).count()), [16, 4, 1], "{found:?}");
    assert!(rounds(1).any(|(_, trial)| trial.2.is_none()), "no candidate failed: {found:?}");
    for (fewer, more) in [(1, 4), (4, 16)] {
        for (place, (value, ..)) in rounds(more) {
            let mut before: Vec<(f64, f64)> = rounds(fewer)
                .filter(|(other, _)| *other < place)
                .map(|(_, trial)| (trial.2.unwrap_or(f64::NEG_INFINITY), trial.0))
                .collect();
            before.sort_by(|a, b| b.0.total_cmp(&a.0));
            let quarter = &before[..before.len() / 4];
            assert!(
                quarter.iter().any(|(gain, other)| other == value && gain.is_finite()),
                "{value}: {found:?}"
            );
        }
    }
}

#[test]
fn a_bracket_that_is_over_leaves_nothing_to_the_next() {
    let measure = |job: &Job| vec![("loss", 1.0 + (value(job) - 0.4).abs()), ("cost", 1.0), ("fedexp", 1.0)];
    for seed in 0..4 {
        let tune = json!({"policy": "asha", "seed": seed, "validate": {"replay_rounds": 16}});
        let found = trials(&run(&plan(70, &tune), &mut Toy::new(&measure)).0);
        // A bracket begins with each seventeenth trial on the lowest rung.
        let mut lowest = 0_usize;
        let mut brackets: Vec<Vec<(f64, usize)>> = Vec::new();
        for (candidate, rounds, _) in &found {
            if *rounds == 1 {
                if lowest.is_multiple_of(16) {
                    brackets.push(Vec::new());
                }
                lowest += 1;
            }
            let bracket = brackets.last_mut().unwrap();
            let came_up = *rounds == 1 || bracket.contains(&(*candidate, rounds / 4));
            assert!(came_up, "seed {seed}: {candidate} on {rounds}: {found:?}");
            bracket.push((*candidate, *rounds));
        }
        assert!(brackets.len() > 2, "{found:?}");
    }
}

#[test]
fn a_bracket_tries_no_candidate_twice() {
    let measure = |job: &Job| vec![("loss", value(job)), ("cost", 1.0), ("fedexp", 1.0)];
    for seed in 0..6 {
        // The whole numbers within the ratio of 8; none of them gains enough.
        let tune = json!({"policy": "asha", "bounds": [1, 40], "seed": seed, "rollback": {"tabu": 0},
            "validate": {"gain": 0.9, "replay_rounds": 16}});
        let mut plan = plan(40, &tune);
        plan.params.insert("x".parse().unwrap(), Scalar::Int(8));
        let found = trials(&run(&plan, &mut Toy::new(&measure)).0);
        let mut first: Vec<f64> = found.iter().take(3).map(|trial| trial.0).collect();
        first.sort_by(f64::total_cmp);
        assert_eq!(first, [7.0, 9.0, 10.0], "seed {seed}: {found:?}");
    }
}

#[test]
fn a_population_follows_the_value_in_use() {
    let measure = |job: &Job| vec![("loss", 10.0 / value(job)), ("cost", 1.0), ("fedexp", 1.0)];
    for seed in 0..4 {
        let tune = json!({"policy": "pbt", "seed": seed, "validate": {"gain": 0.01}});
        let (steps, end) = run(&plan(40, &tune), &mut Toy::new(&measure));
        let (mut used, mut candidate, mut accepted) = (0.4, 0.4, 0);
        for step in &steps {
            match step {
                Step::Try { candidate: next, .. } => {
                    candidate = next.number().unwrap();
                    let ratio: f64 = candidate / used;
                    assert!((0.799_999..=1.250_001).contains(&ratio), "{candidate} after {used}: {steps:?}");
                }
                Step::Judge { verdict, .. } if verdict.accepted => {
                    (used, accepted) = (candidate, accepted + 1)
                }
                _ => {}
            }
        }
        assert!(accepted >= 2 && end == used, "{accepted} accepted, {end} and {used}");
    }
}

#[test]
fn the_worst_fifth_of_a_population_becomes_the_best_fifth_times_a_factor() {
    // Nothing is accepted: the gain is too small.
    let measure = |job: &Job| vec![("loss", 10.0 - 0.1 * value(job)), ("cost", 1.0), ("fedexp", 1.0)];
    let tune =
        json!({"policy": "pbt", "seed": 3, "population": 11, "max_ratio": 4.0, "validate": {"gain": 0.9}});
    let (steps, _) = run(&plan(23, &tune), &mut Toy::new(&measure));
    let found: Vec<f64> = trials(&steps).into_iter().map(|(value, ..)| value).collect();
    // The value in use is a member that needs no trial.
    let (first, second) = (&found[..10], &found[10..20]);
    let mut ranked: Vec<f64> = first.iter().copied().chain([0.4]).collect();
    ranked.sort_by(|a, b| b.total_cmp(a));
    let kept = |value: &f64| second.contains(value) || *value == 0.4;
    assert!(ranked[..9].iter().all(kept) && !ranked[9..].iter().any(kept), "{found:?}");
    let copies: Vec<&f64> = second.iter().filter(|value| !first.contains(value)).collect();
    let is_copy = |copy: &&f64| {
        let of = |best: &f64, factor: f64| (**copy - (best * factor).clamp(0.1, 1.6)).abs() < 1e-12;
        ranked[..2].iter().any(|best| of(best, 0.8) || of(best, 1.2))
    };
    assert!(copies.len() == 2 && copies.iter().all(is_copy), "{copies:?}, {found:?}");
}

/// A plan whose parameter is one of these rules, and the loss of each rule.
fn of_rules(rules: &[&str], tune: &Value) -> Plan {
    let mut whole = json!({"policy": "ucb", "bounds": null, "values": rules});
    tune.as_object().unwrap().iter().for_each(|(key, value)| whole[key] = value.clone());
    let mut plan = plan(60, &whole);
    plan.params.insert("x".parse().unwrap(), Scalar::Text(rules[0].to_owned()));
    plan
}

#[test]
fn the_best_of_the_declared_values_comes_into_use() {
    let rules = ["mean", "median", "krum", "trimmed-mean:cut=0.2"];
    let measure = |job: &Job| {
        let Task::Command { argv, .. } = &job.task else { panic!("{job:?}") };
        let loss = [3.0, 2.0, 2.5, 1.0][rules.iter().position(|rule| *rule == argv[2]).unwrap()];
        vec![("loss", loss + 0.01 * noise(job, 4)), ("cost", 1.0), ("fedexp", 1.0)]
    };
    for preset in ["exploit", "explore"] {
        let plan = of_rules(&rules, &json!({"preset": preset}));
        let (steps, end) = run_to(&plan, &mut Toy::new(&measure));
        assert_eq!(end, Scalar::Text("trimmed-mean:cut=0.2".to_owned()), "{steps:?}");
    }
    // A value may not set what protects clients, and the value in use is one of them.
    let starts = |plan: &Plan| Machine::new(setup(plan), &[], &mut Toy::new(&measure)).is_ok();
    assert!(starts(&of_rules(&rules, &json!({}))));
    for value in ["krum:f=1", "multi-krum:m=5,f=1", "--clip=3", "byzantine"] {
        assert!(!starts(&of_rules(&["mean", value], &json!({}))), "{value}");
    }
    assert!(!starts(&of_rules(&["mean", "median"], &json!({"values": ["median", "krum"]}))));
    assert!(!starts(&of_rules(&["mean", "median"], &json!({"bounds": [0.1, 1.0]}))));
    for policy in ["asha", "pbt"] {
        assert!(!starts(&plan(9, &json!({"policy": policy, "preset": "explore"}))), "{policy}");
    }
}

#[test]
fn a_rare_arm_is_tried_again_in_time() {
    // The first other value wins always, and is never accepted.
    let measure = |job: &Job| vec![("loss", 10.0 - 0.001 * value(job)), ("cost", 1.0), ("fedexp", 1.0)];
    let tune =
        json!({"policy": "ucb", "bounds": null, "values": [0.4, 0.5, 0.3, 0.2], "validate": {"gain": 0.9}});
    let (steps, _) = run(&plan(80, &tune), &mut Toy::new(&measure));
    let count = |wanted: f64| trials(&steps).iter().filter(|trial| trial.0 == wanted).count();
    let (best, second, third) = (count(0.5), count(0.3), count(0.2));
    assert!(best > 2 * second && second >= 4 && third >= 4, "{best}, {second}, {third}");
}

#[test]
fn a_bandit_that_explores_tries_its_bad_arms_more_often() {
    let measure = |job: &Job| vec![("loss", 10.0 - 0.001 * value(job)), ("cost", 1.0), ("fedexp", 1.0)];
    let bad_arms = |preset: &str| {
        let counts = (0..4).map(|seed| {
            let tune = json!({"policy": "ucb", "bounds": null, "values": [0.4, 0.5, 0.3, 0.2], "seed": seed,
                "preset": preset, "validate": {"gain": 0.9}});
            let found = trials(&run(&plan(80, &tune), &mut Toy::new(&measure)).0);
            found.iter().filter(|trial| [0.3, 0.2].contains(&trial.0)).count()
        });
        counts.sum::<usize>()
    };
    let (exploit, explore) = (bad_arms("exploit"), bad_arms("explore"));
    assert!(explore > exploit + 12, "{explore} explored, {exploit} exploited");
}

#[test]
fn exploring_prefers_no_value_whichever_is_in_use() {
    let values = [0.1, 0.2, 0.3, 0.4];
    for used in values {
        let tune = json!({"policy": "ucb", "bounds": null, "values": values, "preset": "explore"});
        let mut tune = plan(9, &tune).loops[0].tune.clone().unwrap();
        let mut counts = [0; 4];
        for seed in 0..2000 {
            tune.seed = seed;
            let mut tuning = Tuning::new(&tune, Scalar::Real(used));
            // Its first trial: exploring or not, the values are equal but for the order of the plan.
            tuning.trials = 1 + (seed % 7) as u32;
            let candidate = propose(&tune, &tuning, None).unwrap().candidate.number().unwrap();
            counts[values.iter().position(|value| *value == candidate).unwrap()] += 1;
        }
        let in_use = values.iter().position(|value| *value == used).unwrap();
        let first = usize::from(in_use == 0);
        assert_eq!(counts[in_use], 0);
        // Of 2,000 trials, 600 explore: 200 for each of three values. All others try the first value of the plan.
        for (place, count) in counts.into_iter().enumerate().filter(|(place, _)| *place != in_use) {
            let expected = if place == first { 1600 } else { 200 };
            assert!((expected - 60..expected + 60).contains(&count), "{used}: {counts:?}");
        }
    }
}

#[test]
fn three_of_ten_trials_explore() {
    let measure = |_: &Job| vec![("loss", 1.0), ("cost", 1.0), ("fedexp", 1.0)];
    let (mut explored, mut all) = (0, 0);
    for seed in 0..10 {
        let tune = json!({"preset": "explore", "seed": seed, "rollback": {"tabu": 0}});
        let (steps, _) = run(&plan(60, &tune), &mut Toy::new(&measure));
        let found = trials(&steps);
        assert!(found.iter().all(|trial| (0.32..=0.5).contains(&trial.0)), "{found:?}");
        explored += found.iter().filter(|trial| ![0.5, 0.4 / 1.25].contains(&trial.0)).count();
        all += found.len();
        // The same seed draws the same candidates.
        assert_eq!(run(&plan(60, &tune), &mut Toy::new(&measure)).0, steps);
    }
    assert!((20..=40).contains(&(explored * 100 / all)), "{explored} of {all}");
}
