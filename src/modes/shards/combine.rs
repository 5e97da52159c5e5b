//! The merging of one shard: the second pass over its sections, and the partial that it leaves.
//!
//! A partial holds the merged values of its sections, tensor by tensor, in the dtypes of the model, and those of the
//! state. Where no decision says how long the deltas are, it holds their squared norms too.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::geometry::{Asked, Looks};
use crate::engine::aggregate::request::Job;
use crate::engine::aggregate::session::{Run, Stopped, check_unchanged};
use crate::engine::decide::judge::{Judgement, Outcome, Unjudged};
use crate::engine::passes::combine::norms_of;
use crate::engine::passes::geometry::sums::FirstLook;
use crate::engine::passes::sections::{Branch, Branches, SectionSums, coordinates_of};
use crate::io::model_writer::ModelWriter;
use crate::modes::shards::Shard;
use crate::modes::shards::decide::{Decision, judge};
use crate::modes::shards::file::{self, ShardError, ShardFile, ShardKind, SmallTensor};
use crate::modes::shards::identity::RunIdentity;
use crate::modes::shards::sections::{places, read_places, read_rows, rows};
use crate::modes::shards::tensors::Pieces;
use crate::rules::Statistics;
use crate::telemetry::progress::Progress;
use rayon::ThreadPool;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The tensors of squared norms.
const NORM_BRANCHES: &str = "norms.branches";
const NORMS: &str = "norms.squares";

/// The entry of a key that names the decision.
pub(crate) const DECISION: &str = "decision";

/// Merges a shard of a round, as was decided, and leaves a partial at the job's output. Returns its path.
///
/// # Errors
///
/// When the decision is missing or of another run, an update is bad or cannot be read, or a merged value cannot be
/// stored.
pub fn combine(
    job: Job,
    shard: Shard,
    decision: Option<&Path>,
    pool: &ThreadPool,
    progress: &Progress,
) -> Result<PathBuf, MergeError> {
    let mut run = Run::open(job, pool)?;
    let (round, statistics) = run.assemble()?;
    let key = pool.install(|| RunIdentity::of(&run, &round, &statistics))?;
    run.choose_backend(&round, &statistics)?;
    let decided = Decided::read(&run, &round, statistics, &key, decision)?;
    let sections = shard.sections(round.set.layout.parameters());
    let work = Work { run: &mut run, round: &round, decided: &decided, shard, sections, pool, progress };
    let found = match work.merge(&key.with(DECISION, decided.name())) {
        Ok(()) => {
            progress.finish();
            return Ok(run.job.output);
        }
        Err(Stopped::BadUpdates(found)) => found,
        // As much is read to name the culprit as merging in one process reads.
        Err(Stopped::Error(why)) => run.culprits(why, &round.set, pool, progress)?,
    };
    Err(MergeError::bad_in_shard(&round.set, &found))
}

/// What shards go by.
pub(crate) enum Decided {
    /// What a decision file says.
    Read(Box<Decision>),
    /// What the rule says of any updates.
    Alone(Box<Judgement>),
}

impl Decided {
    /// What a decision file says, or what the rule says where it needs no look.
    pub(crate) fn read(
        run: &Run,
        round: &Round,
        statistics: Statistics,
        key: &RunIdentity,
        decision: Option<&Path>,
    ) -> Result<Self, MergeError> {
        if let Some(path) = decision {
            let decision = Decision::read(path, key, round.set.clients.len())?;
            return Ok(Self::Read(Box::new(decision)));
        }
        let rule = run.job.aggregation.rule.to_string();
        let judgement = judge(run, round, statistics, &mut Blind { rule })?;
        Ok(Self::Alone(Box::new(judgement)))
    }

    pub(crate) fn outcome(&self) -> Outcome<'_> {
        match self {
            Self::Read(decision) => decision.outcome(),
            Self::Alone(judgement) => judgement.outcome(),
        }
    }

    /// What partials name it by.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Read(decision) => &decision.digest,
            Self::Alone(_) => "none",
        }
    }

    /// Whether it leaves open how long deltas are.
    pub(crate) fn lacks_norms(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

/// Looks that cannot be had.
struct Blind {
    rule: String,
}

impl Looks for Blind {
    fn look(&mut self, _: Asked) -> Result<FirstLook, Unjudged> {
        Err(ShardError::NoDecision { rule: self.rule.clone() }.into())
    }

    fn leave_device(&mut self) -> bool {
        false
    }
}

/// The merging of one shard.
struct Work<'a> {
    run: &'a mut Run,
    round: &'a Round,
    decided: &'a Decided,
    shard: Shard,
    sections: Range<usize>,
    pool: &'a ThreadPool,
    progress: &'a Progress,
}

impl Work<'_> {
    fn merge(self, key: &RunIdentity) -> Result<(), Stopped> {
        let Self { run, round, shard, sections, .. } = &self;
        let (layout, clients) = (&round.set.layout, round.set.clients.len());
        let coordinates = coordinates_of(sections, layout.parameters());
        let pieces = Pieces::of(layout, run.kept(round), coordinates.clone());
        let room = self.decided.lacks_norms().then(|| norms(&branches_of(sections), clients));
        let room = room.as_ref().map_or(&[][..], |room| room);
        let writer =
            file::create(&run.job.output, ShardKind::Combine, key, *shard, sections, &pieces.specs, room);
        let writer = writer.map_err(MergeError::from)?;
        if !sections.is_empty() {
            let set = &round.set;
            self.fill(coordinates, &pieces, &writer)?;
            check_unchanged(set)?;
        }
        writer.sync().map_err(MergeError::from)?;
        Ok(writer.publish().map_err(MergeError::from)?)
    }

    /// Merges the values of the shard, and writes them.
    fn fill(self, coordinates: Range<usize>, pieces: &Pieces, writer: &ModelWriter) -> Result<(), Stopped> {
        let Self { run, round, decided, pool, progress, .. } = self;
        let (layout, clients) = (&round.set.layout, round.set.clients.len());
        let (outcome, lacks_norms) = (decided.outcome(), decided.lacks_norms());
        let mut pass = run.pass(round, &outcome, lacks_norms, progress);
        pass.coordinates = Some(coordinates.clone());
        progress.start("merging", layout.bytes_of(coordinates.clone()) * clients as u64);
        let combined = pass.run(pool, |tile, values| pieces.write(writer, layout, &tile.coordinates, values));
        let combined = combined.map_err(MergeError::from)?;
        if let Some(why) = &combined.device_failure {
            tracing::warn!("{why}; the CPU took over");
        }
        if lacks_norms {
            let norms = norms(&combined.squared_norms.0, clients);
            file::write(writer, pieces.specs.len(), &norms).map_err(MergeError::from)?;
        }
        if run.kept(round).is_empty() {
            return Ok(());
        }
        run.combine_controls(round, outcome.recipe, Some(coordinates), pool, progress, |slot, tile, bytes| {
            pieces.write_slot(writer, layout, &tile.coordinates, slot, bytes)
        })
    }
}

/// Squared norms of so many clients, section branch by section branch.
fn norms(branches: &[Branch<Option<Vec<f64>>>], clients: usize) -> [SmallTensor; 2] {
    let row = |sum: &Option<Vec<f64>>| {
        let mut row = sum.clone().unwrap_or_default();
        row.resize(clients, 0.0);
        row
    };
    [places(NORM_BRANCHES.to_owned(), branches), rows(NORMS.to_owned(), branches, clients, row)]
}

/// The branches of some sections, without sums.
fn branches_of(sections: &Range<usize>) -> Vec<Branch<Option<Vec<f64>>>> {
    SectionSums::starting_at(sections.start).finish(sections.end).0
}

/// The norms that partials hold, put together.
///
/// # Errors
///
/// When a partial does not hold what it should.
pub(crate) fn read_norms(partials: &[ShardFile], clients: usize) -> Result<Vec<f64>, ShardError> {
    let mut all = Branches(Vec::new());
    for partial in partials {
        let places = read_places(partial, NORM_BRANCHES)?;
        let sums = read_rows(partial, NORMS, places.len(), clients)?;
        for (Branch { level, number, .. }, sum) in places.into_iter().zip(sums) {
            all.push(Branch { level, number, sum: Some(sum) });
        }
    }
    Ok(norms_of(all, clients))
}
