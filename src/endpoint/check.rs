//! What is wrong with the endpoints of a plan, found before a run starts.

use super::headers;
use crate::language::reply_schema;
use crate::schema::Plan;
use crate::schema::address;
use crate::schema::agent::{Agent, Method};
use crate::schema::stage::Stage;
use serde_json::Value;

/// The faults of all agents that are endpoints: the place in the plan, and the reason.
pub fn faults(plan: &Plan) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (place, host) in plan.limits.hosts.iter().enumerate() {
        if let Err(why) = address::entry(host) {
            found.push((format!("$.limits.hosts[{place}]"), why));
        }
    }
    for (name, agent) in &plan.agents {
        let of_agent = match agent {
            Agent::Command(_) => continue,
            Agent::Http(agent) => {
                let mut of_agent = of_url(&agent.url, &plan.limits.hosts);
                of_agent.extend(headers::faults(agent));
                of_agent.extend(of_format(agent.format.as_ref()));
                of_agent
            }
            Agent::Ollama(agent) => {
                let mut of_agent = of_url(&agent.url, &plan.limits.hosts);
                if agent.url.contains('?') {
                    let why =
                        format!("found `{}`, expected the address of a server", agent.url.escape_debug());
                    of_agent.push(("url".to_owned(), why));
                }
                of_agent.extend(of_format(agent.format.as_ref()));
                of_agent
            }
        };
        found.extend(of_agent.into_iter().map(|(at, why)| (format!("$.agents.{name}.{at}"), why)));
    }
    found.extend(plan.stages.iter().enumerate().filter_map(|(place, stage)| body_of_get(plan, place, stage)));
    found
}

fn of_url(url: &str, hosts: &[String]) -> Vec<(String, String)> {
    let checked = address::of(url).and_then(|(_, address)| address::permit(&address, hosts));
    checked.err().into_iter().map(|why| ("url".to_owned(), why)).collect()
}

fn of_format(format: Option<&Value>) -> Option<(String, String)> {
    format.and_then(|format| reply_schema::fault(format, "format"))
}

/// A stage with a body for an agent that sends none.
fn body_of_get(plan: &Plan, place: usize, stage: &Stage) -> Option<(String, String)> {
    let Agent::Http(agent) = plan.agents.get(stage.agent.as_ref()?)? else { return None };
    let why = "found a body, expected none: the method of the agent is GET".to_owned();
    (stage.body.is_some() && agent.method == Method::Get).then(|| (format!("$.stages[{place}].body"), why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::read;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn each_fault_names_its_place() {
        let found = |hosts: &Value, agent: Value| {
            let plan = json!({"schema": "fedmill.plan/1", "id": "p", "limits": {"hosts": hosts},
                "agents": {"judge": agent}, "stages": [{"id": "s", "agent": "judge", "body": {}}]});
            let plan = read::parse(&plan.to_string(), Path::new("p.json")).unwrap();
            faults(&plan).into_iter().map(|(at, why)| format!("{at}: {why}")).collect::<Vec<_>>()
        };
        let hosts = json!(["a.b"]);
        let http = json!({"kind": "http", "url": "http://a.b/"});
        let with = |key: &str, value: Value| {
            let mut agent = http.clone();
            agent[key] = value;
            agent
        };
        assert_eq!(found(&hosts, http.clone()), Vec::<String>::new());
        for (hosts, agent, expected) in [
            (json!(["a b"]), http.clone(), "$.limits.hosts[0]: found `a b`, expected HOST or HOST:PORT"),
            (
                json!([]),
                http.clone(),
                "$.agents.judge.url: found host a.b:80, expected one of limits.hosts, which lists none",
            ),
            (hosts.clone(), with("url", json!("https://a.b/")), "$.agents.judge.url: found `https://a.b/`"),
            (
                hosts.clone(),
                with("headers", json!({"Host": "x"})),
                "$.agents.judge.headers.Host: found `host`",
            ),
            (hosts.clone(), with("method", json!("GET")), "$.stages[0].body: found a body"),
            (
                hosts.clone(),
                with("format", json!({"properties": {"a": {"pattern": "x"}}})),
                "$.agents.judge.format.properties.a.pattern: found `pattern`, expected one of",
            ),
            (
                hosts,
                json!({"kind": "ollama", "url": "http://a.b/?x=1", "model": "m"}),
                "$.agents.judge.url: found `http://a.b/?x=1`, expected the address of a server",
            ),
        ] {
            let found = found(&hosts, agent);
            assert!(found[0].starts_with(expected), "{found:?}");
        }
    }
}
