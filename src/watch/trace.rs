//! A run as a trace of OpenTelemetry: a span for the run, for each stage and for each attempt.
//!
//! Source: OpenTelemetry, "OTLP Specification", JSON Protobuf Encoding: ids in hex, 64-bit numbers as text, enums as
//! numbers; and "TraceState: Probability Sampling" for [`is_sampled`]. Ids follow from the run, so that a trace that is
//! written again is the same trace.

use super::status::Watched;
use crate::io::digest::{Blake3, hex};
use crate::plan::run::event::{Ending, Event, Failure, Made, Outcome};
use crate::plan::run::key::Key;
use crate::schema::agent::Agent;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Characters of a trace's id: 16 bytes in hex.
const TRACE_ID: usize = 32;

/// Characters of a span's id: 8 bytes in hex.
const SPAN_ID: usize = 16;

/// The last characters of a trace's id, which decide whether it is sampled: 7 bytes.
const RANDOM: usize = 14;

/// The kind of spans that call an endpoint.
const CLIENT: u8 = 3;

/// The kind of all other spans.
const INTERNAL: u8 = 1;

/// Whether a sample of this share, from 0 to 1, has a run. Every program that samples by the id of the trace decides
/// alike.
pub fn is_sampled(run: &str, share: f64) -> bool {
    let id = run.get(TRACE_ID - RANDOM..TRACE_ID).unwrap_or_default();
    let random = u64::from_str_radix(id, 16).unwrap_or(0) as f64;
    random >= (1.0 - share) * 2f64.powi(56)
}

/// A span: something that took time.
struct Span {
    /// What its id is made from, beside the run.
    of: String,
    parent: Option<String>,
    name: String,
    kind: u8,
    from: i128,
    /// `None` while it goes on.
    to: Option<i128>,
    attributes: Vec<Value>,
    /// Whether it succeeded; `None` for neither.
    succeeded: Option<bool>,
    /// Why it failed.
    why: String,
}

/// The spans of a run as they grow with its events.
struct Spans<'w> {
    watched: &'w Watched,
    stages: BTreeMap<Key, Span>,
    attempts: Vec<Span>,
    /// The attempts that go on, by their places.
    open: BTreeMap<Key, usize>,
}

/// The trace of a run as one message of OTLP. `name` is that of its directory. `None` before its first event.
pub fn message(watched: &Watched, name: &str) -> Option<Value> {
    let first = nanoseconds(&watched.journal.lines.first()?.entry.time);
    let run = watched.id();
    let mut spans = Spans::new(watched);
    for record in &watched.journal.lines {
        spans.add(&record.entry.data, nanoseconds(&record.entry.time), record.seq);
    }
    let until = (watched.until() * 1e9) as i128;
    if watched.runner.is_none() {
        spans.interrupt(nanoseconds(&watched.journal.lines.last()?.entry.time));
    }
    let mut root = Span::new("run".to_owned(), None, watched.plan.id.to_string(), first);
    root.attributes = vec![
        text("fedmill.plan", watched.plan.id.as_str()),
        text("fedmill.run", name),
        text("fedmill.run.id", &run),
        text("fedmill.run.state", watched.word()),
    ];
    if let Some(ending) = &watched.state.ending {
        root.to = watched.journal.lines.last().map(|line| nanoseconds(&line.entry.time));
        root.succeeded = Some(*ending == Ending::Succeeded);
        root.why = watched.why().unwrap_or_default();
    }
    let all = std::iter::once(root).chain(spans.stages.into_values()).chain(spans.attempts);
    let all: Vec<Value> = all.map(|span| span.json(&run, until)).collect();
    let version = env!("CARGO_PKG_VERSION");
    Some(json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", "fedmill"), text("service.version", version)]},
        "scopeSpans": [{"scope": {"name": "fedmill.plan", "version": version}, "spans": all}],
    }]}))
}

impl<'w> Spans<'w> {
    fn new(watched: &'w Watched) -> Self {
        Self { watched, stages: BTreeMap::new(), attempts: Vec::new(), open: BTreeMap::new() }
    }

    /// The span of a key's stage, which begins now unless it began before.
    fn stage(&mut self, key: Key, now: i128) -> &mut Span {
        let key = Key { index: None, ..key };
        let watched = self.watched;
        self.stages.entry(key).or_insert_with(|| {
            let mut span =
                Span::new(of_stage(key, watched), Some("run".to_owned()), key.name(&watched.plan), now);
            span.attributes.push(text("fedmill.stage", watched.plan.stages[key.stage].id.as_str()));
            if key.iteration > 0 {
                span.attributes.push(number("fedmill.iteration", u64::from(key.iteration)));
            }
            span
        })
    }

    fn add(&mut self, event: &Event, now: i128, seq: u64) {
        match event {
            Event::Begin { key, attempt, agent, calls, .. } => {
                self.stage(*key, now).to = None;
                let of = format!("attempt {seq}");
                let parent = Some(of_stage(*key, self.watched));
                let mut span = Span::new(of, parent, key.name(&self.watched.plan), now);
                span.attributes =
                    vec![number("fedmill.attempt", u64::from(*attempt)), text("fedmill.agent", agent)];
                if *calls > 0 {
                    span.attributes.push(number("fedmill.requests", *calls));
                }
                let agents = &self.watched.plan.agents;
                let found = agents.iter().find(|(name, _)| name.as_str() == agent).map(|(_, agent)| agent);
                if matches!(found, Some(Agent::Http(_) | Agent::Ollama(_))) {
                    span.kind = CLIENT;
                }
                self.open.insert(*key, self.attempts.len());
                self.attempts.push(span);
            }
            Event::Made { key, made, .. } => self.end(*key, now, Some(true), "", of_made(made)),
            Event::Failed { key, failure, tokens, .. } => {
                let mut attributes = of_failure(failure);
                attributes.extend((*tokens > 0).then(|| number("fedmill.tokens", *tokens)));
                let succeeded = (*failure != Failure::Cancelled).then_some(false);
                self.end(*key, now, succeeded, &failure.to_string(), attributes);
            }
            Event::Attested { key, done } => {
                self.end(*key, now, done.then_some(true), "", vec![flag("fedmill.attested", *done)]);
            }
            Event::Resume => self.interrupt(now),
            Event::Gate { key, .. } => self.stage(*key, now).to = None,
            Event::Settled { key, outcome, why, choice, .. } => {
                let span = self.stage(*key, now);
                span.to = Some(now);
                span.succeeded = match outcome {
                    Outcome::Ok => Some(true),
                    outcome if outcome.is_failure() => Some(false),
                    _ => None,
                };
                span.why.clone_from(why);
                span.attributes.retain(|attribute| attribute["key"] != "fedmill.outcome");
                span.attributes.push(text("fedmill.outcome", outcome.word()));
                span.attributes.extend(choice.as_ref().map(|choice| text("fedmill.choice", choice)));
            }
            _ => {}
        }
    }

    /// Ends the attempt of an instance that goes on.
    fn end(&mut self, key: Key, now: i128, succeeded: Option<bool>, why: &str, attributes: Vec<Value>) {
        let Some(place) = self.open.remove(&key) else { return };
        let span = &mut self.attempts[place];
        (span.to, span.succeeded) = (Some(now), succeeded);
        why.clone_into(&mut span.why);
        span.attributes.extend(attributes);
    }

    /// Ends the attempts of a runner that was killed.
    fn interrupt(&mut self, now: i128) {
        for key in self.open.keys().copied().collect::<Vec<_>>() {
            self.end(key, now, Some(false), "the runner ended in the middle of it", Vec::new());
        }
    }
}

impl Span {
    fn new(of: String, parent: Option<String>, name: String, from: i128) -> Self {
        Self {
            of,
            parent,
            name,
            kind: INTERNAL,
            from,
            to: None,
            attributes: Vec::new(),
            succeeded: None,
            why: String::new(),
        }
    }

    /// The span in OTLP. One that goes on ends at `until`, and has the attribute `fedmill.open`.
    fn json(self, run: &str, until: i128) -> Value {
        let id = |of: &str| hex(&Blake3::of_bytes(format!("{run} {of}").as_bytes()))[..SPAN_ID].to_owned();
        let mut attributes = self.attributes;
        attributes.extend(self.to.is_none().then(|| flag("fedmill.open", true)));
        let to = self.to.unwrap_or(until).max(self.from);
        let status = match self.succeeded {
            None => json!({}),
            Some(true) => json!({"code": 1}),
            Some(false) => json!({"code": 2, "message": self.why}),
        };
        json!({
            "traceId": &run[..TRACE_ID],
            "spanId": id(&self.of),
            "parentSpanId": self.parent.map_or_else(String::new, |parent| id(&parent)),
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": self.from.to_string(),
            "endTimeUnixNano": to.to_string(),
            "attributes": attributes,
            "status": status,
        })
    }
}

/// What the id of a stage's span is made from.
fn of_stage(key: Key, watched: &Watched) -> String {
    format!("stage {}", Key { index: None, ..key }.name(&watched.plan))
}

fn of_made(made: &Made) -> Vec<Value> {
    let mut attributes = Vec::new();
    attributes.extend((made.calls == 0 && !made.cached).then(|| number("process.exit.code", 0)));
    attributes.extend(made.cached.then(|| flag("fedmill.cached", true)));
    attributes.extend((made.tokens > 0).then(|| number("fedmill.tokens", made.tokens)));
    let metric = |(name, value): (&String, &f64)| json!({"key": format!("fedmill.metric.{name}"), "value": {"doubleValue": value}});
    attributes.extend(made.metrics.iter().map(metric));
    attributes
}

fn of_failure(failure: &Failure) -> Vec<Value> {
    let whole = |key: &str, value: i64| json!({"key": key, "value": {"intValue": value.to_string()}});
    match failure {
        Failure::Exit(status) => vec![whole("process.exit.code", i64::from(*status))],
        Failure::Signal(signal) => vec![whole("fedmill.signal", i64::from(*signal))],
        Failure::Http(status) => vec![whole("http.response.status_code", i64::from(*status))],
        _ => Vec::new(),
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn flag(key: &str, value: bool) -> Value {
    json!({"key": key, "value": {"boolValue": value}})
}

/// The time of a line of the journal, in nanoseconds since 1970.
fn nanoseconds(time: &str) -> i128 {
    time.parse::<Timestamp>().map_or(0, Timestamp::as_nanosecond)
}
