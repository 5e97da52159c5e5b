//! A swarm: agents propose, revise after they saw the proposals of their neighbours, and vote.

use super::parts::{head, input, shell};
use super::settings::{Given, Setting, TemplateError};
use crate::schema::agent::Agent;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the plan does.
pub const ABOUT: &str =
    "Agents propose, revise in rounds after they saw their neighbours' proposals, and vote.";

/// Its settings.
pub const SETTINGS: &[Setting] = &[
    Setting::with_default("id", "swarm", "the name of the plan"),
    Setting::required("goal", "what the agents shall propose, in words"),
    Setting::required("capability", "the agents: all of the registry that have it, with --agents"),
    Setting::optional(
        "command",
        "without --agents: the command that each agent runs; its arguments are those of docs/plans.md",
    ),
    Setting::optional("size", "the number of agents; all of the registry by default, 3 with a command"),
    Setting::with_default("rounds", "2", "the rounds in which agents revise, from 0 to 20"),
    Setting::with_default("topology", "mesh", "whose proposals an agent sees: mesh, hierarchical or hybrid"),
    Setting::optional("task", "a file that each agent reads"),
    Setting::optional("voters", "the capability of those who vote; that of the agents by default"),
    Setting::with_default(
        "min_proposals",
        "2",
        "the fewest proposals that the vote needs; an agent that makes none holds up no other",
    ),
    Setting::with_default("threshold", "0.7", "the share of all weight that wins the vote"),
    Setting::with_default("quorum", "0.5", "the share of all weight that must answer"),
    Setting::with_default("weight_cap", "0.334", "the most that one voter may have of all weight"),
    Setting::with_default(
        "no_consensus",
        "fail",
        "without a winner: fail, first (the first proposal that there is) or gate",
    ),
    Setting::with_default("timeout", "10m", "how long a stage may take"),
];

/// The most rounds.
const MOST_ROUNDS: u32 = 20;

/// The most agents.
const MOST_AGENTS: usize = 100;

/// The plan.
///
/// # Errors
///
/// When a setting is wrong, or there are fewer than two agents.
pub fn build(given: &Given) -> Result<Value, TemplateError> {
    let mut plan = head(given, given.text("goal")?.to_owned())?;
    plan["params"] = json!({"goal": given.text("goal")?});
    if given.has("task") {
        plan["inputs"] = json!([input("task", given.text("task")?)]);
    }
    let members = members(given)?;
    let mut agents = json!({"copy": {"kind": "command", "argv": ["cp"], "capabilities": ["copy"]}});
    for (name, agent) in &members {
        agents[name] = agent.clone();
    }
    plan["agents"] = agents;
    let swarm = Swarm {
        kinds: members.iter().map(|(name, agent)| (name.clone(), kind(agent))).collect(),
        topology: Topology::read(given)?,
        has_task: given.has("task"),
    };
    let rounds = rounds(given)?;
    let mut stages = Vec::new();
    for round in 0..=rounds {
        stages.extend((0..members.len()).map(|place| swarm.proposal(round, place)));
    }
    stages.push(swarm.vote(given, rounds)?);
    stages.extend((0..members.len()).map(|place| take(rounds, place)));
    plan["stages"] = json!(stages);
    Ok(plan)
}

fn kind(agent: &Value) -> String {
    agent["kind"].as_str().unwrap_or_default().to_owned()
}

fn rounds(given: &Given) -> Result<u32, TemplateError> {
    let found = given.text("rounds")?;
    let rounds = found.parse().ok().filter(|rounds| *rounds <= MOST_ROUNDS);
    rounds.ok_or_else(|| TemplateError::Value {
        key: "rounds".to_owned(),
        found: found.to_owned(),
        expected: "a whole number from 0 to 20",
    })
}

/// The agents, each with its name: those of the registry, the highest score first, or those that run the command.
fn members(given: &Given) -> Result<Vec<(String, Value)>, TemplateError> {
    let capability = given.text("capability")?;
    let size = if given.has("size") { Some(given.count("size")? as usize) } else { None };
    if let Some(size) = size.filter(|size| *size > MOST_AGENTS) {
        let (key, found) = ("size".to_owned(), size.to_string());
        return Err(TemplateError::Value { key, found, expected: "a whole number from 1 to 100" });
    }
    let found: Vec<(String, Value)> = if given.has("command") {
        let agent = shell(given.text("command")?, capability);
        (1..=size.unwrap_or(3)).map(|number| (format!("agent-{number}"), agent.clone())).collect()
    } else {
        let able = given.able(capability).into_iter().take(size.unwrap_or(usize::MAX));
        able.map(|(name, agent)| (name.to_string(), serde_json::to_value(agent).unwrap_or_default()))
            .collect()
    };
    let enough = 2.max(size.unwrap_or(2))..=MOST_AGENTS;
    if enough.contains(&found.len()) {
        return Ok(found);
    }
    Err(TemplateError::Members {
        capability: capability.to_owned(),
        found: found.len(),
        least: *enough.start(),
        most: MOST_AGENTS,
        nearest: given.nearest(capability),
    })
}

/// Whose proposals an agent sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topology {
    /// Those of all others.
    Mesh,
    /// In a tree in which each agent has two below it: those of the agent above it and of those below.
    Hierarchical,
    /// In groups: those of the others in the group; the first of a group sees the first of the others, too.
    Hybrid,
}

impl Topology {
    fn read(given: &Given) -> Result<Self, TemplateError> {
        match given.text("topology")? {
            "mesh" => Ok(Self::Mesh),
            "hierarchical" => Ok(Self::Hierarchical),
            "hybrid" => Ok(Self::Hybrid),
            found => {
                let (key, found) = ("topology".to_owned(), found.to_owned());
                Err(TemplateError::Value { key, found, expected: "mesh, hierarchical or hybrid" })
            }
        }
    }

    /// Whether an agent sees another one.
    fn joins(self, a: usize, b: usize, size: usize) -> bool {
        let group = (1..).find(|group| group * group >= size).unwrap_or(1);
        let is_above = |above: usize, below: usize| below > 0 && (below - 1) / 2 == above;
        a != b
            && match self {
                Self::Mesh => true,
                Self::Hierarchical => is_above(a, b) || is_above(b, a),
                Self::Hybrid => a / group == b / group || a.is_multiple_of(group) && b.is_multiple_of(group),
            }
    }
}

struct Swarm {
    /// The name and the kind of each agent.
    kinds: Vec<(String, String)>,
    topology: Topology,
    has_task: bool,
}

/// The stage in which an agent proposes; rounds count from 0, agents from 1.
fn id(round: u32, place: usize) -> String {
    format!("r{round}_{}", place + 1)
}

/// The last proposal of an agent up to a round; with `or_nothing`, also where it made none.
fn reference(round: u32, place: usize, or_nothing: bool) -> String {
    let rounds: Vec<String> =
        (0..=round).rev().map(|round| format!("{}.proposal", id(round, place))).collect();
    format!("{{{}{}}}", rounds.join("|"), if or_nothing { "?" } else { "" })
}

impl Swarm {
    /// The first proposal of an agent, or a revised one.
    fn proposal(&self, round: u32, place: usize) -> Value {
        let (name, kind) = &self.kinds[place];
        let mut stage = json!({"id": id(round, place), "agent": name, "min_succeeded": 0,
            "out": [{"name": "proposal", "path": "-"}]});
        let seen: Vec<usize> = match round {
            0 => Vec::new(),
            _ => {
                let others = 0..self.kinds.len();
                let others = others.filter(|other| self.topology.joins(place, *other, self.kinds.len()));
                std::iter::once(place).chain(others).collect()
            }
        };
        if round > 0 {
            stage["needs"] = seen.iter().map(|other| id(round - 1, *other)).collect();
            // An agent that proposed nothing has nothing to revise.
            stage["when"] = json!(format!("stages.{}.ok", id(0, place)));
        }
        let text = |other: &usize| reference(round.saturating_sub(1), *other, *other != place);
        let texts: Vec<String> = seen.iter().map(text).collect();
        let ask = if round == 0 {
            "Write a proposal for the goal.".to_owned()
        } else {
            "Revise your proposal after reading the others. Write the whole proposal.".to_owned()
        };
        let verb = if round == 0 { "propose" } else { "revise" };
        let labels =
            (0..texts.len()).map(|at| if at == 0 { "Yours".to_owned() } else { format!("Another, {at}") });
        self.fill(&mut stage, &[kind.as_str()], (verb, &ask), labels.zip(texts).collect());
        stage
    }

    /// The vote over the last proposals.
    fn vote(&self, given: &Given, rounds: u32) -> Result<Value, TemplateError> {
        let places = 0..self.kinds.len();
        let options: Vec<String> = places.clone().map(|place| format!("p{}", place + 1)).collect();
        let voters = given.text("voters").or_else(|_| given.text("capability"))?;
        let candidates: BTreeMap<&String, String> =
            options.iter().zip(places.clone().map(|place| reference(rounds, place, false))).collect();
        let least = given.count("min_proposals")?;
        if !(1..=places.len()).contains(&(least as usize)) {
            let (key, found) = ("min_proposals".to_owned(), least.to_string());
            let expected = "a whole number from 1 to the number of agents";
            return Err(TemplateError::Value { key, found, expected });
        }
        let mut consensus = json!({"capability": voters, "options": options, "candidates": candidates,
            "min_options": least, "threshold": given.json("threshold")?,
            "quorum": given.json("quorum")?, "weight_cap": given.json("weight_cap")?,
            "timeout": given.text("timeout")?});
        let mut stage =
            json!({"id": "vote", "needs": places.clone().map(|place| id(rounds, place)).collect::<Vec<_>>()});
        match given.text("no_consensus")? {
            "fail" => {}
            "first" => {
                consensus["on_no_consensus"] = json!("fallback");
                consensus["fallback"] = json!("p1");
            }
            "gate" => {
                consensus["on_no_consensus"] = json!("gate");
                stage["gate"] = json!({"timeout": "24h", "default": "reject",
                    "question": "Shall the proposal with the largest share hold?"});
            }
            found => {
                let (key, found) = ("no_consensus".to_owned(), found.to_owned());
                return Err(TemplateError::Value { key, found, expected: "fail, first or gate" });
            }
        }
        stage["consensus"] = consensus;
        let ask = format!(
            "Which proposal is the best? Answer as JSON with one of {}: {{{{\"option\": \"p1\"}}}}",
            options.join(", ")
        );
        let texts = places.map(|place| reference(rounds, place, true));
        let kinds = self.voting(given, voters);
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        self.fill(&mut stage, &kinds, ("vote", &ask), options.into_iter().zip(texts).collect());
        Ok(stage)
    }

    /// The kinds of those who vote.
    fn voting(&self, given: &Given, voters: &str) -> Vec<String> {
        if voters == given.text("capability").unwrap_or_default() {
            return self.kinds.iter().map(|(_, kind)| kind.clone()).collect();
        }
        given.able(voters).iter().map(|(_, agent)| Agent::kind(agent).to_owned()).collect()
    }

    /// What the agents of a stage are asked: as arguments, as a prompt, or as a body.
    fn fill(
        &self,
        stage: &mut Value,
        kinds: &[&str],
        (verb, ask): (&str, &str),
        texts: Vec<(String, String)>,
    ) {
        let task = self.has_task.then(|| ("Task".to_owned(), "{in.task}".to_owned()));
        if kinds.contains(&"command") {
            // An option without a proposal keeps its argument, so that each proposal stands beside its option.
            let argument = |(label, text): &(String, String)| match verb {
                "vote" => format!("{label}={text}"),
                _ => text.clone(),
            };
            let files = task.iter().filter(|_| verb == "propose").chain(&texts).map(argument);
            let argv = std::iter::once(verb.to_owned()).chain(files);
            stage["argv"] = argv.collect();
            stage["env"] = json!({"GOAL": "{params.goal}"});
        }
        let parts: Vec<(String, String)> = task.into_iter().chain(texts).collect();
        if kinds.contains(&"ollama") {
            let parts = parts.iter().map(|(label, text)| format!("\n\n{label}:\n{text}")).collect::<String>();
            stage["prompt"] = json!(format!("Goal: {{params.goal}}{parts}\n\n{ask}"));
        }
        if kinds.contains(&"http") {
            let parts =
                parts.iter().map(|(label, text)| json!({"label": label, "text": text})).collect::<Vec<_>>();
            stage["body"] = json!({"verb": verb, "goal": "{params.goal}", "ask": ask, "texts": parts});
        }
    }
}

/// Takes the proposal that won.
fn take(rounds: u32, place: usize) -> Value {
    json!({"id": format!("take_{}", place + 1), "branch": format!("p{}", place + 1), "agent": "copy",
        "needs": ["vote", id(rounds, place)], "argv": [reference(rounds, place, false), "{out.proposal}"],
        "out": [{"name": "proposal", "path": "proposal"}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(topology: Topology, size: usize) -> Vec<Vec<usize>> {
        (0..size).map(|a| (0..size).filter(|b| topology.joins(a, *b, size)).collect()).collect()
    }

    #[test]
    fn each_topology_joins_its_neighbours() {
        assert_eq!(seen(Topology::Mesh, 3), [vec![1, 2], vec![0, 2], vec![0, 1]]);
        let tree = [vec![1, 2], vec![0, 3, 4], vec![0, 5], vec![1], vec![1], vec![2]];
        assert_eq!(seen(Topology::Hierarchical, 6), tree);
        let groups = [vec![1, 2, 3], vec![0, 2], vec![0, 1], vec![0, 4], vec![3]];
        assert_eq!(seen(Topology::Hybrid, 5), groups);
    }

    #[test]
    fn who_sees_is_seen_and_each_reaches_all() {
        for topology in [Topology::Mesh, Topology::Hierarchical, Topology::Hybrid] {
            for size in 2..30 {
                let seen = seen(topology, size);
                assert!((0..size).all(|a| seen[a].iter().all(|b| seen[*b].contains(&a))));
                let mut reached = vec![0];
                let mut next = 0;
                while next < reached.len() {
                    let more = seen[reached[next]].clone();
                    more.into_iter().for_each(|b| {
                        if !reached.contains(&b) {
                            reached.push(b)
                        }
                    });
                    next += 1;
                }
                assert_eq!(reached.len(), size, "{topology:?}");
            }
        }
    }
}
