//! The plan of the next round: what would be run again, with pinned inputs, seeds and budgets.
//!
//! [`Aggregate`] repeats the command line of `fedmill aggregate` on the next updates, from the model that it merged;
//! [`federation`] goes on with the state directory of a federation.

use crate::budget::books::Books;
use crate::budget::error::BudgetError;
use crate::config::Config;
use crate::io::collision::{self, target::is_standard_output};
use crate::io::digest::store::identify;
use crate::io::folder::{self, names};
use crate::io::model_writer::WriteError;
use crate::io::publish::directory_of;
use crate::plan::error::PlanError;
use crate::plan::read;
use crate::round::layout;
use crate::schema::{Plan, SCHEMA};
use crate::settings::duration::Friendly;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::num::ParseIntError;
use std::path::{Component, Path, PathBuf};

/// Why there is no plan of the next round.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum NextError {
    #[error("--plan-out {}: {why}", .path.display())]
    PlanOut { path: PathBuf, why: String },
    #[error("{}: {what}", .path.display())]
    File { path: PathBuf, what: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Target(#[from] WriteError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Number(#[from] ParseIntError),
}

impl NextError {
    fn at<E: Error + Send + Sync + 'static>(path: &Path, what: &'static str) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |why| Self::File { path, what, source: why.into() }
    }

    /// The message with its cause, where the message lacks that.
    fn whole(&self) -> String {
        let message = self.to_string();
        let cause = self.source().map(ToString::to_string).filter(|cause| !message.contains(cause.as_str()));
        cause.map_or(message.clone(), |cause| format!("{message}: {cause}"))
    }
}

/// A command line of `aggregate` as far as the next round repeats it.
#[derive(Debug)]
pub struct Repeated {
    /// The updates that it names.
    pub updates: Vec<PathBuf>,
    /// The options that it gives and that belong to more than one run, in the order of their names.
    pub options: Vec<RepeatedOption>,
}

/// An option of a command line.
#[derive(Debug)]
pub struct RepeatedOption {
    /// Its name in the program.
    pub id: String,
    /// Its name on the command line.
    pub long: String,
    /// Its values; none for a flag.
    pub values: Vec<OsString>,
}

/// Seconds that a round may take beside the wait for updates, and a merge in all.
const WORK: i64 = 3600;

/// The plan that repeats an `aggregate` command.
pub struct Aggregate {
    path: PathBuf,
    plan: Map<String, Value>,
    argv: Vec<String>,
    inputs: Vec<Value>,
    /// Whether the next round starts from the model that this one merges.
    has_base: bool,
}

impl Aggregate {
    /// The plan that repeats `command` on the next updates, for the file `path`. Writes nothing yet.
    ///
    /// # Errors
    ///
    /// When a file of the command lies outside of the folder of the plan.
    pub fn of(command: &Repeated, path: &Path, output: &Path) -> Result<Self, NextError> {
        let mut next = Self {
            // Standard output lies in no folder: a plan there is one of the working directory.
            path: if is_standard_output(path) { PathBuf::from("-") } else { path.to_owned() },
            plan: Map::new(),
            argv: vec!["aggregate".to_owned()],
            inputs: Vec::new(),
            has_base: command.options.iter().any(|option| option.id == "base"),
        };
        next.inside(output)?;
        next.check_path()?;
        next.updates(&command.updates)?;
        command.options.iter().try_for_each(|option| next.option(option))?;
        Ok(next)
    }

    /// Checks that the plan replaces an earlier one, or no file.
    fn check_path(&self) -> Result<(), NextError> {
        if is_standard_output(&self.path) {
            return Ok(());
        }
        let target = collision::named_output(&self.path)?;
        if folder::exists(&target) && read::plan(&target).is_err() {
            return Err(self.fault("found a file that is no plan, expected a plan or none"));
        }
        Ok(())
    }

    /// The path of a file in the folder of the plan.
    fn inside(&self, file: &Path) -> Result<String, NextError> {
        let folder = directory_of(&self.path);
        let plain = |path: &Path| -> Result<PathBuf, NextError> {
            let whole = std::path::absolute(path)?;
            Ok(whole.components().filter(|part| *part != Component::CurDir).collect())
        };
        let (whole, folder) = (plain(file)?, plain(folder)?);
        let relative = whole.strip_prefix(&folder).ok();
        let relative = relative.map(|path| path.to_str().ok_or_else(|| self.refused(file))).transpose()?;
        let fits = relative.filter(|path| !path.is_empty() && !path.contains(".."));
        fits.map(str::to_owned).ok_or_else(|| {
            self.fault(format!(
                "found the file {}, expected one below {}: a plan reads files of that folder only",
                file.display(),
                folder.display()
            ))
        })
    }

    fn fault(&self, why: impl Display) -> NextError {
        NextError::PlanOut { path: self.path.clone(), why: why.to_string() }
    }

    /// The refusal of a file whose name is not UTF-8.
    fn refused(&self, file: &Path) -> NextError {
        self.fault(names::is_no_text(file))
    }

    /// The folders of the next updates: those of this round's.
    fn updates(&mut self, given: &[PathBuf]) -> Result<(), NextError> {
        let mut folders: Vec<String> = Vec::new();
        for path in given {
            path.to_str().ok_or_else(|| self.refused(path))?;
            let inbox = if folder::is_folder(path) { path.as_path() } else { path.parent().unwrap_or(path) };
            // The plan reads all files of the folder.
            let listed = if inbox == Path::new("") { Path::new(".") } else { inbox };
            names::check_files(listed).map_err(|why| self.fault(why))?;
            let inbox = self.inside(inbox)?;
            if !folders.contains(&inbox) {
                folders.push(inbox);
            }
        }
        for (place, inbox) in folders.into_iter().enumerate() {
            let name = if place == 0 { "updates".to_owned() } else { format!("updates_{}", place + 1) };
            self.argv.push(format!("{{in.{name}}}"));
            self.inputs.push(json!({"name": name, "path": inbox}));
        }
        Ok(())
    }

    /// An option of this round that holds for the next.
    fn option(&mut self, RepeatedOption { id, long, values }: &RepeatedOption) -> Result<(), NextError> {
        if values.is_empty() {
            self.argv.push(format!("--{long}"));
        }
        for value in values {
            let value = value.to_str().ok_or_else(|| self.refused(Path::new(value)))?;
            let value = self.value(id, value)?;
            self.argv.push(format!("--{long}={value}"));
        }
        Ok(())
    }

    /// The value of an option in the next round.
    fn value(&mut self, id: &str, value: &str) -> Result<String, NextError> {
        let absolute = || Ok::<String, NextError>(std::path::absolute(value)?.to_string_lossy().into_owned());
        match id {
            "base" => Ok("{in.base}".to_owned()),
            "state" => absolute().map(|path| escaped(&path)),
            "dp" => {
                let path = absolute()?;
                let books = Books::read(Path::new(value))?;
                let budget = books.state.plan();
                self.limit("eps", json!(budget.epsilon));
                self.limit("delta", json!(budget.delta));
                Ok(escaped(&path))
            }
            // Files of settings stay as they are.
            "tiers" => self.pinned(id, value),
            "weights" if folder::exists(Path::new(value)) => self.pinned(id, value),
            "seed" | "round" | "test_seed" => {
                let number: u64 = value.parse()?;
                let id = if id == "test_seed" { "test_seed" } else { id };
                let next = number.saturating_add(1);
                // What a parameter cannot hold as a number keeps its digits as a text.
                self.param(
                    id,
                    i64::try_from(next).map_or_else(|_| json!(next.to_string()), |next| json!(next)),
                );
                Ok(format!("{{params.{id}}}"))
            }
            _ => Ok(escaped(value)),
        }
    }

    fn limit(&mut self, name: &str, value: Value) {
        insert(&mut self.plan, "limits", name, value);
    }

    fn param(&mut self, name: &str, value: Value) {
        insert(&mut self.plan, "params", name, value);
    }

    /// An input of one file that is pinned to what it holds now. Returns the reference to it.
    fn pinned(&mut self, name: &str, path: &str) -> Result<String, NextError> {
        let inside = self.inside(Path::new(path))?;
        self.inputs.push(pin(name, &inside, Path::new(path))?);
        Ok(format!("{{in.{name}}}"))
    }

    /// Writes the plan, once the model is published.
    ///
    /// # Errors
    ///
    /// When the model cannot be read, or the plan cannot be written.
    pub fn write(mut self, output: &Path) -> Result<(), NextError> {
        let model = self.inside(output)?;
        if self.has_base {
            self.inputs.push(pin("base", &model, output)?);
        }
        let file = Path::new(&model).file_name().map(|name| name.to_string_lossy().into_owned());
        let file = file.unwrap_or_else(|| "merged.safetensors".to_owned());
        let report =
            if file.eq_ignore_ascii_case("report.json") { "report-of-round.json" } else { "report.json" };
        let options = ["--report", "{out.report}", "-o", "{out.model}"].map(str::to_owned);
        self.argv.extend(options);
        self.limit("timeout", json!({"run": Friendly(SignedDuration::from_secs(WORK))}));
        self.plan.insert("id".to_owned(), json!("next-round"));
        self.plan.insert("goal".to_owned(), json!(format!("merge the round after {model}")));
        self.plan.insert("inputs".to_owned(), Value::Array(self.inputs));
        let stage = json!({"id": "aggregate", "agent": "fedmill", "argv": self.argv, "out": [
            {"name": "model", "path": escaped(&file)}, {"name": "report", "path": report}]});
        publish(&self.path, self.plan, &[stage])
    }
}

/// Text in which no reference is meant.
fn escaped(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

fn insert(plan: &mut Map<String, Value>, key: &str, name: &str, value: Value) {
    let part = plan.entry(key).or_insert_with(|| json!({}));
    part[name] = value;
}

/// An input of one file, with its digest.
fn pin(name: &str, inside: &str, path: &Path) -> Result<Value, NextError> {
    let stored = identify(path).map_err(NextError::at(path, "cannot be read"))?;
    Ok(json!({"name": name, "path": inside, "pin": {inside: format!("blake3:{}", stored.blake3)}}))
}

/// Writes a plan, unless the file holds it already.
fn publish(path: &Path, mut plan: Map<String, Value>, stages: &[Value]) -> Result<(), NextError> {
    plan.insert("schema".to_owned(), json!(SCHEMA));
    insert(&mut plan, "agents", "fedmill", json!({"kind": "command", "argv": ["fedmill"]}));
    plan.insert("stages".to_owned(), json!(stages));
    let plan: Plan = read::parse(&Value::Object(plan).to_string(), path)?;
    let text = serde_json::to_string_pretty(&plan)? + "\n";
    let is_there = !is_standard_output(path) && crate::io::text::read(path).is_ok_and(|found| found == text);
    if !is_there {
        let written = collision::write_output(path, text.as_bytes());
        written.map_err(NextError::at(path, "the plan of the next round cannot be written"))?;
    }
    Ok(())
}

/// Writes the plan of the next round of a federation into its state directory, if it has a model. The round itself does
/// not depend on it, so a fault is a warning.
pub fn federation(directory: &Path, config: &Config) {
    if let Err(why) = federation_plan(directory, config) {
        tracing::warn!("{}: no plan of the next round is written", why.whole());
    }
}

fn federation_plan(directory: &Path, config: &Config) -> Result<(), NextError> {
    let Some(model) = folder::target(&directory.join(layout::CURRENT))? else { return Ok(()) };
    let model = model.to_string_lossy().into_owned();
    let whole = std::path::absolute(directory)?.to_string_lossy().into_owned();
    let coordination = &config.coordination;
    let time = coordination.round_timeout.saturating_add(SignedDuration::from_secs(WORK));
    let mut plan = Map::new();
    insert(&mut plan, "limits", "timeout", json!({"run": Friendly(time)}));
    if config.privacy.enabled {
        insert(&mut plan, "limits", "eps", json!(config.privacy.epsilon));
        insert(&mut plan, "limits", "delta", json!(config.privacy.delta));
    }
    plan.insert("id".to_owned(), json!("next-round"));
    plan.insert("goal".to_owned(), json!("run the next round of the federation"));
    let config = pin("config", layout::CONFIG, &directory.join(layout::CONFIG))?;
    // A model has its digest as its name.
    let from = Path::new(&model).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let model = pin("model", &model, &directory.join(&model))?;
    plan.insert("inputs".to_owned(), json!([config, model]));
    // A round that ran since, or a rollback, makes this plan one of the past: also while its own run waits to go on.
    let argv = json!(["round", "run", escaped(&whole), "--rounds", "1", "--only-from", from]);
    let round =
        json!({"id": "round", "agent": "fedmill", "argv": argv, "out": [{"name": "model", "path": "-"}]});
    publish(&directory.join(layout::NEXT_PLAN), plan, &[round])
}
