//! `[adaptation]`: settings that follow what the rounds show.

use crate::config::duration;
use crate::config::values::Values;
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings that follow what the rounds show.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Adaptation {
    /// Bounds of the server's learning rate, which follows FedExP. Unset, as for the other bounds: it does not move.
    #[schemars(extend("x-origin" = "`_adapt_strategies`", "x-reader" = "open, adapt", "x-example" = [1.0, 4.0]))]
    pub server_learning_rate: Option<[f64; 2]>,
    /// Bounds of the quorum, which follows the number of clients that come in time.
    #[schemars(extend("x-origin" = "`adaptive rounds`", "x-reader" = "open, adapt", "x-example" = [0.5, 1.0]))]
    pub quorum: Option<[f64; 2]>,
    /// Bounds of the deadline, which follows the times at which updates come.
    #[serde(with = "duration::bounds")]
    #[schemars(with = "Option<[String; 2]>", extend("x-kind" = "two durations"))]
    #[schemars(extend("x-origin" = "`adaptive rounds`", "x-reader" = "open, adapt", "x-example" = ["1m", "1h"]))]
    pub round_timeout: Option<[SignedDuration; 2]>,
    /// Bounds of the compression target, which follows the bytes of a round.
    #[schemars(extend(
        "x-origin" = "`adaptive communication`, `adaptive bandwidth`",
        "x-reader" = "open, adapt",
        "x-example" = [0.001, 0.1]
    ))]
    pub compression_target: Option<[f64; 2]>,
    /// Whether each tier gets the least lossy codec of `compression.methods` that meets its budget of bytes. The list goes
    /// from the least lossy codec down.
    #[schemars(extend(
        "x-origin" = "`adaptive communication`, `adaptive bandwidth`",
        "x-reader" = "open, adapt"
    ))]
    pub tier_codecs: bool,
    /// Bounds of the number of selected clients, which follows dropouts.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open, adapt", "x-example" = [10, 20]))]
    pub clients: Option<[u64; 2]>,
    /// Bounds of the local steps of a tier, which follow its arrival times.
    #[schemars(extend("x-origin" = "`_adapt_strategies`", "x-reader" = "open, adapt", "x-example" = [1, 10]))]
    pub local_steps: Option<[u64; 2]>,
    /// The bytes that one round may cost, up and down. Unset: no budget.
    #[schemars(extend("x-origin" = "`adaptive bandwidth`", "x-reader" = "adapt", "x-example" = 1000000000))]
    pub bytes_per_round: Option<u64>,
}

impl Adaptation {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("adaptation");
        values.bounds("server_learning_rate", self.server_learning_rate, "a number above 0", |rate| {
            rate.is_finite() && *rate > 0.0
        });
        let share = |share: &f64| *share > 0.0 && *share <= 1.0;
        values.bounds("quorum", self.quorum, "a share above 0 and at most 1", share);
        values.bounds("compression_target", self.compression_target, "a share above 0 and at most 1", share);
        values.bounds("clients", self.clients, "a count above 0", |count| *count > 0);
        values.bounds("local_steps", self.local_steps, "a count above 0", |count| *count > 0);
        let times = self.round_timeout.map(|bounds| bounds.map(duration::Friendly));
        values.bounds("round_timeout", times, "a time above 0", |time| time.0.is_positive());
        self.bytes_per_round.inspect(|bytes| values.count("bytes_per_round", *bytes));
    }
}
