//! The chat endpoint of Ollama: what it is asked, and what it answers.

use crate::schema::agent::OllamaAgent;
use crate::schema::json::strict;
use serde_json::{Value, json};

/// The address of the endpoint.
pub fn url(agent: &OllamaAgent) -> String {
    format!("{}/api/chat", agent.url.trim_end_matches('/'))
}

/// The body of a request.
pub fn request(agent: &OllamaAgent, prompt: &str) -> Value {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let system = agent.system.iter().map(|text| message("system", text));
    let messages: Vec<Value> = system.chain([message("user", prompt)]).collect();
    let mut body = json!({"model": agent.model, "messages": messages, "stream": false});
    if !agent.options.is_empty() {
        body["options"] = json!(agent.options);
    }
    if let Some(format) = &agent.format {
        body["format"] = format.clone();
    }
    body
}

/// An answer.
#[derive(PartialEq, Debug)]
pub struct Answer {
    /// The text; the reason if there is none.
    pub content: Result<String, String>,
    /// Tokens of the request and of the answer.
    pub tokens: u64,
}

/// Reads an answer.
///
/// # Errors
///
/// When it is no JSON object.
pub fn answer(body: &[u8]) -> Result<Answer, String> {
    let body = strict(body)?;
    if !body.is_object() {
        return Err("found no JSON object".to_owned());
    }
    // A count that no whole number holds comes to the largest one, not to none.
    let whole = |count: &Value| count.as_u64().or_else(|| count.as_f64().map(|count| count as u64));
    let count = |name: &str| body.get(name).and_then(whole).unwrap_or(0);
    let tokens = count("prompt_eval_count").saturating_add(count("eval_count"));
    let content = match (&body["message"]["content"], &body["done"]) {
        (_, Value::Bool(false)) => Err("$.done: found false, expected the whole answer".to_owned()),
        (Value::String(text), _) => Ok(text.clone()),
        (Value::Null, _) => Err("$.message.content is missing".to_owned()),
        _ => Err("$.message.content: expected a text".to_owned()),
    };
    Ok(Answer { content, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(rest: Value) -> OllamaAgent {
        let mut agent = json!({"url": "http://a:1/", "model": "m"});
        rest.as_object().unwrap().iter().for_each(|(key, value)| agent[key] = value.clone());
        serde_json::from_value(agent).unwrap()
    }

    #[test]
    fn a_request_has_what_the_plan_says() {
        let plain = agent(json!({}));
        assert_eq!(url(&plain), "http://a:1/api/chat");
        let user = json!({"role": "user", "content": "p"});
        assert_eq!(request(&plain, "p"), json!({"model": "m", "messages": [user], "stream": false}));
        let full = agent(json!({"options": {"seed": 7}, "format": {"type": "object"}, "system": "s"}));
        let expected = json!({"model": "m", "stream": false, "options": {"seed": 7}, "format": {"type": "object"},
            "messages": [{"role": "system", "content": "s"}, user]});
        assert_eq!(request(&full, "p"), expected);
    }

    #[test]
    fn an_answer_is_read_with_its_tokens() {
        let read = |body: &str| answer(body.as_bytes());
        let full = read(r#"{"message":{"content":"x"},"done":true,"prompt_eval_count":3,"eval_count":4}"#);
        assert_eq!(full, Ok(Answer { content: Ok("x".to_owned()), tokens: 7 }));
        let counts = r#""prompt_eval_count":18446744073709551615,"eval_count":1e30"#;
        let most = read(&format!(r#"{{"message":{{"content":"x"}},{counts}}}"#));
        assert_eq!(most.map(|answer| answer.tokens), Ok(u64::MAX));
        for (body, expected) in [
            (r#"{"eval_count":4}"#, "$.message.content is missing"),
            (r#"{"message":{"content":1},"eval_count":4}"#, "$.message.content: expected a text"),
            (r#"{"message":{"content":"x"},"done":false,"eval_count":4}"#, "$.done: found false"),
        ] {
            let found = read(body).unwrap();
            assert!(found.tokens == 4 && found.content.unwrap_err().starts_with(expected));
        }
        assert!(read("{").unwrap_err().starts_with("is no JSON"));
        assert!(read("[1]").unwrap_err().starts_with("found no JSON object"));
    }
}
