//! The look at one shard: the first pass over its sections, and the partial that it leaves.
//!
//! A partial holds the branches of its sections: inner products of all points and, where distances are found from
//! differences, squared distances, as upper triangles. Where a close call would be settled in f64, it holds the sums in
//! f64 as well.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::geometry::{Asked, Found, Passes};
use crate::engine::aggregate::request::Job;
use crate::engine::aggregate::session::{Run, check_unchanged};
use crate::engine::decide::judge::Subject;
use crate::engine::intake::fault::Fault;
use crate::engine::passes::combine::CombineError;
use crate::engine::passes::geometry::sums::{Precision, Sought, Totals};
use crate::engine::passes::sections::{Branch, Branches, Summand};
use crate::engine::passes::survey::{Measured, non_finite_faults};
use crate::modes::shards::Shard;
use crate::modes::shards::file::{self, ShardError, ShardFile, ShardKind, SmallTensor};
use crate::modes::shards::identity::RunIdentity;
use crate::modes::shards::sections::{pairs, places, read_pairs, read_places, read_rows, rows};
use crate::rules::{Needs, Statistics};
use crate::telemetry::progress::Progress;
use rayon::ThreadPool;
use std::path::PathBuf;

/// Looks at a shard of a round and leaves a partial at the job's output. Returns its path.
///
/// # Errors
///
/// When an update is bad or cannot be read, or the rule cannot be used on this round or cut into shards.
pub fn gram(job: Job, shard: Shard, pool: &ThreadPool, progress: &Progress) -> Result<PathBuf, MergeError> {
    let mut run = Run::open(job, pool)?;
    let (round, statistics) = run.assemble()?;
    let asks = check(&run, &round, &statistics)?;
    run.choose_backend(&round, &statistics)?;
    let key = pool.install(|| look_key(&run, &round, &statistics))?;
    let small = Look { run: &run, round: &round, shard, pool, progress }.tensors(&asks)?;
    check_unchanged(&round.set)?;
    let sections = shard.sections(round.set.layout.parameters());
    let writer = file::create(&run.job.output, ShardKind::Gram, &key, shard, &sections, &[], &small)?;
    writer.sync()?;
    writer.publish()?;
    progress.finish();
    Ok(run.job.output)
}

/// The looks that judging a round may ask for; the usual one first.
pub(crate) fn asked(run: &Run, round: &Round) -> Vec<Sought> {
    let (aggregation, subject) = (&run.job.aggregation, Subject::of(&round.set));
    let needs = aggregation.needs_with_shadows();
    let sought = |precision| aggregation.sought(subject.clients, needs, subject.has_centre, precision);
    let precise = subject.is_f64_cheap().then(|| sought(Precision::F64));
    [sought(Precision::Usual)].into_iter().chain(precise).collect()
}

/// What partials of looks belong to: the run, and what is looked for beyond what the run needs.
pub(crate) fn look_key(run: &Run, round: &Round, statistics: &Statistics) -> Result<RunIdentity, MergeError> {
    let sought = asked(run, round)[0];
    let key = RunIdentity::of(run, round, statistics)?;
    Ok(key.with("look.median", sought.references.median).with("look.signs", sought.with_signs))
}

fn check(run: &Run, round: &Round, statistics: &Statistics) -> Result<Vec<Sought>, MergeError> {
    let aggregation = &run.job.aggregation;
    aggregation.check(statistics)?;
    if aggregation.needs_with_shadows() == Needs::Median && !aggregation.pre.is_empty() {
        return Err(ShardError::SecondLook { rule: aggregation.rule.to_string() }.into());
    }
    Ok(asked(run, round))
}

/// A look at one shard.
struct Look<'a> {
    run: &'a Run,
    round: &'a Round,
    shard: Shard,
    pool: &'a ThreadPool,
    progress: &'a Progress,
}

impl Look<'_> {
    /// What is looked for, as tensors.
    fn tensors(&self, asks: &[Sought]) -> Result<Vec<SmallTensor>, MergeError> {
        let mut small = Vec::new();
        for sought in asks {
            let (branches, sought) = self.branches(*sought)?;
            small.extend(tensors(&sought, &branches));
        }
        Ok(small)
    }

    fn branches(&self, sought: Sought) -> Result<(Vec<Branch<Totals>>, Sought), MergeError> {
        let Self { run, round, shard, pool, progress } = self;
        let device = run.chosen.as_ref().and_then(|chosen| chosen.device.as_ref());
        let sections = shard.sections(round.set.layout.parameters());
        let mut passes = Passes {
            sections,
            keeps: false,
            ..Passes::over(&round.set, run.job.isa, pool, device, progress)
        };
        let (branches, sought) = passes
            .branches(Asked { sought, mixing: None, hostile: round.byzantine })
            .map_err(CombineError::from)?;
        let none = || sought.totals(sought.no_sums());
        let known = |branch: Branch<Option<Totals>>| {
            let Branch { level, number, sum } = branch;
            Branch { level, number, sum: sum.unwrap_or_else(none) }
        };
        let branches: Vec<Branch<Totals>> = branches.0.into_iter().map(known).collect();
        self.check_sound(&branches)?;
        Ok((branches, sought))
    }

    /// Other shards cannot know of an update that is found bad here, so it is an error whatever is done about others.
    fn check_sound(&self, branches: &[Branch<Totals>]) -> Result<(), MergeError> {
        let all = branches.iter().map(|branch| branch.sum.clone()).reduce(|mut all, next| {
            all.add(&next);
            all
        });
        let Some(all) = all else { return Ok(()) };
        let faults = match non_finite_faults(&self.round.set, &all.measured) {
            faults if faults.is_empty() => too_large(&all, self.round.set.clients.len()),
            faults => faults,
        };
        if faults.is_empty() { Ok(()) } else { Err(MergeError::bad_in_shard(&self.round.set, &faults)) }
    }
}

/// Clients whose products do not fit a number.
fn too_large(all: &Totals, clients: usize) -> Vec<(usize, Fault)> {
    let points = triangle_size(all.products.len());
    let diagonal = |i: usize| all.products[i * (2 * points - i + 1) / 2];
    (0..clients).filter(|i| !diagonal(*i).is_finite()).map(|i| (i, Fault::TooLarge)).collect()
}

/// Rows of the square whose upper triangle has so many values.
fn triangle_size(values: usize) -> usize {
    ((8 * values + 1).isqrt() - 1) / 2
}

fn triangle(size: usize) -> usize {
    size * (size + 1) / 2
}

/// What the names of a look's tensors start with.
fn prefix(sought: &Sought) -> &'static str {
    match sought.precision {
        Precision::Usual => "usual",
        Precision::F64 => "f64",
    }
}

fn tensors(sought: &Sought, branches: &[Branch<Totals>]) -> [SmallTensor; 4] {
    let name = |tensor: &str| format!("{}.{tensor}", prefix(sought));
    let squares = if sought.is_direct() { triangle(sought.updates) } else { 0 };
    [
        places(name(if sought.on_device { "device-branches" } else { "branches" }), branches),
        rows(name("products"), branches, triangle(sought.points()), |sum| sum.products.clone()),
        rows(name("squares"), branches, squares, |sum| sum.squares.clone()),
        pairs(name("counts"), branches, |branch| [branch.sum.signs, branch.sum.floats]),
    ]
}

/// The branches of a look in a partial. Also returns whether a device had a part in them.
fn read(partial: &ShardFile, sought: &Sought) -> Result<(Vec<Branch<Totals>>, bool), ShardError> {
    let name = |tensor: &str| format!("{}.{tensor}", prefix(sought));
    let on_device = partial.shape(&name("device-branches")).is_some();
    let places = read_places(partial, &name(if on_device { "device-branches" } else { "branches" }))?;
    let squares = if sought.is_direct() { triangle(sought.updates) } else { 0 };
    let products = read_rows(partial, &name("products"), places.len(), triangle(sought.points()))?;
    let squares = read_rows(partial, &name("squares"), places.len(), squares)?;
    let counts = read_pairs(partial, &name("counts"), places.len())?;
    let sums = products.into_iter().zip(squares).zip(counts);
    let branch = |(place, ((products, squares), [signs, floats])): (Branch<()>, ((_, _), [u64; 2]))| {
        let measured = vec![Measured::default(); sought.updates];
        let sum = Totals { products, squares, measured, signs, floats };
        Branch { level: place.level, number: place.number, sum }
    };
    Ok((places.into_iter().zip(sums).map(branch).collect(), on_device))
}

/// The branches of a look in all partials, put together.
///
/// # Errors
///
/// When a partial does not hold what it should.
pub(crate) fn read_all(partials: &[ShardFile], sought: Sought) -> Result<Found, ShardError> {
    let mut all = Branches(Vec::new());
    let mut on_device = false;
    for partial in partials {
        let (branches, device) = read(partial, &sought)?;
        on_device |= device;
        for Branch { level, number, sum } in branches {
            all.push(Branch { level, number, sum: Some(sum) });
        }
    }
    Ok((all, Sought { on_device, ..sought }))
}
