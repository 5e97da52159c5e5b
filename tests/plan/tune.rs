//! Tuned parameters: what is accepted, what is refused and taken back, and what never changes.
//!
//! Candidates come near a known optimum, noise is rarely accepted, a regression is taken back, what is frozen never
//! changes, and a crash in the middle of a trial changes no step. The same holds for candidates that are judged together.
//! `policies` has how candidates are made, `places` what is never tuned and where a tuned value may stand.

mod places;
mod policies;

use super::Workflow;
use super::metrics::normal;
use crate::harness::fedmill;
use crate::rng::Rng;
use fedmill::plan::read;
use fedmill::plan::run::drive::drive;
use fedmill::plan::run::error::RunError;
use fedmill::plan::run::event::{Ending, Event, Failure, Made};
use fedmill::plan::run::fill::Folders;
use fedmill::plan::run::key::Key;
use fedmill::plan::run::machine::{Machine, Setup};
use fedmill::plan::run::world::{Ended, Job, Receipt, Spent, Task, Woken, World};
use fedmill::schema::Plan;
use fedmill::schema::looped::{Validate, Worse};
use fedmill::schema::policy::Answer;
use fedmill::schema::value::Scalar;
use fedmill::tuning::Step;
use fedmill::tuning::judge::{Pairs, judge};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// A world without files: an attempt measures what a function of its job says.
struct Toy<'a> {
    events: Vec<Event>,
    receipts: BTreeMap<String, Receipt>,
    running: Vec<Job>,
    measure: &'a dyn Fn(&Job) -> Vec<(&'static str, f64)>,
    /// Writes until the runner ends.
    fuse: Option<u32>,
}

impl<'a> Toy<'a> {
    fn new(measure: &'a dyn Fn(&Job) -> Vec<(&'static str, f64)>) -> Self {
        Self { events: Vec::new(), receipts: BTreeMap::new(), running: Vec::new(), measure, fuse: None }
    }

    fn burn(&mut self) -> Result<(), RunError> {
        match self.fuse.as_mut().map(|left| std::mem::replace(left, left.saturating_sub(1))) {
            Some(0) => {
                Err(RunError::Write { path: "toy".into(), source: io::Error::other("the runner ended") })
            }
            _ => Ok(()),
        }
    }
}

impl World for Toy<'_> {
    fn now(&mut self) -> f64 {
        1e9
    }

    fn append(&mut self, events: &[Event]) -> Result<(), RunError> {
        self.burn()?;
        self.events.extend_from_slice(events);
        Ok(())
    }

    fn receipt(&mut self, name: &str) -> Result<Option<Receipt>, RunError> {
        Ok(self.receipts.get(name).cloned())
    }

    fn equal_work(&mut self, _: &Job) -> Result<Option<Made>, RunError> {
        Ok(None)
    }

    fn write_receipt(&mut self, receipt: &Receipt, _: bool) -> Result<(), RunError> {
        self.burn()?;
        self.receipts.insert(receipt.instance.clone(), receipt.clone());
        Ok(())
    }

    fn start(&mut self, job: Job) {
        self.running.push(job);
    }

    fn stop(&mut self, _: Key) {}

    fn answer(&mut self, _: &str) -> Result<Option<Answer>, RunError> {
        Ok(None)
    }

    fn account(&mut self, _: &str) -> Result<Option<fedmill::plan::run::world::Account>, String> {
        Ok(None)
    }

    fn is_killed(&mut self) -> bool {
        false
    }

    fn wait(&mut self, _: Option<f64>) -> Result<Woken, RunError> {
        let job = self.running.remove(0);
        let metrics: BTreeMap<String, f64> =
            (self.measure)(&job).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let result = match metrics.is_empty() {
            true => Err(Failure::Exit(1)),
            false => Ok(Made { metrics, ..Made::default() }),
        };
        let (key, attempt, spent) = (job.key, job.attempt, Spent::default());
        Ok(Woken::Ended(Ended { key, attempt, result, seconds: 1.0, spent }))
    }
}

/// The value of the parameter that a job sees.
fn value(job: &Job) -> f64 {
    let Task::Command { argv, .. } = &job.task else { panic!("{job:?}") };
    argv[2].parse().unwrap()
}

/// Noise that the name of a job decides.
fn noise(job: &Job, seed: u64) -> f64 {
    let digest = fedmill::io::digest::Blake3::of_bytes(format!("{seed} {}", job.name).as_bytes());
    let bits = digest.iter().take(7).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    normal(&mut Rng::new(bits))
}

/// A plan that tunes `x` in a loop of one stage.
fn plan(iterations: u32, tune: &Value) -> Plan {
    let mut whole = json!({"param": "/params/x", "bounds": [0.1, 10.0], "every": 1,
        "validate": {"shadow": ["step"], "metric": "loss", "minimize": true, "replay_rounds": 3, "gain": 0.05}});
    for (key, value) in tune.as_object().unwrap() {
        match value {
            Value::Object(inner) if key == "validate" => {
                inner.iter().for_each(|(key, value)| whole["validate"][key] = value.clone());
            }
            _ => whole[key] = value.clone(),
        }
    }
    let plan = json!({"schema": "fedmill.plan/1", "id": "p", "params": {"x": 0.4, "y": 2.0, "f": 3},
        "agents": {"tool": {"kind": "command", "argv": ["tool"]}},
        "stages": [{"id": "step", "agent": "tool", "argv": ["--rate", "{params.x}", "{k}"], "metrics": ["loss", "cost", "fedexp"],
            "out": [{"name": "m", "path": "-", "metrics": true}]}],
        "loops": [{"id": "l", "over": ["step"], "max_iters": iterations, "tune": whole}]});
    read::parse(&plan.to_string(), Path::new("plan.json")).unwrap()
}

fn setup(plan: &Plan) -> Setup<'_> {
    let folders = Folders { inputs: "/in".to_owned(), run: "/run".to_owned() };
    Setup { plan, digest: "plan".to_owned(), folders, parallel: 2, part: None }
}

/// The steps of a run, and the number at its end.
fn run(plan: &Plan, toy: &mut Toy<'_>) -> (Vec<Step>, f64) {
    let (steps, end) = run_to(plan, toy);
    (steps, end.number().unwrap())
}

/// The steps of a run, and the value at its end.
fn run_to(plan: &Plan, toy: &mut Toy<'_>) -> (Vec<Step>, Scalar) {
    let events = toy.events.clone();
    let mut machine = Machine::new(setup(plan), &events, toy).unwrap();
    assert_eq!(drive(&mut machine, BTreeMap::new(), toy).unwrap(), Ending::Succeeded);
    let end = machine.state.tuned.loops[&0].value.clone();
    (steps(&toy.events), end)
}

fn steps(events: &[Event]) -> Vec<Step> {
    let step = |event: &Event| match event {
        Event::Tuned { step, .. } => Some(step.clone()),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}

/// How many trials were judged and not only compared, and how many candidates accepted.
fn judged(steps: &[Step]) -> (usize, usize) {
    let verdicts = steps.iter().filter_map(|step| match step {
        Step::Judge { verdict, .. } if verdict.gain.is_none() || verdict.interval.is_some() => {
            Some(verdict.accepted)
        }
        _ => None,
    });
    let verdicts: Vec<bool> = verdicts.collect();
    (verdicts.len(), verdicts.iter().filter(|accepted| **accepted).count())
}

/// A loss that is least at 3, with a little noise.
fn bowl(job: &Job) -> Vec<(&'static str, f64)> {
    let loss = 1.0 + 8.0 * (value(job) / 3.0).ln().powi(2) + 0.002 * noise(job, 1);
    vec![("loss", loss), ("cost", value(job)), ("fedexp", 2.0)]
}

#[test]
fn candidates_come_near_a_known_optimum() {
    for (policy, least, most) in [("climb", 2.4, 3.75), ("random", 2.4, 3.75), ("fedexp", 1.9999, 2.0001)] {
        let plan = plan(200, &json!({"policy": policy, "seed": 5}));
        let (steps, end) = run(&plan, &mut Toy::new(&bowl));
        assert!((least..=most).contains(&end), "{policy}: {end}, {steps:?}");
    }
    for (policy, rounds) in [("asha", 4), ("pbt", 3)] {
        let tune =
            json!({"policy": policy, "seed": 5, "max_ratio": 1.5, "validate": {"replay_rounds": rounds}});
        let (steps, end) = run(&plan(400, &tune), &mut Toy::new(&bowl));
        assert!((2.4..=3.75).contains(&end), "{policy}: {end}, {steps:?}");
    }
    // A bound in the way is where it ends.
    let plan = plan(200, &json!({"bounds": [0.1, 1.5]}));
    assert_eq!(run(&plan, &mut Toy::new(&bowl)).1, 1.5);
}

#[test]
fn a_whole_number_stays_whole_and_its_step_within_the_ratio() {
    let seen = |job: &Job| {
        let Task::Command { argv, .. } = &job.task else { panic!("{job:?}") };
        let whole: i64 = argv[2].parse().unwrap();
        vec![("loss", 100.0 / whole as f64), ("cost", 1.0), ("fedexp", 0.0)]
    };
    let mut plan = plan(60, &json!({"bounds": [1, 40], "validate": {"gain": 0.01}}));
    plan.params.insert("x".parse().unwrap(), fedmill::schema::value::Scalar::Int(8));
    assert_eq!(run(&plan, &mut Toy::new(&seen)).1, 40.0);
}

fn validate(gain: f64) -> Validate {
    let json = json!({"shadow": ["s"], "metric": "m", "gain": gain});
    serde_json::from_value(json).unwrap()
}

#[test]
fn equal_values_are_accepted_in_at_most_5_of_100_decisions() {
    type Shape = (&'static str, fn(f64) -> f64);
    let shapes: [Shape; 3] = [
        ("normal", |x| x),
        ("heavy tails", |x| x.powi(3)),
        ("two values", |x| if x > 0.0 { 1.0 } else { -1.0 }),
    ];
    for (shape, of) in shapes {
        for rounds in [2usize, 3, 5, 10] {
            // Two equal differences have no spread: a metric of two values gives them too often.
            if shape == "two values" && rounds == 2 {
                continue;
            }
            let mut rng = Rng::new(rounds as u64);
            let mut draw = || (0..rounds).map(|_| 10.0 + of(normal(&mut rng))).collect::<Vec<f64>>();
            let trials = 4000;
            let accepted = (0..trials)
                .filter(|_| judge(&validate(0.0), &Pairs { now: draw(), new: draw() }, &[]).accepted)
                .count();
            assert!(accepted * 100 <= 5 * trials, "{shape}, {rounds} rounds: {accepted} of {trials}");
        }
    }
}

#[test]
fn a_real_gain_is_accepted_unless_a_guard_is_worse() {
    let pairs = |now: f64, new: f64| Pairs {
        now: vec![now, now * 1.01, now * 0.99],
        new: vec![new, new * 1.01, new],
    };
    let verdict = |guards: &[(String, Worse, Pairs)]| judge(&validate(0.15), &pairs(1.0, 1.2), guards);
    let found = verdict(&[]);
    assert!(found.accepted && (found.gain.unwrap() - 0.204).abs() < 1e-9, "{found:?}");
    assert!(!judge(&validate(0.15), &pairs(1.0, 1.1), &[]).accepted);
    let guard = |worse, new| vec![("cost".to_owned(), worse, pairs(1.0, new))];
    assert!(!verdict(&guard(Worse::Higher, 1.05)).accepted);
    assert!(verdict(&guard(Worse::Higher, 0.95)).accepted);
    assert!(verdict(&guard(Worse::Lower, 1.05)).accepted);
    assert!(!verdict(&guard(Worse::Lower, 0.95)).accepted);
    // Less is better, and a metric of 0 has no relative gain.
    let less = Validate { minimize: true, ..validate(0.15) };
    assert!(judge(&less, &pairs(1.2, 0.9), &[]).accepted && !judge(&less, &pairs(0.9, 1.2), &[]).accepted);
    assert!(!judge(&less, &pairs(0.0, 1.0), &[]).accepted);
    assert!(!judge(&less, &pairs(f64::NAN, 1.0), &[]).accepted);
}

#[test]
fn a_runner_accepts_equal_values_in_at_most_5_of_100_trials() {
    let (mut trials, mut accepted) = (0, 0);
    for seed in 0..40 {
        let measure =
            move |job: &Job| vec![("loss", 10.0 + noise(job, seed)), ("cost", 1.0), ("fedexp", 1.0)];
        let tune =
            json!({"policy": "random", "seed": seed, "validate": {"gain": 0.0}, "rollback": {"tabu": 0}});
        let (steps, _) = run(&plan(40, &tune), &mut Toy::new(&measure));
        let (judged, taken) = judged(&steps);
        (trials, accepted) = (trials + judged, accepted + taken);
    }
    assert!(trials > 1000, "{trials} trials");
    assert!(accepted * 100 <= 5 * trials, "{accepted} of {trials} trials");
}

/// Noise that the value and the iteration decide: a lucky candidate stays lucky, however often it is tried.
fn luck(job: &Job, seed: u64) -> f64 {
    let Task::Command { argv, .. } = &job.task else { panic!("{job:?}") };
    noise(&Job { name: argv[2..4].join(" "), ..job.clone() }, seed)
}

#[test]
fn candidates_that_are_judged_together_share_the_chance_of_a_false_one() {
    let arms = json!([0.4, 0.5, 0.6, 0.7, 0.8, 0.9]);
    for (policy, together, least) in [("asha", 1, 100), ("pbt", 5, 500), ("ucb", 5, 500)] {
        let (mut trials, mut accepted) = (0, 0);
        for seed in 0..40 {
            let measure =
                move |job: &Job| vec![("loss", 10.0 + luck(job, seed)), ("cost", 1.0), ("fedexp", 1.0)];
            let mut tune =
                json!({"policy": policy, "seed": seed, "validate": {"gain": 0.0, "replay_rounds": 4}});
            if policy == "ucb" {
                (tune["bounds"], tune["values"]) = (Value::Null, arms.clone());
            }
            let (steps, _) = run_to(&plan(40, &tune), &mut Toy::new(&measure));
            let (judged, taken) = judged(&steps);
            (trials, accepted) = (trials + judged, accepted + taken);
        }
        assert!(trials >= least, "{policy}: {trials} trials");
        assert!(accepted * together * 100 <= 5 * trials, "{policy}: {accepted} of {trials} trials");
    }
}

#[test]
fn a_regression_that_shadow_runs_did_not_show_is_taken_back() {
    // In shadow runs more is better; in the run itself it is not.
    let measure = |job: &Job| {
        let is_shadow = job.key.shadow.is_some();
        let loss = if is_shadow { 10.0 / value(job) } else { 10.0 + 5.0 * (value(job) - 0.4) };
        vec![("loss", loss + 0.001 * noise(job, 2)), ("cost", 1.0), ("fedexp", 1.0)]
    };
    let plan = plan(9, &json!({"rollback": {"after_failures": 2, "tabu": 10}}));
    let mut toy = Toy::new(&measure);
    let (steps, end) = run(&plan, &mut toy);
    assert_eq!(end, 0.4, "{steps:?}");
    let place = |wanted: fn(&Step) -> bool| {
        let found = toy.events.iter().find_map(|event| match event {
            Event::Tuned { iteration, step, .. } if wanted(step) => Some(*iteration),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{steps:?}"))
    };
    let accepted = place(|step| matches!(step, Step::Judge { verdict, .. } if verdict.accepted));
    let back = place(|step| matches!(step, Step::Back { .. }));
    assert_eq!((accepted, back), (3, 5));
    // The value that was taken back is tabu: the other direction comes next.
    let tried: Vec<f64> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Try { candidate, .. } => candidate.number(),
            _ => None,
        })
        .collect();
    assert_eq!((tried[0], tried[1]), (0.5, 0.4 / 1.25));
}

#[test]
fn an_invariant_and_a_failed_shadow_run_refuse_a_candidate() {
    let mut bounded = plan(9, &json!({}));
    bounded.safety.invariants = vec!["params.x <= 0.4".to_owned()];
    let (steps, end) = run(&bounded, &mut Toy::new(&bowl));
    assert_eq!((end, judged(&steps).1), (0.4, 0), "{steps:?}");
    assert!(format!("{steps:?}").contains("the invariant `params.x <= 0.4` does not hold"), "{steps:?}");
    let fails = |job: &Job| if value(job) > 0.4 { Vec::new() } else { bowl(job) };
    let (steps, end) = run(&plan(9, &json!({})), &mut Toy::new(&fails));
    assert_eq!((end, judged(&steps).1), (0.4, 0), "{steps:?}");
    assert!(format!("{steps:?}").contains("exited with status 1"), "{steps:?}");
}

#[test]
fn two_loops_that_tune_one_parameter_are_refused_with_both_places() {
    let mut twice = plan(8, &json!({}));
    let mut stage = twice.stages[0].clone();
    stage.id = "other".parse().unwrap();
    stage.metrics.clear();
    twice.stages.push(stage);
    let mut looped = twice.loops[0].clone();
    (looped.id, looped.over) = ("m".parse().unwrap(), vec!["other".parse().unwrap()]);
    twice.loops.push(looped);
    let expected =
        "found `/params/x`, which $.loops[0].tune.param tunes too, expected one loop for each parameter";
    let findings = fedmill::review::lint::lint(&twice);
    let at = |finding: &&fedmill::review::lint::Finding| finding.at == "$.loops[1].tune.param";
    let found: Vec<String> = findings.iter().filter(at).map(|finding| finding.explanation()).collect();
    assert_eq!(found, [expected]);
    let events = Vec::new();
    let mut toy = Toy::new(&bowl);
    let refused = Machine::new(setup(&twice), &events, &mut toy).err().unwrap().to_string();
    assert_eq!(refused, format!("the plan cannot be run: $.loops[1].tune.param: {expected}"));
    twice.loops[1].tune.as_mut().unwrap().param = "/params/y".to_owned();
    assert!(Machine::new(setup(&twice), &events, &mut toy).is_ok());
}

#[test]
fn a_runner_that_ends_at_any_write_takes_the_same_steps() {
    for policy in ["random", "asha", "pbt"] {
        ends_at_any_write(policy);
    }
}

fn ends_at_any_write(policy: &str) {
    let plan =
        plan(14, &json!({"policy": policy, "seed": 3, "max_ratio": 2.0, "validate": {"replay_rounds": 4}}));
    let mut undisturbed = Toy::new(&bowl);
    let (expected, end) = run(&plan, &mut undisturbed);
    assert!(judged(&expected).1 > 0, "{expected:?}");
    for write in 0.. {
        let mut toy = Toy::new(&bowl);
        toy.fuse = Some(write);
        let events = Vec::new();
        let mut machine = Machine::new(setup(&plan), &events, &mut toy).unwrap();
        if drive(&mut machine, BTreeMap::new(), &mut toy).is_ok() {
            assert!(write > 40, "{write} writes");
            break;
        }
        toy.fuse = None;
        toy.running.clear();
        assert_eq!(run(&plan, &mut toy), (expected.clone(), end), "write {write}");
    }
}

/// A plan on the real program that tunes `x`; the runner is killed in the middle of a trial if `killed`.
fn workflow(killed: bool) -> Workflow {
    let kill = "case $FEDMILL_STAGE in step@3~*new) mark=$FEDMILL_RUN_DIR/mark; \
                test -e $mark || { touch $mark; kill -9 $PPID; sleep 5; };; esac; ";
    let measure = r#"awk "BEGIN {printf \"{\\\"loss\\\": %.6f}\", 4 / $2 + $3 / 1000}""#;
    let workflow =
        Workflow::new(&json!([{"id": "step", "agent": "measure", "argv": ["--rate", "{params.x}", "{k}"],
        "metrics": ["loss"], "out": [{"name": "m", "path": "-", "metrics": true}]}]));
    let script = format!("#!/bin/sh\n{}{measure}\n", if killed { kill } else { "" });
    workflow.script("measure.sh", &script);
    workflow
    .with("agents.measure", json!({"kind": "command", "argv": ["./measure.sh"]}))
    .with("params", json!({"x": 1.0, "f": 2}))
    .with(
        "loops",
        json!([{"id": "rounds", "over": ["step"], "max_iters": 7, "tune": {"param": "/params/x", "bounds": [0.5, 1.5],
            "every": 3, "max_ratio": 1.5, "validate": {"shadow": ["step"], "metric": "loss", "minimize": true,
                "replay_rounds": 2}}}]),
    )
}

#[test]
fn the_program_tunes_and_shows_its_steps_also_after_it_was_killed() {
    let tuned = |workflow: &Workflow| {
        let run = fedmill(&workflow.dir, &["plan", "status", "--json", "plan.run"]);
        let status: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(status["state"], "succeeded", "{run:#?}");
        status["tuning"].clone()
    };
    let plain = workflow(false);
    let run = plain.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let expected = tuned(&plain);
    let row = &expected[0];
    assert_eq!(
        (&row["loop"], &row["param"], &row["value"]),
        (&json!("rounds"), &json!("/params/x"), &json!(1.5))
    );
    assert_eq!(row["steps"][1]["judge"]["verdict"]["accepted"], json!(true), "{expected}");
    // A shadow run leaves its outputs beside those of the run, and changes none of them.
    assert_eq!(plain.output("step@2/m"), "{\"loss\": 4.002000}");
    assert_eq!(plain.output("step@2~1-new/m"), "{\"loss\": 2.668667}");
    assert_eq!(plain.output("step@4/m"), "{\"loss\": 2.670667}");
    let table = fedmill(&plain.dir, &["plan", "status", "plan.run"]);
    assert!(table.stdout.contains("loop rounds: /params/x is 1.5"), "{}", table.stdout);

    let killed = workflow(true);
    let run = killed.run();
    assert_ne!(run.code, Some(0), "{run:#?}");
    let run = fedmill(&killed.dir, &["plan", "resume", "plan.run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(tuned(&killed), expected);
}

#[test]
fn shadow_runs_that_take_too_long_refuse_the_candidate() {
    let slow = "case $FEDMILL_STAGE in *new) sleep 20;; esac; echo '{{\"loss\": 1}}'";
    let plan = Workflow::new(&json!([{"id": "step", "sh": slow, "metrics": ["loss"],
        "out": [{"name": "m", "path": "-", "metrics": true}]}]))
    .with("params", json!({"x": 1.0}))
    .with(
        "loops",
        json!([{"id": "l", "over": ["step"], "max_iters": 3, "tune": {"param": "/params/x", "bounds": [0.5, 2.0],
            "every": 2, "validate": {"shadow": ["step"], "metric": "loss", "replay_rounds": 2, "timeout": "1s"}}}]),
    );
    let run = plan.run();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let status = fedmill(&plan.dir, &["plan", "status", "--json", "plan.run"]);
    assert!(status.stdout.contains("the shadow runs took longer than 1s"), "{}", status.stdout);
}
