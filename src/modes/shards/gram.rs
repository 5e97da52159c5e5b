//! Measures one shard: runs the geometry pass over its sections, and writes a shard file.
//!
//! The file holds sums for the branches of its sections, as upper triangles. The sums are inner products of all points,
//! and squared distances if the run computes distances from differences. Sums over statistics stand apart from those over
//! parameters. If a close call would be settled in f64, the file holds the sums in f64 too.

use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::geometry::{FileGeometry, faults_of_values, subject_of};
use crate::engine::aggregate::request::Request;
use crate::engine::intake::fault::Fault;
use crate::engine::passes::geometry::sums::{GeometrySums, SectionSums, Triangles};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::sections::{Branch, SectionTree, Summand};
use crate::engine::passes::survey::Measured;
use crate::modes::shards::file::{self, ShardError, ShardFile, ShardKind, SmallTensor};
use crate::modes::shards::identity::RunIdentity;
use crate::modes::shards::sections::{pairs, places, read_pairs, read_places, read_rows, rows};
use crate::modes::shards::{ShardedRun, bad_updates, sections_of_shard};
use crate::rules::{GeometryRequest, Needs, Precision};
use crate::settings::shard::Shard;
use std::path::PathBuf;

/// Measures a shard of a run and writes its file to the request's output. Returns the path.
///
/// # Errors
///
/// When an update is bad or cannot be read, or the rule cannot be used on this run or in shards.
pub fn gram(request: Request, shard: Shard, machine: Machine) -> Result<PathBuf, Error> {
    let mut run = ShardedRun::open(request, machine)?;
    check(&run)?;
    run.session.choose(&run.taken, None)?;
    let identity = run.session.machine.pool.install(|| geometry_identity(&run))?;
    let mut small = Vec::new();
    for request in requests(&run) {
        let (branches, on_gpu) = match measure(&run, shard, &request) {
            Err(Error::Pass(why)) if why.may_be_of_values() => {
                // Reads as much as a run in one process, to name every bad update.
                let found = run.session.culprits(why.into(), &run.taken.set, &run.taken.cohort)?;
                return Err(bad_updates(&run.taken.set, &found));
            }
            measured => measured?,
        };
        small.extend(tensors(&request, &branches, on_gpu));
    }
    let ShardedRun { session, taken, .. } = run;
    session.end_if_changed(&taken)?;
    let sections = sections_of_shard(shard, taken.set.layout.parameters());
    let target = &session.request.outputs.model;
    let writer = file::create(target, ShardKind::Gram, &identity, shard, &sections, &[], &small)?;
    session.machine.pool.install(|| writer.seal())?;
    writer.sync()?;
    writer.publish()?;
    session.machine.progress.finish();
    Ok(session.request.outputs.model)
}

/// The measurements that the judgement may need, the usual one first.
pub(super) fn requests(run: &ShardedRun) -> Vec<GeometryRequest<'static>> {
    let (subject, hostile) = (subject_of(&run.taken.set), run.taken.byzantine);
    let Request { method, reporting, .. } = &run.session.request;
    let request = |precision| GeometryRequest {
        hostile,
        ..reporting.request(method, subject.clients, subject.has_centre, precision)
    };
    let precise = subject.is_f64_cheap().then(|| request(Precision::F64));
    [request(Precision::Usual)].into_iter().chain(precise).collect()
}

/// The identity of measurements: that of the run, and the measurements that only the report needs.
pub(super) fn geometry_identity(run: &ShardedRun) -> Result<RunIdentity, Error> {
    let request = requests(run)[0];
    let identity = RunIdentity::of(run)?;
    Ok(identity.with("look.median", request.references.median).with("look.signs", request.with_signs))
}

fn check(run: &ShardedRun) -> Result<(), Error> {
    let Request { method, reporting, .. } = &run.session.request;
    method.check(&run.statistics)?;
    if reporting.needs(method) == Needs::Median && !method.pre.is_empty() {
        return Err(ShardError::SecondLook { rule: method.rule.to_string() }.into());
    }
    Ok(())
}

/// Measures the sections of a shard. Returns their sums, and whether the GPU computed some of them.
fn measure(
    run: &ShardedRun,
    shard: Shard,
    request: &GeometryRequest,
) -> Result<(Vec<Branch<SectionSums>>, bool), Error> {
    let set = &run.taken.set;
    let mut source = FileGeometry::new(&run.session.machine, set);
    (source.sections, source.keeps) = (sections_of_shard(shard, set.layout.parameters()), false);
    let GeometrySums { sections, on_gpu } = source.sums(request)?;
    let known = |branch: Branch<Option<SectionSums>>| {
        let Branch { level, number, sum } = branch;
        Branch { level, number, sum: sum.unwrap_or_else(|| SectionSums::none(request)) }
    };
    let branches: Vec<Branch<SectionSums>> = sections.0.into_iter().map(known).collect();
    check_sound(run, &branches)?;
    Ok((branches, on_gpu))
}

/// Refuses bad updates even if the policy skips them: the other shards do not know that they are bad.
fn check_sound(run: &ShardedRun, branches: &[Branch<SectionSums>]) -> Result<(), Error> {
    let all = branches.iter().map(|branch| branch.sum.clone()).reduce(|mut all, next| {
        all.add(&next);
        all
    });
    let (Some(all), set) = (all, &run.taken.set) else { return Ok(()) };
    let faults = match faults_of_values(set, &all.measured) {
        faults if faults.is_empty() => too_large(&all, set.clients.len()),
        faults => faults,
    };
    if faults.is_empty() { Ok(()) } else { Err(bad_updates(set, &faults)) }
}

/// The faults of clients whose products do not fit f64.
fn too_large(all: &SectionSums, clients: usize) -> Vec<(usize, Fault)> {
    let is_too_large = |i: &usize| {
        [&all.parameters, &all.statistics].into_iter().flatten().any(|Triangles { products, .. }| {
            let points = triangle_size(products.len());
            !products[i * (2 * points - i + 1) / 2].is_finite()
        })
    };
    (0..clients).filter(is_too_large).map(|i| (i, Fault::TooLarge)).collect()
}

/// The number of rows of the square whose upper triangle has `values` values.
pub(super) fn triangle_size(values: usize) -> usize {
    ((8 * values + 1).isqrt() - 1) / 2
}

fn triangle(size: usize) -> usize {
    size * (size + 1) / 2
}

/// The prefix of a measurement's tensors.
fn prefix(request: &GeometryRequest) -> &'static str {
    match request.precision {
        Precision::Usual => "usual",
        Precision::F64 => "f64",
    }
}

fn tensors(request: &GeometryRequest, branches: &[Branch<SectionSums>], on_gpu: bool) -> Vec<SmallTensor> {
    let name = |tensor: &str| format!("{}.{tensor}", prefix(request));
    let mut tensors = vec![places(name(if on_gpu { "device-branches" } else { "branches" }), branches)];
    tensors.extend(triangles(request, branches, PARAMETERS, |sum| &sum.parameters));
    tensors.push(pairs(name("counts"), branches, |branch| [branch.sum.signs, branch.sum.floats]));
    if branches.iter().any(|branch| branch.sum.statistics.is_some()) {
        tensors.extend(triangles(request, branches, STATISTICS, |sum| &sum.statistics));
    }
    tensors
}

/// The names of the sums over parameters: inner products, and squared distances.
const PARAMETERS: [&str; 2] = ["products", "squares"];

/// The names of the sums over statistics. A file has them if its sections have statistics that are floats.
const STATISTICS: [&str; 2] = ["statistics-products", "statistics-squares"];

/// The sums over one class, with zeros for a branch without tensors of it.
fn triangles(
    request: &GeometryRequest,
    branches: &[Branch<SectionSums>],
    names: [&str; 2],
    of: impl Fn(&SectionSums) -> &Option<Triangles>,
) -> [SmallTensor; 2] {
    let [products, squares] = names.map(|tensor| format!("{}.{tensor}", prefix(request)));
    let of = |sum: &SectionSums| of(sum).clone().unwrap_or_else(|| Triangles::none(request));
    [
        rows(products, branches, triangle(request.points()), |sum| of(sum).products),
        rows(squares, branches, squares_of(request), |sum| of(sum).squares),
    ]
}

/// The number of squared distances of a branch.
fn squares_of(request: &GeometryRequest) -> usize {
    if request.is_direct() { triangle(request.updates) } else { 0 }
}

/// Reads the sums of all branches over one class.
fn read_triangles(
    shard: &ShardFile,
    request: &GeometryRequest,
    names: [&str; 2],
    branches: usize,
) -> Result<Vec<Option<Triangles>>, ShardError> {
    let [products, squares] = names.map(|tensor| format!("{}.{tensor}", prefix(request)));
    let products = read_rows(shard, &products, branches, triangle(request.points()))?;
    let squares = read_rows(shard, &squares, branches, squares_of(request))?;
    let both = products.into_iter().zip(squares);
    Ok(both.map(|(products, squares)| Some(Triangles { products, squares })).collect())
}

/// Reads the branches of a measurement, and whether the GPU computed some of them.
fn read(
    shard: &ShardFile,
    request: &GeometryRequest,
) -> Result<(Vec<Branch<SectionSums>>, bool), ShardError> {
    let name = |tensor: &str| format!("{}.{tensor}", prefix(request));
    let on_gpu = shard.shape(&name("device-branches")).is_some();
    let places = read_places(shard, &name(if on_gpu { "device-branches" } else { "branches" }))?;
    let parameters = read_triangles(shard, request, PARAMETERS, places.len())?;
    let statistics = match shard.shape(&name(STATISTICS[0])) {
        Some(_) => read_triangles(shard, request, STATISTICS, places.len())?,
        None => vec![None; places.len()],
    };
    let counts = read_pairs(shard, &name("counts"), places.len())?;
    let sums = parameters.into_iter().zip(statistics).zip(counts);
    let sum = |((parameters, statistics), [signs, floats]): ((_, _), [u64; 2])| {
        let measured = vec![Measured::default(); request.updates];
        SectionSums { parameters, statistics, measured, signs, floats }
    };
    let branch = |place: Branch<()>, sum| Branch { level: place.level, number: place.number, sum };
    Ok((places.into_iter().zip(sums.map(sum)).map(|(place, sum)| branch(place, sum)).collect(), on_gpu))
}

/// Joins the sums of a measurement from the files of all shards.
///
/// # Errors
///
/// When a file lacks a tensor, or holds a non-finite value.
pub(super) fn read_all(shards: &[ShardFile], request: &GeometryRequest) -> Result<GeometrySums, ShardError> {
    let mut sections = SectionTree(Vec::new());
    let mut on_gpu = false;
    for shard in shards {
        let (branches, has_gpu) = read(shard, request)?;
        on_gpu |= has_gpu;
        for Branch { level, number, sum } in branches {
            sections.push(Branch { level, number, sum: Some(sum) });
        }
    }
    Ok(GeometrySums { sections, on_gpu })
}
