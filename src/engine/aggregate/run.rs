//! The steps of an aggregate run: take updates, choose the backend, judge, merge, publish.

use crate::engine::aggregate::controls::merge_controls;
use crate::engine::aggregate::error::{Error, Stopped};
use crate::engine::aggregate::geometry::Spent;
use crate::engine::aggregate::mode::{Mode, Plain};
use crate::engine::aggregate::publish::{Complete, StagedReport};
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::state::StateWriter;
use crate::engine::aggregate::{metadata, publish, report};
use crate::engine::decide::judge::Judgement;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::combine::{norms_of, step_norms};
use crate::engine::passes::machine::Machine;
use crate::engine::passes::overlap;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::io::publish::StagedNames;
use crate::telemetry::report::Report;
use crate::telemetry::warnings;
use std::collections::BTreeMap;
use std::time::Instant;

/// Merges updates, and publishes the model and the report. Returns the report.
///
/// # Errors
///
/// When the input is bad, the policy refuses the run, or a file cannot be written; no model is published then.
pub fn run(request: Request, machine: Machine) -> Result<Report, Error> {
    run_as(&mut Plain, request, machine)
}

/// Merges updates in a mode, and publishes the model and the report. Returns the report.
///
/// # Errors
///
/// As [`run`], and when the mode does not support the request.
pub fn run_as(mode: &mut dyn Mode, request: Request, machine: Machine) -> Result<Report, Error> {
    mode.check(&request)?;
    let mut session = Session::open(request, machine)?;
    let done = session.until_sound(mode, |session, mode, taken| {
        session.choose(taken, None)?;
        let mut judgement = mode.judge(session, taken)?;
        session.check_kept(&judgement)?;
        judgement.overlap = overlap_of(session, taken)?;
        merge_and_publish(session, mode, taken, &judgement)
    });
    let report = session.with_report(done)?;
    session.machine.progress.finish();
    Ok(report)
}

/// The overlap of the clients' largest values, if the request asks for it.
fn overlap_of(session: &mut Session, taken: &Taken) -> Result<Option<f64>, Stopped> {
    let Some(share) = session.request.reporting.overlap else { return Ok(None) };
    let bytes = overlap::READS * taken.set.data_bytes();
    session.machine.progress.start("comparing", bytes);
    session.machine.take_meter();
    let found = overlap::mean_overlap(&session.machine, &taken.set, share)?;
    let meter = session.machine.take_meter();
    session.add_spent(&Spent { bytes, meter });
    Ok(found)
}

/// Merges judged updates and publishes the model, the state and the report.
///
/// # Errors
///
/// When an update is bad or cannot be read, or a file cannot be written.
pub fn merge_and_publish(
    session: &mut Session,
    mode: &dyn Mode,
    taken: &Taken,
    judgement: &Judgement,
) -> Result<Report, Stopped> {
    let mut metadata = metadata::of(session, taken);
    metadata::add_unprotected(&judgement.unprotected(), &mut metadata);
    mode.describe(taken, &mut metadata);
    let staging = stage(session, taken, metadata)?;
    merge_staged(session, mode, taken, judgement, staging)
}

/// The model, the state and the report of a run under temporary names, with their room on disk.
pub struct Staging {
    writer: ModelWriter,
    state: Option<StateWriter>,
    report: StagedReport,
    metadata: BTreeMap<String, String>,
}

impl Staging {
    /// Checks before the work that the outputs can be kept under temporary names.
    ///
    /// # Errors
    ///
    /// When a name is too long.
    pub fn check_kept_names(&self) -> Result<(), WriteError> {
        self.writer.check_kept_names()?;
        if let Some((path, staged)) = &self.report {
            staged.check_kept_name().map_err(WriteError::at(path))?;
        }
        self.state.as_ref().map_or(Ok(()), StateWriter::check_kept_names)
    }

    /// The names of the files on their way to their final ones.
    pub fn names(&self) -> Vec<StagedNames> {
        publish::names(&self.writer, self.state.as_ref(), &self.report)
    }
}

/// Reserves the room for the model, the state and the report. The text of the final metadata may be shorter, and not
/// longer.
///
/// # Errors
///
/// When a file cannot be written, or the disk has no room.
pub fn stage(session: &Session, taken: &Taken, metadata: BTreeMap<String, String>) -> Result<Staging, Error> {
    let (target, most_bytes) = (&session.request.outputs.model, session.request.outputs.max_shard_bytes);
    let writer = ModelWriter::create(target, &taken.set.merged.layout, &metadata, most_bytes)?;
    let state = publish::state_writer(session, taken)?;
    let report = publish::reserve_report(session, &report::without_judgement(session, taken))?;
    Ok(Staging { writer, state, report, metadata })
}

/// Merges judged updates into a staged model and state, and publishes both and the report.
///
/// # Errors
///
/// As [`merge_and_publish`].
pub fn merge_staged(
    session: &mut Session,
    mode: &dyn Mode,
    taken: &Taken,
    judgement: &Judgement,
    staging: Staging,
) -> Result<Report, Stopped> {
    let set = &taken.set;
    let Staging { writer, mut state, report: report_room, metadata: staged } = staging;
    let mut metadata = metadata::of(session, taken);
    metadata::add_unprotected(&judgement.unprotected(), &mut metadata);
    mode.describe(taken, &mut metadata);
    if metadata != staged {
        writer.rewrite_metadata(&set.merged.layout, &metadata)?;
    }
    let started = Instant::now();
    let with_norms =
        session.request.outputs.describe_clients() && judgement.norms.is_none() && taken.others.is_empty();
    let kept = session.kept_tensors();
    let reducer = mode.reducer(taken, judgement, judgement.screened && !with_norms);
    let pass = session.pass(taken, judgement.server_step, &*reducer, &kept, with_norms);
    let (bytes, read) = pass.bytes(&session.machine);
    session.machine.progress.start("merging", bytes);
    session.machine.take_meter();
    let combined = pass.run(&session.machine, |tile, values| {
        let pieces = || set.layout.pieces(tile.coordinates.clone());
        if let Some(state) = &state {
            for (slot, bytes) in values.kept.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
                state.write(slot, pieces(), bytes)?;
            }
        }
        writer.write(set.merged.pieces(pieces()), values.model)
    })?;
    let clock = session.machine.take_meter().clock;
    session.bytes.read += read;
    if let (Some(state), Some(recipe)) = (&state, &judgement.recipe) {
        merge_controls(session, taken, recipe, None, |slot, tile, bytes| {
            state.write(slot, set.layout.pieces(tile.coordinates.clone()), bytes)
        })?;
    }
    session.bytes.read += publish::copy_kept(set, &writer)?;
    mode.check_unchanged(session, taken)?;
    session.timings.pass_s += started.elapsed().as_secs_f64();
    session.add_clock(clock);
    publish::sync(session, &writer, &mut state)?;
    let norms = with_norms.then(|| norms_of(combined.squared_norms, set.clients.len()));
    let mut report = report::of(session, taken, judgement, norms.as_deref());
    let lost = report::warn_of_rounding(set, combined.rounding);
    // A GPU takes its steps without measuring them.
    report::add_step(step_norms(combined.stepped).filter(|_| session.machine.gpu().is_none()), &mut report);
    mode.report(taken, &mut report);
    report.published = true;
    report.warnings =
        warnings::with_printed(report.warnings, session.request.outputs.readers.may_see_clients());
    report.output = Some(report::output(&set.merged.layout, &writer, metadata, lost));
    let plot = publish::stage_texts(session, &report_room, &report)?;
    mode.publish(Complete { model: writer, state, report: report_room, plot })?;
    tell_merged(session, taken);
    Ok(report)
}

fn tell_merged(session: &Session, taken: &Taken) {
    let (merged, rejected) = (taken.cohort.clients.len(), taken.rejected.len());
    tracing::info!("merged {merged} updates by {} ({rejected} rejected)", session.request.method.rule);
}
