//! One request, whether the plan permits it, and what of the reply is an output.

use super::fault::Fault;
use super::headers::{self, Headers};
use super::wire::{self, Limits, Order};
use super::{ollama, retry_after};
use crate::language::reply_schema;
use crate::schema::address;
use crate::schema::agent::{HttpAgent, Method, OllamaAgent};
use crate::schema::json::strict;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use ureq::http;

/// Statuses whose header Retry-After counts: too many requests, and no service for now.
const ASKS_FOR_TIME: [u16; 2] = [429, 503];

/// What to ask, and whom.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// An HTTP endpoint, with a JSON body.
    Http(&'a HttpAgent, Option<&'a Value>),
    /// A model, with a prompt.
    Model(&'a OllamaAgent, &'a str),
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to ask, and whom.
    pub ask: Ask<'a>,
    /// Hosts that the plan may call.
    pub hosts: &'a [String],
    /// The key of the work, for the header of idempotency.
    pub work: &'a str,
    /// How long it may take.
    pub limits: Limits,
}

/// What a request brought.
#[derive(Default, Debug)]
pub struct Exchange {
    /// The body as it came, without secrets, for a log.
    pub log: String,
    /// Tokens of the model.
    pub tokens: u64,
    /// Seconds that the endpoint wants to be left alone.
    pub pause: Option<f64>,
    /// The output `reply`.
    pub reply: Vec<u8>,
}

/// What is to be sent.
struct Prepared {
    url: String,
    method: http::Method,
    headers: Headers,
    body: Option<Vec<u8>>,
}

/// Makes a request. `exchange` has what is known of it, even where it fails.
///
/// # Errors
///
/// When the plan does not permit the host, a variable is missing, or the endpoint does not answer as it must.
pub fn call(request: &Request<'_>, stop: &Arc<AtomicBool>, exchange: &mut Exchange) -> Result<(), Fault> {
    let prepared = prepare(request).map_err(Fault::Start)?;
    let (uri, address) = address::of(&prepared.url).map_err(Fault::Start)?;
    address::permit(&address, request.hosts).map_err(Fault::Start)?;
    let Prepared { method, headers, body, .. } = prepared;
    let reply = wire::send(Order { method, uri, address, headers: &headers, body }, request.limits, stop)?;
    exchange.log = headers.hide_in(&String::from_utf8_lossy(&reply.body));
    if !(200..300).contains(&reply.status) {
        let header = reply.retry_after.filter(|_| ASKS_FOR_TIME.contains(&reply.status));
        exchange.pause = header.and_then(|header| retry_after::seconds(&header, Timestamp::now()));
        return Err(Fault::Status(reply.status));
    }
    exchange.reply = match request.ask {
        Ask::Model(agent, _) => of_model(agent, &reply.body, &mut exchange.tokens)?,
        Ask::Http(agent, _) => of_http(agent, reply.body)?,
    };
    Ok(())
}

fn prepare(request: &Request<'_>) -> Result<Prepared, String> {
    match request.ask {
        Ask::Http(agent, body) => {
            let (method, body) = match (agent.method, body) {
                (Method::Get, Some(_)) => {
                    return Err("found a body, expected none: the method of the agent is GET".to_owned());
                }
                (Method::Get, None) => (http::Method::GET, None),
                (Method::Post, body) => (http::Method::POST, Some(bytes(body))),
                (Method::Put, body) => (http::Method::PUT, Some(bytes(body))),
            };
            let headers = headers::of(agent, request.work, |name| std::env::var(name).ok())?;
            Ok(Prepared { url: agent.url.clone(), method, headers, body })
        }
        Ask::Model(agent, prompt) => {
            let body = Some(bytes(Some(&ollama::request(agent, prompt))));
            Ok(Prepared {
                url: ollama::url(agent),
                method: http::Method::POST,
                headers: Headers::json(),
                body,
            })
        }
    }
}

fn bytes(body: Option<&Value>) -> Vec<u8> {
    body.map(ToString::to_string).unwrap_or_default().into_bytes()
}

/// The output of an HTTP endpoint: the body.
fn of_http(agent: &HttpAgent, body: Vec<u8>) -> Result<Vec<u8>, Fault> {
    follow(agent.format.as_ref(), &body).map_err(Fault::Reply)?;
    Ok(body)
}

/// The output of a model: the text of its answer.
fn of_model(agent: &OllamaAgent, body: &[u8], tokens: &mut u64) -> Result<Vec<u8>, Fault> {
    let answer = ollama::answer(body).map_err(Fault::Reply)?;
    *tokens = answer.tokens;
    let content = answer.content.map_err(Fault::Reply)?.into_bytes();
    follow(agent.format.as_ref(), &content).map_err(Fault::Reply)?;
    Ok(content)
}

/// Checks that a reply follows its schema, if it has one.
fn follow(format: Option<&Value>, reply: &[u8]) -> Result<(), String> {
    let Some(format) = format else { return Ok(()) };
    let value = strict(reply)?;
    reply_schema::violation(format, &value).map_or(Ok(()), Err)
}
