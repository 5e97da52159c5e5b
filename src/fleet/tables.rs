//! What a terminal shows of clients and agents.

use crate::fleet::client::Client;
use crate::fleet::history::Past;
use crate::fleet::import::Imported;
use crate::fleet::registry::agents::AgentRow;
use crate::fleet::select::Selection;
use crate::telemetry::cells::{Listing, number, or_dash, wrapped};
use jiff::Timestamp;
use serde_json::Value;

/// Seconds since 1970 as a time in UTC.
fn time(seconds: Option<i64>) -> String {
    or_dash(seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()))
}

/// The day of a time in UTC.
fn day(seconds: Option<i64>) -> String {
    time(seconds).chars().take("2026-01-31".len()).collect()
}

/// A table of clients, with what fits a terminal. [`client`] has all of a client.
pub fn clients() -> Listing {
    let header = ["client", "tier", "compute", "memory", "data", "merged", "last update", "retired"];
    Listing::with_header(header).right(2..6)
}

/// Adds a client to a table of clients.
pub fn add_client(table: &mut Listing, client: &Client) {
    let profile = &client.profile;
    table.add([
        profile.id.clone(),
        or_dash(profile.tier.as_ref()),
        number(profile.compute_capability),
        or_dash(profile.memory.map(number)),
        number(profile.data_size),
        client.history.merged.to_string(),
        day(profile.last_update),
        day(profile.retired_at),
    ]);
}

/// A client, and what it did in some rounds.
pub fn client(client: &Client, rounds: &[Past]) -> String {
    let facts = Listing::of_values(facts(client)).text(&[]);
    if rounds.is_empty() { facts } else { format!("{facts}\n\n{}", past(rounds)) }
}

fn facts(client: &Client) -> [(&'static str, String); 26] {
    let (profile, history) = (&client.profile, &client.history);
    let demands = profile.privacy_requirements;
    let yes = |is: bool| if is { "required" } else { "not required" }.to_owned();
    [
        ("client", profile.id.clone()),
        ("tier", or_dash(profile.tier.as_ref())),
        ("compute capability", profile.compute_capability.to_string()),
        ("memory", or_dash(profile.memory)),
        ("bandwidth", or_dash(profile.bandwidth)),
        ("data size", profile.data_size.to_string()),
        ("connection quality", profile.connection_quality.to_string()),
        ("epsilon cap", or_dash(demands.epsilon)),
        ("secure aggregation", yes(demands.secure_aggregation)),
        ("least threshold", or_dash(demands.min_secagg_threshold)),
        ("public key", or_dash(profile.public_key.as_ref())),
        ("registered", time(Some(client.registered_at))),
        ("last update", time(profile.last_update)),
        ("retired", time(profile.retired_at)),
        ("last round", history.last_round.to_string()),
        ("selected", history.selected.to_string()),
        ("merged", history.merged.to_string()),
        ("rejected", history.rejected.to_string()),
        ("late", history.late.to_string()),
        ("missing", history.missing.to_string()),
        ("refused", history.refused.to_string()),
        ("bytes up", history.bytes_up.to_string()),
        ("bytes down", history.bytes_down.to_string()),
        ("last loss", or_dash(history.last_loss.map(number))),
        ("last duration", or_dash(history.last_duration.map(|seconds| format!("{seconds:.1} s")))),
        ("holds", or_dash(history.holds.as_ref())),
    ]
}

fn past(rounds: &[Past]) -> String {
    let header = ["round", "outcome", "bytes up", "bytes down", "seconds", "reason"];
    let mut table = Listing::with_header(header);
    for past in rounds {
        table.add([
            past.round.to_string(),
            past.outcome.clone(),
            past.bytes_up.to_string(),
            past.bytes_down.to_string(),
            or_dash(past.duration_s.map(|seconds| format!("{seconds:.1}"))),
            or_dash(past.reason.as_ref()),
        ]);
    }
    table.text(&[5])
}

/// The clients of a round, and why each was chosen.
pub fn selection(selection: &Selection) -> String {
    let excluded: Vec<String> =
        selection.excluded.iter().map(|(why, count)| format!("{count} excluded by {why}")).collect();
    let excluded = if excluded.is_empty() { String::new() } else { format!("; {}", excluded.join(", ")) };
    let head = format!(
        "{} of {} clients, by {}{excluded}",
        selection.choices.len(),
        selection.eligible,
        selection.strategy
    );
    let mut table = Listing::with_header(["client", "tier", "probability", "score", "why"]).right([2, 3]);
    let number = |value: Option<f64>| or_dash(value.map(decimals));
    for choice in &selection.choices {
        table.add([
            choice.id.clone(),
            or_dash(choice.tier.as_ref()),
            number(choice.probability),
            number(choice.score),
            choice.why.clone(),
        ]);
    }
    format!("{}\n{}", wrapped(&head, 0), table.text(&[0, 1, 4]))
}

/// Four decimals, or an exponent where they would take a row.
fn decimals(value: f64) -> String {
    if value.abs() < 1e6 { format!("{value:.4}") } else { number(value) }
}

/// What an import did; `active` clients may be selected after it.
pub fn imported(Imported { added, updated, bad, .. }: Imported, active: u64) -> String {
    let more = |count: u64, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
    let (updated, bad) = (more(updated, "updated"), more(bad, "bad rows left out"));
    let clients = if added == 1 { "client" } else { "clients" };
    format!("{added} {clients} added{updated}{bad}; {active} may be selected")
}

/// What an agent can do.
pub fn capabilities(row: &AgentRow) -> Vec<String> {
    let list = row.agent["capabilities"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Agents, with what fits a terminal. [`agent`] has all of an agent.
pub fn agents<'r>(agents: impl IntoIterator<Item = &'r AgentRow>) -> String {
    let header = ["agent", "kind", "capabilities", "score", "recent", "ok", "failed", "retired"];
    let mut table = Listing::with_header(header).right(3..7);
    for agent in agents {
        table.add([
            agent.name.clone(),
            agent.agent["kind"].as_str().unwrap_or_default().to_owned(),
            capabilities(agent).join(", "),
            format!("{:.3}", agent.score),
            or_dash(agent.recent.map(number)),
            agent.succeeded.to_string(),
            agent.failed.to_string(),
            day(agent.retired_at),
        ]);
    }
    table.text(&[0, 2])
}

/// An agent: what its attempts came to, and its description.
pub fn agent(agent: &AgentRow) -> String {
    let facts = Listing::of_values([
        ("agent", agent.name.clone()),
        ("capabilities", capabilities(agent).join(", ")),
        ("score", format!("{:.3}", agent.score)),
        ("recent", or_dash(agent.recent.map(number))),
        ("succeeded", agent.succeeded.to_string()),
        ("failed", agent.failed.to_string()),
        ("expected seconds", or_dash(agent.expected_seconds)),
        ("added", time(Some(agent.added_at))),
        ("retired", time(agent.retired_at)),
        ("why", or_dash(agent.retired_because.as_ref())),
    ]);
    format!("{}\n\n{:#}", facts.text(&[]), agent.agent)
}
