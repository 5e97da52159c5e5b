//! How much each client counts in rules that weigh clients.

use crate::io::text;
use crate::round::fault::Fault;
use crate::round::roster::{Client, Update};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where weights come from.
#[derive(Clone, PartialEq, Debug)]
pub enum Weighting {
    /// Examples if the updates state them, else one each.
    Default,
    /// The `num_examples` of each update.
    Examples,
    /// One each.
    Uniform,
    /// A table by client id.
    Table(BTreeMap<String, f64>),
}

/// The weight of each client, and where it came from.
#[derive(Clone, PartialEq, Debug)]
pub struct Weights {
    /// One a client, in order of client id.
    pub values: Vec<f64>,
    /// As named on the command line: `examples`, `uniform` or `file`.
    pub source: &'static str,
}

/// Why clients cannot be weighted.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum WeightsError {
    #[error("the weights of all {clients} clients are zero, expected one above zero")]
    AllZero { clients: usize },
    #[error("the weights of the clients add up to more than a number can hold")]
    Overflow,
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: line {line}: found `{found}`, expected a client id and a weight that is not negative", .path.display())]
    BadLine { path: PathBuf, line: usize, found: String },
    #[error("{}: is not a JSON object of client ids and weights: {why}", .path.display())]
    BadJson { path: PathBuf, why: String },
    #[error("{}: client `{id}` stands twice", .path.display())]
    Twice { path: PathBuf, id: String },
}

impl Weighting {
    /// The weights of these clients, in their order. Those that have none are moved to the rejected.
    ///
    /// # Errors
    ///
    /// When all weights are zero.
    pub fn apply(
        &self,
        clients: &mut Vec<Client>,
        rejected: &mut Vec<Update>,
    ) -> Result<Weights, WeightsError> {
        let by_examples = match self {
            Self::Default => clients.iter().any(|client| client.metadata.num_examples.is_some()),
            Self::Examples => true,
            Self::Uniform | Self::Table(_) => false,
        };
        if *self == Self::Default && !by_examples && !clients.is_empty() {
            tracing::warn!("no update states `num_examples`: every client weighs the same");
        }
        let source = match self {
            Self::Table(_) => "file",
            _ if by_examples => "examples",
            _ => "uniform",
        };
        let weight = |client: &Client| match self {
            Self::Table(table) => {
                table.get(&client.id).copied().ok_or_else(|| Fault::NoWeight { id: client.id.clone() })
            }
            _ if by_examples => client.metadata.num_examples.ok_or(Fault::NoExamples),
            _ => Ok(1.0),
        };
        let mut values = Vec::with_capacity(clients.len());
        for client in std::mem::take(clients) {
            match weight(&client) {
                Ok(weight) => {
                    values.push(weight);
                    clients.push(client);
                }
                Err(fault) => rejected.push(client.reject(fault)),
            }
        }
        match values.iter().sum::<f64>() {
            _ if values.is_empty() => {}
            0.0 => return Err(WeightsError::AllZero { clients: values.len() }),
            total if total.is_finite() => {}
            _ => return Err(WeightsError::Overflow),
        }
        Ok(Weights { values, source })
    }
}

/// Reads a table of weights: a JSON object, or lines of a client id and a weight with a comma, a tab or
/// blanks between.
///
/// # Errors
///
/// When the file cannot be read or understood.
pub fn read_table(path: &Path) -> Result<BTreeMap<String, f64>, WeightsError> {
    let text =
        text::read(path).map_err(|source| WeightsError::Unreadable { path: path.to_owned(), source })?;
    if text.trim_start().starts_with('{') { parse_json(path, &text) } else { parse_lines(path, &text) }
}

fn is_weight(weight: &f64) -> bool {
    weight.is_finite() && *weight >= 0.0
}

fn parse_json(path: &Path, text: &str) -> Result<BTreeMap<String, f64>, WeightsError> {
    let bad = |why: String| WeightsError::BadJson { path: path.to_owned(), why };
    let table: BTreeMap<String, f64> = serde_json::from_str(text).map_err(|why| bad(why.to_string()))?;
    match table.iter().find(|(_, weight)| !is_weight(weight)) {
        Some((id, weight)) => Err(bad(format!("the weight of `{id}` is {weight}"))),
        None => Ok(table),
    }
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
        if table.insert(id.clone(), weight).is_some() {
            return Err(WeightsError::Twice { path: path.to_owned(), id });
        }
    }
    Ok(table)
}
