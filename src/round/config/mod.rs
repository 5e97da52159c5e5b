//! `fedmill.toml`: the settings of a federation, section by section.
//!
//! [`sections`] has the types: one struct per section, one field per key, with its default. Every key is optional.

pub mod sections;

use sections::{
    Adaptation, Compression, Coordination, Evaluation, Model, Monitoring, Personalization, Privacy, Publish,
    Robustness, SecureAggregation, Strategy, Tiers,
};
use serde::{Deserialize, Serialize};

/// The settings of a federation.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Config {
    /// Who takes part in a round, and how long it waits.
    pub coordination: Coordination,
    /// The first model.
    pub model: Model,
    /// The rule and the checks against hostile clients.
    pub robustness: Robustness,
    /// The server's step, and what clients train with.
    pub strategy: Strategy,
    /// The budget of differential privacy.
    pub privacy: Privacy,
    /// Sums that hide single updates.
    pub secure_aggregation: SecureAggregation,
    /// Codecs and budgets of bytes.
    pub compression: Compression,
    /// Classes of devices.
    pub tiers: Tiers,
    /// Layers that stay with the clients.
    pub personalization: Personalization,
    /// The operator's command that measures a model.
    pub evaluation: Evaluation,
    /// The models that are kept.
    pub publish: Publish,
    /// Settings that follow what the rounds show.
    pub adaptation: Adaptation,
    /// What is exported after every round.
    pub monitoring: Monitoring,
}
