//! `fedmill agents new`: registers an agent from a template.

use super::registry::{Adding, read};
use crate::cli::clients::state::StateDirectory;
use crate::cli::{Common, Failure, INPUTS, Outcome, print_account};
use crate::io::text;
use crate::language::template::{Reference, Template};
use crate::schema::name::{Id, Name};
use anyhow::anyhow;
use clap::Args;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Register an agent from a template.
///
/// The template is the description of an agent, as in `agents` of a plan, whose texts have references `{params.KEY}`. A
/// text that is one reference alone becomes a number, true or false where the value is one, unless it is an argument of a
/// command. A new agent is data: its
/// command or its address comes from the template. Prints the name.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The name of the agent.
    #[arg(value_name = "NAME")]
    name: Name,
    /// The template as JSON. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The value of a reference of the template. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(Id, String)>,
    #[command(flatten)]
    adding: Adding,
}

fn setting(text: &str) -> Result<(Id, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.parse()?, value.to_owned()))
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let fault = |why: String| anyhow!("{}: {why}", self.from.display());
        let text = text::read_written(&self.from).map_err(|why| fault(format!("cannot be read: {why}")))?;
        let template: Value =
            serde_json::from_str(&text).map_err(|why| fault(format!("is no JSON: {why}")))?;
        let mut values = BTreeMap::new();
        for (key, value) in &self.settings {
            if values.insert(key, value.as_str()).is_some() {
                return Err(anyhow!("--set {key} is given twice").into());
            }
        }
        let mut used = BTreeSet::new();
        let agent = fill(&template, &values, &mut used, "$").map_err(fault)?;
        if let Some(unused) = values.keys().find(|key| !used.contains(**key)) {
            return Err(
                fault(format!("has no reference {{params.{unused}}}, and --set gives it a value")).into()
            );
        }
        let agents = Map::from_iter([(self.name.to_string(), agent)]);
        let agents = read(&Value::Object(agents).to_string(), &self.from)?;
        self.adding.add(self.state.create()?, &agents)?;
        print_account(&format!("{}\n", self.name));
        Ok(Outcome::Done)
    }
}

/// A value of the template with its references filled.
fn fill(
    value: &Value,
    values: &BTreeMap<&Id, &str>,
    used: &mut BTreeSet<Id>,
    at: &str,
) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => {
            let (filled, is_alone) = fill_text(text, values, used).map_err(|why| format!("{at}: {why}"))?;
            // An argument of a command is a text, also where it is a number alone.
            match serde_json::from_str(&filled) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) if is_alone && !at.starts_with("$.argv[") => {
                    value
                }
                _ => Value::String(filled),
            }
        }
        Value::Array(list) => {
            let filled = list.iter().enumerate();
            let filled = filled.map(|(place, value)| fill(value, values, used, &format!("{at}[{place}]")));
            Value::Array(filled.collect::<Result<_, _>>()?)
        }
        Value::Object(object) => {
            let filled = object
                .iter()
                .map(|(key, value)| Ok((key.clone(), fill(value, values, used, &format!("{at}.{key}"))?)));
            Value::Object(filled.collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}

/// A text with its references filled, and whether it was one reference alone.
fn fill_text(
    text: &str,
    values: &BTreeMap<&Id, &str>,
    used: &mut BTreeSet<Id>,
) -> Result<(String, bool), String> {
    let template = Template::parse(text).map_err(|why| format!("found {why}"))?;
    let filled = template.fill(|alternatives| match alternatives {
        [Reference::Param(key)] => {
            used.insert(key.clone());
            let value = values.get(key).map(|value| (*value).to_owned());
            value.ok_or_else(|| format!("found {{params.{key}}}, expected --set {key}=VALUE"))
        }
        others => Err(format!("found {}, expected a reference such as {{params.KEY}}", others[0])),
    })?;
    Ok((filled, template.alone().is_some()))
}
