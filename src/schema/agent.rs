//! Agents: the programs and endpoints that do the work of stages.

use super::name::{Id, Name};
use super::policy::Cache;
use crate::settings::duration::Friendly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The program or endpoint that does the work of a stage.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Agent {
    /// A command on this machine.
    Command(CommandAgent),
    /// An HTTP endpoint.
    Http(HttpAgent),
    /// A model behind Ollama's chat endpoint.
    Ollama(OllamaAgent),
}

/// Defines the kinds of agents: the fields of each, and those that all have.
macro_rules! agents {
    ($($(#[$about:meta])* struct $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_about])* pub $field: $type,)*
            /// What the agent can do. Stages ask for capabilities by name.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub capabilities: Vec<Name>,
            /// Groups of agents, for people: such as `memory`, `execution`, `orchestration`, `development`, `workflow`,
            /// `security` or `interface`.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub categories: Vec<Name>,
            /// Attempts at a time; `agent_pool_size` of the limits is the most for all agents together.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1))]
            pub max_parallel: Option<u32>,
            /// The weight of the agent in votes and in the choice of an agent, from 0 to 1.
            #[serde(default = "whole", skip_serializing_if = "is_whole")]
            #[schemars(range(min = 0, max = 1))]
            pub score: f64,
            /// The attempts that the score rests on. An agent with fewer than 5 is new, and takes each fifth piece of
            /// work for which stages ask by capability.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub attempts: Option<u32>,
        }

        impl $name {
            fn skills(&self) -> Skills<'_> {
                Skills {
                    capabilities: &self.capabilities,
                    categories: &self.categories,
                    max_parallel: self.max_parallel,
                    score: self.score,
                    attempts: self.attempts,
                }
            }
        }
    )*};
}

/// What an agent can do, and how much of it at once.
#[derive(Clone, Copy, Debug)]
pub struct Skills<'a> {
    /// What the agent can do.
    pub capabilities: &'a [Name],
    /// Its groups.
    pub categories: &'a [Name],
    /// Attempts at a time; `None` without a limit of the agent's.
    pub max_parallel: Option<u32>,
    /// Its weight, from 0 to 1.
    pub score: f64,
    /// The attempts that its weight rests on, where they are known.
    pub attempts: Option<u32>,
}

agents! {
    /// A command on this machine. The arguments of a stage follow those of its agent.
    struct CommandAgent {
        /// The program and its first arguments. `fedmill` is the program that runs the plan.
        argv: Vec<String>,
        /// Variables of the runner's environment that the command inherits, beside PATH, HOME, LANG, TZ and TMPDIR.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        env: Vec<String>,
    }

    /// An HTTP endpoint. The body of its reply is the stage's output `reply`.
    struct HttpAgent {
        /// The address. `limits.hosts` must list its host.
        url: String,
        /// The method.
        #[serde(default)]
        method: Method,
        /// Headers. A value `env:NAME` is read from the runner's environment, so that no secret stands in the plan.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
        /// The header that carries the idempotency key of the stage.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_header: Option<String>,
        /// The JSON Schema that a reply must follow. Supported: type, properties, required, enum, const, items,
        /// additionalProperties, minimum, maximum, minLength, maxLength, minItems and maxItems.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<Value>,
        /// How long an attempt may take; the timeout of the stage holds too.
        #[serde(default = "half_a_minute")]
        timeout: Friendly,
    }

    /// A model behind the chat endpoint of Ollama, `/api/chat`. The text of its reply is the stage's output `reply`.
    struct OllamaAgent {
        /// The address of the server, such as `http://127.0.0.1:11434`. `limits.hosts` must list its host.
        url: String,
        /// The model.
        model: String,
        /// Options of the model. An answer can be repeated only with `seed` and `num_ctx`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        options: BTreeMap<String, Value>,
        /// The JSON Schema that a reply must follow, as for an HTTP endpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<Value>,
        /// The instruction before each prompt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// How long an attempt may take; the timeout of the stage holds too.
        #[serde(default = "half_a_minute")]
        timeout: Friendly,
        /// Whether a reply is kept and used again for an equal request.
        #[serde(default)]
        cache: Cache,
    }
}

fn whole() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_whole(score: &f64) -> bool {
    *score == 1.0
}

fn half_a_minute() -> Friendly {
    Friendly::seconds(30)
}

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
}

/// The agents that a stage fans out to, or that vote.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// All agents with this capability take part.
    pub capability: Name,
    /// The most of them, those with the highest scores; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
}

/// The agents that can do all of this, by score from the highest on, ties by name.
pub fn able<'a>(agents: &'a BTreeMap<Name, Agent>, capabilities: &[Name]) -> Vec<(&'a Name, &'a Agent)> {
    let mut able: Vec<(&Name, &Agent)> = agents.iter().filter(|(_, agent)| agent.can(capabilities)).collect();
    able.sort_by(|a, b| b.1.skills().score.total_cmp(&a.1.skills().score).then_with(|| a.0.cmp(b.0)));
    able
}

impl Agent {
    /// Gives the agent another score, and the attempts that it rests on.
    pub fn set_score(&mut self, score: f64, attempts: u32) {
        let (its_score, its_attempts) = match self {
            Self::Command(agent) => (&mut agent.score, &mut agent.attempts),
            Self::Http(agent) => (&mut agent.score, &mut agent.attempts),
            Self::Ollama(agent) => (&mut agent.score, &mut agent.attempts),
        };
        (*its_score, *its_attempts) = (score, Some(attempts));
    }

    /// The address of an endpoint.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Command(_) => None,
            Self::Http(agent) => Some(&agent.url),
            Self::Ollama(agent) => Some(&agent.url),
        }
    }

    /// What the agent can do.
    pub fn skills(&self) -> Skills<'_> {
        match self {
            Self::Command(agent) => agent.skills(),
            Self::Http(agent) => agent.skills(),
            Self::Ollama(agent) => agent.skills(),
        }
    }

    /// Whether the agent can do all of this.
    pub fn can(&self, capabilities: &[Name]) -> bool {
        capabilities.iter().all(|capability| self.skills().capabilities.contains(capability))
    }

    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Http(_) => "http",
            Self::Ollama(_) => "ollama",
        }
    }
}

/// The output that holds the reply of an endpoint.
pub const REPLY: &str = "reply";

/// The name of the output that holds the reply of an endpoint.
pub fn reply() -> Id {
    Id::try_from(REPLY.to_owned()).unwrap_or_else(|_| unreachable!("`reply` is a name"))
}
