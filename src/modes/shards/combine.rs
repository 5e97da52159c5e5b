//! Merges one shard: runs the second pass over its sections, and writes a shard file.
//!
//! The file holds the values of the model and the state in its sections, tensor by tensor, in their stored dtypes.
//! Without a decision, which holds the norms, the file holds the squared norms of the deltas too.

use crate::engine::aggregate::controls::merge_controls;
use crate::engine::aggregate::error::{Error, Stopped};
use crate::engine::aggregate::request::Request;
use crate::engine::decide::judge::Judgement;
use crate::engine::decide::source::GeometrySource;
use crate::engine::passes::combine::compile::compile;
use crate::engine::passes::combine::{CombinePass, Combined, SquaredNorms, StepNorms, norms_of, step_norms};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::sections::{Branch, SectionAdder, SectionTree, coordinates_of};
use crate::io::model_writer::ModelWriter;
use crate::kernels::server_step::ServerStep;
use crate::modes::shards::decide::{Decision, judge_by};
use crate::modes::shards::file::{self, ShardError, ShardFile, ShardKind, SmallTensor};
use crate::modes::shards::identity::RunIdentity;
use crate::modes::shards::sections::{places, read_places, read_rows, rows};
use crate::modes::shards::tensors::Pieces;
use crate::modes::shards::{ShardedRun, bad_updates, sections_of_shard};
use crate::rules::{GeometryRequest, GeometryResult, Recipe};
use crate::settings::shard::Shard;
use crate::updates::set::UpdateSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The names of the tensors of squared norms, of the rounding, and of the server's step.
const NORMS: Names = ["norms.branches", "norms.squares"];
const ROUNDING: Names = ["rounding.branches", "rounding.squares"];
const STEPPED: Names = ["stepped.branches", "stepped.squares"];

/// The entry of an identity that names the decision.
pub(super) const DECISION: &str = "decision";

/// Merges a shard of a run by its decision, and writes the shard file to the request's output. Returns the path.
///
/// # Errors
///
/// When the decision is missing or of another run, an update is bad or cannot be read, or a merged value cannot be
/// stored.
pub fn combine(
    request: Request,
    shard: Shard,
    decision: Option<&Path>,
    machine: Machine,
) -> Result<PathBuf, Error> {
    let mut run = ShardedRun::open(request, machine)?;
    let identity = run.session.machine.pool.install(|| RunIdentity::of(&run))?;
    run.session.choose(&run.taken, None)?;
    let decided = Decided::read(&run, &identity, decision)?;
    let found = match merge(&mut run, &decided, shard, &identity.with(DECISION, decided.name())) {
        Ok(()) => {
            run.session.machine.progress.finish();
            return Ok(run.session.request.outputs.model);
        }
        Err(Stopped::BadUpdates(found)) => found,
        // Reads as much as a run in one process, to find the bad update.
        Err(Stopped::Error(why)) => run.session.culprits(why, &run.taken.set, &run.taken.cohort)?,
    };
    Err(bad_updates(&run.taken.set, &found))
}

/// The judgement that shards follow.
pub(super) enum Decided {
    /// A decision file.
    Read(Box<Decision>),
    /// The judgement of a rule that needs no measurement.
    Alone(Box<Judgement>),
}

impl Decided {
    /// Reads the decision file. Without one, judges by a rule that needs no measurement.
    pub(super) fn read(
        run: &ShardedRun,
        identity: &RunIdentity,
        decision: Option<&Path>,
    ) -> Result<Self, Error> {
        if let Some(path) = decision {
            let decision = Decision::read(path, identity, run.taken.set.clients.len())?;
            return Ok(Self::Read(Box::new(decision)));
        }
        let rule = run.session.request.method.rule.to_string();
        Ok(Self::Alone(Box::new(judge_by(run, &mut NoGeometry { rule })?)))
    }

    /// The recipe. It is never `None`, since a rule decided it.
    fn recipe(&self) -> Option<&Recipe> {
        match self {
            Self::Read(decision) => Some(&decision.file.recipe),
            Self::Alone(judgement) => judgement.recipe.as_ref(),
        }
    }

    fn server_step(&self) -> ServerStep {
        match self {
            Self::Read(decision) => decision.file.server_step,
            Self::Alone(judgement) => judgement.server_step,
        }
    }

    /// The protection that the operator asked for, and that the model does not have.
    pub(super) fn unprotected(&self) -> Vec<String> {
        let texts = |of: &serde_json::Value| of.as_array().cloned().unwrap_or_default();
        match self {
            Self::Read(decision) => {
                let all = texts(&decision.file.report["unprotected"]).into_iter();
                all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
            }
            Self::Alone(judgement) => judgement.unprotected(),
        }
    }

    /// The name of the decision in shard files.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Read(decision) => &decision.digest,
            Self::Alone(_) => "none",
        }
    }

    /// Whether the norms of the deltas are unknown. Then it is also unknown whether the deltas are finite.
    pub(super) fn lacks_norms(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

/// A source without geometry: the error asks for a decision.
struct NoGeometry {
    rule: String,
}

impl GeometrySource for NoGeometry {
    type Error = ShardError;

    fn measure(&mut self, _: &GeometryRequest) -> Result<GeometryResult, ShardError> {
        Err(ShardError::NoDecision { rule: self.rule.clone() })
    }

    fn leave_gpu(&mut self) -> bool {
        false
    }
}

/// Merges a shard and publishes its file.
fn merge(
    run: &mut ShardedRun,
    decided: &Decided,
    shard: Shard,
    identity: &RunIdentity,
) -> Result<(), Stopped> {
    let layout = &run.taken.set.layout;
    let sections = sections_of_shard(shard, layout.parameters());
    let coordinates = coordinates_of(&sections, layout.parameters());
    let pieces = Pieces::of(layout, &run.session.kept_tensors(), coordinates.clone());
    let empty = || branches_of(&sections);
    let none = Combined { squared_norms: empty(), rounding: empty(), stepped: empty() };
    let measures = Measures::of(run, decided);
    let room = measures.tensors(&none);
    let target = &run.session.request.outputs.model;
    let writer = file::create(target, ShardKind::Combine, identity, shard, &sections, &pieces.specs, &room)?;
    if !sections.is_empty() {
        fill(run, decided, measures, coordinates, &pieces, &writer)?;
        run.session.end_if_changed(&run.taken)?;
    }
    run.session.machine.pool.install(|| writer.seal())?;
    writer.sync()?;
    Ok(writer.publish()?)
}

/// Merges the values of the shard, and writes them.
fn fill(
    run: &mut ShardedRun,
    decided: &Decided,
    measures: Measures,
    coordinates: Range<usize>,
    pieces: &Pieces,
    writer: &ModelWriter,
) -> Result<(), Stopped> {
    let ShardedRun { session, taken, .. } = run;
    let (layout, clients) = (&taken.set.layout, taken.set.clients.len());
    let Some(recipe) = decided.recipe() else { return Ok(()) };
    let (kept, lacks_norms) = (session.kept_tensors(), decided.lacks_norms());
    let members: Vec<usize> = (0..clients).collect();
    // With a decision, `gram` found every update finite.
    let reducer = compile(recipe, &taken.set, &members, !lacks_norms);
    let pass = session.pass(taken, decided.server_step(), &*reducer, &kept, lacks_norms);
    let pass = CombinePass { coordinates: Some(coordinates.clone()), ..pass };
    session.machine.progress.start("merging", layout.bytes_of(coordinates.clone()) * clients as u64);
    let combined =
        pass.run(&session.machine, |tile, values| pieces.write(writer, layout, &tile.coordinates, values))?;
    file::write(writer, pieces.specs.len(), &measures.tensors(&combined))?;
    if kept.is_empty() {
        return Ok(());
    }
    merge_controls(session, taken, recipe, Some(coordinates), |slot, tile, bytes| {
        pieces.write_slot(writer, layout, &tile.coordinates, slot, bytes)
    })
}

/// What a shard measures beside its values.
#[derive(Clone, Copy)]
struct Measures {
    /// The number of clients whose norms it measures: all, if the decision lacks them.
    norms: Option<usize>,
    /// Rounding, if the model has narrow floats.
    rounding: bool,
    /// The server's step, if there is one. A GPU takes its steps without measuring them.
    stepped: bool,
}

impl Measures {
    fn of(run: &ShardedRun, decided: &Decided) -> Self {
        let set = &run.taken.set;
        Self {
            norms: decided.lacks_norms().then_some(set.clients.len()),
            rounding: set.rounds_narrow(),
            stepped: decided.server_step() != ServerStep::PLAIN && run.session.machine.gpu().is_none(),
        }
    }

    /// The tensors of these measurements.
    fn tensors(self, of: &Combined) -> Vec<SmallTensor> {
        let norms = self.norms.map(|clients| sums(NORMS, &of.squared_norms, clients));
        let rounding = self.rounding.then(|| sums(ROUNDING, &of.rounding, 2));
        let stepped = self.stepped.then(|| sums(STEPPED, &of.stepped, 2));
        norms.into_iter().chain(rounding).chain(stepped).flatten().collect()
    }
}

/// The names of the tensors of sums: the branches, and a row for each.
type Names = [&'static str; 2];

/// Rows of sums, one for each branch of sections.
fn sums([places_name, rows_name]: Names, tree: &SquaredNorms, columns: usize) -> [SmallTensor; 2] {
    let row = |sum: &Option<Vec<f64>>| {
        let mut row = sum.clone().unwrap_or_default();
        row.resize(columns, 0.0);
        row
    };
    [places(places_name.to_owned(), &tree.0), rows(rows_name.to_owned(), &tree.0, columns, row)]
}

/// The branches of a range of sections, without sums.
fn branches_of(sections: &Range<usize>) -> SquaredNorms {
    SectionAdder::<Vec<f64>>::starting_at(sections.start).finish(sections.end)
}

/// Joins the norms of all shard files.
///
/// # Errors
///
/// When a shard file lacks a tensor, or holds a non-finite value.
pub(super) fn read_norms(partials: &[ShardFile], clients: usize) -> Result<Vec<f64>, ShardError> {
    Ok(norms_of(read_sums(partials, NORMS, clients)?, clients))
}

/// Joins the rounding of all shard files; without sums if the model has no narrow floats.
///
/// # Errors
///
/// When a shard file lacks a tensor, or holds a non-finite value.
pub(super) fn read_rounding(partials: &[ShardFile], set: &UpdateSet) -> Result<SquaredNorms, ShardError> {
    match set.rounds_narrow() {
        true => read_sums(partials, ROUNDING, 2),
        false => Ok(SectionTree(Vec::new())),
    }
}

/// Joins the norms of the server's step of all shard files; `None` without a step, or if a shard did not measure it.
///
/// # Errors
///
/// When a shard file lacks a tensor, or holds a non-finite value.
pub(super) fn read_step(partials: &[ShardFile], set: &UpdateSet) -> Result<Option<StepNorms>, ShardError> {
    let measured = |partial: &ShardFile| partial.shape(STEPPED[0]).is_some();
    if !set.has_parameters() || !partials.iter().all(measured) {
        return Ok(None);
    }
    Ok(step_norms(read_sums(partials, STEPPED, 2)?))
}

fn read_sums(
    partials: &[ShardFile],
    [places_name, rows_name]: Names,
    columns: usize,
) -> Result<SquaredNorms, ShardError> {
    let mut all = SectionTree(Vec::new());
    for partial in partials {
        let places = read_places(partial, places_name)?;
        let sums = read_rows(partial, rows_name, places.len(), columns)?;
        for (Branch { level, number, .. }, sum) in places.into_iter().zip(sums) {
            all.push(Branch { level, number, sum: Some(sum) });
        }
    }
    Ok(all)
}
