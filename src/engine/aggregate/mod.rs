//! One aggregate run from a request to a published model.

pub mod assemble;
pub mod error;
pub mod geometry;
pub mod publish;
pub mod report;
pub mod request;
pub mod session;
pub mod state;
