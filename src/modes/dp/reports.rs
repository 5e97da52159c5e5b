//! Reports of a release, and the end of a run whose release exists already.

use crate::budget::request::ExistingRelease;
use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::{publish, report};
use crate::engine::intake::taken::Taken;
use crate::io::collision::publish_text;
use crate::io::model_files;
use crate::io::model_writer::WriteError;
use crate::io::publish::copy_to;
use crate::io::shards::INDEX_SUFFIX;
use crate::io::source::identity_of;
use crate::model::layout::Layout;
use crate::modes::dp::error::DpError;
use crate::telemetry::report::{Output, Report};
use crate::telemetry::warnings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The warning in the report of a released model.
const FOR_OPERATOR: &str =
    "the budget does not cover this report: its bytes and times depend on the clients, keep it private";

/// The warning in a report that describes clients.
const NOT_PRIVATE: &str =
    "this report describes single clients without noise: the budget does not cover it, keep it private";

/// Removes all that a report says about single clients, unless the operator asked for it.
pub(super) fn without_clients(report: &mut Report, report_clients: bool) {
    if report_clients {
        report.warnings.push(NOT_PRIVATE.to_owned());
        return;
    }
    report.clients.clear();
    report.rejected.clear();
    report.warnings.push(FOR_OPERATOR.to_owned());
}

/// Ends a run whose release exists already: an earlier run may have crashed before it wrote its report. Another output
/// path gets a copy.
pub(super) fn report_existing(
    session: &Session,
    report_clients: bool,
    taken: &Taken,
    release: &ExistingRelease,
) -> Result<Report, Error> {
    let (found, id) = (release.path.display(), &release.release_id);
    tracing::warn!("{found} is already the release {id} of these updates: nothing is charged");
    let path = at_target(&session.request.outputs.model, release)?;
    let report = existing_report(session, report_clients, taken, &path);
    publish_text(publish::stage_report(session, &report)?)?;
    Ok(report)
}

/// The report of a run whose release exists at a path.
pub(super) fn existing_report(session: &Session, report_clients: bool, taken: &Taken, path: &Path) -> Report {
    let output = existing_output(path, &taken.set.merged.layout);
    let mut report =
        Report { published: true, output: Some(output), ..report::without_judgement(session, taken) };
    report.warnings = warnings::with_printed(report.warnings, report_clients);
    without_clients(&mut report, report_clients);
    report
}

/// The path at which the release stands for this output: its own, as the user wrote it, or that of a copy.
pub(super) fn at_target(target: &Path, release: &ExistingRelease) -> Result<PathBuf, Error> {
    let at = || WriteError::at(target);
    let is_there = |path: &PathBuf| identity_of(path) == identity_of(&release.path);
    // `family` lists the file itself and the index first.
    let mut there = model_files::family(target).map_err(at())?.into_iter().take(2);
    if let Some(path) = there.find(is_there) {
        return Ok(path);
    }
    if release.path.to_string_lossy().ends_with(INDEX_SUFFIX) {
        return Err(DpError::of(DpError::Elsewhere { path: release.path.clone() }));
    }
    copy_to(&release.path, target).map_err(at())?;
    Ok(target.to_owned())
}

fn existing_output(path: &Path, layout: &Layout) -> Output {
    Output {
        path: path.display().to_string(),
        files: Vec::new(),
        tensors: layout.tensors().len(),
        parameters: layout.parameters(),
        metadata: BTreeMap::new(),
        lost_to_rounding: None,
    }
}
