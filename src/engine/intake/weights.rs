//! The weight of each client in weighted rules.

use crate::engine::intake::fault::Fault;
use crate::io::text;
use crate::model::client_id::nfc;
use crate::updates::metadata::MOST_EXAMPLES;
use crate::updates::set::Client;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The source of the clients' weights.
#[derive(Clone, PartialEq, Debug)]
pub enum Weighting {
    /// `Examples` if at least half of the updates state them, else `Uniform`. So a few clients do not decide.
    Default,
    /// The `num_examples` of each update's metadata.
    Examples,
    /// Weight 1 for each client.
    Uniform,
    /// A table from client id to weight.
    Table(BTreeMap<String, f64>),
    /// The number under this key of each update's metadata.
    Metadata(String),
}

/// The weight of each client, and their source.
#[derive(Clone, PartialEq, Debug)]
pub struct Weights {
    /// One weight per client, in order of client id.
    pub values: Vec<f64>,
    /// The source as reports name it: `examples`, `uniform`, `file` or `metadata`.
    pub source: &'static str,
}

/// Why the weights cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum WeightsError {
    #[error("the weights of all {clients} clients are zero, expected one above zero")]
    AllZero { clients: usize },
    #[error("the sum of the clients' weights does not fit f64, expected smaller weights")]
    Overflow,
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: line {line}: found `{found}`, expected a client id and a weight that is not negative", .path.display())]
    BadLine { path: PathBuf, line: usize, found: String },
    #[error("{}: is not a JSON object of client ids and weights: {why}", .path.display())]
    BadJson { path: PathBuf, why: String },
    #[error("{}: client `{id}` is listed twice, expected once", .path.display())]
    Twice { path: PathBuf, id: String },
}

impl Weighting {
    /// The weights of these clients, in their order, with examples counted up to `max_examples`, or the faults of
    /// clients without a weight.
    ///
    /// # Errors
    ///
    /// When all weights are zero.
    pub fn weigh(
        &self,
        clients: &[Client],
        max_examples: Option<f64>,
    ) -> Result<Result<Weights, Vec<(usize, Fault)>>, WeightsError> {
        let source = self.source(clients);
        let mut values = Vec::with_capacity(clients.len());
        let mut faults = Vec::new();
        for (i, client) in clients.iter().enumerate() {
            match self.weight(client, source) {
                Ok(weight) if source == "examples" => values.push(weight.min(max_examples.unwrap_or(weight))),
                Ok(weight) => values.push(weight),
                Err(fault) => faults.push((i, fault)),
            }
        }
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        match values.iter().sum::<f64>() {
            _ if values.is_empty() => {}
            0.0 => return Err(WeightsError::AllZero { clients: values.len() }),
            total if total.is_finite() => {}
            _ => return Err(WeightsError::Overflow),
        }
        Ok(Ok(Weights { values, source }))
    }

    /// The source that the operator chose, as partials name it; `None` if the updates decide.
    pub fn chosen(&self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Examples => Some("examples"),
            Self::Uniform => Some("uniform"),
            Self::Table(_) => Some("file"),
            Self::Metadata(_) => Some("metadata"),
        }
    }

    fn source(&self, clients: &[Client]) -> &'static str {
        let stating = clients.iter().filter(|client| client.metadata.num_examples.is_some()).count();
        match self {
            Self::Default if stating > 0 && 2 * stating >= clients.len() => "examples",
            chosen => chosen.chosen().unwrap_or("uniform"),
        }
    }

    fn weight(&self, client: &Client, source: &str) -> Result<f64, Fault> {
        match self {
            Self::Table(table) => {
                table.get(&client.id).copied().ok_or_else(|| Fault::NoWeight { id: client.id.clone() })
            }
            Self::Metadata(key) => of_metadata(client, key),
            _ if source == "examples" => client.metadata.num_examples.ok_or(Fault::NoExamples),
            _ => Ok(1.0),
        }
    }
}

/// The number under a key of an update's metadata, which weighs at most as much as the most examples.
fn of_metadata(client: &Client, key: &str) -> Result<f64, Fault> {
    let found = client.model.metadata.get(key).cloned();
    let weight = found
        .as_deref()
        .and_then(|text| text.trim().parse().ok())
        .filter(|weight| is_weight(weight) && *weight <= MOST_EXAMPLES);
    weight.ok_or_else(|| Fault::NoNumber { key: key.to_owned(), found })
}

/// Reads a table of weights: a JSON object, or lines of a client id and a weight. A comma, a tab or blanks separate the
/// two.
///
/// # Errors
///
/// When the file cannot be read or has another format.
pub fn read_table(path: &Path) -> Result<BTreeMap<String, f64>, WeightsError> {
    let text = text::read_written(path)
        .map_err(|source| WeightsError::Unreadable { path: path.to_owned(), source })?;
    if text.trim_start().starts_with('{') { parse_json(path, &text) } else { parse_lines(path, &text) }
}

fn is_weight(weight: &f64) -> bool {
    weight.is_finite() && *weight >= 0.0
}

fn parse_json(path: &Path, text: &str) -> Result<BTreeMap<String, f64>, WeightsError> {
    let bad = |why: String| WeightsError::BadJson { path: path.to_owned(), why };
    let mut table = BTreeMap::new();
    for (id, value) in text::object_entries(text).map_err(|why| bad(why.to_string()))? {
        let weight = serde_json::from_str(value.get()).ok().filter(is_weight);
        let weight = weight.ok_or_else(|| bad(format!("the weight of `{id}` is {}", value.get())))?;
        if table.insert(nfc(&id), weight).is_some() {
            return Err(WeightsError::Twice { path: path.to_owned(), id });
        }
    }
    Ok(table)
}

fn parse_lines(path: &Path, text: &str) -> Result<BTreeMap<String, f64>, WeightsError> {
    let mut table = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad =
            || WeightsError::BadLine { path: path.to_owned(), line: number + 1, found: line.to_owned() };
        let (id, weight) = line.rsplit_once([',', '\t', ' ']).ok_or_else(bad)?;
        let weight = weight.parse().ok().filter(is_weight).ok_or_else(bad)?;
        let id = id.trim_end_matches([',', '\t', ' ']).to_owned();
        if table.insert(nfc(&id), weight).is_some() {
            return Err(WeightsError::Twice { path: path.to_owned(), id });
        }
    }
    Ok(table)
}
