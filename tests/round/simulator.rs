//! A deterministic simulator of faults over the phases of rounds.
//!
//! A seed decides what clients do and what goes wrong: crashes before, in and after every change on disk, disks that are
//! full, clocks that jump, machines that start anew, and updates that are late, sent twice, hostile or not asked for.
//! However much goes wrong, the federation ends with the same model as one to which nothing happened.

mod clients;
mod disk;
mod work;

use crate::rng::Rng;
use clients::Script;
use disk::{Disk, Trouble};
use fedmill::config::Config;
use fedmill::round::drive::{Outcome, Until, drive};
use fedmill::round::error::RoundError;
use fedmill::round::init;
use fedmill::round::journal::{Event, RoundJournal};
use fedmill::round::layout;
use fedmill::round::machine::Machine;
use fedmill::round::state::State;
use fedmill::round::verify;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

/// Rounds of a federation.
const ROUNDS: u64 = 3;

/// A simulated world: files, clocks, clients, and the rooms below.
pub(super) struct World {
    disk: Disk,
    script: Script,
    /// The first record of each round in the registry.
    recorded: std::collections::BTreeMap<u64, usize>,
}

fn config(script: &Script) -> Config {
    let mut config = Config::default();
    config.coordination.rounds = Some(ROUNDS);
    config.coordination.min_clients = 2;
    config.coordination.clients = script.wanted() as u64;
    config.strategy.name = if script.takes_stale { "fedbuff" } else { "fedadam:lr=0.1" }.to_owned();
    config.evaluation.command = vec!["measure".to_owned()];
    config.evaluation.metric = Some("accuracy".to_owned());
    config.evaluation.max_regression = 0.6;
    config.publish.keep_last = 2;
    config
}

/// What a federation came to.
#[derive(PartialEq, Eq, Debug)]
struct End {
    /// The digest of the current model.
    model: String,
    /// How each round ended.
    endings: Vec<bool>,
    /// The updates that each round took.
    fates: BTreeSet<String>,
}

/// Runs a federation to its end, with or without trouble.
fn run(seed: u64, is_troubled: bool) -> (End, u64) {
    let script = Script::new(seed);
    let config = config(&script);
    let mut world =
        World { disk: Disk::new(seed, &script), script, recorded: std::collections::BTreeMap::new() };
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut crashes = 0;
    for turn in 0.. {
        assert!(turn < 4_000, "seed {seed}: the federation does not end");
        if is_troubled && crashes < 8 && world.disk.trouble.is_none() {
            world.disk.trouble = Some(Trouble::random(&mut rng));
        }
        if is_troubled && rng.chance(10) && !world.script.needs_a_steady_clock() {
            world.disk.jump(&mut rng);
        }
        match one_run(&mut world, &config) {
            Ok((Outcome::Finished(_), _)) => break,
            Ok((_, collecting)) => world.move_clients(&mut rng, is_troubled, collecting),
            Err(_) if world.disk.has_failed() => {
                crashes += 1;
                world.disk.restart();
            }
            Err(why) => panic!("seed {seed}, turn {turn}: {why}"),
        }
    }
    world.disk.trouble = None;
    (end(seed, &mut world), crashes)
}

/// What cron runs every minute. Also returns the round that collects updates, if one does.
fn one_run(world: &mut World, config: &Config) -> Result<(Outcome, Option<u64>), RoundError> {
    let directory = Path::new("fed");
    // A line that was torn is no line: the federation starts anew.
    let begun = world.disk.files.get(&layout::journal(0)).is_some_and(|journal| journal.contains(&b'\n'));
    if !begun {
        // The command copies the model anew each time.
        world.disk.put("initial", b"model 0".to_vec());
        init::run(world, directory, "initial")?;
    }
    let mut machine = Machine::open(world, config, directory)?;
    machine.mend()?;
    let done = drive(&mut machine, &Until::Waits, |_, _| {})?;
    let collects = matches!(machine.state.last(), Some(Event::Collect { .. }));
    Ok((done, collects.then_some(machine.state.round)))
}

fn end(seed: u64, world: &mut World) -> End {
    let checked = verify::run(world, Path::new("fed")).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert_eq!(checked.rounds, ROUNDS, "seed {seed}");
    assert_eq!(world.recorded.len() as u64, ROUNDS, "seed {seed}: every round is in the registry");
    let state = State::read(world, Path::new("fed")).unwrap();
    let mut fates = BTreeSet::new();
    let mut endings = Vec::new();
    for round in 1..=ROUNDS {
        let journal = RoundJournal::read_alone(world, round).unwrap();
        let names: Vec<&str> = journal.lines.iter().map(|line| line.event.name()).collect();
        let mut once = names.clone();
        once.dedup();
        assert_eq!(names, once, "seed {seed}: no phase begins twice");
        endings.push(names.contains(&"publish"));
        for line in &journal.lines {
            if let Event::Validate(collected) = &line.event {
                let times = || collected.updates.iter().map(|one| one.after_s);
                assert!(times().all(|after| (0.0..=300.0).contains(&after)), "seed {seed}: on time");
                let merged = collected.updates.iter().map(|one| format!("took {} of {}", one.id, one.round));
                let bad = collected.rejected.iter().map(|one| format!("rejected {}: {}", one.id, one.why));
                let late = collected.late.iter().map(|path| format!("late {path}"));
                fates.extend(merged.chain(bad).chain(late));
            }
        }
    }
    let left = world.unaccounted(&fates);
    assert!(left.is_empty(), "seed {seed}: updates that no journal names: {left:?}");
    fates.retain(|fate| fate.starts_with("took"));
    End { model: state.carry.current.file.blake3, endings, fates }
}

fn check(seeds: std::ops::Range<u64>) -> (u64, usize) {
    let results: Vec<(u64, bool)> = seeds
        .into_par_iter()
        .map(|seed| {
            let (calm, _) = run(seed, false);
            let (troubled, crashes) = run(seed, true);
            assert_eq!(troubled, calm, "seed {seed}");
            (crashes, calm.endings.contains(&false))
        })
        .collect();
    let crashes = results.iter().map(|(crashes, _)| crashes).sum();
    (crashes, results.iter().filter(|(_, refused)| *refused).count())
}

#[test]
fn whatever_goes_wrong_a_federation_ends_with_the_same_model() {
    let seeds = std::env::var("FEDMILL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000);
    let (crashes, refused) = check(0..seeds);
    assert!(crashes > 2 * seeds, "the runs were troubled: {crashes} faults");
    assert!(refused > 0 || seeds < 1000, "some rounds were refused");
    println!("{seeds} seeds, {crashes} faults, {refused} federations with a refused round");
}
