//! `fedmill plan metrics`: numbers of a round or a run as a whole.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::cli::cells::{number, row};
use crate::io::{folder, text};
use crate::measures::series::Sensitivity;
use crate::measures::{self, gain::gain};
use crate::modes::shards::measured::measured;
use crate::plan::run::claim::read_run;
use crate::rules::metrics::RoundMetrics;
use crate::watch;
use crate::watch::rest::Bottleneck;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Compute numbers that describe a round or a run as a whole.
///
/// Takes shard files of `fedmill gram`, a report or a decision, the directory of a run, or JSON with `gram`, `weights`,
/// `clients`, `series`, `merged` and `alone`. A stage whose output is this command's --json has the numbers as metrics
/// for conditions. docs/metrics.md has the formulas.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// Where the numbers come from; all shard files of one run together. `-` is JSON on standard input.
    #[arg(value_name = "SOURCE", required = true, help_heading = INPUTS)]
    sources: Vec<PathBuf>,
    /// In scores, less is better.
    #[arg(long, help_heading = INPUTS)]
    minimize: bool,
    /// Look at the last N values of each series.
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    window: Option<usize>,
    /// The change of a series' mean that does not count, in standard deviations of its noise.
    #[arg(long, value_name = "S", default_value_t = Sensitivity::default().drift, help_heading = INPUTS)]
    drift: f64,
    /// The sum of changes beyond the drift at which a series rose or fell, in standard deviations of its noise.
    #[arg(long, value_name = "S", default_value_t = Sensitivity::default().threshold, help_heading = INPUTS)]
    threshold: f64,
    /// Print one JSON object, whose numbers a plan can take as metrics.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

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

/// What was found, in order.
#[derive(Default)]
struct Found {
    /// The name, its metric in the table, and the value.
    rows: Vec<(String, &'static str, Option<f64>)>,
    /// Each client's influence and cluster.
    clients: Vec<Value>,
    /// The stage on the critical path that took longest.
    bottleneck: Option<String>,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let usable = |number: f64| number >= 0.0 && number.is_finite();
        if !usable(self.drift) || !usable(self.threshold) {
            let found = format!("found --drift {} and --threshold {}", self.drift, self.threshold);
            return Err(anyhow::anyhow!("{found}, expected two numbers from 0 on").into());
        }
        let mut found = Found::default();
        let mut shards = Vec::new();
        for source in &self.sources {
            if folder::is_folder(source) {
                self.of_run(source, &mut found)?;
            } else if let Some(text) = json_of(source)? {
                self.of_json(source, &text, &mut found)?;
            } else {
                shards.push(source.clone());
            }
        }
        if !shards.is_empty() {
            let geometry = measured(&shards).map_err(Failure::of)?;
            let clients = geometry.geometry.clients();
            let metrics = RoundMetrics::of(&geometry.geometry, &vec![1.0; clients]);
            found.add_round(&metrics, None);
        }
        found.check_names()?;
        print(&if self.json { format!("{}\n", found.json()) } else { found.table() })?;
        Ok(Outcome::Done)
    }

    fn of_run(&self, dir: &Path, found: &mut Found) -> Result<(), Failure> {
        let (plan, _, journal) = read_run(dir).map_err(Failure::of)?;
        let events = journal.events();
        for (name, values) in watch::series::series(&plan, &events).map_err(Failure::of)? {
            self.add_series(&name, &values, found);
        }
        let (graph, state) = watch::rest::replay(&plan, events.iter()).map_err(Failure::of)?;
        if let Some(found_one) = Bottleneck::of(&plan, &graph, &state, &BTreeMap::new()) {
            found.bottleneck = Some(found_one.stage);
            found.rows.push(("bottleneck_share".to_owned(), "bottleneck_share", Some(found_one.share)));
        }
        Ok(())
    }

    fn of_json(&self, path: &Path, text: &str, found: &mut Found) -> Result<(), Failure> {
        let fault = |why: String| anyhow::anyhow!("{}: {why}", path.display());
        let value: Value = serde_json::from_str(text).map_err(|why| fault(format!("is no JSON: {why}")))?;
        let report = match value["schema"].as_str() {
            Some("fedmill.report/1") => Some(&value),
            Some("fedmill.decision/1") => Some(&value["report"]),
            Some(other) => {
                let why =
                    format!("$.schema: found `{other}`, expected fedmill.report/1 or fedmill.decision/1");
                return Err(fault(why).into());
            }
            None => None,
        };
        if let Some(report) = report {
            return found.add_report(report).map_err(|why| fault(why).into());
        }
        let given: Measurements =
            serde_json::from_str(text).map_err(|why| fault(format!("are no measurements: {why}")))?;
        self.of_measurements(&given, found).map_err(|why| fault(why).into())
    }

    fn of_measurements(&self, given: &Measurements, found: &mut Found) -> Result<(), String> {
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
            found.add_round(&RoundMetrics::of(&geometry, &weights), clients.as_deref());
        }
        match (merged, alone) {
            (Some(merged), Some(alone)) => {
                let gain =
                    gain(*merged, alone, self.minimize).ok_or("$.alone: found no score, expected one")?;
                found.add("gain_over_best", Some(gain.over_best));
                found.add("gain_over_mean", Some(gain.over_mean));
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
            self.add_series(name, values, found);
        }
        Ok(())
    }

    fn add_series(&self, name: &str, values: &[f64], found: &mut Found) {
        let from = values.len().saturating_sub(self.window.unwrap_or(LONGEST));
        let sensitivity = Sensitivity { drift: self.drift, threshold: self.threshold };
        for (metric, value) in measures::series::named(&values[from..], sensitivity) {
            found.rows.push((format!("{name}_{metric}"), metric, value));
        }
    }
}

/// The text of a JSON file; `None` for a file that is none.
fn json_of(path: &Path) -> Result<Option<String>, Failure> {
    match text::read(path) {
        Ok(text) if !text.contains('\0') => Ok(Some(text)),
        Ok(_) => Ok(None),
        Err(why) if why.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(why) => Err(anyhow::anyhow!("{}: {why}", path.display()).into()),
    }
}

impl Found {
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

    fn check_names(&self) -> Result<(), Failure> {
        let mut names: Vec<&str> = self.rows.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(anyhow::anyhow!("two sources have `{}`, expected one", pair[0]).into()),
            None => Ok(()),
        }
    }

    fn json(&self) -> Value {
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

    fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(row(["metric", "value", "formula"].map(str::to_owned)));
        for (name, metric, value) in &self.rows {
            let value = value.map_or_else(|| "-".to_owned(), number);
            let formula = measures::named(metric).map_or("", |metric| metric.formula);
            table.add_row(row([name.clone(), value, formula.to_owned()]));
        }
        let bottleneck = self.bottleneck.iter().map(|stage| format!("bottleneck: {stage}\n"));
        format!("{}\n{}", crate::cli::cells::fit(&mut table, &[2]), bottleneck.collect::<String>())
    }
}
