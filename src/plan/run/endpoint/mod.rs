//! Requests to HTTP endpoints and to models.
//!
//! [`check`] finds what is wrong with the endpoints of a plan before a run starts: [`headers`] parses headers. [`call`]
//! makes the request of an attempt: [`wire`] sends it over one connection, [`ollama`] knows the chat endpoint of
//! Ollama, and [`retry_after`] reads when a server wants to be asked again.

pub mod call;
pub mod check;
pub mod headers;
pub mod ollama;
pub mod retry_after;
pub mod wire;
