//! Random plans in a world that crashes, tears writes, fills the disk and moves its clock.
//!
//! However often a runner ends in the middle, the run must come to the end of an undisturbed one: the same outcomes,
//! choices and files. A stage that must not happen twice happens again only if the operator says so. `FEDMILL_SEEDS` sets
//! the number of seeds.

use crate::rng::Rng;
use fedmill::io::digest::{Blake3, hex};
use fedmill::plan::read;
use fedmill::plan::run::drive::drive;
use fedmill::plan::run::error::RunError;
use fedmill::plan::run::event::{Artifact, Event, Failure, Made, Outcome};
use fedmill::plan::run::fill::Folders;
use fedmill::plan::run::key::Key;
use fedmill::plan::run::machine::{Machine, Setup};
use fedmill::plan::run::world::{Account, Ended, Job, Receipt, Spent, Woken, World};
use fedmill::schema::Plan;
use fedmill::schema::policy::{Answer, SideEffects};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What outlives a runner.
#[derive(Default)]
struct Disk {
    events: Vec<Event>,
    receipts: BTreeMap<String, Receipt>,
    cache: BTreeMap<String, Made>,
    /// How often the work of each instance was done.
    done: BTreeMap<String, u32>,
}

/// What happens to a runner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It ends before the write.
    Before,
    /// It ends after a part of the write.
    Torn,
    /// It ends after the write.
    After,
    /// The write fails: the disk is full.
    Full,
}

struct Sim<'a> {
    disk: &'a mut Disk,
    rng: &'a mut Rng,
    clock: f64,
    jumps: bool,
    running: Vec<Job>,
    /// Writes until trouble.
    fuse: Option<(u64, Trouble)>,
    /// Stages whose work fails for now.
    broken: &'a [String],
}

fn ended() -> RunError {
    RunError::Write { path: "simulated".into(), source: io::Error::other("the runner ended") }
}

impl Sim<'_> {
    /// The trouble of this write, if its turn has come.
    fn trouble(&mut self) -> Option<Trouble> {
        let (left, trouble) = self.fuse.as_mut()?;
        *left = left.saturating_sub(1);
        (*left == 0).then_some(*trouble)
    }
}

/// The stage of an instance.
fn stage_of(name: &str) -> &str {
    name.split(['@', '.']).next().unwrap_or_default()
}

/// What an attempt at a stage comes to: decided by the name of the stage and the key of the work.
fn attempt(job: &Job) -> Result<Made, Failure> {
    let digest = hex(&Blake3::of_bytes(job.work.as_bytes()));
    let stage = stage_of(&job.name);
    let number = Blake3::of_bytes(format!("{stage}{}", job.name).as_bytes())[0];
    match number % 12 {
        0 => return Err(Failure::Exit(1)),
        1 if job.attempt < 2 => return Err(Failure::Exit(75)),
        2 if job.attempt < 3 => return Err(Failure::Timeout(1)),
        _ => {}
    }
    let outputs = job.outputs.iter().map(|output| {
        let blake3 = hex(&Blake3::of_bytes(format!("{digest}{}", output.name).as_bytes()));
        (
            output.name.clone(),
            Artifact { path: format!("out/{}/{}", job.name, output.path), blake3, bytes: 1 },
        )
    });
    let metrics = job.metrics.iter().map(|name| (name.clone(), f64::from(number % 10)));
    let option = job.options.get(number as usize % job.options.len().max(1)).cloned();
    Ok(Made { outputs: outputs.collect(), metrics: metrics.collect(), option, ..Made::default() })
}

impl World for Sim<'_> {
    fn now(&mut self) -> f64 {
        if self.jumps && self.rng.chance(3) {
            self.clock += self.rng.below(2000) as f64 - 1000.0;
        }
        self.clock
    }

    fn append(&mut self, events: &[Event]) -> Result<(), RunError> {
        let kept = match self.trouble() {
            None => {
                self.disk.events.extend_from_slice(events);
                return Ok(());
            }
            Some(Trouble::Before | Trouble::Full) => 0,
            Some(Trouble::Torn) => self.rng.below(events.len() as u64) as usize,
            Some(Trouble::After) => events.len(),
        };
        self.disk.events.extend_from_slice(&events[..kept]);
        Err(ended())
    }

    fn receipt(&mut self, name: &str) -> Result<Option<Receipt>, RunError> {
        Ok(self.disk.receipts.get(name).cloned())
    }

    fn equal_work(&mut self, job: &Job) -> Result<Option<Made>, RunError> {
        Ok(self.disk.cache.get(&job.work).cloned())
    }

    fn write_receipt(&mut self, receipt: &Receipt, cached: bool) -> Result<(), RunError> {
        let trouble = self.trouble();
        if matches!(trouble, None | Some(Trouble::After)) {
            self.disk.receipts.insert(receipt.instance.clone(), receipt.clone());
            if cached {
                self.disk.cache.insert(receipt.work.clone(), receipt.made.clone());
            }
        }
        trouble.map_or(Ok(()), |_| Err(ended()))
    }

    fn start(&mut self, job: Job) {
        *self.disk.done.entry(job.name.clone()).or_default() += 1;
        self.running.push(job);
    }

    fn stop(&mut self, _: Key) {
        unreachable!("no plan of the simulator ends attempts");
    }

    fn answer(&mut self, _: &str) -> Result<Option<Answer>, RunError> {
        Ok(Some(Answer::Approve))
    }

    fn account(&mut self, _: &str) -> Result<Option<Account>, String> {
        Ok(None)
    }

    fn is_killed(&mut self) -> bool {
        false
    }

    fn wait(&mut self, until: Option<f64>) -> Result<Woken, RunError> {
        if self.running.is_empty() || (until.is_some() && self.rng.chance(20)) {
            self.clock =
                until.unwrap_or_else(|| panic!("waits for ever: {:?}", self.disk.events)).max(self.clock);
            return Ok(Woken::Time);
        }
        let place = self.rng.below(self.running.len() as u64) as usize;
        let job = self.running.swap_remove(place);
        let is_broken =
            !job.name.contains('~') && self.broken.iter().any(|stage| *stage == stage_of(&job.name));
        let result = if is_broken { Err(Failure::Exit(2)) } else { attempt(&job) };
        let spent = Spent::default();
        Ok(Woken::Ended(Ended { key: job.key, attempt: job.attempt, result, seconds: 1.0, spent }))
    }
}

/// Turns a stage into a vote of three agents.
fn vote(stage: &mut Value, rng: &mut Rng) {
    stage.as_object_mut().unwrap().remove("agent");
    let without_a_winner = ["fail", "fallback", "gate"][rng.below(3) as usize];
    stage["consensus"] = json!({"capability": "vote", "options": ["left", "right"], "threshold": 0.6,
        "quorum": 0.5, "weight_cap": 0.5, "on_no_consensus": without_a_winner});
    match without_a_winner {
        "fallback" => stage["consensus"]["fallback"] = json!("right"),
        "gate" => stage["gate"] = json!({"timeout": "10m", "default": "reject"}),
        _ => {}
    }
}

fn voter(score: f64) -> Value {
    json!({"kind": "command", "argv": ["vote"], "capabilities": ["vote"], "score": score})
}

/// A random plan: stages that need earlier ones, fan-outs, votes, decisions, conditions, retries, gates and a
/// loop.
fn random_plan(rng: &mut Rng) -> Plan {
    let count = 2 + rng.below(8) as usize;
    let mut stages: Vec<Value> = Vec::new();
    for place in 0..count {
        let mut stage = json!({"id": format!("s{place}")});
        let needs: Vec<String> =
            (0..place).filter(|_| rng.chance(30)).map(|need| format!("s{need}")).collect();
        let need = needs.first().cloned();
        stage["needs"] = json!(needs);
        if rng.chance(15) && need.is_some() {
            stage["kind"] = json!("decide");
            let other = need.as_deref().unwrap_or_default();
            stage["cases"] = json!([{"if": format!("stages.{other}.ok && params.a == 1"), "to": "left"}]);
            stage["else"] = json!("right");
            stages.push(stage);
            continue;
        }
        stage["agent"] = json!("tool");
        stage["argv"] = json!(["{params.a}", "{key}"]);
        stage["out"] = json!([{"name": "o", "path": "o"}]);
        stage["metrics"] = json!([format!("m{place}")]);
        match rng.below(8) {
            0 => {
                stage["for_each"] = json!({"range": rng.below(4)});
                if rng.chance(50) {
                    stage["min_succeeded"] = json!(rng.below(3));
                }
            }
            1 => stage["retry"] = json!({"max_attempts": 3, "on": ["exit:75", "timeout"]}),
            2 => stage["cache"] = json!("content"),
            3 => stage["side_effects"] = json!("once"),
            4 => stage["gate"] = json!({"timeout": "10m", "default": "reject"}),
            6 => stage["min_succeeded"] = json!(0),
            5 => vote(&mut stage, rng),
            _ => {}
        }
        match (rng.below(6), &need) {
            (0, Some(need)) => stage["when"] = json!(format!("stages.{need}.ok")),
            (1, Some(need)) => stage["when"] = json!(format!("metrics.m{} > 4.0", &need[1..])),
            (2, Some(_)) => stage["branch"] = json!(if rng.chance(50) { "left" } else { "right" }),
            (3, Some(need)) => {
                stage["depends"] = json!(format!("stages.{need}.ok || stages.{need}.failed"));
                stage.as_object_mut().unwrap().remove("needs");
            }
            (4, Some(need)) => stage["argv"] = json!(["{key}", format!("{{{need}.o}}")]),
            _ => {}
        }
        stages.push(stage);
    }
    let mut plan = json!({"schema": "fedmill.plan/1", "id": "p", "params": {"a": rng.below(2)}, "stages": stages,
        "agents": {"tool": {"kind": "command", "argv": ["tool"]}, "v1": voter(0.9), "v2": voter(0.6), "v3": voter(0.3)},
        "limits": {"on_failure": "keep_going", "max_parallel": 1 + rng.below(3)}});
    if rng.chance(40) {
        let first = rng.below(count as u64);
        let last = first + rng.below(count as u64 - first);
        let until = if rng.chance(70) {
            format!("stages.s{last}.ok && iteration.k >= 2")
        } else {
            "iteration.k > 3".to_owned()
        };
        plan["loops"] = json!([{"id": "l", "over": [format!("s{first}"), format!("s{last}")], "max_iters": 3,
            "on_exhausted": if rng.chance(50) { "continue" } else { "fail" }, "until": until}]);
        tune_at_times(&mut plan, first, last, rng);
    }
    // A stage of the end belongs to no loop.
    if plan.get("loops").is_none() && rng.chance(30) {
        plan["on"] = json!({"exit": [format!("s{}", count - 1)]});
    }
    read::parse(&plan.to_string(), Path::new("plan.json")).unwrap()
}

/// Tunes a parameter in some loops, where a stage can be repeated.
fn tune_at_times(plan: &mut Value, first: u64, last: u64, rng: &mut Rng) {
    let repeatable = |stage: &Value| {
        stage.get("agent").is_some() && stage.get("gate").is_none() && stage.get("side_effects").is_none()
    };
    let stages = plan["stages"].as_array().unwrap();
    let shadow: Vec<u64> = (first..=last).filter(|place| repeatable(&stages[*place as usize])).collect();
    let Some(judging) = shadow.last().filter(|_| rng.chance(60)) else { return };
    let names: Vec<String> = shadow.iter().map(|place| format!("s{place}")).collect();
    plan["params"]["rate"] = json!(1.0);
    plan["stages"][*judging as usize]["argv"].as_array_mut().unwrap().push(json!("--rate={params.rate}"));
    plan["loops"][0]["max_iters"] = json!(6);
    plan["loops"][0]["until"] = json!("iteration.k >= 6");
    plan["loops"][0]["tune"] = json!({"param": "/params/rate", "bounds": [0.25, 4.0], "every": 1 + rng.below(2),
        "policy": if rng.chance(50) { "climb" } else { "random" }, "rollback": {"after_failures": 1, "tabu": 1},
        "validate": {"shadow": names, "metric": format!("m{judging}"), "replay_rounds": 2, "gain": 0.0, "ci": 0.6}});
}

/// How everything ended.
fn result(plan: &Plan, machine: &Machine<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (stage, groups) in machine.state.groups.iter().enumerate() {
        for (place, group) in groups.iter().enumerate() {
            let made = group.instances.iter().map(|instance| {
                let made = instance.made.as_ref()?;
                Some((
                    made.outputs.values().map(|output| output.blake3.clone()).collect::<Vec<_>>(),
                    made.metrics.clone(),
                ))
            });
            let made: Vec<_> = made.collect();
            let id = &plan.stages[stage].id;
            lines.push(format!("{id}@{place} {:?} {:?} {made:?}", group.outcome, group.choice));
        }
    }
    lines.push(format!("{:?}", machine.state.tuned.loops));
    lines.push(format!("{:?}", machine.state.ending));
    lines
}

/// Runs a plan until it ends, with trouble in the first runners. Returns the result and how often the operator said that
/// a stage shall happen again.
fn run(
    plan: &Plan,
    rng: &mut Rng,
    troubles: u64,
    broken: &[String],
    disk: &mut Disk,
) -> (Vec<String>, BTreeMap<String, u32>) {
    let mut again = BTreeMap::new();
    let mut settle: Option<String> = None;
    for runner in 0.. {
        assert!(runner < 200, "the run does not come to its end: {:?}", disk.events);
        let events = disk.events.clone();
        let kinds = [Trouble::Before, Trouble::Torn, Trouble::After, Trouble::Full];
        let kind = kinds[rng.below(4) as usize];
        let fuse = (runner < troubles).then(|| (1 + rng.below(12), kind));
        let mut sim = Sim {
            disk,
            rng,
            clock: 1e9 + runner as f64,
            jumps: troubles > 0,
            running: Vec::new(),
            fuse,
            broken,
        };
        let folders = Folders { inputs: "/in".to_owned(), run: "/run".to_owned() };
        let setup = Setup { plan, digest: "plan".to_owned(), folders, parallel: 2, part: None };
        let mut machine = Machine::new(setup, &events, &mut sim).unwrap();
        if let Some(stage) = settle.take() {
            // What a crash takes from the operator's word, the runner asks for again.
            if machine.attest(&stage, false, &mut sim).is_err() {
                continue;
            }
        }
        match drive(&mut machine, BTreeMap::new(), &mut sim) {
            Ok(_) => {
                check_journal(plan, &disk.events, &machine);
                return (result(plan, &machine), again);
            }
            Err(RunError::Ambiguous { stage, .. }) => {
                *again.entry(stage.clone()).or_default() += 1;
                settle = Some(stage);
            }
            Err(RunError::Write { .. }) => {}
            Err(why) => panic!("{why}"),
        }
    }
    unreachable!()
}

/// The journal alone must add up to the state of the runner, and each instance that is done must have its receipt.
fn check_journal(plan: &Plan, events: &[Event], machine: &Machine<'_>) {
    let graph = fedmill::language::graph::Graph::of(plan).unwrap();
    let mut state = fedmill::plan::run::state::State::new(plan, &graph);
    for event in events {
        state.add(event, &graph, plan);
    }
    let outcomes = |state: &fedmill::plan::run::state::State| {
        let groups = state.groups.iter().flatten();
        groups.map(|group| (group.outcome, group.choice.clone(), group.over)).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&state), outcomes(&machine.state));
}

fn simulate(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let plan = random_plan(&mut rng);
    let (undisturbed, _) = run(&plan, &mut Rng::new(seed ^ 0xabcd), 0, &[], &mut Disk::default());
    let mut disk = Disk::default();
    let troubles = 1 + rng.below(6);
    let (disturbed, again) = run(&plan, &mut rng, troubles, &[], &mut disk);
    assert_eq!(disturbed, undisturbed, "seed {seed}: {}", serde_json::to_string(&plan).unwrap());
    for stage in plan.stages.iter().filter(|stage| stage.side_effects == SideEffects::Once) {
        let of_stage = |name: &str| stage_of(name) == stage.id.as_str();
        for (name, count) in disk.done.iter().filter(|(name, _)| of_stage(name)) {
            let allowed = 1 + again.get(name).copied().unwrap_or(0);
            assert!(*count <= allowed, "seed {seed}: `{name}` happened {count} times");
        }
    }
    let ok = disk.events.iter().filter(|event| matches!(event, Event::Settled { outcome: Outcome::Ok, .. }));
    ok.count() as u64
}

#[test]
fn a_disturbed_run_ends_as_an_undisturbed_one() {
    let seeds = std::env::var("FEDMILL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000);
    let settled: u64 = (0..seeds)
        .into_par_iter()
        .map(|seed| {
            let simulated = std::panic::catch_unwind(|| simulate(seed));
            simulated.unwrap_or_else(|_| panic!("seed {seed}"))
        })
        .sum();
    assert!(settled > 2 * seeds, "only {settled} stages succeeded over {seeds} seeds");
}

/// The events of a run as the outcomes of its stages, by their names.
fn outcomes(plan: &Plan, events: &[Event]) -> BTreeMap<Key, Outcome> {
    let graph = fedmill::language::graph::Graph::of(plan).unwrap();
    let mut state = fedmill::plan::run::state::State::new(plan, &graph);
    events.iter().for_each(|event| drop(state.add(event, &graph, plan)));
    let groups = state.groups.iter().enumerate().flat_map(|(stage, groups)| {
        let is_looped = plan.loop_of(stage).is_some();
        groups.iter().enumerate().map(move |(place, group)| {
            let iteration = if is_looped { place as u32 + 1 } else { 0 };
            (Key { stage, iteration, index: None, shadow: None }, group.outcome)
        })
    });
    groups.filter_map(|(key, outcome)| Some((key, outcome?))).collect()
}

/// Lets some stages fail, mends them, and goes on. Returns whether the run could be compared with one that never failed.
fn mend(seed: u64) -> bool {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let plan = random_plan(&mut rng);
    let graph = fedmill::language::graph::Graph::of(&plan).unwrap();
    // What a failure that is a result, or the fallback of a vote, came to stays.
    let breaks = |place: &usize| {
        let stage = &plan.stages[*place];
        stage.works() && stage.consensus.is_none() && !graph.failure_is_a_result(&plan, *place)
    };
    let mut broken: Vec<String> =
        (0..plan.stages.len()).filter(breaks).map(|place| plan.stages[place].id.to_string()).collect();
    broken.retain(|_| rng.chance(40));
    let (mut whole, mut disk) = (Disk::default(), Disk::default());
    let (fresh, _) = run(&plan, &mut Rng::new(seed), 0, &[], &mut whole);
    run(&plan, &mut rng, 0, &broken, &mut disk);
    let (first, expected) = (outcomes(&plan, &disk.events), outcomes(&plan, &whole.events));
    let last = |key: &Key| !first.contains_key(&Key { iteration: key.iteration + 1, ..*key });
    // Work that is done stays done, and so does an iteration behind which another one ran.
    let stays = |(key, outcome): (&Key, &Outcome)| {
        let differs = expected.get(key) != Some(outcome);
        differs && (*outcome == Outcome::Ok && !plan.stages[key.stage].decides() || !last(key))
    };
    if broken.is_empty() || first.iter().any(stays) {
        return false;
    }
    // The verdict on a trial stays, with the failure that it names.
    let has_trials = disk.events.iter().any(|event| matches!(event, Event::Tuned { .. }));
    let lines = |mut lines: Vec<String>| {
        if has_trials {
            lines.remove(lines.len() - 2);
        }
        lines
    };
    let (mended, _) = run(&plan, &mut rng, 0, &[], &mut disk);
    let plan = serde_json::to_string(&plan).unwrap();
    assert_eq!(lines(mended), lines(fresh), "seed {seed}: {broken:?} in {plan}");
    true
}

#[test]
fn a_run_that_goes_on_after_failures_ends_as_one_without() {
    let seeds = std::env::var("FEDMILL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000);
    let compared: Vec<bool> = (0..seeds)
        .into_par_iter()
        .map(|seed| std::panic::catch_unwind(|| mend(seed)).unwrap_or_else(|_| panic!("seed {seed}")))
        .collect();
    let compared = compared.into_iter().filter(|compared| *compared).count() as u64;
    assert!(2 * compared > seeds, "compared only {compared} of {seeds} runs");
}
