//! The headers of a request. Values from the environment stay out of every message.

use crate::schema::agent::HttpAgent;
use std::fmt;
use ureq::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

/// What a value starts with that is the name of a variable.
const FROM_ENV: &str = "env:";

const JSON: &str = "application/json";

/// Headers that the client sets by itself.
const RESERVED: &[&str] =
    &["connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];

/// Headers with their values.
pub struct Headers {
    /// Names and values.
    pub pairs: Vec<(HeaderName, HeaderValue)>,
    /// The variables and their values, which no log may hold.
    secrets: Vec<(String, String)>,
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(name, _)| name)).finish()
    }
}

/// What is wrong with the headers of an agent: the key in the plan, and the reason.
pub fn faults(agent: &HttpAgent) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let named = agent.headers.keys().map(|name| (format!("headers.{name}"), name));
    let keyed = agent.idempotency_header.iter().map(|name| ("idempotency_header".to_owned(), name));
    for (at, name) in named.chain(keyed) {
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => {
                found.push((at, format!("found `{}`, expected the name of a header", name.escape_debug())))
            }
            Ok(name) if RESERVED.contains(&name.as_str()) => {
                found.push((at, format!("found `{name}`, which fedmill sets by itself")));
            }
            Ok(_) => {}
        }
    }
    for (name, value) in &agent.headers {
        let at = format!("headers.{name}");
        match value.strip_prefix(FROM_ENV) {
            Some(variable) if variable.is_empty() || variable.contains(['=', '\0']) => {
                found.push((at, format!("found `{}`, expected env:NAME", value.escape_debug())));
            }
            None if HeaderValue::from_str(value).is_err() => {
                found.push((at, "found a line break or another control character".to_owned()));
            }
            _ => {}
        }
    }
    found
}

/// The headers of a request of an agent: those of the plan, the type of the body, and the key of the work.
///
/// # Errors
///
/// When a variable is missing, or its value cannot stand in a header. No message holds a value.
pub fn of(
    agent: &HttpAgent,
    work: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Headers, String> {
    let mut headers = Headers::json();
    if let Some(name) = &agent.idempotency_header {
        headers.add(name, work)?;
    }
    for (name, value) in &agent.headers {
        let Some(from) = value.strip_prefix(FROM_ENV) else {
            headers.add(name, value)?;
            continue;
        };
        let value = variable(from).ok_or_else(|| {
            format!("header `{name}`: the variable {from} is not set; export it before the run")
        })?;
        headers.add(name, &value).map_err(|_| {
            format!("header `{name}`: the value of the variable {from} has a line break or another control character")
        })?;
        headers.secrets.push((from.to_owned(), value));
    }
    Ok(headers)
}

impl Headers {
    /// The headers of a request that has a JSON body, and no others.
    pub fn json() -> Self {
        let pairs = vec![(CONTENT_TYPE, HeaderValue::from_static(JSON))];
        Self { pairs, secrets: Vec::new() }
    }

    /// Sets a header: one of the plan takes the place of one that fedmill sets.
    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let fault = || format!("header `{}` cannot be sent", name.escape_debug());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| fault())?;
        value.set_sensitive(true);
        self.pairs.retain(|(set, _)| *set != name);
        self.pairs.push((name, value));
        Ok(())
    }

    /// A text without the values of variables: each is replaced by `env:NAME`.
    pub fn hide_in(&self, text: &str) -> String {
        let filled = self.secrets.iter().filter(|(_, value)| !value.is_empty());
        filled.fold(text.to_owned(), |text, (name, value)| text.replace(value, &format!("{FROM_ENV}{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn agent(headers: &serde_json::Value) -> HttpAgent {
        let agent = json!({"url": "http://a/", "headers": headers, "idempotency_header": "Idempotency-Key"});
        serde_json::from_value(agent).unwrap()
    }

    #[test]
    fn values_come_from_the_environment_and_stay_hidden() {
        let agent = agent(&json!({"Authorization": "env:TOKEN", "Content-Type": "text/plain", "X-A": "b"}));
        assert_eq!(faults(&agent), []);
        let headers = of(&agent, "work-1", |name| (name == "TOKEN").then(|| "hunter2".to_owned())).unwrap();
        let value = |name: &str| {
            let found: Vec<_> = headers.pairs.iter().filter(|(found, _)| found == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            found[0].1.to_str().unwrap().to_owned()
        };
        let found = ["authorization", "content-type", "idempotency-key", "x-a"].map(value);
        assert_eq!(found, ["hunter2", "text/plain", "work-1", "b"]);
        assert!(!format!("{headers:?} {:?}", headers.pairs).contains("hunter2"));
        assert_eq!(headers.hide_in("no hunter2 here"), "no env:TOKEN here");
        let missing = of(&agent, "work-1", |_| None).unwrap_err();
        assert_eq!(
            missing,
            "header `Authorization`: the variable TOKEN is not set; export it before the run"
        );
        let broken = of(&agent, "work-1", |_| Some("hunter2\r\nX: y".to_owned())).unwrap_err();
        assert!(broken.contains("has a line break") && !broken.contains("hunter2"), "{broken}");
    }

    #[test]
    fn headers_that_cannot_be_sent_are_found() {
        for (headers, expected) in [
            (json!({"a b": "c"}), "found `a b`, expected the name of a header"),
            (json!({"Host": "c"}), "found `host`, which fedmill sets by itself"),
            (json!({"Content-Length": "5"}), "found `content-length`, which fedmill sets by itself"),
            (json!({"a": "env:"}), "found `env:`, expected env:NAME"),
            (json!({"a": "b\nc: d"}), "found a line break"),
        ] {
            let found = faults(&agent(&headers));
            assert!(found.len() == 1 && found[0].1.starts_with(expected), "{found:?}");
        }
    }
}
