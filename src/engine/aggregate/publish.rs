//! Syncs model, state and report to disk, then renames each to its final path.

use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::outputs::written;
use crate::engine::aggregate::request::{Outputs, Plot};
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::state::StateWriter;
use crate::engine::intake::taken::Taken;
use crate::io::collision::{self, StagedText, publish_text, target};
use crate::io::interrupt::Section;
use crate::io::model_files::KeptModel;
use crate::io::model_writer::{ModelWriter, WriteError};
use crate::io::publish::turn::Turn;
use crate::io::publish::{self, Staged, StagedNames};
use crate::io::text;
use crate::telemetry::report::{FailureReport, Report};
use crate::telemetry::warnings;
use crate::updates::set::UpdateSet;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The writer of the run's state; `None` without `--state`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn state_writer(session: &Session, taken: &Taken) -> Result<Option<StateWriter>, Error> {
    let (Some(path), Some(spec)) = (&session.request.outputs.state, session.state_spec()) else {
        return Ok(None);
    };
    let (layout, carried) = (&taken.set.layout, &taken.set.carried);
    Ok(Some(StateWriter::create(path, &spec, layout, carried, session.base_digest()?)?))
}

/// Copies into the merged model what the run does not merge: the base's personal tensors, and opaque tensors. Without a
/// base, all clients have the same opaque tensors. Returns the number of bytes copied.
///
/// # Errors
///
/// When an input cannot be read or the model cannot be written.
pub fn copy_kept(set: &UpdateSet, writer: &ModelWriter) -> Result<u64, WriteError> {
    let mut copied = 0;
    for (i, (tensor, place)) in set.merged.kept().enumerate() {
        let (model, file, offset) = match (&set.base, set.clients.first()) {
            (Some(base), _) => (&base.model, place.file, place.offset),
            // Without a base, no tensor is copied but the opaque ones, in their order.
            (None, Some(client)) => (&client.model, client.opaque[i].file, client.opaque[i].offset),
            (None, None) => break,
        };
        let bytes = place.spec.bytes() as u64;
        writer.copy(tensor, &model.files[file], offset, bytes)?;
        copied += bytes;
    }
    Ok(copied)
}

/// Syncs model and state to disk.
///
/// # Errors
///
/// When the disk reports an error.
pub fn sync(
    session: &mut Session,
    model: &ModelWriter,
    state: &mut Option<StateWriter>,
) -> Result<(), Error> {
    let synced = match state {
        Some(state) => state.finish(model, session.machine.pool)?,
        None => model.sync()?,
    };
    session.timings.sync_s = synced.as_secs_f64();
    session.bytes.written = model.bytes() + state.as_ref().map_or(0, StateWriter::bytes);
    Ok(())
}

/// Renames model, state and report to their final paths. The report is on disk before the first rename, so that an
/// error of the disk leaves no half-published run.
///
/// # Errors
///
/// When the report cannot be written, or a file cannot be renamed.
pub fn publish(
    session: &Session,
    model: ModelWriter,
    state: Option<StateWriter>,
    report: &impl Serialize,
) -> Result<(), Error> {
    let report = stage_report(session, report)?;
    let _turn = Turn::take(model.path());
    let _whole = Section::enter();
    Complete { model, state, report, plot: None }.publish()
}

/// The outputs of a run, complete on disk under temporary names.
pub struct Complete {
    /// The model.
    pub model: ModelWriter,
    /// The state; `None` without `--state`.
    pub state: Option<StateWriter>,
    /// The report; `None` without `--report`.
    pub report: StagedReport,
    /// The picture of the report; `None` without `--plot`, or if a stream has it.
    pub plot: StagedText,
}

impl Complete {
    /// Renames all outputs to their final paths.
    ///
    /// # Errors
    ///
    /// When a file cannot be renamed.
    pub fn publish(self) -> Result<(), Error> {
        // The state first, so that no model is published without its state.
        if let Some(state) = self.state {
            state.publish()?;
        }
        self.model.publish()?;
        warn_of("report", publish_text(self.report));
        warn_of("plot", publish_text(self.plot));
        Ok(())
    }

    /// The names of all files on their way to their final ones.
    pub fn names(&self) -> Vec<StagedNames> {
        names(&self.model, self.state.as_ref(), &self.report)
    }

    /// Keeps all outputs under temporary names that outlast the run. A run that keeps its outputs has no plot.
    ///
    /// # Errors
    ///
    /// When a file cannot be renamed.
    pub fn keep(self) -> Result<Kept, WriteError> {
        let state = self.state.map(|state| state.into_writer().keep()).transpose()?;
        let model = self.model.keep()?;
        let keep = |(path, staged): (PathBuf, Staged)| match staged.keep() {
            Ok(kept) => Ok((publish::resolved(&kept), publish::resolved(&path))),
            Err(why) => Err(WriteError::at(&path)(why)),
        };
        let report = self.report.map(keep).transpose()?;
        report.as_ref().map_or(Ok(()), |(kept, _)| sync_directory(kept))?;
        Ok(Kept { state, model, report })
    }
}

/// The outputs of a run, complete on disk under temporary names, from one run to the next.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    state: Option<KeptModel>,
    model: KeptModel,
    report: Option<(PathBuf, PathBuf)>,
}

impl Kept {
    /// Renames all outputs to their final paths. May be repeated after an error.
    ///
    /// # Errors
    ///
    /// When a file cannot be renamed.
    pub fn publish(&self) -> Result<(), WriteError> {
        let _turn = Turn::take(self.model.target());
        let _whole = Section::enter();
        self.state.as_ref().map_or(Ok(()), KeptModel::publish)?;
        self.model.publish()?;
        let Some((kept, path)) = &self.report else { return Ok(()) };
        warn_of("report", publish::publish_kept(kept, path).map_err(WriteError::at(path)));
        publish::settle_directory_of(path);
        Ok(())
    }

    /// The paths that model and state are published to.
    pub fn targets(&self) -> (&Path, Option<&Path>) {
        (self.model.target(), self.state.as_ref().map(KeptModel::target))
    }

    /// The final path of the model, or of its index.
    pub fn path(&self) -> &Path {
        self.model.path()
    }
}

/// Warns of a report or plot that cannot be renamed: the model has its name already.
fn warn_of(what: &str, published: Result<(), WriteError>) {
    if let Err(why) = published {
        tracing::warn!("the model is published, and its {what} is not: {why}");
    }
}

/// The names of the files of a run on their way to their final ones.
pub(super) fn names(
    model: &ModelWriter,
    state: Option<&StateWriter>,
    report: &StagedReport,
) -> Vec<StagedNames> {
    let state = state.map(StateWriter::names).unwrap_or_default();
    let report = report.iter().map(|(path, staged)| staged.names(path));
    model.names().into_iter().chain(state).chain(report).collect()
}

/// Room for a report, in bytes beside the report without a judgement, and as a factor of that.
const ROOM_BYTES: u64 = 1 << 16;
const ROOM_FACTOR: u64 = 4;

/// A report that is on disk under a temporary name; `None` without `--report`, or if a stream has it.
pub type StagedReport = StagedText;

/// Reserves the room for a report of a run; `None` without `--report`, or for a stream.
///
/// # Errors
///
/// When the file cannot be written, or the disk has no room.
pub fn reserve_report(session: &Session, without_judgement: &impl Serialize) -> Result<StagedReport, Error> {
    let report = session.request.outputs.report.as_ref();
    let Some(path) = report.filter(|path| !target::is_stream(path)) else { return Ok(None) };
    let start = serde_json::to_string_pretty(without_judgement).map_err(Error::Report)?;
    let bytes = ROOM_FACTOR * start.len() as u64 + ROOM_BYTES;
    let create =
        if session.request.outputs.readers.are_few() { Staged::create_private } else { Staged::create };
    let staged = publish::remove_leftovers(path).and_then(|_| create(path, bytes));
    Ok(Some((path.clone(), staged.map_err(WriteError::at(path))?)))
}

/// Writes a report to disk into its reserved room, or to the stream that `--report` names.
///
/// # Errors
///
/// When it cannot be written.
fn fill_report(session: &Session, room: &StagedReport, report: &impl Serialize) -> Result<(), Error> {
    let Some((path, staged)) = room else { return stage_report(session, report).map(drop) };
    let json = format!("{}\n", serde_json::to_string_pretty(report).map_err(Error::Report)?);
    let written = staged.write_at(json.as_bytes(), 0).and_then(|()| staged.set_len(json.len() as u64));
    written.and_then(|()| staged.sync()).map_err(WriteError::at(path))?;
    Ok(())
}

/// Writes a report to disk under a temporary name, or to a stream.
///
/// # Errors
///
/// When it cannot be written.
pub fn stage_report(session: &Session, report: &impl Serialize) -> Result<StagedReport, Error> {
    let Some(path) = &session.request.outputs.report else { return Ok(None) };
    let json = format!("{}\n", serde_json::to_string_pretty(report).map_err(Error::Report)?);
    let stage = match session.request.outputs.readers.are_few() {
        true => publish::stage_private,
        false => publish::stage,
    };
    Ok(collision::stage_text(path, json.as_bytes(), stage)?)
}

/// Writes the report into its room, and returns the plot under a temporary name. The plot is complete first: a report on
/// a stream says that the model is published.
///
/// # Errors
///
/// When the plot cannot be drawn, or one of both cannot be written.
pub fn stage_texts(session: &Session, room: &StagedReport, report: &Report) -> Result<StagedText, Error> {
    let plot = stage_plot(session, report)?;
    fill_report(session, room, report)?;
    Ok(plot)
}

/// Draws a report, and writes the picture to disk under a temporary name, or to a stream.
///
/// # Errors
///
/// When it cannot be drawn or written.
fn stage_plot(session: &Session, report: &Report) -> Result<StagedText, Error> {
    let Some(Plot { path, draw }) = &session.request.outputs.plot else { return Ok(None) };
    let picture = draw(report, path).map_err(|why| Error::Plot { path: path.clone(), why })?;
    Ok(collision::stage_text(path, &picture, publish::stage)?)
}

/// Writes the report of a run that published nothing. `so_far` is the report of a run that had taken updates. Keeps a
/// file that is not a report: it may be an input that the run did not come to read. Writes none where another output
/// belongs.
///
/// # Errors
///
/// When the report cannot be written.
pub fn publish_failure(
    outputs: &Outputs,
    so_far: Option<&Report>,
    (why, is_refusal): (String, bool),
) -> Result<(), Error> {
    let Some(path) = &outputs.report else { return Ok(()) };
    collision::check_target(path)?;
    // Where the folder of the model cannot be read, no model of it is in the way.
    collision::check(&written(outputs).unwrap_or_default(), &[])?;
    let file = target::Target::of(path).map_err(WriteError::at(path))?.file();
    if !file.map_or(Ok(true), |file| is_report(&file)).map_err(WriteError::at(path))? {
        return Err(Error::NotAReport { path: path.to_owned() });
    }
    let refused = is_refusal.then(|| why.clone());
    let names_clients = outputs.readers.may_see_clients();
    let json = match so_far.cloned() {
        Some(mut report) => {
            if !names_clients {
                report.clients.clear();
                report.rejected.clear();
            }
            let warnings = warnings::with_printed(report.warnings, names_clients);
            let report = Report { published: false, error: Some(why), refused, warnings, ..report };
            serde_json::to_string_pretty(&report)
        }
        None => serde_json::to_string_pretty(&FailureReport::new(why, refused, names_clients)),
    };
    let json = format!("{}\n", json.map_err(Error::Report)?);
    let stage = if outputs.readers.are_few() { publish::stage_private } else { publish::stage };
    Ok(publish_text(collision::stage_text(path, json.as_bytes(), stage)?)?)
}

/// Whether a file is a report, or empty, or does not exist.
fn is_report(path: &Path) -> io::Result<bool> {
    match text::read(path) {
        Ok(text) => Ok(text.is_empty() || text.starts_with('{') && text.contains("\"fedmill.report/")),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(true),
        Err(why) if why.kind() == ErrorKind::InvalidData => Ok(false),
        Err(why) => Err(why),
    }
}

fn sync_directory(path: &Path) -> Result<(), WriteError> {
    publish::sync_directory_of(path).map_err(WriteError::at(path))
}
