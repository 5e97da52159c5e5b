//! The request of an attempt, whether the plan permits it, and what of the reply is an output.

use super::headers::{self, Headers};
use super::wire::{self, Order};
use super::{ollama, retry_after};
use crate::language::reply_schema;
use crate::plan::read::strict;
use crate::plan::run::event::Failure;
use crate::plan::run::world::{Job, Spent, Task};
use crate::schema::address;
use crate::schema::agent::{HttpAgent, Method, OllamaAgent};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use ureq::http;

/// Statuses whose header Retry-After counts: too many requests, and no service for now.
const ASKS_FOR_TIME: [u16; 2] = [429, 503];

/// What an attempt got from an endpoint.
#[derive(Default, Debug)]
pub struct Exchange {
    /// The body as it came, without secrets, for a log.
    pub log: String,
    /// Tokens, and the pause that the endpoint asks for.
    pub spent: Spent,
    /// The output `reply`.
    pub reply: Vec<u8>,
}

/// What is to be sent.
struct Prepared<'a> {
    url: String,
    method: http::Method,
    headers: Headers,
    body: Option<Vec<u8>>,
    hosts: &'a [String],
}

/// Makes the request of an attempt. `exchange` has what is known of it, even where it fails.
///
/// # Errors
///
/// When the plan does not permit the host, a variable is missing, or the endpoint does not answer as it must.
pub fn call(job: &Job, stop: &Arc<AtomicBool>, exchange: &mut Exchange) -> Result<(), Failure> {
    let prepared = prepare(job).map_err(Failure::Start)?;
    let (uri, address) = address::of(&prepared.url).map_err(Failure::Start)?;
    address::permit(&address, prepared.hosts).map_err(Failure::Start)?;
    let Prepared { method, headers, body, .. } = prepared;
    let reply = wire::send(Order { method, uri, address, headers: &headers, body }, job.limits, stop)?;
    exchange.log = headers.hide_in(&String::from_utf8_lossy(&reply.body));
    if !(200..300).contains(&reply.status) {
        let header = reply.retry_after.filter(|_| ASKS_FOR_TIME.contains(&reply.status));
        exchange.spent.pause = header.and_then(|header| retry_after::seconds(&header, Timestamp::now()));
        return Err(Failure::Http(reply.status));
    }
    exchange.reply = match &job.task {
        Task::Ollama { agent, .. } => of_model(agent, &reply.body, &mut exchange.spent)?,
        Task::Http { agent, .. } => of_http(agent, reply.body)?,
        Task::Command { .. } | Task::Plan { .. } | Task::Reduce { .. } => reply.body,
    };
    Ok(())
}

fn prepare(job: &Job) -> Result<Prepared<'_>, String> {
    match &job.task {
        Task::Command { .. } | Task::Plan { .. } | Task::Reduce { .. } => {
            Err("found no endpoint, expected one".to_owned())
        }
        Task::Http { agent, body, hosts } => {
            let (method, body) = match (agent.method, body) {
                (Method::Get, Some(_)) => {
                    return Err("found a body, expected none: the method of the agent is GET".to_owned());
                }
                (Method::Get, None) => (http::Method::GET, None),
                (Method::Post, body) => (http::Method::POST, Some(bytes(body.as_ref()))),
                (Method::Put, body) => (http::Method::PUT, Some(bytes(body.as_ref()))),
            };
            let headers = headers::of(agent, &job.work, |name| std::env::var(name).ok())?;
            Ok(Prepared { url: agent.url.clone(), method, headers, body, hosts })
        }
        Task::Ollama { agent, prompt, hosts } => {
            let body = Some(bytes(Some(&ollama::request(agent, prompt))));
            let (url, method) = (ollama::url(agent), http::Method::POST);
            Ok(Prepared { url, method, headers: Headers::json(), body, hosts })
        }
    }
}

fn bytes(body: Option<&Value>) -> Vec<u8> {
    body.map(ToString::to_string).unwrap_or_default().into_bytes()
}

/// The output of an HTTP endpoint: the body.
fn of_http(agent: &HttpAgent, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    follow(agent.format.as_ref(), &body).map_err(Failure::Schema)?;
    Ok(body)
}

/// The output of a model: the text of its answer.
fn of_model(agent: &OllamaAgent, body: &[u8], spent: &mut Spent) -> Result<Vec<u8>, Failure> {
    let answer = ollama::answer(body).map_err(Failure::Schema)?;
    spent.tokens = answer.tokens;
    let content = answer.content.map_err(Failure::Schema)?.into_bytes();
    follow(agent.format.as_ref(), &content).map_err(Failure::Schema)?;
    Ok(content)
}

/// Checks that a reply follows its schema, if it has one.
fn follow(format: Option<&Value>, reply: &[u8]) -> Result<(), String> {
    let Some(format) = format else { return Ok(()) };
    let value = strict(reply)?;
    reply_schema::violation(format, &value).map_or(Ok(()), Err)
}
