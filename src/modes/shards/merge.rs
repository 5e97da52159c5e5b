//! Joins the shard files of all shards into the model, the state and the report of the run.
//!
//! The files have the same bytes as those of a run in one process.

use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::state::StateWriter;
use crate::engine::aggregate::{metadata, publish, report};
use crate::engine::intake::taken::Taken;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::sections::{coordinates_of, sections_of};
use crate::io::model_writer::ModelWriter;
use crate::model::layout::Piece;
use crate::model::state::KeptTensor;
use crate::modes::shards::ShardedRun;
use crate::modes::shards::combine::{DECISION, Decided, read_norms, read_rounding, read_step};
use crate::modes::shards::decide::{MERGING_FIELDS, MERGING_SETTINGS, STEP_NORMS};
use crate::modes::shards::file::{ShardFile, ShardKind, open_all};
use crate::modes::shards::identity::RunIdentity;
use crate::modes::shards::tensors::Pieces;
use crate::telemetry::report::Report;
use crate::telemetry::warnings;
use serde_json::Value;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of one copy.
const CHUNK_BYTES: usize = 4 << 20;

/// Joins the shard files of all shards, and publishes. Returns the report of merging and the path of the model.
///
/// # Errors
///
/// When a file is of another run or decision, or missing, or a file cannot be written.
pub fn merge(
    request: Request,
    shards: &[PathBuf],
    decision: Option<&Path>,
    machine: Machine,
) -> Result<(Report, PathBuf), Error> {
    let mut run = ShardedRun::open(request, machine)?;
    let done = publish_all(&mut run, shards, decision);
    run.session.with_report(done)
}

fn publish_all(
    run: &mut ShardedRun,
    shards: &[PathBuf],
    decision: Option<&Path>,
) -> Result<(Report, PathBuf), Error> {
    let identity = run.session.machine.pool.install(|| RunIdentity::of(run))?;
    let decided = Decided::read(run, &identity, decision)?;
    let identity = identity.with(DECISION, decided.name());
    let sections = sections_of(run.taken.set.layout.parameters());
    let open = || open_all(shards, ShardKind::Combine, &identity, sections);
    let shards = run.session.machine.pool.install(open)?;

    let ShardedRun { session, taken, .. } = run;
    let merged = &taken.set.merged.layout;
    let mut metadata = metadata::of(session, taken);
    metadata::add_unprotected(&decided.unprotected(), &mut metadata);
    let outputs = &session.request.outputs;
    let writer = ModelWriter::create(&outputs.model, merged, &metadata, outputs.max_shard_bytes)?;
    let mut state = publish::state_writer(session, taken)?;
    let started = Instant::now();
    let bytes = shards.iter().map(|shard| shard.model.bytes()).sum();
    session.machine.progress.start("copying", bytes);
    copy_all(session, taken, &writer, state.as_ref(), &shards)?;
    publish::copy_kept(&taken.set, &writer)?;
    session.timings.pass_s = started.elapsed().as_secs_f64();
    session.bytes.read = bytes;
    publish::sync(session, &writer, &mut state)?;
    let norms = match decided.lacks_norms() {
        true => Some(read_norms(&shards, taken.set.clients.len())?),
        false => None,
    };
    let mut own = match &decided {
        Decided::Alone(judgement) => report::of(session, taken, judgement, norms.as_deref()),
        Decided::Read(_) => report::without_judgement(session, taken),
    };
    let lost = report::warn_of_rounding(&taken.set, read_rounding(&shards, &taken.set)?);
    report::add_step(read_step(&shards, &taken.set)?, &mut own);
    own.published = true;
    own.warnings = warnings::with_printed(own.warnings, true);
    own.backend.why = "put together from shards".to_owned();
    own.output = Some(report::output(merged, &writer, metadata, lost));
    let path = writer.path().to_owned();
    let full = full_report(&own, &decided)?;
    for (client, row) in own.clients.iter_mut().zip(full["clients"].as_array().into_iter().flatten()) {
        client.kept = row["kept"] == true;
    }
    publish::publish(session, writer, state, &full)?;
    session.machine.progress.finish();
    Ok((own, path))
}

fn copy_all(
    session: &Session,
    taken: &Taken,
    writer: &ModelWriter,
    state: Option<&StateWriter>,
    shards: &[ShardFile],
) -> Result<(), Error> {
    let copy = Copy { session, taken, writer, state, kept: session.kept_tensors() };
    shards.iter().try_for_each(|shard| copy.all_of(shard))
}

/// The report of merging, with the judgement of the decision.
fn full_report(own: &Report, decided: &Decided) -> Result<Value, Error> {
    let own = serde_json::to_value(own).map_err(Error::Report)?;
    let Decided::Read(decision) = decided else { return Ok(own) };
    let mut full = decision.file.report.clone();
    // The warnings of the judgement, then those of merging.
    let warnings = |of: &Value| of["warnings"].as_array().cloned().unwrap_or_default();
    let mut all = warnings(&full);
    for warning in warnings(&own) {
        if !all.contains(&warning) {
            all.push(warning);
        }
    }
    full["warnings"] = Value::Array(all);
    for norm in STEP_NORMS {
        if let Some(length) = own["strategy"].get(norm) {
            full["strategy"][norm] = length.clone();
        }
    }
    for part in MERGING_FIELDS {
        full[part] = own[part].clone();
    }
    for setting in MERGING_SETTINGS {
        full["settings"][setting] = own["settings"][setting].clone();
    }
    Ok(full)
}

/// Copies merged values from shard files to the model and the state.
struct Copy<'a> {
    session: &'a Session<'a>,
    taken: &'a Taken,
    writer: &'a ModelWriter,
    state: Option<&'a StateWriter>,
    kept: Vec<KeptTensor>,
}

impl Copy<'_> {
    fn all_of(&self, shard: &ShardFile) -> Result<(), Error> {
        let layout = &self.taken.set.layout;
        let coordinates = coordinates_of(&shard.sections, layout.parameters());
        let pieces = Pieces::of(layout, &self.kept, coordinates);
        // `read_norms`, `read_rounding` and `read_step` read and check these.
        let measured = ["norms.", "rounding.", "stepped."].map(|prefix| shard.specs_below(prefix)).concat();
        let specs = [&pieces.specs[..], &measured].concat();
        let placement = shard.placement(&specs)?;
        for (((slot, piece), place), spec) in pieces.each().zip(placement).zip(&pieces.specs) {
            let file = &shard.model.files[place.file];
            let size = spec.dtype.bytes();
            let mut chunk = vec![0; CHUNK_BYTES.min(piece.len * size)];
            for start in (0..piece.len).step_by(CHUNK_BYTES / size) {
                let len = (piece.len - start).min(CHUNK_BYTES / size);
                let bytes = &mut chunk[..len * size];
                let read = file.read_values_at(bytes, place.offset + (start * size) as u64);
                read.map_err(|why| shard.damaged(format!("cannot be read: {why}")))?;
                let piece = Piece { start: piece.start + start, len, ..piece };
                self.write(slot, piece, bytes)?;
                self.session.machine.progress.advance(bytes.len() as u64);
            }
        }
        let file = &shard.model.files[0];
        Ok(file.check_unchanged().map_err(|why| shard.damaged(why.to_string()))?)
    }

    fn write(&self, slot: Option<usize>, piece: Piece, bytes: &[u8]) -> Result<(), Error> {
        match (slot, self.state) {
            (None, _) => self.writer.write(self.taken.set.merged.pieces(once(piece)), bytes)?,
            (Some(slot), Some(state)) => state.write(slot, once(piece), bytes)?,
            (Some(_), None) => {}
        }
        Ok(())
    }
}
