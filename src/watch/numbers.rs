//! Numbers of a round or a run as a whole, from whatever measured them.

use super::rest::{Times, replay};
use super::series::series;
use crate::io::{folder, text};
use crate::measures::series::Sensitivity;
use crate::measures::{self, gain::gain};
use crate::modes::shards::file::ShardError;
use crate::modes::shards::measured::measured;
use crate::plan::run::claim::read_run;
use crate::plan::run::error::RunError;
use crate::rules::metrics::RoundMetrics;
use crate::telemetry::cells::{Listing, number};
use crate::telemetry::explain::Explain;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Numbers that another program measured.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Measurements {
    /// Inner products of the clients' deltas, row by row.
    gram: Option<Vec<Vec<f64>>>,
    /// The weights of the clients; equal by default.
    weights: Option<Vec<f64>>,
    /// The names of the clients.
    clients: Option<Vec<String>>,
    /// Numbers in order of time, by name.
    #[serde(default)]
    series: BTreeMap<String, Vec<f64>>,
    /// The score of the merged model.
    merged: Option<f64>,
    /// The scores of the clients' own models, on the same data.
    alone: Option<Vec<f64>>,
}

/// The most values of a series: its slope looks at all pairs.
const LONGEST: usize = 10_000;

/// How numbers follow from what was measured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether less is better in scores.
    pub minimize: bool,
    /// The number of last values of each series to look at; `None` for all.
    pub window: Option<usize>,
    /// When a series counts as risen or fallen.
    pub sensitivity: Sensitivity,
}

/// Why there are no numbers.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum NumbersError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Shards(#[from] ShardError),
    #[error("{}: {why}", .path.display())]
    Source { path: PathBuf, why: String },
    #[error("two sources have `{0}`, expected one")]
    Twice(String),
}

impl Explain for NumbersError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Run(why) => why.hint(),
            Self::Shards(why) => why.hint(),
            _ => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Run(why) => why.signal(),
            Self::Shards(why) => why.signal(),
            _ => None,
        }
    }
}

/// The numbers, in order.
pub struct Numbers {
    settings: Settings,
    /// The name, its metric in the table, and the value.
    rows: Vec<(String, &'static str, Option<f64>)>,
    /// Each client's influence and cluster.
    clients: Vec<Value>,
    /// The stage on the critical path that took longest.
    bottleneck: Option<String>,
}

impl Numbers {
    /// The numbers of sources: directories of runs, JSON, and the shard files of one run.
    ///
    /// # Errors
    ///
    /// When a source cannot be read or is none, or two have a number of one name.
    pub fn of(sources: &[PathBuf], settings: Settings) -> Result<Self, NumbersError> {
        let mut numbers = Self { settings, rows: Vec::new(), clients: Vec::new(), bottleneck: None };
        let mut shards = Vec::new();
        for source in sources {
            if folder::is_folder(source) {
                numbers.add_run(source)?;
            } else if let Some(text) = json_of(source)? {
                numbers.add_json(source, &text)?;
            } else {
                shards.push(source.clone());
            }
        }
        if !shards.is_empty() {
            let geometry = measured(&shards)?;
            let clients = geometry.geometry.clients();
            numbers.add_round(&RoundMetrics::of(&geometry.geometry, &vec![1.0; clients]), None);
        }
        numbers.check_names()?;
        Ok(numbers)
    }

    fn add_run(&mut self, dir: &Path) -> Result<(), NumbersError> {
        let (plan, _, journal) = read_run(dir)?;
        let events = journal.events();
        for (name, values) in series(&plan, &events)? {
            self.add_series(&name, &values);
        }
        let (graph, state) = replay(&plan, events.iter())?;
        let times = Times {
            plan: &plan,
            graph: &graph,
            state: &state,
            past: &BTreeMap::new(),
            running: BTreeMap::new(),
        };
        if let Some(found_one) = times.bottleneck() {
            self.bottleneck = Some(found_one.stage);
            self.rows.push(("bottleneck_share".to_owned(), "bottleneck_share", Some(found_one.share)));
        }
        Ok(())
    }

    fn add_json(&mut self, path: &Path, text: &str) -> Result<(), NumbersError> {
        let fault = |why: String| NumbersError::Source { path: path.to_owned(), why };
        let value: Value = serde_json::from_str(text).map_err(|why| fault(format!("is no JSON: {why}")))?;
        let report = match value["schema"].as_str() {
            Some("fedmill.report/1") => Some(&value),
            Some("fedmill.decision/1") => Some(&value["report"]),
            Some(other) => {
                let why =
                    format!("$.schema: found `{other}`, expected fedmill.report/1 or fedmill.decision/1");
                return Err(fault(why));
            }
            None => None,
        };
        if let Some(report) = report {
            return self.add_report(report).map_err(fault);
        }
        let given: Measurements =
            serde_json::from_str(text).map_err(|why| fault(format!("are no measurements: {why}")))?;
        self.add_measurements(&given).map_err(fault)
    }

    fn add_measurements(&mut self, given: &Measurements) -> Result<(), String> {
        let Measurements { gram, weights, clients, series, merged, alone } = given;
        let count = gram.as_ref().map_or(0, Vec::len);
        for (name, length) in
            [("weights", weights.as_ref().map(Vec::len)), ("clients", clients.as_ref().map(Vec::len))]
        {
            if let Some(length) = length.filter(|length| *length != count) {
                return Err(format!(
                    "$.{name}: found {length} values, expected {count}, one for each row of `gram`"
                ));
            }
        }
        if let Some(rows) = gram {
            let geometry = measures::geometry::of_products(rows).map_err(|why| format!("$.gram{why}"))?;
            let weights = weights.clone().unwrap_or_else(|| vec![1.0; count]);
            if let Some(place) = weights.iter().position(|weight| !(*weight >= 0.0 && weight.is_finite())) {
                return Err(format!(
                    "$.weights[{place}]: found {}, expected a number from 0 on",
                    weights[place]
                ));
            }
            if weights.iter().all(|weight| *weight == 0.0) {
                return Err("$.weights: found only zeros, expected one above 0".to_owned());
            }
            self.add_round(&RoundMetrics::of(&geometry, &weights), clients.as_deref());
        }
        match (merged, alone) {
            (Some(merged), Some(alone)) => {
                let gain = gain(*merged, alone, self.settings.minimize)
                    .ok_or("$.alone: found no score, expected one")?;
                self.add("gain_over_best", Some(gain.over_best));
                self.add("gain_over_mean", Some(gain.over_mean));
            }
            (None, None) => {}
            _ => return Err("found one of `merged` and `alone`, expected both or neither".to_owned()),
        }
        for (name, values) in series {
            if values.len() > LONGEST {
                return Err(format!(
                    "$.series.{name}: found {} values, expected at most {LONGEST}",
                    values.len()
                ));
            }
            self.add_series(name, values);
        }
        Ok(())
    }

    fn add_series(&mut self, name: &str, values: &[f64]) {
        let from = values.len().saturating_sub(self.settings.window.unwrap_or(LONGEST));
        for (metric, value) in measures::series::named(&values[from..], self.settings.sensitivity) {
            self.rows.push((format!("{name}_{metric}"), metric, value));
        }
    }

    fn add(&mut self, metric: &'static str, value: Option<f64>) {
        self.rows.push((metric.to_owned(), metric, value));
    }

    fn add_round(&mut self, metrics: &RoundMetrics, clients: Option<&[String]>) {
        for (metric, value) in measures::geometry::named(metrics) {
            self.add(metric, value);
        }
        for (place, influence) in metrics.influence.iter().enumerate() {
            let id = clients.map_or_else(|| json!(place), |clients| json!(clients[place]));
            let cluster = metrics.clusters.as_ref().map(|clusters| clusters.members[place]);
            self.clients.push(json!({
                "id": id, "influence": influence.distance, "turn": influence.angle, "cluster": cluster
            }));
        }
    }

    /// Takes the metrics of a report, which are those of the same formulas.
    fn add_report(&mut self, report: &Value) -> Result<(), String> {
        let Value::Object(metrics) = &report["metrics"] else {
            return Err("its `metrics` are null, expected those of --metrics geometry".to_owned());
        };
        for metric in measures::METRICS.iter().filter(|metric| metrics.contains_key(metric.name)) {
            self.add(metric.name, metrics[metric.name].as_f64());
        }
        let clients = report["clients"].as_array().map_or(&[][..], Vec::as_slice);
        let largest =
            |of: &str| clients.iter().filter_map(|client| client["influence"][of].as_f64()).reduce(f64::max);
        self.add("largest_influence", largest("distance"));
        self.add("largest_turn", largest("angle"));
        self.clients.extend(clients.iter().map(|client| {
            let influence = &client["influence"];
            json!({
                "id": client["id"], "influence": influence["distance"], "turn": influence["angle"],
                "cluster": client["cluster"]
            })
        }));
        Ok(())
    }

    fn check_names(&self) -> Result<(), NumbersError> {
        let mut names: Vec<&str> = self.rows.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(NumbersError::Twice(pair[0].to_owned())),
            None => Ok(()),
        }
    }

    /// The numbers as one JSON object.
    pub fn json(&self) -> Value {
        let numbers = self.rows.iter().map(|(name, _, value)| (name.clone(), json!(value)));
        let mut object: Map<String, Value> = numbers.collect();
        if !self.clients.is_empty() {
            object.insert("clients".to_owned(), json!(self.clients));
        }
        if let Some(stage) = &self.bottleneck {
            object.insert("bottleneck".to_owned(), json!(stage));
        }
        Value::Object(object)
    }

    /// The numbers with their formulas.
    pub fn table(&self) -> String {
        let mut table = Listing::with_header(["metric", "value", "formula"]);
        for (name, metric, value) in &self.rows {
            let value = value.map_or_else(|| "-".to_owned(), number);
            let formula = measures::named(metric).map_or("", |metric| metric.formula);
            table.add([name.clone(), value, formula.to_owned()]);
        }
        let bottleneck = self.bottleneck.iter().map(|stage| format!("bottleneck: {stage}\n"));
        format!("{}\n{}", table.text(&[2]), bottleneck.collect::<String>())
    }
}

/// The text of a JSON file; `None` for a file that is none.
fn json_of(path: &Path) -> Result<Option<String>, NumbersError> {
    match text::read(path) {
        Ok(text) if !text.contains('\0') => Ok(Some(text)),
        Ok(_) => Ok(None),
        Err(why) if why.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(why) => Err(NumbersError::Source { path: path.to_owned(), why: why.to_string() }),
    }
}
