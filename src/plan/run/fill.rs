//! The work of an instance: its arguments, files and limits, with all references filled.

use super::event::Artifact;
use super::given::pin_of;
use super::key::Key;
use super::quote::{MARK, quote};
use super::scope::{Names, plain};
use super::state::State;
use super::vote::ballot_schema;
use super::world::{AttemptLimits, Job, Output, Task};
use crate::io::digest::{Blake3, hex};
use crate::language::template::{Part, Reference, Template};
use crate::plan::nested::file_of;
use crate::schema::Plan;
use crate::schema::agent::{Agent, REPLY, able};
use crate::schema::name::{Id, Name};
use crate::schema::policy::{Cache, SideEffects, Timeout};
use crate::schema::stage::{ForEach, Shards, Stage};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time from SIGTERM to SIGKILL where a plan states none.
const KILL_AFTER: Duration = Duration::from_secs(10);

/// Where files of a run lie, as absolute paths.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The folder of the plan's inputs.
    pub inputs: String,
    /// The folder of the run.
    pub run: String,
}

/// The value of a reference.
#[derive(Clone, Debug)]
enum Filled {
    Text(String),
    Files(Vec<(String, Artifact)>),
    Nothing,
}

/// What fills the references of an instance.
pub struct Filler<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its names.
    pub names: &'a Names,
    /// The state of the run.
    pub state: &'a State,
    /// Where files lie.
    pub folders: &'a Folders,
}

/// The number of instances of a stage; `None` for a stage that does not fan out.
pub fn instances(plan: &Plan, state: &State, stage: &Stage) -> Option<u32> {
    if let Some((capability, most)) = stage.pool() {
        return Some(members(plan, capability, most).len() as u32);
    }
    Some(match stage.for_each.as_ref()? {
        ForEach::Values(values) => values.len() as u32,
        ForEach::Range(count) | ForEach::Shards(Shards::Count(count)) => *count,
        ForEach::Shards(Shards::Auto(_)) => state.shards,
        ForEach::Input(name) => state.inputs.get(name.as_str()).map_or(0, Vec::len) as u32,
        ForEach::Agents(_) => 0,
    })
}

/// The agents with a capability, by score from the highest on, ties by name; at most `most`.
pub fn members<'a>(plan: &'a Plan, capability: &Name, most: Option<u32>) -> Vec<&'a Name> {
    let able = able(&plan.agents, std::slice::from_ref(capability)).into_iter();
    able.take(most.map_or(usize::MAX, |most| most as usize)).map(|(name, _)| name).collect()
}

impl Filler<'_> {
    /// The agents that may do the work of an instance, the best first.
    pub fn candidates(&self, key: Key) -> Vec<(&Name, &Agent)> {
        let stage = &self.plan.stages[key.stage];
        if stage.is_built_in() {
            return Vec::new();
        }
        let name = match (&stage.agent, stage.pool()) {
            (Some(name), _) => Some(name),
            (None, Some((capability, most))) => {
                members(self.plan, capability, most).get(key.index.unwrap_or(0) as usize).copied()
            }
            (None, None) => return able(&self.plan.agents, &stage.needs_capability),
        };
        name.and_then(|name| self.plan.agents.get_key_value(name)).into_iter().collect()
    }

    /// The agent of an instance: the one that began its last attempt, or the best.
    fn agent(&self, key: Key) -> Option<(&Name, &Agent)> {
        let began = self.state.instance(key).and_then(|instance| instance.agent.parse::<Name>().ok());
        let began = began.and_then(|name| self.plan.agents.get_key_value(&name));
        began.or_else(|| self.candidates(key).first().copied())
    }

    /// The job of an instance, for this agent; for none where the runner itself does the work.
    ///
    /// # Errors
    ///
    /// When a reference has no value.
    pub fn job(&self, key: Key, agent: Option<&Agent>, attempt: u32) -> Result<Job, String> {
        let stage = &self.plan.stages[key.stage];
        let reads = RefCell::new(BTreeMap::new());
        let here = |file: &(String, Artifact)| {
            reads.borrow_mut().insert(file.0.clone(), file.1.clone());
            file.0.clone()
        };
        // A model reads texts, not paths.
        let quoted = |file: &(String, Artifact)| quote(&here(file));
        let task = match agent {
            None | Some(Agent::Command(_)) => self.task(key, agent, &here)?,
            Some(Agent::Http(_) | Agent::Ollama(_)) => self.task(key, agent, &quoted)?,
        };
        let outputs = stage.out.iter().map(|out| {
            Ok(Output {
                name: out.name.to_string(),
                path: if stage.plan.is_some() { out.path.clone() } else { self.text(key, &out.path, &here)? },
                metrics: out.metrics,
                optional: out.optional,
            })
        });
        let mut outputs = outputs.collect::<Result<Vec<_>, String>>()?;
        let options = self.options(key);
        if !options.is_empty() && matches!(agent, Some(Agent::Command(_))) {
            let metrics = !stage.metrics.is_empty();
            let (name, path) = (REPLY.to_owned(), "-".to_owned());
            outputs.push(Output { name, path, metrics, optional: false });
        }
        Ok(Job {
            key,
            name: key.name(self.plan),
            attempt,
            work: self.work_key(key, agent, &outputs)?,
            base: self.folders.inputs.clone(),
            task,
            outputs,
            metrics: stage.metrics.iter().map(ToString::to_string).collect(),
            limits: self.limits(stage, agent),
            cached: is_cached(stage, agent),
            options,
            reads: reads.take().into_iter().collect(),
        })
    }

    /// The options of a vote whose candidates have values; none for other work.
    pub fn options(&self, key: Key) -> Vec<String> {
        let Some(vote) = &self.plan.stages[key.stage].consensus else { return Vec::new() };
        let path = |file: &(String, Artifact)| file.0.clone();
        let is_left = |option: &&Id| {
            vote.candidates.get(*option).is_none_or(|text| self.text(key, text, &path).is_ok())
        };
        vote.options.iter().filter(is_left).map(ToString::to_string).collect()
    }

    /// Whether a result of equal work may be used again.
    pub fn is_cached(&self, key: Key) -> bool {
        is_cached(&self.plan.stages[key.stage], self.agent(key).map(|(_, agent)| agent))
    }

    fn limits(&self, stage: &Stage, agent: Option<&Agent>) -> AttemptLimits {
        let stated = stage.timeout.as_ref().or(self.plan.limits.timeout.as_ref());
        let time =
            |time: crate::settings::duration::Friendly| Duration::from_secs_f64(time.as_seconds().max(0.0));
        let of_agent = match agent {
            None | Some(Agent::Command(_)) => None,
            Some(Agent::Http(agent)) => Some(time(agent.timeout)),
            Some(Agent::Ollama(agent)) => Some(time(agent.timeout)),
        };
        let of_stage = stated.map(|timeout: &Timeout| time(timeout.run));
        let of_ballot = stage.consensus.as_ref();
        let of_ballot = of_ballot.map(|vote| time(vote.timeout.unwrap_or(self.plan.limits.decision_timeout)));
        AttemptLimits {
            run: of_agent.into_iter().chain(of_stage).chain(of_ballot).min(),
            idle: stated.and_then(|timeout| timeout.idle).map(time),
            kill_after: stated.map_or(KILL_AFTER, |timeout| time(timeout.kill_after)),
            log_bytes: self.plan.limits.log_bytes,
        }
    }

    /// BLAKE3 of what the work depends on: the version of fedmill, the agent, the arguments, and the names and digests of
    /// all files that it reads.
    fn work_key(&self, key: Key, agent: Option<&Agent>, outputs: &[Output]) -> Result<String, String> {
        let content = |file: &(String, Artifact)| {
            let name = file.1.path.rsplit('/').next().unwrap_or_default();
            format!("{name}#{}", file.1.blake3)
        };
        let task = self.task(key, agent, &content)?;
        let stage = &self.plan.stages[key.stage];
        let text = format!("{}\n{}\n{task:?}\n{outputs:?}", env!("CARGO_PKG_VERSION"), stage.id);
        Ok(hex(&Blake3::of_bytes(text.as_bytes())))
    }

    fn task(
        &self,
        key: Key,
        agent: Option<&Agent>,
        file: &impl Fn(&(String, Artifact)) -> String,
    ) -> Result<Task, String> {
        let stage = &self.plan.stages[key.stage];
        let hosts = || self.plan.limits.hosts.clone();
        Ok(match agent {
            None if stage.plan.is_some() => self.nested(key, file)?,
            None => {
                let reduce =
                    stage.reduce.as_ref().ok_or("found no agent that can do what the stage needs")?;
                Task::Reduce { by: reduce.by, files: self.files(key, &reduce.files, file)? }
            }
            Some(Agent::Command(agent)) => {
                let mut argv = agent.argv.clone();
                for argument in &stage.argv {
                    argv.extend(self.arguments(key, argument, file)?);
                }
                let env =
                    stage.env.iter().map(|(name, text)| Ok((name.clone(), self.text(key, text, file)?)));
                Task::Command {
                    argv,
                    env: env.collect::<Result<_, String>>()?,
                    inherit: agent.env.clone(),
                    stdin: stage.stdin.as_ref().map(|text| self.text(key, text, file)).transpose()?,
                }
            }
            Some(Agent::Http(agent)) => {
                let body = stage.body.as_ref().map(|body| self.json(key, body, file)).transpose()?;
                Task::Http { agent: agent.clone(), body, hosts: hosts() }
            }
            Some(Agent::Ollama(agent)) => {
                let prompt = stage.prompt.as_deref().unwrap_or_default();
                let mut agent = agent.clone();
                if stage.consensus.is_some() && agent.format.is_none() {
                    agent.format = Some(ballot_schema(&self.options(key)));
                }
                Task::Ollama { agent, prompt: self.text(key, prompt, file)?, hosts: hosts() }
            }
        })
    }

    /// The plan that a stage runs.
    fn nested(&self, key: Key, file: &impl Fn(&(String, Artifact)) -> String) -> Result<Task, String> {
        let stage = &self.plan.stages[key.stage];
        let nested = stage.plan.as_ref().ok_or("found no plan that the stage runs")?;
        let path = file_of(nested)?.to_string_lossy();
        let pinned = self.state.inputs.get(&pin_of(&nested.file)).and_then(|files| files.first());
        let pinned = pinned.ok_or_else(|| format!("{path}: the run started without the plan"))?;
        let params = nested.params.iter().map(|(name, value)| {
            let text = self.text(key, &value.to_string(), file)?;
            Ok((name.to_string(), text))
        });
        let inputs =
            nested.inputs.iter().map(|(name, texts)| Ok((name.to_string(), self.files(key, texts, file)?)));
        Ok(Task::Plan {
            file: format!("{}/{path}", self.folders.inputs),
            blake3: pinned.blake3.clone(),
            params: params.collect::<Result<_, String>>()?,
            inputs: inputs.collect::<Result<_, String>>()?,
            // The stages of the end run at each end.
            anew: self.plan.on.stages().any(|id| *id == stage.id),
        })
    }

    /// A JSON value with the references in its texts filled.
    fn json(
        &self,
        key: Key,
        value: &serde_json::Value,
        file: &impl Fn(&(String, Artifact)) -> String,
    ) -> Result<serde_json::Value, String> {
        use serde_json::Value as Json;
        Ok(match value {
            Json::String(text) => Json::String(self.text(key, text, file)?),
            Json::Array(list) => {
                Json::Array(list.iter().map(|value| self.json(key, value, file)).collect::<Result<_, _>>()?)
            }
            Json::Object(object) => {
                let filled =
                    object.iter().map(|(name, value)| Ok((name.clone(), self.json(key, value, file)?)));
                Json::Object(filled.collect::<Result<_, String>>()?)
            }
            other => other.clone(),
        })
    }

    /// The files of references, each of which is all of a text.
    fn files(
        &self,
        key: Key,
        texts: &[String],
        file: &impl Fn(&(String, Artifact)) -> String,
    ) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for text in texts {
            let template = Template::parse(text).map_err(|why| why.to_string())?;
            let alone = template.alone().map(|alternatives| self.value(key, alternatives)).transpose()?;
            match alone {
                Some(Filled::Files(files)) => found.extend(files.iter().map(file)),
                Some(Filled::Nothing) => {}
                Some(Filled::Text(_)) | None => {
                    return Err(format!("found `{text}`, expected one reference to files"));
                }
            }
        }
        Ok(found)
    }

    /// An argument: one for each file where it is one reference alone.
    fn arguments(
        &self,
        key: Key,
        text: &str,
        file: &impl Fn(&(String, Artifact)) -> String,
    ) -> Result<Vec<String>, String> {
        let template = Template::parse(text).map_err(|why| why.to_string())?;
        if let Some(alternatives) = template.alone() {
            match self.value(key, alternatives)? {
                Filled::Files(files) => return Ok(files.iter().map(file).collect()),
                Filled::Nothing => return Ok(Vec::new()),
                Filled::Text(_) => {}
            }
        }
        self.fill(key, &template, file).map(|text| vec![text])
    }

    fn text(
        &self,
        key: Key,
        text: &str,
        file: &impl Fn(&(String, Artifact)) -> String,
    ) -> Result<String, String> {
        self.fill(key, &Template::parse(text).map_err(|why| why.to_string())?, file)
    }

    fn fill(
        &self,
        key: Key,
        template: &Template,
        file: &impl Fn(&(String, Artifact)) -> String,
    ) -> Result<String, String> {
        debug_assert!(template.parts.iter().all(|part| !matches!(part, Part::Ref(refs) if refs.is_empty())));
        let nul = || "found a NUL character, expected none".to_owned();
        if template.parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains(MARK))) {
            return Err(nul());
        }
        template.fill(|alternatives| match self.value(key, alternatives)? {
            Filled::Text(text) if text.contains(MARK) => Err(nul()),
            Filled::Text(text) => Ok(text),
            Filled::Nothing => Ok(String::new()),
            Filled::Files(files) => match files.as_slice() {
                [one] => Ok(file(one)),
                several => Err(format!(
                    "{}: found {} files, expected one inside a longer text; an argument that is the reference alone \
                     takes several",
                    alternatives[0],
                    several.len()
                )),
            },
        })
    }

    /// The value of the first alternative that has one.
    fn value(&self, key: Key, alternatives: &[Reference]) -> Result<Filled, String> {
        let mut first = None;
        for reference in alternatives {
            match self.one(key, reference) {
                Ok(filled) => return Ok(filled),
                Err(why) => first = first.or(Some(why)),
            }
        }
        Err(first.unwrap_or_default())
    }

    fn one(&self, key: Key, reference: &Reference) -> Result<Filled, String> {
        let none = |why: &str| format!("{reference}: {why}");
        let stage = &self.plan.stages[key.stage];
        let index = key.index.unwrap_or(0);
        let count = || instances(self.plan, self.state, stage);
        let number = |number: u32| Ok(Filled::Text(number.to_string()));
        match reference {
            Reference::Param(name) => {
                let value = self
                    .state
                    .params(key)
                    .get(name.as_str())
                    .ok_or_else(|| none("the plan has no such parameter"))?;
                Ok(Filled::Text(plain(value)))
            }
            Reference::Input(name) => {
                let files =
                    self.state.inputs.get(name.as_str()).ok_or_else(|| none("the plan has no such input"))?;
                Ok(Filled::Files(files.iter().map(|file| self.input(file)).collect()))
            }
            Reference::Own(name) => {
                let out = stage.out.iter().find(|out| out.name == *name);
                let out = out.ok_or_else(|| none("the stage has no such output"))?;
                let path = self.text(key, &out.path, &|file: &(String, Artifact)| file.0.clone())?;
                Ok(Filled::Text(path))
            }
            Reference::Carry(name) => self.carried(key, name.as_str()).ok_or_else(|| none("has no file yet")),
            Reference::Output(of, name) => {
                self.output(key, of.as_str(), name.as_str()).map_err(|why| none(&why))
            }
            Reference::At(of, name, place) => {
                let place = place.unwrap_or(index);
                let found = self.names.stage(of.as_str()).map(|stage| self.state.seen_from(stage, key));
                let seen = found.ok_or_else(|| none("the plan has no such stage"))?;
                self.files_of(seen, name.as_str(), Some(place)).map_err(|why| none(&why))
            }
            Reference::Choice(of) => {
                let place =
                    self.names.stage(of.as_str()).ok_or_else(|| none("the plan has no such stage"))?;
                let group = self.state.group(self.state.seen_from(place, key));
                group.choice.clone().map(Filled::Text).ok_or_else(|| none("the stage chose nothing"))
            }
            Reference::Item => self.item(key).ok_or_else(|| none("the stage does not fan out")),
            Reference::Index => number(index),
            Reference::Count | Reference::Shards => {
                count().map_or_else(|| Err(none("the stage does not fan out")), number)
            }
            Reference::Shard => number(index + 1),
            Reference::Iteration => number(key.iteration),
            Reference::Key => Ok(Filled::Text(key.name(self.plan))),
            Reference::PlanFolder => Ok(Filled::Text(self.folders.inputs.clone())),
            Reference::Nothing => Ok(Filled::Nothing),
        }
    }

    fn input(&self, file: &Artifact) -> (String, Artifact) {
        let path = if file.path.starts_with('/') {
            file.path.clone()
        } else {
            format!("{}/{}", self.folders.inputs, file.path)
        };
        (path, file.clone())
    }

    fn item(&self, key: Key) -> Option<Filled> {
        let stage = &self.plan.stages[key.stage];
        let index = key.index? as usize;
        if stage.pool().is_some() {
            return self.agent(key).map(|(name, _)| Filled::Text(name.to_string()));
        }
        Some(match stage.for_each.as_ref()? {
            ForEach::Values(values) => Filled::Text(values.get(index)?.to_string()),
            ForEach::Range(_) => Filled::Text(index.to_string()),
            ForEach::Shards(_) => Filled::Text((index + 1).to_string()),
            ForEach::Input(name) => {
                Filled::Files(vec![self.input(self.state.inputs.get(name.as_str())?.get(index)?)])
            }
            ForEach::Agents(_) => return None,
        })
    }

    /// The outputs of all instances of a stage, in order; those that an instance left out are no part.
    fn output(&self, key: Key, of: &str, name: &str) -> Result<Filled, String> {
        let place = self.names.stage(of).ok_or("the plan has no such stage")?;
        self.files_of(self.state.seen_from(place, key), name, None)
    }

    /// The outputs of all instances of a stage, or of one.
    fn files_of(&self, seen: Key, name: &str, place: Option<u32>) -> Result<Filled, String> {
        let group = self.state.group(seen);
        if group.outcome != Some(super::event::Outcome::Ok) {
            let word = group.outcome.map_or("not over", super::event::Outcome::word);
            return Err(format!("the stage is {word}, and has no outputs"));
        }
        let chosen = group.instances.iter().zip(0..).filter(|(_, at)| place.is_none_or(|place| place == *at));
        let made = chosen.filter_map(|(instance, _)| instance.made.as_ref());
        let files = made.filter_map(|made| made.outputs.get(name));
        let files: Vec<(String, Artifact)> =
            files.map(|file| (format!("{}/{}", self.folders.run, file.path), file.clone())).collect();
        if files.is_empty() {
            Err("the stage made no such output".to_owned())
        } else {
            Ok(Filled::Files(files))
        }
    }

    /// The file that an iteration takes from the one before, or the first iteration from an input.
    fn carried(&self, key: Key, name: &str) -> Option<Filled> {
        let looped = &self.plan.loops[self.state.loop_of(key.stage)?];
        let carry = looped.carry.iter().find(|(id, _)| id.as_str() == name)?.1;
        if key.iteration <= 1 {
            let files = self.state.inputs.get(carry.init.as_ref()?.as_str())?;
            return Some(Filled::Files(files.iter().map(|file| self.input(file)).collect()));
        }
        let (stage, output) = carry.from.split_once('.')?;
        let (stage, iteration) = (self.names.stage(stage)?, key.iteration - 1);
        let before = Key { stage, iteration, index: None, shadow: None };
        self.files_of(before, output, None).ok()
    }
}

fn is_cached(stage: &Stage, agent: Option<&Agent>) -> bool {
    let by_agent = matches!(agent, Some(Agent::Ollama(agent)) if agent.cache == Cache::Content);
    (by_agent || stage.cache == Cache::Content) && stage.side_effects != SideEffects::Once
}
