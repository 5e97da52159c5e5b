//! What subcommands share that read or change registered agents.

use crate::cli::Failure;
use crate::fleet::registry::agents::{NewAgent, Work};
use crate::fleet::registry::{self, Registry};
use crate::plan::read;
use crate::plan::run::journal::Journal;
use crate::review::lint::lint;
use crate::schema::SCHEMA;
use crate::schema::agent::Agent;
use crate::schema::name::Name;
use crate::telemetry::console;
use crate::watch::score::attempts;
use anyhow::anyhow;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How agents are registered.
#[derive(clap::Args, Debug)]
pub(super) struct Adding {
    /// Seconds that an attempt should take: one that takes longer lowers the recent score in proportion.
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<f64>,
    /// Give an agent that is registered the new description. It keeps its counts; a retired one comes back.
    #[arg(long)]
    update: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0);
    number.ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

impl Adding {
    /// Registers agents.
    pub(super) fn add(&self, mut registry: Registry, agents: &BTreeMap<Name, Agent>) -> Result<(), Failure> {
        let described = agents.iter().map(|(name, agent)| {
            Ok(NewAgent {
                name: name.to_string(),
                agent: serde_json::to_string(agent)?,
                expected_seconds: self.seconds,
            })
        });
        let described = described.collect::<Result<Vec<_>, serde_json::Error>>()?;
        registry.add_agents(&described, self.update, Timestamp::now()).map_err(Failure::of)
    }
}

/// Reads agents from JSON as `agents` of a plan has them; messages name `path`.
pub(super) fn read(agents: &str, path: &Path) -> Result<BTreeMap<Name, Agent>, Failure> {
    let value: Result<Value, _> = serde_json::from_str(agents);
    let value = value.map_err(|why| anyhow!("{}: is no JSON: {why}", path.display()))?;
    if let Some(found) = no_agents_by_name(&value) {
        let why = anyhow!("{}: $: found {found}, expected an object of agents by name", path.display());
        return Err(Failure { hint: Some(format!("the smallest file is {SMALLEST}")), ..why.into() });
    }
    // As text, so that the reader finds a key that stands twice.
    let plan = format!(r#"{{"schema":"{SCHEMA}","id":"agents","agents":{agents},"stages":[]}}"#);
    let plan = read::parse(&plan, path).map_err(Failure::of)?;
    if let Some(finding) = lint(&plan).into_iter().find(|finding| finding.rule == "secret") {
        return Err(anyhow!("{}: {}: {}", path.display(), finding.at, finding.explanation()).into());
    }
    if let Some((name, _)) = plan.agents.iter().find(|(_, agent)| agent.skills().capabilities.is_empty()) {
        let why = "found no capability, expected one that stages of plans ask for";
        return Err(anyhow!("{}: $.agents.{name}.capabilities: {why}", path.display()).into());
    }
    Ok(plan.agents)
}

/// The smallest file of agents.
const SMALLEST: &str =
    r#"{"NAME": {"kind": "command", "argv": ["PROGRAM"], "capabilities": ["CAPABILITY"]}}"#;

/// What a JSON text has in place of agents by name; `None` for an object that may be such.
fn no_agents_by_name(value: &Value) -> Option<&'static str> {
    match value {
        // An agent named `kind` is an object.
        Value::Object(object) if object.get("kind").is_some_and(Value::is_string) => {
            Some("one agent without a name")
        }
        Value::Object(_) => None,
        Value::Array(_) => Some("a list"),
        Value::String(_) => Some("a text"),
        Value::Number(_) => Some("a number"),
        Value::Bool(_) | Value::Null => Some("no object"),
    }
}

/// Opens the registry of a state directory, or the file itself.
fn open(path: &Path) -> Result<Registry, Failure> {
    let is_folder = crate::io::folder::is_folder(path);
    let file = if is_folder { path.join(registry::FILE) } else { path.to_owned() };
    Registry::open(&file).map_err(Failure::of)
}

/// The agents that plans may get, each with its score of three decimals.
pub(in crate::cli) fn registered(path: &Path) -> Result<BTreeMap<Name, Agent>, Failure> {
    let registry = open(path)?;
    let mut agents = BTreeMap::new();
    for row in registry.agents(false).map_err(Failure::of)? {
        let damaged = |why: String| anyhow!("{}: agent `{}`: {why}", registry.path().display(), row.name);
        let name: Name = row.name.parse().map_err(damaged)?;
        let mut agent: Agent =
            serde_json::from_value(row.agent.clone()).map_err(|why| damaged(why.to_string()))?;
        let attempts = u32::try_from(row.succeeded + row.failed).unwrap_or(u32::MAX);
        agent.set_score((row.score * 1000.0).round() / 1000.0, attempts);
        agents.insert(name, agent);
    }
    Ok(agents)
}

/// Records what the attempts of a run came to. Each attempt counts once.
pub(in crate::cli) fn record(path: &Path, run: &Path, is_quiet: bool) -> Result<(), Failure> {
    let journal = Journal::read(run).map_err(Failure::of)?;
    let work = attempts(&journal.events()).into_iter().map(|attempt| Work {
        agent: attempt.agent,
        succeeded: attempt.succeeded,
        seconds: attempt.seconds,
    });
    let scored = open(path)?.record_work(&journal.digest(), &work.collect::<Vec<_>>(), Timestamp::now());
    for (name, why) in scored.map_err(Failure::of)?.retired.iter().filter(|_| !is_quiet) {
        console::tell(&format!("agent `{name}` is retired: {why}"));
    }
    Ok(())
}
