//! Requests to HTTP endpoints and to models.
//!
//! [`check`] finds what is wrong with the endpoints of a plan before a run starts: [`headers`] parses headers. [`call`]
//! makes a request: [`wire`] sends it over one connection, [`ollama`] knows the chat endpoint of Ollama, and
//! [`retry_after`] reads when a server wants to be asked again. [`fault`] says what came in the way.

pub mod call;
pub mod check;
pub mod fault;
pub mod headers;
pub mod ollama;
pub mod retry_after;
pub mod wire;
