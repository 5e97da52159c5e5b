//! The plan of the next round: what would be run again, with pinned inputs, seeds and budgets.
//!
//! [`Aggregate`] repeats the command line of `fedmill aggregate` on the next updates, from the model that it merged;
//! [`federation`] goes on with the state directory of a federation.

use super::super::{Failure, command};
use crate::budget::books::Books;
use crate::config::Config;
use crate::io::collision;
use crate::io::digest::store::identify;
use crate::io::folder::{self, names};
use crate::io::publish::directory_of;
use crate::plan::read;
use crate::round::layout;
use crate::schema::{Plan, SCHEMA};
use crate::settings::duration::Friendly;
use anyhow::{Context, anyhow};
use clap::ArgMatches;
use clap::parser::ValueSource;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// Options of `aggregate` that belong to one run: the plan has its own, or none.
const OF_ONE_RUN: [&str; 10] = [
    "updates",
    "output",
    "report",
    "plan_out",
    "quiet",
    "verbose",
    "log_format",
    "explain",
    "resumable",
    "release_again",
];

/// Seconds that a round may take beside the wait for updates, and a merge in all.
const WORK: i64 = 3600;

/// The plan that repeats an `aggregate` command.
pub(in crate::cli) struct Aggregate {
    path: PathBuf,
    plan: Map<String, Value>,
    argv: Vec<String>,
    inputs: Vec<Value>,
    /// Whether the next round starts from the model that this one merges.
    has_base: bool,
}

impl Aggregate {
    /// The plan for the command line of this process, for the file `path`. Nothing is written yet.
    ///
    /// # Errors
    ///
    /// When a file of the command lies outside of the folder of the plan.
    pub(in crate::cli) fn of_command_line(path: &Path, output: &Path) -> Result<Self, Failure> {
        let matches = command().try_get_matches_from(std::env::args_os())?;
        let matches = matches.subcommand_matches("aggregate").context("found another command")?;
        let mut next = Self {
            path: path.to_owned(),
            plan: Map::new(),
            argv: vec!["aggregate".to_owned()],
            inputs: Vec::new(),
            has_base: matches.value_source("base") == Some(ValueSource::CommandLine),
        };
        next.inside(output)?;
        next.check_path()?;
        next.updates(matches)?;
        next.options(matches)?;
        Ok(next)
    }

    /// Checks that the plan replaces an earlier one, or no file.
    fn check_path(&self) -> Result<(), Failure> {
        let target = collision::named_output(&self.path)?;
        if folder::exists(&target) && read::plan(&target).is_err() {
            let path = self.path.display();
            return Err(
                anyhow!("--plan-out {path}: found a file that is no plan, expected a plan or none").into()
            );
        }
        Ok(())
    }

    /// The path of a file in the folder of the plan.
    fn inside(&self, file: &Path) -> Result<String, Failure> {
        let folder = directory_of(&self.path);
        let plain = |path: &Path| -> Result<PathBuf, Failure> {
            let whole = std::path::absolute(path)?;
            Ok(whole.components().filter(|part| *part != Component::CurDir).collect())
        };
        let (whole, folder) = (plain(file)?, plain(folder)?);
        let relative = whole.strip_prefix(&folder).ok();
        let relative = relative.map(|path| path.to_str().ok_or_else(|| self.refused(file))).transpose()?;
        let fits = relative.filter(|path| !path.is_empty() && !path.contains(".."));
        fits.map(str::to_owned).ok_or_else(|| {
            let found = format!(
                "--plan-out {}: found the file {}, expected one below {}: a plan reads files of that folder only",
                self.path.display(),
                file.display(),
                folder.display()
            );
            anyhow!(found).into()
        })
    }

    /// The refusal of a file whose name is not UTF-8.
    fn refused(&self, file: &Path) -> Failure {
        anyhow!("--plan-out {}: {}", self.path.display(), names::is_no_text(file)).into()
    }

    /// The folders of the next updates: those of this round's.
    fn updates(&mut self, matches: &ArgMatches) -> Result<(), Failure> {
        let given = matches.get_many::<PathBuf>("updates").into_iter().flatten();
        let mut folders: Vec<String> = Vec::new();
        for path in given {
            path.to_str().ok_or_else(|| self.refused(path))?;
            let inbox = if folder::is_folder(path) { path.as_path() } else { path.parent().unwrap_or(path) };
            // The plan reads all files of the folder.
            let listed = if inbox == Path::new("") { Path::new(".") } else { inbox };
            names::check_files(listed).map_err(|why| anyhow!("--plan-out {}: {why}", self.path.display()))?;
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

    /// The options of this round that hold for the next, in the order of their names.
    fn options(&mut self, matches: &ArgMatches) -> Result<(), Failure> {
        let mut given: Vec<&str> = matches.ids().map(clap::Id::as_str).collect();
        given.retain(|id| {
            matches.value_source(id) == Some(ValueSource::CommandLine) && !OF_ONE_RUN.contains(id)
        });
        given.sort_unstable();
        let command = command();
        let command = command.find_subcommand("aggregate").context("found another command")?;
        for id in given {
            // Groups of options have no name on the command line.
            let known = command.get_arguments().find(|argument| argument.get_id() == id);
            let Some(long) = known.and_then(clap::Arg::get_long) else { continue };
            let text = |value: &OsStr| {
                value.to_str().map(str::to_owned).ok_or_else(|| self.refused(Path::new(value)))
            };
            let raw =
                matches.get_raw(id).into_iter().flatten().map(text).collect::<Result<Vec<_>, Failure>>()?;
            let is_flag = known.is_some_and(|argument| !argument.get_action().takes_values());
            if is_flag {
                self.argv.push(format!("--{long}"));
            }
            for value in raw.iter().filter(|_| !is_flag) {
                let value = self.value(id, value)?;
                self.argv.push(format!("--{long}={value}"));
            }
        }
        Ok(())
    }

    /// The value of an option in the next round.
    fn value(&mut self, id: &str, value: &str) -> Result<String, Failure> {
        let absolute = || Ok::<String, Failure>(std::path::absolute(value)?.to_string_lossy().into_owned());
        match id {
            "base" => Ok("{in.base}".to_owned()),
            "state" => absolute().map(|path| escaped(&path)),
            "dp" => {
                let path = absolute()?;
                let books = Books::read(Path::new(value)).map_err(|why| anyhow!("{why}"))?;
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
                self.param(id, json!(number.saturating_add(1)));
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
    fn pinned(&mut self, name: &str, path: &str) -> Result<String, Failure> {
        let inside = self.inside(Path::new(path))?;
        self.inputs.push(pin(name, &inside, Path::new(path))?);
        Ok(format!("{{in.{name}}}"))
    }

    /// Writes the plan, once the model is published.
    ///
    /// # Errors
    ///
    /// When the model cannot be read, or the plan cannot be written.
    pub(in crate::cli) fn write(mut self, output: &Path) -> Result<(), Failure> {
        let model = self.inside(output)?;
        if self.has_base {
            self.inputs.push(pin("base", &model, output)?);
        }
        let file = Path::new(&model).file_name().map(|name| name.to_string_lossy().into_owned());
        let file = file.unwrap_or_else(|| "merged.safetensors".to_owned());
        let options = ["--report", "{out.report}", "-o", "{out.model}"].map(str::to_owned);
        self.argv.extend(options);
        self.limit("timeout", json!({"run": Friendly(SignedDuration::from_secs(WORK))}));
        self.plan.insert("id".to_owned(), json!("next-round"));
        self.plan.insert("goal".to_owned(), json!(format!("merge the round after {model}")));
        self.plan.insert("inputs".to_owned(), Value::Array(self.inputs));
        let stage = json!({"id": "aggregate", "agent": "fedmill", "argv": self.argv, "out": [
            {"name": "model", "path": escaped(&file)}, {"name": "report", "path": "report.json"}]});
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
fn pin(name: &str, inside: &str, path: &Path) -> Result<Value, Failure> {
    let stored = identify(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(json!({"name": name, "path": inside, "pin": {inside: format!("blake3:{}", stored.blake3)}}))
}

/// Writes a plan, unless the file holds it already.
fn publish(path: &Path, mut plan: Map<String, Value>, stages: &[Value]) -> Result<(), Failure> {
    plan.insert("schema".to_owned(), json!(SCHEMA));
    insert(&mut plan, "agents", "fedmill", json!({"kind": "command", "argv": ["fedmill"]}));
    plan.insert("stages".to_owned(), json!(stages));
    let plan: Plan = read::parse(&Value::Object(plan).to_string(), path)?;
    let text = serde_json::to_string_pretty(&plan)? + "\n";
    let is_there = crate::io::text::read(path).is_ok_and(|found| found == text);
    if !is_there {
        collision::write_output(path, text.as_bytes())
            .with_context(|| format!("{}: the plan of the next round cannot be written", path.display()))?;
    }
    Ok(())
}

/// Writes the plan of the next round of a federation into its state directory, if it has a model. The round itself does
/// not depend on it, so a fault is a warning.
pub(in crate::cli) fn federation(directory: &Path, config: &Config) {
    if let Err(why) = federation_plan(directory, config) {
        tracing::warn!("{}: no plan of the next round is written", why.message());
    }
}

fn federation_plan(directory: &Path, config: &Config) -> Result<(), Failure> {
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
    insert(&mut plan, "agents", "shell", json!({"kind": "command", "argv": ["sh", "-c"]}));
    // A round that ran since, or a rollback, makes this plan one of the past.
    let is_current = json!({"id": "is_current", "agent": "shell", "argv": [
        "test \"$(readlink -- \"$0\")\" = \"$1\"", escaped(&format!("{whole}/{}", layout::CURRENT)), escaped(&model)]});
    let config = pin("config", layout::CONFIG, &directory.join(layout::CONFIG))?;
    let model = pin("model", &model, &directory.join(&model))?;
    plan.insert("inputs".to_owned(), json!([config, model]));
    let argv = json!(["round", "run", escaped(&whole), "--rounds", "1"]);
    let round = json!({"id": "round", "needs": ["is_current"], "agent": "fedmill", "argv": argv,
        "out": [{"name": "model", "path": "-"}]});
    publish(&directory.join(layout::NEXT_PLAN), plan, &[is_current, round])
}
