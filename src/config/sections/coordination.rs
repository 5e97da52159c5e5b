//! `[coordination]`: who takes part in a round, and how long it waits.

use crate::config::duration;
use crate::config::values::Values;
use crate::fleet::select;
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who takes part in a round, and how long it waits.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Coordination {
    /// The least number of clients of a round. With fewer selectable clients, or fewer sound updates, the round is
    /// refused.
    #[schemars(extend("x-origin" = "`min_nodes_per_round`", "x-reader" = "open, collect, aggregate"))]
    pub min_clients: u64,
    /// The most clients that a round selects.
    #[schemars(extend("x-origin" = "`max_nodes_per_round`", "x-reader" = "open"))]
    pub max_clients: u64,
    /// The number of clients whose updates a round wants, between `min_clients` and `max_clients`.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub clients: u64,
    /// How clients are selected: a strategy with settings, as `clients select --strategy` takes it.
    #[schemars(extend(
        "x-origin" = "`selection_strategy`: `weighted_random` is `weighted`",
        "x-reader" = "open"
    ))]
    pub selection: String,
    /// The share of selected clients that is expected to drop out. The round selects as many more.
    #[schemars(extend("x-origin" = "fedmill, for the dropouts that the source mentions", "x-reader" = "open"))]
    pub dropout: f64,
    /// No client waits longer than this number of rounds. Unset: clients may wait for ever.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open", "x-example" = 50))]
    pub max_wait: Option<u64>,
    /// Select clients of these tiers only. An empty list selects from all.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub tiers: Vec<String>,
    /// The share of `clients` whose updates close the round before its deadline.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub quorum: f64,
    /// The time after which a round closes with the updates that came.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    #[schemars(extend("x-origin" = "`round_timeout`", "x-reader" = "open"))]
    pub round_timeout: SignedDuration,
    /// How rounds close: `sync` at the quorum or the deadline, `async` at `buffer` updates of any round.
    #[schemars(extend("x-origin" = "fedmill, for the asynchronous updates of the source", "x-reader" = "open, collect"))]
    pub mode: Mode,
    /// The number of updates that an asynchronous round merges.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open"))]
    pub buffer: u64,
    /// The number of rounds to run, refused ones included. Unset: no end.
    #[schemars(extend("x-origin" = "`num_rounds`", "x-reader" = "run", "x-example" = 100))]
    pub rounds: Option<u64>,
    /// The seed of selections and of everything else that is random.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "open, aggregate"))]
    pub seed: u64,
    /// A late update of more rounds ago than this is not merged.
    #[schemars(extend("x-origin" = "fedmill", "x-reader" = "collect, report"))]
    pub max_staleness: u64,
}

/// How rounds close.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// At the quorum or the deadline.
    #[default]
    Sync,
    /// At a number of buffered updates.
    Async,
}

impl Default for Coordination {
    fn default() -> Self {
        Self {
            min_clients: 10,
            max_clients: 1000,
            clients: 10,
            selection: "weighted".to_owned(),
            dropout: 0.0,
            max_wait: None,
            tiers: Vec::new(),
            quorum: 1.0,
            round_timeout: SignedDuration::from_secs(300),
            mode: Mode::Sync,
            buffer: 10,
            rounds: None,
            seed: 0,
            max_staleness: 10,
        }
    }
}

impl Coordination {
    pub(in crate::config) fn check(&self, values: &mut Values) {
        let values = &mut values.of("coordination");
        values.count("min_clients", self.min_clients);
        values.count("max_clients", self.max_clients);
        values.count("clients", self.clients);
        let most = self.max_clients;
        values.check("clients", self.clients <= most, self.clients, format!("at most max_clients, {most}"));
        let found = self.min_clients;
        values.check("min_clients", found <= most, found, format!("at most max_clients, {most}"));
        values.parsed("selection", &self.selection, select::parse(&self.selection));
        let below_one = (0.0..1.0).contains(&self.dropout);
        values.check("dropout", below_one, self.dropout, "a share from 0 to below 1");
        values.positive_share("quorum", self.quorum);
        values.positive_time("round_timeout", self.round_timeout);
        values.count("buffer", self.buffer);
        self.max_wait.inspect(|rounds| values.count("max_wait", *rounds));
        self.rounds.inspect(|rounds| values.count("rounds", *rounds));
    }

    /// The number of updates that closes a round before its deadline: the quorum of `clients`, rounded up, and at least
    /// `min_clients`.
    pub fn quorum_count(&self) -> u64 {
        count_of(self.quorum, self.clients).max(self.min_clients)
    }

    /// The number of clients that a round selects: `clients`, and as many more as are expected to drop out, but at most
    /// `max_clients`.
    pub fn selected(&self) -> u64 {
        let wanted = (self.clients as f64 / (1.0 - self.dropout) * (1.0 - 1e-12)).ceil() as u64;
        wanted.min(self.max_clients)
    }
}

/// A share of a number, rounded up. The factor ignores rounding of the product.
pub(crate) fn count_of(share: f64, of: u64) -> u64 {
    (share * of as f64 * (1.0 - 1e-12)).ceil() as u64
}
