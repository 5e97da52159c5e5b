//! Takes the outputs of an attempt into the store, and reads its metrics.
//!
//! [`reads`] checks outputs and inputs before and after their use, and [`receipts`] prove what instances made.

pub mod reads;
pub mod receipts;

use super::event::{Artifact, Failure, Made};
use super::vote::read_ballot;
use super::world::{Job, Output};
use crate::io::digest::known::Known;
use crate::io::digest::store::{Store, Stored};
use crate::io::folder;
use crate::io::source::read_at_most;
use crate::schema::json::strict;
use crate::schema::stage::clashes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// The most bytes of a file of metrics.
const MOST_BYTES: u64 = 64 << 20;

/// The most bytes of a ballot.
const MOST_OF_A_BALLOT: u64 = 1 << 20;

/// The folders that an attempt's files go through.
pub struct Places<'a> {
    /// The folder that the attempt ran in.
    pub work: &'a Path,
    /// The file that holds its standard output.
    pub stdout: &'a Path,
    /// The directory of the run.
    pub run: &'a Path,
    /// The digests that the run knows.
    pub known: &'a Known,
}

/// The folder of the outputs of an instance, in the run's directory.
pub fn outputs_of(name: &str) -> PathBuf {
    Path::new("out").join(name)
}

/// Whether an artifact names a file among the outputs of an instance, and an object of the store by its digest.
pub fn is_output(artifact: &Artifact, instance: &str) -> bool {
    let path = Path::new(&artifact.path);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    is_plain && path.starts_with(outputs_of(instance)) && is_digest(&artifact.blake3)
}

/// Whether a text is a BLAKE3 in lower-case hex.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The store of a run.
pub fn store_of(run: &Path) -> Store {
    Store::new(run.join("store"))
}

/// Takes the outputs of an attempt that ended well.
///
/// # Errors
///
/// When one is missing or no file, lies elsewhere, or a metric is missing.
pub fn take(job: &Job, places: &Places<'_>) -> Result<Made, Failure> {
    let (mut made, mut texts) = (Made::default(), BTreeMap::new());
    let outputs = job.outputs.iter().map(|output| (output.name.as_str(), output.path.as_str()));
    if let Some([one, other]) = clashes(outputs).first().map(|places| places.map(|place| &job.outputs[place]))
    {
        return Err(Failure::Outputs(format!(
            "outputs `{}` and `{}` have the paths {} and {}, which come to one file or its folder",
            one.name, other.name, one.path, other.path
        )));
    }
    for output in &job.outputs {
        let from = place(output, places)?;
        if output.optional && !folder::exists(&from) {
            continue;
        }
        if folder::exists(&from) && !folder::is_plain_file(&from) {
            let why = format!("output `{}`, {}: not a regular file", output.name, output.path);
            return Err(Failure::Outputs(why));
        }
        if output.metrics {
            made.metrics.extend(metrics(output, &from, &mut texts)?);
        }
        made.outputs.insert(output.name.clone(), keep(job, output, &from, places)?);
    }
    if let Some(missing) = job.metrics.iter().find(|name| !made.metrics.contains_key(*name)) {
        return Err(Failure::Outputs(missing_metric(missing, &made, &texts)));
    }
    Ok(made)
}

/// The option that the ballot of an attempt chooses; `None` for other work.
///
/// # Errors
///
/// When the ballot is no JSON object, or chooses none of the options.
pub fn ballot(job: &Job, from: &Path) -> Result<Option<String>, Failure> {
    if job.options.is_empty() {
        return Ok(None);
    }
    let text = read_at_most(from, MOST_OF_A_BALLOT).map_err(|why| Failure::Schema(why.to_string()))?;
    read_ballot(&text, &job.options).map(Some).map_err(Failure::Schema)
}

/// Where an attempt leaves an output.
///
/// # Errors
///
/// When its path is none inside of the folder of the attempt.
pub fn place(output: &Output, places: &Places<'_>) -> Result<PathBuf, Failure> {
    if output.path == "-" {
        return Ok(places.stdout.to_owned());
    }
    let path = Path::new(&output.path);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || output.path.is_empty() {
        let why = format!(
            "output `{}`: found path `{}`, expected one inside of the folder",
            output.name, output.path
        );
        return Err(Failure::Outputs(why));
    }
    let mut walked = places.work.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        walked.push(part);
        if folder::exists(&walked) && !folder::is_plain_folder(&walked) {
            let why =
                format!("output `{}`: {} is no folder, or a link to one", output.name, walked.display());
            return Err(Failure::Outputs(why));
        }
    }
    Ok(places.work.join(path))
}

fn keep(job: &Job, output: &Output, from: &Path, places: &Places<'_>) -> Result<Artifact, Failure> {
    let fault = |why: std::io::Error| {
        let found =
            if folder::exists(from) { why.to_string() } else { "the command did not make it".to_owned() };
        Failure::Outputs(format!("output `{}`, {}: {found}", output.name, output.path))
    };
    let store = store_of(places.run);
    let Stored { blake3, bytes } = store.take(from, places.known).map_err(fault)?;
    let file = if output.path == "-" { output.name.as_str() } else { &output.path };
    let name = outputs_of(&job.name).join(file);
    let stored = Stored { blake3: blake3.clone(), bytes };
    store.name(&stored, &places.run.join(&name), places.known).map_err(fault)?;
    Ok(Artifact { path: name.to_string_lossy().into_owned(), blake3, bytes })
}

/// What to say of a metric that the outputs of an attempt lack.
fn missing_metric(name: &str, made: &Made, texts: &BTreeMap<String, Value>) -> String {
    if let Some(found) = texts.get(name) {
        return format!("metric `{name}`: found {found}, expected a number without quotes");
    }
    let there: Vec<String> = made.metrics.keys().take(MOST_NAMED).map(|name| format!("`{name}`")).collect();
    let there = if there.is_empty() { "no number".to_owned() } else { there.join(", ") };
    format!("metric `{name}` is missing from its outputs, which have {there}")
}

/// The most metrics that a message names.
const MOST_NAMED: usize = 10;

/// The numbers of a JSON object, or of `metrics` in a report of fedmill; `texts` gets what is a text.
fn metrics(
    output: &Output,
    path: &Path,
    texts: &mut BTreeMap<String, Value>,
) -> Result<BTreeMap<String, f64>, Failure> {
    let fault = |why: String| Failure::Outputs(format!("output `{}`, {}: {why}", output.name, output.path));
    let text = read_at_most(path, MOST_BYTES).map_err(|why| match why.kind() {
        ErrorKind::NotFound => fault("the command did not make it".to_owned()),
        _ => fault(why.to_string()),
    })?;
    let value = strict(&text).map_err(fault)?;
    let Value::Object(object) = &value else { return Err(fault("found no JSON object".to_owned())) };
    let is_report = object.get("schema").is_some_and(|schema| schema == "fedmill.report/1");
    let numbers = match object.get("metrics").filter(|_| is_report) {
        Some(Value::Object(metrics)) => metrics,
        _ => object,
    };
    let found = numbers.iter().filter(|(_, value)| value.is_string());
    texts.extend(found.map(|(name, value)| (name.clone(), value.clone())));
    Ok(numbers.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect())
}
