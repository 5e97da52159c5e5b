//! Pictures of a plan: a tree for people, DOT, Mermaid and JSON.
//!
//! [`picture`] has what all of them draw: stages with their work, loops, branches and the critical path. [`tree`], [`dot`],
//! [`mermaid`] and [`json`] draw it, and [`commands`] lists what a run would execute.

pub mod commands;
pub mod dot;
pub mod json;
pub mod mermaid;
pub mod picture;
pub mod tree;
