//! The sections of `fedmill.toml`: a struct per section, a field per key.
//!
//! The doc comment of a field describes its key in docs/configuration.md and in the file that `round init` writes.
//! `x-origin` has the key of the source configurations that a key translates, `x-reader` the reader of the key.
//! `x-example` has a value for a key that is unset by default.
//!
//! - [`coordination`], [`model`], [`strategy`], [`tiers`], [`personalization`]: a round and its clients.
//! - [`robustness`], [`privacy`], [`secure`]: hostile and curious parties.
//! - [`compression`], [`evaluation`], [`publish`], [`adaptation`], [`monitoring`]: what goes out, and what is measured.

pub mod adaptation;
pub mod compression;
pub mod coordination;
pub mod evaluation;
pub mod model;
pub mod monitoring;
pub mod personalization;
pub mod privacy;
pub mod publish;
pub mod robustness;
pub mod secure;
pub mod strategy;
pub mod tiers;

pub use adaptation::Adaptation;
pub use compression::Compression;
pub use coordination::{Coordination, Mode};
pub use evaluation::Evaluation;
pub use model::Model;
pub use monitoring::Monitoring;
pub use personalization::Personalization;
pub use privacy::Privacy;
pub use publish::Publish;
pub use robustness::{OnBad, Robustness};
pub use secure::Secure;
pub use strategy::{SentKind, Strategy};
pub use tiers::Tiers;
