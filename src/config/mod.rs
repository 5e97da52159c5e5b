//! `fedmill.toml`: the settings of a federation, section by section.
//!
//! - [`sections`] has the types: one struct per section, one field per key, with its default. Every key is optional.
//! - `read`: the file to a [`Config`], with every fault at once; `values` checks what has the right type.
//! - [`keys`]: the keys with their descriptions, for the page in docs, the file of `round init`, and messages.
//! - [`template`](fn@template): the file that `round init` writes.
//! - [`duration`]: durations as an operator writes them.
//! - [`error`]: why the file cannot be used.

pub mod duration;
pub mod error;
pub mod keys;
mod read;
pub mod sections;
mod template;
mod values;

use error::ConfigError;
use schemars::JsonSchema;
use sections::{
    Adaptation, Compression, Coordination, Evaluation, Model, Monitoring, Personalization, Privacy, Publish,
    Robustness, Secure, Strategy, Tiers,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
pub use template::template;
use values::{BadValue, Values};

/// The name of the file in a state directory.
pub const FILE: &str = "fedmill.toml";

/// The settings of a federation.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Config {
    /// Who takes part in a round, and how long it waits.
    pub coordination: Coordination,
    /// The first model.
    pub model: Model,
    /// The rule, and the checks against hostile clients.
    ///
    /// The default rule cuts as many values on each side as `byzantine_tolerance` assumes hostile clients. So it
    /// tolerates every share below one half; at 0 it is the unweighted mean.
    pub robustness: Robustness,
    /// The server's step, and what clients train with.
    pub strategy: Strategy,
    /// The budget of differential privacy.
    ///
    /// A private round releases the noised mean alone. It needs `rule = "mean"`, `byzantine_tolerance = 0` and no step
    /// before the rule.
    pub privacy: Privacy,
    /// Sums that hide single updates.
    ///
    /// Clients mask their updates, helpers remove the masks from the sum, and the server sees the sum alone. With
    /// `groups = 1` that needs `rule = "mean"`, `byzantine_tolerance = 0` and no step before the rule.
    #[serde(alias = "secure_aggregation")]
    pub secure: Secure,
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
    ///
    /// A setting moves only if its bounds are set, only within them, and never in private rounds.
    pub adaptation: Adaptation,
    /// What is exported after every round.
    pub monitoring: Monitoring,
}

impl Config {
    /// Reads a file. A key that it lacks has its default.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has an unknown key or a bad value: the error has all of them, each with its line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = crate::io::text::read_regular(path).map_err(|why| ConfigError::of_file(path, why))?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file. `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        read::parse(text).map_err(|faults| ConfigError::Bad { path: path.to_owned(), faults })
    }

    /// The values that cannot be used. Findings over several keys are those of the room `lint`.
    fn bad_values(&self) -> Vec<BadValue> {
        let mut values = Values::default();
        self.coordination.check(&mut values);
        self.robustness.check(&mut values);
        self.strategy.check(&mut values);
        self.privacy.check(&mut values);
        self.secure.check(&mut values);
        self.compression.check(&mut values);
        self.personalization.check(&mut values);
        self.evaluation.check(&mut values);
        self.publish.check(&mut values);
        self.adaptation.check(&mut values);
        self.monitoring.check(&mut values);
        values.0
    }
}
