//! The end of a round that is cut into shards: the merged values of all of them become the model, the state and the
//! report that merging in one process publishes.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::error::MergeError;
use crate::engine::aggregate::report::output;
use crate::engine::aggregate::request::Job;
use crate::engine::aggregate::session::Run;
use crate::engine::aggregate::state::StateWriter;
use crate::engine::intake::personal::keep_personal;
use crate::engine::passes::sections::{coordinates_of, sections_of};
use crate::io::model_writer::ModelWriter;
use crate::model::layout::Piece;
use crate::modes::shards::combine::{DECISION, Decided, read_norms};
use crate::modes::shards::decide::{MERGING_SETTINGS, OF_MERGING};
use crate::modes::shards::file::{ShardFile, ShardKind, open_all};
use crate::modes::shards::identity::RunIdentity;
use crate::modes::shards::tensors::Pieces;
use crate::telemetry::progress::Progress;
use crate::telemetry::report::Report;
use rayon::ThreadPool;
use serde_json::Value;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// Puts the partials of all shards together, and publishes. Returns the path of the model.
///
/// # Errors
///
/// When partials are not those of this run and this decision, or not complete, or the disk refuses.
pub fn join(
    job: Job,
    partials: &[PathBuf],
    decision: Option<&Path>,
    pool: &ThreadPool,
    progress: &Progress,
) -> Result<PathBuf, MergeError> {
    let mut run = Run::open(job, pool)?;
    let (round, statistics) = run.assemble()?;
    let key = pool.install(|| RunIdentity::of(&run, &round, &statistics))?;
    let decided = Decided::read(&run, &round, statistics, &key, decision)?;
    let key = key.with(DECISION, decided.name());
    let sections = sections_of(round.set.layout.parameters());
    let partials = open_all(partials, ShardKind::Combine, &key, sections)?;

    let metadata = run.output_metadata(&round);
    let job = &run.job;
    let writer = ModelWriter::create(&job.output, &round.set.merged.layout, &metadata, job.max_shard_bytes)?;
    let mut state = run.state_writer(&round)?;
    let started = Instant::now();
    let copy = Copy { run: &run, round: &round, writer: &writer, state: state.as_ref() };
    progress.start("copying", partials.iter().map(|partial| partial.model.bytes()).sum());
    for partial in &partials {
        copy.all_of(partial, progress)?;
    }
    keep_personal(&round.set, &writer)?;
    run.timings.pass_s = started.elapsed().as_secs_f64();
    run.bytes.read = partials.iter().map(|partial| partial.model.bytes()).sum();
    run.finish_writing(&writer, &mut state, pool)?;
    let norms = match decided.lacks_norms() {
        true => Some(read_norms(&partials, round.set.clients.len())?),
        false => None,
    };
    let mut own = run.report_rows(&round);
    if let Decided::Alone(judgement) = &decided {
        own = run.report(&round, judgement, norms.as_deref());
    }
    own.published = true;
    own.backend.why = "put together from shards".to_owned();
    own.output = Some(output(&round, &writer, metadata));
    let path = writer.path().to_owned();
    run.publish(writer, state, &full_report(own, &decided)?)?;
    progress.finish();
    Ok(path)
}

/// The report of merging, with what the decision says of the judgement.
fn full_report(own: Report, decided: &Decided) -> Result<Value, MergeError> {
    let own = serde_json::to_value(own).map_err(MergeError::Report)?;
    let Decided::Read(decision) = decided else { return Ok(own) };
    let mut full = decision.file.report.clone();
    for part in OF_MERGING {
        full[part] = own[part].clone();
    }
    for setting in MERGING_SETTINGS {
        full["settings"][setting] = own["settings"][setting].clone();
    }
    Ok(full)
}

/// Where merged values go.
struct Copy<'a> {
    run: &'a Run,
    round: &'a Round,
    writer: &'a ModelWriter,
    state: Option<&'a StateWriter>,
}

impl Copy<'_> {
    fn all_of(&self, partial: &ShardFile, progress: &Progress) -> Result<(), MergeError> {
        let layout = &self.round.set.layout;
        let coordinates = coordinates_of(&partial.sections, layout.parameters());
        let pieces = Pieces::of(layout, self.run.kept(self.round), coordinates);
        // Those are read, and checked, by themselves.
        let norms = partial.specs_below("norms.");
        let specs = [&pieces.specs[..], &norms].concat();
        let placement = partial.placement(&specs)?;
        for (((slot, piece), place), spec) in pieces.each().zip(placement).zip(&pieces.specs) {
            let file = &partial.model.files[place.file];
            let size = spec.dtype.bytes();
            let mut chunk = vec![0; CHUNK_BYTES.min(piece.len * size)];
            for start in (0..piece.len).step_by(CHUNK_BYTES / size) {
                let len = (piece.len - start).min(CHUNK_BYTES / size);
                let bytes = &mut chunk[..len * size];
                let read = file.read_exact_at(bytes, place.offset + (start * size) as u64);
                read.map_err(|why| partial.damaged(format!("cannot be read: {why}")))?;
                let piece = Piece { start: piece.start + start, len, ..piece };
                self.write(slot, piece, bytes)?;
                progress.advance(bytes.len() as u64);
            }
        }
        let file = &partial.model.files[0];
        Ok(file.check_unchanged().map_err(|why| partial.damaged(why.to_string()))?)
    }

    fn write(&self, slot: Option<usize>, piece: Piece, bytes: &[u8]) -> Result<(), MergeError> {
        match (slot, self.state) {
            (None, _) => self.writer.write(self.round.set.merged.pieces(once(piece)), bytes)?,
            (Some(slot), Some(state)) => state.write(slot, once(piece), bytes)?,
            (Some(_), None) => {}
        }
        Ok(())
    }
}
